"""What a rollback of one batch works with: the org's tables, the files of its stages, and the engine that sends them.

Reads:   audit database, ledger, sealed files.
Writes:  jobs in the org, and whatever the engine's handlers write.
Re-run:  what the audit database knows of jobs is gone on with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from forcelift.account.recorded import owner
from forcelift.account.state import State
from forcelift.after.rollback.decide import UndoTable
from forcelift.after.rollback.look import LookWorld
from forcelift.after.rollback.put_back import earlier_rollbacks
from forcelift.after.rollback.scope import DELETE, RESTORE, Scope, rollback_folder
from forcelift.after.rollback.states import States
from forcelift.after.rollback.undo import Stage, UndoHandlers
from forcelift.audit import Lease
from forcelift.audit.records import Batch, Chunk, ChunkStatus, ChunkStep, Control, Job, JobStep
from forcelift.audit.undo_records import Rollback
from forcelift.during.extract.record_data import SentRowsJson
from forcelift.errors import StateConflict
from forcelift.jobs.board import EngineSettings
from forcelift.jobs.chunk_handlers import ChunkHandlers
from forcelift.jobs.coordinator import Coordinator
from forcelift.jobs.handlers import Handlers, job_handlers
from forcelift.jobs.tracks import TableSpec
from forcelift.jobs.world import JobWorld
from forcelift.migration.driving import drive, new_governor
from forcelift.opening.assembly import Compiled, refusal_reader
from forcelift.opening.bounds import engine_settings
from forcelift.plan import LoadedPlan
from forcelift.protocols.clock import Clock
from forcelift.protocols.org import Org


class RollbackWatcher(Struct, kw_only=True):
    """Told how a rollback goes: its words, and a function that asks it to stop."""

    on_step: Callable[[str], None] = field(default=lambda words: None)
    on_runner: Callable[[Callable[[Control], None]], None] = field(default=lambda stop: None)


class UndoEngine:
    """One rollback of one batch: its tables, and the ways to look, to send and to settle."""

    def __init__(
        self,
        *,
        loaded: LoadedPlan,
        state: State,
        batch: Batch,
        org: Org,
        compiled: Compiled,
        clock: Clock,
        watcher: RollbackWatcher,
        settings: EngineSettings | None,
    ) -> None:
        self.loaded, self.state, self.batch, self.org = loaded, state, batch, org
        self.compiled, self.clock, self.watcher = compiled, clock, watcher
        self.tables = {
            name: UndoTable(work=work, describe=org.describe(work.spec.object), parent_keys=compiled.parent_keys)
            for name, work in compiled.works.items()
        }
        settings = settings or engine_settings(loaded, mode=batch.mode)
        self.settings = replace(
            settings, is_shared=False, takes_images=False, extract_first=False, dry_run=False, hours=None
        )
        self._asked = Control()

    def look_world(self, scope: Scope, number: int | None) -> LookWorld:
        return LookWorld(
            batch_id=self.batch.batch_id,
            org=self.org,
            audit=self.state.audit,
            storage=self.state.storage,
            ledger=self.state.ledger,
            tables=self.tables,
            scope=scope,
            folder=rollback_folder(self.batch.batch_id, number),
            scratch=self.state.storage.root,
            earlier=earlier_rollbacks(self.state.audit, self.state.storage),
        )

    def states(self, chunks: Sequence[Chunk]) -> States:
        """The records of these chunks, with what a restore writes."""
        mine = {name: [chunk for chunk in chunks if chunk.table_name == name] for name in self.tables}
        return States(
            org=self.org,
            storage=self.state.storage,
            ledger=self.state.ledger,
            scratch=self.state.storage.root,
            chunks=mine,
            columns={name: tuple(dict.fromkeys(("Id", *table.restored))) for name, table in self.tables.items()},
            objects={name: table.work.spec.object for name, table in self.tables.items()},
        )

    def stages(self, rollback: Rollback, scope: Scope) -> tuple[Stage, Stage]:
        """Restores and deletes, with the files that are sealed by now."""
        sealed = {one.audit_id: one for one in self.state.audit.rollback_chunks(rollback.rollback_no)}
        restores = Stage(
            action=RESTORE,
            batch_id=self.batch.batch_id,
            rollback_no=rollback.rollback_no,
            scope=scope,
            tables=self.tables,
            sealed=sealed,
        )
        return restores, replace(restores, action=DELETE)

    def job_world(self, lease: Lease, works: Mapping[str, Any]) -> JobWorld:
        return JobWorld(
            batch=self.batch,
            org=self.org,
            audit=self.state.audit,
            lease=lease,
            storage=self.state.storage,
            ledger=self.state.ledger,
            clock=self.clock,
            refusals=refusal_reader(),
            record_data=SentRowsJson(self.loaded.plan.retention.record_data),
            rows_per_day=self.loaded.plan.limits.rows_per_day,
            keep_staged=True,
            works=works,
            one_call=not self.state.audit.can_share,
        )

    def send(self, stage: Stage, lease: Lease) -> None:
        audit, batch_id = self.state.audit, self.batch.batch_id
        chunks = stage.chunks(audit.chunks(batch_id))
        if not chunks:
            return
        handlers = UndoHandlers(self.job_world(lease, stage.works()), stage).handlers()
        coordinator = self._drive(stage.specs(), chunks, stage.jobs(audit.jobs(batch_id)), handlers, lease)
        if coordinator.errors:
            raise coordinator.errors[0]
        if not coordinator.is_complete:
            raise StateConflict(
                "the rollback was stopped before it was through",
                state="what is at work in the org goes on; everything that was begun is written down",
                hint=f"go on with it by `forcelift rollback {batch_id} --execute`",
            )

    def settle_open(self, lease: Lease) -> int:
        """Fetch the answers of jobs that a run left open, and settle what stands half-way; how many chunks."""
        audit, batch_id = self.state.audit, self.batch.batch_id
        sent = {job.audit_id for job in audit.jobs(batch_id) if job.step is not JobStep.ABANDONED}
        open_ids = {
            chunk.audit_id
            for chunk in audit.chunks(batch_id)
            if chunk.audit_id in sent and chunk.step is not ChunkStep.SETTLED
        }
        if not open_ids:
            return 0
        for chunk in audit.chunks(batch_id):
            if chunk.audit_id in open_ids and chunk.status is ChunkStatus.FAILED:
                audit.start_chunk(chunk.audit_id)
        world = self.job_world(lease, self.compiled.works)
        chunks = [chunk for chunk in audit.chunks(batch_id) if chunk.audit_id in open_ids]
        self._asked = Control(stop=True, by=owner(), reason="the batch is rolled back")
        try:
            self._drive(self.compiled.specs, chunks, audit.jobs(batch_id), job_handlers(world), lease)
        finally:
            self._asked = Control()
        handlers = ChunkHandlers(world)
        for chunk in audit.chunks(batch_id):
            jobs = audit.jobs(batch_id, chunk.audit_id)
            is_answered = all(job.step in (JobStep.COLLECTED, JobStep.ABANDONED) for job in jobs)
            was_sent = any(job.step is JobStep.COLLECTED for job in jobs)
            if chunk.audit_id in open_ids and chunk.step is not ChunkStep.SETTLED and is_answered and was_sent:
                if chunk.status is ChunkStatus.FAILED:
                    audit.start_chunk(chunk.audit_id)
                if handlers.settle_as_it_stands(chunk.audit_id):
                    audit.fail_chunk(chunk.audit_id, "not settled: the answers of rows that were sent are gone")
        return len(open_ids)

    def _drive(
        self,
        specs: Sequence[TableSpec],
        chunks: Sequence[Chunk],
        jobs: Sequence[Job],
        handlers: Handlers,
        lease: Lease,
    ) -> Coordinator:
        """Let the engine work on these chunks until it is finished, or stopped."""
        coordinator = Coordinator(specs, settings=self.settings, governor=new_governor(self.loaded))
        coordinator.restore([spec.name for spec in specs], chunks, jobs)
        drive(
            coordinator,
            handlers,
            loaded=self.loaded,
            audit=self.state.audit,
            batch_id=self.batch.batch_id,
            org=self.org,
            lease=lease,
            clock=self.clock,
            asked=self._asked,
            on_runner=self.watcher.on_runner,
        )
        return coordinator
