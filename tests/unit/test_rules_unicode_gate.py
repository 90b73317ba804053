"""The look that finds texts not in NFC: it misses none, and lets common texts with several marks pass."""

from __future__ import annotations

import sys
import unicodedata

import polars as pl

from forcelift.rules import texts


def test_no_character_beyond_the_planes_looked_at_has_a_form_or_a_class() -> None:
    beyond = (chr(code) for code in range(0x30000, sys.maxunicode + 1))
    assert not any(unicodedata.combining(char) or unicodedata.decomposition(char) for char in beyond)


def test_every_single_character_and_every_pair_of_marks_is_composed_as_unicode_says() -> None:
    """Goal: no text that normalisation changes passes the gate.

    Method: each character alone and after a letter, and one mark of each combining class before one of each other.
    """
    chars = [chr(code) for code in range(0x20, 0x30000) if not 0xD800 <= code <= 0xDFFF]
    ranks = {unicodedata.combining(char): char for char in chars if unicodedata.combining(char)}
    samples = chars + [f"a{char}" for char in chars]
    samples += [f"ก{first}{second}" for first in ranks.values() for second in ranks.values()]
    composed = texts.compose(pl.Series(samples, dtype=pl.String)).to_list()
    assert composed == [unicodedata.normalize("NFC", sample) for sample in samples]


def test_thai_vowels_with_tone_marks_in_order_are_not_looked_at_twice() -> None:
    values = pl.Series(["ผู้โดยสาร", "ที่นั่ง", "น้ำหอม", "ปู่"])
    assert not values.str.contains(texts._nfc_gate()).any()
    assert pl.Series(["ป" + "\u0e48" + "\u0e39"]).str.contains(texts._nfc_gate()).all()  # tone mark before vowel
