"""Results of validations: rows that are only added, each with its digest in the journal, and TARGET_CHECKSUM."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from forcelift.audit import tables
from forcelift.audit.batches import need_batch
from forcelift.audit.journal import Journal, append
from forcelift.audit.text import short_batch_id
from forcelift.audit.types import canonical_json

_PASSED = {"passed": 1, "failed": 0}


class ValidationRow(Struct, frozen=True, kw_only=True):
    """One check as it was written down. `details` holds status, values, reason and masked examples."""

    batch_id: str
    table_name: str | None
    level: int
    check_name: str
    passed: bool | None  # None: it could not be told
    details: Mapping[str, Any]
    taken_at: datetime


class Validations(Journal):
    """Results of `validate`."""

    def add_validations(self, batch_id: str, checks: Sequence[Mapping[str, Any]]) -> None:
        """Append the checks of one level of one table, and their digest to the journal, in one transaction.

        Args:
            batch_id: The batch that was looked at.
            checks: Each with `level`, `table`, `check`, `status` and whatever else belongs to it; no personal values.
        """
        if not checks:
            return
        with self.write() as connection:
            need_batch(connection, batch_id)
            now = self.clock.now()
            rows = [
                {
                    "batch_id": batch_id,
                    "table_name": check["table"],
                    "level": check["level"],
                    "check_name": check["check"],
                    "passed": _PASSED.get(check["status"]),
                    "details": dict(check),
                    "taken_at": now,
                }
                for check in checks
            ]
            connection.execute(tables.validation_result.insert(), rows)
            statuses = [str(check["status"]) for check in checks]
            payload = {
                "level": checks[0]["level"],
                "table": checks[0]["table"],
                "checks": {word: statuses.count(word) for word in sorted(set(statuses))},
                "sha256": _digest(checks),
            }
            append(connection, now, "validated", payload, batch_id=batch_id)

    def validations(self, batch_id: str) -> list[ValidationRow]:
        """All checks that were ever made of a batch, in the order in which they were made."""
        result = tables.validation_result
        query = sa.select(result).where(result.c.batch_id == batch_id).order_by(result.c.result_no)
        with self.read() as connection:
            return [
                ValidationRow(
                    batch_id=row["batch_id"],
                    table_name=row["table_name"],
                    level=row["level"],
                    check_name=row["check_name"],
                    passed=None if row["passed"] is None else bool(row["passed"]),
                    details=row["details"],
                    taken_at=row["taken_at"],
                )
                for row in connection.execute(query).mappings()
            ]

    def first_closed_at(self, batch_ids: Sequence[str]) -> datetime | None:
        """When the first job of these batches was closed, before which none of them had made a record; None if none."""
        job = tables.job
        query = sa.select(job.c.closed_at).where(job.c.batch_id.in_(batch_ids), job.c.closed_at.is_not(None))
        with self.read() as connection:
            found: datetime | None = connection.execute(query.order_by(job.c.closed_at).limit(1)).scalar_one_or_none()
            return found

    def set_target_checksums(self, batch_id: str, sums: Mapping[int, str]) -> None:
        """Write TARGET_CHECKSUM of chunks, by AUDIT_ID; the journal keeps what was written."""
        if not sums:
            return
        log = tables.audit_log
        with self.write() as connection:
            batch = need_batch(connection, batch_id)
            mine = log.c.batch_id == short_batch_id(batch.batch_id)
            update = (
                log.update()
                .where(mine, log.c.audit_id == sa.bindparam("the_id"))
                .values(target_checksum=sa.bindparam("the_sum"))
            )
            connection.execute(update, [{"the_id": audit_id, "the_sum": text} for audit_id, text in sums.items()])
            payload = {"chunks": len(sums), "sha256": _digest([[one, sums[one]] for one in sorted(sums)])}
            append(connection, self.clock.now(), "target_checksums", payload, batch_id=batch_id)

    def target_checksums(self, batch_id: str, table_name: str) -> dict[int, str | None]:
        """TARGET_CHECKSUM of a table's chunks by AUDIT_ID; None where it is not proved."""
        chunk, log = tables.chunk, tables.audit_log
        query = (
            sa.select(log.c.audit_id, log.c.target_checksum)
            .join(chunk, chunk.c.audit_id == log.c.audit_id)
            .where(chunk.c.batch_id == batch_id, chunk.c.table_name == table_name)
        )
        with self.read() as connection:
            return {row.audit_id: row.target_checksum for row in connection.execute(query)}


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
