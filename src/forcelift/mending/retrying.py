"""Send refused rows again: choose them, read them from the source, apply the plan as it is now, settle their chunks.

Reads:   audit database, ledger, source and org.
Writes:  jobs of the kind `retry` in the org, the ledger's next generation, audit rows, failed records, journal.
Re-run:  a retry that was interrupted is gone on with by the same command; what was sent is not read again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from msgspec import Struct, field
from msgspec.structs import replace

from forcelift.account.recorded import owner
from forcelift.account.retention import keeps_settled
from forcelift.account.state import State, open_state
from forcelift.after.retry.choose import LINES, Chosen, choose, seal_lines
from forcelift.after.retry.corrected import Corrections, forget_corrections, read_corrections
from forcelift.after.retry.emptied import emptied_lines, emptied_lookups
from forcelift.after.retry.handlers import RetryHandlers
from forcelift.after.retry.report import (
    RetryReport,
    as_groups,
    counted_lines,
    groups_of,
    result_of,
    stored_groups,
)
from forcelift.after.retry.rows import SourceRows, slices_of
from forcelift.after.retry.scope import Selection, as_engine_chunk, retries_folder, retry_names, retry_works
from forcelift.after.retry.stage import stage
from forcelift.after.retry.world import RetryWorld, is_of_retry
from forcelift.audit import Lease
from forcelift.audit.batches import takes_images
from forcelift.audit.records import Batch, BatchState, Chunk, Control
from forcelift.audit.retries import SETTLED, Retry
from forcelift.during.extract.parents import ParentIndex
from forcelift.during.extract.record_data import SentRowsJson, column_codecs, source_rows_json
from forcelift.errors import Interrupted, SourceChanged, StateConflict
from forcelift.jobs.board import EngineSettings
from forcelift.jobs.coordinator import Coordinator
from forcelift.jobs.late_strays import abort_late_strays
from forcelift.jobs.work import TableWork
from forcelift.mending.failures import check_tables
from forcelift.mending.retry_checks import (
    add_revision,
    check_plan,
    need_retriable,
    refuse_unsettled,
)
from forcelift.migration.driving import drive, new_governor
from forcelift.opening.assembly import Compiled, compile_plan, open_org, open_source, refusal_reader
from forcelift.opening.bounds import SENDERS_MORE, MemoryShares, engine_settings
from forcelift.plan import LoadedPlan, load_plan
from forcelift.preflight.preparing import AutomationsOff
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.protocols.org import Org
from forcelift.protocols.source import Source
from forcelift.rules import frame_of

_PARENTS_FIRST = (
    "a row whose parent is sent again in the same retry is told as rejected here, and sent after its parent"
)


class RetryOptions(Struct, frozen=True, kw_only=True):
    """What is to be sent again.

    Attributes:
        batch_id: The batch; the plan's newest if None.
        selection: Which refused rows; all that are open by default.
        dry_run: Only tell which rows, and what the plan of now makes of them.
    """

    batch_id: str | None = None
    selection: Selection = field(default_factory=Selection)
    dry_run: bool = False


class RetryWatcher(Struct, kw_only=True):
    """Told how a retry goes: its words, and a function that asks it to stop."""

    on_step: Callable[[str], None] = field(default=lambda words: None)
    on_runner: Callable[[Callable[[Control], None]], None] = field(default=lambda stop: None)


def retry_failed(
    plan_file: str | Path,
    options: RetryOptions,
    *,
    watcher: RetryWatcher | None = None,
    clock: Clock | None = None,
    engine: EngineSettings | None = None,
) -> RetryReport:
    """Send refused rows of a batch again, or go on with a retry that was interrupted.

    Rows that the org has accepted are never sent. The plan's rules may have changed since the batch was begun, and
    count as they are now; where its rows go may not.

    Args:
        plan_file: The plan.
        options: The batch, which rows, and whether only to tell.
        watcher: Told how it goes.
        engine: Bounds of the engine; by default from the plan's limits and the machine.
    Raises:
        StateConflict: A process works on the batch, chunks of it are not settled, or the plan sends rows elsewhere now.
        ForceliftError: Source or org cannot be asked; what was begun is gone on with by the same call.
    """
    watcher, clock = watcher or RetryWatcher(), clock or SystemClock()
    loaded = load_plan(plan_file)
    with open_state(loaded, clock=clock, create=False) as state:
        batch = need_retriable(loaded, state, options.batch_id)
        changes = check_plan(loaded, state, batch)
        refuse_unsettled(state, batch)
        check_tables(state, batch, options.selection.tables)
        limits = loaded.plan.limits
        shares = MemoryShares.of(limits.memory_mb, senders=limits.parallel_jobs + SENDERS_MORE)
        with (
            open_source(loaded, memory_mb=shares.source_mb, threads=1) as source,
            open_org(loaded, clock=clock) as org,
        ):
            if org.org_id != batch.org_id:
                raise StateConflict(
                    f"batch `{batch.batch_id}` was loaded into org `{batch.org_id}`, but the plan now signs in to "
                    f"`{org.org_id}`",
                    state="nothing was changed",
                    hint="sign in to the org that the batch was loaded into",
                )
            document = state.audit.plan_document(batch.batch_id)
            compiled = compile_plan(loaded, source=source, org=org, only=document.get("chosen_tables") or None)
            settings = replace(
                engine or engine_settings(loaded, mode=batch.mode),
                is_shared=False,
                extract_first=False,
                dry_run=False,
                takes_images=takes_images(document),
            )
            retrying = _Retrying(
                loaded=loaded,
                state=state,
                batch=batch,
                source=source,
                org=org,
                compiled=compiled,
                clock=clock,
                watcher=watcher,
                settings=settings,
                batch_rows=shares.batch_rows,
                changes=changes,
            )
            if options.dry_run:
                return retrying.tell(options.selection)
            with state.audit.lease(batch.batch_id, owner()) as lease:
                return retrying.execute(options.selection, lease)


class _Retrying(Struct, kw_only=True):
    """One retry of one batch."""

    loaded: LoadedPlan
    state: State
    batch: Batch
    source: Source
    org: Org
    compiled: Compiled
    clock: Clock
    watcher: RetryWatcher
    settings: EngineSettings
    batch_rows: int
    changes: tuple[str, ...]

    def execute(self, selection: Selection, lease: Lease) -> RetryReport:
        """Send what fits the selection; an interrupted retry is gone on with as it was asked for."""
        audit, batch_id = self.state.audit, self.batch.batch_id
        retry = audit.open_retry(batch_id)
        if retry is None:
            self.watcher.on_step("choosing the rows")
            chosen = self._choose(selection)
            if not chosen:
                return self._report(None, ())
            retry = self._begin(selection, chosen)
        else:
            self.watcher.on_step(f"going on with retry {retry.retry_no}, as it was asked for")
        audit.clear_control(batch_id, owner())
        was_done = self.batch.state is BatchState.DONE
        self.batch = audit.reopen_batch(batch_id)
        automations = AutomationsOff(
            self.loaded, self.org, audit, batch_id, clock=self.clock, told=self.watcher.on_step
        )
        ended = BatchState.STOPPED
        try:
            automations.begin(is_wanted=None, tables=tuple(self.compiled.works))
            self.watcher.on_step("sending the rows again")
            self._send(retry, lease)
            retry = self._finish(retry)
            ended = BatchState.DONE if was_done or self._is_complete() else BatchState.STOPPED
        finally:
            left_off = automations.end()
            audit.set_batch_state(batch_id, ended)
            told = {"state": ended.value, "api_calls": self.org.api_calls, "retry": retry.retry_no}
            audit.journal("run_ended", told, batch_id=batch_id)
        assert retry.result is not None
        notes = tuple(f"automations are still off: {error.message}" for error in left_off)
        return self._report(retry, notes)

    def tell(self, selection: Selection) -> RetryReport:
        """What the plan of now makes of the rows: read and cleaned, and nothing sent or written down."""
        audit, batch_id = self.state.audit, self.batch.batch_id
        if audit.open_retry(batch_id) is not None:
            raise StateConflict(
                f"a retry of batch `{batch_id}` is not through",
                state="nothing was changed",
                hint=f"go on with it by `forcelift failed retry --batch {batch_id}`",
            )
        self.watcher.on_step("choosing the rows")
        chosen = self._choose(selection)
        folder = f"{retries_folder(batch_id)}/told{secrets.token_hex(4)}"
        told = Retry(
            retry_no=0,
            batch_id=batch_id,
            folder=folder,
            selection=selection.document(),
            plan_revision=self.batch.plan_revision,
            asked_by=owner(),
            began_at=self.clock.now(),
        )
        mine = [one.chunk for one in chosen]
        lines = {one.chunk.audit_id: one.lines for one in chosen}
        works = retry_works(self.compiled.works, {chunk.table_name for chunk in mine})
        counted: list[tuple[str, str, str, int]] = []
        self.watcher.on_step("reading the rows")
        try:
            with self._world(told, None, works, audit.chunks(batch_id), lines) as world:
                for chunk in mine:
                    names = retry_names(folder, chunk)
                    staged, _ = stage(world, chunk, works[chunk.table_name], names)
                    rows = pl.read_parquet(self.state.storage.path(staged.rows_file), glob=False)
                    rows = rows.with_columns(pl.col("outcome").fill_null("to_send"))
                    counted.extend(
                        (chunk.table_name, str(code), str(outcome), int(number))
                        for code, outcome, number in counted_lines(lines[chunk.audit_id], rows)
                    )
                    self.state.storage.delete_tree(names.folder)
        finally:
            self.state.storage.delete_tree(folder)
        groups = as_groups(counted)
        to_send = sum(rows for _, _, outcome, rows in counted if outcome == "to_send")
        notes = (_PARENTS_FIRST,) if any(one.rejected for one in groups) and len(works) > 1 else ()
        return replace(self._report(None, notes), groups=groups, to_send=to_send)

    def _is_complete(self) -> bool:
        return all(chunk.ledger_file is not None for chunk in self.state.audit.chunks(self.batch.batch_id))

    def _choose(self, selection: Selection) -> list[Chosen]:
        state = self.state
        return choose(
            selection,
            audit=state.audit,
            ledger=state.ledger,
            storage=state.storage,
            works=self.compiled.works,
            chunks=state.audit.chunks(self.batch.batch_id),
            emptied=self._emptied,
        )

    def _emptied(self, chunk: Chunk, parents: set[str]) -> pl.DataFrame:
        """Rows of a chunk that the org has without a lookup to one of these tables, as its parent was missing."""
        work, state = self.compiled.works[chunk.table_name], self.state
        infos = [info for info in emptied_lookups(work, chunk) if info.parent_table in parents]
        if not infos or chunk.ledger_file is None or chunk.ledger_sha256 is None:
            return pl.DataFrame(schema=LINES)
        state.storage.verify(chunk.ledger_file, chunk.ledger_sha256)
        known = _Parents(state, self.batch, self.org, self.compiled)
        batches = (
            batch
            for predicate in slices_of(chunk)
            for batch in self.source.read(
                chunk.table_name,
                columns=work.rules.source_columns,
                where=work.plan.where,
                predicate=predicate,
                batch_rows=self.batch_rows,
            )
        )
        try:
            return emptied_lines(
                work,
                infos,
                state.ledger.scan([chunk.ledger_file]).collect(),
                (frame_of(batch) for batch in batches),
                as_of=self.batch.as_of,
                chunk_no=chunk.chunk_no,
                parents={
                    name: known.of(info.parent_object, info.key_field, info.parent_table)
                    for name, info in work.rules.lookups.items()
                },
            )
        except SourceChanged:
            self.watcher.on_step(f"table `{chunk.table_name}` was written anew: its emptied lookups stay as they are")
            return pl.DataFrame(schema=LINES)

    def _begin(self, selection: Selection, chosen: Sequence[Chosen]) -> Retry:
        """Write down what is sent again, and the plan by which it is."""
        audit, storage, batch_id = self.state.audit, self.state.storage, self.batch.batch_id
        self._sweep()
        for name in {one.table_name for one in audit.tables(batch_id)}:
            # Before anything is begun: a retry that is open keeps people from importing them anew.
            read_corrections(storage, audit, batch_id, name)
        if self.batch.plan_sha256 != self.loaded.sha256:
            self.batch = add_revision(self.loaded, self.state, self.batch)
        folder = f"{retries_folder(batch_id)}/{secrets.token_hex(4)}"
        sealed = list(seal_lines(chosen, storage, folder))
        return audit.begin_retry(batch_id, folder=folder, selection=selection.document(), by=owner(), chunks=sealed)

    def _sweep(self) -> None:
        """Remove files that no retry knows: of one that was killed before it was written down."""
        known = {retry.folder for retry in self.state.audit.retries(self.batch.batch_id)}
        prefix = retries_folder(self.batch.batch_id)
        for name in {"/".join(name.split("/")[:3]) for name in self.state.storage.list(prefix)}:
            if name not in known:
                self.state.storage.delete_tree(name)

    def _send(self, retry: Retry, lease: Lease) -> None:
        audit, batch_id = self.state.audit, self.batch.batch_id
        ones = {one.audit_id: one for one in audit.retry_chunks(retry.retry_no)}
        every = audit.chunks(batch_id)
        mine = [chunk for chunk in every if chunk.audit_id in ones]
        works = retry_works(self.compiled.works, {chunk.table_name for chunk in mine})
        with self._world(retry, lease, works, every) as world:
            abort_late_strays(world)
            coordinator = Coordinator(
                [work.spec for work in works.values()], settings=self.settings, governor=new_governor(self.loaded)
            )
            chunks = [as_engine_chunk(chunk, ones[chunk.audit_id]) for chunk in mine]
            jobs = [job for job in audit.jobs(batch_id) if is_of_retry(job, retry)]
            coordinator.restore(list(works), chunks, jobs)
            drive(
                coordinator,
                RetryHandlers(world).handlers(),
                loaded=self.loaded,
                audit=audit,
                batch_id=batch_id,
                org=self.org,
                lease=lease,
                clock=self.clock,
                asked=Control(),
                on_runner=self.watcher.on_runner,
            )
            if not coordinator.is_lost:
                abort_late_strays(world)
        if coordinator.errors:
            raise coordinator.errors[0]
        if not coordinator.is_complete:
            raise Interrupted(
                "the retry was stopped before it was through",
                state="what is at work in the org goes on; everything that was begun is written down",
                hint=f"go on with it by `forcelift failed retry --batch {batch_id}`",
            )

    @contextmanager
    def _world(
        self,
        retry: Retry,
        lease: Lease | None,
        works: Mapping[str, TableWork],
        every: Sequence[Chunk],
        told: Mapping[int, pl.DataFrame] | None = None,
    ) -> Iterator[RetryWorld]:
        """The world of the handlers; in a dry run without a lease, and with the rows that are only `told`."""
        state, limits, retention = self.state, self.loaded.plan.limits, self.loaded.plan.retention
        norms = {audit_id: lines["norm"] for audit_id, lines in (told or {}).items()}
        for one in state.audit.retry_chunks(retry.retry_no) if told is None else ():
            path = state.storage.path(one.lines_file)
            norms[one.audit_id] = pl.read_parquet(path, columns=["norm"], glob=False)["norm"]
        of_table = {
            name: pl.concat(
                [
                    norms[one.audit_id].drop_nulls().unique()
                    for one in every
                    if one.audit_id in norms and one.table_name == name
                ]
            )
            for name in works
        }

        def rejected_data(work: TableWork, frame: pl.DataFrame) -> pl.Series:
            return source_rows_json(
                frame,
                personal=work.rules.personal_columns,
                detail=retention.record_data,
                codecs=column_codecs(work.rules),
                numbers=work.rules.number_columns,
            )

        with SourceRows(
            source=self.source,
            works=works,
            wanted={name: keys.unique() for name, keys in of_table.items()},
            shared={name: keys.filter(keys.is_duplicated()).unique() for name, keys in of_table.items()},
            scratch=state.storage.root,
            memory_mb=limits.memory_mb,
            batch_rows=self.batch_rows,
            correct=Corrections(state.storage, state.audit, self.batch.batch_id, works).apply,
        ) as rows:
            yield RetryWorld(
                batch=self.batch,
                org=self.org,
                audit=state.audit,
                # Nothing is written in a dry run; a write would be refused under this fence.
                lease=lease or Lease(state.audit, self.batch.batch_id, owner=owner(), fence=0),
                storage=state.storage,
                ledger=state.ledger,
                clock=self.clock,
                refusals=refusal_reader(),
                record_data=SentRowsJson(retention.record_data),
                rows_per_day=limits.rows_per_day,
                keep_staged=keeps_settled(retention.staged_files),
                works=works,
                retry=retry,
                rows=rows,
                parents=_Parents(state, self.batch, self.org, self.compiled).of,
                link_parents=_Parents(state, self.batch, self.org, self.compiled).of,
                rejected_data=rejected_data,
                only_told=told or {},
            )

    def _finish(self, retry: Retry) -> Retry:
        """Count what became of the rows from what is written down, so that an interrupted retry counts the same."""
        state = self.state
        chunks = {chunk.audit_id: chunk for chunk in state.audit.chunks(self.batch.batch_id)}
        ones = state.audit.retry_chunks(retry.retry_no)
        assert all(one.step == SETTLED for one in ones)
        ended = state.audit.end_retry(retry.retry_no, result_of(groups_of(ones, chunks)))
        if not keeps_settled(self.loaded.plan.retention.staged_files):
            state.storage.delete_tree(retry.folder)
        for name in {chunks[one.audit_id].table_name for one in ones}:
            left = {key for key, *_ in state.audit.open_failed_rows(self.batch.batch_id, name, ())}
            forget_corrections(state.storage, state.audit, self.batch.batch_id, name, left)
        return ended

    def _report(self, retry: Retry | None, notes: tuple[str, ...]) -> RetryReport:
        return RetryReport(
            batch=self.batch,
            retry_no=retry.retry_no if retry is not None else None,
            plan_revision=retry.plan_revision if retry is not None else self.batch.plan_revision,
            plan_changes=self.changes,
            groups=stored_groups(retry.result) if retry is not None and retry.result is not None else (),
            api_calls=self.org.api_calls,
            notes=notes,
        )


class _Parents:
    """The parents of lookups, as the batch's ledger and the org know them once their tables are settled."""

    def __init__(self, state: State, batch: Batch, org: Org, compiled: Compiled) -> None:
        self._state, self._batch, self._org = state, batch, org
        self._works, self._keys = compiled.works, compiled.parent_keys
        self._known: dict[tuple[str, str, str | None], ParentIndex] = {}

    def of(self, object_name: str, key_field: str, table: str | None) -> ParentIndex:
        """The keys of one parent object."""
        name = (object_name, key_field, table)
        if name not in self._known:
            key = self._keys[object_name, key_field]
            self._known[name] = ParentIndex(
                org=self._org, object_name=object_name, key=key, accepted=lambda: self._accepted(table, key_field)
            )
        return self._known[name]

    def _accepted(self, table: str | None, key_field: str) -> pl.LazyFrame:
        work = self._works.get(table) if table is not None else None
        if table is None or work is None or work.key_field.name != key_field:
            return pl.LazyFrame(schema={"key": pl.String})
        chunks = self._state.audit.chunks(self._batch.batch_id, table)
        files = [chunk.ledger_file for chunk in chunks if chunk.ledger_file is not None]
        # What a rollback kept is a parent as well: the record is there.
        return self._state.ledger.standing(files).filter(pl.col("outcome") != "failed").select("key")


__all__: Sequence[str] = ("RetryOptions", "RetryReport", "RetryWatcher", "Selection", "retry_failed")
