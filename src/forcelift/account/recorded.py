"""What is recorded of a plan's batches, for commands that only look or ask: no source, no org, no rules.

Reads:  the plan file, audit database and ledger.
Writes: nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from forcelift.account.signed import SignOff, signoffs_of_project
from forcelift.account.state import Recorded, State, open_state, open_to_look
from forcelift.account.summary import BatchSummary, summarise
from forcelift.audit.records import Asked, Batch, Control
from forcelift.errors import StateConflict, UsageError
from forcelift.plan import LoadedPlan, load_plan, masked_url
from forcelift.protocols.clock import Clock, SystemClock

if TYPE_CHECKING:
    from forcelift.account.projects import ProjectSummary
    from forcelift.audit import LeaseHolder, OrgState, PerformanceRow
    from forcelift.audit.scope import Scope


@contextmanager
def open_recorded(plan_file: str | Path, *, clock: Clock | None = None) -> Iterator[tuple[LoadedPlan, State]]:
    """The recorded state of a plan, for commands that only look or ask."""
    loaded = load_plan(plan_file)
    with open_state(loaded, clock=clock or SystemClock(), create=False) as state:
        yield loaded, state


def find_batch(loaded: LoadedPlan, state: Recorded, batch_id: str | None) -> Batch:
    """The batch of that name, or the plan's newest. Raises `StateConflict` if there is none."""
    batch = state.audit.batch(batch_id) if batch_id else state.audit.newest_batch(loaded.plan.project)
    if batch is None:
        name = f"batch `{batch_id}`" if batch_id else "batch of this plan"
        raise StateConflict(f"there is no {name}", hint="begin one with `forcelift run`")
    return batch


def scope_of(loaded: LoadedPlan, state: Recorded, batch_id: str | None, *, project: bool = False) -> Scope:
    """What a command is about: the batch of that name, the plan's newest, or with `project` all of the plan's project.

    A project is all batches of one `project` name that sent rows into the org of the newest of them.

    Raises:
        StateConflict: There is no such batch, or none of the project has sent rows.
        UsageError: A batch and the project are both asked for.
    """
    from forcelift.audit.scope import batch_scope, project_scope  # a batch's status does not ask for it

    if not project:
        return batch_scope(find_batch(loaded, state, batch_id))
    if batch_id is not None:
        raise UsageError(
            f"both batch `{batch_id}` and the whole project are asked for",
            state="nothing was read or written",
            hint="leave out the batch, or `--project`",
        )
    name = loaded.plan.project
    scope = project_scope(state.audit.batches(name))
    if scope is None:
        raise StateConflict(f"no batch of project `{name}` has sent rows", hint="begin one with `forcelift run`")
    return scope


def batch_summary(plan_file: str | Path, batch_id: str | None = None) -> BatchSummary:
    """What became of a batch so far, from audit database and ledger."""
    with open_recorded(plan_file) as (loaded, state):
        return summarise(state.audit, state.counted, find_batch(loaded, state, batch_id))


def automations_off(state: Recorded, *, org_id: str | None = None) -> tuple[str, ...]:
    """Automations that are, or may be, switched off right now: one line each, with since when and by whom.

    For whatever shows a batch: while there is a line, it has to be said loudly.

    Args:
        org_id: Of this org only; of all orgs of the audit database if None.
    """
    return tuple(map(_off_line, state.audit.open_states(org_id)))


def _off_line(one: OrgState) -> str:
    since = f"{(one.off_at or one.taken_at).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    held = ", ".join(str(holder) for holder in one.holders)
    state = "off" if one.off_at else "may be off"
    return (
        f"{one.kind.replace('_', ' ')} {one.name} of {one.object}: {state} since {since} by {one.taken_by};"
        f" {f'held by {held}' if held else 'held by nobody: `forcelift restore` puts it back'}"
    )


class BatchStatus(Struct, frozen=True, kw_only=True):
    """One batch as the audit database shows it, among all batches of its plan's project.

    Attributes:
        holder: The process at work on it, the longest of several; None if there is none.
        runners: All processes at work on it.
        asked: Who asked for `pause`, `throttle` and `stop`, and why; the last of each.
        waiting_for: Why nothing is begun right now, with the time until which if known; None if nothing holds it back.
        performance: Speed of the SUCCESS chunks, by the checklist's query.
        samples: Of `batches` those that are samples, with their percent.
        sign_offs: Who signed before and after it, and what has changed since.
        switched_off: Automations that are, or may be, switched off, of all orgs of the audit database.
    """

    summary: BatchSummary
    batches: tuple[Batch, ...]
    holder: LeaseHolder | None
    runners: tuple[LeaseHolder, ...]
    control: Control
    asked: dict[str, Asked]
    waiting_for: str | None
    performance: tuple[PerformanceRow, ...]
    samples: Mapping[str, str]
    switched_off: tuple[OrgState, ...] = ()
    sign_offs: tuple[SignOff, ...] = ()


def batch_status(
    plan_file: str | Path,
    batch_id: str | None = None,
    *,
    clock: Clock | None = None,
    on_switched_off: Callable[[Sequence[OrgState]], None] = lambda states: None,
) -> BatchStatus:
    """How a batch stands, whether or not a process is at work on it; the plan's newest if none is named.

    Args:
        on_switched_off: Told first, and also where there is no batch yet, of the automations that Forcelift switched
            off and that are not put back, of all orgs of the audit database.
    """
    clock, loaded = clock or SystemClock(), load_plan(plan_file)
    with open_to_look(loaded, clock=clock) as state:
        switched_off = tuple(state.audit.open_states())
        on_switched_off(switched_off)
        batches = tuple(state.audit.batches(loaded.plan.project))
        batch = batches[-1] if batches and batch_id is None else find_batch(loaded, state, batch_id)
        runners = tuple(state.audit.runners(batch.batch_id))
        holder = next(iter(runners), None)
        return BatchStatus(
            summary=summarise(state.audit, state.counted, batch),
            batches=batches,
            holder=holder,
            runners=runners,
            control=state.audit.control(batch.batch_id),
            asked=state.audit.asked(batch.batch_id),
            waiting_for=None if holder is None else _waiting_for(state, batch, clock.now()),
            performance=tuple(state.audit.performance(batch.batch_id)),
            samples=state.audit.sample_percents([one.batch_id for one in batches]),
            switched_off=switched_off,
            sign_offs=_sign_offs(loaded, state, batch),
        )


class ProjectStatus(Struct, frozen=True, kw_only=True):
    """All batches of a plan's project. `runners` are the processes at work, by batch; `switched_off` as of a batch."""

    summary: ProjectSummary
    runners: Mapping[str, tuple[LeaseHolder, ...]]
    switched_off: tuple[OrgState, ...] = ()


def project_status(
    plan_file: str | Path,
    *,
    clock: Clock | None = None,
    on_switched_off: Callable[[Sequence[OrgState]], None] = lambda states: None,
) -> ProjectStatus:
    """How all batches of the plan's project stand together: each row once, by the newest word on it.

    Raises:
        StateConflict: None of them has sent rows.
    """
    from forcelift.account.projects import summarise_project  # a batch's status does not wait for it

    with open_recorded(plan_file, clock=clock or SystemClock()) as (loaded, state):
        switched_off = tuple(state.audit.open_states())
        on_switched_off(switched_off)
        scope = scope_of(loaded, state, None, project=True)
        runners = {batch_id: tuple(state.audit.runners(batch_id)) for batch_id in scope.batch_ids}
        return ProjectStatus(
            summary=summarise_project(state.audit, state.counted, scope),
            runners={batch_id: found for batch_id, found in runners.items() if found},
            switched_off=switched_off,
        )


def _waiting_for(state: Recorded, batch: Batch, now: datetime) -> str | None:
    """Why those at work on a batch begin nothing right now; asked only where somebody is."""
    from forcelift.account.waiting import waiting_for

    if (waits := waiting_for(state.audit, batch.batch_id, now)) is not None:
        return waits
    silent = state.audit.silent_claim(batch.batch_id) if state.audit.can_share else None
    return str(silent) if silent is not None else None


def _sign_offs(loaded: LoadedPlan, state: Recorded, batch: Batch) -> tuple[SignOff, ...]:
    signed = signoffs_of_project(state, batch.project, plan_sha256=loaded.sha256)
    return tuple(one for one in signed if one.batch_id in (None, batch.batch_id))


def locations(loaded: LoadedPlan) -> dict[str, str]:
    """Where a plan's things lie: plan, audit database, ledger, staging. URLs are without secrets."""
    staging = loaded.staging()
    return {
        "plan": str(loaded.path),
        "audit_database": masked_url(loaded.audit_url()),
        "ledger": f"{staging}/ledger",
        "staging": staging,
    }


def owner() -> str:
    """Who runs this: user, host and process."""
    import socket  # those who only look have no need of it

    return f"{login()}@{socket.gethostname()}:{os.getpid()}"


def login() -> str:
    """The login of the operating system, by the number of the user: a name in the environment can be anybody's."""
    try:
        import pwd
    except ImportError:  # Windows
        import getpass

        return getpass.getuser()
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        # As in a container under a number that nobody has named.
        return f"uid{number}"


def user_of(owner: str) -> str:
    """The login within `owner()`, without host and process."""
    return owner.rpartition("@")[0]
