"""The twin's own certificate: made when asked for, kept in a folder, made anew before it ends.

Writes:  `cert.pem` (for clients to trust) and `key.pem` (mode 0600) in one folder, each under a temporary name first.
Re-run:  a pair that fits, names the hosts and is not near its end is used again, so that clients need no new trust.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from forcelift.twin.errors import TwinError

LIFETIME: Final = timedelta(days=365)
RENEW_BEFORE: Final = timedelta(days=30)
LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "::1")


class CertificateUnusable(TwinError):
    """The certificate or its key cannot be read, do not belong together, or cannot be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Where a certificate and its private key are, both PEM."""

    cert_file: Path
    key_file: Path

    def check(self) -> None:
        """Raises CertificateUnusable if a server could not use them."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert_file, self.key_file, password="")
        except (OSError, ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
            raise CertificateUnusable(
                f"`{self.cert_file}` and `{self.key_file}` are no certificate with its unencrypted key: {reason}"
            ) from error


def own_certificate(folder: Path, *, hosts: Sequence[str] = (), now: datetime | None = None) -> Certificate:
    """The twin's certificate in that folder, made if there is none that will do.

    Args:
        folder: Made if missing, for its owner only.
        hosts: Names and addresses beside those of loopback.
        now: The present, aware; the machine's if left out.
    Raises:
        CertificateUnusable: The folder cannot be written.
    """
    moment = now or datetime.now(UTC)
    pair = Certificate(cert_file=folder / "cert.pem", key_file=folder / "key.pem")
    names = tuple(dict.fromkeys((*LOOPBACK_HOSTS, *(host for host in hosts if host not in ("0.0.0.0", "::")))))  # noqa: S104 - left out, not bound to
    if _will_do(pair, names, moment):
        return pair
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make(pair, names, moment)
    except OSError as error:
        raise CertificateUnusable(f"no certificate can be written to `{folder}`: {error.strerror}") from error
    return pair


def _will_do(pair: Certificate, names: Sequence[str], now: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(pair.cert_file.read_bytes())
        key = load_pem_private_key(pair.key_file.read_bytes(), None)
        known = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    same = certificate.public_key() == key.public_key()
    begun = certificate.not_valid_before_utc <= now
    lasting = certificate.not_valid_after_utc - now > RENEW_BEFORE
    private = pair.key_file.stat().st_mode & 0o077 == 0
    return same and begun and lasting and private and set(_general_names(names)) <= set(known)


def _make(pair: Certificate, names: Sequence[str], now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Forcelift twin")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, key_encipherment=False, content_commitment=False,
        data_encipherment=False, key_agreement=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # a container's clock may be behind
        .not_valid_after(now + LIFETIME)
        # It is its own authority: clients are told to trust exactly this file (REQUESTS_CA_BUNDLE, SSL_CERT_FILE).
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    # The key first: a crash between the two leaves a pair that does not fit, which the next start replaces.
    _write(pair.key_file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    _write(pair.cert_file, certificate.public_bytes(Encoding.PEM), mode=0o644)


def _write(path: Path, content: bytes, *, mode: int) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    return [_general_name(name) for name in names]


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
