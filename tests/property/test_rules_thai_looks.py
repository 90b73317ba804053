"""What is taken from whole batches of bytes holds for each text: ASCII or Thai, and no awkward text slips through."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from forcelift.rules.gates import awkward_rows
from forcelift.rules.texts import GATE, TextLook

LETTERS = st.one_of(
    st.sampled_from("กขฺ่ำ๛฿\u0e00\u0e7f\u0dff\u0e80aZ0-#N/ \t\r\x7f\x85\x9f\u00a0é😀\ufffd"),
    st.characters(min_codepoint=1, codec="utf-8"),
)
TEXTS = st.lists(st.one_of(st.none(), st.just("#N/A"), st.text(alphabet=LETTERS, max_size=6)), max_size=6)


def is_near(letter: str) -> bool:
    return letter < "\x80" or "\u0e00" <= letter <= "\u0e7f"


@given(texts=TEXTS)
def test_a_batch_is_ascii_or_thai_if_each_of_its_letters_is(texts: list[str | None]) -> None:
    look = TextLook(pl.Series(texts, dtype=pl.String))
    assert look.is_ascii_or_thai == all(is_near(letter) for text in texts for letter in text or "")


@given(texts=TEXTS)
def test_no_awkward_text_slips_through(texts: list[str | None]) -> None:
    values = pl.Series(texts, dtype=pl.String)
    found = awkward_rows(TextLook(values))
    assert not found.null_count()
    assert not (values.str.contains(GATE).fill_null(False) & ~found).any()


@given(texts=TEXTS, byte=st.integers(0, 255))
def test_a_byte_is_found_in_each_text_that_holds_it(texts: list[str | None], byte: int) -> None:
    found = TextLook(pl.Series(texts, dtype=pl.String)).holds(byte).fill_null(False)
    assert found.to_list() == [text is not None and byte in text.encode() for text in texts]
