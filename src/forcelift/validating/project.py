"""Validate a whole project: each batch's records as far as no later batch has written them since.

So each record is compared once: with the row that the newest batch of those that wrote it had sent, cleaned by the plan
that this batch was begun with.

Reads:   the plan file, audit database, ledger, source and org.
Writes:  as `validation`, for each batch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from forcelift.account.projects import tables_read_again
from forcelift.account.recorded import scope_of
from forcelift.account.state import State, open_state
from forcelift.after.validate.checks import CheckStatus
from forcelift.after.validate.execute import validate_tables
from forcelift.after.validate.world import SharedScans, ValidateSettings
from forcelift.audit.records import Batch
from forcelift.audit.scope import Scope
from forcelift.errors import ExitCode, PlanError, StateConflict, UsageError
from forcelift.plan import LoadedPlan, load_plan, unsupported, with_tables
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.validating.batch import Sides, Validated, check_batch, check_settings, open_sides


class NotValidated(Struct, frozen=True, kw_only=True):
    """A batch that could not be compared, and why."""

    batch_id: str
    reason: str


class ProjectValidated(Struct, frozen=True, kw_only=True):
    """What a validation found of each batch of a project, and how the process should end."""

    scope: Scope
    settings: ValidateSettings
    batches: tuple[Validated, ...]
    not_validated: tuple[NotValidated, ...]
    api_calls: int

    @property
    def exit_code(self) -> ExitCode:
        """1 on any difference, and where a batch could not be compared at all."""
        is_different = any(one.found.has_difference for one in self.batches)
        return ExitCode.ROWS_REFUSED if is_different or self.not_validated else ExitCode.DONE

    def document(self) -> dict[str, Any]:
        """The JSON document of `--json`."""
        return {
            "project": self.scope.project,
            "levels": list(self.settings.levels),
            "seed": self.settings.seed,
            "exit_code": int(self.exit_code),
            "api_calls": self.api_calls,
            "statuses": {status.value: sum(one.found.count(status) for one in self.batches) for status in CheckStatus},
            "batches": [
                {"batch_id": one.batch.batch_id, "checks": [check.document() for check in one.found.checks]}
                for one in self.batches
            ],
            "not_validated": [{"batch_id": one.batch_id, "reason": one.reason} for one in self.not_validated],
        }


def validate_project(
    plan_file: str | Path,
    settings: ValidateSettings | None = None,
    *,
    tell: Callable[[str], None] = lambda sentence: None,
    clock: Clock | None = None,
) -> ProjectValidated:
    """Compare what the batches of the plan's project sent with what the org has, each record with the newest row of it.

    A batch that cannot be compared, such as one of another source, is told; the others are.

    Raises:
        StateConflict: No batch of the project has sent rows, or the plan signs in to another org.
        UsageError: A table is named that no batch has sent.
        SourceError, TargetError: A side cannot be asked.
    """
    clock, settings = clock or SystemClock(), settings or ValidateSettings()
    check_settings(settings)
    loaded = load_plan(plan_file)
    if later := unsupported(loaded.plan):
        raise loaded.error(later)
    done: list[Validated] = []
    left: list[NotValidated] = []
    with open_state(loaded, clock=clock, create=False) as state:
        scope = scope_of(loaded, state, None, project=True)
        tables = _tables(state, scope, settings)
        with open_sides(loaded, state, clock=clock, tell=tell) as sides:
            if sides.org.org_id != scope.org_id:
                raise StateConflict(
                    f"the project's newest batch went into org `{scope.org_id}`, but the plan signs in to "
                    f"`{sides.org.org_id}`",
                    state="nothing was compared",
                    hint="sign in to that org again",
                )
            again = tables_read_again(state.audit, scope)
            scans = SharedScans()
            for batch in scope.batches:
                names = tables[batch.batch_id]
                if not names:
                    continue
                tell(f"batch {batch.batch_id}")
                try:
                    done.append(
                        _validate(loaded, sides, batch, replace(settings, tables=names), scans, again[batch.batch_id])
                    )
                except (StateConflict, PlanError) as error:
                    left.append(NotValidated(batch_id=batch.batch_id, reason=error.message))
            # An interrupted validation leaves them, and the next one goes on with what was read.
            scans.remove()
            calls = sides.org.api_calls
    return ProjectValidated(
        scope=scope, settings=settings, batches=tuple(done), not_validated=tuple(left), api_calls=calls
    )


def _validate(
    loaded: LoadedPlan,
    sides: Sides,
    batch: Batch,
    settings: ValidateSettings,
    scans: SharedScans,
    read_again: frozenset[str],
) -> Validated:
    audit = sides.state.audit
    as_begun = loaded
    if batch.plan_sha256 != loaded.sha256:
        as_begun = with_tables(loaded, audit.plan_document(batch.batch_id), checks_of_now=True)
        check_batch(as_begun, sides.state, batch)
    calls = sides.org.api_calls
    with sides.world(as_begun, batch, settings, scans=scans, read_again=read_again) as world:
        found = validate_tables(world)
        return Validated(batch=batch, settings=settings, found=found, api_calls=sides.org.api_calls - calls)


def _tables(state: State, scope: Scope, settings: ValidateSettings) -> dict[str, tuple[str, ...]]:
    """By batch the tables that it has sent, of those that are asked for."""
    sent = {one: [row.table_name for row in state.audit.tables(one)] for one in scope.batch_ids}
    known = {name for names in sent.values() for name in names}
    if missing := sorted(set(settings.tables) - known):
        raise UsageError(
            f"no batch of the project has sent a table `{missing[0]}`",
            state="nothing was compared",
            hint=f"its tables are {', '.join(sorted(known)) or 'none'}",
        )
    return {
        one: tuple(name for name in names if not settings.tables or name in settings.tables)
        for one, names in sent.items()
    }
