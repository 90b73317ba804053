"""How often the org is asked about closed jobs, and how late their ends are found: on a clock of the test."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from forcelift.audit.records import JobStep
from forcelift.jobs import polling
from forcelift.jobs.board import Board, EngineSettings
from forcelift.jobs.governor import Governor
from forcelift.jobs.tracks import JobTrack

BEGAN = datetime(2026, 1, 31, tzinfo=UTC)


def make_track(name: str = "Sales__c", rows: int = 200_000) -> JobTrack:
    job = SimpleNamespace(object=name, part=SimpleNamespace(rows=rows), step=JobStep.CLOSED)
    return JobTrack(job=cast("Any", job))


def make_board() -> Board:
    governor = Governor(jobs_max=5, api_calls_reserve=0, rng=random.Random(1))
    return Board(settings=EngineSettings(poll_first_s=0.1, poll_max_s=20.0), governor=governor, tables={})


@dataclass
class Played:
    looks: int = 0
    late_s: list[float] = field(default_factory=list)


def play(*, jobs: int, at_once: int, seconds: float, stagger_s: float) -> Played:
    """Jobs that each take as long, so many at once; the next is closed as soon as an end is found."""
    board, played, left = make_board(), Played(), jobs
    open_jobs: list[JobTrack] = []
    for number in range(min(at_once, left)):
        open_jobs.append(make_track())
        polling.closed(open_jobs[-1], BEGAN + timedelta(seconds=number * stagger_s))
    left -= len(open_jobs)
    while open_jobs:
        now = polling.next_look(board, open_jobs)
        assert now is not None
        played.looks += 1
        for track in list(open_jobs):
            assert track.closed_at is not None
            late_s = (now - track.closed_at).total_seconds() - seconds
            track.is_terminal = late_s >= 0
            polling.looked(board, track, now)
            if track.is_terminal:
                played.late_s.append(late_s)
                open_jobs.remove(track)
                if left:
                    left -= 1
                    open_jobs.append(make_track())
                    polling.closed(open_jobs[-1], now)
    return played


def test_jobs_of_minutes_are_asked_for_seldom_and_found_soon() -> None:
    played = play(jobs=25, at_once=5, seconds=120, stagger_s=0.5)
    print(played)
    assert len(played.late_s) == 25
    assert played.looks <= 25
    assert max(played.late_s) <= 20


def test_jobs_of_a_moment_are_found_at_once() -> None:
    assert max(play(jobs=20, at_once=5, seconds=0.3, stagger_s=0.05).late_s) <= 0.4


def test_a_job_that_an_earlier_process_closed_is_asked_for_at_once_and_teaches_nothing() -> None:
    board, track = make_board(), make_track()
    look = polling.next_look(board, [track])
    assert look is not None
    assert look < BEGAN
    polling.looked(board, track, BEGAN)
    later = polling.next_look(board, [track])
    assert later is not None
    assert later > BEGAN
    track.is_terminal = True
    polling.looked(board, track, BEGAN + timedelta(seconds=9))
    assert board.seconds_per_row == {}


def test_nothing_to_ask_for_is_no_look() -> None:
    assert polling.next_look(make_board(), []) is None


def test_a_clock_that_leaps_teaches_no_pace_of_hours() -> None:
    """The process was suspended, or the clock was set, while the org worked on a job of seconds."""
    board, track = make_board(), make_track()
    polling.closed(track, BEGAN)
    polling.looked(board, track, BEGAN + timedelta(seconds=4))
    track.is_terminal = True
    polling.looked(board, track, BEGAN + timedelta(hours=3))
    assert board.seconds_per_row["Sales__c"] * 200_000 <= 9
    for seconds in (1, 7200):
        unseen = make_track()
        polling.closed(unseen, BEGAN)
        unseen.is_terminal = True
        polling.looked(board, unseen, BEGAN + timedelta(seconds=seconds))
        assert board.seconds_per_row["Sales__c"] * 200_000 <= 16
    again = make_track("Other__c")
    polling.closed(again, BEGAN)
    polling.looked(board, again, BEGAN + timedelta(hours=3))
    again.is_terminal = True
    polling.looked(board, again, BEGAN + timedelta(hours=3, seconds=1))
    assert board.seconds_per_row["Other__c"] * 200_000 <= 2, "it was still at work when the clock had leapt"
