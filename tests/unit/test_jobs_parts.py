"""Upload files: cut at a number of rows, nothing lost, nothing twice, order kept."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from forcelift.jobs.parts import PartWriter, read_part
from forcelift.storage import FolderStorage


@pytest.mark.parametrize("rows_max", [1, 3, 7, 100])
@pytest.mark.parametrize("frames", [[10], [1, 1, 1], [3, 0, 4, 7], []])
def test_files_hold_at_most_so_many_rows(tmp_path: Path, rows_max: int, frames: list[int]) -> None:
    storage = FolderStorage(tmp_path, fsync=False)
    written: list[str] = []
    with PartWriter(storage, lambda number: f"p{number}.csv", null_text="", rows_max=rows_max) as writer:
        for count in frames:
            keys = [f"k{len(written) + number}" for number in range(count)]
            writer.write(pl.DataFrame({"K": keys}, schema={"K": pl.String}))
            written.extend(keys)
        parts = writer.finish()
    assert all(0 < part.rows <= rows_max for part in parts)
    assert len(parts) == -(-len(written) // rows_max)
    assert [key for part in parts for key in read_part(storage, part).collect()["K"]] == written
    assert [part.rows for part in parts] == [read_part(storage, part).collect().height for part in parts]
