"""Steps that destroy and for which the plan wants a second person: asked for by one, consented to by another.

Reads:   the plan file, the audit database.
Writes:  requests and consents, with the journal.

A name is what somebody typed. What is told apart is the login of the operating system, and who has one login can type
two names: where people share a login, a consent says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from forcelift.account.recorded import open_recorded, owner, user_of
from forcelift.audit import AuditStore
from forcelift.audit.consents import Consent
from forcelift.audit.signoffs import sha256_of
from forcelift.errors import StateConflict, UsageError
from forcelift.people import clean_name, folded
from forcelift.plan import LoadedPlan
from forcelift.protocols.clock import Clock, SystemClock

HOURS_MAX: Final = 168
"""The longest that a consent may hold."""


class Approval(Struct, frozen=True, kw_only=True):
    """A second person's consent to request `number`, for so many hours."""

    number: int
    name: str
    note: str = ""
    hours: int = 24
    shared_login: bool = False


def need_consent(
    loaded: LoadedPlan,
    audit: AuditStore,
    *,
    step: str,
    subject: str,
    details: Mapping[str, Any],
    batch_id: str | None = None,
) -> None:
    """Go on if the plan wants no second person for this step, or one has consented to exactly this.

    The plan is the file as it is now, and as the batch recorded it: to take the step out of the file is not enough.

    Args:
        step: As `roles.second_person_for` names it.
        subject: What it is about, in words.
        details: What would be destroyed: a consent holds for this and nothing else.
        batch_id: The batch that it is about, if it is about one.
    Raises:
        StateConflict: Nobody has consented; the request is written down and named.
    """
    if step not in _wanted_for(loaded, audit, batch_id):
        return
    project = loaded.plan.project
    found = _usable(loaded, audit, step=step, details=details)
    if found is not None and audit.use_consent(found.consent_no, by=owner()):
        return
    asked = audit.ask_consent(project, step=step, subject=subject, details=details, by=owner())
    raise StateConflict(
        f"`{step}` of {subject} needs a second person (`roles.second_person_for`): request {asked.consent_no}",
        state="nothing was changed",
        hint=f"somebody else, at a login of their own: `forcelift approve {asked.consent_no} --name NAME`; then the "
        "same command again",
    )


def need_all_consents(
    loaded: LoadedPlan, audit: AuditStore, *, step: str, asked: Sequence[tuple[str, str, Mapping[str, Any]]]
) -> None:
    """Ask for all consents that are lacking before the first step of several is taken. Nothing is used up.

    Args:
        asked: Batch, subject and details of each.
    Raises:
        StateConflict: Some are lacking; the requests are written down and named.
    """
    lacking = [
        audit.ask_consent(loaded.plan.project, step=step, subject=subject, details=details, by=owner()).consent_no
        for batch_id, subject, details in asked
        if step in _wanted_for(loaded, audit, batch_id) and _usable(loaded, audit, step=step, details=details) is None
    ]
    if lacking:
        numbers = ", ".join(str(number) for number in lacking)
        raise StateConflict(
            f"`{step}` needs a second person (`roles.second_person_for`): requests {numbers}",
            state="nothing was changed",
            hint=f"somebody else, at a login of their own: `forcelift approve {lacking[0]} --name NAME` and so on; "
            "then the same command again",
        )


def _usable(loaded: LoadedPlan, audit: AuditStore, *, step: str, details: Mapping[str, Any]) -> Consent | None:
    """A consent to exactly this that still holds and that somebody else has given; nothing is used up."""
    digest, now, here = sha256_of(details), audit.clock.now(), user_of(owner())
    for one in audit.consents(loaded.plan.project):
        # Who consented at one login does not carry it out there as well: that would be one person, whoever asked.
        is_others = one.shared_login or (one.typed_by is not None and not _is_same(user_of(one.typed_by), here))
        if one.step == step and one.sha256 == digest and one.holds(now) and is_others:
            return one
    return None


def _is_same(one: str, other: str) -> bool:
    """Whether two logins or names may be one person's, whatever the case, width and blanks."""
    return one == other or (folded(one) == folded(other) != "")


def _wanted_for(loaded: LoadedPlan, audit: AuditStore, batch_id: str | None) -> set[str]:
    wanted = set(loaded.plan.roles.second_person_for)
    if batch_id is not None:
        roles = audit.plan_document(batch_id).get("roles") or {}
        wanted |= set(roles.get("second_person_for") or ())
    return wanted


def waiting_consents(plan_file: str | Path, *, clock: Clock | None = None) -> list[Consent]:
    """The requests that wait for a second person, oldest first."""
    with open_recorded(plan_file, clock=clock) as (loaded, state):
        return [one for one in state.audit.consents(loaded.plan.project) if one.approved_at is None]


def give_consent(plan_file: str | Path, approval: Approval, *, clock: Clock | None = None) -> Consent:
    """Consent to a request as its second person.

    Raises:
        UsageError: There is no name, or the hours are none that a consent may hold.
        StateConflict: There is no such request that waits, or it is the same person's as far as that can be told.
    """
    name = clean_name(approval.name, who="who consents")
    if not 1 <= approval.hours <= HOURS_MAX:
        raise UsageError(
            f"a consent holds for 1 to {HOURS_MAX} hours", state="nothing was changed", hint="say it by `--valid-hours`"
        )
    with open_recorded(plan_file, clock=clock or SystemClock()) as (loaded, state):
        found = next(
            (one for one in state.audit.consents(loaded.plan.project) if one.consent_no == approval.number), None
        )
        if found is None or found.approved_at is not None:
            raise StateConflict(
                f"no request {approval.number} of this project waits for a second person",
                state="nothing was changed",
                hint="`forcelift approve` lists those that wait",
            )
        asker, here = user_of(found.asked_by), user_of(owner())
        is_shared = _is_same(here, asker)
        if _is_same(name, asker):
            raise StateConflict(
                f"`{name}` asked for it, and the second person is another",
                state="nothing was changed",
                hint="somebody else consents",
            )
        if is_shared and not approval.shared_login:
            raise StateConflict(
                f"request {approval.number} was asked for at this login (`{here}`)",
                state="nothing was changed",
                hint="the second person consents at a login of their own; where people share one, say "
                "`--shared-login`: the consent then rests on the name alone, and the journal says so",
            )
        return state.audit.give_consent(
            approval.number,
            name=name,
            typed_by=owner(),
            shared_login=is_shared,
            note=approval.note.strip(),
            hours=approval.hours,
        )
