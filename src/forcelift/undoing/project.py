"""Take back what a whole project did: its batches, the newest first, so that each finds what it had left.

What a later batch changed is put back before the earlier one is looked at. So a record that several batches wrote gets
the values again that it had before the first of them, or is deleted with the batch that created it.

Reads:   as `undoing`, for each batch.
Writes:  as `undoing`, for each batch. The preview's files are removed when all batches were looked at.
Re-run:  batches that are rolled back wholly are passed over; an interrupted one is gone on with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from msgspec import Struct

from forcelift.account.consents import need_all_consents, need_consent
from forcelift.account.recorded import open_recorded, scope_of
from forcelift.account.state import State, open_state
from forcelift.after.rollback.later import Later
from forcelift.after.rollback.scope import DELETE, KEEP, RESTORE, rollback_folder
from forcelift.audit.records import Batch, ChunkStatus
from forcelift.audit.scope import Scope as Batches
from forcelift.errors import ExitCode, PlanError, StateConflict, UsageError
from forcelift.plan import LoadedPlan, load_plan
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.undoing.batch import RollbackOptions, RollbackReport, RollbackWatcher, Scope, consent_details, roll_back


class NotUndone(Struct, frozen=True, kw_only=True):
    """A batch whose rollback was refused, and why."""

    batch_id: str
    reason: str
    hint: str | None


class ProjectRollback(Struct, frozen=True, kw_only=True):
    """What the rollback of a project would do, or has done, newest batch first.

    Attributes:
        deleted, restored, kept: Records, each once: what is deleted in the end was perhaps put back before.
        passed_over: Batches of which nothing is left to undo.
        took_turns: Whether a batch was resumed after a later one had begun, so that records of it lie below and above
            those of the other. Then all are gone through until nothing more comes back; a preview shows the first turn.
    """

    batches: Batches
    executed: bool
    reports: tuple[RollbackReport, ...]
    refused: tuple[NotUndone, ...]
    passed_over: tuple[str, ...]
    deleted: int
    restored: int
    kept: int
    took_turns: bool = False

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
            "took_turns": self.took_turns,
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
        order, took_turns = _order(state, batches)
        if execute:
            _need_consents(
                loaded,
                state,
                batches,
                {one: Scope(tables=wanted[one] if tables else (), hard=bool(hard)) for one in left},
                without_images=without_images,
            )
    reports: list[RollbackReport] = []
    refused: dict[str, NotUndone] = {}
    later = None if execute else Later()
    try:
        for _ in range(len(order) if execute and took_turns else 1):
            turn: list[RollbackReport] = []
            for batch_id in order:
                if batch_id not in left or batch_id in refused:
                    continue
                options = RollbackOptions(
                    batch_id=batch_id,
                    scope=Scope(tables=wanted[batch_id] if tables else (), hard=bool(hard)),
                    execute=execute,
                    reason=reason,
                    hard=hard,
                    without_images=without_images,
                )
                try:
                    watching = watcher(batch_id) if watcher else None
                    turn.append(
                        roll_back(
                            plan_file,
                            options,
                            watcher=watching,
                            clock=clock,
                            as_begun=True,
                            consented=True,
                            later=later,
                        )
                    )
                except (StateConflict, UsageError, PlanError) as error:
                    refused[batch_id] = NotUndone(batch_id=batch_id, reason=error.message, hint=error.hint)
            reports += turn
            left = {report.batch_id for report in turn if report.kept}
            if not left or not any(report.deleted or report.restored for report in turn):
                break
        deleted, restored, kept = _records(plan_file, reports, later, clock=clock)
    finally:
        _remove(plan_file, later, clock=clock)
    undone = {report.batch_id for report in reports} | set(refused)
    return ProjectRollback(
        batches=batches,
        executed=execute,
        reports=tuple(reports),
        refused=tuple(refused.values()),
        passed_over=tuple(one for one in batches.batch_ids if one not in undone),
        deleted=deleted,
        restored=restored,
        kept=kept,
        took_turns=took_turns,
    )


def _need_consents(
    loaded: LoadedPlan, state: State, batches: Batches, scopes: Mapping[str, Scope], *, without_images: bool
) -> None:
    """Before the first of several rollbacks is begun: a second person's consent to each, where the plan wants one."""
    asked = [
        (
            batch.batch_id,
            f"batch `{batch.batch_id}`",
            consent_details(state, batch, scopes[batch.batch_id], without_images=without_images),
        )
        for batch in batches.batches
        if batch.batch_id in scopes and state.audit.open_rollback(batch.batch_id) is None
    ]
    need_all_consents(loaded, state.audit, step="rollback", asked=asked)
    for batch_id, subject, details in asked:
        need_consent(loaded, state.audit, step="rollback", subject=subject, details=details, batch_id=batch_id)


def _order(state: State, batches: Batches) -> tuple[list[str], bool]:
    """The batches, that which sent last first; and whether one sent again after a later one had begun to."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for one in state.audit.job_places(batches.batch_ids):
        first.setdefault(one.batch_id, one.place)
        last[one.batch_id] = one.place
    order = sorted(batches.batch_ids, key=lambda batch_id: last.get(batch_id, 0), reverse=True)
    sent = [batch_id for batch_id in order if batch_id in last]
    return order, any(last[older] > first[newer] for newer, older in pairwise(sent))


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
    """Records deleted, restored and kept, each once: what was last done with each, by the files of it."""
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
        found = dict(
            state.counted.ask(
                "WITH file AS (SELECT unnest($paths::VARCHAR[]) AS filename, unnest($places::BIGINT[]) AS place),"
                f" record AS (SELECT id, arg_max(CASE WHEN {outcome} IN ('{KEEP}', 'kept') THEN 'kept'"
                f" WHEN {outcome} = 'rolled_back' THEN action END, place) AS word"
                " FROM read_parquet($files, filename = true) JOIN file USING (filename)"
                " WHERE id IS NOT NULL GROUP BY id)"
                " SELECT word, count(*) FROM record GROUP BY word",
                files,
                paths=[str(state.storage.path(name)) for name in files],
                places=list(range(len(files))),
            )
        )
    return found.get(DELETE, 0), found.get(RESTORE, 0), found.get("kept", 0)


def _remove(plan_file: str | Path, later: Later | None, *, clock: Clock) -> None:
    if later is None or not later.folders:
        return
    with open_state(load_plan(plan_file), clock=clock, create=False) as state:
        for folder in later.folders:
            state.storage.delete_tree(folder)
