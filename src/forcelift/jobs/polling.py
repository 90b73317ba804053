"""When to ask the org for the states of closed jobs: seldom enough to be cheap, soon enough to lose no time. Pure.

Jobs of one object take about as long for each row. Until the first has ended, a look follows when the oldest of them is
some four times as old as at the last look; after that a job is asked for when it should be through. Jobs that should
end at about the same time share a look, and so do those that follow them: one list call answers for all. Where the org
works on one job after the other they end one by one, and looks are so far apart that two share one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from forcelift.audit.records import JobStep
from forcelift.jobs.board import Board
from forcelift.jobs.tracks import JobTrack

SHARED_LOOK = 0.25
"""Of a job's expected time so much may pass between its end and the look that finds it."""

LAST_SHARED_LOOK = 0.5
"""The same where nothing waits for an end: the last jobs' answers come later, and none after the last job's end."""

ROWS_PER_S_MOST = 1_000_000.0
"""No org is quicker, nor a twin: a job is not asked for before."""

UNKNOWN_MAX_S = 30.0
"""While nobody knows how long jobs take, no job's end stays unknown for longer."""

QUIET_MAX_S = 300.0
"""No closed job is left unasked for longer, whatever earlier ones took."""

_AT_ONCE = datetime.min.replace(tzinfo=UTC)
_NO_TIME = timedelta()
_SHRINK = 0.9  # a job that was found ended at its first look may have ended long before


def waiting(board: Board) -> list[JobTrack]:
    """Jobs that the org works on, as far as is known."""
    return [track for _, track in board.jobs() if _awaits_org(track)]


def next_look(board: Board, tracks: Iterable[JobTrack]) -> datetime | None:
    """When to ask for these jobs; None if there are none."""
    seen = list(tracks)
    since: dict[str, datetime] = {}
    for track in seen:
        if track.closed_at is not None:
            since[track.job.object] = min(track.closed_at, since.get(track.job.object, track.closed_at))
    due = [_due(board, track, since.get(track.job.object)) for track in seen]
    if not due:
        return None
    first, patience = min(due)
    if not _awaits_an_end(board):
        patience *= LAST_SHARED_LOOK / SHARED_LOOK
    return max(moment for moment, _ in due if moment <= first + patience)


def closed(track: JobTrack, now: datetime) -> None:
    """The org begins to work on a job."""
    track.closed_at, track.is_timed = now, True


def looked(board: Board, track: JobTrack, now: datetime) -> None:
    """A closed job's state is known; learn how long its object's jobs take if it has ended by itself."""
    if track.closed_at is not None:
        track.worked_s += _seen_at_work(board, track, now)
    if not track.is_terminal:
        track.looked_at = now
        if track.closed_at is None:
            track.closed_at = now
    elif track.is_timed and track.closed_at is not None and not track.abort_asked:
        seconds = track.worked_s
        if track.looked_at is None and track.job.object in board.seconds_per_row:
            seconds *= _SHRINK
        board.seconds_per_row[track.job.object] = seconds / max(1, track.job.part.rows)


def _seen_at_work(board: Board, track: JobTrack, now: datetime) -> float:
    """How much of the time since the last look counts.

    A look that comes at more than twice its time comes after this process slept, or the clock was set: a pace learnt
    from that would keep the next jobs waiting.
    """
    last = track.looked_at or track.closed_at
    assert last is not None
    due, _ = _due(board, track, track.closed_at)
    planned_s = (due - last).total_seconds() if track.is_timed else 0.0
    return min((now - last).total_seconds(), 2 * max(planned_s, board.settings.poll_first_s))


def _due(board: Board, track: JobTrack, oldest: datetime | None) -> tuple[datetime, timedelta]:
    """When to look at one job, and how long that look may wait for others'."""
    first_s, most_s = board.settings.poll_first_s, board.settings.poll_max_s
    pace = board.seconds_per_row.get(track.job.object)
    if track.closed_at is None:  # closed by an earlier process, or nobody knows when: it may be through
        return _AT_ONCE, _NO_TIME
    last = track.looked_at or track.closed_at
    if pace is None or not track.is_timed or track.abort_asked:
        age_s = (last - (oldest or track.closed_at)).total_seconds()
        least_s = max(first_s, track.job.part.rows / ROWS_PER_S_MOST)
        pause_s = max(least_s, age_s if age_s < 1 else 3 * age_s)  # to notice a job of moments late would cost more
        return last + timedelta(seconds=min(most_s, UNKNOWN_MAX_S, pause_s)), _NO_TIME
    expected_s = pace * track.job.part.rows
    patience = timedelta(seconds=min(most_s, SHARED_LOOK * expected_s))
    ends = track.closed_at + timedelta(seconds=expected_s)
    if ends > last:
        soonest = last + max(timedelta(seconds=first_s), patience)
        return max(min(ends, last + timedelta(seconds=QUIET_MAX_S)), soonest), patience
    late_s = (last - ends).total_seconds()
    pause = timedelta(seconds=min(most_s, max(first_s, SHARED_LOOK * expected_s, late_s)))
    return last + pause, patience


def _awaits_org(track: JobTrack) -> bool:
    return track.job.step is JobStep.CLOSED and not track.is_terminal and track.doing is None


def _awaits_an_end(board: Board) -> bool:
    """Whether some chunk cannot go on before a job ends: it needs the job's place, or the records that it writes."""
    return any(
        not table.planned or table.pending or table.ready or table.parked for table in board.tables.values()
    ) or any(chunk.drafts or chunk.intending or not chunk.jobs for chunk in board.active.values())
