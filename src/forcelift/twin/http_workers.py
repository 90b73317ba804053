"""Worker threads of the HTTP surface, counted, so that nobody closes the org's file under one that is still at work.

The server cancels requests that do not end in time, but a thread goes on until its call returns: an upload whose client
has gone still removes what it had stored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

import anyio.to_thread

IDLE_TIMEOUT_S: Final = 60.0

T = TypeVar("T")


class Workers:
    """Runs blocking calls on threads and knows which are under way."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._at_work: dict[object, bool] = {}  # whether its thread has begun

    async def run(self, call: Callable[..., T], *args: object) -> T:
        """The result of the call, made on a thread."""
        ticket = object()
        self._at_work[ticket] = False
        try:
            return await anyio.to_thread.run_sync(self._counted, ticket, call, args)
        finally:
            # Cancelled while it waited for a thread, it will never begin; one that began strikes itself off.
            if not self._at_work.get(ticket):
                self._strike(ticket)

    def wait_idle(self, timeout_s: float = IDLE_TIMEOUT_S) -> bool:
        """Wait until no call is under way; False if one still is after that time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._at_work, timeout_s)

    def _counted(self, ticket: object, call: Callable[..., T], args: tuple[object, ...]) -> T:
        self._at_work[ticket] = True
        try:
            return call(*args)
        finally:
            self._strike(ticket)

    def _strike(self, ticket: object) -> None:
        with self._changed:
            self._at_work.pop(ticket, None)
            self._changed.notify_all()
