"""Values of any kind as canonical text, where no rule of a field has a say: plain texts, booleans, times of day."""

from __future__ import annotations

import polars as pl

from forcelift.rules import numbers

_TRUE = ("true", "t", "yes", "y", "1", "on")
_FALSE = ("false", "f", "no", "n", "0", "off")
TIME = r"^([01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,9})?)?Z?$"


def plain_text(values: pl.Series) -> pl.Series:
    """Values of any kind as text in canonical form, nothing rounded or cut: for text fields, keys and value maps.

    A naive timestamp stays as it stands on the source's clock; a fraction of a second is kept where there is one, so
    that two keys never become one. A number that is none is `NaN`, `Infinity` or `-Infinity`.
    """
    dtype = values.dtype
    if dtype == pl.String:
        return values
    if dtype.is_decimal() and (broken := numbers.broken_rows(values)).len():
        return numbers.typed_number_text(values, scale=None).scatter(broken, "NaN")
    if dtype.is_float() and not (values.is_finite().all()):
        text = numbers.typed_number_text(values, scale=None)
        for odd, name in (
            (values.is_nan(), "NaN"),
            (values == float("inf"), "Infinity"),
            (values == float("-inf"), "-Infinity"),
        ):
            text = text.scatter(odd.fill_null(False).arg_true(), name)
        return text
    if dtype.is_numeric():
        return numbers.typed_number_text(values, scale=None)
    if isinstance(dtype, pl.Datetime):
        suffix = "" if dtype.time_zone is None else "Z"
        utc = values if dtype.time_zone is None else values.dt.convert_time_zone("UTC")
        text = utc.dt.strftime("%Y-%m-%dT%H:%M:%S%.9f").str.strip_chars_end("0").str.strip_chars_end(".")
        return text + suffix if suffix else text
    return values.cast(pl.String)


def boolean_text(values: pl.Series) -> pl.Series:
    """`true` or `false`; null where a value is neither (true, t, yes, y, 1, on and their opposites, in any case)."""
    if values.dtype == pl.Boolean:
        return values.cast(pl.String)
    lowered = plain_text(values).str.to_lowercase()
    return lowered.replace_strict(
        [*_TRUE, *_FALSE], ["true"] * len(_TRUE) + ["false"] * len(_FALSE), default=None, return_dtype=pl.String
    )


def time_text(values: pl.Series) -> pl.Series:
    """`HH:MM:SS.mmmZ`, cut to the millisecond; null where a text is no time of day."""
    matched = values.str.contains(TIME)
    padded = (
        values.str.strip_suffix("Z")
        .to_frame("text")
        .select(
            pl.concat_str(
                pl.col("text").str.slice(0, 5),
                pl.lit(":"),
                pl.when(pl.col("text").str.len_bytes() > 5)
                .then(pl.col("text").str.slice(6, 2))
                .otherwise(pl.lit("00")),
                pl.lit("."),
                pl.col("text").str.slice(9, 3).str.pad_end(3, "0"),
                pl.lit("Z"),
            ).alias("text")
        )
    )
    return padded.with_columns(matched.alias("matched")).select(pl.when("matched").then("text")).to_series()
