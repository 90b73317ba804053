"""Where keys stand among those that were sent, found a block at a time with some eleven bytes for each key sent."""

from __future__ import annotations

from typing import Final

import polars as pl

_SLOTS_PER_KEY: Final = 2
"""Of four bytes each. A fifth of the keys then find their slot taken by another."""


class KeyPlaces:
    """The places of distinct keys.

    A join would find them as quickly, and needs all keys of both sides and a table of them in memory. Here each slot of
    a table has the place of one key, found by the key's hash; keys whose slot is another's are searched for in the
    order of their hashes. What is found counts only if its key is the same text.

    Args:
        keys: Distinct texts.
    """

    def __init__(self, keys: pl.Series) -> None:
        self._keys = keys.alias("key")
        # Hashes are compared within this object only: polars promises no more of them.
        hashes = self._keys.hash()
        self._size = _SLOTS_PER_KEY * max(1, keys.len())
        slots = hashes % self._size
        places = pl.int_range(keys.len(), dtype=pl.UInt32, eager=True)
        self._slots = pl.repeat(0, self._size, dtype=pl.UInt32, eager=True).scatter(slots, places)
        is_elsewhere = self._slots.gather(slots) != places
        places, hashes = places.filter(is_elsewhere), hashes.filter(is_elsewhere)
        order = hashes.arg_sort()
        self._other_hashes = hashes.gather(order)
        # A hash above all others is looked for after the last: any place will do there, as its key is compared.
        self._others = places.gather(order).append(pl.Series([0], dtype=pl.UInt32))

    def of(self, keys: pl.Series) -> pl.Series:
        """The place of each of these keys, null for one that was not sent: `place`, u32."""
        if not self._keys.len():
            return pl.repeat(None, keys.len(), dtype=pl.UInt32, eager=True).alias("place")
        hashes = keys.hash()
        places = self._slots.gather(hashes % self._size).alias("place")
        rows = _differing(self._keys.gather(places), keys)
        if rows.len():
            others = self._others.gather(self._other_hashes.search_sorted(hashes.gather(rows)))
            places = places.scatter(rows, others)
            rows = rows.gather(_differing(self._keys.gather(others), keys.gather(rows)))
        if not rows.len():
            return places
        # Strangers, and keys that share their hash with another: these few are joined.
        exact = (
            keys.gather(rows)
            .alias("key")
            .to_frame()
            .join(self._keys.to_frame().with_row_index("place"), on="key", how="left", maintain_order="left")
        )
        return places.scatter(rows, exact["place"].cast(pl.UInt32))


def _differing(sent: pl.Series, told: pl.Series) -> pl.Series:
    """Where a key that was sent is not the one beside it; a key that was sent is never null."""
    return (sent.ne_missing(told) if told.null_count() else sent != told).arg_true()
