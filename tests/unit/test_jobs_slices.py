"""A chunk that is settled slice by slice comes to what it comes to when it is settled whole."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forcelift.during.extract.stage import pieces_of
from forcelift.jobs import slices
from forcelift.jobs.answers import ANSWERS, merge_answers
from forcelift.jobs.settlement import settle_rows
from forcelift.jobs.slices import EXAMPLES, OutOfOrder, SettledChunk, slices_in_order
from forcelift.ledger import LEDGER, Ledger
from forcelift.rules import checksum
from forcelift.rules.outcomes import ROWS_SCHEMA
from forcelift.storage import FolderStorage

OUTCOMES = st.lists(st.sampled_from([None, None, None, "rejected", "duplicate"]), max_size=40)
KINDS = st.lists(st.sampled_from(["created", "updated", "failed", "open"]), min_size=40, max_size=40)


def staged(outcomes: list[str | None]) -> pl.DataFrame:
    lines = [
        {"row": row, "key": f"K{row}", "outcome": outcome, "hash": None if outcome else row.to_bytes(16, "little")}
        for row, outcome in enumerate(outcomes)
    ]
    return pl.DataFrame(lines, schema=ROWS_SCHEMA)


def answered(rows: pl.DataFrame, kinds: list[str]) -> pl.DataFrame:
    sent = rows.filter(pl.col("outcome").is_null())["key"].to_list()
    lines = [
        {"key": key, "kind": kind, "id": None if kind == "failed" else f"a0{key}", "evidence": "result", "job": 1}
        for key, kind in zip(sent, kinds, strict=False)
    ]
    return pl.DataFrame([line | {"transient": False, "locked": False} for line in lines], schema=ANSWERS)


def written(folder: Path, rows: pl.DataFrame, *answers: pl.DataFrame) -> tuple[Path, list[Path]]:
    folder.mkdir(exist_ok=True)
    rows.write_parquet(folder / "rows.parquet", row_group_size=7)
    files = [folder / f"answers{number}.parquet" for number in range(len(answers))]
    for file, frame in zip(files, answers, strict=True):
        frame.write_parquet(file, row_group_size=5)
    return folder / "rows.parquet", files


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(outcomes=OUTCOMES, kinds=KINDS, slice_rows=st.integers(1, 12), cut=st.integers(0, 40))
def test_slices_add_up_to_the_whole(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outcomes: list[str | None],
    kinds: list[str],
    slice_rows: int,
    cut: int,
) -> None:
    monkeypatch.setattr(slices, "SLICE_ROWS", slice_rows)
    rows = staged(outcomes)
    told = answered(rows, kinds)
    whole = settle_rows(rows, merge_answers([told]))
    file, files = written(tmp_path / "world", rows, told[:cut], told[cut:])
    found = SettledChunk()
    with Ledger(FolderStorage(tmp_path, fsync=False)).writing("B", "T", 1, 0) as ledger:
        for part in slices_in_order(file, files):
            found.add(part)
            ledger.write(part.ledger)
        sealed = ledger.seal()
    assert pl.read_parquet(tmp_path / sealed.name, glob=False).cast(LEDGER).equals(whole.ledger)
    assert found.outcomes.outcomes == whole.outcomes
    assert found.outcomes.status == whole.status
    accepted = whole.ledger.filter(pl.col("outcome").is_in(["created", "updated"]))
    assert found.accepted == checksum(accepted["hash"])
    assert found.refused_lines.equals(whole.ledger.filter(pl.col("outcome").is_in(["failed", "rejected"])))
    assert set(found.records["id"]) <= set(accepted["id"])
    assert found.records.height >= min(EXAMPLES, accepted.height)


@pytest.mark.parametrize("fault", ["swapped", "one too few", "one too many", "unknown"])
def test_what_does_not_go_side_by_side_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(slices, "SLICE_ROWS", 3)
    rows = staged([None] * 8)
    told = answered(rows, ["created"] * 8)
    spoilt = {
        "swapped": told[[0, 1, 2, 3, 4, 5, 7, 6]],
        "one too few": told[:7],
        "one too many": pl.concat([told, told[:1].with_columns(key=pl.lit("K99"))]),
        "unknown": told.with_columns(kind=pl.when(pl.col("key") == "K7").then(pl.lit("unknown")).otherwise("kind")),
    }[fault]
    file, files = written(tmp_path / "world", rows, spoilt)
    with pytest.raises(OutOfOrder):
        list(slices_in_order(file, files))


def test_a_ledger_that_is_not_sealed_leaves_nothing_behind(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path, fsync=False)
    whole = settle_rows(staged([None]), merge_answers([answered(staged([None]), ["created"])]))
    with Ledger(storage).writing("B", "T", 1, 0) as ledger:
        ledger.write(whole.ledger)
    assert storage.list() == ()
    with Ledger(storage).writing("B", "T", 1, 0) as ledger:
        ledger.write(whole.ledger)
        with pytest.raises(ValueError, match="exactly one line"):
            ledger.write(whole.ledger)
    assert storage.list() == ()


@pytest.mark.parametrize(
    ("rows", "bytes_max", "pieces"), [(0, 8, 1), (1, 1, 1), (10, 80, 1), (10, 79, 2), (10, 8, 10), (7, 24, 3)]
)
def test_a_batch_of_many_bytes_is_cut(rows: int, bytes_max: int, pieces: int) -> None:
    batch = pa.record_batch({"a": pa.array(range(rows), pa.int64())})
    found = list(pieces_of(batch, bytes_max=bytes_max))
    assert len(found) == pieces
    assert pa.Table.from_batches(found)["a"].to_pylist() == list(range(rows))
