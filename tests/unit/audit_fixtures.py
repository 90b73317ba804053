"""What the tests of the audit database share: a clock they own, a batch, and a chunk led through its steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl

from forcelift.audit import AuditStore
from forcelift.audit.records import (
    Batch,
    BatchMode,
    BatchState,
    BatchTable,
    Chunk,
    ChunkCounts,
    ChunkStatus,
    JobDraft,
    JobKind,
    Part,
    StagedChunk,
)

ORG = "00D000000000001AAA"
BEGAN = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


@dataclass
class StillClock:
    """A clock that stands until a test moves it."""

    at: datetime = BEGAN
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.move(seconds=seconds)

    def move(self, **span: float) -> None:
        self.at += timedelta(**span)


def make_batch(batch_id: str = "B1", *, mode: BatchMode = BatchMode.RUN, project: str = "KPC") -> Batch:
    return Batch(
        batch_id=batch_id,
        project=project,
        mode=mode,
        state=BatchState.RUNNING,
        org_id=ORG,
        org_url="https://example.my.salesforce.com",
        source_url="sqlite:///source.db",
        as_of=BEGAN,
        snapshot=None,
        plan_sha256="ab" * 32,
        plan_revision=1,
        created_by="etl@host pid 7",
        started_at=BEGAN,
    )


def make_table(batch_id: str = "B1", name: str = "KPS_T_SALES_MD", *, position: int = 1) -> BatchTable:
    return BatchTable(
        batch_id=batch_id, table_name=name, object="KPS_Sales__c", position=position, fingerprint="f", info={"a": 1}
    )


def make_part(rows: int = 90, *, file: str = "staging/B1/T/c000001.p00.csv") -> Part:
    return Part(file=file, rows=rows, bytes=rows * 10, sha256="cd" * 32)


def make_staged(*, transformed: int = 90, rejected: int = 6, duplicate: int = 4) -> StagedChunk:
    rows = transformed + rejected + duplicate
    return StagedChunk(
        source_count=rows,
        extracted=rows,
        transformed=transformed,
        rejected=rejected,
        duplicate=duplicate,
        parts=(make_part(transformed),) if transformed else (),
        rows_file="staging/B1/T/c000001.rows.parquet",
        refused_file=None,
        links_file=None,
        source_checksum="v1:0:0",
        changes={"trim:NAME": 3},
        seconds=1.5,
    )


def make_counts(staged: StagedChunk, *, failed: int = 0) -> ChunkCounts:
    return ChunkCounts(
        source=staged.source_count,
        extracted=staged.extracted,
        transformed=staged.transformed,
        skipped=staged.rejected + staged.duplicate,
        loaded=staged.transformed,
        success=staged.transformed - failed,
        failed=failed,
    )


def make_failed(keys: list[str | None], *, code: str = "STRING_TOO_LONG", message: str = "too long") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row": range(len(keys)),
            "key": keys,
            "code": [code] * len(keys),
            "message": [message] * len(keys),
            "fields": [None] * len(keys),
            "data": ['{"NAME":"***"}'] * len(keys),
        },
        schema={
            "row": pl.UInt32,
            "key": pl.String,
            "code": pl.String,
            "message": pl.String,
            "fields": pl.String,
            "data": pl.String,
        },
    )


def make_draft(audit_id: int, *, rows: int = 90, kind: JobKind = JobKind.LOAD) -> JobDraft:
    return JobDraft(
        audit_id=audit_id,
        kind=kind,
        object="KPS_Sales__c",
        operation="upsert",
        external_id_field="External_ID__c",
        part=make_part(rows),
        attempt=1,
    )


def open_store(clock: StillClock, url: str = "sqlite://") -> AuditStore:
    return AuditStore.open(url, clock=clock)


def plan_chunks(
    store: AuditStore, count: int = 1, *, batch_id: str = "B1", name: str = "KPS_T_SALES_MD"
) -> list[Chunk]:
    """Begin the batch if need be and plan a table of so many chunks."""
    if store.batch(batch_id) is None:
        store.begin_batch(make_batch(batch_id), plan_document={"version": 1})
    position = len(store.tables(batch_id)) + 1
    return store.plan_table(
        make_table(batch_id, name, position=position), [({"from": number}, 100) for number in range(count)]
    )


def settle(
    store: AuditStore, audit_id: int, *, staged: StagedChunk | None = None, failed: pl.DataFrame | None = None
) -> Chunk:
    """Lead a PENDING chunk to its end; its failed rows are those of the frame that the rules did not reject."""
    staged = staged or make_staged()
    store.start_chunk(audit_id)
    store.stage_chunk(audit_id, staged)
    refused = (failed.height if failed is not None else staged.rejected) - staged.rejected
    status = ChunkStatus.PARTIAL if refused + staged.rejected else ChunkStatus.SUCCESS
    return store.settle_chunk(
        audit_id,
        status=status,
        counts=make_counts(staged, failed=refused),
        ledger_file="ledger/B1/T/c000001.g00.parquet",
        ledger_sha256="ef" * 32,
        failed=failed,
    )
