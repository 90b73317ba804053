"""Canonical numbers: exact text arithmetic on whole columns, no binary floats in between.

A canonical number has no exponent, no trailing zeros after the point, no plus sign, and `-0` is `0`. It is rounded half
away from zero to the field's scale, as Salesforce stores it (salesforce-api.md, section 9, point 27).
"""

from __future__ import annotations

import polars as pl

from forcelift.protocols.source import BROKEN_NUMBER

NUMBER = r"^([+-]?)(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(?:[eE]([+-]?)0*([0-9]+))?$"

# Doubles reach 1.8e308; a point farther out than this is no number that any field holds.
_POINT_MAX = 400
_ZEROS = "0" * (2 * _POINT_MAX)


def number_text(texts: pl.Series, *, scale: int | None) -> pl.Series:
    """Canonical text of decimal texts, plain or with an exponent; null where a text is no number.

    Args:
        texts: Without outer blanks. Null stays null.
        scale: Digits kept after the point; None keeps all.
    """
    plain = texts.str.contains(_canonical_pattern(scale))
    rows = (~plain).arg_true()
    if not rows.len():
        return texts
    return texts.clone().scatter(rows, _mended(texts.gather(rows), scale=scale))


def double_text(texts: pl.Series, *, scale: int | None) -> pl.Series:
    """Like `number_text`, for what prints doubles (`500.0`, `9.12260031E8`): `.0` is cut off without more ado."""
    return number_text(texts.str.strip_suffix(".0"), scale=scale)


def typed_number_text(values: pl.Series, *, scale: int | None) -> pl.Series:
    """Canonical text of a numeric column: integers, decimals of up to 38 digits, floats by their shortest decimal.

    A value that is no number is null.
    """
    if values.dtype.is_integer():
        return values.cast(pl.String)
    if values.dtype.is_float():
        return double_text(values.cast(pl.String), scale=scale)
    return number_text(_without_zeros(without_broken(values)), scale=scale)


def broken_rows(values: pl.Series) -> pl.Series:
    """Rows (u32) of a decimal column that came as `BROKEN_NUMBER`."""
    return (values.to_physical() == pl.Series([BROKEN_NUMBER], dtype=pl.Int128)).fill_null(False).arg_true()


def without_broken(values: pl.Series) -> pl.Series:
    """A numeric column with null for each `BROKEN_NUMBER`."""
    if not values.dtype.is_decimal():
        return values
    rows = broken_rows(values)
    return values.clone().scatter(rows, pl.Series([None], dtype=values.dtype)) if rows.len() else values


def sortable(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Numbers in one numeric type, whatever a batch came in: numbers, or text where some rows hold no number.

    What is no number is null; what is too large for the type becomes its largest, or smallest, value.
    """
    if values.dtype.is_numeric():
        numbers = without_broken(values).cast(dtype)
        return numbers.fill_nan(None) if dtype.is_float() else numbers
    texts = values.cast(pl.String).str.strip_chars()
    if not isinstance(dtype, pl.Decimal):
        return texts.cast(dtype, strict=False).fill_nan(None)
    exact = number_text(texts, scale=dtype.scale)
    read = exact.cast(dtype, strict=False)
    beyond = (read.is_null() & exact.is_not_null()).arg_true()
    if not beyond.len():
        return read
    largest = "9" * ((dtype.precision or 38) - dtype.scale)
    limits = exact.gather(beyond).str.starts_with("-").replace_strict({True: f"-{largest}", False: largest})
    return read.scatter(beyond, limits.cast(pl.String).cast(dtype))


def integer_digits_over(texts: pl.Series, digits: int) -> pl.Series:
    """Rows whose canonical number has more digits before the point than `digits` (0 counts as no digit)."""
    long = (texts.str.len_bytes() > digits).arg_true()
    if not long.len():
        return long
    whole = texts.gather(long).str.strip_prefix("-").str.extract(r"^([0-9]+)", 1).str.strip_prefix("0")
    return long.filter(whole.str.len_bytes() > digits)


def _without_zeros(values: pl.Series) -> pl.Series:
    texts = values.cast(pl.String)
    if isinstance(values.dtype, pl.Decimal) and values.dtype.scale:
        return texts.str.strip_chars_end("0").str.strip_chars_end(".")
    return texts


def _canonical_pattern(scale: int | None) -> str:
    whole = r"-?[1-9][0-9]*|0"
    if scale == 0:
        return f"^(?:{whole})$"
    fraction = r"[0-9]*[1-9]" if scale is None else rf"[0-9]{{0,{scale - 1}}}[1-9]"
    return rf"^(?:{whole}|-?(?:[1-9][0-9]*|0)\.{fraction})$"


def _mended(texts: pl.Series, *, scale: int | None) -> pl.Series:
    """Take a number apart into sign, digits and the place of the point, round the digits, put it together again."""
    groups = pl.col("text").str.extract_groups(NUMBER).struct
    frame = (
        texts.to_frame("text")
        .lazy()
        .select(
            groups.field("1").alias("sign"),
            pl.coalesce(groups.field("2"), pl.lit("")).alias("whole"),
            pl.coalesce(groups.field("3"), groups.field("4"), pl.lit("")).alias("fraction"),
            # An exponent of more than six digits is far outside every field: its first six do as well.
            pl.concat_str(pl.coalesce(groups.field("5"), pl.lit("")), groups.field("6").str.slice(0, 6))
            .cast(pl.Int64)
            .fill_null(0)
            .alias("exponent"),
            pl.col("text").str.contains(NUMBER).alias("is_number"),
        )
        .with_columns(
            pl.concat_str("whole", "fraction").alias("digits"),
            (pl.col("whole").str.len_bytes().cast(pl.Int64) + pl.col("exponent")).alias("point"),
        )
        .with_columns(pl.col("digits").str.strip_chars_start("0").alias("stripped"))
        .with_columns(
            (
                pl.col("point")
                - pl.col("digits").str.len_bytes().cast(pl.Int64)
                + pl.col("stripped").str.len_bytes().cast(pl.Int64)
            )
            .clip(-_POINT_MAX, _POINT_MAX)
            .alias("point"),
            pl.col("stripped").alias("digits"),
        )
    )
    if scale is not None:
        frame = _rounded(frame, scale)
    return frame.select(_composed().alias("text")).collect()["text"]


def _rounded(frame: pl.LazyFrame, scale: int) -> pl.LazyFrame:
    """Cut the digits after `scale` places; add one to the last digit kept where the first one cut is 5 or more."""
    keep = (pl.col("point") + scale).alias("keep")
    kept = pl.col("kept")
    nines = kept.str.len_bytes() - kept.str.strip_chars_end("9").str.len_bytes()
    last = kept.str.strip_chars_end("9").str.slice(-1)
    bumped = pl.concat_str(
        kept.str.strip_chars_end("9").str.replace(r".$", ""),
        pl.when(last == "")
        .then(pl.lit("1"))
        .otherwise((last.cast(pl.UInt8, strict=False) + 1).cast(pl.String).fill_null("")),
        pl.lit(_ZEROS).str.slice(0, nines),
    )
    return (
        frame.with_columns(keep)
        .with_columns(
            pl.when(pl.col("keep") < 0)
            .then(pl.lit(""))
            .otherwise(pl.col("digits").str.slice(0, pl.col("keep").clip(0)))
            .alias("kept"),
            ((pl.col("keep") >= 0) & (pl.col("digits").str.slice(pl.col("keep").clip(0), 1) >= "5")).alias("up"),
        )
        .with_columns(
            pl.when("up").then(bumped).otherwise(kept).alias("digits"),
            # 999.5 has one digit more after rounding: the point moves.
            (pl.col("point") + (pl.col("up") & (kept.str.strip_chars_end("9") == "")).cast(pl.Int64)).alias("point"),
        )
    )


def _composed() -> pl.Expr:
    digits, point = pl.col("digits"), pl.col("point")
    whole = (
        pl.when(point <= 0)
        .then(pl.lit("0"))
        .otherwise(
            pl.concat_str(
                digits.str.slice(0, point.clip(0)),
                pl.lit(_ZEROS).str.slice(0, (point - digits.str.len_bytes().cast(pl.Int64)).clip(0)),
            )
        )
    )
    fraction = pl.concat_str(
        pl.lit(_ZEROS).str.slice(0, (-point).clip(0)), digits.str.slice(point.clip(0))
    ).str.strip_chars_end("0")
    is_zero = digits.str.strip_chars("0") == ""
    text = pl.concat_str(
        pl.when(pl.col("sign") == "-").then(pl.lit("-")).otherwise(pl.lit("")),
        whole,
        pl.when(fraction == "").then(pl.lit("")).otherwise(pl.concat_str(pl.lit("."), fraction)),
    )
    return pl.when("is_number").then(pl.when(is_zero).then(pl.lit("0")).otherwise(text))
