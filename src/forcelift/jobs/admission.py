"""Whether something new may begin: what holds a batch back, asked of the whole board. Pure.

Before anything is decided, `look` brings all waits up to the instant; the other functions answer one question each.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from forcelift.errors import StorageError
from forcelift.jobs.board import Board
from forcelift.jobs.holds import Wait, WaitKind, reply_awaited
from forcelift.jobs.tracks import ChunkTrack, TableTrack

SILENCE_STEP_S = 20
"""How exactly the silence of other runners is told. A living one gives a sign of life more often than that, so that the
reason changes, and is told anew, only for one that may be dead."""


def look(board: Board, now: datetime) -> None:
    """Bring all waits up to this instant, as `Holds.waits`; to be called before anything is decided."""
    holds, governor = board.holds, board.governor
    governor.expire(now)
    waits: list[Wait] = []
    if board.control.paused and not board.is_stopping:
        waits.append(Wait(kind=WaitKind.PAUSE, reason=holds.paused_because))
    if holds.is_outside(now) and not board.is_stopping and holds.hours is not None:
        reason = f"outside of `limits.window` {holds.hours.text}"
        waits.append(Wait(kind=WaitKind.WINDOW, reason=reason, until=holds.opens_at))
    disk = holds.disk_wait(now)
    holds.disk_waits_since = None if disk is None else holds.disk_waits_since or now
    if disk is not None and not board.is_stopping and (is_reading_left(board) or holds.full_until is not None):
        waits.append(disk)
    if governor.hold is not None:
        waits.append(Wait(kind=WaitKind.ORG, reason=governor.hold.reason, until=governor.hold.until))
    if governor.start_hold is not None and not board.is_stopping:
        start = governor.start_hold
        waits.append(Wait(kind=WaitKind.ALLOWANCE, reason=start.reason, until=start.until))
    # A batch has one open intent at a time; nothing else of it is intended until this one is settled.
    for chunk, track in board.jobs():
        if track.awaited:
            waits.append(Wait(kind=WaitKind.REPLY, reason=reply_awaited(chunk.table, track.awaited)))
    if (others := _others_wait(board)) is not None:
        waits.append(others)
    holds.waits = tuple(waits)


def _others_wait(board: Board) -> Wait | None:
    """That nothing is left here but to see what other runners do with their chunks, if so."""
    share = board.share
    if share is None or not share.elsewhere or board.is_stopping or board.active:
        return None
    if any(table.pending and board.may_start(table) for table in board.tables.values()):
        return None
    count, steps = len(share.elsewhere), int(share.silent_s // SILENCE_STEP_S)
    ago = f"{steps * SILENCE_STEP_S} s" if steps else f"under {SILENCE_STEP_S} s"
    chunks = "1 chunk is" if count == 1 else f"{count} chunks are"
    return Wait(kind=WaitKind.OTHERS, reason=f"{chunks} another process's (last sign of life {ago} ago)")


def may_read(board: Board, now: datetime) -> bool:
    """Whether a table may be planned or a chunk read now."""
    return not (board.is_stopping or board.control.paused or board.holds.is_outside(now) or board.holds.disk_wait(now))


def may_begin(board: Board, now: datetime) -> bool:
    """Whether a chunk may be taken on, or a job begun, as far as operator and hours go."""
    return not (board.is_stopping or board.control.paused or board.holds.is_outside(now))


def stops_reading(board: Board) -> bool:
    """Whether a read that is under way is to be given up: what was read of its chunk is read again later."""
    return board.is_stopping or any(wait.kind is WaitKind.WINDOW for wait in board.holds.waits)


def is_reading_left(board: Board) -> bool:
    """Whether anything of the batch is still to be read."""
    return any(not table.planned or table.pending for table in board.tables.values())


def bytes_expected(table: TableTrack, chunk: ChunkTrack) -> int:
    """What a chunk will take on the disk, by what the table's rows took so far; 0 before the first."""
    return int(table.bytes_per_row * chunk.rows_estimate)


def has_staging_room(board: Board, table: TableTrack, chunk: ChunkTrack) -> bool:
    """Whether one more chunk fits into `limits.staging_gb`; the first one always does, or nothing would ever begin."""
    coming = sum(
        bytes_expected(board.table_of(other), other)
        for other in board.active.values()
        if other.staged_bytes == 0 and other is not chunk
    )
    held, limit = board.staged_bytes + coming, board.settings.staged_bytes_max
    return held == 0 or (held < limit and held + bytes_expected(table, chunk) <= limit)


def no_room_ever(board: Board, now: datetime) -> StorageError | None:
    """The error that ends a batch whose reading waits for room that nothing of its own can make.

    To be asked when nothing is at work. A full disk is waited for: others may make room; only `--extract-first`, which
    holds everything until the last row is read, gives up after `EngineSettings.room_patience_s`.
    """
    if not is_reading_left(board) or board.is_stopping or board.control.paused or board.holds.is_outside(now):
        return None
    disk = board.holds.disk_wait(now)
    if disk is not None:
        since = board.holds.disk_waits_since or now
        patience = timedelta(seconds=board.settings.room_patience_s)
        if not board.settings.extract_first or now - since < patience:
            return None
        return StorageError(
            f"`--extract-first` waited {board.settings.room_patience_s / 60:.0f} minutes for room: {disk.reason}",
            state="nothing was sent; what is staged stays, and is not read again",
            hint="make room or point `staging` to a larger disk, then `forcelift run --resume`",
        )
    waiting = [(table, table.pending[0]) for table in board.tables.values() if table.pending and board.may_stage(table)]
    if not waiting or any(has_staging_room(board, table, chunk) for table, chunk in waiting):
        return None
    held, limit = board.staged_bytes / 1e9, board.settings.staged_bytes_max / 1e9
    return StorageError(
        f"{held:.3f} GB are staged, one more chunk does not fit into `limits.staging_gb` {limit:g}, and nothing "
        "that is staged can go before more is read",
        state="what is staged stays, and is not read again",
        hint="raise `limits.staging_gb`, then `forcelift run --resume`",
    )
