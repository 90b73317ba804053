"""The one module that knows the order of phases: begin or resume a batch, load it, say what became of it.

Reads:   the plan file, source and org.
Writes:  audit database, staging, ledger, org.
Re-run:  `resume` goes on with a batch from what is durable; a new run is a new batch.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from forcelift.account.recorded import (
    BatchStatus,
    batch_status,
    batch_summary,
    find_batch,
    locations,
    open_recorded,
    owner,
)
from forcelift.account.retention import end_batch, keeps_settled, remove_expired
from forcelift.account.state import State, open_state
from forcelift.account.summary import BatchSummary, summarise
from forcelift.account.waiting import CallJournal, WaitJournal
from forcelift.after.validate.read_back import ReadBack
from forcelift.allocators import share_arenas
from forcelift.audit import Lease, LeaseHolder, LeaseTimes
from forcelift.audit.batches import IMAGES_KEY, SAMPLE_KEY, takes_images
from forcelift.audit.records import Batch, BatchMode, BatchState, ChunkStatus, ChunkStep, Control
from forcelift.during.extract import ExtractHandlers, ExtractWorld
from forcelift.during.extract.pace import Pace
from forcelift.during.extract.record_data import SentRowsJson
from forcelift.errors import ExitCode, ForceliftError, LeaseLost, SourceError, StateConflict
from forcelift.jobs.board import EngineSettings
from forcelift.jobs.coordinator import Coordinator
from forcelift.jobs.governor import Governor
from forcelift.jobs.handlers import job_handlers
from forcelift.jobs.holds import DiskSeen
from forcelift.jobs.late_strays import abort_late_strays
from forcelift.jobs.runner import Runner
from forcelift.jobs.shares import Shares
from forcelift.jobs.world import JobWorld
from forcelift.migration.joining import Earlier, check_same, leave, look_back, sweep, write_marker
from forcelift.migration.reloading import begin_reload
from forcelift.opening.assembly import Compiled, compile_plan, open_org, open_setup, open_source, refusal_reader
from forcelift.opening.bounds import SENDERS_MORE, MemoryShares, check_room, engine_settings
from forcelift.plan import LoadedPlan, load_plan, masked_url, plan_document, unsupported
from forcelift.preflight.lasting import SnapshotForecast, forecast_snapshot
from forcelift.preflight.preparing import AutomationsOff
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.protocols.org import Org
from forcelift.protocols.source import ExportsSnapshot, Source
from forcelift.rules import SamplePercent

BEAT_PAUSE_S = 5.0


class RunOptions(Struct, frozen=True, kw_only=True):
    """What a run is asked for.

    Attributes:
        batch_id: Name of a new batch; made up if None.
        resume: Go on with a batch: its name, or an empty text for the newest unfinished one of the project.
        join: Help with a batch that another process works on; named as for `resume`.
        dry_run: Everything but the upload.
        extract_first: Stage everything before the first job; a resume keeps to it.
        tables: Only these tables of the plan.
        prepare: Switch the objects' automations off while the batch loads, and put them back whatever becomes of it;
            None does what the batch was begun with.
        sample_percent: Only so many percent of each table's keys, with all parents that they refer to; all if None.
            With `resume` it may be left out; what the batch was begun with counts, and must not differ.
        before_images: Keep the records that the batch may change as they were, so that a rollback can put them back.
            With `resume` what the batch was begun with counts.
        is_rehearsal: The target is a twin made for it, whatever kind of org it is a picture of.
    """

    batch_id: str | None = None
    resume: str | None = None
    join: str | None = None
    dry_run: bool = False
    extract_first: bool = False
    tables: tuple[str, ...] = ()
    prepare: bool | None = None
    sample_percent: Decimal | int | float | str | None = None
    before_images: bool = True
    is_rehearsal: bool = False

    @property
    def known(self) -> str | None:
        """The batch that was begun before, as it was named; None for a new one."""
        return self.resume if self.join is None else self.join


class Watcher(Struct, kw_only=True):
    """Whoever watches a run: told the batch id first, then the coordinator's state after each step.

    `on_runner` is handed a function that asks the run to stop, for signal handlers; `on_note` sentences for people.
    """

    on_batch: Callable[[Batch], None] = field(default=lambda batch: None)
    on_progress: Callable[[Coordinator, Org], None] = field(default=lambda coordinator, org: None)
    on_runner: Callable[[Callable[[Control], None]], None] = field(default=lambda stop: None)
    on_note: Callable[[str], None] = field(default=lambda sentence: None)


def run_migration(
    plan_file: str | Path | LoadedPlan,
    options: RunOptions,
    *,
    watcher: Watcher | None = None,
    clock: Clock | None = None,
    engine: EngineSettings | None = None,
    lease_times: LeaseTimes | None = None,
) -> BatchSummary:
    """Run a batch to its end, or as far as it gets.

    Args:
        plan_file: The plan, or one that was loaded before.
        options: New batch or resume, dry run, tables.
        watcher: Told how it goes.
        engine: Bounds of the engine; by default from the plan's limits and the machine.
        lease_times: How soon a silent process counts as dead where several may share a batch.
    Returns:
        What became of every table; `exit_code` says how the process should end.
    Raises:
        ForceliftError: The batch could not be begun. Faults on the way are in the summary instead.
    """
    watcher, clock = watcher or Watcher(), clock or SystemClock()
    sample = SamplePercent.of(options.sample_percent) if options.sample_percent is not None else None
    loaded = plan_file if isinstance(plan_file, LoadedPlan) else load_plan(plan_file)
    share_arenas()
    if later := unsupported(loaded.plan):
        raise loaded.error(later)
    earlier = _look_back(loaded, options, clock)
    shares = _shares(loaded)
    with (
        open_source(loaded, memory_mb=shares.source_mb, threads=1, offered=earlier.snapshots) as source,
        open_org(loaded, clock=clock) as org,
    ):
        compiled = compile_plan(loaded, source=source, org=org, only=earlier.tables or options.tables or None)
        with open_state(loaded, clock=clock, create=True, lease_times=lease_times) as state:
            batch_id = _batch_id(loaded, options, state, clock)
            exported = source.exported() if isinstance(source, ExportsSnapshot) else None
            is_joined = options.join is not None
            with state.audit.lease(
                batch_id, owner(), join=is_joined, reads=source.snapshot(), exports=exported
            ) as lease:
                remove_expired(state, loaded.plan.project, clock.now())
                if options.known is None and not options.dry_run and not options.is_rehearsal:
                    _refuse_unready(loaded, state, org, clock, prepares=bool(options.prepare))
                if options.extract_first and options.known is None:
                    check_room(loaded, state, source, compiled)
                forecast = _forecast(loaded, options, state, source, compiled, watcher, clock)
                batch = _begin(loaded, options, sample, batch_id, state, source=source, org=org, clock=clock)
                watcher.on_batch(batch)
                if forecast is not None:
                    state.audit.journal("snapshot_forecast", forecast.document(), batch_id=batch_id)
                    for sentence in forecast.sentences():
                        watcher.on_note(sentence)
                settings = engine or engine_settings(loaded, mode=batch.mode)
                # A batch that reads everything first is one process's: it alone knows when all is read.
                is_shared = state.audit.can_share and batch.mode is not BatchMode.EXTRACT_FIRST
                images = takes_images(state.audit.plan_document(batch.batch_id)) and not options.dry_run
                settings = replace(settings, is_shared=is_shared, takes_images=images)
                world = _World(loaded, batch, state, source, org, compiled, lease, clock, settings)
                automations = AutomationsOff(loaded, org, state.audit, batch_id, clock=clock, told=watcher.on_note)
                if batch.mode is not BatchMode.DRY_RUN and not is_joined:
                    automations.begin(is_wanted=options.prepare, tables=tuple(compiled.works))
                try:
                    coordinator = world.run(watcher, is_joined=is_joined)
                except BaseException:
                    for error in automations.end():
                        watcher.on_note(f"automations are still off: {error.message}")
                    raise
                return _end(world, coordinator, automations)


def _refuse_unready(loaded: LoadedPlan, state: State, org: Org, clock: Clock, *, prepares: bool) -> None:
    from forcelift.preflight.checklists import refuse_unready  # a resume does not wait for what only a check imports

    facts = open_setup(org, clock=clock).facts()
    refuse_unready(loaded, state, org_id=org.org_id, is_production=facts.is_production, prepares=prepares, clock=clock)


def _forecast(
    loaded: LoadedPlan,
    options: RunOptions,
    state: State,
    source: Source,
    compiled: Compiled,
    watcher: Watcher,
    clock: Clock,
) -> SnapshotForecast | None:
    """Whether a new batch's snapshot will last. An estimate that cannot be had ends no run, and is told."""
    if options.known is not None:
        return None
    try:
        return forecast_snapshot(
            loaded,
            source,
            compiled.works.values(),
            disk=state.storage.disk(),
            clock=clock,
            extract_first=options.extract_first,
        )
    except SourceError as error:
        watcher.on_note(f"how long the source's snapshot lasts could not be estimated: {error.message}")
        return None


def _shares(loaded: LoadedPlan) -> MemoryShares:
    limits = loaded.plan.limits
    return MemoryShares.of(limits.memory_mb, senders=limits.parallel_jobs + SENDERS_MORE)


def _look_back(loaded: LoadedPlan, options: RunOptions, clock: Clock) -> Earlier:
    """What a process that goes on with a batch has to know of it; nothing of a new one."""
    if options.known is None:
        return Earlier()
    with open_state(loaded, clock=clock, create=False) as state:
        batch_id = _batch_id(loaded, options, state, clock)
        return look_back(loaded, state, batch_id, join=options.join is not None)


def _batch_id(loaded: LoadedPlan, options: RunOptions, state: State, clock: Clock) -> str:
    if options.known is None:
        return options.batch_id or f"{clock.now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    if options.known:
        if state.audit.batch(options.known) is None:
            raise StateConflict(
                f"there is no batch `{options.known}` to go on with",
                state="nothing was read or written",
                hint="`forcelift status` lists the batches; `forcelift run` begins a new one",
            )
        return options.known
    newest = state.audit.newest_batch(loaded.plan.project, unfinished=True)
    if newest is None:
        raise StateConflict(
            "no batch of this plan is unfinished",
            state="nothing was read or written",
            hint="begin a new one with `forcelift run`",
        )
    return newest.batch_id


def _begin(
    loaded: LoadedPlan,
    options: RunOptions,
    sample: SamplePercent | None,
    batch_id: str,
    state: State,
    *,
    source: Source,
    org: Org,
    clock: Clock,
) -> Batch:
    known = state.audit.batch(batch_id)
    if options.known is not None and known is not None:
        is_joined = options.join is not None
        check_same(loaded, known, state, org_id=org.org_id, join=is_joined, by=owner())
        state.audit.check_sample(batch_id, str(sample) if sample is not None else None)
        if is_joined:
            return known
        state.audit.clear_control(batch_id, owner())
        batch = state.audit.reopen_batch(batch_id)
        begin_reload(state, batch_id, owner())
        return batch
    document = plan_document(loaded.plan) | {
        "chosen_tables": list(options.tables),
        SAMPLE_KEY: str(sample) if sample is not None else None,
        IMAGES_KEY: options.before_images,
    }
    batch = Batch(
        batch_id=batch_id,
        project=loaded.plan.project,
        mode=_mode(options),
        state=BatchState.RUNNING,
        org_id=org.org_id,
        org_url=loaded.plan.target.url,
        source_url=masked_url(loaded.plan.source.url.get_secret_value()),
        as_of=source.now(),
        snapshot=source.snapshot(),
        plan_sha256=loaded.sha256,
        plan_revision=1,
        created_by=owner(),
        started_at=clock.now(),
        marker=write_marker(state, batch_id),
    )
    return state.audit.begin_batch(batch, plan_document=document)


def _mode(options: RunOptions) -> BatchMode:
    if options.dry_run:
        return BatchMode.DRY_RUN
    return BatchMode.EXTRACT_FIRST if options.extract_first else BatchMode.RUN


class _World:
    """One run of one batch, from the first command to the last answer."""

    def __init__(
        self,
        loaded: LoadedPlan,
        batch: Batch,
        state: State,
        source: Source,
        org: Org,
        compiled: Compiled,
        lease: Lease,
        clock: Clock,
        settings: EngineSettings,
    ) -> None:
        self.loaded, self.batch, self.state, self.org = loaded, batch, state, org
        self.audit = state.audit.of_runner(lease) if settings.is_shared else state.audit
        own_fence = lease.fence if settings.is_shared else None
        self.compiled, self.lease, self.clock, self.settings = compiled, lease, clock, settings
        limits, retention = loaded.plan.limits, loaded.plan.retention
        chunk_rows = loaded.plan.chunks.rows
        percent = state.audit.sample_percent(batch.batch_id)
        self._next_beat = clock.monotonic()
        self._waits = WaitJournal(state.audit, batch.batch_id)
        self._calls = CallJournal(state.audit, batch.batch_id, fence=lease.fence, clock=clock)
        shares = _shares(loaded)
        held = Shares.of(turns=shares.turns, room_bytes=shares.room_mb << 20)
        self._pace = Pace(clock=clock, rows_per_second=loaded.plan.source.limits.rows_per_second)
        self._extract = ExtractHandlers(
            ExtractWorld(
                batch=batch,
                source=source,
                org=org,
                audit=self.audit,
                storage=state.storage,
                ledger=state.ledger,
                clock=clock,
                works=compiled.works,
                positions=compiled.positions,
                parent_keys=compiled.parent_keys,
                chunk_rows=chunk_rows if isinstance(chunk_rows, int) else None,
                batch_rows=self._pace.batch_rows(shares.batch_rows),
                readers=settings.readers,
                memory_mb=limits.memory_mb,
                record_detail=retention.record_data,
                scratch=state.storage.root,
                pace=self._pace,
                sample=SamplePercent.of(percent) if percent is not None else None,
                own_fence=own_fence,
                shares=held,
                renews_snapshot=loaded.plan.source.lost_snapshot == "per_chunk",
            )
        )
        self._read_back = ReadBack(
            org=org, audit=self.audit, parent_keys=compiled.parent_keys, describes=compiled.describes
        )
        self._job_world = JobWorld(
            batch=batch,
            org=org,
            audit=self.audit,
            lease=lease,
            storage=state.storage,
            ledger=state.ledger,
            clock=clock,
            refusals=refusal_reader(),
            record_data=SentRowsJson(retention.record_data),
            rows_per_day=limits.rows_per_day,
            keep_staged=keeps_settled(retention.staged_files),
            works=compiled.works,
            own_fence=own_fence,
            one_call=not state.audit.can_share,
            read_back=self._read_back,
            shares=held,
        )
        self._jobs = job_handlers(self._job_world)

    def run(self, watcher: Watcher, *, is_joined: bool) -> Coordinator:
        limits, audit, shares = self.loaded.plan.limits, self.state.audit, _shares(self.loaded)
        governor = Governor(
            jobs_max=limits.parallel_jobs,
            api_calls_reserve=limits.api_calls_reserve,
            rng=random.Random(),  # noqa: S311 - jitter of pauses, no secret
        )
        coordinator = Coordinator(self.compiled.specs, settings=self.settings, governor=governor)
        self._restore(coordinator, is_joined=is_joined)
        runner = Runner(
            coordinator,
            self._extract.handlers() | self._jobs,
            clock=self.clock,
            control=lambda: audit.control(self.batch.batch_id),
            api_requests_left=lambda: self.org.api_requests_left,
            on_progress=lambda coordinator: self._on_progress(coordinator, watcher),
            readers=self.settings.readers,
            senders=limits.parallel_jobs + SENDERS_MORE,
            joiners=shares.joiners,
            holders=shares.holders(self.settings.readers),
            disk=self._disk,
        )
        watcher.on_runner(runner.stop)
        abort_late_strays(self._job_world)
        runner.run()
        if not coordinator.is_lost:
            abort_late_strays(self._job_world)
            self._read_back.finish()
        return coordinator

    def _disk(self) -> DiskSeen:
        disk = self.state.storage.disk()
        return DiskSeen(total=disk.total, free=disk.free)

    def _restore(self, coordinator: Coordinator, *, is_joined: bool) -> None:
        """Hand over what is durable; chunks that had begun are running again, shared ones once they are claimed."""
        audit, batch_id = self.state.audit, self.batch.batch_id
        sweep(self.state.storage, batch_id, is_shared=self.settings.is_shared, is_joined=is_joined)
        planned = [table.table_name for table in audit.tables(batch_id)]
        if not self.settings.is_shared:
            for chunk in audit.chunks(batch_id):
                if chunk.status is ChunkStatus.FAILED and chunk.step is not ChunkStep.SETTLED:
                    audit.start_chunk(chunk.audit_id)
        coordinator.restore(planned, audit.chunks(batch_id), audit.jobs(batch_id))

    def _on_progress(self, coordinator: Coordinator, watcher: Watcher) -> None:
        for decision in coordinator.take_decisions():
            self.state.audit.journal("governor", {"decision": decision}, batch_id=self.batch.batch_id)
        self._waits.tell(coordinator.waits)
        self._calls.tell(self.org.api_calls)
        self._pace.stop(coordinator.stops_reading)
        self._pace.share(coordinator.runners)
        if self.clock.monotonic() >= self._next_beat:
            self._next_beat = self.clock.monotonic() + BEAT_PAUSE_S
            try:
                self.lease.beat()
            except LeaseLost as error:
                coordinator.lose(error)
        watcher.on_progress(coordinator, self.org)


def _end(world: _World, coordinator: Coordinator, automations: AutomationsOff) -> BatchSummary:
    """Write down how the batch ended, if it did, and count what became of its rows."""
    audit, batch_id = world.state.audit, world.batch.batch_id
    stopped = coordinator.control.stop or coordinator.control.stop_now
    if coordinator.is_complete and not coordinator.errors:
        state = BatchState.DONE
    else:
        state = BatchState.STOPPED if stopped and not coordinator.errors else BatchState.FAILED
    others: tuple[LeaseHolder, ...] = ()
    if not world.settings.is_shared:
        batch = audit.set_batch_state(batch_id, state)
    else:
        batch, others = leave(world.audit, batch_id, coordinator, state)
    if batch.state is BatchState.DONE and not others:
        end_batch(world.state, batch, world.loaded.plan.retention.staged_files)
    # Whoever leaves last puts the automations back.
    left_off = automations.end() if not others else []
    told = {"state": state.value, "api_calls": world.org.api_calls, "fence": world.lease.fence}
    audit.journal("run_ended", told, batch_id=batch_id)
    summary = summarise(
        world.state.audit,
        world.state.ledger,
        batch,
        api_calls=world.org.api_calls,
        errors=[*coordinator.errors, *left_off],
        at_work=[one.owner for one in others],
    )
    exit_code = _exit_code(coordinator, summary, stopped=stopped)
    if left_off and exit_code in (ExitCode.DONE, ExitCode.ROWS_REFUSED):
        exit_code = left_off[0].exit_code
    return summary.with_exit_code(exit_code)


def _exit_code(coordinator: Coordinator, summary: BatchSummary, *, stopped: bool) -> ExitCode:
    if coordinator.errors:
        first = coordinator.errors[0]
        return first.exit_code if isinstance(first, ForceliftError) else ExitCode.BUG
    if not coordinator.is_complete:
        return ExitCode.INTERRUPTED if stopped else ExitCode.TARGET
    return ExitCode.ROWS_REFUSED if summary.refused else ExitCode.DONE


__all__: Sequence[str] = (
    "BatchStatus",
    "RunOptions",
    "Watcher",
    "batch_status",
    "batch_summary",
    "engine_settings",
    "find_batch",
    "locations",
    "open_recorded",
    "owner",
    "run_migration",
)
