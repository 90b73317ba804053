"""Corrected values of refused rows, kept until a retry has sent them: written by `failed import`, read by a retry.

Reads, writes: one file for each table of a batch, `corrections/<batch>/<table>.parquet`, mode 0600.
Re-run:  the file is replaced as a whole; a value that is given again counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import polars as pl

from forcelift.jobs.work import TableWork
from forcelift.rules import normalised_key, plain_text
from forcelift.storage import Storage, segment

CORRECTIONS = pl.Schema({"key": pl.String(), "column": pl.String(), "value": pl.String()})


def corrections_name(batch_id: str, table: str) -> str:
    """The file of a table's corrected values."""
    return f"corrections/{segment(batch_id)}/{segment(table)}.parquet"


def read_corrections(storage: Storage, batch_id: str, table: str) -> pl.DataFrame:
    """A table's corrected values: `key`, `column` of the source, `value` (null for none)."""
    name = corrections_name(batch_id, table)
    if not storage.exists(name):
        return pl.DataFrame(schema=CORRECTIONS)
    return pl.read_parquet(storage.path(name), glob=False)


def write_corrections(storage: Storage, batch_id: str, table: str, corrections: pl.DataFrame) -> str:
    """Keep corrected values beside those that are there; the newer of two counts. Gives the seal of the file."""
    both = pl.concat([read_corrections(storage, batch_id, table), corrections.cast(CORRECTIONS)])
    kept = both.unique(["key", "column"], keep="last", maintain_order=True)
    with storage.write(corrections_name(batch_id, table)) as file:
        kept.write_parquet(file.path, compression="zstd")
        return str(file.commit().sha256)


def forget_corrections(storage: Storage, batch_id: str, table: str, still_open: Collection[str]) -> None:
    """Remove the corrected values of rows that are not open any more: they may be personal."""
    known = read_corrections(storage, batch_id, table)
    if not known.height:
        return
    left = known.filter(pl.col("key").is_in(list(still_open)))
    storage.delete(corrections_name(batch_id, table))
    if left.height:
        write_corrections(storage, batch_id, table, left)


class Corrections:
    """Puts corrected values into source rows."""

    def __init__(self, storage: Storage, batch_id: str, works: Mapping[str, TableWork]) -> None:
        self._works = works
        self._known: dict[str, pl.DataFrame] = {}
        for name, work in works.items():
            known = read_corrections(storage, batch_id, name)
            if known.height:
                norms = normalised_key(work.key_field, known["key"]).alias("norm")
                self._known[name] = known.with_columns(norms).drop("key")

    def apply(self, table: str, frame: pl.DataFrame, norms: pl.Series) -> pl.DataFrame:
        """The rows with the values that were corrected; the others are as the source has them.

        A column with a corrected value becomes text, as one with a misfit does: a value and its text pass all rules in
        the same way.
        """
        known = self._known.get(table)
        if known is None:
            return frame
        places = norms.alias("norm").to_frame().with_row_index("at").join(known, on="norm", how="inner")
        columns = column_codecs(self._works[table])
        for (name,), cells in places.group_by("column", maintain_order=True):
            values = frame[str(name)]
            texts = cells["value"]
            if values.dtype == pl.Binary:
                codec = columns.get(str(name))
                encoded = [None if one is None else one.encode(codec or "utf-8") for one in texts.to_list()]
                changed = values.scatter(cells["at"], pl.Series(encoded, dtype=pl.Binary))
            else:
                text = values if values.dtype == pl.String else plain_text(values)
                changed = text.clone().scatter(cells["at"], texts)
            frame = frame.with_columns(changed.alias(str(name)))
        return frame


def column_codecs(work: TableWork) -> dict[str, str]:
    """The encodings of the source columns that the rules read as bytes."""
    rules = work.rules
    columns = [*rules.plain_columns.values(), *rules.columns.values()]
    return {column.name: column.codec for column in columns if column.codec is not None}
