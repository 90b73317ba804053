"""Everything that the engine's handlers touch, and where a chunk's things are found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import polars as pl
from msgspec import Struct, field

from forcelift.audit import AuditStore, Lease
from forcelift.audit.records import Batch, Chunk, Job, JobKind
from forcelift.audit.undo_records import BeforeImage
from forcelift.jobs.shares import Shares
from forcelift.jobs.work import StagedNames, TableWork, staged_names
from forcelift.ledger import Ledger
from forcelift.protocols.clock import Clock
from forcelift.protocols.org import Org
from forcelift.protocols.refusals import RefusalReader
from forcelift.storage import Storage


class RecordData(Protocol):
    """Makes the RECORD_DATA of refused rows: given keys, a frame `key`, `data` of masked JSON texts."""

    def __call__(
        self, work: TableWork, staged: pl.LazyFrame, keys: pl.Series, links: pl.LazyFrame | None = None
    ) -> pl.DataFrame: ...


class ReadsBack(Protocol):
    """Compares a few records of a chunk that was settled with what the org has. It raises nothing of the org's."""

    def __call__(self, chunk: Chunk, work: TableWork, records: pl.DataFrame, *, accepted: int) -> None: ...

    def finish(self) -> None:
        """Compare what waits for more chunks: no more are settled."""


class JobWorld(Struct, frozen=True, kw_only=True):
    """Everything that the job handlers touch. `own_fence` is this runner's on a batch that may be shared, else None.

    `one_call`: whether tiny jobs are created together with their data; see `jobs/one_call.py`.
    """

    batch: Batch
    org: Org
    audit: AuditStore
    lease: Lease
    storage: Storage
    ledger: Ledger
    clock: Clock
    refusals: RefusalReader
    record_data: RecordData
    rows_per_day: int
    keep_staged: bool
    works: Mapping[str, TableWork]
    own_fence: int | None = None
    one_call: bool = False
    read_back: ReadsBack | None = None
    shares: Shares = field(default_factory=Shares)

    def chunk(self, audit_id: int) -> tuple[Chunk, TableWork, StagedNames]:
        """A chunk with its table and the names of its files."""
        chunk = self.audit.chunk(audit_id)
        return (
            chunk,
            self.works[chunk.table_name],
            staged_names(chunk.batch_id, chunk.table_name, chunk.chunk_no, fence=self.own_fence),
        )

    def jobs(self, chunk: Chunk) -> list[Job]:
        """The jobs whose answers decide what becomes of a chunk's staged rows, in the order of their intents."""
        jobs = self.audit.jobs(chunk.batch_id, chunk.audit_id)
        return [job for job in jobs if job.kind not in (JobKind.UNDO, JobKind.RETRY)]

    def image(self, chunk: Chunk) -> BeforeImage | None:
        """The records of these rows' keys as they stood before the first job; None if none was taken."""
        return self.audit.image(chunk.audit_id)
