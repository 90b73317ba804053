"""Where the time of a batch went: chosen moves of chunks and jobs, and the seconds that each step must get."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from forcelift.after.report.curves import curves, quota_use
from forcelift.after.report.steps import Step, StepShare, StepShares, step_shares, without_pauses
from forcelift.audit.readings import ChunkSpan
from forcelift.audit.step_times import ReservedHour, StepEvent

NOON = datetime(2024, 1, 15, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def event(after: float, action: str, chunk: int | None = 1, job: int | None = None, **payload: Any) -> StepEvent:
    return StepEvent(at=at(after), action=action, audit_id=chunk, job_no=job, payload=payload)


def one_chunk(chunk: int = 1, begin: float = 0) -> list[StepEvent]:
    """10 s of staging, 4 of them cleaning, 1 s of waiting, 2 s to upload, 5 s of org, 1 s to fetch, 1 s to settle."""
    job = chunk * 10
    return [
        event(begin, "chunk_started", chunk),
        event(begin + 10, "chunk_staged", chunk, seconds=10.0, clean_seconds=4.0),
        event(begin + 11, "job_intended", chunk, job),
        event(begin + 12, "job_created", chunk, job),
        event(begin + 13, "job_closed", chunk, job),
        event(begin + 19, "job_collected", chunk, job, seconds=1.0),
        event(begin + 20, "chunk_settled", chunk),
    ]


def shares(events: list[StepEvent], end: float, work: list[tuple[float, float]] | None = None) -> StepShares:
    at_work = [(at(began), at(ended)) for began, ended in work or [(0, end)]]
    return step_shares(sorted(events, key=lambda one: one.at), at_work, NOON, at(end))


def seconds(found: StepShares) -> dict[Step, float]:
    return {one.step: round(one.seconds, 6) for one in found.shares if one.seconds}


def test_the_steps_of_one_chunk() -> None:
    found = shares(one_chunk(), 20)
    assert seconds(found) == {Step.SOURCE: 6, Step.CLEANING: 4, Step.NETWORK: 3, Step.ORG: 6, Step.LEDGER: 1}
    assert found.total == pytest.approx(20)
    assert found.bottleneck is not None
    assert found.bottleneck.step is Step.SOURCE


def test_side_by_side_each_instant_is_split() -> None:
    found = shares([*one_chunk(1, 0), *one_chunk(2, 10)], 30)
    assert found.total == pytest.approx(30)
    sums = {one.step: one.chunk_seconds for one in found.shares}
    assert sums[Step.ORG] == pytest.approx(12)
    assert sums[Step.SOURCE] == pytest.approx(12)
    # Of the ten seconds from 10 to 20 half is the second chunk's staging: 3 s of source, 2 s of cleaning.
    assert seconds(found)[Step.SOURCE] == pytest.approx(6 + 3)
    assert seconds(found)[Step.CLEANING] == pytest.approx(4 + 2)


def test_a_queue_before_a_used_up_day_is_the_quotas() -> None:
    events = one_chunk()
    events[2:] = [event(10.5, "governor", None, decision=_until(1000, "no new jobs", "the day is used up"))] + [
        StepEvent(
            at=one.at + timedelta(seconds=100),
            action=one.action,
            audit_id=1,
            job_no=one.job_no,
            payload=one.payload,
        )
        for one in events[2:]
    ]
    found = seconds(shares(events, 120))
    assert found[Step.QUOTA] == pytest.approx(100.5 + 5)  # and the five of the org's own under the hold
    assert sum(found.values()) == pytest.approx(120)


def _until(end: float, kind: str, reason: str) -> str:
    return f"{kind} until {at(end).isoformat(timespec='seconds')}: {reason}"


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        ("12 API requests are left today and 1,000 are reserved", Step.QUOTA),
        ("the org is busy", Step.ORG),
    ],
)
def test_what_a_hold_counts_for(reason: str, step: Step) -> None:
    idle = [event(20.5, "governor", None, decision=_until(50, "hold", reason))]
    found = seconds(shares([*one_chunk(), *idle, *one_chunk(2, 60)], 80))
    assert found[step] >= 29.5
    assert found[Step.OTHER] == pytest.approx(0.5 + 10)


def test_a_pause_is_no_bottleneck_of_the_org() -> None:
    pause = [event(20, "pause_asked", None), event(50, "resume_asked", None)]
    found = shares([*one_chunk(), *pause, *one_chunk(2, 50)], 70)
    assert seconds(found)[Step.HELD] == pytest.approx(30)
    assert sum(seconds(found).values()) == pytest.approx(70)


def test_hours_outside_the_window_are_held() -> None:
    waits = [
        event(20, "waits", None, waits=[{"kind": "window", "reason": "x", "until": None}]),
        event(30, "waits", None, waits=[]),
    ]
    assert seconds(shares([*one_chunk(), *waits, *one_chunk(2, 30)], 50))[Step.HELD] == pytest.approx(10)


def test_while_no_process_was_at_work_nothing_counts_for_a_step() -> None:
    """Killed while the org had the job; another process goes on a minute later."""
    first = one_chunk()[:5]
    later = [event(79, "job_collected", 1, 10, seconds=1.0), event(80, "chunk_settled", 1)]
    found = seconds(shares([*first, *later], 80, work=[(0, 15), (75, 80)]))
    assert found[Step.STOPPED] == pytest.approx(60)
    assert found[Step.ORG] == pytest.approx(1 + 2 + 3)
    assert sum(found.values()) == pytest.approx(80)


def test_a_part_that_is_sent_again_waits_for_the_org() -> None:
    again = [
        event(40, "job_intended", 1, 11),
        event(41, "job_created", 1, 11),
        event(42, "job_closed", 1, 11),
        event(45, "job_collected", 1, 11, seconds=0.0),
        event(46, "chunk_settled", 1),
    ]
    found = seconds(shares([*one_chunk()[:-1], *again], 46))
    assert found[Step.ORG] == pytest.approx(6 + 21 + 3)
    assert found[Step.LEDGER] == pytest.approx(1)
    assert sum(found.values()) == pytest.approx(46)


def test_holds_that_overlap_count_once() -> None:
    holds = [
        event(10.5, "governor", None, decision=_until(15, "no new jobs", "the day is used up")),
        event(12, "pause_asked", None),
        event(17, "resume_asked", None),
        event(17.5, "governor", None, decision=_until(18, "no new jobs", "again")),
    ]
    found = seconds(shares([*one_chunk(), *holds], 20))
    # The org's time was 10 to 11 in the queue and 13 to 18 at work; the network's 11 to 13 is nobody else's.
    assert found[Step.QUOTA] == pytest.approx(0.5 + 2 + 0.5)
    assert found[Step.HELD] == pytest.approx(2)
    assert found[Step.ORG] == pytest.approx(0.5 + 0.5)
    assert sum(found.values()) == pytest.approx(20)


def test_many_holds_and_chunks_take_no_long_time() -> None:
    """Each piece looks only at the holds that it meets, not at each."""
    events = [one for number in range(5_000) for one in one_chunk(number, number * 20)]
    events += [
        event(number * 20 + 14, "governor", None, decision=_until(number * 20 + 15, "no new jobs", str(number)))
        for number in range(5_000)
    ]
    found = seconds(shares(events, 100_000))
    assert found[Step.QUOTA] == pytest.approx(5_000)
    assert sum(found.values()) == pytest.approx(100_000)


def test_without_events_nothing_is_known() -> None:
    assert step_shares([], [], None, None).bottleneck is None
    assert step_shares([], [], NOON, at(5)).total == 0


def test_curves_spread_rows_over_their_chunks_time() -> None:
    spans = [
        ChunkSpan(began_at=at(0), ended_at=at(10), rows=1000),
        ChunkSpan(began_at=at(5), ended_at=at(10), rows=500),
        ChunkSpan(began_at=at(20), ended_at=at(20), rows=7),
    ]
    found = curves(spans, bins=4)
    assert found is not None
    assert found.rates == pytest.approx((100, 200, 0, 7 / 5))
    assert found.done == pytest.approx((500, 1500, 1500, 1507))
    assert curves([]) is None
    assert curves(spans[2:]) is None


def test_the_fullest_rolling_day() -> None:
    hours = [
        ReservedHour(hour=NOON + timedelta(hours=hour), rows=rows, batches=1)
        for hour, rows in ((0, 100), (23, 50), (24, 70), (47, 10))
    ]
    later = quota_use(hours, since=NOON + timedelta(hours=25), rows_allowed=1000, batches_allowed=15_000)
    assert later.rows == 70 + 10, "the day that was full before the load began is none of its own"
    use = quota_use(hours, since=NOON, rows_allowed=1000, batches_allowed=15_000)
    assert use.rows == 150  # hours 0 and 23; at hour 24 the first has left the day
    assert use.batches == 2
    assert use.share(1, 150_000_000) == "0.01"
    assert use.share(0, 150_000_000) == "0"


def test_pauses_between_batches_are_no_part_of_a_projects_steps() -> None:
    found = StepShares(
        shares=tuple(
            StepShare(step=step, seconds=float(length), chunk_seconds=0.0)
            for step, length in ((Step.SOURCE, 5), (Step.ORG, 10), (Step.STOPPED, 30), (Step.OTHER, 2))
        )
    )
    assert without_pauses(found, 0.0) == found
    assert seconds(without_pauses(found, 20.0)) == {Step.SOURCE: 5, Step.ORG: 10, Step.STOPPED: 10, Step.OTHER: 2}
    assert seconds(without_pauses(found, 31.0)) == {Step.SOURCE: 5, Step.ORG: 10, Step.OTHER: 1}
