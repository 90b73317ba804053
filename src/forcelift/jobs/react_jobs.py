"""What the answers about single jobs mean. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from forcelift.audit.records import JobStep
from forcelift.errors import (
    LostReply,
    OrgLimitReached,
    OrgNotFound,
    OrgRefused,
    OrgUnavailable,
    StorageError,
    TargetError,
)
from forcelift.jobs import polling
from forcelift.jobs.board import Board
from forcelift.jobs.holds import reply_awaited
from forcelift.jobs.messages import (
    AbandonJob,
    AbortJob,
    Answer,
    AskJob,
    CloseJob,
    CollectJob,
    CreateJob,
    FindStray,
    PollJobs,
    StrayAwaited,
    Tally,
    UploadJob,
)
from forcelift.jobs.react_waits import at_step, job_answered, job_refused, wait_for_org, wait_or_fail
from forcelift.jobs.tracks import JobTrack, Phase
from forcelift.protocols.org import IngestJob, JobState


def created(board: Board, command: CreateJob, answer: Answer, now: datetime) -> None:
    chunk, track = job_answered(board, command.job_no)
    if answer.error is None:
        track.job = answer.result
        if track.is_closed:  # its data went with it
            polling.closed(track, now)
    elif isinstance(answer.error, LostReply):
        track.in_doubt = True
        track.retry_at = now + timedelta(seconds=board.settings.stray_delay_s)
        board.governor.org_failed(now, answer.error.message)
    elif isinstance(answer.error, OrgUnavailable | OrgLimitReached):
        # The intent's time marks the window in which a stray would be ours, so a later try needs a new intent.
        track.redraft = True
        wait_for_org(board, answer.error, now)
    elif isinstance(answer.error, StorageError):
        # The org may have made the job and we could not write it down: it is looked for, now or by a resume.
        track.in_doubt = True
        job_refused(board, chunk, answer.error)
    else:
        track.redraft = True
        job_refused(board, chunk, answer.error)


def uploaded(board: Board, command: UploadJob, answer: Answer, now: datetime) -> None:
    chunk, track = job_answered(board, command.job_no)
    if answer.error is None:
        track.job = answer.result
    elif isinstance(answer.error, OrgUnavailable | OrgLimitReached):
        wait_for_org(board, answer.error, now)
    else:
        # Whether the one upload that a job may have has arrived is not certain: this job is given up.
        track.in_doubt = True
        if isinstance(answer.error, LostReply):
            board.governor.org_failed(now, answer.error.message)
        elif not isinstance(answer.error, OrgNotFound):
            job_refused(board, chunk, answer.error)


def closed(board: Board, command: CloseJob, answer: Answer, now: datetime) -> None:
    chunk, track = job_answered(board, command.job_no)
    if answer.error is None:
        track.job = answer.result
        track.tries = 0
        polling.closed(track, now)
    elif isinstance(answer.error, OrgUnavailable | OrgLimitReached):
        wait_for_org(board, answer.error, now)
    else:
        track.in_doubt = True
        track.tries += 1
        if isinstance(answer.error, LostReply):
            board.governor.org_failed(now, answer.error.message)
        elif not isinstance(answer.error, OrgRefused) or track.tries > 3:
            job_refused(board, chunk, answer.error)


def asked(board: Board, command: AskJob, answer: Answer, now: datetime) -> None:
    chunk, track = job_answered(board, command.job_no)
    if answer.error is not None:
        wait_or_fail(board, chunk, track, answer.error, now)
        return
    seen: IngestJob | None = answer.result
    track.in_doubt = False
    if seen is not None and seen.state is JobState.OPEN:
        return  # it was not closed: close it
    track.job = at_step(track.job, JobStep.CLOSED)
    _note(board, track, seen, now)


def abandoned(board: Board, command: AbandonJob, answer: Answer, now: datetime) -> None:
    chunk, track = job_answered(board, command.job_no)
    if answer.error is not None:
        wait_or_fail(board, chunk, track, answer.error, now)
        return
    at_work: IngestJob | None = answer.result
    if at_work is not None:
        track.job, track.in_doubt, track.awaited = at_step(track.job, JobStep.CLOSED), False, ()
        _note(board, track, at_work, now)
        return
    del chunk.jobs[command.job_no]
    chunk.drafts.append(
        board.table_of(chunk).spec.draft(
            audit_id=chunk.audit_id, kind=track.job.kind, part=track.job.part, attempt=track.job.attempt
        )
    )


def stray_found(board: Board, command: FindStray, answer: Answer, now: datetime) -> None:
    if answer.error is None and isinstance(answer.result, StrayAwaited):
        _await_stray(board, command, answer.result, now)
        return
    abandoned(board, AbandonJob(job_no=command.job_no, reason=""), answer, now)


def _await_stray(board: Board, command: FindStray, awaited: StrayAwaited, now: datetime) -> None:
    """Look again later. A stop at once does not wait for a job that may be another's: a resume looks again."""
    chunk, track = job_answered(board, command.job_no)
    if board.control.stop_now:
        del chunk.jobs[command.job_no]
        chunk.is_clean = False
        return
    if awaited.at_work and not track.tries:
        board.governor.decisions.append(reply_awaited(chunk.table, awaited.at_work))
    track.awaited = awaited.at_work
    pause = min(board.settings.poll_max_s, board.settings.stray_delay_s * 2.0 ** min(track.tries, 10))
    track.tries += bool(awaited.at_work)
    track.retry_at = now + timedelta(seconds=pause)


def abort_asked(board: Board, command: AbortJob, answer: Answer, now: datetime) -> None:
    chunk, track = job_answered(board, command.job_no)
    if answer.error is None:
        _note(board, track, answer.result, now)
    elif isinstance(answer.error, OrgUnavailable | LostReply | OrgLimitReached):
        track.abort_asked = False
        wait_or_fail(board, chunk, track, answer.error, now)
    elif not isinstance(answer.error, OrgRefused):
        board.halt(answer.error)
    # A refusal means that the job has come to its end by itself: polling will tell.


def polled(board: Board, command: PollJobs, answer: Answer, now: datetime) -> None:
    board.polling = False
    if answer.error is not None:
        if isinstance(answer.error, OrgUnavailable | LostReply | OrgLimitReached):
            wait_for_org(board, answer.error, now)
        else:
            _give_up(board, answer.error)
    else:
        seen: dict[int, IngestJob | None] = answer.result
        for _, track in board.jobs():
            if track.job.job_no in seen:
                _note(board, track, seen[track.job.job_no], now)


def _give_up(board: Board, error: Exception) -> None:
    """The org cannot be asked any more (signed out, no right): what is at work there is left to a resume."""
    board.halt(error)
    for chunk in list(board.active.values()):
        if not chunk.doing and not chunk.intending and not any(job.doing for job in chunk.jobs.values()):
            board.end_chunk(chunk, Phase.HELD)
        else:
            chunk.error = error


def collected(board: Board, command: CollectJob, answer: Answer, now: datetime) -> None:
    chunk, track = job_answered(board, command.job_no)
    if answer.error is not None:
        wait_or_fail(board, chunk, track, answer.error, now)
        return
    tally: Tally = answer.result
    del chunk.jobs[command.job_no]
    chunk.count(tally)
    if chunk.phase is Phase.SENDING:
        for figures in (board.table_of(chunk).figures, chunk.live):
            figures.answered += tally.created + tally.updated + tally.failed - tally.transient
            figures.success += tally.created + tally.updated
            figures.failed += tally.failed - tally.transient
    board.governor.job_done(rows=tally.sent, locked=tally.locked)
    if tally.job_error is not None and tally.open and not tally.job_error_transient:
        job_refused(
            board,
            chunk,
            TargetError(
                f"Salesforce job `{track.job.sf_id}` of table `{chunk.table}`, chunk {chunk.chunk_no}, failed: "
                f"{tally.job_error}",
                state=f"{tally.open:,} of its {tally.sent:,} rows were not processed; the rest is accounted for",
                hint="mend the cause, then go on with `forcelift run --resume`",
            ),
        )
    elif not tally.is_clean:
        pause = board.settings.resend_delay_s * 2.0 ** (chunk.attempt - 1)
        chunk.retry_at = now + timedelta(seconds=pause * board.governor.rng.uniform(0.8, 1.2))


def _note(board: Board, track: JobTrack, seen: IngestJob | None, now: datetime) -> None:
    """Take a look at a closed job into account.

    An abort takes effect late: Salesforce batches that were at work still commit. Answers fetched too early would miss
    their rows, so the counter has to stand still for a while first.
    """
    track.seen = seen
    if seen is None or seen.state is not JobState.ABORTED:
        track.is_terminal = seen is None or seen.state.is_terminal
        polling.looked(board, track, now)
        return
    if track.aborted_at is None or track.aborted_count != seen.records_processed:
        track.aborted_at, track.aborted_count = now, seen.records_processed
    track.is_terminal = now - track.aborted_at >= timedelta(seconds=board.settings.abort_settle_s)
    polling.looked(board, track, now)
