"""Ingest jobs: their states, what each call may do to them, and their JSON at each stage.

Writes:  `meta.ingest_job`, and uploads by `uploads`. Rows are processed elsewhere (`processing`).
Source:  salesforce-api reference, sections 3.1 to 3.4 and 3.10.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import duckdb

from forcelift.twin.clock import Clock, api_time
from forcelift.twin.errors import ApiError, invalid_job_state, not_found
from forcelift.twin.ids import id18, make_id
from forcelift.twin.schema import ObjectSchema, Schema
from forcelift.twin.store import Store
from forcelift.twin.upload_csv import DELIMITERS, LINE_ENDINGS
from forcelift.twin.uploads import drop_uploads, store_upload
from forcelift.twin.users import User

OPERATIONS: Final = ("insert", "update", "upsert", "delete", "hardDelete")
TERMINAL: Final = ("JobComplete", "Failed", "Aborted")
LIST_PAGE: Final = 1000
MULTIPART_CHARACTERS_MAX: Final = 100_000
_OPEN_AT_MOST: Final = timedelta(hours=24)
_KEPT_FOR: Final = timedelta(days=7)
_CREATE_KEYS: Final = {
    "object",
    "operation",
    "externalIdFieldName",
    "contentType",
    "columnDelimiter",
    "lineEnding",
    "assignmentRuleId",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row of `meta.ingest_job`."""

    id: str
    number: int
    operation: str
    object: str
    external_id_field: str | None
    assignment_rule_id: str | None
    column_delimiter: str
    line_ending: str
    api_version: float
    created_by_id: str
    created_date: datetime
    system_modstamp: datetime
    state: str
    closed_date: datetime | None
    ended_date: datetime | None
    error_message: str | None
    processing_ms: int
    apex_ms: int
    upload: int | None
    closed_number: int | None

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL


_COLUMNS: Final = ", ".join(Job.__dataclass_fields__)


class IngestJobs:
    """The jobs of one org. Methods may be called from several threads; errors are `ApiError`s for the client."""

    def __init__(
        self, store: Store, schema: Schema, clock: Clock, *, pod: str, wake: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._schema = schema
        self._clock = clock
        self._pod = pod
        self._wake = wake
        self._uploading: set[str] = set()
        self._uploading_lock = threading.Lock()
        self.find_assignment_rule: Callable[[str, str], object] = lambda name, rule_id: None

    def create(self, body: Mapping[str, Any], user: User, *, api_version: str = "66.0") -> dict[str, Any]:
        """Create an Open job and answer its JSON. `body` is the parsed request."""
        job = self._make(body, user, api_version)
        with self._store.write_meta() as cursor:
            _insert(cursor, job)
        return self._json(job, stage="created")

    def create_multipart(
        self, body: Mapping[str, Any], content: bytes, user: User, *, api_version: str = "66.0"
    ) -> dict[str, Any]:
        """Create a job with its data in one call; it needs no close."""
        job = self._make(body, user, api_version)
        if len(content.decode("utf-8", errors="replace")) > MULTIPART_CHARACTERS_MAX:
            raise ApiError(
                400, "INVALIDJOB", f"InvalidJob : Multipart content exceeds {MULTIPART_CHARACTERS_MAX} characters"
            )
        upload = store_upload(self._store, [content])
        with self._store.write_meta() as cursor:
            _insert(cursor, job)
            cursor.execute("UPDATE meta.ingest_job SET upload = ? WHERE id = ?", [upload, job.id])
            self._close(cursor, job)
        self._wake()
        return self._json(self._find(job.id), stage="created")

    def _make(self, body: Mapping[str, Any], user: User, api_version: str) -> Job:
        unknown = sorted(set(body) - _CREATE_KEYS)
        if unknown:
            raise ApiError(400, "JSON_PARSER_ERROR", f'Unrecognized field "{unknown[0]}"')
        operation = body.get("operation")
        if operation not in OPERATIONS:
            raise ApiError(400, "INVALIDJOB", f"InvalidJob : Unable to find operation: {operation}")
        if not body.get("object"):
            raise ApiError(400, "INVALIDJOB", "InvalidJob : Object was blank")
        entry = self._schema.object(str(body["object"]))
        if entry is None:
            raise ApiError(400, "INVALIDJOB", f"InvalidJob : Unable to find object: {body['object']}")
        if not entry.bulk_capable or not entry.createable:
            raise ApiError(400, "INVALIDENTITY", f"Entity '{entry.name}' is not supported by the Bulk API.")
        if operation == "hardDelete" and "bulk_hard_delete" not in user.permissions:
            raise ApiError(
                403, "FEATURENOTENABLED", "FeatureNotEnabled : hardDelete needs the permission Bulk API Hard Delete"
            )
        _choice(body, "contentType", ("CSV",), "CSV")
        rule_id = body.get("assignmentRuleId")
        if rule_id is not None and self.find_assignment_rule(entry.name, str(rule_id)) is None:
            raise ApiError(400, "INVALIDJOB", f"InvalidJob : Unable to find assignment rule: {rule_id}")
        now = self._now()
        number = self._store.take_numbers("750")
        return Job(
            id=make_id("750", self._pod, number),
            number=number,
            operation=operation,
            object=entry.name,
            external_id_field=_external_id_field(body, entry),
            assignment_rule_id=None if rule_id is None else str(rule_id),
            column_delimiter=_choice(body, "columnDelimiter", tuple(DELIMITERS), "COMMA"),
            line_ending=_choice(body, "lineEnding", tuple(LINE_ENDINGS), "LF"),
            api_version=float(api_version),
            created_by_id=user.id,
            created_date=now,
            system_modstamp=now,
            state="Open",
            closed_date=None,
            ended_date=None,
            error_message=None,
            processing_ms=0,
            apex_ms=0,
            upload=None,
            closed_number=None,
        )

    def put_content(self, job_id: str, chunks: Iterable[bytes]) -> None:
        """Store the job's data, which comes in pieces and is not looked at. One PUT for a job.

        If `chunks` raises, nothing is stored and the error goes on to the caller.
        """
        job = self._find(job_id)
        self._check_upload(job)
        with self._uploading_lock:
            if job.id in self._uploading:
                raise _second_put(job)
            self._uploading.add(job.id)
        try:
            upload = store_upload(self._store, chunks)
            try:
                with self._store.write_meta() as cursor:
                    self._check_upload(self._find(job_id, cursor))
                    cursor.execute(
                        "UPDATE meta.ingest_job SET upload = ?, system_modstamp = ? WHERE id = ?",
                        [upload, self._now(), job.id],
                    )
            except ApiError:
                drop_uploads(self._store, [upload])
                raise
        finally:
            with self._uploading_lock:
                self._uploading.discard(job.id)

    def _check_upload(self, job: Job) -> None:
        if job.state != "Open":
            raise invalid_job_state(f"InvalidJobState : Cannot upload data to a job in state {job.state}")
        if job.upload is not None:
            raise _second_put(job)

    def patch(self, job_id: str, state: str, user: User | None = None) -> dict[str, Any]:
        """Close (`UploadComplete`) or abort (`Aborted`) the job and answer its short JSON."""
        with self._store.write_meta() as cursor:
            job = self._find(job_id, cursor)
            if user is not None and user.id != job.created_by_id and "manage_data_integrations" not in user.permissions:
                raise ApiError(403, "INSUFFICIENT_ACCESS", "Only the job's creator may change it")
            if state == "UploadComplete":
                if job.is_terminal:
                    raise invalid_job_state("Closing already Completed Job not allowed")
                if job.state != "Open":
                    raise invalid_job_state("Closing already Closed Job not allowed")
                self._close(cursor, job)
            elif state == "Aborted":
                if job.is_terminal:
                    raise invalid_job_state("Aborting already Completed Job not allowed")
                self._end(cursor, job, "Aborted")
            else:
                raise invalid_job_state(f"Changing the state of a job to {state} is not allowed")
        self._wake()
        return self._json(self._find(job_id), stage="patched")

    def _close(self, cursor: duckdb.DuckDBPyConnection, job: Job) -> None:
        now = self._now()
        cursor.execute(
            "UPDATE meta.ingest_job SET state = 'UploadComplete', closed_date = ?, system_modstamp = "
            "?, closed_number = "
            "(SELECT coalesce(max(closed_number), 0) + 1 FROM meta.ingest_job) WHERE id = ?",
            [now, now, job.id],
        )

    def _end(
        self, cursor: duckdb.DuckDBPyConnection, job: Job, state: str, *, error_message: str | None = None
    ) -> None:
        now = self._now()
        cursor.execute(
            "UPDATE meta.ingest_job SET state = ?, error_message = ?, ended_date = ?, system_modstamp = ? WHERE id = ?",
            [state, error_message, now, now, job.id],
        )

    def get(self, job_id: str) -> dict[str, Any]:
        """The job's full JSON, as far as its state shows it."""
        return self._json(self._find(job_id), stage="full")

    def delete(self, job_id: str) -> None:
        """Delete the job with its upload and results; not while it is open or running."""
        with self._store.write_meta() as cursor:
            job = self._find(job_id, cursor)
            if job.state in ("Open", "InProgress"):
                raise ApiError(
                    400, "API_ERROR", "Error encountered when deleting the job because the job is not terminated"
                )
            uploads = _forget(cursor, "number = ?", [job.number])
        drop_uploads(self._store, uploads)

    def list(
        self, *, query_locator: str | None = None, job_type: str | None = None, api_version: str = "66.0"
    ) -> dict[str, Any]:
        """One page of all jobs, in no order that means anything; none if `job_type` is not `V2Ingest`."""
        self.expire()
        start = _locator_offset(query_locator)
        with self._store.read() as cursor:
            rows = (
                cursor.execute(
                    f"SELECT {_COLUMNS} FROM meta.ingest_job ORDER BY md5(id) LIMIT {LIST_PAGE + 1} OFFSET {start}"
                ).fetchall()
                if job_type in (None, "V2Ingest")
                else []
            )
        jobs = [_job(row) for row in rows]
        page: dict[str, Any] = {
            "done": len(jobs) <= LIST_PAGE,
            "records": [self._json(job, stage="listed") for job in jobs[:LIST_PAGE]],
        }
        locator = id18(f"01g{self._pod}0000000001")
        page["nextRecordsUrl"] = (
            None
            if page["done"]
            else f"/services/data/v{api_version}/jobs/ingest?queryLocator={locator}-{start + LIST_PAGE}"
        )
        return page

    def expire(self) -> None:
        """Apply the clock: jobs open for 24 hours are aborted, and all jobs vanish after 7 days."""
        now = self._now()
        with self._store.read() as cursor:
            due = cursor.execute(
                "SELECT count(*) FROM meta.ingest_job WHERE state = 'Open' AND created_date <= ? "
                "OR coalesce(ended_date, created_date) <= ?",
                [now - _OPEN_AT_MOST, now - _KEPT_FOR],
            ).fetchone()
        if due is None or not due[0]:
            return
        with self._store.write_meta() as cursor:
            cursor.execute(
                "UPDATE meta.ingest_job SET state = 'Aborted', ended_date = created_date + INTERVAL 24 HOUR, "
                "system_modstamp = created_date + INTERVAL 24 HOUR WHERE state = 'Open' AND created_date <= ?",
                [now - _OPEN_AT_MOST],
            )
            uploads = _forget(cursor, "coalesce(ended_date, created_date) <= ?", [now - _KEPT_FOR])
        drop_uploads(self._store, uploads)

    def find(self, job_id: str) -> Job:
        """The job's row. Raises the API's 404 for an unknown one."""
        return self._find(job_id)

    def _find(self, job_id: str, cursor: duckdb.DuckDBPyConnection | None = None) -> Job:
        if cursor is None:
            self.expire()
            with self._store.read() as own:
                return self._find(job_id, own)
        row = cursor.execute(
            f"SELECT {_COLUMNS} FROM meta.ingest_job WHERE id = ?", [id18(job_id) if len(job_id) == 15 else job_id]
        ).fetchone()
        if row is None:
            raise not_found()
        return _job(row)

    def next_closed(self, *, after: Job | None = None) -> Job | None:
        """The job to work on: the one under way, or else the one that was closed first; or the one after that one."""
        with self._store.read() as cursor:
            row = cursor.execute(
                f"SELECT {_COLUMNS} FROM meta.ingest_job WHERE state IN ('InProgress', 'UploadComplete') AND id <> ? "
                "ORDER BY state = 'UploadComplete', closed_number LIMIT 1",
                ["" if after is None else after.id],
            ).fetchone()
        return None if row is None else _job(row)

    def begin(self, job: Job) -> bool:
        """Move a closed job to InProgress; False if it was aborted or deleted meanwhile."""
        return self._move(job, "state = 'InProgress'", "UploadComplete", "InProgress")

    def finish(self, job: Job, *, error_message: str | None = None) -> bool:
        """Move a job under way to JobComplete, or to Failed with the message; False if it was aborted meanwhile."""
        with self._store.write_meta() as cursor:
            row = cursor.execute("SELECT state FROM meta.ingest_job WHERE id = ?", [job.id]).fetchone()
            if row is None or row[0] != "InProgress":
                return False
            self._end(cursor, job, "JobComplete" if error_message is None else "Failed", error_message=error_message)
            return True

    def _move(self, job: Job, change: str, *states: str) -> bool:
        with self._store.write_meta() as cursor:
            row = cursor.execute("SELECT state FROM meta.ingest_job WHERE id = ?", [job.id]).fetchone()
            if row is None or row[0] not in states:
                return False
            cursor.execute(
                f"UPDATE meta.ingest_job SET {change}, system_modstamp = ? WHERE id = ?", [self._now(), job.id]
            )
            return True

    def add_processing_ms(self, job: Job, milliseconds: int, *, apex_ms: int = 0) -> bool:
        """Count time spent on the job, `apex_ms` of it by automations; False if it is no longer under way."""
        change = f"processing_ms = processing_ms + {int(milliseconds)}, apex_ms = apex_ms + {int(apex_ms)}"
        return self._move(job, change, "InProgress")

    def _now(self) -> datetime:
        return self._clock.now().replace(tzinfo=None, microsecond=0)

    def _counters(self, job: Job) -> tuple[int, int]:
        """Rows with an outcome, and failed ones. They show 0 while the job has a batch that was put back (point 21)."""
        with self._store.read() as cursor:
            if job.state == "InProgress":
                query = "SELECT 1 FROM meta.ingest_requeue WHERE job = ? AND pending LIMIT 1"
                if cursor.execute(query, [job.number]).fetchone() is not None:
                    return 0, 0
            row = cursor.execute(
                "SELECT coalesce(sum(records), 0), coalesce(sum(failed), 0) FROM meta.ingest_batch WHERE job = ?",
                [job.number],
            ).fetchone()
        return (int(row[0]), int(row[1])) if row is not None else (0, 0)

    def _retries(self, job: Job) -> int:
        """How often a Salesforce batch of the job was put back into the queue."""
        with self._store.read() as cursor:
            query = "SELECT coalesce(sum(locks + timeouts), 0) FROM meta.ingest_requeue WHERE job = ?"
            row = cursor.execute(query, [job.number]).fetchone()
        return 0 if row is None else int(row[0])

    def _json(self, job: Job, *, stage: str) -> dict[str, Any]:
        """The job as the API shows it: `stage` is created, patched, full or listed."""
        version = f"{job.api_version:.1f}"
        document: dict[str, Any] = {
            "id": job.id,
            "operation": job.operation,
            "object": job.object,
            "createdById": job.created_by_id,
            "createdDate": api_time(job.created_date),
            "systemModstamp": api_time(job.system_modstamp),
            "state": job.state,
        }
        if job.external_id_field is not None:
            document["externalIdFieldName"] = job.external_id_field
        if job.assignment_rule_id is not None:
            document["assignmentRuleId"] = job.assignment_rule_id
        document |= {"concurrencyMode": "Parallel", "contentType": "CSV", "apiVersion": job.api_version}
        if stage in ("full", "listed"):
            document["jobType"] = "V2Ingest"
        if job.state == "Open" and stage in ("created", "full"):
            document["contentUrl"] = f"services/data/v{version}/jobs/ingest/{job.id}/batches"
        if stage != "patched":
            document |= {"lineEnding": job.line_ending, "columnDelimiter": job.column_delimiter}
        if stage == "full":
            document |= self._progress_json(job)
        return document

    def _progress_json(self, job: Job) -> dict[str, Any]:
        document: dict[str, Any] = {}
        spent = job.processing_ms if job.is_terminal else 0
        if job.state not in ("Open", "UploadComplete"):
            processed, failed = self._counters(job)
            document |= {"numberRecordsProcessed": processed, "numberRecordsFailed": failed}
        document |= {
            "retries": self._retries(job),
            "totalProcessingTime": spent,
            "apiActiveProcessingTime": spent,
            "apexProcessingTime": job.apex_ms if job.is_terminal else 0,
        }
        if job.state == "Failed" and job.error_message is not None:
            document["errorMessage"] = job.error_message
        return document


def _job(row: tuple[Any, ...]) -> Job:
    return Job(**dict(zip(Job.__dataclass_fields__, row, strict=True)))


def _insert(cursor: duckdb.DuckDBPyConnection, job: Job) -> None:
    names = list(Job.__dataclass_fields__)
    cursor.execute(
        f"INSERT INTO meta.ingest_job ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
        [getattr(job, name) for name in names],
    )


def _forget(cursor: duckdb.DuckDBPyConnection, condition: str, parameters: list[Any]) -> list[int]:
    """Delete jobs with everything that hangs on them; tell their uploads, which go once this is committed."""
    numbers = f"SELECT number FROM meta.ingest_job WHERE {condition}"
    found = cursor.execute(
        f"SELECT upload FROM meta.ingest_job WHERE ({condition}) AND upload IS NOT NULL", parameters
    ).fetchall()
    cursor.execute(f"DELETE FROM meta.ingest_outcome WHERE job IN ({numbers})", parameters)
    cursor.execute(f"DELETE FROM meta.ingest_batch WHERE job IN ({numbers})", parameters)
    cursor.execute(f"DELETE FROM meta.ingest_requeue WHERE job IN ({numbers})", parameters)
    cursor.execute(f"DELETE FROM meta.ingest_job WHERE {condition}", parameters)
    return [int(row[0]) for row in found]


def _second_put(job: Job) -> ApiError:
    return invalid_job_state(
        f"Found multiple contents for job: <{job.id}>, please 'Close' / 'Abort' / 'Delete' the "
        "current Job then create a "
        "new Job and make sure you only do 'PUT' once on a given Job."
    )


def _choice(body: Mapping[str, Any], key: str, allowed: tuple[str, ...], default: str) -> str:
    value = body.get(key)
    if value is None:
        return default
    if value not in allowed:
        raise ApiError(400, "INVALIDJOB", f"InvalidJob : Invalid {key}: {value}")
    return str(value)


def _external_id_field(body: Mapping[str, Any], entry: ObjectSchema) -> str | None:
    named = body.get("externalIdFieldName")
    if body["operation"] != "upsert":
        return None
    if not named:
        raise ApiError(
            400,
            "INVALIDJOB",
            f"InvalidJob : External ID was blank for {entry.name}. An External ID must be specified for upsert.",
        )
    field = entry.field(str(named))
    if field is None or not field.stored or not (field.external_id or field.id_lookup):
        raise ApiError(
            400,
            "INVALIDJOB",
            f"InvalidJob : Field name provided, {named} does not match an External ID, Salesforce Id, or indexed field "
            f"for {entry.name}",
        )
    return field.name


def _locator_offset(locator: str | None) -> int:
    if locator is None:
        return 0
    offset = locator.rpartition("-")[2]
    if not offset.isdecimal():
        raise ApiError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
    return int(offset)
