"""Keys, row hashes and duplicates: nothing is mixed up, and the chunks do not matter."""

from __future__ import annotations

import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rules_support import AS_OF, compiled, describe_field, object_of, source_column

from forcelift.plan.models import DuplicateRule
from forcelift.protocols.source import ColumnKind
from forcelift.rules import ChunkCleaner, ChunkSum, CompiledTable, DuplicateScan, checksum, row_hash
from forcelift.rules.keys import join_parts, normalised
from forcelift.rules.texts import simple_lower

part = st.text(st.sampled_from("abAB|\\ 1") | st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)
parts = part.map(lambda text: text.strip("\t\n\x0b\x0c\r ")).filter(bool)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(parts, parts, parts), min_size=2, max_size=30), st.booleans())
def test_different_tuples_give_different_keys(tuples: list[tuple[str, str, str]], case_sensitive: bool) -> None:
    """Goal: keys equal under the target's equality mean tuples equal under it, part by part, and the reverse."""
    columns = [pl.Series([row[place] for row in tuples], dtype=pl.String) for place in range(3)]
    norms = normalised(join_parts(columns), case_sensitive=case_sensitive).to_list()
    plain = [column if case_sensitive else simple_lower(column) for column in columns]
    compared = list(zip(*(column.to_list() for column in plain), strict=True))
    by_norm = dict(zip(norms, compared, strict=True))
    assert len(by_norm) == len(set(compared))
    assert all(by_norm[norm] == row for norm, row in zip(norms, compared, strict=True))


cell = st.none() | st.text(st.sampled_from("ab1:\x1f\x1e"), min_size=1, max_size=4)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(cell, cell, cell), min_size=1, max_size=40))
def test_row_hashes_are_equal_only_for_equal_rows(rows: list[tuple[str | None, ...]]) -> None:
    frame = pl.DataFrame(rows, schema={"K": pl.String, "B": pl.String, "A": pl.String}, orient="row")
    hashes = row_hash(frame, key_field="K", fields=["K", "B", "A"]).to_list()
    assert len(set(hashes)) == len(set(rows))
    assert hashes == row_hash(frame, key_field="K", fields=["A", "K", "B"]).to_list()
    assert hashes[:1] == row_hash(frame.head(1), key_field="K", fields=["A", "B", "K"]).to_list()


def test_row_hashes_know_the_names_of_the_fields() -> None:
    frame = pl.DataFrame({"K": ["k"], "A": ["x"], "B": ["x"]})
    assert (
        row_hash(frame, key_field="K", fields=["A"]).to_list() != row_hash(frame, key_field="K", fields=["B"]).to_list()
    )


def test_row_hash_version_1_is_what_it_always_was() -> None:
    """Checksums are stored for years: a change of this value needs a new version."""
    frame = pl.DataFrame(
        {"Key__c": ["a", "b\x1f"], "Name": ["ก", None]}, schema={"Key__c": pl.String, "Name": pl.String}
    )
    hashes = row_hash(frame, key_field="Key__c", fields=["Name"])
    assert str(checksum(hashes)) == "v1:2:9926f21a3ede997c87f46b26a53285bd"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(min_size=16, max_size=16), max_size=40), st.integers(0, 40), st.randoms(use_true_random=False)
)
def test_checksums_are_free_of_order_and_add_up(hashes: list[bytes], cut: int, random: Any) -> None:
    whole = checksum(pl.Series(hashes, dtype=pl.Binary))
    assert whole == ChunkSum(count=len(hashes), total=sum(int.from_bytes(h, "little") for h in hashes) % 2**128)
    shuffled = list(hashes)
    random.shuffle(shuffled)
    first, second = (checksum(pl.Series(half, dtype=pl.Binary)) for half in (shuffled[:cut], shuffled[cut:]))
    assert first + second == whole
    assert ChunkSum.parse(str(whole)) == whole
    assert len(str(whole)) <= 64


row = st.fixed_dictionaries(
    {
        "ID": st.none() | st.sampled_from(["a", "A", " a", "b", "c", "d "]),
        "NAME": st.none() | st.sampled_from(["x", "y", "z"]),
        "AT": st.none() | st.sampled_from([datetime(2024, 1, 1), datetime(2024, 1, 2)]),
    }
)


def sent_rows(
    table: CompiledTable, rows: list[dict[str, Any]], chunk_rows: int, batch_rows: int
) -> tuple[list[Any], ...]:
    schema = {"ID": pl.String, "NAME": pl.String, "AT": pl.Datetime("us")}
    frame = pl.DataFrame(rows, schema=schema)
    chunks = list(frame.iter_slices(chunk_rows))
    folder = Path(tempfile.mkdtemp())
    try:
        with DuplicateScan(folder / "scan", memory_mb=128) as scan:
            for number, chunk in enumerate(chunks):
                scan.add(number, table.keys(chunk))
            for number in scan.duplicate_norms().chunks:
                scan.add_content(number, table.content(chunks[number]))
            decisions = scan.decide(table.plan.duplicates).save(folder / "decisions.parquet")
        sent, outcomes = [], []
        for number, chunk in enumerate(chunks):
            cleaner = ChunkCleaner(table, chunk_no=number, as_of=AS_OF, duplicates=decisions, parents={})
            for batch in chunk.iter_slices(batch_rows):
                cleaned = cleaner.clean(batch)
                assert cleaned.rows.height == batch.height
                sent += cleaned.accepted.drop("row").rows()
                outcomes += cleaned.rows["outcome"].to_list()
            cleaner.finish()
    finally:
        shutil.rmtree(folder)
    return sorted(sent, key=str), outcomes


@settings(max_examples=12, deadline=None)
@given(
    st.lists(row, min_size=1, max_size=14),
    st.sampled_from([DuplicateRule.KEEP_LATEST, DuplicateRule.KEEP_FIRST, DuplicateRule.REJECT]),
    st.integers(1, 5),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_duplicates_are_decided_alike_in_any_chunks(
    rows: list[dict[str, Any]], rule: DuplicateRule, chunk_rows: int, batch_rows: int, random: Any
) -> None:
    table = compiled(
        {"ID": {"field": "Key__c"}, "NAME": {"field": "Name__c"}, "AT": {"field": "At__c"}},
        columns=(source_column("ID"), source_column("NAME"), source_column("AT", ColumnKind.TIMESTAMP)),
        describe=object_of(describe_field("Name__c", length=10), describe_field("At__c", "datetime")),
        timezone="UTC",
        duplicates=rule,
        changed_at="AT",
    )
    whole, _ = sent_rows(table, rows, len(rows), len(rows))
    shuffled = list(rows)
    random.shuffle(shuffled)
    cut, outcomes = sent_rows(table, shuffled, chunk_rows, batch_rows)
    assert cut == whole
    norms = [(row["ID"] or "").strip().lower() for row in rows if row["ID"] is not None]
    if rule is DuplicateRule.REJECT:
        assert len(cut) == sum(norms.count(norm) == 1 for norm in set(norms))
        assert "duplicate" not in outcomes
    else:
        assert sorted(line[0].lower() for line in cut) == sorted(set(norms))
        assert outcomes.count("duplicate") == len(norms) - len(set(norms))


@pytest.mark.parametrize("hashes", [[b"x" * 15], [b"x" * 17, b"x" * 15], [b""]])
def test_hashes_of_another_length_are_not_summed(hashes: list[bytes]) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        checksum(pl.Series(hashes, dtype=pl.Binary))


def test_a_slice_is_summed_by_itself() -> None:
    hashes = pl.Series([bytes([number]) * 16 for number in range(9)] + [None], dtype=pl.Binary)
    assert checksum(hashes.slice(3, 5)) == checksum(pl.Series(hashes.to_list()[3:8], dtype=pl.Binary))
    assert checksum(hashes.slice(9, 1)) == checksum(hashes.head(0))
