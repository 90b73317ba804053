"""Whatever rows the rules find something in, the gates let them through: cleaning only those finds the same."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.rules_support import AS_OF, compiled, describe_field, object_of, source_column

from forcelift.errors import PlanError
from forcelift.protocols.org import ObjectDescribe
from forcelift.protocols.source import BROKEN_TEXT, Column, ColumnKind
from forcelift.rules import ChunkCleaner, CompiledTable
from forcelift.rules.findings import Findings
from forcelift.rules.gates import QUIET_CHANGES, rows_to_clean

VARIANTS: list[dict[str, Any]] = [
    {},
    {"control_characters": "keep", "zero_width": "remove", "too_long": "truncate"},
    {"outer_blanks": "reject", "unicode": "nfc", "na_text": "to_null"},
    {"values": {"A": "B", "1.": "A"}, "unmapped": "keep"},
    {"empty": "reject", "negative": "keep", "future_date": "reject", "buddhist_era": "reject"},
    {"timezone": "Europe/Berlin", "invalid_date": "to_null"},
]
ZONES = ("UTC", "Asia/Bangkok", "Europe/Berlin", "America/New_York")
AWKWARD = [
    "",
    " ",
    "\t",
    "#N/A",
    " #N/A ",
    "A",
    "a ",
    "B",
    "C\x00",
    "\x00",
    "x\x7f",
    "y\x85",
    "\u200b",
    "z\u200b",
    "1\r2",
    "1\r\n2",
    "line\nline",
    "ก่า",
    "กำ",
    "e\u0301",
    "\u0958" * 4,
    "\ufb2c" * 3,
    "12345678901",
    "1234567890",
    "😀" * 6,
    BROKEN_TEXT + "c3",
    BROKEN_TEXT + "41",
    "A;B",
    "A;Z",
    "B ",
    "0",
    "-0",
    "-1",
    "1e3",
    "12.345",
    "99999.995",
    "007",
    "1.",
    ".5",
    "true",
    "T",
    "maybe",
    "2024-02-30",
    "2024-02-29",
    "2567-02-28",
    "1699-12-31",
    "4001-01-01",
    "2026-06-30",
    "2026-07-01",
    "2026-07-02",
    "9999-12-31",
    "2024-03-31 02:30:00",
    "2024-10-27 02:30:00",
    "ab\u00a0",
]  # fmt: skip
TEXTS = st.one_of(
    st.none(),
    st.sampled_from(AWKWARD),
    st.text(max_size=14),
    st.from_regex(r"-?[0-9]{1,7}(\.[0-9]{1,4})?", fullmatch=True),
)
DAYS = st.one_of(
    st.none(),
    st.dates(date(1690, 1, 1), date(4010, 1, 1)),
    st.integers(-3, 3).map(lambda days: AS_OF.date() + timedelta(days=days)),
)
TIMES = st.one_of(
    st.none(),
    st.datetimes(datetime(1690, 1, 1), datetime(4010, 1, 1)),
    st.integers(-200_000, 200_000).map(lambda seconds: AS_OF.replace(tzinfo=None) + timedelta(seconds=seconds)),
    st.sampled_from([datetime(2024, 3, 31, 2, 30), datetime(2024, 10, 27, 2, 30), datetime(2024, 11, 3, 1, 30)]),
)
NUMBERS = st.one_of(
    st.none(),
    st.decimals(min_value=-(10**9), max_value=10**9, places=6, allow_nan=False),
    st.sampled_from([Decimal("0"), Decimal("99999.995"), Decimal("99999.994"), Decimal("-1"), Decimal("100000")]),
)
FLOATS = st.one_of(st.none(), st.floats(), st.sampled_from([0.1, 0.125, 1e5, 99999.995, -0.0]))
SOFT = st.sampled_from(["warn", "reject", "keep"])
EMPTY = st.sampled_from(["to_null", "reject", {"default": "B"}])
TARGETS: dict[str, dict[str, Any]] = {
    "text": {"length": 10},
    "picklist": {"length": 40, "restricted_picklist": True, "picklist_values": ("A", "B", "กำ")},
    "multi": {"length": 40, "restricted_picklist": True, "picklist_values": ("A", "B")},
    "number": {"precision": 7, "scale": 2},
    "whole": {"precision": 4, "scale": 0},
    "boolean": {},
    "date": {},
    "datetime": {},
}
TYPES = {"text": "string", "multi": "multipicklist", "number": "double", "whole": "double"}


@st.composite
def tables(draw: st.DrawFn) -> tuple[CompiledTable, pl.DataFrame]:
    target = draw(st.sampled_from(sorted(TARGETS)))
    rule: dict[str, Any] = {
        "field": "It__c",
        "empty": draw(EMPTY),
        "na_text": draw(st.sampled_from(["reject", "to_null"])),
    }
    if target in ("date", "datetime"):
        rule |= {
            "buddhist_era": draw(st.sampled_from(["warn", "reject", "convert", "keep"])),
            "future_date": draw(st.sampled_from(["warn", "reject", "to_null", "keep"])),
            "invalid_date": draw(st.sampled_from(["reject", "to_null"])),
            "timezone": draw(st.sampled_from(ZONES)),
        }
        if rule["empty"] == {"default": "B"}:
            rule["empty"] = "reject"
    elif target in ("number", "whole"):
        rule["negative"] = draw(SOFT)
        if rule["empty"] == {"default": "B"}:
            rule["empty"] = {"default": "7"}
    elif target == "boolean":
        rule["empty"] = "to_null"
    else:
        rule |= {
            "control_characters": draw(st.sampled_from(["remove", "reject", "keep"])),
            "outer_blanks": draw(st.sampled_from(["trim", "reject"])),
            "unicode": draw(st.sampled_from(["keep", "nfc"])),
            "zero_width": draw(st.sampled_from(["keep", "remove"])),
            "too_long": draw(st.sampled_from(["reject", "truncate"])) if target == "text" else "reject",
        }
        if draw(st.booleans()):
            rule["values"] = draw(
                st.dictionaries(
                    st.sampled_from(["A", "a", "B", "ก่า", "1"]),
                    st.sampled_from(["A", "B", "", "#N/A", " A", "x" * 11, "e\u0301"]),
                    max_size=3,
                )
            ) or {"A": "B"}
            rule["unmapped"] = draw(st.sampled_from(["reject", "keep", "to_null"]))
    kinds = {
        "text": [ColumnKind.TEXT, ColumnKind.INTEGER, ColumnKind.DECIMAL, ColumnKind.DATE],
        "number": [ColumnKind.TEXT, ColumnKind.INTEGER, ColumnKind.DECIMAL, ColumnKind.FLOAT],
        "whole": [ColumnKind.TEXT, ColumnKind.INTEGER, ColumnKind.DECIMAL, ColumnKind.FLOAT],
        "boolean": [ColumnKind.TEXT, ColumnKind.INTEGER, ColumnKind.BOOLEAN],
        "date": [ColumnKind.TEXT, ColumnKind.DATE, ColumnKind.TIMESTAMP, ColumnKind.INSTANT],
        "datetime": [ColumnKind.TEXT, ColumnKind.DATE, ColumnKind.TIMESTAMP, ColumnKind.INSTANT],
    }
    kind = draw(st.sampled_from(kinds.get(target, [ColumnKind.TEXT])))
    attributes = dict(TARGETS[target])
    if draw(st.booleans()) and target != "boolean":
        attributes["nillable"] = False
    if "timezone" in rule and target == "date" and kind is not ColumnKind.INSTANT and kind is not ColumnKind.TIMESTAMP:
        rule.pop("timezone")
    columns = (source_column("ID", ColumnKind.TEXT), source_column("IT", kind))
    table = compiled_as_far(rule, columns, object_of(describe_field("It__c", TYPES.get(target, target), **attributes)))
    rows = draw(st.integers(1, 12))
    # Mostly sound keys, as a key that is none lets its row through whatever else it holds.
    keys = (
        draw(st.lists(TEXTS, min_size=rows, max_size=rows))
        if draw(st.integers(0, 5)) == 0
        else list("abcdefghijkl"[:rows])
    )
    values = draw(st.lists(values_of(kind), min_size=rows, max_size=rows))
    return table, frame_of(columns, keys, values)


def compiled_as_far(rule: dict[str, Any], columns: tuple[Column, ...], describe: ObjectDescribe) -> CompiledTable:
    """The table with those of the rules that say something about such a column and field."""
    while True:
        try:
            return compiled({"ID": {"field": "Key__c"}, "IT": rule}, columns=columns, describe=describe, timezone="UTC")
        except PlanError as error:
            named = {part for problem in error.problems for part in problem.path.split(".")}
            pointless = named & set(rule) - {"field"}
            if not pointless:
                raise
            pointless |= {"unmapped"} if "values" in pointless else set()
            rule = {name: value for name, value in rule.items() if name not in pointless}


def values_of(kind: ColumnKind) -> st.SearchStrategy[Any]:
    return {
        ColumnKind.TEXT: TEXTS,
        ColumnKind.INTEGER: st.one_of(st.none(), st.integers(-(10**6), 10**6), st.sampled_from([0, 1, 2**63 - 1])),
        ColumnKind.DECIMAL: NUMBERS,
        ColumnKind.FLOAT: FLOATS,
        ColumnKind.BOOLEAN: st.one_of(st.none(), st.booleans()),
        ColumnKind.DATE: DAYS,
        ColumnKind.TIMESTAMP: TIMES,
        ColumnKind.INSTANT: TIMES.map(lambda value: None if value is None else value.replace(tzinfo=UTC)),
    }[kind]


def frame_of(columns: tuple[Column, ...], keys: list[Any], values: list[Any]) -> pl.DataFrame:
    arrays = [pa.array(held, type=column.arrow) for column, held in zip(columns, (keys, values), strict=True)]
    frame = pl.from_arrow(pa.table(arrays, names=[column.name for column in columns]))
    assert isinstance(frame, pl.DataFrame)
    return frame


def found_in(table: CompiledTable, frame: pl.DataFrame, rows: pl.Series) -> set[tuple[str, str, str, int]]:
    """What the rules find in these rows, by the rows' numbers in the frame."""
    found = Findings()
    cleaner = ChunkCleaner(table, chunk_no=1, as_of=AS_OF, duplicates=None, parents={})
    cleaner.clean(frame[rows], found)
    findings = [("refused", one) for one in found.refusals] + [("warned", one) for one in found.warnings]
    findings += [("changed", one) for one in found.changes if one.rule not in QUIET_CHANGES]
    return {(word, one.rule, one.place.column, int(rows[at])) for word, one in findings for at in one.rows}


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(made=tables())
def test_the_gates_miss_nothing(made: tuple[CompiledTable, pl.DataFrame]) -> None:
    table, frame = made
    every = pl.int_range(frame.height, dtype=pl.UInt32, eager=True)
    gated = rows_to_clean(table, frame, as_of=AS_OF, parents={})
    assert found_in(table, frame, gated) == found_in(table, frame, every)


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("rules", VARIANTS, ids=lambda rules: ",".join(rules) or "defaults")
def test_no_awkward_text_is_missed(target: str, rules: dict[str, Any]) -> None:
    """Each of the awkward texts in a row of its own, so that none hides behind another."""
    columns = (source_column("ID", ColumnKind.TEXT), source_column("IT", ColumnKind.TEXT))
    described = describe_field("It__c", TYPES.get(target, target), **TARGETS[target])
    table = compiled_as_far({"field": "It__c", **rules}, columns, object_of(described))
    missed = []
    for text in AWKWARD:
        frame = frame_of(columns, ["a"], [text])
        every = pl.Series([0], dtype=pl.UInt32)
        gated = rows_to_clean(table, frame, as_of=AS_OF, parents={})
        if not gated.len() and found_in(table, frame, every):
            missed.append(text)
    assert missed == []


def test_the_gates_leave_sound_rows_alone() -> None:
    """Otherwise they would miss nothing and be good for nothing."""
    columns = (source_column("ID", ColumnKind.TEXT), source_column("IT", ColumnKind.TEXT))
    table = compiled(
        {"ID": {"field": "Key__c"}, "IT": {"field": "It__c"}},
        columns=columns,
        describe=object_of(describe_field("It__c", "string", length=20)),
        timezone="UTC",
    )
    frame = frame_of(columns, ["a", "b", "c"], ["สินค้า", "with a \x01", "plain"])
    assert rows_to_clean(table, frame, as_of=AS_OF, parents={}).to_list() == [1]
