"""Slices of a SQLite table as predicates, and predicates as SQL conditions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from forcelift.errors import SourceError
from forcelift.protocols.source import Predicate
from forcelift.source.names import quote

_NUMBER = re.compile(r"-?[0-9][0-9.]*(?:[eE][+-]?[0-9]+)?")
_HEX = re.compile(r"(?:[0-9A-F]{2})*")

Bound = list[list[str]]  # per key column: its storage class, and the number's text or the bytes in hexadecimal


def rowid_slice(*, after: int | None, upto: int | None) -> Predicate:
    """Rows whose rowid is above `after` and at most `upto`; None leaves that side open."""
    return {"by": "rowid", "after": after, "upto": upto}


def key_slice(key: Sequence[str], *, after: Bound | None, upto: Bound | None) -> Predicate:
    """Rows without a null in the key, above `after` and at most `upto`."""
    return {"by": "key", "columns": list(key), "after": after, "upto": upto}


def null_slice(key: Sequence[str]) -> Predicate:
    """Rows with a null in the key."""
    return {"by": "null", "columns": list(key)}


def is_rowid_slice(predicate: Predicate | None) -> bool:
    """True if the slice is found by rowid, so that no index must be used instead."""
    return predicate is not None and predicate.get("by") == "rowid"


def bound_columns(key: Sequence[str]) -> list[str]:
    """SQL expressions that give a `Bound` of a row: two for each key column."""
    expressions: list[str] = []
    for name in key:
        column = quote(name)
        text = f"CASE WHEN typeof({column}) IN ('text', 'blob') THEN hex({column}) ELSE quote({column}) END"
        expressions += [f"typeof({column})", text]
    return expressions


def address_of(key: Sequence[str]) -> str:
    """An SQL expression that tells rows without a rowid apart by the classes and bytes of their key."""
    return " || '|' || ".join(f"coalesce({expression}, '')" for expression in bound_columns(key))


def condition(predicate: Predicate | None, *, rowid: str | None) -> str:
    """The SQL condition of a slice; of the whole table for None.

    Raises:
        SourceError: The predicate is none that this adapter made for this table.
    """
    if predicate is None:
        return "1"
    try:
        return _condition(predicate, rowid=rowid)
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            "a stored chunk cannot be read as a slice of a SQLite table",
            state="nothing was read for this chunk",
            hint="the batch was planned on another kind of source, or on an older table: begin a new batch",
        ) from error


def _condition(predicate: Predicate, *, rowid: str | None) -> str:
    if predicate["by"] == "rowid":
        if rowid is None:
            raise ValueError("the table has no rowid")
        sides = [(">", predicate["after"]), ("<=", predicate["upto"])]
        return " AND ".join(f"{rowid} {sign} {int(value)}" for sign, value in sides if value is not None) or "1"
    columns = [quote(name) for name in predicate["columns"]]
    if predicate["by"] == "null":
        return " OR ".join(f"{column} IS NULL" for column in columns)
    if predicate["by"] != "key":
        raise ValueError("unknown slice")
    parts = [f"{column} IS NOT NULL" for column in columns]
    for sign, bound in ((">", predicate["after"]), ("<=", predicate["upto"])):
        if bound is not None:
            values = [_literal(part) for part in bound]
            if len(values) != len(columns):
                raise ValueError("bound and key differ in length")
            parts.append(f"({', '.join(columns)}) {sign} ({', '.join(values)})")
    return " AND ".join(parts)


def _literal(part: Any) -> str:
    storage, text = part
    if storage in ("integer", "real") and _NUMBER.fullmatch(text):
        return str(text)
    if storage == "blob" and _HEX.fullmatch(text):
        return f"X'{text}'"
    if storage == "text" and _HEX.fullmatch(text):
        # The plus takes the cast's affinity away, so that SQLite compares by storage class, as it sorts.
        return f"+CAST(X'{text}' AS TEXT)"
    raise ValueError("not a bound")
