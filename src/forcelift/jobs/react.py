"""What each answer means: writes the board, gives no commands. Pure.

Errors are judged by class (see `errors`): what passes is tried again after a pause, a lost reply puts a job in doubt,
everything else ends the chunk, and a refusal that would meet every other chunk too stops the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from forcelift.audit.records import BudgetRefused, ChunkStatus, Job, JobStep
from forcelift.errors import (
    ForceliftError,
    LostReply,
    OrgLimitReached,
    OrgNotFound,
    OrgRefused,
    OrgUnavailable,
    SourceUnavailable,
    TargetError,
)
from forcelift.jobs.board import Board
from forcelift.jobs.messages import (
    AbandonJob,
    AbortJob,
    Answer,
    AskJob,
    CheckTable,
    ChunkSettled,
    ChunkStaged,
    CloseJob,
    CollectJob,
    CreateJob,
    FailChunk,
    FindStray,
    IntendJob,
    LoadChunk,
    PlanTable,
    PollJobs,
    Resend,
    SettleChunk,
    SkipChunks,
    StageChunk,
    StageLinks,
    StageResend,
    TablePlanned,
    Tally,
    UploadJob,
)
from forcelift.jobs.tracks import ChunkTrack, JobTrack, Phase
from forcelift.protocols.org import IngestJob, JobState


def react(board: Board, answer: Answer, now: datetime) -> None:
    """Take one answer into account."""
    board.in_flight -= 1
    command = answer.command
    if isinstance(command, _ORG_COMMANDS) and answer.error is None:
        board.governor.org_answered(now, answer.api_requests_left)
    _REACTIONS[type(command)](board, command, answer, now)


_ORG_COMMANDS = (CreateJob, FindStray, UploadJob, CloseJob, AskJob, AbandonJob, AbortJob, PollJobs, CollectJob)


def _planned(board: Board, command: PlanTable, answer: Answer, now: datetime) -> None:
    table = board.tables[command.table]
    table.planning = False
    if isinstance(answer.error, SourceUnavailable) and table.tries < board.settings.source_tries_max:
        table.tries += 1
        table.retry_at = now + timedelta(seconds=_source_pause(board, table.tries))
        return
    if answer.error is not None:
        table.failed = True
        board.halt(answer.error)
        return
    planned: TablePlanned = answer.result
    board.add_chunks(table, planned.chunks, {})


def _staged(board: Board, command: StageChunk, answer: Answer, now: datetime) -> None:
    chunk = board.active[command.audit_id]
    chunk.doing = None
    if answer.error is not None:
        _chunk_error(board, chunk, answer.error, now)
        return
    staged: ChunkStaged = answer.result
    figures = board.table_of(chunk).figures
    figures.rows += staged.extracted - chunk.rows_estimate
    figures.extracted += staged.extracted
    figures.rejected += staged.rejected
    figures.duplicate += staged.duplicate
    chunk.tries = 0
    chunk.has_links, chunk.staged_bytes = staged.has_links, staged.staged_bytes
    chunk.drafts.extend(staged.drafts)
    if board.settings.dry_run or not staged.drafts:
        chunk.phase = Phase.SETTLING
    else:
        chunk.phase = Phase.SENDING


def _intended(board: Board, command: IntendJob, answer: Answer, now: datetime) -> None:
    chunk = board.active[command.draft.audit_id]
    chunk.intending -= 1
    board.intending -= 1
    if answer.error is not None:
        chunk.drafts.appendleft(command.draft)
        _chunk_error(board, chunk, answer.error, now)
    elif isinstance(answer.result, BudgetRefused):
        chunk.drafts.appendleft(command.draft)
        board.governor.budget_refused(answer.result.until, answer.result.reason)
    else:
        job: Job = answer.result
        chunk.attempt = max(chunk.attempt, job.attempt)
        chunk.jobs[job.job_no] = JobTrack(job=job)


def _created(board: Board, command: CreateJob, answer: Answer, now: datetime) -> None:
    chunk, track = _job_answered(board, command.job_no)
    if answer.error is None:
        track.job = answer.result
    elif isinstance(answer.error, LostReply):
        track.in_doubt = True
        track.retry_at = now + timedelta(seconds=board.settings.stray_delay_s)
        board.governor.org_failed(now, answer.error.message)
    elif isinstance(answer.error, OrgUnavailable | OrgLimitReached):
        # The intent's time marks the window in which a stray would be ours, so a later try needs a new intent.
        track.redraft = True
        _wait_for_org(board, answer.error, now)
    else:
        track.redraft = True
        _job_refused(board, chunk, answer.error)


def _uploaded(board: Board, command: UploadJob, answer: Answer, now: datetime) -> None:
    chunk, track = _job_answered(board, command.job_no)
    if answer.error is None:
        track.job = answer.result
    elif isinstance(answer.error, OrgUnavailable | OrgLimitReached):
        _wait_for_org(board, answer.error, now)
    else:
        # Whether the one upload that a job may have has arrived is not certain: this job is given up.
        track.in_doubt = True
        if isinstance(answer.error, LostReply):
            board.governor.org_failed(now, answer.error.message)
        elif not isinstance(answer.error, OrgNotFound):
            _job_refused(board, chunk, answer.error)


def _closed(board: Board, command: CloseJob, answer: Answer, now: datetime) -> None:
    chunk, track = _job_answered(board, command.job_no)
    if answer.error is None:
        track.job = answer.result
        track.tries = 0
        board.next_poll = None
    elif isinstance(answer.error, OrgUnavailable | OrgLimitReached):
        _wait_for_org(board, answer.error, now)
    else:
        track.in_doubt = True
        track.tries += 1
        if isinstance(answer.error, LostReply):
            board.governor.org_failed(now, answer.error.message)
        elif not isinstance(answer.error, OrgRefused) or track.tries > 3:
            _job_refused(board, chunk, answer.error)


def _asked(board: Board, command: AskJob, answer: Answer, now: datetime) -> None:
    chunk, track = _job_answered(board, command.job_no)
    if answer.error is not None:
        _wait_or_fail(board, chunk, track, answer.error, now)
        return
    seen: IngestJob | None = answer.result
    track.in_doubt = False
    if seen is not None and seen.state is JobState.OPEN:
        return  # it was not closed: close it
    track.job = _at_step(track.job, JobStep.CLOSED)
    track.is_terminal = seen is None or seen.state.is_terminal


def _abandoned(board: Board, command: AbandonJob, answer: Answer, now: datetime) -> None:
    chunk, track = _job_answered(board, command.job_no)
    if answer.error is not None:
        _wait_or_fail(board, chunk, track, answer.error, now)
        return
    at_work: IngestJob | None = answer.result
    if at_work is not None:
        track.job, track.in_doubt = _at_step(track.job, JobStep.CLOSED), False
        track.is_terminal = at_work.state.is_terminal
        return
    del chunk.jobs[command.job_no]
    chunk.drafts.append(
        board.table_of(chunk).spec.draft(
            audit_id=chunk.audit_id, kind=track.job.kind, part=track.job.part, attempt=track.job.attempt
        )
    )


def _stray_found(board: Board, command: FindStray, answer: Answer, now: datetime) -> None:
    _abandoned(board, AbandonJob(job_no=command.job_no, reason=""), answer, now)


def _abort_asked(board: Board, command: AbortJob, answer: Answer, now: datetime) -> None:
    chunk, track = _job_answered(board, command.job_no)
    if answer.error is None:
        seen: IngestJob | None = answer.result
        track.is_terminal = seen is None or seen.state.is_terminal
    elif isinstance(answer.error, OrgUnavailable | LostReply | OrgLimitReached):
        track.abort_asked = False
        _wait_or_fail(board, chunk, track, answer.error, now)
    # A refusal means that the job has come to its end by itself: polling will tell.


def _polled(board: Board, command: PollJobs, answer: Answer, now: datetime) -> None:
    board.polling = False
    settings = board.settings
    if answer.error is not None:
        if isinstance(answer.error, OrgUnavailable | LostReply | OrgLimitReached):
            _wait_for_org(board, answer.error, now)
        else:
            _give_up(board, answer.error)
    else:
        seen: dict[int, IngestJob | None] = answer.result
        for _, track in board.jobs():
            if track.job.job_no in seen:
                job = seen[track.job.job_no]
                track.is_terminal = job is None or job.state.is_terminal
        board.poll_pause_s = min(settings.poll_max_s, max(settings.poll_first_s, board.poll_pause_s * 1.3))
    board.next_poll = now + timedelta(seconds=board.poll_pause_s)


def _give_up(board: Board, error: Exception) -> None:
    """The org cannot be asked any more (signed out, no right): what is at work there is left to a resume."""
    board.halt(error)
    for chunk in list(board.active.values()):
        if not chunk.doing and not chunk.intending and not any(job.doing for job in chunk.jobs.values()):
            board.end_chunk(chunk, Phase.HELD)
        else:
            chunk.error = error


def _collected(board: Board, command: CollectJob, answer: Answer, now: datetime) -> None:
    chunk, track = _job_answered(board, command.job_no)
    if answer.error is not None:
        _wait_or_fail(board, chunk, track, answer.error, now)
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
        _job_refused(
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


def _resent(board: Board, command: StageResend, answer: Answer, now: datetime) -> None:
    chunk = board.active[command.audit_id]
    chunk.doing = None
    if answer.error is not None:
        _chunk_error(board, chunk, answer.error, now)
        return
    resend: Resend = answer.result
    chunk.answers_unknown = False
    chunk.is_clean = True
    if board.is_stopping and (resend.open or resend.transient):
        chunk.is_clean = False  # only counted: a resume sends them
    elif resend.drafts:
        chunk.drafts.extend(resend.drafts)
        chunk.attempt += 1
    elif resend.open:
        chunk.error = TargetError(
            f"table `{chunk.table}`, chunk {chunk.chunk_no}: the org did not process {resend.open:,} rows "
            f"in {chunk.attempt} attempts"
        )
        board.errors.append(chunk.error)


def _loaded(board: Board, command: LoadChunk, answer: Answer, now: datetime) -> None:
    chunk = board.active[command.audit_id]
    chunk.doing = None
    if answer.error is not None:
        _chunk_error(board, chunk, answer.error, now)
        return
    if answer.result:
        _end_unknown(board, chunk, answer.result)
        return
    board.mark_loaded(chunk)
    board.park(chunk)


def _links_staged(board: Board, command: StageLinks, answer: Answer, now: datetime) -> None:
    chunk = board.active[command.audit_id]
    chunk.doing = None
    if answer.error is not None:
        _chunk_error(board, chunk, answer.error, now)
        return
    chunk.drafts.extend(answer.result)
    chunk.attempt, chunk.is_clean = 1, True
    chunk.phase = Phase.LINKING if answer.result else Phase.SETTLING


def _settled(board: Board, command: SettleChunk, answer: Answer, now: datetime) -> None:
    chunk = board.active[command.audit_id]
    chunk.doing = None
    if answer.error is not None:
        _chunk_error(board, chunk, answer.error, now)
        return
    settled: ChunkSettled = answer.result
    figures = board.table_of(chunk).figures
    if settled.unknown:
        _end_unknown(board, chunk, settled.unknown)
        return
    # What was counted while the answers came in gives way to what is settled.
    success = settled.created + settled.updated
    figures.answered += success + settled.failed - chunk.live.answered
    figures.success += success - chunk.live.success
    figures.failed += settled.failed - chunk.live.failed
    board.end_chunk(chunk, Phase.DONE, settled.status)


def _end_unknown(board: Board, chunk: ChunkTrack, rows: int) -> None:
    board.errors.append(
        TargetError(
            f"table `{chunk.table}`, chunk {chunk.chunk_no}: {rows:,} rows stand in the org without proof of who wrote "
            "them, because the answers of their job are gone",
            state="the chunk is FAILED and its files are kept",
            hint="look at these records, then `forcelift run --resume` sends the rows again",
        )
    )
    board.end_chunk(chunk, Phase.FAILED, ChunkStatus.FAILED)


def _chunk_failed(board: Board, command: FailChunk, answer: Answer, now: datetime) -> None:
    chunk = board.active[command.audit_id]
    chunk.doing = None
    if answer.error is not None:
        board.halt(answer.error)
    board.end_chunk(chunk, Phase.FAILED if chunk.error is not None else Phase.HELD)


def _skipped(board: Board, command: SkipChunks, answer: Answer, now: datetime) -> None:
    if answer.error is not None:
        board.halt(answer.error)
    else:
        board.skipped_chunks = answer.result


def _checked(board: Board, command: CheckTable, answer: Answer, now: datetime) -> None:
    table = board.tables[command.table]
    table.checking = False
    table.checked = True
    if answer.error is not None:
        board.halt(answer.error)
    elif answer.result:
        board.doubled_ids[command.table] = answer.result
        board.errors.append(
            TargetError(
                f"table `{command.table}`: {len(answer.result):,} records of the org were written by more than one row",
                state="each row has its answer; the ledger names the records",
                hint="compare the keys as the org's external ID field does, then validate",
            )
        )


def _job_answered(board: Board, job_no: int) -> tuple[ChunkTrack, JobTrack]:
    chunk, track = board.job(job_no)
    track.doing = None
    return chunk, track


def _at_step(job: Job, step: JobStep) -> Job:
    return replace(job, step=step)


def _wait_for_org(board: Board, error: Exception, now: datetime) -> None:
    message = error.message if isinstance(error, ForceliftError) else str(error)
    if isinstance(error, OrgLimitReached):
        board.governor.limit_reached(now, message)
    else:
        board.governor.org_failed(now, message)


def _wait_or_fail(board: Board, chunk: ChunkTrack, track: JobTrack, error: Exception, now: datetime) -> None:
    if isinstance(error, OrgUnavailable | LostReply | OrgLimitReached):
        _wait_for_org(board, error, now)
    else:
        # The job's fate stays in the audit database: a resume asks again.
        board.halt(error)
        chunk.error = chunk.error or error
        del chunk.jobs[track.job.job_no]


def _job_refused(board: Board, chunk: ChunkTrack, error: Exception) -> None:
    """What the org refuses for one chunk it refuses for all: stop before the same fault is met a thousand times."""
    board.halt(error)
    chunk.error = chunk.error or error


def _source_pause(board: Board, tries: int) -> float:
    return min(60.0, 2.0 ** (tries - 1)) * board.governor.rng.uniform(0.8, 1.2)


def _chunk_error(board: Board, chunk: ChunkTrack, error: Exception, now: datetime) -> None:
    """A step of a chunk failed: wait and repeat what passes, otherwise end the chunk."""
    if isinstance(error, OrgUnavailable | LostReply | OrgLimitReached):
        _wait_for_org(board, error, now)
        chunk.retry_at = board.governor.hold.until if board.governor.hold else now
    elif isinstance(error, SourceUnavailable) and chunk.tries < board.settings.source_tries_max:
        chunk.tries += 1
        chunk.retry_at = now + timedelta(seconds=_source_pause(board, chunk.tries))
    else:
        board.halt(error)
        chunk.error = chunk.error or error


_REACTIONS: dict[type, Callable[[Board, Any, Answer, datetime], None]] = {
    PlanTable: _planned,
    StageChunk: _staged,
    IntendJob: _intended,
    CreateJob: _created,
    FindStray: _stray_found,
    UploadJob: _uploaded,
    CloseJob: _closed,
    AskJob: _asked,
    AbandonJob: _abandoned,
    AbortJob: _abort_asked,
    PollJobs: _polled,
    CollectJob: _collected,
    StageResend: _resent,
    LoadChunk: _loaded,
    StageLinks: _links_staged,
    SettleChunk: _settled,
    FailChunk: _chunk_failed,
    SkipChunks: _skipped,
    CheckTable: _checked,
}
