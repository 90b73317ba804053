"""The tables of the benchmark are what its report says, and the floor's files are cut where they should be."""

from __future__ import annotations

import io
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from bench import floor, sales


@pytest.mark.parametrize(("letters", "bytes_a_row"), [(sales.WIDE, 466), (sales.NARROW, 250)])
def test_a_row_takes_as_many_bytes_as_is_said(tmp_path: Path, letters: tuple[int, int], bytes_a_row: int) -> None:
    rows = 20_000
    sales.make_database(tmp_path / "sales.duckdb", rows, letters=letters)
    with duckdb.connect(str(tmp_path / "sales.duckdb"), read_only=True) as connection:
        columns = ", ".join(sales.FIELDS)
        frame = pl.from_arrow(connection.sql(f"SELECT {columns} FROM {sales.TABLE}").to_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    text = io.BytesIO()
    cleaned = floor.clean(frame)
    cleaned.write_csv(text, null_value="#N/A", include_header=False)
    assert cleaned.width == 12
    assert len(text.getbuffer()) / rows == pytest.approx(bytes_a_row, abs=1.5)


@pytest.mark.parametrize("batch_rows", [1, 70_000, 200_000, 450_000, 1_000_000])
def test_the_floor_cuts_chunks_of_equal_size(batch_rows: int) -> None:
    total = 450_000 if batch_rows > 1 else 3
    numbers = pa.table({"n": range(total)})
    batches = [numbers[at : at + batch_rows].combine_chunks().to_batches()[0] for at in range(0, total, batch_rows)]
    found = list(floor.chunks(batches))
    assert [chunk.height for chunk in found] == ([200_000, 200_000, 50_000] if batch_rows > 1 else [3])
    assert pl.concat(found)["n"].to_list() == list(range(total))


def test_the_floor_sends_nothing_of_an_empty_rest() -> None:
    batch = pa.record_batch({"n": range(floor.CHUNK_ROWS)})
    assert [chunk.height for chunk in floor.chunks([batch, batch.slice(0, 0)])] == [floor.CHUNK_ROWS]
