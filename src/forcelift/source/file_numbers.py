"""Rows of files by their number in a slice: the address that `Source.locate` gives, as files have none of their own."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import pyarrow as pa

from forcelift.protocols.source import ADDRESS


def numbered(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches with one more column, which counts the rows through from 0."""
    first = 0
    for batch in batches:
        numbers = pl.int_range(first, first + batch.num_rows, dtype=pl.Int64, eager=True).to_arrow()
        first += batch.num_rows
        yield batch.append_column(pa.field(ADDRESS, pa.int64()), numbers)


def take_numbers(batches: Iterator[pa.RecordBatch], numbers: pa.Array) -> Iterator[pa.RecordBatch]:
    """Of the batches the rows with these numbers; batches without any are left out."""
    wanted = numbers_of(numbers).sort()
    first = 0
    for batch in batches:
        low, high = wanted.search_sorted(pl.Series([first, first + batch.num_rows])).to_list()
        if high > low:
            yield batch.take((wanted[low:high] - first).to_arrow())
        first += batch.num_rows


def numbers_of(addresses: pa.Array) -> pl.Series:
    """Addresses as a series of whole numbers."""
    series = pl.from_arrow(addresses)
    assert isinstance(series, pl.Series)
    return series.cast(pl.Int64)
