"""Salesforce batches that are put back into the queue with rows left to do: after lock failures, or five minutes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import duckdb
import polars as pl

from forcelift.twin.contention import REQUEUES_MAX
from forcelift.twin.ingest_task import BATCH_ROWS, CHUNK_ROWS
from forcelift.twin.pace import TIMEOUTS_MAX
from forcelift.twin.store import Store

# The exact texts are not documented; the codes are.
LOCKS_MESSAGE: Final = f"TooManyLockFailure : Too many lock failures. The batch was put back {REQUEUES_MAX} times."
TIMEOUTS_MESSAGE: Final = f"Timeout : A batch was retried more than {TIMEOUTS_MAX} times."


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Batches of one job that were put back at least once; those in `pending` have rows left."""

    pending: frozenset[int]
    known: frozenset[int]
    gave_up: str | None
    """The job's errorMessage, if a batch was put back too often."""


class Requeues:
    """Reads and writes `meta.ingest_requeue`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, job: int) -> Queue:
        """What was put back of a job."""
        with self._store.read() as cursor:
            rows = cursor.execute(
                "SELECT batch, locks, timeouts, pending FROM meta.ingest_requeue WHERE job = ?", [job]
            ).fetchall()
        gave_up = None
        for _, locks, timeouts, _ in rows:
            if locks > REQUEUES_MAX:
                gave_up = LOCKS_MESSAGE
            elif timeouts > TIMEOUTS_MAX:
                gave_up = TIMEOUTS_MESSAGE
        return Queue(
            pending=frozenset(int(row[0]) for row in rows if row[3]),
            known=frozenset(int(row[0]) for row in rows),
            gave_up=gave_up,
        )

    def decided(self, job: int) -> pl.DataFrame:
        """Row numbers of a job's rows that have an outcome."""
        with self._store.read() as cursor:
            query = "SELECT CAST(row_no AS UINTEGER) AS row_no, true AS done FROM meta.ingest_outcome WHERE job = ?"
            answer = pl.from_arrow(cursor.sql(query, params=[job]).to_arrow_table())
        assert isinstance(answer, pl.DataFrame)  # a table of several columns always is one
        return answer.select("row_no")

    def write(
        self,
        cursor: duckdb.DuckDBPyConnection,
        job: int,
        queue: Queue,
        group: Iterable[int],
        *,
        locked: frozenset[int],
        late: frozenset[int],
    ) -> None:
        """Note which batches of the group that was processed go back, in the transaction of their rows."""
        cursor.execute(
            "UPDATE meta.ingest_requeue SET pending = false WHERE job = ? AND list_contains(?::BIGINT[], batch)",
            [job, list(group)],
        )
        for batch in sorted(locked | late):
            if batch not in queue.known:
                cursor.execute("INSERT INTO meta.ingest_requeue VALUES (?, ?, 0, 0, true)", [job, batch])
            cursor.execute(
                "UPDATE meta.ingest_requeue SET pending = true, locks = locks + ?, timeouts = timeouts + ? "
                "WHERE job = ? AND batch = ?",
                [int(batch in locked), int(batch in late), job, batch],
            )


def in_time(rows: pl.DataFrame, chunks: int | None) -> tuple[pl.DataFrame, frozenset[int]]:
    """The rows of each batch that are worked on before its time is up, and the batches that have more.

    Args:
        rows: With columns `row_no` and `chunk`.
        chunks: How many chunks of a batch fit; None if all do.
    """
    if chunks is None or chunks >= BATCH_ROWS // CHUNK_ROWS:
        return rows, frozenset()
    batch = pl.col("row_no") // BATCH_ROWS
    turn = pl.col("chunk").rank("dense").over(batch)
    fits = rows.select(turn <= chunks).to_series()
    late = rows.filter(~fits).select(batch.unique()).to_series().to_list()
    return rows.filter(fits), frozenset(int(number) for number in late)


def note_batches(cursor: duckdb.DuckDBPyConnection, job: int, group: Iterable[int]) -> None:
    """Count the outcomes that batches have got since they were counted last, in the transaction that wrote them."""
    cursor.execute(
        "INSERT INTO meta.ingest_batch SELECT ?, b.batch, count(o.row_no) - coalesce(any_value(d.records), 0), "
        "count(o.error) - coalesce(any_value(d.failed), 0) FROM (SELECT unnest(?::BIGINT[]) AS batch) b "
        f"LEFT JOIN meta.ingest_outcome o ON o.job = ? AND o.row_no // {BATCH_ROWS} = b.batch "
        "LEFT JOIN (SELECT batch, sum(records) AS records, sum(failed) AS failed FROM meta.ingest_batch WHERE job = ? "
        "GROUP BY batch) d ON d.batch = b.batch GROUP BY b.batch",
        [job, list(group), job, job],
    )
