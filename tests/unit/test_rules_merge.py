"""Copies of a key merged into one row, beyond what the property test covers."""

from __future__ import annotations

import sys
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from tests.rules_support import AS_OF, compiled, describe_field, object_of, source_column

from forcelift.errors import PlanError
from forcelift.protocols.source import BROKEN_NUMBER, ColumnKind
from forcelift.rules import ChunkCleaner, CompiledTable, DuplicateDecisions, DuplicateScan, duplicates

FIELDS = (
    describe_field("Name__c", length=20),
    describe_field("Amount__c", "double", precision=18, scale=2),
    describe_field("Day__c", "date"),
    describe_field("Flag__c", "boolean"),
)
COLUMNS = (
    source_column("ID"),
    source_column("NAME", ColumnKind.BINARY, arrow=pa.binary()),
    source_column("AMOUNT"),
    source_column("BYTES", ColumnKind.BINARY, arrow=pa.binary()),
    source_column("DAY", ColumnKind.DATE),
    source_column("FLAG", ColumnKind.BOOLEAN),
    source_column("AT", ColumnKind.TIMESTAMP),
)
TYPES: dict[str, Any] = {
    "NAME": pl.Binary, "BYTES": pl.Binary, "DAY": pl.Date, "FLAG": pl.Boolean, "AT": pl.Datetime("us"),
}  # fmt: skip


def table_of(rules: dict[str, Any], **settings: Any) -> CompiledTable:
    settings.setdefault("duplicates", "merge")
    return compiled({"ID": {"field": "Key__c"}, **rules}, columns=COLUMNS, describe=object_of(*FIELDS), **settings)


def frame_of(**columns: list[Any]) -> pl.DataFrame:
    return pl.DataFrame({name: pl.Series(values, dtype=TYPES.get(name, pl.String)) for name, values in columns.items()})


def decided(table: CompiledTable, frames: list[pl.DataFrame], folder: Path, memory_mb: int = 128) -> DuplicateDecisions:
    with DuplicateScan(folder / "scan", memory_mb=memory_mb) as scan:
        for number, frame in enumerate(frames):
            scan.add(number, table.keys(frame))
        for number in scan.duplicate_norms().chunks:
            scan.add_content(number, table.content(frames[number]))
        scan.decide(table.plan.duplicates, table.merges).save(folder / "decisions.parquet")
    return DuplicateDecisions.load(folder / "decisions.parquet")


def merged(table: CompiledTable, frame: pl.DataFrame, folder: Path) -> tuple[list[Any], list[Any], dict[Any, int]]:
    cleaner = ChunkCleaner(table, chunk_no=0, as_of=AS_OF, duplicates=decided(table, [frame], folder), parents={})
    cleaned = cleaner.clean(frame)
    cleaner.finish()
    return cleaned.accepted.drop("row").rows(), cleaned.rows.select("outcome", "code").rows(), cleaned.changes


@pytest.mark.parametrize("rule", ["min", "max", "sum"])
def test_a_copy_that_is_no_number_is_not_lost_in_silence(tmp_path: Path, rule: str) -> None:
    table = table_of({"AMOUNT": {"field": "Amount__c", "merge": rule}})
    frame = frame_of(ID=["a", "a", "a"], AMOUNT=["1", "many", None])
    rows, outcomes, _ = merged(table, frame, tmp_path)
    assert rows == []
    assert sorted(outcomes, key=str) == [("duplicate", None)] * 2 + [("rejected", "REJECTED_INVALID_NUMBER")]


@pytest.mark.parametrize("rule", ["min", "max", "sum", "first", "not_null"])
def test_a_decimal_that_is_no_number_stays_one_through_a_merge(tmp_path: Path, rule: str) -> None:
    """It comes as digits that no decimal of its column's size holds."""
    column = source_column("PRICE", ColumnKind.DECIMAL, arrow=pa.decimal128(5, 2), precision=5, scale=2)
    fields = {"ID": {"field": "Key__c"}, "PRICE": {"field": "Amount__c", "merge": rule}}
    table = compiled(fields, columns=(*COLUMNS, column), describe=object_of(*FIELDS), duplicates="merge")
    content = pa.py_buffer(b"".join(n.to_bytes(16, sys.byteorder, signed=True) for n in (BROKEN_NUMBER, 150, 250)))
    prices = pl.from_arrow(pa.Array.from_buffers(pa.decimal128(5, 2), 3, [None, content]))
    assert isinstance(prices, pl.Series)
    frame = pl.DataFrame({"ID": ["a", "b", "b"], "PRICE": prices})
    frame = pl.concat([frame, frame.head(1)])  # all copies of `a` hold it
    rows, outcomes, _ = merged(table, frame, tmp_path)
    assert [key for key, _ in rows] == ["b"]
    assert rows[0][1] == {"sum": "4", "max": "2.5"}.get(rule, "1.5")
    assert sorted(outcomes, key=str) == [
        ("duplicate", None),
        ("duplicate", None),
        ("rejected", "REJECTED_INVALID_NUMBER"),
        (None, None),
    ]


def test_numbers_compare_by_size_and_zero_below_none(tmp_path: Path) -> None:
    values = ["-10", " 9", "10.0", "", None, "-9.5"]
    for rule, wanted in {"min": "-10", "max": "10", "sum": "-0.5"}.items():
        table = table_of({"AMOUNT": {"field": "Amount__c", "merge": rule}})
        rows, _, _ = merged(table, frame_of(ID=["a"] * 6, AMOUNT=values), tmp_path / rule)
        assert rows == [("a", wanted)]


def test_nothing_but_nulls_gives_null(tmp_path: Path) -> None:
    for rule in ("min", "max", "sum", "not_null"):
        table = table_of({"AMOUNT": {"field": "Amount__c", "merge": rule}})
        rows, _, changes = merged(table, frame_of(ID=["a", "a"], AMOUNT=[None, None]), tmp_path / rule)
        assert rows == [("a", None)]
        assert changes == {}


def test_bytes_are_compared_as_the_text_they_stand_for(tmp_path: Path) -> None:
    rules = {
        "NAME": {"field": "Name__c", "merge": "longest", "encoding": "TIS-620"},
        "BYTES": {"field": "Amount__c", "merge": "sum", "encoding": "TIS-620"},
    }
    names = ["กขค".encode("tis-620"), b"ab", None]
    rows, _, changes = merged(table_of(rules), frame_of(ID=["a"] * 3, NAME=names, BYTES=[b"1.5", b"2", None]), tmp_path)
    assert rows == [("a", "กขค", "3.5")]
    assert changes.get(("merge", "BYTES")) == 1


def test_dates_and_booleans_keep_their_kind(tmp_path: Path) -> None:
    table = table_of({"DAY": {"field": "Day__c", "merge": "min"}, "FLAG": {"field": "Flag__c", "merge": "max"}})
    frame = frame_of(ID=["a"] * 3, DAY=[date(2024, 5, 1), None, date(1999, 1, 1)], FLAG=[False, True, None])
    rows, _, _ = merged(table, frame, tmp_path)
    assert rows == [("a", "1999-01-01", "true")]


def test_a_value_from_another_copy_is_a_change_and_passes_all_rules(tmp_path: Path) -> None:
    table = table_of(
        {"AMOUNT": {"field": "Amount__c", "merge": "sum", "negative": "reject"}, "DAY": {"field": "Day__c"}},
        changed_at="AT",
    )
    at = [datetime(2024, 1, 1), datetime(2024, 1, 2)]
    days = [date(2024, 1, 1), None]
    frame = frame_of(
        ID=["a", "a", "b", "b", "c"],
        AMOUNT=["1", "1.004", "5", "-6", "7"],
        DAY=[*days, *days, None],
        AT=[*at, *at, None],
    )
    rows, outcomes, changes = merged(table, frame, tmp_path)
    # `latest` holds also where it is null; the merged sum is rounded and judged as any number.
    assert rows == [("a", "2", None), ("c", "7", None)]
    assert [code for _, code in outcomes] == [None, None, None, "REJECTED_NEGATIVE", None]
    assert [outcome for outcome, _ in outcomes] == ["duplicate", None, "duplicate", "rejected", None]
    assert changes == {("merge", "AMOUNT"): 1, ("rounded", "AMOUNT"): 1}


def test_the_row_that_goes_on_keeps_its_own_key(tmp_path: Path) -> None:
    table = table_of({"AMOUNT": {"field": "Amount__c", "merge": "sum"}}, changed_at="AT")
    frame = frame_of(ID=[" A", "a"], AMOUNT=["1", "2"], AT=[datetime(2024, 1, 2), datetime(2024, 1, 1)])
    rows, _, changes = merged(table, frame, tmp_path)
    assert rows == [("A", "3")]
    assert changes == {("merge", "AMOUNT"): 1, ("outer_blanks", "ID"): 1}


def test_many_keys_and_one_huge_key_fit_into_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a flat memory. Method: keys are merged in parts, one key with very many copies among them."""
    monkeypatch.setattr(duplicates, "_MERGE_ROWS", 20_000)
    table = table_of(
        {
            "AMOUNT": {"field": "Amount__c", "merge": "sum"},
            "NAME": {"field": "Name__c", "merge": "max", "encoding": "utf-8"},
        }
    )
    keys = [f"k{number % 30_000}" for number in range(60_000)] + ["same"] * 40_000
    frames = [
        frame_of(
            ID=keys[start : start + 25_000],
            AMOUNT=["0.01"] * 25_000,
            NAME=[str(number % 1000).zfill(4).encode() for number in range(25_000)],
        )
        for start in range(0, 100_000, 25_000)
    ]
    decisions = decided(table, frames, tmp_path, memory_mb=64)
    sent: dict[str, tuple[str, str]] = {}
    for number, frame in enumerate(frames):
        cleaner = ChunkCleaner(table, chunk_no=number, as_of=AS_OF, duplicates=decisions, parents={})
        accepted = cleaner.clean(frame).accepted
        cleaner.finish()
        sent |= {key: (amount, name) for key, amount, name in accepted.select("Key__c", "Amount__c", "Name__c").rows()}
    assert len(sent) == 30_001
    assert sent["same"] == ("400", "0999")
    assert {amount for key, (amount, _) in sent.items() if key != "same"} == {"0.02"}


def test_copies_that_differ_in_what_is_refused_are_told_apart(tmp_path: Path) -> None:
    """Goal: which of two rows with one canonical text goes on does not depend on the chunks."""
    table = table_of(
        {"NAME": {"field": "Name__c", "encoding": "utf-8", "control_characters": "reject"}}, duplicates="keep_first"
    )
    found = []
    for number, names in enumerate(([b"x\x01", b"x"], [b"x", b"x\x01"])):
        frames = [frame_of(ID=["a"], NAME=[name]) for name in names]
        folder = tmp_path / str(number)
        folder.mkdir()
        decisions = decided(table, frames, folder)
        outcome = {}
        for place, frame in enumerate(frames):
            cleaner = ChunkCleaner(table, chunk_no=place, as_of=AS_OF, duplicates=decisions, parents={})
            outcome[names[place]] = cleaner.clean(frame).rows["outcome"][0]
        found.append(outcome)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"AMOUNT": {"field": "Name__c", "merge": "sum"}}, "needs a number field"),
        ({"AMOUNT": {"field": "Amount__c", "merge": "longest"}}, "needs a text field"),
        ({"AMOUNT": {"field": "Amount__c", "merge": "latest"}}, "needs `changed_at`"),
        ({"BYTES": {"field": "Amount__c", "merge": "sum", "encoding": "utf-16"}}, "cannot be written in utf-16"),
        ({"AMOUNT": {"field": "Amount__c", "merge": "max", "values": {"x": "1"}}}, "before `values` maps them"),
    ],
)
def test_merge_rules_that_do_not_fit(rules: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError) as caught:
        table_of(rules)
    assert any(words in problem.message for problem in caught.value.problems)
