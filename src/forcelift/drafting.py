"""Draft a plan from a source's dictionary and an org's describe.

Reads:   the source's dictionary and a sample of each table, the org's describes.
Writes:  one plan file, new.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from forcelift.assembly import foreign_keys, open_org, open_source
from forcelift.before.init import DraftColumn, DraftTable, Match, draft_text, match_columns, match_tables, rank_objects
from forcelift.before.init.draft import quoted
from forcelift.before.init.match import SURE, THINKABLE, fits_lookup
from forcelift.before.init.names import likeness
from forcelift.errors import ForceliftError, StateConflict, StorageError, UsageError
from forcelift.plan import LoadedPlan, load_order, load_plan
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.protocols.org import ObjectDescribe, Org
from forcelift.protocols.source import ForeignKey, Source, SourceTable
from forcelift.rules import frame_of

SAMPLE_ROWS: Final = 1_000
_NAMED_AS_ID: Final = 0.9
_BY_NAME: Final = 0.7  # a lookup that names alone suggest: worth a line, never in force

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftSettings:
    """What is asked.

    Attributes:
        source, target: Sections of the plan as a person would write them; secrets as `${ENV}` or `file:PATH`.
        tables: Only these; all if empty.
        out: The plan file to write; it must not be there.
    """

    project: str
    source: Mapping[str, object]
    target: Mapping[str, object]
    out: Path
    tables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftReport:
    """The draft. `order` are the groups of the load order, `cycles` those of several tables or of one with itself."""

    file: Path
    tables: tuple[DraftTable, ...]
    order: tuple[tuple[str, ...], ...]
    cycles: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    @property
    def in_force(self) -> list[DraftTable]:
        """Tables that the plan moves as it stands."""
        return [table for table in self.tables if not table.doubts]


def draft_plan(
    settings: DraftSettings, *, told: Told = lambda sentence: None, clock: Clock | None = None
) -> DraftReport:
    """Draft a plan and write it.

    Raises:
        StateConflict: The file is there.
        UsageError: A table is named that the source lacks, or source and target are not written as a plan has them.
        SourceError, TargetError: Source or org cannot be read.
    """
    clock = clock or SystemClock()
    if settings.out.exists():
        raise StateConflict(f"`{settings.out}` exists", state="it was not changed", hint="name another file by `--out`")
    notes: list[str] = []
    with _connections(settings) as loaded, open_source(loaded) as source, open_org(loaded, clock=clock) as org:
        names = _names(source, settings.tables)
        described = {name: source.describe(name) for name in names}
        try:
            keys = foreign_keys(source)
        except ForceliftError as error:
            keys = []
            notes.append(f"foreign keys could not be read, so lookups go by names alone: {error.message}")
        told(f"{len(names)} tables; reading the org's objects")
        describes = _Describes(org, told)
        objects = org.objects()
        candidates = {name: [describes.of(one) for one in rank_objects(name, objects, tables=names)] for name in names}
        matched = match_tables(described, candidates)
        drafts = [_draft(described[name], matched[name], describes, source) for name in names]
        drafts = _with_lookups(drafts, keys, describes)
    order, cycles = _order(settings, drafts)
    text = _text(settings, drafts, order, cycles)
    _write(settings.out, text)
    return DraftReport(
        file=settings.out, tables=tuple(drafts), order=tuple(order), cycles=tuple(cycles), notes=tuple(notes)
    )


class _Describes:
    """Describes, each asked for once."""

    def __init__(self, org: Org, told: Told) -> None:
        self._org, self._told = org, told
        self._known: dict[str, ObjectDescribe] = {}

    def of(self, name: str) -> ObjectDescribe:
        if name not in self._known:
            self._told(f"describe {name}")
            self._known[name] = self._org.describe(name)
        return self._known[name]


@contextmanager
def _connections(settings: DraftSettings) -> Iterator[LoadedPlan]:
    """The sections as a plan of one table that nobody reads, so that they are checked and resolved as any plan's."""
    nobody = DraftTable(
        table="none",
        object=Match(name="None__c", confidence=1.0, reason=""),
        key=("none",),
        key_match=Match(name="", confidence=1.0, reason=""),
        external_id=Match(name="None__c", confidence=1.0, reason=""),
        columns=(DraftColumn(column="nothing", target="Name", match=Match(name="", confidence=1.0, reason="")),),
    )
    text = _text(settings, [nobody], [], [])
    with _beside(settings.out, text) as file:
        yield load_plan(file)


@contextmanager
def _beside(out: Path, text: str) -> Iterator[Path]:
    """A file of that text in the plan's folder, where relative paths begin, for a moment."""
    try:
        handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.", suffix=".yaml")
    except OSError as error:
        raise StorageError(
            f"`{out.parent}` cannot be written: {error.strerror}", state="nothing was read", hint="check `--out`"
        ) from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _names(source: Source, wanted: Sequence[str]) -> list[str]:
    known = source.tables()
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"the source has no table `{name}`",
                state="nothing was written",
                hint=f"it has: {', '.join(known[:20])}",
            )
    return [name for name in known if not wanted or name in wanted]


def _draft(table: SourceTable, found: Match | None, describes: _Describes, source: Source) -> DraftTable:
    key, key_match = _key(table)
    if found is None:
        nothing = Match(name="", confidence=0.0, reason="no object, no field")
        columns = tuple(
            DraftColumn(column=column.name, target=None, match=nothing, comment=column.comment)
            for column in table.columns
        )
        return DraftTable(
            table=table.name,
            object=None,
            key=key,
            key_match=key_match,
            external_id=None,
            columns=columns,
            comment=table.comment,
        )
    describe = describes.of(found.name)
    readable = [column.name for column in table.columns if column.kind.value != "unsupported"]
    sample = None
    if readable:
        sample = frame_of(source.sample(table.name, columns=readable, where=None, rows=SAMPLE_ROWS)).to_arrow()
    if not key_match.is_sure:
        key, key_match = _key_by_field(table, describe, sample) or (key, key_match)
    external_id = _external_id(key, describe)
    matches = match_columns(table, describe, sample)
    drafted: list[DraftColumn] = []
    for column in table.columns:
        match = matches[column.name]
        taken = external_id is not None and match is not None and match.name == external_id.name
        if column.name in key and (len(key) == 1 or taken):
            continue  # it fills the external ID
        if match is None or taken:
            reason = f"no field of {describe.name} resembles it" if not taken else "the key fills that field"
            match_of = Match(name="", confidence=0.0, reason=reason)
            drafted.append(DraftColumn(column=column.name, target=None, match=match_of, comment=column.comment))
        else:
            drafted.append(DraftColumn(column=column.name, target=match.name, match=match, comment=column.comment))
    return DraftTable(
        table=table.name,
        object=found,
        key=key,
        key_match=key_match,
        external_id=external_id,
        columns=tuple(drafted),
        comment=table.comment,
    )


def _key(table: SourceTable) -> tuple[tuple[str, ...], Match]:
    if table.primary_key:
        return table.primary_key, Match(name="", confidence=1.0, reason="the primary key")
    if table.unique_keys:
        key = min(table.unique_keys, key=len)
        return key, Match(name="", confidence=0.9, reason="a unique key; there is no primary one")
    likely = [column.name for column in table.columns if likeness(column.name, f"{table.name} id") > 0.7]
    likely = likely or [column.name for column in table.columns if column.name.lower().endswith(("id", "code", "no"))]
    reason = "the source declares no key; a guess by its name" if likely else "the source declares no key"
    return tuple(likely[:1]), Match(name="", confidence=0.4 if likely else 0.0, reason=reason)


def _key_by_field(
    table: SourceTable, describe: ObjectDescribe, sample: pa.Table | None
) -> tuple[tuple[str, ...], Match] | None:
    """A column named as an external ID of the object whose values do not repeat in a sample; None if there is none."""
    ids = [field for field in describe.fields.values() if field.external_id and field.createable]
    for column in table.columns:
        for field in ids:
            named = max(likeness(column.name, field.name), likeness(column.name, field.label))
            if named < _NAMED_AS_ID or sample is None or column.name not in sample.column_names or not sample.num_rows:
                continue
            values = sample[column.name]
            if values.null_count == 0 and pc.count_distinct(values).as_py() == sample.num_rows:
                reason = (
                    f"named as {field.name}, unique in {sample.num_rows:,} sampled rows; the source declares no key"
                )
                return (column.name,), Match(name="", confidence=SURE, reason=reason)
    return None


def _external_id(key: Sequence[str], describe: ObjectDescribe) -> Match | None:
    fields = [field for field in describe.fields.values() if field.external_id and field.createable]
    if not fields or (not key and len(fields) > 1):
        return None
    scored = sorted(
        ((max(likeness(" ".join(key), field.name), likeness(" ".join(key), field.label)), field) for field in fields),
        key=lambda one: one[0],
        reverse=True,
    )
    named, best = scored[0]
    if len(fields) == 1:
        return Match(name=best.name, confidence=max(0.85, round(named, 2)), reason="the object's only external ID")
    return Match(name=best.name, confidence=round(named, 2), reason=f"of {len(fields)} external IDs, {named:.0%} alike")


def _with_lookups(drafts: Sequence[DraftTable], keys: Sequence[ForeignKey], describes: _Describes) -> list[DraftTable]:
    """Lookups from foreign keys; what names alone suggest is added as doubtful."""
    by_name = {draft.table: draft for draft in drafts}
    result = []
    for draft in drafts:
        if draft.object is None:
            result.append(draft)
            continue
        describe = describes.of(draft.object.name)
        columns = [_lookup(draft, one, keys, by_name, describe) or one for one in draft.columns]
        told = zip(columns, draft.columns, strict=True)
        result.append(replace(draft, columns=tuple(replace(one, comment=before.comment) for one, before in told)))
    return result


def _lookup(
    draft: DraftTable,
    one: DraftColumn,
    keys: Sequence[ForeignKey],
    by_name: Mapping[str, DraftTable],
    describe: ObjectDescribe,
) -> DraftColumn | None:
    key = next((key for key in keys if key.table == draft.table and key.columns == (one.column,)), None)
    if key is None:
        return _lookup_by_name(one, by_name, describe)
    parent = by_name.get(key.parent)
    if parent is None or parent.object is None or parent.external_id is None:
        reason = f"a foreign key to {key.parent}, for which there is no object"
        return DraftColumn(column=one.column, target=None, match=Match(name="", confidence=0.0, reason=reason))
    fields = [field for field in describe.fields.values() if fits_lookup(field, parent.object.name)]
    if not fields:
        reason = f"a foreign key to {key.parent}, and {describe.name} has no lookup to {parent.object.name}"
        return DraftColumn(column=one.column, target=None, match=Match(name="", confidence=0.0, reason=reason))
    scored = sorted(((likeness(one.column, field.name), field.name) for field in fields), reverse=True)
    best = describe.fields[scored[0][1]]
    confidence = 0.95 if len(fields) == 1 else round(scored[0][0], 2)
    if tuple(key.parent_columns) != parent.key:
        confidence = min(confidence, 0.6)
    if parent.doubts:
        confidence = min(confidence, SURE - 0.01)
    many = "" if len(fields) == 1 else f", one of {len(fields)} lookups to it"
    reason = f"a foreign key to {key.parent}{many}"
    if parent.doubts:
        reason += ", which is left out"
    kind = f"{parent.object.name}:" if len(best.reference_to) > 1 else ""
    path = f"{kind}{best.relationship_name}.{parent.external_id.name}"
    return DraftColumn(
        column=one.column,
        target=_lookup_target(path, key.parent),
        match=Match(name=path, confidence=confidence, reason=reason),
    )


def _lookup_by_name(
    one: DraftColumn, by_name: Mapping[str, DraftTable], describe: ObjectDescribe
) -> DraftColumn | None:
    """A lookup that a column may mean where no foreign key says so; only where nothing else is matched for sure."""
    if one.target is not None and one.match.is_sure:
        return None
    for parent in by_name.values():
        if parent.object is None or parent.external_id is None or not parent.key:
            continue
        fields = [field for field in describe.fields.values() if fits_lookup(field, parent.object.name)]
        if fields and likeness(one.column, parent.key[0]) >= THINKABLE + 0.4:
            path = f"{fields[0].relationship_name}.{parent.external_id.name}"
            reason = f"named as the key of {parent.table}; no foreign key says so"
            return DraftColumn(
                column=one.column,
                target=_lookup_target(path, parent.table),
                match=Match(name=path, confidence=_BY_NAME, reason=reason),
            )
    return None


def _lookup_target(path: str, parent: str) -> str:
    return f"{{field: {quoted(path)}, parent: {quoted(parent)}}}"


def _order(
    settings: DraftSettings, drafts: Sequence[DraftTable]
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The load order of the tables in force, as the plan itself has it; this also proves that it can be read."""
    if not any(not draft.doubts for draft in drafts):
        return [], []
    with _beside(settings.out, _text(settings, drafts, [], [])) as file:
        groups = load_order(load_plan(file).plan)
    order = [tuple(group.tables) for group in groups]
    cycles = [tuple(group.tables) for group in groups if group.is_linked]
    return order, cycles


def _text(
    settings: DraftSettings,
    drafts: Sequence[DraftTable],
    order: Sequence[tuple[str, ...]],
    cycles: Sequence[tuple[str, ...]],
) -> str:
    lines = []
    if order:
        lines.append("Load order: " + "; ".join(f"{n} {', '.join(group)}" for n, group in enumerate(order, start=1)))
    lines += [f"Cycle of lookups, loaded in two passes: {', '.join(group)}" for group in cycles]
    return draft_text(
        project=settings.project, source=settings.source, target=settings.target, tables=drafts, order=lines
    )


def _write(out: Path, text: str) -> None:
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise StateConflict(f"`{out}` exists", state="it was not changed", hint="name another by `--out`") from None
    except OSError as error:
        raise StorageError(f"`{out}` cannot be written: {error.strerror}", state="nothing was written") from error
