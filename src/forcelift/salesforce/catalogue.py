"""What an error of Salesforce means, whether it may pass by itself, and what to do. Data in `catalogue.yaml`.

The code decides. Texts are looked at only where one code stands for several causes, and to find an entry from a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib import resources

from msgspec import Struct
from pydantic import BaseModel, ConfigDict
from ruamel.yaml import YAML


class Passing(StrEnum):
    """Whether the same row or call may be accepted later, unchanged."""

    YES = "yes"
    LATER = "later"
    NO = "no"


class Remedy(Struct, frozen=True, kw_only=True):
    """What a code means and what to do: `remedy` in Forcelift's terms, `org` on the org's side."""

    code: str
    title: str
    meaning: str
    passing: Passing
    remedy: str
    org: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a catalogue. Without `texts` it stands for its code as such."""

    advice: Remedy
    texts: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = field(init=False)

    def __post_init__(self) -> None:
        joined = "|".join(f"(?:{text})" for text in self.texts)
        object.__setattr__(self, "pattern", re.compile(f"(?is){joined}") if joined else None)

    def says(self, text: str) -> bool:
        """True if one of the entry's texts stands in `text`."""
        return self.pattern is not None and self.pattern.search(text) is not None


class _EntryFile(BaseModel):
    """One entry as the data file writes it."""

    model_config = ConfigDict(extra="forbid")

    code: str
    meaning: str
    passing: Passing
    remedy: str
    org: str
    texts: tuple[str, ...] = ()
    title: str | None = None

    def to_entry(self) -> Entry:
        advice = Remedy(
            code=self.code,
            title=self.title or self.code,
            meaning=self.meaning,
            passing=self.passing,
            remedy=self.remedy,
            org=self.org,
        )
        return Entry(advice=advice, texts=self.texts)


@cache
def entries() -> tuple[Entry, ...]:
    """All entries of Salesforce's catalogue, in the file's order."""
    text = resources.files("forcelift.salesforce").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    # The base loader keeps every scalar as text: YAML 1.1 readers would turn `yes` and `no` into booleans.
    return tuple(_EntryFile.model_validate(item).to_entry() for item in YAML(typ="base", pure=True).load(text))


def find(code: str, message: str = "", *, more: Sequence[Entry] = ()) -> Remedy | None:
    """The advice for a code and its message, or None for a code that no catalogue holds. Arguments as of `remedy`."""
    group = [entry for entry in more if _plain(entry.advice.code) == _plain(code)]
    group += by_code().get(_plain(code), ())
    if not group and _plain(code).startswith("txnsecurity"):
        group = list(by_code()["txnsecuritymeteringerror"])
    if not group:
        return None
    return next((entry.advice for entry in group if entry.says(message)), general(group).advice)


def remedy(code: str, message: str = "", *, more: Sequence[Entry] = ()) -> Remedy:
    """The advice for a code and its message; a general one for a code that no catalogue holds.

    Args:
        code: As the org wrote it; case and underscores are forgiven (`INVALIDJOBSTATE` is `InvalidJobState`).
        message: Tells causes of one code apart. May be empty.
        more: Entries of another catalogue, asked first.
    """
    found = find(code, message, more=more)
    if found is not None:
        return found
    return Remedy(
        code=code,
        title=code,
        meaning="Salesforce refused it; this code is not in Forcelift's catalogue.",
        passing=Passing.NO,
        remedy="Read the message; if the data is right, send the refused rows again (`forcelift failed retry`).",
        org="Look the code up in Salesforce's documentation (StatusCode).",
    )


def is_transient(code: str, message: str = "") -> bool:
    """True if the same row may be accepted when it is sent again unchanged, with nothing else done."""
    return remedy(code, message).passing is Passing.YES


def explain(text: str, *, more: Sequence[Entry] = ()) -> list[Remedy]:
    """All advice for a code, a message, or a whole error text as a person has it at hand. Empty if nothing fits."""
    words = {_plain(word) for word in re.findall(r"[A-Za-z][A-Za-z0-9_]+", text)}
    known = [*more, *entries()]
    named = [entry for entry in known if _plain(entry.advice.code) in words]
    said = [entry for entry in known if entry.says(text)]
    # A message that fits tells more than a code that stands for several causes; a bare code means all of its causes.
    is_bare_code = bool(named) and " " not in text.strip()
    both = [entry for entry in said if entry in named]
    chosen = named if is_bare_code else both or _unique([*said, *named])
    return [entry.advice for entry in chosen]


def general(group: Sequence[Entry]) -> Entry:
    """The entry that stands for a code whatever the message: the one without texts, else the last."""
    return next((entry for entry in group if entry.pattern is None), group[-1])


@cache
def by_code() -> dict[str, tuple[Entry, ...]]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries():
        groups.setdefault(_plain(entry.advice.code), []).append(entry)
    return {code: tuple(group) for code, group in groups.items()}


def _plain(code: str) -> str:
    return code.replace("_", "").lower()


def _unique(items: Iterable[Entry]) -> list[Entry]:
    return list(dict.fromkeys(items))
