"""A chunk's two rows, in `chunk` and in MIGRATION_AUDIT_LOG: made, found, checked and changed inside a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from forcelift.audit import tables
from forcelift.audit.codec import chunk_from, table_from
from forcelift.audit.journal import append, append_chunk
from forcelift.audit.moves import check_chunk_move
from forcelift.audit.records import (
    BatchTable,
    Chunk,
    ChunkCounts,
    ChunkStatus,
    ChunkStep,
    IllegalMove,
)
from forcelift.audit.text import fit_text, short_batch_id, short_table_name
from forcelift.errors import StateConflict

_LIST_MAX = 1000
_AUDIT_ONLY = [column for column in tables.audit_log.c if column.key not in tables.chunk.c]
_CHUNK = sa.select(tables.chunk, *_AUDIT_ONLY).join(
    tables.audit_log, tables.audit_log.c.audit_id == tables.chunk.c.audit_id
)


def insert_chunks(
    connection: Connection,
    table: BatchTable,
    chunks: Sequence[tuple[Mapping[str, Any], int]],
    *,
    created_by: str,
    now: datetime,
) -> None:
    """Make both rows of each chunk of a table that was just recorded."""
    if not chunks:
        return
    log = tables.audit_log
    common = {
        "batch_id": short_batch_id(table.batch_id),
        "table_name": short_table_name(table.table_name),
        "status": ChunkStatus.PENDING.value,
        "created_by": fit_text(created_by, tables.CREATED_BY_BYTES),
        "created_date": now,
        "start_time": None,
    }
    connection.execute(log.insert(), [{**common, "chunk_id": number} for number in range(1, len(chunks) + 1)])
    # One table of one batch is planned once, so these are the rows just made.
    made = connection.execute(
        sa.select(log.c.chunk_id, log.c.audit_id).where(
            log.c.batch_id == common["batch_id"], log.c.table_name == common["table_name"]
        )
    )
    audit_ids = {row.chunk_id: row.audit_id for row in made}
    connection.execute(
        tables.chunk.insert(),
        [
            {
                "audit_id": audit_ids[number],
                "batch_id": table.batch_id,
                "table_name": table.table_name,
                "chunk_no": number,
                "predicate": dict(predicate),
                "rows_estimate": rows_estimate,
                "step": ChunkStep.PLANNED.value,
                "generation": 0,
                "link_refused": 0,
            }
            for number, (predicate, rows_estimate) in enumerate(chunks, start=1)
        ],
    )


def find_table(connection: Connection, batch_id: str, table_name: str) -> BatchTable | None:
    """The table of that batch, or None."""
    table = tables.batch_table
    query = sa.select(table).where(table.c.batch_id == batch_id, table.c.table_name == table_name)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else table_from(row)


def find_chunks(
    connection: Connection,
    batch_id: str,
    table_name: str | None,
    audit_ids: Sequence[int] | None = None,
    *,
    with_superseded: bool = False,
) -> list[Chunk]:
    """The chunks of a batch or of one of its tables, in load order; only those of `audit_ids` if given.

    A chunk that was rolled back and is loaded anew has several rows: only the one that counts, unless asked for all.
    """
    query = _CHUNK.join(
        tables.batch_table,
        (tables.batch_table.c.batch_id == tables.chunk.c.batch_id)
        & (tables.batch_table.c.table_name == tables.chunk.c.table_name),
    ).where(tables.chunk.c.batch_id == batch_id)
    if not with_superseded:
        query = query.where(tables.chunk.c.superseded == 0)
    if table_name is not None:
        query = query.where(tables.chunk.c.table_name == table_name)
    if audit_ids is not None:
        # Lists of more than 1,000 are an error on Oracle (ORA-01795), several of them are not.
        parts = [audit_ids[start : start + _LIST_MAX] for start in range(0, len(audit_ids), _LIST_MAX)]
        if not parts:
            return []
        query = query.where(sa.or_(*(tables.chunk.c.audit_id.in_(part) for part in parts)))
    query = query.order_by(tables.batch_table.c.position, tables.chunk.c.table_name, tables.chunk.c.chunk_no)
    return [chunk_from(row) for row in connection.execute(query).mappings()]


def need_chunk(connection: Connection, audit_id: int) -> Chunk:
    """The chunk; `StateConflict` if there is none of that id."""
    row = connection.execute(_CHUNK.where(tables.chunk.c.audit_id == audit_id)).mappings().one_or_none()
    if row is None:
        raise StateConflict(
            f"there is no chunk with AUDIT_ID {audit_id}",
            state="nothing was changed",
            hint="see which there are by `forcelift status`",
        )
    return chunk_from(row)


def need_running(connection: Connection, audit_id: int, steps: Set[ChunkStep]) -> Chunk:
    """The chunk, RUNNING and at one of these steps; else `IllegalMove`."""
    chunk = need_chunk(connection, audit_id)
    if chunk.status is not ChunkStatus.RUNNING or chunk.step not in steps:
        raise IllegalMove(
            f"chunk with AUDIT_ID {audit_id} is {chunk.status} and {chunk.step}; it had to be RUNNING and "
            + " or ".join(sorted(steps))
        )
    return chunk


def refuse_restage_after_jobs(connection: Connection, audit_id: int) -> None:
    """Raise `IllegalMove` if the org may know rows of the files that stand."""
    made = connection.execute(
        sa.select(sa.func.count())
        .select_from(tables.job)
        .where(tables.job.c.audit_id == audit_id, tables.job.c.step != "abandoned")
    ).scalar_one()
    if made:
        raise IllegalMove(f"chunk with AUDIT_ID {audit_id}: {made} jobs were made from its files, so they must stay")


def check_counts(chunk: Chunk, status: ChunkStatus, counts: ChunkCounts, *, dry: bool) -> None:
    """Raise `IllegalMove` unless the sums of DESIGN section 4 close and suit the status."""
    closes = counts.source == counts.extracted == counts.transformed + counts.skipped
    sent = (counts.loaded, counts.success, counts.failed)
    if dry:
        closes = closes and sent == (None, None, None)
    elif counts.loaded is None or counts.success is None or counts.failed is None:
        closes = False
    else:
        closes = closes and counts.transformed == counts.loaded == counts.success + counts.failed
    if not closes:
        raise IllegalMove(
            f"chunk with AUDIT_ID {chunk.audit_id} may not become {status}: its sums do not close: source "
            f"{counts.source}, extracted {counts.extracted}, transformed {counts.transformed}, skipped "
            f"{counts.skipped}, loaded {counts.loaded}, success {counts.success}, failed {counts.failed}"
        )
    if chunk.staged is None:
        raise IllegalMove(f"chunk with AUDIT_ID {chunk.audit_id} may not become {status}: it was never staged")
    # Rows that the link pass refuses were accepted before, so they stand among the failed ones once anything was sent.
    refused = chunk.staged.rejected + (chunk.link_refused if counts.failed is None else counts.failed)
    if (status is ChunkStatus.SUCCESS) != (refused == 0):
        raise IllegalMove(f"chunk with AUDIT_ID {chunk.audit_id} may not become {status}: {refused} rows were refused")


def counts_values(counts: ChunkCounts) -> dict[str, Any]:
    """The counts as columns of the audit row."""
    return {
        "source_count": counts.source,
        "extracted_count": counts.extracted,
        "transformed_count": counts.transformed,
        "skipped_count": counts.skipped,
        "loaded_count": counts.loaded,
        "success_count": counts.success,
        "failed_count": counts.failed,
    }


def ended(chunk: Chunk, status: ChunkStatus, now: datetime, message: str | None, details: str | None) -> dict[str, Any]:
    """The columns of an audit row that ends now."""
    began = chunk.start_time or now
    return {
        "status": status.value,
        "end_time": now,
        "duration_seconds": round(max((now - began).total_seconds(), 0.0), 3),
        "error_message": fit_text(message, tables.ERROR_MESSAGE_BYTES),
        "error_details": details,
    }


def move(
    connection: Connection,
    chunk: Chunk,
    now: datetime,
    action: str,
    *,
    chunk_values: Mapping[str, Any] | None = None,
    audit_values: Mapping[str, Any] | None = None,
    payload: Mapping[str, Any] | None = None,
) -> Chunk:
    """Write the changes of both rows of a chunk, journal them, and return the chunk as it stands now."""
    if audit_values:
        log = tables.audit_log
        connection.execute(log.update().where(log.c.audit_id == chunk.audit_id).values(**audit_values))
    if chunk_values:
        table = tables.chunk
        connection.execute(table.update().where(table.c.audit_id == chunk.audit_id).values(**chunk_values))
    append_chunk(connection, now, action, chunk.audit_id, payload or {}, batch_id=chunk.batch_id)
    return need_chunk(connection, chunk.audit_id)


def renew(connection: Connection, chunk: Chunk, *, created_by: str, now: datetime) -> None:
    """Make the rows under which a chunk that was rolled back is loaded anew; the old ones stay beside them."""
    log, table = tables.audit_log, tables.chunk
    earlier = (
        (table.c.batch_id == chunk.batch_id)
        & (table.c.table_name == chunk.table_name)
        & (table.c.chunk_no == chunk.chunk_no)
    )
    number = 1 + connection.execute(sa.select(sa.func.max(table.c.superseded)).where(earlier)).scalar_one()
    connection.execute(table.update().where(table.c.audit_id == chunk.audit_id).values(superseded=number))
    made = connection.execute(
        log.insert(),
        {
            "batch_id": short_batch_id(chunk.batch_id),
            "table_name": short_table_name(chunk.table_name),
            "chunk_id": chunk.chunk_no,
            "status": ChunkStatus.PENDING.value,
            "created_by": fit_text(created_by, tables.CREATED_BY_BYTES),
            "created_date": now,
            "start_time": None,
        },
    )
    assert made.inserted_primary_key is not None
    audit_id = made.inserted_primary_key[0]
    connection.execute(
        table.insert(),
        {
            "audit_id": audit_id,
            "batch_id": chunk.batch_id,
            "table_name": chunk.table_name,
            "chunk_no": chunk.chunk_no,
            "predicate": dict(chunk.predicate),
            "rows_estimate": chunk.rows_estimate,
            "step": ChunkStep.PLANNED.value,
            # Files of the ledger are named by generation, and those of the rows before must stay.
            "generation": chunk.generation + 1,
            "link_refused": 0,
            "superseded": 0,
        },
    )
    payload = {"table": chunk.table_name, "chunk": chunk.chunk_no, "instead_of": chunk.audit_id}
    append_chunk(connection, now, "chunk_renewed", audit_id, payload, batch_id=chunk.batch_id)


def start(connection: Connection, audit_id: int, now: datetime, *, restage: bool = False) -> Chunk:
    """To RUNNING; see `Chunks.start_chunk`."""
    chunk = need_chunk(connection, audit_id)
    check_chunk_move(audit_id, chunk.status, ChunkStatus.RUNNING)
    again = chunk.status in (ChunkStatus.FAILED, ChunkStatus.PARTIAL)
    change: dict[str, Any] = {"generation": chunk.generation + int(again)}
    if restage:
        refuse_restage_after_jobs(connection, audit_id)
        change |= {"step": ChunkStep.PLANNED.value, "staged": None, "link_parts": None, "link_refused": 0}
        change["generation"] = chunk.generation + 1
    elif chunk.step is ChunkStep.SETTLED:
        change |= {"step": ChunkStep.STAGED.value}
    audit = {
        "status": ChunkStatus.RUNNING.value,
        "start_time": now,
        "end_time": None,
        "duration_seconds": None,
        "error_message": None,
        "error_details": None,
        # What was proved of the rows that the chunk had is not proved of those that it will have.
        "target_checksum": None,
    }
    return move(connection, chunk, now, "chunk_started", chunk_values=change, audit_values=audit)


def fail(connection: Connection, audit_id: int, now: datetime, message: str, details: str | None = None) -> Chunk:
    """RUNNING to FAILED."""
    chunk = need_chunk(connection, audit_id)
    check_chunk_move(audit_id, chunk.status, ChunkStatus.FAILED)
    audit = ended(chunk, ChunkStatus.FAILED, now, message, details)
    return move(connection, chunk, now, "chunk_failed", audit_values=audit)


def skip_pending(connection: Connection, batch_id: str, now: datetime, reason: str) -> int:
    """All PENDING chunks of a batch to SKIPPED. Returns how many."""
    log = tables.audit_log
    pending = (log.c.batch_id == short_batch_id(batch_id)) & (log.c.status == ChunkStatus.PENDING.value)
    skipped = connection.execute(
        log.update()
        .where(pending)
        .values(status=ChunkStatus.SKIPPED.value, error_message=fit_text(reason, tables.ERROR_MESSAGE_BYTES))
    ).rowcount
    if skipped:
        append(connection, now, "chunks_skipped", {"chunks": skipped}, batch_id=batch_id)
    return skipped
