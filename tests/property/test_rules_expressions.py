"""Computed fields against Python's own decimals and texts, nested or not, in any split into batches."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rules_support import AS_OF, compiled, describe_field, object_of, source_column

from forcelift.rules import ChunkCleaner, Cleaned, CompiledTable
from forcelift.rules.arithmetic import divide, multiply, operand

BATCH = settings(max_examples=60, deadline=None)
LIMIT = Decimal(10) ** 19
number = st.decimals(-(10**18), 10**18, places=6) | st.decimals(-9, 9, places=18) | st.integers(-12, 12).map(Decimal)
cell = st.none() | number


def plain(value: Decimal | None) -> str | None:
    """Canonical text, by Python alone."""
    if value is None:
        return None
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def series(values: list[Decimal | None]) -> pl.Series:
    return pl.Series([plain(value) for value in values], dtype=pl.String)


@BATCH
@given(st.lists(st.tuples(cell, cell), min_size=1, max_size=30))
def test_products_are_exact(pairs: list[tuple[Decimal | None, Decimal | None]]) -> None:
    left, right = (operand(series([pair[side] for pair in pairs])).values for side in (0, 1))
    found = multiply(left, right)
    with localcontext(prec=100):
        exact = [None if None in pair else pair[0] * pair[1] for pair in pairs]  # type: ignore[operator]  # None is out
    wanted = [None if value is None or abs(value) >= LIMIT else plain(value) for value in exact]
    assert found.values.to_list() == wanted
    assert found.too_large.to_list() == [row for row, value in enumerate(exact) if value and abs(value) >= LIMIT]


@BATCH
@given(st.lists(st.tuples(cell, cell), min_size=1, max_size=30), st.integers(0, 18))
def test_quotients_are_rounded_half_away_from_zero(
    pairs: list[tuple[Decimal | None, Decimal | None]], scale: int
) -> None:
    left, right = (operand(series([pair[side] for pair in pairs])).values for side in (0, 1))
    found, by_zero = divide(left, right, scale=scale)
    wanted: list[str | None] = []
    for top, bottom in pairs:
        if top is None or bottom is None or bottom == 0:
            wanted.append(None)
            continue
        with localcontext(prec=120):
            value = (top / bottom).quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP)
        wanted.append(None if abs(value) >= LIMIT else plain(value))
    assert found.values.to_list() == wanted
    assert by_zero.to_list() == [row for row, (top, bottom) in enumerate(pairs) if top is not None and bottom == 0]


def table_of(expression: dict[str, Any], target: str = "double") -> CompiledTable:
    attributes: dict[str, Any] = {"precision": 18, "scale": 2} if target == "double" else {"length": 255}
    return compiled(
        {"ID": {"field": "Key__c"}},
        columns=tuple(source_column(name) for name in ("ID", "A", "B", "C")),
        describe=object_of(describe_field("Out__c", target, **attributes)),
        computed={"Out__c": expression},
    )


def clean_in(table: CompiledTable, frame: pl.DataFrame, batch_rows: int) -> list[Cleaned]:
    cleaner = ChunkCleaner(table, chunk_no=0, as_of=AS_OF, duplicates=None, parents={})
    return [cleaner.clean(batch) for batch in frame.iter_slices(batch_rows)]


word = st.none() | st.text(st.sampled_from("abกข้ -ß"), max_size=8)
numeral = st.none() | st.integers(-9999, 9999).map(lambda cents: str(Decimal(cents) / 100)) | st.just("x")


@BATCH
@given(st.lists(st.tuples(numeral, numeral, numeral), min_size=1, max_size=20), st.integers(1, 7))
def test_nested_arithmetic_in_any_batches(rows: list[tuple[str | None, ...]], batch_rows: int) -> None:
    """(A - B) * (C / 1.07), rounded as the field stores it."""
    quotient = {"divide": {"column": "C", "by": {"number": "1.07"}, "scale": "4"}}
    table = table_of({"multiply": [{"subtract": ["A", "B"]}, quotient]})
    frame = pl.DataFrame(
        [(str(place), *row) for place, row in enumerate(rows)],
        schema=dict.fromkeys(["ID", "A", "B", "C"], pl.String),
        orient="row",
    )
    parts = clean_in(table, frame, batch_rows)
    sent = dict(pl.concat(part.accepted for part in parts).select("Key__c", "Out__c").iter_rows())
    codes = pl.concat(part.rows for part in parts)["code"].to_list()
    for place, (a, b, c) in enumerate(rows):
        if "x" in (a, b, c):
            assert codes[place] == "REJECTED_INVALID_NUMBER"
        elif None in (a, b, c):
            assert sent[str(place)] is None
        else:
            share = (Decimal(c) / Decimal("1.07")).quantize(Decimal("0.0001"), ROUND_HALF_UP)  # type: ignore[arg-type]  # not None here
            value = (Decimal(a) - Decimal(b)) * share  # type: ignore[arg-type]  # not None here
            assert sent[str(place)] == plain(value.quantize(Decimal("0.01"), ROUND_HALF_UP))


@BATCH
@given(st.lists(st.tuples(word, word), min_size=1, max_size=20), st.integers(1, 5), st.integers(1, 4))
def test_texts_equal_python_s(rows: list[tuple[str | None, ...]], start: int, length: int) -> None:
    frame = pl.DataFrame(
        [(str(place), *row, None) for place, row in enumerate(rows)],
        schema=dict.fromkeys(["ID", "A", "B", "C"], pl.String),
        orient="row",
    )
    cut = {"part": {"column": {"coalesce": ["A", "B"]}, "from": str(start), "length": str(length)}}
    table = table_of({"letters": {"column": cut, "to": "upper"}}, "string")
    (cleaned,) = clean_in(table, frame, 100)
    for (a, b), found in zip(rows, cleaned.accepted["Out__c"], strict=True):
        text = (a or "").strip() or (b or "").strip()
        assert found == (text[start - 1 : start - 1 + length].upper().strip() or None)
