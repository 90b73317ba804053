"""Oracle's types as column kinds and Arrow types, the SQL that delivers each, and the schema asked of the driver.

The driver's own choice of Arrow types loses digits (any NUMBER over 18 of them, every NUMBER without a size), zones and
far-away time stamps, so each column is asked for in a type that its declaration says is wide enough, and what none can
hold travels as text.
"""

from __future__ import annotations

import dataclasses

import pyarrow as pa
from msgspec.structs import replace

from forcelift.protocols.source import Column, ColumnKind
from forcelift.source.broken_text import as_utf8
from forcelift.source.names import quote
from forcelift.source.oracle_bytes import Stored, byte_column
from forcelift.source.oracle_columns import Declared, OracleColumn

_INT64_DIGITS, _DECIMAL_DIGITS = 18, 38
# TM9 writes every digit, and turns to an exponent only past 64 characters.
_NUMBER_TEXT = "TO_CHAR({}, 'TM9', 'NLS_NUMERIC_CHARACTERS=''.,''')"
_TEXTS = ("VARCHAR2", "NVARCHAR2", "CHAR", "NCHAR", "LONG")
_SIZES = {"CLOB": 4_000, "NCLOB": 4_000, "BLOB": 4_000, "LONG": 4_000}


def oracle_column(one: Declared, *, stored: Stored | None) -> OracleColumn:
    """A column by its declared type.

    Args:
        one: The dictionary's row.
        stored: Text is delivered as the bytes that the database stores, which can be had so; None: as text.
    """
    made = _as_text(one)
    made = replace(made, column=dataclasses.replace(made.column, comment=one.comment))
    return made if stored is None else byte_column(one, made, stored)


def _as_text(one: Declared) -> OracleColumn:
    quoted, word = quote(one.name), one.type.partition("(")[0]

    def of(kind: ColumnKind, arrow: pa.DataType, expression: str, asked: pa.DataType | None = None) -> OracleColumn:
        shown = _shown(one)
        column = Column(name=one.name, kind=kind, declared=shown, arrow=arrow, nullable=one.nullable)
        width = _SIZES.get(one.type, max(one.length, 8))
        return OracleColumn(column=column, expression=expression, asked=asked or arrow, width=width)

    if one.owner is not None and one.type != "XMLTYPE":
        return of(ColumnKind.UNSUPPORTED, pa.null(), "NULL")
    if one.type == "NUMBER":
        return _number(one)
    if one.type == "FLOAT":
        return of(ColumnKind.TEXT, pa.string(), _NUMBER_TEXT.format(quoted))
    if one.type in _TEXTS:
        return of(ColumnKind.TEXT, pa.string(), quoted)
    if one.type in ("CLOB", "NCLOB", "XMLTYPE", "JSON", "ROWID", "UROWID"):
        expression = {
            "XMLTYPE": f"XMLSERIALIZE(CONTENT {quoted} AS CLOB)",
            "JSON": f"JSON_SERIALIZE({quoted} RETURNING CLOB)",
            "ROWID": f"ROWIDTOCHAR({quoted})",
            "UROWID": f"ROWIDTOCHAR({quoted})",
        }.get(one.type, quoted)
        return of(ColumnKind.TEXT, pa.string(), expression)
    if word.startswith("INTERVAL"):
        return of(ColumnKind.TEXT, pa.string(), f"TO_CHAR({quoted})")
    if one.type in ("RAW", "BLOB", "LONG RAW"):
        return of(ColumnKind.BINARY, pa.binary(), quoted)
    if one.type == "DATE":
        return of(ColumnKind.TIMESTAMP, pa.timestamp("us"), quoted)
    if word == "TIMESTAMP":
        if "TIME ZONE" in one.type:
            utc = pa.timestamp("us", "UTC")
            return of(ColumnKind.INSTANT, utc, f"SYS_EXTRACT_UTC({quoted})", pa.timestamp("us"))
        return of(ColumnKind.TIMESTAMP, pa.timestamp("us"), quoted)
    if one.type == "BINARY_DOUBLE":
        return of(ColumnKind.FLOAT, pa.float64(), quoted)
    if one.type == "BINARY_FLOAT":
        return of(ColumnKind.FLOAT, pa.float64(), quoted, pa.float32())
    if one.type == "BOOLEAN":
        return of(ColumnKind.BOOLEAN, pa.bool_(), quoted)
    return of(ColumnKind.UNSUPPORTED, pa.null(), "NULL")


def _number(one: Declared) -> OracleColumn:
    quoted, shown = quote(one.name), _shown(one)

    def of(kind: ColumnKind, arrow: pa.DataType, expression: str, digits: int, scale: int) -> OracleColumn:
        size = (digits, scale) if kind is ColumnKind.DECIMAL else (None, None)
        column = Column(
            name=one.name,
            kind=kind,
            declared=shown,
            arrow=arrow,
            nullable=one.nullable,
            precision=size[0],
            scale=size[1],
        )
        return OracleColumn(column=column, expression=expression, asked=arrow, width=22)

    precision, scale = one.precision, one.scale or 0
    if precision is None and one.scale == 0:
        precision = _DECIMAL_DIGITS  # INTEGER, which the dictionary shows without a precision
    if precision is None:
        return of(ColumnKind.TEXT, pa.string(), _NUMBER_TEXT.format(quoted), 0, 0)
    # A negative scale makes whole hundreds of more digits, one above the precision tiny fractions.
    digits, places = max(precision - scale, 0) + max(scale, 0), max(scale, 0)
    if digits <= _INT64_DIGITS and not places:
        return of(ColumnKind.INTEGER, pa.int64(), quoted, digits, 0)
    if digits <= _DECIMAL_DIGITS:
        return of(ColumnKind.DECIMAL, pa.decimal128(digits, places), quoted, digits, places)
    return of(ColumnKind.TEXT, pa.string(), _NUMBER_TEXT.format(quoted), 0, 0)


def _shown(one: Declared) -> str:
    if one.type == "NUMBER" and one.precision is not None:
        return f"NUMBER({one.precision},{one.scale})" if one.scale else f"NUMBER({one.precision})"
    if one.owner is not None:
        return f"{one.owner}.{one.type}"
    return one.type


def decoded(array: pa.Array, one: OracleColumn) -> pa.Array:
    """A column as it arrived, in the type of its `Column`."""
    if pa.types.is_float32(array.type):
        # The shortest decimal of a 32-bit float is lost when it is widened bit by bit: 0.1 would become 0.10000000149.
        return array.cast(pa.string()).cast(pa.float64())
    array = array if array.type == one.column.arrow else array.cast(one.column.arrow)
    # The driver hands text on without looking at it.
    return as_utf8(array) if pa.types.is_string(array.type) else array
