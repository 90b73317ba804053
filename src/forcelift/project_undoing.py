"""Take back what a whole project did: its batches, the newest first, so that each finds what it had left.

What a later batch changed is put back before the earlier one is looked at. So a record that several batches wrote gets
the values again that it had before the first of them, or is deleted with the batch that created it.

Reads:   as `undoing`, for each batch.
Writes:  as `undoing`, for each batch. The preview's files are removed when all batches were looked at.
Re-run:  batches that are rolled back wholly are passed over; an interrupted one is gone on with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forcelift.after.rollback.later import Later
from forcelift.after.rollback.scope import DELETE, KEEP, RESTORE, rollback_folder
from forcelift.audit.records import Batch, ChunkStatus
from forcelift.audit.scope import Scope as Batches
from forcelift.errors import ExitCode, PlanError, StateConflict, UsageError
from forcelift.plan import load_plan
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.recorded import open_recorded, scope_of
from forcelift.state import State, open_state
from forcelift.undoing import RollbackOptions, RollbackReport, RollbackWatcher, Scope, roll_back


@dataclass(frozen=True, slots=True, kw_only=True)
class NotUndone:
    """A batch whose rollback was refused, and why."""

    batch_id: str
    reason: str
    hint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectRollback:
    """What the rollback of a project would do, or has done, newest batch first.

    Attributes:
        deleted, restored, kept: Records, each once: what is deleted in the end was perhaps put back before.
        passed_over: Batches of which nothing is left to undo.
    """

    batches: Batches
    executed: bool
    reports: tuple[RollbackReport, ...]
    refused: tuple[NotUndone, ...]
    passed_over: tuple[str, ...]
    deleted: int
    restored: int
    kept: int

    @property
    def exit_code(self) -> ExitCode:
        """3 if a batch could not be looked at or undone; 1 if records were kept."""
        if self.refused:
            return ExitCode.STATE
        return ExitCode.ROWS_REFUSED if self.kept else ExitCode.DONE

    def document(self) -> dict[str, Any]:
        """The JSON document of `--json`."""
        return {
            "project": self.batches.project,
            "executed": self.executed,
            "deleted": self.deleted,
            "restored": self.restored,
            "kept": self.kept,
            "batches": [report.document() for report in self.reports],
            "refused": [{"batch_id": one.batch_id, "reason": one.reason, "hint": one.hint} for one in self.refused],
            "passed_over": list(self.passed_over),
        }


def roll_back_project(
    plan_file: str | Path,
    *,
    tables: tuple[str, ...] = (),
    hard: bool | None = None,
    execute: bool = False,
    reason: str | None = None,
    without_images: bool = False,
    watcher: Callable[[str], RollbackWatcher] | None = None,
    clock: Clock | None = None,
) -> ProjectRollback:
    """Undo all batches of the plan's project, newest first, or show what that would do.

    A batch that is refused, as a process works on it or rows of it have an unknown fate, is told; the others are
    undone. What it holds is kept then by the rollbacks of earlier batches.

    Args:
        tables: Only these; all if empty.
        watcher: Gives the watcher of a batch.
    Raises:
        StateConflict: No batch of the project has sent rows.
        UsageError: `execute` without a reason, or a table that no batch has sent.
    """
    clock = clock or SystemClock()
    if execute and not (reason or "").strip():
        raise UsageError(
            "a rollback needs its reason",
            state="nothing was changed",
            hint='give it by `--reason "..."`; it goes into the journal',
        )
    with open_recorded(plan_file, clock=clock) as (loaded, state):
        batches = scope_of(loaded, state, None, project=True)
        wanted = _tables(state, batches, tables)
        left = {batch.batch_id for batch in batches.batches if _is_left(state, batch, wanted[batch.batch_id])}
    reports: list[RollbackReport] = []
    refused: list[NotUndone] = []
    later = None if execute else Later()
    try:
        for batch in reversed(batches.batches):
            names = wanted[batch.batch_id]
            if batch.batch_id not in left:
                continue
            options = RollbackOptions(
                batch_id=batch.batch_id,
                scope=Scope(tables=names if tables else (), hard=bool(hard)),
                execute=execute,
                reason=reason,
                hard=hard,
                without_images=without_images,
            )
            try:
                reports.append(
                    roll_back(
                        plan_file,
                        options,
                        watcher=watcher(batch.batch_id) if watcher else None,
                        clock=clock,
                        as_begun=True,
                        later=later,
                    )
                )
            except (StateConflict, UsageError, PlanError) as error:
                refused.append(NotUndone(batch_id=batch.batch_id, reason=error.message, hint=error.hint))
        deleted, restored, kept = _records(plan_file, reports, later, clock=clock)
    finally:
        _remove(plan_file, later, clock=clock)
    return ProjectRollback(
        batches=batches,
        executed=execute,
        reports=tuple(reports),
        refused=tuple(refused),
        passed_over=tuple(one.batch_id for one in batches.batches if one.batch_id not in left),
        deleted=deleted,
        restored=restored,
        kept=kept,
    )


def _tables(state: State, batches: Batches, tables: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """By batch the tables that it has sent, of those that are asked for."""
    sent = {one: [row.table_name for row in state.audit.tables(one)] for one in batches.batch_ids}
    known = {name for names in sent.values() for name in names}
    if missing := sorted(set(tables) - known):
        raise UsageError(
            f"no batch of the project has sent a table `{missing[0]}`",
            state="nothing was changed",
            hint=f"its tables are {', '.join(sorted(known)) or 'none'}",
        )
    return {one: tuple(name for name in names if not tables or name in tables) for one, names in sent.items()}


def _is_left(state: State, batch: Batch, tables: Sequence[str]) -> bool:
    """Whether there is anything to undo: a rollback that is not through, or rows that were sent and not taken back."""
    audit = state.audit
    if audit.open_rollback(batch.batch_id) is not None:
        return True
    sent = {job.audit_id for job in audit.jobs(batch.batch_id)}
    return any(
        chunk.table_name in tables
        and chunk.status is not ChunkStatus.ROLLED_BACK
        and (chunk.audit_id in sent or chunk.ledger_file is not None)
        for chunk in audit.chunks(batch.batch_id)
    )


def _records(
    plan_file: str | Path, reports: Sequence[RollbackReport], later: Later | None, *, clock: Clock
) -> tuple[int, int, int]:
    """Records deleted, restored and kept, each once, by the files of decisions or outcomes."""
    with open_state(load_plan(plan_file), clock=clock, create=False) as state:
        if later is not None:
            files = [str(one.file.relative_to(state.storage.root)) for one in later.decided]
            outcome = f"CASE WHEN action IN ('{DELETE}', '{RESTORE}') THEN 'rolled_back' ELSE action END"
        else:
            folders = [rollback_folder(report.batch_id, report.rollback_no) for report in reports]
            names = [name for folder in folders for name in state.storage.list(folder)]
            files = [name for name in names if name.endswith(".outcomes.parquet")]
            outcome = "outcome"
        if not files:
            return 0, 0, 0
        found = state.counted.ask(
            f"WITH record AS (SELECT id, bool_or(action = '{DELETE}' AND {outcome} = 'rolled_back') AS deleted,"
            f" bool_or({outcome} IN ('{KEEP}', 'kept')) AS kept,"
            f" bool_or(action = '{RESTORE}' AND {outcome} = 'rolled_back') AS restored"
            " FROM read_parquet($files) WHERE id IS NOT NULL GROUP BY id)"
            " SELECT count(*) FILTER (deleted), count(*) FILTER (restored AND NOT deleted AND NOT kept),"
            " count(*) FILTER (kept AND NOT deleted) FROM record",
            files,
        )[0]
    return int(found[0]), int(found[1]), int(found[2])


def _remove(plan_file: str | Path, later: Later | None, *, clock: Clock) -> None:
    if later is None or not later.folders:
        return
    with open_state(load_plan(plan_file), clock=clock, create=False) as state:
        for folder in later.folders:
            state.storage.delete_tree(folder)
