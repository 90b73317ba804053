"""A batch that several runners share: what to claim and when to look around, and what the answers mean. Pure.

A runner begins only chunks that it has claimed. Of all others it knows what it saw when it last looked around: those
that another living runner has are `elsewhere`, those that nobody has are pending. It leaves when nothing is left to
claim and nothing is at work elsewhere, so that it is there to take over from a runner that dies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from forcelift.audit.records import Job
from forcelift.audit.shared_work import Around, ClaimedChunks, FailedElsewhere
from forcelift.audit.shares import IntentRefused
from forcelift.errors import TargetError
from forcelift.jobs.board import Board, Share
from forcelift.jobs.messages import Answer, ClaimChunks, Command, IntendJob, LookAround
from forcelift.jobs.tracks import ChunkTrack, Phase, TableTrack, restore_chunk


def look_around(board: Board, now: datetime) -> Iterator[Command]:
    """A look at the others, if it is time and there is something to learn."""
    share = board.share
    if share is None or share.looking or board.is_stopping or not _has_open_questions(board, share):
        return
    if share.next_look is not None and share.next_look > now:
        return
    share.looking = True
    unplanned = tuple(name for name, table in board.tables.items() if not table.planned)
    open_ids = set(share.elsewhere)
    for table in board.tables.values():
        open_ids.update(chunk.audit_id for chunk in table.pending)
    yield LookAround(open_ids=frozenset(open_ids), unplanned=unplanned)


def claim_chunks(board: Board, *, staging: int, may_read: bool) -> Iterator[Command]:
    """Claim as many chunks as there is room for. `staging` chunks are being read already."""
    share = board.share
    if share is None or share.claiming or board.is_stopping:
        return
    room = min(board.settings.readers - staging, board.settings.active_chunks_max - len(board.active))
    if not may_read or board.control.paused or board.staged_bytes >= board.settings.staged_bytes_max:
        room = 0
    names = tuple(name for name, table in board.tables.items() if table.pending and board.may_start(table))
    # A job that a dead runner left in doubt keeps everybody from creating jobs, so it is claimed whatever the room.
    if share.orphan_intent or (room > 0 and names):
        share.claiming = True
        yield ClaimChunks(tables=names, wanted=max(room, 0) if names else 0)


def wake_times(board: Board) -> Iterator[datetime]:
    """When sharing may bring something although nothing was answered."""
    share = board.share
    if share is None or board.is_stopping:
        return
    if share.next_look is not None and not share.looking and _has_open_questions(board, share):
        yield share.next_look
    if share.intend_after is not None and any(chunk.drafts for chunk in board.active.values()):
        yield share.intend_after
    if share.check_after is not None:
        yield share.check_after


def is_finished(board: Board) -> bool:
    """Whether this runner has nothing more to do or to wait for; nothing is in flight or at work in it."""
    share = board.share
    assert share is not None
    if board.is_stopping:
        return True
    for table in board.tables.values():
        if table.is_settled and (table.checked or board.settings.dry_run):
            continue
        if not (table.failed or board.is_blocked(table)):
            return False
        if table.pending and board.may_start(table):
            return False
    return not share.elsewhere


def may_intend(board: Board, now: datetime) -> bool:
    """Whether the other runners leave room for one more job of ours, as far as is known here."""
    share = board.share
    if share is None:
        return True
    if share.intend_after is not None and share.intend_after > now:
        return False
    share.intend_after = None
    ceiling = _ceiling(board)
    # While all have work of their own, each takes its part. At the end, when nothing is left to claim, whoever has
    # jobs to start takes what is free.
    if share.runners > 1 and any(table.pending for table in board.tables.values()):
        ceiling = -(-ceiling // share.runners)
    return board.open_jobs() < ceiling


def others_max(board: Board) -> int | None:
    """How many jobs of others may be open beside one more of ours."""
    return None if board.share is None else max(0, _ceiling(board) - board.open_jobs() - 1)


def _ceiling(board: Board) -> int:
    throttle = board.control.throttle_jobs
    return board.governor.allowed if throttle is None else min(board.governor.allowed, throttle)


def _has_open_questions(board: Board, share: Share) -> bool:
    return bool(share.elsewhere) or any(
        table.pending or not (table.planned or table.planning) for table in board.tables.values()
    )


def intent_refused(board: Board, command: IntendJob, refused: IntentRefused, now: datetime) -> None:
    """Another runner's job comes first."""
    assert board.share is not None
    board.active[command.draft.audit_id].drafts.appendleft(command.draft)
    board.share.intend_after = now + timedelta(seconds=refused.retry_s * board.governor.rng.uniform(0.75, 1.25))


def claimed(board: Board, command: ClaimChunks, answer: Answer, now: datetime) -> None:
    """Go on with the chunks that are ours now, wherever they stand."""
    share = board.share
    assert share is not None
    share.claiming = False
    if answer.error is not None:
        board.halt(answer.error)
        return
    share.orphan_intent = False
    result: ClaimedChunks = answer.result
    jobs: dict[int, list[Job]] = defaultdict(list)
    for job in result.jobs:
        jobs[job.audit_id].append(job)
    for chunk in result.chunks:
        table = board.tables[chunk.table_name]
        known = _take_out(board, share, table, chunk.audit_id)
        track = restore_chunk(table.spec, chunk, jobs[chunk.audit_id])
        board.staged_bytes += track.staged_bytes
        board.count_staged(table, chunk)
        if track.loaded and not known.loaded:
            table.not_loaded -= 1
        if track.phase is Phase.LOADED:
            table.parked.append(track)
            continue
        if track.phase is Phase.PENDING:
            track.phase = Phase.STAGING
        board.active[track.audit_id] = track
    if len(result.chunks) < command.wanted:
        # There was nothing more to have: the next look tells when there is.
        for name in command.tables:
            _move_elsewhere(share, board.tables[name], {chunk.audit_id for chunk in board.tables[name].pending})


def planned_elsewhere(board: Board, table: TableTrack, now: datetime) -> None:
    """Another runner plans the table: ask again later, in case it dies."""
    table.retry_at = now + timedelta(seconds=board.settings.look_pause_s)


def checked_elsewhere(board: Board, now: datetime) -> None:
    """Another runner looks a table over: ask again later for what it found."""
    assert board.share is not None
    board.share.check_after = now + timedelta(seconds=board.settings.look_pause_s)


def may_check(board: Board, now: datetime) -> bool:
    """Whether it is time to ask for a table's check."""
    share = board.share
    if share is None:
        return True
    if share.check_after is not None and share.check_after > now:
        return False
    share.check_after = None
    return True


def looked(board: Board, command: LookAround, answer: Answer, now: datetime) -> None:
    """Take in what the others have done."""
    share = board.share
    assert share is not None
    share.looking = False
    share.next_look = now + timedelta(seconds=board.settings.look_pause_s * board.governor.rng.uniform(0.8, 1.2))
    if answer.error is not None:
        board.halt(answer.error)
        return
    seen: Around = answer.result
    share.runners, share.silent_s = seen.runners, seen.silent_s
    share.orphan_intent = share.orphan_intent or seen.orphan_intent
    for name, chunks in seen.planned.items():
        table = board.tables[name]
        if not table.planned and not table.planning:
            board.add_chunks(table, chunks, {})
    by_id = _open_tracks(board, share)
    for chunk in seen.settled:
        if (track := by_id.get(chunk.audit_id)) is None:
            continue
        table = board.table_of(track)
        _take_out(board, share, table, track.audit_id)
        board.count_settled(table, chunk)
        board.end_chunk(track, Phase.DONE, chunk.status)
    for track in by_id.values():
        if track.audit_id in seen.loaded and not track.loaded:
            board.mark_loaded(track)
    _failed_elsewhere(board, share, by_id, seen.failed)
    for table in board.tables.values():
        _move_elsewhere(share, table, seen.held)
    for audit_id in seen.free & share.elsewhere.keys():
        track = share.elsewhere.pop(audit_id)
        board.table_of(track).pending.append(track)


def _failed_elsewhere(
    board: Board, share: Share, by_id: dict[int, ChunkTrack], failed: Sequence[FailedElsewhere]
) -> None:
    for one in failed:
        if (track := by_id.get(one.audit_id)) is None:
            continue
        table = board.table_of(track)
        _take_out(board, share, table, track.audit_id)
        board.end_chunk(track, Phase.FAILED)
        board.errors.append(
            TargetError(
                f"table `{track.table}`, chunk {track.chunk_no}, was given up by another process: {one.message}",
                state="its files are kept, and its jobs are written down",
                hint="mend the cause, then go on with `forcelift run --resume`",
            )
        )


def _open_tracks(board: Board, share: Share) -> dict[int, ChunkTrack]:
    tracks = dict(share.elsewhere)
    for table in board.tables.values():
        tracks.update((track.audit_id, track) for track in table.pending)
    return tracks


def _take_out(board: Board, share: Share, table: TableTrack, audit_id: int) -> ChunkTrack:
    """Remove a chunk from those that are not ours, and return what was known of it."""
    if audit_id in share.elsewhere:
        return share.elsewhere.pop(audit_id)
    track = next(track for track in table.pending if track.audit_id == audit_id)
    table.pending.remove(track)
    return track


def _move_elsewhere(share: Share, table: TableTrack, audit_ids: set[int] | frozenset[int]) -> None:
    tracks = list(table.pending)
    table.pending.clear()
    for track in tracks:
        if track.audit_id in audit_ids:
            share.elsewhere[track.audit_id] = track
        else:
            table.pending.append(track)
