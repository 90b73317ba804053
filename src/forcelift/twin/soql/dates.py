"""Date literals: `TODAY`, `LAST_N_DAYS:30`, `THIS_FISCAL_QUARTER` as ranges of whole days."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta

_DAY = timedelta(days=1)
_NAMED = re.compile(r"(THIS|LAST|NEXT)_(WEEK|MONTH|QUARTER|YEAR)")
_COUNTED = re.compile(r"(LAST|NEXT)_N_(DAY|WEEK|MONTH|QUARTER|YEAR)S:([0-9]+)")
_AGO = re.compile(r"N_(DAY|WEEK|MONTH|QUARTER|YEAR)S_AGO:([0-9]+)")
_MONTHS = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRange:
    """Days from `start` up to and without `end`."""

    start: date
    end: date


def day_range(literal: str, today: date) -> DayRange | None:
    """The days a date literal means, or None if there is no such literal.

    Args:
        literal: As written, in any case. The fiscal year is taken to be the calendar year.
        today: The current day of the user; weeks begin on Sunday, as in an en_US org.
    Raises:
        OverflowError: The range lies outside the calendar.
    Source:
        Salesforce SOQL and SOSL Reference, "Date Formats and Date Literals in WHERE".
    """
    name = literal.upper().replace("_FISCAL_", "_")
    fixed = {"YESTERDAY": -1, "TODAY": 0, "TOMORROW": 1}
    if name in fixed:
        day = today + fixed[name] * _DAY
        return DayRange(start=day, end=day + _DAY)
    if name in ("LAST_90_DAYS", "NEXT_90_DAYS"):
        name = name.replace("90_DAYS", "N_DAYS:90")
    if match := _NAMED.fullmatch(name):
        shift = {"THIS": 0, "LAST": -1, "NEXT": 1}[match[1]]
        return DayRange(start=_start(match[2], today, shift), end=_start(match[2], today, shift + 1))
    if match := _COUNTED.fullmatch(name):
        return _counted(match[1], match[2], int(match[3]), today)
    if match := _AGO.fullmatch(name):
        count = int(match[2])
        return DayRange(start=_start(match[1], today, -count), end=_start(match[1], today, 1 - count))
    return None


def _counted(direction: str, unit: str, count: int, today: date) -> DayRange:
    """LAST_N_DAYS runs through today; longer units leave the current one out."""
    if direction == "LAST":
        return DayRange(start=_start(unit, today, -count), end=_start(unit, today, 1 if unit == "DAY" else 0))
    return DayRange(start=_start(unit, today, 1), end=_start(unit, today, 1 + count))


def _start(unit: str, today: date, shift: int) -> date:
    """The first day of the unit that lies `shift` units after the current one."""
    if unit == "DAY":
        return today + shift * _DAY
    if unit == "WEEK":
        return today - ((today.weekday() + 1) % 7) * _DAY + 7 * shift * _DAY
    length = _MONTHS[unit]
    months = (today.year * 12 + today.month - 1) // length * length + shift * length
    year, month = divmod(months, 12)
    if not 1 <= year <= 9999:
        raise OverflowError(f"year {year} is outside the calendar")
    return date(year, month + 1, 1)
