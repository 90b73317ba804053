"""Ranges of date literals."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forcelift.twin.soql.dates import day_range

DAYS = st.dates(date(1900, 1, 1), date(2200, 12, 31))
UNITS = ["DAY", "WEEK", "MONTH", "QUARTER", "YEAR"]


@pytest.mark.parametrize(
    ("literal", "start", "end"),
    [
        ("today", (2026, 2, 18), (2026, 2, 19)),
        ("LAST_WEEK", (2026, 2, 8), (2026, 2, 15)),
        ("THIS_WEEK", (2026, 2, 15), (2026, 2, 22)),
        ("LAST_MONTH", (2026, 1, 1), (2026, 2, 1)),
        ("NEXT_QUARTER", (2026, 4, 1), (2026, 7, 1)),
        ("THIS_FISCAL_YEAR", (2026, 1, 1), (2027, 1, 1)),
        ("LAST_90_DAYS", (2025, 11, 20), (2026, 2, 19)),
        ("NEXT_90_DAYS", (2026, 2, 19), (2026, 5, 20)),
        ("LAST_N_DAYS:1", (2026, 2, 17), (2026, 2, 19)),
        ("NEXT_N_DAYS:1", (2026, 2, 19), (2026, 2, 20)),
        ("LAST_N_MONTHS:2", (2025, 12, 1), (2026, 2, 1)),
        ("N_DAYS_AGO:2", (2026, 2, 16), (2026, 2, 17)),
        ("LAST_N_FISCAL_QUARTERS:1", (2025, 10, 1), (2026, 1, 1)),
        ("N_YEARS_AGO:3", (2023, 1, 1), (2024, 1, 1)),
    ],
)
def test_literals_of_a_wednesday(literal: str, start: tuple[int, int, int], end: tuple[int, int, int]) -> None:
    days = day_range(literal, date(2026, 2, 18))
    assert days is not None
    assert (days.start, days.end) == (date(*start), date(*end))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(today=DAYS, unit=st.sampled_from(UNITS[1:]), count=st.integers(1, 40))
def test_units_meet_without_gap(today: date, unit: str, count: int) -> None:
    last, this, following = (day_range(f"{way}_{unit}", today) for way in ("LAST", "THIS", "NEXT"))
    assert last is not None
    assert this is not None
    assert following is not None
    assert last.end == this.start <= today < this.end == following.start
    before, after = day_range(f"LAST_N_{unit}S:{count}", today), day_range(f"NEXT_N_{unit}S:{count}", today)
    assert before is not None
    assert after is not None
    assert (before.end, after.start) == (this.start, this.end)
    assert day_range(f"LAST_N_{unit}S:1", today) == last
    assert day_range(f"N_{unit}S_AGO:1", today) == last


@settings(max_examples=100, deadline=None, derandomize=True)
@given(today=DAYS, count=st.integers(0, 4000))
def test_days_run_through_today(today: date, count: int) -> None:
    days = day_range(f"LAST_N_DAYS:{count}", today)
    assert days is not None
    assert (days.start, days.end) == (today - timedelta(days=count), today + timedelta(days=1))


@given(text=st.text(max_size=20))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_other_words_are_no_date_literals(text: str) -> None:
    found = day_range(text, date(2026, 1, 1))
    assert found is None or text.upper() in ("TODAY", "YESTERDAY", "TOMORROW")
