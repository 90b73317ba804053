"""How `forcelift audit verify`, `export` and `purge` look, on a terminal and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from forcelift.cli.output import count, plural, table_lines
from forcelift.handover.exporting import Export
from forcelift.handover.proving import Proof
from forcelift.handover.purging import PurgeReport


def proof_document(proof: Proof) -> dict[str, Any]:
    """The document of `audit verify --json`; described in docs/reference/cli.md."""
    return {
        "is_whole": not proof.faults,
        "rows": proof.head.seq,
        "head": proof.head.hash,
        "audit_rows": proof.rows,
        "files": proof.files,
        "faults": list(proof.faults),
        "notes": list(proof.notes),
        "purged": list(proof.purged),
        "known_heads": list(proof.heads),
    }


def show_proof(console: Console, proof: Proof) -> None:
    """Faults first, each with what and where."""
    for fault in proof.faults:
        console.print(Text.assemble(("- ", "bold red"), fault))
    for line in proof.purged:
        console.print(f"purged: {line}")
    for line in proof.notes:
        console.print(f"note: {line}")
    for known in proof.heads:
        console.print(f"the head {known} is in the journal, and nothing before it was changed" if not proof.faults else
                      f"the head {known} is in the journal")  # fmt: skip
    verdict = (
        Text(f"{plural(len(proof.faults), 'fault')} found", style="bold red")
        if proof.faults
        else Text("the journal is whole, and so is the ledger", style="green")
    )
    console.print(
        Text.assemble(
            verdict,
            f": {plural(proof.head.seq, 'row')}, {plural(proof.rows, 'audit row')} and {plural(proof.files, 'file')} "
            f"compared, head {proof.head.hash}",
        )
    )


def export_document(made: Export) -> dict[str, Any]:
    """The document of `audit export --json`."""
    return {
        "folder": str(made.folder),
        "head": made.head.hash,
        "sha256": made.sha256,
        "tables": [{name: getattr(one, name) for name in one.__struct_fields__} for one in made.tables],
    }


def show_export(console: Console, made: Export) -> None:
    """A line for each file, and the manifest's digest."""
    rows = [(one.file, count(one.rows), one.sha256[:16]) for one in made.tables]
    for line in table_lines(("file", "rows", "sha256 begins"), rows, left=(0, 2)):
        console.print(line)
    console.print(f"{made.folder}/manifest.json, sha256 {made.sha256}")


def purge_document(report: PurgeReport) -> dict[str, Any]:
    """The document of `audit purge --json`."""
    return {
        "executed": report.executed,
        "batches": [
            {
                "batch_id": one.batch_id,
                "ended_at": one.ended_at.isoformat() if one.ended_at is not None else None,
                "failed_records": one.failed_records,
                "ledger_files": one.ledger_files,
                "other_files": one.other_files,
                "why_not": one.why_not,
                "done": one.done,
            }
            for one in report.items
        ],
    }


def show_purge(console: Console, report: PurgeReport) -> None:
    """Batch by batch, and what is lost by it."""
    rows = []
    for one in report.items:
        state = one.why_not or ("purged" if one.done else "would be purged")
        ended = f"{one.ended_at:%Y-%m-%d}" if one.ended_at is not None else "-"
        numbers = (count(one.failed_records), count(one.ledger_files), count(one.other_files))
        rows.append((one.batch_id, ended, *numbers, state))
    if not rows:
        console.print("no batch is old enough")
        return
    headers = ("batch", "ended", "failed records", "ledger files", "other files", "state")
    for line in table_lines(headers, rows, left=(0, 1, 5)):
        console.print(line)
    if not report.executed:
        console.print(
            Text("a purged batch can no longer be rolled back, retried, resumed or validated", style="bold red")
        )
        console.print('nothing was changed; do it by the same command with `--execute --no-way-back --reason "..."`')
