"""How many jobs run at once, and when to hold back: pure, fed with what the org answers.

Locks halve the number of jobs (more jobs at once would only collide more), a busy or absent org makes everybody wait
with growing pauses, and a run of clean jobs lets one more run. Each decision is kept for the journal.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from msgspec import Struct, field

HOLD_FIRST_S = 1.0
HOLD_MAX_S = 60.0
LIMIT_HOLD_S = 900.0  # a daily allowance is a rolling window: it frees itself slowly, so ask seldom
CLEAN_JOBS_TO_GROW = 2
LOCKED_SHARE_TO_SHRINK = 0.001


class Hold(Struct, kw_only=True):
    """Everything that needs the org waits until then, for that reason."""

    until: datetime
    reason: str


class Governor(Struct, kw_only=True):
    """Limits what the coordinator may start.

    Args:
        jobs_max: The plan's `limits.parallel_jobs`.
        api_calls_reserve: Daily API requests that are left to others.
        rng: Source of jitter; seeded by tests and the simulation.
    """

    jobs_max: int
    api_calls_reserve: int
    rng: random.Random
    allowed: int = 0
    hold: Hold | None = None
    start_hold: Hold | None = None
    failures_in_a_row: int = 0
    clean_in_a_row: int = 0
    decisions: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.allowed = self.jobs_max

    def may_start(self, now: datetime, *, open_jobs: int, throttle: int | None) -> bool:
        """Whether one more job may be started now."""
        if self.start_hold is not None and self.start_hold.until <= now:
            self.start_hold = None
        ceiling = self.allowed if throttle is None else min(self.allowed, throttle)
        return self.start_hold is None and open_jobs < ceiling

    def expire(self, now: datetime) -> None:
        """Forget holds that are over."""
        if self.hold is not None and self.hold.until <= now:
            self.hold = None
        if self.start_hold is not None and self.start_hold.until <= now:
            self.start_hold = None

    def holds(self, now: datetime) -> bool:
        """Whether the org is to be left alone at this instant."""
        if self.hold is not None and self.hold.until <= now:
            self.hold = None
        return self.hold is not None

    def org_failed(self, now: datetime, reason: str) -> None:
        """The org did not answer or was busy: wait, longer each time."""
        self.failures_in_a_row += 1
        self.clean_in_a_row = 0
        pause = min(HOLD_MAX_S, HOLD_FIRST_S * 2.0 ** min(self.failures_in_a_row - 1, 10))
        self._hold(now + timedelta(seconds=pause * self.rng.uniform(0.75, 1.25)), reason)
        if self.allowed > 1 and self.failures_in_a_row == 2:
            self._allow(self.allowed - 1, "the org is busy")

    def limit_reached(self, now: datetime, reason: str) -> None:
        """An allowance of the org is used up: leave it alone for a while."""
        self._hold(now + timedelta(seconds=LIMIT_HOLD_S), reason)

    def budget_refused(self, until: datetime, reason: str) -> None:
        """Our own count of the rolling day says no until then: what is at work goes on, nothing new is started."""
        if self.start_hold is None or self.start_hold.reason != reason:
            self.decisions.append(f"no new jobs until {until.isoformat(timespec='seconds')}: {reason}")
        self.start_hold = Hold(until=until, reason=reason)

    def org_answered(self, now: datetime, api_requests_left: int | None) -> None:
        """A call succeeded."""
        self.failures_in_a_row = 0
        if api_requests_left is not None and api_requests_left <= self.api_calls_reserve and not self.holds(now):
            self.limit_reached(
                now, f"{api_requests_left:,} API requests are left today and {self.api_calls_reserve:,} are reserved"
            )

    def job_done(self, *, rows: int, locked: int) -> None:
        """A job's answers are known: shrink on locks, grow after clean ones."""
        if locked > rows * LOCKED_SHARE_TO_SHRINK:
            self.clean_in_a_row = 0
            if self.allowed > 1:
                self._allow(max(1, self.allowed // 2), f"{locked:,} rows met a lock")
            return
        self.clean_in_a_row += 1
        if self.clean_in_a_row >= CLEAN_JOBS_TO_GROW and self.allowed < self.jobs_max:
            self.clean_in_a_row = 0
            self._allow(self.allowed + 1, "jobs run clean")

    def take_decisions(self) -> list[str]:
        """The decisions since the last call, for the journal."""
        taken, self.decisions = self.decisions, []
        return taken

    def _allow(self, jobs: int, why: str) -> None:
        self.decisions.append(f"jobs at once: {self.allowed} -> {jobs}: {why}")
        self.allowed = jobs

    def _hold(self, until: datetime, reason: str) -> None:
        if self.hold is None or self.hold.reason != reason:
            self.decisions.append(f"hold until {until.isoformat(timespec='seconds')}: {reason}")
        if self.hold is None or self.hold.until < until:
            self.hold = Hold(until=until, reason=reason)
