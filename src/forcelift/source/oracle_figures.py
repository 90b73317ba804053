"""How Oracle counts what a column holds.

Different values nearly by APPROX_COUNT_DISTINCT, which is there since 12.1.0.2. LOBs can be neither compared nor
counted by value (ORA-00932), a LONG can stand in no expression at all, and an empty text is a null.
"""

from __future__ import annotations

from typing import Final

import oracledb
import pyarrow as pa

from forcelift.protocols.source import ColumnKind
from forcelift.source.figures import SHOWN_MAX, Dialect, FigureColumn
from forcelift.source.names import quote
from forcelift.source.oracle_columns import OracleColumn

_APPROXIMATE_SINCE: Final = (12, 1, 0, 2)
_NUMBER: Final = "TO_CHAR({}, 'TM9', 'NLS_NUMERIC_CHARACTERS=''.,''')"
_DAY: Final = "TO_CHAR({}, 'SYYYY-MM-DD HH24:MI:SS')"
_MOMENT: Final = "TO_CHAR({}, 'SYYYY-MM-DD HH24:MI:SS.FF6')"
_LOBS: Final = ("CLOB", "NCLOB", "BLOB")


def oracle_dialect(connection: oracledb.Connection) -> Dialect:
    """What this server knows."""
    version = tuple(int(part) for part in connection.version.split(".")[:4])
    return Dialect(approximate="APPROX_COUNT_DISTINCT" if version >= _APPROXIMATE_SINCE else None)


def oracle_figure(one: OracleColumn) -> FigureColumn | None:
    """A column by the values that `read` delivers; None where SQL cannot say, or these come as bytes for a rule."""
    column, quoted, word = one.column, quote(one.column.name), one.column.declared.partition("(")[0]
    if word in ("NUMBER", "FLOAT"):
        # Without a size it is read as text, which may go into a text field.
        length = f"LENGTH({one.expression})" if column.kind is ColumnKind.TEXT else None
        return FigureColumn(column=column, value=quoted, shown=_NUMBER, number=True, length=length)
    if word == "BINARY_DOUBLE":
        value = f"CASE WHEN {quoted} IS NOT NAN AND {quoted} IS NOT INFINITE THEN {quoted} END"
        return FigureColumn(column=column, value=value, present=quoted, shown="TO_CHAR({})", number=True)
    if column.kind in (ColumnKind.TIMESTAMP, ColumnKind.INSTANT):
        shown = _DAY if word == "DATE" else _MOMENT
        return FigureColumn(column=column, value=one.expression, shown=shown)
    if word in _LOBS:
        return FigureColumn(column=column, value=None, present=quoted, length=f"DBMS_LOB.GETLENGTH({quoted})")
    if word == "RAW":
        return FigureColumn(column=column, value=None, present=quoted, length=f"UTL_RAW.LENGTH({quoted})")
    if column.kind is not ColumnKind.TEXT or not pa.types.is_string(column.arrow) or word in _NOT_IN_SQL:
        return None
    shown = f"SUBSTR(TO_CHAR({{}}), 1, {SHOWN_MAX})"
    return FigureColumn(column=column, value=one.expression, shown=shown, length=f"LENGTH({one.expression})")


_NOT_IN_SQL: Final = ("LONG", "XMLTYPE", "JSON")
