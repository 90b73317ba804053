"""The recycle bin: bring deleted records back, and forget them after 15 days.

REST and Bulk API 2.0 have no call for an undelete; a person does it in the org, and a test by the control endpoint.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import duckdb

from forcelift.twin import values
from forcelift.twin.deletes import RECYCLE_BIN_DAYS
from forcelift.twin.ids import id18, is_id
from forcelift.twin.org import TwinOrg
from forcelift.twin.rest_write import SaveError, SaveResult, parse_error
from forcelift.twin.roll_up_saves import MasterRules, RollUpSaves, no_value
from forcelift.twin.schema import ObjectSchema
from forcelift.twin.store import table
from forcelift.twin.values import name as quoted

PURGE_EVERY: Final = timedelta(hours=1)
IDS_MAX: Final = 200


class RecycleBin:
    """The deleted records of an org."""

    def __init__(self, org: TwinOrg) -> None:
        self._org = org
        self._lock = threading.Lock()
        self._purged_at: datetime | None = None

    def undelete(self, ids: Sequence[str], *, user_id: str) -> list[SaveResult]:
        """Bring records back with the details that fell with them; lookups that were emptied are filled again.

        Results are in the order of the ids. A record whose master is deleted, or whose unique value another record has
        taken, stays where it is.
        """
        results = []
        with self._org.store.write() as cursor:
            for record_id in ids:
                error = self._restore(cursor, record_id, user_id)
                results.append(SaveResult(id=None if error else id18(record_id), created=False, error=error))
        return results

    def purge_if_due(self) -> int:
        """Remove for good what has lain in the bin for 15 days; at most once an hour. Tells how many records."""
        now = self._org.clock.now()
        with self._lock:
            if self._purged_at is not None and abs(now - self._purged_at) < PURGE_EVERY:
                return 0
            self._purged_at = now
        return self.purge()

    def purge(self) -> int:
        """Remove for good what has lain in the bin for 15 days; tells how many records."""
        limit = self._now() - timedelta(days=RECYCLE_BIN_DAYS)
        where = "IsDeleted AND SystemModstamp <= ?"
        with self._org.store.read() as cursor:
            due = [entry for entry in self._org.schema.objects if _count(cursor, table(entry), where, limit)]
        removed = 0
        for entry in due:
            with self._org.store.write() as cursor:
                gone = f"SELECT Id FROM {table(entry)} WHERE {where}"
                cursor.execute(f"DELETE FROM meta.recycled WHERE id IN ({gone}) OR root IN ({gone})", [limit, limit])
                removed += len(
                    cursor.execute(f"DELETE FROM {table(entry)} WHERE {where} RETURNING 1", [limit]).fetchall()
                )
        return removed

    def _restore(self, cursor: duckdb.DuckDBPyConnection, record_id: str, user_id: str) -> SaveError | None:
        entry = self._org.schema.object_of_id(record_id) if is_id(record_id) else None
        if entry is None:
            return SaveError(status_code="MALFORMED_ID", message="malformed id", fields=())
        record_id = id18(record_id)
        row = cursor.execute(f"SELECT IsDeleted FROM {table(entry)} WHERE Id = ?", [record_id]).fetchone()
        if row is None:
            return SaveError(status_code="INVALID_CROSS_REFERENCE_KEY", message="invalid cross reference id", fields=())
        if not row[0]:
            return SaveError(status_code="UNDELETE_FAILED", message="Entity is not in the recycle bin", fields=())
        refusal = (
            self._orphaned(cursor, entry, record_id)
            or self._taken(cursor, entry, record_id)
            or self._refused_by_master(cursor, entry, record_id, user_id)
        )
        if refusal is not None:
            return refusal
        self._revive(cursor, entry, [record_id], user_id)
        details = cursor.execute(
            "DELETE FROM meta.recycled WHERE root = ? AND field IS NULL RETURNING object, id", [record_id]
        ).fetchall()
        revived = {entry.name: [record_id]}
        for name, detail in details:
            revived.setdefault(name, []).append(detail)
        for name, members in revived.items():
            kind = self._org.schema.object(name)
            if kind is not None and members != [record_id]:
                self._revive(cursor, kind, members, user_id)
        self._refill(cursor, [member for members in revived.values() for member in members])
        return None

    def _orphaned(self, cursor: duckdb.DuckDBPyConnection, entry: ObjectSchema, record_id: str) -> SaveError | None:
        """An error if a master of the record is deleted."""
        for field in entry.stored_fields:
            if not field.master_detail:
                continue
            for target in filter(None, map(self._org.schema.object, field.reference_to)):
                gone = f"IsDeleted AND Id = (SELECT {quoted(field.name)} FROM {table(entry)} WHERE Id = ?)"
                if _count(cursor, table(target), gone, record_id):
                    message = "Cannot undelete a record whose master is deleted; undelete the master"
                    return SaveError(status_code="UNDELETE_FAILED", message=message, fields=())
        return None

    def _taken(self, cursor: duckdb.DuckDBPyConnection, entry: ObjectSchema, record_id: str) -> SaveError | None:
        """An error if a unique value of the record has been taken while it was deleted."""
        for field in entry.stored_fields:
            if not field.unique:
                continue
            key = values.match_key(field, quoted(field.name))
            row = cursor.execute(
                f"SELECT min(Id) FROM {table(entry)} WHERE NOT IsDeleted AND {key} = "
                f"(SELECT {key} FROM {table(entry)} WHERE Id = ?)",
                [record_id],
            ).fetchone()
            if row is not None and row[0] is not None:
                message = f"duplicate value found: {field.name} duplicates value on record with id: {row[0][:15]}"
                return SaveError(status_code="DUPLICATE_VALUE", message=message, fields=())
        return None

    def _refused_by_master(
        self, cursor: duckdb.DuckDBPyConnection, entry: ObjectSchema, record_id: str, user_id: str
    ) -> SaveError | None:
        """Save the masters that sum the record up; an error if one of them may not become so."""
        rules = MasterRules(schema=self._org.schema, active_on=self._org.automations.active_on)
        saves = RollUpSaves(cursor, rules, entry, now=self._now(), user_id=user_id)
        if not saves.needed:
            return None
        one = f"SELECT 0 AS pos, 0 AS chunk, 0 AS ord, t.Id AS record{saves.columns} FROM {table(entry)} t"
        saves.begin(
            f"({one} WHERE t.Id = {values.text(record_id)}) t",
            old=no_value,
            new=lambda field: f"t.{quoted(field.name)}",
        )
        saves.settle()
        row = cursor.execute(f"SELECT error FROM {saves.rows} WHERE error IS NOT NULL").fetchone()
        return None if row is None else parse_error(str(row[0]))

    def _revive(self, cursor: duckdb.DuckDBPyConnection, entry: ObjectSchema, ids: Sequence[str], user_id: str) -> None:
        now = self._now()
        cursor.execute(
            f"UPDATE {table(entry)} SET IsDeleted = false, LastModifiedDate = ?, LastModifiedById = ?, "
            "SystemModstamp = ? WHERE IsDeleted AND list_contains(?::VARCHAR[], Id)",
            [now, user_id, now, list(ids)],
        )

    def _refill(self, cursor: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> None:
        """Put the records back into lookups that were emptied and have stayed so."""
        released = cursor.execute(
            "SELECT DISTINCT object, field FROM meta.recycled WHERE field IS NOT NULL "
            "AND list_contains(?::VARCHAR[], root)",
            [list(ids)],
        ).fetchall()
        for name, field in released:
            entry = self._org.schema.object(name)
            if entry is None or entry.field(field) is None:
                continue
            cursor.execute(
                f"UPDATE {table(entry)} c SET {quoted(field)} = r.value, SystemModstamp = ? FROM meta.recycled r "
                f"WHERE r.id = c.Id AND r.object = ? AND r.field = ? AND list_contains(?::VARCHAR[], r.root) "
                f"AND c.{quoted(field)} IS NULL",
                [self._now(), name, field, list(ids)],
            )
        cursor.execute(
            "DELETE FROM meta.recycled WHERE field IS NOT NULL AND list_contains(?::VARCHAR[], root)", [list(ids)]
        )

    def _now(self) -> datetime:
        return self._org.clock.now().replace(tzinfo=None, microsecond=0)


def _count(cursor: duckdb.DuckDBPyConnection, source: str, where: str, value: object) -> int:
    row = cursor.execute(f"SELECT count(*) FROM {source} WHERE {where}", [value]).fetchone()
    return 0 if row is None else int(row[0])
