"""LOBs by locator: those of a fetched row, and temporary ones that clients make for binds."""

from __future__ import annotations

from tests.oracle_server.errors import OracleError, not_taught
from tests.oracle_server.requests import LobRequest
from tests.oracle_server.wire import Writer

_LENGTH, _READ, _WRITE, _CREATE, _FREE, _CHUNK_SIZE = 0x01, 0x02, 0x40, 0x0110, 0x0111, 0x4000
_BLOB_NUMBER = 113
_CHUNK = 8060


class Lobs:
    """The LOBs that one session holds locators of, which stay good until it ends, also when their cursor is closed.

    A CLOB's units are UTF-16 ones, as in a real server.
    """

    def __init__(self) -> None:
        self.values: dict[bytes, str | bytes] = {}
        self._next = 1

    def keep(self, value: str | bytes, *, temporary: bool = False) -> bytes:
        """A locator for a value."""
        locator = bytearray(40)
        locator[1] = 38
        if isinstance(value, bytes):
            locator[4] = 0x01
        else:
            locator[6] = 0x80
        locator[7] = 0x01 if temporary else 0
        locator[8:16] = self._next.to_bytes(8)
        self._next += 1
        self.values[bytes(locator)] = value
        return bytes(locator)

    def free(self, locators: list[bytes]) -> None:
        for locator in locators:
            self.values.pop(locator, None)

    def operate(self, request: LobRequest) -> Writer:
        """The reply to an operation, without the end of the call."""
        if request.operation == _CREATE:
            # The two offsets hold the character form and the type.
            locator = self.keep(b"" if request.second == _BLOB_NUMBER else "", temporary=True)
            out = Writer().u8(8)
            out.extend(locator)
            return out.ub(873).u8(0)
        value = self.values.get(request.locator)
        if value is None:
            raise OracleError(22922, detail="nonexistent LOB value")
        raw = value.encode("utf-16-be") if isinstance(value, str) else value
        unit = 2 if isinstance(value, str) else 1
        out = Writer()
        amount = request.amount or 0
        if request.operation == _LENGTH:
            amount = len(raw) // unit
        elif request.operation == _CHUNK_SIZE:
            amount = _CHUNK
        elif request.operation == _READ:
            start = (request.offset - 1) * unit
            part = raw[start : start + amount * unit]
            amount = len(part) // unit
            out.u8(14).clr(part)
        elif request.operation == _WRITE:
            start = (request.offset - 1) * unit
            raw = raw[:start].ljust(start, b"\0") + (request.data or b"") + raw[start + len(request.data or b"") :]
            self.values[request.locator] = raw.decode("utf-16-be") if isinstance(value, str) else raw
        else:
            raise not_taught(f"the LOB operation {request.operation:#x}")
        out.u8(8)
        out.extend(request.locator)
        if request.amount is not None:
            out.ub(amount)
        return out
