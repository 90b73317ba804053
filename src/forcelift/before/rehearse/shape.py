"""An org's shape as a twin's document: what of it a twin cannot act out, and the form that takes any record. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from forcelift.before.prepare import mapped_fields
from forcelift.plan import TablePlan
from forcelift.protocols.org import FieldDescribe, ObjectDescribe

LOOKED_UP: Final = "look at lookups"
SIGNS_IN: Final = "rehearsal@forcelift.invalid"
_WORD: Final = re.compile(r"[A-Za-z]\w*")
_TEXT: Final = re.compile(r"\"[^\"]*\"|'[^']*'|\d+\.\d+")


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
    lines += [note for note in document["notes"] if LOOKED_UP in note and not is_prepared]
    return lines


def narrowed_picklists(tables: Sequence[TablePlan], describes: Mapping[str, ObjectDescribe]) -> list[str]:
    """Restricted picklists of objects with record types: a describe does not tell which values each type takes.

    Args:
        describes: By the name that the plan gives an object.
    """
    lines: dict[str, None] = {}
    for table in tables:
        describe = describes[table.object]
        if sum(1 for kind in describe.record_types if kind.developer_name != "Master") == 0:
            continue
        for name in mapped_fields(table, describe):
            field = describe.fields.get(name)
            if field is not None and field.restricted_picklist:
                lines[f"picklist {describe.name}.{field.name}: which values each record type takes cannot be known"] = (
                    None
                )
    return list(lines)


def bare_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same objects without automations and with no field required: a form that takes a record of one key alone."""
    describes = [
        {**entry, "fields": [{**field, "defaultedOnCreate": True} for field in entry["fields"]]}
        for entry in document["describes"]
    ]
    return {**document, "describes": describes, "automations": {}}


def users_document(owners: Collection[str]) -> list[dict[str, Any]]:
    """The twin's users: one that signs in, and those that the plan names as owners and the org has."""
    return [{"username": SIGNS_IN}, *({"username": name} for name in sorted(owners))]


class Seed(Struct, frozen=True, kw_only=True):
    """What the twin takes of an object's records that are in the org already.

    Attributes:
        keys: Fields of which a record has at least one filled to be taken: those that lookups and upserts go by, and
            unique ones, which a new record may collide with.
        read: Further fields, which active validation rules look at when such a record is updated.
        unseen: Rules that look at a lookup of it, which the twin cannot fill.
    """

    object: str
    keys: tuple[str, ...]
    read: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


def seeds(
    parent_keys: Collection[tuple[str, str]],
    upserted: Mapping[str, str | None],
    describes: Mapping[str, ObjectDescribe],
    rules: Sequence[Mapping[str, Any]],
) -> list[Seed]:
    """Which fields of which objects the twin needs, so that a row meets what it would meet in the org.

    Args:
        parent_keys: Object and field that lookups go by.
        upserted: The objects that are loaded, with the field by which records are found; None for inserts.
        describes: Of the loaded objects, by name.
        rules: Validation rules of the org, as a twin's document has them.
    """
    keys: dict[str, dict[str, None]] = {}
    for name, field in sorted(parent_keys):
        keys.setdefault(name, {})[field] = None
    for name, key in upserted.items():
        known = keys.setdefault(name, {})
        if key is not None:
            known[key] = None
        known.update({field.name: None for field in describes[name].fields.values() if field.unique})
    found = []
    for name, fields in keys.items():
        wanted = [field for field in fields if field.lower() != "id"]
        if not wanted:
            continue
        read: dict[str, None] = {}
        unseen = []
        if upserted.get(name) is not None:
            simple = {one.name.lower(): one.name for one in describes[name].fields.values() if _is_plain(one)}
            taken = {field.lower() for field in wanted}
            for rule in rules:
                if rule["active"] and str(rule["object"]).lower() == name.lower():
                    words = {word.lower() for word in _WORD.findall(str(rule["formula"]))}
                    read.update({simple[word]: None for word in sorted(words & set(simple) - taken)})
                    if "." in _TEXT.sub("", str(rule["formula"])) or words & _lookups(describes[name]):
                        unseen.append(str(rule["name"]))
        found.append(Seed(object=name, keys=tuple(wanted), read=tuple(read), unseen=tuple(unseen)))
    return found


def _is_plain(field: FieldDescribe) -> bool:
    return (
        field.createable and not field.calculated and field.type not in ("reference", "address", "location", "base64")
    )


def _lookups(describe: ObjectDescribe) -> set[str]:
    return {field.name.lower() for field in describe.fields.values() if field.type == "reference"}
