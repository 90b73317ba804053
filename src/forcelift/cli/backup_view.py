"""How `forcelift backup` looks, on a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from forcelift.audit.backups import BackupRow
from forcelift.before.backup import DropDecision
from forcelift.cli.options import again
from forcelift.cli.output import count, plural, table_lines
from forcelift.preflight.backing_up import BackupReport, DropReport


def made_document(report: BackupReport) -> dict[str, Any]:
    """The document of `backup --json`; described in docs/reference/cli.md."""
    return {
        "source": report.kind,
        "backups": [
            {
                "table": one.planned.table,
                "backup_table": one.planned.name,
                "rows": one.copied.rows,
                "where": one.planned.where,
                "is_one_state": one.copied.is_one_state,
                "checksum": one.copied.checksum,
            }
            for one in report.made
        ],
    }


def list_document(rows: Sequence[BackupRow]) -> dict[str, Any]:
    """The document of `backup --list --json`."""
    return {"backups": [_row_document(row) for row in rows]}


def drop_document(report: DropReport) -> dict[str, Any]:
    """The document of `backup --drop-older-than --json`."""
    return {
        "executed": report.executed,
        "backups": [{**_row_document(one.backup), "decision": one.decision.name.lower()} for one in report.items],
    }


def _row_document(row: BackupRow) -> dict[str, Any]:
    return {
        "table": row.table_name,
        "backup_table": row.backup_table,
        "rows": row.row_count,
        "created": _iso(row.created_date),
        "created_by": row.created_by,
        "checksum": row.checksum,
        "source": row.source_url,
        "dropped": _iso(row.dropped_date),
        "dropped_by": row.dropped_by,
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def show_made(console: Console, report: BackupReport) -> None:
    """Each copy, its rows and what was counted."""
    rows = [
        (
            one.planned.table,
            one.planned.name,
            count(one.copied.rows),
            "whole table" if one.planned.where is None else "within the plan's `where`",
        )
        for one in report.made
    ]
    for line in table_lines(("table", "copy", "rows", "what"), rows, left=(0, 1, 3)):
        console.print(line)
    console.print("The rows of each copy were counted and are the table's; MIGRATION_BACKUP_LOG has them.")
    if any(one.planned.room.free is None for one in report.made):
        console.print("How much room is left could not be told: look at the database's disk yourself.")


def show_list(console: Console, backups: Sequence[BackupRow]) -> None:
    """What the backup log knows."""
    if not backups:
        console.print("No copy is recorded.")
        return
    rows = [
        (
            row.table_name,
            row.backup_table,
            count(row.row_count),
            _day(row.created_date),
            row.created_by or "-",
            f"dropped {_day(row.dropped_date)}" if row.dropped_date is not None else "",
        )
        for row in backups
    ]
    for line in table_lines(("table", "copy", "rows", "made (UTC)", "by", ""), rows, left=(0, 1, 3, 4, 5)):
        console.print(line)


def show_drops(console: Console, report: DropReport, days: int, plan_file: Path) -> None:
    """What would be, or was, dropped, and what stays."""
    if not report.items:
        console.print(f"No copy of this source is older than {plural(days, 'day')}.")
        return
    rows = [
        (
            one.backup.backup_table,
            count(one.backup.row_count),
            _day(one.backup.created_date),
            "dropped" if report.executed and one.decision is DropDecision.DROP else one.decision.value,
        )
        for one in report.items
    ]
    for line in table_lines(("copy", "rows", "made (UTC)", "now"), rows, left=(0, 2, 3)):
        console.print(line)
    if not report.executed and any(one.decision is DropDecision.DROP for one in report.items):
        command = again(f"backup --drop-older-than {days} --execute", plan_file)
        console.print(f"Nothing was dropped. Do it by:  {command}")


def _day(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"
