"""What a rollback would do, or has done, for people and for `--json`. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, to_builtins

from forcelift.after.rollback.decide import UndoTable
from forcelift.after.rollback.look import Looked
from forcelift.after.rollback.scope import REASONS, Scope
from forcelift.audit.jobs import salesforce_batches
from forcelift.audit.records import Batch
from forcelift.audit.undo_records import Rollback
from forcelift.jobs.parts import PART_BYTES_MAX

RECYCLE_BIN_DAYS = 15
"""Deleted records stay in the recycle bin so long, and use storage all the while (Salesforce help, "Recycle Bin")."""

API_CALLS_PER_JOB = 6
API_CALLS_PER_LOOK = 5
_ID_LINE_BYTES = 19
_ROWS_PER_SECOND = 2883.0  # the sample figures' average, where the batch itself has none


class KeptGroup(Struct, frozen=True, kw_only=True):
    """Records that stay, with the reason."""

    code: str
    records: int
    why: str


class TableRollback(Struct, frozen=True, kw_only=True):
    """One table's records: to be deleted and restored, or deleted and restored; kept, gone before, not asked for."""

    table: str
    object: str
    chunks: int
    deleted: int
    restored: int
    gone: int
    left: int
    kept: tuple[KeptGroup, ...]
    not_restorable: tuple[str, ...] = ()

    @property
    def kept_records(self) -> int:
        return sum(group.records for group in self.kept)


class RollbackReport(Struct, frozen=True, kw_only=True):
    """A preview, or the result. `hours`, `jobs`, `api_calls` and the allowance are foretold in a preview."""

    batch_id: str
    executed: bool
    scope: Scope
    tables: tuple[TableRollback, ...]
    reason: str | None = None
    rollback_no: int | None = None
    jobs: int | None = None
    hours: float | None = None
    api_calls: int | None = None
    rows_of_day: tuple[int, int] | None = None
    salesforce_batches: int | None = None
    warnings: tuple[str, ...] = ()
    chunks_rolled_back: int | None = None

    @property
    def deleted(self) -> int:
        return sum(table.deleted for table in self.tables)

    @property
    def restored(self) -> int:
        return sum(table.restored for table in self.tables)

    @property
    def kept(self) -> int:
        return sum(table.kept_records for table in self.tables)

    def document(self) -> dict[str, Any]:
        """The JSON document of `--json`."""
        return {
            "batch_id": self.batch_id,
            "executed": self.executed,
            "rollback": self.rollback_no,
            "reason": self.reason,
            "scope": self.scope.document(),
            "deleted": self.deleted,
            "restored": self.restored,
            "kept": self.kept,
            "jobs": self.jobs,
            "hours": round(self.hours, 3) if self.hours is not None else None,
            "api_calls": self.api_calls,
            "rows_of_day": list(self.rows_of_day) if self.rows_of_day else None,
            "salesforce_batches": self.salesforce_batches,
            "chunks_rolled_back": self.chunks_rolled_back,
            "warnings": list(self.warnings),
            "tables": [{**to_builtins(table), "kept_records": table.kept_records} for table in self.tables],
        }


def preview_report(
    batch: Batch,
    scope: Scope,
    found: Looked,
    counts: Mapping[str, Counter[str]],
    *,
    tables: Mapping[str, UndoTable],
    rows_per_second: float | None,
    rows_per_day: int,
    used: tuple[int, int],
    parallel_jobs: int,
    interrupted: Rollback | None,
) -> RollbackReport:
    """What would be done, and what it would cost.

    Args:
        counts: As `seal.tally` gives them.
        rows_per_second: Of one job, as the batch was loaded; None if it is not known.
        used: Rows and Salesforce batches of the rolling day that are used or reserved already.
    """
    chunks = Counter(chunk.table_name for chunk in found.chunks)
    lines = tuple(_line(tables[name], chunks[name], counts[name]) for name in tables if chunks[name])
    rows = sum(line.deleted + line.restored for line in lines)
    jobs = sum(_jobs(line, chunks[line.table]) for line in lines)
    pace = (rows_per_second or _ROWS_PER_SECOND) * min(parallel_jobs, max(jobs, 1))
    return RollbackReport(
        batch_id=batch.batch_id,
        executed=False,
        scope=scope,
        tables=lines,
        jobs=jobs,
        hours=rows / pace / 3600,
        api_calls=jobs * API_CALLS_PER_JOB + len(found.chunks) * API_CALLS_PER_LOOK,
        rows_of_day=(used[0] + rows, rows_per_day),
        salesforce_batches=used[1] + sum(salesforce_batches(line.deleted + line.restored) for line in lines),
        warnings=tuple(_warnings(found, lines, scope, rows, used[0], rows_per_day, interrupted)),
    )


def result_report(
    batch: Batch, rollback: Rollback, scope: Scope, counts: Mapping[str, Counter[str]], *, api_calls: int
) -> RollbackReport:
    """What was done."""
    lines = tuple(
        TableRollback(
            table=name,
            object="",
            chunks=0,
            deleted=count["deleted"],
            restored=count["restored"],
            gone=0,
            left=count["leave"],
            kept=_kept(count),
        )
        for name, count in counts.items()
        if count
    )
    warnings = [] if scope.hard or not any(line.deleted for line in lines) else [_storage()]
    result = rollback.result or {}
    return RollbackReport(
        batch_id=batch.batch_id,
        executed=True,
        scope=scope,
        tables=lines,
        reason=rollback.reason,
        rollback_no=rollback.rollback_no,
        api_calls=api_calls,
        warnings=tuple(warnings),
        chunks_rolled_back=result.get("chunks_rolled_back"),
    )


def _line(table: UndoTable, chunks: int, count: Counter[str]) -> TableRollback:
    return TableRollback(
        table=table.work.spec.name,
        object=table.describe.name,
        chunks=chunks,
        deleted=count["delete"],
        restored=count["restore"],
        gone=count["gone"],
        left=count["leave"],
        kept=_kept(count),
        not_restorable=table.not_restorable if count["restore"] else (),
    )


def _kept(count: Counter[str]) -> tuple[KeptGroup, ...]:
    return tuple(
        KeptGroup(code=code, records=records, why=REASONS.get(code, "the org refused"))
        for name, records in sorted(count.items())
        if (code := name.removeprefix("kept:")) != name
    )


def _jobs(line: TableRollback, chunks: int) -> int:
    files = -(-line.deleted * _ID_LINE_BYTES // PART_BYTES_MAX)
    return (max(chunks, files) if line.deleted else 0) + (chunks if line.restored else 0)


def _storage() -> str:
    return (
        f"deleted records stay in the recycle bin, and use storage, for {RECYCLE_BIN_DAYS} days; `--hard` deletes for "
        "good, and needs the permission Bulk API Hard Delete"
    )


def _warnings(
    found: Looked,
    lines: tuple[TableRollback, ...],
    scope: Scope,
    rows: int,
    used: int,
    rows_per_day: int,
    interrupted: Rollback | None,
) -> list[str]:
    told = []
    if interrupted is not None:
        told.append(
            f"a rollback of this batch was begun and is not through ({interrupted.reason}): `--execute` goes on with "
            "that one as it was decided"
        )
    if not scope.hard and any(line.deleted for line in lines):
        told.append(_storage())
    if rows + used > rows_per_day:
        told.append(
            f"with {used:,} rows of the rolling day used, {rows:,} more are over its {rows_per_day:,}: the rollback "
            "will wait"
        )
    told.extend(
        f"{line.table}: the org lets nobody write {', '.join(line.not_restorable)} into a record that exists: these "
        "values stay as the batch left them"
        for line in lines
        if line.not_restorable
    )
    told.extend(
        f"{name}: {values:,} values have more than 15 digits and come back rounded"
        for name, values in sorted(found.long_numbers.items())
    )
    told.extend(
        f"{name}: no before-images were taken, so that records which the batch changed stay as they are"
        for name in sorted(found.without_images)
    )
    told.extend(
        f"the org does not let {name} be queried: whether records hang by it is not known"
        for name in sorted(found.not_examined)
    )
    if found.unsettled:
        told.append(
            f"{len(found.unsettled)} chunks are not settled; `--execute` settles them first and then looks at them too"
        )
    if found.unfinished:
        told.append(
            f"{len(found.unfinished)} chunks were rolled back in part, and a resume has begun to load them again: "
            "their records that stand can be looked at once it is through"
        )
    return told
