"""How a rollback's preview and result look on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from forcelift.undoing.batch import RollbackReport
from forcelift.undoing.project import ProjectRollback


def show_rollback(console: Console, report: RollbackReport) -> None:
    """Print what would be done, or was: records by table, what is kept and why, what it costs."""
    words = f"rolled back batch {report.batch_id}" if report.executed else f"rollback of batch {report.batch_id}"
    console.print(words if report.executed else f"{words}, as it would be:", style="bold")
    table = Table(box=None, pad_edge=False)
    table.add_column("table")
    for name in ("deleted", "restored", "kept", "gone before", "left"):
        table.add_column(name, justify="right")
    for line in report.tables:
        numbers = (line.deleted, line.restored, line.kept_records, line.gone, line.left)
        table.add_row(line.table, *(f"{number:,}" for number in numbers))
    console.print(table)
    for line in report.tables:
        for group in line.kept:
            console.print(f"{line.table}: {group.records:,} kept ({group.code}): {group.why}", highlight=False)
    if not report.executed and report.jobs is not None and report.rows_of_day is not None:
        used, allowed = report.rows_of_day
        console.print(
            f"about {report.jobs:,} jobs, {report.api_calls or 0:,} API calls and {report.hours or 0:.2f} hours; "
            f"{used:,} of {allowed:,} rows of the rolling day are used then",
            highlight=False,
        )
    for warning in report.warnings:
        console.print(f"note: {warning}", highlight=False)


def show_project_rollback(console: Console, found: ProjectRollback) -> None:
    """Print each batch, the newest first, then the records of all of them, each once."""
    for report in found.reports:
        show_rollback(console, report)
        console.print()
    for one in found.passed_over:
        console.print(f"batch {one}: nothing is left to undo", highlight=False)
    for left in found.refused:
        console.print(f"batch {left.batch_id} is left as it is: {left.reason}", highlight=False)
        if left.hint:
            console.print(f"  next: {left.hint}", highlight=False)
    if found.took_turns and not found.executed:
        console.print(
            "note: batches sent in turns: `--execute` goes through them until nothing more comes back, so that it may "
            "keep less than is shown",
            highlight=False,
        )
    would = "" if found.executed else "would be "
    console.print(
        f"project {found.batches.project}, each record once: {found.deleted:,} {would}deleted, {found.restored:,} "
        f"{would}put back, {found.kept:,} {would}kept",
        highlight=False,
    )
