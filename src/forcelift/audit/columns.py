"""Texts that fit their columns, over whole columns of text; for single texts see `text`."""

from __future__ import annotations

from typing import cast

import polars as pl
import polars_hash as plh

from forcelift.audit.tables import RECORD_ID_BYTES
from forcelift.audit.text import NULL_KEY

_RECORD_HASH = 32  # hex digits, 128 bits: a billion shortened keys collide with a chance under 1 in 10^20


def fit(text: pl.Expr, size_bytes: int) -> pl.Expr:
    """`fit_text` over a column of text; null stays null."""
    too_long = pl.when(text.str.len_bytes() > size_bytes).then(text).cast(pl.Binary)

    def begins_inside_character(position: int) -> pl.Expr:
        return too_long.bin.slice(position, 1).bin.encode("hex").str.slice(0, 1).is_in(["8", "9", "a", "b"])

    # A character has at most four bytes, so one of these four places is the beginning of one.
    places = range(size_bytes, max(size_bytes - 4, -1), -1)
    cut = pl.coalesce([pl.when(~begins_inside_character(place)).then(too_long.bin.slice(0, place)) for place in places])
    return pl.coalesce([cut.cast(pl.String), text])


def record_id(key: pl.Expr, row: pl.Expr) -> pl.Expr:
    """What stands in RECORD_ID, never null, at most 100 bytes, different for different keys.

    A key that fits stands as it is; a longer one is cut and followed by `~` and a hash of the whole. Keys that look
    like such forms are hashed too. A null key, or an empty one (null to Oracle), is named by its row.
    """
    looks_made = key.str.contains(rf"~[0-9a-f]{{{_RECORD_HASH}}}$") | key.str.starts_with(NULL_KEY)
    hashed = pl.concat_str(
        [fit(key, RECORD_ID_BYTES - _RECORD_HASH - 1), pl.lit("~"), _sha256(key).str.slice(0, _RECORD_HASH)]
    )
    return (
        pl.when(key.is_null() | (key == ""))
        .then(pl.concat_str([pl.lit(NULL_KEY), row.cast(pl.String)]))
        .when((key.str.len_bytes() > RECORD_ID_BYTES) | looks_made)
        .then(hashed)
        .otherwise(key)
    )


def _sha256(text: pl.Expr) -> pl.Expr:
    # The namespace is registered with polars when `polars_hash` is imported; its stubs know it on a class of their own.
    return cast("plh.HExpr", text).chash.sha2_256()
