"""Records asked for by Ids, by lists or by a range, whichever is the narrower question that a query can hold.

Source: SOQL takes `<` and `>` on every field that it filters by; only LIKE and INCLUDES have types of their own
("Comparison Operators"). PK chunking of the Bulk API asks by ranges of Ids itself ("PK Chunking"), and field history
is asked by ranges of ParentId ("SOQL with FieldHistoryArchive"). A query may have 100,000 letters.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Final

import polars as pl

from forcelift.errors import OrgRefused
from forcelift.protocols.org import Org

IN_LIST_MAX: Final = 2_000
"""Ids in one list: with quotes and commas 44,000 letters of the 100,000 that a query may have."""

LISTS_MAX: Final = 10
"""Lists for one chunk, at most: each costs a query job, of which an org allows 10,000 a day."""

SPREAD_MAX: Final = 20
"""Ids between the smallest and the largest for each one wanted, from which on lists are the narrower question."""

_DIGITS: Final = {
    sign: place for place, sign in enumerate(string.digits + string.ascii_uppercase + string.ascii_lowercase)
}


def id_number(text: str) -> int:
    """An Id as a number: 15 letters of base 62, ordered as the org orders Ids (digits, capitals, small letters)."""
    number = 0
    for sign in text[:15]:
        number = number * 62 + _DIGITS[sign]
    return number


def span(lowest: str, highest: str) -> int:
    """How many Ids there may be from one to another, both included."""
    return id_number(highest) - id_number(lowest) + 1


def conditions(field_name: str, ids: pl.Series, *, in_lists: bool = False) -> list[str]:
    """SOQL conditions that together hold of all records whose field is one of these Ids, and perhaps of others.

    Args:
        in_lists: Never ask by a range.
    """
    ordered = ids.sort()
    lowest, highest = str(ordered[0]), str(ordered[-1])
    lists = -(-ids.len() // IN_LIST_MAX)
    is_sparse = span(lowest, highest) > SPREAD_MAX * ids.len()
    if in_lists or lists == 1 or (is_sparse and lists <= LISTS_MAX):
        return [_listed(field_name, ordered.slice(start, IN_LIST_MAX)) for start in range(0, ids.len(), IN_LIST_MAX)]
    return [ranged(field_name, lowest, highest)]


def ranged(field_name: str, lowest: str, highest: str) -> str:
    return f"{field_name} >= '{lowest}' AND {field_name} <= '{highest}'"


def _listed(field_name: str, ids: pl.Series) -> str:
    texts = ", ".join(f"'{one}'" for one in ids.to_list())
    return f"{field_name} IN ({texts})"


def pages_by_ids(org: Org, soql: str, field_name: str, ids: pl.Series, *, more: str | None = None) -> Iterator[bytes]:
    """Pages of a bulk query whose field is one of these Ids, and perhaps of others.

    Args:
        soql: The query up to its WHERE.
        more: A further condition.

    Raises:
        OrgRefused: The object or field cannot be queried by any of these conditions.
    """
    also = f" AND {more}" if more is not None else ""
    for condition in conditions(field_name, ids):
        try:
            yield from org.bulk_query(f"{soql} WHERE {condition}{also}")
        except OrgRefused:
            if " IN (" in condition:
                raise
            # Some objects take a field only by `=` and `IN`.
            for each in conditions(field_name, ids, in_lists=True):
                yield from org.bulk_query(f"{soql} WHERE {each}{also}")
