"""Everything that the handlers of a retry touch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl
from msgspec import field

from forcelift.after.retry.rows import SourceRows
from forcelift.after.retry.scope import as_engine_chunk, retry_names
from forcelift.audit.records import Chunk, Job, JobKind
from forcelift.audit.retries import Retry, RetryChunk
from forcelift.audit.undo_records import BeforeImage
from forcelift.jobs.work import StagedNames, TableWork
from forcelift.jobs.world import JobWorld
from forcelift.rules import ParentKeys

Parents = Callable[[str, str, str | None], ParentKeys]
"""Gives the keys of a lookup's parents by (parent object, key field, parent table)."""

RejectedData = Callable[[TableWork, pl.DataFrame], pl.Series]
"""Makes the RECORD_DATA of source rows that a rule rejects."""


class RetryWorld(JobWorld, frozen=True, kw_only=True):
    """The world of the job handlers, in which a chunk is what a retry takes up of it.

    Attributes:
        parents, link_parents: Who exists for the lookups of the load pass and of the link pass.
        only_told: In a dry run, the rows of each chunk by AUDIT_ID; nothing is written down of it.
    """

    retry: Retry
    rows: SourceRows
    parents: Parents
    link_parents: Parents
    rejected_data: RejectedData
    only_told: Mapping[int, pl.DataFrame] = field(default_factory=dict)

    def one(self, audit_id: int) -> RetryChunk:
        """How far a chunk has come in this retry."""
        return self.audit.retry_chunk(self.retry.retry_no, audit_id)

    def lines(self, audit_id: int) -> pl.DataFrame:
        """The rows of a chunk that the retry takes up: columns of `choose.LINES`."""
        if audit_id in self.only_told:
            return self.only_told[audit_id]
        one = self.one(audit_id)
        self.storage.verify(one.lines_file, one.lines_sha256)
        return pl.read_parquet(self.storage.path(one.lines_file), glob=False)

    def audit_ids(self) -> list[int]:
        """The chunks of the retry, in rising order."""
        if self.only_told:
            return sorted(self.only_told)
        return [one.audit_id for one in self.audit.retry_chunks(self.retry.retry_no)]

    def chunk(self, audit_id: int) -> tuple[Chunk, TableWork, StagedNames]:
        chunk = self.audit.chunk(audit_id)
        seen = as_engine_chunk(chunk, self.one(audit_id))
        return seen, self.works[chunk.table_name], retry_names(self.retry.folder, chunk)

    def jobs(self, chunk: Chunk) -> list[Job]:
        jobs = self.audit.jobs(chunk.batch_id, chunk.audit_id)
        return [job for job in jobs if job.kind is not JobKind.UNDO and is_of_retry(job, self.retry)]

    def image(self, chunk: Chunk) -> BeforeImage | None:
        return image_of_retry(self.one(chunk.audit_id), chunk)


def is_of_retry(job: Job, retry: Retry) -> bool:
    """Whether a job was made for this retry: its file lies there."""
    return job.part.file.startswith(f"{retry.folder}/")


def image_of_retry(one: RetryChunk, chunk: Chunk) -> BeforeImage | None:
    """The before-image of a chunk's rows in a retry."""
    if one.image_file is None or one.image_at is None:
        return None
    return BeforeImage(
        audit_id=one.audit_id,
        generation=chunk.generation,
        file=one.image_file,
        sha256=one.image_sha256,
        rows=one.image_rows or 0,
        taken_at=one.image_at,
    )
