"""Validate a batch: what a plan names is opened, both sides are compared, and what was found is written down.

Reads:   the plan file, audit database, ledger, source and org.
Writes:  validation results and TARGET_CHECKSUM in the audit database; files of its own below `validate/` in staging.
Re-run:  results are only added; an interrupted level 5 goes on with the query that it had begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
from msgspec import Struct

from forcelift.account.recorded import find_batch
from forcelift.account.retention import refuse_purged
from forcelift.account.state import State, open_state
from forcelift.after.validate.checks import LEVELS, CheckStatus, Found
from forcelift.after.validate.execute import validate_tables
from forcelift.after.validate.merged_again import MergedAgain
from forcelift.after.validate.world import SharedScans, ValidateSettings, ValidateWorld
from forcelift.allocators import share_arenas
from forcelift.audit.records import Batch, BatchMode
from forcelift.during.extract.parents import ParentIndex
from forcelift.errors import ExitCode, StateConflict, UsageError
from forcelift.opening.assembly import Compiled, compile_plan, open_org, open_source
from forcelift.opening.bounds import SENDERS_MORE, MemoryShares
from forcelift.plan import LoadedPlan, load_plan, plan_diff, plan_document, unsupported
from forcelift.plan.operational import changes_of_meaning
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.protocols.org import FieldDescribe, Org
from forcelift.protocols.source import Source


class Validated(Struct, frozen=True, kw_only=True):
    """What a validation found, and how the process should end."""

    batch: Batch
    settings: ValidateSettings
    found: Found
    api_calls: int

    @property
    def exit_code(self) -> ExitCode:
        """1 on any difference. What could not be told is no difference; its word says so."""
        return ExitCode.ROWS_REFUSED if self.found.has_difference else ExitCode.DONE

    def document(self) -> dict[str, Any]:
        """The JSON document of `--json`."""
        return {
            "batch_id": self.batch.batch_id,
            "project": self.batch.project,
            "levels": list(self.settings.levels),
            "seed": self.settings.seed,
            "exit_code": int(self.exit_code),
            "api_calls": self.api_calls,
            "statuses": {status.value: self.found.count(status) for status in CheckStatus},
            "checks": [check.document() for check in self.found.checks],
        }


def validate_batch(
    plan_file: str | Path,
    batch_id: str | None = None,
    settings: ValidateSettings | None = None,
    *,
    tell: Callable[[str], None] = lambda sentence: None,
    clock: Clock | None = None,
) -> Validated:
    """Compare what a batch sent with what the org has.

    Args:
        plan_file: The plan, which must say the same of tables and rules as when the batch was begun.
        batch_id: The batch; the plan's newest if None.
        settings: Levels, tables, tolerances.
        tell: Told what each level will cost, before it begins.
    Raises:
        StateConflict: There is no such batch, it was a dry run, or the plan has changed since.
        SourceError, TargetError: A side cannot be asked.
    """
    with open_world(plan_file, batch_id, settings or ValidateSettings(), tell=tell, clock=clock) as world:
        found = validate_tables(world)
        return Validated(batch=world.batch, settings=world.settings, found=found, api_calls=world.org.api_calls)


@contextmanager
def open_world(
    plan_file: str | Path,
    batch_id: str | None,
    settings: ValidateSettings,
    *,
    tell: Callable[[str], None] = lambda sentence: None,
    clock: Clock | None = None,
) -> Iterator[ValidateWorld]:
    """Open what a batch wrote down, its source and its org. Arguments and errors as `validate_batch` has them."""
    clock = clock or SystemClock()
    check_settings(settings)
    loaded = load_plan(plan_file)
    if later := unsupported(loaded.plan):
        raise loaded.error(later)
    with open_state(loaded, clock=clock, create=False) as state:
        batch = find_batch(loaded, state, batch_id)
        check_batch(loaded, state, batch)
        refuse_purged(state, batch)
        with open_sides(loaded, state, clock=clock, tell=tell) as sides, sides.world(loaded, batch, settings) as world:
            yield world


class Sides(Struct, frozen=True, kw_only=True):
    """Source and org, opened once for one batch or several."""

    source: Source
    org: Org
    state: State
    clock: Clock
    shares: MemoryShares
    tell: Callable[[str], None]

    @contextmanager
    def world(
        self,
        loaded: LoadedPlan,
        batch: Batch,
        settings: ValidateSettings,
        *,
        scans: SharedScans | None = None,
        read_again: frozenset[str] = frozenset(),
    ) -> Iterator[ValidateWorld]:
        """One batch between them.

        Args:
            loaded: The plan that the batch was begun with.
        Raises:
            StateConflict: The batch went into another org.
        """
        state, limits = self.state, loaded.plan.limits
        if self.org.org_id != batch.org_id:
            raise StateConflict(
                f"batch `{batch.batch_id}` went into org `{batch.org_id}`, but the plan signs in to "
                f"`{self.org.org_id}`",
                state="nothing was compared",
                hint="sign in to the first org again",
            )
        only = _tables(loaded, state, batch, settings)
        compiled = compile_plan(loaded, source=self.source, org=self.org, only=only)
        with MergedAgain(
            source=self.source,
            works=compiled.works,
            scratch=state.storage.root,
            memory_mb=limits.memory_mb,
            batch_rows=self.shares.batch_rows,
        ) as merged:
            yield ValidateWorld(
                batch=batch,
                source=self.source,
                org=self.org,
                audit=state.audit,
                storage=state.storage,
                ledger=state.ledger,
                clock=self.clock,
                works=compiled.works,
                parent_keys=compiled.parent_keys,
                parents=_Parents(state, batch, self.org, compiled).of,
                merged=merged.of,
                scratch=state.storage.root,
                memory_mb=limits.memory_mb,
                batch_rows=self.shares.batch_rows,
                settings=settings,
                tell=self.tell,
                scans=scans,
                read_again=read_again,
            )


@contextmanager
def open_sides(loaded: LoadedPlan, state: State, *, clock: Clock, tell: Callable[[str], None]) -> Iterator[Sides]:
    """Open the plan's source and org for as long as the context lasts."""
    limits = loaded.plan.limits
    share_arenas()
    shares = MemoryShares.of(limits.memory_mb, senders=limits.parallel_jobs + SENDERS_MORE)
    with (
        open_source(loaded, memory_mb=max(64, shares.source_mb)) as source,
        open_org(loaded, clock=clock) as org,
    ):
        yield Sides(source=source, org=org, state=state, clock=clock, shares=shares, tell=tell)


def check_settings(settings: ValidateSettings) -> None:
    """Raise `UsageError` if a level is named that there is not, or none."""
    wrong = [level for level in settings.levels if level not in LEVELS]
    if wrong or not settings.levels:
        raise UsageError(
            f"there is no level {wrong[0]}" if wrong else "no level is named",
            state="nothing was compared",
            hint="levels are 1 counts, 2 aggregates, 3 samples, 4 business rules, 5 proof",
        )


def check_batch(loaded: LoadedPlan, state: State, batch: Batch) -> None:
    """Raise `StateConflict` if the batch was a dry run, or was begun with a plan that means something else."""
    if batch.mode is BatchMode.DRY_RUN:
        raise StateConflict(
            f"batch `{batch.batch_id}` was a dry run: it sent nothing that could be compared",
            state="nothing was compared",
            hint="name a batch that was loaded by `--batch`; `forcelift status` lists them",
        )
    if batch.plan_sha256 == loaded.sha256:
        return
    before, now = state.audit.plan_document(batch.batch_id), plan_document(loaded.plan)
    before = {name: value for name, value in before.items() if name in now}
    changes = [change for change in changes_of_meaning(plan_diff(before, now)) if not _is_harmless(change)]
    if changes:
        raise StateConflict(
            f"the plan has changed since batch `{batch.batch_id}` was begun:\n"
            + "\n".join(f"  - {change}" for change in changes[:20]),
            state="nothing was compared",
            hint="put the plan back as it was, or validate the batch that was begun with this one",
        )


def _is_harmless(change: str) -> bool:
    """Whether the same was sent all the same: checks are taken as they stand now, and no hash knows an order."""
    place = change.partition(": ")[0]
    return ".checks" in place or change.endswith("the order changed")


def _tables(loaded: LoadedPlan, state: State, batch: Batch, settings: ValidateSettings) -> list[str] | None:
    if settings.tables:
        return list(settings.tables)
    loaded_by_batch = {row.table_name for row in state.audit.tables(batch.batch_id)}
    chosen = state.audit.plan_document(batch.batch_id).get("chosen_tables") or None
    names = [table.table for table in loaded.plan.tables]
    return [name for name in names if name in loaded_by_batch or name in chosen] if chosen else None


class _Parents:
    """The parents of lookups, as the batch's ledger and the org know them; asked for once."""

    def __init__(self, state: State, batch: Batch, org: Org, compiled: Compiled) -> None:
        self._state, self._batch, self._org = state, batch, org
        self._works, self._keys = compiled.works, compiled.parent_keys
        self._known: dict[tuple[str, str, str | None], ParentIndex] = {}

    def of(self, object_name: str, key_field: str, table: str | None) -> ParentIndex:
        """The keys of one parent object."""
        name = (object_name, key_field, table)
        if name not in self._known:
            key: FieldDescribe = self._keys[object_name, key_field]
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
        return self._state.ledger.accepted_keys(files).select("key")


def parse_levels(levels: str) -> tuple[int, ...]:
    """Levels as a person lists them: `1,2,5`, `1-4` or `all`. Raises `UsageError`."""
    if levels.strip().lower() == "all":
        return LEVELS
    found: set[int] = set()
    for part in levels.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise UsageError(
                f"`{levels}` is no list of levels", state="nothing was compared", hint="write `1,2,5`, `1-4` or `all`"
            )
        found |= set(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def percent_setting(text: str) -> Decimal:
    """A tolerance in percent, as it is written. Raises `UsageError`."""
    try:
        value = Decimal(text)
    except ArithmeticError:
        value = Decimal("NaN")
    if not value.is_finite() or value < 0:
        raise UsageError(f"`{text}` is no percentage", state="nothing was compared", hint="write it as `0.01`")
    return value
