"""What to do next: reads the board, gives commands. Pure but for the marks that a command is under way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from forcelift.audit.records import JobStep
from forcelift.errors import ForceliftError
from forcelift.jobs import admission, extract_first, polling, sharing
from forcelift.jobs.board import Board
from forcelift.jobs.governor import HOLD_MAX_S
from forcelift.jobs.messages import (
    AbandonJob,
    AbortJob,
    AskJob,
    CheckTable,
    CloseJob,
    CollectJob,
    Command,
    CreateJob,
    FailChunk,
    FindStray,
    IntendJob,
    LoadChunk,
    PlanTable,
    PollJobs,
    SettleChunk,
    SkipChunks,
    StageChunk,
    StageLinks,
    StageResend,
    TakeImage,
    UploadJob,
)
from forcelift.jobs.tracks import ChunkTrack, JobTrack, Phase, TableTrack

_FAILURES_BEFORE_LEAVING = 6  # half a minute of growing pauses
_FAILURES_BEFORE_LEAVING_NOW = 2


def next_commands(board: Board, now: datetime) -> list[Command]:
    """All commands that can be started at this instant; marks them as under way."""
    if board.is_lost:
        return []
    admission.look(board, now)
    commands: list[Command] = list(sharing.look_around(board, now))
    if not all(table.planned for table in board.tables.values()):
        commands.extend(_plan_tables(board, now))
    if all(table.planned for table in board.tables.values()) or board.is_stopping:
        commands.extend(_begin_chunks(board, now))
        for chunk in list(board.active.values()):
            commands.extend(_push_chunk(board, chunk, now))
        commands.extend(_poll(board, now))
        if not commands and board.in_flight == 0:
            commands.extend(_wind_up(board, now))
    board.in_flight += len(commands)
    return commands


def is_finished(board: Board) -> bool:
    """Whether nothing is at work and nothing more can begin."""
    if board.in_flight or board.active or any(table.parked or table.ready for table in board.tables.values()):
        return False
    if board.share is not None:
        return sharing.is_finished(board)
    if board.is_stopping:
        return board.skipped or not any(table.pending for table in board.tables.values())
    return all(
        (table.is_settled and (table.checked or board.settings.dry_run)) or table.failed or board.is_blocked(table)
        for table in board.tables.values()
    ) and (board.skipped or not any(table.pending for table in board.tables.values()))


def wake_at(board: Board, now: datetime) -> datetime | None:
    """When to look again although nothing was answered; None if only an answer can change anything."""
    times = [wait.until for wait in board.holds.waits if wait.until is not None]
    times.extend(board.holds.wake_times())
    times.extend(sharing.wake_times(board))
    if admission.may_read(board, now):
        tables = board.tables.values()
        times.extend(table.retry_at for table in tables if table.retry_at is not None and not table.planned)
    times.extend(chunk.retry_at for chunk in board.active.values() if chunk.retry_at is not None and not chunk.doing)
    if board.governor.hold is not None:
        return max(min(times), now) if times else None  # nothing that needs the org comes before its end
    times.extend(job.retry_at for _, job in board.jobs() if job.retry_at is not None and not job.doing)
    if not board.polling and (look := polling.next_look(board, polling.waiting(board))) is not None:
        times.append(look)
    return max(min(times), now) if times else None


def _plan_tables(board: Board, now: datetime) -> Iterator[Command]:
    """All tables are planned before the first row is sent: a broken file is found while nothing has happened yet."""
    if not admission.may_read(board, now):
        return
    planning = sum(table.planning for table in board.tables.values())
    for table in board.tables.values():
        if table.planned or table.planning or planning >= board.settings.readers:
            continue
        if table.retry_at is not None and table.retry_at > now:
            continue
        table.planning, table.retry_at = True, None
        planning += 1
        yield PlanTable(table=table.spec.name)


def _begin_chunks(board: Board, now: datetime) -> Iterator[Command]:
    """Take chunks from their queues, as far as readers, memory and disk allow; shared ones are claimed first."""
    may_read = admission.may_read(board, now)
    staging = sum(chunk.phase is Phase.STAGING for chunk in board.active.values())
    if not admission.may_begin(board, now):
        yield from sharing.claim_chunks(board, staging=staging, may_read=False)
        return
    extract_first.send_ready(board)
    for table in board.tables.values():
        while table.parked and board.group_is_loaded(table) and len(board.active) < board.settings.active_chunks_max:
            chunk = table.parked.popleft()
            board.active[chunk.audit_id] = chunk
        if board.share is not None or not table.pending or not may_read or not board.may_stage(table):
            continue
        while (
            table.pending
            and staging < board.settings.readers
            and len(board.active) < board.settings.active_chunks_max
            and admission.has_staging_room(board, table, table.pending[0])
        ):
            chunk = table.pending.popleft()
            chunk.phase = Phase.STAGING
            board.active[chunk.audit_id] = chunk
            staging += 1
    yield from sharing.claim_chunks(board, staging=staging, may_read=may_read)


def _push_chunk(board: Board, chunk: ChunkTrack, now: datetime) -> Iterator[Command]:
    if chunk.doing:
        return
    if chunk.error is not None and not chunk.jobs and not chunk.intending:
        chunk.doing = "fail"
        yield FailChunk(audit_id=chunk.audit_id, message=_public(chunk.error))
        return
    waits = chunk.retry_at is not None and chunk.retry_at > now and not board.is_stopping
    if not waits:
        chunk.retry_at = None
    if chunk.phase is Phase.STAGING and chunk.error is None:
        if board.is_stopping and chunk.begun:
            yield from _fail_unfinished(chunk, "stopped while it was read", is_left=True)
        elif not admission.may_read(board, now):
            # A shared chunk keeps its place: it is claimed, and nobody else may read it meanwhile.
            if board.share is None or board.is_stopping:
                _hold(board, chunk)
        elif not waits:
            chunk.doing = "stage"
            yield StageChunk(audit_id=chunk.audit_id)
    elif chunk.is_sending:
        yield from _push_sending(board, chunk, now, waits=waits)
    elif chunk.phase is Phase.LOADED and not waits and (board.is_stopping or not board.holds.is_outside(now)):
        chunk.doing = "links"
        yield StageLinks(audit_id=chunk.audit_id)
    elif chunk.phase is Phase.SETTLING and not waits:
        chunk.doing = "settle"
        yield SettleChunk(audit_id=chunk.audit_id)


def _fail_unfinished(chunk: ChunkTrack, why: str, *, is_left: bool) -> Iterator[Command]:
    chunk.doing = "fail"
    message = f"not finished: {why}; a resume goes on from here"
    yield FailChunk(audit_id=chunk.audit_id, message=message, is_left=is_left)


def _hold(board: Board, chunk: ChunkTrack) -> None:
    """A chunk that has not begun goes back to its queue."""
    table = board.table_of(chunk)
    board.active.pop(chunk.audit_id)
    chunk.phase = Phase.PENDING
    table.pending.appendleft(chunk)


def _leave_jobs(board: Board, chunk: ChunkTrack, now: datetime) -> None:
    """A stop does not wait for an org that is away or for an allowance: a resume asks for its jobs."""
    patience = _FAILURES_BEFORE_LEAVING_NOW if board.control.stop_now else _FAILURES_BEFORE_LEAVING
    hold = board.governor.hold
    is_long = hold is not None and (hold.until - now).total_seconds() > HOLD_MAX_S * 2
    if board.is_stopping and (is_long or board.governor.failures_in_a_row >= patience):
        for number in [number for number, job in chunk.jobs.items() if not job.doing]:
            del chunk.jobs[number]
            chunk.is_clean = False


def _push_sending(board: Board, chunk: ChunkTrack, now: datetime, *, waits: bool) -> Iterator[Command]:
    _leave_jobs(board, chunk, now)
    for job in chunk.jobs.values():
        command = _push_job(board, chunk, job, now)
        if command is not None:
            yield command
    if chunk.drafts and admission.may_begin(board, now) and chunk.error is None and board.needs_image(chunk):
        if not waits and not board.governor.holds(now):
            chunk.doing = "image"
            yield TakeImage(audit_id=chunk.audit_id)
        return
    if chunk.drafts and admission.may_begin(board, now) and chunk.error is None:
        # One intent at a time: were two in doubt at once, it could not be told which stray job belongs to which.
        if (
            not waits
            and not board.governor.holds(now)
            and not board.has_open_intent()
            and sharing.may_intend(board, now)
            and board.governor.may_start(now, open_jobs=board.open_jobs(), throttle=board.control.throttle_jobs)
        ):
            others_max = sharing.others_max(board)
            chunk.intending += 1
            board.intending += 1
            yield IntendJob(draft=chunk.drafts.popleft(), others_max=others_max)
        return
    if chunk.jobs or chunk.intending:
        return
    if chunk.drafts and board.is_stopping:
        yield from _fail_unfinished(chunk, "stopped before all of its rows were sent", is_left=True)
    elif not chunk.drafts and not waits:
        yield from _after_answers(board, chunk)


def _after_answers(board: Board, chunk: ChunkTrack) -> Iterator[Command]:
    """Every job of this pass is answered: send again what lacks a final answer, or go on."""
    links = chunk.phase is Phase.LINKING
    if chunk.is_clean and not chunk.answers_unknown:
        if chunk.has_links and not links:
            chunk.doing = "load"
            yield LoadChunk(audit_id=chunk.audit_id)
        else:
            chunk.doing = "settle"
            chunk.phase = Phase.SETTLING
            yield SettleChunk(audit_id=chunk.audit_id)
    elif board.is_stopping and not chunk.answers_unknown:
        why = "stopped before the rows without a final answer were sent again"
        yield from _fail_unfinished(chunk, why, is_left=True)
    else:
        chunk.doing = "resend"
        may_send = chunk.attempt - chunk.attempts_before < board.settings.attempts_max and not board.is_stopping
        yield StageResend(
            audit_id=chunk.audit_id,
            links=links,
            attempt=chunk.attempt + 1 if may_send else None,
            include_unknown=chunk.answers_unknown,
        )


def _push_job(board: Board, chunk: ChunkTrack, track: JobTrack, now: datetime) -> Command | None:
    if track.doing or (track.retry_at is not None and track.retry_at > now) or board.governor.holds(now):
        return None
    track.retry_at = None
    command = _job_command(board, chunk, track, now)
    if command is not None:
        track.doing = type(command).__name__
    return command


def _job_command(board: Board, chunk: ChunkTrack, track: JobTrack, now: datetime) -> Command | None:
    number, is_outside = track.job.job_no, board.holds.is_outside(now)
    gives_up = board.control.stop_now or chunk.error is not None or (is_outside and board.is_stopping)
    match track.job.step:
        case JobStep.INTENDED if track.in_doubt:
            return FindStray(
                job_no=number, is_last=(now - track.job.intended_at).total_seconds() >= board.settings.unseen_s
            )
        case JobStep.INTENDED if gives_up or track.redraft:
            return AbandonJob(job_no=number, reason="not created")
        case JobStep.INTENDED if is_outside:
            # It may take hours until it may be created, and its day's allowance is better left to others till then.
            return AbandonJob(job_no=number, reason="the hours of `limits.window` ended before it was created")
        case JobStep.INTENDED:
            return CreateJob(job_no=number)
        case JobStep.CREATED if track.in_doubt or gives_up:
            return AbandonJob(job_no=number, reason="its upload was not certain")
        case JobStep.CREATED if is_outside:
            return None
        case JobStep.CREATED:
            return UploadJob(job_no=number)
        case JobStep.UPLOADED if track.in_doubt:
            return AskJob(job_no=number)
        case JobStep.UPLOADED if gives_up:
            return AbandonJob(job_no=number, reason="stopped before it was closed")
        case JobStep.UPLOADED if is_outside:
            return None  # closed, the org would begin to load
        case JobStep.UPLOADED:
            return CloseJob(job_no=number)
        case JobStep.CLOSED if track.is_terminal:
            return CollectJob(job_no=number, seen=track.seen)
        case JobStep.CLOSED if board.control.stop_now and not track.abort_asked:
            track.abort_asked = True
            return AbortJob(job_no=number)
    return None


def _poll(board: Board, now: datetime) -> Iterator[Command]:
    if board.polling or board.governor.holds(now):
        return
    waiting = polling.waiting(board)
    look = polling.next_look(board, waiting)
    if look is not None and look <= now:
        board.polling = True
        yield PollJobs(job_nos=tuple(track.job.job_no for track in waiting))


def _wind_up(board: Board, now: datetime) -> Iterator[Command]:
    """Nothing is at work: look over the finished tables, then mark what will not begin."""
    if board.active:
        return
    if not board.settings.dry_run and sharing.may_check(board, now):
        for table in board.tables.values():
            if table.is_settled and not table.checked and not table.checking and not table.failed:
                table.checking = True
                yield CheckTable(table=table.spec.name)
    if (error := admission.no_room_ever(board, now)) is not None:
        board.halt(error)
    stuck = board.is_stopping or all(
        not (table.pending or table.parked or table.ready) or board.is_blocked(table) or _group_failed(board, table)
        for table in board.tables.values()
    )
    if stuck:
        for chunk in extract_first.left_ready(board):
            yield from _fail_unfinished(chunk, "stopped before any of its rows were sent", is_left=True)
        for chunk in _given_up_reads(board):
            yield from _fail_unfinished(chunk, "stopped before it was read again", is_left=True)
        yield from _give_up_parked(board)
    # On a shared batch the last runner to leave marks what did not begin.
    if stuck and board.share is None and not board.skipped and any(table.pending for table in board.tables.values()):
        board.skipped = True
        yield SkipChunks(reason=why_skipped(board))


def _given_up_reads(board: Board) -> Iterator[ChunkTrack]:
    """Chunks that were begun and wait in their queue: they are RUNNING in the audit log and must not stay so."""
    for table in board.tables.values():
        for chunk in [chunk for chunk in table.pending if chunk.begun]:
            table.pending.remove(chunk)
            board.active[chunk.audit_id] = chunk
            yield chunk


def _group_failed(board: Board, table: TableTrack) -> bool:
    return any(other.failed for other in board.group_of(table))


def _give_up_parked(board: Board) -> Iterator[Command]:
    """Loaded chunks whose group cannot be finished in this run: their links wait for a resume."""
    for table in board.tables.values():
        while table.parked:
            chunk = table.parked.popleft()
            board.active[chunk.audit_id] = chunk
            yield from _fail_unfinished(
                chunk, "the tables that it refers to were not all loaded", is_left=board.is_stopping
            )


def _public(error: BaseException) -> str:
    """What may stand in the audit database: our own sentences. Others' texts may repeat values of rows."""
    return error.message if isinstance(error, ForceliftError) else f"a fault of the program ({type(error).__name__})"


def why_skipped(board: Board) -> str:
    """Why chunks are not begun, for their rows of the audit log."""
    if board.control.stop or board.control.stop_now:
        return f"stopped by {board.control.by or 'an operator'}: {board.control.reason or 'no reason given'}"
    if board.errors:
        return f"not begun, because of an earlier fault: {_public(board.errors[0])}"
    return "not begun, because a table that it refers to was not finished"
