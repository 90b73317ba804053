"""What stays of a batch's staged files, and for how long.

Reads:   batches with the plans that they were run under.
Writes:  removes staged files; each removal, and each that failed, is a row of the journal.
Re-run:  what is gone is gone; what could not be removed is tried again by the next run of the plan.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from forcelift.account.state import State
from forcelift.after.retry.scope import retries_folder
from forcelift.audit.records import Batch, BatchMode, BatchState
from forcelift.errors import StateConflict
from forcelift.jobs.staged_files import REMOVED, remove_staged
from forcelift.jobs.work import staging_folder
from forcelift.ledger import ledger_folder, marker_name


def keeps_settled(staged_files: str | int) -> bool:
    """Whether the files of a settled chunk stay while its batch goes on."""
    return staged_files != "until_settled"


def end_batch(state: State, batch: Batch, staged_files: str | int) -> None:
    """Remove what a batch that is done needs no more: staged files unless they are kept, and superseded ledger files.

    A dry run's staged files are what a person wants to look at: they stay unless a number of days says how long.
    """
    if batch.mode is BatchMode.DRY_RUN:
        return
    if staged_files in ("until_settled", "until_done", 0):
        _remove(state, batch.batch_id)
    current = {chunk.ledger_file for chunk in state.audit.chunks(batch.batch_id, with_superseded=True)}
    current.add(marker_name(batch.batch_id))
    for name in state.storage.list(ledger_folder(batch.batch_id)):
        if name not in current:
            state.storage.delete(name)


def remove_expired(state: State, project: str, now: datetime) -> None:
    """Remove the staged files of batches that were done longer ago than the days of the plan they were run under."""
    for batch in state.audit.batches(project):
        if batch.state is not BatchState.DONE or batch.ended_at is None:
            continue
        staged_files = state.audit.plan_document(batch.batch_id).get("retention", {}).get("staged_files")
        is_days = isinstance(staged_files, int) and not isinstance(staged_files, bool)
        if is_days and batch.ended_at + timedelta(days=staged_files) <= now:
            _remove(state, batch.batch_id)


def _remove(state: State, batch_id: str) -> None:
    for folder in (staging_folder(batch_id), retries_folder(batch_id)):
        if files := remove_staged(state.audit, state.storage, batch_id, folder):
            state.audit.journal(REMOVED, {"folder": folder, "files": files}, batch_id=batch_id)


def refuse_purged(state: State, batch: Batch) -> None:
    """Raise `StateConflict` if a batch's personal data were purged: nobody knows any more which records it wrote."""
    purges = state.audit.purges(batch.batch_id)
    if purges:
        one = purges[-1]
        raise StateConflict(
            f"the personal data of batch `{batch.batch_id}` were purged at {one.began_at:%Y-%m-%d %H:%M} UTC by "
            f"{one.asked_by}: it can no longer be resumed, retried, validated or rolled back",
            state="nothing was read or written",
            hint="its sums and digests stay: `forcelift status`, `forcelift audit verify`",
        )
