"""Logging on: the 12C verifier's exchange of half keys, and the password that the client proves to know."""

from __future__ import annotations

import hashlib
import secrets

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from tests.oracle_server.errors import OracleError
from tests.oracle_server.wire import Reader, Writer

PHASE_ONE, PHASE_TWO = 118, 115
VERIFIER_12C = 0x4815
_VGEN_ROUNDS, _SDER_ROUNDS = 4096, 3


class Logon:
    """One attempt to log on. A user who does not exist gets a challenge all the same."""

    def __init__(self) -> None:
        self._salt = secrets.token_bytes(16)
        self._key_salt = secrets.token_bytes(16)
        self._half = secrets.token_bytes(32)
        self._hash = b""
        self._password: str | None = None

    def challenge(self, password: str | None) -> Writer:
        """The reply to phase one."""
        self._password = password
        known = (secrets.token_hex(16) if password is None else password).encode()
        key = hashlib.pbkdf2_hmac("sha512", known, self._salt + b"AUTH_PBKDF2_SPEEDY_KEY", _VGEN_ROUNDS, 64)
        self._hash = hashlib.sha512(key + self._salt).digest()[:32]
        return pairs(
            [
                ("AUTH_SESSKEY", _hex(_encrypt(self._hash, self._half)), 0),
                ("AUTH_VFR_DATA", _hex(self._salt), VERIFIER_12C),
                ("AUTH_PBKDF2_CSK_SALT", _hex(self._key_salt), 0),
                ("AUTH_PBKDF2_VGEN_COUNT", str(_VGEN_ROUNDS), 0),
                ("AUTH_PBKDF2_SDER_COUNT", str(_SDER_ROUNDS), 0),
            ]
        )

    def prove(self, given: dict[str, str]) -> str:
        """Check the password of phase two; the proof that the server knows it too, or ORA-01017."""
        try:
            client_half = _decrypt(self._hash, bytes.fromhex(given["AUTH_SESSKEY"]))[:32]
            halves = (client_half + self._half).hex().upper().encode()
            key = hashlib.pbkdf2_hmac("sha512", halves, self._key_salt, _SDER_ROUNDS, 32)
            padded = _decrypt(key, bytes.fromhex(given["AUTH_PASSWORD"]))[16:]
            password = padded[: -padded[-1]].decode()
        except (KeyError, ValueError, IndexError) as error:
            raise OracleError(1017) from error
        if self._password is None or password != self._password:
            raise OracleError(1017)
        return _hex(_encrypt(key, secrets.token_bytes(16) + b"SERVER_TO_CLIENT" + bytes([16]) * 16))


def read_request(reader: Reader) -> tuple[str, dict[str, str]]:
    """The user, and the keys with their values, of either phase."""
    has_user = reader.u8()
    reader.ub()
    reader.ub()
    reader.u8()
    count = reader.ub()
    reader.raw(2)
    user = (reader.clr() or b"").decode() if has_user else ""
    given = {}
    for _ in range(count):
        key, value = reader.lclr().decode(), reader.lclr().decode()
        reader.ub()
        given[key.rstrip("\0")] = value.rstrip("\0")
    return user, given


def pairs(entries: list[tuple[str, str, int]]) -> Writer:
    """Message 8 with keys, values and flags."""
    out = Writer().u8(8).ub(len(entries))
    for key, value, flags in entries:
        out.lclr(key.encode()).lclr(value.encode()).ub(flags)
    return out


def _hex(raw: bytes) -> str:
    return raw.hex().upper()


def _encrypt(key: bytes, plain: bytes) -> bytes:
    work = Cipher(algorithms.AES(key), modes.CBC(bytes(16))).encryptor()
    return work.update(plain) + work.finalize()


def _decrypt(key: bytes, hidden: bytes) -> bytes:
    work = Cipher(algorithms.AES(key), modes.CBC(bytes(16))).decryptor()
    return work.update(hidden) + work.finalize()
