"""What clients ask: executes with their binds and defines, fetches, LOB operations, piggybacks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from tests.oracle_server import values
from tests.oracle_server.errors import not_taught
from tests.oracle_server.expressions import (
    FINE,
    TIMESTAMP,
    Value,
    blob,
    literal,
    null_of,
    number_literal,
    text_literal,
)
from tests.oracle_server.types import DATE, NUMBER, ZONED, OraType, varchar
from tests.oracle_server.values import fine_text, number_bytes, number_value
from tests.oracle_server.wire import Reader

PARSE, BIND, DEFINE, EXECUTE, FETCH, COMMIT = 0x01, 0x08, 0x10, 0x20, 0x40, 0x100
DESCRIBE, BATCH_ERRORS = 0x20000, 0x80000
ROW_COUNTS = 0x4000
STRING_MAX = 32767


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A bind or a define: its type on the wire, its size and its character form."""

    type: int
    size: int
    form: int


@dataclass(slots=True)
class Execute:
    """One execute. `rows` holds a list of raw values for each iteration, return binds left out."""

    options: int = 0
    cursor_id: int = 0
    statement: str | None = None
    fetch_rows: int = 0
    iterations: int = 1
    flags: int = 0
    descriptors: list[Descriptor] | None = None
    defines: list[Descriptor] | None = None
    rows: list[list[Any]] = field(default_factory=list)


def read_execute(reader: Reader, field_version: int) -> tuple[Execute, int, int]:
    """The body of function 94 up to its descriptors; then the counts of binds and of defines."""
    request = Execute(options=reader.ub(), cursor_id=reader.ub())
    has_sql = reader.u8()
    reader.ub()
    reader.u8()
    reader.ub()
    reader.raw(2)
    reader.ub()
    request.fetch_rows = reader.ub()
    reader.ub()
    reader.u8()
    binds = reader.ub()
    reader.raw(5)
    reader.u8()
    defines = reader.ub()
    reader.ub()
    reader.raw(3)
    reader.ub()
    reader.u8()
    reader.ub()
    reader.ub()
    reader.u8()
    reader.ub()
    reader.u8()
    if field_version >= 8:
        reader.u8()
        reader.ub()
        reader.u8()
        reader.ub()
        reader.u8()
        if field_version >= 9:
            reader.u8()
            reader.ub()
    if has_sql:
        request.statement = (reader.clr() or b"").decode()
    vector = [reader.ub() for _ in range(13)]
    request.iterations, request.flags = max(vector[1], 1), vector[9]
    return request, binds, defines


def read_descriptors(reader: Reader, count: int, field_version: int) -> list[Descriptor]:
    found = []
    for _ in range(count):
        kind, flags = reader.u8(), reader.u8()
        reader.raw(2)
        size = reader.ub()
        reader.ub()
        reader.ub()
        reader.lclr()
        reader.ub()
        reader.ub()
        form = reader.u8()
        reader.ub()
        if field_version >= 8:
            reader.ub()
        if flags & 0x40:
            raise not_taught("PL/SQL arrays as binds")
        found.append(Descriptor(kind, size, form))
    return found


def read_rows(
    reader: Reader, descriptors: list[Descriptor], iterations: int, *, is_plsql: bool
) -> list[list[bytes | None]]:
    """The raw values of each iteration; those longer than any string come after the others."""
    late = [at for at, one in enumerate(descriptors) if one.size > STRING_MAX and not is_plsql]
    order = [at for at in range(len(descriptors)) if at not in late] + late
    rows = []
    for _ in range(iterations):
        reader.u8()
        row: list[bytes | None] = [None] * len(descriptors)
        for at in order:
            kind = descriptors[at].type
            if kind in (112, 113):
                row[at] = reader.lclr() or None
            elif kind in (1, 2, 3, 8, 12, 23, 24, 96, 100, 101, 180, 181, 182, 183, 231):
                row[at] = reader.clr()
            else:
                raise not_taught(f"binds of type {kind}")
        rows.append(row)
    return rows


def bind_type(descriptor: Descriptor) -> OraType:
    """The type that a bind has in expressions."""
    kind, national = descriptor.type, descriptor.form == 2
    if kind in (1, 8, 96):
        return OraType(kind="NVARCHAR2" if national else "VARCHAR2", length=min(max(descriptor.size, 1), STRING_MAX))
    return {
        2: NUMBER,
        3: NUMBER,
        12: DATE,
        23: OraType(kind="RAW", length=max(descriptor.size, 1)),
        24: OraType(kind="LONG RAW"),
        100: OraType(kind="BINARY_FLOAT"),
        101: OraType(kind="BINARY_DOUBLE"),
        112: OraType(kind="NCLOB" if national else "CLOB"),
        113: OraType(kind="BLOB"),
        180: FINE,
        181: OraType(kind=ZONED[0], scale=9),
        182: OraType(kind="INTERVAL YEAR TO MONTH"),
        183: OraType(kind="INTERVAL DAY TO SECOND", scale=9),
        231: OraType(kind=ZONED[1], scale=9),
    }[kind]


def python_value(raw: bytes | None, descriptor: Descriptor, lobs: dict[bytes, Any], offset_minutes: int) -> Any:
    """A bind as the column that keeps its type would hold it. Numbers are Decimals, DATEs datetimes."""
    if raw is None:
        return None
    kind = descriptor.type
    if kind in (1, 8, 96):
        return raw.decode("utf-16-be" if descriptor.form == 2 else "utf-8") or None
    if kind in (2, 3):
        return number_value(raw)
    if kind in (12, 180, 181, 231):
        moment, nanoseconds, offset = values.moment_value(raw)
        if kind == 12:
            return moment
        if kind == 180:
            return fine_text(moment, nanoseconds)
        if kind == 181:
            return fine_text(moment, nanoseconds) + f"{offset or 0:+d}"
        return fine_text(moment - timedelta(minutes=offset_minutes), nanoseconds)
    if kind in (100, 101):
        return values.binary_value(raw)
    if kind == 182:
        return values.interval_months_value(raw)
    if kind == 183:
        return Decimal(values.interval_seconds_value(raw))
    if kind in (112, 113):
        return lobs[raw]
    return raw


def bind_value(value: Any, descriptor: Descriptor) -> Value:
    """One bind as a literal."""
    kind = bind_type(descriptor)
    if value is None:
        return null_of(kind)
    if kind.is_lob and not isinstance(value, bytes):
        return Value(literal(value), kind)
    if kind.is_text:
        return text_literal(value, kind.sized(len(value.encode())))
    if kind is NUMBER:
        return number_literal(value)
    if kind is DATE:
        return Value(f"TIMESTAMP {literal(fine_text(value, 0)[:19])}", DATE)
    if kind is FINE and value.endswith("000"):
        return Value(f"TIMESTAMP {literal(value[:26])}", TIMESTAMP)
    if isinstance(value, bytes):
        return Value(blob(value), kind)
    return Value(f"CAST({literal(str(value))} AS {kind.stored})", kind)


def bind_column(column: list[Any], descriptor: Descriptor, name: str) -> tuple[pa.Array, Value]:
    """One bind of all iterations as a column."""
    kind, place = bind_type(descriptor), f'binds."{name}"'
    if all(one is None for one in column):
        return pa.array(column, pa.string()), null_of(kind)
    if kind is NUMBER:
        sizes = [one.as_tuple() for one in column if one is not None]
        places = max(max(-int(one.exponent), 0) for one in sizes)
        whole = max(max(len(one.digits) + int(one.exponent), 0) for one in sizes)
        if whole + places <= 38:
            size = max(whole + places, 1)
            return pa.array(column, pa.decimal128(size, places)), Value(place, NUMBER, f"DECIMAL({size},{places})")
        raw = [None if one is None else number_bytes(one) for one in column]
        return pa.array(raw, pa.binary()), Value(place, NUMBER, "BLOB")
    arrow = {"VARCHAR": pa.large_string(), "BLOB": pa.large_binary(), "TIMESTAMP": pa.timestamp("us")}
    arrow |= {
        "DOUBLE": pa.float64(),
        "FLOAT": pa.float32(),
        "BIGINT": pa.int64(),
        "DECIMAL(38,0)": pa.decimal128(38, 0),
    }
    if kind.is_text and not kind.is_lob:
        kind = varchar(max(len(one.encode()) for one in column if one is not None)) if not kind.is_national else kind
    return pa.array(column, arrow[kind.stored]), Value(place, kind)


def read_end_to_end(reader: Reader) -> dict[str, str | None]:
    """Piggyback 135: module, action and so on, as far as they changed."""
    reader.raw(2)
    reader.ub()
    announced = []
    for name in ("CLIENT_IDENTIFIER", "MODULE", "ACTION"):
        announced.append((name, reader.u8(), reader.ub()))
    reader.u8()
    reader.ub()
    reader.u8()
    reader.ub()
    announced.append(("CLIENT_INFO", reader.u8(), reader.ub()))
    for _ in range(2):
        reader.u8()
        reader.ub()
    announced.append(("DBOP", reader.u8(), reader.ub()))
    given: dict[str, str | None] = {}
    for name, is_set, length in announced:
        if is_set:
            given[name] = (reader.clr() or b"").decode() if length else None
    return given


@dataclass(slots=True)
class LobRequest:
    operation: int
    offset: int
    second: int
    amount: int | None
    locator: bytes
    data: bytes | None


def read_lob(reader: Reader) -> LobRequest:
    """Function 96."""
    has_source = reader.u8()
    length = reader.ub()
    reader.u8()
    reader.ub()
    reader.ub()
    reader.ub()
    reader.raw(3)
    operation = reader.ub()
    reader.raw(2)
    offset, second = reader.ub(), reader.ub()
    has_amount = reader.u8()
    reader.raw(6)
    locator = reader.raw(length) if has_source else b""
    if operation == 0x0110:
        reader.ub()
    data = None
    if operation == 0x0040:
        reader.u8()
        data = reader.clr() or b""
    return LobRequest(operation, offset, second, reader.ub() if has_amount else None, locator, data)


def skip_freed_lobs(reader: Reader) -> list[bytes]:
    """Piggyback 96: temporary LOBs to be freed."""
    reader.u8()
    total = reader.ub()
    reader.u8()
    reader.ub()
    reader.ub()
    reader.ub()
    reader.raw(3)
    reader.ub()
    reader.u8()
    reader.ub()
    reader.ub()
    reader.ub()
    reader.u8()
    for _ in range(3):
        reader.u8()
        reader.ub()
    raw = reader.raw(total)
    return [raw[at : at + 40] for at in range(0, total, 40)]
