"""Records of the org as columns of text: bulk queries streamed page by page into Parquet.

Reads:   a bulk query's pages, each a whole CSV.
Writes:  one Parquet file; no more than a page is held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from forcelift.errors import OrgUnavailable
from forcelift.protocols.org import Org

Finish = Callable[[pl.DataFrame], pl.DataFrame]
"""What is done to each page before it is written; every page must come out with the same columns."""


def save_query(org: Org, soql: str, file: Path, *, columns: Sequence[str], finish: Finish | None = None) -> int:
    """Run a bulk query and write its records, as text, null for no value.

    Args:
        columns: The columns that the query asks for, in the order in which they are written.
    Returns:
        The number of lines written. A query without records gives a file with the columns alone.
    Raises:
        OrgUnavailable: A page lacks a column that was asked for: begin again.
    """
    finish = finish or _as_it_is
    first = finish(pl.DataFrame(schema=dict.fromkeys(columns, pl.String)))
    schema: pa.Schema = first.to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    rows = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for page in org.bulk_query(soql):
            frame = pl.read_csv(page, infer_schema=False, raise_if_empty=False)
            if frame.height == 0:
                continue
            lines = finish(_named(frame, columns))
            writer.write_table(lines.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema))
            rows += lines.height
    return rows


def soql_moment(moment: datetime) -> str:
    """An instant as SOQL writes it."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _as_it_is(frame: pl.DataFrame) -> pl.DataFrame:
    return frame


def _named(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """The page's columns under the names that were asked for: orgs may spell them in another case. No text is null."""
    spelled = {name.lower(): name for name in frame.columns}
    lacking = [name for name in columns if name.lower() not in spelled]
    if lacking:
        raise OrgUnavailable(f"a page of a bulk query lacks the column {', '.join(lacking)}")
    texts = {name: pl.col(spelled[name.lower()]) for name in columns}
    return frame.select(pl.when(text != "").then(text).alias(name) for name, text in texts.items())
