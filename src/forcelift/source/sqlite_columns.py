"""How a SQLite column becomes one Arrow array: the SQL that reads it, the SQL that finds misfits, the assembly.

SQLite stores any class of value in any column, and its ADBC driver fixes a column's type by the first row of a query.
So each column is read as one or two physical columns of one storage class each, behind a first row of known types that
is dropped again. A value whose class does not fit the declaration is null in all its parts, and is found by counting: a
row's values that are not null in the table must be as many as those in the parts. Then the column is read with parts
for misfits too (`with_misfit_parts`), which only a table that needs them pays for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from forcelift.protocols.source import Column, ColumnKind
from forcelift.source.broken_text import bytes_as_text
from forcelift.source.misfits import with_misfits
from forcelift.source.names import quote
from forcelift.source.types import SQLITE_DECIMAL, SQLITE_DECIMAL_LIMIT

_INTEGER, _REAL, _TEXT, _BLOB = "0", "0.5", "''", "X''"
_FLOAT_INTEGER_MAX = 2**53


class Reading(Struct, frozen=True, kw_only=True):
    """How one column is read.

    `parts` are pairs of a literal of the storage class and the SQL expression; a value shows in exactly one part, a
    misfit in none. `misfit` is an SQL condition, true for a value that the column's type cannot hold; `build` makes the
    column from the arrays of the parts.
    """

    parts: tuple[tuple[str, str], ...]
    misfit: str
    build: Callable[[Sequence[pa.Array]], pa.Array]


def reading(column: Column, *, text_affinity: bool) -> Reading:
    """How to read a column. `text_affinity`: SQLite itself turns numbers into text when they are stored there."""
    name = quote(column.name)
    if column.kind is ColumnKind.TEXT:
        return _text(name, raw=pa.types.is_binary(column.arrow), text_affinity=text_affinity)
    return _BY_KIND[column.kind](name)


def with_misfit_parts(column: Column, how: Reading, *, raw_text: bool) -> Reading:
    """A reading that delivers misfits too.

    In a column of text or bytes they become what the column holds: numbers their digits, bytes the text they spell. In
    any other the array holds them beside the values (`with_misfits`).

    Args:
        how: The column's `reading`.
        raw_text: The table's text is not UTF-8: a misfit's bytes are left for a rule to decode.
    """
    name = quote(column.name)
    as_text = "('integer')" if raw_text else "('integer', 'text')"
    parts = (
        (_REAL, f"CASE WHEN ({how.misfit}) AND typeof({name}) = 'real' THEN {name} END"),
        (_TEXT, f"CASE WHEN ({how.misfit}) AND typeof({name}) IN {as_text} THEN CAST({name} AS TEXT) END"),
        (
            _BLOB,
            f"CASE WHEN ({how.misfit}) AND typeof({name}) IN ('text', 'blob') AND NOT typeof({name}) IN {as_text}"
            f" THEN CAST({name} AS BLOB) END",
        ),
    )
    own = len(how.parts)

    def build(arrays: Sequence[pa.Array]) -> pa.Array:
        values = how.build(arrays[:own])
        reals, texts, raw = arrays[own:]
        texts = pc.coalesce(texts, bytes_as_text(raw, is_raw=raw_text))
        if column.kind not in (ColumnKind.TEXT, ColumnKind.BINARY):
            return with_misfits(values, reals=reals, texts=texts)
        return pc.coalesce(values, texts.cast(values.type), reals.cast(pa.string()).cast(values.type))

    return Reading(parts=(*how.parts, *parts), misfit="0", build=build)


def _only(name: str, storage: str) -> str:
    return f"CASE WHEN typeof({name}) = '{storage}' THEN {name} END"


def _text(name: str, *, raw: bool, text_affinity: bool) -> Reading:
    target, literal, arrow = ("BLOB", _BLOB, pa.binary()) if raw else ("TEXT", _TEXT, pa.string())
    misfit = "0" if raw else f"typeof({name}) = 'blob'"
    readable = "('text', 'integer', 'blob')" if raw else "('text', 'integer')"
    text = f"CASE WHEN typeof({name}) IN {readable} THEN CAST({name} AS {target}) END"
    if text_affinity and not raw:
        return Reading(
            parts=((literal, _only(name, "text")),), misfit=f"typeof({name}) NOT IN ('text', 'null')", build=_first
        )
    # SQLite's own CAST(real AS TEXT) keeps 15 digits; Arrow writes the shortest text that gives the same number again.
    return Reading(
        parts=((literal, text), (_REAL, _only(name, "real"))),
        misfit=misfit,
        build=lambda arrays: pc.coalesce(arrays[0], arrays[1].cast(pa.string()).cast(arrow)),
    )


def _integer(name: str) -> Reading:
    return Reading(
        parts=((_INTEGER, _only(name, "integer")),), misfit=f"typeof({name}) NOT IN ('integer', 'null')", build=_first
    )


def _float(name: str) -> Reading:
    exact = f"{name} BETWEEN -{_FLOAT_INTEGER_MAX} AND {_FLOAT_INTEGER_MAX}"
    value = (
        f"CASE typeof({name}) WHEN 'real' THEN {name}"
        f" WHEN 'integer' THEN CASE WHEN {exact} THEN CAST({name} AS REAL) END END"
    )
    return Reading(
        parts=((_REAL, value),),
        misfit=f"typeof({name}) IN ('text', 'blob') OR (typeof({name}) = 'integer' AND NOT {exact})",
        build=_first,
    )


def _boolean(name: str) -> Reading:
    fits = f"typeof({name}) = 'integer' AND {name} IN (0, 1)"
    return Reading(
        parts=((_INTEGER, f"CASE WHEN {fits} THEN {name} END"),),
        misfit=f"{name} IS NOT NULL AND NOT ({fits})",
        build=lambda arrays: arrays[0].cast(pa.bool_()),
    )


def _decimal(name: str) -> Reading:
    wide = f"({name} >= {SQLITE_DECIMAL_LIMIT} OR {name} <= -{SQLITE_DECIMAL_LIMIT})"
    return Reading(
        parts=(
            (_INTEGER, _only(name, "integer")),
            (_REAL, f"CASE WHEN typeof({name}) = 'real' AND NOT {wide} THEN {name} END"),
        ),
        misfit=f"typeof({name}) IN ('text', 'blob') OR (typeof({name}) = 'real' AND {wide})",
        build=lambda arrays: pc.coalesce(arrays[0].cast(SQLITE_DECIMAL), _real_to_decimal(arrays[1])),
    )


def _binary(name: str) -> Reading:
    return Reading(
        parts=((_BLOB, f"CASE WHEN typeof({name}) IN ('blob', 'text') THEN CAST({name} AS BLOB) END"),),
        misfit=f"typeof({name}) IN ('integer', 'real')",
        build=_first,
    )


_BY_KIND: dict[ColumnKind, Callable[[str], Reading]] = {
    ColumnKind.INTEGER: _integer,
    ColumnKind.FLOAT: _float,
    ColumnKind.BOOLEAN: _boolean,
    ColumnKind.DECIMAL: _decimal,
    ColumnKind.BINARY: _binary,
}


def _first(arrays: Sequence[pa.Array]) -> pa.Array:
    return arrays[0]


def _real_to_decimal(reals: pa.Array) -> pa.Array:
    """The shortest decimal of each double, cut after 19 decimals.

    Source: a double has at most 17 significant digits, so one of at least 1e-19 has at most 36 decimals and fits
    decimal256(76, 38) exactly; a smaller one is nothing but zeros in its first 18 decimals.
    """
    if reals.null_count == len(reals):
        return pa.nulls(len(reals), SQLITE_DECIMAL)
    kept = pc.if_else(pc.less(pc.abs(reals), 1e-19), 0.0, reals)
    exact = kept.cast(pa.string()).cast(pa.decimal256(76, 38))
    return exact.cast(options=pc.CastOptions(target_type=SQLITE_DECIMAL, allow_decimal_truncate=True))
