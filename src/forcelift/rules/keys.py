"""Keys: how several columns make one text, and how the target compares keys."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from forcelift.protocols.org import FieldDescribe
from forcelift.rules import texts


def join_parts(parts: Sequence[pl.Series]) -> pl.Series:
    """Join canonical parts with `|`; `|` and `\\` inside a part are escaped with `\\`. A null part makes the key null.

    Different tuples give different texts: a separator that is not escaped stands only between parts.
    """
    escaped = [_escaped(part).alias(str(place)) for place, part in enumerate(parts)]
    frame = pl.DataFrame(escaped)
    return frame.select(pl.concat_str(pl.all(), separator="|").alias("key"))["key"]


def _escaped(part: pl.Series) -> pl.Series:
    rows = part.str.contains(r"[|\\]").fill_null(False).arg_true()
    if not rows.len():
        return part
    return part.clone().scatter(rows, part.gather(rows).str.replace_all(r"([|\\])", r"\$1"))


def normalised(keys: pl.Series, *, case_sensitive: bool) -> pl.Series:
    """Keys as the target field compares them: without outer blanks, in lower case unless the field minds the case."""
    trimmed = keys.str.strip_chars(texts.BLANKS)
    return trimmed if case_sensitive else texts.simple_lower(trimmed)


def normalised_key(field: FieldDescribe, keys: pl.Series) -> pl.Series:
    """What two canonical keys are compared by, if `field` is the field that holds them."""
    return normalised(keys, case_sensitive=field.case_sensitive)
