"""How `forcelift check` and `forcelift checklist` look, on a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from forcelift.before.check import Area, Verdict
from forcelift.checkitems import Item, ItemState
from forcelift.cli.options import again
from forcelift.cli.output import plural
from forcelift.preflight.checking import CheckReport, result_document
from forcelift.preflight.checklists import ChecklistReport

_STYLES: Final = {
    Verdict.PASS: "green",
    Verdict.WARN: "yellow",
    Verdict.FAIL: "bold red",
    Verdict.SKIPPED: "dim",
    ItemState.DONE: "green",
    ItemState.WAIVED: "yellow",
    ItemState.STALE: "yellow",
    ItemState.OPEN: "bold red",
}


def check_document(report: CheckReport) -> dict[str, Any]:
    """The document of `check --json`; described in docs/reference/cli.md."""
    return {
        "project": report.project,
        "org_id": report.org_id,
        "is_production": report.is_production,
        "plan_sha256": report.plan_sha256,
        "made_at": report.made_at.isoformat(),
        "evidence": report.evidence_no,
        "counts": {verdict.value: len(report.of(verdict)) for verdict in Verdict},
        "checks": [result_document(one) for one in report.results],
    }


def checklist_document(report: ChecklistReport) -> dict[str, Any]:
    """The document of `checklist --json`; described in docs/reference/cli.md."""
    return {
        "project": report.project,
        "org_id": report.org_id,
        "before": items_document(report.items),
        "blocks_production": list(report.blocking),
    }


def show_check(console: Console, report: CheckReport, plan_file: Path) -> None:
    """Area by area; evidence and what mends it below what did not pass."""
    width = max(len(one.name) for one in report.results)
    for area in Area:
        results = [one for one in report.results if one.area is area]
        if results:
            console.print(Text(area.value, style="bold"))
        for one in results:
            verdict = Text(f"{one.verdict.value:<7}", style=_STYLES[one.verdict])
            console.print(Text.assemble("  ", verdict, f"  {one.name:<{width}}  {one.figure}"))
            if one.verdict is not Verdict.PASS:
                for line in one.evidence:
                    console.print(f"{'':<{width + 13}}{line}")
                if one.fix is not None:
                    console.print(Text(f"{'':<{width + 13}}> {one.fix}", style="bold"))
    counts = ", ".join(f"{len(report.of(verdict))} {verdict.value}" for verdict in Verdict)
    console.print(f"{plural(len(report.results), 'check')}: {counts}")
    if report.evidence_no is not None:
        console.print(f"kept as evidence {report.evidence_no}")
    if report.is_production:
        console.print(Text("This is a PRODUCTION org: `run` loads it once the checklist is in order.", style="bold"))
        console.print(f"  {again('checklist', plan_file)}")


def show_checklist(console: Console, report: ChecklistReport, plan_file: Path) -> None:
    """Item by item, with what each rests on and what does it."""
    console.print(Text.assemble((report.project, "bold"), ": before the migration"))
    _show_items(console, report.items)
    if not report.blocking:
        console.print("Nothing keeps a load out of a production org.")
        return
    console.print(Text("a load of a production org would be refused:", style="bold"))
    for line in report.blocking:
        console.print(f"  - {line}")
    console.print(f"to go on without one:  {again('checklist waive NAME --by YOU --reason TEXT', plan_file)}")


def items_document(items: Sequence[Item]) -> list[dict[str, str]]:
    """The items of one phase."""
    return [
        {"name": one.name, "title": one.title, "state": one.state.value, "evidence": one.evidence, "how": one.how}
        for one in items
    ]


def show_items(console: Console, phase: str, items: Sequence[Item]) -> None:
    """The items of a later phase, below its name."""
    if items:
        console.print(Text(f"{phase} the migration", style="bold"))
        _show_items(console, items)


def _show_items(console: Console, items: Sequence[Item]) -> None:
    for one in items:
        mark = "x" if one.state is ItemState.DONE else "-" if one.state is ItemState.WAIVED else " "
        state = Text(f"{one.state.value:<6}", style=_STYLES[one.state])
        console.print(Text.assemble(f"[{mark}] ", state, f"  {one.title}  ({one.name})"))
        console.print(f"            {one.evidence}")
        if not one.is_in_order:
            console.print(Text(f"            > {one.how}", style="bold"))
