"""How refused rows, and retries of them, look on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from forcelift.mending.failures import FailedReport
from forcelift.mending.retrying import RetryReport


def show_failed(console: Console, found: FailedReport) -> None:
    """Print refused rows by table and code, each with an example and its remedy."""
    console.print(f"refused rows of batch {found.batch_id}", style="bold")
    if not found.groups:
        console.print("none")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("table", "code"):
        table.add_column(name, overflow="fold")
    for name in ("rows", "open", "mended", "closed", "tries"):
        table.add_column(name, justify="right")
    for group in found.groups:
        numbers = (group.rows, group.open, group.mended, group.closed, group.retries)
        table.add_row(group.table_name, group.code, *(f"{number:,}" for number in numbers))
    console.print(table)
    for group, remedy in zip(found.groups, found.remedies, strict=True):
        console.print()
        console.print(f"{group.table_name}: {group.code}", style="bold", highlight=False)
        console.print(f"  such as  {group.record_id}: {group.message}", highlight=False)
        console.print(f"  remedy   {remedy}", highlight=False)
    for row in found.rows:
        key = row.record_key if row.record_key is not None else row.record_id
        word = "resolved" if row.resolved else "open"
        console.print(
            f"{row.table_name} {key} {row.code} ({word}, sent again {row.retry_count} times)", highlight=False
        )
        if row.data is not None:
            console.print(f"  {row.data}", highlight=False, markup=False)


def show_retry(console: Console, report: RetryReport) -> None:
    """Print what became of the rows that were sent again, or what would."""
    for change in report.plan_changes:
        console.print(f"changed since: {change}", highlight=False, markup=False)
    if not report.rows:
        console.print("no open refused row fits")
        return
    is_done = report.retry_no is not None
    title = f"retry {report.retry_no} of batch {report.batch.batch_id}, plan revision {report.plan_revision}"
    console.print(title if is_done else f"retry of batch {report.batch.batch_id}, as it would be:", style="bold")
    names = ("created", "updated", "refused", "rejected", "duplicate", "gone") if is_done else ()
    table = Table(box=None, pad_edge=False)
    for name in ("table", "refused as"):
        table.add_column(name, overflow="fold")
    for name in ("rows", *(names or ("to send", "rejected", "duplicate", "gone"))):
        table.add_column(name, justify="right")
    for group in report.groups:
        if is_done:
            numbers = (group.rows, *(getattr(group, name) for name in names))
        else:
            rest = group.rejected + group.duplicate + group.gone
            numbers = (group.rows, group.rows - rest, group.rejected, group.duplicate, group.gone)
        table.add_row(group.table, group.code, *(f"{number:,}" for number in numbers))
    console.print(table)
    if is_done:
        console.print(f"{report.mended:,} of {report.rows:,} rows are mended", highlight=False)
    else:
        console.print("nothing was sent or changed; leave `--dry-run` out to do it")
    for note in report.notes:
        console.print(f"note: {note}", highlight=False)
