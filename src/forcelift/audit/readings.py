"""What people read: the checklist's three dashboard queries, run as written, totals, and failed records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from forcelift.audit import retry_tables, tables
from forcelift.audit.glances import Glances, dashboard_query
from forcelift.audit.records import ChunkStatus, FailedGroup
from forcelift.audit.text import key_of, short_batch_id, short_table_name
from forcelift.audit.types import Count, Measure, Moment


class StatusRow(Struct, frozen=True, kw_only=True):
    """One line of the dashboard's first query: chunks of a table in one status."""

    table_name: str
    status: ChunkStatus
    chunks: int
    total_source: int | None
    total_success: int | None
    total_failed: int | None
    success_rate: float | None  # percent
    started: datetime | None
    last_update: datetime | None


class TableTotals(Struct, frozen=True, kw_only=True):
    """A table's sums over all its chunks; a count that no chunk has yet is 0."""

    table_name: str
    object: str
    position: int
    chunks: int
    chunks_by_status: dict[ChunkStatus, int]
    source: int
    extracted: int
    transformed: int
    skipped: int
    loaded: int
    success: int
    failed: int
    first_start: datetime | None
    last_end: datetime | None


class FailedRecord(Struct, frozen=True, kw_only=True):
    """One refused row. `record_key` is the whole key, None where the source row has none."""

    failed_id: int
    audit_id: int
    table_name: str
    record_id: str
    record_key: str | None
    code: str | None
    message: str | None
    fields: str | None
    retry_count: int
    resolved: bool
    data: str | None
    created: datetime


class FailureGroup(Struct, frozen=True, kw_only=True):
    """Refused rows of one table, code and fields; of rules that an org's administrator wrote also of one message."""

    table_name: str
    code: str
    fields: str | None
    message: str
    rows: int
    record_ids: tuple[str, ...]


class ChunkSpan(Struct, frozen=True, kw_only=True):
    """When a chunk that counts was loaded, and the rows of it that the org answered.

    Attributes:
        changed_at: When its records were changed last, by its load, a retry or a rollback; None: when it was loaded.
    """

    began_at: datetime
    ended_at: datetime
    rows: int
    batch_id: str = ""
    table_name: str = ""
    changed_at: datetime | None = None


class ApiCalls(Struct, frozen=True, kw_only=True):
    """API calls of a batch; not the whole of them where a process is still at work, or was killed."""

    calls: int
    is_whole: bool


CALLS_SO_FAR = "api_calls"
"""What a process journals every so often while it works: its fence, and the calls that it has made."""

OWN_WORDS = ("FIELD_CUSTOM_VALIDATION_EXCEPTION", "DUPLICATES_DETECTED")
"""Codes whose messages an org's administrator wrote, so that each message is a reason of its own."""

_EXAMPLES = 5
_TEXT = sa.String()
_COUNTS = ("source", "extracted", "transformed", "skipped", "loaded", "success", "failed")


class Readings(Glances):
    """Questions to the audit database that change nothing."""

    def status_rows(self, batch_id: str) -> list[StatusRow]:
        """The checklist's "Current migration status" of a batch."""
        query = dashboard_query(
            "status",
            ("table_name", _TEXT),
            ("status", _TEXT),
            ("chunks", Count()),
            ("total_source", Count()),
            ("total_success", Count()),
            ("total_failed", Count()),
            ("success_rate", Measure()),
            ("started", Moment()),
            ("last_update", Moment()),
        )
        return [StatusRow(**{**row, "status": ChunkStatus(row["status"])}) for row in self._dashboard(query, batch_id)]

    def failed_summary(self, batch_id: str) -> list[FailedGroup]:
        """The checklist's "Failed records summary" of a batch."""
        query = dashboard_query(
            "failed", ("table_name", _TEXT), ("code", _TEXT), ("count", Count()), ("sample_message", _TEXT)
        )
        rows = self._dashboard(query, batch_id)
        return [
            FailedGroup(**{**row, "code": row["code"] or "", "sample_message": row["sample_message"] or ""})
            for row in rows
        ]

    def totals(self, batch_id: str) -> list[TableTotals]:
        """Each table's sums, in load order."""
        log, chunk, table = tables.audit_log, tables.chunk, tables.batch_table
        of_table = (chunk.c.batch_id == table.c.batch_id) & (chunk.c.table_name == table.c.table_name)
        query = (
            sa.select(
                table.c.table_name,
                table.c.object,
                table.c.position,
                log.c.status.label("status"),
                sa.func.count().label("chunks"),
                *(
                    sa.type_coerce(sa.func.coalesce(sa.func.sum(log.c[f"{name}_count"]), 0), Count()).label(name)
                    for name in _COUNTS
                ),
                sa.func.min(log.c.start_time).label("first_start"),
                sa.func.max(log.c.end_time).label("last_end"),
            )
            .select_from(table)
            .join(chunk, of_table)
            .join(log, log.c.audit_id == chunk.c.audit_id)
            .where(table.c.batch_id == batch_id, chunk.c.superseded == 0)
            .group_by(table.c.table_name, table.c.object, table.c.position, log.c.status)
            .order_by(table.c.position, table.c.table_name, log.c.status)
        )
        with self.read() as connection:
            rows = connection.execute(query).mappings().all()
        groups: dict[str, list[Any]] = {}
        for row in rows:
            groups.setdefault(row["table_name"], []).append(row)
        return [_totals(group) for group in groups.values()]

    def failed_records(
        self, batch_id: str, table: str | None = None, code: str | None = None, limit: int = 100
    ) -> list[FailedRecord]:
        """Up to `limit` failed records of a batch, in the order in which they were written."""
        records, log, keys = tables.failed_records, tables.audit_log, tables.failed_key
        whole = (keys.c.audit_id == records.c.audit_id) & (keys.c.record_id == records.c.record_id)
        query = (
            sa.select(records, keys.c.record_key)
            .join(log, log.c.audit_id == records.c.audit_id)
            .outerjoin(keys, whole)
            .where(log.c.batch_id == short_batch_id(batch_id))
            .order_by(records.c.failed_id)
            .limit(limit)
        )
        if table is not None:
            query = query.where(records.c.table_name == short_table_name(table))
        if code is not None:
            query = query.where(records.c.sf_error_code == code)
        with self.read() as connection:
            return [_failed_record(row) for row in connection.execute(query)]

    def failure_groups(self, batch_id: str) -> list[FailureGroup]:
        """Refused rows of a batch by table, code and fields, the most first, each with a few RECORD_IDs."""
        records, log = tables.failed_records, tables.audit_log
        # Written out, as Oracle may hold two expressions with binds in them to be different (ORA-00979); and null where
        # there are none, as it has no empty text.
        codes: list[sa.ColumnElement[str]] = [sa.literal_column(f"'{code}'") for code in OWN_WORDS]
        own_words = sa.case((records.c.sf_error_code.in_(codes), records.c.sf_error_message), else_=sa.null())
        named = (records.c.table_name, records.c.sf_error_code, records.c.sf_error_fields, own_words)
        of_batch = log.c.batch_id == short_batch_id(batch_id)
        query = (
            sa.select(*named, sa.func.min(records.c.sf_error_message), sa.func.count())
            .join(log, log.c.audit_id == records.c.audit_id)
            .where(of_batch)
            .group_by(*named)
        )
        groups = []
        fields_are = records.c.sf_error_fields
        with self.read() as connection:
            for table, code, fields, words, message, rows in connection.execute(query).all():
                examples = (
                    sa.select(records.c.record_id)
                    .join(log, log.c.audit_id == records.c.audit_id)
                    .where(of_batch, records.c.table_name == table)
                    .where(records.c.sf_error_code.is_(None) if code is None else records.c.sf_error_code == code)
                    .where(fields_are.is_(None) if fields is None else fields_are == fields)
                    .where(own_words.is_(None) if words is None else own_words == words)
                    .order_by(records.c.failed_id)
                    .limit(_EXAMPLES)
                )
                group = FailureGroup(
                    table_name=table,
                    code=code or "",
                    fields=fields,
                    message=message or "",
                    rows=rows,
                    record_ids=tuple(connection.execute(examples).scalars()),
                )
                groups.append(group)
        return sorted(groups, key=lambda one: (-one.rows, one.table_name, one.code))

    def failed_keys(self, batch_id: str) -> Iterator[tuple[str, str, str]]:
        """Table, whole key and code of every refused row of a batch, streamed; a row without a key by its RECORD_ID."""
        records, log, keys = tables.failed_records, tables.audit_log, tables.failed_key
        whole = (keys.c.audit_id == records.c.audit_id) & (keys.c.record_id == records.c.record_id)
        query = (
            sa.select(records.c.table_name, keys.c.record_key, records.c.record_id, records.c.sf_error_code)
            .join(log, log.c.audit_id == records.c.audit_id)
            .outerjoin(keys, whole)
            .where(log.c.batch_id == short_batch_id(batch_id))
            .order_by(records.c.failed_id)
        )
        with self.read() as connection:
            for table, key, record_id, code in connection.execution_options(stream_results=True).execute(query):
                yield table, key if key is not None else record_id, code or ""

    def resolved_rows(self, batch_id: str, table: str) -> Iterator[tuple[str, str, str | None, str | None, bool]]:
        """A table's resolved rows, streamed: key (RECORD_ID without one), code, fields, message, whether by retry."""
        records, log, keys = tables.failed_records, tables.audit_log, tables.failed_key
        whole = (keys.c.audit_id == records.c.audit_id) & (keys.c.record_id == records.c.record_id)
        query = (
            sa.select(
                records.c.record_id,
                keys.c.record_key,
                records.c.sf_error_code,
                records.c.sf_error_fields,
                records.c.sf_error_message,
                sa.case((records.c.last_retry_date == records.c.resolved_date, 1), else_=0).label("by_retry"),
            )
            .join(log, log.c.audit_id == records.c.audit_id)
            .outerjoin(keys, whole)
            .where(log.c.batch_id == short_batch_id(batch_id), records.c.table_name == short_table_name(table))
            .where(records.c.resolved == "Y")
        )
        with self.read() as connection:
            for one in connection.execution_options(stream_results=True).execute(query):
                key = one.record_key if one.record_key is not None else one.record_id
                yield key, one.sf_error_code or "", one.sf_error_fields, one.sf_error_message, bool(one.by_retry)

    def chunk_spans(self, batch_id: str) -> list[ChunkSpan]:
        """The chunks of a batch that have ended with rows answered.

        A rollback writes when it ended a chunk into END_TIME and leaves DURATION_SECONDS: these are the load's.
        """
        log, chunk, retried = tables.audit_log, tables.chunk, retry_tables.retry_chunk
        rows = sa.func.coalesce(log.c.loaded_count, 0)
        again = (
            sa.select(retried.c.audit_id, sa.func.max(retried.c.settled_at).label("at"))
            .group_by(retried.c.audit_id)
            .subquery()
        )
        query = (
            sa.select(
                log.c.start_time,
                log.c.end_time,
                log.c.duration_seconds,
                log.c.status,
                again.c.at,
                rows,
                chunk.c.table_name,
            )
            .join(chunk, chunk.c.audit_id == log.c.audit_id)
            .outerjoin(again, again.c.audit_id == log.c.audit_id)
            .where(chunk.c.batch_id == batch_id, chunk.c.superseded == 0)
            .where(log.c.start_time.is_not(None), log.c.end_time.is_not(None), rows > 0)
        )
        with self.read() as connection:
            found = connection.execute(query).all()
        spans = []
        for began, ended, seconds, status, retried_at, count, table in found:
            loaded = ended
            if status == ChunkStatus.ROLLED_BACK and seconds is not None:
                loaded = min(ended, began + timedelta(seconds=float(seconds)))
            changed = ended if retried_at is None else max(ended, retried_at)
            spans.append(
                ChunkSpan(
                    began_at=began,
                    ended_at=loaded,
                    rows=int(count),
                    batch_id=batch_id,
                    table_name=table,
                    changed_at=changed,
                )
            )
        return spans

    def api_calls_used(self, batch_id: str) -> ApiCalls:
        """API calls of all processes that worked on a batch; of one that did not end, as many as it told of."""
        journal = tables.journal
        query = (
            sa.select(journal.c.action, journal.c.payload)
            .where(journal.c.batch_id == batch_id, journal.c.action.in_(["run_ended", CALLS_SO_FAR]))
            .order_by(journal.c.seq)
        )
        ended, so_far = 0, dict[int, int]()
        with self.read() as connection:
            for action, text in connection.execute(query):
                payload = json.loads(text)
                calls = int(payload.get("api_calls") or 0)
                if action == CALLS_SO_FAR:
                    so_far[int(payload["fence"])] = calls
                else:
                    ended += calls
                    so_far.pop(int(payload.get("fence") or 0), None)
        return ApiCalls(calls=ended + sum(so_far.values()), is_whole=not so_far)

    def resolved(self, batch_id: str, group: FailureGroup) -> tuple[int, list[str]]:
        """Of a group's rows those that are resolved, and the notes of their resolution."""
        records, log = tables.failed_records, tables.audit_log
        query = (
            sa.select(records.c.resolution_notes, sa.func.count())
            .join(log, log.c.audit_id == records.c.audit_id)
            .where(log.c.batch_id == short_batch_id(batch_id), records.c.table_name == group.table_name)
            .where(_is(records.c.sf_error_code, group.code), _is(records.c.sf_error_fields, group.fields))
            .where(records.c.resolved == "Y")
            .group_by(records.c.resolution_notes)
        )
        if group.code in OWN_WORDS:
            query = query.where(_is(records.c.sf_error_message, group.message))
        with self.read() as connection:
            rows = connection.execute(query).all()
        return sum(int(count) for _, count in rows), [note for note, _ in rows if note]


def _is(column: sa.ColumnElement[Any], text: str | None) -> sa.ColumnElement[bool]:
    """Whether it holds that text; no text is null, as Oracle has no empty one."""
    return column == text if text else column.is_(None)


def _totals(rows: list[Any]) -> TableTotals:
    first = rows[0]
    starts = [row["first_start"] for row in rows if row["first_start"] is not None]
    ends = [row["last_end"] for row in rows if row["last_end"] is not None]
    return TableTotals(
        table_name=first["table_name"],
        object=first["object"],
        position=first["position"],
        chunks=sum(row["chunks"] for row in rows),
        chunks_by_status={ChunkStatus(row["status"]): row["chunks"] for row in rows},
        **{name: sum(row[name] for row in rows) for name in _COUNTS},
        first_start=min(starts, default=None),
        last_end=max(ends, default=None),
    )


def _failed_record(row: Any) -> FailedRecord:
    return FailedRecord(
        failed_id=row.failed_id,
        audit_id=row.audit_id,
        table_name=row.table_name,
        record_id=row.record_id,
        record_key=row.record_key if row.record_key is not None else key_of(row.record_id),
        code=row.sf_error_code,
        message=row.sf_error_message,
        fields=row.sf_error_fields,
        retry_count=row.retry_count,
        resolved=row.resolved == "Y",
        data=row.record_data,
        created=row.created_date,
    )
