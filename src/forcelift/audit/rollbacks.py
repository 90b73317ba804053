"""Before-images, and rollbacks: what they mean to do, how far they came, and what a reload begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from forcelift.audit import tables
from forcelift.audit.chunk_rows import move, need_chunk
from forcelift.audit.codec import part_document, part_from
from forcelift.audit.holding import Holding
from forcelift.audit.journal import append
from forcelift.audit.moves import check_chunk_move
from forcelift.audit.records import Chunk, ChunkStatus
from forcelift.audit.text import fit_text
from forcelift.audit.undo_records import BeforeImage, Rollback, RollbackChunk, TableImage
from forcelift.errors import StateConflict

STEPS: Mapping[int, str] = {
    1: "stop all running migration jobs",
    2: "document the reason",
    3: "identify the affected records",
    4: "export the Ids of the affected records",
    5: "restore and delete by Bulk API",
    6: "verify in the org",
    7: "update the audit log",
    8: "fix the root cause",
    9: "run again from the checkpoint",
}
"""The checklist's nine steps; the last two are a person's, and are written down as handed over."""


class Rollbacks(Holding):
    """Before-images and rollbacks."""

    def table_image(self, batch_id: str, table_name: str) -> TableImage | None:
        """What was found out about the table's object before its first row was sent; None if not asked yet."""
        with self.read() as connection:
            return _find_table_image(connection, batch_id, table_name)

    def decide_images(self, batch_id: str, table_name: str, *, held_records: bool) -> TableImage:
        """Write down once whether the object holds records. Of several runners' answers the first stands."""
        with self.write() as connection:
            found = _find_table_image(connection, batch_id, table_name)
            if found is not None:
                return found
            now = self.clock.now()
            row = {
                "batch_id": batch_id,
                "table_name": table_name,
                "held_records": int(held_records),
                "decided_at": now,
            }
            connection.execute(tables.table_image.insert(), row)
            payload = {"table": table_name, "object_held_records": held_records}
            append(connection, now, "images_decided", payload, batch_id=batch_id)
            return TableImage(batch_id=batch_id, table_name=table_name, held_records=held_records, decided_at=now)

    def share_image(self, found: TableImage) -> TableImage:
        """Record the sealed file of a whole object for its chunks. Of several runners' files the first stands."""
        with self.write() as connection:
            known = _find_table_image(connection, found.batch_id, found.table_name)
            if known is not None and known.file is not None:
                return known
            image = tables.table_image
            mine = (image.c.batch_id == found.batch_id) & (image.c.table_name == found.table_name)
            values = {name: getattr(found, name) for name in ("file", "sha256", "rows", "asked_at")}
            connection.execute(image.update().where(mine).values(**values))
            payload = {"table": found.table_name, "file": found.file, "sha256": found.sha256, "rows": found.rows}
            append(connection, self.clock.now(), "object_image_taken", payload, batch_id=found.batch_id)
            return found

    def record_image(self, audit_id: int, *, file: str | None, sha256: str | None, rows: int) -> BeforeImage:
        """Record a chunk's before-image, sealed by now. Said again it changes nothing: the first one counts."""
        with self.write() as connection:
            self.need_claim(connection, audit_id)
            known = _find_image(connection, audit_id)
            if known is not None:
                return known
            chunk = need_chunk(connection, audit_id)
            now = self.clock.now()
            image = BeforeImage(
                audit_id=audit_id, generation=chunk.generation, file=file, sha256=sha256, rows=rows, taken_at=now
            )
            connection.execute(
                tables.before_image.insert(), {name: getattr(image, name) for name in BeforeImage.__struct_fields__}
            )
            payload = {"audit_id": audit_id, "file": file, "sha256": sha256, "rows": rows}
            append(connection, now, "image_taken", payload, batch_id=chunk.batch_id)
            return image

    def image(self, audit_id: int) -> BeforeImage | None:
        """A chunk's before-image, the first that was taken; None if none was."""
        with self.read() as connection:
            return _find_image(connection, audit_id)

    def image_files(self, batch_id: str) -> list[tuple[str, str]]:
        """The sealed files of a batch's before-images with their SHA-256, of chunks that were loaded anew too."""
        image, shared, chunk = tables.before_image, tables.table_image, tables.chunk
        of_chunks = sa.select(image.c.file, image.c.sha256).join(chunk, chunk.c.audit_id == image.c.audit_id)
        of_tables = sa.select(shared.c.file, shared.c.sha256).where(shared.c.batch_id == batch_id)
        with self.read() as connection:
            rows = [*connection.execute(of_chunks.where(chunk.c.batch_id == batch_id)), *connection.execute(of_tables)]
        return [(row.file, row.sha256) for row in rows if row.file is not None and row.sha256 is not None]

    def images(self, batch_id: str) -> dict[int, BeforeImage]:
        """The before-images of a batch's chunks, by AUDIT_ID."""
        image, chunk = tables.before_image, tables.chunk
        query = (
            sa.select(image)
            .join(chunk, chunk.c.audit_id == image.c.audit_id)
            .where(chunk.c.batch_id == batch_id)
            .order_by(image.c.generation.desc())
        )
        with self.read() as connection:
            return {row["audit_id"]: _image_from(row) for row in connection.execute(query).mappings()}

    def begin_rollback(self, batch_id: str, *, scope: Mapping[str, Any], reason: str, by: str) -> Rollback:
        """Record that a rollback begins. Raises `StateConflict` while another of the batch is not through."""
        with self.write() as connection:
            known = _find_open(connection, batch_id)
            if known is not None:
                raise StateConflict(
                    f"a rollback of batch `{batch_id}` is not through: {known.reason}",
                    state="nothing was changed",
                    hint=f"go on with it by `forcelift rollback {batch_id} --execute`",
                )
            now = self.clock.now()
            row = {
                "batch_id": batch_id,
                "scope": dict(scope),
                "reason": fit_text(reason, 4000),
                "asked_by": by,
                "began_at": now,
                "step": 0,
            }
            made = connection.execute(tables.rollback.insert(), row).inserted_primary_key
            assert made is not None
            number = made[0]
            payload = {"rollback": number, "scope": dict(scope), "by": by}
            append(connection, now, "rollback_begun", payload, batch_id=batch_id)
            return _need_rollback(connection, number)

    def open_rollback(self, batch_id: str) -> Rollback | None:
        """The batch's rollback that is not through; None if there is none."""
        with self.read() as connection:
            return _find_open(connection, batch_id)

    def rollbacks(self, batch_id: str) -> list[Rollback]:
        """All rollbacks of a batch, in the order in which they began."""
        table = tables.rollback
        query = sa.select(table).where(table.c.batch_id == batch_id).order_by(table.c.rollback_no)
        with self.read() as connection:
            return [_rollback_from(row) for row in connection.execute(query).mappings()]

    def rollback_step(self, rollback_no: int, step: int, payload: Mapping[str, Any]) -> Rollback:
        """One of the nine steps is done; done again, as after a crash, it is only journaled once."""
        with self.write() as connection:
            known = _need_rollback(connection, rollback_no)
            if known.step >= step:
                return known
            table = tables.rollback
            connection.execute(table.update().where(table.c.rollback_no == rollback_no).values(step=step))
            told = {"rollback": rollback_no, "step": step, "name": STEPS[step], **payload}
            append(connection, self.clock.now(), "rollback_step", told, batch_id=known.batch_id)
            return _need_rollback(connection, rollback_no)

    def change_operation(self, rollback_no: int, *, hard: bool) -> Rollback:
        """Go on deleting for good, or into the recycle bin; what is deleted stays as decided."""
        with self.write() as connection:
            known = _need_rollback(connection, rollback_no)
            if known.scope.get("hard") == hard:
                return known
            table = tables.rollback
            scope = {**known.scope, "hard": hard}
            connection.execute(table.update().where(table.c.rollback_no == rollback_no).values(scope=scope))
            told = {"rollback": rollback_no, "hard": hard}
            append(connection, self.clock.now(), "rollback_changed", told, batch_id=known.batch_id)
            return _need_rollback(connection, rollback_no)

    def end_rollback(self, rollback_no: int, result: Mapping[str, Any]) -> Rollback:
        """The rollback is through."""
        with self.write() as connection:
            known = _need_rollback(connection, rollback_no)
            if known.ended_at is not None:
                return known
            now, table = self.clock.now(), tables.rollback
            values = {"ended_at": now, "result": dict(result)}
            connection.execute(table.update().where(table.c.rollback_no == rollback_no).values(**values))
            told = {"rollback": rollback_no, **result}
            append(connection, now, "rollback_ended", told, batch_id=known.batch_id)
            return _need_rollback(connection, rollback_no)

    def seal_rollback(self, rollback_no: int, chunks: Sequence[RollbackChunk], payload: Mapping[str, Any]) -> None:
        """Record what will be done to each chunk, all in one transaction: what is begun is not decided anew."""
        with self.write() as connection:
            known = _need_rollback(connection, rollback_no)
            if known.step >= _SEALED:
                return
            rows = [
                {
                    "rollback_no": rollback_no,
                    "audit_id": one.audit_id,
                    "decisions_file": one.decisions_file,
                    "decisions_sha256": one.decisions_sha256,
                    "restores": [part_document(part) for part in one.restores],
                    "deletes": [part_document(part) for part in one.deletes],
                    "step": one.step,
                }
                for one in chunks
            ]
            if rows:
                connection.execute(tables.rollback_chunk.insert(), rows)
            table = tables.rollback
            connection.execute(table.update().where(table.c.rollback_no == rollback_no).values(step=_SEALED))
            files = {one.decisions_file: one.decisions_sha256 for one in chunks}
            files |= {part.file: part.sha256 for one in chunks for part in (*one.restores, *one.deletes)}
            now = self.clock.now()
            for step, more in ((3, dict(payload)), (_SEALED, {"files": files})):
                told = {"rollback": rollback_no, "step": step, "name": STEPS[step], **more}
                append(connection, now, "rollback_step", told, batch_id=known.batch_id)

    def reseal_rollback(self, rollback_no: int, chunks: Sequence[RollbackChunk]) -> None:
        """Replace what will be done to chunks of which nothing is done yet, as their records may have changed since."""
        with self.write() as connection:
            known = _need_rollback(connection, rollback_no)
            table = tables.rollback_chunk
            for one in chunks:
                values = {
                    "decisions_file": one.decisions_file,
                    "decisions_sha256": one.decisions_sha256,
                    "restores": [part_document(part) for part in one.restores],
                    "deletes": [part_document(part) for part in one.deletes],
                }
                mine = (table.c.rollback_no == rollback_no) & (table.c.audit_id == one.audit_id)
                connection.execute(table.update().where(mine).values(**values))
            files = {one.decisions_file: one.decisions_sha256 for one in chunks}
            files |= {part.file: part.sha256 for one in chunks for part in (*one.restores, *one.deletes)}
            told = {"rollback": rollback_no, "chunks": len(chunks), "files": files}
            append(connection, self.clock.now(), "rollback_looked_again", told, batch_id=known.batch_id)

    def rollback_chunks(self, rollback_no: int) -> list[RollbackChunk]:
        """What a rollback does to each of its chunks, by AUDIT_ID."""
        table = tables.rollback_chunk
        query = sa.select(table).where(table.c.rollback_no == rollback_no).order_by(table.c.audit_id)
        with self.read() as connection:
            return [_chunk_from(row) for row in connection.execute(query).mappings()]

    def settle_rollback(
        self,
        rollback_no: int,
        audit_id: int,
        *,
        ledger_file: str,
        ledger_sha256: str,
        counts: Mapping[str, int],
        outcomes: tuple[str, str] | None = None,
    ) -> Chunk:
        """Write down what became of a chunk: its ledger's next generation, and ROLLED_BACK if nothing of it is left.

        Args:
            counts: `rolled_back` and `kept` rows, and those `left` out by the rollback's own limits.
            outcomes: Name and seal of the file of what became of each record; later rollbacks go by it.
        """
        with self.write() as connection:
            table = tables.rollback_chunk
            mine = (table.c.rollback_no == rollback_no) & (table.c.audit_id == audit_id)
            chunk = need_chunk(connection, audit_id)
            if connection.execute(sa.select(table.c.step).where(mine)).scalar_one() == "settled":
                return chunk
            now = self.clock.now()
            audit: dict[str, Any] = {}
            if not counts["kept"] and not counts["left"]:
                check_chunk_move(audit_id, chunk.status, ChunkStatus.ROLLED_BACK)
                audit = {"status": ChunkStatus.ROLLED_BACK.value, "end_time": now}
            else:
                message = (
                    f"rolled back but for {counts['kept']:,} records that were kept and {counts['left']:,} that were "
                    "not asked for"
                )
                # What a proof found before holds no more of a chunk of which a part is gone.
                audit = {"error_message": fit_text(message, tables.ERROR_MESSAGE_BYTES), "target_checksum": None}
            connection.execute(table.update().where(mine).values(step="settled"))
            files = {} if outcomes is None else {"outcomes_file": outcomes[0], "outcomes_sha256": outcomes[1]}
            ledger = {"ledger_file": ledger_file, "ledger_sha256": ledger_sha256}
            return move(
                connection,
                chunk,
                now,
                "chunk_rolled_back",
                chunk_values={**ledger, "generation": chunk.generation + 1},
                audit_values=audit,
                payload={"rollback": rollback_no, **ledger, **files, **counts},
            )

    def roll_back_chunk(self, audit_id: int) -> Chunk:
        """SUCCESS or PARTIAL to ROLLED_BACK, which is final; END_TIME is now."""
        with self.write() as connection:
            chunk = need_chunk(connection, audit_id)
            check_chunk_move(audit_id, chunk.status, ChunkStatus.ROLLED_BACK)
            now = self.clock.now()
            audit = {"status": ChunkStatus.ROLLED_BACK.value, "end_time": now}
            return move(connection, chunk, now, "chunk_rolled_back", audit_values=audit)


_SEALED = 4


def _find_table_image(connection: Connection, batch_id: str, table_name: str) -> TableImage | None:
    image = tables.table_image
    query = sa.select(image).where(image.c.batch_id == batch_id, image.c.table_name == table_name)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return None
    fields = {name: row[name] for name in TableImage.__struct_fields__}
    return TableImage(**{**fields, "held_records": bool(row["held_records"])})


def _find_image(connection: Connection, audit_id: int) -> BeforeImage | None:
    image = tables.before_image
    query = sa.select(image).where(image.c.audit_id == audit_id).order_by(image.c.generation).limit(1)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _image_from(row)


def _image_from(row: RowMapping) -> BeforeImage:
    return BeforeImage(**{name: row[name] for name in BeforeImage.__struct_fields__})


def _find_open(connection: Connection, batch_id: str) -> Rollback | None:
    table = tables.rollback
    query = sa.select(table).where(table.c.batch_id == batch_id, table.c.ended_at.is_(None))
    row = connection.execute(query.order_by(table.c.rollback_no).limit(1)).mappings().one_or_none()
    return None if row is None else _rollback_from(row)


def _need_rollback(connection: Connection, number: int) -> Rollback:
    query = sa.select(tables.rollback).where(tables.rollback.c.rollback_no == number)
    return _rollback_from(connection.execute(query).mappings().one())


def _rollback_from(row: RowMapping) -> Rollback:
    return Rollback(**{name: row[name] for name in Rollback.__struct_fields__})


def _chunk_from(row: RowMapping) -> RollbackChunk:
    fields = {name: row[name] for name in RollbackChunk.__struct_fields__}
    return RollbackChunk(
        **{
            **fields,
            "restores": tuple(part_from(part) for part in row["restores"]),
            "deletes": tuple(part_from(part) for part in row["deletes"]),
        }
    )
