"""Failed records as people see them: counted by table and code, marked as resolved, and opened again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from forcelift.audit import tables
from forcelift.audit.holding import Holding
from forcelift.audit.journal import append
from forcelift.audit.text import fit_text, short_batch_id, short_table_name

_LIST_MAX = 500  # values in one IN list: each database takes so many
_NOTES_BYTES = 4000


class FailedFilter(Struct, frozen=True, kw_only=True):
    """Which failed records are meant: all of a batch, or those of tables, codes and RECORD_IDs. Empty means any."""

    tables: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    record_ids: tuple[str, ...] = ()


class FailedCount(Struct, frozen=True, kw_only=True):
    """Failed records of one table, code and first word on what became of them.

    Attributes:
        open: Not resolved.
        mended: Resolved because a retry had them accepted; `closed` because a person said so.
        retries: How often the most tried of them was sent again.
    """

    table_name: str
    code: str
    rows: int
    open: int
    mended: int
    closed: int
    retries: int
    message: str
    record_id: str


class FailedMarks(Holding):
    """Failed records: counted, resolved by people, and opened again."""

    def failed_counts(self, batch_id: str, chosen: FailedFilter) -> list[FailedCount]:
        """Failed records of a batch by table and code, the most first."""
        records, log = tables.failed_records, tables.audit_log
        is_open = records.c.resolved == "N"
        by_retry = records.c.last_retry_date == records.c.resolved_date

        def count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
            return sa.func.sum(sa.case((condition, sa.literal_column("1")), else_=sa.literal_column("0")))

        query = (
            sa.select(
                records.c.table_name,
                records.c.sf_error_code,
                sa.func.count(),
                count(is_open),
                count(~is_open & by_retry),
                sa.func.max(records.c.retry_count),
                sa.func.min(records.c.sf_error_message),
                sa.func.min(records.c.record_id),
            )
            .join(log, log.c.audit_id == records.c.audit_id)
            .where(log.c.batch_id == short_batch_id(batch_id), *_chosen(chosen))
            .group_by(records.c.table_name, records.c.sf_error_code)
        )
        with self.read() as connection:
            found = connection.execute(query).all()
        counts = [
            FailedCount(
                table_name=table,
                code=code or "",
                rows=int(rows),
                open=int(opened),
                mended=int(mended),
                closed=int(rows) - int(opened) - int(mended),
                retries=int(retries or 0),
                message=message or "",
                record_id=key,
            )
            for table, code, rows, opened, mended, retries, message, key in found
        ]
        return sorted(counts, key=lambda one: (-one.open, -one.rows, one.table_name, one.code))

    def open_failed(self, audit_id: int) -> list[tuple[str, str]]:
        """RECORD_ID and code of a chunk's failed records that are not resolved, in the order of their rows."""
        records = tables.failed_records
        query = (
            sa.select(records.c.record_id, records.c.sf_error_code)
            .where(records.c.audit_id == audit_id, records.c.resolved == "N")
            .order_by(records.c.failed_id)
        )
        with self.read() as connection:
            return [(key, code or "") for key, code in connection.execute(query)]

    def open_failed_rows(
        self, batch_id: str, table: str, codes: tuple[str, ...]
    ) -> Iterator[tuple[str, str, str, str, str | None]]:
        """A table's refused rows that are open, streamed: key (RECORD_ID without one), code, message, fields, data."""
        records, log, keys = tables.failed_records, tables.audit_log, tables.failed_key
        whole = (keys.c.audit_id == records.c.audit_id) & (keys.c.record_id == records.c.record_id)
        query = (
            sa.select(
                records.c.record_id,
                keys.c.record_key,
                records.c.sf_error_code,
                records.c.sf_error_message,
                records.c.sf_error_fields,
                records.c.record_data,
            )
            .join(log, log.c.audit_id == records.c.audit_id)
            .outerjoin(keys, whole)
            .where(log.c.batch_id == short_batch_id(batch_id), records.c.resolved == "N")
            .where(*_chosen(FailedFilter(tables=(table,), codes=codes)))
            .order_by(records.c.failed_id)
        )
        with self.read() as connection:
            for one in connection.execution_options(stream_results=True).execute(query):
                key = one.record_key if one.record_key is not None else one.record_id
                yield (
                    key,
                    one.sf_error_code or "",
                    one.sf_error_message or "",
                    one.sf_error_fields or "",
                    one.record_data,
                )

    def resolve_failed(self, batch_id: str, chosen: FailedFilter, *, note: str, by: str) -> int:
        """Mark open failed records as resolved without sending them. Returns how many."""
        records = tables.failed_records
        values = {"resolved": "Y", "resolution_notes": fit_text(f"{note} ({by})", _NOTES_BYTES)}
        return self._mark(
            batch_id,
            "failed_resolved",
            chosen,
            [records.c.resolved == "N"],
            values,
            {"note_sha256": _digest(note), "by": by},
            is_resolved=True,
        )

    def reopen_failed(self, batch_id: str, chosen: FailedFilter, *, note: str, by: str) -> int:
        """Take the mark back. What a retry had accepted stays resolved: it is in the org."""
        records = tables.failed_records
        by_people = sa.or_(records.c.last_retry_date.is_(None), records.c.last_retry_date != records.c.resolved_date)
        values = {"resolved": "N", "resolution_notes": fit_text(f"opened again: {note} ({by})", _NOTES_BYTES)}
        conditions = [records.c.resolved == "Y", by_people]
        return self._mark(
            batch_id,
            "failed_reopened",
            chosen,
            conditions,
            values,
            {"note_sha256": _digest(note), "by": by},
            is_resolved=False,
        )

    def _mark(
        self,
        batch_id: str,
        action: str,
        chosen: FailedFilter,
        conditions: Sequence[sa.ColumnElement[bool]],
        values: Mapping[str, Any],
        told: Mapping[str, Any],
        *,
        is_resolved: bool,
    ) -> int:
        records, log = tables.failed_records, tables.audit_log
        with self.write() as connection:
            now = self.clock.now()
            mine = sa.select(log.c.audit_id).where(log.c.batch_id == short_batch_id(batch_id))
            rows = 0
            for part in _parts(chosen):
                rows += connection.execute(
                    records.update()
                    .where(records.c.audit_id.in_(mine), *conditions, *_chosen(part))
                    .values(**values, resolved_date=now if is_resolved else None)
                ).rowcount
            payload = {"tables": list(chosen.tables), "codes": list(chosen.codes), "rows": rows, **told}
            append(connection, now, action, payload, batch_id=batch_id)
        return rows


def _digest(note: str) -> str:
    """What the journal keeps of a note: it may name somebody, and goes with a purge while the journal stays."""
    return hashlib.sha256(note.encode("utf-8", "surrogatepass")).hexdigest()


def _chosen(chosen: FailedFilter) -> list[sa.ColumnElement[bool]]:
    records = tables.failed_records
    found: list[sa.ColumnElement[bool]] = []
    if chosen.tables:
        found.append(records.c.table_name.in_([short_table_name(name) for name in chosen.tables]))
    if chosen.codes:
        found.append(records.c.sf_error_code.in_(chosen.codes))
    if chosen.record_ids:
        parts = [
            records.c.record_id.in_(chosen.record_ids[start : start + _LIST_MAX])
            for start in range(0, len(chosen.record_ids), _LIST_MAX)
        ]
        found.append(sa.or_(*parts))
    return found


def _parts(chosen: FailedFilter) -> list[FailedFilter]:
    """The same in several, each with a list of RECORD_IDs that a statement can hold."""
    listed = chosen.record_ids
    if len(listed) <= _LIST_MAX:
        return [chosen]
    return [
        FailedFilter(tables=chosen.tables, codes=chosen.codes, record_ids=listed[start : start + _LIST_MAX])
        for start in range(0, len(listed), _LIST_MAX)
    ]
