"""What the compiler and a sample of the rows say against a draft: such lines are commented out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl
from msgspec.structs import replace

from forcelift.before.init.draft import DraftTable
from forcelift.errors import Problem
from forcelift.protocols.org import ObjectDescribe
from forcelift.rules.findings import Findings
from forcelift.rules.table import CompiledTable

REFUSED_MAX: Final = 0.1
"""A column of which the rules would refuse more than this share of sampled rows is not sure to mean its field."""

_ROUNDED: Final = "rounded"
_OF_PERSONS = frozenset({"FirstName", "LastName", "MiddleName", "Suffix", "Salutation"})


def doubted_by_compiler(drafts: Sequence[DraftTable], problems: Sequence[Problem]) -> list[DraftTable]:
    """The drafts in which whatever has a problem is not sure any more: a column, or else the table."""
    return [_with_problems(draft, problems) for draft in drafts]


def _with_problems(draft: DraftTable, problems: Sequence[Problem]) -> DraftTable:
    place = f"tables.{draft.table}"
    mine = [one for one in problems if one.path == place or one.path.startswith(f"{place}.")]
    if not mine or draft.doubts:
        return draft
    columns = list(draft.columns)
    rest = []
    for problem in mine:
        said = f"{problem.message}{f': {problem.hint}' if problem.hint else ''}"
        for number, one in enumerate(columns):
            path = f"{place}.fields.{one.column}"
            if problem.path == path or problem.path.startswith(f"{path}."):
                columns[number] = replace(one, match=one.match.doubted(said))
                break
        else:
            rest.append(said)
    return replace(draft, columns=tuple(columns), problems=(*draft.problems, *rest))


def doubted_by_rows(
    drafts: Sequence[DraftTable], rules: Mapping[str, CompiledTable], frames: Mapping[str, pl.DataFrame]
) -> list[DraftTable]:
    """The drafts in which no column is sure of which the rules would refuse much.

    Args:
        rules, frames: By table in force, its compiled rules and sampled rows with at least the columns that they read.
    """
    return [
        _tried(draft, rules[draft.table], frames[draft.table]) if draft.table in rules else draft for draft in drafts
    ]


def _tried(draft: DraftTable, rules: CompiledTable, frame: pl.DataFrame) -> DraftTable:
    if not frame.height:
        return draft
    found = Findings()
    rules.clean_columns(frame, found, None)
    rounded = {
        name: sum(one.rows.len() for one in found.changes if one.place == column.place and one.rule == _ROUNDED)
        for name, column in rules.columns.items()
    }
    shares = {name: found.refused_by(column.place).len() for name, column in rules.columns.items()}
    columns = []
    for one in draft.columns:
        rows = shares.get(one.column, 0)
        said = f"{rows:,} of {frame.height:,} sampled rows would be refused"
        if one.match.is_sure and rows > REFUSED_MAX * frame.height:
            one = replace(one, match=one.match.doubted(said))
        elif one.match.is_sure and rows and said not in one.match.reason:
            one = replace(one, match=replace(one.match, reason=f"{one.match.reason}; {said}"))
        elif one.match.is_sure and rounded.get(one.column):
            lost = f"{rounded[one.column]:,} of {frame.height:,} sampled rows would be rounded to the field's scale"
            one = replace(one, match=one.match.doubted(lost))
        columns.append(one)
    problems = draft.problems
    for name in draft.key:
        if len(draft.key) == 1 and (rows := shares.get(name, 0)) > REFUSED_MAX * frame.height:
            problems = (*problems, f"its key: {rows:,} of {frame.height:,} sampled rows would be refused")
    return replace(draft, columns=tuple(columns), problems=problems)


def with_notes(draft: DraftTable, describe: ObjectDescribe) -> DraftTable:
    """The draft with what its object asks of a person: record types, and which accounts are persons."""
    notes = list(draft.notes)
    types = [one.developer_name for one in describe.record_types if one.active and one.developer_name != "Master"]
    if types:
        notes.append(
            f"{describe.name} has record types ({', '.join(types[:5])}); records get the user's default unless the"
            f" table says `constants: {{RecordTypeId: {{record_type: {types[0]}}}}}`"
        )
    columns = draft.columns
    if "IsPersonAccount" in describe.fields:
        notes.append("persons and businesses are both accounts here: a person has LastName and no Name of its own")
        columns = tuple(
            replace(one, match=one.match.doubted("only person accounts have it"))
            if one.target in _OF_PERSONS or str(one.target).startswith("Person") or str(one.target).endswith("__pc")
            else one
            for one in columns
        )
    return replace(draft, notes=tuple(notes), columns=columns)
