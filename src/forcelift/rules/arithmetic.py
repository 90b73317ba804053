"""Exact decimal arithmetic on whole columns of canonical numbers; no binary floats in between.

An operand has at most 19 digits before the point and is taken with 18 after it, more than any number field of
Salesforce keeps. Null in gives null out. What grows beyond 19 digits is null, and told apart by its rows.
"""

from __future__ import annotations

import polars as pl
import pyarrow as pa
from msgspec import Struct

from forcelift.rules import numbers

DIGITS_BEFORE = 19
DIGITS_AFTER = 18
_FITS = rf"^-?[0-9]{{1,{DIGITS_BEFORE}}}(?:\.[0-9]+)?$"
_DECIMAL = pl.Decimal(38, DIGITS_AFTER)
_WIDE = pa.decimal256(DIGITS_BEFORE + DIGITS_AFTER, DIGITS_AFTER)


class Calculated(Struct, frozen=True, kw_only=True):
    """Canonical numbers, and the rows (u32) whose result or operand is too large to be kept."""

    values: pl.Series
    too_large: pl.Series


def operand(texts: pl.Series) -> Calculated:
    """Canonical numbers as arithmetic takes them: 18 digits after the point, rounded half away from zero."""
    return _kept(numbers.number_text(texts, scale=DIGITS_AFTER))


def add(left: pl.Series, right: pl.Series) -> Calculated:
    """Exact sums of two columns of operands."""
    return _kept(_plain(_decimals(left) + _decimals(right)))


def subtract(left: pl.Series, right: pl.Series) -> Calculated:
    """Exact differences of two columns of operands."""
    return _kept(_plain(_decimals(left) - _decimals(right)))


def multiply(left: pl.Series, right: pl.Series) -> Calculated:
    """Exact products of two columns of operands, of up to 36 digits after the point."""
    import pyarrow.compute as pc  # takes long to import, and few plans compute

    wide = [pc.cast(side.rechunk().to_arrow().cast(pa.large_string()), _WIDE) for side in (left, right)]
    product = pl.from_arrow(pc.cast(pc.multiply(*wide), pa.large_string()))
    assert isinstance(product, pl.Series)
    return _kept(_plain(product))


def divide(left: pl.Series, right: pl.Series, *, scale: int) -> tuple[Calculated, pl.Series]:
    """Quotients rounded half away from zero to `scale` digits after the point.

    Returns: the quotients, and the rows (u32) whose divisor is zero; their quotient is null.
    """
    frame = pl.DataFrame({"a": _decimals(left).to_physical(), "b": _decimals(right).to_physical()})
    by_zero = ((frame["b"] == pl.Series([0], dtype=pl.Int128)) & frame["a"].is_not_null()).fill_null(False).arg_true()
    a, b, ten = pl.col("a"), pl.col("b"), pl.lit(10, dtype=pl.Int128)
    steps = frame.lazy().select(
        ((a < 0) != (b < 0)).alias("negative"), a.abs().alias("a"), pl.when(b != 0).then(b.abs()).alias("b")
    )
    # Long division: a remainder is below the divisor, so that ten times it still fits into 128 bits.
    steps = steps.with_columns(
        (a // b).alias("whole"), (a % b).alias("rest"), pl.lit(0, dtype=pl.Int128).alias("fraction")
    )
    rest, fraction = pl.col("rest"), pl.col("fraction")
    for _ in range(scale + 1):
        steps = steps.with_columns((fraction * ten + rest * ten // b).alias("fraction"), (rest * ten % b).alias("rest"))
    text = steps.select(
        pl.concat_str(
            pl.when("negative").then(pl.lit("-")).otherwise(pl.lit("")),
            pl.col("whole").cast(pl.String),
            pl.lit("."),
            # The first digit that is cut off decides the rounding, whatever comes after it.
            fraction.cast(pl.String).str.zfill(scale + 1),
        )
    ).collect()
    return _kept(numbers.number_text(text.to_series(), scale=scale)), by_zero


def _decimals(texts: pl.Series) -> pl.Series:
    """Operands as decimals of 18 places; a product of more places is rounded to them."""
    return numbers.number_text(texts, scale=DIGITS_AFTER).cast(_DECIMAL)


def _plain(values: pl.Series) -> pl.Series:
    return numbers.number_text(values.cast(pl.String), scale=None)


def _kept(texts: pl.Series) -> Calculated:
    large = (~texts.str.contains(_FITS)).fill_null(False).arg_true()
    return Calculated(values=texts.clone().scatter(large, None) if large.len() else texts, too_large=large)
