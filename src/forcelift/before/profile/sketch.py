"""How many different values a column has, in little memory: the smallest hashes seen.

Of n different values spread evenly over [0, 1) the k-th smallest lies near k/n (Bar-Yossef and others, "Counting
distinct elements in a data stream", 2002). Up to `SIZE` values the count is exact; beyond, the standard error is
1/sqrt(SIZE), 1.6 %.
"""

from __future__ import annotations

from typing import Final

import polars as pl

SIZE: Final = 4096
_SEED: Final = 20_020_913
_RANGE: Final = 2**64


class DistinctSketch:
    """Counts different values over any number of batches."""

    def __init__(self) -> None:
        self._least = pl.Series(dtype=pl.UInt64)
        self._bound = _RANGE - 1

    def add(self, values: pl.Series) -> None:
        """Take in a batch; nulls do not count."""
        present = values.drop_nulls() if values.null_count() else values
        if not present.len():
            return
        hashes = present.hash(_SEED)
        if self._bound < _RANGE - 1:
            hashes = hashes.filter(hashes < self._bound)
        if not hashes.len():
            return
        least = pl.concat([self._least, hashes]).unique()
        if least.len() > SIZE:
            least = least.bottom_k(SIZE)
            self._bound = int(least.max())  # type: ignore[arg-type]  # an unsigned number, as the column holds
        self._least = least

    @property
    def is_exact(self) -> bool:
        """True if the count is no estimate."""
        return self._least.len() < SIZE

    @property
    def distinct(self) -> int:
        """How many different values were taken in."""
        if self.is_exact:
            return self._least.len()
        return round((SIZE - 1) * _RANGE / self._bound)
