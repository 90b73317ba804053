"""How SQLite counts what a column holds.

SQLite stores any class of value in any column: those that the column's type cannot hold are counted as present and left
out of all other figures, as they are where the rows are read. Different values are
counted exactly, for want of another way.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

from forcelift.protocols.source import Column, ColumnKind
from forcelift.source.figures import SHOWN_MAX, Dialect, FigureColumn
from forcelift.source.names import quote


def _readable(value: Any) -> str:
    """What came in hexadecimal: a text may hold any bytes, and the driver gives up on those that are not UTF-8."""
    return bytes.fromhex(str(value).removeprefix("x")).decode("utf-8", errors="replace")


_FINITE_MOST: Final = "1.7976931348623157e308"

SQLITE_FIGURES: Final = Dialect(average="AVG({})", by_sets=False, readable=_readable)


def sqlite_figure(column: Column) -> FigureColumn | None:
    """A column by the values that `read` delivers; None where these come as bytes that a rule decodes."""
    quoted = quote(column.name)
    match column.kind:
        case ColumnKind.TEXT:
            if not pa.types.is_string(column.arrow):
                return None
            # An expression has no collation of its own, so that texts compare by their bytes.
            value = f"CAST({quoted} AS TEXT)"
            shown = f"CASE WHEN {{0}} IS NOT NULL THEN 'x' || hex(substr({{0}}, 1, {SHOWN_MAX})) END"
            # At a NUL a text ends for SQLite's own functions.
            nul = f"instr(CAST({quoted} AS BLOB), x'00')"
            return FigureColumn(column=column, value=value, shown=shown, length=f"length({value})", unless=nul)
        case ColumnKind.BINARY:
            return FigureColumn(column=column, value=None, present=quoted, length=f"length(CAST({quoted} AS BLOB))")
        case ColumnKind.INTEGER:
            fits = f"typeof({quoted}) = 'integer'"
        case ColumnKind.BOOLEAN:
            fits = f"typeof({quoted}) = 'integer' AND {quoted} IN (0, 1)"
        case _:
            fits = f"typeof({quoted}) IN ('integer', 'real') AND {quoted} BETWEEN -{_FINITE_MOST} AND {_FINITE_MOST}"
    return FigureColumn(
        column=column,
        value=f"CASE WHEN {fits} THEN {quoted} END",
        present=quoted,
        # For SQLite the hexadecimal form of null is an empty text.
        shown="CASE WHEN {0} IS NOT NULL THEN hex(CAST({0} AS TEXT)) END",
        number=column.kind is not ColumnKind.BOOLEAN,
    )
