"""Carry out the commands on whole chunks and tables: send again, load, settle, fail, skip, check.

Reads:   staged rows and upload files, sealed answers.
Writes:  re-send files, the ledger, the audit row with its failed records.
Re-run:  files have fixed names and are written whole; the audit row is settled in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import polars as pl
from msgspec.structs import replace

from forcelift.audit.records import (
    Chunk,
    ChunkCounts,
    ChunkStatus,
    Job,
    JobKind,
    Part,
    StagedChunk,
)
from forcelift.audit.shared_work import WorkState
from forcelift.jobs.answers import merge_answers, prove_created, refuse_unsent
from forcelift.jobs.messages import (
    CheckTable,
    ChunkSettled,
    FailChunk,
    LoadChunk,
    Resend,
    SettleChunk,
    SkipChunks,
    StageResend,
)
from forcelift.jobs.parts import PartWriter, read_part
from forcelift.jobs.resend import resend_rows_max
from forcelift.jobs.settlement import ACCEPTED, Settlement, open_keys, settle_rows
from forcelift.jobs.shares import WHOLE_ROW_BYTES
from forcelift.jobs.slices import OutOfOrder, SettledChunk, slices_in_order
from forcelift.jobs.staged_files import remove_staged
from forcelift.jobs.standing import standing_rows, with_standing
from forcelift.jobs.work import StagedNames, TableWork
from forcelift.jobs.world import JobWorld
from forcelift.rules import normalised_key
from forcelift.storage import Sealed


class ChunkHandlers:
    """Handlers of the commands that name a chunk or a table."""

    def __init__(self, world: JobWorld) -> None:
        self._world = world

    def stage_resend(self, command: StageResend) -> Resend:
        """Files of the rows that still lack a final answer, cut from the staged ones: the source is not read again."""
        chunk, work, names = self._world.chunk(command.audit_id)
        assert chunk.staged is not None
        with self._world.shares.room.of(chunk.staged.extracted * WHOLE_ROW_BYTES):
            return self._cut_again(command, chunk, work, names)

    def _cut_again(self, command: StageResend, chunk: Chunk, work: TableWork, names: StagedNames) -> Resend:
        parts = self._parts(chunk, links=command.links)
        staged = pl.concat([read_part(self._world.storage, part) for part in parts])
        key = work.key_field.name
        answers = merge_answers(self.answers(chunk, links=command.links))
        # Inserting a row again whose record may be its own would only be refused as a duplicate: it stays unknown.
        include_unknown = command.include_unknown and (command.links or work.spec.operation == "upsert")
        keys = open_keys(staged.select(pl.col(key).alias("key")).collect(), answers, include_unknown=include_unknown)
        transient = int(keys["transient"].sum())
        result = Resend(drafts=(), open=keys.height - transient, transient=transient)
        if command.attempt is None or keys.height == 0:
            return result
        attempt = command.attempt
        with PartWriter(
            self._world.storage,
            lambda number: names.resend_part(attempt, number, links=command.links),
            null_text=work.null_text,
            rows_max=resend_rows_max(attempt, keys.height),
        ) as writer:
            wanted = keys.select(pl.col("key").alias(key))
            writer.write(staged.join(wanted.lazy(), on=key, how="semi", maintain_order="left").collect())
            sealed = writer.finish()
        again = JobKind.RETRY if work.spec.kind is JobKind.RETRY else JobKind.RESEND
        kind = JobKind.LINK if command.links else again
        drafts = tuple(
            work.spec.draft(audit_id=chunk.audit_id, kind=kind, part=part, attempt=attempt) for part in sealed
        )
        return replace(result, drafts=drafts)

    def load_chunk(self, command: LoadChunk) -> int:
        """The ledger of a chunk whose links are still to come, so that others can find their parents in it."""
        chunk, _, _ = self._world.chunk(command.audit_id)
        found, sealed = self._settle(chunk, links=False, settled=False)
        if sealed is None:
            self._fail_unknown(chunk, found.outcomes.unknown)
            return found.outcomes.unknown
        self._world.audit.load_chunk(chunk.audit_id, sealed.name, sealed.sha256)
        return 0

    def settle(self, command: SettleChunk) -> ChunkSettled:
        world = self._world
        chunk, work, names = self._world.chunk(command.audit_id)
        assert chunk.staged is not None
        if world.batch.mode == "dry_run":
            return self._settle_dry(chunk, chunk.staged)
        found, sealed = self._settle(chunk, links=bool(chunk.staged.links_file), settled=True)
        outcomes = found.outcomes
        settled = ChunkSettled(
            status=outcomes.status,
            **{
                name: outcomes.count(name)
                for name in ("created", "updated", "failed", "rejected", "duplicate", "unknown")
            },
        )
        if sealed is None:
            self._fail_unknown(chunk, outcomes.unknown)
            return settled
        world.audit.settle_chunk(
            chunk.audit_id,
            status=outcomes.status,
            counts=outcomes.counts(chunk.staged),
            ledger_file=sealed.name,
            ledger_sha256=sealed.sha256,
            failed=self.failed_records(chunk, work, found.refused_lines),
            outcomes=outcomes.outcomes,
            source_checksum=str(found.accepted),
        )
        if world.read_back is not None:
            world.read_back(chunk, work, found.records, accepted=outcomes.count(*ACCEPTED))
        if not world.keep_staged:
            remove_staged(world.audit, world.storage, chunk.batch_id, names.folder)
        return settled

    def settle_as_it_stands(self, audit_id: int) -> int:
        """End a chunk that is to be rolled back and not finished: rows that were never sent are told as refused.

        Every job of it has answered. Returns the rows whose fate is not known: then nothing was written.
        """
        world = self._world
        chunk, work, _ = world.chunk(audit_id)
        assert chunk.staged is not None
        # Links are not looked at: a record is the chunk's by its load, and what a link changed goes with it.
        found, sealed = self._settle(chunk, links=False, unsent=True, settled=True)
        if sealed is None:
            return found.outcomes.unknown
        world.audit.settle_chunk(
            chunk.audit_id,
            status=found.outcomes.status,
            counts=found.outcomes.counts(chunk.staged),
            ledger_file=sealed.name,
            ledger_sha256=sealed.sha256,
            failed=self.failed_records(chunk, work, found.refused_lines),
            outcomes=found.outcomes.outcomes,
            source_checksum=str(found.accepted),
            error_message="settled as it stood, to be rolled back",
        )
        return 0

    def _settle_dry(self, chunk: Chunk, staged: StagedChunk) -> ChunkSettled:
        rows = pl.read_parquet(self._world.storage.path(staged.rows_file), glob=False)
        rejected = rows.filter(pl.col("outcome") == "rejected")
        status = ChunkStatus.PARTIAL if staged.rejected else ChunkStatus.SUCCESS
        self._world.audit.settle_chunk(
            chunk.audit_id,
            status=status,
            counts=ChunkCounts(
                source=staged.source_count,
                extracted=staged.extracted,
                transformed=staged.transformed,
                skipped=staged.rejected + staged.duplicate,
                loaded=None,
                success=None,
                failed=None,
            ),
            ledger_file=None,
            ledger_sha256=None,
            failed=self._refused_records(staged, rejected.rename({"details": "message"})),
            error_message="dry run: nothing was sent",
        )
        return ChunkSettled(
            status=status,
            created=0,
            updated=0,
            failed=0,
            rejected=staged.rejected,
            duplicate=staged.duplicate,
            unknown=0,
        )

    def _fail_unknown(self, chunk: Chunk, rows: int) -> None:
        """A chunk with such rows must not look settled; its files stay, so that a resume can send them again."""
        self._world.audit.fail_chunk(
            chunk.audit_id, f"{rows:,} rows were sent and their answers are gone; a resume sends them again"
        )

    def fail(self, command: FailChunk) -> None:
        if command.is_left and self._world.own_fence is not None:
            return  # another runner takes it over as it stands, or the last to leave writes why nobody did
        self._world.audit.fail_chunk(command.audit_id, command.message)

    def skip(self, command: SkipChunks) -> int:
        return self._world.audit.skip_chunks(self._world.batch.batch_id, command.reason)

    def check_table(self, command: CheckTable) -> tuple[str, ...] | None:
        world = self._world
        if world.own_fence is None:
            return self._doubled_ids(command)
        claimed = world.audit.claim_work(world.batch.batch_id, "check", command.table)
        if claimed.state is WorkState.ELSEWHERE:
            return None
        if claimed.state is WorkState.DONE:
            return tuple(claimed.result["ids"])
        doubled = self._doubled_ids(command)
        world.audit.work_done(world.batch.batch_id, "check", command.table, {"ids": list(doubled)})
        return doubled

    def _doubled_ids(self, command: CheckTable) -> tuple[str, ...]:
        chunks = self._world.audit.chunks(self._world.batch.batch_id, command.table)
        files = [chunk.ledger_file for chunk in chunks if chunk.ledger_file is not None]
        with self._world.shares.room.of(self._world.ledger.memory_mb << 20):
            doubled = tuple(self._world.ledger.duplicate_ids(files)["id"].to_list())
        if doubled:
            self._world.audit.journal(
                "records_written_twice",
                {"table": command.table, "ids": list(doubled[:100]), "count": len(doubled)},
                batch_id=self._world.batch.batch_id,
            )
        return doubled

    def _parts(self, chunk: Chunk, *, links: bool) -> tuple[Part, ...]:
        assert chunk.staged is not None
        return chunk.link_parts if links else chunk.staged.parts

    def _answered(self, chunk: Chunk, *, links: bool) -> list[Job]:
        """The jobs of one pass whose answers are sealed, oldest first."""
        return [
            job
            for job in sorted(self._world.jobs(chunk), key=lambda job: job.job_no)
            if (job.kind is JobKind.LINK) == links and job.results_file is not None
        ]

    def answers(self, chunk: Chunk, *, links: bool) -> Iterator[pl.DataFrame]:
        """The sealed answers of one pass, oldest job first."""
        for job in self._answered(chunk, links=links):
            assert job.results_file is not None
            yield pl.read_parquet(self._world.storage.path(job.results_file), glob=False)

    def absent(self, chunk: Chunk, answers: pl.DataFrame) -> pl.Series | None:
        """Keys with a lost answer that stood for no record before the chunk's first job; None without such proof."""
        lost = answers.filter(pl.col("was_lost")).get_column("key")
        image = self._world.image(chunk) if lost.len() else None
        if image is None or image.file is None or image.sha256 is None:
            return None
        self._world.storage.verify(image.file, image.sha256)
        held = pl.scan_parquet(self._world.storage.path(image.file), glob=False).select("norm").unique()
        field = self._world.works[chunk.table_name].key_field
        keys = pl.LazyFrame({"key": lost, "norm": normalised_key(field, lost)})
        return keys.join(held, on="norm", how="anti").collect().get_column("key")

    def _settle(
        self, chunk: Chunk, *, links: bool, unsent: bool = False, settled: bool
    ) -> tuple[SettledChunk, Sealed | None]:
        """Settle a chunk into its ledger file, which is not kept (None) where what became of a row is not known.

        Args:
            links: Whether the link pass belongs to it.
            unsent: Whether rows that were never sent are told as refused.
            settled: Whether this is the chunk's last word.
        """
        assert chunk.staged is not None
        answered = self._answered(chunk, links=False)
        if not links and not unsent and tuple(job.part for job in answered) == chunk.staged.parts:
            path = self._world.storage.path
            files = [path(job.results_file) for job in answered if job.results_file is not None]
            with suppress(OutOfOrder):
                return self._write(chunk, slices_in_order(path(chunk.staged.rows_file), files), settled=settled)
        with self._world.shares.room.of(chunk.staged.extracted * WHOLE_ROW_BYTES):
            return self._write(chunk, iter([self._settle_whole(chunk, links=links, unsent=unsent)]), settled=settled)

    def _write(
        self, chunk: Chunk, settlements: Iterator[Settlement], *, settled: bool
    ) -> tuple[SettledChunk, Sealed | None]:
        # Two files for each generation of a chunk: what is loaded, and what is settled. A marked one is never changed.
        generation = 2 * chunk.generation + int(settled)
        found = SettledChunk()
        standing, work = self._standing(chunk), self._world.works[chunk.table_name]
        with self._world.ledger.writing(chunk.batch_id, chunk.table_name, chunk.chunk_no, generation) as file:
            while True:
                with self._world.shares.turn:
                    settlement = next(settlements, None)
                    if settlement is None:
                        break
                    if standing is not None:
                        settlement = with_standing(settlement, standing, work.key_field)
                    found.add(settlement)
                    file.write(settlement.ledger)
            return found, None if found.outcomes.unknown else file.seal()

    def _standing(self, chunk: Chunk) -> pl.DataFrame | None:
        """The ledger lines that rows keep which an earlier rollback left in the org; None if there are none."""
        assert chunk.staged is not None
        if not chunk.staged.standing:
            return None
        world = self._world
        return standing_rows(world.audit, world.ledger, world.storage, chunk.audit_id)

    def _settle_whole(self, chunk: Chunk, *, links: bool, unsent: bool) -> Settlement:
        assert chunk.staged is not None
        path = self._world.storage.path
        rows = pl.read_parquet(path(chunk.staged.rows_file), glob=False)
        answers = merge_answers(self.answers(chunk, links=False))
        if (absent := self.absent(chunk, answers)) is not None:
            answers = prove_created(answers, absent)
        if unsent:
            answers = refuse_unsent(answers, rows.filter(pl.col("outcome").is_null()).get_column("key"))
        if not links:
            return settle_rows(rows, answers)
        assert chunk.staged.link_rows_file is not None
        return settle_rows(
            rows,
            answers,
            link_rows=pl.read_parquet(path(chunk.staged.link_rows_file), glob=False),
            link_answers=merge_answers(self.answers(chunk, links=True)),
        )

    def failed_records(self, chunk: Chunk, work: TableWork, ledger: pl.DataFrame) -> pl.DataFrame:
        """The rows of MIGRATION_FAILED_RECORDS: rejected ones as they were read, refused ones as they were sent."""
        assert chunk.staged is not None
        rejected = self._refused_records(chunk.staged, ledger.filter(pl.col("outcome") == "rejected"))
        failed = ledger.filter(pl.col("outcome") == "failed")
        if failed.height == 0:
            return rejected
        staged = pl.concat([read_part(self._world.storage, part) for part in chunk.staged.parts])
        path = self._world.storage.path
        links = (
            pl.scan_parquet(path(chunk.staged.links_file), glob=False) if chunk.staged.links_file is not None else None
        )
        data = self._world.record_data(work, staged, failed["key"], links)
        refused = failed.select("row", "key", "code", "message", "fields").join(data, on="key", how="left")
        return pl.concat([rejected, refused.select(rejected.columns)]).sort("row")

    def _refused_records(self, staged: StagedChunk, rejected: pl.DataFrame) -> pl.DataFrame:
        records = rejected.select("row", "key", "code", "message", "fields")
        if staged.refused_file is None:
            return records.with_columns(data=pl.lit(None, dtype=pl.String))
        data = pl.read_parquet(self._world.storage.path(staged.refused_file), glob=False)
        return records.join(data.select("row", "data"), on="row", how="left")
