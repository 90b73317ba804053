"""Slices of a PostgreSQL table: how they are cut, and the FROM and WHERE of each.

A table with a primary key is cut by ranges of it, whose bounds are quantiles of a sample of the table's blocks; a small
table's sample is the whole table. A table without one is cut by ranges of blocks, and a view by the plan's key. Which
bounds are taken changes only the sizes: the ranges between them hold every row once in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from forcelift.errors import SourceError
from forcelift.protocols.source import ChunkPredicate, Predicate
from forcelift.source.names import UNTOUCHED, quote
from forcelift.source.postgresql_catalog import Relation, Shape, literal, parts, planned_rows
from forcelift.source.postgresql_session import Connection, fetch

EXACT_ROWS_MAX = 300_000  # up to here all keys are looked at: a sort of at most some 20 MB on the server
SAMPLES_PER_CHUNK = 400  # a chunk's size then varies by some 5% where rows lie in no order
SAMPLES_MIN, SAMPLES_MAX = 50_000, 2_000_000


def plan_slices(
    connection: Connection, shape: Shape, *, where: str | None, key: Sequence[str], rows: int
) -> list[ChunkPredicate]:
    """Cut the rows within `where` into slices of about `rows`."""
    if shape.table.primary_key:
        return _key_slices(connection, shape, where=where, key=shape.table.primary_key, rows=rows, nulls=False)
    if shape.relation.is_table:
        slices = _block_slices(connection, shape.relation, where=where, rows=rows)
        if slices is not None:
            return slices
    if not key:
        raise SourceError(
            f"`{shape.table.name}` has no primary key, and without a key it cannot be cut into chunks",
            state=UNTOUCHED,
            hint="name the columns that tell its rows apart under `key`",
        )
    return _key_slices(connection, shape, where=where, key=key, rows=rows, nulls=True)


def slice_tail(
    shape: Shape, *, where: str | None, predicate: Predicate | None, share: float = 1.0, picked: str = "true"
) -> str:
    """FROM and WHERE of a slice; of the whole table for None.

    Args:
        share: Below 1, that share of the rows by chance: of a table's blocks, the same each time, or of a view's rows.
        picked: One more condition.
    Raises:
        SourceError: The predicate is none that this adapter made.
    """
    condition, place = "true", shape.relation.sql
    if predicate is not None:
        try:
            condition = _condition(predicate)
            if predicate["by"] == "block":
                schema, name = predicate["part"]
                place = f"ONLY {quote(schema)}.{quote(name)} AS {quote(shape.relation.name)}"
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(
                "a stored chunk cannot be read as a slice of a PostgreSQL table",
                state="nothing was read for this chunk",
                hint="the batch was planned on another kind of source, or on an older table: begin a new batch",
            ) from error
    if share < 1:
        if shape.relation.is_table:
            place += f" TABLESAMPLE SYSTEM ({100 * share:.9f}) REPEATABLE (1)"
        else:
            condition += f" AND random() < {share:.12f}"
    return f"FROM {place} WHERE ({where or 'true'}\n) AND ({condition}) AND ({picked})"


def count_rows(connection: Connection, tail: str) -> int:
    """A COUNT(*)."""
    ((counted,),) = fetch(connection, f"SELECT count(*) {tail}")
    return int(counted)


def _condition(predicate: Predicate) -> str:
    if predicate["by"] == "block":
        sides = [(">=", predicate["from"]), ("<", predicate["below"])]
        return " AND ".join(f"ctid {sign} '({int(block)},0)'::tid" for sign, block in sides if block is not None)
    columns = [quote(name) for name in predicate["columns"]]
    if predicate["by"] == "null":
        return " OR ".join(f"{column} IS NULL" for column in columns)
    if predicate["by"] != "key":
        raise ValueError("unknown slice")
    conditions = [f"{column} IS NOT NULL" for column in columns]
    for sign, bound in ((">", predicate["after"]), ("<=", predicate["upto"])):
        if bound is not None:
            values = [literal(value, declared) for value, declared in zip(bound, predicate["types"], strict=True)]
            conditions.append(f"({', '.join(columns)}) {sign} ({', '.join(values)})")
    return " AND ".join(conditions)


def _key_slices(
    connection: Connection, shape: Shape, *, where: str | None, key: Sequence[str], rows: int, nulls: bool
) -> list[ChunkPredicate]:
    whole: dict[str, Any] = {
        "by": "key",
        "columns": list(key),
        "types": [shape.column(name).declared for name in key],
        "after": None,
        "upto": None,
    }
    without_key = {"by": "null", "columns": list(key)}
    tail = slice_tail(shape, where=where, predicate=whole)
    share = _sample_share(connection, shape, tail, rows=rows)
    step = max(1, round(rows * share))
    sample = slice_tail(shape, where=where, predicate=whole, share=share)
    bounds, sampled = _quantiles(connection, key, sample, step=step)
    per_chunk = round(step / share)
    last = round(sampled / share) - per_chunk * len(bounds)
    chunks = [
        ChunkPredicate(
            predicate={**whole, "after": after, "upto": upto},
            rows_estimate=per_chunk if upto is not None else max(last, 0),
        )
        for after, upto in pairwise([None, *bounds, None])
    ]
    lacking = count_rows(connection, slice_tail(shape, where=where, predicate=without_key)) if nulls else 0
    if lacking:
        keep = bool(sampled) or share < 1
        chunks = [*(chunks if keep else []), ChunkPredicate(predicate=without_key, rows_estimate=lacking)]
    return chunks


def _sample_share(connection: Connection, shape: Shape, tail: str, *, rows: int) -> float:
    """Which share of the rows to look at, from above 0 to 1."""
    total = shape.table.rows_estimate or 0 if shape.relation.is_table else count_rows(connection, tail)
    if total <= EXACT_ROWS_MAX:
        return 1.0
    wanted = min(max(SAMPLES_PER_CHUNK * total / rows, SAMPLES_MIN), SAMPLES_MAX)
    return min(1.0, wanted / total)


def _quantiles(connection: Connection, key: Sequence[str], tail: str, *, step: int) -> tuple[list[list[str]], int]:
    """The keys at every `step`-th place of a sample, without the last, and how many keys there are."""
    names = [f"k{place}" for place in range(len(key))]
    picked = ", ".join(f"{quote(column)} AS {name}" for column, name in zip(key, names, strict=True))
    order = ", ".join(names)
    found = fetch(
        connection,
        f"SELECT place, total, {', '.join(f'{name}::text' for name in names)} FROM ("
        f"SELECT {order}, row_number() OVER (ORDER BY {order}) AS place, count(*) OVER () AS total"
        f" FROM (SELECT {picked} {tail}) AS picked) AS numbered"
        f" WHERE place % {step} = 0 OR place = total ORDER BY place",
    )
    total = int(found[-1][1]) if found else 0
    bounds: list[list[str]] = []
    for place, _, *values in found:
        # A key that is not unique may stand at several places; between equal bounds there is nothing.
        if place < total and (not bounds or bounds[-1] != values):
            bounds.append(values)
    return bounds, total


def _block_slices(
    connection: Connection, relation: Relation, *, where: str | None, rows: int
) -> list[ChunkPredicate] | None:
    """Ranges of blocks of each table that holds rows; None if one of them has no blocks of its own."""
    stored = parts(connection, relation)
    if any(part.kind not in ("r", "m") for part in stored):
        return None
    blocks = sum(part.blocks for part in stored)
    expected = planned_rows(connection, f"FROM {relation.sql} WHERE ({where or 'true'}\n)")
    density = max(expected / blocks, 1 / rows) if blocks else 1.0
    step = max(1, round(rows / density))
    chunks: list[ChunkPredicate] = []
    for part in stored:
        edges = [*range(0, max(part.blocks, 1), step)]
        if part.blocks or len(stored) == 1:
            chunks += [
                ChunkPredicate(
                    predicate={"by": "block", "part": [part.schema, part.name], "from": first, "below": below},
                    rows_estimate=round(density * (min(first + step, part.blocks) - first)),
                )
                for first, below in pairwise([*edges, None])
                if first is not None
            ]
    return chunks or _nothing_stored(stored[0].schema, stored[0].name) if stored else None


def _nothing_stored(schema: str, name: str) -> list[ChunkPredicate]:
    predicate = {"by": "block", "part": [schema, name], "from": 0, "below": None}
    return [ChunkPredicate(predicate=predicate, rows_estimate=0)]
