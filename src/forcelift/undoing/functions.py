"""The checklist's two functions: undo a batch's records of one object, and undo an object since a date.

Both show what they would do unless `execute=True`. They delete what this migration created and put back what it
changed; the checklist's own samples would delete records that existed before.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from forcelift.account.consents import need_all_consents
from forcelift.account.recorded import open_recorded
from forcelift.account.state import State
from forcelift.audit.records import Batch, BatchMode
from forcelift.errors import UsageError
from forcelift.plan import LoadedPlan, load_plan
from forcelift.protocols.clock import SystemClock
from forcelift.undoing.batch import (
    RollbackOptions,
    RollbackReport,
    RollbackWatcher,
    Scope,
    consent_details,
    roll_back,
)

DEFAULT_PLAN = "forcelift.yaml"


def since_date(text: str | date | datetime) -> datetime:
    """A cutoff as an instant; a date alone is its first moment in UTC. Raises `UsageError`."""
    if isinstance(text, datetime):
        found = text
    elif isinstance(text, date):
        found = datetime(text.year, text.month, text.day, tzinfo=UTC)
    else:
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise UsageError(
                f"`{text[:40]}` is no date", state="nothing was changed", hint="write it as 2026-01-31"
            ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def is_same_object(one: str, other: str) -> bool:
    """Whether two API names are one object's: the org does not mind their case."""
    return one.lower() == other.lower()


def full_rollback_batches(loaded: LoadedPlan, state: State, object_name: str) -> list[tuple[Batch, tuple[str, ...]]]:
    """The project's batches that loaded an object, newest first, each with its tables of that object."""
    found = []
    for batch in reversed(state.audit.batches(loaded.plan.project)):
        names = tuple(
            one.table_name for one in state.audit.tables(batch.batch_id) if is_same_object(one.object, object_name)
        )
        if names and batch.mode is not BatchMode.DRY_RUN:
            found.append((batch, names))
    return found


def rollback_failed_batch(
    batch_id: str,
    sf_object: str,
    *,
    plan_file: str | Path = DEFAULT_PLAN,
    execute: bool = False,
    reason: str | None = None,
    hard: bool = False,
) -> dict[str, Any]:
    """Undo what a batch did to one object: delete what it created, put back what it changed.

    Args:
        batch_id: The batch.
        sf_object: API name of the object.
        plan_file: The plan that the batch was begun with.
        execute: Do it; otherwise only say what would be done.
        reason: Why, for the journal; needed with `execute`.
        hard: Delete for good, past the recycle bin.
    Returns:
        The document of `forcelift rollback --json`.
    Raises:
        UsageError: The batch has no table of that object, or `execute` without a reason.
        StateConflict: See `forcelift.undoing.batch.roll_back`.
    """
    with open_recorded(plan_file) as (_, state):
        tables = tuple(one.table_name for one in state.audit.tables(batch_id) if is_same_object(one.object, sf_object))
    if not tables:
        raise UsageError(
            f"batch `{batch_id}` has no table of the object `{sf_object}`",
            state="nothing was changed",
            hint="see its tables by `forcelift status`",
        )
    options = RollbackOptions(batch_id=batch_id, scope=Scope(tables=tables, hard=hard), execute=execute, reason=reason)
    return roll_back(plan_file, options).document()


def full_rollback(
    sf_object: str,
    cutoff_date: str | date | datetime,
    *,
    plan_file: str | Path = DEFAULT_PLAN,
    execute: bool = False,
    reason: str | None = None,
    hard: bool = True,
) -> dict[str, Any]:
    """Delete the records of an object that this migration created and whose source row is not older than a date.

    Args:
        sf_object: API name of the object.
        cutoff_date: Compared with the plan's `created_field`, such as `Oracle_Created_Date__c`; a date alone is its
            first moment in UTC.
        plan_file: The plan.
        execute: Do it; otherwise only say what would be done.
        reason: Why, for the journal; needed with `execute`.
        hard: Delete for good, as the checklist has it; False leaves records in the recycle bin for 15 days.
    Returns:
        `object`, `since`, `executed`, the sums `deleted` and `kept`, and `batches`: the document of each batch's
        rollback, newest first.
    """
    reports = roll_back_object(
        plan_file, sf_object, since=since_date(cutoff_date), execute=execute, reason=reason, hard=hard
    )
    return full_document(sf_object, since_date(cutoff_date), reports, executed=execute)


def roll_back_object(
    plan_file: str | Path,
    object_name: str,
    *,
    since: datetime,
    execute: bool,
    reason: str | None,
    hard: bool,
    all_records: bool = False,
    without_images: bool = False,
    watcher: Callable[[str], RollbackWatcher] | None = None,
) -> list[RollbackReport]:
    """Undo what all batches of the plan's project created of an object since a date, newest batch first.

    With `all_records` also what others created or changed of it since then; only the command line offers that.

    Raises:
        UsageError: No batch loaded the object, or a table of it has no `created_field`.
    """
    loaded = load_plan(plan_file)
    fields = {
        table.table: table.created_field for table in loaded.plan.tables if is_same_object(table.object, object_name)
    }
    lacking = sorted(name for name, field in fields.items() if field is None)
    if lacking:
        raise UsageError(
            f"table `{lacking[0]}` has no `created_field`, so that its records cannot be told by date",
            state="nothing was changed",
            hint=f"name the field under `tables.{lacking[0]}.created_field`, or roll back whole batches",
        )
    with open_recorded(plan_file, clock=SystemClock()) as (opened, state):
        batches = full_rollback_batches(opened, state, object_name)
    if not batches:
        raise UsageError(
            f"no batch of this plan has loaded the object `{object_name}`",
            state="nothing was changed",
            hint="see the batches by `forcelift status`",
        )
    scopes = []
    for batch, names in batches:
        created = {name: str(fields[name]) for name in names if fields.get(name) is not None}
        # What the newest batch's rollback takes of others is gone when the older ones are looked at.
        takes_all = all_records and batch is batches[0][0]
        scope = Scope(tables=names, hard=hard, since=since, created_field=created, all_records=takes_all)
        scopes.append((batch, scope))
    if execute:
        with open_recorded(plan_file, clock=SystemClock()) as (opened, state):
            asked = [
                (
                    one.batch_id,
                    f"batch `{one.batch_id}`",
                    consent_details(state, one, of_it, without_images=without_images),
                )
                for one, of_it in scopes
                if state.audit.open_rollback(one.batch_id) is None
            ]
            need_all_consents(opened, state.audit, step="rollback", asked=asked)
    reports = []
    for batch, scope in scopes:
        options = RollbackOptions(
            batch_id=batch.batch_id, scope=scope, execute=execute, reason=reason, without_images=without_images
        )
        reports.append(roll_back(plan_file, options, watcher=watcher(batch.batch_id) if watcher else None))
    return reports


def full_document(
    object_name: str, since: datetime, reports: list[RollbackReport], *, executed: bool
) -> dict[str, Any]:
    """The JSON document of a full rollback."""
    return {
        "object": object_name,
        "since": since.isoformat(),
        "executed": executed,
        "deleted": sum(report.deleted for report in reports),
        "kept": sum(report.kept for report in reports),
        "batches": [report.document() for report in reports],
    }
