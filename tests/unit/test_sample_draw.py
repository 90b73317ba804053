"""Which keys a sample takes, and that the closure over lookups is the one a plain search finds."""

from __future__ import annotations

import random
import tempfile
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rules_support import compiled, describe_field, object_of, source_column

from forcelift.during.extract.sample_store import SampleStore
from forcelift.errors import UsageError
from forcelift.protocols.source import ADDRESS, ColumnKind
from forcelift.rules import ParentField, SampleKeys, SamplePercent
from forcelift.rules.duplicates import key_hash


@pytest.mark.parametrize(
    ("given", "shown", "threshold"),
    [
        ("1", "1", 2**64 // 100),
        ("1.0", "1", 2**64 // 100),
        (0.01, "0.01", 2**64 // 10_000),
        (Decimal("0.000001"), "0.000001", 2**64 // 10**8),
        (50, "50", 2**63),
        ("1e2", "100", 2**64),
        ("99.999999", "99.999999", 2**64 * 99_999_999 // 10**8),
    ],
)
def test_a_percent_is_exact(given, shown, threshold):
    percent = SamplePercent.of(given)
    assert (str(percent), percent.threshold, percent.is_whole) == (shown, threshold, shown == "100")


@pytest.mark.parametrize(
    "given", ["0", "-1", "100.000001", "101", "NaN", "inf", "", "one", "0.0000001", "1." + "0" * 40 + "1", "1%"]
)
def test_a_percent_that_is_none_is_refused(given):
    with pytest.raises(UsageError):
        SamplePercent.of(given)


def test_the_hash_of_a_key_is_what_it_was_yesterday():
    """Goal: the same sample by every version. The values were printed once; a change of them is a change of promise."""
    hashes = key_hash(pl.Series(["a", "1", "ก"]))
    assert hashes["high"].to_list() == [12209170011921672244, 16085986526811796301, 5836441875164853930]


def test_a_smaller_sample_is_part_of_a_larger_one_and_has_its_share():
    highs = key_hash(pl.Series([str(number) for number in range(200_000)]))["high"]
    drawn = {
        percent: set(highs.filter(highs < SamplePercent.of(percent).threshold)) for percent in ("0.1", "1", "10", "50")
    }
    assert drawn["0.1"] < drawn["1"] < drawn["10"] < drawn["50"]
    for percent, keys in drawn.items():
        # Five standard deviations of a binomial share.
        share = float(percent) / 100
        assert abs(len(keys) - 200_000 * share) < 5 * (200_000 * share * (1 - share)) ** 0.5


def _keys(name: str, kind: ColumnKind, **attributes: object) -> SampleKeys:
    rules = compiled(
        {"ID": {"field": "Key__c"}},
        columns=(source_column("ID", kind, **attributes),),
        describe=object_of(describe_field(name)),
    )
    return SampleKeys(rules, {})


def test_keys_that_the_target_calls_equal_have_one_hash():
    text = _keys("X__c", ColumnKind.TEXT)
    hashes = text.hashes(pl.DataFrame({"ID": ["Ab", " aB\t", "ab", "AB ", "7", "x", None, "  "]}))
    assert hashes["high"][:4].n_unique() == 1
    assert hashes["high"][6:].null_count() == 2
    whole = _keys("X__c", ColumnKind.INTEGER).hashes(pl.DataFrame({"ID": [7]}))
    assert whole.row(0) == hashes.row(4)
    number = _keys("X__c", ColumnKind.DECIMAL).hashes(pl.DataFrame({"ID": [Decimal("7.000000")]}))
    assert number.row(0) == hashes.row(4)
    binary = SampleKeys(
        compiled(
            {"ID": {"field": "Key__c", "encoding": "tis-620"}},
            columns=(source_column("ID", ColumnKind.BINARY),),
            describe=object_of(),
        ),
        {},
    ).hashes(pl.DataFrame({"ID": ["กข".encode("tis-620")]}))
    assert binary.row(0) == text.hashes(pl.DataFrame({"ID": ["กข "]})).row(0)


def test_the_parts_of_a_composite_key_count_together():
    rules = compiled(
        {"A": {"field": "A__c"}},
        columns=(source_column("A"), source_column("B", ColumnKind.INTEGER)),
        describe=object_of(describe_field("A__c", length=40)),
        key=("A", "B"),
    )
    frame = pl.DataFrame({"A": ["x", "X ", "x|1", "x", None], "B": [1, 1, 1, None, 1]})
    hashes = SampleKeys(rules, {}).hashes(frame)
    assert hashes.row(0) == hashes.row(1) != hashes.row(2)
    assert hashes["high"].is_null().to_list() == [False, False, False, True, True]


def test_a_parent_is_what_the_rules_make_of_the_value():
    lookup = describe_field("Up__c", "reference", reference_to=("Thing__c",), relationship_name="Up__r")
    rules = compiled(
        {
            "ID": {"field": "Key__c"},
            "UP": {
                "field": "Up__r.Key__c",
                "parent": "THINGS",
                "values": {"old": "New"},
                "unmapped": "keep",
                "empty": {"default": "root"},
            },
        },
        columns=(source_column("ID"), source_column("UP")),
        describe=object_of(lookup),
        parents={"UP": ParentField(name="Key__c", type="string")},
    )
    keys = SampleKeys(rules, {"UP": "THINGS"})
    named = keys.parents(pl.DataFrame({"ID": ["1", "2", "3"], "UP": [" old", None, "New "]}))
    wanted = key_hash(pl.Series(["new", "root", "new"]))
    assert named.rows() == wanted.rows()


EDGES = st.dictionaries(st.integers(0, 25), st.integers(0, 30), max_size=26)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(own=EDGES, ring=EDGES, back=EDGES, child=EDGES, percent=st.sampled_from([3, 15, 60]), pieces=st.integers(1, 3))
def test_the_closure_is_the_one_a_plain_search_finds(own, ring, back, child, percent, pieces):
    """Method: `a` refers to itself and to `b`, `b` back to `a`, `c` to `a`; compare with a search in Python's sets."""
    threshold = SamplePercent.of(percent).threshold
    edges = {"c": {"a": child}, "a": {"a": own, "b": ring}, "b": {"a": back}}
    size = {"a": 26, "b": 26, "c": 26}
    hashed = {number: key_hash(pl.Series([f"k{number}"])).row(0) for number in range(31)}
    wanted = _search(edges, size, lambda number: hashed[number][0] < threshold)
    with (
        tempfile.TemporaryDirectory() as folder,
        SampleStore(Path(folder) / "s", memory_mb=64, threshold=threshold) as store,
    ):
        for group in (["c"], ["a", "b"]):
            for table in group:
                store.open_table(table, list(edges[table]))
                for piece in range(pieces):
                    store.add(table, _frame(table, edges[table], size[table], hashed, piece, pieces))
            store.draw(group)
            for table in group:
                path = Path(folder) / f"{table}.parquet"
                rows = store.save(table, path)
                saved = pl.read_parquet(path)
                assert rows == saved.height == len(wanted[table])
                assert set(saved[ADDRESS]) == wanted[table]
                assert saved.rows() == sorted(saved.rows())
                cut = store.cut(path, lines_per_chunk=4)
                assert sum(part.lines for part in cut) == rows
                assert all(part.lines <= 4 for part in cut)
            store.drop_rows(group)
        assert not list((Path(folder) / "s").glob("rows-*"))


def _search(edges, size, is_drawn):
    found = {table: {number for number in range(size[table]) if is_drawn(number)} for table in size}
    todo = [(table, number) for table, numbers in found.items() for number in numbers]
    while todo:
        table, number = todo.pop()
        for parent, links in edges[table].items():
            up = links.get(number)
            if up is not None and up < size[parent] and up not in found[parent]:
                found[parent].add(up)
                todo.append((parent, up))
    return found


def _frame(table, links, size, hashed, piece, pieces):
    numbers = [number for number in range(size) if number % pieces == piece]
    random.Random(piece).shuffle(numbers)
    columns = {
        ADDRESS: pl.Series(numbers, dtype=pl.Int64),
        "high": pl.Series([hashed[number][0] for number in numbers], dtype=pl.UInt64),
        "low": pl.Series([hashed[number][1] for number in numbers], dtype=pl.UInt64),
    }
    for at, of in enumerate(links.values()):
        pairs = [hashed[of[number]] if number in of else (None, None) for number in numbers]
        columns[f"high{at}"] = pl.Series([high for high, _ in pairs], dtype=pl.UInt64)
        columns[f"low{at}"] = pl.Series([low for _, low in pairs], dtype=pl.UInt64)
    return pl.DataFrame(columns).with_columns(pl.lit(piece, dtype=pl.UInt32).alias("slice"))
