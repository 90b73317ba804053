"""Take back what a batch did: look, show, and on `--execute` the checklist's nine steps, each written down.

Reads:   audit database, ledger, before-images; the org; of the source only what its columns are.
Writes:  sealed files of what will be done, jobs in the org, the ledger's next generation, audit rows, journal.
Re-run:  a rollback that was interrupted is gone on with from the step it had reached; what was begun stays decided.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from forcelift.account.consents import need_consent
from forcelift.account.recorded import owner
from forcelift.account.state import State, open_state
from forcelift.after.rollback.hold import hold_what_is_hung_on
from forcelift.after.rollback.later import Later
from forcelift.after.rollback.look import Looked, LookWorld, look
from forcelift.after.rollback.origins import Origins
from forcelift.after.rollback.report import RollbackReport, preview_report, result_report
from forcelift.after.rollback.scope import Scope, UndoNames, rollback_folder
from forcelift.after.rollback.seal import seal_chunks, tally
from forcelift.after.rollback.settle import Settling, count_outcomes_of, verify_chunk
from forcelift.audit import Lease
from forcelift.audit.records import Batch, BatchState, Chunk, ChunkStatus
from forcelift.audit.undo_records import Rollback
from forcelift.errors import UsageError
from forcelift.jobs.board import EngineSettings
from forcelift.jobs.late_strays import abort_late_strays
from forcelift.opening.assembly import compile_plan, open_org, open_setup, open_source
from forcelift.plan import load_plan, with_tables
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.undoing.checks import (
    check_continues,
    check_same,
    need_batch,
    refuse_at_work,
    refuse_retrying,
    refuse_unfinished_reload,
    refuse_unsettled,
    refuse_without_images,
)
from forcelift.undoing.engine import RollbackWatcher, UndoEngine


class RollbackOptions(Struct, frozen=True, kw_only=True):
    """What is to be undone.

    Attributes:
        batch_id: The batch.
        scope: All of it, or tables, chunks, records since a date.
        execute: Do it; otherwise only show what would be done.
        reason: Why, for the journal; needed with `execute` unless a rollback is gone on with.
        hard: Go on with an interrupted rollback by deleting for good, or not; as it was begun if None.
        without_images: Leave records as they are that the batch changed without before-images, in a production org too.
    """

    batch_id: str
    scope: Scope = field(default_factory=Scope)
    execute: bool = False
    reason: str | None = None
    hard: bool | None = None
    without_images: bool = False


def roll_back(
    plan_file: str | Path,
    options: RollbackOptions,
    *,
    watcher: RollbackWatcher | None = None,
    clock: Clock | None = None,
    engine: EngineSettings | None = None,
    consented: bool = False,
    as_begun: bool = False,
    later: Later | None = None,
) -> RollbackReport:
    """Undo a batch, or show what that would do.

    Records that others changed since, or have hung records on, are kept and told with the reason.

    Args:
        plan_file: The plan that the batch was begun with.
        options: What to undo, and whether to do it.
        watcher: Told how it goes.
        engine: Bounds of the engine; by default from the plan's limits and the machine.
        as_begun: Take the tables as they were in the plan that the batch was begun with; the plan may have changed.
        consented: A second person, where the plan wants one, has consented to what this call is a part of.
        later: Of a preview, what rollbacks of later batches would do before. This one's is added; its files stay.
    Raises:
        StateConflict: A process works on the batch, it is no batch of this plan or org, or the plan has changed.
        UsageError: `execute` without a reason, or in a production org without before-images and without saying so.
    """
    watcher, clock = watcher or RollbackWatcher(), clock or SystemClock()
    loaded = load_plan(plan_file)
    with open_state(loaded, clock=clock, create=False) as state:
        batch = need_batch(loaded, state, options.batch_id)
        refuse_at_work(state, batch)
        refuse_retrying(state, batch.batch_id)
        if as_begun and batch.plan_sha256 != loaded.sha256:
            loaded = with_tables(loaded, state.audit.plan_document(batch.batch_id))
        open_one = state.audit.open_rollback(batch.batch_id)
        if options.execute and open_one is None and not (options.reason or "").strip():
            raise UsageError(
                "a rollback needs its reason",
                state="nothing was changed",
                hint='give it by `--reason "..."`; it goes into the journal',
            )
        options.scope.check_known(batch.batch_id, state.audit.chunks(batch.batch_id))
        with open_source(loaded) as source, open_org(loaded, clock=clock) as org:
            check_same(loaded, state, batch, org)
            document = state.audit.plan_document(batch.batch_id)
            compiled = compile_plan(loaded, source=source, org=org, only=document.get("chosen_tables") or None)
            undoing = _Undoing(
                UndoEngine(
                    loaded=loaded,
                    state=state,
                    batch=batch,
                    org=org,
                    compiled=compiled,
                    clock=clock,
                    watcher=watcher,
                    settings=engine,
                )
            )
            if not options.execute:
                return undoing.preview(options.scope, later)
            if open_one is None and not options.without_images and open_setup(org, clock=clock).facts().is_production:
                refuse_without_images(state, batch.batch_id, options.scope, compiled.works)
            with state.audit.lease(batch.batch_id, owner()) as lease:
                # Last of all, since it is used up: whatever refuses has refused by now.
                if open_one is None and not consented:
                    need_consent(
                        loaded,
                        state.audit,
                        step="rollback",
                        subject=f"batch `{batch.batch_id}`",
                        details=consent_details(state, batch, options.scope, without_images=options.without_images),
                        batch_id=batch.batch_id,
                    )
                return undoing.execute(options, lease)


def consent_details(state: State, batch: Batch, scope: Scope, *, without_images: bool) -> dict[str, Any]:
    """What a second person consents to: this scope of a batch whose data are as they are now."""
    return {
        "batch": batch.batch_id,
        "scope": scope.document(),
        "without_before_images": without_images,
        "data": {name: one["sha256"] for name, one in state.audit.data_state(batch.batch_id).items()},
    }


class _Undoing:
    """One rollback of one batch."""

    def __init__(self, engine: UndoEngine) -> None:
        self.engine, self.state, self.watcher = engine, engine.state, engine.watcher
        self.tables, self.org, self.loaded = engine.tables, engine.org, engine.loaded

    @property
    def batch(self) -> Batch:
        return self.engine.batch

    def preview(self, scope: Scope, later: Later | None = None) -> RollbackReport:
        """Look, count, and remove what was written for it, unless previews of earlier batches will need it."""
        # Two may look at once; what one that was killed has left goes with the next execution.
        folder = f"{rollback_folder(self.batch.batch_id, None)}/{secrets.token_hex(4)}"
        world = replace(self.engine.look_world(scope, None), folder=folder, later=later)
        if later is not None:
            later.folders.append(folder)
        try:
            return self._report(world, look(world), scope)
        finally:
            if later is None:
                self.state.storage.delete_tree(folder)

    def execute(self, options: RollbackOptions, lease: Lease) -> RollbackReport:
        """The nine steps, or those that an interrupted rollback has not come to."""
        audit, batch_id = self.state.audit, self.batch.batch_id
        audit.clear_control(batch_id, owner())
        self.state.storage.delete_tree(rollback_folder(batch_id, None))
        self.engine.batch = audit.reopen_batch(batch_id)
        world = self.engine.job_world(lease, self.engine.compiled.works)
        try:
            abort_late_strays(world)
            rollback = self._begin(options, lease)
            scope = Scope.of(rollback.scope)
            self._carry_out(rollback, scope, lease)
            abort_late_strays(world)
            return self._finish(rollback, scope, lease)
        finally:
            # Whatever came of it: nobody works on the batch any more, and a resume or another try may.
            audit.set_batch_state(batch_id, BatchState.STOPPED)

    def _begin(self, options: RollbackOptions, lease: Lease) -> Rollback:
        """The rollback that is not through, or a new one once every row that was sent has a fate that is known."""
        audit, batch_id, scope = self.state.audit, self.batch.batch_id, options.scope
        rollback = audit.open_rollback(batch_id)
        if rollback is not None:
            check_continues(rollback, scope)
            return rollback if options.hard is None else audit.change_operation(rollback.rollback_no, hard=options.hard)
        self.watcher.on_step("settling what is still open")
        settled = self.engine.settle_open(lease)
        refuse_unsettled(self.state, batch_id, scope)
        refuse_unfinished_reload(self.state, batch_id, scope)
        rollback = audit.begin_rollback(
            batch_id, scope=scope.document(), reason=(options.reason or "").strip(), by=owner()
        )
        audit.rollback_step(rollback.rollback_no, 1, {"open_chunks_settled": settled})
        return audit.rollback_step(rollback.rollback_no, 2, {"reason": rollback.reason, "by": rollback.asked_by})

    def _carry_out(self, rollback: Rollback, scope: Scope, lease: Lease) -> None:
        audit, number = self.state.audit, rollback.rollback_no
        # Killed between these two rows and their transaction, they are written now.
        audit.rollback_step(number, 1, {"open_chunks_settled": 0})
        audit.rollback_step(number, 2, {"reason": rollback.reason, "by": rollback.asked_by})
        if rollback.step < 4:
            self.watcher.on_step("looking at the records in the org")
            world = self.engine.look_world(scope, number)
            self.state.storage.delete_tree(rollback_folder(self.batch.batch_id, number))
            found = look(world)
            counts = tally(world, found)
            self.watcher.on_step("sealing what will be done")
            audit.seal_rollback(
                number,
                seal_chunks(world, found, number),
                {
                    "scope": scope.document(),
                    "records": {name: dict(count) for name, count in counts.items()},
                    "not_examined": found.not_examined,
                },
            )
        elif rollback.step < 5:
            self._look_again(rollback, scope, lease)
        if rollback.step < 5:
            self.watcher.on_step("putting earlier values back")
            self.engine.send(self.engine.stages(rollback, scope)[0], lease)
            self.watcher.on_step("deleting")
            self._delete(rollback, scope, lease)
            audit.rollback_step(number, 5, {"operation": scope.operation})

    def _delete(self, rollback: Rollback, scope: Scope, lease: Lease) -> None:
        """Children before parents, wave by wave; what a refused record hangs on stays."""
        jobs = self.engine.job_world(lease, self.engine.compiled.works)
        refused = 0
        for wave in self.engine.stages(rollback, scope)[1].waves:
            restores, deletes = self.engine.stages(rollback, scope)
            world = self.engine.look_world(scope, rollback.rollback_no)
            refused = hold_what_is_hung_on(
                jobs, world, restores, replace(deletes, wave=wave), fence=lease.fence, known=refused
            )
            self.engine.send(replace(self.engine.stages(rollback, scope)[1], wave=wave), lease)

    def _look_again(self, rollback: Rollback, scope: Scope, lease: Lease) -> None:
        """A rollback is gone on with, perhaps days later: what was not begun yet is decided by how it stands now."""
        audit, number = self.state.audit, rollback.rollback_no
        begun = {
            job.audit_id
            for stage in self.engine.stages(rollback, scope)
            for job in stage.jobs(audit.jobs(self.batch.batch_id))
        }
        sealed = {one.audit_id for one in audit.rollback_chunks(number)}
        if sealed <= begun:
            return
        self.watcher.on_step("looking again at what was not begun")
        folder = f"{rollback_folder(self.batch.batch_id, number)}/again{lease.fence:04d}"
        world = replace(self.engine.look_world(scope, number), folder=folder)
        found = look(world)
        for chunk in found.chunks:
            if chunk.audit_id in begun:
                self.state.storage.delete(world.names(chunk).looked)
        found.chunks = [chunk for chunk in found.chunks if chunk.audit_id in sealed - begun]
        audit.reseal_rollback(number, seal_chunks(world, found, number))

    def _finish(self, rollback: Rollback, scope: Scope, lease: Lease) -> RollbackReport:
        """Steps 6 to 9: ask the org, write down, hand over."""
        audit, number = self.state.audit, rollback.rollback_no
        stages = self.engine.stages(rollback, scope)
        world = self.engine.job_world(lease, self.engine.compiled.works)
        self.watcher.on_step("asking the org what is left")
        sealed = {one.audit_id: one for one in audit.rollback_chunks(number)}
        left = [chunk for chunk in self._scoped(sealed) if sealed[chunk.audit_id].step != "settled"]
        with self.engine.states(left) as states:
            settling = Settling(
                world=world,
                tables=self.tables,
                stages=stages,
                rollback_no=number,
                origins=Origins.of(audit, world.ledger, world.storage, self.batch.batch_id),
                states=states,
            )
            for chunk in left:
                lease.beat()
                verify_chunk(settling, chunk, sealed[chunk.audit_id])
        counts = self._settled_counts(sealed, number)
        audit.rollback_step(number, 6, {"records": {name: dict(count) for name, count in counts.items()}})
        undone = [chunk.audit_id for chunk in self._scoped(sealed) if chunk.status is ChunkStatus.ROLLED_BACK]
        told = {"chunks_rolled_back": len(undone), "chunks_with_kept": len(sealed) - len(undone)}
        audit.rollback_step(number, 7, told)
        audit.rollback_step(number, 8, {"for": "a person", "reason_given": True})
        audit.rollback_step(number, 9, {"command": f"forcelift run --resume {self.batch.batch_id}"})
        ended = audit.end_rollback(
            number,
            {
                "chunks_rolled_back": len(undone),
                "chunks": len(sealed),
                "records": {name: dict(count) for name, count in counts.items()},
            },
        )
        return result_report(self.batch, ended, scope, counts, api_calls=self.org.api_calls)

    def _scoped(self, sealed: Mapping[int, Any]) -> list[Chunk]:
        return [chunk for chunk in self.state.audit.chunks(self.batch.batch_id) if chunk.audit_id in sealed]

    def _settled_counts(self, sealed: Mapping[int, Any], number: int) -> dict[str, Counter[str]]:
        """What became of the records, from the files just written: an interrupted rollback counts the same."""
        counts: dict[str, Counter[str]] = {name: Counter() for name in self.tables}
        folder = rollback_folder(self.batch.batch_id, number)
        for chunk in self._scoped(sealed):
            names = UndoNames(folder=folder, table=chunk.table_name, chunk_no=chunk.chunk_no)
            counts[chunk.table_name] += count_outcomes_of(self.state.storage, names)
        return counts

    def _report(self, world: LookWorld, found: Looked, scope: Scope) -> RollbackReport:
        used_rows, used_batches = self.state.audit.reserved(self.org.org_id)
        seconds = [chunk.duration_seconds or 0.0 for chunk in found.chunks]
        rows = sum(chunk.loaded_count or 0 for chunk in found.chunks)
        return preview_report(
            self.batch,
            scope,
            found,
            tally(world, found),
            tables=self.tables,
            rows_per_second=rows / sum(seconds) if sum(seconds) else None,
            rows_per_day=self.loaded.plan.limits.rows_per_day,
            used=(used_rows, used_batches),
            parallel_jobs=self.loaded.plan.limits.parallel_jobs,
            interrupted=self.state.audit.open_rollback(self.batch.batch_id),
        )


__all__: Sequence[str] = (
    "RollbackOptions",
    "RollbackReport",
    "RollbackWatcher",
    "Scope",
    "roll_back",
)
