"""What is kept of a batch holds no more of it than its own rows."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pytest

from forcelift.rules import compact, frame_of

ROWS = 20_000


def held_bytes(values: pl.Series) -> int:
    """All memory that a column points into."""
    part = values.to_arrow(compat_level=pl.CompatLevel.newest())
    return sum(buffer.size for buffer in part.buffers() if buffer is not None)


@pytest.fixture(scope="module")
def batch() -> pl.DataFrame:
    return frame_of(pa.table({"key": [f"{row:040d}" for row in range(ROWS)]}))


@pytest.mark.parametrize(
    "picked",
    [
        pytest.param(pl.col("key").str.ends_with("0001"), id="some"),
        pytest.param(pl.lit(False), id="none"),
    ],
)
def test_picked_rows_point_into_their_batch_until_they_are_compact(batch: pl.DataFrame, picked: pl.Expr) -> None:
    few = batch.filter(picked)
    own = compact(few)
    assert own.equals(few)
    assert held_bytes(own["key"]) <= max(1, few.height) * 200
    if few.height:
        # If polars ever copies by itself, `compact` has become a waste.
        assert held_bytes(few["key"]) > ROWS * 30


def test_every_type_that_a_source_gives_stays_what_it_is() -> None:
    moment = datetime(2026, 11, 22, 1, 2, 3, 456789, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "text": ["ก", None],
            "bytes": [b"\x00\xff", None],
            "whole": [2**62, None],
            "decimal": [Decimal("12345678901234567890.12"), None],
            "number": [float("nan"), None],
            "truth": [True, None],
            "day": [moment.date(), None],
            "moment": [moment, None],
            "local": [moment.replace(tzinfo=None), None],
            "time": [moment.time(), None],
            "nothing": [None, None],
        },
        schema_overrides={"decimal": pl.Decimal(38, 2), "local": pl.Datetime("ns"), "nothing": pl.Null},
    )
    assert compact(frame).schema == frame.schema
    assert compact(frame).equals(frame)
