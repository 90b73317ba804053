"""The checklist of a plan before its migration: how each item stands, ticks and waivers, and the gate of production.

Reads:   the plan file, the audit database.
Writes:  ticks and waivers, which are only added and stand in the journal.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from forcelift.account.recorded import owner
from forcelift.account.signed import BEFORE, SignOff, signoffs_of_project
from forcelift.account.state import State, open_known_state, open_state
from forcelift.after.checklist import NAMES as AFTER_NAMES
from forcelift.audit.evidence import Evidence
from forcelift.audit.records import BatchMode
from forcelift.before.checklist import (
    NAMES,
    TICKED,
    DryRows,
    Item,
    Known,
    before_items,
    filter_digest,
    not_in_order,
)
from forcelift.during.checklist import NAMES as DURING_NAMES
from forcelift.during.checklist import TICKED as DURING_TICKED
from forcelift.errors import StateConflict, UsageError
from forcelift.plan import LoadedPlan, load_plan
from forcelift.plan.thresholds import threshold_values
from forcelift.preflight.backing_up import source_name
from forcelift.preflight.checking import KIND as CHECK
from forcelift.protocols.clock import Clock, SystemClock

ALL_NAMES = (*NAMES, *DURING_NAMES, *AFTER_NAMES)


class ChecklistReport(Struct, frozen=True, kw_only=True):
    """How the items stand. `blocking` is what would keep a run out of a production org."""

    project: str
    org_id: str | None
    items: tuple[Item, ...]
    blocking: tuple[str, ...]


def before_checklist(plan_file: str | Path, *, clock: Clock | None = None) -> ChecklistReport:
    """How the items before a migration stand, by what is recorded; the org is the one that was looked at last."""
    clock = clock or SystemClock()
    loaded = load_plan(plan_file)
    with open_known_state(loaded, clock=clock) as state:
        if state is None:
            # Nothing was done yet: that is what a list of open items says.
            known = Known(
                plan_sha256=loaded.sha256,
                tables=[table.table for table in loaded.plan.tables],
                org_id=None,
                audit_where=None,
                evidence=(),
                batches=(),
                backups=(),
                held=(),
                now=clock.now(),
            )
        else:
            known = _known(loaded, state, clock=clock, org_id=_last_org(loaded, state))
        return ChecklistReport(
            project=loaded.plan.project,
            org_id=known.org_id,
            items=tuple(before_items(known)),
            blocking=tuple(not_in_order(known)),
        )


def tick(plan_file: str | Path, item: str, *, by: str, note: str, clock: Clock | None = None) -> Evidence:
    """Record that a person says so, for what only a person can know.

    Raises:
        UsageError: There is no such item, or it has evidence of its own.
    """
    if item not in ALL_NAMES:
        raise _no_such("item", item)
    if item not in TICKED | DURING_TICKED:
        raise UsageError(
            f"`{item}` has evidence of its own and is not ticked by hand",
            state="nothing was written",
            hint=f"to go on without it: `forcelift checklist waive {item} --by NAME --reason TEXT`",
        )
    return _add(plan_file, "tick", item, by=by, note=note, clock=clock)


def waive(plan_file: str | Path, name: str, *, by: str, reason: str, clock: Clock | None = None) -> Evidence:
    """Record that a person goes on without an item of the checklist, or in spite of a check that failed.

    It is for the plan as it is now and the org that was looked at last; a changed plan needs a new one.

    Raises:
        UsageError: There is no such item, and no check of that name has failed.
    """
    if name not in ALL_NAMES and name not in _failed_checks(plan_file, clock):
        raise _no_such("item or failed check", name)
    return _add(plan_file, "waiver", name, by=by, note=reason, clock=clock)


def refuse_unready(
    loaded: LoadedPlan, state: State, *, org_id: str, is_production: bool, prepares: bool, clock: Clock
) -> None:
    """Keep a load out of a production org that is not in order.

    Args:
        prepares: Whether the run switches automations off itself.
    Raises:
        StateConflict: Something is neither done nor waived.
    """
    if not is_production:
        return
    known = _known(loaded, state, clock=clock, org_id=org_id, prepares=prepares)
    if lines := not_in_order(known):
        raise StateConflict(
            "the target is a production org, and not everything is in order:\n"
            + "\n".join(f"  - {line}" for line in lines),
            state="no batch was begun; nothing was read or written",
            hint="do what each line says, or `forcelift checklist waive NAME --by YOU --reason TEXT`; it is journalled",
        )


def _known(loaded: LoadedPlan, state: State, *, clock: Clock, org_id: str | None, prepares: bool = False) -> Known:
    audit, project = state.audit, loaded.plan.project
    batches = audit.batches(project)
    dry_runs = [one.batch_id for one in batches if one.mode is BatchMode.DRY_RUN and one.plan_sha256 == loaded.sha256]
    chosen = {batch_id: audit.plan_document(batch_id).get("chosen_tables") for batch_id in dry_runs}
    signed = signoffs_of_project(state, project, plan_sha256=loaded.sha256, phase=BEFORE)
    return Known(
        plan_sha256=loaded.sha256,
        tables=[table.table for table in loaded.plan.tables],
        org_id=org_id,
        audit_where=audit.where,
        evidence=audit.evidence(project),
        batches=batches,
        backups=audit.backups(source_name(loaded)),
        held=audit.open_states(org_id) if org_id is not None else [],
        now=clock.now(),
        prepares=prepares,
        put_back_at=audit.last_put_back(org_id, [one.object for one in loaded.plan.tables]) if org_id else None,
        chosen={batch_id: tables for batch_id, tables in chosen.items() if tables},
        samples=audit.sample_percents(dry_runs),
        dry_rows={batch_id: _dry_rows(state, batch_id) for batch_id in dry_runs},
        rejected_percent_max=threshold_values(loaded.plan.thresholds)["fail_rate_critical"],
        filters={one.table: digest for one in loaded.plan.tables if (digest := filter_digest(one.where)) is not None},
        roles=loaded.plan.roles.sign_off,
        signed={one.role: _sign_off_words(one) for one in signed if not one.is_stale},
        stale=[_sign_off_words(one) for one in signed if one.is_stale],
    )


def _dry_rows(state: State, batch_id: str) -> dict[str, DryRows]:
    """Of each table of a dry run the rows that its rules decided, duplicates apart."""
    counted: dict[str, DryRows] = {}
    for chunk in state.audit.chunks(batch_id):
        if (staged := chunk.staged) is not None:
            before = counted.get(chunk.table_name, DryRows(decided=0, rejected=0))
            counted[chunk.table_name] = DryRows(
                decided=before.decided + staged.transformed + staged.rejected,
                rejected=before.rejected + staged.rejected,
            )
    return counted


def _sign_off_words(one: SignOff) -> str:
    stale = f" (out of date: {one.why_stale})" if one.why_stale is not None else ""
    return f"{one.role}: {one.name}, {one.at:%Y-%m-%d %H:%M} UTC{stale}"


def _last_org(loaded: LoadedPlan, state: State) -> str | None:
    # A tick or a waiver is said of an org and has not looked at it.
    looks = [
        one
        for one in state.audit.evidence(loaded.plan.project)
        if one.org_id is not None and one.kind not in ("tick", "waiver")
    ]
    return looks[-1].org_id if looks else None


def _failed_checks(plan_file: str | Path, clock: Clock | None) -> set[str]:
    loaded = load_plan(plan_file)
    with open_state(loaded, clock=clock or SystemClock(), create=True) as state:
        checks = state.audit.evidence(loaded.plan.project, CHECK)
    if not checks:
        return set()
    return {one["name"] for one in checks[-1].document["results"] if one["verdict"] == "fail"}


def _add(plan_file: str | Path, kind: str, name: str, *, by: str, note: str, clock: Clock | None) -> Evidence:
    for what, text in (("--by", by), ("--note" if kind == "tick" else "--reason", note)):
        if not text.strip():
            raise UsageError(f"`{what}` is empty", state="nothing was written", hint="say who, and why")
    loaded = load_plan(plan_file)
    with open_state(loaded, clock=clock or SystemClock(), create=True) as state:
        org_id = _last_org(loaded, state)
        if org_id is None:
            raise UsageError(
                "nothing has told yet which org this plan loads, and what is said here is said of one org",
                state="nothing was written",
                hint="`forcelift check`, then the same command again",
            )
        return state.audit.add_evidence(
            project=loaded.plan.project,
            kind=kind,
            name=name,
            plan_sha256=loaded.sha256,
            org_id=org_id,
            passed=None,
            document={"note": note, "typed_by": owner()},
            by=by,
        )


def _no_such(what: str, name: str) -> UsageError:
    return UsageError(
        f"there is no {what} `{name}`",
        state="nothing was written",
        hint=f"items are: {', '.join(ALL_NAMES)}; `forcelift check` names the checks",
    )
