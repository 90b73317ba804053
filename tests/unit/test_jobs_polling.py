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
from forcelift.jobs.tracks import ChunkTrack, JobTrack, TableSpec, TableTrack

BEGAN = datetime(2026, 1, 31, tzinfo=UTC)


def make_track(name: str = "Sales__c", rows: int = 200_000) -> JobTrack:
    job = SimpleNamespace(object=name, part=SimpleNamespace(rows=rows), step=JobStep.CLOSED)
    return JobTrack(job=cast("Any", job))


def make_board(*, pending: int = 1) -> Board:
    """A board with so many chunks that wait for a job's place."""
    governor = Governor(jobs_max=5, api_calls_reserve=0, rng=random.Random(1))
    spec = TableSpec(name="sales", object="Sales__c", operation="upsert", external_id_field="Key__c", group=1)
    table = TableTrack(spec=spec, planned=True)
    for number in range(pending):
        table.pending.append(ChunkTrack(audit_id=number, table="sales", chunk_no=number, rows_estimate=200_000))
    settings = EngineSettings(poll_first_s=0.1, poll_max_s=60.0)
    return Board(settings=settings, governor=governor, tables={"sales": table})


@dataclass
class Played:
    looks: int = 0
    late_s: list[float] = field(default_factory=list)


def play(*, jobs: int, at_once: int, seconds: float, stagger_s: float, in_turn: bool = False) -> Played:
    """Jobs that each take as long, so many at once; the next is closed as soon as an end is found.

    Args:
        in_turn: Whether the org works on one after the other, so that a job waits for those before it.
    """
    board, played, left = make_board(pending=max(0, jobs - at_once)), Played(), jobs
    open_jobs: list[JobTrack] = []
    ends: dict[int, datetime] = {}

    def close(at: datetime) -> None:
        track = make_track()
        polling.closed(track, at)
        ends[id(track)] = max([at, *ends.values()] if in_turn else [at]) + timedelta(seconds=seconds)
        open_jobs.append(track)

    for number in range(min(at_once, left)):
        close(BEGAN + timedelta(seconds=number * stagger_s))
    left -= len(open_jobs)
    held = list(open_jobs)  # so that no two tracks have one id
    while open_jobs:
        now = polling.next_look(board, open_jobs)
        assert now is not None
        played.looks += 1
        for track in list(open_jobs):
            late_s = (now - ends[id(track)]).total_seconds()
            track.is_terminal = late_s >= 0
            polling.looked(board, track, now)
            if track.is_terminal:
                played.late_s.append(late_s)
                open_jobs.remove(track)
                if left:
                    left -= 1
                    board.tables["sales"].pending.popleft()
                    close(now)
                    held.append(open_jobs[-1])
    return played


def test_jobs_of_minutes_are_asked_for_seldom_and_found_soon() -> None:
    played = play(jobs=25, at_once=5, seconds=120, stagger_s=0.5)
    print(played)
    assert len(played.late_s) == 25
    assert played.looks <= 20
    assert max(played.late_s) <= 30


def test_jobs_that_the_org_works_on_in_turn_share_looks_too() -> None:
    """Each waits for four others, so that they end one by one; more looks than jobs would be a call for each."""
    for seconds in (5, 13, 26, 60):
        played = play(jobs=24, at_once=5, seconds=seconds, stagger_s=1.5, in_turn=True)
        print(seconds, played)
        assert len(played.late_s) == 24
        assert played.looks <= 28
        assert max(played.late_s) <= 5 * seconds


def test_the_last_jobs_share_looks_and_the_very_last_is_found_as_soon() -> None:
    """With others behind them, each of four that end 30 s apart is worth a look of its own."""
    for pending, looks in ((1, 4), (0, 2)):
        board = make_board(pending=pending)
        board.seconds_per_row["Sales__c"] = 100 / 200_000
        tracks = [make_track() for _ in range(4)]
        for number, track in enumerate(tracks):
            polling.closed(track, BEGAN + timedelta(seconds=30 * number))
        found: list[float] = []
        left = list(tracks)
        while left:
            now = polling.next_look(board, left)
            assert now is not None
            found.append((now - BEGAN).total_seconds())
            for track in list(left):
                track.is_terminal = now >= BEGAN + timedelta(seconds=100 + 30 * tracks.index(track))
                polling.looked(board, track, now)
                if track.is_terminal:
                    left.remove(track)
            board.seconds_per_row["Sales__c"] = 100 / 200_000
        print(pending, found)
        assert len(found) == looks
        assert found[-1] == 190


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
    assert board.seconds_per_row["Sales__c"] * 200_000 <= 30
    for seconds in (1, 7200):
        unseen = make_track()
        polling.closed(unseen, BEGAN)
        unseen.is_terminal = True
        polling.looked(board, unseen, BEGAN + timedelta(seconds=seconds))
        assert board.seconds_per_row["Sales__c"] * 200_000 <= 31
    again = make_track("Other__c")
    polling.closed(again, BEGAN)
    polling.looked(board, again, BEGAN + timedelta(hours=3))
    again.is_terminal = True
    polling.looked(board, again, BEGAN + timedelta(hours=3, seconds=1))
    assert board.seconds_per_row["Other__c"] * 200_000 <= 2, "it was still at work when the clock had leapt"
