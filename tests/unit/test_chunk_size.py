"""How many rows a chunk takes when the plan says `auto`."""

from __future__ import annotations

import math
from datetime import datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forcelift.jobs.chunk_size import CHUNK_ROWS_STEP, EVEN_ROUNDS_MAX, even_chunk_rows, upload_row_bytes

ROWS = st.integers(min_value=1, max_value=50).map(lambda steps: steps * CHUNK_ROWS_STEP)


@pytest.mark.parametrize(
    ("rows", "total", "readers", "found"),
    [
        (210_000, 1_000_000, 2, 170_000),  # six of them instead of five
        (210_000, 1_000_000, 4, 130_000),  # eight
        (210_000, 840_000, 2, 210_000),  # four, as before
        (210_000, 210_000, 2, 210_000),  # one job loads it
        (210_000, 220_000, 2, 110_000),  # two halves instead of one nearly alone
        (210_000, 5_000_000, 2, 210_000),  # many: the last round does not matter
        (210_000, None, 2, 210_000),
        (210_000, 0, 2, 210_000),
        (210_000, 1_000_000, 1, 200_000),
        (10_000, 25_000, 2, 10_000),
    ],
)
def test_readers_have_the_same_number_of_chunks(rows: int, total: int | None, readers: int, found: int) -> None:
    assert even_chunk_rows(rows, total=total, readers=readers) == found


@given(rows=ROWS, total=st.integers(min_value=0, max_value=30_000_000), readers=st.integers(min_value=1, max_value=4))
def test_chunks_stay_within_a_file_and_a_round_costs_less_than_a_job_a_reader(
    rows: int, total: int, readers: int
) -> None:
    even = even_chunk_rows(rows, total=total, readers=readers)
    assert 0 < even <= rows
    assert even % CHUNK_ROWS_STEP == 0
    before, after = math.ceil(total / rows), math.ceil(total / even)
    assert before <= after < before + readers
    if total > rows * readers * EVEN_ROUNDS_MAX or total <= rows:
        assert even == rows


def test_moments_count_as_long_as_they_are_sent() -> None:
    """In polars' form they have six digits more, which made chunks of 190,000 rows where 200,000 fit."""
    whole = pl.DataFrame({"AT": [datetime(2024, 3, 9, 7, 26, 45)] * 4})
    assert upload_row_bytes(whole) == len("2024-03-09T07:26:45Z\n")
    fraction = pl.DataFrame({"AT": [datetime(2024, 3, 9, 7, 26, 45, 120_000)] * 4})
    assert upload_row_bytes(fraction) == len("2024-03-09T07:26:45.120Z\n")
