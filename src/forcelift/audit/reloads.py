"""What was rolled back is loaded anew under new rows of the audit log; the old ones stay and count less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import Connection, RowMapping

from forcelift.audit import tables
from forcelift.audit.chunk_rows import find_chunks, need_chunk, renew
from forcelift.audit.holding import Holding
from forcelift.audit.journal import append, append_chunk
from forcelift.audit.moves import check_chunk_move
from forcelift.audit.records import Chunk, ChunkStatus, ChunkStep
from forcelift.audit.text import fit_text


class Standing(Struct, frozen=True, kw_only=True):
    """Rows of a chunk that a rollback left in the org: they are not sent again, and go over to the chunk's new row.

    Attributes:
        accepted: Created, updated or kept.
        failed: Refused in the end, but with a record of their own in the org.
    """

    accepted: int = 0
    failed: int = 0


class Reloads(Holding):
    """New rows for chunks that were rolled back."""

    def rolled_back_in_part(self, batch_id: str) -> list[Chunk]:
        """The chunks that a rollback has settled and that still hold records: SUCCESS or PARTIAL."""
        chunk, done = tables.chunk, tables.rollback_chunk
        query = (
            sa.select(chunk.c.audit_id)
            .join(done, done.c.audit_id == chunk.c.audit_id)
            .where(chunk.c.batch_id == batch_id, chunk.c.superseded == 0, done.c.step == "settled")
            .distinct()
        )
        with self.read() as connection:
            audit_ids = set(connection.execute(query).scalars())
            return [
                one
                for one in find_chunks(connection, batch_id, None)
                if one.audit_id in audit_ids
                and one.status is not ChunkStatus.ROLLED_BACK
                and one.step is ChunkStep.SETTLED
            ]

    def renew_rolled_back(self, batch_id: str, by: str, *, in_part: Mapping[int, Standing] | None = None) -> int:
        """Give every ROLLED_BACK chunk a new, PENDING row, under which it is loaded again.

        The chunks `in_part` too: their old row becomes ROLLED_BACK and counts only what was undone, and the rows that
        stand are counted in the new one. Failed records of the old rows go: those that fail again are written anew.

        Args:
            in_part: By AUDIT_ID, what stands of chunks that were rolled back in part.
        Returns:
            How many chunks.
        """
        standing = in_part or {}
        with self.write() as connection:
            now = self.clock.now()
            gone = [
                chunk
                for chunk in find_chunks(connection, batch_id, None)
                if chunk.status is ChunkStatus.ROLLED_BACK or chunk.audit_id in standing
            ]
            # Imported late for the same reason as in `settle_chunk`: it needs the library that writes columns.
            from forcelift.audit.failed import replace_failed

            for chunk in gone:
                if chunk.audit_id in standing:
                    _hand_over(connection, chunk, standing[chunk.audit_id], now)
                forgotten = replace_failed(connection, chunk.audit_id, chunk.table_name, None, now=now)
                table = tables.chunk
                connection.execute(table.update().where(table.c.audit_id == chunk.audit_id).values(**forgotten))
                renew(connection, chunk, created_by=by, now=now)
            for name in dict.fromkeys(chunk.table_name for chunk in gone):
                # What the object held before the first load is not what it holds before this one.
                image = tables.table_image
                mine = (image.c.batch_id == batch_id) & (image.c.table_name == name)
                if connection.execute(image.delete().where(mine)).rowcount:
                    append(connection, now, "images_to_be_decided_anew", {"table": name}, batch_id=batch_id)
            return len(gone)

    def predecessor(self, audit_id: int) -> Chunk | None:
        """The row under which a chunk was loaded before it was rolled back; None if this is its first."""
        with self.read() as connection:
            return _predecessor(connection, audit_id)


def _predecessor(connection: Connection, audit_id: int) -> Chunk | None:
    table = tables.chunk
    place: RowMapping | None = (
        connection.execute(
            sa.select(table.c.batch_id, table.c.table_name, table.c.chunk_no, table.c.superseded).where(
                table.c.audit_id == audit_id
            )
        )
        .mappings()
        .one_or_none()
    )
    if place is None:
        return None
    mine = (
        (table.c.batch_id == place["batch_id"])
        & (table.c.table_name == place["table_name"])
        & (table.c.chunk_no == place["chunk_no"])
        & (table.c.superseded > 0)
    )
    if place["superseded"]:
        mine &= table.c.superseded < place["superseded"]
    found = connection.execute(
        sa.select(table.c.audit_id).where(mine).order_by(table.c.superseded.desc()).limit(1)
    ).scalar_one_or_none()
    return None if found is None else need_chunk(connection, found)


def _hand_over(connection: Connection, chunk: Chunk, standing: Standing, now: Any) -> None:
    """Take the rows that stand out of a row's counts: they are counted once, where the chunk is loaded anew."""
    check_chunk_move(chunk.audit_id, chunk.status, ChunkStatus.ROLLED_BACK)
    log = tables.audit_log
    old = connection.execute(sa.select(log).where(log.c.audit_id == chunk.audit_id)).mappings().one()
    rows = standing.accepted + standing.failed
    loaded = int(old["loaded_count"] or 0) - rows
    success = min(loaded, max(0, int(old["success_count"] or 0) - standing.accepted))
    counts = {name: int(old[name] or 0) - rows for name in ("source_count", "extracted_count", "transformed_count")}
    counts |= {"loaded_count": loaded, "success_count": success, "failed_count": loaded - success}
    message = f"rolled back but for {rows:,} records that stand, which are counted where the chunk was loaded again"
    values = {
        **counts,
        "status": ChunkStatus.ROLLED_BACK.value,
        "error_message": fit_text(message, tables.ERROR_MESSAGE_BYTES),
        "target_checksum": None,
    }
    # END_TIME stays: whether a record that stands was changed since is told by when it was settled.
    connection.execute(log.update().where(log.c.audit_id == chunk.audit_id).values(**values))
    payload = {"stand": rows, "counts": counts, "source_before": int(old["source_count"] or 0)}
    append_chunk(connection, now, "chunk_handed_over", chunk.audit_id, payload, batch_id=chunk.batch_id)
