"""What the server answers: descriptions, rows' headers, and the message that ends a call."""

from __future__ import annotations

from dataclasses import dataclass

from tests.oracle_server.compiler import Output
from tests.oracle_server.errors import OracleError
from tests.oracle_server.types import CHARSET_UTF8, CHARSET_UTF16
from tests.oracle_server.values import unpack_rowid
from tests.oracle_server.wire import Writer, clr_bytes

ERROR, ROW_HEADER, PARAMETER, STATUS, IO_VECTOR, DESCRIBE_INFO, END_OF_RESPONSE = 4, 6, 8, 9, 11, 16, 29


@dataclass(frozen=True, slots=True)
class BatchError:
    """An error of one iteration of many."""

    at: int
    error: OracleError


def end_message(
    field_version: int,
    *,
    error: OracleError | None = None,
    cursor_id: int = 0,
    rows: int = 0,
    rid: int = 0,
    in_transaction: bool = False,
    batch: list[BatchError] | None = None,
) -> Writer:
    """Message 4: the error, or that there is none; the rows done; the errors of single iterations."""
    code = error.code if error else 24381 if batch else 0
    position = error.position if error else 0
    out = Writer().u8(ERROR).ub(2 if in_transaction else 0, 0, 0, min(code, 65535), 0, 0, cursor_id, position)
    out.u8(0, 0, 0, 0, 0, 0)
    data_object, file, block, slot = unpack_rowid(rid)
    out.ub(data_object, file).u8(0).ub(block, slot)
    out.ub(0).u8(0, 0).ub(0, 0, 0)
    entries = batch or []
    out.ub(len(entries))
    if entries:
        out.u8(len(entries) % 254)
        for one in entries:
            out.ub(one.error.code)
    out.ub(len(entries))
    if entries:
        out.u8(len(entries) % 254)
        for one in entries:
            out.ub(one.at)
    out.ub(len(entries))
    if entries:
        out.u8(0)
        for one in entries:
            text = one.error.text.encode()
            out.ub(len(text))
            out.clr(text)
            out.u8(0, 0)
    out.ub(code, rows)
    if field_version >= 14:
        out.ub(0, 0)
    if code:
        out.clr((error.text if error else "ORA-24381: error(s) in array DML").encode())
    return out


def describe(outputs: list[Output], field_version: int) -> Writer:
    """Message 16: the columns of a result."""
    out = Writer().u8(DESCRIBE_INFO).clr(b"")
    out.ub(sum(one.value.type.described()[2] for one in outputs), len(outputs))
    if outputs:
        out.u8(0)
    for at, output in enumerate(outputs, 1):
        kind = output.value.type
        precision, scale, size, characters = kind.described()
        out.u8(kind.number, 0, precision & 0xFF, scale & 0xFF).ub(size, 0, 0)
        charset = CHARSET_UTF16 if kind.is_national else CHARSET_UTF8 if kind.form else 0
        out.lclr(b"").ub(0, charset).u8(kind.form).ub(characters)
        if field_version >= 8:
            out.ub(0)
        out.u8(1 if output.nullable else 0, 0)
        out.lclr(output.name.encode()).lclr(b"").lclr(b"").ub(at, 0)
        if field_version >= 17:
            out.lclr(b"").lclr(b"")
        if field_version >= 20:
            out.ub(0)
        if field_version >= 24:
            out.ub(0).u8(0, 0)
    out.lclr(b"").ub(0, 0, 0, 0).lclr(b"")
    return out


def row_header() -> Writer:
    return Writer().u8(ROW_HEADER, 0).ub(0, 0, 0, 0, 0).lclr(b"")


def row_counts(counts: list[int]) -> Writer:
    """Message 8 with the rows of each iteration."""
    out = Writer().u8(PARAMETER).ub(0, 0, 0, 0, len(counts))
    return out.ub(*counts)


def io_vector(directions: list[int]) -> Writer:
    """Message 11: which binds of a block come back (16), go in (32), or both (48)."""
    out = Writer().u8(IO_VECTOR, 0).ub(len(directions) % 256, len(directions) // 256, 0, 0, 0, 0)
    return out.u8(*directions)


def status(*, in_transaction: bool) -> Writer:
    return Writer().u8(STATUS).ub(2 if in_transaction else 0, 0)


def warning(code: int, text: str) -> Writer:
    """Message 15, which goes before the end of a reply that went well."""
    words = f"ORA-{code:05d}: {text}".encode()
    return Writer().u8(15).ub(code, len(words), 0).clr(words)


def locator_cell(locator: bytes | None, size: int) -> bytes:
    """A LOB's locator in a row."""
    if locator is None:
        return b"\x00"
    return bytes(Writer().ub(len(locator), size, 8060)) + clr_bytes(locator)
