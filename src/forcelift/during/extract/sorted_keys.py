"""Many keys in little memory: sorted by a hash of what they are compared by, and found by bisection.

A key takes about 24 bytes, and what is longer than 12 bytes of its text beside that; a frame of both texts that is
joined anew for each batch of rows takes nine times as much, and its join looks at every key each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import polars as pl

from forcelift.rules.duplicates import key_hash

Norms = Callable[[pl.Series], pl.Series]
"""What keys are compared by: a column of the same length; null for those that are compared with nothing."""

FOUND = pl.Schema({"norm": pl.String(), "stored": pl.String()})


class SortedKeys:
    """Keys that were stored somewhere, found by what they are compared by.

    Args:
        stored: The keys in pieces, as they are stored. Those without a norm are left out.
        norms: What they are compared by.
    """

    def __init__(self, stored: Iterable[pl.Series], norms: Norms) -> None:
        self._norms = norms
        pieces = [self._hashed(piece) for piece in stored]
        everything = pl.concat([pl.DataFrame(schema={"hash": pl.UInt64(), "stored": pl.String()}), *pieces])
        del pieces
        everything = everything.sort("hash").rechunk()
        self._hash, self._stored = everything["hash"], everything["stored"]

    def __len__(self) -> int:
        return self._hash.len()

    @property
    def stored(self) -> pl.Series:
        """The keys as they are stored, in no order that means anything."""
        return self._stored

    def find(self, norms: pl.Series) -> pl.DataFrame:
        """Columns `norm` and `stored`: of distinct norms those that are here, one line for each."""
        wanted = pl.DataFrame({"norm": norms, "hash": key_hash(norms)["low"]}).sort("hash")
        first = self._hash.search_sorted(wanted["hash"], side="left")
        after = self._hash.search_sorted(wanted["hash"], side="right")
        # Two keys of one hash are two candidates: the texts decide.
        places = wanted.select("norm", place=pl.int_ranges(first, after)).filter(pl.col("place").list.len() > 0)
        candidates = places.explode("place")
        stored = self._stored.gather(candidates["place"])
        found = pl.DataFrame({"norm": candidates["norm"], "stored": stored}).filter(
            self._norms(stored).eq_missing(candidates["norm"])
        )
        return found.unique("norm", keep="first", maintain_order=True).cast(FOUND)

    def _hashed(self, stored: pl.Series) -> pl.DataFrame:
        norms = self._norms(stored)
        hashed = pl.DataFrame({"hash": key_hash(norms)["low"], "stored": stored.cast(pl.String)})
        return hashed.filter(norms.is_not_null())
