"""Where keys stand among those that were sent, found a block at a time with twelve bytes for each key sent."""

from __future__ import annotations

import polars as pl


class KeyPlaces:
    """The places of distinct keys.

    A join would find them as quickly, and needs all keys of both sides and a table of them in memory.

    Args:
        keys: Distinct texts.
    """

    def __init__(self, keys: pl.Series) -> None:
        self._keys = keys.alias("key")
        # Hashes are compared within this object only: polars promises no more of them.
        hashes = self._keys.hash()
        self._order = hashes.arg_sort()
        self._hashes = hashes.gather(self._order)

    def of(self, keys: pl.Series) -> pl.Series:
        """The place of each of these keys, null for one that was not sent: `place`, u32."""
        if not self._keys.len():
            return pl.repeat(None, keys.len(), dtype=pl.UInt32, eager=True).alias("place")
        found = self._hashes.search_sorted(keys.hash()).clip(0, self._keys.len() - 1)
        places = self._order.gather(found).cast(pl.UInt32).alias("place")
        is_other = self._keys.gather(places).ne_missing(keys)
        if not is_other.any():
            return places
        # Strangers, and keys that share their hash with another: these few are joined.
        rows = is_other.arg_true()
        exact = (
            keys.gather(rows)
            .alias("key")
            .to_frame()
            .join(self._keys.to_frame().with_row_index("place"), on="key", how="left", maintain_order="left")
        )
        return places.scatter(rows, exact["place"].cast(pl.UInt32))
