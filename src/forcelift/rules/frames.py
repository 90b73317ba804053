"""Batches of a source as frames for the rules.

A column with a value that its type cannot hold arrives as a struct of parts, and becomes text here: each value as
`plain_text` writes it, the others as the source has them. No rule tells such a column from one that is text in the
source, and a number's or boolean's text passes the rules as the typed value does, so it does not matter which rows a
batch happens to hold.
"""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from forcelift.rules.plain import plain_text


def frame_of(batch: pa.RecordBatch | pa.Table) -> pl.DataFrame:
    """The rows as the rules take them."""
    frame = pl.from_arrow(batch)
    assert isinstance(frame, pl.DataFrame)
    mixed = [values for values in frame if isinstance(values.dtype, pl.Struct)]
    return frame.with_columns(_as_text(values) for values in mixed) if mixed else frame


def compact(frame: pl.DataFrame) -> pl.DataFrame:
    """The same rows in memory of their own.

    Rows that were picked out of a batch point into its buffers: as long as one of them is kept, all texts of the batch
    are. To be called on what is kept of many batches when it is little of each.
    """
    copied = pl.from_arrow(frame.to_arrow(compat_level=pl.CompatLevel.oldest()))
    assert isinstance(copied, pl.DataFrame)
    return copied


def _as_text(values: pl.Series) -> pl.Series:
    parts = values.struct.unnest()
    return parts.select(pl.coalesce(plain_text(part) for part in parts).alias(values.name)).to_series()
