"""Process closed ingest jobs: one at a time, a commit group of Salesforce batches in each transaction.

Writes:  records, outcomes and the numbers of the batches done, all in one transaction for each group.
Re-run:  after a kill a job goes on with the batches that no transaction has committed; no row is processed twice.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import polars as pl

from forcelift.twin.clock import Clock
from forcelift.twin.columns import Column, bind_columns
from forcelift.twin.deletes import DeleteRun
from forcelift.twin.errors import CsvRefused, StoreError
from forcelift.twin.ids import make_ids
from forcelift.twin.ingest import GroupRun
from forcelift.twin.ingest_task import BATCH_ROWS, CHUNK_ROWS, GroupResult, IngestTask
from forcelift.twin.jobs import IngestJobs, Job
from forcelift.twin.row_faults import RowFaults
from forcelift.twin.schema import FieldSchema, Schema
from forcelift.twin.store import Store
from forcelift.twin.upload_csv import Upload, parse_upload
from forcelift.twin.uploads import read_upload
from forcelift.twin.usage import Usage

DAILY_CAP_MESSAGE: Final = "ExceededQuota : ApiBatchItems Limit exceeded."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A job under way, with what its upload holds."""

    job: Job
    task: IngestTask
    upload: Upload


class Processor:
    """Works through closed jobs, step by step; whoever calls `step` is the org's only worker."""

    def __init__(
        self,
        store: Store,
        schema: Schema,
        jobs: IngestJobs,
        usage: Usage,
        clock: Clock,
        *,
        pod: str,
        seed: int,
        commit_batches: int,
    ) -> None:
        self._store = store
        self._schema = schema
        self._jobs = jobs
        self._usage = usage
        self._clock = clock
        self._pod = pod
        self._seed = seed
        self._commit_batches = commit_batches
        self._work: _Work | None = None
        self.row_faults: RowFaults | None = None
        self._step_lock = threading.Lock()

    def step(self) -> int | None:
        """Do the next piece of work: begin a job, or process one commit group, or end a job.

        Returns:
            Rows processed, 0 for a step without rows, None when there is nothing to do.
        """
        with self._step_lock:
            self._jobs.expire()
            job = self._jobs.next_closed()
            if job is None:
                self._work = None
                return None
            began = time.perf_counter()
            rows = self._advance(job)
            self._jobs.add_processing_ms(job, round((time.perf_counter() - began) * 1000))
            return rows

    def _advance(self, job: Job) -> int:
        if job.state == "UploadComplete" and not self._jobs.begin(job):
            return 0
        if self._work is None or self._work.job.id != job.id:
            self._work = None
            try:
                self._work = self._read(job)
            except CsvRefused as error:
                self._jobs.finish(job, error_message=error.error_message)
                return 0
        batches = self._remaining(self._work)
        if not batches:
            return self._end(job)
        rows_left, batches_left = self._usage.bulk_left()
        group: list[int] = []
        for batch in batches[: self._commit_batches]:
            size = self._size(self._work, batch)
            if size > rows_left or batches_left < 1:
                break
            group.append(batch)
            rows_left, batches_left = rows_left - size, batches_left - 1
        if not group:
            return self._end(job, error_message=DAILY_CAP_MESSAGE)
        return self._process(self._work, group)

    def _end(self, job: Job, *, error_message: str | None = None) -> int:
        self._work = None
        self._jobs.finish(job, error_message=error_message)
        return 0

    def _read(self, job: Job) -> _Work:
        schema = self._schema.seen_by(job.created_by_id)
        entry = schema.object(job.object)
        if entry is None:
            raise StoreError(f"job {job.id} is about {job.object}, which the schema lacks")
        content = read_upload(self._store, job.upload)
        upload = parse_upload(content, delimiter=job.column_delimiter, line_ending=job.line_ending)
        columns: tuple[Column, ...] = ()
        if upload.names:
            columns = bind_columns(upload.names, schema=schema, entry=entry, operation=job.operation)
        key: FieldSchema | None = None
        if job.operation == "upsert":
            key = entry.field(job.external_id_field or "Id")
        elif job.operation == "update":
            key = entry.field("Id")
        task = IngestTask(
            schema=schema,
            entry=entry,
            operation=job.operation,
            columns=columns,
            key=key,
            job=job.number,
            user_id=job.created_by_id,
            faults=self.row_faults,
        )
        return _Work(job=job, task=task, upload=upload)

    def _remaining(self, work: _Work) -> list[int]:
        """Batches not yet committed, in the order of work: not that of the file, for batches run in parallel."""
        order = list(range(-(-work.upload.row_count // BATCH_ROWS)))
        random.Random(f"{self._seed}:{work.job.id}").shuffle(order)  # noqa: S311 - an order of work, no secret
        with self._store.read() as cursor:
            rows = cursor.execute("SELECT batch FROM meta.ingest_batch WHERE job = ?", [work.job.number]).fetchall()
        done = {int(row[0]) for row in rows}
        return [batch for batch in order if batch not in done]

    def _size(self, work: _Work, batch: int) -> int:
        return min(BATCH_ROWS, work.upload.row_count - batch * BATCH_ROWS)

    def _process(self, work: _Work, group: list[int]) -> int:
        """Execute the batches and commit them together with the note that they are done."""
        frame = self._frame(work, group)
        now = self._clock.now()
        with self._store.write() as cursor:
            run: Callable[[pl.DataFrame], GroupResult]
            if work.task.operation in ("delete", "hardDelete"):
                run = DeleteRun(cursor, work.task, now=now).execute
            else:
                run = GroupRun(cursor, work.task, now=now, inserts_left=self._usage.records_left()).execute
            run(frame)
            cursor.execute(
                "INSERT INTO meta.ingest_batch SELECT ?, b.batch, count(*), count(o.error) FROM "
                f"(SELECT unnest(?::BIGINT[]) AS batch) b JOIN meta.ingest_outcome o "
                f"ON o.job = ? AND o.row_no // {BATCH_ROWS} = b.batch GROUP BY b.batch",
                [work.job.number, group, work.job.number],
            )
            self._usage.count_bulk(cursor, rows=frame.height, batches=len(group))
        return frame.height

    def _frame(self, work: _Work, group: list[int]) -> pl.DataFrame:
        """The group's cells with row number, order of work, chunk, and an Id for each row that may be created."""
        cells = work.upload.cells.with_row_index("row_no")
        frame = pl.concat([cells.slice(batch * BATCH_ROWS, BATCH_ROWS) for batch in group])
        chunks_each = BATCH_ROWS // CHUNK_ROWS
        frame = frame.with_columns(
            pl.col("row_no").cast(pl.Int64),
            ord=pl.int_range(frame.height, dtype=pl.Int64),
            chunk=(pl.col("row_no") // BATCH_ROWS * chunks_each + pl.col("row_no") % BATCH_ROWS // CHUNK_ROWS).cast(
                pl.Int64
            ),
        )
        if work.task.operation not in ("insert", "upsert"):
            return frame.with_columns(new_id=pl.lit(None, dtype=pl.String))
        prefix = work.task.entry.key_prefix
        start = self._store.take_numbers(prefix, frame.height)
        return frame.with_columns(make_ids(prefix, self._pod, start, frame.height).alias("new_id"))
