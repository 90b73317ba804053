"""The report's words in English and Thai, and how each language writes numbers, days and lengths of time. Pure."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any, Final

from ruamel.yaml import YAML

_BUDDHIST_YEARS: Final = 543
_MONTHS: Final = (
    "มกราคม", "กุมภาพันธ์", "มีนาคม", "เมษายน", "พฤษภาคม", "มิถุนายน",
    "กรกฎาคม", "สิงหาคม", "กันยายน", "ตุลาคม", "พฤศจิกายน", "ธันวาคม",
)  # fmt: skip
_SHORT_MONTHS: Final = (
    "ม.ค.", "ก.พ.", "มี.ค.", "เม.ย.", "พ.ค.", "มิ.ย.", "ก.ค.", "ส.ค.", "ก.ย.", "ต.ค.", "พ.ย.", "ธ.ค.",
)  # fmt: skip


class Language(StrEnum):
    """A language of the report."""

    ENGLISH = "en"
    THAI = "th"


class _Figures(string.Formatter):
    """Whole numbers with separators; all else as it is."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, int) and not format_spec:
            return f"{value:,}"
        return str(super().format_field(value, format_spec))


_FIGURES: Final = _Figures()


class Words:
    """The words of one language.

    Args:
        language: Which.
        buddhist_era: Whether years are counted as in Thailand; only Thai has that.
    """

    def __init__(self, language: Language = Language.ENGLISH, *, buddhist_era: bool = False) -> None:
        self.language = language
        self.buddhist_era = buddhist_era and language is Language.THAI

    def __call__(self, key: str, **figures: Any) -> str:
        """The text of a key, with its figures; days and times are written as the language does."""
        shown = {name: self.moment(value) if isinstance(value, datetime) else value for name, value in figures.items()}
        return _FIGURES.vformat(catalogue()[key][self.language], (), shown)

    def told(self, text: str) -> str:
        """What Forcelift said in English elsewhere, such as a rule's reason; what others said stays as it is."""
        if self.language is Language.ENGLISH:
            return text
        whole = _in_thai(text)
        return whole if whole is not None else "; ".join(_in_thai(part) or part for part in text.split("; "))

    def remedy(self, code: str, text: str) -> str:
        """What to do about rows that were refused with a code; `text` says it in English."""
        if self.language is Language.ENGLISH:
            return text
        # The whole text comes first: some codes stand for several causes, each with a remedy of its own.
        of_code = "TXN_SECURITY_METERING_ERROR" if code.startswith("TXN_SECURITY_") else code
        if (said := _in_thai(text) or thai()["remedies"].get(of_code)) is not None:
            return str(said)
        told = self.told(text)
        return told if told != text else self("remedy_unknown", code=code)

    def date(self, moment: datetime) -> str:
        """A day, in UTC."""
        at = moment.astimezone(UTC)
        if self.language is Language.ENGLISH:
            return f"{at:%Y-%m-%d}"
        return f"{at.day} {_MONTHS[at.month - 1]} {self._year(at)}"

    def moment(self, moment: datetime | None) -> str:
        """A day and time, in UTC; a dash for none."""
        if moment is None:
            return "-"
        at = moment.astimezone(UTC)
        if self.language is Language.ENGLISH:
            return f"{at:%Y-%m-%d %H:%M:%S}"
        return f"{at.day} {_SHORT_MONTHS[at.month - 1]} {self._year(at)} {at:%H:%M:%S}"

    def duration(self, seconds: float) -> str:
        """As the template has it: `46 hours 23 minutes`; shorter ones in minutes and seconds."""
        whole = round(seconds)
        parts: Sequence[tuple[int, str]] = (
            (whole // 3600, "hours"),
            (whole % 3600 // 60, "minutes"),
            (whole % 60, "seconds"),
        )
        first = next((number for number, (amount, _) in enumerate(parts) if amount), 2)
        return " ".join(self._amount(amount, unit) for amount, unit in parts[first : first + 2])

    def _amount(self, amount: int, unit: str) -> str:
        if amount == 1:
            return self(f"{unit}_1")
        return self("seconds_n" if unit == "seconds" else unit, n=amount)

    def _year(self, at: datetime) -> int:
        return at.year + (_BUDDHIST_YEARS if self.buddhist_era else 0)


def _in_thai(text: str) -> str | None:
    """One sentence; where it begins with a column's name and a colon, the name stays. None if it is none of ours."""
    for pattern, said in _phrases():
        found = pattern.fullmatch(text)
        if found is not None:
            before, *parts, fields = found.groups()
            for part in parts:
                said = said.replace("{}", part, 1)
            return f"{before or ''}{said}{f' ({fields})' if fields else ''}"
    return None


@cache
def _phrases() -> Sequence[tuple[re.Pattern[str], str]]:
    """Each phrase as a pattern: a column's name, what stands for its braces, and fields in brackets at its end."""
    found = []
    for phrase in thai()["phrases"]:
        inner = "(.*?)".join(re.escape(part) for part in phrase["en"].split("{}"))
        found.append((re.compile(rf"([\w$#, ]+: )?{inner}(?: \(([\w$#,. ]+)\))?", re.DOTALL), phrase["th"]))
    return found


@cache
def thai() -> Mapping[str, Any]:
    """Phrases with their English, and remedies by code."""
    return _loaded("thai.yaml")


@cache
def catalogue() -> Mapping[str, Mapping[str, str]]:
    """Every key's text by language. The file keeps every scalar as text."""
    return _loaded("words.yaml")


def _loaded(name: str) -> Mapping[str, Any]:
    text = resources.files("forcelift.after.report").joinpath(name).read_text(encoding="utf-8")
    loaded: Mapping[str, Any] = YAML(typ="base", pure=True).load(text)
    return loaded
