"""What becomes of rows: one line for each, with its outcome, its reasons and its hash."""

from __future__ import annotations

import polars as pl
from msgspec import Struct

ROWS_SCHEMA = {
    "row": pl.UInt32,
    "key": pl.String,
    "outcome": pl.String,
    "code": pl.String,
    "fields": pl.String,
    "details": pl.String,
    "hash": pl.Binary,
}


class Cleaned(Struct, frozen=True, kw_only=True):
    """What became of one batch; see `ChunkCleaner.clean` for the columns."""

    rows: pl.DataFrame
    accepted: pl.DataFrame
    links: pl.DataFrame | None
    changes: dict[tuple[str, str], int]
    examples: dict[tuple[str, str], tuple[str, ...]]


class LinkResult(Struct, frozen=True, kw_only=True):
    """What became of the rows with links; see `CompiledTable.finish_links` for the columns."""

    rows: pl.DataFrame
    upload: pl.DataFrame
    changes: dict[tuple[str, str], int]


def with_outcomes(rows: pl.DataFrame, refused: pl.DataFrame | None) -> pl.DataFrame:
    """Add outcome and reasons to `rows`; a refused row loses its hash."""
    nothing = pl.lit(None, dtype=pl.String)
    if refused is None:
        return rows.with_columns(
            nothing.alias("outcome"), nothing.alias("code"), nothing.alias("fields"), nothing.alias("details")
        )
    return (
        rows.with_row_index("at")
        .join(refused, on="at", how="left", maintain_order="left")
        .with_columns(
            pl.when(pl.col("code").is_not_null()).then(pl.lit("rejected")).alias("outcome"),
            pl.when(pl.col("code").is_null()).then("hash").alias("hash"),
        )
    )


def duplicate_rows(row: pl.Series, key: pl.Series, losers: pl.Series) -> pl.DataFrame:
    """The lines of rows that another copy of their key stands for."""
    lines = pl.DataFrame({"row": row, "key": key}).filter(losers)
    missing = [
        pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in ROWS_SCHEMA.items()
        if name not in ("row", "key", "outcome")
    ]
    return lines.with_columns(pl.lit("duplicate").alias("outcome"), *missing).select(list(ROWS_SCHEMA))
