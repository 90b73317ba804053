"""The governor: fewer jobs on locks, pauses while the org is busy, more jobs when all is clean."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from forcelift.jobs.governor import HOLD_MAX_S, LIMIT_HOLD_S, Governor

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def governor(jobs_max: int = 8, reserve: int = 100) -> Governor:
    return Governor(jobs_max=jobs_max, api_calls_reserve=reserve, rng=random.Random(1))


def test_locks_halve_the_jobs_and_clean_ones_bring_them_back_one_by_one() -> None:
    one = governor()
    one.job_done(rows=1000, locked=50)
    assert one.allowed == 4
    one.job_done(rows=1000, locked=50)
    one.job_done(rows=1000, locked=50)
    one.job_done(rows=1000, locked=50)
    assert one.allowed == 1
    for _ in range(2 * 7):
        one.job_done(rows=1000, locked=0)
    assert one.allowed == 8
    one.job_done(rows=1000, locked=0)
    one.job_done(rows=1000, locked=0)
    assert one.allowed == 8, "never more than the plan allows"


def test_a_stray_lock_in_a_large_job_changes_nothing() -> None:
    one = governor()
    one.job_done(rows=100_000, locked=3)
    assert one.allowed == 8


def test_pauses_grow_while_the_org_is_away_and_end_with_its_first_answer() -> None:
    one, now, pauses = governor(), NOW, []
    for _ in range(12):
        one.org_failed(now, "503")
        assert one.hold is not None
        pauses.append((one.hold.until - now).total_seconds())
        now = one.hold.until
        assert not one.holds(now)
    assert pauses[0] < 2
    assert pauses[-1] <= HOLD_MAX_S * 1.25
    assert pauses[-1] > 10 * pauses[0]
    one.org_answered(now, api_requests_left=5000)
    one.org_failed(now, "503")
    assert one.hold is not None
    assert (one.hold.until - now).total_seconds() < 2


def test_the_reserve_of_api_calls_is_left_to_others() -> None:
    one = governor(reserve=1000)
    one.org_answered(NOW, api_requests_left=1001)
    assert not one.holds(NOW)
    one.org_answered(NOW, api_requests_left=1000)
    assert one.holds(NOW)
    assert one.hold is not None
    assert one.hold.until == NOW + timedelta(seconds=LIMIT_HOLD_S)
    assert "1,000 API requests are left" in one.hold.reason


def test_a_throttle_is_the_lower_of_both_ceilings() -> None:
    one = governor(jobs_max=5)
    assert one.may_start(NOW, open_jobs=4, throttle=None)
    assert not one.may_start(NOW, open_jobs=5, throttle=None)
    assert not one.may_start(NOW, open_jobs=2, throttle=2)
    assert one.may_start(NOW, open_jobs=4, throttle=9)


def test_decisions_are_told_once() -> None:
    one = governor()
    one.job_done(rows=10, locked=10)
    one.limit_reached(NOW, "used up")
    told = one.take_decisions()
    assert len(told) == 2
    assert "8 -> 4" in told[0]
    assert "used up" in told[1]
    assert one.take_decisions() == []


def test_a_budget_that_is_used_up_keeps_new_jobs_back_and_nothing_else() -> None:
    one = governor()
    one.budget_refused(NOW + timedelta(hours=2), "150,000,000 rows a day")
    assert not one.may_start(NOW, open_jobs=0, throttle=None)
    assert not one.holds(NOW), "jobs at work are still polled and collected"
    assert one.may_start(NOW + timedelta(hours=2), open_jobs=0, throttle=None)
