"""Make a plan's org ready for a load, and put it back: `prepare`, `restore`, and both around a run.

Reads:   the plan file, the org's setup, the audit database; the source only for the length of a key.
Writes:  the audit database, where a prepare is evidence for the checklist, and with `execute` the org's setup.
Re-run:  each compares first, so that running one again goes on with what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

from forcelift.account.consents import need_consent
from forcelift.account.recorded import owner
from forcelift.account.state import open_state
from forcelift.audit import AuditStore, Holder, OrgState
from forcelift.before.checklist import PREPARE
from forcelift.before.prepare import (
    Decision,
    FieldFinding,
    FieldState,
    HistoryFinding,
    Outcome,
    PreparePlan,
    Preparer,
    RestoredItem,
    StillOff,
    find_fields,
    find_history,
    key_length,
    make_field,
    track_history,
)
from forcelift.errors import ForceliftError, OrgNotFound, UsageError
from forcelift.opening.assembly import open_org, open_setup, open_source
from forcelift.plan import LoadedPlan, TablePlan, load_plan
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.protocols.org import ObjectDescribe, Org
from forcelift.protocols.setup import OrgFacts

DEFAULT_NAME: Final = "prepare"
Told = Callable[[str], None]


def _silent(sentence: str) -> None:
    """Nobody is told."""


class PrepareReport(Struct, frozen=True, kw_only=True):
    """What a prepare would do, or did.

    Attributes:
        held: With `execute`: what this prepare holds, all of it off.
    """

    org: OrgFacts
    org_id: str
    name: str
    plan: PreparePlan
    fields: tuple[FieldFinding, ...]
    history: tuple[HistoryFinding, ...]
    executed: bool
    held: tuple[OrgState, ...] = ()


class RestoreReport(Struct, frozen=True, kw_only=True):
    """What a restore would do, or did with each automation that was remembered as switched off."""

    org: OrgFacts
    org_id: str
    items: tuple[RestoredItem, ...]
    errors: tuple[ForceliftError, ...]
    executed: bool

    @property
    def still_open(self) -> list[RestoredItem]:
        """What somebody has to look at."""
        return [item for item in self.items if item.is_open]


def prepare_org(
    plan_file: str | Path,
    *,
    execute: bool = False,
    name: str = DEFAULT_NAME,
    tables: Sequence[str] = (),
    told: Told = _silent,
    clock: Clock | None = None,
) -> PrepareReport:
    """Switch the automations of the plan's objects off and make the external ID fields that are missing.

    Args:
        execute: Do it; without it, nothing is changed anywhere.
        name: Under which it is held off until `restore_org` of the same name.
        tables: Only the objects of these tables; of all if empty.
        told: Is told what is done next.
    Raises:
        StateConflict: Somebody changed what is remembered as off.
        TargetError: The org refused; what was done before is remembered, and `restore_org` undoes it.
    """
    clock = clock or SystemClock()
    loaded = load_plan(plan_file)
    chosen = _chosen(loaded, tables)
    holder = Holder(kind="prepare", name=name, by=owner())
    with open_org(loaded, clock=clock) as org, _audit(loaded, clock, create=True) as audit:
        preparer = _preparer(loaded, org, audit, clock=clock, told=told)
        describes = _describes(loaded, chosen, org)
        objects = [describe.name for describe in describes.values()]
        leave_on = loaded.plan.prepare.leave_on
        fields = find_fields(chosen, describes, preparer.setup)
        history = find_history(chosen, describes, preparer.setup, _tracked(loaded, chosen, describes))
        facts = preparer.setup.facts()
        if not execute:
            plan = preparer.look(objects, leave_on)
            return PrepareReport(
                org=facts,
                org_id=org.org_id,
                name=name,
                plan=plan,
                fields=tuple(fields),
                history=tuple(history),
                executed=False,
            )
        with preparer.alone():
            # What is to be done is decided anew, as the only one at it.
            plan = preparer.look(objects, leave_on)
            fields = [_made(loaded, finding, preparer) for finding in fields]
            history = [
                track_history(one, preparer.setup, audit, org_id=org.org_id, by=preparer.by, told=told)
                for one in history
            ]
            held = preparer.switch_off(plan, holder)
            audit.add_evidence(
                project=loaded.plan.project,
                kind=PREPARE,
                name=name,
                plan_sha256=loaded.sha256,
                org_id=org.org_id,
                passed=True,
                document={"tables": [one.table for one in chosen], "snapshots": [one.state_no for one in held]},
                by=owner(),
            )
        return PrepareReport(
            org=facts,
            org_id=org.org_id,
            name=name,
            plan=plan,
            fields=tuple(fields),
            history=tuple(history),
            executed=True,
            held=tuple(held),
        )


def restore_org(
    plan_file: str | Path,
    *,
    execute: bool = False,
    name: str = DEFAULT_NAME,
    everybody: bool = False,
    overwrite: Collection[str] = (),
    keep: Collection[str] = (),
    told: Told = _silent,
    clock: Clock | None = None,
) -> RestoreReport:
    """Put back what a prepare, or a batch that died, switched off.

    Args:
        execute: Do it; without it, nothing is changed anywhere.
        name: Of the prepare that lets go.
        everybody: All prepares let go, whatever their names. Batches that are at work never do.
        overwrite: Automations to put back though somebody changed them.
        keep: Automations to leave as they are, and to forget.
    Raises:
        UsageError: `overwrite` or `keep` names what is not remembered.
    """
    clock = clock or SystemClock()
    loaded = load_plan(plan_file)
    with open_org(loaded, clock=clock) as org, _audit(loaded, clock, create=False) as audit:
        preparer = _preparer(loaded, org, audit, clock=clock, told=told)
        facts = preparer.setup.facts()
        states = audit.open_states(org.org_id)
        _check_known(states, (*overwrite, *keep))

        def letting_go() -> list[Holder]:
            now = audit.open_states(org.org_id)
            prepares = {
                h.key: h for s in now for h in s.holders if h.kind == "prepare" and (everybody or h.name == name)
            }
            return [*prepares.values(), *preparer.dead_holders(now)]

        if not execute:
            items = preparer.look_at_restore(letting_go(), overwrite=overwrite, keep=keep)
            return RestoreReport(org=facts, org_id=org.org_id, items=tuple(items), errors=(), executed=False)
        need_consent(
            loaded,
            audit,
            step="restore",
            subject=f"automations of the org `{org.org_id}`",
            details={
                "org": org.org_id,
                "name": None if everybody else name,
                "overwrite": sorted(overwrite),
                "keep": sorted(keep),
                "automations": sorted(f"{one.kind} {one.name}" for one in states),
            },
        )
        with preparer.alone():
            done, errors = preparer.restore(letting_go(), overwrite=overwrite, keep=keep)
        return RestoreReport(org=facts, org_id=org.org_id, items=tuple(done), errors=tuple(errors), executed=True)


class AutomationsOff:
    """Automations around one run: what dead batches left off is put back, this batch's are off while it runs.

    Nothing is looked at in the org unless the run is to switch automations, or something is remembered as off.
    """

    def __init__(
        self, loaded: LoadedPlan, org: Org, audit: AuditStore, batch_id: str, *, clock: Clock, told: Told
    ) -> None:
        self._loaded, self._org, self._audit, self._clock, self._told = loaded, org, audit, clock, told
        self._holder = Holder(kind="batch", name=batch_id, by=owner())

    def begin(self, *, is_wanted: bool | None, tables: Sequence[str]) -> None:
        """Before the first row is read.

        Args:
            is_wanted: Whether automations are to be off; None goes by what the batch was begun with.
            tables: Only the objects of these tables; of all if empty.
        Raises:
            ForceliftError: They could not be switched off, or those of a dead batch not be put back. What this batch
                switched off before that is on again, or told by `status`.
        """
        if is_wanted is None:
            is_wanted = self._audit.has_held(self._holder)
        if not is_wanted and not self._audit.open_states(self._org.org_id):
            return
        preparer = self._preparer()
        try:
            with preparer.alone():
                if is_wanted:
                    chosen = _chosen(self._loaded, tables)
                    describes = _describes(self._loaded, chosen, self._org)
                    objects = [describe.name for describe in describes.values()]
                    plan = preparer.look(objects, self._loaded.plan.prepare.leave_on)
                    for item in plan.of(Decision.LEAVE_OFF):
                        self._told(f"{item.item} is off though the plan leaves it on; `forcelift status` tells by whom")
                    # First this batch takes hold, then the dead let go: what both want off is not switched twice.
                    preparer.switch_off(plan, self._holder)
                states = self._audit.open_states(self._org.org_id)
                mine = [] if is_wanted else [self._holder]
                items, errors = preparer.restore([*preparer.dead_holders(states, but=self._holder), *mine])
        except BaseException:
            self._give_up()
            raise
        self._tell(items)
        if errors:
            self._give_up()
            raise _still_off(items, errors, self._holder.name)

    def _give_up(self) -> None:
        """Put back what this batch has switched off; a failure of that is told, as another one is under way."""
        for error in self.end():
            self._told(f"automations are still off: {error.message}")

    def end(self) -> list[ForceliftError]:
        """After the last row, whatever became of the load. Returns what went wrong; the batch's rows are settled."""
        try:
            mine = {s.state_no for s in self._audit.open_states() if self._holder.key in [h.key for h in s.holders]}
            if not mine:
                return []
            preparer = self._preparer()
            with preparer.alone():
                items, errors = preparer.restore([self._holder], batch_id=self._holder.name)
        except ForceliftError as error:
            return [error]
        self._tell(items)
        # What others have left behind is told, and is no fault of this batch.
        own = [item for item in items if item.state.state_no in mine]
        is_open = any(item.is_open for item in own)
        return [_still_off(own, errors, self._holder.name)] if is_open else []

    def _preparer(self) -> Preparer:
        return _preparer(self._loaded, self._org, self._audit, clock=self._clock, told=self._told)

    def _tell(self, items: Sequence[RestoredItem]) -> None:
        done = [item for item in items if item.outcome in (Outcome.RESTORED, Outcome.FOUND)]
        if done:
            self._told(f"put back and compared: {len(done)} automations are exactly as they were")
        for item in items:
            if item.outcome is Outcome.HELD and self._holder.key not in [one.key for one in item.state.holders]:
                self._told(f"{item.state.kind.replace('_', ' ')} {item.state.name} stays off: {item.why}")
            elif item.is_open:
                self._told(f"{item.state.kind.replace('_', ' ')} {item.state.name} is still off: {item.why}")


def _still_off(items: Sequence[RestoredItem], errors: Sequence[ForceliftError], batch_id: str) -> StillOff:
    names = ", ".join(f"{one.state.kind.replace('_', ' ')} {one.state.name}" for one in items if one.is_open)
    why = errors[0].message if errors else "somebody changed them in the meantime"
    error = StillOff(
        f"automations could not be put back: {names} ({why})",
        state=f"the rows of batch `{batch_id}` are not touched by this; what each was is remembered",
        hint="`forcelift restore` shows them; `forcelift restore --execute` puts them back",
    )
    if errors:
        error.__cause__ = errors[0]
    return error


@contextmanager
def _audit(loaded: LoadedPlan, clock: Clock, *, create: bool) -> Iterator[AuditStore]:
    with open_state(loaded, clock=clock, create=create) as state:
        yield state.audit


def _preparer(loaded: LoadedPlan, org: Org, audit: AuditStore, *, clock: Clock, told: Told) -> Preparer:
    return Preparer(
        setup=open_setup(org, clock=clock),
        audit=audit,
        org_id=org.org_id,
        by=owner(),
        clock=clock,
        run_tests=loaded.plan.prepare.run_tests,
        told=told,
    )


def _chosen(loaded: LoadedPlan, names: Sequence[str]) -> list[TablePlan]:
    return [table for table in loaded.plan.tables if not names or table.table in names]


def _describes(loaded: LoadedPlan, tables: Sequence[TablePlan], org: Org) -> dict[str, ObjectDescribe]:
    """The objects of tables, by the name that the plan gives them."""
    found: dict[str, ObjectDescribe] = {}
    for table in tables:
        if table.object in found:
            continue
        try:
            found[table.object] = org.describe(table.object)
        except OrgNotFound as error:
            problem = loaded.problem(
                f"the org has no object `{table.object}` that this user can see", f"tables.{table.table}.object"
            )
            raise loaded.error([problem]) from error
    return found


def _tracked(
    loaded: LoadedPlan, chosen: Sequence[TablePlan], describes: Mapping[str, ObjectDescribe]
) -> tuple[str, ...]:
    """The plan's `track_history`; a name of an object that no table loads is refused: it may be misspelt."""
    names = loaded.plan.prepare.track_history
    known = {table.object.lower() for table in loaded.plan.tables} | {one.name.lower() for one in describes.values()}
    for number, name in enumerate(names):
        if name.partition(".")[0].lower() not in known:
            problem = loaded.problem(f"`{name}` is of no object that the plan loads", f"prepare.track_history.{number}")
            raise loaded.error([problem])
    return names


def _made(loaded: LoadedPlan, finding: FieldFinding, preparer: Preparer) -> FieldFinding:
    """The finding once the field is there: made and granted if it was not."""
    if finding.state not in (FieldState.MISSING, FieldState.UNSEEN):
        return finding
    length = 0
    if finding.state is FieldState.MISSING:
        preparer.told(f"making the external ID field {finding.object}.{finding.field}")
        length = _key_room(loaded, loaded.plan.table(finding.table))
    return make_field(
        finding,
        preparer.setup,
        preparer.audit,
        org_id=preparer.org_id,
        length=length,
        permission_set=loaded.plan.prepare.permission_set,
        by=preparer.by,
    )


def _key_room(loaded: LoadedPlan, table: TablePlan) -> int:
    with open_source(loaded) as source:
        described = source.describe(table.table)
    keys = [table.key] if isinstance(table.key, str) else list(table.key)
    columns = [described.column(name) for name in keys]
    if missing := [name for name, column in zip(keys, columns, strict=True) if column is None]:
        raise loaded.error([loaded.problem(f"the table has no column `{missing[0]}`", f"tables.{table.table}.key")])
    return key_length([column for column in columns if column is not None])


def _check_known(states: Sequence[OrgState], names: Sequence[str]) -> None:
    known = {name for state in states for name in (state.name.lower(), state.name.lower().rpartition(".")[2])}
    for name in names:
        if name.lower() not in known:
            there = ", ".join(sorted(state.name for state in states)) or "none"
            raise UsageError(
                f"`{name}` is no automation that Forcelift switched off in this org",
                state="nothing was changed",
                hint=f"there are: {there}",
            )
