"""What an error means for what is at work: wait and repeat, or end it. Pure; shared by all reactions."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from forcelift.audit.records import Job, JobStep
from forcelift.errors import (
    DiskFull,
    ForceliftError,
    LostReply,
    OrgLimitReached,
    OrgUnavailable,
    ReadingStopped,
    SourceFaulty,
    SourceUnavailable,
)
from forcelift.jobs.board import Board
from forcelift.jobs.tracks import ChunkTrack, JobTrack, Phase, TableTrack


def job_answered(board: Board, job_no: int) -> tuple[ChunkTrack, JobTrack]:
    """The job whose command was answered, and its chunk; nothing is under way for it now."""
    chunk, track = board.job(job_no)
    track.doing = None
    return chunk, track


def at_step(job: Job, step: JobStep) -> Job:
    """The job as it stands after a step that was found out by asking."""
    return replace(job, step=step)


def wait_for_org(board: Board, error: Exception, now: datetime) -> None:
    """The org is away, busy or used up: everybody leaves it alone for a while."""
    message = error.message if isinstance(error, ForceliftError) else str(error)
    if isinstance(error, OrgLimitReached):
        board.governor.limit_reached(now, message)
    else:
        board.governor.org_failed(now, message)


def wait_or_fail(board: Board, chunk: ChunkTrack, track: JobTrack, error: Exception, now: datetime) -> None:
    """Wait for the org, or give the job's chunk up."""
    if isinstance(error, OrgUnavailable | LostReply | OrgLimitReached):
        wait_for_org(board, error, now)
    elif isinstance(error, DiskFull) and not board.is_stopping:
        track.retry_at = board.holds.disk_full(now, error.message)
    else:
        # The job's fate stays in the audit database: a resume asks again.
        board.halt(error)
        chunk.error = chunk.error or error
        del chunk.jobs[track.job.job_no]


def job_refused(board: Board, chunk: ChunkTrack, error: Exception) -> None:
    """What the org refuses for one chunk it refuses for all: stop before the same fault is met a thousand times."""
    board.halt(error)
    chunk.error = chunk.error or error


def source_pause(board: Board, tries: int) -> float:
    """Seconds before a source that did not answer is read again; grows with the tries."""
    return min(60.0, 2.0 ** (tries - 1)) * board.governor.rng.uniform(0.8, 1.2)


def asked_again(board: Board, track: ChunkTrack | TableTrack, error: Exception, now: datetime) -> bool:
    """Whether a source that did not answer is asked again, and if so, from when on."""
    if not isinstance(error, SourceUnavailable) or track.tries >= board.settings.source_tries_max:
        return False
    if isinstance(error, SourceFaulty):
        if track.source_failed:
            return False
        track.source_failed = True
    track.tries += 1
    track.retry_at = now + timedelta(seconds=source_pause(board, track.tries))
    return True


def chunk_error(board: Board, chunk: ChunkTrack, error: Exception, now: datetime) -> None:
    """A step of a chunk failed: wait and repeat what passes, otherwise end the chunk."""
    chunk.begun = chunk.begun or chunk.phase is Phase.STAGING
    if isinstance(error, OrgUnavailable | LostReply | OrgLimitReached):
        wait_for_org(board, error, now)
        chunk.retry_at = board.governor.hold.until if board.governor.hold else now
    elif isinstance(error, DiskFull) and not board.is_stopping:
        retry_at = board.holds.disk_full(now, error.message)
        chunk.retry_at = None if chunk.phase is Phase.STAGING else retry_at  # no chunk is read before there is room
    elif isinstance(error, ReadingStopped):
        chunk.retry_at = None  # read again when reading may go on
    elif not asked_again(board, chunk, error, now):
        board.halt(error)
        chunk.error = chunk.error or error
