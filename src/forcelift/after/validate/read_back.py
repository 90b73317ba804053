"""Read a few records of each settled chunk back, while the batch goes on, and compare their hashes with the ledger's.

Reads:   one REST query a chunk, and the object's describe once.
Writes:  a row of the journal for each chunk: how many were read, how many differ. No values, and no keys.
Re-run:  a chunk is read back when it is settled, and not again.

A chunk of few rows is not worth a call: one with fewer than `ROWS_MIN` accepted rows is left to `forcelift validate`.
So are tables with `nulls: leave`, whose records hold more than was sent.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import polars as pl

from forcelift.after.validate.org_rows import OrgShape
from forcelift.audit import AuditStore
from forcelift.audit.records import Chunk
from forcelift.audit.validations import READ_BACK
from forcelift.errors import TargetError
from forcelift.jobs.work import TableWork
from forcelift.protocols.org import FieldDescribe, Org

ROWS_MIN = 10_000
RECORDS = 20


class ReadBack:
    """Looks at settled chunks; safe for several threads."""

    def __init__(
        self,
        *,
        org: Org,
        audit: AuditStore,
        parent_keys: Mapping[tuple[str, str], FieldDescribe],
        rows_min: int | None = None,
    ) -> None:
        self._org, self._audit, self._parent_keys = org, audit, parent_keys
        self._rows_min = ROWS_MIN if rows_min is None else rows_min
        self._shapes: dict[str, OrgShape] = {}
        self._lock = threading.Lock()

    def __call__(self, chunk: Chunk, work: TableWork, records: pl.DataFrame, *, accepted: int) -> None:
        """Compare records from all over a chunk. An org that does not answer is written down, and fails nothing.

        Args:
            records: `id` and `hash` of accepted rows, from all over the chunk; `RECORDS` of them are picked.
            accepted: How many rows of the chunk the org accepted.
        """
        if accepted < self._rows_min or work.plan.nulls == "leave":
            return
        picked = records.gather_every(max(1, records.height // RECORDS)).head(RECORDS)
        found: dict[str, object] = {"table": chunk.table_name, "chunk": chunk.chunk_no}
        try:
            shape = self._shape(work)
            if shape.unasked:
                return
            rows = shape.fetch(self._org, picked["id"].to_list())
        except TargetError as error:
            # The rows are settled; a look that could not be taken is no reason to stop them.
            self._audit.journal(
                READ_BACK, found | {"records": 0, "reason": type(error).__name__}, batch_id=chunk.batch_id
            )
            return
        both = picked.join(pl.DataFrame([rows["id"], shape.hashes(rows).alias("org_hash")]), on="id", how="left")
        missing = both["org_hash"].null_count()
        differ = both.filter(pl.col("org_hash").is_not_null() & (pl.col("org_hash") != pl.col("hash"))).height
        self._audit.journal(
            READ_BACK, found | {"records": both.height, "missing": missing, "differ": differ}, batch_id=chunk.batch_id
        )

    def _shape(self, work: TableWork) -> OrgShape:
        with self._lock:
            name = work.plan.table
            if name not in self._shapes:
                self._shapes[name] = OrgShape.of(work, self._org.describe(work.spec.object), self._parent_keys)
            return self._shapes[name]
