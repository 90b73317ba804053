"""Query jobs as they lie in the data file, and as JSON shows them at each stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any, Final

import duckdb

from forcelift.twin.clock import api_time
from forcelift.twin.errors import ApiError
from forcelift.twin.query_results import DELIMITERS, LINE_ENDINGS

_OPERATIONS: Final = ("query", "queryAll")
_ALLOWED: Final = frozenset({"operation", "query", "contentType", "columnDelimiter", "lineEnding", "concurrencyMode"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A row of `meta.query_job`, columns in order. `columns` is JSON: name and category of each result column."""

    id: str
    number: int
    operation: str
    object: str
    query: str
    column_delimiter: str
    line_ending: str
    api_version: str
    created_by_id: str
    created_date: datetime
    system_modstamp: datetime
    state: str
    records: int
    processing_ms: int
    error_message: str | None
    columns: str
    deleted: bool
    result_bytes: int = 0


_COLUMNS: Final = ", ".join(JobRow.__slots__)


class JobRows:
    """The table of jobs. Whoever changes it holds the lock of `QueryJobs`.

    Args:
        connect: Gives a new DuckDB connection of the org.
    """

    def __init__(self, connect: Callable[[], duckdb.DuckDBPyConnection]) -> None:
        self._connect = connect
        with self.cursor() as cursor:
            cursor.execute(resources.files("forcelift.twin").joinpath("query_jobs.sql").read_text(encoding="utf-8"))
            # What ran when the twin ended waits again.
            cursor.execute(
                "UPDATE meta.query_job SET state = 'UploadComplete' WHERE state = 'InProgress' AND NOT deleted"
            )

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that is closed at the end."""
        cursor = self._connect()
        try:
            yield cursor
        finally:
            cursor.close()

    def add(self, job: JobRow) -> None:
        marks = ", ".join("?" * len(JobRow.__slots__))
        with self.cursor() as cursor:
            values = [getattr(job, name) for name in JobRow.__slots__]
            cursor.execute(f"INSERT INTO meta.query_job ({_COLUMNS}) VALUES ({marks})", values)

    def find(self, job_id: str) -> JobRow | None:
        """The job of a 15- or 18-character id, unless it was deleted."""
        where = "left(id, 15) = ? AND (length(?) = 15 OR id = ?) AND NOT deleted"
        found = self.select(where, job_id[:15], job_id, job_id)
        return found[0] if found else None

    def select(self, where: str, *values: object, limit: int | None = None, offset: int = 0) -> tuple[JobRow, ...]:
        page = "" if limit is None else f" LIMIT {limit} OFFSET {offset}"
        with self.cursor() as cursor:
            rows = cursor.execute(f"SELECT {_COLUMNS} FROM meta.query_job WHERE {where}{page}", list(values)).fetchall()
        return tuple(JobRow(**dict(zip(JobRow.__slots__, row, strict=True))) for row in rows)

    def update(self, job: JobRow, **changes: object) -> None:
        columns = ", ".join(f"{name} = ?" for name in changes)
        with self.cursor() as cursor:
            cursor.execute(f"UPDATE meta.query_job SET {columns} WHERE id = ?", [*changes.values(), job.id])


def full_json(job: JobRow) -> dict[str, Any]:
    """What `GET` of one job answers."""
    answer = {
        **base_json(job),
        "jobType": "V2Query",
        **format_json(job),
        "numberRecordsProcessed": job.records,
        "retries": 0,
        "totalProcessingTime": job.processing_ms,
        "isPkChunkingSupported": True,
    }
    if job.state == "Failed":
        answer["errorMessage"] = job.error_message
    return answer


def base_json(job: JobRow) -> dict[str, Any]:
    """What every answer about a job holds."""
    return {
        "id": job.id,
        "operation": job.operation,
        "object": job.object,
        "createdById": job.created_by_id,
        "createdDate": api_time(job.created_date),
        "systemModstamp": api_time(job.system_modstamp),
        "state": job.state,
        "concurrencyMode": "Parallel",
        "contentType": "CSV",
        "apiVersion": float(job.api_version),
    }


def format_json(job: JobRow) -> dict[str, Any]:
    return {"lineEnding": job.line_ending, "columnDelimiter": job.column_delimiter}


def checked(body: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Operation, query, delimiter and line ending of a request. Raises ApiError."""
    unknown = sorted(set(body) - _ALLOWED)
    if unknown:
        raise ApiError(400, "JSON_PARSER_ERROR", f'Unrecognized field "{unknown[0]}"')
    operation, soql = body.get("operation"), body.get("query")
    if operation not in _OPERATIONS:
        raise ApiError(400, "INVALIDJOB", "InvalidJob : operation must be query or queryAll")
    if not isinstance(soql, str) or not soql.strip():
        raise ApiError(400, "INVALIDJOB", "InvalidJob : query is missing")
    if body.get("contentType", "CSV") != "CSV":
        raise ApiError(400, "INVALIDJOB", "InvalidJob : contentType must be CSV")
    delimiter, line_ending = body.get("columnDelimiter", "COMMA"), body.get("lineEnding", "LF")
    if not isinstance(delimiter, str) or delimiter not in DELIMITERS:
        raise ApiError(400, "INVALIDJOB", f"InvalidJob : columnDelimiter must be one of {', '.join(DELIMITERS)}")
    if not isinstance(line_ending, str) or line_ending not in LINE_ENDINGS:
        raise ApiError(400, "INVALIDJOB", f"InvalidJob : lineEnding must be one of {', '.join(LINE_ENDINGS)}")
    return str(operation), soql, delimiter, line_ending
