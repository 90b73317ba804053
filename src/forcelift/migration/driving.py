"""Let the engine work on chunks of a batch that is not loading: the loop around a coordinator, with its lease's beat.

Reads:   what an operator asks of the batch.
Writes:  the governor's decisions into the journal, the lease's heartbeat; all else is the handlers'.
Re-run:  nothing is kept here.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from forcelift.audit import AuditStore, Lease
from forcelift.audit.records import Control
from forcelift.errors import LeaseLost
from forcelift.jobs.coordinator import Coordinator
from forcelift.jobs.governor import Governor
from forcelift.jobs.handlers import Handlers
from forcelift.jobs.runner import Runner
from forcelift.opening.bounds import SENDERS_MORE
from forcelift.plan import LoadedPlan
from forcelift.protocols.clock import Clock
from forcelift.protocols.org import Org

BEAT_PAUSE_S = 5.0


def new_governor(loaded: LoadedPlan) -> Governor:
    """A governor by the plan's limits."""
    return Governor(
        jobs_max=loaded.plan.limits.parallel_jobs,
        api_calls_reserve=loaded.plan.limits.api_calls_reserve,
        rng=random.Random(),  # noqa: S311 - jitter of pauses, no secret
    )


def drive(
    coordinator: Coordinator,
    handlers: Handlers,
    *,
    loaded: LoadedPlan,
    audit: AuditStore,
    batch_id: str,
    org: Org,
    lease: Lease,
    clock: Clock,
    asked: Control,
    on_runner: Callable[[Callable[[Control], None]], None],
) -> None:
    """Run until the coordinator is finished.

    Args:
        asked: A stop that holds from the first; otherwise what the audit database says counts.
        on_runner: Handed a function that asks for a stop, for signal handlers.
    """
    next_beat = clock.monotonic()

    def on_progress(coordinator: Coordinator) -> None:
        nonlocal next_beat
        for decision in coordinator.take_decisions():
            audit.journal("governor", {"decision": decision}, batch_id=batch_id)
        if clock.monotonic() >= next_beat:
            next_beat = clock.monotonic() + BEAT_PAUSE_S
            try:
                lease.beat()
            except LeaseLost as error:
                coordinator.lose(error)

    runner = Runner(
        coordinator,
        handlers,
        clock=clock,
        control=lambda: asked if asked.stop else audit.control(batch_id),
        api_requests_left=lambda: org.api_requests_left,
        on_progress=on_progress,
        readers=1,
        senders=loaded.plan.limits.parallel_jobs + SENDERS_MORE,
    )
    on_runner(runner.stop)
    if asked.stop:
        runner.stop(asked)
    runner.run()
