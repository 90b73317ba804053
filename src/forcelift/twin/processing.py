"""Process closed ingest jobs: one at a time, a commit group of Salesforce batches in each transaction.

Writes:  records, outcomes and the numbers of the batches done, all in one transaction for each group.
Re-run:  after a kill a job goes on with the batches that no transaction has committed; no row is processed twice.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from forcelift.twin.automation_models import NO_AUTOMATIONS, Automations
from forcelift.twin.cells import read_cells
from forcelift.twin.clock import Clock
from forcelift.twin.columns import Column, bind_columns
from forcelift.twin.contention import DELETES
from forcelift.twin.deletes import DeleteRun
from forcelift.twin.errors import CsvRefused, StoreError
from forcelift.twin.ids import make_ids
from forcelift.twin.ingest import GroupRun, surely_differ
from forcelift.twin.ingest_task import BATCH_ROWS, CHUNK_ROWS, IngestTask
from forcelift.twin.jobs import IngestJobs, Job
from forcelift.twin.pace import BATCH_S_MAX, Pace
from forcelift.twin.requeues import Queue, Requeues, in_time, note_batches
from forcelift.twin.roll_up_saves import MasterRules
from forcelift.twin.row_faults import RowFaults
from forcelift.twin.schema import FieldSchema, ObjectSchema, Schema
from forcelift.twin.store import Store
from forcelift.twin.upload_csv import parse_upload
from forcelift.twin.uploads import read_upload
from forcelift.twin.usage import Usage

DAILY_CAP_MESSAGE: Final = "ExceededQuota : ApiBatchItems Limit exceeded."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A job under way, with what its upload holds: `rows` are read already, except those of deletes."""

    job: Job
    task: IngestTask
    row_count: int
    rows: pl.DataFrame
    keys_differ: bool
    """True if no two rows are about the same record, as far as their keys tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ahead:
    """The job that comes next, whose upload is being read while another one is worked on."""

    job_id: str
    entry: ObjectSchema | None
    work: Future[_Work]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Time that work took on the org's clock; `apex_ms` of it is what automations cost."""

    total_ms: float
    apex_ms: float


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
        pace: Pace | None = None,
        active_on: Callable[[str, str | None], Automations] = lambda name, assignment_rule_id: NO_AUTOMATIONS,
    ) -> None:
        self._store = store
        self._schema = schema
        self._jobs = jobs
        self._usage = usage
        self._clock = clock
        self._pod = pod
        self._seed = seed
        self._commit_batches = commit_batches
        self._pace = pace or Pace()
        self._active_on = active_on
        self._busy_until: datetime | None = None
        self._work: _Work | None = None
        self.row_faults: RowFaults | None = None
        self._ahead: _Ahead | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="twin-reader")
        self._requeues = Requeues(store)
        self._step_lock = threading.Lock()

    def close(self) -> None:
        """Let go of what is read ahead. No step may follow."""
        self._work = self._ahead = None
        self._reader.shutdown(cancel_futures=True)

    def step(self) -> int | None:
        """Do the next piece of work: begin a job, or process one commit group, or end a job.

        Returns:
            Rows processed, 0 for a step without rows, None when there is nothing to do now: no closed job, or the org's
            clock has not come to the end of the work before.
        """
        with self._step_lock:
            self._jobs.expire()
            if self.busy_s() > 0:
                return None
            job = self._jobs.next_closed()
            if job is None:
                self._work = None
                return None
            began = time.perf_counter()
            rows, modelled = self._advance(job)
            if modelled is None:
                modelled = Spent(total_ms=(time.perf_counter() - began) * 1000, apex_ms=0)
            else:
                self._busy_until = self._clock.now() + timedelta(milliseconds=modelled.total_ms)
            self._jobs.add_processing_ms(job, round(modelled.total_ms), apex_ms=round(modelled.apex_ms))
            return rows

    def busy_s(self) -> float:
        """Seconds of the org's clock until the work done last is over."""
        if self._busy_until is None:
            return 0.0
        return max((self._busy_until - self._clock.now()).total_seconds(), 0.0)

    def _advance(self, job: Job) -> tuple[int, Spent | None]:
        """The next piece of work on the job: rows processed, and the time on the org's clock, if that is modelled."""
        if job.state == "UploadComplete":
            if not self._jobs.begin(job):
                return 0, None
            if self._pace.start_delay_s:
                return 0, Spent(total_ms=self._pace.start_delay_s * 1000, apex_ms=0)
        if self._work is None or self._work.job.id != job.id:
            self._work = None
            try:
                self._work = self._take_read(job)
            except CsvRefused as error:
                return self._end(job, error_message=error.error_message)
            self._read_ahead(job)
        queue = self._requeues.of(job.number)
        if queue.gave_up is not None:
            return self._end(job, error_message=queue.gave_up)
        batches = self._remaining(self._work, queue)
        if not batches:
            return self._end(job)
        rows_left, batches_left = self._usage.bulk_left()
        group: list[int] = []
        for batch in batches[: self._commit_batches]:
            # Rows of a batch that was put back were counted when it came first.
            size, price = (0, 0) if batch in queue.pending else (self._size(self._work, batch), 1)
            if size > rows_left or price > batches_left:
                break
            group.append(batch)
            rows_left, batches_left = rows_left - size, batches_left - price
        if not group:
            return self._end(job, error_message=DAILY_CAP_MESSAGE)
        return self._process(self._work, group, queue)

    def _end(self, job: Job, *, error_message: str | None = None) -> tuple[int, None]:
        self._work = None
        self._jobs.finish(job, error_message=error_message)
        return 0, None

    def _take_read(self, job: Job) -> _Work:
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead.job_id != job.id or ahead.entry is not self._schema.object(job.object):
            return self._read(job)
        return ahead.work.result()

    def _read_ahead(self, job: Job) -> None:
        """Begin to read the upload of the job that comes after this one."""
        following = self._jobs.next_closed(after=job)
        if following is not None:
            work = self._reader.submit(self._read, following)
            self._ahead = _Ahead(job_id=following.id, entry=self._schema.object(following.object), work=work)

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
            whole=self._schema.object(job.object),
        )
        rows = upload.cells
        if job.operation not in DELETES:
            rows = read_cells(rows, columns, connect=self._store.cursor, traits=upload.traits)
        column = task.column_of(key)
        # Looked at here, for the whole job, since reading goes on beside the work on another job.
        differ = column is not None and job.operation not in DELETES and surely_differ(rows[column.value])
        return _Work(job=job, task=task, row_count=upload.row_count, rows=rows, keys_differ=differ)

    def _remaining(self, work: _Work, queue: Queue) -> list[int]:
        """Batches not yet done, in the order of work: not that of the file, for batches run in parallel.

        Those that were put back come last.
        """
        order = list(range(-(-work.row_count // BATCH_ROWS)))
        random.Random(f"{self._seed}:{work.job.id}").shuffle(order)  # noqa: S311 - an order of work, no secret
        with self._store.read() as cursor:
            rows = cursor.execute(
                "SELECT DISTINCT batch FROM meta.ingest_batch WHERE job = ?", [work.job.number]
            ).fetchall()
        begun = {int(row[0]) for row in rows} | queue.known
        return [batch for batch in order if batch not in begun] + [batch for batch in order if batch in queue.pending]

    def _size(self, work: _Work, batch: int) -> int:
        return min(BATCH_ROWS, work.row_count - batch * BATCH_ROWS)

    def _process(self, work: _Work, group: list[int], queue: Queue) -> tuple[int, Spent | None]:
        """Execute the batches and commit them together with the note that they are done."""
        frame, now = self._frame(work, group, queue), self._clock.now()
        automations = (
            NO_AUTOMATIONS
            if work.task.operation in DELETES
            else self._active_on(work.task.entry.name, work.job.assignment_rule_id)
        )
        masters = MasterRules(schema=self._schema, active_on=lambda name: self._active_on(name, None))
        frame, late = in_time(frame, self._pace.chunks_in_time(automations))
        fresh = [batch for batch in group if batch not in queue.pending]
        with self._store.write() as cursor:
            if work.task.operation in DELETES:
                result = DeleteRun(
                    cursor, work.task, now=now, contention=self._pace.contention(automations), masters=masters
                ).execute(frame)
            else:
                result = GroupRun(
                    cursor,
                    work.task,
                    now=now,
                    inserts_left=self._usage.records_left(),
                    automations=automations,
                    contention=self._pace.contention(automations),
                    masters=masters,
                ).execute_read(frame, keys_differ=work.keys_differ)
            self._requeues.write(cursor, work.job.number, queue, group, locked=result.requeued, late=late)
            note_batches(cursor, work.job.number, group)
            size = sum(self._size(work, batch) for batch in fresh)
            self._usage.count_bulk(cursor, rows=size, batches=len(fresh))
        done = result.created + result.updated + result.failed
        total_s = self._pace.group_s(done, result.apex_ms)
        if late:
            total_s = max(total_s, BATCH_S_MAX)
        return done, Spent(total_ms=total_s * 1000, apex_ms=result.apex_ms) if total_s else None

    def _frame(self, work: _Work, group: list[int], queue: Queue) -> pl.DataFrame:
        """The group's rows with row number, order of work, chunk, and an Id for each row that may be created."""
        rows = work.rows.with_row_index("row_no")
        frame = pl.concat([rows.slice(batch * BATCH_ROWS, BATCH_ROWS) for batch in group])
        chunks_each = BATCH_ROWS // CHUNK_ROWS
        if not queue.pending.isdisjoint(group):
            frame = frame.join(self._requeues.decided(work.job.number), on="row_no", how="anti", maintain_order="left")
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
