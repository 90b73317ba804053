"""Which parents exist: known from this batch's ledger and the org together.

A lookup's key is first looked for among the rows that the org accepted in this batch, then in the org itself. What was
found and what was found absent is remembered, so that an orphan costs one question, not one for each chunk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import polars as pl

from forcelift.protocols.org import FieldDescribe, Org
from forcelift.rules import canonical_from_org, normalised_key

ASK_BY_KEY_MAX = 5_000
"""More keys than these are not asked for one by one: the whole key field is fetched once by a bulk query."""

_KEYS = pl.Schema({"norm": pl.String(), "stored": pl.String()})


class ParentIndex:
    """The keys of one parent object that a lookup may name.

    Args:
        object_name, key: The parent object and the field that the lookup is compared by.
        accepted: Gives the canonical keys (column `key`) that this batch has brought into the org; empty if the parent
            is no table of the plan. Called once, when the parent's table is settled.
    """

    def __init__(self, *, org: Org, object_name: str, key: FieldDescribe, accepted: Callable[[], pl.LazyFrame]) -> None:
        self._org, self._object, self._key, self._accepted = org, object_name, key, accepted
        self._known: pl.DataFrame | None = None
        self._absent = pl.Series("norm", [], dtype=pl.String)
        self._has_all = False
        self._lock = threading.Lock()

    def stored(self, norms: pl.Series) -> pl.DataFrame:
        """Columns `norm`, `stored`: of the given distinct normalised keys those that exist, as the org stores them."""
        wanted = norms.alias("norm").to_frame()
        with self._lock:
            if self._known is None:
                self._known = self._from_ledger()
            missing = wanted.join(self._known, on="norm", how="anti").filter(
                ~pl.col("norm").is_in(self._absent.implode())
            )
            if missing.height and not self._has_all:
                self._ask(missing["norm"])
            return wanted.join(self._known, on="norm", how="inner")

    def _from_ledger(self) -> pl.DataFrame:
        return self._known_by_norm(self._accepted().select("key").collect().to_series())

    def _known_by_norm(self, stored: pl.Series) -> pl.DataFrame:
        """Stored keys (canonical) beside what they are compared by, one line for each that compares differently."""
        norms = normalised_key(self._key, stored).alias("norm")
        return pl.DataFrame([norms, stored.alias("stored")]).drop_nulls("norm").unique("norm").cast(_KEYS)

    def _ask(self, norms: pl.Series) -> None:
        assert self._known is not None
        if norms.len() > ASK_BY_KEY_MAX:
            pages = [pl.read_csv(page, infer_schema=False) for page in self._org.bulk_query(self._everything()) if page]
            texts = [page[self._key.name] for page in pages] or [pl.Series([], dtype=pl.String)]
            self._has_all = True
        else:
            pairs = self._org.find(self._object, self._key, norms.to_list())
            texts = [pl.Series([text for _, text in pairs], dtype=pl.String)]
        stored = pl.concat([text.alias("stored") for text in texts])
        found = self._known_by_norm(canonical_from_org(self._key, stored))
        self._known = pl.concat([self._known, found]).unique("norm", keep="first", maintain_order=True)
        self._absent = pl.concat([self._absent, norms.to_frame().join(found, on="norm", how="anti")["norm"]])

    def _everything(self) -> str:
        return f"SELECT {self._key.name} FROM {self._object} WHERE {self._key.name} != null"
