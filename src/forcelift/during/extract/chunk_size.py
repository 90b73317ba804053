"""How many rows a chunk takes when the plan says `auto`. Pure."""

from __future__ import annotations

import polars as pl

CHUNK_ROWS_STEP = 10_000
"""A Salesforce batch holds 10,000 rows and a part of one costs a whole one of the day's 15,000."""

CHUNK_ROWS_MAX = 500_000
PART_BYTES_AIM = 90_000_000
"""Below the 100 MB of one upload, as rows differ in length."""


def auto_chunk_rows(sample: pl.DataFrame) -> int:
    """Rows whose upload file stays under one part: multiples of 10,000, at most 500,000.

    Args:
        sample: Rows from all over the table, the mapped columns only.
    """
    if sample.height == 0:
        return CHUNK_ROWS_MAX
    text = sample.select(pl.all().exclude(pl.Binary))
    row_bytes = max(1.0, len(text.write_csv(include_header=False).encode()) / sample.height)
    rows = int(PART_BYTES_AIM / row_bytes) // CHUNK_ROWS_STEP * CHUNK_ROWS_STEP
    return max(CHUNK_ROWS_STEP, min(CHUNK_ROWS_MAX, rows))
