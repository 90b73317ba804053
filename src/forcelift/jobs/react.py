"""What each answer means: writes the board, gives no commands. Pure.

Errors are judged by class (see `errors`): what passes is tried again after a pause, a lost reply puts a job in doubt,
everything else ends the chunk, and a refusal that would meet every other chunk too stops the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from forcelift.audit.records import BudgetRefused, ChunkStatus, Job
from forcelift.audit.shares import IntentRefused
from forcelift.errors import DiskFull, LeaseLost, ReadingStopped, TargetError
from forcelift.jobs import react_jobs, sharing
from forcelift.jobs.board import Board
from forcelift.jobs.messages import (
    AbandonJob,
    AbortJob,
    Answer,
    AskJob,
    CheckTable,
    ChunkSettled,
    ChunkStaged,
    ClaimChunks,
    CloseJob,
    CollectJob,
    CreateJob,
    FailChunk,
    FindStray,
    IntendJob,
    LoadChunk,
    LookAround,
    PlanTable,
    PollJobs,
    Resend,
    SettleChunk,
    SkipChunks,
    StageChunk,
    StageLinks,
    StageResend,
    TablePlanned,
    TakeImage,
    UploadJob,
)
from forcelift.jobs.react_waits import asked_again, chunk_error
from forcelift.jobs.tracks import ChunkTrack, JobTrack, Phase


def react(board: Board, answer: Answer, now: datetime) -> None:
    """Take one answer into account."""
    board.in_flight -= 1
    if board.is_lost:
        return  # what it was about is another runner's now
    if isinstance(answer.error, LeaseLost):
        board.lose(answer.error)
        return
    command = answer.command
    if isinstance(command, _ORG_COMMANDS) and answer.error is None:
        board.governor.org_answered(now, answer.api_requests_left)
    _REACTIONS[type(command)](board, command, answer, now)


_ORG_COMMANDS = (
    TakeImage,
    CreateJob,
    FindStray,
    UploadJob,
    CloseJob,
    AskJob,
    AbandonJob,
    AbortJob,
    PollJobs,
    CollectJob,
)


def _planned(board: Board, command: PlanTable, answer: Answer, now: datetime) -> None:
    table = board.tables[command.table]
    table.planning = False
    if isinstance(answer.error, ReadingStopped):
        return
    if isinstance(answer.error, DiskFull):
        board.holds.disk_full(now, answer.error.message)
        return
    if answer.error is not None and asked_again(board, table, answer.error, now):
        return
    if answer.error is not None:
        table.failed = True
        board.halt(answer.error)
        return
    planned: TablePlanned | None = answer.result
    if planned is None:
        sharing.planned_elsewhere(board, table, now)
        return
    board.add_chunks(table, planned.chunks, {})


def _staged(board: Board, command: StageChunk, answer: Answer, now: datetime) -> None:
    chunk = board.active[command.audit_id]
    chunk.doing = None
    if answer.error is not None:
        chunk_error(board, chunk, answer.error, now)
        return
    staged: ChunkStaged = answer.result
    figures = board.table_of(chunk).figures
    figures.rows += staged.extracted - chunk.rows_estimate
    figures.extracted += staged.extracted
    figures.rejected += staged.rejected
    figures.duplicate += staged.duplicate
    chunk.tries, chunk.source_failed = 0, False
    chunk.has_links, chunk.staged_bytes = staged.has_links, staged.staged_bytes
    board.holds.wrote()
    board.staged_bytes += staged.staged_bytes
    table = board.table_of(chunk)
    table.bytes_per_row = max(table.bytes_per_row, staged.staged_bytes / max(staged.extracted, 1))
    chunk.drafts.extend(staged.drafts)
    # A retry may have links to send of rows whose records stand already, and nothing else.
    if board.settings.dry_run or not (staged.drafts or staged.has_links):
        chunk.phase = Phase.SETTLING
    elif board.settings.extract_first:
        board.lay_ready(chunk)
    else:
        chunk.phase = Phase.SENDING


def _imaged(board: Board, command: TakeImage, answer: Answer, now: datetime) -> None:
    chunk = board.active[command.audit_id]
    chunk.doing = None
    if answer.error is not None:
        chunk_error(board, chunk, answer.error, now)
        return
    chunk.has_image = True


def _intended(board: Board, command: IntendJob, answer: Answer, now: datetime) -> None:
    chunk = board.active[command.draft.audit_id]
    chunk.intending -= 1
    board.intending -= 1
    if answer.error is not None:
        chunk.drafts.appendleft(command.draft)
        chunk_error(board, chunk, answer.error, now)
    elif isinstance(answer.result, IntentRefused):
        sharing.intent_refused(board, command, answer.result, now)
    elif isinstance(answer.result, BudgetRefused):
        chunk.drafts.appendleft(command.draft)
        board.governor.budget_refused(answer.result.until, answer.result.reason)
    else:
        job: Job = answer.result
        chunk.attempt = max(chunk.attempt, job.attempt)
        chunk.jobs[job.job_no] = JobTrack(job=job)


def _resent(board: Board, command: StageResend, answer: Answer, now: datetime) -> None:
    chunk = board.active[command.audit_id]
    chunk.doing = None
    if answer.error is not None:
        chunk_error(board, chunk, answer.error, now)
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
        chunk_error(board, chunk, answer.error, now)
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
        chunk_error(board, chunk, answer.error, now)
        return
    chunk.drafts.extend(answer.result)
    chunk.attempt, chunk.is_clean = 1, True
    chunk.phase = Phase.LINKING if answer.result else Phase.SETTLING


def _settled(board: Board, command: SettleChunk, answer: Answer, now: datetime) -> None:
    chunk = board.active[command.audit_id]
    chunk.doing = None
    if answer.error is not None:
        chunk_error(board, chunk, answer.error, now)
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


def _what_to_do_with_unknown(operation: str) -> str:
    if operation == "insert":
        return "compare these records with the source; a new batch with `operation: upsert` brings them to its values"
    return "look at these records, then `forcelift run --resume` sends the rows again"


def _end_unknown(board: Board, chunk: ChunkTrack, rows: int) -> None:
    board.errors.append(
        TargetError(
            f"table `{chunk.table}`, chunk {chunk.chunk_no}: {rows:,} rows stand in the org without proof of who wrote "
            "them, because the answers of their job are gone",
            state="the chunk is FAILED and its files are kept",
            hint=_what_to_do_with_unknown(board.table_of(chunk).spec.operation),
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
    if answer.error is None and answer.result is None:
        sharing.checked_elsewhere(board, now)
        return
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


_REACTIONS: dict[type, Callable[[Board, Any, Answer, datetime], None]] = {
    PlanTable: _planned,
    StageChunk: _staged,
    TakeImage: _imaged,
    IntendJob: _intended,
    CreateJob: react_jobs.created,
    FindStray: react_jobs.stray_found,
    UploadJob: react_jobs.uploaded,
    CloseJob: react_jobs.closed,
    AskJob: react_jobs.asked,
    AbandonJob: react_jobs.abandoned,
    AbortJob: react_jobs.abort_asked,
    PollJobs: react_jobs.polled,
    CollectJob: react_jobs.collected,
    StageResend: _resent,
    LoadChunk: _loaded,
    StageLinks: _links_staged,
    SettleChunk: _settled,
    FailChunk: _chunk_failed,
    SkipChunks: _skipped,
    CheckTable: _checked,
    ClaimChunks: sharing.claimed,
    LookAround: sharing.looked,
}
