"""Remove the personal data of batches that are through, and leave what counts: sums, codes, outcomes and digests.

Reads:   the plan file, the audit database, ledger files.
Writes:  failed records and error texts emptied, and keys out of older profiles; ledger files without keys, Ids,
         messages and hashes; staged and corrected values, before-images and files of rollbacks removed; a row of
         `purge`, and the journal. SQLite's file is written anew, since what was deleted may stay in free pages.
Re-run:  a purge that was interrupted is gone on with; what is gone stays gone.

A purged batch cannot be retried, resumed, validated or rolled back: nobody knows any more which records it wrote.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from forcelift.account.consents import need_all_consents, need_consent
from forcelift.account.recorded import open_recorded, owner
from forcelift.account.state import State
from forcelift.after.retry.scope import corrections_folder, retries_folder
from forcelift.audit.purges import Purge
from forcelift.audit.records import Batch, BatchState, Chunk
from forcelift.errors import StateConflict, UsageError
from forcelift.jobs.images import images_folder
from forcelift.jobs.work import staging_folder
from forcelift.ledger import ledger_folder
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.storage import segment

PURGED_ID: Final = "(purged)"
"""What stands in a purged ledger in place of a record's Id: that there was one still counts."""

_SUFFIX: Final = ".purged.parquet"
_AGE: Final = re.compile(r"([0-9]{1,5})d")


class PurgeAsked(Struct, frozen=True, kw_only=True):
    """Which batches, and whether it is done.

    Attributes:
        batch_id: This one; or, if None, all that ended longer ago than `older_than`.
        no_way_back: Said by name: that these batches cannot be rolled back, retried or validated afterwards.
    """

    batch_id: str | None = None
    older_than: timedelta | None = None
    execute: bool = False
    no_way_back: bool = False
    reason: str = ""


class PurgeItem(Struct, frozen=True, kw_only=True):
    """What a purge takes from one batch; `why_not` says why it is left out."""

    batch_id: str
    ended_at: datetime | None
    failed_records: int
    ledger_files: int
    other_files: int
    why_not: str | None
    done: bool = False


class PurgeReport(Struct, frozen=True, kw_only=True):
    """What would be, or was, purged."""

    items: tuple[PurgeItem, ...]
    executed: bool


def parse_age(text: str) -> timedelta:
    """`90d` as a length of time. Raises `UsageError`."""
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"`{text[:40]}` is no number of days", state="nothing was purged", hint="write it as 90d")
    return timedelta(days=int(found[1]))


def purge_batches(
    plan_file: str | Path,
    asked: PurgeAsked,
    *,
    told: Callable[[str], None] = lambda sentence: None,
    clock: Clock | None = None,
) -> PurgeReport:
    """Purge batches of the plan's project, or show what that would take.

    Raises:
        UsageError: Neither a batch nor an age is named, or what is lost is not named, or there is no reason.
        StateConflict: There is no such batch, it is not through, or a second person has not consented.
    """
    if (asked.batch_id is None) == (asked.older_than is None):
        raise UsageError(
            "name either a batch or an age", state="nothing was purged", hint="`--batch ID` or `--older-than 90d`"
        )
    clock = clock or SystemClock()
    with open_recorded(plan_file, clock=clock) as (loaded, state):
        batches = state.audit.batches(loaded.plan.project)
        if asked.batch_id is not None:
            batches = [one for one in batches if one.batch_id == asked.batch_id]
            if not batches:
                raise StateConflict(
                    f"there is no batch `{asked.batch_id}` of this plan's project",
                    state="nothing was purged",
                    hint="`forcelift status` lists the batches",
                )
        else:
            assert asked.older_than is not None
            until = clock.now() - asked.older_than
            # One that was begun and never ended, as its process was killed, is told rather than passed over.
            batches = [one for one in batches if (one.ended_at or one.started_at) <= until]
        items = [_look(state, batch, is_named=asked.batch_id is not None) for batch in batches]
        if asked.batch_id is not None and items[0].why_not is not None and asked.execute:
            raise StateConflict(f"batch `{asked.batch_id}` {items[0].why_not}", state="nothing was purged")
        if not asked.execute:
            return PurgeReport(items=tuple(items), executed=False)
        _check_said(asked)
        going = [(batch, item) for batch, item in zip(batches, items, strict=True) if item.why_not is None]
        asked_of = [
            (batch.batch_id, f"batch `{batch.batch_id}`", _details(state, item))
            for batch, item in going
            if not _is_begun(state, batch)
        ]
        need_all_consents(loaded, state.audit, step="purge", asked=asked_of)
        wanted = {batch_id: (subject, details) for batch_id, subject, details in asked_of}
        stripped = []
        for batch, _ in going:
            told(f"purging batch {batch.batch_id}")
            with state.audit.lease(batch.batch_id, owner()):
                if batch.batch_id in wanted:
                    subject, details = wanted[batch.batch_id]
                    need_consent(
                        loaded, state.audit, step="purge", subject=subject, details=details, batch_id=batch.batch_id
                    )
                stripped.append(_strip(state, batch, reason=asked.reason.strip()))
        if stripped:
            # What a writer that was killed has left under a hidden name.
            state.storage.sweep()
            state.audit.erase_freed()
        for purge, result in stripped:
            state.audit.end_purge(purge, result=result)
        done = {batch.batch_id for batch, _ in going}
        marked = [
            PurgeItem(
                batch_id=item.batch_id,
                ended_at=item.ended_at,
                failed_records=item.failed_records,
                ledger_files=item.ledger_files,
                other_files=item.other_files,
                why_not=item.why_not,
                done=item.batch_id in done,
            )
            for item in items
        ]
        return PurgeReport(items=tuple(marked), executed=True)


def _check_said(asked: PurgeAsked) -> None:
    if not asked.no_way_back:
        raise UsageError(
            "a purged batch can no longer be rolled back, retried, resumed or validated",
            state="nothing was purged",
            hint="say that you know it: `--no-way-back`",
        )
    if not asked.reason.strip():
        raise UsageError(
            "a purge needs its reason", state="nothing was purged", hint='give it by `--reason "..."`; it is journalled'
        )


def _details(state: State, item: PurgeItem) -> dict[str, Any]:
    data = state.audit.data_state(item.batch_id)
    return {
        "batch": item.batch_id,
        "failed_records": item.failed_records,
        "data": {name: one["sha256"] for name, one in data.items()},
    }


def _is_begun(state: State, batch: Batch) -> bool:
    return any(one.ended_at is None for one in state.audit.purges(batch.batch_id))


def _look(state: State, batch: Batch, *, is_named: bool) -> PurgeItem:
    audit, batch_id = state.audit, batch.batch_id
    chunks = audit.chunks(batch_id, with_superseded=True)
    return PurgeItem(
        batch_id=batch_id,
        ended_at=batch.ended_at,
        failed_records=sum(audit.failed_by_chunk(batch_id).values()),
        ledger_files=sum(1 for chunk in chunks if chunk.ledger_file is not None),
        other_files=sum(len(state.storage.list(folder)) for folder in _folders(batch_id)),
        why_not=_why_not(state, batch, is_named=is_named),
    )


def _why_not(state: State, batch: Batch, *, is_named: bool) -> str | None:
    if any(one.ended_at is not None for one in state.audit.purges(batch.batch_id)):
        return "was purged already"
    if runners := state.audit.runners(batch.batch_id):
        return f"is being worked on by {runners[0].owner}"
    if batch.state is BatchState.RUNNING and not is_named and not _is_begun(state, batch):
        return f"was begun and never ended: go on with it, or give it up by `--batch {batch.batch_id}`"
    if state.audit.open_rollback(batch.batch_id) is not None:
        return "has a rollback that is not through"
    if state.audit.open_retry(batch.batch_id) is not None:
        return "has a retry that is not through"
    if state.audit.open_states(batch.org_id):
        holders = {one.name for found in state.audit.open_states(batch.org_id) for one in found.holders}
        if batch.batch_id in holders:
            return "still holds automations off: `forcelift restore --execute`"
    return None


def _folders(batch_id: str) -> tuple[str, ...]:
    """Where files of a batch lie that hold keys or values, beside its ledger."""
    return (
        staging_folder(batch_id),
        images_folder(batch_id),
        retries_folder(batch_id),
        corrections_folder(batch_id),
        f"rollback/{segment(batch_id)}",
        # What a validation that was interrupted has read of the org.
        f"validate/{segment(batch_id)}",
    )


def _strip(state: State, batch: Batch, *, reason: str) -> tuple[Purge, dict[str, Any]]:
    """Take all from a batch that is personal. The purge stays open: whoever repeats it goes on with it."""
    audit, batch_id = state.audit, batch.batch_id
    records = sum(audit.failed_by_chunk(batch_id).values())
    # From here on, what is missing is known as purged.
    purge = audit.begin_purge(batch_id, by=owner(), reason=reason)
    if batch.state is BatchState.RUNNING:
        # Its process is dead, as the lease was free; nobody can go on with it from here on.
        audit.set_batch_state(batch_id, BatchState.STOPPED)
    files = 0
    for chunk in audit.chunks(batch_id, with_superseded=True):
        name, sha256 = _without_values(state, chunk)
        audit.purge_chunk(chunk.audit_id, ledger_file=name, ledger_sha256=sha256)
    current = {chunk.ledger_file for chunk in audit.chunks(batch_id, with_superseded=True)}
    for name in state.storage.list(ledger_folder(batch_id)):
        if name not in current:
            files += int(state.storage.delete(name))
    for folder in _folders(batch_id):
        files += state.storage.delete_tree(folder)
    audit.purge_examples(batch)
    return purge, {"failed_records": records, "files": files, "by": owner()}


def _without_values(state: State, chunk: Chunk) -> tuple[str | None, str | None]:
    """Write a chunk's ledger anew without keys, Ids, messages and hashes; its name and seal, None if it has none."""
    if chunk.ledger_file is None or chunk.ledger_sha256 is None or chunk.ledger_file.endswith(_SUFFIX):
        return None, None
    import polars as pl

    from forcelift.ledger.writing import LEDGER, LedgerWriter

    state.storage.verify(chunk.ledger_file, chunk.ledger_sha256)
    with state.storage.local(chunk.ledger_file) as path:
        lines = pl.read_parquet(path, glob=False)
    emptied = lines.with_columns(
        pl.lit(None, dtype=LEDGER[name]).alias(name) for name in ("key", "message", "hash")
    ).with_columns(pl.when(pl.col("id").is_not_null()).then(pl.lit(PURGED_ID)).alias("id"))
    name = f"{chunk.ledger_file.removesuffix('.parquet')}{_SUFFIX}"
    with LedgerWriter(state.storage.write(name)) as writer:
        writer.write(emptied.select(list(LEDGER)))
        return name, writer.seal().sha256
