"""Slices of an Oracle table: how they are cut, and the FROM and WHERE of each.

A table whose extents the user may see is cut by ranges of ROWIDs, each block read once by one chunk. Any other is cut
by ranges of its key's first column, whose bounds are quantiles. Ranges reach from bound to bound without a gap, and the
first and the last are open, so that they hold every row once whatever the bounds are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import oracledb

from forcelift.errors import SourceError
from forcelift.protocols.source import ChunkPredicate, ColumnKind, Predicate
from forcelift.source.names import UNTOUCHED, quote, quote_text
from forcelift.source.oracle_catalog import Extent, Shape, extents
from forcelift.source.oracle_session import fetch

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)(E[+-]\d+)?")
_MOMENT = "YYYY-MM-DD HH24:MI:SS"


def plan_slices(
    connection: oracledb.Connection, shape: Shape, *, scn: int | None, where: str | None, key: Sequence[str], rows: int
) -> list[ChunkPredicate]:
    """Cut the rows within `where` into slices of about `rows`."""
    total = count_rows(connection, slice_tail(shape, scn=scn, where=where, predicate=None))
    if total <= rows:
        return [ChunkPredicate(predicate={"by": "all"}, rows_estimate=total)]
    seen = extents(connection, shape.relation)
    if seen:
        return _rowid_slices(seen, total=total, rows=rows)
    columns = shape.table.primary_key or tuple(key)
    if not columns:
        raise SourceError(
            f"`{shape.table.name}` has no primary key, and its extents cannot be seen, so it cannot be cut into chunks",
            state=UNTOUCHED,
            hint="let a DBA run `GRANT SELECT ON DBA_EXTENTS` and `GRANT SELECT ON DBA_OBJECTS`, or name the columns "
            "that tell its rows apart under `key`",
        )
    return _key_slices(connection, shape, scn=scn, where=where, column=columns[0], total=total, rows=rows)


def slice_tail(
    shape: Shape,
    *,
    scn: int | None,
    where: str | None,
    predicate: Predicate | None,
    percent: float | None = None,
    picked: str = "1 = 1",
) -> str:
    """FROM and WHERE of a slice; of the whole table for None.

    Args:
        shape: The table.
        scn: The SCN to read at; None for now.
        where: The plan's condition.
        predicate: The slice.
        percent: Below 100, that share of the rows by chance.
        picked: One more condition.
    Raises:
        SourceError: The predicate is none that this adapter made.
    """
    condition = "1 = 1"
    if predicate is not None:
        try:
            condition = _condition(predicate)
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(
                "a stored chunk cannot be read as a slice of an Oracle table",
                state="nothing was read for this chunk",
                hint="the batch was planned on another kind of source, or on an older table: begin a new batch",
            ) from error
    place = shape.relation.place
    if percent is not None and percent < 100:
        place += f" SAMPLE ({percent:.6f})"
    if scn is not None:
        place += f" AS OF SCN {scn}"
    # Under its own name, which `where` may use to qualify columns.
    return f"FROM {place} {quote(shape.relation.name)} WHERE ({where or '1 = 1'}\n) AND ({condition}) AND ({picked})"


def count_rows(connection: oracledb.Connection, tail: str) -> int:
    """A COUNT(*)."""
    ((counted,),) = fetch(connection, f"SELECT COUNT(*) {tail}")
    return int(counted)


def rowid_text(data_object: int, file: int, block: int, slot: int) -> str:
    """A ROWID as text: six letters of the object, three of the file, six of the block, three of the slot."""
    return "".join(
        _ALPHABET[value >> 6 * at & 63]
        for value, letters in ((data_object, 6), (file, 3), (block, 6), (slot, 3))
        for at in range(letters - 1, -1, -1)
    )


def _condition(predicate: Predicate) -> str:
    if predicate["by"] == "all":
        return "1 = 1"
    if predicate["by"] == "rowid":
        bounds = [(">=", predicate["from"]), ("<", predicate["below"])]
        sides = [f"ROWID {mark} CHARTOROWID({quote_text(bound)})" for mark, bound in bounds if bound is not None]
        return " AND ".join(sides) or "1 = 1"
    column = quote(predicate["column"])
    if predicate["by"] == "null":
        return f"{column} IS NULL"
    if predicate["by"] != "key":
        raise ValueError("unknown slice")
    conditions = [f"{column} IS NOT NULL"]
    for mark, bound in ((">", predicate["after"]), ("<=", predicate["upto"])):
        if bound is not None:
            conditions.append(f"{column} {mark} {_literal(bound, predicate['kind'])}")
    return " AND ".join(conditions)


def _literal(text: str, kind: str) -> str:
    if kind == "number":
        if not _NUMBER.fullmatch(text):
            raise ValueError("no number")
        return text
    if kind == "moment":
        return f"TO_DATE({quote_text(text)}, '{_MOMENT}')"
    return quote_text(text)


def _rowid_slices(seen: list[Extent], *, total: int, rows: int) -> list[ChunkPredicate]:
    """Cut the blocks into as many parts as there are to be, each about as many blocks as the others."""
    blocks = sum(one.blocks for one in seen)
    step = max(1, rows * blocks // total)
    bounds: list[str] = []
    used = 0
    for one in seen:
        first = one.block
        while first < one.block + one.blocks:
            if used >= step:
                bounds.append(rowid_text(one.data_object, one.file, first, 0))
                used = 0
            taken = min(step - used, one.block + one.blocks - first)
            first, used = first + taken, used + taken
    # Text order is not the order of ROWIDs, but these were made in the latter.
    return [
        ChunkPredicate(
            predicate={"by": "rowid", "from": low, "below": high},
            rows_estimate=total * (used if high is None else step) // blocks,
        )
        for low, high in pairwise([None, *bounds, None])
    ]


def _key_slices(
    connection: oracledb.Connection,
    shape: Shape,
    *,
    scn: int | None,
    where: str | None,
    column: str,
    total: int,
    rows: int,
) -> list[ChunkPredicate]:
    described, name = shape.column(column), quote(column)
    if described.kind in (ColumnKind.INTEGER, ColumnKind.DECIMAL) or described.declared.startswith(("NUMBER", "FLOAT")):
        kind, shown = "number", "TO_CHAR({}, 'TM9', 'NLS_NUMERIC_CHARACTERS=''.,''')"
    elif described.declared == "DATE":
        kind, shown = "moment", f"TO_CHAR({{}}, '{_MOMENT}')"
    elif described.kind is ColumnKind.TEXT:
        kind, shown = "text", "{}"
    else:
        raise SourceError(
            f"`{shape.table.name}` cannot be cut by its key column `{column}`, which is {described.declared}",
            state=UNTOUCHED,
            hint="let a DBA run `GRANT SELECT ON DBA_EXTENTS` and `GRANT SELECT ON DBA_OBJECTS`, so that ROWIDs serve",
        )
    tail = slice_tail(shape, scn=scn, where=where, predicate=None, picked=f"{name} IS NOT NULL")
    parts = -(-total // rows)
    numbered = f"SELECT {name} AS k, NTILE({parts}) OVER (ORDER BY {name}) AS part {tail}"
    found = fetch(
        connection, f"SELECT {shown.format('MAX(k)')}, COUNT(*) FROM ({numbered}) GROUP BY part ORDER BY MAX(k)"
    )
    bounds = list(dict.fromkeys(bound for bound, _ in found[:-1]))
    whole: dict[str, Any] = {"by": "key", "column": column, "kind": kind}
    share = total // max(len(bounds) + 1, 1)
    chunks = [
        ChunkPredicate(predicate={**whole, "after": after, "upto": upto}, rows_estimate=share)
        for after, upto in pairwise([None, *bounds, None])
    ]
    nulls = total - sum(int(count) for _, count in found)
    if nulls:
        chunks.append(ChunkPredicate(predicate={"by": "null", "column": column}, rows_estimate=nulls))
    return chunks
