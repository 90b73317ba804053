"""Places of keys by hash are those that a search of each key gives, also where hashes are shared."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forcelift.jobs.places import KeyPlaces

TEXTS = st.text(alphabet="aAbกé1 ", max_size=4)


@given(keys=st.lists(TEXTS, unique=True, max_size=60), asked=st.lists(st.one_of(TEXTS, st.none()), max_size=60))
def test_places_are_those_of_a_search(keys: list[str], asked: list[str | None]) -> None:
    wanted = asked + keys[::2]
    found = KeyPlaces(pl.Series("sent", keys, dtype=pl.String)).of(pl.Series("told", wanted, dtype=pl.String))
    assert found.dtype == pl.UInt32
    assert found.name == "place"
    assert found.to_list() == [keys.index(key) if key in keys else None for key in wanted]


def test_keys_that_share_a_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pl.Series, "hash", lambda series: pl.repeat(7, series.len(), dtype=pl.UInt64, eager=True))
    places = KeyPlaces(pl.Series(["a", "b", "c"]))
    assert places.of(pl.Series(["c", "a", "x", "b"])).to_list() == [2, 0, None, 1]
