"""Findings as they are shown: with words, figures and who accepted them; the gravest first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from forcelift.before.profile import catalogue
from forcelift.before.profile.records import Action, Finding
from forcelift.before.profile.sink import Found
from forcelift.before.profile.world import ProfileWorld
from forcelift.jobs.repeats import Repeats
from forcelift.jobs.work import TableWork

_ORDER: Final = (
    Action.REJECTED,
    Action.FAILED,
    Action.DROPPED,
    Action.KEPT,
    Action.WARNED,
    Action.CHANGED,
    Action.LINKED,
    Action.TOLD,
)


def findings_of(
    world: ProfileWorld,
    work: TableWork,
    found: Mapping[tuple[str, str, Action], Found],
    *,
    repeats: Repeats,
    copies: tuple[int, int],
) -> tuple[Finding, ...]:
    """The findings of one table."""
    shown = [
        _finding(world, work, kind, column, action, one, repeats=repeats, copies=copies)
        for (kind, column, action), one in found.items()
        if one.rows
    ]
    return tuple(sorted(shown, key=lambda one: (_ORDER.index(one.action), -one.rows, one.column, one.kind)))


def _finding(
    world: ProfileWorld,
    work: TableWork,
    kind: str,
    column: str,
    action: Action,
    found: Found,
    *,
    repeats: Repeats,
    copies: tuple[int, int],
) -> Finding:
    facts = found.facts
    outcome = catalogue.outcome(kind, action)
    if kind == "duplicate":
        facts = (*facts, ("keys", repeats.keys), ("rows_of_these_keys", repeats.rows))
        facts = (*facts, ("copies_equal", copies[0]), ("copies_by_external_id_rule", copies[1]))
    if kind == "null_key" and work.plan.null_key == "stop":
        outcome = "the batch ends before anything is sent, as `null_key: stop` says"
    finding = Finding(
        table=work.plan.table,
        column=column,
        field=_field(work, column),
        kind=kind,
        action=action,
        rows=found.rows,
        decides=found.decides,
        what=catalogue.sentence(kind),
        outcome=outcome,
        remedy=catalogue.remedy(kind, action),
        examples=tuple(found.examples),
        facts=facts,
    )
    accepted = world.accepted.get(finding.name)
    return finding if accepted is None else replace(finding, accepted=accepted)


def _field(work: TableWork, column: str) -> str | None:
    lookup = work.rules.lookups.get(column)
    if lookup is not None:
        return lookup.field
    if column == work.rules.key_place.column:
        return work.rules.key_field
    return work.rules.targets.get(column)
