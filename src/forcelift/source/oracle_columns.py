"""A column of an Oracle table: as the dictionary has it, and as it is read."""

from __future__ import annotations

import pyarrow as pa
from msgspec import Struct

from forcelift.protocols.source import Column


class Declared(Struct, frozen=True, kw_only=True):
    """A column as ALL_TAB_COLS has it. `characters` is 0 for what is no text."""

    name: str
    type: str
    owner: str | None
    length: int
    precision: int | None
    scale: int | None
    nullable: bool
    characters: int = 0
    comment: str | None = None


class OracleColumn(Struct, frozen=True, kw_only=True):
    """A column, the SQL that delivers it, the Arrow type asked of the driver, and about how many bytes it takes.

    Of a value in pieces, `expression` is the length and `pieces` are the bytes, one SQL each; of a `lob` whose bytes
    are wanted, its SQL, cut into pieces once the longest value of a slice is known.
    """

    column: Column
    expression: str
    asked: pa.DataType
    width: int
    pieces: tuple[str, ...] = ()
    lob: str = ""
