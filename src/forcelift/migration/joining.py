"""How a process comes to a batch that others work on, or worked on, and how it leaves: same plan, org and files.

Reads:   the batch's row, and the marker file beside its ledger, below the staging folder.
Writes:  the marker file, before the row that names it; how the batch ended, if this process is the last.
Re-run:  a marker without a row is a file of 32 letters that nobody asks for.
"""

from __future__ import annotations

import secrets

from msgspec import Struct

from forcelift.account.retention import refuse_purged
from forcelift.account.state import State
from forcelift.audit import AuditStore, LeaseHolder
from forcelift.audit.lease import not_shareable
from forcelift.audit.records import Batch, BatchMode, BatchState
from forcelift.during.extract.sample_draw import samples_name
from forcelift.errors import LeaseLost, StateConflict
from forcelift.jobs.coordinator import Coordinator
from forcelift.jobs.work import staging_folder
from forcelift.ledger import ledger_folder, marker_name
from forcelift.plan import LoadedPlan, plan_diff, plan_document
from forcelift.plan.operational import changes_of_meaning
from forcelift.protocols.source import SharedSnapshot
from forcelift.rules import SamplePercent
from forcelift.storage import FolderStorage

_UNTOUCHED = "the batch is left as it was; nothing was read or written"


class Earlier(Struct, frozen=True, kw_only=True):
    """What a process that goes on with a batch, or joins it, has to know before it opens source and org.

    `tables` are those that the batch was begun with, None for all; `snapshots` are states of the source that living
    runners read and offer.
    """

    tables: tuple[str, ...] | None = None
    snapshots: tuple[SharedSnapshot, ...] = ()


def look_back(loaded: LoadedPlan, state: State, batch_id: str, *, join: bool) -> Earlier:
    """Look at a batch before source and org are opened, because a twin's file that another process holds could not be.

    Raises:
        StateConflict: Resumed, and a process works on it; or joined, and none does, or it cannot be shared.
    """
    audit = state.audit
    _refuse_rolling_back(state, batch_id)
    _refuse_retrying(state, batch_id)
    runners = audit.runners(batch_id)
    if join:
        _check_joinable(loaded, batch_id, can_share=audit.can_share)
    elif runners:
        raise _at_work(batch_id, runners, can_share=audit.can_share)
    chosen = audit.plan_document(batch_id).get("chosen_tables")
    batch = audit.batch(batch_id)
    offers = tuple(
        SharedSnapshot(state=one.reads, exported=one.exports)
        for one in runners
        if one.reads is not None and one.exports is not None and batch is not None and one.reads == batch.snapshot
    )
    return Earlier(tables=tuple(chosen) if chosen else None, snapshots=offers)


def _refuse_rolling_back(state: State, batch_id: str) -> None:
    """Records that are being taken back must not be sent again meanwhile."""
    if (rollback := state.audit.open_rollback(batch_id)) is not None:
        raise StateConflict(
            f"batch `{batch_id}` is being rolled back since {rollback.began_at:%Y-%m-%d %H:%M:%S} UTC",
            state=_UNTOUCHED,
            hint=f"finish it by `forcelift rollback {batch_id} --execute`, then resume",
        )


def _refuse_retrying(state: State, batch_id: str) -> None:
    """Refused rows that are being sent again are the retry's to end."""
    if (retry := state.audit.open_retry(batch_id)) is not None:
        raise StateConflict(
            f"refused rows of batch `{batch_id}` are being sent again since {retry.began_at:%Y-%m-%d %H:%M:%S} UTC",
            state=_UNTOUCHED,
            hint=f"finish it by `forcelift failed retry --batch {batch_id}`",
        )


def check_same(loaded: LoadedPlan, batch: Batch, state: State, *, org_id: str, join: bool, by: str) -> None:
    """A batch goes on with the same plan into the same org from the same staged files, or not at all."""
    batch_id = batch.batch_id
    if batch.org_id != org_id:
        raise StateConflict(
            f"batch `{batch_id}` was begun in org `{batch.org_id}`, but the plan now signs in to `{org_id}`",
            state=_UNTOUCHED,
            hint="sign in to the first org again, or begin a new batch with `forcelift run`",
        )
    if batch.state is BatchState.DONE:
        raise StateConflict(
            f"batch `{batch_id}` is finished",
            state="nothing was read or written",
            hint="begin a new batch with `forcelift run`; a reload updates the same records",
        )
    if join and batch.mode is BatchMode.EXTRACT_FIRST:
        raise StateConflict(
            f"batch `{batch_id}` reads everything before it sends anything, which one process does",
            state=_UNTOUCHED,
            hint="let the one process go on, or begin the next batch without `--extract-first`",
        )
    if join and batch.state is not BatchState.RUNNING:
        raise StateConflict(
            f"batch `{batch_id}` is {batch.state.value}, and the process that goes on with it has only just begun",
            state=_UNTOUCHED,
            hint="run the same command again",
        )
    check_plan(loaded, batch, state, join=join, by=by)
    _check_marker(state, batch)
    percent = state.audit.sample_percent(batch_id) if join else None
    is_drawn = percent is None or SamplePercent.of(percent).is_whole or state.storage.exists(samples_name(batch_id))
    if not is_drawn:
        raise StateConflict(
            f"batch `{batch_id}` is a sample whose rows are still being drawn, which one process does",
            state=_UNTOUCHED,
            hint="run the same command again when `forcelift status` shows chunks",
        )


def check_plan(loaded: LoadedPlan, batch: Batch, state: State, *, join: bool, by: str) -> None:
    """Raise `StateConflict` if the plan means something else than when the batch was begun, or its data were purged."""
    refuse_purged(state, batch)
    if batch.plan_sha256 == loaded.sha256:
        return
    before, now = state.audit.plan_document(batch.batch_id), plan_document(loaded.plan)
    beside = {name: before.pop(name) for name in set(before) - set(now)}
    all_changes = plan_diff(before, now)
    if not all_changes:
        return  # only written differently, or by an earlier version that knew fewer keys
    # Who joins carries the batch out as the others do; a resume may change how.
    changes = all_changes if join else changes_of_meaning(all_changes)
    if not changes:
        state.audit.add_plan_revision(batch.batch_id, plan_document=now | beside, plan_sha256=loaded.sha256, made_by=by)
        return
    raise StateConflict(
        f"the plan has changed since batch `{batch.batch_id}` was begun:\n"
        + "\n".join(f"  - {change}" for change in changes[:20]),
        state=_UNTOUCHED,
        hint="put the plan back as it was to resume, or begin a new batch with `forcelift run`",
    )


def write_marker(state: State, batch_id: str) -> str | None:
    """Mark the staging folder of a new batch, if others may join it. Returns what stands in the marker file."""
    if not state.audit.can_share:
        return None
    marker = secrets.token_hex(16)
    with state.storage.write(marker_name(batch_id)) as file:
        file.write(marker.encode())
        file.commit()
    return marker


def _check_marker(state: State, batch: Batch) -> None:
    if batch.marker is None:
        return
    name = marker_name(batch.batch_id)
    found = None
    if state.storage.exists(name):
        with state.storage.open(name) as file:
            found = file.read(100).decode("ascii", "replace")
    if found != batch.marker:
        raise StateConflict(
            f"the staging folder `{state.storage.root}` is not the one that batch `{batch.batch_id}` works in: "
            + ("its marker file is missing" if found is None else "its marker file is another batch's"),
            state=_UNTOUCHED,
            hint="let `staging` name the folder that all processes of the batch share (on several hosts a network "
            "drive), at the same place for each",
        )


def sweep(storage: FolderStorage, batch_id: str, *, is_shared: bool, is_joined: bool) -> None:
    """Remove half-written files, but none that a process of another host may be writing: its lock is not seen here."""
    if not is_shared:
        storage.sweep()
    elif not is_joined:
        for folder in (staging_folder(batch_id), ledger_folder(batch_id)):
            storage.sweep(folder)


def leave(
    audit: AuditStore, batch_id: str, coordinator: Coordinator, state: BatchState
) -> tuple[Batch, tuple[LeaseHolder, ...]]:
    """End a runner's part of a shared batch; the last one ends the batch. Returns it, and who is still at work."""
    if not coordinator.is_lost:
        try:
            left = audit.leave(batch_id, state, reason=coordinator.why_unfinished)
            return left.batch, left.others
        except LeaseLost as error:
            coordinator.lose(error)
    batch = audit.batch(batch_id)
    assert batch is not None
    return batch, tuple(audit.runners(batch_id))


def _check_joinable(loaded: LoadedPlan, batch_id: str, *, can_share: bool) -> None:
    if not can_share:
        raise not_shareable(batch_id)
    if loaded.plan.target.url.startswith("twin:"):
        raise StateConflict(
            f"batch `{batch_id}` cannot be joined: its target is a twin inside the first process",
            state="nothing was changed by this process",
            hint="run the twin as a server by `forcelift twin serve`, and name its address in the next batch's plan",
        )


def _at_work(batch_id: str, runners: list[LeaseHolder], *, can_share: bool) -> StateConflict:
    who = " and ".join(f"{one.owner}, since {one.since:%Y-%m-%d %H:%M:%S} UTC" for one in runners)
    joining = f"help by `forcelift run --join {batch_id}`, " if can_share else ""
    return StateConflict(
        f"batch `{batch_id}` is being worked on by {who}",
        state="nothing was changed by this process",
        hint=f"{joining}watch it by `forcelift status`, or end it by `forcelift stop`",
    )
