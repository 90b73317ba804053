"""How `forcelift profile` looks: each table's fate, its findings, its columns; then what is open."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from forcelift.before.profile import Action, ColumnProfile, Example, Finding, Profile, TableProfile
from forcelift.cli.options import again
from forcelift.cli.output import count, duration, plural, table_lines

_GRAVE = {Action.REJECTED: "bold red", Action.FAILED: "bold red", Action.DROPPED: "bold yellow"}
_WIDE = 28


def show_profile(
    console: Console, profile: Profile, *, plan_file: Path, page: Path | None, export: Path | None
) -> None:
    """Print a profile."""
    console.print(f"profile {profile.profile_id}, as of {profile.as_of:%Y-%m-%d %H:%M} UTC")
    for table in profile.tables:
        console.print()
        _show_table(console, table)
    if profile.circles:
        console.print()
        console.print("lookups that are sent in a second pass, as they point back: " + ", ".join(profile.circles))
    console.print()
    for what, path in (("page", page), ("keys", export)):
        if path is not None:
            console.print(f"{what}: {path}")
    console.print(_verdict(profile))
    if profile.open_findings:
        first = profile.open_findings[0].name
        console.print(f"accept one that is right: {again(f'profile accept {first}', plan_file)} --by WHO --reason WHY")


def _show_table(console: Console, table: TableProfile) -> None:
    console.print(Text(f"{table.table} -> {table.object}", style="bold"))
    if table.sample is not None:
        console.print(f"a sample: {table.sample}")
    console.print(
        f"{plural(table.rows, 'row')}: {table.to_send:,} to send, {table.rejected:,} rejected,"
        f" {table.dropped:,} dropped"
        + (f"; {table.failed:,} of those sent would lack a parent and count as failed" if table.failed else "")
        + f"  ({duration(table.seconds)})"
    )
    console.print(
        f"key {', '.join(table.key)}: {table.distinct_keys:,} different (exact), {table.null_keys:,} rows without;"
        f" repeated: {table.copies_equal:,} equal copies, {table.copies_by_rule:,} more by case or outer blanks"
    )
    rows = [_column_row(column) for column in table.columns]
    heads = ("column", "field", "nulls", "different", "least", "most", "average", "longest", "field length")
    for line in table_lines(heads, rows, left=(0, 1, 4, 5)):
        console.print(line)
    console.print(table.counted)
    for finding in table.findings:
        _show_finding(console, finding)
    if not table.findings:
        console.print("no finding")


def _column_row(column: ColumnProfile) -> tuple[str, ...]:
    near = "" if column.distinct_is_exact else "~"
    average = column.average_length if column.average is None else column.average
    return (
        column.name if column.name.isprintable() else repr(column.name),
        column.field or "-",
        count(column.nulls),
        "-" if column.distinct is None else f"{near}{column.distinct:,}",
        _short(column.least, column),
        _short(column.most, column),
        "-" if average is None else f"{average:,.1f}",
        count(column.longest),
        count(column.field_length),
    )


def _short(text: str | None, column: ColumnProfile) -> str:
    if text is None:
        return "***" if column.is_personal and column.distinct else "-"
    text = text.replace("\n", " ")
    return text if len(text) <= _WIDE else text[: _WIDE - 1] + "…"


def _show_finding(console: Console, finding: Finding) -> None:
    mark = "  " if not finding.is_open else "! "
    style = _GRAVE.get(finding.action, "") if finding.is_open else ""
    line = Text(f"{mark}{finding.rows:>9,}  {finding.action:<8}  ", style=style)
    line.append(f"{finding.column}: {finding.what}", style="")
    console.print(line)
    gap = " " * 23
    console.print(f"{gap}{finding.outcome}. {finding.remedy}")
    if finding.facts:
        console.print(gap + ", ".join(f"{name.replace('_', ' ')}: {_fact(value)}" for name, value in finding.facts))
    if finding.examples:
        shown = (
            f"{one.key or '(no key)'}{'' if one.value is None else f' = {one.value!r}'}" for one in finding.examples
        )
        console.print(f"{gap}such as {', '.join(shown)}")
    accepted = finding.accepted
    if accepted is not None:
        state = "accepted" if finding.is_accepted else f"has grown since {plural(accepted.rows, 'row')} were accepted"
        console.print(f"{gap}{state} by {accepted.by} on {accepted.at:%Y-%m-%d}: {accepted.reason}")


def _example(example: Example) -> str:
    return (example.key or "(no key)") + ("" if example.value is None else f" = {example.value!r}")


def _fact(value: int | str) -> str:
    return f"{value:,}" if isinstance(value, int) else value


def _verdict(profile: Profile) -> str:
    rows = sum(table.rows for table in profile.tables)
    rejected = sum(table.rejected + table.failed for table in profile.tables)
    told = f"{plural(rows, 'row')}, {rejected:,} would be refused; {plural(len(profile.findings), 'finding')}"
    still = len(profile.open_findings)
    return f"{told}, {still:,} open" if still else f"{told}, none open"
