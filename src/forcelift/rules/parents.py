"""Lookups by a parent's key: what is known of the column, and which parents exist."""

from __future__ import annotations

from typing import Protocol

import polars as pl
from msgspec import Struct

from forcelift.rules.findings import Findings, Place
from forcelift.rules.keys import normalised


class ParentKeys(Protocol):
    """The parents that exist: in the ledger of this batch or in the org."""

    def stored(self, norms: pl.Series) -> pl.DataFrame:
        """Of distinct normalised keys without nulls those that exist: `norm`, and `stored`, as the org has the key."""
        ...


class LookupInfo(Struct, frozen=True, kw_only=True):
    """A column that names a parent by its key. `target` is the CSV header, `field` the lookup field itself."""

    column: str
    target: str
    field: str
    parent_table: str | None
    parent_object: str
    key_field: str
    is_link: bool
    case_sensitive: bool
    required: bool
    to_null: bool
    place: Place


def resolve(keys: pl.Series, lookup: LookupInfo, parents: ParentKeys, found: Findings) -> pl.Series:
    """Step 16: of canonical keys the parents' keys as the org stores them, null where there is none."""
    norms = normalised(keys, case_sensitive=lookup.case_sensitive)
    distinct = norms.drop_nulls().unique()
    if not distinct.len():
        return norms
    stored = parents.stored(distinct).select(pl.col("norm").cast(pl.String), pl.col("stored").cast(pl.String))
    resolved = norms.replace_strict(stored["norm"], stored["stored"], default=None, return_dtype=pl.String)
    if resolved.null_count() == norms.null_count():
        return resolved
    missing = (resolved.is_null() & norms.is_not_null()).arg_true()
    if not lookup.to_null:
        found.refuse("missing_parent", lookup.place, missing)
        return resolved
    found.change("missing_parent", lookup.place, missing)
    if lookup.required:
        found.refuse("empty_required", lookup.place, missing)
    return resolved
