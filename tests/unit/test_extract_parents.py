"""Which parents exist: found among many keys by a hash, decided by their texts, asked for once."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forcelift.during.extract import parents, sorted_keys
from forcelift.during.extract.parents import ParentIndex
from forcelift.during.extract.sorted_keys import SortedKeys
from forcelift.protocols.org import FieldDescribe

TEXTS = st.lists(st.text(alphabet="abAB\u0e01\u00e9 ", max_size=4), max_size=30)


def lower(keys: pl.Series) -> pl.Series:
    return keys.str.to_lowercase()


def found(keys: SortedKeys, norms: list[str]) -> dict[str, str]:
    frame = keys.find(pl.Series("norm", norms, dtype=pl.String))
    assert frame["norm"].n_unique() == frame.height
    return dict(frame.iter_rows())


@settings(deadline=None)
@given(stored=TEXTS, wanted=TEXTS)
def test_what_is_found_is_what_compares_equal(stored: list[str], wanted: list[str]) -> None:
    norms = list(dict.fromkeys(text.lower() for text in wanted))
    pieces = [pl.Series(stored[:7], dtype=pl.String), pl.Series(stored[7:], dtype=pl.String)]
    hits = found(SortedKeys(pieces, lower), norms)
    assert set(hits) == {norm for norm in norms if norm in {text.lower() for text in stored}}
    assert all(text in stored and text.lower() == norm for norm, text in hits.items())


def test_keys_of_one_hash_are_told_apart_by_their_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_hash(norms: pl.Series) -> pl.DataFrame:
        return pl.select(low=pl.repeat(7, norms.len(), dtype=pl.UInt64))

    monkeypatch.setattr(sorted_keys, "key_hash", one_hash)
    keys = SortedKeys([pl.Series(["A", "B", "C"])], lower)
    assert found(keys, ["c", "x", "a"]) == {"a": "A", "c": "C"}


def test_keys_without_a_norm_are_left_out() -> None:
    keys = SortedKeys([pl.Series(["A", None])], lower)
    assert len(keys) == 1


class Asked:
    """An org that notes what it is asked for."""

    def __init__(self, held: list[str]) -> None:
        self.held, self.questions = held, list[list[str]]()
        self.bulk = 0

    def find(self, object_name: str, key: FieldDescribe, values: list[str]) -> list[tuple[str, str]]:
        self.questions.append(sorted(values))
        return [("001", text) for text in self.held if text.lower() in values]

    def bulk_query(self, soql: str) -> list[bytes]:
        self.bulk += 1
        return [("Code__c\n" + "".join(f"{text}\n" for text in self.held)).encode(), b""]


def index(org: Any, accepted: list[str]) -> ParentIndex:
    key = FieldDescribe(name="Code__c", label="Code", type="string", length=20, external_id=True, unique=True)
    ledger = pl.LazyFrame({"key": accepted}, schema={"key": pl.String})
    return ParentIndex(org=org, object_name="Parent__c", key=key, accepted=lambda: ledger)


def pairs(parents: ParentIndex, norms: list[str]) -> dict[str, str]:
    return dict(parents.stored(pl.Series(norms, dtype=pl.String)).iter_rows())


def test_the_ledger_is_asked_before_the_org_and_each_orphan_once() -> None:
    org = Asked(["Org1", "Org2"])
    known = index(org, ["Led1", "Led2"])
    assert pairs(known, ["led1", "org1", "none"]) == {"led1": "Led1", "org1": "Org1"}
    assert pairs(known, ["none", "led2", "org1"]) == {"led2": "Led2", "org1": "Org1"}
    assert pairs(known, ["org2"]) == {"org2": "Org2"}
    assert pairs(known, ["led1", "org1", "org2", "none"]) == {"led1": "Led1", "org1": "Org1", "org2": "Org2"}
    assert org.questions == [["none", "org1"], ["org2"]]


def test_many_unknown_keys_are_fetched_whole_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parents, "ASK_BY_KEY_MAX", 2)
    org = Asked(["A1", "A2", "A3"])
    known = index(org, [])
    assert pairs(known, ["a1", "a3", "x1"]) == {"a1": "A1", "a3": "A3"}
    assert pairs(known, ["a2", "x1", "x2"]) == {"a2": "A2"}
    assert (org.bulk, org.questions) == (1, [])


def test_many_small_questions_leave_few_places_to_look() -> None:
    org = Asked([f"K{number}" for number in range(200)])
    known = index(org, ["L"])
    for number in range(200):
        assert pairs(known, [f"k{number}", "l"]) == {f"k{number}": f"K{number}", "l": "L"}
    assert len(known._known) < 12
    assert pairs(known, [f"k{number}" for number in range(200)]) == {f"k{n}": f"K{n}" for n in range(200)}
