"""Where an Oracle table is cut into slices: by its extents, by DBMS_PARALLEL_EXECUTE, or by an indexed key.

By extents each block is read once by one chunk, and a large partition is never shared by a chunk with another one. The
package gives ranges of ROWIDs to who may not see extents; it keeps a task in the user's schema meanwhile, which a
standby refuses. Keys are cut at their quantiles, those of a large table at a sample's.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import oracledb
import pyarrow as pa

from forcelift.errors import SourceError
from forcelift.protocols.source import ChunkPredicate, ColumnKind, Predicate
from forcelift.source.names import UNTOUCHED, quote
from forcelift.source.oracle_catalog import Extent, Relation, Shape
from forcelift.source.oracle_errors import code_of
from forcelift.source.oracle_session import execute, fetch
from forcelift.source.oracle_slices import MOMENT, count_rows, rowid_parts, rowid_text, slice_tail

_SAMPLED_FROM = 500_000  # rows from which quantiles are taken of a sample
_SAMPLE_ROWS_A_PART, _SAMPLE_ROWS_MIN = 1_000, 50_000


def cut_by_extents(seen: Sequence[Extent], *, total: int, rows: int) -> list[ChunkPredicate]:
    """Cut the blocks into parts of about equally many, at the ends of partitions where a part is half full."""
    blocks = sum(one.blocks for one in seen)
    bounds, sizes = _block_bounds(seen, step=max(1, rows * blocks // total))
    return _rowid_chunks(bounds, [total * size // blocks for size in sizes])


def _block_bounds(seen: Sequence[Extent], *, step: int) -> tuple[list[str], list[int]]:
    """ROWIDs at which a part begins, and the blocks of each part."""
    bounds: list[str] = []
    sizes: list[int] = []
    used, partition = 0, -1
    for one in seen:
        if one.data_object != partition and used * 2 >= step:
            bounds.append(rowid_text(one.data_object, one.file, one.block, 0))
            sizes.append(used)
            used = 0
        first, partition = one.block, one.data_object
        while first < one.block + one.blocks:
            if used >= step:
                bounds.append(rowid_text(one.data_object, one.file, first, 0))
                sizes.append(used)
                used = 0
            taken = min(step - used, one.block + one.blocks - first)
            first, used = first + taken, used + taken
    return bounds, [*sizes, used]


def _rowid_chunks(bounds: Sequence[str], estimates: Sequence[int]) -> list[ChunkPredicate]:
    # Text order is not the order of ROWIDs, but these were made in the latter.
    return [
        ChunkPredicate(predicate={"by": "rowid", "from": low, "below": high}, rows_estimate=estimate)
        for (low, high), estimate in zip(pairwise([None, *bounds, None]), estimates, strict=True)
    ]


_CREATE = """
BEGIN
  DBMS_PARALLEL_EXECUTE.CREATE_TASK(:task);
  DBMS_PARALLEL_EXECUTE.CREATE_CHUNKS_BY_ROWID(:task, :owner, :name, TRUE, :size);
END;
"""
_DROP = "BEGIN DBMS_PARALLEL_EXECUTE.DROP_TASK(:task); END;"
_CHUNKS = """
SELECT ROWIDTOCHAR(start_rowid) FROM user_parallel_execute_chunks WHERE task_name = :task ORDER BY start_rowid
"""
# No grant on the package or the table (6550 stands before PLS-00201), a standby (16000), no quota (1536, 1950), and
# what the package itself says of tables that it cannot cut (29490 to 29499).
_CANNOT = frozenset((942, 1031, 1536, 1950, 6550, 16000, *range(29490, 29500)))


def cut_by_package(
    connection: oracledb.Connection, relation: Relation, *, total: int, rows: int
) -> list[ChunkPredicate] | None:
    """Let the database cut a heap table. None where this user, this table or a standby does not allow it.

    Args:
        connection: In no transaction: the package commits.
    """
    task = f"FORCELIFT_{secrets.token_hex(6).upper()}"
    try:
        execute(connection, _CREATE, task=task, owner=relation.owner, name=relation.name, size=rows)
        starts = [start for (start,) in fetch(connection, _CHUNKS, task=task)]
    except oracledb.DatabaseError as error:
        if code_of(error) not in _CANNOT:
            raise
        _drop(connection, task)
        return None
    _drop(connection, task)
    return _rowid_chunks(starts[1:], [total // max(len(starts), 1)] * max(len(starts), 1)) if starts else None


def _drop(connection: oracledb.Connection, task: str) -> None:
    try:
        execute(connection, _DROP, task=task)
    except oracledb.DatabaseError as error:
        if code_of(error) not in _CANNOT:
            raise


def cut_by_key(
    connection: oracledb.Connection,
    shape: Shape,
    *,
    scn: int | None,
    where: str | None,
    key: Sequence[str],
    total: int,
    rows: int,
) -> list[ChunkPredicate]:
    """Cut by ranges of an indexed column: the primary key's first, a unique key's, or one of `key`."""
    column = _key_column(shape, key)
    parts = -(-total // rows)
    wanted = max(_SAMPLE_ROWS_MIN, parts * _SAMPLE_ROWS_A_PART)
    is_sampled = shape.relation.is_table and total >= _SAMPLED_FROM and wanted * 2 < total
    percent = 100.0 * wanted / total if is_sampled else None
    bounds = _key_bounds(connection, shape, column, scn=scn, where=where, parts=parts, percent=percent)
    nulls = 0
    if shape.column(column).nullable:
        tail = slice_tail(shape, scn=scn, where=where, predicate={"by": "null", "column": column})
        nulls = count_rows(connection, tail)
    chunks = _key_chunks(shape, column, bounds, rows=total - nulls)
    if nulls:
        chunks.append(ChunkPredicate(predicate={"by": "null", "column": column}, rows_estimate=nulls))
    return chunks


def _key_column(shape: Shape, key: Sequence[str]) -> str:
    wanted = [*shape.table.primary_key[:1], *(one[0] for one in shape.table.unique_keys), *key]
    # A range of what no index leads with would scan the whole table for each chunk.
    found = next((name for name in wanted if name in shape.leading), wanted[0] if wanted else None)
    if found is None:
        raise SourceError(
            f"`{shape.table.name}` has no primary key, and its extents cannot be seen, so it cannot be cut into chunks",
            state=UNTOUCHED,
            hint="let a DBA run `GRANT SELECT ON DBA_EXTENTS` and `GRANT SELECT ON DBA_OBJECTS`, or name the columns "
            "that tell its rows apart under `key`",
        )
    return found


def _literal_kind(shape: Shape, column: str) -> tuple[str, str]:
    """How bounds of the column are written, and the SQL that writes them."""
    described = shape.column(column)
    if described.kind in (ColumnKind.INTEGER, ColumnKind.DECIMAL) or described.declared.startswith(("NUMBER", "FLOAT")):
        return "number", "TO_CHAR({}, 'TM9', 'NLS_NUMERIC_CHARACTERS=''.,''')"
    if described.declared == "DATE":
        return "moment", f"TO_CHAR({{}}, '{MOMENT}')"
    if described.kind is ColumnKind.TEXT and pa.types.is_binary(described.arrow):
        return "bytes", "RAWTOHEX(UTL_RAW.CAST_TO_RAW({}))"  # as a text it might come back as another one
    if described.kind is ColumnKind.TEXT:
        return "text", "{}"
    raise SourceError(
        f"`{shape.table.name}` cannot be cut by its key column `{column}`, which is {described.declared}",
        state=UNTOUCHED,
        hint="let a DBA run `GRANT SELECT ON DBA_EXTENTS` and `GRANT SELECT ON DBA_OBJECTS`, so that ROWIDs serve",
    )


def _key_bounds(
    connection: oracledb.Connection,
    shape: Shape,
    column: str,
    *,
    scn: int | None,
    where: str | None,
    parts: int,
    percent: float | None = None,
    predicate: Predicate | None = None,
) -> list[str]:
    """The column's quantiles within a slice, ascending and each once; without the last, which would be the maximum."""
    shown, name = _literal_kind(shape, column)[1], quote(column)
    tail = slice_tail(shape, scn=scn, where=where, predicate=predicate, percent=percent, picked=f"{name} IS NOT NULL")
    numbered = f"SELECT {name} AS k, NTILE({parts}) OVER (ORDER BY {name}) AS part {tail}"
    found = fetch(connection, f"SELECT {shown.format('MAX(k)')} FROM ({numbered}) GROUP BY part ORDER BY MAX(k)")
    return list(dict.fromkeys(bound for (bound,) in found[:-1]))


def _key_chunks(shape: Shape, column: str, bounds: Sequence[str], *, rows: int) -> list[ChunkPredicate]:
    whole: dict[str, Any] = {"by": "key", "column": column, "kind": _literal_kind(shape, column)[0]}
    share = rows // (len(bounds) + 1)
    return [
        ChunkPredicate(predicate={**whole, "after": after, "upto": upto}, rows_estimate=share)
        for after, upto in pairwise([None, *bounds, None])
    ]


def cut_again(
    connection: oracledb.Connection, shape: Shape, predicate: Predicate, seen: Sequence[Extent] | None, *, parts: int
) -> list[Predicate]:
    """A slice in up to so many shorter ones that hold its rows once; itself where it cannot be cut.

    Args:
        seen: The table's extents as they are now; None where they cannot be seen. Bounds are of now, too: the slices
            have no gap whichever they are.
    """
    if predicate["by"] == "key":
        column = predicate["column"]
        bounds = _key_bounds(connection, shape, column, scn=None, where=None, parts=parts, predicate=predicate)
        ends = [predicate["after"], *(one for one in bounds if one != predicate["upto"]), predicate["upto"]]
        return [{**predicate, "after": after, "upto": upto} for after, upto in pairwise(ends)]
    if predicate["by"] not in ("rowid", "all"):
        return [predicate]
    low, high = predicate.get("from"), predicate.get("below")
    inside = _within(seen or (), low, high) or _between(low, high)
    if not inside:
        return [predicate]
    bounds, _ = _block_bounds(inside, step=max(1, -(-sum(one.blocks for one in inside) // parts)))
    ends = [low, *bounds, high]
    return [{"by": "rowid", "from": start, "below": below} for start, below in pairwise(ends)]


def _within(seen: Sequence[Extent], low: str | None, high: str | None) -> list[Extent]:
    """The parts of extents that lie between two ROWIDs, without a block that one of them cuts in the middle."""
    first = rowid_parts(low)[:3] if low is not None else (0, 0, 0)
    end = rowid_parts(high)[:3] if high is not None else (2**64, 0, 0)
    found = []
    for one in seen:
        place = (one.data_object, one.file)
        start = max(one.block, first[2]) if place == first[:2] else one.block
        stop = min(one.block + one.blocks, end[2]) if place == end[:2] else one.block + one.blocks
        if first[:2] <= place <= end[:2] and start < stop:
            found.append(Extent(data_object=one.data_object, file=one.file, block=start, blocks=stop - start))
    return found


def _between(low: str | None, high: str | None) -> list[Extent]:
    """The blocks between two ROWIDs of one file, whether they hold rows or not."""
    if low is None or high is None:
        return []
    start, stop = rowid_parts(low), rowid_parts(high)
    if start[:2] != stop[:2] or stop[2] - start[2] < 2:
        return []
    return [Extent(data_object=start[0], file=start[1], block=start[2], blocks=stop[2] - start[2])]
