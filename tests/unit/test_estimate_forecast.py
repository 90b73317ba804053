"""The forecast: the org's day, the plan's hours, the load order, and that no row is lost between tables and days."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forcelift.before.estimate import CALENDAR_DAYS_MAX, Allowance, Counted, TableSize, forecast
from forcelift.cli.estimate_view import days_text
from forcelift.plan.windows import parse_hours

MIDNIGHT = datetime(2026, 12, 5, tzinfo=UTC)
DAY_ROWS = 150_000_000


def _size(table: str, rows: int, *, group: int = 0, chunk_rows: int = 200_000, **more: object) -> TableSize:
    values = {"object": f"{table}__c", "operation": "upsert", "row_bytes": 400.0, "counted": Counted.COUNTED, **more}
    return TableSize(table=table, group=group, rows=rows, chunk_rows=chunk_rows, **values)  # type: ignore[arg-type]


def test_the_checklists_rows_take_more_than_three_days_at_the_cap() -> None:
    sizes = [
        _size("SALES", 261_000_000),
        _size("SALESPAY", 109_000_000, group=1),
        _size("OTHERS", 111_000_000, group=2),
    ]
    foretold = forecast(sizes, Allowance(rows_per_day=DAY_ROWS), begins_at=MIDNIGHT)
    assert foretold.rows == 481_000_000
    assert foretold.shortest_days == pytest.approx(481 / 150)
    assert float(days_text(foretold.shortest_days)) >= 3.2
    assert [day.total for day in foretold.days] == [DAY_ROWS, DAY_ROWS, DAY_ROWS, 31_000_000]
    assert foretold.expected_seconds is None, "without a rate nothing is said about the expected time"


def test_a_fast_machine_is_held_back_by_the_cap_and_a_slow_one_by_its_rate() -> None:
    size = [_size("SALES", 300_000_000)]
    fast = forecast(size, Allowance(rows_per_day=DAY_ROWS, rate=50_000), begins_at=MIDNIGHT)
    slow = forecast(size, Allowance(rows_per_day=DAY_ROWS, rate=1_000), begins_at=MIDNIGHT)
    assert fast.expected_seconds == pytest.approx(2 * 86_400)
    assert slow.expected_seconds == pytest.approx(300_000)
    assert slow.shortest_days == fast.shortest_days == 2.0


def test_rows_sent_in_the_last_day_are_taken_from_the_first() -> None:
    allowance = Allowance(rows_per_day=DAY_ROWS, spent=100_000_000)
    foretold = forecast([_size("SALES", 200_000_000)], allowance, begins_at=MIDNIGHT)
    assert [day.total for day in foretold.days] == [50_000_000, 150_000_000]


def test_hours_of_the_plan_hold_the_allowance_of_a_day() -> None:
    hours = parse_hours("22:00-06:00 Asia/Bangkok")
    begins = datetime(2026, 12, 5, 20, tzinfo=ZoneInfo("Asia/Bangkok"))
    foretold = forecast(
        [_size("SALES", 100_000_000)], Allowance(rows_per_day=DAY_ROWS, rate=2_000, hours=hours), begins_at=begins
    )
    # 57.6 million rows a night: two nights, the second until 3:53.
    assert foretold.ends_at is not None
    assert foretold.ends_at - datetime(2026, 12, 7, 3, 53, tzinfo=begins.tzinfo) < timedelta(minutes=2)
    assert foretold.tables[0].begins_at == datetime(2026, 12, 5, 22, tzinfo=begins.tzinfo)


def test_parents_come_first_and_in_a_rollback_last() -> None:
    sizes = [_size("PARENT", 60_000_000), _size("CHILD", 90_000_000, group=1)]
    allowance = Allowance(rows_per_day=DAY_ROWS, rate=10_000)
    load = forecast(sizes, allowance, begins_at=MIDNIGHT)
    undo = forecast(sizes, allowance, begins_at=MIDNIGHT, is_undo=True)
    assert [one.size.table for one in load.tables] == ["PARENT", "CHILD"]
    assert [one.size.table for one in undo.tables] == ["CHILD", "PARENT"]
    for one in (load, undo):
        first, second = one.tables
        assert first.ends_at == second.begins_at
    assert undo.tables[0].staging_bytes < load.tables[1].staging_bytes, "a delete sends Ids alone"


def test_rows_of_a_link_pass_are_sent_twice() -> None:
    plain = forecast([_size("T", 1_000_000)], Allowance(rows_per_day=DAY_ROWS), begins_at=MIDNIGHT)
    linked = forecast([_size("T", 1_000_000, has_links=True)], Allowance(rows_per_day=DAY_ROWS), begins_at=MIDNIGHT)
    assert (linked.rows, linked.rows_sent) == (1_000_000, 2_000_000)
    assert linked.tables[0].jobs == 2 * plain.tables[0].jobs


def test_small_chunks_use_up_the_days_salesforce_batches() -> None:
    size = _size("T", 30_000_000, chunk_rows=1_000)
    foretold = forecast([size], Allowance(rows_per_day=DAY_ROWS), begins_at=MIDNIGHT)
    assert foretold.tables[0].salesforce_batches == 30_000
    assert foretold.shortest_days == 2.0
    assert [day.salesforce_batches for day in foretold.days] == [15_000, 15_000]


def test_the_lower_bound_of_all_tables_is_of_rows_and_of_batches_and_not_of_both() -> None:
    """One table is near the day's rows, the other near the day's Salesforce batches: one day takes both."""
    by_rows, by_batches = _size("ROWS", 45_000_000), _size("BATCHES", 5_000_000, chunk_rows=500)
    foretold = forecast([by_rows, by_batches], Allowance(rows_per_day=50_000_000), begins_at=MIDNIGHT)
    assert [one.shortest_days for one in foretold.tables] == [0.9, pytest.approx(10_000 / 15_000)]
    assert foretold.shortest_days == 1.0
    assert foretold.ends_at is not None
    assert foretold.ends_at - MIDNIGHT >= timedelta(days=foretold.shortest_days)


def test_what_to_expect_of_a_table_is_never_less_than_what_the_org_allows() -> None:
    """At 4,000 rows/s 481 million rows take 33 hours by the machine, and the org's rolling day makes 77 of them."""
    foretold = forecast(
        [_size("SMALL", 1_000), _size("LARGE", 481_000_000)],
        Allowance(rows_per_day=DAY_ROWS, rate=4_000),
        begins_at=MIDNIGHT,
    )
    small, large = foretold.tables
    assert large.expected_seconds is not None
    assert large.expected_seconds >= large.shortest_days * 86_400 - 1
    assert small.expected_seconds is not None
    assert foretold.expected_seconds == pytest.approx(small.expected_seconds + large.expected_seconds, abs=1)


def test_a_table_without_rows_takes_no_time_and_no_job() -> None:
    foretold = forecast([_size("EMPTY", 0, row_bytes=0.0)], Allowance(rows_per_day=DAY_ROWS), begins_at=MIDNIGHT)
    (table,) = foretold.tables
    assert (table.jobs, table.salesforce_batches, table.api_calls, foretold.shortest_days) == (0, 0, 0, 0.0)
    assert foretold.days == ()


def test_a_load_of_years_ends_the_calendar_and_says_so() -> None:
    allowance = Allowance(rows_per_day=DAY_ROWS, rate=1)
    foretold = forecast([_size("T", 100_000_000)], allowance, begins_at=MIDNIGHT)
    assert foretold.ends_at is None
    assert foretold.expected_seconds == math.inf
    assert CALENDAR_DAYS_MAX <= len(foretold.days) <= CALENDAR_DAYS_MAX + 1


@given(
    st.lists(st.tuples(st.integers(0, 400_000_000), st.integers(1_000, 500_000)), min_size=1, max_size=6),
    st.integers(1_000_000, DAY_ROWS),
    st.one_of(st.none(), st.floats(500, 1e6)),
    st.integers(0, 23),
)
def test_days_hold_every_row_once_and_keep_the_allowance(
    tables: list[tuple[int, int]], rows_per_day: int, rate: float | None, hour: int
) -> None:
    sizes = [_size(f"T{number}", rows, chunk_rows=chunk) for number, (rows, chunk) in enumerate(tables)]
    allowance = Allowance(rows_per_day=rows_per_day, rate=rate)
    foretold = forecast(sizes, allowance, begins_at=MIDNIGHT + timedelta(hours=hour))
    assert all(day.total <= rows_per_day + len(sizes) for day in foretold.days)
    assert all(day.salesforce_batches <= 15_000 + len(sizes) for day in foretold.days)
    if foretold.ends_at is None:
        return
    for size in sizes:
        assert sum(day.rows.get(size.table, 0) for day in foretold.days) == size.rows
    took_days = (foretold.ends_at - foretold.begins_at).total_seconds() / 86_400
    assert took_days >= foretold.rows_sent / rows_per_day - 1e-6


@pytest.mark.parametrize(
    ("more", "saved"),
    [({}, 2 * 4), ({"has_links": True}, 2 * 8), ({"operation": "insert"}, 0), ({"row_bytes": 4_000.0}, 2)],
    ids=["tiny", "twice", "insert", "only the last is tiny"],
)
def test_a_tiny_upsert_is_one_call_instead_of_three(more: dict[str, object], saved: int) -> None:
    """Three chunks of 100 rows and one of 20."""
    size = [_size("SMALL", 320, chunk_rows=100, **more)]
    usual, at_once = (
        forecast(size, Allowance(rows_per_day=DAY_ROWS), begins_at=MIDNIGHT, one_call=one_call).api_calls
        for one_call in (False, True)
    )
    assert usual - at_once == saved
