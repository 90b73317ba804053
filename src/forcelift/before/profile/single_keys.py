"""Whether no key repeats, found out without the scan that would say which: of whole numbers alone.

Two texts that differ may be equal to the org (case, outer blanks); two whole numbers never are.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from forcelift.jobs.work import TableWork
from forcelift.protocols.source import ColumnKind, TableFigures


def key_number(work: TableWork) -> str | None:
    """The key's column if it is a whole number that no value map changes; None otherwise."""
    if len(work.plan.key) != 1:
        return None
    (name,) = work.plan.key
    column = work.source.column(name)
    is_number = column is not None and column.kind is ColumnKind.INTEGER
    return name if is_number and work.rules.key_column(name).rule.values is None else None


def is_counted_single(name: str, figures: TableFigures | None) -> bool:
    """Whether the database counted as many different values as there are rows."""
    found = None if figures is None else figures.columns.get(name)
    return (
        figures is not None
        and found is not None
        and found.distinct_is_exact
        and found.distinct == found.present == figures.rows
    )


def do_rise(name: str, frames: Iterator[pl.DataFrame]) -> bool:
    """Whether each value is above the one before, as in files that were written in the order of their key.

    Reads on no longer than they do.
    """
    last: int | None = None
    for frame in frames:
        values = frame[name]
        if not values.dtype.is_integer() or values.null_count():
            return False
        if not values.len():
            continue
        if last is not None and values[0] <= last:
            return False
        if not (values.slice(1) > values.slice(0, values.len() - 1)).all():
            return False
        last = values[-1]
    return True
