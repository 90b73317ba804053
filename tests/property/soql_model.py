"""A model of SOQL in plain Python, for comparison: conditions, order and groups over lists of dicts.

It shares nothing with the twin. A condition is a pair: its SOQL, and a predicate of a record. Truth has two values, as
in SOQL: a comparison with a null field is false, but `!=`, NOT IN and EXCLUDES hold for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

Record = dict[str, Any]
TODAY = date(2026, 2, 1)  # a Sunday
STATES = ["Open", "Closed", "Also"]  # the picklist's entries, in their order
TEXTS = ["a", "A", "ab", "aB", "b%", "b_c", "x\\y", "it's", "ไทย", "Zed", "10"]
TAGS = ["A", "B", "C"]
DAYS = [TODAY + timedelta(days=offset) for offset in (-800, -366, -32, -8, -7, -1, 0, 1, 6, 7, 28, 400)]
MOMENTS = [datetime.combine(day, clock) for day in DAYS for clock in (time(0), time(23, 59, 59))]
AMOUNTS = [Decimal(text) for text in ("-1000000", "-0.01", "0", "0.5", "1", "1.25", "99999999")]
COUNTS = [-5, 0, 1, 2, 3, 1000]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the model: how it is drawn, compared and written."""

    name: str
    values: Sequence[Any]
    exact: bool = False
    ordered: bool = True
    kind: str = "value"

    def get(self, record: Record) -> Any:
        value: Any = record
        for part in self.name.split("."):
            value = None if value is None else value.get(part)
        return value

    def fold(self, value: Any) -> Any:
        return value.lower() if isinstance(value, str) and not self.exact else value


FIELDS = [
    Field("Name", TEXTS),
    Field("Code__c", TEXTS, exact=True),
    Field("Tenant__r.Name", TEXTS),
    Field("Status__c", [*STATES, "Odd"]),
    Field("Amount__c", AMOUNTS),
    Field("Count__c", COUNTS),
    Field("Day__c", DAYS, kind="day"),
    Field("At__c", MOMENTS, kind="moment"),
    Field("Ok__c", [True, False], ordered=False, kind="flag"),
]
BY_NAME = {field.name: field for field in FIELDS}


def literal(value: Any) -> str:
    """A value as SOQL writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, datetime):
        return value.isoformat() + "Z"
    return str(value)


@dataclass(frozen=True, slots=True)
class Condition:
    """SOQL and what it means."""

    soql: str
    holds: Callable[[Record], bool]


ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


def equal(field: Field, record: Record, value: Any) -> bool:
    return field.fold(field.get(record)) == field.fold(value)


def _compare(field: Field, operator: str, value: Any) -> Condition:
    soql = f"{field.name} {operator} {literal(value)}"
    if operator == "=":
        return Condition(soql, lambda record: equal(field, record, value))
    if operator == "!=":
        return Condition(soql, lambda record: not equal(field, record, value))
    ordered = ORDERINGS[operator]

    def holds(record: Record) -> bool:
        stored = field.get(record)
        return stored is not None and value is not None and ordered(field.fold(stored), field.fold(value))

    return Condition(soql, holds)


@st.composite
def comparisons(draw: st.DrawFn) -> Condition:
    field = draw(st.sampled_from(FIELDS))
    operator = draw(st.sampled_from(["=", "!=", *(ORDERINGS if field.ordered else ())]))
    values = st.sampled_from(field.values)
    return _compare(field, operator, draw(values if operator in ORDERINGS or not field.ordered else values | st.none()))


@st.composite
def lists(draw: st.DrawFn) -> Condition:
    field = draw(st.sampled_from([field for field in FIELDS if field.ordered]))
    values = draw(st.lists(st.sampled_from(field.values) | st.none(), min_size=1, max_size=4))
    negated = draw(st.booleans())
    soql = f"{field.name} {'NOT IN' if negated else 'IN'} ({', '.join(map(literal, values))})"
    return Condition(soql, lambda record: any(equal(field, record, value) for value in values) is not negated)


@st.composite
def likes(draw: st.DrawFn) -> Condition:
    field = draw(st.sampled_from([BY_NAME["Name"], BY_NAME["Code__c"], BY_NAME["Tenant__r.Name"]]))
    pieces = draw(st.lists(st.sampled_from(["%", "_", "a", "B", "\\%", "\\_", "\\\\", "'", "ไ", "z"]), max_size=4))
    # An escaped piece means itself; quotes are escaped in the literal only.
    expression = "".join(
        {"%": ".*", "_": "."}.get(piece) or re.escape(piece.removeprefix("\\") or "\\") for piece in pieces
    )
    pattern = re.compile(expression, re.DOTALL if field.exact else re.DOTALL | re.IGNORECASE)
    text = "".join("\\'" if piece == "'" else piece for piece in pieces)

    def holds(record: Record) -> bool:
        stored = field.get(record)
        return stored is not None and pattern.fullmatch(stored) is not None

    return Condition(f"{field.name} LIKE '{text}'", holds)


@st.composite
def multis(draw: st.DrawFn) -> Condition:
    groups = draw(st.lists(st.lists(st.sampled_from(TAGS), min_size=1, max_size=2), min_size=1, max_size=2))
    excluded = draw(st.booleans())
    listed = ", ".join(f"'{';'.join(group)}'" for group in groups)

    def includes(record: Record) -> bool:
        held = (record["Tags__c"] or "").split(";")
        return any(all(tag in held for tag in group) for group in groups)

    operator = "EXCLUDES" if excluded else "INCLUDES"
    return Condition(f"Tags__c {operator} ({listed})", lambda record: includes(record) is not excluded)


def _month(first: date, shift: int) -> date:
    months = first.year * 12 + first.month - 1 + shift
    return date(months // 12, months % 12 + 1, 1)


def date_ranges() -> dict[str, tuple[date, date]]:
    """Some date literals as first day and the day after the last."""
    day, month = timedelta(days=1), TODAY.replace(day=1)
    week = TODAY  # a Sunday begins its week
    return {
        "TODAY": (TODAY, TODAY + day),
        "YESTERDAY": (TODAY - day, TODAY),
        "TOMORROW": (TODAY + day, TODAY + 2 * day),
        "THIS_WEEK": (week, week + 7 * day),
        "LAST_WEEK": (week - 7 * day, week),
        "THIS_MONTH": (month, _month(month, 1)),
        "LAST_MONTH": (_month(month, -1), month),
        "THIS_QUARTER": (date(2026, 1, 1), date(2026, 4, 1)),
        "LAST_YEAR": (date(2025, 1, 1), date(2026, 1, 1)),
        "NEXT_YEAR": (date(2027, 1, 1), date(2028, 1, 1)),
        "LAST_N_DAYS:8": (TODAY - 8 * day, TODAY + day),
        "NEXT_N_DAYS:7": (TODAY + day, TODAY + 8 * day),
        "LAST_90_DAYS": (TODAY - 90 * day, TODAY + day),
        "N_DAYS_AGO:8": (TODAY - 8 * day, TODAY - 7 * day),
        "LAST_N_MONTHS:2": (_month(month, -2), month),
        "N_YEARS_AGO:1": (date(2025, 1, 1), date(2026, 1, 1)),
    }


@st.composite
def moments(draw: st.DrawFn) -> Condition:
    field = draw(st.sampled_from([BY_NAME["Day__c"], BY_NAME["At__c"]]))
    name = draw(st.sampled_from(sorted(date_ranges())))
    operator = draw(st.sampled_from(["=", "!=", *ORDERINGS]))
    first, after = date_ranges()[name]

    def holds(record: Record) -> bool:
        stored = field.get(record)
        if stored is None:
            return operator == "!="
        day = stored.date() if isinstance(stored, datetime) else stored
        return {
            "=": first <= day < after,
            "!=": not first <= day < after,
            "<": day < first,
            "<=": day < after,
            ">": day >= after,
            ">=": day >= first,
        }[operator]

    return Condition(f"{field.name} {operator} {name}", holds)


@st.composite
def date_parts(draw: st.DrawFn) -> Condition:
    parts: dict[str, Callable[[Any], int]] = {
        "CALENDAR_YEAR": lambda day: day.year,
        "CALENDAR_MONTH": lambda day: day.month,
        "CALENDAR_QUARTER": lambda day: (day.month + 2) // 3,
        "DAY_IN_MONTH": lambda day: day.day,
        "DAY_IN_WEEK": lambda day: day.isoweekday() % 7 + 1,
        "DAY_IN_YEAR": lambda day: day.timetuple().tm_yday,
    }
    field = draw(st.sampled_from([BY_NAME["Day__c"], BY_NAME["At__c"]]))
    name = draw(st.sampled_from(sorted(parts)))
    number = draw(st.sampled_from([1, 2, 4, 31, 32, 2025, 2026]))

    def holds(record: Record) -> bool:
        stored = field.get(record)
        return stored is not None and parts[name](stored) == number

    return Condition(f"{name}({field.name}) = {number}", holds)


def _joined(operator: str, terms: Sequence[Condition]) -> Condition:
    soql = f"({f' {operator} '.join(term.soql for term in terms)})"
    decide = all if operator == "AND" else any
    return Condition(soql, lambda record: decide(term.holds(record) for term in terms))


def conditions() -> st.SearchStrategy[Condition]:
    single = st.one_of(comparisons(), comparisons(), lists(), likes(), multis(), moments(), date_parts())
    return st.recursive(
        single,
        lambda inner: st.one_of(
            inner.map(lambda term: Condition(f"NOT ({term.soql})", lambda record: not term.holds(record))),
            st.builds(_joined, st.sampled_from(["AND", "OR"]), st.lists(inner, min_size=2, max_size=3)),
        ),
        max_leaves=6,
    )


def sort_value(field: Field, value: Any) -> Any:
    """What ORDER BY compares: picklists by their entries, other values after them by their text."""
    if field.name == "Status__c":
        return (STATES.index(value) if value in STATES else len(STATES), field.fold(value))
    return field.fold(value)


@dataclass(frozen=True, slots=True)
class Order:
    """A key of ORDER BY."""

    field: Field
    descending: bool
    nulls_last: bool

    @property
    def soql(self) -> str:
        return (
            f"{self.field.name} {'DESC' if self.descending else 'ASC'} NULLS {'LAST' if self.nulls_last else 'FIRST'}"
        )


def orders() -> st.SearchStrategy[list[Order]]:
    key = st.builds(Order, st.sampled_from(FIELDS), st.booleans(), st.booleans())
    return st.lists(key, max_size=3, unique_by=lambda order: order.field.name)


def in_order(records: Sequence[Record], keys: Sequence[Order]) -> list[Record]:
    """The records as ORDER BY puts them; equal ones by Id."""
    found = sorted(records, key=lambda record: record["Id"])
    for key in reversed(keys):
        nulls = [record for record in found if key.field.get(record) is None]
        rest = [record for record in found if key.field.get(record) is not None]
        # `reverse` keeps equal records in their order, as a further key must.
        rest.sort(key=lambda record, key=key: sort_value(key.field, key.field.get(record)), reverse=key.descending)
        found = rest + nulls if key.nulls_last else nulls + rest
    return found


RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "Name": st.sampled_from(TEXTS) | st.none(),
            "Code__c": st.sampled_from(TEXTS) | st.none(),
            "Status__c": st.sampled_from([*STATES, "Odd"]) | st.none(),
            "Amount__c": st.sampled_from(AMOUNTS) | st.none(),
            "Count__c": st.sampled_from(COUNTS) | st.none(),
            "Day__c": st.sampled_from(DAYS) | st.none(),
            "At__c": st.sampled_from(MOMENTS) | st.none(),
            "Ok__c": st.booleans(),
            "Tags__c": st.sampled_from([None, "A", "B", "A;B", "A;C", "A;B;C"]),
            "Tenant__r": st.sampled_from([None, *({"Name": name} for name in TEXTS[:4]), {"Name": None}]),
        }
    ),
    min_size=1,
    max_size=25,
)
