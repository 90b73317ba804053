"""Ask a running batch for something from another process: to stop, to pause, to go on, to run fewer jobs at once.

Writes:  the batch's control row and the journal. The process at work reads it within about a second.
Re-run:  asking again for the same changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from forcelift.account.recorded import find_batch, open_recorded, owner
from forcelift.audit import AuditStore
from forcelift.audit.records import Batch, Control

Ask = Callable[[AuditStore, str, str], Control]
"""Given the audit database, the batch's id and who asks."""


def request_stop(plan_file: str | Path, batch_id: str | None, *, now: bool, reason: str | None) -> tuple[Batch, bool]:
    """Ask a batch to stop, with `now` by aborting its open jobs; whether a process is there to hear it."""
    return _ask(plan_file, batch_id, lambda audit, batch, by: audit.request_stop(batch, now=now, by=by, reason=reason))


def request_pause(plan_file: str | Path, batch_id: str | None, *, reason: str | None) -> tuple[Batch, bool]:
    """Ask a batch to begin nothing more until it is told to go on; its open jobs are finished."""
    return _ask(plan_file, batch_id, lambda audit, batch, by: audit.request_pause(batch, by=by, reason=reason))


def request_resume(plan_file: str | Path, batch_id: str | None, *, reason: str | None) -> tuple[Batch, bool]:
    """Let a paused batch go on."""
    return _ask(plan_file, batch_id, lambda audit, batch, by: audit.request_resume(batch, by=by, reason=reason))


def request_throttle(
    plan_file: str | Path, batch_id: str | None, *, jobs: int | None, reason: str | None
) -> tuple[Batch, bool]:
    """Let a batch have at most so many jobs open at once; None lifts it."""
    return _ask(plan_file, batch_id, lambda audit, batch, by: audit.request_throttle(batch, jobs, by=by, reason=reason))


def _ask(plan_file: str | Path, batch_id: str | None, ask: Ask) -> tuple[Batch, bool]:
    with open_recorded(plan_file) as (loaded, state):
        batch = find_batch(loaded, state, batch_id)
        is_running = state.audit.lease_holder(batch.batch_id) is not None
        if is_running:
            ask(state.audit, batch.batch_id, owner())
        return batch, is_running
