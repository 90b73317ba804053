"""Whether `--extract-first` can hold a whole batch, estimated before it begins.

Reads:   the source's counts, and a sample of each table.
Writes:  nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from forcelift.errors import StateConflict
from forcelift.jobs.work import TableWork
from forcelift.protocols.source import Source
from forcelift.rules import frame_of
from forcelift.storage import Disk

SAMPLE_ROWS = 1_000

SURE_SHARE = 0.5
"""Part of the estimate that staging takes for sure: rows are rejected, values shortened, and a sample may mislead."""


def staging_estimate(source: Source, works: Iterable[TableWork]) -> int:
    """Bytes of all upload files of these tables, by their rows and a sample; what lies beside them is left out."""
    total = 0.0
    for work in works:
        if width := row_bytes(source, work):
            total += width * source.count(work.plan.table, where=work.plan.where)
    return int(total)


def row_bytes(source: Source, work: TableWork) -> float:
    """Bytes of a row in an upload file, by a sample; 0 of a table without rows."""
    plan = work.plan
    sample = source.sample(plan.table, columns=work.rules.source_columns, where=plan.where, rows=SAMPLE_ROWS)
    frame = frame_of(sample)
    if not frame.height:
        return 0.0
    text = frame.select(pl.all().exclude(pl.Binary)).write_csv(include_header=False)
    return len(text.encode()) / frame.height


def refuse_without_room(estimate: int, *, staging_bytes: int, disk: Disk) -> None:
    """Refuse a batch that surely cannot be staged as a whole.

    Args:
        estimate: Of `staging_estimate`.
        staging_bytes: The plan's `limits.staging_gb`.
        disk: Of the staging folder.
    Raises:
        StateConflict: Even half of the estimate does not fit.
    """
    sure = int(estimate * SURE_SHARE)
    for room, name, hint in (
        (staging_bytes, "`limits.staging_gb`", "raise `limits.staging_gb`"),
        (disk.free, "the free space of the staging folder's disk", "make room or point `staging` to a larger disk"),
    ):
        if sure > room:
            raise StateConflict(
                f"`--extract-first` needs about {estimate / 1e9:,.3f} GB of staged files, and at least half of it for "
                f"sure; {name} is {room / 1e9:,.3f} GB",
                state="no batch was begun; nothing was written to the org",
                hint=f"{hint}, or run without `--extract-first`, which needs room for a few chunks only",
            )
