"""Watching the socket while a statement runs, so that a client can stop it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
from tests.oracle_server.wire import Packets


class Watch:
    """A thread that looks for a break every few milliseconds while something runs."""

    def __init__(self, packets: Packets) -> None:
        self._packets = packets
        self._running: duckdb.DuckDBPyConnection | None = None
        self._lock = threading.Lock()
        self._busy = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def is_cancelled(self) -> bool:
        """True if the client has sent something in the middle of a call: that can only be a break."""
        return self._packets.waiting()

    @contextmanager
    def over(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Interrupt the connection's statement if the client breaks in."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()
        with self._lock:
            self._running = connection
        self._busy.set()
        try:
            yield
        finally:
            with self._lock:
                self._running = None
            self._busy.clear()

    def close(self) -> None:
        self._closed = True
        self._busy.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        pause = threading.Event()
        while not self._closed:
            self._busy.wait()
            pause.wait(0.01)
            with self._lock:
                if self._running is not None and self._packets.waiting():
                    self._running.interrupt()
