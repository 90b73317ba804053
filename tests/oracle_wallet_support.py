"""Wallets as python-oracledb's thin mode reads them, with a certificate that says who signs in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def write_wallet(folder: Path, *, trusts: Path, common_name: str, password: str | None = None) -> Path:
    """A folder with `ewallet.pem`: a client's key and certificate, and the server's to trust; returns the client's.

    Args:
        trusts: The server's certificate.
        common_name: Whom the client's certificate is of.
        password: The key is encrypted by it.
    """
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    hidden = NoEncryption() if password is None else BestAvailableEncryption(password.encode())
    shown = certificate.public_bytes(Encoding.PEM)
    parts = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden), shown, trusts.read_bytes()
    (folder / "ewallet.pem").write_bytes(b"".join(parts))
    (folder / "client.pem").write_bytes(shown)
    return folder / "client.pem"
