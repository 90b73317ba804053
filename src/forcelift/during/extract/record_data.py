"""RECORD_DATA: refused rows as JSON under the source's column names, personal values masked."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import polars as pl

from forcelift.jobs.work import TableWork

MASK = "***"
Detail = Literal["masked", "none", "full"]


def source_rows_json(frame: pl.DataFrame, *, personal: Collection[str], detail: Detail) -> pl.Series:
    """One JSON text for each row of a frame of source columns; nulls stay null, bytes are shown as hexadecimal."""
    if detail == "none":
        return pl.Series("data", [None] * frame.height, dtype=pl.String)
    shown = []
    for name, kind in frame.schema.items():
        column = pl.col(name)
        if detail == "masked" and name in personal:
            column = pl.when(column.is_not_null()).then(pl.lit(MASK)).alias(name)
        elif kind == pl.Binary:
            column = column.bin.encode("hex")
        elif isinstance(kind, pl.Decimal) or kind.is_temporal():
            column = column.cast(pl.String)
        shown.append(column)
    return frame.select(pl.struct(shown).struct.json_encode().alias("data")).to_series()


class SentRowsJson:
    """Rows that the org refused, as they were sent: the staged file's values under the source's column names."""

    def __init__(self, detail: Detail) -> None:
        self._detail: Detail = detail

    def __call__(self, work: TableWork, staged: pl.LazyFrame, keys: pl.Series) -> pl.DataFrame:
        """Columns `key`, `data` for the rows with these keys."""
        field = work.key_field.name
        rows = staged.join(keys.alias(field).to_frame().lazy(), on=field, how="semi").collect()
        names = {target: source for target, source in work.source_names().items() if target in rows.columns}
        personal = {name for name in rows.columns if names.get(name) in work.rules.personal_columns}
        personal |= set(work.plan.computed) & set(rows.columns)
        shown = rows.rename(names)
        data = source_rows_json(shown, personal={names.get(name, name) for name in personal}, detail=self._detail)
        return rows.select(pl.col(field).alias("key")).with_columns(data)
