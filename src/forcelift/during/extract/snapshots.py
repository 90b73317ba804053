"""How a chunk is read once the source has forgotten the batch's state: in shorter spans of it, then as it is now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
from msgspec import Struct

from forcelift.protocols.source import ForgetsSnapshot, Predicate, Source

SPANS = 8
"""Parts of a chunk that are read one by one when the whole takes longer than the source remembers."""


class View(Struct, frozen=True, kw_only=True):
    """A chunk as it is read: from which source, and as one slice or as several that hold its rows once.

    `is_shortened` and `is_afresh` tell why it is not the chunk as it was planned.
    """

    source: Source
    slices: tuple[Predicate, ...]
    is_shortened: bool = False
    is_afresh: bool = False

    def count(self, table: str, *, where: str | None) -> int:
        """The source's own count of the chunk."""
        return sum(self.source.count(table, where=where, predicate=part) for part in self.slices)

    def read(
        self, table: str, *, columns: Sequence[str], where: str | None, order_by: Sequence[str], batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Stream the rows, sorted within each slice."""
        for part in self.slices:
            batches = self.source.read(
                table, columns=columns, where=where, predicate=part, order_by=order_by, batch_rows=batch_rows
            )
            try:
                yield from batches
            finally:
                close: Callable[[], None] | None = getattr(batches, "close", None)
                if close is not None:
                    close()


def views(source: Source, table: str, predicate: Predicate, *, may_renew: bool) -> Iterator[View]:
    """The ways to read a chunk, the wanted one first; the next is taken when one raises `SnapshotLost`.

    Args:
        may_renew: Whether the chunk may be read as it is now. Its state then differs from other chunks', and is told.
    """
    yield View(source=source, slices=(predicate,))
    if not isinstance(source, ForgetsSnapshot):
        return
    spans = tuple(source.spans(table, predicate=predicate, parts=SPANS))
    if len(spans) > 1:
        yield View(source=source, slices=spans, is_shortened=True)
    afresh = source.afresh() if may_renew else None
    if afresh is not None:
        yield View(source=afresh, slices=(predicate,), is_afresh=True)
        if len(spans) > 1:
            yield View(source=afresh, slices=spans, is_shortened=True, is_afresh=True)
