"""Which object a table means, and which field a column: by name, type and a sample of the values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from msgspec.structs import replace

from forcelift.before.init.names import common_prefix, likeness
from forcelift.protocols.org import FieldDescribe, ObjectDescribe
from forcelift.protocols.source import Column, ColumnKind, SourceTable

SURE: Final = 0.8
"""From here on a match goes into the plan; below, it is commented out with its reason."""

THINKABLE: Final = 0.5
"""Below, it is no match."""

_TABLE_GAP: Final = 0.1
_COLUMN_GAP: Final = 0.05
"""Two that are alike within so much are taken for equally alike: nobody knows which is meant."""

CANDIDATES: Final = 6
"""Objects that are looked at for one table; each costs a describe."""

_TEXTS = frozenset({"string", "textarea", "email", "phone", "url", "picklist", "multipicklist", "combobox"})
_NUMBERS = frozenset({"double", "currency", "percent", "int", "long"})
_FITS: Final[Mapping[ColumnKind, frozenset[str]]] = {
    ColumnKind.TEXT: _TEXTS | {"encryptedstring"},
    ColumnKind.INTEGER: _NUMBERS | {"boolean"},
    ColumnKind.DECIMAL: _NUMBERS,
    ColumnKind.FLOAT: _NUMBERS,
    ColumnKind.BOOLEAN: frozenset({"boolean"}),
    ColumnKind.DATE: frozenset({"date", "datetime"}),
    ColumnKind.TIMESTAMP: frozenset({"datetime", "date"}),
    ColumnKind.INSTANT: frozenset({"datetime"}),
}
_NOT_FILLED = frozenset({"id", "address", "location", "base64", "complexvalue", "anytype"})
_PERSONAL_OBJECTS = 0.02


class Match(Struct, frozen=True, kw_only=True):
    """What something means, how sure that is, and why."""

    name: str
    confidence: float
    reason: str

    @property
    def is_sure(self) -> bool:
        return self.confidence >= SURE

    def doubted(self, why: str) -> Match:
        """The same, not sure any more, and why."""
        return replace(self, confidence=min(self.confidence, SURE - 0.01), reason=f"{self.reason}; {why}")


def rank_objects(table: str, objects: Iterable[str], *, tables: Sequence[str]) -> list[str]:
    """The objects whose names are most like the table's, best first: those that are worth a describe."""
    prefix = common_prefix(tables)
    scored = sorted(((_alike(table, name, prefix), name) for name in objects), reverse=True)
    return [name for score, name in scored[:CANDIDATES] if score > 0.25]


def match_tables(
    tables: Mapping[str, SourceTable], candidates: Mapping[str, Sequence[ObjectDescribe]]
) -> dict[str, Match | None]:
    """An object for each table, in force no object twice.

    Args:
        tables: By name.
        candidates: For each table the objects that it may mean, described.
    """
    prefix = common_prefix(list(tables))
    scored = []
    for name, table in tables.items():
        for describe in candidates[name]:
            if not (describe.createable and describe.queryable):
                continue
            named = max(_alike(name, describe.name, prefix), _alike(name, describe.label, prefix))
            columns = match_columns(table, describe, None)
            found = {match.name for match in columns.values() if match is not None and match.confidence >= THINKABLE}
            covered = len(found) / max(1, len(table.columns))
            score = named * (0.85 + 0.15 * covered)
            reason = f"name {named:.0%} alike, {len(found)} of {len(table.columns)} columns have a field"
            scored.append((score, name, describe.name, reason))
    return _paired(list(tables), scored, gap=_TABLE_GAP)


def _paired(
    names: Sequence[str], scored: Sequence[tuple[float, str, str, str]], *, gap: float
) -> dict[str, Match | None]:
    """One of theirs for each of ours, none in force twice: the surest first, and none sure that another comes near.

    Args:
        scored: How much each of ours is like one of theirs: score, ours, theirs, the reason.
    """
    best = sorted((one for one in scored if one[0] >= THINKABLE), key=lambda one: (-one[0], one[1], one[2]))
    chosen: dict[str, Match | None] = dict.fromkeys(names)
    takers: dict[str, str] = {}
    for score, ours, theirs, reason in best:
        if chosen[ours] is None and theirs not in takers:
            chosen[ours] = Match(name=theirs, confidence=round(score, 2), reason=reason)
            takers[theirs] = ours
    taken = {ours: score for score, ours, theirs, _ in best if takers.get(theirs) == ours}
    doubts: dict[str, list[str]] = {}
    for score, ours, theirs, reason in best:
        taker = takers.get(theirs)
        if taker == ours:
            continue
        if ours in taken:
            # It has another of theirs; this one would have done as well, unless somebody else has that.
            if taker is None and score > taken[ours] - gap:
                doubts.setdefault(ours, []).append(f"`{theirs}` is as much like it")
        elif taker is not None:
            near = score > taken[taker] - gap
            if near:
                doubts.setdefault(taker, []).append(f"`{ours}` is as much like {theirs}")
            if chosen[ours] is None:
                found = Match(name=theirs, confidence=round(score, 2), reason=reason)
                chosen[ours] = found.doubted(f"`{taker}` is {'as much' if near else 'more'} like it")
    for ours, why in doubts.items():
        found_match = chosen[ours]
        if found_match is not None:
            chosen[ours] = found_match.doubted(", ".join(why[:3]) + (" and more" if why[3:] else ""))
    return chosen


def match_columns(table: SourceTable, describe: ObjectDescribe, sample: pa.Table | None) -> dict[str, Match | None]:
    """A field for each column, in force no field twice. Lookups and Ids are not matched so.

    Args:
        sample: Rows, to see whether values fit; None goes by names and types alone.
    """
    scored = []
    for column in table.columns:
        for field in describe.fields.values():
            if not field.createable or field.calculated or field.type in _NOT_FILLED or field.type == "reference":
                continue
            score, reason = _column_score(table.name, column, field, sample)
            scored.append((score, column.name, field.name, reason))
    return _paired([column.name for column in table.columns], scored, gap=_COLUMN_GAP)


def _alike(table: str, object_name: str, prefix: Sequence[str]) -> float:
    # The org may carry the application's short name too, or not.
    return max(likeness(table, object_name), likeness(table, object_name, prefix=prefix))


def _column_score(table: str, column: Column, field: FieldDescribe, sample: pa.Table | None) -> tuple[float, str]:
    named, by = likeness(column.name, field.name), "name"
    if (labelled := likeness(column.name, field.label)) > named:
        named, by = labelled, "label"
    # `TENANT_NAME` of a table of tenants is its `Name`.
    if field.name == "Name" and likeness(column.name, f"{table} name") > max(named, 0.6):
        named, by = 0.85, "name with the table's"
    same = f"the same {by}" if named >= 1.0 else f"{by} {named:.0%} alike"
    if column.kind is ColumnKind.UNSUPPORTED:
        return 0.0, f"{column.declared} cannot be read"
    fits = _FITS.get(column.kind, frozenset())
    if field.type not in fits:
        if column.kind is ColumnKind.TEXT and field.type in _NUMBERS | {"date", "datetime", "boolean"}:
            return named * 0.85, f"{same}; text into {field.type}"
        if field.type in _TEXTS:
            return named * 0.85, f"{same}; {column.kind.value} into text"
        return named * 0.3, f"{same}; {column.kind.value} does not fit {field.type}"
    score, reason = named, f"{same}; {column.kind.value} into {field.type}"
    return _by_values(score, reason, column, field, sample)


def _by_values(
    score: float, reason: str, column: Column, field: FieldDescribe, sample: pa.Table | None
) -> tuple[float, str]:
    """What a sample of the values says about a match: longer texts, other picklist values."""
    if sample is None or column.kind is not ColumnKind.TEXT or column.name not in sample.column_names:
        return score, reason
    values = sample[column.name]
    if not pa.types.is_string(values.type) and not pa.types.is_large_string(values.type):
        return score, reason
    longest = pc.max(pc.utf8_length(values)).as_py() or 0
    if field.length and longest > field.length:
        return score * 0.95, f"{reason}; values of up to {longest} characters, and {field.length} fit: see `too_long`"
    if field.restricted_picklist and field.picklist_values:
        seen = pc.unique(values.drop_null())
        other = sum(1 for value in seen.to_pylist() if value not in field.picklist_values)
        if other:
            return score * 0.95, f"{reason}; {other} values are none of the picklist's: see `values`"
    return score, reason


def fits_lookup(field: FieldDescribe, parent_object: str) -> bool:
    """Whether a field can point at that object."""
    return field.type == "reference" and field.createable and parent_object in field.reference_to
