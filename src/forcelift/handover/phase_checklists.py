"""The checklist during and after a migration: how each item stands, by what is recorded.

Reads:   the plan file, audit database and ledger, the report's file; neither source nor org.
Writes:  nothing; that the kill switch can be written is tried in a transaction that is undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from forcelift.account.signed import AFTER, SignOff, signoffs_of_project
from forcelift.account.state import State, open_known_state
from forcelift.after.checklist import AfterKnown, Checked, after_items
from forcelift.after.report import Words
from forcelift.after.report.content import details_of
from forcelift.after.report.figures import ReportStatus
from forcelift.audit.evidence import Evidence
from forcelift.audit.records import Batch, BatchMode
from forcelift.audit.scope import Scope, batch_scope, project_scope
from forcelift.checkitems import Item, ItemState
from forcelift.during.checklist import DuringKnown, during_items
from forcelift.errors import ForceliftError
from forcelift.handover.reporting import report_batch
from forcelift.handover.signing import report_fault
from forcelift.plan import LoadedPlan, load_plan
from forcelift.plan.thresholds import threshold_values
from forcelift.protocols.clock import Clock, SystemClock

_OUT_OF_DATE = "out_of_date"


def during_checklist(
    plan_file: str | Path, batch_id: str | None = None, *, clock: Clock | None = None
) -> tuple[Item, ...]:
    """How the items during a migration stand; of the plan's newest batch unless one is named."""
    clock, loaded = clock or SystemClock(), load_plan(plan_file)
    with open_known_state(loaded, clock=clock) as state:
        batch = _batch(loaded, state, batch_id, loads_only=False) if state is not None else None
        known = DuringKnown(
            thresholds=threshold_values(loaded.plan.thresholds),
            changed=tuple(loaded.plan.thresholds),
            on_call=loaded.plan.roles.on_call,
            batch_id=batch.batch_id if batch is not None else None,
            control_fault=_control_fault(state, batch),
            ticks=_said(loaded, state, "tick"),
        )
        return _with_waivers(during_items(known), _said(loaded, state, "waiver"))


def after_checklist(
    plan_file: str | Path, batch_id: str | None = None, *, project: bool = False, clock: Clock | None = None
) -> tuple[Item, ...]:
    """How the items after a migration stand: of a batch, by default the newest one loaded, or of the project."""
    clock, loaded = clock or SystemClock(), load_plan(plan_file)
    with open_known_state(loaded, clock=clock) as state:
        scope = _scope(loaded, state, batch_id, project=project) if state is not None else None
        checked = _checked(plan_file, scope, clock) if scope is not None else {}
        known = _after_known(loaded, state, scope, checked)
        return _with_waivers(after_items(known), _said(loaded, state, "waiver"))


def _scope(loaded: LoadedPlan, state: State, batch_id: str | None, *, project: bool) -> Scope | None:
    if project:
        return project_scope(state.audit.batches(loaded.plan.project))
    batch = _batch(loaded, state, batch_id, loads_only=True)
    return batch_scope(batch) if batch is not None else None


def _after_known(
    loaded: LoadedPlan, state: State | None, scope: Scope | None, checked: Mapping[int, Checked]
) -> AfterKnown:
    roles = loaded.plan.roles.sign_off
    if scope is None or state is None:
        return AfterKnown(
            asked=None, checked={}, held=(), report=None, report_fault=None, roles=roles, signed={}, stale=()
        )
    audit, batch_id = state.audit, None if scope.is_project else scope.newest.batch_id
    # Who signed for the project signed for each of its batches, and nobody for the project by signing for one.
    signed = [
        one
        for one in signoffs_of_project(state, scope.project, plan_sha256=loaded.sha256, phase=AFTER)
        if one.batch_id in (None, batch_id)
    ]
    made = audit.reports_of(batch_id, scope.project)
    return AfterKnown(
        asked=batch_id or "--project",
        checked=checked,
        held=[f"{one.kind.replace('_', ' ')} {one.name}" for one in audit.open_states(scope.org_id)],
        report=f"{made[-1].file or 'written'}, {made[-1].at:%Y-%m-%d %H:%M} UTC" if made else None,
        report_fault=report_fault(state, scope.batch_ids, made[-1]) if made else None,
        roles=roles,
        signed={one.role: _words(one) for one in signed if not one.is_stale},
        stale=[_words(one) for one in signed if one.is_stale],
    )


def _words(one: SignOff) -> str:
    stale = f" (out of date: {one.why_stale})" if one.why_stale is not None else ""
    return f"{one.role}: {one.name}, {one.at:%Y-%m-%d %H:%M} UTC{stale}"


def _checked(plan_file: str | Path, scope: Scope, clock: Clock) -> dict[int, Checked]:
    """Levels 1 to 4 as the final report would have them: what was validated before the last change counts no more."""
    batch_id = None if scope.is_project else scope.newest.batch_id
    figures = report_batch(plan_file, batch_id, project=scope.is_project, clock=clock).figures
    english = Words()
    return {
        one.level: Checked(
            passed=one.status is ReportStatus.PASS,
            is_stale=any(said.key == _OUT_OF_DATE for said in one.said),
            words=f"{one.status.value}: {details_of(one.said, english)}"
            + (f" ({one.taken_at:%Y-%m-%d %H:%M} UTC)" if one.taken_at is not None else ""),
        )
        for one in figures.reconciled
        if one.level <= 4
    }


def _batch(loaded: LoadedPlan, state: State, batch_id: str | None, *, loads_only: bool) -> Batch | None:
    batches = state.audit.batches(loaded.plan.project)
    if loads_only:
        batches = [one for one in batches if one.mode is not BatchMode.DRY_RUN]
    if batch_id is not None:
        batches = [one for one in batches if one.batch_id == batch_id]
    return batches[-1] if batches else None


def _control_fault(state: State | None, batch: Batch | None) -> str | None:
    if batch is None or state is None:
        return None
    try:
        state.audit.try_control(batch.batch_id)
    except ForceliftError as error:
        return error.message
    return None


def _said(loaded: LoadedPlan, state: State | None, kind: str) -> dict[str, str]:
    """Ticks or waivers for the plan as it is, of the org that was looked at last, by item."""
    if state is None:
        return {}
    evidence = state.audit.evidence(loaded.plan.project)
    orgs = [one.org_id for one in evidence if one.kind == "check" and one.org_id is not None]
    org_id = orgs[-1] if orgs else None
    mine = (one for one in evidence if one.kind == kind and one.plan_sha256 == loaded.sha256 and one.org_id == org_id)
    return {one.name: _line(one) for one in mine}


def _line(one: Evidence) -> str:
    return f"{one.made_by}, {one.made_at:%Y-%m-%d %H:%M} UTC: {one.document.get('note') or ''}"


def _with_waivers(items: list[Item], waivers: Mapping[str, str]) -> tuple[Item, ...]:
    return tuple(
        replace(one, state=ItemState.WAIVED, evidence=waivers[one.name])
        if one.state is not ItemState.DONE and one.name in waivers
        else one
        for one in items
    )
