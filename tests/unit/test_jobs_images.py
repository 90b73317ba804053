"""Which keys may be asked for as a range: only where every order of texts agrees on their places."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forcelift.jobs.images import SPREAD_MAX, key_range
from forcelift.protocols.org import FieldDescribe

TEXT = FieldDescribe(name="Key__c", label="Key", type="string", length=40, external_id=True)
NUMBER = FieldDescribe(name="Key__c", label="Key", type="double", precision=18, external_id=True)


def bounds(field: FieldDescribe, *keys: str) -> tuple[str, str] | None:
    found = key_range(field, pl.Series("key", list(keys), dtype=pl.String))
    return None if found is None else (found.lowest, found.highest)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (("S0001", "S0003", "S0002"), ("S0001", "S0003")),
        (("00012", "00010"), ("00010", "00012")),
        (("TH-7", "TH-9"), ("TH-7", "TH-9")),
        (("one9",), ("one9", "one9")),
    ],
)
def test_one_beginning_and_as_many_digits_make_a_range(keys: tuple[str, ...], expected: tuple[str, str]) -> None:
    assert bounds(TEXT, *keys) == expected


@pytest.mark.parametrize(
    "keys",
    [
        ("9", "10"),  # text and number order differ
        ("S1", "s2"),  # case
        ("A1", "B1"),
        ("ก1", "ก2"),  # letters that a collation may order by rules of their own
        ("a'1", "a'2"),  # nothing to be escaped reaches SOQL
        ("S1", "S2", "Sx"),
        ("S-1", "S-2", "S--"),
        ("", "1"),
    ],
)
def test_other_texts_make_none(keys: tuple[str, ...]) -> None:
    assert bounds(TEXT, *keys) is None


def test_keys_that_lie_far_apart_are_not_asked_for_as_a_range() -> None:
    assert bounds(TEXT, "0000", f"{2 * SPREAD_MAX:04d}") == ("0000", f"{2 * SPREAD_MAX:04d}")
    assert bounds(TEXT, "0000", f"{2 * SPREAD_MAX + 1:04d}") is None


def test_numbers_are_ordered_as_numbers_while_doubles_tell_them_apart() -> None:
    assert bounds(NUMBER, "9", "10") == ("9", "10")
    assert bounds(NUMBER, "-3", "2.5") == ("-3", "2.5")
    assert bounds(NUMBER, str(2**53), str(2**53 + 1)) is None


def test_a_condition_holds_both_bounds() -> None:
    text = key_range(TEXT, pl.Series(["S1", "S2"]))
    number = key_range(NUMBER, pl.Series(["1", "2"]))
    assert text is not None
    assert number is not None
    assert text.condition(TEXT) == "Key__c >= 'S1' AND Key__c <= 'S2'"
    assert number.condition(NUMBER) == "Key__c >= 1 AND Key__c <= 2"


@given(keys=st.lists(st.text(alphabet="aAbB019-_", min_size=1, max_size=5), min_size=1, max_size=30))
def test_every_key_lies_within_the_range_in_several_orders(keys: list[str]) -> None:
    found = bounds(TEXT, *keys)
    if found is not None:
        low, high = found
        assert all(low <= key <= high for key in keys)
        assert all(low.lower() <= key.lower() <= high.lower() for key in keys)
        # An order that passes over punctuation, as many collations do.
        strip = str.maketrans("", "", "-_")
        assert all(low.translate(strip) <= key.translate(strip) <= high.translate(strip) for key in keys)
