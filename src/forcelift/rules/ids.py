"""Salesforce Ids: the 15-character form becomes the 18-character one, which survives comparison without case.

Source: salesforce-api.md section 7, "Ids"; three groups of five characters give one checksum character each.
"""

from __future__ import annotations

import polars as pl

ID = r"^(?:[A-Za-z0-9]{15}|[A-Za-z0-9]{18})$"
_CHECK = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


def id_text(texts: pl.Series) -> pl.Series:
    """Ids in 18 characters; null where a text is no Id."""
    known = texts.str.contains(ID)
    if not known.all():
        frame = pl.DataFrame({"text": texts, "known": known})
        texts = frame.select(pl.when("known").then("text").alias(texts.name)).to_series()
    short = (texts.str.len_bytes() == 15).fill_null(False).arg_true()
    if not short.len():
        return texts
    return texts.clone().scatter(short, _with_checksum(texts.gather(short)))


def _with_checksum(texts: pl.Series) -> pl.Series:
    text = pl.col("text")
    groups = []
    for start in (0, 5, 10):
        bits = [
            text.str.slice(start + place, 1).is_between(pl.lit("A"), pl.lit("Z")).cast(pl.UInt32) * (1 << place)
            for place in range(5)
        ]
        groups.append(pl.lit(_CHECK).str.slice(pl.sum_horizontal(bits), 1))
    return texts.to_frame("text").lazy().select(pl.concat_str(text, *groups)).collect().to_series()
