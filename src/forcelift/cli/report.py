"""A batch's summary as a person reads it: a line per object, refused rows with their remedies, where things lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from forcelift.account.summary import BatchSummary, TableSummary
from forcelift.audit.records import BatchState
from forcelift.cli.options import again
from forcelift.cli.output import count, duration, plural, size, table_lines

COLUMNS = ("source", "extracted", "rejected", "duplicate", "sent", "created", "updated", "failed")
DRY_COLUMNS = ("source", "extracted", "rejected", "duplicate", "to send")

_SETTLED_STATUSES = ("SUCCESS", "PARTIAL", "ROLLED_BACK")

# What a rule did to values, in words; the rest is shown by its name.
_CHANGES = {
    "standing_not_in_source": "kept by a rollback, and not in the source any more",
    "missing_parent": "lookup emptied: its parent is not in the org",
    "rounded": "rounded to the field's scale",
    "too_long": "cut to the field's length",
    "line_ends": "line ends folded to LF",
    "outer_blanks": "outer blanks trimmed",
    "control_characters": "control characters removed",
    "invalid_date": "emptied: not a date that Salesforce can hold",
    "boolean_null": "null stored as false",
    "values": "mapped by `values`",
    "empty": "empty: made null, or filled with the default",
    "warn_negative": "kept, but negative",
    "warn_future_date": "kept, but in the future",
    "warn_buddhist_era": "kept, but perhaps of the Buddhist era",
    "warn_ambiguous_time": "a clock time that the zone has twice; the first is taken",
}


def show_summary(console: Console, summary: BatchSummary) -> None:
    """Print what became of every row: counts per object, changes, refused rows by code."""
    for words in sample_lines(summary):
        console.print(words)
    if not summary.tables:
        console.print(_nothing_planned(summary))
        return
    names = DRY_COLUMNS if summary.is_dry_run else COLUMNS
    rows = [(table.object, *_numbers([table], names)) for table in summary.tables]
    if len(rows) > 1:
        rows.append(("total", *_numbers(summary.tables, names)))
    for line in table_lines(("object", *names), rows):
        console.print(line)
    if unknown := sum(table.unknown for table in summary.tables):
        console.print(Text(f"{plural(unknown, 'row')} sent, but their answers are gone: a resume settles them"))
    for words in rolled_back_lines(summary):
        console.print(words)
    for lines in (changed_lines(summary), refused_lines(summary)):
        for line in lines:
            console.print(line)
    for note in summary.notes:
        console.print(Text(f"note: {note}"))


def rolled_back_lines(summary: BatchSummary) -> Iterator[str]:
    """What a rollback took back of each table, which the columns of sent rows no longer count."""
    for table in summary.tables:
        if table.rolled_back or table.kept:
            yield f"{table.table}: {table.rolled_back:,} rolled back, {table.kept:,} kept in the org by the rollback"


def _nothing_planned(summary: BatchSummary) -> str:
    """What stands where a table would have no lines: a batch begins by drawing its sample and cutting its tables."""
    drawing = ", as its sample is not drawn" if summary.sample_percent is not None else ""
    return f"no table is cut into chunks yet{drawing}; nothing was read to be sent, and nothing was sent"


def sample_lines(summary: BatchSummary) -> Iterator[str]:
    """That the batch is a sample, of how much, and what it took of each table; nothing if it takes all rows."""
    if summary.sample_percent is None:
        return
    yield f"a sample of {summary.sample_percent} % of each table's keys, with all parents that they refer to"
    for table in summary.tables:
        if table.sample_of is not None and table.sample_rows is not None and table.sample_by_key is not None:
            parents = table.sample_rows - table.sample_by_key
            yield (
                f"  {table.table}: {table.sample_rows:,} of {plural(table.sample_of, 'row')}"
                + (f", {parents:,} of them only because others refer to them" if parents else "")
            )


def _numbers(tables: Sequence[TableSummary], names: Sequence[str]) -> list[str]:
    return [count(sum(getattr(table, name.replace(" ", "_")) for table in tables)) for name in names]


def changed_lines(summary: BatchSummary) -> Iterator[Text]:
    """What rules changed or doubted, counted; nothing if they did not."""
    rows = [
        (count(rows), f"{table.table}.{column}", _CHANGES.get(rule, rule.replace("warn_", "kept, but: ")))
        for table in summary.tables
        for rule, _, column, rows in sorted((*name.partition(":"), rows) for name, rows in table.changes.items())
    ]
    if not rows:
        return
    yield Text("")
    yield from table_lines(("rows", "column", "what a rule did"), rows, left=(1, 2))


def refused_lines(summary: BatchSummary) -> Iterator[Text]:
    """Refused rows by code, each with an example and what to do."""
    groups = [(table.table, group) for table in summary.tables for group in table.refused_by_code]
    if not groups:
        return
    yield Text("")
    yield Text("refused rows", style="bold")
    for name, group in groups:
        yield Text.assemble(f"  {plural(group.rows, 'row')} of {name}: ", (group.code, "yellow"))
        if group.example:
            yield Text(f"    example  {group.example}")
        yield Text(f"    remedy   {group.remedy}")


def pace_line(summary: BatchSummary, *, seconds: float, resumed: bool) -> str:
    """How long this process took and what it cost.

    No rate after a resume: the counts are the whole batch's, the seconds this process's.
    """
    rows = sum(table.extracted if summary.is_dry_run else table.sent for table in summary.tables)
    parts = [f"{plural(rows, 'row')} {'read and cleaned' if summary.is_dry_run else 'sent'}"]
    if resumed:
        parts[0] += f" in all, the last of them in {duration(seconds)}"
    else:
        parts[0] += f" in {duration(seconds)}"
        parts.append(f"{rows / max(seconds, 0.001):,.0f} rows/s")
    parts.append(plural(summary.jobs, "job"))
    if summary.api_calls is not None:
        parts.append(plural(summary.api_calls, "API call"))
    return " · ".join(parts)


def prediction_line(summary: BatchSummary) -> str:
    """What the real run would take."""
    return (
        f"a run would send {size(summary.upload_bytes)} in {plural(summary.jobs_predicted, 'job')}, with at least "
        f"{summary.api_calls_predicted:,} API calls, refused rows and polling not counted"
        + (
            "; lookups within a table or a ring are judged only when their parents are loaded"
            if _has_links(summary)
            else ""
        )
    )


def _has_links(summary: BatchSummary) -> bool:
    return any(table.link_chunks for table in summary.tables)


def half_loaded_line(summary: BatchSummary) -> str | None:
    """Rows that count as failed and whose records exist all the same; None if there is none."""
    rows = sum(table.failed_in_org for table in summary.tables)
    if not rows:
        return None
    return f"of the failed rows {rows:,} stand in the org without their lookups: they were loaded, their links refused"


def unfinished_line(summary: BatchSummary) -> str | None:
    """Chunks that are not through; None if all are."""
    by_status: dict[str, int] = {}
    for table in summary.tables:
        for status, chunks in table.chunks_by_status.items():
            by_status[status] = by_status.get(status, 0) + chunks
    total = sum(by_status.values())
    settled = sum(by_status.get(status, 0) for status in _SETTLED_STATUSES)
    if settled == total:
        return None
    others = ", ".join(
        f"{chunks} {status}" for status, chunks in sorted(by_status.items()) if status not in _SETTLED_STATUSES
    )
    who = "those still at work go on" if summary.others_go_on else "a resume goes on"
    return f"{settled} of {plural(total, 'chunk')} settled; {who} with the others ({others})"


def other_snapshots_line(summary: BatchSummary) -> str | None:
    """Chunks that were read from another state of the source than the batch's; None if there is none."""
    if not summary.other_snapshots:
        return None
    return (
        f"{plural(summary.other_snapshots, 'chunk')} read from a later state of the source than the batch began with, "
        "as that snapshot was gone by then: rows that were written in between may be missing, or in two chunks"
    )


def next_lines(summary: BatchSummary, plan_file: Path) -> list[str]:
    """The command that goes on, or looks closer."""
    batch_id = summary.batch.batch_id
    if summary.others_go_on and summary.batch.state is not BatchState.DONE:
        return [
            f"still at work on it: {', '.join(summary.at_work)}; what this process left they go on with",
            f"look again:  {again(f'status --batch {batch_id}', plan_file)}",
            f"help again:  {again(f'run --join {batch_id}', plan_file)}",
        ]
    if summary.batch.state is not BatchState.DONE:
        return [f"go on with:  {again(f'run --resume {batch_id}', plan_file)}"]
    return [f"look again:  {again(f'status --batch {batch_id}', plan_file)}"]
