"""Carry out the engine's commands for a retry: on single jobs those of a load, on chunks those of their refused rows.

Reads:   the source, sealed lines, upload files and answers; the org's jobs and result files.
Writes:  what `stage`, `images` and `settle` write, and jobs of the kind `retry`.
Re-run:  what the audit database knows of chunks and jobs is gone on with, as a resumed load does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import polars as pl
from msgspec.structs import replace

from forcelift.after.retry.images import RetryImages
from forcelift.after.retry.settle import settle, settlement
from forcelift.after.retry.stage import stage
from forcelift.after.retry.world import RetryWorld
from forcelift.audit.records import JobDraft, JobKind
from forcelift.jobs.chunk_handlers import ChunkHandlers
from forcelift.jobs.handlers import job_handlers
from forcelift.jobs.messages import (
    ChunkSettled,
    ChunkStaged,
    FailChunk,
    LoadChunk,
    SettleChunk,
    SkipChunks,
    StageChunk,
    StageLinks,
    TakeImage,
)
from forcelift.jobs.parts import PartWriter
from forcelift.jobs.settlement import ACCEPTED
from forcelift.jobs.shares import WHOLE_ROW_BYTES
from forcelift.jobs.staged_files import remove_staged


class RetryHandlers:
    """Handlers of all commands that the engine gives for a retry. `world.works` are those of the retry."""

    def __init__(self, world: RetryWorld) -> None:
        self._world = world
        self._chunks = ChunkHandlers(world)

    def handlers(self) -> dict[type, Callable[[Any], Any]]:
        """Handler by command type."""
        return {
            **job_handlers(self._world),
            StageChunk: self.stage_chunk,
            TakeImage: RetryImages(self._world).take,
            LoadChunk: self.load_chunk,
            StageLinks: self.stage_links,
            SettleChunk: self.settle,
            FailChunk: self.fail,
            SkipChunks: self.skip,
        }

    def stage_chunk(self, command: StageChunk) -> ChunkStaged:
        """Read the rows of one chunk again and seal its files; a chunk that has them is passed over."""
        world = self._world
        chunk, work, names = world.chunk(command.audit_id)
        staged = chunk.staged
        if staged is None:
            world.storage.delete_tree(names.folder)
            one = world.one(command.audit_id)
            with world.shares.room.of(one.lines_rows * WHOLE_ROW_BYTES):
                staged, gone = stage(world, chunk, work, names)
            files = [*(part.file for part in staged.parts), staged.rows_file, staged.refused_file, staged.links_file]
            staged = replace(staged, bytes=sum(world.storage.size(name) for name in files if name is not None))
            world.audit.stage_retry(world.retry.retry_no, command.audit_id, staged, gone=gone)
        return ChunkStaged(
            drafts=tuple(
                work.spec.draft(audit_id=chunk.audit_id, kind=JobKind.RETRY, part=part, attempt=1)
                for part in staged.parts
            ),
            extracted=staged.extracted,
            rejected=staged.rejected,
            duplicate=staged.duplicate,
            has_links=staged.links_file is not None,
            staged_bytes=staged.bytes,
        )

    def load_chunk(self, command: LoadChunk) -> int:
        """All load jobs have answered. -> the rows whose fate is not known."""
        chunk, _, _ = self._world.chunk(command.audit_id)
        found = settlement(self._world, self._chunks, chunk, links=False)
        if not found.unknown:
            self._world.audit.load_retry(self._world.retry.retry_no, command.audit_id)
        return found.unknown

    def stage_links(self, command: StageLinks) -> tuple[JobDraft, ...]:
        """Resolve the links of the rows that were accepted, now that all tables of the group stand in the org."""
        world = self._world
        chunk, work, names = world.chunk(command.audit_id)
        assert chunk.staged is not None
        assert chunk.staged.links_file is not None
        told = settlement(world, self._chunks, chunk, links=False).ledger
        accepted = told.filter(pl.col("outcome").is_in(ACCEPTED)).select("row")
        links = pl.read_parquet(world.storage.path(chunk.staged.links_file), glob=False)
        parents = {
            name: world.link_parents(info.parent_object, info.key_field, info.parent_table)
            for name, info in work.rules.lookups.items()
            if info.is_link
        }
        result = work.rules.finish_links(links.join(accepted, on="row", how="semi"), parents)
        with world.storage.write(names.link_rows) as file:
            result.rows.write_parquet(file.path, compression="zstd")
            rows_file = file.commit().name
        with PartWriter(world.storage, names.link_part, null_text=work.null_text) as writer:
            writer.write(result.upload.drop("row"))
            parts = writer.finish()
        changes = Counter(chunk.staged.changes)
        changes.update({f"{rule}:{column}": rows for (rule, column), rows in result.changes.items()})
        staged = replace(chunk.staged, link_rows_file=rows_file, changes=dict(changes))
        refused = int((result.rows["outcome"] == "rejected").sum())
        world.audit.link_retry(world.retry.retry_no, command.audit_id, parts, staged, refused)
        return tuple(
            work.spec.draft(audit_id=chunk.audit_id, kind=JobKind.LINK, part=part, attempt=1) for part in parts
        )

    def settle(self, command: SettleChunk) -> ChunkSettled:
        world = self._world
        chunk, _, names = world.chunk(command.audit_id)
        with world.shares.room.of((chunk.extracted_count or 0) * WHOLE_ROW_BYTES):
            settled = settle(world, self._chunks, command.audit_id)
        if not settled.unknown and not world.keep_staged:
            remove_staged(world.audit, world.storage, chunk.batch_id, names.folder)
        return settled

    def fail(self, command: FailChunk) -> None:
        """The audit row stays as it was: the chunk's rows are what they were before the retry."""
        payload = {"retry": self._world.retry.retry_no, "audit_id": command.audit_id, "message": command.message}
        self._world.audit.journal("retry_held", payload, batch_id=self._world.batch.batch_id)

    def skip(self, command: SkipChunks) -> int:
        """Chunks of the retry that were not begun: nothing of them is changed."""
        return sum(one.step == "chosen" for one in self._world.audit.retry_chunks(self._world.retry.retry_no))
