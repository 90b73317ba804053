"""Network services: what a client asks for before it logs on by the certificate that it has shown.

A client that signs in so sends one message of four services, with numbers in network order. This server knows the
supervisor, and of the authentications that by TCPS; of encryption and checksums of their own it has none, since TLS has
both. Facts are from python-oracledb's open source (UPL, Apache-2.0).
"""

from __future__ import annotations

import ssl
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.oracle_server.wire import Reader

MAGIC = bytes.fromhex("deadbeef")
_VERSION = struct.pack(">HHI", 4, 5, 0x17700000)
_SUPERVISOR, _AUTHENTICATION, _ENCRYPTION, _INTEGRITY = 4, 1, 2, 3
_RAW, _BYTE, _STATUS, _TEXT = 1, 2, 6, 0
_SUPERVISED, _BY_CERTIFICATE, _BY_PASSWORD = 0x1F, 0xFAFF, 0xFBFF
_NAMES = {"commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C"}


def read(reader: Reader) -> None:
    """The rest of the message behind the first byte of its magic number."""
    reader.raw(3)
    reader.raw(reader.u16() - 6)


def answer(subject: str | None) -> bytes:
    """The reply.

    Args:
        subject: Whom the client's certificate is of; None if it has shown none.
    """
    supervised = struct.pack(">IHIHHHH", 0xDEADBEEF, 3, 4, _SUPERVISOR, _AUTHENTICATION, _ENCRYPTION, _INTEGRITY)
    ways = [_part(_STATUS, struct.pack(">H", _BY_PASSWORD))]
    if subject is not None:
        ways = [_part(_STATUS, struct.pack(">H", _BY_CERTIFICATE)), _part(_BYTE, b"\x02"), _part(_TEXT, b"tcps")]
    services = [
        _service(_SUPERVISOR, _part(_STATUS, struct.pack(">H", _SUPERVISED)), _part(_RAW, supervised)),
        _service(_AUTHENTICATION, *ways),
        _service(_ENCRYPTION, _part(_BYTE, b"\0")),
        _service(_INTEGRITY, _part(_BYTE, b"\0")),
    ]
    body = b"".join(services)
    return MAGIC + struct.pack(">HIHB", 13 + len(body), 0x17700000, len(services), 0) + body


def subject_of(sock: object) -> str | None:
    """Whom the client's certificate is of, as users are IDENTIFIED EXTERNALLY AS; None without one."""
    shown = sock.getpeercert() if isinstance(sock, ssl.SSLSocket) else None
    if not shown:
        return None
    parts = [pair for group in shown["subject"] for pair in group]
    return ",".join(f"{_NAMES.get(name, name)}={value}" for name, value in parts)


def _service(number: int, *parts: bytes) -> bytes:
    return struct.pack(">HHI", number, len(parts) + 1, 0) + _VERSION + b"".join(parts)


def _part(kind: int, value: bytes) -> bytes:
    return struct.pack(">HH", len(value), kind) + value
