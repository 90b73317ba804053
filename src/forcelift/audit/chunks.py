"""Tables and chunks of a batch: planned, started, staged, loaded, settled, each move in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from msgspec.structs import replace

from forcelift.audit import tables
from forcelift.audit.batches import need_batch
from forcelift.audit.chunk_rows import (
    check_counts,
    counts_values,
    ended,
    fail,
    find_chunks,
    find_table,
    insert_chunks,
    move,
    need_chunk,
    need_running,
    skip_pending,
    start,
)
from forcelift.audit.codec import part_document, staged_document, table_from
from forcelift.audit.holding import Holding
from forcelift.audit.journal import append
from forcelift.audit.moves import check_chunk_move
from forcelift.audit.records import (
    BatchMode,
    BatchTable,
    Chunk,
    ChunkCounts,
    ChunkStatus,
    ChunkStep,
    Part,
    StagedChunk,
)
from forcelift.audit.text import fit_text
from forcelift.errors import StateConflict

if TYPE_CHECKING:
    import polars as pl

_MEGABYTE = 1_000_000


class Chunks(Holding):
    """Tables and chunks."""

    def plan_table(self, table: BatchTable, chunks: Sequence[tuple[Mapping[str, Any], int]]) -> list[Chunk]:
        """Record a table and all its chunks, PENDING, numbered from 1 in the order given.

        Args:
            table: The table's row.
            chunks: Each chunk's predicate, as the source adapter made it, and its estimated rows.
        Raises:
            StateConflict: The table was planned already, or there is no such batch.
        """
        with self.write() as connection:
            self.need_work(connection, table.batch_id, "plan", table.table_name)
            batch = need_batch(connection, table.batch_id)
            if find_table(connection, table.batch_id, table.table_name) is not None:
                raise StateConflict(
                    f"table `{table.table_name}` of batch `{table.batch_id}` was planned already",
                    state="its chunks stand as they were planned",
                    hint=f"go on with it by `forcelift run --resume {table.batch_id}`",
                )
            connection.execute(
                tables.batch_table.insert(), {name: getattr(table, name) for name in BatchTable.__struct_fields__}
            )
            now = self.clock.now()
            insert_chunks(connection, table, chunks, created_by=batch.created_by, now=now)
            payload = {"table": table.table_name, "chunks": len(chunks), "fingerprint": table.fingerprint}
            append(connection, now, "table_planned", payload, batch_id=table.batch_id)
            return find_chunks(connection, table.batch_id, table.table_name)

    def tables(self, batch_id: str) -> list[BatchTable]:
        """The batch's tables in load order."""
        query = sa.select(tables.batch_table).where(tables.batch_table.c.batch_id == batch_id)
        with self.read() as connection:
            rows = connection.execute(query.order_by(tables.batch_table.c.position)).mappings()
            return [table_from(row) for row in rows]

    def chunks(self, batch_id: str, table_name: str | None = None, *, with_superseded: bool = False) -> list[Chunk]:
        """The batch's chunks in load order: by their table's position, then by number.

        Of a chunk that was rolled back and is loaded anew only the rows that count, unless `with_superseded`.
        """
        with self.read() as connection:
            return find_chunks(connection, batch_id, table_name, with_superseded=with_superseded)

    def chunk(self, audit_id: int) -> Chunk:
        """One chunk. Raises `StateConflict` if there is none of that id."""
        with self.read() as connection:
            self.need_claim(connection, audit_id)
            return need_chunk(connection, audit_id)

    def start_chunk(self, audit_id: int, *, restage: bool = False) -> Chunk:
        """PENDING, FAILED, PARTIAL or SKIPPED to RUNNING: START_TIME is now, END_TIME and the error are cleared.

        A chunk that was staged keeps its files and its step, and a settled one goes back to `staged`; its counts stay
        until it is settled again. A chunk that comes from FAILED or PARTIAL gets the next generation.

        Args:
            audit_id: The chunk.
            restage: Forget the staged files and read the source again. Refused once a job was made from them.
        """
        with self.write() as connection:
            self.need_claim(connection, audit_id)
            return start(connection, audit_id, self.clock.now(), restage=restage)

    def stage_chunk(self, audit_id: int, staged: StagedChunk) -> Chunk:
        """Record that the chunk's files are sealed; from now on they are not changed and the source is not read."""
        with self.write() as connection:
            self.need_claim(connection, audit_id)
            chunk = need_running(connection, audit_id, {ChunkStep.PLANNED})
            audit = {
                "source_count": staged.source_count,
                "extracted_count": staged.extracted,
                "transformed_count": staged.transformed,
                "skipped_count": staged.rejected + staged.duplicate,
                "source_checksum": staged.source_checksum,
                "csv_file_path": fit_text(staged.parts[0].file, tables.FILE_PATH_BYTES) if staged.parts else None,
                "csv_file_size_mb": sum(part.bytes for part in staged.parts) / _MEGABYTE,
            }
            change = {"step": ChunkStep.STAGED.value, "staged": staged_document(staged)}
            files = {part.file: part.sha256 for part in staged.parts}
            return move(
                connection,
                chunk,
                self.clock.now(),
                "chunk_staged",
                chunk_values=change,
                audit_values=audit,
                payload={
                    "files": files,
                    "changes": dict(staged.changes),
                    "seconds": staged.seconds,
                    "clean_seconds": staged.clean_seconds,
                },
            )

    def load_chunk(self, audit_id: int, ledger_file: str, sha256: str) -> Chunk:
        """Record that all load jobs of the chunk have answered and their ledger file is sealed."""
        with self.write() as connection:
            self.need_claim(connection, audit_id)
            chunk = need_running(connection, audit_id, {ChunkStep.STAGED, ChunkStep.LOADED})
            change = {"step": ChunkStep.LOADED.value, "ledger_file": ledger_file, "ledger_sha256": sha256}
            seal = {"ledger_file": ledger_file, "ledger_sha256": sha256}
            return move(connection, chunk, self.clock.now(), "chunk_loaded", chunk_values=change, payload=seal)

    def stage_links(
        self,
        audit_id: int,
        parts: Sequence[Part],
        refused: int,
        changes: Mapping[str, int] | None = None,
        *,
        rows_file: str | None = None,
    ) -> Chunk:
        """Record that the files of the chunk's link pass are sealed.

        Args:
            audit_id: The chunk.
            parts: The upload files.
            refused: Rows without a parent to link to.
            changes: What the link pass changed, as "rule:column" -> rows; added to what staging counted.
            rows_file: Name in storage of what became of each row of the pass.
        """
        with self.write() as connection:
            self.need_claim(connection, audit_id)
            chunk = need_running(connection, audit_id, {ChunkStep.LOADED})
            assert chunk.staged is not None
            counted = Counter(chunk.staged.changes) + Counter(changes or {})
            change = {
                "staged": staged_document(replace(chunk.staged, changes=dict(counted), link_rows_file=rows_file)),
                "step": ChunkStep.LINKING.value,
                "link_parts": [part_document(part) for part in parts],
                "link_refused": refused,
            }
            files = {part.file: part.sha256 for part in parts}
            return move(
                connection,
                chunk,
                self.clock.now(),
                "links_staged",
                chunk_values=change,
                payload={"files": files, "refused": refused, "changes": dict(changes or {})},
            )

    def settle_chunk(
        self,
        audit_id: int,
        *,
        status: ChunkStatus,
        counts: ChunkCounts,
        ledger_file: str | None,
        ledger_sha256: str | None,
        failed: pl.DataFrame | None = None,
        outcomes: Mapping[str, int] | None = None,
        source_checksum: str | None = None,
        error_message: str | None = None,
        error_details: str | None = None,
    ) -> Chunk:
        """End a chunk: counts, times, failed records and seal, all in one transaction.

        Args:
            audit_id: The chunk, RUNNING.
            status: SUCCESS, PARTIAL, or FAILED when rows are still without an answer.
            counts: Its sums; SUCCESS and PARTIAL are refused unless they close.
            ledger_file: Name of its ledger file in storage.
            ledger_sha256: The seal of that file.
            failed: Columns row, key, code, message, fields, data; replaces all earlier failed records of the chunk.
            outcomes: How many rows of the ledger file have each outcome, for who asks later without reading the file.
            source_checksum: SOURCE_CHECKSUM over the rows accepted; None leaves what staging wrote.
            error_message: One sentence, without values of rows.
            error_details: More of it.
        Raises:
            IllegalMove: The move is not allowed, or SUCCESS or PARTIAL is asked of sums that do not close.
        """
        with self.write() as connection:
            self.need_claim(connection, audit_id)
            chunk = need_chunk(connection, audit_id)
            check_chunk_move(audit_id, chunk.status, status)
            if status is not ChunkStatus.FAILED:
                dry = need_batch(connection, chunk.batch_id).mode is BatchMode.DRY_RUN
                check_counts(chunk, status, counts, dry=dry)
            now = self.clock.now()
            change: dict[str, Any] = {"ledger_file": ledger_file, "ledger_sha256": ledger_sha256}
            if status is not ChunkStatus.FAILED:
                change["step"] = ChunkStep.SETTLED.value
            # Whoever only reads the audit database does without the libraries that write columns.
            from forcelift.audit.failed import replace_failed

            change |= replace_failed(connection, audit_id, chunk.table_name, failed, now=now)
            payload = {
                "table": chunk.table_name,
                "chunk": chunk.chunk_no,
                "ledger_file": ledger_file,
                "ledger_sha256": ledger_sha256,
                "failed_records": 0 if failed is None else failed.height,
            }
            if outcomes is not None:
                payload["outcomes"] = dict(outcomes)
            audit = counts_values(counts) | ended(chunk, status, now, error_message, error_details)
            if source_checksum is not None:
                audit["source_checksum"] = source_checksum
            return move(
                connection,
                chunk,
                now,
                "chunk_settled",
                chunk_values=change,
                audit_values=audit,
                payload=payload,
            )

    def fail_chunk(self, audit_id: int, message: str, details: str | None = None) -> Chunk:
        """RUNNING to FAILED: the chunk could not be finished. How far it came stays as it was."""
        with self.write() as connection:
            self.need_claim(connection, audit_id)
            return fail(connection, audit_id, self.clock.now(), message, details)

    def skip_chunks(self, batch_id: str, reason: str) -> int:
        """All PENDING chunks to SKIPPED, as the batch was stopped before they began. Returns how many."""
        with self.write() as connection:
            return skip_pending(connection, batch_id, self.clock.now(), reason)
