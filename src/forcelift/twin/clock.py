"""The twin's time: everything that depends on the hour asks a clock that a test can hold."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the org's time."""

    def now(self) -> datetime:
        """The current instant, with time zone UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class ManualClock:
    """A clock that stands still until it is moved; safe to share among threads."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._lock = threading.Lock()

    def now(self) -> datetime:
        with self._lock:
            return self._now

    def advance(self, step: timedelta) -> datetime:
        """Move the clock forward and tell the new time."""
        with self._lock:
            self._now += step
            return self._now


def api_time(moment: datetime) -> str:
    """An instant as the API writes it: `2018-12-18T22:51:36.000+0000`. Takes UTC, with or without its zone."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.000+0000"
