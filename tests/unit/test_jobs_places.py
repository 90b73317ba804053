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


def test_many_keys_have_their_places_and_strangers_none() -> None:
    # Of so many, a fifth find their slot taken, and a stranger's hash is above all others now and then.
    keys = pl.Series([f"K-{number}" for number in range(20_000)])
    strangers = pl.Series([f"S-{number}" for number in range(20_000)])
    asked = pl.concat([keys, strangers]).sample(fraction=1.0, shuffle=True, seed=5)
    found = KeyPlaces(keys).of(asked)
    expected = pl.DataFrame({"key": asked}).join(
        pl.DataFrame({"key": keys}).with_row_index("place"), on="key", how="left", maintain_order="left"
    )
    assert found.equals(expected["place"])
