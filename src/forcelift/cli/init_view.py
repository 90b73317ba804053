"""How `forcelift init` looks, on a terminal and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from forcelift.before.init import DraftTable, Match
from forcelift.cli.output import plural, table_lines
from forcelift.preflight.drafting import DraftReport


def draft_document(report: DraftReport) -> dict[str, Any]:
    """The document of `init --json`; described in docs/reference/cli.md."""
    return {
        "file": str(report.file),
        "load_order": [list(group) for group in report.order],
        "cycles": [list(group) for group in report.cycles],
        "notes": list(report.notes),
        "tables": [_table(table) for table in report.tables],
    }


def _table(table: DraftTable) -> dict[str, Any]:
    return {
        "table": table.table,
        "in_force": not table.doubts,
        "doubts": table.doubts,
        "notes": list(table.notes),
        "object": _match(table.object),
        "key": list(table.key),
        "key_reason": table.key_match.reason,
        "external_id": _match(table.external_id),
        "columns": [
            {
                "column": one.column,
                "target": one.target,
                "in_force": one.target is not None and one.match.is_sure and not table.doubts,
                "confidence": one.match.confidence,
                "reason": one.match.reason,
            }
            for one in table.columns
        ],
    }


def _match(match: Match | None) -> dict[str, Any] | None:
    if match is None:
        return None
    return {"name": match.name, "confidence": match.confidence, "reason": match.reason}


def show_draft(console: Console, report: DraftReport, next_command: str) -> None:
    """Table by table: what it was matched to, how sure, and how many columns are in force."""
    rows = []
    for table in report.tables:
        sure = sum(1 for one in table.columns if one.target is not None and one.match.is_sure)
        rows.append(
            (
                table.table,
                table.object.name if table.object is not None else "-",
                f"{table.object.confidence:.2f}" if table.object is not None else "-",
                f"{sure} of {len(table.columns)}",
                "in force" if not table.doubts else "commented out",
            )
        )
    for line in table_lines(("table", "object", "confidence", "columns", ""), rows, left=(0, 1, 4)):
        console.print(line)
    for table in report.tables:
        for doubt in table.doubts:
            console.print(f"{table.table} is not sure: {doubt}")
        for note in table.notes:
            console.print(f"{table.table}: {note}")
    if report.order:
        console.print("load order: " + "; ".join(", ".join(group) for group in report.order))
    for group in report.cycles:
        console.print(f"a cycle of lookups, loaded in two passes: {', '.join(group)}")
    for note in report.notes:
        console.print(f"note: {note}")
    console.print(Text(f"{report.file}: {plural(len(report.in_force), 'table')} in force", style="bold"))
    console.print(f"Read each line, take the # off what is right, then:  {next_command}")
