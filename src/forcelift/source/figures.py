"""Figures of a table's columns, counted by its database: the checklist's profiling query for every column.

One statement for up to `COLUMNS_MAX` columns takes rows, nulls, extremes, averages, lengths and different values in one
pass. Another for each `SETS_MAX` columns that have few different values counts these by GROUPING SETS, which is one
pass too, and makes their number exact. Each adapter says how a column is compared and shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

from msgspec import Struct

from forcelift.protocols.source import Column, ColumnFigures, ColumnKind, SourceTable, TableFigures

COLUMNS_MAX: Final = 100
"""Oracle selects at most 1,000 columns, PostgreSQL 1,664, SQLite 2,000; each column here takes up to eight."""

SETS_MAX: Final = 12
"""Columns that are counted value by value in one statement: each takes a hash table of its own."""

FEW: Final = 4_500
"""Columns with about so many different values at most have them counted one by one."""

TOP: Final = 5
SHOWN_MAX: Final = 120
"""Longer texts are cut, as everywhere in a profile."""

Rows = list[tuple[Any, ...]]


class FigureColumn(Struct, frozen=True, kw_only=True):
    """How SQL sees a column.

    Attributes:
        value: What is compared and counted; None where the database compares no such values (LOBs).
        present: What is not null where the row has a value, if `value` may be null there too.
        shown: Makes text of a value: an SQL expression with `{0}` for it.
        number: Whether `value` has an average.
        averaged: What it is the average of: an SQL expression with `{}` for the value.
        length: The length in characters, or in bytes of what is no text.
        unless: What is above 0 for a value that the database cannot count rightly: the column is then left out.
    """

    column: Column
    value: str | None
    present: str | None = None
    shown: str = "{}"
    number: bool = False
    averaged: str = "{}"
    length: str | None = None
    unless: str | None = None


class Dialect(Struct, frozen=True, kw_only=True):
    """What databases say differently.

    Attributes:
        approximate: The function that counts different values nearly, and its name in words; None if there is none.
        average: SQL of the average of `{}`, as a number or as text.
        by_sets: Whether it knows GROUPING SETS.
        readable: Makes a Python text of what `shown` gave.
    """

    approximate: str | None = None
    average: str = "AVG({})"
    by_sets: bool = True
    readable: Callable[[Any], str] = str


def figures_of(
    table: SourceTable,
    columns: Sequence[FigureColumn],
    *,
    dialect: Dialect,
    exact: Collection[str],
    tails: Sequence[str],
    ask: Callable[[str], Rows],
) -> TableFigures:
    """Ask for the figures.

    Args:
        exact: Columns whose different values are counted one by one whatever it costs.
        tails: FROM and WHERE of the slices that are looked at.
        ask: Runs a query and gives all its rows.
    """
    unique = {names[0] for names in (table.primary_key, *table.unique_keys) if len(names) == 1}
    statements, rows = 0, 0
    found: dict[str, ColumnFigures] = {}
    for start in range(0, max(len(columns), 1), COLUMNS_MAX):
        part = columns[start : start + COLUMNS_MAX]
        query = _first_query(part, tails, dialect, exact=exact, unique=unique)
        (line,) = ask(query)
        values = iter(line)
        rows = int(next(values))
        read = [_read(one, values, dialect, exact=exact, unique=unique) for one in part]
        told = {place: figures for place, figures in enumerate(read) if figures is not None}
        few = [place for place, one in told.items() if one.distinct is not None and 0 < one.distinct <= FEW]
        statements += 1
        for first in range(0, len(few), SETS_MAX):
            statements += 1
            _count_few(part, told, few[first : first + SETS_MAX], tails, dialect, ask)
        found |= {figures.name: figures for figures in told.values()}
    near = [one for one in found.values() if not one.distinct_is_exact and one.distinct is not None]
    return TableFigures(rows=rows, columns=found, told=_told(statements, dialect, is_near=bool(near)))


def _told(statements: int, dialect: Dialect, *, is_near: bool) -> str:
    said = f"by the database itself, in {statements} SQL statement{'s' if statements > 1 else ''}"
    if is_near:
        said += f"; different values marked as about are by {dialect.approximate}"
    return said


def _inner(columns: Sequence[FigureColumn], tails: Sequence[str], *, only: Collection[int] | None = None) -> str:
    """A subquery with `v0`, `p0`, `l0`, ... for the columns."""
    parts: list[str] = []
    for place, one in enumerate(columns):
        if only is not None and place not in only:
            continue
        if one.value is not None:
            parts.append(f'{one.value} AS "v{place}"')
        if only is None and one.present is not None:
            parts.append(f'CASE WHEN {one.present} IS NOT NULL THEN 1 END AS "p{place}"')
        if only is None and one.length is not None:
            parts.append(f'{one.length} AS "l{place}"')
        if only is None and one.unless is not None:
            parts.append(f'{one.unless} AS "u{place}"')
    listed = ", ".join(parts) or '1 AS "one"'
    return " UNION ALL ".join(f"SELECT {listed} {tail}" for tail in tails)


def _first_query(
    columns: Sequence[FigureColumn],
    tails: Sequence[str],
    dialect: Dialect,
    *,
    exact: Collection[str],
    unique: Collection[str],
) -> str:
    wanted = ["COUNT(*)"]
    for place, one in enumerate(columns):
        value, length = f'"v{place}"', f'"l{place}"'
        wanted.append(f"COUNT({value})" if one.present is None else f'COUNT("p{place}")')
        if one.value is not None:
            wanted += [one.shown.format(f"{name}({value})") for name in ("MIN", "MAX")]
            if one.column.name not in unique:
                near = None if one.column.name in exact else dialect.approximate
                wanted.append(f"COUNT(DISTINCT {value})" if near is None else f"{near}({value})")
            if one.number:
                wanted.append(dialect.average.format(one.averaged.format(value)))
        if one.length is not None:
            wanted += [f"MIN({length})", f"MAX({length})", dialect.average.format(length)]
        if one.unless is not None:
            wanted.append(f'MAX("u{place}")')
    return f"SELECT {', '.join(wanted)} FROM ({_inner(columns, tails)}) t"


def _read(
    one: FigureColumn, values: Iterator[Any], dialect: Dialect, *, exact: Collection[str], unique: Collection[str]
) -> ColumnFigures | None:
    name = one.column.name
    figures = ColumnFigures(name=name, present=int(next(values)))
    if one.value is not None:
        least, most = (_in_seconds(one, _shown(one, next(values), dialect)) for _ in range(2))
        distinct = figures.present if name in unique else int(next(values))
        figures = figures.evolve(
            least=least,
            most=most,
            distinct=min(distinct, figures.present),
            distinct_is_exact=not figures.present or name in exact or name in unique or dialect.approximate is None,
            average=_finite(next(values)) if one.number else None,
        )
    if one.length is not None:
        shortest, longest, average = (next(values) for _ in range(3))
        if shortest is not None:
            figures = figures.evolve(shortest=int(shortest), longest=int(longest), average_length=_finite(average))
    return None if one.unless is not None and next(values) else figures


def _count_few(
    columns: Sequence[FigureColumn],
    told: dict[int, ColumnFigures],
    few: Sequence[int],
    tails: Sequence[str],
    dialect: Dialect,
    ask: Callable[[str], Rows],
) -> None:
    """Count the values of these columns, and put what is found into `told`."""
    counted: dict[int, list[tuple[str, int]]] = {place: [] for place in few}
    groups = dict.fromkeys(few, 0)
    query = _sets_query(columns, few, tails) if dialect.by_sets else _single_queries(columns, few, tails)
    for place, value, rows, different in ask(query):
        shown = _shown(columns[int(place)], value, dialect)
        if shown is not None:
            counted[int(place)].append((_canonical(columns[int(place)], shown), int(rows)))
            groups[int(place)] = int(different)
    for place in few:
        # Of a value that is left out because it cannot be shown the number stays what it was.
        if groups[place]:
            told[place] = told[place].evolve(
                distinct=groups[place], distinct_is_exact=True, top=tuple(counted[place][:TOP])
            )


def _sets_query(columns: Sequence[FigureColumn], few: Sequence[int], tails: Sequence[str]) -> str:
    places = " ".join(f'WHEN GROUPING("v{place}") = 0 THEN {place}' for place in few)
    texts = " ".join(
        f'WHEN GROUPING("v{place}") = 0 THEN ' + columns[place].shown.format(f'"v{place}"') for place in few
    )
    sets = ", ".join(f'("v{place}")' for place in few)
    grouped = (
        f'SELECT CASE {places} END AS "place", CASE {texts} END AS "shown", COUNT(*) AS "n"'
        f" FROM ({_inner(columns, tails, only=few)}) t GROUP BY GROUPING SETS ({sets})"
    )
    ranked = (
        'SELECT "place", "shown", "n", COUNT(*) OVER (PARTITION BY "place") AS "different",'
        ' ROW_NUMBER() OVER (PARTITION BY "place" ORDER BY "n" DESC, "shown") AS "rank"'
        f' FROM ({grouped}) g WHERE "shown" IS NOT NULL'
    )
    return f'SELECT "place", "shown", "n", "different" FROM ({ranked}) r WHERE "rank" <= {TOP} ORDER BY "place", "rank"'


def _single_queries(columns: Sequence[FigureColumn], few: Sequence[int], tails: Sequence[str]) -> str:
    parts = []
    for place in few:
        value = f'"v{place}"'
        parts.append(
            f'SELECT * FROM (SELECT {place} AS "place", {columns[place].shown.format(value)} AS "shown",'
            f' COUNT(*) AS "n", COUNT(*) OVER () AS "different" FROM ({_inner(columns, tails, only=(place,))}) t'
            f' WHERE {value} IS NOT NULL GROUP BY {value} ORDER BY "n" DESC, "shown" LIMIT {TOP})'
        )
    return " UNION ALL ".join(parts)


def _shown(one: FigureColumn, value: Any, dialect: Dialect) -> str | None:
    if value is None:
        return None
    text = dialect.readable(value)
    kind = one.column.kind
    if kind is ColumnKind.BOOLEAN:
        return "true" if text in ("1", "true", "t") else "false"
    if one.number:
        return f"{float(text):.15g}" if kind is ColumnKind.FLOAT else format(Decimal(text), "f")
    if kind is ColumnKind.INSTANT:
        return f"{_without_zeros(text.strip())}+00:00"
    if kind is ColumnKind.TIMESTAMP:
        return _without_zeros(text.strip())
    return text.strip() if kind is ColumnKind.DATE else text[:SHOWN_MAX]


def _in_seconds(one: FigureColumn, text: str | None) -> str | None:
    """An extreme as it is shown: moments to the second."""
    is_moment = one.column.kind in (ColumnKind.TIMESTAMP, ColumnKind.INSTANT)
    return re.sub(r"\.[0-9]+", "", text) if text is not None and is_moment else text


def _without_zeros(moment: str) -> str:
    """A moment without the last zeros of its seconds' fraction."""
    return re.sub(r"\.?0+(?= BC$|$)", "", moment) if "." in moment else moment


def _canonical(one: FigureColumn, text: str) -> str:
    """A value as text in canonical form, as the rules write it."""
    if one.number:
        plain = format(Decimal(text), "f")
        plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
        return "0" if plain in ("-0", "") else plain
    if one.column.kind is ColumnKind.TIMESTAMP:
        return text.replace(" ", "T", 1)
    return text.replace(" ", "T", 1).replace("+00:00", "Z") if one.column.kind is ColumnKind.INSTANT else text


def _finite(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None
