"""The external ID fields that the plan names: there, visible, unique, indexed; made where they are missing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

from forcelift.audit import AuditStore
from forcelift.plan import TablePlan
from forcelift.protocols.org import ObjectDescribe
from forcelift.protocols.setup import NewField, Setup
from forcelift.protocols.source import Column, ColumnKind

LENGTH_MAX: Final = 255  # of a text field, and so of an external ID
_SIZE: Final = re.compile(r"\((\d+)")
_LENGTHS: Final = {
    ColumnKind.INTEGER: 20,
    ColumnKind.FLOAT: 32,
    ColumnKind.BOOLEAN: 5,
    ColumnKind.DATE: 10,
    ColumnKind.TIMESTAMP: 20,
    ColumnKind.INSTANT: 20,
}


class FieldState(StrEnum):
    """How an external ID field stands."""

    FINE = "there"
    MISSING = "missing"
    UNSEEN = "there, but the user may not see it"
    WRONG = "cannot serve as external ID"


class FieldFinding(Struct, frozen=True, kw_only=True):
    """One external ID field of the plan. `notes` say what else a person should know."""

    object: str
    field: str
    table: str
    state: FieldState
    notes: tuple[str, ...] = ()
    length: int | None = None
    granted: str | None = None


def mapped_fields(table: TablePlan, describe: ObjectDescribe) -> list[str]:
    """Fields that the plan fills, as the plan spells them; a lookup by the parent's key is its own field."""
    names = [table.external_id, *(rule.field for rule in table.fields.values()), *table.constants, *table.computed]
    found = []
    for name in names:
        relation, dot, _ = name.partition(".")
        # A lookup to several objects is named with the one that is meant: `Contact:Who.Code__c`.
        field = describe.relationship(relation.rpartition(":")[2]) if dot else None
        found.append(field.name if field is not None else name)
    return list(dict.fromkeys(found))


def find_fields(
    tables: Sequence[TablePlan], describes: Mapping[str, ObjectDescribe], setup: Setup
) -> list[FieldFinding]:
    """How the external ID fields of these tables stand; changes nothing."""
    found: dict[tuple[str, str], FieldFinding] = {}
    for table in tables:
        describe, name = describes[table.object], table.external_id
        place = (describe.name, (name or "").lower())
        if name is None or place in found:
            continue
        field = describe.fields.get(name)
        seen = setup.field(describe.name, name)
        notes = []
        if seen is not None:
            words = "the org does not tell of an index"
            notes.append(words if seen.is_indexed is None else "indexed" if seen.is_indexed else "not indexed")
        if field is None:
            state = FieldState.MISSING if seen is None else FieldState.UNSEEN
        else:
            state = FieldState.FINE if field.id_lookup or field.external_id else FieldState.WRONG
            if not field.unique and state is FieldState.FINE and name.lower() != "id":
                notes.append("not unique: two records with one key make an upsert fail")
        found[place] = FieldFinding(
            object=describe.name, field=name, table=table.table, state=state, notes=tuple(notes)
        )
    return list(found.values())


def key_length(columns: Sequence[Column]) -> int:
    """Room for the longest key of these columns, as far as their declared types tell; at most 255."""
    lengths = [_length(column) for column in columns]
    # Parts are joined by a bar, and a bar inside a part is written as two characters.
    room = lengths[0] if len(lengths) == 1 else sum(2 * length for length in lengths) + len(lengths) - 1
    return min(LENGTH_MAX, room)


def _length(column: Column) -> int:
    if column.kind is ColumnKind.DECIMAL and column.precision is not None:
        return column.precision + 2
    if column.kind is ColumnKind.TEXT and (size := _SIZE.search(column.declared)) is not None:
        return min(LENGTH_MAX, int(size[1])) or LENGTH_MAX
    return _LENGTHS.get(column.kind, LENGTH_MAX)


def make_field(
    finding: FieldFinding,
    setup: Setup,
    audit: AuditStore,
    *,
    org_id: str,
    length: int,
    permission_set: str | None,
    by: str,
) -> FieldFinding:
    """Make a field that is missing, and let the loading user see it. Done twice it changes nothing."""
    payload = {"org": org_id, "field": f"{finding.object}.{finding.field}", "length": length, "by": by}
    if finding.state is FieldState.MISSING:
        audit.journal("field_making", payload)
        label = finding.field.removesuffix("__c").replace("_", " ").strip()[:40]
        setup.make_field(NewField(object=finding.object, name=finding.field, label=label, length=length))
    grant = setup.grant_field(finding.object, finding.field, permission_set=permission_set)
    audit.journal("field_granted", {**payload, "to": grant.label})
    seen = setup.field(finding.object, finding.field)
    is_indexed = seen is not None and bool(seen.is_indexed)
    return FieldFinding(
        object=finding.object,
        field=finding.field,
        table=finding.table,
        state=FieldState.FINE,
        notes=("indexed" if is_indexed else "not indexed yet: the org builds the index in the background",),
        length=length if finding.state is FieldState.MISSING else None,
        granted=grant.label,
    )
