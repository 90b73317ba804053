"""How `forcelift rehearse` looks, on a terminal and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from forcelift.cli.options import again
from forcelift.cli.output import count, plural, table_lines
from forcelift.rehearsing import RehearsalReport, foretold_document


def rehearsal_document(report: RehearsalReport) -> dict[str, Any]:
    """The document of `rehearse --json`; described in docs/reference/cli.md."""
    return {
        "project": report.project,
        "org_id": report.org_id,
        "is_certain": not report.cannot_know,
        "cannot_know": list(report.cannot_know),
        "notes": list(report.notes),
        "parents_taken": dict(report.seeded),
        "sample_percent": report.summary.sample_percent,
        "tables": [
            {
                "table": table.table,
                "object": table.object,
                "rows": table.source,
                "rejected": table.rejected,
                "duplicate": table.duplicate,
                "refused": table.failed,
                "accepted": table.created + table.updated,
            }
            for table in report.summary.tables
        ],
        "would_fail": report.fails,
        "foretold": [{**foretold_document(one), "record_ids": list(one.group.record_ids)} for one in report.foretold],
        "evidence": report.evidence_no,
        "folder": str(report.folder) if report.folder is not None else None,
    }


def show_rehearsal(console: Console, report: RehearsalReport, plan_file: Path) -> None:
    """What cannot be known first, then what would fail and why."""
    console.print(Text.assemble((report.project, "bold"), ": rehearsed in a twin; nothing was written to the org"))
    if report.cannot_know:
        console.print(
            Text("What the twin cannot act out; more rows, or others, may fail than are foretold:", style="bold yellow")
        )
        for line in report.cannot_know:
            console.print(f"  - {line}")
    if report.summary.sample_percent is not None:
        console.print(f"a sample of {report.summary.sample_percent} % of each table's keys, with their parents")
    rows = [
        (
            f"{table.table} > {table.object}",
            count(table.source),
            count(table.created + table.updated),
            count(table.rejected),
            count(table.duplicate),
            count(table.failed),
        )
        for table in report.summary.tables
    ]
    headers = ("table", "rows", "accepted", "rejected by rules", "duplicate", "refused by the org")
    for table_line in table_lines(headers, rows):
        console.print(table_line)
    if not report.foretold:
        console.print("No row would fail." if not report.cannot_know else "No row is foretold to fail.")
    for one in report.foretold:
        where = ", ".join(part for part in (one.object, one.group.fields, one.rule) if part)
        rows_of = f"{plural(one.group.rows, 'row')} of {one.group.table_name}"
        console.print(Text.assemble((rows_of, "bold"), f": {one.group.code} ({where})"))
        console.print(f"  {one.group.message}")
        console.print(f"  such as {', '.join(one.group.record_ids)}")
        console.print(f"  > {one.remedy}")
    if report.seeded:
        taken = ", ".join(f"{count(rows)} of {name}" for name, rows in report.seeded.items())
        console.print(f"keys of records that are in the org already, for lookups: {taken}")
    for note in report.notes:
        console.print(f"note: {note}")
    if report.folder is not None:
        console.print(f"kept in {report.folder}")
    console.print(f"kept as evidence {report.evidence_no}; to load:  {again('run', plan_file)}")
