"""Send a sealed rollback through the same engine as a load: intents, lost replies, re-sends, governor, allowance.

Reads:   sealed files of restores and deletes; the org's jobs and result files.
Writes:  jobs of the kind `undo`, their sealed answers, files of re-sends.
Re-run:  what the audit database knows of the jobs is gone on with, as a resumed load does.

Restores come first, so that no record that stays points at one that goes; then deletes in waves, children before
parents: a wave is through before the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl
from msgspec import Struct
from msgspec.structs import replace

from forcelift.after.rollback.decide import UndoTable
from forcelift.after.rollback.scope import DELETE, RESTORE, Scope, UndoNames, rollback_folder, wave_of_file
from forcelift.after.rollback.seal import NULL_TEXT
from forcelift.audit.records import Chunk, ChunkStatus, ChunkStep, Job, JobKind, Part, StagedChunk
from forcelift.audit.undo_records import RollbackChunk
from forcelift.jobs.answers import merge_answers
from forcelift.jobs.job_handlers import JobHandlers
from forcelift.jobs.messages import (
    AbandonJob,
    AbortJob,
    AskJob,
    CheckTable,
    ChunkSettled,
    CloseJob,
    CollectJob,
    CreateJob,
    FailChunk,
    FindStray,
    IntendJob,
    PollJobs,
    Resend,
    SettleChunk,
    SkipChunks,
    StageResend,
    UploadJob,
)
from forcelift.jobs.parts import PartWriter, read_part
from forcelift.jobs.resend import resend_rows_max
from forcelift.jobs.settlement import open_keys
from forcelift.jobs.tracks import TableSpec
from forcelift.jobs.work import TableWork
from forcelift.jobs.world import JobWorld
from forcelift.protocols.org import FieldDescribe

ID = FieldDescribe(name="Id", label="Id", type="id", length=18, case_sensitive=True)


class Stage(Struct, frozen=True, kw_only=True):
    """One half of a rollback, `restore` or `delete`, or one wave of the latter. `tables` are in load order."""

    action: str
    batch_id: str
    rollback_no: int
    scope: Scope
    tables: Mapping[str, UndoTable]
    sealed: Mapping[int, RollbackChunk]
    wave: int | None = None

    @property
    def waves(self) -> list[int]:
        """The waves in which its files are sent, in order; empty for restores."""
        found = {wave_of_file(part.file) for one in self.sealed.values() for part in one.deletes}
        return sorted(wave for wave in found if wave is not None) if self.action == DELETE else []

    @property
    def operation(self) -> str:
        return "update" if self.action == RESTORE else self.scope.operation

    def parts(self, audit_id: int) -> tuple[Part, ...]:
        one = self.sealed[audit_id]
        parts = one.restores if self.action == RESTORE else one.deletes
        return parts if self.wave is None else tuple(part for part in parts if wave_of_file(part.file) == self.wave)

    def specs(self) -> list[TableSpec]:
        """Tables as the engine takes them: deletes wait for all whose lookups point at the table's own."""
        names = list(self.tables)
        waits: dict[str, set[str]] = {name: set() for name in names}
        if self.action == DELETE:
            for name, table in self.tables.items():
                for parent in table.work.spec.waits_for & set(names):
                    waits[parent].add(name)
        return [
            TableSpec(
                name=name,
                object=self.tables[name].work.spec.object,
                operation=self.operation,
                external_id_field=ID.name,
                group=number,
                kind=JobKind.UNDO,
                waits_for=frozenset(waits[name]),
            )
            for number, name in enumerate(reversed(names))
        ]

    def works(self) -> dict[str, TableWork]:
        """The tables' works as the job handlers take them: rows are joined to answers by Id."""
        specs = {spec.name: spec for spec in self.specs()}
        return {name: replace(table.work, spec=specs[name], key_field=ID) for name, table in self.tables.items()}

    def chunks(self, chunks: Iterable[Chunk]) -> list[Chunk]:
        """The chunks with files of this stage, as the engine takes them: staged, with those files."""
        return [
            replace(
                chunk,
                status=ChunkStatus.RUNNING,
                step=ChunkStep.STAGED,
                staged=_as_staged(parts),
                link_parts=(),
                rows_estimate=sum(part.rows for part in parts),
                source_count=None,
            )
            for chunk in chunks
            if chunk.audit_id in self.sealed and (parts := self.parts(chunk.audit_id))
        ]

    def jobs(self, jobs: Iterable[Job]) -> list[Job]:
        """Those of the batch's jobs that belong to this stage of this rollback."""
        folder = f"{rollback_folder(self.batch_id, self.rollback_no)}/"
        return [
            job
            for job in jobs
            if job.kind is JobKind.UNDO
            and job.operation == self.operation
            and job.part.file.startswith(folder)
            and (self.wave is None or wave_of_file(job.part.file) == self.wave)
        ]


def _as_staged(parts: Sequence[Part]) -> StagedChunk:
    rows = sum(part.rows for part in parts)
    return StagedChunk(
        source_count=rows,
        extracted=rows,
        transformed=rows,
        rejected=0,
        duplicate=0,
        parts=tuple(parts),
        rows_file="",
        refused_file=None,
        links_file=None,
        source_checksum="",
    )


class UndoHandlers:
    """Handlers of all commands that the engine gives for one stage. `world.works` are those of the stage."""

    def __init__(self, world: JobWorld, stage: Stage) -> None:
        self._world, self._stage = world, stage

    def handlers(self) -> dict[type, Callable[[Any], Any]]:
        """Handler by command type; on single jobs those of a load."""
        jobs = JobHandlers(self._world)
        return {
            IntendJob: jobs.intend,
            CreateJob: jobs.create,
            FindStray: jobs.find_stray,
            UploadJob: jobs.upload,
            CloseJob: jobs.close,
            AskJob: jobs.ask,
            AbandonJob: jobs.abandon,
            AbortJob: jobs.abort,
            PollJobs: jobs.poll,
            CollectJob: jobs.collect,
            StageResend: self.stage_resend,
            SettleChunk: self.settle,
            FailChunk: self.fail,
            SkipChunks: lambda command: 0,
            CheckTable: lambda command: (),
        }

    def stage_resend(self, command: StageResend) -> Resend:
        """Files of the records whose restore or deletion has no final answer."""
        chunk = self._world.audit.chunk(command.audit_id)
        parts = self._stage.parts(command.audit_id)
        staged = pl.concat([read_part(self._world.storage, part) for part in parts])
        answers = merge_answers(self._answers(command.audit_id))
        # Both may be sent twice: the second time a restore changes nothing, and a deleted record is not found.
        keys = open_keys(staged.select(pl.col(ID.name).alias("key")).collect(), answers, include_unknown=True)
        transient = int(keys["transient"].sum())
        result = Resend(drafts=(), open=keys.height - transient, transient=transient)
        if command.attempt is None or keys.height == 0:
            return result
        attempt = command.attempt
        names = UndoNames(
            folder=rollback_folder(self._stage.batch_id, self._stage.rollback_no),
            table=chunk.table_name,
            chunk_no=chunk.chunk_no,
        )
        with PartWriter(
            self._world.storage,
            lambda number: names.part(self._stage.action, number, attempt, wave=self._stage.wave),
            null_text=NULL_TEXT,
            rows_max=resend_rows_max(attempt, keys.height),
        ) as writer:
            wanted = keys.select(pl.col("key").alias(ID.name))
            writer.write(staged.join(wanted.lazy(), on=ID.name, how="semi", maintain_order="left").collect())
            sealed = writer.finish()
        spec = self._world.works[chunk.table_name].spec
        drafts = tuple(
            spec.draft(audit_id=chunk.audit_id, kind=JobKind.UNDO, part=part, attempt=attempt) for part in sealed
        )
        return replace(result, drafts=drafts)

    def settle(self, command: SettleChunk) -> ChunkSettled:
        """All answers are sealed; what became of each record the org itself is asked when all tables are through."""
        kinds = merge_answers(self._answers(command.audit_id)).get_column("kind")
        failed = int((kinds == "failed").sum())
        return ChunkSettled(
            status=ChunkStatus.PARTIAL if failed else ChunkStatus.SUCCESS,
            created=0,
            updated=kinds.len() - failed,
            failed=failed,
            rejected=0,
            duplicate=0,
            unknown=0,
        )

    def fail(self, command: FailChunk) -> None:
        """The audit row stays as it was: nothing of the load is different because its rollback was interrupted."""
        payload = {"rollback": self._stage.rollback_no, "audit_id": command.audit_id, "message": command.message}
        self._world.audit.journal("rollback_held", payload, batch_id=self._stage.batch_id)

    def _answers(self, audit_id: int) -> Iterator[pl.DataFrame]:
        return stage_answers(self._world, self._stage, audit_id)


def stage_answers(world: JobWorld, stage: Stage, audit_id: int) -> Iterator[pl.DataFrame]:
    """The sealed answers of one chunk in one stage, oldest job first."""
    for job in stage.jobs(world.audit.jobs(stage.batch_id, audit_id)):
        if job.results_file is not None:
            yield pl.read_parquet(world.storage.path(job.results_file), glob=False)
