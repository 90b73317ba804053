"""How DuckDB counts what a column holds."""

from __future__ import annotations

from typing import Final

from forcelift.protocols.source import Column, ColumnKind
from forcelift.source.figures import SHOWN_MAX, Dialect, FigureColumn
from forcelift.source.names import quote
from forcelift.source.types import duckdb_expression, duckdb_misfit

DUCKDB_FIGURES: Final = Dialect(approximate="approx_count_distinct", average="CAST(AVG({}) AS DOUBLE)")

_SUMMED_DIGITS: Final = 18


def duckdb_figure(column: Column) -> FigureColumn:
    """A column by the values that `read` delivers."""
    quoted, value = quote(column.name), duckdb_expression(column)
    misfit = quoted if duckdb_misfit(column) is not None else None
    match column.kind:
        case ColumnKind.TEXT:
            shown = f"substr(CAST({{}} AS VARCHAR), 1, {SHOWN_MAX})"
            return FigureColumn(column=column, value=value, shown=shown, length=f"length({value})")
        case ColumnKind.BINARY:
            return FigureColumn(column=column, value=None, present=quoted, length=f"octet_length({quoted})")
        case ColumnKind.FLOAT:
            value = f"CASE WHEN isfinite({value}) THEN {value} END"
            return FigureColumn(column=column, value=value, present=quoted, shown="CAST({} AS VARCHAR)", number=True)
        case ColumnKind.INTEGER | ColumnKind.DECIMAL:
            # A sum of numbers with 38 digits has no room in any of DuckDB's integers.
            return FigureColumn(
                column=column,
                value=value,
                present=misfit,
                shown="CAST({} AS VARCHAR)",
                number=True,
                averaged="CAST({} AS DOUBLE)" if (column.precision or 0) > _SUMMED_DIGITS else "{}",
            )
        case ColumnKind.TIMESTAMP | ColumnKind.INSTANT:
            # A time zone's text would end with `+00`.
            shown = "CAST(CAST({} AS TIMESTAMP) AS VARCHAR)"
            return FigureColumn(column=column, value=value, present=misfit, shown=shown)
        case _:
            return FigureColumn(column=column, value=value, shown="CAST({} AS VARCHAR)")
