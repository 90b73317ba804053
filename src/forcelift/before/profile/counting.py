"""What the source's database says of a table's columns, before its rows are read."""

from __future__ import annotations

from collections.abc import Mapping

from forcelift.before.profile.columns import ColumnLook
from forcelift.before.profile.single_keys import key_number
from forcelift.before.profile.slices import Slices
from forcelift.before.profile.statistics import SAMPLE_ROWS
from forcelift.before.profile.world import ProfileWorld
from forcelift.jobs.work import TableWork
from forcelift.protocols.source import ColumnKind, CountsColumns, TableFigures
from forcelift.rules import frame_of

_BY_ROWS = (
    "columns were counted as the rows were read; different values marked as about are estimated (standard error 1.6%)"
)


def count_columns(world: ProfileWorld, work: TableWork, slices: Slices) -> TableFigures | None:
    """Figures of all columns by SQL; None where the source is no database.

    Before the rows and not beside them: one session at a time is at work, and who breaks off leaves no query behind.
    """
    if not isinstance(world.source, CountsColumns):
        return None
    world.tell(f"{work.plan.table}: columns are being counted by the source")
    return world.source.figures(
        work.plan.table,
        columns=[column.name for column in work.source.columns if column.kind is not ColumnKind.UNSUPPORTED],
        # Keys that may repeat only as the org compares them are counted by a scan of their own in any case.
        exact=() if key_number(work) is None else work.plan.key,
        where=work.plan.where,
        slices=None if slices.sample is None else [predicate for _, predicate in slices.read],
    )


def look_at_sample(world: ProfileWorld, work: TableWork, looks: Mapping[str, ColumnLook]) -> None:
    """Take frequent values and histograms of columns that are not read from a sample of the table."""
    names = [name for name, look in looks.items() if not look.is_read and look.statistics.is_compared]
    if not names:
        return
    table = world.source.sample(work.plan.table, columns=names, where=work.plan.where, rows=SAMPLE_ROWS)
    for batch in table.to_batches():
        frame = frame_of(batch)
        for name in names:
            looks[name].add_sample(frame[name])


def how_counted(figures: TableFigures | None, looks: Mapping[str, ColumnLook], *, rows: int) -> str:
    """In a sentence how columns were counted, where `rows` were read."""
    if figures is None:
        return _BY_ROWS
    counted = sum(look.statistics.is_counted for look in looks.values())
    told = f"{counted} of {len(looks)} columns were counted {figures.told}"
    if counted < len(looks):
        told += "; the others as the rows were read, as SQL would tell something else"
    if figures.rows != rows:
        told += f"; the table changed meanwhile: {figures.rows:,} rows were counted, and {rows:,} read"
    return told
