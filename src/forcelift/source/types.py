"""Declared types of the sources as column kinds and Arrow types. The declaration decides, never the values."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa

from forcelift.protocols.source import Column, ColumnKind

# 19 digits before the point hold every INTEGER that SQLite can store, and 19 after it hold more decimals than any
# Salesforce number (18 digits in all). Cutting a longer binary fraction there cannot change a rounding to 18 or fewer.
SQLITE_DECIMAL = pa.decimal128(38, 19)
SQLITE_DECIMAL_LIMIT = "1e19"

_SIZE = re.compile(r"\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)")
_SQLITE_INTEGER = re.compile(r"\b(?:UNSIGNED |TINY|SMALL|MEDIUM|BIG|UNSIGNED BIG )?U?INT(?:EGER)?\d*\b")
_SQLITE_FLOAT = re.compile(r"REAL|FLOA|DOUB")
_SQLITE_DECIMAL = re.compile(r"\b(?:DEC|DECIMAL|NUMERIC|NUMBER|MONEY|CURRENCY)\b")
_DUCKDB_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")

_DUCKDB_KINDS: dict[str, tuple[ColumnKind, pa.DataType]] = {
    "BOOLEAN": (ColumnKind.BOOLEAN, pa.bool_()),
    "TINYINT": (ColumnKind.INTEGER, pa.int64()),
    "SMALLINT": (ColumnKind.INTEGER, pa.int64()),
    "INTEGER": (ColumnKind.INTEGER, pa.int64()),
    "BIGINT": (ColumnKind.INTEGER, pa.int64()),
    "UTINYINT": (ColumnKind.INTEGER, pa.int64()),
    "USMALLINT": (ColumnKind.INTEGER, pa.int64()),
    "UINTEGER": (ColumnKind.INTEGER, pa.int64()),
    "UBIGINT": (ColumnKind.DECIMAL, pa.decimal128(38, 0)),
    "HUGEINT": (ColumnKind.DECIMAL, pa.decimal128(38, 0)),
    "UHUGEINT": (ColumnKind.DECIMAL, pa.decimal128(38, 0)),
    "FLOAT": (ColumnKind.FLOAT, pa.float64()),
    "DOUBLE": (ColumnKind.FLOAT, pa.float64()),
    "VARCHAR": (ColumnKind.TEXT, pa.string()),
    "BLOB": (ColumnKind.BINARY, pa.binary()),
    "DATE": (ColumnKind.DATE, pa.date32()),
    "TIMESTAMP": (ColumnKind.TIMESTAMP, pa.timestamp("us")),
    "TIMESTAMP_S": (ColumnKind.TIMESTAMP, pa.timestamp("us")),
    "TIMESTAMP_MS": (ColumnKind.TIMESTAMP, pa.timestamp("us")),
    "TIMESTAMP_NS": (ColumnKind.TIMESTAMP, pa.timestamp("ns")),
    "TIMESTAMP WITH TIME ZONE": (ColumnKind.INSTANT, pa.timestamp("us", "UTC")),
    "UUID": (ColumnKind.TEXT, pa.string()),
    "JSON": (ColumnKind.TEXT, pa.string()),
    "BIT": (ColumnKind.TEXT, pa.string()),
    "BIGNUM": (ColumnKind.TEXT, pa.string()),
    "TIME": (ColumnKind.TEXT, pa.string()),
    "TIME_NS": (ColumnKind.TEXT, pa.string()),
    "TIME WITH TIME ZONE": (ColumnKind.TEXT, pa.string()),
    "INTERVAL": (ColumnKind.TEXT, pa.string()),
}
_DUCKDB_HUGE = ("HUGEINT", "UHUGEINT")  # up to 39 digits
# Years far outside of any target's range, and inside the +-262,000 years at which polars gives up. What lies beyond
# them, infinity too, is delivered as these, so that the rules refuse it as out of range. PostgreSQL has the same.
_LATEST, _EARLIEST = "99999-12-31", "4713-01-01 (BC)"
_DUCKDB_BOUNDED = {
    "DATE": "DATE",
    "TIMESTAMP": "TIMESTAMP",
    "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP WITH TIME ZONE",
}


def sqlite_column(name: str, declared: str, *, nullable: bool, raw_text: bool, as_text: bool) -> Column:
    """A SQLite column by its declared type.

    Args:
        declared: The type as written in CREATE TABLE; empty for a view's expression.
        raw_text: Text is delivered as bytes, for a rule to decode.
        as_text: Deliver as text whatever the declaration says.
    Source:
        SQLite, "Datatypes In SQLite", section 3.1: the order in which a declaration's words decide its affinity. Words
        that SQLite takes for numeric only because it knows them not (STRING, UUID, JSON), and DATE and DATETIME, which
        it has no type for, are text here: nothing stored in them is lost.
    """
    upper = declared.upper()
    kind, arrow = ColumnKind.TEXT, pa.binary() if raw_text else pa.string()
    precision: int | None = None
    scale: int | None = None
    if as_text:
        pass
    elif _SQLITE_INTEGER.search(upper):
        kind, arrow = ColumnKind.INTEGER, pa.int64()
    elif re.search(r"CHAR|CLOB|TEXT", upper):
        pass
    elif "BLOB" in upper or "BINARY" in upper:
        kind, arrow = ColumnKind.BINARY, pa.binary()
    elif _SQLITE_FLOAT.search(upper):
        kind, arrow = ColumnKind.FLOAT, pa.float64()
    elif re.search(r"\bBOOL", upper):
        kind, arrow = ColumnKind.BOOLEAN, pa.bool_()
    elif _SQLITE_DECIMAL.search(upper):
        kind, arrow = ColumnKind.DECIMAL, SQLITE_DECIMAL
        if size := _SIZE.search(upper):
            precision, scale = int(size[1]), int(size[2] or 0)
    return Column(
        name=name, kind=kind, declared=declared, arrow=arrow, nullable=nullable, precision=precision, scale=scale
    )


def duckdb_column(name: str, declared: str, *, nullable: bool) -> Column:
    """A DuckDB column. Integers come as int64, wider ones as decimal(38,0); TIME, UUID, ENUM, INTERVAL as text."""
    precision: int | None = None
    scale: int | None = None
    kind, arrow = _DUCKDB_KINDS.get(declared, (ColumnKind.UNSUPPORTED, pa.null()))
    if match := _DUCKDB_DECIMAL.fullmatch(declared):
        precision, scale = int(match[1]), int(match[2])
        kind, arrow = ColumnKind.DECIMAL, pa.decimal128(precision, scale)
    elif declared.startswith("ENUM(") and declared.endswith(")"):
        kind, arrow = ColumnKind.TEXT, pa.string()
    elif kind is ColumnKind.DECIMAL:
        precision, scale = 38, 0
    return Column(
        name=name, kind=kind, declared=declared, arrow=arrow, nullable=nullable, precision=precision, scale=scale
    )


def duckdb_expression(column: Column) -> str:
    """The SQL that delivers a DuckDB column in the Arrow type of its `Column`, null where `duckdb_misfit` is text."""
    quoted = _quoted(column)
    if column.declared == "FLOAT":
        # The shortest decimal of a 32-bit float is lost when it is widened bit by bit: 0.1 would become 0.10000000149.
        return f"CAST(CAST({quoted} AS VARCHAR) AS DOUBLE)"
    if column.declared in _DUCKDB_HUGE:
        return f"TRY_CAST({quoted} AS DECIMAL(38,0))"
    if column.declared == "TIMESTAMP_NS":
        return f"CASE WHEN isfinite({quoted}) THEN {quoted} END"
    if bounded := _DUCKDB_BOUNDED.get(column.declared):
        latest, earliest = (f"CAST('{moment}' AS {bounded})" for moment in (_LATEST, _EARLIEST))
        plain = quoted if bounded == column.declared else f"CAST({quoted} AS {bounded})"
        return f"CASE WHEN {plain} > {latest} THEN {latest} WHEN {plain} < {earliest} THEN {earliest} ELSE {plain} END"
    target = {
        ColumnKind.TEXT: "VARCHAR",
        ColumnKind.INTEGER: "BIGINT",
        ColumnKind.DECIMAL: f"DECIMAL({column.precision},{column.scale})",
    }.get(column.kind)
    return f"CAST({quoted} AS {target})" if target and target != column.declared else quoted


def duckdb_misfit(column: Column) -> str | None:
    """The SQL that gives as text what the column's Arrow type cannot hold; None if there is no such thing."""
    quoted = _quoted(column)
    if column.declared in _DUCKDB_HUGE:
        return f"CASE WHEN TRY_CAST({quoted} AS DECIMAL(38,0)) IS NULL THEN CAST({quoted} AS VARCHAR) END"
    if column.declared == "TIMESTAMP_NS":
        return f"CASE WHEN NOT isfinite({quoted}) THEN CAST({quoted} AS VARCHAR) END"
    return None


def _quoted(column: Column) -> str:
    return '"' + column.name.replace('"', '""') + '"'


def arrow_column(field: pa.Field) -> Column:
    """A Parquet column by the Arrow type that its file declares."""
    kind, arrow = _arrow_kind(field.type)
    decimal = pa.types.is_decimal(arrow)
    return Column(
        name=field.name,
        kind=kind,
        declared=str(field.type),
        arrow=arrow,
        nullable=field.nullable,
        precision=arrow.precision if decimal else None,
        scale=arrow.scale if decimal else None,
    )


def _arrow_kind(arrow: pa.DataType) -> tuple[ColumnKind, pa.DataType]:
    types = pa.types
    if types.is_dictionary(arrow):
        return _arrow_kind(arrow.value_type)
    if types.is_uint64(arrow):
        return ColumnKind.DECIMAL, pa.decimal128(38, 0)
    if types.is_decimal(arrow):
        # polars knows no more than 38 digits; wider numbers come as text, as those of the databases do.
        if arrow.precision > 38:
            return ColumnKind.TEXT, pa.string()
        return ColumnKind.DECIMAL, pa.decimal128(arrow.precision, arrow.scale)
    if types.is_timestamp(arrow):
        unit = "ns" if arrow.unit == "ns" else "us"
        return (
            (ColumnKind.TIMESTAMP, pa.timestamp(unit))
            if arrow.tz is None
            else (ColumnKind.INSTANT, pa.timestamp(unit, "UTC"))
        )
    simple: list[tuple[bool, ColumnKind, pa.DataType]] = [
        (types.is_boolean(arrow), ColumnKind.BOOLEAN, pa.bool_()),
        (types.is_integer(arrow), ColumnKind.INTEGER, pa.int64()),
        (types.is_floating(arrow), ColumnKind.FLOAT, pa.float64()),
        (types.is_date(arrow), ColumnKind.DATE, pa.date32()),
        (_is_any_text(arrow), ColumnKind.TEXT, pa.string()),
        (types.is_time(arrow) or types.is_null(arrow), ColumnKind.TEXT, pa.string()),
        (_is_any_binary(arrow), ColumnKind.BINARY, pa.binary()),
    ]
    return next(((kind, to) for matches, kind, to in simple if matches), (ColumnKind.UNSUPPORTED, pa.null()))


def _is_any_text(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_string(arrow) or pa.types.is_large_string(arrow) or pa.types.is_string_view(arrow))


def _is_any_binary(arrow: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_binary(arrow)
        or types.is_large_binary(arrow)
        or types.is_binary_view(arrow)
        or types.is_fixed_size_binary(arrow)
    )


def schema_of(columns: Sequence[Column]) -> pa.Schema:
    """The Arrow schema of columns."""
    return pa.schema([pa.field(column.name, column.arrow) for column in columns])


def as_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch in the names and types of `schema`, column by column."""
    arrays = [
        array if array.type == field.type else array.cast(field.type)
        for array, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def readable(columns: Sequence[Column]) -> list[Column]:
    """All columns but those of unsupported types."""
    return [column for column in columns if not pa.types.is_null(column.arrow)]
