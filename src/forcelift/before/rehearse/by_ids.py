"""Lookups that the plan fills with Salesforce Ids, which a twin cannot act out: its records have Ids of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from forcelift.plan import TablePlan
from forcelift.plan.models import Plan
from forcelift.protocols.org import ObjectDescribe


class MappedId(Struct, frozen=True, kw_only=True):
    """A lookup that is filled with Ids. `named` is the field as the plan writes it; `column` is None for a constant."""

    table: str
    object: str
    field: str
    named: str
    column: str | None


def mapped_ids(tables: Sequence[TablePlan], describes: Mapping[str, ObjectDescribe]) -> list[MappedId]:
    """What the plan maps so.

    Args:
        describes: By the name that the plan gives an object.
    """
    found = []
    for table in tables:
        describe = describes[table.object]
        references = {name.lower(): field.name for name, field in describe.fields.items() if field.type == "reference"}
        named: list[tuple[str, str | None]] = [(rule.field, column) for column, rule in table.fields.items()]
        named += [(field, None) for field, value in table.constants.items() if isinstance(value, str)]
        for name, column in named:
            if (field := references.get(name.lower())) is not None:
                found.append(MappedId(table=table.table, object=describe.name, field=field, named=name, column=column))
    return found


def ids_lines(found: Sequence[MappedId]) -> list[str]:
    """What a rehearsal cannot know of these, one line each."""
    return [
        f"lookup {one.object}.{one.field} is filled with Salesforce Ids: whether these are Ids of records that are"
        " there, and what rules make of them, cannot be known"
        for one in found
    ]


def without_ids(plan: Plan, found: Sequence[MappedId]) -> Plan:
    """The plan without these, for a twin."""
    tables = []
    for table in plan.tables:
        here = [one for one in found if one.table == table.table]
        columns, constants = {one.column for one in here}, {one.named for one in here if one.column is None}
        changes = {
            "fields": {name: rule for name, rule in table.fields.items() if name not in columns},
            "constants": {name: value for name, value in table.constants.items() if name not in constants},
        }
        tables.append(table.model_copy(update=changes) if here else table)
    return plan.model_copy(update={"tables": tables})


def with_optional(document: Mapping[str, Any], found: Sequence[MappedId]) -> dict[str, Any]:
    """The same shape with none of these required, as nothing is sent for them."""
    wanted = {(one.object, one.field) for one in found}

    def optional(entry: Mapping[str, Any], field: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**field, "defaultedOnCreate": True} if (entry["name"], field["name"]) in wanted else field

    describes = [
        {**entry, "fields": [optional(entry, field) for field in entry["fields"]]} for entry in document["describes"]
    ]
    return {**document, "describes": describes}
