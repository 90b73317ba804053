"""How a whole project looks: its batches, and what became of each table's rows over all of them."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from rich.console import Console
from rich.text import Text

from forcelift.account.projects import ProjectSummary
from forcelift.account.recorded import ProjectStatus
from forcelift.cli.output import count, plural, table_lines
from forcelift.cli.status_view import off_document

COLUMNS = ("source", "created", "updated", "failed", "rejected", "duplicate", "in org")
BATCHES_SHOWN = 20


def project_document(seen: ProjectStatus) -> dict[str, Any]:
    """The document of `status --project --json`; described in docs/reference/cli.md."""
    return {
        **seen.summary.document(),
        "runners": {
            batch_id: [
                {"owner": one.owner, "since": one.since.isoformat(), "heartbeat": one.heartbeat.isoformat()}
                for one in runners
            ]
            for batch_id, runners in seen.runners.items()
        },
        "automations_off": [off_document(one) for one in seen.switched_off],
    }


def show_project(console: Console, seen: ProjectStatus) -> None:
    """Print the batches, then what became of every row of the project, each counted once."""
    summary = seen.summary
    console.print(Text.assemble(("project ", "bold"), (summary.scope.project, "bold"), f": {_words(seen)}"))
    console.print()
    _show_batches(console, seen)
    console.print()
    rows = [
        (
            table.table,
            plural(len(table.batches), "batch", "batches"),
            *(count(getattr(table, name.replace(" ", "_"))) for name in COLUMNS),
        )
        for table in summary.tables
    ]
    if len(rows) > 1:
        sums = (sum(getattr(table, name.replace(" ", "_")) for table in summary.tables) for name in COLUMNS)
        rows.append(("total", plural(len(summary.batches), "batch", "batches"), *map(count, sums)))
    for line in table_lines(("table", "of", *COLUMNS), rows, left=(0, 1)):
        console.print(line)
    for words in _other_rows(summary):
        console.print(words)
    for table in summary.tables:
        for group in table.refused_by_code:
            console.print(Text(f"{plural(group.rows, 'row')} of {table.table} still refused: {group.code}"))
            console.print(Text(f"    remedy   {group.remedy}"))
    for note in summary.notes:
        console.print(Text(f"note: {note}"))


def _words(seen: ProjectStatus) -> str:
    if seen.runners:
        return f"{plural(len(seen.runners), 'batch', 'batches')} at work"
    return "all chunks have ended" if seen.summary.is_ended else "not all chunks have ended"


def _show_batches(console: Console, seen: ProjectStatus) -> None:
    batches = [one.batch for one in seen.summary.batches]
    newest = batches[-BATCHES_SHOWN:]
    samples = seen.summary.samples
    rows = [
        (
            batch.batch_id,
            f"sample of {samples[batch.batch_id]} %"
            if batch.batch_id in samples
            else batch.mode.value.replace("_", " "),
            "at work" if batch.batch_id in seen.runners else batch.state.value,
            f"{batch.started_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            ", ".join(table.table for table in seen.summary.tables if batch.batch_id in table.batches),
        )
        for batch in newest
    ]
    for line in table_lines(("batch", "mode", "state", "began (UTC)", "tables"), rows, left=(0, 1, 2, 3, 4)):
        console.print(line)
    if len(batches) > len(newest):
        console.print(f"and {len(batches) - len(newest)} older ones; `--json` lists them all")


def _other_rows(summary: ProjectSummary) -> list[str]:
    lines = []
    for table in summary.tables:
        parts = [
            f"{table.unknown:,} sent, their answers gone" if table.unknown else "",
            f"{table.rolled_back:,} rolled back" if table.rolled_back else "",
            f"{table.kept:,} kept in the org by a rollback" if table.kept else "",
        ]
        if words := ", ".join(part for part in parts if part):
            lines.append(f"{table.table}: {words}")
    return lines
