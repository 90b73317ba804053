"""Carry out a coordinator's commands in threads, until it is finished.

Threads only run handlers and put the answer into one queue; the loop in the calling thread is the only one that
touches the coordinator. Signals and the operator's wishes come in as events, too.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from typing import Any, Final

from forcelift.allocators import give_back
from forcelift.audit.records import Control
from forcelift.jobs.coordinator import Coordinator
from forcelift.jobs.handlers import dispatch
from forcelift.jobs.holds import DiskSeen
from forcelift.jobs.messages import (
    Answer,
    CheckTable,
    CollectJob,
    Command,
    ControlSeen,
    LoadChunk,
    PlanTable,
    SettleChunk,
    StageChunk,
    StageLinks,
    StageResend,
)
from forcelift.protocols.clock import Clock

CONTROL_PAUSE_S = 1.0
CLOCK_LEAP: Final = timedelta(seconds=2)
"""So far the wall clock may run ahead of what was counted before it is believed: the machine slept."""

_READS = (PlanTable, StageChunk, StageLinks)
_JOINS = (CollectJob, LoadChunk, SettleChunk, StageResend, CheckTable)
"""These hold a chunk's keys or answers in memory; all others hold pieces of a file at most."""


class Runner:
    """Drives one batch.

    Args:
        coordinator: Decides; touched by the calling thread alone.
        handlers: What to do for each type of command.
        control: Reads the operator's wishes; asked about once a second.
        disk: Looks at the staging folder's disk, as often.
        api_requests_left: The org's last word on it.
        on_progress: Called in the calling thread after each turn of the loop.
        readers, joiners, senders: Threads for reading and cleaning, for collecting and settling, and for all else. Each
            of the first two holds a good part of a chunk in memory; by default there are as many joiners as senders.
        holders: Readers and joiners at work at once; more than of either alone, so that neither keeps the other out. By
            default all. Joiners come in force when fewer chunks are read, which is so at a small table's end as well.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        handlers: Mapping[type, Callable[[Any], Any]],
        *,
        clock: Clock,
        control: Callable[[], Control],
        api_requests_left: Callable[[], int | None],
        on_progress: Callable[[Coordinator], None],
        readers: int,
        senders: int,
        joiners: int | None = None,
        holders: int | None = None,
        disk: Callable[[], DiskSeen] | None = None,
    ) -> None:
        self._coordinator, self._handlers, self._clock = coordinator, handlers, clock
        self._control, self._api_requests_left, self._on_progress = control, api_requests_left, on_progress
        self._disk = disk
        self._answers: queue.SimpleQueue[Answer | Control] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="reader")
        self._joiners = ThreadPoolExecutor(joiners or senders, thread_name_prefix="joiner")
        self._senders = ThreadPoolExecutor(senders, thread_name_prefix="sender")
        self._holders: AbstractContextManager[object] = nullcontext()
        if holders is not None:
            if holders <= max(readers, joiners or senders):
                raise ValueError(f"{holders} at work at once would let readers or joiners keep the others out")
            self._holders = threading.BoundedSemaphore(holders)
        self._asked: Control | None = None
        self._began, self._began_monotonic = clock.now(), clock.monotonic()

    def stop(self, control: Control) -> None:
        """Ask for a stop from a signal handler or another thread; what is at work is finished first."""
        self._answers.put(control)

    def run(self) -> None:
        """Run until the coordinator is finished. Errors of handlers end up in `Coordinator.errors`, not here."""
        try:
            # The disk is looked at before anything is begun, or what is nearly full would take a chunk for each reader;
            # and the wishes, or who joins a paused batch would begin a table and a chunk.
            disk = None if self._disk is None else self._disk()
            wishes = self._control()
            changed = wishes if wishes != self._coordinator.control else None
            self._start(self._coordinator.start(self._now(), control=changed, disk=disk))
            next_control = self._clock.monotonic()
            while not self._coordinator.is_finished:
                now = self._now()
                commands: list[Command] = []
                item = self._next_item(now)
                if isinstance(item, Answer):
                    commands.extend(self._coordinator.on(item, self._now()))
                elif isinstance(item, Control):
                    self._asked = item
                    commands.extend(self._coordinator.on(ControlSeen(control=item), self._now()))
                if self._clock.monotonic() >= next_control:
                    next_control = self._clock.monotonic() + CONTROL_PAUSE_S
                    if self._disk is not None:
                        commands.extend(self._coordinator.on(self._disk(), self._now()))
                    seen = _stronger(self._asked, self._control())
                    if seen != self._coordinator.control:
                        commands.extend(self._coordinator.on(ControlSeen(control=seen), self._now()))
                commands.extend(self._coordinator.tick(self._now()))
                self._start(commands)
                self._on_progress(self._coordinator)
        finally:
            self._readers.shutdown(wait=True, cancel_futures=True)
            self._joiners.shutdown(wait=True, cancel_futures=True)
            self._senders.shutdown(wait=True, cancel_futures=True)

    def _now(self) -> datetime:
        """Time as the coordinator counts it: a wall clock that is set back must not make it wait.

        Set forward, as after the machine slept, it is believed: the hours of a day depend on it.
        """
        counted = self._began + timedelta(seconds=self._clock.monotonic() - self._began_monotonic)
        ahead = self._clock.now() - counted
        if ahead > CLOCK_LEAP:
            self._began += ahead
            return counted + ahead
        return counted

    def _next_item(self, now: datetime) -> Answer | Control | None:
        wake = self._coordinator.wake_at(now)
        pause = CONTROL_PAUSE_S if wake is None else min(CONTROL_PAUSE_S, max(0.0, (wake - now).total_seconds()))
        try:
            return self._answers.get(timeout=max(pause, 0.001))
        except queue.Empty:
            return None

    def _start(self, commands: list[Command]) -> None:
        for command in commands:
            self._pool(command).submit(self._carry_out, command)

    def _pool(self, command: Command) -> ThreadPoolExecutor:
        if isinstance(command, _READS):
            return self._readers
        return self._joiners if isinstance(command, _JOINS) else self._senders

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, (*_READS, *_JOINS)):
            with self._holders:
                result, error = self._try(command)
                give_back()
        else:
            result, error = self._try(command)
        self._answers.put(
            Answer(command=command, result=result, error=error, api_requests_left=self._api_requests_left())
        )

    def _try(self, command: Command) -> tuple[Any, Exception | None]:
        try:
            return dispatch(self._handlers, command), None
        except Exception as caught:  # noqa: BLE001 - handed to the coordinator, which decides; nothing is dropped
            return None, caught
        except BaseException as panic:  # noqa: BLE001 - unanswered, the run would wait for this command for ever
            error = RuntimeError(f"{type(panic).__name__} in {type(command).__name__}")
            error.__cause__ = panic
            return None, error


def _stronger(asked: Control | None, recorded: Control) -> Control:
    """A stop that was asked for stays asked for; one recorded in the audit database may still make it sharper."""
    return recorded if asked is None or (recorded.stop_now and not asked.stop_now) else asked
