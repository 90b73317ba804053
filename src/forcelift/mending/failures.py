"""Refused rows of a batch for those who look at them, and for those who say that some are resolved.

Reads:   the audit database.
Writes:  RESOLVED and RESOLUTION_NOTES of failed records, and the journal.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins

from forcelift.account.recorded import find_batch, open_recorded
from forcelift.account.remedies import remedy_of
from forcelift.account.state import State
from forcelift.audit.failed_marks import FailedCount, FailedFilter
from forcelift.audit.readings import FailedRecord
from forcelift.audit.records import Batch
from forcelift.errors import StateConflict, UsageError


class FailedReport(Struct, frozen=True, kw_only=True):
    """What a batch had refused.

    Attributes:
        groups: By table and code, the most open rows first; `remedies` in the same order.
        rows: Some of the rows, if they were asked for.
    """

    batch_id: str
    project: str
    groups: tuple[FailedCount, ...]
    remedies: tuple[str, ...]
    rows: tuple[FailedRecord, ...]

    @property
    def open(self) -> int:
        return sum(group.open for group in self.groups)

    def document(self) -> dict[str, Any]:
        """The JSON document of `--json`."""
        return {
            "batch_id": self.batch_id,
            "project": self.project,
            "rows": sum(group.rows for group in self.groups),
            "open": self.open,
            "groups": [
                {**to_builtins(group), "remedy": remedy}
                for group, remedy in zip(self.groups, self.remedies, strict=True)
            ],
            "records": [
                {
                    "table": row.table_name,
                    "key": row.record_key if row.record_key is not None else row.record_id,
                    "code": row.code,
                    "message": row.message,
                    "fields": row.fields,
                    "retry_count": row.retry_count,
                    "resolved": row.resolved,
                    "data": row.data,
                }
                for row in self.rows
            ],
        }


def failed_of(
    plan_file: str | Path,
    batch_id: str | None = None,
    *,
    tables: tuple[str, ...] = (),
    codes: tuple[str, ...] = (),
    rows: int = 0,
) -> FailedReport:
    """Refused rows of a batch, the plan's newest if none is named.

    Args:
        rows: How many of the rows themselves are wanted.
    """
    chosen = FailedFilter(tables=tables, codes=codes)
    with open_recorded(plan_file) as (loaded, state):
        batch = find_batch(loaded, state, batch_id)
        check_tables(state, batch, tables)
        groups = state.audit.failed_counts(batch.batch_id, chosen)
        wanted: list[FailedRecord] = []
        if rows:
            for table in tables or (None,):
                for code in codes or (None,):
                    left = rows - len(wanted)
                    wanted.extend(state.audit.failed_records(batch.batch_id, table, code, left) if left > 0 else ())
        return FailedReport(
            batch_id=batch.batch_id,
            project=batch.project,
            groups=tuple(groups),
            remedies=tuple(remedy_of(group.code, group.message) for group in groups),
            rows=tuple(wanted),
        )


def check_tables(state: State, batch: Batch, tables: Sequence[str]) -> None:
    """Raise `UsageError` if a table is none of the batch's: a slip of the pen must not look like nothing to do."""
    known = [table.table_name for table in state.audit.tables(batch.batch_id)]
    for name in tables:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"batch `{batch.batch_id}` has no table `{name}`",
                state="nothing was changed",
                hint=f"did you mean `{near[0]}`?" if near else f"it has: {', '.join(known)}",
            )


class Marked(Struct, frozen=True, kw_only=True):
    """Refused rows that were marked as resolved, or opened again; `open` are those of the batch that are open now."""

    batch_id: str
    rows: int
    open: int
    reopened: bool

    def document(self) -> dict[str, Any]:
        """The JSON document of `--json`."""
        document: dict[str, Any] = to_builtins(self)
        return document


def mark_failed(
    plan_file: str | Path,
    batch_id: str | None = None,
    *,
    tables: tuple[str, ...] = (),
    codes: tuple[str, ...] = (),
    keys: tuple[str, ...] = (),
    note: str,
    by: str,
    reopen: bool = False,
) -> Marked:
    """Mark refused rows as resolved without sending them, or take the mark back. What a retry mended stays resolved.

    Args:
        tables, codes, keys: Which rows; empty means any.
        note: What was done, or why.
        by: Who says so.
    Raises:
        UsageError: No note, or nobody's name.
        StateConflict: A process works on the batch, or a retry of it is not through.
    """
    if not note.strip() or not by.strip():
        raise UsageError(
            "a resolution needs its note and a name",
            state="nothing was changed",
            hint='give both: `--note "..." --by NAME`; they stand in the report and the journal',
        )
    with open_recorded(plan_file) as (loaded, state):
        batch = find_batch(loaded, state, batch_id)
        if state.audit.runners(batch.batch_id) or state.audit.open_retry(batch.batch_id) is not None:
            raise StateConflict(
                f"batch `{batch.batch_id}` is being worked on, or a retry of it is not through",
                state="nothing was changed",
                hint=f"wait for its end; a retry is gone on with by `forcelift failed retry --batch {batch.batch_id}`",
            )
        check_tables(state, batch, tables)
        record_ids: tuple[str, ...] = ()
        if keys:
            import polars as pl  # only here: who marks by code does without it

            from forcelift.audit.failed_changes import record_ids_of

            record_ids = tuple({*record_ids_of(pl.Series(keys, dtype=pl.String)), *keys})
        chosen = FailedFilter(tables=tables, codes=codes, record_ids=record_ids)
        mark = state.audit.reopen_failed if reopen else state.audit.resolve_failed
        rows = mark(batch.batch_id, chosen, note=note.strip(), by=by.strip())
        left = sum(group.open for group in state.audit.failed_counts(batch.batch_id, FailedFilter()))
        return Marked(batch_id=batch.batch_id, rows=rows, open=left, reopened=reopen)
