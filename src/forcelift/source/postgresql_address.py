"""Where a row of a PostgreSQL table is, in words that outlive a snapshot: the values of its primary key or its key.

A `ctid` would be shorter, but after an update or a VACUUM it names another row, and a resumed batch has a new snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from forcelift.errors import SourceError
from forcelift.protocols.source import ADDRESS, Column, ColumnKind
from forcelift.source.names import UNTOUCHED, quote
from forcelift.source.postgresql_catalog import Shape
from forcelift.source.postgresql_types import PostgresColumn


def address_column(shape: Shape, key: Sequence[str]) -> PostgresColumn:
    """The column that delivers addresses: an integer where the key is one, else its texts' bytes in hexadecimal."""
    columns = _address_columns(shape, key)
    is_integer = _is_integer(columns)
    column = Column(
        name=ADDRESS,
        kind=ColumnKind.INTEGER if is_integer else ColumnKind.TEXT,
        declared="address",
        arrow=pa.int64() if is_integer else pa.string(),
    )
    return PostgresColumn(column=column, expression=_expression(columns))


def among_condition(shape: Shape, key: Sequence[str], among: pa.Array | None) -> str:
    """The SQL condition of rows at these addresses; the list travels as one array, which the server hashes."""
    if among is None:
        return "true"
    columns = _address_columns(shape, key)
    kind = "int8" if _is_integer(columns) else "text"
    # Digits, or hexadecimal with bars: nothing in it needs a quote.
    listed = ",".join(map(str, among.to_pylist()))
    # A bare integer column, so that its index serves where few rows are wanted.
    place = quote(columns[0].name) if kind == "int8" else _expression(columns)
    return f"{place} IN (SELECT unnest('{{{listed}}}'::{kind}[]))"


def _address_columns(shape: Shape, key: Sequence[str]) -> list[Column]:
    names = shape.table.primary_key or tuple(key)
    if not names:
        raise SourceError(
            f"`{shape.table.name}` has no primary key, and without a key its rows cannot be told apart",
            state=UNTOUCHED,
            hint="name the columns that tell its rows apart under `key`",
        )
    return [shape.column(name) for name in names]


def _is_integer(columns: Sequence[Column]) -> bool:
    return len(columns) == 1 and columns[0].kind is ColumnKind.INTEGER and columns[0].declared != "oid"


def _expression(columns: Sequence[Column]) -> str:
    if _is_integer(columns):
        return f"{quote(columns[0].name)}::int8"
    # As bytes no collation can make two texts one, and no encoding stands in the way.
    parts = [f"encode(convert_to({quote(column.name)}::text, getdatabaseencoding()), 'hex')" for column in columns]
    return " || '|' || ".join(parts)
