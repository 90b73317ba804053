"""Hours in which a batch may work: days, midnight, and clocks that are set forward and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from forcelift.plan.windows import parse_hours, parse_window


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_over_midnight_and_within_a_day() -> None:
    night = parse_window("22:00-06:00 Asia/Bangkok")
    inside = [night.contains(datetime(2024, 1, 1, hour, tzinfo=UTC)) for hour in (14, 15, 22, 23)]
    assert inside == [False, True, True, False]
    day = parse_window(" 08:30 - 17:00  UTC ")
    assert day.contains(at("2024-01-01T08:30"))
    assert not day.contains(at("2024-01-01T08:29:59"))
    assert day.contains(at("2024-01-01T16:59:59"))
    assert not day.contains(at("2024-01-01T17:00"))


def test_days_are_those_on_which_the_hours_begin() -> None:
    friday = parse_window("Fri 22:00-06:00 UTC")  # 2024-01-05 is a Friday
    assert not friday.contains(at("2024-01-05T05:00"))
    assert friday.contains(at("2024-01-05T22:00"))
    assert friday.contains(at("2024-01-06T05:59"))
    assert not friday.contains(at("2024-01-06T22:00"))
    over_sunday = parse_window("sat-mon 00:00-24:00 UTC")
    assert [over_sunday.contains(at(f"2024-01-{day:02}T12:00")) for day in range(4, 11)] == [
        *(False, False),
        *(True, True, True),
        *(False, False),
    ]
    assert parse_window("Mon-Fri, Sun 01:00-02:00 UTC").days == {0, 1, 2, 3, 4, 6}


def test_the_next_opening() -> None:
    hours = parse_hours(["Mon-Fri 22:00-06:00 UTC", "Sat 12:00-13:00 UTC"])
    assert hours.next_open(at("2024-01-05T21:59:59")) == at("2024-01-05T22:00")
    assert hours.next_open(at("2024-01-06T06:00")) == at("2024-01-06T12:00")
    assert hours.next_open(at("2024-01-06T13:00:01")) == at("2024-01-08T22:00")
    assert hours.text == "Mon-Fri 22:00-06:00 UTC; Sat 12:00-13:00 UTC"


def test_hours_that_summer_time_leaves_out_do_not_come() -> None:
    """In Berlin, 2024-03-31 goes from 02:00 to 03:00 at once."""
    gone = parse_hours("02:15-02:45 Europe/Berlin")
    assert gone.next_open(at("2024-03-30T12:00")) == at("2024-04-01T00:15")
    cut = parse_hours("02:30-03:30 Europe/Berlin")
    assert cut.next_open(at("2024-03-30T12:00")) == at("2024-03-31T01:00")
    assert not cut.contains(at("2024-03-31T01:30"))


def test_hours_that_come_twice_count_both_times() -> None:
    """In Berlin, 2024-10-27 has the hour from 02:00 to 03:00 twice."""
    twice = parse_hours("02:00-02:30 Europe/Berlin")
    inside = [minute for minute in range(0, 120, 10) if twice.contains(at("2024-10-27T00:00") + minute * MINUTE)]
    assert inside == [0, 10, 20, 60, 70, 80]
    assert twice.next_open(at("2024-10-27T00:30")) == at("2024-10-27T01:00")


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "22:00-06:00",
        "24:00-06:00 UTC",
        "22:00-24:01 UTC",
        "1:00-2:00 UTC",
        "01:60-02:00 UTC",
        "01:00-02:00 Nowhere",
        "01:00-01:00 UTC",
        "Someday 01:00-02:00 UTC",
        "Mon- 01:00-02:00 UTC",
        "Mon,,Tue 01:00-02:00 UTC",
    ],
)
def test_windows_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"hours|hour|zone|days"):
        parse_window(text)


def test_no_windows_are_none() -> None:
    with pytest.raises(ValueError, match="no hours"):
        parse_hours([])
