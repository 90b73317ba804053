"""Sign a migration off, before and after it, and take a sign-off back.

Reads:   the plan file, what is recorded of plan, check, profile, estimate, data and reports; neither source nor org.
Writes:  a row for each sign-off, and the journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, field

from forcelift.account.recorded import find_batch, open_recorded, owner, scope_of
from forcelift.account.signed import AFTER, BEFORE, SignOff, file_fault, lacking_roles, signoffs_of_project
from forcelift.account.state import State
from forcelift.audit.chain import JournalHead
from forcelift.audit.evidence import Evidence
from forcelift.audit.records import Batch, BatchMode, ChunkStatus
from forcelift.audit.scope import Scope
from forcelift.audit.signoffs import NewSignOff, ReportMade, SignOffRow
from forcelift.errors import StateConflict, UsageError
from forcelift.people import clean_name
from forcelift.plan import LoadedPlan
from forcelift.plan.shape import did_you_mean
from forcelift.protocols.clock import Clock, SystemClock

CHECK_FRESH: Final = timedelta(hours=24)
_EVIDENCE: Final = {"check": "forcelift check", "profile": "forcelift profile", "estimate": "forcelift estimate"}
BOUND: Final[Mapping[str, tuple[str, ...]]] = {BEFORE: tuple(_EVIDENCE), AFTER: ("report",)}
"""What each phase binds beside plan and data, and may be gone on without by name."""

_UNSETTLED: Final = (ChunkStatus.PENDING, ChunkStatus.RUNNING)


class SignOffAsked(Struct, frozen=True, kw_only=True):
    """What is signed.

    Attributes:
        phase: `before` or `after`.
        role: One of the plan's `roles.sign_off`.
        name: Who signs.
        batch_id: After a migration: the batch; by default the plan's newest. Before it: None, or a batch that began.
        project: After a migration: all batches of the plan's project together, instead of one.
        without: What is not bound though it should be, such as `check`.
        because: Why; needed with `without`.
    """

    phase: str
    role: str
    name: str
    note: str = ""
    batch_id: str | None = None
    project: bool = False
    without: tuple[str, ...] = ()
    because: str = ""


class Signed(Struct, frozen=True, kw_only=True):
    """A sign-off that was written down. `head` is the journal's with it: whoever keeps it can check all before it."""

    row: SignOffRow
    head: JournalHead
    lacking: tuple[str, ...]


class SignOffList(Struct, frozen=True, kw_only=True):
    """All sign-offs of a project: those that stand or are stale, and those that were withdrawn."""

    project: str
    roles: tuple[str, ...]
    standing: tuple[SignOff, ...]
    withdrawn: tuple[SignOffRow, ...] = field(default=())


def sign_off(plan_file: str | Path, asked: SignOffAsked, *, clock: Clock | None = None) -> Signed:
    """Sign for a role, bound by digests to what there is.

    Raises:
        UsageError: The role is none of the plan's, a name is missing, or `without` names what is not bound anyway.
        StateConflict: Something that is to be bound is missing or out of date, or a process works on the batch.
    """
    clock = clock or SystemClock()
    with open_recorded(plan_file, clock=clock) as (loaded, state):
        role = _role(loaded, asked.role)
        _check_words(asked)
        name = clean_name(asked.name, who="who signs")
        if asked.phase == BEFORE:
            batch = find_batch(loaded, state, asked.batch_id) if asked.batch_id is not None else None
            binds, faults = _before(loaded, state, batch, clock)
        else:
            scope = scope_of(loaded, state, asked.batch_id, project=asked.project)
            for one in scope.batches:
                _refuse_unfinished(state, one)
            batch = None if scope.is_project else scope.newest
            binds, faults = _after(state, scope)
        _refuse_faults(asked, faults)
        for what in asked.without:
            binds.pop(what, None)
        binds["without"] = {what: asked.because.strip() for what in asked.without}
        row = state.audit.add_sign_off(
            NewSignOff(
                project=loaded.plan.project,
                phase=asked.phase,
                batch_id=batch.batch_id if batch is not None else None,
                role=role,
                name=name,
                note=asked.note.strip(),
                typed_by=owner(),
                binds=binds,
            )
        )
        signed = signoffs_of_project(state, loaded.plan.project, plan_sha256=loaded.sha256, phase=asked.phase)
        mine = [one for one in signed if one.batch_id == row.batch_id]
        lacking = lacking_roles(loaded.plan.roles.sign_off, mine)
        return Signed(row=row, head=state.audit.journal_head(), lacking=tuple(lacking))


def list_sign_offs(plan_file: str | Path, *, clock: Clock | None = None) -> SignOffList:
    """All sign-offs of the plan's project, each with what has changed since."""
    with open_recorded(plan_file, clock=clock) as (loaded, state):
        project = loaded.plan.project
        return SignOffList(
            project=project,
            roles=loaded.plan.roles.sign_off,
            standing=tuple(signoffs_of_project(state, project, plan_sha256=loaded.sha256)),
            withdrawn=tuple(row for row in state.audit.sign_offs(project) if row.withdrawn_at is not None),
        )


def withdraw(plan_file: str | Path, number: int, *, because: str, clock: Clock | None = None) -> SignOffRow:
    """Take a sign-off back; it stays readable, with the reason.

    Raises:
        UsageError: There is no reason.
        StateConflict: There is no sign-off of that number that stands.
    """
    if not because.strip():
        raise UsageError("a sign-off is taken back for a reason", state="nothing was changed", hint="say `--because`")
    with open_recorded(plan_file, clock=clock) as (loaded, state):
        return state.audit.withdraw_sign_off(loaded.plan.project, number, by=owner(), because=because.strip())


def login_of(typed_by: str) -> str:
    """User and host of `owner()`, without the process."""
    return typed_by.rpartition(":")[0] or typed_by


def _role(loaded: LoadedPlan, asked: str) -> str:
    roles = loaded.plan.roles.sign_off
    for role in roles:
        if role.casefold() == asked.strip().casefold():
            return role
    raise UsageError(
        f"the plan has no role `{asked}` that signs",
        state="nothing was signed",
        hint=did_you_mean(asked, roles) or f"`roles.sign_off` has: {', '.join(roles)}",
    )


def _check_words(asked: SignOffAsked) -> None:
    for what in asked.without:
        if what not in BOUND[asked.phase]:
            raise UsageError(
                f"a sign-off {asked.phase} a migration does not bind `{what}`",
                state="nothing was signed",
                hint=f"`--without` takes: {', '.join(BOUND[asked.phase])}",
            )
    if asked.without and not asked.because.strip():
        raise UsageError(
            "what is signed without something has a reason",
            state="nothing was signed",
            hint='say it by `--because "..."`; it stands in the sign-off and in the journal',
        )


def _before(
    loaded: LoadedPlan, state: State, batch: Batch | None, clock: Clock
) -> tuple[dict[str, Any], dict[str, str]]:
    evidence = state.audit.evidence(loaded.plan.project)
    orgs = [one.org_id for one in evidence if one.kind == "check" and one.org_id is not None]
    org_id = orgs[-1] if orgs else None
    plan = {"sha256": loaded.sha256, "revision": batch.plan_revision if batch is not None else None}
    binds: dict[str, Any] = {"plan": plan, "org_id": org_id}
    faults: dict[str, str] = {}
    for kind, command in _EVIDENCE.items():
        about = [one for one in evidence if one.kind == kind and one.org_id in (None, org_id)]
        if not about:
            faults[kind] = f"none is recorded; `{command}`"
            continue
        newest = about[-1]
        if newest.plan_sha256 != loaded.sha256:
            faults[kind] = f"evidence {newest.evidence_no} is of another state of the plan; `{command}`"
        elif kind == "check" and clock.now() - newest.made_at > CHECK_FRESH:
            faults[kind] = f"evidence {newest.evidence_no} is of {newest.made_at:%Y-%m-%d %H:%M} UTC; `{command}`"
        binds[kind] = _evidence(newest)
    if batch is not None and batch.plan_sha256 != loaded.sha256:
        raise StateConflict(
            f"batch `{batch.batch_id}` runs under another state of the plan than the file",
            state="nothing was signed",
            hint="sign without `--batch`, or put the plan back",
        )
    return binds, faults


def _evidence(one: Evidence) -> dict[str, Any]:
    return {
        "evidence": one.evidence_no,
        "sha256": one.sha256,
        "made_at": one.made_at.isoformat(),
        "passed": one.passed,
    }


def _after(state: State, scope: Scope) -> tuple[dict[str, Any], dict[str, str]]:
    audit, again = state.audit, _again(scope)
    binds: dict[str, Any] = {
        "plan": {one.batch_id: {"sha256": one.plan_sha256, "revision": one.plan_revision} for one in scope.batches},
        "data": {one.batch_id: audit.data_state(one.batch_id) for one in scope.batches},
    }
    made = audit.reports_of(None if scope.is_project else scope.newest.batch_id, scope.project)
    if not made:
        return binds, {"report": f"none was written; {again}"}
    report = made[-1]
    # The same report may have been written in several forms.
    others = {one.format: one for one in made if one.format != report.format and one.content == report.content}
    binds["report"] = {
        "sha256": report.sha256,
        "file": report.file,
        "seq": report.seq,
        "content": report.content,
        "made_at": report.at.isoformat(),
        "also": [
            {"sha256": one.sha256, "file": one.file}
            for one in others.values()
            if report_fault(state, scope.batch_ids, one) is None
        ],
    }
    fault = report_fault(state, scope.batch_ids, report)
    return binds, {} if fault is None else {"report": f"{fault}; {again}"}


def _again(scope: Scope) -> str:
    which = " --project" if scope.is_project else f" {scope.newest.batch_id}"
    return f"`forcelift report{which} --out FILE`"


def report_fault(state: State, batch_ids: Sequence[str], report: ReportMade) -> str | None:
    """Why a report counts no more: the data have changed since, or its file; None if it counts."""
    for batch_id in batch_ids:
        if moved := state.audit.moves_since(batch_id, report.seq):
            return f"the data have changed since it was written ({moved[0]})"
        if noted := state.audit.words_since(batch_id, report.seq):
            return f"what it says of refused rows has changed since it was written ({noted[0]})"
    return file_fault(report.file, report.sha256)


def _refuse_unfinished(state: State, batch: Batch) -> None:
    if batch.mode is BatchMode.DRY_RUN:
        raise StateConflict(
            f"batch `{batch.batch_id}` was a dry run: there is nothing to sign off",
            state="nothing was signed",
            hint="name a batch that was loaded by `--batch`",
        )
    runners = state.audit.runners(batch.batch_id)
    if runners:
        raise StateConflict(
            f"batch `{batch.batch_id}` is being worked on by {runners[0].owner}",
            state="nothing was signed",
            hint="wait for its end",
        )
    # Sums are as before until such a thing is settled, while the org may be changed in part already.
    for is_open, what, command in (
        (state.audit.open_rollback(batch.batch_id), "rollback", f"forcelift rollback {batch.batch_id} --execute"),
        (state.audit.open_retry(batch.batch_id), "retry", f"forcelift failed retry --batch {batch.batch_id}"),
    ):
        if is_open is not None:
            raise StateConflict(
                f"a {what} of batch `{batch.batch_id}` is not through",
                state="nothing was signed",
                hint=f"go on with it by `{command}`",
            )
    left = sum(1 for chunk in state.audit.chunks(batch.batch_id) if chunk.status in _UNSETTLED)
    if left:
        raise StateConflict(
            f"batch `{batch.batch_id}` is not through: {left:,} chunks wait",
            state="nothing was signed",
            hint=f"`forcelift run --resume {batch.batch_id}`",
        )


def _refuse_faults(asked: SignOffAsked, faults: Mapping[str, str]) -> None:
    open_ones = {what: why for what, why in faults.items() if what not in asked.without}
    if not open_ones:
        return
    first = next(iter(open_ones))
    raise StateConflict(
        f"a sign-off {asked.phase} the migration binds what is missing or out of date:\n"
        + "\n".join(f"  - {what}: {why}" for what, why in open_ones.items()),
        state="nothing was signed",
        hint=f'do what each line says, or sign by `--without {first} --because "..."`; it is journalled',
    )
