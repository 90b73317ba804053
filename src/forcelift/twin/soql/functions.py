"""The functions of SOQL: aggregates, parts of dates, labels and local formats, each as a DuckDB expression."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from forcelift.twin.soql.views import Category, Operand

_NUMERIC: Final = (Category.INT, Category.NUMBER)
_ORDERED: Final = (*_NUMERIC, Category.TEXT, Category.ID, Category.DATE, Category.DATETIME, Category.TIME)
# Which kinds of field each aggregate takes.
AGGREGATES: Final = {
    "COUNT": (*_ORDERED, Category.BOOLEAN),
    "COUNT_DISTINCT": (*_ORDERED, Category.BOOLEAN),
    "SUM": _NUMERIC,
    "AVG": _NUMERIC,
    "MIN": _ORDERED,
    "MAX": _ORDERED,
}
# Currencies and time zones are one, in this org.
TRANSPARENT: Final = frozenset({"CONVERTCURRENCY", "CONVERTTIMEZONE"})
# Functions whose result may stand in the SELECT list of a plain query, under an alias or the field's own name.
DISPLAYED: Final = frozenset({"TOLABEL", "FORMAT", "CONVERTCURRENCY"})
# Weeks begin on Sunday; week 1 of a month or year is its first seven days; the fiscal year is the calendar year.
DATE_PARTS: Final = {
    "CALENDAR_YEAR": "year({0})",
    "CALENDAR_QUARTER": "quarter({0})",
    "CALENDAR_MONTH": "month({0})",
    "FISCAL_YEAR": "year({0})",
    "FISCAL_QUARTER": "quarter({0})",
    "FISCAL_MONTH": "month({0})",
    "DAY_IN_YEAR": "dayofyear({0})",
    "DAY_IN_MONTH": "day({0})",
    "DAY_IN_WEEK": "(dayofweek({0}) + 1)",
    "WEEK_IN_YEAR": "((dayofyear({0}) - 1) // 7 + 1)",
    "WEEK_IN_MONTH": "((day({0}) - 1) // 7 + 1)",
    "HOUR_IN_DAY": "hour({0})",
    "DAY_ONLY": "CAST({0} AS DATE)",
}


def aggregate(name: str, inner: Operand, position: int) -> Operand:
    """An aggregate function of a field."""
    return Operand(
        sql=_aggregate_sql(name, inner),
        category=_aggregate_category(name, inner.category),
        name=f"{name}({inner.name})",
        keys=inner.keys,
        position=position,
        is_aggregate=True,
        case_sensitive=inner.case_sensitive,
    )


def _aggregate_sql(name: str, inner: Operand) -> str:
    folds = inner.category is Category.TEXT and not inner.case_sensitive
    if folds and name == "COUNT_DISTINCT":
        return f"count(DISTINCT lower({inner.sql}))"
    if folds and name in ("MIN", "MAX"):
        # The least text is the one that ORDER BY puts first: in folded case, then as written.
        return f"arg_{name.lower()}({inner.sql}, (lower({inner.sql}), {inner.sql}))"
    return f"count(DISTINCT {inner.sql})" if name == "COUNT_DISTINCT" else f"{name.lower()}({inner.sql})"


def _aggregate_category(name: str, inner: Category) -> Category:
    if name in ("COUNT", "COUNT_DISTINCT"):
        return Category.INT
    return Category.NUMBER if name in ("SUM", "AVG") else inner


def grouping(inner: Operand, position: int) -> Operand:
    """GROUPING(field): 1 in the subtotal rows of ROLLUP and CUBE in which the field is summed over, else 0."""
    return Operand(
        sql=f"grouping({inner.sql})",
        category=Category.INT,
        name=f"GROUPING({inner.name})",
        keys=inner.keys,
        position=position,
        is_aggregate=True,
    )


def label(inner: Operand) -> Operand:
    """toLabel(picklist): labels in place of values. A value without an entry is its own label."""
    if all(value == shown for value, shown in inner.labels):
        return inner
    cases = " ".join(f"WHEN {_constant(value)} THEN {_constant(shown)}" for value, shown in inner.labels)
    sql = f"CASE {inner.sql} {cases} ELSE {inner.sql} END"
    if inner.is_multi:
        entries = f"list_transform(string_split({inner.sql}, ';'), lambda e: CASE e {cases} ELSE e END)"
        sql = f"array_to_string({entries}, ';')"
    return replace(inner, sql=sql, labels=())


def formatted(inner: Operand) -> Operand:
    """FORMAT(field): numbers and dates as a user of locale en_US, in UTC and dollars, sees them."""
    match inner.category:
        case Category.NUMBER:
            sign = "$" if inner.type == "currency" else ""
            shown = f"format('{{:,.{inner.scale}f}}', abs(CAST({inner.sql} AS DOUBLE)))"
            sql = f"CASE WHEN {inner.sql} < 0 THEN '-' ELSE '' END || '{sign}' || {shown}"
            sql += " || '%'" if inner.type == "percent" else ""
        case Category.INT:
            sql = f"format('{{:,}}', CAST({inner.sql} AS BIGINT))"
        case Category.DATE:
            sql = f"strftime({inner.sql}, '%-m/%-d/%Y')"
        case Category.DATETIME:
            sql = f"strftime({inner.sql}, '%-m/%-d/%Y, %-I:%M %p')"
        case Category.TIME:
            sql = f"strftime(DATE '1970-01-01' + {inner.sql}, '%-I:%M %p')"
        case _:
            return replace(inner, is_filterable=False)
    return replace(
        inner, sql=sql, category=Category.TEXT, type="", labels=(), is_exact=False, is_filterable=False,
        is_sortable=False, is_groupable=False,
    )  # fmt: skip


def _constant(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
