"""`--extract-first`: everything is read, cleaned and staged before the first job of the batch. Pure.

A staged chunk lies ready in its table's queue until nothing is left to read; then tables are sent in their usual order,
children after their parents have settled. While reading goes on, children are read after their parents are staged, as
a lookup's parent is then known from the staged rows.
"""

from __future__ import annotations

from collections.abc import Iterator

from forcelift.jobs.board import Board
from forcelift.jobs.tracks import ChunkTrack, Phase


def is_extracting(board: Board) -> bool:
    """Whether the batch is still in its first half: something is to be read, and nothing may be sent."""
    return board.settings.extract_first and any(not board.is_staged(table) for table in board.tables.values())


def send_ready(board: Board) -> None:
    """Take staged chunks on, once all is read and as far as their parents have settled."""
    if is_extracting(board):
        return
    for table in board.tables.values():
        while table.ready and board.may_start(table) and len(board.active) < board.settings.active_chunks_max:
            chunk = table.ready.popleft()
            chunk.phase = Phase.SENDING
            board.active[chunk.audit_id] = chunk


def left_ready(board: Board) -> Iterator[ChunkTrack]:
    """Take all staged chunks back, as this run will not send them: a resume does."""
    for table in board.tables.values():
        while table.ready:
            chunk = table.ready.popleft()
            chunk.phase = Phase.SENDING
            board.active[chunk.audit_id] = chunk
            yield chunk
