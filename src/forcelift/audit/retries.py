"""Retries: which refused rows are sent again, how far each chunk of them has come, and what became of them.

A chunk's audit row and ledger stay as they were until its rows are settled: then its sums, its ledger, its failed
records and its status move in one transaction. A retry that ends in the middle leaves no chunk between two states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy.engine import Connection, RowMapping

from forcelift.audit import tables
from forcelift.audit.chunk_rows import counts_values, move, need_chunk
from forcelift.audit.codec import part_document, part_from, staged_document, staged_from
from forcelift.audit.holding import Holding
from forcelift.audit.journal import append
from forcelift.audit.moves import check_chunk_move
from forcelift.audit.records import Chunk, ChunkCounts, ChunkStatus, IllegalMove, Part, StagedChunk
from forcelift.errors import StateConflict

if TYPE_CHECKING:
    import polars as pl

CHOSEN, STAGED, LOADED, LINKING, SETTLED = "chosen", "staged", "loaded", "linking", "settled"
"""How far the rows of a chunk have come in a retry."""


class Retry(Struct, frozen=True, kw_only=True):
    """One retry of a batch. `folder` is where its files lie in storage; `result` is known once it has ended."""

    retry_no: int
    batch_id: str
    folder: str
    selection: Mapping[str, Any]
    plan_revision: int
    asked_by: str
    began_at: datetime
    ended_at: datetime | None = None
    result: Mapping[str, Any] | None = None


class RetryChunk(Struct, frozen=True, kw_only=True):
    """The rows of one chunk that a retry takes up.

    `gone` counts those that the source has no more; `counts` is what became of all, once settled.
    """

    retry_no: int
    audit_id: int
    lines_file: str
    lines_sha256: str
    lines_rows: int
    step: str = CHOSEN
    staged: StagedChunk | None = None
    link_parts: tuple[Part, ...] = ()
    gone: int = 0
    image_file: str | None = None
    image_sha256: str | None = None
    image_rows: int | None = None
    image_at: datetime | None = None
    settled_at: datetime | None = None
    counts: Mapping[str, Any] | None = None


class Retries(Holding):
    """Retries of refused rows."""

    def begin_retry(
        self,
        batch_id: str,
        *,
        folder: str,
        selection: Mapping[str, Any],
        by: str,
        chunks: Sequence[tuple[int, str, str, int]],
    ) -> Retry:
        """Record a retry with the sealed rows of each chunk: AUDIT_ID, file, sha256, rows.

        Raises:
            StateConflict: Another retry of the batch is not through.
        """
        with self.write() as connection:
            if (known := _find_open(connection, batch_id)) is not None:
                raise StateConflict(
                    f"retry {known.retry_no} of batch `{batch_id}` is not through",
                    state="nothing was changed",
                    hint=f"go on with it by `forcelift failed retry --batch {batch_id}`",
                )
            now = self.clock.now()
            revision = connection.execute(
                sa.select(tables.batch.c.plan_revision).where(tables.batch.c.batch_id == batch_id)
            ).scalar_one()
            row = {
                "batch_id": batch_id,
                "folder": folder,
                "selection": dict(selection),
                "plan_revision": revision,
                "asked_by": by,
                "began_at": now,
            }
            made = connection.execute(tables.retry.insert(), row).inserted_primary_key
            assert made is not None
            number = int(made[0])
            rows = [
                {
                    "retry_no": number,
                    "audit_id": audit_id,
                    "lines_file": file,
                    "lines_sha256": sha256,
                    "lines_rows": count,
                    "step": CHOSEN,
                    "gone": 0,
                }
                for audit_id, file, sha256, count in chunks
            ]
            if rows:
                connection.execute(tables.retry_chunk.insert(), rows)
            payload = {
                "retry": number,
                "selection": dict(selection),
                "plan_revision": revision,
                "by": by,
                "rows": sum(count for _, _, _, count in chunks),
                "files": {file: sha256 for _, file, sha256, _ in chunks},
            }
            append(connection, now, "retry_begun", payload, batch_id=batch_id)
            return _need_retry(connection, number)

    def open_retry(self, batch_id: str) -> Retry | None:
        """The batch's retry that is not through; None if there is none."""
        with self.read() as connection:
            return _find_open(connection, batch_id)

    def retries(self, batch_id: str) -> list[Retry]:
        """All retries of a batch, in the order in which they began."""
        query = sa.select(tables.retry).where(tables.retry.c.batch_id == batch_id).order_by(tables.retry.c.retry_no)
        with self.read() as connection:
            return [_retry_from(row) for row in connection.execute(query).mappings()]

    def end_retry(self, retry_no: int, result: Mapping[str, Any]) -> Retry:
        """All chunks of the retry are settled."""
        with self.write() as connection:
            known = _need_retry(connection, retry_no)
            if known.ended_at is not None:
                return known
            now = self.clock.now()
            table = tables.retry
            connection.execute(
                table.update().where(table.c.retry_no == retry_no).values(ended_at=now, result=dict(result))
            )
            append(connection, now, "retry_ended", {"retry": retry_no, **result}, batch_id=known.batch_id)
            return _need_retry(connection, retry_no)

    def retry_chunks(self, retry_no: int) -> list[RetryChunk]:
        """The chunks of a retry, by AUDIT_ID."""
        table = tables.retry_chunk
        query = sa.select(table).where(table.c.retry_no == retry_no).order_by(table.c.audit_id)
        with self.read() as connection:
            return [_chunk_from(row) for row in connection.execute(query).mappings()]

    def retried_chunks(self, batch_id: str) -> list[RetryChunk]:
        """The settled chunks of all retries of a batch, in the order of the retries."""
        table, retry = tables.retry_chunk, tables.retry
        query = (
            sa.select(table)
            .join(retry, retry.c.retry_no == table.c.retry_no)
            .where(retry.c.batch_id == batch_id, table.c.step == SETTLED)
            .order_by(table.c.retry_no, table.c.audit_id)
        )
        with self.read() as connection:
            return [_chunk_from(row) for row in connection.execute(query).mappings()]

    def retry_chunk(self, retry_no: int, audit_id: int) -> RetryChunk:
        """One chunk of a retry."""
        with self.read() as connection:
            return _need_chunk(connection, retry_no, audit_id)

    def stage_retry(self, retry_no: int, audit_id: int, staged: StagedChunk, *, gone: int) -> RetryChunk:
        """The rows were read again and their files are sealed: from now on the source is not read for them."""
        values = {"step": STAGED, "staged": staged_document(staged), "gone": gone}
        files = {part.file: part.sha256 for part in staged.parts}
        payload = {"files": files, "rejected": staged.rejected, "duplicate": staged.duplicate, "gone": gone}
        return self._step(retry_no, audit_id, {CHOSEN}, values, "retry_staged", payload)

    def image_retry(self, retry_no: int, audit_id: int, *, file: str, sha256: str, rows: int) -> RetryChunk:
        """The records of the rows' keys are sealed as they stand now. The first that is recorded counts."""
        known = self.retry_chunk(retry_no, audit_id)
        if known.image_file is not None:
            return known
        values = {"image_file": file, "image_sha256": sha256, "image_rows": rows, "image_at": self.clock.now()}
        payload = {"file": file, "sha256": sha256, "rows": rows}
        return self._step(retry_no, audit_id, {STAGED}, values, "retry_image_taken", payload)

    def load_retry(self, retry_no: int, audit_id: int) -> RetryChunk:
        """All load jobs of the rows have answered, and their links wait for the rest of the group."""
        return self._step(retry_no, audit_id, {STAGED, LOADED}, {"step": LOADED}, "retry_loaded", {})

    def link_retry(
        self, retry_no: int, audit_id: int, parts: Sequence[Part], staged: StagedChunk, refused: int
    ) -> RetryChunk:
        """The files of the rows' link pass are sealed."""
        values = {
            "step": LINKING,
            "link_parts": [part_document(part) for part in parts],
            "staged": staged_document(staged),
        }
        payload = {"files": {part.file: part.sha256 for part in parts}, "refused": refused}
        return self._step(retry_no, audit_id, {LOADED}, values, "retry_links_staged", payload)

    def settle_retry(
        self,
        retry_no: int,
        audit_id: int,
        *,
        status: ChunkStatus,
        counts: ChunkCounts,
        outcomes: Mapping[str, int],
        became: Mapping[str, Any],
        ledger_file: str,
        ledger_sha256: str,
        source_checksum: str,
        failed: pl.DataFrame,
        staged: StagedChunk,
    ) -> Chunk:
        """Write down what became of a chunk's rows: sums, ledger, failed records and status, in one transaction.

        START_TIME, END_TIME and SF_JOB_ID stay those of the load: whether a record was changed since is judged by when
        its own rows were settled.

        Args:
            status: SUCCESS or PARTIAL, of the chunk as a whole.
            counts: Of the chunk as a whole; must close.
            outcomes: Rows of the whole ledger file by outcome.
            became: What became of the rows that were retried, in numbers.
            failed: As `failed_changes.change_failed` takes it.
            staged: What stands of the chunk's staging, with the counts of now.
        Raises:
            IllegalMove: The sums do not close, or the chunk may not move so.
        """
        with self.write() as connection:
            chunk = need_chunk(connection, audit_id)
            known = _need_chunk(connection, retry_no, audit_id)
            if known.step == SETTLED:
                return chunk
            _check_sums(chunk, status, counts)
            # By way of RUNNING, as every retry of a chunk goes; a chunk that was SUCCESS stays it.
            if chunk.status is not ChunkStatus.SUCCESS:
                check_chunk_move(audit_id, chunk.status, ChunkStatus.RUNNING)
                check_chunk_move(audit_id, ChunkStatus.RUNNING, status)
            now = self.clock.now()
            # Whoever only reads the audit database does without the libraries that write columns.
            from forcelift.audit.failed_changes import change_failed

            change = change_failed(connection, audit_id, chunk.table_name, failed, now=now)
            change |= {
                "ledger_file": ledger_file,
                "ledger_sha256": ledger_sha256,
                "generation": chunk.generation + 1,
                "staged": staged_document(staged),
            }
            table = tables.retry_chunk
            mine = (table.c.retry_no == retry_no) & (table.c.audit_id == audit_id)
            connection.execute(table.update().where(mine).values(step=SETTLED, settled_at=now, counts=dict(became)))
            payload = {
                "retry": retry_no,
                "table": chunk.table_name,
                "chunk": chunk.chunk_no,
                "ledger_file": ledger_file,
                "ledger_sha256": ledger_sha256,
                "outcomes": dict(outcomes),
                "became": dict(became),
            }
            # What a proof found before holds no more of a chunk of which rows are new.
            audit = counts_values(counts) | {
                "status": status.value,
                "source_checksum": source_checksum,
                "target_checksum": None,
            }
            return move(
                connection, chunk, now, "chunk_retried", chunk_values=change, audit_values=audit, payload=payload
            )

    def _step(
        self,
        retry_no: int,
        audit_id: int,
        allowed: set[str],
        values: Mapping[str, Any],
        action: str,
        payload: Mapping[str, Any],
    ) -> RetryChunk:
        with self.write() as connection:
            known = _need_chunk(connection, retry_no, audit_id)
            if known.step not in allowed:
                raise IllegalMove(f"retry {retry_no} of chunk {audit_id} is {known.step}: {action} may not follow")
            table = tables.retry_chunk
            mine = (table.c.retry_no == retry_no) & (table.c.audit_id == audit_id)
            connection.execute(table.update().where(mine).values(**values))
            batch_id = _need_retry(connection, retry_no).batch_id
            told = {"retry": retry_no, "audit_id": audit_id, **payload}
            append(connection, self.clock.now(), action, told, batch_id=batch_id)
            return _need_chunk(connection, retry_no, audit_id)


def _check_sums(chunk: Chunk, status: ChunkStatus, counts: ChunkCounts) -> None:
    assert counts.loaded is not None
    assert counts.success is not None
    assert counts.failed is not None
    closes = counts.source == counts.extracted == counts.transformed + counts.skipped
    closes = closes and counts.transformed == counts.loaded == counts.success + counts.failed
    if not closes or status not in (ChunkStatus.SUCCESS, ChunkStatus.PARTIAL):
        raise IllegalMove(f"chunk with AUDIT_ID {chunk.audit_id} may not become {status}: {counts}")


def with_counts(staged: StagedChunk, *, rejected: int, duplicate: int, changes: Mapping[str, int]) -> StagedChunk:
    """A chunk's staging with the counts that a retry has moved."""
    added = {name: staged.changes.get(name, 0) + changes.get(name, 0) for name in {**staged.changes, **changes}}
    transformed = staged.extracted - rejected - duplicate
    return replace(staged, transformed=transformed, rejected=rejected, duplicate=duplicate, changes=added)


def _find_open(connection: Connection, batch_id: str) -> Retry | None:
    table = tables.retry
    query = sa.select(table).where(table.c.batch_id == batch_id, table.c.ended_at.is_(None))
    row = connection.execute(query.order_by(table.c.retry_no).limit(1)).mappings().one_or_none()
    return None if row is None else _retry_from(row)


def _need_retry(connection: Connection, number: int) -> Retry:
    query = sa.select(tables.retry).where(tables.retry.c.retry_no == number)
    return _retry_from(connection.execute(query).mappings().one())


def _need_chunk(connection: Connection, number: int, audit_id: int) -> RetryChunk:
    table = tables.retry_chunk
    query = sa.select(table).where(table.c.retry_no == number, table.c.audit_id == audit_id)
    return _chunk_from(connection.execute(query).mappings().one())


def _retry_from(row: RowMapping) -> Retry:
    return Retry(**{name: row[name] for name in Retry.__struct_fields__})


def _chunk_from(row: RowMapping) -> RetryChunk:
    fields = {name: row[name] for name in RetryChunk.__struct_fields__}
    staged = None if row["staged"] is None else staged_from(row["staged"])
    return RetryChunk(
        **{**fields, "staged": staged, "link_parts": tuple(part_from(part) for part in row["link_parts"] or ())}
    )
