"""Load a plan file: text, secrets, form, and everything that can be told without source and org.

Reads:   the plan file, the environment variables and secret files that it names.
Raises:  `PlanError` with all problems at once, each with its line; nothing secret ever stands in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from pydantic import SecretStr, ValidationError

from forcelift.errors import PlanError, Problem
from forcelift.plan.document import document_sha256, plan_document
from forcelift.plan.markers import Raw, Refers, Secret, SecretUrl
from forcelift.plan.models import Plan
from forcelift.plan.plan_checks import plan_notes, plan_problems
from forcelift.plan.secrets import Fault, SecretReader, holds_token_piece, literal_fault, masked_text, notify_marks
from forcelift.plan.sentences import problems_of
from forcelift.plan.shape import Path as Place
from forcelift.plan.shape import Position, shape
from forcelift.plan.urls import MASK, REFERENCE, absolute_path, absolute_url, masked_url, signed_url
from forcelift.plan.yaml_text import compose, read_text

# Keys whose text is another language's, in which `${...}` may mean something of its own.
_CODE_KEYS = {"where", "sql", "soql"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPlan:
    """A plan that is whole and holds together, with what is known about its file.

    Attributes:
        path: The file, absolute.
        folder: Where relative paths of the plan start.
        sha256: Of the plan's document (`plan_document`): the same for two files that say the same, secrets left out.
        text: The file as it stands; it names secrets and holds none, passwords in comments' URLs are masked.
        warnings: What is allowed and deserves a second look, with lines.
    """

    plan: Plan
    path: Path
    folder: Path
    sha256: str
    text: str = field(repr=False)
    warnings: tuple[Problem, ...] = ()
    positions: Mapping[str, Position] = field(repr=False, default_factory=dict)

    def position(self, path: str) -> Position:
        """Line and column, from 1, of `tables.NAME.fields.COLUMN.rule`, or of the nearest key around it."""
        while path:
            if (position := self.positions.get(path)) is not None:
                return position
            path = path.rpartition(".")[0]
        return (1, 1)

    def problem(self, message: str, path: str, *, hint: str | None = None) -> Problem:
        """A problem at that place of the file, for checks against source and org."""
        line, column = self.position(path)
        return Problem(message=message, path=path, line=line, column=column, hint=hint)

    def error(self, problems: Iterable[Problem]) -> PlanError:
        """The error that lists these problems in the order of the file; lines that are not known are looked up."""
        return PlanError(_sorted(map(self._placed, problems)), file=str(self.path))

    def _placed(self, problem: Problem) -> Problem:
        if problem.line is not None or not problem.path:
            return problem
        line, column = self.position(problem.path)
        return replace(problem, line=line, column=column)

    def resolve(self, path: str) -> Path:
        """A path of the plan made absolute; relative ones start at the plan file's folder."""
        return absolute_path(path, self.folder)

    def source_url(self) -> str:
        """The source's URL with its path made absolute. It may hold a password: show `masked_url` of it instead."""
        return absolute_url(self.plan.source.url.get_secret_value(), self.folder)

    def audit_url(self) -> str:
        """The audit database's URL with its path made absolute, and who signs in. It may hold a password."""
        audit = self.plan.audit
        url = absolute_url(audit.url.get_secret_value(), self.folder)
        password = None if audit.password is None else audit.password.get_secret_value()
        return signed_url(url, user=audit.user, password=password)

    def target_url(self) -> str:
        """The target's URL; that of a `twin:` with its path made absolute."""
        return absolute_url(self.plan.target.url, self.folder)

    def staging(self) -> str:
        """The staging folder as an absolute path, or the URL of a bucket."""
        return self.plan.staging if "://" in self.plan.staging else str(self.resolve(self.plan.staging))


def load_plan(path: str | Path, *, env: Mapping[str, str] | None = None) -> LoadedPlan:
    """Read a plan file.

    Args:
        path: The file.
        env: Environment variables for `${ENV}`; by default the process's own.
    Raises:
        UsageError: The file cannot be read.
        PlanError: It is no plan, or not one that holds together; lists all problems with their lines.
    """
    file = Path(path)
    text = read_text(file)
    root = compose(text, file)
    file = file.resolve()
    scalars = _Scalars(SecretReader(folder=file.parent, env=os.environ if env is None else env))
    shaped = shape(root, Plan, scalar=scalars.read)
    problems = [
        *shaped.problems,
        *(shaped.problem(f.message, place, hint=f.hint, at=at) for f, place, at in scalars.faults),
    ]
    plan = None
    try:
        plan = Plan.model_validate(shaped.data)
    except ValidationError as error:
        problems += _elsewhere(problems_of(error, shaped), problems)
    problems += _elsewhere(plan_problems(shaped, plan), problems)
    if problems or plan is None:
        # The validation error is not kept as the cause: its values may be secrets.
        raise PlanError(_sorted(problems), file=str(path)) from None
    notes = [
        *shaped.notes,
        *(shaped.problem(message, place, hint=hint, at=at) for message, hint, place, at in scalars.notes),
        *plan_notes(plan, shaped),
    ]
    return LoadedPlan(
        plan=plan,
        path=file,
        folder=file.parent,
        sha256=document_sha256(plan_document(plan)),
        text=masked_text(text),
        warnings=tuple(_sorted(notes)),
        positions={shaped.name(place): position for place, position in shaped.positions.items()},
    )


class _Scalars:
    """Reads the texts of a plan, resolves secrets, and keeps what it finds with its place."""

    def __init__(self, reader: SecretReader) -> None:
        self._reader = reader
        self.faults: list[tuple[Fault, Place, Position]] = []
        self.notes: list[tuple[str, str | None, Place, Position]] = []

    def read(self, text: str, marks: tuple[Any, ...], place: Place, position: Position) -> str | SecretStr:
        name = next((part for part in reversed(place) if isinstance(part, str)), "")
        is_notify = place[:1] == ("notify",)
        if is_notify:
            marks = notify_marks(place, text)
            if any(isinstance(mark, SecretUrl) for mark in marks) and holds_token_piece(text):
                self.faults.append((literal_fault(name), place, position))
                return SecretStr(MASK)
        is_reference = any(isinstance(mark, (Refers, Secret, SecretUrl)) for mark in marks)
        if not is_reference:
            self._note_reference(text, marks, name, place, position)
            return text
        value = self._reader.read(text, marks, name)
        self.faults += [(fault, place, position) for fault in self._reader.faults]
        self.notes += [(warning, None, place, position) for warning in self._reader.warnings]
        self._reader.faults.clear()
        self._reader.warnings.clear()
        return SecretStr(value) if is_notify else value

    def _note_reference(self, text: str, marks: tuple[Any, ...], name: str, place: Place, position: Position) -> None:
        is_raw = any(isinstance(mark, Raw) for mark in marks)
        if REFERENCE.search(text) and name not in _CODE_KEYS and not is_raw:
            self.notes.append(
                ("`${ENV}` is read in secret fields only; here it stays as it stands", None, place, position)
            )


def _elsewhere(found: Iterable[Problem], known: list[Problem]) -> list[Problem]:
    """Those problems whose place has none yet: a value that could not be read is not told off twice."""
    places = {problem.path for problem in known if problem.path}
    return [problem for problem in found if problem.path not in places]


def _sorted(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0))


__all__ = ["LoadedPlan", "load_plan", "masked_url"]
