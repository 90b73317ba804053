"""How PostgreSQL counts what a column holds: different values exactly, since it has no other way of its own."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from forcelift.protocols.source import ColumnKind
from forcelift.source.figures import SHOWN_MAX, Dialect, FigureColumn
from forcelift.source.names import quote
from forcelift.source.postgresql_types import PostgresColumn

POSTGRESQL_FIGURES: Final = Dialect(average="AVG({})::text")


def postgresql_figure(one: PostgresColumn, *, is_text_sound: bool) -> FigureColumn | None:
    """A column by the values that `read` delivers; None where these come as bytes that a rule decodes.

    Args:
        is_text_sound: The server knows the encoding of its texts, so that it can count their letters.
    """
    column, quoted = one.column, quote(one.column.name)
    is_numeric = column.declared.startswith("numeric")
    if is_numeric or column.kind is ColumnKind.DECIMAL:
        # NaN is greater than all numbers to PostgreSQL, and none to a rule.
        value = f"NULLIF({quoted}, 'NaN'::numeric)"
        # Without a size it is read as text, which may go into a text field.
        length = f"char_length({quoted}::text)" if column.kind is ColumnKind.TEXT else None
        return FigureColumn(column=column, value=value, present=quoted, shown="({})::text", number=True, length=length)
    match column.kind:
        case ColumnKind.INTEGER:
            return FigureColumn(column=column, value=one.expression, shown="({})::text", number=True)
        case ColumnKind.FLOAT:
            infinite = "'NaN'::float8, 'Infinity'::float8, '-Infinity'::float8"
            value = f"CASE WHEN {quoted}::float8 NOT IN ({infinite}) THEN {one.expression} END"
            # The server's own average of floats sums up squares, and stops where these are too large.
            return FigureColumn(
                column=column, value=value, present=quoted, shown="({})::text", number=True, averaged="({})::numeric"
            )
        case ColumnKind.BOOLEAN:
            return FigureColumn(column=column, value=f"{quoted}::int4", shown="({})::text")
        case ColumnKind.BINARY:
            return FigureColumn(column=column, value=None, present=quoted, length=f"octet_length({quoted})")
        case ColumnKind.DATE:
            return FigureColumn(column=column, value=one.expression, shown="({})::text")
        case ColumnKind.TIMESTAMP:
            return FigureColumn(column=column, value=one.expression, shown="({})::text")
        case ColumnKind.INSTANT:
            return FigureColumn(column=column, value=f"({one.expression}) AT TIME ZONE 'UTC'", shown="({})::text")
        case _:
            if not is_text_sound or not pa.types.is_string(column.arrow):
                return None
            # By bytes: a linguistic collation has an order of its own, and some hold texts equal that differ.
            value = f'({one.expression})::text COLLATE "C"'
            shown = f"left({{}}, {SHOWN_MAX})"
            return FigureColumn(column=column, value=value, shown=shown, length=f"char_length({one.expression})")
