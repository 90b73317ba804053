"""Slices of an Oracle table as they are stored, and the FROM and WHERE of each.

Ranges reach from bound to bound without a gap, and the first and the last are open, so that they hold every row once
whatever the bounds are. How bounds are found stands in `oracle_cuts`.
"""

from __future__ import annotations

import re

import oracledb

from forcelift.errors import SourceError
from forcelift.protocols.source import Predicate
from forcelift.source.names import quote, quote_text
from forcelift.source.oracle_catalog import Shape
from forcelift.source.oracle_session import fetch

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)(E[+-]\d+)?")
MOMENT = "SYYYY-MM-DD HH24:MI:SS"


def slice_tail(
    shape: Shape,
    *,
    scn: int | None,
    where: str | None,
    predicate: Predicate | None,
    percent: float | None = None,
    by_block: bool = False,
    picked: str = "1 = 1",
) -> str:
    """FROM and WHERE of a slice; of the whole table for None.

    Args:
        shape: The table.
        scn: The SCN to read at; None for now.
        where: The plan's condition.
        predicate: The slice.
        percent: Below 100, that share of the rows by chance.
        by_block: Whole blocks by chance instead, the others are not read.
        picked: One more condition.
    Raises:
        SourceError: The predicate is none that this adapter made.
    """
    condition = "1 = 1"
    if predicate is not None:
        try:
            condition = _condition(predicate)
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(
                "a stored chunk cannot be read as a slice of an Oracle table",
                state="nothing was read for this chunk",
                hint="the batch was planned on another kind of source, or on an older table: begin a new batch",
            ) from error
    place = shape.relation.place
    if percent is not None and percent < 100:
        place += f" SAMPLE{' BLOCK' if by_block else ''} ({percent:.6f})"
    if scn is not None:
        place += f" AS OF SCN {scn}"
    # Under its own name, which `where` may use to qualify columns.
    return f"FROM {place} {quote(shape.relation.name)} WHERE ({where or '1 = 1'}\n) AND ({condition}) AND ({picked})"


def count_rows(connection: oracledb.Connection, tail: str) -> int:
    """A COUNT(*)."""
    ((counted,),) = fetch(connection, f"SELECT COUNT(*) {tail}")
    return int(counted)


def rowid_text(data_object: int, file: int, block: int, slot: int) -> str:
    """A ROWID as text: six letters of the object, three of the file, six of the block, three of the slot."""
    return "".join(
        _ALPHABET[value >> 6 * at & 63]
        for value, letters in ((data_object, 6), (file, 3), (block, 6), (slot, 3))
        for at in range(letters - 1, -1, -1)
    )


def rowid_parts(text: str) -> tuple[int, int, int, int]:
    """What `rowid_text` was made of."""
    values = []
    for start, end in ((0, 6), (6, 9), (9, 15), (15, 18)):
        value = 0
        for letter in text[start:end]:
            value = value << 6 | _ALPHABET.index(letter)
        values.append(value)
    return values[0], values[1], values[2], values[3]


def _condition(predicate: Predicate) -> str:
    if predicate["by"] == "all":
        return "1 = 1"
    if predicate["by"] == "rowid":
        bounds = [(">=", predicate["from"]), ("<", predicate["below"])]
        sides = [f"ROWID {mark} CHARTOROWID({quote_text(bound)})" for mark, bound in bounds if bound is not None]
        return " AND ".join(sides) or "1 = 1"
    column = quote(predicate["column"])
    if predicate["by"] == "null":
        return f"{column} IS NULL"
    if predicate["by"] != "key":
        raise ValueError("unknown slice")
    conditions = [f"{column} IS NOT NULL"]
    for mark, bound in ((">", predicate["after"]), ("<=", predicate["upto"])):
        if bound is not None:
            conditions.append(f"{column} {mark} {_literal(bound, predicate['kind'])}")
    return " AND ".join(conditions)


def _literal(text: str, kind: str) -> str:
    if kind == "number":
        if not _NUMBER.fullmatch(text):
            raise ValueError("no number")
        return text
    if kind == "bytes":
        return f"UTL_RAW.CAST_TO_VARCHAR2(HEXTORAW('{bytes.fromhex(text).hex()}'))"
    if kind == "moment":
        return f"TO_DATE({quote_text(text.strip())}, '{MOMENT}')"
    return quote_text(text)
