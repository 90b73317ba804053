"""Computed fields: each expression, and that its result is treated as any value of the source."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from tests.rules_support import AS_OF, compiled, describe_field, object_of, source_column, texts_of

from forcelift.protocols.source import ColumnKind
from forcelift.rules import ChunkCleaner, Cleaned, checksum

COLUMNS = (
    source_column("ID"),
    source_column("A"),
    source_column("B"),
    source_column("N", ColumnKind.DECIMAL),
    source_column("M", ColumnKind.INTEGER),
)
TEXT = describe_field("Out__c", length=12)
NUMBER = describe_field("Out__c", "double", precision=18, scale=2)


def clean(expression: dict[str, Any], target: Any, /, fields: Any = None, **columns: list[Any]) -> Cleaned:
    height = len(next(iter(columns.values())))
    types = {"N": pl.Decimal(38, 6), "M": pl.Int64}
    frame = pl.DataFrame(
        {
            name: pl.Series(columns.get(name, [None] * height), dtype=types.get(name, pl.String))
            for name in ("A", "B", "N", "M")
        }
    ).with_columns(ID=pl.int_range(height).cast(pl.String))
    table = compiled(
        {"ID": {"field": "Key__c"}, **(fields or {})},
        columns=COLUMNS,
        describe=object_of(target, describe_field("A__c", length=80)),
        computed={"Out__c": expression},
        timezone="UTC",
    )
    return ChunkCleaner(table, chunk_no=0, as_of=AS_OF, duplicates=None, parents={}).clean(frame)


def results(expression: dict[str, Any], target: Any = TEXT, /, **columns: list[Any]) -> list[str | None]:
    return texts_of(clean(expression, target, **columns), "Out__c")


def test_concat_and_coalesce() -> None:
    assert results({"concat": ["A", {"text": "-"}, "M"]}, A=["x", None], M=[1, None]) == ["x-1", "-"]
    some = {"coalesce": ["A", "B", {"text": "none"}]}
    assert results(some, A=["x", " ", None], B=["y", "z", None]) == ["x", "z", "none"]


def test_part_by_place_and_by_separator() -> None:
    values = ["กข-คง-จ", "ab", None, "-x"]
    assert results({"part": {"column": "A", "from": "2", "length": "3"}}, A=values) == ["ข-ค", "b", None, "x"]
    assert results({"part": {"column": "A", "from": "4"}}, A=values) == ["คง-จ", None, None, None]
    assert results({"part": {"column": "A", "split": "-", "take": "2"}}, A=values) == ["คง", None, None, "x"]
    assert results({"part": {"column": "A", "split": "-", "take": "-1"}}, A=values) == ["จ", "ab", None, "x"]
    assert results({"part": {"column": "A", "split": "-", "take": "1"}}, A=values) == ["กข", "ab", None, None]


@pytest.mark.parametrize(("to", "wanted"), [("upper", "ÉA B"), ("lower", "éa b"), ("title", "Éa B")])
def test_letters(to: str, wanted: str) -> None:
    assert results({"letters": {"column": "A", "to": to}}, A=["éA b", None]) == [wanted, None]


def test_case_goes_by_the_very_text() -> None:
    when = {"1": "one", "x": "ex"}
    assert results({"case": {"column": "A", "when": when}}, A=["1", "x", "X", None]) == ["one", "ex", None, None]
    other = {"case": {"column": "A", "when": when, "else": "other"}}
    assert results(other, A=["1", "X", None]) == ["one", "other", "other"]
    column = {"case": {"column": "A", "when": when, "else": {"column": "B"}}}
    assert results(column, A=["1", "X"], B=["b", "c"]) == ["one", "c"]
    assert results({"case": {"column": "M", "when": {"1": "a"}}}, M=[1, 2]) == ["a", None]


def test_arithmetic_is_exact_and_null_stays_null() -> None:
    assert results({"add": ["A", "B", {"number": "0.1"}]}, NUMBER, A=["0.1", None], B=["0.1", "1"]) == ["0.3", None]
    assert results({"subtract": ["N", "M"]}, NUMBER, N=["1.25", None], M=[3, 1]) == ["-1.75", None]
    assert results({"multiply": ["A", "A"]}, NUMBER, A=["1.005", "1e3", "-0"]) == ["1.01", "1000000", "0"]
    third = {"divide": {"column": "A", "by": {"number": "3"}, "scale": "4"}}
    assert results(third, TEXT, A=["1", "-2", "0"]) == ["0.3333", "-0.6667", "0"]


def test_arithmetic_refuses_by_name() -> None:
    quotient = {"divide": {"column": "A", "by": "B", "scale": "2"}}
    found = clean(quotient, NUMBER, A=["1", "x", "1", None], B=["0", "1", "2", "0"])
    assert texts_of(found, "Out__c") == ["REJECTED_DIVISION_BY_ZERO", "REJECTED_INVALID_NUMBER", "0.5", None]
    assert found.rows["fields"][0] == "A,B"
    assert found.rows["details"][0] == "A,B: is divided by zero"
    big = "9" * 19
    product = {"multiply": ["A", "B"]}
    assert results(product, NUMBER, A=[big, "9" * 20], B=["2", "1"]) == ["REJECTED_ARITHMETIC"] * 2
    assert results(product, NUMBER, A=["9" * 10], B=["9" * 9]) == ["REJECTED_NUMBER_SIZE"]


def test_the_rules_of_the_field_apply_to_the_result() -> None:
    day = describe_field("Out__c", "date")
    join = {"concat": ["A", {"text": "-02-"}, "B"]}
    found = clean(join, day, A=["2024", "2023", "2567"], B=["29", "29", "28"])
    assert texts_of(found, "Out__c") == ["2024-02-29", "REJECTED_INVALID_DATE", "2567-02-28"]
    assert found.changes == {("warn_buddhist_era", "A,B"): 1, ("warn_future_date", "A,B"): 1}
    assert results(join, TEXT, A=["x" * 20], B=[None]) == ["REJECTED_TOO_LONG"]
    assert results({"coalesce": ["A", "B"]}, describe_field("Out__c", "boolean"), A=["Y", None], B=[None, "0"]) == [
        "true",
        "false",
    ]
    picked = describe_field("Out__c", "picklist", restricted_picklist=True, picklist_values=("Open", "Shut"))
    assert results({"coalesce": ["A", "B"]}, picked, A=["Open", "open"]) == ["Open", "REJECTED_PICKLIST"]
    must = describe_field("Out__c", nillable=False, length=9)
    assert results({"coalesce": ["A", "B"]}, must, A=["x", None]) == ["x", "REJECTED_EMPTY_REQUIRED"]
    literal = {"concat": [{"text": "#N/"}, "A"]}
    assert results(literal, TEXT, A=["A", "B"]) == ["REJECTED_NA_TEXT", "#N/B"]


def test_a_mapped_column_counts_with_its_cleaned_value() -> None:
    fields = {"A": {"field": "A__c", "values": {"x": "long"}, "unmapped": "keep"}}
    found = clean({"concat": ["A", "B"]}, TEXT, fields, A=["x", " y"], B=["!", "\x01?"])
    assert found.accepted["Out__c"].to_list() == ["long!", "y?"]
    assert found.changes == {("values", "A"): 1, ("outer_blanks", "A"): 1, ("control_characters", "B"): 1}


def test_computed_values_count_in_the_hash() -> None:
    sums = [checksum(clean({"add": ["A", "B"]}, NUMBER, A=["1"], B=[b]).rows["hash"]) for b in ("1", "1.00", "2")]
    assert sums[0] == sums[1] != sums[2]
