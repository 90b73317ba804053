"""What people say of an issue: rows only added or marked as removed, each with its digest in the journal."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from msgspec import Struct

from forcelift.audit.batches import need_batch
from forcelift.audit.journal import Journal, append
from forcelift.audit.note_tables import report_note
from forcelift.audit.types import canonical_json
from forcelift.errors import StateConflict


class StoredNote(Struct, frozen=True, kw_only=True):
    """One note. `table_name` is None where it is for the code in all tables; cause or resolution may be None."""

    note_no: int
    project: str
    batch_id: str
    code: str
    table_name: str | None
    cause: str | None
    resolution: str | None
    made_by: str
    made_at: datetime


class Notes(Journal):
    """Notes for the report."""

    def add_note(
        self,
        batch_id: str,
        *,
        code: str,
        table_name: str | None,
        cause: str | None,
        resolution: str | None,
        by: str,
    ) -> StoredNote:
        """Write a note down. The journal has its digest and not its words, which somebody may have to take back."""
        with self.write() as connection:
            batch = need_batch(connection, batch_id)
            now = self.clock.now()
            values = {
                "project": batch.project,
                "batch_id": batch_id,
                "code": code,
                "table_name": table_name,
                "cause": cause,
                "resolution": resolution,
                "made_by": by,
                "made_at": now,
            }
            made = connection.execute(report_note.insert().values(**values))
            number = int(made.inserted_primary_key[0])  # type: ignore[index]  # an insert of one row has a key
            digest = hashlib.sha256(canonical_json([cause, resolution]).encode("utf-8", "surrogatepass")).hexdigest()
            payload = {"note": number, "code": code, "table": table_name, "sha256": digest, "by": by}
            append(connection, now, "report_note", payload, batch_id=batch_id)
        return StoredNote(note_no=number, **values)  # type: ignore[arg-type]  # as just written

    def notes(self, batch_ids: Sequence[str]) -> list[StoredNote]:
        """The notes of these batches that stand, oldest first."""
        query = (
            sa.select(*(report_note.c[name] for name in StoredNote.__struct_fields__))
            .where(report_note.c.batch_id.in_(batch_ids), report_note.c.removed_at.is_(None))
            .order_by(report_note.c.note_no)
        )
        with self.read() as connection:
            return [StoredNote(**row) for row in connection.execute(query).mappings()]

    def remove_note(self, batch_id: str, note_no: int, *, by: str) -> None:
        """Take a note out of reports; its row stays. Raises `StateConflict` if none of that number stands."""
        with self.write() as connection:
            now = self.clock.now()
            mine = (report_note.c.note_no == note_no) & (report_note.c.batch_id == batch_id)
            standing = mine & report_note.c.removed_at.is_(None)
            gone = connection.execute(report_note.update().where(standing).values(removed_by=by, removed_at=now))
            if gone.rowcount == 0:
                raise StateConflict(
                    f"batch `{batch_id}` has no note {note_no}",
                    state="nothing was changed",
                    hint="`forcelift report note --list` shows those that stand",
                )
            append(connection, now, "report_note_removed", {"note": note_no, "by": by}, batch_id=batch_id)
