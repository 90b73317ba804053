"""Locks on records while Salesforce batches run side by side: who waits too long fails, who fails often is put back.

A model on paper, not threads, so that a seed always gives the same. Batches run in waves of `parallel_batches`; within
a wave the n-th chunks of 200 run at the same time. A chunk locks its records and their parents for as long as it takes;
chunks that want the same lock get it in the order of work. Who would wait longer than the lock wait fails with
UNABLE_TO_LOCK_ROW. Once more than 100 records of a batch have failed so, its later chunks go back into the queue, and
records that have failed stay failed.
Source:  salesforce-api reference, sections 3.9 and 9 (points 20 and 48).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import duckdb

from forcelift.twin.columns import Column
from forcelift.twin.ingest_task import BATCH_ROWS, CHUNK_ROWS, IngestTask
from forcelift.twin.schema import FieldSchema
from forcelift.twin.store import table
from forcelift.twin.values import name as quoted
from forcelift.twin.values import row_error

LOCK_FAILURES_MAX: Final = 100
REQUEUES_MAX: Final = 10
DELETES: Final = ("delete", "hardDelete")
_CHUNKS: Final = BATCH_ROWS // CHUNK_ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class Contention:
    """How batches run side by side. `chunk_s` is how long a chunk holds its locks; the default never meets anybody."""

    parallel_batches: int = 1
    lock_wait_s: float = 5.0
    chunk_s: float = 0.0

    @property
    def can_fail(self) -> bool:
        """True if a chunk may have to wait longer than the lock wait."""
        return (self.parallel_batches - 1) * self.chunk_s > self.lock_wait_s


def locking_columns(task: IngestTask, locked: Sequence[FieldSchema]) -> list[Column]:
    """Columns of lookups whose parents a save locks.

    A master always; the parent of a lookup unless it is optional and cleared with the parent; and what triggers lock.
    """
    return [
        column
        for column in task.columns
        if column.field.type == "reference" and (not _may_be_cleared(column.field) or column.field in locked)
    ]


def _may_be_cleared(field: FieldSchema) -> bool:
    """True unless the field is a lookup that keeps its parent from going away: a save need not lock that parent."""
    return not (
        field.type == "reference"
        and (field.master_detail or field.restricted_delete or (not field.nillable and field.custom))
    )


def refuse_locked(
    cursor: duckdb.DuckDBPyConnection, task: IngestTask, contention: Contention, locked: Sequence[FieldSchema]
) -> dict[int, int]:
    """Fail rows of `twin_round` that wait too long for a lock.

    Returns:
        The last chunk that was worked on, for each Salesforce batch of which the rest goes back into the queue.
    """
    if not contention.can_fail:
        return {}
    wanted = [f"SELECT pos, {column.value} AS lock FROM twin_round" for column in locking_columns(task, locked)]
    wanted.append("SELECT pos, record AS lock FROM twin_round")
    # The master of a stored detail is locked too, whether the save names it or not, and when the save changes it.
    wanted += [
        f"SELECT r.pos, t.{quoted(field.name)} AS lock FROM twin_round r "
        f"JOIN {table(task.entry)} t ON t.rowid = r.place"
        for field in task.record.stored_fields
        if field.master_detail or (task.operation in DELETES and not _may_be_cleared(field))
    ]
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE twin_lock AS WITH batches AS (SELECT chunk // "
        f"{_CHUNKS} AS batch, row_number() OVER (ORDER BY min(ord)) - 1 AS turn FROM twin_round GROUP BY ALL), "
        f"steps AS (SELECT r.pos, r.chunk, b.batch, b.turn, b.turn // {contention.parallel_batches} AS wave, "
        f"r.chunk % {_CHUNKS} AS step FROM twin_round r JOIN batches b ON r.chunk // {_CHUNKS} = b.batch "
        f"WHERE r.error IS NULL), locks AS ({' UNION ALL '.join(wanted)}) "
        "SELECT s.*, l.lock, dense_rank() OVER (PARTITION BY wave, step, lock ORDER BY turn) - 1 AS ahead "
        "FROM steps s JOIN locks l ON s.pos = l.pos WHERE l.lock IS NOT NULL"
    )
    late = f"ahead * {contention.chunk_s} > {contention.lock_wait_s}"
    cuts = cursor.execute(
        f"SELECT batch, min(chunk) FROM (SELECT batch, chunk, sum(count(DISTINCT pos)) OVER "
        f"(PARTITION BY batch ORDER BY chunk) AS failed FROM twin_lock WHERE {late} GROUP BY batch, chunk) "
        f"WHERE failed > {LOCK_FAILURES_MAX} GROUP BY batch"
    ).fetchall()
    error = row_error(
        "UNABLE_TO_LOCK_ROW", "'unable to obtain exclusive access to this record or 1 records: ' || l.lock"
    )
    cursor.execute(
        f"UPDATE twin_round SET error = {error} FROM (SELECT pos, min(lock) AS lock FROM twin_lock WHERE {late} "
        "GROUP BY pos) l WHERE twin_round.pos = l.pos"
    )
    return {int(batch): int(chunk) for batch, chunk in cuts}
