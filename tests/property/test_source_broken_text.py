"""Bytes that are not UTF-8 in a text column: told apart as Python's decoder does, each kept to the byte."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from forcelift.protocols.source import BROKEN_TEXT
from forcelift.rules.texts import unescape
from forcelift.source.broken_text import as_utf8

# Parts of characters, whole ones, and what comes near them: overlong forms, surrogates, beyond the last plane.
PARTS = ["a", "é", "ก", "😀", "\x00", "\n", "\ufffd", "\U0010ffff"]
BROKEN = [b"\x80", b"\xc0\x80", b"\xc3", b"\xe0\x80\x80", b"\xe0\xb9", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff"]
VALUES = st.one_of(
    st.none(),
    st.binary(max_size=6),
    st.lists(st.sampled_from([part.encode() for part in PARTS] + BROKEN), max_size=5).map(b"".join),
)


def is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(values=st.lists(VALUES, max_size=30), skip=st.integers(0, 3))
@example(values=[b"ok", b"\xa1", None, b""], skip=1)
def test_broken_values_alone_are_escaped_and_come_back_with_replacements(values: list[bytes | None], skip: int) -> None:
    stored = pa.array(values, pa.binary()).view(pa.string()).slice(skip)
    kept = values[skip:]
    found = as_utf8(stored)
    found.validate(full=True)
    assert found.to_pylist() == [
        value if value is None else value.decode() if is_utf8(value) else BROKEN_TEXT + value.hex() for value in kept
    ]
    texts, rows = unescape(pl.Series(found, dtype=pl.String))
    assert texts.to_list() == [None if value is None else value.decode(errors="replace") for value in kept]
    assert rows.to_list() == [at for at, value in enumerate(kept) if value is not None and not is_utf8(value)]


def test_a_real_text_that_begins_like_an_escaped_one_stays() -> None:
    for value in (BROKEN_TEXT + "no hexadecimal", BROKEN_TEXT + "abc"):
        texts, rows = unescape(pl.Series([value]))
        assert (texts.to_list(), rows.to_list()) == ([value], [])
