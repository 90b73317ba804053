"""Which parts of a table are read."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from msgspec import Struct

from forcelift.before.profile.world import ProfileWorld
from forcelift.jobs.work import TableWork
from forcelift.protocols.source import Predicate

_SLICES_OF_SAMPLE: Final = 400
_SLICE_LEAST: Final = 1_000


class Slices(Struct, frozen=True, kw_only=True):
    """Numbered slices: all of the table, those that are read, and in a sentence what was left out."""

    all: tuple[tuple[int, Predicate], ...]
    read: tuple[tuple[int, Predicate], ...]
    sample: str | None


def cut(world: ProfileWorld, work: TableWork) -> Slices:
    """Cut a table into slices and choose those of a sample: evenly from the first to the last."""
    percent = world.sample_percent
    rows = world.slice_rows
    if percent is not None:
        total = work.source.rows_estimate or world.source.count(work.plan.table, where=work.plan.where)
        rows = max(_SLICE_LEAST, min(rows, total // _SLICES_OF_SAMPLE))
    planned = world.source.plan_chunks(
        work.plan.table, where=work.plan.where, key=work.rules.key_columns, rows_per_chunk=rows
    )
    numbered = tuple((number, part.predicate) for number, part in enumerate(planned, start=1))
    if percent is None:
        return Slices(all=numbered, read=numbered, sample=None)
    chosen = even(len(numbered), percent)
    if len(chosen) == len(numbered):
        return Slices(all=numbered, read=numbered, sample=None)
    told = (
        f"{len(chosen):,} of {len(numbered):,} even slices of the table were read ({percent:f}% was asked);"
        " all numbers are of these rows, and keys are compared among these rows alone"
    )
    return Slices(all=numbered, read=tuple(numbered[place] for place in chosen), sample=told)


def even(slices: int, percent: Decimal) -> Sequence[int]:
    """Places of that share of the slices, evenly from first to last; at least one."""
    wanted = [place for place in range(slices) if (place + 1) * percent // 100 > place * percent // 100]
    return wanted or [slices // 2]
