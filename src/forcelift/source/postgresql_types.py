"""PostgreSQL's types as column kinds and Arrow types, and the SQL that delivers each.

The driver hands out what `COPY ... (FORMAT binary)` sends. It turns an infinite date into a finite one of its own and
reads every `numeric` as text, so what matters is said in SQL: dates are held inside Arrow's and polars' reach, and a
`numeric` of up to 18 digits travels as a scaled integer, which took half the CPU time of its text. A `numeric` with a
size may hold `NaN` (never infinity); it travels as an integer that 18 digits do not reach, or as its text.
"""

from __future__ import annotations

import sys
from enum import Enum

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from forcelift.protocols.source import BROKEN_NUMBER, Column, ColumnKind
from forcelift.source.names import quote

# Years far outside of any target's range, and inside the +-262,000 years at which polars gives up. `infinity` and
# `-infinity` are delivered as these, so that the rules refuse them as dates out of range.
_LATEST, _EARLIEST = "99999-12-31", "4713-01-01 BC"

_SCALED_DIGITS_MAX = 18  # what a 64-bit integer holds whatever the digits are
_SCALED_NAN = -(2**63)  # has 19 digits
_DECIMAL_DIGITS_MAX = 38
_NUMERIC_HEADER = 4  # PostgreSQL's typmod of a numeric is ((precision << 16) | scale) + 4, the scale in 11 bits, signed


class Decode(Enum):
    """How a column's array, as the driver delivers it, becomes the array of its `Column`."""

    CAST = "cast"
    SCALED = "scaled"  # an integer, the decimal's digits


class BaseType(Struct, frozen=True, kw_only=True):
    """A column's type with its domains taken off, as `pg_type` has it."""

    name: str
    schema: str
    kind: str  # pg_type.typtype: b base, c composite, d domain, e enum, p pseudo, r range, m multirange
    category: str  # pg_type.typcategory: A array, S string, ...
    modifier: int  # -1: none


class PostgresColumn(Struct, frozen=True, kw_only=True):
    """A column, the SQL that delivers it, and what is left to do with what arrives."""

    column: Column
    expression: str
    decode: Decode = Decode.CAST


def postgres_column(name: str, declared: str, base: BaseType, *, nullable: bool, raw_text: bool) -> PostgresColumn:
    """A column by its declared type.

    Args:
        declared: The type as `format_type` writes it.
        base: The type below its domains.
        nullable: Whether it may hold nulls.
        raw_text: Text is delivered as the bytes that the database stores, for a rule to decode.
    """
    quoted = quote(name)

    def of(kind: ColumnKind, arrow: pa.DataType, expression: str) -> PostgresColumn:
        column = Column(name=name, kind=kind, declared=declared, arrow=arrow, nullable=nullable)
        return PostgresColumn(column=column, expression=expression)

    if base.schema == "pg_catalog" and base.kind == "b" and base.category != "A":
        if base.name == "numeric":
            return _numeric(name, declared, base.modifier, nullable=nullable, raw_text=raw_text)
        if base.name in _PLAIN:
            kind, arrow, expression = _PLAIN[base.name]
            return of(kind, arrow, expression.format(quoted))
        shown = "{}::numeric::text" if base.name == "money" else "{}::text"
        return of(ColumnKind.TEXT, *_text(shown.format(quoted), raw_text=raw_text))
    if base.kind == "e" or (base.kind == "b" and base.category == "S"):
        return of(ColumnKind.TEXT, *_text(f"{quoted}::text", raw_text=raw_text))
    return of(ColumnKind.UNSUPPORTED, pa.null(), "NULL")


def _text(expression: str, *, raw_text: bool) -> tuple[pa.DataType, str]:
    if raw_text:
        return pa.binary(), f"convert_to({expression}, getdatabaseencoding())"
    return pa.string(), expression


def _numeric(name: str, declared: str, modifier: int, *, nullable: bool, raw_text: bool) -> PostgresColumn:
    quoted = quote(name)
    size = _decimal_size(modifier)
    if size is None:
        # Digits without bound, NaN and infinity fit no decimal type. As text they reach the rules, row by row.
        arrow, expression = _text(f"{quoted}::text", raw_text=raw_text)
        column = Column(name=name, kind=ColumnKind.TEXT, declared=declared, arrow=arrow, nullable=nullable)
        return PostgresColumn(column=column, expression=expression)
    precision, scale = size
    column = Column(
        name=name,
        kind=ColumnKind.DECIMAL,
        declared=declared,
        arrow=pa.decimal128(precision, scale),
        nullable=nullable,
        precision=precision,
        scale=scale,
    )
    if precision > _SCALED_DIGITS_MAX:
        return PostgresColumn(column=column, expression=f"{quoted}::text")
    digits = f"({quoted} * {10**scale})::int8" if scale else f"{quoted}::int8"
    expression = f"CASE WHEN {quoted} = 'NaN'::numeric THEN '{_SCALED_NAN}'::int8 ELSE {digits} END"
    return PostgresColumn(column=column, expression=expression, decode=Decode.SCALED)


def _decimal_size(modifier: int) -> tuple[int, int] | None:
    """Precision and scale of an Arrow decimal that holds every number of a `numeric`; None if there is none."""
    if modifier < _NUMERIC_HEADER:
        return None
    precision = ((modifier - _NUMERIC_HEADER) >> 16) & 0xFFFF
    scale = (((modifier - _NUMERIC_HEADER) & 0x7FF) ^ 0x400) - 0x400
    # Since PostgreSQL 15 a scale may be negative (whole thousands) or above the precision (tiny fractions).
    whole = precision - scale
    digits, scale = max(whole, 0) + max(scale, 0), max(scale, 0)
    return (digits, scale) if digits <= _DECIMAL_DIGITS_MAX else None


def _held(kind: str) -> str:
    latest, earliest = f"{kind} '{_LATEST}'", f"{kind} '{_EARLIEST}'"
    return f"CASE WHEN {{0}} > {latest} THEN {latest} WHEN {{0}} < {earliest} THEN {earliest} ELSE {{0}} END"


_PLAIN: dict[str, tuple[ColumnKind, pa.DataType, str]] = {
    "int2": (ColumnKind.INTEGER, pa.int64(), "{0}"),
    "int4": (ColumnKind.INTEGER, pa.int64(), "{0}"),
    "int8": (ColumnKind.INTEGER, pa.int64(), "{0}"),
    "oid": (ColumnKind.INTEGER, pa.int64(), "{0}::int8"),
    # Widened bit by bit, 0.1 would become 0.10000000149: the shortest decimal goes through text.
    "float4": (ColumnKind.FLOAT, pa.float64(), "{0}::text::float8"),
    "float8": (ColumnKind.FLOAT, pa.float64(), "{0}"),
    "bool": (ColumnKind.BOOLEAN, pa.bool_(), "{0}"),
    "bytea": (ColumnKind.BINARY, pa.binary(), "{0}"),
    "date": (ColumnKind.DATE, pa.date32(), _held("date")),
    "timestamp": (ColumnKind.TIMESTAMP, pa.timestamp("us"), _held("timestamp")),
    "timestamptz": (ColumnKind.INSTANT, pa.timestamp("us", "UTC"), _held("timestamptz")),
}


def decoded(array: pa.Array, column: PostgresColumn) -> pa.Array:
    """The array in the type of its column; a `NaN` of a decimal column as `BROKEN_NUMBER`.

    Raises:
        pa.ArrowInvalid: A value that its type does not hold.
    """
    target = column.column.arrow
    if column.decode is Decode.SCALED:
        whole = array.cast(pa.int64())
        digits = whole.cast(pa.decimal128(19, 0))
        if pc.min(whole).as_py() == _SCALED_NAN:
            digits = _broken_where(pc.equal(whole, _SCALED_NAN), digits)
        # The same 128-bit integers, read with the point where it belongs.
        return pa.Array.from_buffers(target, len(digits), digits.buffers(), digits.null_count, digits.offset)
    if array.type == target:
        return array
    try:
        return array.cast(target)
    except pa.ArrowInvalid:
        if not pa.types.is_decimal128(target):
            raise
        is_nan = pc.equal(array, "NaN")
        numbers = pc.if_else(is_nan, pa.scalar(None, array.type), array)
        return _broken_where(is_nan, numbers.cast(target))


def _broken_where(rows: pa.Array, decimals: pa.Array) -> pa.Array:
    """The decimals with `BROKEN_NUMBER` in those rows; where `rows` is null, null stays."""
    content = pa.py_buffer(BROKEN_NUMBER.to_bytes(16, sys.byteorder, signed=True))
    broken = pa.Array.from_buffers(decimals.type, 1, [None, content])[0]
    return pc.if_else(rows, broken, decimals)
