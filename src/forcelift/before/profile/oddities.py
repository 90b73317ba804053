"""What looks wrong in texts and days though no rule of the plan decides it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import polars as pl

from forcelift.before.profile.catalogue import MOJIBAKE, REPLACEMENT, SPECIAL
from forcelift.rules.moments import BUDDHIST_OFFSET, BUDDHIST_YEARS, DATE_MAX, DATE_MIN
from forcelift.rules.texts import TextLook

# UTF-8 read as Windows-1252 or Latin-1: a lead byte shows as one of these letters, what follows as one of those below.
_FOLLOWS = "\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_LATIN = rf"[ÂÃÄÅ][{_FOLLOWS}]|â[€‚„†‡ˆ\u0080-\u009f][{_FOLLOWS}]|à[¸¹\u00b8\u00b9][{_FOLLOWS}]|ï»¿|ï¿½"
# TIS-620 or Windows-874 read as Latin-1: four letters and more with accents in a row are a word of no language.
_THAI_AS_LATIN = r"[\u{a1}-\u{da}\u{df}-\u{fb}]{4,}"
_MOJIBAKE: Final = f"{_LATIN}|{_THAI_AS_LATIN}".replace(r"\u{", r"\x{")
_SPECIAL: Final = (
    r"[\x{a0}\x{ad}\x{61c}\x{200b}-\x{200f}\x{2028}-\x{202f}\x{2060}-\x{2069}\x{feff}\x{fff9}-\x{fffb}"
    r"\x{e000}-\x{f8ff}]"
)
_REPLACEMENT: Final = "\ufffd"


def text_oddities(look: TextLook, broken: pl.Series) -> Iterator[tuple[str, pl.Series]]:
    """Kind and rows (u32) of what is odd in a batch of texts.

    Args:
        broken: Rows whose bytes could not be read: U+FFFD stands in them by our own hand.
    """
    if look.is_ascii_or_thai:
        return
    values = look.values
    # One look for a byte each, since most texts hold none of these; a regular expression takes ten times as long.
    bytes_of = {lead: look.holds(lead).fill_null(False) for lead in (0xC2, 0xC3, 0xE2, 0xEE, 0xEF)}
    replaced = _matching(values, bytes_of[0xEF].arg_true(), _REPLACEMENT, literal=True)
    if replaced.len() and broken.len():
        replaced = replaced.filter(~replaced.is_in(broken.implode()))
    if replaced.len():
        yield REPLACEMENT, replaced
    latin = (bytes_of[0xC3] | bytes_of[0xC2] | bytes_of[0xE2]).arg_true()
    garbled = _matching(values, latin, _MOJIBAKE)
    if garbled.len():
        yield MOJIBAKE, garbled
    unseen = (bytes_of[0xC2] | bytes_of[0xE2] | bytes_of[0xEE] | bytes_of[0xEF]).arg_true()
    if values.str.contains("\u061c", literal=True).any():
        unseen = values.is_not_null().arg_true()
    special = _matching(values, unseen, _SPECIAL)
    if special.len():
        yield SPECIAL, special


def _matching(values: pl.Series, rows: pl.Series, pattern: str, *, literal: bool = False) -> pl.Series:
    if not rows.len():
        return rows
    return rows.filter(values.gather(rows).str.contains(pattern, literal=literal).fill_null(False))


class EraCount:
    """Years in one column of days or moments: as the Buddhist calendar counts, 543 lower, and those of no field."""

    def __init__(self) -> None:
        self.buddhist = self.common = self.early = self.late = 0

    def add(self, values: pl.Series) -> None:
        """Take in a batch of dates or datetimes, or of ISO texts of such."""
        low, high = BUDDHIST_YEARS
        if values.dtype == pl.String:
            years = values.str.extract(r"^\s*([0-9]{4})-", 1).cast(pl.Int32, strict=False)
        else:
            years = values.dt.year()
        least, most = years.to_frame("y").select(pl.min("y").alias("least"), pl.max("y").alias("most")).row(0)
        if least is None:
            return
        if low - BUDDHIST_OFFSET <= least and most < low:
            self.common += int(years.is_between(least, high - BUDDHIST_OFFSET).sum() or 0)
            return
        self.buddhist += int(years.is_between(low, high).sum() or 0)
        self.common += int(years.is_between(low - BUDDHIST_OFFSET, high - BUDDHIST_OFFSET).sum() or 0)
        self.early += int((years < DATE_MIN.year).sum() or 0)
        self.late += int((years > DATE_MAX.year).sum() or 0)

    @property
    def is_mixed(self) -> bool:
        """True if both stand in the column."""
        return self.buddhist > 0 and self.common > 0


# What people are called, reached at and identified by, in names of columns.
_NAMES: Final = re.compile(
    r"(?:^|_)(?:E?MAIL|PHONE|MOBILE|TEL|FAX|ADDR(?:ESS)?|BIRTH(?:_?DATE|DAY)?|DOB|PASSPORT|CITIZEN|NATIONAL_?ID|ID_?CARD"
    r"|TAX_?ID|SSN|FIRST_?NAME|LAST_?NAME|SURNAME|FULL_?NAME|CUSTOMER_?NAME|CONTACT|GENDER|SALARY|CARD_?NO|IBAN)(?:_|$)",
    re.IGNORECASE,
)
_SHAPES: Final = {
    "e-mail addresses": r"^[^@\s]+@[^@\s]+\.[A-Za-z]{2,}$",
    "telephone numbers": r"^(?:\+?66|0)[ -]?[1-9](?:[ -]?[0-9]){7,8}$|^\+[1-9][0-9 ()-]{7,17}[0-9]$",
    "national identity numbers": r"^[1-8](?:-?[0-9]){12}$",
    "card numbers": r"^[3-6][0-9]{3}(?:[ -]?[0-9]{4}){2}[ -]?[0-9]{1,7}$",
}
_SHARE_LEAST: Final = 0.2


def personal_signs(name: str, sample: pl.Series) -> tuple[str, float] | None:
    """What makes a column look personal, and the share of sampled values that do; None if nothing does."""
    if sample.dtype.is_integer():
        sample = sample.cast(pl.String)
    present = sample.drop_nulls()
    if present.dtype == pl.String and present.len():
        texts = present.str.strip_chars()
        for kind, pattern in _SHAPES.items():
            matching = texts.filter(texts.str.contains(pattern))
            if kind == "national identity numbers":
                matching = matching.filter(_is_thai_identity(matching))
            elif kind == "card numbers":
                matching = matching.filter(_passes_luhn(matching))
            share = matching.len() / present.len()
            if share >= _SHARE_LEAST:
                return f"values look like {kind}", share
    return ("the column's name says so", 1.0) if _NAMES.search(name) else None


def _digits(values: pl.Series) -> list[pl.Series]:
    plain = values.str.replace_all(r"[^0-9]", "")
    longest = plain.str.len_bytes().max()
    width = longest if isinstance(longest, int) else 0
    return [plain.str.slice(-place - 1, 1).cast(pl.Int32, strict=False).fill_null(0) for place in range(width)]


def _is_thai_identity(values: pl.Series) -> pl.Series:
    """The thirteenth digit of a Thai identity number is a check digit (weights 13 to 2, modulo 11)."""
    digits = _digits(values)
    if len(digits) < 13:
        return pl.repeat(False, values.len(), dtype=pl.Boolean, eager=True)
    total = pl.repeat(0, values.len(), dtype=pl.Int32, eager=True)
    for place in range(1, 13):
        total = total + digits[place] * (place + 1)
    return (11 - total % 11) % 10 == digits[0]


def _passes_luhn(values: pl.Series) -> pl.Series:
    total = pl.repeat(0, values.len(), dtype=pl.Int32, eager=True)
    for place, digit in enumerate(_digits(values)):
        doubled = digit * 2
        total = total + (doubled - (doubled > 9).cast(pl.Int32) * 9 if place % 2 else digit)
    return total % 10 == 0
