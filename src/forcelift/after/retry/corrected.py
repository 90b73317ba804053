"""Corrected values of refused rows, kept until a retry has sent them: written by `failed import`, read by a retry.

Reads, writes: one file for each table of a batch, `corrections/<batch>/<table>.parquet`, mode 0600.
Re-run:  the file is replaced as a whole; a value that is given again counts.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Mapping
from typing import Any

import polars as pl

from forcelift.after.retry.scope import corrections_folder
from forcelift.audit import AuditStore
from forcelift.errors import StorageError
from forcelift.jobs.work import TableWork
from forcelift.rules import normalised_key, plain_text
from forcelift.storage import Storage, segment

CORRECTIONS = pl.Schema({"key": pl.String(), "column": pl.String(), "value": pl.String()})


def corrections_name(batch_id: str, table: str) -> str:
    """The file of a table's corrected values."""
    return f"{corrections_folder(batch_id)}/{segment(table)}.parquet"


def read_corrections(storage: Storage, audit: AuditStore, batch_id: str, table: str) -> pl.DataFrame:
    """A table's corrected values: `key`, `column` of the source, `value` (null for none).

    Raises:
        StorageError: The file is not as it was written, or not there: what stands in it goes into the org.
    """
    name = corrections_name(batch_id, table)
    seals = audit.journalled_seals(batch_id, "corrections").get(name, ())
    if not storage.exists(name):
        if seals and seals[-1]:
            raise _changed(name, "is gone")
        return pl.DataFrame(schema=CORRECTIONS)
    with storage.open(name) as file:
        content = file.read()
    # A seal is journalled before its file is written: one that a kill kept from being written is the one before.
    if hashlib.sha256(content).hexdigest() not in seals:
        raise _changed(name, "was changed after it was written")
    return pl.read_parquet(content)


def _changed(name: str, what: str) -> StorageError:
    return StorageError(
        f"the file of corrected values `{name}` {what}",
        state="nothing was read or sent",
        hint="put it back from a copy; or remove it, and import the corrected CSV file once more",
    )


def write_corrections(
    storage: Storage, audit: AuditStore, batch_id: str, table: str, corrections: pl.DataFrame, told: Mapping[str, Any]
) -> None:
    """Keep corrected values beside those that are there, the newer of two counts; `told` goes into the journal."""
    name = corrections_name(batch_id, table)
    # Who imports anew after the file was lost begins anew.
    earlier = read_corrections(storage, audit, batch_id, table) if storage.exists(name) else corrections.clear()
    both = pl.concat([earlier.cast(CORRECTIONS), corrections.cast(CORRECTIONS)])
    kept = both.unique(["key", "column"], keep="last", maintain_order=True)
    _write(storage, audit, batch_id, name, kept, "failed_corrected", told)


def _write(
    storage: Storage,
    audit: AuditStore,
    batch_id: str,
    name: str,
    frame: pl.DataFrame,
    action: str,
    told: Mapping[str, Any],
) -> None:
    content = io.BytesIO()
    frame.write_parquet(content, compression="zstd")
    data = content.getvalue()
    seal = {"corrections_file": name, "corrections_sha256": hashlib.sha256(data).hexdigest()}
    audit.journal(action, {**told, **seal}, batch_id=batch_id)
    with storage.write(name) as file:
        file.path.write_bytes(data)
        file.commit()


def forget_corrections(
    storage: Storage, audit: AuditStore, batch_id: str, table: str, still_open: Collection[str]
) -> None:
    """Remove the corrected values of rows that are not open any more: they may be personal."""
    name = corrections_name(batch_id, table)
    if not storage.exists(name):
        return
    known = read_corrections(storage, audit, batch_id, table)
    left = known.filter(pl.col("key").is_in(list(still_open)))
    if left.height == known.height:
        return
    told = {"table": table, "cells": left.height}
    if left.height:
        _write(storage, audit, batch_id, name, left, "corrections_kept", told)
        return
    audit.journal("corrections_forgotten", {**told, "corrections_file": name}, batch_id=batch_id)
    storage.delete(name)


class Corrections:
    """Puts corrected values into source rows."""

    def __init__(self, storage: Storage, audit: AuditStore, batch_id: str, works: Mapping[str, TableWork]) -> None:
        self._works = works
        self._known: dict[str, pl.DataFrame] = {}
        for name, work in works.items():
            known = read_corrections(storage, audit, batch_id, name)
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
