"""Text as the bytes that an Oracle database stores, which rules decode by the plan's `encoding`.

A client is sent text converted from the database's character set to UTF-8, and what that set does not know is lost on
the way. Only where both are the same is nothing converted, and bytes arrive as they are stored. From any other set
UTL_RAW.CAST_TO_RAW has to fetch them. In SQL it gives 2,000 bytes at most (ORA-06502 beyond), so longer values come in
pieces, each a column of the query, and are joined here.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from enum import Enum, auto

import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from forcelift.errors import SourceError
from forcelift.protocols.source import Column, ColumnKind
from forcelift.source.oracle_columns import Declared, OracleColumn
from forcelift.source.oracle_errors import NOT_READ, UnreadableRow

_RAW_BYTES = 2_000
_STANDARD_BYTES = 4_000  # a longer VARCHAR2 needs MAX_STRING_SIZE = EXTENDED, where a RAW has 32,767 bytes in SQL too
_CHARACTER_BYTES = 4  # of the widest character in any of Oracle's character sets
_SELECTED_MAX = 1_000  # ORA-01792
# Names say how many bits a character has: WE8MSWIN1252, US7ASCII, TH8TISASCII, but JA16SJIS, ZHT32EUC, UTF8.
_ONE_BYTE = re.compile(r"[A-Z]{1,5}[78][A-Z]\w*")


class Stored(Enum):
    """How bytes of a database's text can be had, by its character set."""

    AS_SENT = auto()  # AL32UTF8, the driver's own: nothing is converted
    SINGLE = auto()  # one byte for each character, in CLOBs too
    MULTI = auto()  # several; CLOBs are kept in Unicode


def stored_in(charset: str) -> Stored:
    """What NLS_CHARACTERSET means for reading bytes."""
    if charset == "AL32UTF8":
        return Stored.AS_SENT
    return Stored.SINGLE if _ONE_BYTE.fullmatch(charset) else Stored.MULTI


def byte_column(one: Declared, made: OracleColumn, stored: Stored) -> OracleColumn:
    """A column of text as one of bytes, where the database has bytes of it.

    Args:
        one: The dictionary's row.
        made: The same column read as text.
        stored: How bytes can be had.
    """
    if one.type not in ("VARCHAR2", "CHAR", "LONG", "CLOB", "XMLTYPE"):
        return made  # national texts, and what the server writes itself, have no bytes of their own
    column = dataclasses.replace(made.column, arrow=pa.binary())
    if stored is Stored.AS_SENT:
        return replace(made, column=column)
    if one.type == "LONG":
        shown = f"{made.column.declared} (whose bytes no SQL gives, unless TO_LOB copies it into a CLOB)"
        nothing = Column(name=one.name, kind=ColumnKind.UNSUPPORTED, declared=shown, arrow=pa.null())
        return OracleColumn(column=nothing, expression="NULL", asked=pa.null(), width=8)
    if one.type in ("CLOB", "XMLTYPE"):
        if stored is Stored.MULTI:
            return made
        length = f"DBMS_LOB.GETLENGTH({made.expression})"
        return replace(made, column=column, expression=length, asked=pa.int64(), lob=made.expression)
    name = made.expression
    if one.length <= _RAW_BYTES or one.length > _STANDARD_BYTES:
        return replace(made, column=column, expression=f"UTL_RAW.CAST_TO_RAW({name})", asked=pa.binary())
    step = _RAW_BYTES if stored is Stored.SINGLE else _RAW_BYTES // _CHARACTER_BYTES
    characters = min(one.characters or one.length, one.length)
    whole = f"LENGTHB({name}) <= {_RAW_BYTES}"
    pieces = (
        f"UTL_RAW.CAST_TO_RAW(CASE WHEN {whole} THEN {name} ELSE SUBSTR({name}, 1, {step}) END)",
        *(
            f"CASE WHEN NOT {whole} THEN UTL_RAW.CAST_TO_RAW(SUBSTR({name}, {at + 1}, {step})) END"
            for at in range(step, characters, step)
        ),
    )
    return replace(made, column=column, expression=f"LENGTHB({name})", asked=pa.int64(), pieces=pieces)


def cut_lob(column: OracleColumn, *, longest: int, others: int) -> OracleColumn:
    """A CLOB in as many pieces as its longest value in a slice needs.

    Args:
        column: One with a `lob`.
        longest: Bytes of that value.
        others: How many expressions the query has beside these pieces.
    Raises:
        SourceError: That is more than a query may have.
    """
    starts = range(1, max(longest, 1) + 1, _RAW_BYTES)
    if len(starts) + others > _SELECTED_MAX:
        raise SourceError(
            f"column `{column.column.name}` has a value of {longest:,} bytes, and no query gives the bytes of a "
            f"{column.column.declared} beyond {(_SELECTED_MAX - others) * _RAW_BYTES:,}",
            state=NOT_READ,
            hint="let a DBA copy the column into a BLOB by DBMS_LOB.CONVERTTOBLOB, and name that one in the plan, with "
            "its `encoding`",
        )
    pieces = tuple(
        f"CASE WHEN {column.expression} >= {at} THEN "
        f"UTL_RAW.CAST_TO_RAW(DBMS_LOB.SUBSTR({column.lob}, {_RAW_BYTES}, {at})) END"
        for at in starts
    )
    return replace(column, pieces=pieces, width=max(longest, 8))


def joined(lengths: pa.Array, pieces: Sequence[pa.Array], column: OracleColumn) -> pa.Array:
    """Values from their pieces, each of the length that the server told; a null length is a null.

    Raises:
        UnreadableRow: A value came with another length.
    """
    nothing = pa.scalar(b"", pa.binary())
    values = pc.binary_join_element_wise(*pieces, nothing, null_handling="replace", null_replacement="")
    values = pc.if_else(pc.is_valid(lengths), values, pa.scalar(None, pa.binary()))
    if not pc.all(pc.equal(pc.cast(pc.binary_length(values), pa.int64()), lengths)).as_py():
        raise UnreadableRow(
            f"column `{column.column.name}` cannot be read: the pieces of a value do not make up its length",
            state=NOT_READ,
            hint="the database's character set cuts this text in another way; name the column in no rule, or copy it "
            "into a RAW or BLOB and name that one, with its `encoding`",
        )
    return values
