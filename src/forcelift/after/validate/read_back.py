"""Read a few records of each settled chunk back, while the batch goes on, and compare their hashes with the ledger's.

Reads:   one REST query for the first chunk of a table and one for every twelve after it; a describe if none is given.
Writes:  a row of the journal for each chunk: how many were read, how many differ. No values, and no keys.
Re-run:  a chunk is read back once it is settled, and not again; of a process that died up to eleven chunks of a table
         were still to be read back, and are left to `forcelift validate`.

The first look tells what an automation does to every record. A call for each chunk would be a fifth of all calls.

A chunk of few rows is not worth a call: one with fewer than `ROWS_MIN` accepted rows is left to `forcelift validate`.
So are tables with `nulls: leave`, whose records hold more than was sent.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import polars as pl
from msgspec import Struct

from forcelift.after.validate.org_rows import IDS_PER_QUERY, OrgShape
from forcelift.audit import AuditStore
from forcelift.audit.glances import READ_BACK
from forcelift.audit.records import Chunk
from forcelift.errors import TargetError
from forcelift.jobs.work import TableWork
from forcelift.protocols.org import FieldDescribe, ObjectDescribe, Org

ROWS_MIN = 10_000
RECORDS = 20
CHUNKS_AT_ONCE = IDS_PER_QUERY // RECORDS
"""As many as one query has room for."""


class _Settled(Struct, frozen=True, kw_only=True):
    """A chunk that is to be read back: `id` and `hash` of the records picked of it."""

    chunk: Chunk
    work: TableWork
    picked: pl.DataFrame


class ReadBack:
    """Looks at settled chunks, several at once; safe for several threads. `finish` looks at those that still wait."""

    def __init__(
        self,
        *,
        org: Org,
        audit: AuditStore,
        parent_keys: Mapping[tuple[str, str], FieldDescribe],
        describes: Mapping[str, ObjectDescribe] | None = None,
        rows_min: int | None = None,
    ) -> None:
        self._org, self._audit, self._parent_keys = org, audit, parent_keys
        self._describes = describes or {}
        self._rows_min = ROWS_MIN if rows_min is None else rows_min
        self._shapes: dict[str, OrgShape] = {}
        self._lock = threading.Lock()
        self._waiting: dict[str, list[_Settled]] = {}

    def __call__(self, chunk: Chunk, work: TableWork, records: pl.DataFrame, *, accepted: int) -> None:
        """Compare records from all over a chunk, now or with those of the next chunks of its table.

        An org that does not answer is written down, and fails nothing.

        Args:
            records: `id` and `hash` of accepted rows, from all over the chunk; `RECORDS` of them are picked.
            accepted: How many rows of the chunk the org accepted.
        """
        if accepted < self._rows_min or work.plan.nulls == "leave":
            return
        picked = records.gather_every(max(1, records.height // RECORDS)).head(RECORDS)
        settled = _Settled(chunk=chunk, work=work, picked=picked)
        with self._lock:
            waiting = self._waiting.get(chunk.table_name)
            if waiting is None:
                due, self._waiting[chunk.table_name] = [settled], []
            else:
                waiting.append(settled)
                due = waiting.copy() if len(waiting) >= CHUNKS_AT_ONCE else []
                if due:
                    waiting.clear()
        self._look(due)

    def finish(self) -> None:
        """Compare the records of the chunks that wait for others; to be called when no more are settled."""
        with self._lock:
            due = [waiting.copy() for waiting in self._waiting.values()]
            for waiting in self._waiting.values():
                waiting.clear()
        for chunks in due:
            self._look(chunks)

    def _look(self, due: Sequence[_Settled]) -> None:
        """Compare records of chunks of one table."""
        if not due:
            return
        try:
            shape = self._shape(due[0].work)
            if shape.unasked:
                return
            rows = shape.fetch(self._org, pl.concat([settled.picked["id"] for settled in due]).to_list())
        except TargetError as error:
            # The rows are settled; a look that could not be taken is no reason to stop them.
            for settled in due:
                self._write(settled, {"records": 0, "reason": type(error).__name__})
            return
        found = pl.DataFrame([rows["id"], shape.hashes(rows).alias("org_hash")])
        for settled in due:
            both = settled.picked.join(found, on="id", how="left")
            missing = both["org_hash"].null_count()
            differ = both.filter(pl.col("org_hash").is_not_null() & (pl.col("org_hash") != pl.col("hash"))).height
            self._write(settled, {"records": both.height, "missing": missing, "differ": differ})

    def _write(self, settled: _Settled, found: Mapping[str, object]) -> None:
        place = {"table": settled.chunk.table_name, "chunk": settled.chunk.chunk_no}
        self._audit.journal(READ_BACK, {**place, **found}, batch_id=settled.chunk.batch_id)

    def _shape(self, work: TableWork) -> OrgShape:
        with self._lock:
            name = work.plan.table
            if name not in self._shapes:
                describe = self._describes.get(work.spec.object) or self._org.describe(work.spec.object)
                self._shapes[name] = OrgShape.of(work, describe, self._parent_keys)
            return self._shapes[name]
