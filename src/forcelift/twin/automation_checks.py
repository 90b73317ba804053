"""Whether automations fit the org, and which of their formulas the twin can compute.

A rule of a real org may use any formula, and a snapshot copies it: one that the twin cannot read keeps its rule in the
org, where it can be seen and switched, and acts on nothing. The conditions and values of declared effects are the
twin's own language: what is wrong there is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from forcelift.twin.automation_fit import automation_problems
from forcelift.twin.automation_models import (
    Automation,
    Automations,
    Effect,
    FillField,
    Kind,
    RecordFlow,
    TakeTime,
    Trigger,
    ValidationRule,
    WorkflowRule,
)
from forcelift.twin.errors import ApiError
from forcelift.twin.formulas import check_formula
from forcelift.twin.schema import ObjectSchema, Schema

_Formula = tuple[str, str | None, str]
"""Place, text and the kind of value that is wanted."""
_WORDS: Final[dict[Kind, str]] = {"validation_rules": "validation rule", "workflow_rules": "workflow rule"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A rule with a formula that the twin cannot compute: it is kept, and acts on nothing."""

    kind: Kind
    full_name: str
    active: bool
    reason: str

    @property
    def note(self) -> str:
        switched = "active in the org, but acts on nothing here" if self.active else "inactive"
        return f"{_WORDS[self.kind]} {self.full_name} is {switched}: the twin cannot read its {self.reason}"

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.full_name, "active": self.active, "reason": self.reason}


Looked = dict[str, tuple[Automation, ObjectSchema | None, str | None]]
"""What was found out about rules, with the rule and the object that it was found out of."""


def unread_rules(automations: Automations, schema: Schema, looked: Looked | None = None) -> list[Unread]:
    """The validation and workflow rules that cannot act in the twin, in declared order.

    Args:
        looked: What an earlier call found; it is brought up to date, and what has not changed is not looked at again.
    """
    found = []
    looked = {} if looked is None else looked
    for kind, automation in automations.each():
        entry, key = schema.object(automation.object), f"{kind}/{automation.full_name.lower()}"
        earlier = looked.get(key)
        if earlier is not None and earlier[0] is automation and earlier[1] is entry:
            reason = earlier[2]
        else:
            reason = unread_reason(automation, entry)
            looked[key] = automation, entry, reason
        if reason is not None:
            found.append(Unread(kind=kind, full_name=automation.full_name, active=automation.active, reason=reason))
    return found


def unread_reason(automation: Automation, entry: ObjectSchema | None) -> str | None:
    """Which formula of a rule cannot be computed, and why; None if it acts as declared."""
    if entry is None or not isinstance(automation, ValidationRule | WorkflowRule):
        return None
    return next(_problems(_formulas(automation), entry), None)


def effect_problems(automations: Automations, schema: Schema) -> list[str]:
    """What cannot be carried out of triggers, flows and assignment rules as declared, each with its place."""
    problems = list(_assignment_problems(automations, schema))
    for kind, automation in automations.each():
        entry = schema.object(automation.object)
        if entry is not None and isinstance(automation, Trigger | RecordFlow):
            place = f"automations.{kind}.{automation.name}"
            problems += [f"{place}.{problem}" for problem in _problems(_formulas(automation), entry)]
    return problems


def _assignment_problems(automations: Automations, schema: Schema) -> Iterator[str]:
    usernames = {user.username for user in schema.users}
    taken: set[str] = set()
    for rule in automations.assignment_rules:
        place = f"automations.assignment_rules.{rule.name}"
        if rule.full_name.lower() in taken:
            yield f"{place}: `{rule.full_name}` stands there twice"
        taken.add(rule.full_name.lower())
        target = schema.object(rule.object)
        if target is None or target.field("OwnerId") is None:
            yield f"{place}.object: no object `{rule.object}` whose records have an owner"
            continue
        for number, entry in enumerate(rule.entries, start=1):
            if entry.owner not in usernames:
                yield f"{place}.entries.{number}.owner: no user `{entry.owner}`"
            formula: _Formula = (f"entries.{number}.condition", entry.condition, "boolean")
            yield from (f"{place}.{problem}" for problem in _problems([formula], target))


def check_automation(schema: Schema, automation: Automation, kind: Kind, present: Automation | None) -> None:
    """Raises ApiError 400 if what a call brings does not fit the org's objects, or has a formula the twin cannot read.

    A formula that the `present` one of that name has already is no reason: a rule can be switched, described anew and
    restored.
    """
    alone: dict[str, Any] = {kind: (automation,)}
    problems = automation_problems(Automations(**alone), schema.object)
    if problems:
        text = problems[0].removeprefix("automations.").partition(".")[2]
        raise ApiError(400, "FIELD_INTEGRITY_EXCEPTION", text)
    entry = schema.object(automation.object)
    if entry is None:
        return
    known = set() if present is None else set(_formulas(present))
    problem = next(_problems([each for each in _formulas(automation) if each not in known], entry), None)
    if problem is not None:
        text = f"the twin cannot compute {automation.name}.{problem}"
        raise ApiError(400, "FIELD_INTEGRITY_EXCEPTION", text)


def refuse_managed(automation: Automation) -> None:
    """Raises ApiError 400 for an automation of a managed package."""
    if automation.namespace is not None:
        text = f"Cannot modify managed object: entity={automation.full_name}, namespace={automation.namespace}"
        raise ApiError(400, "INSUFFICIENT_ACCESS_OR_READONLY", text)


def _problems(found: Sequence[_Formula], entry: ObjectSchema) -> Iterator[str]:
    for place, formula, kind in found:
        problem = None if formula is None else check_formula(formula, entry, wants=kind)
        if problem is not None:
            yield f"{place}: {problem}"


def _formulas(automation: Automation) -> list[_Formula]:
    match automation:
        case ValidationRule():
            return [("formula", automation.formula, "boolean")]
        case WorkflowRule():
            updates = [(f"field_updates.{update.field}", update.formula, "any") for update in automation.field_updates]
            return [("condition", automation.condition, "boolean"), *updates]
        case Trigger():
            return _effect_formulas("effects", automation.effects)
        case RecordFlow():
            found: list[_Formula] = [("condition", automation.condition, "boolean")]
            for version in automation.versions:
                found += _effect_formulas(f"versions.{version.number}.effects", version.effects)
            return found
    return []


def _effect_formulas(place: str, effects: Sequence[Effect]) -> list[_Formula]:
    found: list[_Formula] = []
    for number, effect in enumerate(effects, start=1):
        if not isinstance(effect, TakeTime):
            found.append((f"{place}.{number}.when", effect.when, "boolean"))
        if isinstance(effect, FillField):
            found.append((f"{place}.{number}.formula", effect.formula, "any"))
    return found
