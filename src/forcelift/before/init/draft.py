"""A drafted plan as YAML text: sure lines in force, doubtful ones commented out, each with its reason. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from forcelift.before.init.match import Match

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"})
_REASON_AT = 44
_COMMENT_MAX = 100


class DraftColumn(Struct, frozen=True, kw_only=True):
    """One column. `target` is what the plan says after the colon; None if nothing resembles it.

    `comment` is what the source says of it, here as in tables; `parent` is the table that a lookup points at.
    """

    column: str
    target: str | None
    match: Match
    comment: str | None = None
    parent: str | None = None


class DraftTable(Struct, frozen=True, kw_only=True):
    """One table. It is in force if object, key and external ID are sure and a field besides is.

    `problems` keep it from being loaded as it stands; `notes` are what a person should know of it.
    """

    table: str
    object: Match | None
    key: tuple[str, ...]
    key_match: Match
    external_id: Match | None
    columns: tuple[DraftColumn, ...]
    comment: str | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def doubts(self) -> list[str]:
        """Why the table is not in force; empty if it is."""
        if self.object is None:
            return ["no object of the org resembles it"]
        found = []
        if not self.object.is_sure:
            found.append(f"whether it is {self.object.name}: {self.object.confidence:.2f}, {self.object.reason}")
        if not self.key_match.is_sure:
            found.append(f"its key: {self.key_match.reason}")
        if self.external_id is None:
            found.append("its external ID: the object has none")
        elif not self.external_id.is_sure:
            found.append(f"its external ID: {self.external_id.confidence:.2f}, {self.external_id.reason}")
        if not any(one.target is not None and one.match.is_sure for one in self.columns):
            found.append("its columns: none but the key has a field for sure")
        return [*found, *self.problems]


def draft_text(
    *,
    project: str,
    source: Mapping[str, object],
    target: Mapping[str, object],
    tables: Sequence[DraftTable],
    order: Sequence[str],
) -> str:
    """The plan file.

    Args:
        source, target: The sections as given, secrets as `${ENV}` or `file:PATH`.
        order: Lines about the load order and cycles.
    """  # fmt: skip
    lines = [
        "# Drafted by `forcelift init`. Each line in force was matched with 0.80 or more, 1 being certain; what is",
        "# doubtful is commented out with its reason. Read every line before a load: `forcelift check` comes next.",
        *(f"# {_plain(line)}" for line in order),
        "version: 1",
        f"project: {_json(project)}",
        f"source: {_flow(source)}",
        f"target: {_flow(target)}",
        "tables:",
    ]
    for table in tables:
        lines += ["", *_table(table)]
    return "\n".join(lines) + "\n"


def _table(table: DraftTable) -> Iterator[str]:
    doubts = table.doubts
    mark = "# " if doubts else ""
    if table.object is not None and not doubts:
        yield f"  # {_plain(table.table)} is {table.object.name}: {table.object.confidence:.2f}, {table.object.reason}"
    if doubts:
        yield f"  # {_plain(table.table)} is left out, as these are not sure:"
        yield from (f"  #   {_plain(doubt)}" for doubt in doubts)
    yield from (f"  # Note: {_plain(note)}" for note in table.notes)
    if table.comment:
        yield f"  # In the source: {_one_line(table.comment)}"
    name = table.object.name if table.object is not None else "?"
    external_id = table.external_id.name if table.external_id is not None else "?"
    yield f"  {mark}- table: {quoted(table.table)}"
    yield f"  {mark}  object: {name}"
    key = (
        quoted(table.key[0]) if len(table.key) == 1 else f"[{', '.join(map(quoted, table.key))}]" if table.key else "?"
    )
    yield _said(f"  {mark}  key: {key}", table.key_match)
    yield _said(f"  {mark}  external_id: {external_id}", table.external_id)
    yield f"  {mark}  fields:"
    for one in table.columns:
        if one.target is None:
            yield _said(f"      # {quoted(one.column)}: ?", one.match, is_match=False, comment=one.comment)
        elif one.match.is_sure and not doubts:
            yield _said(f"      {quoted(one.column)}: {one.target}", one.match, comment=one.comment)
        else:
            yield _said(f"      # {quoted(one.column)}: {one.target}", one.match, comment=one.comment)


def _said(line: str, match: Match | None, *, is_match: bool = True, comment: str | None = None) -> str:
    if match is None:
        return line
    confidence = f"{match.confidence:.2f}: " if is_match else ""
    source = f"; in the source: {_one_line(comment)}" if comment else ""
    return f"{line:<{_REASON_AT}} # {confidence}{_plain(match.reason)}{source}"


def _one_line(comment: str) -> str:
    """People's words as a comment of YAML may hold them: no line ends, nothing that is not shown, and not a page."""
    plain = _plain(comment)
    return plain if len(plain) <= _COMMENT_MAX else f"{plain[: _COMMENT_MAX - 1]}…"


def _plain(text: str) -> str:
    """On one line, without what is not shown: names of tables may hold anything, and would end the comment."""
    return "".join(one for one in " ".join(text.split()) if one.isprintable())


def quoted(text: str) -> str:
    """A key of the plan: quoted unless YAML reads it as the text that it is."""
    return text if _PLAIN.match(text) and text.lower() not in _YAML_WORDS else _json(text)


def _json(value: object) -> str:
    """As YAML reads it too, which takes no unprinted characters even between quotes."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def _flow(section: Mapping[str, object]) -> str:
    parts = []
    for name, value in section.items():
        shown = _flow(value) if isinstance(value, Mapping) else _json(value)
        parts.append(f"{name}: {shown}")
    return "{" + ", ".join(parts) + "}"
