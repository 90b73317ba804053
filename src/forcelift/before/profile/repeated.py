"""Rows whose key repeats: which copies are equal to the letter, and which only as the external ID compares them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from forcelift.embedded import connect
from forcelift.jobs.work import TableWork
from forcelift.rules import plain_text
from forcelift.rules.duplicates import key_hash


class RepeatedRows:
    """Notes rows with repeated keys in Parquet files of a scratch folder."""

    def __init__(self, folder: Path, *, memory_mb: int) -> None:
        self._folder, self._memory_mb, self._files = folder, memory_mb, 0

    def add(self, work: TableWork, frame: pl.DataFrame, keys: pl.DataFrame) -> None:
        """Take in rows with repeated keys, and their keys as `CompiledTable.keys` gives them."""
        parts = [_raw(frame[name]).fill_null("") for name in work.rules.key_columns]
        raw = pl.DataFrame({str(place): part for place, part in enumerate(parts)}).select(
            pl.concat_str(pl.all(), separator="\x1f").alias("raw")
        )["raw"]
        norm, letters = key_hash(keys["norm"]), key_hash(raw)
        noted = norm.hstack(letters.rename({"high": "raw_high", "low": "raw_low"}))
        noted.write_parquet(self._folder / f"repeated-{self._files:06}.parquet")
        self._files += 1

    def copies(self) -> tuple[int, int]:
        """Rows beyond the first of their key: equal to the letter to another; and only by the external ID's rule."""
        if not self._files:
            return 0, 0
        # A database in a file spills beside it.
        with connect(self._folder / "repeated.duckdb") as database:
            database.execute("SET threads = 2")
            database.execute(f"SET memory_limit = '{self._memory_mb}MB'")
            row = database.execute(
                "SELECT sum(rows - written)::BIGINT, sum(written - 1)::BIGINT FROM (SELECT count(*) AS rows,"
                " count(DISTINCT (raw_high, raw_low)) AS written FROM read_parquet(?) GROUP BY high, low)",
                [str(self._folder / "repeated-*.parquet")],
            ).fetchone()
        assert row is not None
        return int(row[0]), int(row[1])


def _raw(values: pl.Series) -> pl.Series:
    return values.bin.encode("hex") if values.dtype == pl.Binary else plain_text(values)
