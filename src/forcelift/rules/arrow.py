"""Arrow arrays as columns."""

from __future__ import annotations

import polars as pl
import pyarrow as pa


def series_of(array: pa.Array) -> pl.Series:
    """An array as a series, without a copy where polars needs none.

    By way of a batch: handed a bare array, polars imports pyarrow's functions, and numpy with them where there is one,
    which takes longer than a small load.
    """
    frame = pl.from_arrow(pa.record_batch([array], names=["values"]))
    assert isinstance(frame, pl.DataFrame)
    return frame.to_series()
