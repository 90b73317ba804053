"""Whether declared automations fit the org's objects: names, objects and fields that they mention."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from forcelift.twin.automation_models import (
    KINDS,
    Automation,
    Automations,
    DuplicateRule,
    Effect,
    FieldValue,
    FillField,
    LockParent,
    RecordFlow,
    RejectRows,
    Trigger,
    ValidationRule,
    WorkflowRule,
)
from forcelift.twin.schema import ObjectSchema

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*\Z")


def automation_problems(automations: Automations, find_object: Callable[[str], ObjectSchema | None]) -> list[str]:
    """What does not fit the org's objects or itself, each with its place; empty if all is well."""
    problems: list[str] = []
    for kind in KINDS:
        names = Counter(entry.full_name.lower() for entry in getattr(automations, kind))
        problems += [f"automations.{kind}: `{name}` stands there twice" for name, times in names.items() if times > 1]
    for kind, entry in automations.each():
        place = f"automations.{kind}.{entry.name}"
        if not _NAME.match(entry.name) or len(entry.name) > 80:
            problems.append(f"{place}: a name has letters, digits and single underscores, at most 80 in all")
        target = find_object(entry.object)
        if target is None:
            problems.append(f"{place}.object: no object `{entry.object}`")
            continue
        problems += [f"{place}.{problem}" for problem in _field_problems(entry, target)]
    return problems


def _field_problems(entry: Automation, target: ObjectSchema) -> Iterator[str]:
    match entry:
        case ValidationRule():
            yield from _no_field(target, "error_field", entry.error_field)
        case Trigger():
            yield from _effect_problems(entry.effects, target)
        case RecordFlow():
            numbers = [version.number for version in entry.versions]
            if len(numbers) != len(set(numbers)):
                yield "versions: a number stands there twice"
            if entry.active_version and entry.active_version not in numbers:
                yield f"active_version: there is no version {entry.active_version}"
            for version in entry.versions:
                for problem in _effect_problems(version.effects, target):
                    yield f"versions.{version.number}.{problem}"
        case WorkflowRule():
            for number, update in enumerate(entry.field_updates, start=1):
                yield from _no_field(target, f"field_updates.{number}.field", update.field)
                yield from _two_values(f"field_updates.{number}", update.value, update.formula)
        case DuplicateRule():
            for name in entry.match_fields:
                yield from _no_field(target, "match_fields", name)


def _effect_problems(effects: tuple[Effect, ...], target: ObjectSchema) -> Iterator[str]:
    for number, effect in enumerate(effects, start=1):
        place = f"effects.{number}"
        match effect:
            case RejectRows():
                yield from _no_field(target, f"{place}.field", effect.field)
            case FillField():
                yield from _no_field(target, f"{place}.field", effect.field)
                yield from _two_values(place, effect.value, effect.formula)
            case LockParent():
                field = target.field(effect.field)
                yield from _no_field(target, f"{place}.field", effect.field)
                if field is not None and field.type != "reference":
                    yield f"{place}.field: `{effect.field}` is no lookup"


def _two_values(place: str, value: FieldValue, formula: str | None) -> Iterator[str]:
    if value is not None and formula is not None:
        yield f"{place}: give `value` or `formula`, not both"


def _no_field(target: ObjectSchema, place: str, name: str | None) -> Iterator[str]:
    field = None if name is None else target.field(name)
    if name is not None and (field is None or not field.stored):
        yield f"{place}: {target.name} has no field `{name}`"
