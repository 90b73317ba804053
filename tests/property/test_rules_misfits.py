"""A number, boolean or time passes the rules the same way as its text, on which misfits beside it rest.

A batch with a misfit turns the column into text, a batch without does not. If a value's outcome depended on that, the
same row would end in two ways, by how the table was cut.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forcelift.plan.models import FieldRule
from forcelift.rules import frame_of, plain_text
from forcelift.rules.column import Column, Form
from forcelift.rules.findings import Findings, Place
from forcelift.source.misfits import table_of, with_misfits

AS_OF = datetime(2024, 6, 1, tzinfo=UTC)
KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "integer": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "decimal": (
        pa.decimal128(38, 19),
        st.decimals(-(10**18), 10**18, places=19, allow_nan=False, allow_infinity=False).map(Decimal),
    ),
    "float": (pa.float64(), st.floats()),
    "boolean": (pa.bool_(), st.booleans()),
    "timestamp": (pa.timestamp("us"), st.datetimes(datetime(1600, 1, 1), datetime(4100, 1, 1))),
}
FORMS = {
    "integer": [Form.TEXT, Form.NUMBER, Form.BOOLEAN],
    "decimal": [Form.TEXT, Form.NUMBER, Form.BOOLEAN],
    "float": [Form.TEXT, Form.NUMBER],
    "boolean": [Form.TEXT, Form.BOOLEAN],
    "timestamp": [Form.TEXT, Form.DATE, Form.DATETIME],
}
RULES = [
    {},
    {"empty": "reject", "negative": "reject", "future_date": "reject", "buddhist_era": "reject"},
    {"empty": {"default": "1"}, "too_long": "truncate", "invalid_date": "to_null", "future_date": "to_null"},
    {"values": {"1": "one", "true": "yes"}, "unmapped": "keep"},
]


@pytest.mark.parametrize("kind", list(KINDS))
@settings(max_examples=20)
@given(data=st.data())
def test_a_value_and_its_text_have_one_outcome(kind: str, data: st.DataObject) -> None:
    arrow, strategy = KINDS[kind]
    values = data.draw(st.lists(st.none() | strategy, min_size=1, max_size=8))
    typed = pl.Series("c", pl.from_arrow(pa.array(values, arrow)))
    for form in FORMS[kind]:
        for options in RULES:
            default = "1" if isinstance(options.get("empty"), dict) else None
            column = Column(
                name="c",
                place=Place(column="c", number=1),
                rule=FieldRule.model_validate({"field": "F__c", **options}),
                form=form,
                scale=2 if form is Form.NUMBER else None,
                integer_digits=16 if form is Form.NUMBER else None,
                length=12 if form is Form.TEXT else None,
                zone="Asia/Bangkok",
                default=default,
                required=True,
            )
            assert cleaned(column, typed) == cleaned(column, plain_text(typed)), (form, options)


def cleaned(column: Column, values: pl.Series) -> tuple[Any, ...]:
    found = Findings()
    result = column.clean(values, found, AS_OF)
    refused = found.refused()
    rows = [] if refused is None else refused.rows()
    kept = result.to_list()
    for row, *_ in rows:
        kept[row] = "(not sent)"
    return kept, sorted(rows), found.counts(None if refused is None else refused["at"])


@given(rows=st.lists(st.tuples(st.none() | st.integers(0, 9), st.booleans()), max_size=20), cut=st.integers(0, 20))
def test_parts_are_one_column_again_however_batches_are_cut(rows: list[tuple[int | None, bool]], cut: int) -> None:
    """Some of the values stand as misfits; batches with and without them make one table."""
    schema = pa.schema([pa.field("c", pa.int64())])
    batches = []
    for part in (rows[:cut], rows[cut:]):
        values = pa.array([None if odd else value for value, odd in part], pa.int64())
        texts = pa.array([str(value) if odd and value is not None else None for value, odd in part], pa.string())
        batches.append(pa.RecordBatch.from_arrays([with_misfits(values, texts=texts)], names=["c"]))
    wanted = [None if value is None else str(value) for value, _ in rows]
    found = frame_of(table_of(batches, schema))["c"]
    assert plain_text(found).to_list() == wanted
    assert [text for batch in batches for text in plain_text(frame_of(batch)["c"])] == wanted
