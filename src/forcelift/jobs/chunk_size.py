"""How many rows a chunk takes when the plan says `auto`. Pure."""

from __future__ import annotations

import polars as pl
import polars.selectors as cs

from forcelift.rules import decoded_text

CHUNK_ROWS_STEP = 10_000
"""A Salesforce batch holds 10,000 rows and a part of one costs a whole one of the day's 15,000."""

CHUNK_ROWS_MAX = 500_000
PART_BYTES_AIM = 95_000_000
"""Below the 100 MB of one upload, as rows differ in length."""


def auto_chunk_rows(sample: pl.DataFrame) -> int:
    """Rows whose upload file stays under one part: multiples of 10,000, at most 500,000.

    Args:
        sample: Rows from all over the table, the mapped columns only.
    """
    if sample.height == 0:
        return CHUNK_ROWS_MAX
    rows = int(PART_BYTES_AIM / upload_row_bytes(sample)) // CHUNK_ROWS_STEP * CHUNK_ROWS_STEP
    return max(CHUNK_ROWS_STEP, min(CHUNK_ROWS_MAX, rows))


def upload_row_bytes(sample: pl.DataFrame) -> float:
    """Bytes that a row of an upload file takes on average, at least 1, by rows of the mapped columns."""
    text = sample.select(pl.all().exclude(pl.Binary))
    raw = sample.select(cs.binary())
    in_bytes = sum(_utf8_bytes(column) for column in raw) + raw.width * sample.height
    return max(1.0, (len(text.write_csv(include_header=False).encode()) + in_bytes) / sample.height)


def _utf8_bytes(values: pl.Series) -> int:
    """What bytes of any encoding take in UTF-8, at most: three for a byte that is not ASCII, as a Thai letter has."""
    text = decoded_text(values, "iso8859-1")
    bytes_in_latin_1, chars = text.str.len_bytes().sum(), text.str.len_chars().sum()
    return 2 * int(bytes_in_latin_1 or 0) - int(chars or 0)
