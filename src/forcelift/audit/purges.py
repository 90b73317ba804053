"""Personal data of a batch removed from the audit database: what stays is what counts, and the digests.

The removal is two transactions around that of the files: so that files that are missing are known as purged from the
first of them on, and a purge that was interrupted is gone on with.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import Connection

from forcelift.audit import cover, tables
from forcelift.audit.journal import Journal, append
from forcelift.audit.records import Batch
from forcelift.audit.text import fit_text, short_batch_id

BEGAN, ENDED = "purge_began", "purge_ended"
PURGED_KEY = "(purged)"
"""What stands in RECORD_ID in place of a key, with the number of the record behind it, since no two may be equal."""


class Purge(Struct, frozen=True, kw_only=True):
    """A purge of one batch; `ended_at` is None while it is under way."""

    purge_no: int
    batch_id: str
    asked_by: str
    reason: str
    began_at: datetime
    ended_at: datetime | None
    result: Mapping[str, Any] | None


class Purges(Journal):
    """Removing personal data."""

    def purges(self, batch_id: str | None = None) -> list[Purge]:
        """The purges of a batch or of all, oldest first."""
        row = tables.purge
        query = sa.select(row).order_by(row.c.purge_no)
        if batch_id is not None:
            query = query.where(row.c.batch_id == batch_id)
        with self.read() as connection:
            return [Purge(**found) for found in connection.execute(query).mappings()]

    def begin_purge(self, batch_id: str, *, by: str, reason: str) -> Purge:
        """Record that a batch's personal data go now, or find the purge that is under way."""
        open_one = next((one for one in self.purges(batch_id) if one.ended_at is None), None)
        if open_one is not None:
            return open_one
        with self.write() as connection:
            now = self.clock.now()
            values = {"batch_id": batch_id, "asked_by": by, "reason": fit_text(reason, 4000), "began_at": now}
            connection.execute(tables.purge.insert().values(**values))
            append(connection, now, BEGAN, {"by": by, "reason": reason}, batch_id=batch_id)
        return self.purges(batch_id)[-1]

    def purge_chunk(self, audit_id: int, *, ledger_file: str | None, ledger_sha256: str | None) -> None:
        """Empty what may be personal in a chunk's rows and its failed records.

        Args:
            ledger_file: The chunk's ledger without keys, messages and hashes, which counts from here on.
            ledger_sha256: Its seal.
        """
        with self.write() as connection:
            _empty_failed(connection, audit_id)
            chunk, log, job = tables.chunk, tables.audit_log, tables.job
            values: dict[str, Any] = {"predicate": {"purged": True}}
            if ledger_file is not None:
                values |= {"ledger_file": ledger_file, "ledger_sha256": ledger_sha256}
            connection.execute(chunk.update().where(chunk.c.audit_id == audit_id).values(**values))
            connection.execute(
                log.update().where(log.c.audit_id == audit_id).values(error_message=None, error_details=None)
            )
            connection.execute(job.update().where(job.c.audit_id == audit_id).values(error_message=None))

    def purge_examples(self, batch: Batch) -> None:
        """Take the examples out of a batch's validations, and out of profiles of its project from before its end."""
        found, profile = tables.validation_result, tables.profile
        mine = found.c.batch_id == batch.batch_id
        earlier = profile.c.project == batch.project
        if batch.ended_at is not None:
            earlier &= profile.c.taken_at <= batch.ended_at
        with self.write() as connection:
            for number, document, where in (
                (found.c.result_no, found.c.details, mine),
                (profile.c.profile_no, profile.c.document, earlier),
            ):
                for row in connection.execute(sa.select(number, document).where(where)).all():
                    emptied = _without_examples(row[1])
                    if emptied != row[1]:
                        update = number.table.update().where(number == row[0])
                        connection.execute(update.values({document.key: emptied}))

    def erase_freed(self) -> None:
        """Have no byte of deleted rows stay in SQLite's file: it is written anew, and its log emptied.

        Needs as much free disk as the file has. On a server that is the database's own to do.

        Raises:
            StorageError: Another process reads just now, or the disk is full.
        """
        if self.file is None:
            return
        with self._in_words("written"), self.engine.connect() as connection:
            # Past the transactions of this program, in which neither may run.
            driver: Any = connection.connection.driver_connection
            try:
                driver.execute("VACUUM").close()
                driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
            except sqlite3.OperationalError as error:
                raise sa.exc.OperationalError("VACUUM", None, error) from error

    def end_purge(self, purge: Purge, *, result: Mapping[str, Any]) -> None:
        """Record that all of it is gone."""
        with self.write() as connection:
            now = self.clock.now()
            mine = tables.purge.c.purge_no == purge.purge_no
            connection.execute(tables.purge.update().where(mine).values(ended_at=now, result=dict(result)))
            append(connection, now, ENDED, dict(result), batch_id=purge.batch_id)

    def failed_by_chunk(self, batch_id: str) -> dict[int, int]:
        """How many failed records each chunk of a batch has, superseded ones too."""
        records, log = tables.failed_records, tables.audit_log
        query = (
            sa.select(records.c.audit_id, sa.func.count())
            .join(log, log.c.audit_id == records.c.audit_id)
            .where(log.c.batch_id == short_batch_id(batch_id))
            .group_by(records.c.audit_id)
        )
        with self.read() as connection:
            return {audit_id: int(number) for audit_id, number in connection.execute(query)}


def _without_examples(value: Any) -> Any:
    """A document with every list `examples` in it emptied, however deep."""
    if isinstance(value, dict):
        return {name: [] if name == "examples" else _without_examples(one) for name, one in value.items()}
    return [_without_examples(one) for one in value] if isinstance(value, list) else value


def _empty_failed(connection: Connection, audit_id: int) -> None:
    records, chunk = tables.failed_records, tables.chunk
    ends = connection.execute(
        sa.select(chunk.c.failed_first, chunk.c.failed_last).where(chunk.c.audit_id == audit_id)
    ).one()
    if ends.failed_first is None:
        return
    mine = records.c.failed_id.between(ends.failed_first, ends.failed_last) & (records.c.audit_id == audit_id)
    values = {
        "record_id": sa.literal(PURGED_KEY + " ") + sa.cast(records.c.failed_id, sa.String(20)),
        "sf_error_message": None,
        "resolution_notes": None,
        "record_data": None,
    }
    cover.touch_group(connection, records, audit_id)
    connection.execute(records.update().where(mine).values(**values))
    connection.execute(tables.failed_key.delete().where(tables.failed_key.c.audit_id == audit_id))


def purged_batches(purges: Sequence[Purge]) -> frozenset[str]:
    """The batches of which something was purged, or is being purged."""
    return frozenset(one.batch_id for one in purges)
