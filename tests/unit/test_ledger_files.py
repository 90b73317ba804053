"""The ledger's files: what is refused, and the questions they answer."""

from __future__ import annotations

import polars as pl
import pytest

from forcelift.errors import StorageError
from forcelift.ledger import LEDGER, Ledger, ledger_name
from forcelift.storage import FolderStorage


def make_lines(outcomes: list[str], *, ids: list[str | None] | None = None) -> pl.DataFrame:
    rows = len(outcomes)
    columns = {
        "row": list(range(rows)),
        "key": [f"K{number}" for number in range(rows)],
        "id": ids or [f"a0{number:016d}" for number in range(rows)],
        "outcome": outcomes,
        "evidence": ["result"] * rows,
        "hash": [bytes([number % 256] * 16) for number in range(rows)],
        "job": [1] * rows,
    }
    return pl.DataFrame({name: columns.get(name, [None] * rows) for name in LEDGER}, schema=LEDGER)


@pytest.fixture
def storage(tmp_path):
    return FolderStorage(tmp_path, fsync=False)


@pytest.fixture
def ledger(storage):
    return Ledger(storage)


def test_lines_come_back_as_written_under_a_seal(ledger, storage):
    lines = make_lines(["created", "updated", "failed"])
    sealed = ledger.write("B1", "KPS_T_SALES_MD", 7, 2, lines)
    assert sealed.name == "ledger/B1/KPS_T_SALES_MD/c000007.g02.parquet"
    storage.verify(sealed.name, sealed.sha256)
    assert ledger.scan([sealed.name]).collect().equals(lines)
    assert ledger.write("B1", "T", 1, 0, lines.lazy()).size > 0


def test_any_table_name_makes_a_safe_file_name(ledger):
    names = {ledger_name("B", table, 1, 0) for table in ("a/b", "a%2Fb", "..", "ยอดขาย", "x" * 999, "x" * 998)}
    assert len(names) == 6
    for table in ("a/b", "..", "ยอดขาย", "x" * 999):
        assert ledger.counts([ledger.write("B", table, 1, 0, make_lines(["created"])).name]) == {"created": 1}


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda lines: lines.drop("job"), "no job"),
        (lambda lines: lines.cast({"row": pl.Int64}), "row Int64"),
        (lambda lines: lines.select(reversed(lines.columns)), "order differs"),
        (lambda lines: lines.with_columns(more=1), "more Int32"),
        (lambda lines: lines.with_columns(outcome=pl.lit("lost")), "outcome cannot be lost"),
        (lambda lines: lines.with_columns(outcome=pl.lit(None, dtype=pl.String)), "outcome cannot be None"),
        (lambda lines: lines.with_columns(evidence=pl.lit("hearsay")), "evidence cannot be hearsay"),
        (lambda lines: lines.with_columns(row=pl.lit(0, dtype=pl.UInt32)), "exactly one line"),
        (lambda lines: lines.with_columns(hash=pl.lit(b"short")), "16 bytes"),
    ],
)
def test_frames_that_are_no_ledger_are_refused(ledger, storage, spoil, fault):
    with pytest.raises(ValueError, match=fault):
        ledger.write("B1", "T", 1, 0, spoil(make_lines(["created", "updated"])))
    assert storage.list() == ()


def test_no_files_are_no_lines(ledger):
    assert ledger.scan([]).collect().schema == LEDGER
    assert ledger.counts([]) == {}
    assert ledger.accepted_keys([]).collect().height == 0
    assert ledger.duplicate_ids([]).height == 0


def test_counts_and_accepted_keys_over_files(ledger):
    files = [
        ledger.write("B1", "T", 1, 0, make_lines(["created", "created", "failed"])).name,
        ledger.write("B1", "T", 2, 0, make_lines(["updated", "rejected", "duplicate", "unknown"])).name,
    ]
    assert ledger.counts(files) == {
        "created": 2,
        "duplicate": 1,
        "failed": 1,
        "rejected": 1,
        "unknown": 1,
        "updated": 1,
    }
    assert sorted(ledger.accepted_keys(files).collect()["key"]) == ["K0", "K0", "K1"]


def test_ids_in_more_than_one_accepted_row_are_found_across_files(ledger):
    one = make_lines(["created", "updated", "failed", "created"], ids=["X", "Y", "Z", None])
    two = make_lines(["updated", "failed", "updated", "created"], ids=["X", "Y", "Z", None])
    files = [ledger.write("B1", "T", number, 0, lines).name for number, lines in ((1, one), (2, two))]
    assert ledger.duplicate_ids(files).rows() == [("X", 2)]
    assert ledger.duplicate_ids(files[:1]).rows() == []
    same = ledger.write("B1", "T", 3, 0, make_lines(["updated"] * 4, ids=["P", "P", "Q", "Q"]))
    assert ledger.duplicate_ids([same.name], limit=1).rows() == [("P", 2)]


@pytest.mark.parametrize("room", [128_000_000, 200, 20])
def test_ids_are_compared_in_as_many_turns_as_memory_asks_for(ledger, monkeypatch, room):
    """Goal: a repeated Id is found whichever turn its hash falls into, and where there would be too many turns."""
    monkeypatch.setattr("forcelift.ledger.ledger._HASHES_BYTES", room)
    ids = [f"a0{number:016d}" for number in range(20)]
    asked = []
    ask = ledger.ask
    monkeypatch.setattr(ledger, "ask", lambda *words, **values: asked.append(words) or ask(*words, **values))
    files = [
        ledger.write("B1", "T", number, 0, make_lines(["created"] * 10, ids=ids[at : at + 10])).name
        for number, at in ((1, 0), (2, 10))
    ]
    assert ledger.duplicate_ids(files).rows() == []
    assert len(asked) == (1 if room == 20 else 0), "Ids are grouped though no two hashes are equal"
    for number in range(10):
        again = ledger.write("B1", "T", 3, 0, make_lines(["updated"], ids=[ids[number]])).name
        assert ledger.duplicate_ids([*files, again]).rows() == [(ids[number], 2)]


def test_missing_file_is_told(ledger):
    sealed = ledger.write("B1", "T", 1, 0, make_lines(["created"]))
    for ask in (ledger.scan, ledger.counts, ledger.accepted_keys, ledger.duplicate_ids):
        with pytest.raises(StorageError, match="1 of 2 ledger files are missing"):
            ask([sealed.name, "ledger/B1/T/c000009.g00.parquet"])
