"""Queries on one SQLite table: rows of a slice, cutting into slices, counting, sampling, and columns with misfits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import pyarrow as pa
from msgspec import Struct

from forcelift.protocols.source import ChunkPredicate, Column, Predicate, SourceTable
from forcelift.source.names import pick_columns, quote, quote_text
from forcelift.source.sqlite_columns import Reading
from forcelift.source.sqlite_session import Connection, fetch
from forcelift.source.sqlite_slices import (
    address_of,
    bound_columns,
    condition,
    is_rowid_slice,
    key_slice,
    null_slice,
    rowid_slice,
)

SAMPLE_PROBES = 50


class Shape(Struct, frozen=True, kw_only=True):
    """A table as the adapter needs it: description, and the name its rowid can be called by (None: it has none)."""

    table: SourceTable
    rowid: str | None
    text_affinity: frozenset[str]
    raw_text: bool
    is_table: bool


def typed_query(columns: Sequence[Column], readings: Sequence[Reading], tail: str, *, skip: int = 0) -> str:
    """The query behind a first row of known types; its last column is how many of the row's values are not null.

    `skip` leaves out as many of the first rows.
    """
    parts = [part for how in readings for part in how.parts]
    values = " + ".join(f"({quote(column.name)} IS NOT NULL)" for column in columns) or "0"
    head = ", ".join([*(literal for literal, _ in parts), "0"])
    body = ", ".join([*(expression for _, expression in parts), values])
    # LIMIT -1 keeps SQLite from leaving out the ORDER BY of a subquery, as it may otherwise.
    return f"SELECT {head} UNION ALL SELECT * FROM (SELECT {body} {tail} LIMIT -1 OFFSET {skip})"


def rows_from(shape: Shape, *, where: str | None, predicate: Predicate | None, picked: str = "1") -> str:
    # An index on a column of `where` must not replace the walk over the rowids: each slice would scan all of it.
    hint = " NOT INDEXED" if is_rowid_slice(predicate) else ""
    slice_condition = condition(predicate, rowid=shape.rowid)
    return f"FROM {quote(shape.table.name)}{hint} WHERE ({where or '1'}\n) AND ({slice_condition}) AND ({picked})"


def among_condition(shape: Shape, key: Sequence[str], among: pa.Array | None) -> str:
    """The SQL condition of rows at these addresses. The list travels as one JSON text, which has no limit but 1 GB."""
    if among is None:
        return "1"
    if shape.rowid is None:
        pick_columns(shape.table, key)
    listed = quote_text(json.dumps(among.to_pylist(), separators=(",", ":")))
    return f"{shape.rowid or address_of(key)} IN (SELECT value FROM json_each({listed}))"


def rowid_chunks(connection: Connection, shape: Shape, *, where: str | None, rows: int) -> list[ChunkPredicate]:
    chunks: list[ChunkPredicate] = []
    after: int | None = None
    while True:
        rest = rowid_slice(after=after, upto=None)
        order = f"ORDER BY {shape.rowid} LIMIT 1 OFFSET {rows - 1}"
        query = f"SELECT {shape.rowid} {rows_from(shape, where=where, predicate=rest)} {order}"
        found = fetch(connection, query)
        if not found:
            break
        upto = int(found[0][0])
        chunks.append(ChunkPredicate(predicate=rowid_slice(after=after, upto=upto), rows_estimate=rows))
        after = upto
    rest = rowid_slice(after=after, upto=None)
    left = count(connection, shape, where=where, predicate=rest)
    if left or not chunks:
        return [*chunks, ChunkPredicate(predicate=rest, rows_estimate=left)]
    last = rowid_slice(after=chunks[-1].predicate["after"], upto=None)
    return [*chunks[:-1], ChunkPredicate(predicate=last, rows_estimate=rows)]


def key_chunks(
    connection: Connection, shape: Shape, *, where: str | None, key: Sequence[str], rows: int
) -> list[ChunkPredicate]:
    whole = key_slice(key, after=None, upto=None)
    names = ", ".join(quote(name) for name in key)
    numbered = (
        f'SELECT {names}, row_number() OVER (ORDER BY {names}) AS "forcelift row" '
        f"{rows_from(shape, where=where, predicate=whole)}"
    )
    found = fetch(
        connection,
        f'SELECT {", ".join(bound_columns(key))} FROM ({numbered}) WHERE "forcelift row" % {rows} = 0 '
        f'ORDER BY "forcelift row"',
    )
    bounds = [[[str(row[at]), str(row[at + 1])] for at in range(0, len(row), 2)] for row in found]
    total = count(connection, shape, where=where, predicate=whole)
    if bounds and total == len(bounds) * rows:
        bounds.pop()
    edges = [None, *(bound for at, bound in enumerate(bounds) if at == 0 or bound != bounds[at - 1]), None]
    chunks = [
        ChunkPredicate(
            predicate=key_slice(key, after=after, upto=upto),
            rows_estimate=rows if upto is not None else total - rows * len(bounds),
        )
        for after, upto in pairwise(edges)
    ]
    nulls = count(connection, shape, where=where, predicate=null_slice(key))
    if nulls:
        chunks = [*(chunks if total else []), ChunkPredicate(predicate=null_slice(key), rows_estimate=nulls)]
    return chunks


def count(
    connection: Connection, shape: Shape, *, where: str | None, predicate: Predicate | None, picked: str = "1"
) -> int:
    tail = rows_from(shape, where=where, predicate=predicate, picked=picked)
    ((counted,),) = fetch(connection, f"SELECT count(*) {tail}")
    return int(counted)


def sample_from(connection: Connection, shape: Shape, *, where: str | None, rows: int) -> str:
    name = quote(shape.table.name)
    columns = ", ".join(quote(column.name) for column in shape.table.columns)
    if shape.rowid is None:
        every = max(1, count(connection, shape, where=where, predicate=None) // max(rows, 1))
        numbered = f'SELECT {columns}, row_number() OVER () AS "forcelift row" FROM {name} WHERE ({where or "1"}\n)'
        return f'FROM (SELECT * FROM ({numbered}) WHERE ("forcelift row" - 1) % {every} = 0 LIMIT {rows})'
    ((low, high),) = fetch(
        connection, f"SELECT (SELECT min({shape.rowid}) FROM {name}), (SELECT max({shape.rowid}) FROM {name})"
    )
    if low is None:
        return rows_from(shape, where=where, predicate=None)
    probes = max(1, min(SAMPLE_PROBES, rows))
    edges = [low + (high - low + 1) * probe // probes for probe in range(probes)] + [high + 1]
    most = -(-rows // probes)
    pieces = [
        f"SELECT * FROM (SELECT {columns} FROM {name} NOT INDEXED WHERE ({where or '1'}\n)"
        f" AND {shape.rowid} BETWEEN {start} AND {end - 1} LIMIT {most})"
        for start, end in pairwise(edges)
        if end > start
    ]
    return f"FROM (SELECT * FROM ({' UNION ALL '.join(pieces)}) LIMIT {rows})"


def span(connection: Connection, table: str, rowid: str) -> int:
    # Two subqueries, because SQLite answers min and max from the ends of the tree only if each stands alone.
    name = quote(table)
    ((low, high),) = fetch(connection, f"SELECT (SELECT min({rowid}) FROM {name}), (SELECT max({rowid}) FROM {name})")
    return 0 if low is None else int(high) - int(low) + 1


def columns_with_misfits(
    connection: Connection, columns: Sequence[Column], readings: Sequence[Reading], tail: str
) -> frozenset[str]:
    """Names of the columns that hold a value which their type cannot, in these rows: one pass over them."""
    found = ", ".join(f"coalesce(max({how.misfit}), 0)" for how in readings)
    names = ", ".join(quote(column.name) for column in columns)
    ((*flags,),) = fetch(connection, f"SELECT {found} FROM (SELECT {names} {tail} LIMIT -1)")
    return frozenset(column.name for column, flag in zip(columns, flags, strict=True) if flag)
