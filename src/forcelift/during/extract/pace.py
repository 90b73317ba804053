"""How fast rows are read, and when reading stops: over all readers of a batch together, between two Arrow batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pyarrow as pa

from forcelift.errors import ReadingStopped
from forcelift.protocols.clock import Clock

SAVED_S = 1.0
"""Seconds of the allowance that a quiet source saves up; more would be a burst."""

PIECE_S = 0.5
"""A wait is cut into pieces of this length, so that a stop is heard in the middle of it."""


class Pace:
    """A token bucket that all readers draw from, and the switch that ends their reads.

    Args:
        clock: Measures and sleeps.
        rows_per_second: The plan's `source.limits.rows_per_second`; None is no limit.

    Of a batch that several processes read, each takes its part of the limit: see `share`.
    """

    def __init__(self, *, clock: Clock, rows_per_second: int | None = None) -> None:
        self._clock, self._rate = clock, rows_per_second
        self._lock = threading.Lock()
        self._paid_until = clock.monotonic()
        self._processes = 1
        self._stopped = threading.Event()

    def stop(self, stopped: bool) -> None:
        """Give up all reads under way, or let reads begin again."""
        if stopped:
            self._stopped.set()
        else:
            self._stopped.clear()

    def share(self, processes: int) -> None:
        """So many processes read the same source: this one takes its part of the allowance."""
        self._processes = max(1, processes)

    def batch_rows(self, wanted: int) -> int:
        """Rows of one Arrow batch: no more than about a second's allowance, so that the rate is even."""
        return wanted if self._rate is None else max(100, min(wanted, self._rate))

    def through(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Hand on the batches of one read no faster than allowed.

        Raises:
            ReadingStopped: Reading is over for now; the read is closed.
        """
        try:
            self._check()
            for batch in batches:
                rows = batch.num_rows
                yield batch
                del batch  # or it would be held while the next one is read
                self._pay(rows)
                self._check()
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()

    def _pay(self, rows: int) -> None:
        """Wait until the rows are covered by the allowance. Readers pay one after the other, whoever comes first."""
        if self._rate is None:
            return
        with self._lock:
            begins = max(self._paid_until, self._clock.monotonic() - SAVED_S)
            until = self._paid_until = begins + rows * self._processes / self._rate
        while (left := until - self._clock.monotonic()) > 0:
            self._check()
            self._clock.sleep(min(left, PIECE_S))

    def _check(self) -> None:
        if self._stopped.is_set():
            raise ReadingStopped("the read was given up: the batch stops, or its hours have ended")
