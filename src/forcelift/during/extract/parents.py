"""Which parents exist: known from this batch's ledger and the org together.

A lookup's key is first looked for among the rows that the org accepted in this batch, then in the org itself. What was
found and what was found absent is remembered, so that an orphan costs one question, not one for each chunk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import polars as pl

from forcelift.during.extract.sorted_keys import FOUND, SortedKeys
from forcelift.protocols.org import FieldDescribe, Org
from forcelift.rules import canonical_from_org, compact, normalised_key

ASK_BY_KEY_MAX = 5_000
"""More keys than these are not asked for one by one: the whole key field is fetched once by a bulk query."""

_PAGE_ROWS = 500_000


class ParentIndex:
    """The keys of one parent object that a lookup may name.

    Args:
        object_name, key: The parent object and the field that the lookup is compared by.
        accepted: Gives the canonical keys (column `key`) that this batch has brought into the org; empty if the parent
            is no table of the plan. Called once, when the parent's table is settled.
    """

    def __init__(self, *, org: Org, object_name: str, key: FieldDescribe, accepted: Callable[[], pl.LazyFrame]) -> None:
        self._org, self._object, self._key, self._accepted = org, object_name, key, accepted
        self._known: list[SortedKeys] = []
        self._absent = pl.Series("norm", [], dtype=pl.String)
        self._has_all = False
        self._lock = threading.Lock()

    def stored(self, norms: pl.Series) -> pl.DataFrame:
        """Columns `norm`, `stored`: of the given distinct normalised keys those that exist, as the org stores them."""
        wanted = norms.cast(pl.String).alias("norm")
        with self._lock:
            if not self._known:
                accepted = self._accepted().select("key")
                self._known.append(
                    self._sorted(page["key"] for page in accepted.collect_batches(chunk_size=_PAGE_ROWS))
                )
            found = self._find(wanted, self._known)
            left = _without(_without(wanted, found["norm"]), self._absent)
            if not left.len() or self._has_all:
                return found
            self._ask(left)
            return pl.concat([found, self._find(left, self._known[-1:])])

    def _find(self, norms: pl.Series, among: Sequence[SortedKeys]) -> pl.DataFrame:
        found = pl.DataFrame(schema=FOUND)
        for keys in among:  # what is found first stands: the ledger before the org
            found = pl.concat([found, keys.find(_without(norms, found["norm"]))])
        return found

    def _sorted(self, stored: Iterable[pl.Series]) -> SortedKeys:
        return SortedKeys(stored, lambda keys: normalised_key(self._key, keys))

    def _ask(self, norms: pl.Series) -> None:
        texts: Iterator[pl.Series]
        if norms.len() > ASK_BY_KEY_MAX:
            pages = (page for page in self._org.bulk_query(self._everything()) if page)
            texts = (pl.read_csv(page, infer_schema=False)[self._key.name] for page in pages)
            self._has_all = True
        else:
            pairs = self._org.find(self._object, self._key, norms.to_list())
            texts = iter([pl.Series([text for _, text in pairs], dtype=pl.String)])
        asked = self._sorted(canonical_from_org(self._key, text) for text in texts)
        absent = compact(_without(norms, asked.find(norms)["norm"]).to_frame()).to_series()
        self._absent = pl.concat([self._absent, absent])
        # What many questions brought is put together by and by, so that there are never many places to look.
        while len(self._known) > 1 and len(self._known[-1]) <= 2 * len(asked):
            asked = self._sorted([self._known.pop().stored, asked.stored])
        self._known.append(asked)

    def _everything(self) -> str:
        return f"SELECT {self._key.name} FROM {self._object} WHERE {self._key.name} != null"


def _without(norms: pl.Series, others: pl.Series) -> pl.Series:
    """Of the first those that are not among the second."""
    return norms.filter(~norms.is_in(others.implode())) if others.len() else norms
