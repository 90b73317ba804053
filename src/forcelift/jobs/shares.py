"""Who may hold rows in memory at the same time: turns at work on them, and room for what waits in between."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from msgspec import Struct, field

ANSWER_BYTES: Final = 80
"""What an answer takes while the others of its job are fetched: a key and an Id with their views."""

WHOLE_ROW_BYTES: Final = 400
"""What a row takes where a chunk is settled whole or cut again: staged and answered, and the lines made of both."""


class Room:
    """A number of bytes that several threads share. Who needs more than there is has it alone.

    Args:
        total: Bytes; None for no limit.
    """

    def __init__(self, total: int | None = None) -> None:
        self._total, self._used = total, 0
        self._changed = threading.Condition()

    @contextmanager
    def of(self, wanted: int) -> Iterator[None]:
        """Wait for so many bytes and hold them while the block lasts. A block must not ask for more inside."""
        with self._changed:
            self._changed.wait_for(lambda: self._total is None or not self._used or self._used + wanted <= self._total)
            self._used += wanted
        try:
            yield
        finally:
            with self._changed:
                self._used -= wanted
                self._changed.notify_all()


class Shares(Struct, frozen=True, kw_only=True):
    """What readers and joiners of one process share; by default there are no limits.

    Attributes:
        turn: Held while columns are computed, a batch or a slice at a time; never while a network or a disk is waited
            for. There are as many turns as that much memory allows, so it does not matter how many threads there are.
        room: Held, by bytes, by who keeps the answers of a whole job or the rows of a whole chunk.
    """

    turn: AbstractContextManager[object] = field(default_factory=nullcontext)
    room: Room = field(default_factory=Room)

    @classmethod
    def of(cls, *, turns: int, room_bytes: int) -> Shares:
        return cls(turn=threading.BoundedSemaphore(turns), room=Room(room_bytes))
