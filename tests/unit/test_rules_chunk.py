"""Cleaning a chunk: keys, duplicates over the whole table, parents, links, computed fields, hashes."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.rules_support import AS_OF, KnownParents, compiled, describe_field, object_of, source_column

from forcelift.errors import SourceChanged, SourceError
from forcelift.plan.models import DuplicateRule
from forcelift.protocols.source import ColumnKind
from forcelift.rules import (
    ChunkCleaner,
    Cleaned,
    CompiledTable,
    DuplicateDecisions,
    DuplicateScan,
    ParentField,
    add_hashes,
    checksum,
)

TEXT_KEY = source_column("ID")
NAME = describe_field("Name__c", "string", length=40)
PARENT = describe_field("Parent__c", "reference", reference_to=("Other__c",), relationship_name="Parent__r")
BOSS = describe_field("Boss__c", "reference", reference_to=("Thing__c",), relationship_name="Boss__r")
SIMPLE = {"ID": {"field": "Key__c"}, "NAME": {"field": "Name__c"}}
COLUMNS = (
    TEXT_KEY,
    source_column("NAME"),
    source_column("AT", ColumnKind.TIMESTAMP),
    source_column("YEAR", ColumnKind.INTEGER),
    source_column("PARENT"),
    source_column("BOSS"),
)


def simple(**settings: Any) -> CompiledTable:
    return compiled(SIMPLE, columns=COLUMNS, describe=object_of(NAME), **settings)


def frame_of(**columns: list[Any]) -> pl.DataFrame:
    types = {"AT": pl.Datetime("us"), "YEAR": pl.Int64}
    return pl.DataFrame({name: pl.Series(values, dtype=types.get(name, pl.String)) for name, values in columns.items()})


def decide(
    table: CompiledTable, chunks: list[pl.DataFrame], rule: DuplicateRule, folder: Path
) -> DuplicateDecisions | None:
    with DuplicateScan(folder / "scan", memory_mb=128) as scan:
        for number, chunk in enumerate(chunks):
            scan.add(number, table.keys(chunk))
        norms = scan.duplicate_norms()
        if not norms.keys:
            return None
        if rule is not DuplicateRule.REJECT:
            for number in norms.chunks:
                scan.add_content(number, table.content(chunks[number]))
        scan.decide(rule).save(folder / "decisions.parquet")
    return DuplicateDecisions.load(folder / "decisions.parquet")


def outcomes(
    table: CompiledTable, chunks: list[pl.DataFrame], decisions: DuplicateDecisions | None, batch_rows: int = 100
) -> list[tuple[str | None, ...]]:
    lines: list[tuple[str | None, ...]] = []
    for number, chunk in enumerate(chunks):
        cleaner = ChunkCleaner(table, chunk_no=number, as_of=AS_OF, duplicates=decisions, parents={})
        rows = [cleaner.clean(batch).rows for batch in chunk.iter_slices(batch_rows)]
        cleaner.finish()
        lines += pl.concat(rows).select("key", "outcome", "code").rows()
    return lines


def clean(table: CompiledTable, frame: pl.DataFrame, **parents: KnownParents) -> Cleaned:
    return ChunkCleaner(table, chunk_no=3, as_of=AS_OF, duplicates=None, parents=parents).clean(frame)


def test_keys_are_canonical_and_normalised_as_the_field_compares() -> None:
    keys = simple().keys(frame_of(ID=[" Ab ", "ΑΣ", "İ", "", None, "a\x01b"]))
    assert keys["key"].to_list() == ["Ab", "ΑΣ", "İ", None, None, "ab"]
    assert keys["norm"].to_list() == ["ab", "ας".replace("ς", "σ"), "i", None, None, "ab"]


def test_case_sensitive_keys_keep_their_case() -> None:
    described = object_of(NAME)
    fields = {**described.fields, "Key__c": describe_field("Key__c", external_id=True, case_sensitive=True, length=9)}
    table = compiled(
        SIMPLE,
        columns=COLUMNS,
        describe=type(described)(name="Thing__c", label="T", key_prefix="a00", fields=fields),
    )
    assert table.keys(frame_of(ID=["Ab"]))["norm"].to_list() == ["Ab"]


def test_composite_keys_are_joined_and_escaped() -> None:
    table = compiled(
        {"NAME": {"field": "Name__c", "values": {"x": "y"}, "unmapped": "keep"}},
        columns=COLUMNS,
        describe=object_of(NAME),
        key=("YEAR", "NAME"),
    )
    frame = frame_of(YEAR=[2013, 2013, None, 1, 1], NAME=["x", "a|b\\c", "z", "  ", " q "])
    assert table.keys(frame)["key"].to_list() == ["2013|x", "2013|a\\|b\\\\c", None, None, "1|q"]
    cleaned = clean(table, frame)
    codes = [None, None, "REJECTED_NULL_KEY", "REJECTED_NULL_KEY", None]
    assert cleaned.rows["code"].to_list() == codes
    assert cleaned.rows["fields"].to_list()[2] == "YEAR,NAME"
    assert cleaned.accepted["Name__c"].to_list() == ["y", "a|b\\c", "q"]
    assert cleaned.changes == {("values", "NAME"): 1, ("outer_blanks", "NAME"): 1}


def test_a_key_longer_than_its_field_is_rejected_never_cut() -> None:
    joined = compiled({"NAME": {"field": "Name__c"}}, columns=COLUMNS, describe=object_of(NAME), key=("ID", "NAME"))
    frame = frame_of(ID=["a" * 20, "a" * 19], NAME=["b" * 20, "b" * 20])
    assert clean(joined, frame).rows["code"].to_list() == ["REJECTED_TOO_LONG", None]
    assert clean(simple(), frame_of(ID=["a" * 41], NAME=["x"])).rows["code"].to_list() == ["REJECTED_TOO_LONG"]


def test_rows_without_a_key_are_rejected_or_stop_the_run() -> None:
    frame = frame_of(ID=["a", " ", None], NAME=["", "x" * 50, "y"])
    cleaned = clean(simple(), frame)
    assert cleaned.rows["code"].to_list() == [None, "REJECTED_NULL_KEY", "REJECTED_NULL_KEY"]
    assert cleaned.rows["details"][1] == "ID: the key is null or blank; NAME: is longer than the field"
    with pytest.raises(SourceError, match="2 rows of chunk 3 have no key"):
        clean(simple(null_key="stop"), frame)


def test_the_null_literal_is_no_key() -> None:
    assert clean(simple(), frame_of(ID=["#N/A"], NAME=["x"])).rows["code"].to_list() == ["REJECTED_NA_TEXT"]


def test_row_numbers_go_on_from_batch_to_batch() -> None:
    cleaner = ChunkCleaner(simple(), chunk_no=0, as_of=AS_OF, duplicates=None, parents={}, first_row=10)
    frames = [frame_of(ID=["a", "b"], NAME=["x", "y"]), frame_of(ID=["c"], NAME=["z"])]
    assert [cleaner.clean(frame).rows["row"].to_list() for frame in frames] == [[10, 11], [12]]


def test_every_row_has_one_line_and_only_sent_rows_have_a_hash() -> None:
    cleaned = clean(simple(), frame_of(ID=["a", None, "c"], NAME=["x", "y", "z" * 99]))
    assert cleaned.rows["outcome"].to_list() == [None, "rejected", "rejected"]
    assert [value is not None and len(value) == 16 for value in cleaned.rows["hash"]] == [True, False, False]
    assert cleaned.accepted.rows() == [(0, "a", "x")]
    assert cleaned.links is None


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_keep_latest_takes_the_latest_and_null_is_oldest(tmp_path: Path, batch_rows: int) -> None:
    table = simple(duplicates="keep_latest", changed_at="AT")
    day = [datetime(2024, 1, 1), datetime(2024, 1, 2)]
    chunks = [
        frame_of(ID=["a", "B", "c"], NAME=["old", "null", "c"], AT=[day[0], None, day[0]]),
        frame_of(ID=["A ", "b"], NAME=["new", "set"], AT=[day[1], day[0]]),
    ]
    decisions = decide(table, chunks, DuplicateRule.KEEP_LATEST, tmp_path)
    assert outcomes(table, chunks, decisions, batch_rows) == [
        ("a", "duplicate", None),
        ("B", "duplicate", None),
        ("c", None, None),
        ("A", None, None),
        ("b", None, None),
    ]


def test_the_loser_is_a_duplicate_even_if_the_winner_is_rejected(tmp_path: Path) -> None:
    table = simple(duplicates="keep_latest", changed_at="AT")
    chunk = frame_of(ID=["a", "a"], NAME=["fine", "x" * 99], AT=[datetime(2024, 1, 1), datetime(2024, 1, 2)])
    decisions = decide(table, [chunk], DuplicateRule.KEEP_LATEST, tmp_path)
    assert outcomes(table, [chunk], decisions) == [("a", "duplicate", None), ("a", "rejected", "REJECTED_TOO_LONG")]


def test_keep_first_goes_by_the_earliest_change_then_by_the_text(tmp_path: Path) -> None:
    with_time = simple(duplicates="keep_first", changed_at="AT")
    chunk = frame_of(ID=["a", "a", "a"], NAME=["z", "y", "x"], AT=[datetime(2024, 1, 1)] * 2 + [datetime(2025, 1, 1)])
    decisions = decide(with_time, [chunk], DuplicateRule.KEEP_FIRST, tmp_path)
    assert [line[1] for line in outcomes(with_time, [chunk], decisions)] == ["duplicate", None, "duplicate"]
    without = simple(duplicates="keep_first")
    decisions = decide(without, [chunk], DuplicateRule.KEEP_FIRST, tmp_path)
    assert [line[1] for line in outcomes(without, [chunk], decisions)] == ["duplicate", "duplicate", None]


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_of_rows_that_are_the_same_one_goes_on(tmp_path: Path, batch_rows: int) -> None:
    table = simple(duplicates="keep_first")
    chunks = [frame_of(ID=["b"], NAME=["x"]), frame_of(ID=["a"] * 3, NAME=["x"] * 3), frame_of(ID=["a"], NAME=["x"])]
    decisions = decide(table, chunks, DuplicateRule.KEEP_FIRST, tmp_path)
    lines = [line[1] for line in outcomes(table, chunks, decisions, batch_rows)]
    assert lines == [None, None, "duplicate", "duplicate", "duplicate"]


def test_reject_refuses_all_copies(tmp_path: Path) -> None:
    chunks = [frame_of(ID=["a", "b"], NAME=["x", "y"]), frame_of(ID=[" A"], NAME=["z" * 50])]
    decisions = decide(simple(), chunks, DuplicateRule.REJECT, tmp_path)
    assert outcomes(simple(), chunks, decisions) == [
        ("a", "rejected", "REJECTED_DUPLICATE"),
        ("b", None, None),
        ("A", "rejected", "REJECTED_DUPLICATE"),
    ]


def test_null_keys_are_no_duplicates(tmp_path: Path) -> None:
    chunk = frame_of(ID=[None, None, " "], NAME=["x", "y", "z"])
    assert decide(simple(), [chunk], DuplicateRule.REJECT, tmp_path) is None


def test_a_chosen_row_that_never_comes_is_an_error(tmp_path: Path) -> None:
    table = simple(duplicates="keep_first")
    chunk = frame_of(ID=["a", "a"], NAME=["x", "y"])
    decisions = decide(table, [chunk], DuplicateRule.KEEP_FIRST, tmp_path)
    cleaner = ChunkCleaner(table, chunk_no=0, as_of=AS_OF, duplicates=decisions, parents={})
    cleaner.clean(frame_of(ID=["a", "a"], NAME=["changed", "y"]))
    with pytest.raises(SourceChanged, match="1 rows chosen among duplicates"):
        cleaner.finish()


def test_a_second_scan_that_misses_a_key_is_an_error(tmp_path: Path) -> None:
    with DuplicateScan(tmp_path / "scan", memory_mb=128) as scan:
        scan.add(0, pl.DataFrame({"norm": ["a", "a"]}))
        assert scan.duplicate_norms().keys == 1
        with pytest.raises(SourceChanged):
            scan.decide(DuplicateRule.KEEP_FIRST)
    assert not (tmp_path / "scan").exists()


def looking_up(**rule: Any) -> CompiledTable:
    return compiled(
        {"ID": {"field": "Key__c"}, "PARENT": {"field": "Parent__r.Code__c", "parent": "OTHERS", **rule}},
        columns=COLUMNS,
        describe=object_of(PARENT),
        parents={"PARENT": ParentField(name="Code__c")},
    )


def test_parents_are_found_as_their_key_compares_and_sent_as_stored() -> None:
    parents = KnownParents({"t1": "T1"})
    frame = frame_of(ID=["a", "b", "c", "d"], PARENT=[" t1 ", "T1", None, "t2"])
    cleaned = clean(looking_up(), frame, PARENT=parents)
    assert cleaned.accepted["Parent__r.Code__c"].to_list() == ["T1", "T1", None]
    assert cleaned.rows["code"].to_list() == [None, None, None, "REJECTED_MISSING_PARENT"]
    assert sorted(parents.asked) == ["t1", "t2"]


def test_a_missing_parent_may_leave_the_lookup_empty() -> None:
    frame = frame_of(ID=["a", "b"], PARENT=["t1", "t2"])
    cleaned = clean(looking_up(missing_parent="to_null"), frame, PARENT=KnownParents({"t1": "T1"}))
    assert cleaned.accepted["Parent__r.Code__c"].to_list() == ["T1", None]
    assert cleaned.changes == {("missing_parent", "PARENT"): 1}


def test_a_required_lookup_is_never_left_empty() -> None:
    must = describe_field(
        "Parent__c", "reference", reference_to=("Other__c",), relationship_name="Parent__r", nillable=False
    )
    table = compiled(
        {"ID": {"field": "Key__c"}, "PARENT": {"field": "Parent__r.Code__c", "missing_parent": "to_null"}},
        columns=COLUMNS,
        describe=object_of(must),
        parents={"PARENT": ParentField(name="Code__c")},
    )
    cleaned = clean(table, frame_of(ID=["a", "b"], PARENT=["x", None]), PARENT=KnownParents({}))
    assert cleaned.rows["code"].to_list() == ["REJECTED_EMPTY_REQUIRED"] * 2


def test_a_numeric_parent_key_is_compared_as_a_number() -> None:
    table = compiled(
        {"ID": {"field": "Key__c"}, "PARENT": {"field": "Parent__r.No__c"}},
        columns=COLUMNS,
        describe=object_of(PARENT),
        parents={"PARENT": ParentField(name="No__c", type="double")},
    )
    cleaned = clean(table, frame_of(ID=["a", "b"], PARENT=["007", "x"]), PARENT=KnownParents({"7": "7"}))
    assert cleaned.accepted["Parent__r.No__c"].to_list() == ["7"]
    assert cleaned.rows["code"].to_list() == [None, "REJECTED_INVALID_NUMBER"]


def linking(**rule: Any) -> CompiledTable:
    return compiled(
        {**SIMPLE, "BOSS": {"field": "Boss__r.Key__c", "parent": "THINGS", **rule}},
        columns=COLUMNS,
        describe=object_of(NAME, BOSS),
        parents={"BOSS": ParentField(name="Key__c")},
        links=frozenset({"BOSS"}),
    )


def test_links_are_sent_apart() -> None:
    table = linking()
    assert table.target_columns == ("Key__c", "Name__c")
    assert table.link_target_columns == ("Key__c", "Boss__r.Key__c")
    frame = frame_of(ID=["a", "B", "c", "d"], NAME=["x", "y", "z", "w" * 99], BOSS=["B", None, "Q", "a"])
    cleaned = clean(table, frame)
    assert cleaned.links is not None
    assert cleaned.links.rows() == [(0, "a", "B"), (2, "c", "Q")]
    done = table.finish_links(cleaned.links, {"BOSS": KnownParents({"a": "a", "b": "B"})})
    assert done.upload.rows() == [(0, "a", "B")]
    assert done.rows.select("row", "outcome", "code").rows() == [
        (0, None, None),
        (2, "rejected", "REJECTED_MISSING_PARENT"),
    ]
    assert done.rows["hash"].is_null().to_list() == [False, True]


def test_a_link_to_nobody_may_be_left_out() -> None:
    table = linking(missing_parent="to_null")
    cleaned = clean(table, frame_of(ID=["a"], NAME=["x"], BOSS=["Q"]))
    assert cleaned.links is not None
    done = table.finish_links(cleaned.links, {"BOSS": KnownParents({})})
    assert done.upload.height == 0
    assert done.rows.select("outcome", "hash").rows() == [(None, None)]
    assert done.changes == {("missing_parent", "BOSS"): 1}


def test_the_row_hash_is_load_part_plus_link_part() -> None:
    table = linking()
    cleaned = clean(table, frame_of(ID=["a", "b"], NAME=["x", "y"], BOSS=["b", None]))
    assert cleaned.links is not None
    done = table.finish_links(cleaned.links, {"BOSS": KnownParents({"b": "b"})})
    parts = cleaned.rows.join(done.rows.select("row", link="hash"), on="row", how="left", maintain_order="left")
    whole = add_hashes(parts["hash"], parts["link"])
    in_org = cleaned.accepted.with_columns(pl.Series("Boss__r.Key__c", ["b", None]))
    again = add_hashes(table.hash_rows(in_org), table.hash_links(in_org))
    assert checksum(whole) == checksum(again)
    assert whole[0] != cleaned.rows["hash"][0]
    assert whole[1] == cleaned.rows["hash"][1]


def test_how_a_batch_lies_in_memory_does_not_matter() -> None:
    table = simple()
    frame = frame_of(ID=[f"k{n}" for n in range(9)], NAME=[" x", None, "#N/A", "y" * 50, "a\r\nb"] * 1 + ["z"] * 4)
    pieces = pl.concat([frame[1:4], frame[4:9]], rechunk=False)
    whole = clean(table, frame).rows.slice(1).drop("row")
    assert clean(table, pieces).rows.drop("row").equals(whole)
    assert table.hash_links(frame).null_count() == 9


def test_computed_texts_join_cleaned_parts() -> None:
    table = compiled(
        {"ID": {"field": "Key__c"}},
        columns=COLUMNS,
        describe=object_of(NAME),
        computed={"Name__c": {"concat": ["NAME", {"text": " - "}, "YEAR"]}},
        constants={},
    )
    frame = frame_of(ID=["a", "b", "c"], NAME=[" x ", None, "n" * 40], YEAR=[1, None, 2])
    cleaned = clean(table, frame)
    assert cleaned.accepted["Name__c"].to_list() == ["x - 1", "-"]
    assert cleaned.rows.select("code", "fields").row(2) == ("REJECTED_TOO_LONG", "NAME,YEAR")


def test_constants_stand_in_every_row_and_count_in_the_hash() -> None:
    source = describe_field("Source__c", "string", length=10)
    hashes = []
    for constant in ("KPS", "TMS"):
        table = compiled(SIMPLE, columns=COLUMNS, describe=object_of(NAME, source), constants={"Source__c": constant})
        cleaned = clean(table, frame_of(ID=["a", "b"], NAME=["x", "y"]))
        assert cleaned.accepted["Source__c"].to_list() == [constant] * 2
        hashes.append(checksum(cleaned.rows["hash"]))
    assert hashes[0] != hashes[1]


def test_changes_and_warnings_add_up_per_rule_and_column() -> None:
    table = compiled(
        {**SIMPLE, "YEAR": {"field": "No__c"}},
        columns=COLUMNS,
        describe=object_of(NAME, describe_field("No__c", "double", precision=18)),
    )
    frame = frame_of(ID=[f"k{n}" for n in range(8)], NAME=[" x"] * 4 + ["y"] * 4, YEAR=[-1] * 7 + [1])
    cleaned = clean(table, frame)
    assert cleaned.changes == {("outer_blanks", "NAME"): 4, ("warn_negative", "YEAR"): 7}
    assert cleaned.examples == {("warn_negative", "YEAR"): ("k0", "k1", "k2", "k3", "k4")}
