"""Find repeated keys over a whole table and decide which rows go on: for a run, and for who predicts one.

Reads:  the key columns of all slices; the rows of slices that hold a repeated key once more, whole.
Writes: the decisions, as one Parquet file, if a key repeats.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import polars as pl
from msgspec import Struct

from forcelift.jobs.null_keys import has_null_keys
from forcelift.jobs.work import TableWork
from forcelift.plan.models import DuplicateRule
from forcelift.protocols.source import ColumnKind, Predicate
from forcelift.rules import DuplicateScan

ReadFrames = Callable[[Sequence[str], Predicate], Iterator[pl.DataFrame]]
"""Gives the rows of a slice with these columns, as frames."""


class Repeats(Struct, frozen=True, kw_only=True):
    """What the scan of a table's keys found.

    Attributes:
        keyed: Rows with a key; None if nothing was read, as no key can repeat.
        keys: Keys that occur more than once.
        rows: Rows that have such a key.
    """

    keyed: int | None = None
    keys: int = 0
    rows: int = 0


def cannot_repeat(work: TableWork) -> bool:
    """Whether the source itself guarantees that no two rows share a key as the org compares it.

    Only whole numbers: two texts that differ may be equal to the org (case, outer blanks).
    """
    key = set(work.plan.key)
    declared = [set(work.source.primary_key), *map(set, work.source.unique_keys)]
    columns = [work.source.column(name) for name in work.plan.key]
    return key in declared and all(column is not None and column.kind is ColumnKind.INTEGER for column in columns)


def find_repeats(
    work: TableWork,
    slices: Sequence[tuple[int, Predicate]],
    read: ReadFrames,
    save: Callable[[Callable[[Path], object]], None],
    *,
    scratch: Path,
    memory_mb: int,
) -> Repeats:
    """One spillable scan of the keys; the rows of repeated keys are read once more, whole.

    Args:
        slices: Number and predicate of each chunk.
        save: Called if a key repeats, with what writes the decisions to a path.
        scratch: Where a folder is made for the time of the scan.
    Raises:
        SourceError: The plan says `null_key: stop`, and a row has no key.
    """
    stops = work.plan.null_key == "stop"
    if cannot_repeat(work) and not stops:
        return Repeats()
    with (
        tempfile.TemporaryDirectory(dir=scratch, prefix="duplicates-") as folder,
        DuplicateScan(Path(folder), memory_mb=memory_mb) as scan,
    ):
        null_keys = keyed = 0
        for number, predicate in slices:
            for frame in read(work.rules.key_columns, predicate):
                keys = work.rules.keys(frame)
                null_keys += keys["key"].null_count()
                keyed += keys.height - keys["norm"].null_count()
                scan.add(number, keys)
        if stops and null_keys:
            raise has_null_keys(work, null_keys)
        repeated = scan.duplicate_norms()
        found = Repeats(keyed=keyed, keys=repeated.keys, rows=repeated.rows)
        if repeated.keys == 0:
            return found
        predicates = dict(slices)
        # Where all copies are rejected, nothing has to be compared.
        compared = () if work.plan.duplicates is DuplicateRule.REJECT else repeated.chunks
        for number in compared:
            for frame in read(work.rules.source_columns, predicates[number]):
                scan.add_content(number, work.rules.content(frame))
        save(scan.decide(work.plan.duplicates, work.rules.merges).save)
        return found
