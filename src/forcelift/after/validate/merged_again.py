"""`duplicates: merge` once more, over the source as it is now: one scan of a table's keys, decided as the load did.

Reads:   the key column of all chunks, and the chunks with repeated keys whole.
Writes:  a folder on the scratch disk, removed by `close`.
Re-run:  decided once a validation, and only for a table of which rows are missed without it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import polars as pl

from forcelift.audit.records import Chunk
from forcelift.errors import SourceChanged
from forcelift.jobs.work import TableWork
from forcelift.plan.models import DuplicateRule
from forcelift.protocols.source import Source
from forcelift.rules import DuplicateDecisions, DuplicateScan, frame_of


def is_sampled(chunk: Chunk) -> bool:
    """Whether a chunk is of a sample: it stands for some rows of several slices, which it shares with other chunks."""
    return dict(chunk.predicate).get("by") == "sample"


def can_merge_again(work: TableWork, chunks: Sequence[Chunk]) -> bool:
    """Whether the table's rows were merged from copies that can be told again.

    Not those of a sample: its chunks share slices, so that each copy would be met several times.
    """
    return work.plan.duplicates is DuplicateRule.MERGE and not any(is_sampled(chunk) for chunk in chunks)


class MergedAgain:
    """Decides the copies of tables, each once."""

    def __init__(
        self, *, source: Source, works: Mapping[str, TableWork], scratch: Path, memory_mb: int, batch_rows: int
    ) -> None:
        self._source, self._works, self._scratch = source, works, scratch
        self._memory_mb, self._batch_rows = memory_mb, batch_rows
        self._decided: dict[str, DuplicateDecisions | None] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def of(self, table: str, chunks: Sequence[Chunk]) -> DuplicateDecisions | None:
        """What becomes of repeated keys; None if none repeats, or the table changes while it is looked at.

        Args:
            chunks: All chunks of the table: a key's copies may lie in any of them.
        """
        if table not in self._decided:
            self._decided[table] = self._decide(self._works[table], chunks)
        return self._decided[table]

    def _decide(self, work: TableWork, chunks: Sequence[Chunk]) -> DuplicateDecisions | None:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="merged-", dir=self._scratch))
        scan = self._stack.enter_context(DuplicateScan(Path(folder), memory_mb=max(64, self._memory_mb // 4)))
        for chunk in chunks:
            for frame in self._frames(work, chunk, work.rules.key_columns):
                scan.add(chunk.chunk_no, work.rules.keys(frame))
        repeated = scan.duplicate_norms()
        if not repeated.keys:
            return None
        numbers = set(repeated.chunks)
        for chunk in chunks:
            if chunk.chunk_no in numbers:
                for frame in self._frames(work, chunk, work.rules.source_columns):
                    scan.add_content(chunk.chunk_no, work.rules.content(frame))
        try:
            return scan.decide(work.plan.duplicates, work.rules.merges)
        except SourceChanged:
            # Rows went between the two looks; those of their keys count as changed since, which they are.
            return None

    def _frames(self, work: TableWork, chunk: Chunk, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        for batch in self._source.read(
            work.plan.table,
            columns=columns,
            where=work.plan.where,
            predicate=dict(chunk.predicate),
            batch_rows=self._batch_rows,
        ):
            yield frame_of(batch)
