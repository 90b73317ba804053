"""How many rows a chunk takes when the plan says `auto`. Pure."""

from __future__ import annotations

import math

import polars as pl
import polars.selectors as cs

from forcelift.rules import decoded_text

CHUNK_ROWS_STEP = 10_000
"""A Salesforce batch holds 10,000 rows and a part of one costs a whole one of the day's 15,000."""

CHUNK_ROWS_MAX = 250_000
"""However narrow the rows: what a job's answers take in memory follows from their number, and so many rows a job are
47,000 for each API call."""

EVEN_ROUNDS_MAX = 8
"""A reader alone for one round more than that costs less than an eighth of the time, and a job costs calls."""

_MOMENT = "%Y-%m-%dT%H:%M:%S%.fZ"
"""As moments are sent: without a fraction where there is none, which is six characters less than polars' own form."""

PART_BYTES_AIM = 95_000_000
"""Below the 100 MB of one upload, as rows differ in length."""


def auto_chunk_rows(sample: pl.DataFrame) -> int:
    """Rows whose upload file stays under one part: multiples of 10,000, at most 250,000.

    Args:
        sample: Rows from all over the table, the mapped columns only.
    """
    if sample.height == 0:
        return CHUNK_ROWS_MAX
    rows = int(PART_BYTES_AIM / upload_row_bytes(sample)) // CHUNK_ROWS_STEP * CHUNK_ROWS_STEP
    return max(CHUNK_ROWS_STEP, min(CHUNK_ROWS_MAX, rows))


def even_chunk_rows(rows: int, *, total: int | None, readers: int) -> int:
    """Rows of each chunk such that no reader has the last chunk to itself while the others have nothing to do.

    Where a table makes few chunks, there are as many as give every reader the same number, at the cost of fewer than
    `readers` jobs more; one that fits a chunk stays whole, and of many the last round does not matter.

    Args:
        rows: What a chunk may take at most.
        total: Rows of the table; None if that is not known.
        readers: Chunks that are read at once.
    Returns:
        A multiple of 10,000 up to `rows`.
    """
    if total is None or not rows < total <= rows * readers * EVEN_ROUNDS_MAX:
        return rows
    chunks = math.ceil(math.ceil(total / rows) / readers) * readers
    return min(rows, math.ceil(total / chunks / CHUNK_ROWS_STEP) * CHUNK_ROWS_STEP)


def upload_row_bytes(sample: pl.DataFrame) -> float:
    """Bytes that a row of an upload file takes on average, at least 1, by rows of the mapped columns."""
    text = sample.select(pl.all().exclude(pl.Binary))
    raw = sample.select(cs.binary())
    in_bytes = sum(_utf8_bytes(column) for column in raw) + raw.width * sample.height
    return max(
        1.0, (len(text.write_csv(include_header=False, datetime_format=_MOMENT).encode()) + in_bytes) / sample.height
    )


def _utf8_bytes(values: pl.Series) -> int:
    """What bytes of any encoding take in UTF-8, at most: three for a byte that is not ASCII, as a Thai letter has."""
    text = decoded_text(values, "iso8859-1")
    bytes_in_latin_1, chars = text.str.len_bytes().sum(), text.str.len_chars().sum()
    return 2 * int(bytes_in_latin_1 or 0) - int(chars or 0)
