"""An org's shape as a twin's document: what of it a twin cannot act out, and the form that takes any record. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any


def unknowable(
    document: Mapping[str, Any], unread: Sequence[str], *, is_prepared: bool, leave_on: Collection[str]
) -> list[str]:
    """What acts on the plan's records in the org and not, or not for certain, in the twin; one line each.

    Args:
        document: Of `take_snapshot`.
        unread: Notes about active rules whose formula the twin cannot read.
        is_prepared: Whether the load is to run with automations switched off.
        leave_on: The plan's `prepare.leave_on`.
    """
    left_on = {name.lower() for name in leave_on}

    def acts(rule: Mapping[str, Any], names: Sequence[str]) -> bool:
        # What belongs to a package, and what the plan leaves on, is not switched off.
        return not is_prepared or rule.get("namespace") is not None or any(name.lower() in left_on for name in names)

    automations = document["automations"]
    lines = [
        f"trigger {rule['name']} on {rule['object']}: what its Apex code refuses or changes cannot be known"
        for rule in automations.get("triggers", ())
        if rule["active"] and acts(rule, [rule["name"]])
    ]
    lines += [
        f"flow {rule['name']} on {rule['object']}: what it refuses or changes cannot be known"
        for rule in automations.get("flows", ())
        if rule["active_version"] is not None and acts(rule, [rule["name"]])
    ]
    lines += [
        f"workflow rule {rule['object']}.{rule['name']}: what its field updates change cannot be known"
        for rule in automations.get("workflow_rules", ())
        if rule["active"] and acts(rule, [rule["name"], f"{rule['object']}.{rule['name']}"])
    ]
    if not is_prepared:
        lines += unread
        lines += [note for note in document["notes"] if note.startswith("duplicate rule") and "(active)" in note]
    lines += [note for note in document["notes"] if "refused to list" in note or "cannot be read; left out" in note]
    return lines


def bare_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same objects without automations and with no field required: a form that takes a record of one key alone."""
    describes = [
        {**entry, "fields": [{**field, "defaultedOnCreate": True} for field in entry["fields"]]}
        for entry in document["describes"]
    ]
    return {**document, "describes": describes, "automations": {}}


def seed_queries(parent_keys: Collection[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Which fields of which objects tell whether a parent is there: those that lookups go by."""
    found: dict[str, list[str]] = {}
    for object_name, field in sorted(parent_keys):
        if field.lower() != "id":
            found.setdefault(object_name, []).append(field)
    return {name: tuple(fields) for name, fields in found.items()}
