"""A company's network in small: a forward proxy, a certificate authority, and a twin behind TLS that looks like an org.

The proxy is real: it takes CONNECT and plain requests, may ask for a password, and resolves its own names.
"""

from __future__ import annotations

import base64
import re
import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ORG_HOST = "org.example.test"  # a top-level name that is never given to anybody (RFC 6761)
_NO_SIGN = b"x-forcelift-none"
_TWIN_SIGN = re.compile(rb"x-forcelift-twin", re.IGNORECASE)


@dataclass
class Proxy:
    """What the proxy is asked for, and how it answers."""

    names: Mapping[str, tuple[str, int]]  # "host:port" -> where that really is
    password: str | None = None  # as `user:password`
    refuse: int | None = None  # answer every CONNECT with this status
    asked: list[str] = field(default_factory=list)
    port: int = 0


@contextmanager
def running_proxy(proxy: Proxy) -> Iterator[Proxy]:
    """Serve the proxy on a free port of this machine."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            line = self.rfile.readline().decode("latin-1").split()
            headers: dict[str, str] = {}
            while (text := self.rfile.readline().decode("latin-1").strip()) != "":
                name, _, value = text.partition(":")
                headers[name.lower()] = value.strip()
            if len(line) < 2:
                return
            method, target = line[0], line[1]
            proxy.asked.append(f"{method} {target}")
            status = self.refusal(headers)
            place = target if method == "CONNECT" else urlsplit(target).netloc
            if status is None and place not in proxy.names:
                status = 502
            if status is not None:
                self.wfile.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                return
            with closing(socket.create_connection(proxy.names[place], timeout=30)) as there:
                if method == "CONNECT":
                    self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    parts = urlsplit(target)
                    head = f"{method} {parts.path or '/'} HTTP/1.1\r\n"
                    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                    there.sendall((head + "\r\n").encode("latin-1"))
                relay(self.connection, there)

        def refusal(self, headers: Mapping[str, str]) -> int | None:
            if proxy.refuse is not None:
                return proxy.refuse
            if proxy.password is None:
                return None
            wanted = "Basic " + base64.b64encode(proxy.password.encode()).decode()
            return None if headers.get("proxy-authorization") == wanted else 407

    with _serving(Handler) as port:
        proxy.port = port
        yield proxy


@contextmanager
def tls_front(twin_port: int, *, certificate: Path, key: Path) -> Iterator[int]:
    """A port where the twin answers over TLS, without the header by which it says that it is a twin."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                client = context.wrap_socket(self.request, server_side=True)
            except (ssl.SSLError, ConnectionError):
                return  # a client that does not trust the certificate
            with closing(client), closing(socket.create_connection(("127.0.0.1", twin_port), timeout=30)) as there:
                relay(client, there, hide_twin=True)

    with _serving(Handler) as port:
        yield port


@contextmanager
def _serving(handler: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


def relay(here: Any, there: Any, *, hide_twin: bool = False) -> None:
    """Pass bytes on in both directions until one side ends."""
    while True:
        pending = isinstance(here, ssl.SSLSocket) and here.pending()
        ready = [here] if pending else select.select([here, there], [], [], 30)[0]
        if not ready:
            return
        for one in ready:
            try:
                data = one.recv(1 << 16)
                if not data:
                    return
                other = there if one is here else here
                other.sendall(_TWIN_SIGN.sub(_NO_SIGN, data) if hide_twin and one is there else data)
            except (ConnectionError, ssl.SSLError, TimeoutError):
                return


def make_authority(folder: Path, *hosts: str) -> tuple[Path, Path, Path]:
    """A private certificate authority and a certificate of it for these hosts: PEM files of CA, certificate and key."""
    now = datetime.now(UTC)

    def write(name: str, data: bytes) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    def build(subject: str, issuer: str, public: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=2))
        )

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    authority = (
        build("Test company CA", "Test company CA", ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(ca_id, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    certificate = (
        build(hosts[0], "Test company CA", key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return (
        write("company-ca.pem", authority.public_bytes(pem)),
        write("server.pem", certificate.public_bytes(pem)),
        write("server.key", private),
    )
