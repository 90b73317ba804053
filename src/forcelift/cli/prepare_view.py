"""How `forcelift prepare` and `restore` look, on a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from forcelift.before.prepare import (
    Decision,
    FieldFinding,
    FieldState,
    HistoryFinding,
    Outcome,
    PrepareItem,
    RestoredItem,
)
from forcelift.cli.options import again
from forcelift.cli.output import plural, table_lines
from forcelift.preflight.preparing import PrepareReport, RestoreReport
from forcelift.protocols.setup import OrgFacts

_SECTIONS = (
    (Decision.SWITCH, "to switch off"),
    (Decision.JOIN, "off already, by Forcelift; the last one to let go puts them back"),
    (Decision.CHANGED, "remembered as off, and changed by somebody: nothing is done until that is settled"),
    (Decision.LEAVE, "left on, as the plan says"),
    (Decision.LEAVE_OFF, "OFF though this plan leaves them on: another batch or prepare switched them off"),
    (Decision.MANAGED, "of managed packages: they cannot be switched and stay on"),
)


def prepare_document(report: PrepareReport, plan_file: Path) -> dict[str, Any]:
    """The document of `prepare --json`; described in docs/reference/cli.md."""
    return {
        "org_id": report.org_id,
        "org": report.org.name,
        "is_production": report.org.is_production,
        "executed": report.executed,
        "name": report.name,
        "automations": [
            {
                "kind": one.item.kind.value,
                "name": one.item.name,
                "object": one.automation.object,
                "namespace": one.automation.namespace,
                "decision": one.decision.name.lower(),
                "acts": one.state.acts if one.state is not None else None,
            }
            for one in report.plan.items
        ],
        "unplaced": list(report.plan.unplaced),
        "history": [_history_document(one) for one in report.history],
        "fields": [_field_document(one) for one in report.fields],
        "off": len(report.held),
        "restore_command": again(f"restore --name {report.name} --execute", plan_file) if report.held else None,
    }


def _field_document(one: FieldFinding) -> dict[str, Any]:
    return {
        "object": one.object,
        "field": one.field,
        "state": one.state.name.lower(),
        "notes": list(one.notes),
        "made_with_length": one.length,
        "granted_to": one.granted,
    }


def _history_document(one: HistoryFinding) -> dict[str, Any]:
    return {
        "object": one.object,
        "mapped": one.mapped,
        "tracked": list(one.tracked),
        "to_switch_on": [name for name in one.asked if name not in one.refused],
        "switched_on": list(one.switched),
        "refused": dict(one.refused),
    }


def restore_document(report: RestoreReport, plan_file: Path) -> dict[str, Any]:
    """The document of `restore --json`; described in docs/reference/cli.md."""
    return {
        "org_id": report.org_id,
        "org": report.org.name,
        "is_production": report.org.is_production,
        "executed": report.executed,
        "automations": [
            {
                "kind": one.state.kind,
                "name": one.state.name,
                "object": one.state.object,
                "outcome": one.outcome.name.lower(),
                "off_since": (one.state.off_at or one.state.taken_at).isoformat(),
                "why": one.why,
                "acts": one.acts,
                "sha256": one.proof,
            }
            for one in report.items
        ],
        "errors": [error.message for error in report.errors],
    }


def show_prepare(console: Console, report: PrepareReport, plan_file: Path) -> None:
    """What is, or would be, off, and what is not."""
    _show_org(console, report.org)
    plan = report.plan
    for decision, words in _SECTIONS:
        if items := plan.of(decision):
            title = "switched off" if report.executed and decision is Decision.SWITCH else words
            _show_items(console, title, items)
    if inactive := plan.of(Decision.INACTIVE):
        console.print(f"inactive already, and not touched: {len(inactive)}")
    for name in plan.unplaced:
        console.print(f"not told by the org whether it is of these objects, look at it yourself: {name}")
    _show_fields(console, report.fields)
    _show_history(console, report.history)
    if not report.executed:
        if plan.of(Decision.SWITCH) and report.org.is_production:
            console.print("This is production: switching triggers deploys them, which runs Apex tests, now and later.")
        console.print(f"Nothing was changed. Do it by:  {again('prepare --execute', plan_file)}")
        return
    console.print(f"{plural(len(report.held), 'automation')} off, each read back. What they would have done since")
    console.print("is left undone: plan to make it up from the lines above.")
    if report.held:
        console.print(f"put back by:  {again(f'restore --name {report.name} --execute', plan_file)}")


def _show_org(console: Console, org: OrgFacts) -> None:
    kind = "PRODUCTION" if org.is_production else "no production org"
    console.print(Text.assemble("org ", (org.name, "bold"), f", {org.edition}: ", (kind, "bold")))


def _show_items(console: Console, title: str, items: Sequence[PrepareItem]) -> None:
    console.print(Text(title, style="bold"))
    rows = [
        (
            one.item.kind.words,
            one.item.name,
            one.state.acts if one.state is not None else f"package {one.automation.namespace}",
        )
        for one in items
    ]
    for line in table_lines(("kind", "name", "what it does"), rows, left=(0, 1, 2)):
        console.print(line)


def _show_fields(console: Console, fields: Sequence[FieldFinding]) -> None:
    for one in fields:
        words = one.state.value
        if one.state is FieldState.FINE and one.granted is not None:
            made = f"made, text of {one.length}, unique; " if one.length is not None else ""
            words = f"{made}visible to {one.granted}"
        notes = f" ({'; '.join(one.notes)})" if one.notes else ""
        console.print(f"external ID field {one.object}.{one.field}: {words}{notes}")


def _show_history(console: Console, found: Sequence[HistoryFinding]) -> None:
    for one in found:
        which = ", ".join(one.tracked) or "none"
        console.print(f"field history of {one.object}: tracked {which} (of {plural(one.mapped, 'mapped field')})")
        if one.switched:
            console.print(f"  switched on, and stays on: {', '.join(one.switched)}")
        if to_switch := [name for name in one.asked if name not in one.refused]:
            console.print(f"  to be switched on: {', '.join(to_switch)}")
        for name, why in one.refused.items():
            console.print(Text(f"  not switched on: {name}: {why}", style="bold red"))
        if one.tracked:
            console.print("  each change of a tracked field writes a history record more")


def show_restore(console: Console, report: RestoreReport, plan_file: Path) -> None:
    """What is, or would be, put back, and what is not."""
    _show_org(console, report.org)
    if not report.items:
        console.print("Nothing is switched off by Forcelift in this org.")
        return
    rows = [
        (
            one.state.kind.replace("_", " "),
            one.state.name,
            f"{(one.state.off_at or one.state.taken_at).astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            f"{one.outcome.value}{f': {one.why}' if one.why else ''}",
        )
        for one in report.items
    ]
    for line in table_lines(("kind", "name", "off since (UTC)", "now"), rows, left=(0, 1, 2, 3)):
        console.print(line)
    console.print(Text("what they would have done meanwhile, to be made up where it matters", style="bold"))
    for one in report.items:
        console.print(f"  {one.state.name}: {one.acts}")
    if not report.executed:
        console.print(f"Nothing was changed. Do it by:  {again('restore --execute', plan_file)}")
    same = [one for one in report.items if one.outcome in (Outcome.RESTORED, Outcome.FOUND)]
    if report.executed and same:
        console.print(f"compared byte for byte: {plural(len(same), 'automation')} exactly as before")
    if open_items := report.still_open:
        _show_ways_out(console, open_items, plan_file)


def _show_ways_out(console: Console, items: Sequence[RestoredItem], plan_file: Path) -> None:
    console.print(Text(f"{plural(len(items), 'automation')} not as before", style="bold red"))
    name = items[0].state.name
    console.print(f"to put one back all the same:  {again(f'restore --execute --overwrite {name}', plan_file)}")
    console.print(f"to take one as it is now:      {again(f'restore --execute --keep {name}', plan_file)}")
