"""A source of which only the rows of a sample are seen: its chunks are theirs, and so are its counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow as pa
from msgspec.structs import replace

from forcelift.during.extract.sample_draw import Draw, DrawWorld, TableSample, addresses, drawn_samples
from forcelift.errors import ForceliftError, ReadingStopped, SnapshotLost, SourceError, TransientError
from forcelift.protocols.source import ChunkPredicate, ForgetsSnapshot, Predicate, Source, SourceTable


class SampledSource:
    """The rows of a sample. Methods may be called from several threads at once.

    The sample is drawn when the first table is planned. `where` and `key` belong to a table's plan, so what callers say
    of them is what the draw used.
    """

    def __init__(self, world: DrawWorld) -> None:
        self._world, self._source = world, world.source
        self.kind = world.source.kind
        self._lock = threading.Lock()
        self._samples: Mapping[str, TableSample] | None = None
        self._failure: ForceliftError | None = None
        self._draw: Draw | None = None  # one that the end of the hours broke off
        self._verified: set[str] = set()

    def sample_of(self, table: str) -> TableSample:
        """What was drawn of a table."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if self._samples is None:
                self._samples = self._drawn()
            return self._samples[table]

    def _drawn(self) -> Mapping[str, TableSample]:
        """The draw, which reads all tables: what is certain to fail again is not tried for each of them."""
        draw, self._draw = self._draw, None
        if draw is not None and not draw.is_of_this_state():
            draw.close()
            draw = None
        draw = draw or Draw(self._world)
        try:
            samples = drawn_samples(self._world, draw)
        except ReadingStopped:
            # The hours have ended: what was noted stays until they come again, or the process ends.
            self._draw = draw
            raise
        except BaseException as error:
            draw.close()
            if isinstance(error, ForceliftError) and not isinstance(error, TransientError | SnapshotLost):
                self._failure = error
            raise
        draw.close()
        return samples

    def info(self, table: str) -> dict[str, Any]:
        """What the audit database keeps of a table's sample."""
        sample = self.sample_of(table)
        return {
            "sample": {
                "percent": str(self._world.percent),
                "of": sample.of,
                "by_key": sample.by_hash,
                "rows": sample.rows,
            }
        }

    def describe(self, table: str) -> SourceTable:
        """As the source does."""
        return self._source.describe(table)

    def tables(self) -> list[str]:
        """As the source does."""
        return self._source.tables()

    def now(self) -> datetime:
        """As the source does."""
        return self._source.now()

    def fingerprint(self, table: str) -> str:
        """As the source does."""
        return self._source.fingerprint(table)

    def snapshot(self) -> str | None:
        """As the source does."""
        return self._source.snapshot()

    def snapshot_seconds(self) -> float | None:
        """As the source does."""
        return self._source.snapshot_seconds() if isinstance(self._source, ForgetsSnapshot) else None

    def spans(self, table: str, *, predicate: Predicate, parts: int) -> list[Predicate]:
        """A chunk by the slices that its rows lie in; where there is but one, the rows stand by their addresses."""
        return [{**predicate, "parts": [part]} for part in predicate["parts"]]

    def afresh(self) -> Source | None:
        """The same sample of the source as it is now."""
        other = self._source.afresh() if isinstance(self._source, ForgetsSnapshot) else None
        if other is None:
            return None
        sampled = SampledSource(replace(self._world, source=other))
        with self._lock:
            sampled._samples = self._samples
        return sampled

    def plan_chunks(
        self, table: str, *, where: str | None, key: Sequence[str], rows_per_chunk: int
    ) -> list[ChunkPredicate]:
        """The chunks that the sealed sample was cut into."""
        return [
            ChunkPredicate(predicate=predicate, rows_estimate=rows) for predicate, rows in self.sample_of(table).chunks
        ]

    def count(
        self,
        table: str,
        *,
        where: str | None,
        predicate: Predicate | None = None,
        key: Sequence[str] = (),
        among: pa.Array | None = None,
    ) -> int:
        """The source's own count of the rows at the addresses of the chunk."""
        key = self._world.works[table].rules.key_columns
        return sum(
            self._source.count(table, where=where, predicate=part, key=key, among=rows)
            for part, rows in self._parts(_sampled(predicate, among))
        )

    def read(
        self,
        table: str,
        *,
        columns: Sequence[str],
        where: str | None,
        predicate: Predicate | None = None,
        order_by: Sequence[str] = (),
        batch_rows: int = 50_000,
        key: Sequence[str] = (),
        among: pa.Array | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Stream the rows of a chunk; where it has parts of several slices, sorted within each batch."""
        parts = _sampled(predicate, among)
        wanted = [*columns, *(name for name in order_by if name not in columns)]
        batches = (
            batch
            for part, rows in self._parts(parts)
            for batch in self._source.read(
                table,
                columns=wanted,
                where=where,
                predicate=part,
                order_by=order_by,
                batch_rows=batch_rows,
                key=self._world.works[table].rules.key_columns,
                among=rows,
            )
        )
        if len(parts["parts"]) == 1:
            return (batch.select(list(columns)) for batch in batches)
        return (_sorted(batch, order_by).select(list(columns)) for batch in _joined(batches, batch_rows))

    def locate(
        self,
        table: str,
        *,
        columns: Sequence[str],
        where: str | None,
        predicate: Predicate,
        key: Sequence[str],
        batch_rows: int = 50_000,
    ) -> Iterator[pa.RecordBatch]:
        """Not of a sample: it was drawn by the addresses of the source beneath."""
        raise SourceError("rows of a sample are not located again", state="nothing was read")

    def sample(self, table: str, *, columns: Sequence[str], where: str | None, rows: int) -> pa.Table:
        """A few rows from all over the whole table, to learn sizes and shapes."""
        return self._source.sample(table, columns=columns, where=where, rows=rows)

    def close(self) -> None:
        """Close the source, and give up a draw that waits."""
        draw, self._draw = self._draw, None
        if draw is not None:
            draw.close()
        self._source.close()

    def _parts(self, predicate: Predicate) -> Iterator[tuple[Predicate, pa.Array]]:
        self._verify(predicate)
        for part in predicate["parts"]:
            found = addresses(self._world.storage, predicate, first=part["first"], lines=part["lines"])
            array = found.to_arrow()
            # polars hands out its own kind of text; the adapters deliver the plain one.
            yield part["slice"], array.cast(pa.string()) if found.dtype == pl.String else array

    def _verify(self, predicate: Predicate) -> None:
        with self._lock:
            if predicate["file"] not in self._verified:
                self._world.storage.verify(predicate["file"], predicate["sha256"])
                self._verified.add(predicate["file"])


def _sampled(predicate: Predicate | None, among: pa.Array | None) -> Predicate:
    if predicate is None or predicate.get("by") != "sample" or among is not None:
        raise SourceError(
            "a chunk of this batch is no part of a sample",
            state="nothing was read for this chunk",
            hint="the batch was begun by another version: begin a new batch",
        )
    return predicate


def _sorted(batch: pa.RecordBatch, order_by: Sequence[str]) -> pa.RecordBatch:
    """By these columns; one with misfits says nothing, as the order only keeps rows of one parent near each other."""
    plain = [name for name in order_by if not pa.types.is_struct(batch.schema.field(name).type)]
    return batch.sort_by([(name, "ascending") for name in plain]) if plain else batch


def _joined(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of about that many rows: a small share of many slices comes in many small pieces."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if held and held[-1].schema != batch.schema:  # one of them holds misfits
            yield pa.concat_batches(held)
            held, size = [], 0
        held.append(batch)
        size += batch.num_rows
        if size >= rows:
            yield pa.concat_batches(held)
            held, size = [], 0
    if held:
        yield pa.concat_batches(held)
