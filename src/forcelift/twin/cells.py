"""Cells of an upload to typed values, with the error that a bad one gives its row. No database is read.

Values in the forms that loaders send are read by polars, column by column. Rows with any other form, and rows that look
wrong, are few: DuckDB gives them a second look by the expressions of `values`, which decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import duckdb
import polars as pl

from forcelift.twin import values
from forcelift.twin.columns import Column
from forcelift.twin.schema import FieldSchema

_FIRST_DAY: Final = date(1700, 1, 1)
_LAST_DAY: Final = date(4000, 12, 31)
_DATE: Final = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_DATETIME: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z$"
_EMAIL: Final = r'^[^\s@<>(),;:\\"\[\]]+@[^\s@<>(),;:\\"\[\]]+\.[^\s@.<>(),;:\\"\[\]]+$'
_SUPPLEMENTARY: Final = r"[\x{10000}-\x{10FFFF}]"
_POLARS_TYPES: Final = {
    "boolean": pl.Boolean(),
    "int": pl.Int64(),
    "date": pl.Date(),
    "datetime": pl.Datetime("us"),
    "time": pl.Time(),
}

Connect = Callable[[], duckdb.DuckDBPyConnection]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What is known of all cells together; it spares looks at each. The defaults are always right."""

    carriage_returns: bool = True
    supplementary: bool = True
    """Characters beyond U+FFFF, which count twice in the length of a text."""


def read_cells(
    cells: pl.DataFrame, columns: Sequence[Column], *, connect: Connect, traits: Traits | None = None
) -> pl.DataFrame:
    """Read the cells of all rows.

    Args:
        cells: Text columns `c0`, `c1`, ...; never null.
        columns: What each of them means.
        connect: Gives a DuckDB connection for rows that need a second look; it is closed at the end.
        traits: What is known of the cells.
    Returns:
        For each column `g` (is it given: not empty) and `v` (its value, null for `#N/A`), and `error` in the form of
        `sf__Error`, null for a good row; and `c`, the cell itself, of keys of parents that are no text. Rows keep their
        order.
    """
    traits = traits or Traits()
    chosen = [pl.all()]
    for column in columns:
        chosen.append((pl.col(column.cell) != "").alias(column.given))
        chosen.append(_value(column.kind, pl.col(column.cell), traits).alias(column.value))
    frame = cells.lazy().select(chosen).collect()
    odd = _unread(frame, columns)
    if odd is not None:
        frame = _read_again(frame, odd, columns, connect)
    frame = frame.with_columns(error=_errors(frame, columns, connect, traits))
    kept = [column.cell for column in columns if column.key is not None and not column.key.is_text]
    return frame.drop([column.cell for column in columns if column.cell not in kept])


def _value(field: FieldSchema, cell: pl.Expr, traits: Traits) -> pl.Expr:
    if field.is_text:
        return values.text_value(cell, carriage_returns=traits.carriage_returns)
    match field.type:
        case "boolean":
            lower = cell.str.to_lowercase()
            return (
                pl.when(lower.is_in(["true", "1", "yes", "y"]))
                .then(True)
                .when(lower.is_in(["false", "0", "no", "n"]) | (cell == values.NULL_TEXT))
                .then(False)
            )
        case "int":
            return pl.when(cell.str.contains("^-?[0-9]{1,15}$")).then(cell).cast(pl.Int64, strict=False)
        case "date":
            return pl.when(cell.str.contains(_DATE)).then(cell).str.to_date("%Y-%m-%d", strict=False)
        case "datetime":
            moment = pl.when(cell.str.contains(_DATETIME)).then(cell.str.slice(0, 19))
            return moment.str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False, time_unit="us")
        case "id" | "reference":
            return pl.when(cell.str.len_chars() == 18).then(cell)
        case "time":
            return pl.lit(None, dtype=pl.Time)
    fraction = rf"(\.[0-9]{{1,{field.scale}}})?" if field.scale else ""
    plain = pl.when(cell.str.contains(f"^-?[0-9]{{1,15}}{fraction}$")).then(cell)
    return plain.cast(polars_type(field), strict=False)


def polars_type(field: FieldSchema) -> pl.DataType:
    """The type of a field's values in a frame, as DuckDB's type of its column."""
    if field.is_number:
        return pl.Decimal(18 if field.precision <= 18 else 38, field.scale)
    return _POLARS_TYPES.get(field.type, pl.String())


def _unread(frame: pl.DataFrame, columns: Sequence[Column]) -> pl.Series | None:
    """Rows with a cell that says something but gave no value; None if there is none."""
    found: pl.Series | None = None
    for column in columns:
        if column.kind.is_text or frame[column.value].null_count() == 0:
            continue
        odd = frame.select(_says_something(column) & pl.col(column.value).is_null()).to_series()
        if odd.any():
            found = odd if found is None else found | odd
    return found


def _says_something(column: Column) -> pl.Expr:
    return pl.col(column.given) & (pl.col(column.cell) != values.NULL_TEXT)


def _read_again(frame: pl.DataFrame, odd: pl.Series, columns: Sequence[Column], connect: Connect) -> pl.DataFrame:
    """The frame with the values of the odd rows by DuckDB's expressions, which know every form."""
    numbered = frame.with_row_index("place")
    replaced = [
        f"{values.parsed(column.kind, column.cell)} AS {column.value}" for column in columns if not column.kind.is_text
    ]
    again = _asked(connect, numbered.filter(odd), f"SELECT * REPLACE ({', '.join(replaced)}) FROM twin_odd")
    again = again.cast({column.value: polars_type(column.kind) for column in columns if not column.kind.is_text})
    return pl.concat([numbered.filter(~odd), again.select(numbered.columns)]).sort("place").drop("place")


def _asked(connect: Connect, rows: pl.DataFrame, query: str) -> pl.DataFrame:
    connection = connect()
    try:
        connection.register("twin_odd", rows.to_arrow())
        answer = pl.from_arrow(connection.sql(query).to_arrow_table())
    finally:
        connection.close()
    assert isinstance(answer, pl.DataFrame)  # a table of several columns always is one
    return answer.with_columns(pl.col(pl.UInt32, pl.Int32).cast(pl.UInt32))


def _errors(frame: pl.DataFrame, columns: Sequence[Column], connect: Connect, traits: Traits) -> pl.Series:
    """Errors of type, length and picklist. Only rows that look suspect get a second look."""
    suspects = []
    errors = []
    for column in columns:
        if column.key is not None:
            continue  # A key that is not of its field's type matches no parent, which is the error to tell.
        suspects += _suspect(column, frame, traits)
        found = values.value_errors(column.field, column.cell, column.value)
        if found:
            errors.append("CASE " + " ".join(f"WHEN {condition} THEN {error}" for condition, error in found) + " END")
    none = pl.Series("error", [None], dtype=pl.String).new_from_index(0, frame.height)
    if not suspects or frame.is_empty():
        return none
    suspect = frame.select(pl.any_horizontal(suspects).fill_null(False)).to_series()
    if not suspect.any():
        return none
    rows = frame.with_row_index("place").filter(suspect)
    told = _asked(connect, rows, f"SELECT place, nullif(concat({', '.join(errors)}), '') AS error FROM twin_odd")
    places = frame.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("place"))
    return places.join(told, on="place", how="left", maintain_order="left")["error"]


def _suspect(column: Column, frame: pl.DataFrame, traits: Traits) -> list[pl.Expr]:
    """Conditions, one of which holds for every cell that `values.value_errors` finds fault with."""
    field, value = column.field, pl.col(column.value)
    found: list[pl.Expr] = []
    if not field.is_text:
        if frame[column.value].null_count():
            found.append(value.is_null() & _says_something(column))
        if field.type == "int" or field.is_number:
            limit = values.number_limit(field)
            if limit is not None:
                found.append(value.cast(pl.Float64).abs() >= limit * 0.999)
        elif field.type == "date":
            found.append((value < _FIRST_DAY) | (value > _LAST_DAY))
        elif field.type == "datetime":
            found.append(~value.dt.year().is_between(1700, 4000))
        return found
    if field.length:
        size = value.str.len_chars()
        if traits.supplementary:
            size = size + value.str.count_matches(_SUPPLEMENTARY)
        longest = frame.select(value.str.len_bytes().max()).item()
        if longest is not None and longest > field.length:
            found.append(size > field.length)
    if field.type == "email":
        found.append(~value.str.contains(_EMAIL))
    if field.restricted_picklist:
        # A multipicklist's entries are split by DuckDB; a single entry that is allowed needs no second look.
        found.append(~value.is_in(list(field.active_values)))
    return found
