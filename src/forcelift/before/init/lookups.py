"""Lookups of a draft: from foreign keys; what names alone suggest is doubtful. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from forcelift.before.init.draft import DraftColumn, DraftTable, quoted
from forcelift.before.init.match import THINKABLE, Match, fits_lookup
from forcelift.before.init.names import likeness
from forcelift.protocols.org import FieldDescribe, ObjectDescribe
from forcelift.protocols.source import ForeignKey

_BY_NAME = 0.7  # a lookup that names alone suggest: worth a line, never in force

Describe = Callable[[str], ObjectDescribe]


def with_lookups(drafts: Sequence[DraftTable], keys: Sequence[ForeignKey], describe: Describe) -> list[DraftTable]:
    """The drafts with lookups in place of what columns with a foreign key were matched to.

    Args:
        describe: Gives the describe of an object.
    """
    by_name = {draft.table: draft for draft in drafts}
    result = []
    for draft in drafts:
        if draft.object is None:
            result.append(draft)
            continue
        mine = [key for key in keys if key.table == draft.table]
        columns = [
            replace(_lookup(one, mine, by_name, describe(draft.object.name)) or one, comment=one.comment)
            for one in draft.columns
        ]
        notes = (*draft.notes, *_not_drafted(draft, mine))
        result.append(replace(draft, columns=tuple(_one_each(columns)), notes=notes))
    return result


def without_parents_left_out(drafts: Sequence[DraftTable]) -> list[DraftTable]:
    """The drafts in which no lookup in force names a table that is not: a table may fall with its last column."""
    found = list(drafts)
    while True:
        in_force = {draft.table for draft in found if not draft.doubts}
        settled = [
            replace(draft, columns=tuple(_doubted_without(one, in_force) for one in draft.columns)) for draft in found
        ]
        if settled == found:
            return settled
        found = settled


def _doubted_without(one: DraftColumn, in_force: set[str]) -> DraftColumn:
    if one.parent is None or one.parent in in_force or not one.match.is_sure:
        return one
    return replace(one, match=one.match.doubted(f"{one.parent} is left out"))


def _not_drafted(draft: DraftTable, keys: Sequence[ForeignKey]) -> list[str]:
    """Foreign keys that no line of the plan stands for."""
    drafted = {one.column for one in draft.columns}
    notes = []
    for key in keys:
        columns = ", ".join(key.columns)
        if len(key.columns) > 1:
            notes.append(f"{columns}: a foreign key of several columns to {key.parent}; a lookup takes one column")
        elif key.columns[0] not in drafted:
            why = "it is the key, which fills the external ID alone; a lookup needs the column a second time, in a view"
            notes.append(f"{columns}: a foreign key to {key.parent}; {why}")
    return notes


def _one_each(columns: Sequence[DraftColumn]) -> list[DraftColumn]:
    """No lookup twice: which of two columns it means, only a person knows."""
    counted = Counter(one.match.name for one in columns if one.parent is not None)
    return [
        replace(one, match=one.match.doubted(f"{counted[one.match.name]} columns may mean this lookup"))
        if one.parent is not None and counted[one.match.name] > 1
        else one
        for one in columns
    ]


def _lookup(
    one: DraftColumn, keys: Sequence[ForeignKey], by_name: Mapping[str, DraftTable], describe: ObjectDescribe
) -> DraftColumn | None:
    mine = [key for key in keys if key.columns == (one.column,)]
    if not mine:
        return _by_name(one, by_name, describe)
    key = next((key for key in mine if _object(by_name.get(key.parent)) is not None), mine[0])
    parent = by_name.get(key.parent)
    if parent is None:
        return _instead(one, f"a foreign key to {key.parent}, which is none of the tables drafted")
    if parent.object is None:
        return _instead(one, f"a foreign key to {key.parent}, for which there is no object")
    if parent.external_id is None:
        return _instead(one, f"a foreign key to {key.parent}, and {parent.object.name} has no external ID")
    fields = [field for field in describe.fields.values() if fits_lookup(field, parent.object.name)]
    if not fields:
        return _instead(
            one, f"a foreign key to {key.parent}, and {describe.name} has no lookup to {parent.object.name}"
        )
    best = max(fields, key=lambda field: (likeness(one.column, field.name), field.name))
    alike = likeness(one.column, best.name)
    match = Match(
        name=_path(best, parent.object.name, parent.external_id.name),
        confidence=0.95 if len(fields) == 1 else round(alike, 2),
        reason=f"a foreign key to {key.parent}{'' if len(fields) == 1 else f', one of {len(fields)} lookups to it'}",
    )
    near = [field.name for field in fields if field is not best and likeness(one.column, field.name) > alike - 0.05]
    if near:
        match = match.doubted(f"{near[0]} is as much like it")
    if tuple(key.parent_columns) != parent.key:
        match = match.doubted(f"it names {', '.join(key.parent_columns)} there, and the key is {', '.join(parent.key)}")
    if len({key.parent for key in mine}) > 1:
        match = match.doubted(f"it has {len(mine)} foreign keys, to {', '.join(sorted({key.parent for key in mine}))}")
    return DraftColumn(column=one.column, target=_target(match.name, key.parent), match=match, parent=key.parent)


def _object(parent: DraftTable | None) -> str | None:
    return None if parent is None or parent.object is None else parent.object.name


def _instead(one: DraftColumn, why: str) -> DraftColumn:
    """No lookup: a field of the column's own name stays, if that was sure."""
    if one.target is not None and one.match.is_sure:
        return replace(one, match=replace(one.match, reason=f"{one.match.reason}; {why}"))
    return DraftColumn(column=one.column, target=None, match=Match(name="", confidence=0.0, reason=why))


def _by_name(one: DraftColumn, by_name: Mapping[str, DraftTable], describe: ObjectDescribe) -> DraftColumn | None:
    """A lookup that a column may mean where no foreign key says so; only where nothing else is matched for sure."""
    if one.target is not None and one.match.is_sure:
        return None
    for parent in by_name.values():
        if parent.object is None or parent.external_id is None or not parent.key:
            continue
        fields = [field for field in describe.fields.values() if fits_lookup(field, parent.object.name)]
        if fields and likeness(one.column, parent.key[0]) >= THINKABLE + 0.4:
            path = _path(fields[0], parent.object.name, parent.external_id.name)
            reason = f"named as the key of {parent.table}; no foreign key says so"
            return DraftColumn(
                column=one.column,
                target=_target(path, parent.table),
                match=Match(name=path, confidence=_BY_NAME, reason=reason),
                parent=parent.table,
            )
    return None


def _path(field: FieldDescribe, parent: str, external_id: str) -> str:
    """As a plan names a lookup; one to several objects with the one that is meant."""
    return f"{f'{parent}:' if len(field.reference_to) > 1 else ''}{field.relationship_name}.{external_id}"


def _target(path: str, parent: str) -> str:
    return f"{{field: {quoted(path)}, parent: {quoted(parent)}}}"
