"""Draft a plan from a source's dictionary and an org's describe.

Reads:   the source's dictionary and a sample of each table, the org's describes.
Writes:  one plan file, new.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from msgspec.structs import replace

from forcelift.before.init import DraftColumn, DraftTable, Match, draft_text, match_columns, match_tables, rank_objects
from forcelift.before.init.lookups import with_lookups, without_parents_left_out
from forcelift.before.init.match import SURE
from forcelift.before.init.names import likeness
from forcelift.before.init.trial import doubted_by_compiler, doubted_by_rows, with_notes
from forcelift.errors import ForceliftError, PlanError, StateConflict, StorageError, UsageError
from forcelift.opening.assembly import compile_plan, foreign_keys, open_org, open_source
from forcelift.plan import LoadedPlan, load_order, load_plan
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.protocols.org import ObjectDescribe, Org
from forcelift.protocols.source import Source, SourceTable
from forcelift.rules import frame_of

SAMPLE_ROWS: Final = 1_000
_NAMED_AS_ID: Final = 0.9

Told = Callable[[str], None]


class DraftSettings(Struct, frozen=True, kw_only=True):
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


class DraftReport(Struct, frozen=True, kw_only=True):
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
        drafts = _tried(settings, with_lookups(drafts, keys, describes.of), describes, source, org)
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
    external_id = _external_id(key, describe, [column.name for column in table.columns])
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


def _external_id(key: Sequence[str], describe: ObjectDescribe, columns: Sequence[str]) -> Match | None:
    """The field that takes the key; doubtful if a column outside the key is named as it."""
    found = _likest_id(key, describe)
    if found is None:
        return None
    label = describe.fields[found.name].label
    own = max(likeness(" ".join(key), found.name), likeness(" ".join(key), label))
    for column in columns:
        named = max(likeness(column, found.name), likeness(column, label))
        if column not in key and named >= _NAMED_AS_ID and named > own:
            return found.doubted(f"`{column}` is named as it, and is not the key")
    return found


def _likest_id(key: Sequence[str], describe: ObjectDescribe) -> Match | None:
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


def _tried(
    settings: DraftSettings, drafts: Sequence[DraftTable], describes: _Describes, source: Source, org: Org
) -> list[DraftTable]:
    """The drafts whose lines in force are a plan that a run would take: what keeps it from that is in force no more.

    Tables that are left out are tried too, as if they were in force: who takes their marks off is to get a plan.
    """
    frames: dict[str, pl.DataFrame] = {}
    noted = [draft if draft.object is None else with_notes(draft, describes.of(draft.object.name)) for draft in drafts]
    tried = _in_force_as_run(settings, [_assumed(draft) for draft in noted], source, org, frames)
    real = [
        replace(one, object=draft.object, key_match=draft.key_match, external_id=draft.external_id)
        for one, draft in zip(tried, noted, strict=True)
    ]
    return _in_force_as_run(settings, real, source, org, frames)


def _assumed(draft: DraftTable) -> DraftTable:
    """The draft as if a person had said yes to its object, key and external ID."""
    if draft.object is None or draft.external_id is None or not draft.key:
        return draft
    yes = [replace(match, confidence=1.0) for match in (draft.object, draft.key_match, draft.external_id)]
    return replace(draft, object=yes[0], key_match=yes[1], external_id=yes[2])


def _in_force_as_run(
    settings: DraftSettings, drafts: Sequence[DraftTable], source: Source, org: Org, frames: dict[str, pl.DataFrame]
) -> list[DraftTable]:
    """Each turn takes a line or a table out of force, so there is a last one. `frames` keeps samples of tables."""
    found = list(drafts)
    while True:
        found = without_parents_left_out(found)
        in_force = [draft.table for draft in found if not draft.doubts]
        if not in_force:
            return found
        try:
            with _beside(settings.out, _text(settings, found, [], [])) as file:
                compiled = compile_plan(load_plan(file), source=source, org=org)
        except PlanError as error:
            doubted = doubted_by_compiler(found, error.problems)
            if doubted == found:
                raise
            found = doubted
            continue
        rules = {name: work.rules for name, work in compiled.works.items()}
        for name, one in rules.items():
            if name not in frames or not set(one.source_columns) <= set(frames[name].columns):
                frames[name] = frame_of(source.sample(name, columns=one.source_columns, where=None, rows=SAMPLE_ROWS))
        doubted = doubted_by_rows(found, rules, frames)
        if [draft.doubts for draft in doubted] == [draft.doubts for draft in found] and _sure(doubted) == _sure(found):
            return doubted
        found = doubted


def _sure(drafts: Sequence[DraftTable]) -> set[tuple[str, str]]:
    return {(draft.table, one.column) for draft in drafts for one in draft.columns if one.match.is_sure}


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
