"""Rows read from the source once more, by their keys.

Reads:   the slices of the chunks; where keys may repeat, or a row is not where it was, the key columns of the whole
         table and the slices that hold such keys.
Writes:  the decisions on repeated keys, in a folder on the scratch disk, removed by `close`.
Re-run:  nothing is kept: what the source holds now counts.

Copies of one key may lie in any chunk, and may have come since. They are decided anew, over the whole table, by the
plan's rule; the row that goes on stands for the first refused row of that key.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import polars as pl
from msgspec import Struct, field

from forcelift.audit.records import Chunk
from forcelift.errors import SourceChanged
from forcelift.jobs.repeats import cannot_repeat
from forcelift.jobs.work import TableWork
from forcelift.plan.models import DuplicateRule
from forcelift.protocols.source import Predicate, Source
from forcelift.rules import DuplicateDecisions, DuplicateScan, compact, frame_of

SLICE_ROWS = 200_000
"""Where a row is searched for, the slice that holds it is read whole."""

ONE_CHUNK = 1
"""All copies of repeated keys are decided as rows of one chunk, wherever they lie."""

Correct = Callable[[str, pl.DataFrame, pl.Series], pl.DataFrame]
"""Puts corrected values into source rows: table, rows, their normalised keys."""


class _Table(Struct, kw_only=True):
    """What is known of one table's rows."""

    repeated: pl.Series  # normalised keys with several copies
    decisions: DuplicateDecisions | None = None
    copies: list[pl.DataFrame] = field(default_factory=list)


class SourceRows:
    """Gives the rows of a retry.

    Args:
        wanted: By table, the normalised keys of all rows of the retry.
        shared: By table, those of them that rows of several chunks have: each is looked for in its own slice alone, or
            one row of the source would be sent for two.
        correct: Puts corrected values into rows as they are read.
    """

    def __init__(
        self,
        *,
        source: Source,
        works: Mapping[str, TableWork],
        wanted: Mapping[str, pl.Series],
        shared: Mapping[str, pl.Series],
        scratch: Path,
        memory_mb: int,
        batch_rows: int,
        correct: Correct | None = None,
    ) -> None:
        self._source, self._works, self._wanted, self._shared = source, works, wanted, shared
        self._scratch, self._memory_mb, self._batch_rows = scratch, memory_mb, batch_rows
        self._correct = correct
        self._tables: dict[str, _Table] = {}
        self._locks = {name: threading.Lock() for name in works}
        self._searching = {name: threading.Lock() for name in works}
        self._searched: dict[str, tuple[list[Predicate], pl.DataFrame]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def repeated(self, table: str) -> pl.Series:
        """Normalised keys of the retry that have several copies in the table now."""
        return self._known(table).repeated

    def decisions(self, table: str) -> DuplicateDecisions | None:
        """What becomes of those copies, as rows of `ONE_CHUNK`; None if there are none."""
        return self._known(table).decisions

    def copies(self, table: str, norms: pl.Series) -> Iterator[pl.DataFrame]:
        """All copies of these keys, from wherever in the table they lie."""
        work = self._works[table]
        for frame in self._known(table).copies:
            chosen = frame.filter(work.rules.keys(frame)["norm"].is_in(norms.implode()).fill_null(False))
            if chosen.height:
                yield chosen

    def of_chunk(self, chunk: Chunk, norms: pl.Series) -> Iterator[pl.DataFrame]:
        """The rows of a chunk with these keys, whole, as the source holds them now.

        A row that is not in its slice any more is searched for in the whole table: where a source moves a row that is
        changed, or a file was written anew, it is mended all the same.

        Raises:
            SourceUnavailable, SourceError: The source cannot be asked.
        """
        work = self._works[chunk.table_name]
        missing = norms
        try:
            # Held until the slice is through: one that cannot be read to its end must not be sent in part.
            frames = list(self._read(chunk.table_name, slices_of(chunk), norms))
        except SourceChanged:
            frames = []
        for frame in frames:
            found = work.rules.keys(frame)["norm"]
            missing = missing.filter(~missing.is_in(found.implode()))
            yield frame
        missing = missing.filter(~missing.is_in(self._shared[chunk.table_name].implode()))
        if missing.len():
            slices, places = self._search(chunk.table_name)
            numbers = places.filter(pl.col("norm").is_in(missing.implode()))["slice"].unique().sort().to_list()
            yield from list(self._read(chunk.table_name, [slices[number] for number in numbers], missing))

    def _search(self, table: str) -> tuple[list[Predicate], pl.DataFrame]:
        """The table in slices as it is now, and in which of them the wanted keys are; looked for once."""
        with self._searching[table]:
            if table not in self._searched:
                work = self._works[table]
                planned = self._source.plan_chunks(
                    table, where=work.plan.where, key=work.rules.key_columns, rows_per_chunk=SLICE_ROWS
                )
                slices = [part.predicate for part in planned]
                self._searched[table] = slices, self._places(work, slices, self._wanted[table])
            return self._searched[table]

    def _read(self, table: str, slices: Sequence[Predicate], norms: pl.Series) -> Iterator[pl.DataFrame]:
        """Rows with these keys, corrected; each slice is read once and filtered as it comes."""
        work = self._works[table]
        for predicate in slices:
            batches = self._source.read(
                table,
                columns=work.rules.source_columns,
                where=work.plan.where,
                predicate=predicate,
                order_by=work.rules.order_by,
                batch_rows=self._batch_rows,
            )
            for batch in batches:
                frame = frame_of(batch)
                keys = work.rules.keys(frame)["norm"]
                is_wanted = keys.is_in(norms.implode()).fill_null(False)
                if not is_wanted.any():
                    continue
                chosen = frame.filter(is_wanted)
                if self._correct is not None:
                    chosen = self._correct(table, chosen, keys.filter(is_wanted))
                yield chosen

    def _known(self, table: str) -> _Table:
        with self._locks[table]:
            if table not in self._tables:
                self._tables[table] = self._look(table)
            return self._tables[table]

    def _look(self, table: str) -> _Table:
        """Which of the wanted keys have several copies in the whole table, and what becomes of these."""
        work, wanted = self._works[table], self._wanted[table]
        nothing = pl.Series("norm", [], dtype=pl.String)
        if cannot_repeat(work) or not wanted.len():
            return _Table(repeated=nothing)
        slices, places = self._search(table)
        counted = places.group_by("norm").agg(pl.len().alias("copies")).filter(pl.col("copies") > 1)
        repeated = counted["norm"]
        if not repeated.len():
            return _Table(repeated=nothing)
        numbers = places.filter(pl.col("norm").is_in(repeated.implode()))["slice"].unique().sort().to_list()
        copies = list(self._read(table, [slices[number] for number in numbers], repeated))
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="copies-", dir=self._scratch)))
        scan = self._stack.enter_context(DuplicateScan(folder / "scan", memory_mb=max(64, self._memory_mb // 4)))
        for frame in copies:
            scan.add(ONE_CHUNK, work.rules.keys(frame))
        still = scan.duplicate_norms()
        if not still.keys:
            return _Table(repeated=nothing)
        if work.plan.duplicates is not DuplicateRule.REJECT:
            for frame in copies:
                scan.add_content(ONE_CHUNK, work.rules.content(frame))
        decisions = scan.decide(work.plan.duplicates, work.rules.merges)
        return _Table(repeated=repeated, decisions=decisions, copies=copies)

    def _places(self, work: TableWork, slices: Sequence[Predicate], wanted: pl.Series) -> pl.DataFrame:
        """Where the wanted keys are: `norm` and the number of the `slice`, a line for each row."""
        found = [pl.DataFrame(schema={"norm": pl.String, "slice": pl.UInt32})]
        for number, predicate in enumerate(slices):
            for batch in self._source.read(
                work.plan.table,
                columns=work.rules.key_columns,
                where=work.plan.where,
                predicate=predicate,
                batch_rows=self._batch_rows,
            ):
                norms = work.rules.keys(frame_of(batch))["norm"]
                mine = norms.filter(norms.is_in(wanted.implode()).fill_null(False))
                if mine.len():
                    place = mine.alias("norm").to_frame().with_columns(slice=pl.lit(number, dtype=pl.UInt32))
                    found.append(compact(place))
        return pl.concat(found)


def slices_of(chunk: Chunk) -> list[Predicate]:
    """What the source is asked for: a chunk of a sample stands for rows of several slices, which are read whole."""
    predicate: dict[str, Any] = dict(chunk.predicate)
    return [part["slice"] for part in predicate["parts"]] if predicate.get("by") == "sample" else [predicate]
