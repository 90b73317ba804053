"""RECORD_DATA: what of a refused row is shown, how it is written, and what is masked."""

from __future__ import annotations

import json
import math
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from tests.rules_support import KEY, compiled, describe_field, object_of, source_column

from forcelift.during.extract.record_data import SentRowsJson, column_codecs, source_rows_json
from forcelift.jobs.chunk_size import auto_chunk_rows
from forcelift.jobs.tracks import TableSpec
from forcelift.jobs.work import TableWork
from forcelift.protocols.source import ColumnKind, SourceTable
from forcelift.rules import CompiledTable


def shown(values: list[Any], dtype: Any, **options: Any) -> list[Any]:
    frame = pl.DataFrame({"A": pl.Series(values, dtype=dtype, strict=False)})
    settings: dict[str, Any] = {"personal": (), "detail": "masked", **options}
    return [json.loads(text)["A"] for text in source_rows_json(frame, **settings)]


def test_decimals_are_plain() -> None:
    values = [Decimal("12.5"), Decimal("-0.1000000000000000001"), Decimal("100"), None]
    assert shown(values, pl.Decimal(38, 19)) == ["12.5", "-0.1000000000000000001", "100", None]


def test_doubles_that_json_lacks_are_shown_too() -> None:
    assert shown([0.1, None], pl.Float64) == [0.1, None]
    assert shown([1.5, math.nan, math.inf, None], pl.Float64) == ["1.5", "NaN", "Infinity", None]


@pytest.mark.parametrize("name", ["A", 'ชื่อ "a" $1 (b)'])
def test_numbers_beside_a_misfit_are_shown_as_those_of_other_batches_and_the_misfit_is_masked(name: str) -> None:
    texts = ["5", "-1.5", "true", "Somchai", "007", "", None, 'say "A":"5"']
    frame = pl.DataFrame({name: pl.Series(texts), "B": [f'"{name}":"5"'] * len(texts)})
    whole = source_rows_json(frame, personal=(), detail="masked", numbers={name: True})
    rows = [json.loads(text) for text in whole]
    assert [row[name] for row in rows] == [5, -1.5, True, "***", "007", "", None, "***"]
    assert {row["B"] for row in rows} == {f'"{name}":"5"'}
    assert shown(["5", "x"], pl.String, numbers={"A": False}) == ["5", "***"]
    assert shown(["5", "x"], pl.String, numbers={"A": True}, detail="full") == [5, "x"]


def test_days_and_times_are_texts() -> None:
    assert shown([date(2024, 2, 29)], pl.Date) == ["2024-02-29"]
    assert shown([datetime(2024, 2, 29, 1, 2, 3)], pl.Datetime("us"))[0].startswith("2024-02-29 01:02:03")


def test_bytes_of_an_encoding_are_decoded_and_others_are_hexadecimal() -> None:
    thai = "น้ำ".encode("cp874")
    assert shown([thai, thai + b"\xff", b"a\x00b"], pl.Binary, codecs={"A": "cp874"}) == ["น้ำ", "น้ำ\ufffd", "a\x00b"]
    assert shown([thai], pl.Binary) == [thai.hex()]


@pytest.mark.parametrize(("detail", "wanted"), [("masked", ["***", None]), ("full", ["x", None])])
def test_personal_columns(detail: str, wanted: list[Any]) -> None:
    assert shown(["x", None], pl.String, personal={"A"}, detail=detail) == wanted


def test_nothing_is_kept_where_the_plan_says_none() -> None:
    assert source_rows_json(pl.DataFrame({"A": ["x"]}), personal=(), detail="none").to_list() == [None]


COLUMNS = (source_column("A"), source_column("B", ColumnKind.INTEGER), source_column("NAME"))
DESCRIBE = object_of(
    describe_field("Name"),
    describe_field("Note__c"),
)


def work_of(table: CompiledTable) -> TableWork:
    spec = TableSpec(
        name="THINGS",
        object="Thing__c",
        operation="upsert",
        external_id_field="Key__c",
        group=0,
        waits_for=frozenset(),
        has_links=True,
    )
    source = SourceTable(name="THINGS", columns=COLUMNS)
    return TableWork(spec=spec, plan=table.plan, source=source, rules=table, key_field=KEY)


def sent(table: CompiledTable, row: dict[str, str | None]) -> dict[str, Any]:
    staged = pl.LazyFrame({"Key__c": ["k|1", "other"], **{name: [value, "z"] for name, value in row.items()}})
    data = SentRowsJson("masked")(work_of(table), staged, pl.Series(["k|1"]))
    assert data["key"].to_list() == ["k|1"]
    found: dict[str, Any] = json.loads(data["data"][0])
    return found


def test_a_key_of_several_columns_is_masked_like_its_parts() -> None:
    fields = {"NAME": {"field": "Note__c", "personal": False}}
    table = compiled(fields, columns=COLUMNS, describe=DESCRIBE, key=["A", "B"])
    assert sent(table, {"Note__c": "n"}) == {"Key__c": "***", "NAME": "n"}


def test_a_computed_field_is_masked_also_under_another_name() -> None:
    """`NAME` goes elsewhere and a field called like the column is computed: neither hides the other, nor its mask."""
    columns = (source_column("ID"), source_column("Name"))
    table = compiled(
        {"ID": {"field": "Key__c", "personal": False}, "Name": {"field": "Note__c", "personal": False}},
        columns=columns,
        describe=DESCRIBE,
        computed={"Name": {"concat": ["ID", "Name"]}},
    )
    assert sent(table, {"Note__c": "n", "Name": "secret"}) == {"ID": "k|1", "Name": "n", "Name (target)": "***"}


def test_codecs_are_those_of_the_columns_that_rules_read() -> None:
    table = compiled({"NAME": {"field": "Note__c"}}, columns=COLUMNS, describe=DESCRIBE, key=["A", "B"])
    assert column_codecs(table) == {"A": "utf-8", "B": "utf-8", "NAME": "utf-8"}


def test_bytes_count_when_chunks_are_sized() -> None:
    """A Thai letter of one byte takes three in the upload file."""
    thai = pl.DataFrame({"A": ["ก".encode("cp874") * 3_000] * 10})
    ascii_only = pl.DataFrame({"A": [b"a" * 9_000] * 10})
    assert auto_chunk_rows(thai) == auto_chunk_rows(ascii_only) == 10_000
    assert auto_chunk_rows(pl.DataFrame({"A": ["ก".encode("cp874") * 300] * 10})) == 100_000
