"""Bulk API 2.0 query jobs: create, run in the background, read in pages, abort, delete, forget after 7 days.

Writes:  `meta.query_job`, one row per job, and a result table per finished job.
Re-run:  a job that was waiting or running when the twin ended is run again from its start; finished ones keep their
         results and locators.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

import duckdb

from forcelift.twin.clock import Clock
from forcelift.twin.errors import ApiError, invalid_job_state, not_found
from forcelift.twin.ids import make_id, org_pod
from forcelift.twin.query_job_rows import JobRow, JobRows, base_json, checked, format_json, full_json
from forcelift.twin.query_results import DELIMITERS, LINE_ENDINGS, ResultTable, freeze, result_bytes, result_table_name
from forcelift.twin.schema import Schema
from forcelift.twin.soql import CompiledQuery, compile_query
from forcelift.twin.soql.views import Category
from forcelift.twin.store import Store
from forcelift.twin.usage import Usage

log = logging.getLogger(__name__)

RETENTION: Final = timedelta(days=7)
RESULT_MB_PER_DAY_MAX: Final = 976_562
RESULT_KB_PER_DAY_MAX: Final = 1_000_000_000  # what those megabytes are in the words of the error
PAGE_ROWS: Final = 100_000  # when the client names no maxRecords
RESULT_PAGES_MAX: Final = 5
LOCATOR_DIGITS_MAX: Final = 12
LIST_PAGE_JOBS: Final = 1000
ENDED: Final = frozenset({"JobComplete", "Aborted", "Failed"})


class Org(Protocol):
    """What query jobs need of the org."""

    @property
    def schema(self) -> Schema: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def seed(self) -> int: ...
    @property
    def store(self) -> Store: ...
    @property
    def usage(self) -> Usage: ...
    def cursor(self) -> duckdb.DuckDBPyConnection: ...


class ResultPage(NamedTuple):
    """A page of results: CSV in pieces, its number of records, and where the next page begins (None: nowhere)."""

    content: Iterator[bytes]
    record_count: int
    locator: str | None


class QueryJobs:
    """The query jobs of an org.

    Args:
        org: The org. Stays the caller's.
        workers: Jobs run at once, each in a thread. With 0 jobs wait for `run_pending`.
    """

    def __init__(self, org: Org, *, workers: int = 2) -> None:
        self._org = org
        self._lock = threading.RLock()
        self._running: dict[str, duckdb.DuckDBPyConnection] = {}
        self._closed = False
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="twin-query") if workers else None
        self._futures: set[Future[None]] = set()
        self._rows = JobRows(org.cursor)
        org.usage.watch("DailyBulkV2QueryJobs", self.jobs_last_day)
        org.usage.watch("DailyBulkV2QueryFileStorageMB", self.result_mb_last_day)
        for job in self._rows.select("state = 'UploadComplete' AND NOT deleted"):
            self._start(job.id)

    def create(self, body: Mapping[str, Any], *, user_id: str, api_version: str) -> dict[str, Any]:
        """Take a job on: check the request and the query, and put it into the queue.

        Raises:
            ApiError: For a request that is none, a query that Salesforce or its Bulk API refuses, or the daily limit.
        """
        operation, soql, delimiter, line_ending = checked(body)
        compiled = self._compile(soql, operation, user_id=user_id)
        self._forget_old()
        limit = self._org.usage.limit("DailyBulkV2QueryJobs")
        now = self._now()
        with self._lock:
            used = self.jobs_last_day()
            if used >= limit:
                text = f"Max bulk v2 query jobs ({limit}) per 24 hrs has been reached ({used + 1})"
                raise ApiError(400, "LIMIT_EXCEEDED", text)
            self._require_storage()
            with self._rows.cursor() as cursor:
                row = cursor.execute("SELECT coalesce(max(number), 0) + 1 FROM meta.query_job").fetchone()
                job = JobRow(
                    id=make_id("750", org_pod(self._org.seed), self._org.store.take_numbers("750")),
                    number=int(row[0]) if row else 1,
                    operation=operation,
                    object=compiled.object_name,
                    query=soql,
                    column_delimiter=delimiter,
                    line_ending=line_ending,
                    api_version=api_version,
                    created_by_id=user_id,
                    created_date=now,
                    system_modstamp=now,
                    state="UploadComplete",
                    records=0,
                    processing_ms=0,
                    error_message=None,
                    columns="[]",
                    deleted=False,
                )
                self._rows.add(job)
        self._start(job.id)
        return {**base_json(job), **format_json(job)}

    def get(self, job_id: str) -> dict[str, Any]:
        """The full job. Raises ApiError 404."""
        return full_json(self._job(job_id))

    def patch(self, job_id: str, state: str) -> dict[str, Any]:
        """Abort a job, the one change there is. Raises ApiError 404, or 400 for an ended job or another state."""
        with self._lock:
            job = self._job(job_id)
            if state != "Aborted":
                raise ApiError(400, "INVALIDJOB", f"InvalidJob : a query job cannot be set to state {state}")
            if job.state in ENDED:
                raise invalid_job_state("Aborting already Completed Job not allowed")
            self._set(job, state="Aborted")
            running = self._running.get(job.id)
            if running is not None:
                running.interrupt()
            return base_json(self._job(job_id))

    def delete(self, job_id: str) -> None:
        """Forget an ended job and its results. Raises ApiError 404, or 400 while it has not ended."""
        with self._lock:
            job = self._job(job_id)
            if job.state not in ENDED:
                text = "Error encountered when deleting the job because the job is not terminated"
                raise ApiError(400, "API_ERROR", text)
            self._drop(job)

    def list(self, locator: str | None = None, *, api_version: str = "66.0") -> dict[str, Any]:
        """All jobs, newest first, 1000 a page. Raises ApiError for a locator that is none."""
        self._forget_old()
        start = 0 if locator is None else _place(locator)
        jobs = self._rows.select("NOT deleted ORDER BY number DESC", limit=LIST_PAGE_JOBS + 1, offset=start)
        records = [{**base_json(job), "jobType": "V2Query", **format_json(job)} for job in jobs[:LIST_PAGE_JOBS]]
        answer: dict[str, Any] = {"done": len(jobs) <= LIST_PAGE_JOBS, "records": records}
        if not answer["done"]:
            after = _locator(start + LIST_PAGE_JOBS)
            answer["nextRecordsUrl"] = f"/services/data/v{api_version}/jobs/query?queryLocator={after}"
        return answer

    def results(
        self,
        job_id: str,
        locator: str | None = None,
        max_records: int | None = None,
        api_version: str | None = None,
    ) -> ResultPage:
        """A page of a finished job's results.

        Args:
            job_id: The job.
            locator: Where the page begins, out of an earlier answer; None for the first page.
            max_records: Rows on the page at most.
            api_version: The version of the call; another than the job's is refused.
        Raises:
            ApiError: 404, 400 while the job is not complete or for a locator that is none, 409 for another version.
        """
        job = self._finished(job_id, api_version)
        start = self._start_row(job, locator)
        end = min(job.records, start + (max_records or PAGE_ROWS))
        table = self._table(job)
        return ResultPage(
            content=table.page(self._org.cursor, start, end),
            record_count=end - start,
            locator=_locator(end) if end < job.records else None,
        )

    def result_pages(self, job_id: str, locator: str | None = None, api_version: str | None = None) -> dict[str, Any]:
        """Up to five urls of result pages, to be read side by side. Raises ApiError as `results` does."""
        job = self._finished(job_id, api_version)
        start = self._start_row(job, locator)
        starts = list(range(start, max(job.records, 1), PAGE_ROWS))
        base = f"/services/data/v{job.api_version}/jobs/query/{job.id}"
        pages = [
            {"resultUrl": f"{base}/results" + (f"?locator={_locator(row)}" if row else "")}
            for row in starts[:RESULT_PAGES_MAX]
        ]
        more = starts[RESULT_PAGES_MAX:]
        answer: dict[str, Any] = {"resultPages": pages, "done": not more}
        if more:
            answer["nextRecordsUrl"] = f"{base}/resultPages?locator={_locator(more[0])}"
        return answer

    def jobs_last_day(self) -> int:
        """Jobs created in the last 24 hours, deleted ones too; counted against the daily limit."""
        since = self._now() - timedelta(days=1)
        with self._rows.cursor() as cursor:
            row = cursor.execute("SELECT count(*) FROM meta.query_job WHERE created_date > ?", [since]).fetchone()
        return int(row[0]) if row else 0

    def result_mb_last_day(self) -> int:
        """Megabytes of results made in the last 24 hours; counted against the daily limit."""
        since = self._now() - timedelta(days=1)
        with self._rows.cursor() as cursor:
            row = cursor.execute(
                "SELECT coalesce(sum(result_bytes), 0) FROM meta.query_job WHERE created_date > ?", [since]
            ).fetchone()
        return int(row[0]) // 1_048_576 if row else 0

    def _require_storage(self) -> None:
        limit = self._org.usage.limit("DailyBulkV2QueryFileStorageMB")
        if self.result_mb_last_day() >= limit:
            kilobytes = RESULT_KB_PER_DAY_MAX if limit == RESULT_MB_PER_DAY_MAX else limit * 1024
            text = f"Max bulk v2 query result size stored ({kilobytes}) kb per 24 hrs has been exceeded"
            raise ApiError(400, "LIMIT_EXCEEDED", text)

    def run_pending(self) -> None:
        """Run all waiting jobs here and now."""
        for job in self._rows.select("state = 'UploadComplete' AND NOT deleted ORDER BY number"):
            self._run(job.id)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until no job is waiting or running. False if the time was too short."""
        with self._lock:
            futures = set(self._futures)
        return not wait(futures, timeout_s).not_done

    def close(self) -> None:
        """Stop. What has not ended is run again when the org is opened again."""
        with self._lock:
            self._closed = True
            for cursor in self._running.values():
                cursor.interrupt()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _start(self, job_id: str) -> None:
        if self._pool is None:
            return
        with self._lock:
            future = self._pool.submit(self._run, job_id)
            self._futures.add(future)
        future.add_done_callback(self._futures.discard)

    def _run(self, job_id: str) -> None:
        """Carry one job out, unless it was aborted before."""
        started = time.monotonic()
        with self._rows.cursor() as cursor:
            with self._lock:
                job = self._rows.find(job_id)
                if self._closed or job is None or job.state != "UploadComplete":
                    return
                self._set(job, state="InProgress")
                self._running[job_id] = cursor
            outcome: dict[str, Any]
            try:
                compiled = self._compile(job.query, job.operation, user_id=job.created_by_id)
                records = freeze(cursor, job.number, compiled, seed=self._org.seed)
                columns = [[column.name, column.category.value] for column in compiled.columns]
                outcome = {
                    "state": "JobComplete",
                    "records": records,
                    "columns": json.dumps(columns),
                    "result_bytes": result_bytes(cursor, job.number, compiled),
                }
            except Exception as error:  # noqa: BLE001 - whatever stopped it, the job must not stay InProgress for ever
                # An abort interrupts the statement; the job's state tells that from a query that cannot be carried out.
                # Only the kind of error is told: texts of DuckDB can hold values.
                outcome = {"state": "Failed", "error_message": f"InternalServerError : {type(error).__name__}"}
                log.warning(
                    "query job ended early: %s",
                    type(error).__name__,
                    extra={"action": "query_job_ended_early", "job_id": job_id},
                )
            finally:
                with self._lock:
                    del self._running[job_id]
        with self._lock:
            latest = self._rows.find(job_id)
            if self._closed:
                return
            if latest is None or latest.state != "InProgress":
                # Aborted on the way: nobody may read what was frozen after all.
                self._drop_results(job)
                return
            self._set(job, **outcome, processing_ms=round((time.monotonic() - started) * 1000))

    def _compile(self, soql: str, operation: str, *, user_id: str) -> CompiledQuery:
        return compile_query(
            soql,
            self._org.schema.seen_by(user_id),
            bulk=True,
            include_deleted=operation == "queryAll",
            now=self._org.clock.now(),
            user_id=user_id,
        )

    def _table(self, job: JobRow) -> ResultTable:
        return ResultTable(
            number=job.number,
            columns=tuple((name, Category(category)) for name, category in json.loads(job.columns)),
            delimiter=DELIMITERS[job.column_delimiter],
            line_ending=LINE_ENDINGS[job.line_ending],
        )

    def _finished(self, job_id: str, api_version: str | None) -> JobRow:
        job = self._job(job_id)
        if job.state != "JobComplete":
            raise invalid_job_state(f"Results are available once the job is complete; it is {job.state}")
        if api_version is not None and api_version != job.api_version:
            text = f"The job was created with API version {job.api_version}; use that version to get its results"
            raise ApiError(409, "API_ERROR", text)
        return job

    def _start_row(self, job: JobRow, locator: str | None) -> int:
        start = 0 if locator is None else _place(locator)
        if start and start >= job.records:
            raise _bad_locator()
        return start

    def _now(self) -> datetime:
        return self._org.clock.now().astimezone(UTC).replace(tzinfo=None, microsecond=0)

    def _job(self, job_id: str) -> JobRow:
        self._forget_old()
        job = self._rows.find(job_id)
        if job is None:
            raise not_found()
        return job

    def _set(self, job: JobRow, **changes: object) -> None:
        self._rows.update(job, **changes, system_modstamp=self._now())

    def _drop(self, job: JobRow) -> None:
        """Drop the results; the row stays, for the daily count."""
        self._set(job, deleted=True)
        self._drop_results(job)

    def _drop_results(self, job: JobRow) -> None:
        with self._rows.cursor() as cursor:
            cursor.execute(f"DROP TABLE IF EXISTS {result_table_name(job.number)}")

    def _forget_old(self) -> None:
        """Delete what was last changed 7 days ago, and rows of deleted jobs that no daily count needs any more."""
        before = self._now() - RETENTION
        with self._lock:
            for job in self._rows.select(
                "system_modstamp <= ? AND state IN ('JobComplete', 'Aborted', 'Failed') AND NOT deleted", before
            ):
                self._drop(job)
            with self._rows.cursor() as cursor:
                cursor.execute("DELETE FROM meta.query_job WHERE deleted AND created_date <= ?", [before])


def _locator(row: int) -> str:
    """An opaque place in a result: Salesforce's `MTAwMDA` is 10000 in base64 as well."""
    return base64.urlsafe_b64encode(str(row).encode()).decode().rstrip("=")


def _place(locator: str) -> int:
    try:
        text = base64.urlsafe_b64decode(locator + "=" * (-len(locator) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        raise _bad_locator() from None
    if not text.isdigit() or len(text) > LOCATOR_DIGITS_MAX or _locator(int(text)) != locator.rstrip("="):
        raise _bad_locator()
    return int(text)


def _bad_locator() -> ApiError:
    return ApiError(400, "API_ERROR", "Invalid locator")
