"""What keeps a batch from reading and sending although the org would let it: the hours, the disk, a pause. Pure.

The governor speaks for the org; this module for everything else. Each wait has a reason that a person reads, and the
time until which it lasts where that is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from forcelift.audit.records import Control

DISK_FULL_PAUSE_S = 10.0
DISK_FULL_PAUSE_MAX_S = 300.0
"""After a write met a full disk, growing: it is tried again then, or as soon as the disk shows more room."""

MORE_ROOM_SHARE, MORE_ROOM_BYTES = 0.01, 100_000_000
"""What counts as more room: a share of the disk, or so many bytes if that is less."""

DISK_SLACK = 1.0
"""Percentage points below the threshold at which staging goes on, or it would start and stop with each file."""


class Hours(Protocol):
    """The hours in which a batch may work; `text` is what the plan calls them."""

    @property
    def text(self) -> str: ...

    def contains(self, instant: datetime) -> bool: ...

    def next_open(self, instant: datetime) -> datetime: ...


class WaitKind(StrEnum):
    """What a batch waits for."""

    PAUSE = "pause"  # an operator's `resume`
    WINDOW = "window"  # the plan's hours
    DISK = "disk"  # room in the staging folder's file system
    ORG = "org"  # an org that is away, busy or used up
    ALLOWANCE = "allowance"  # our own count of the rolling day
    REPLY = "reply"  # the end of jobs of which one may be ours, as the reply to its creation was lost
    OTHERS = "others"  # chunks that other runners of a shared batch have


class Wait(Struct, frozen=True, kw_only=True):
    """One reason why something is not begun; `until` is None where nobody can tell."""

    kind: WaitKind
    reason: str
    until: datetime | None = None

    def __str__(self) -> str:
        return self.reason + (f" (until {self.until.isoformat(timespec='seconds')})" if self.until else "")


def reply_awaited(table: str, sf_ids: Sequence[str]) -> str:
    """That jobs in the org have to end before it is known whether one of them is ours."""
    return (
        f"the answer to the creation of a job of table `{table}` was lost: waiting for the end of {', '.join(sf_ids)}, "
        "to see whether it is that job"
    )


class DiskSeen(Struct, frozen=True, kw_only=True):
    """How full the staging folder's file system is, in bytes: what this user may use, and what is free of it."""

    total: int
    free: int

    @property
    def used_percent(self) -> float:
        return 100.0 * (self.total - self.free) / self.total if self.total else 0.0


class Holds(Struct, kw_only=True):
    """What is known of hours, disk and pause.

    Args:
        hours: The plan's `limits.window`; None is always.
        disk_critical: Share in % of the file system above which nothing more is staged; None does not look.
    """

    hours: Hours | None = None
    disk_critical: float | None = None
    disk: DiskSeen | None = None
    disk_is_critical: bool = False
    disk_reason: str = ""
    disk_waits_since: datetime | None = None
    full_until: datetime | None = None  # a write met a full disk: nothing more is staged before then
    full_reason: str = ""
    full_tries: int = 0
    full_free: int = 0  # what was free then
    opens_at: datetime | None = None
    paused_because: str = ""
    waits: tuple[Wait, ...] = ()

    def see_disk(self, disk: DiskSeen) -> None:
        """Take a look at the disk into account."""
        self.disk = disk
        if self.full_until is not None and disk.free - self.full_free > min(
            disk.total * MORE_ROOM_SHARE, MORE_ROOM_BYTES
        ):
            self.full_until = None
        if self.disk_critical is not None:
            was_critical = self.disk_is_critical
            self.disk_is_critical = disk.used_percent > self.disk_critical - (DISK_SLACK if was_critical else 0.0)
            if self.disk_is_critical and not was_critical:
                # As it was when the wait began: a reason that changes with every look would be told every second.
                self.disk_reason = (
                    f"the staging folder's disk is {disk.used_percent:.1f} % full, above `disk_usage_critical` "
                    f"{self.disk_critical:g} %; reading goes on when there is room"
                )

    def disk_full(self, now: datetime, reason: str) -> datetime:
        """A write met a full disk; when that write may be tried again. No new chunk is read before `full_until`."""
        if self.full_until is None:  # several writers meet the same full disk
            pause = min(DISK_FULL_PAUSE_MAX_S, DISK_FULL_PAUSE_S * 2.0 ** min(self.full_tries, 10))
            self.full_until = now + timedelta(seconds=pause)
            self.full_tries += 1
        self.full_reason = reason
        self.full_free = self.disk.free if self.disk is not None else 0
        return now + timedelta(seconds=DISK_FULL_PAUSE_S)

    def wrote(self) -> None:
        """A chunk was staged: the disk has room."""
        self.full_tries = 0

    def hear(self, control: Control) -> None:
        """Keep who paused the batch and why: a later wish has another reason, and the record of wishes only one."""
        if not control.paused:
            self.paused_because = ""
        elif not self.paused_because:
            self.paused_because = f"paused by {control.by or 'an operator'}: {control.reason or 'no reason given'}"

    def is_outside(self, now: datetime) -> bool:
        """Whether the hours forbid to read and to send at this instant."""
        if self.hours is None or self.hours.contains(now):
            self.opens_at = None
            return False
        if self.opens_at is None or self.opens_at <= now:
            self.opens_at = self.hours.next_open(now)
        return True

    def disk_wait(self, now: datetime) -> Wait | None:
        """Why nothing more may be staged, if so."""
        if self.full_until is not None and self.full_until <= now:
            self.full_until = None
        if self.disk_is_critical:
            return Wait(kind=WaitKind.DISK, reason=self.disk_reason)
        if self.full_until is not None:
            return Wait(kind=WaitKind.DISK, reason=self.full_reason, until=self.full_until)
        return None

    def wake_times(self) -> Iterator[datetime]:
        """When to look again."""
        yield from (time for time in (self.opens_at, self.full_until) if time is not None)
