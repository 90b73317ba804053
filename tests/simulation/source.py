"""A source in memory: Arrow tables, chunks by row numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import pyarrow as pa

from forcelift.errors import SourceUnavailable
from forcelift.protocols.source import ChunkPredicate, Column, ColumnKind, Predicate, SourceTable


class SimSource:
    """Text tables that hold still; a read may fail as `may_fail` decides, and must not begin unless `may_read`."""

    kind = "simulated"

    def __init__(
        self,
        tables: Mapping[str, pa.Table],
        *,
        may_fail: Callable[[], bool],
        on_read: Callable[[], None] = lambda: None,
    ) -> None:
        self._tables, self._may_fail, self._on_read = tables, may_fail, on_read

    def describe(self, table: str) -> SourceTable:
        return SourceTable(
            name=table,
            columns=tuple(
                Column(name=name, kind=ColumnKind.TEXT, declared="TEXT", arrow=pa.string())
                for name in self._tables[table].column_names
            ),
        )

    def tables(self) -> list[str]:
        return sorted(self._tables)

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def fingerprint(self, table: str) -> str:
        return ""

    def snapshot(self) -> str | None:
        return None

    def plan_chunks(
        self, table: str, *, where: str | None, key: Sequence[str], rows_per_chunk: int
    ) -> list[ChunkPredicate]:
        rows = self._tables[table].num_rows
        starts = range(0, max(rows, 1), rows_per_chunk)
        return [
            ChunkPredicate(
                predicate={"from": start, "rows": min(rows_per_chunk, rows - start)},
                rows_estimate=min(rows_per_chunk, rows - start),
            )
            for start in starts
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
        assert among is None, "no simulated batch is a sample"
        return self._tables[table].num_rows if predicate is None else int(predicate["rows"])

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
        assert among is None, "no simulated batch is a sample"
        self._on_read()
        data = self._tables[table].select(list(columns))
        if predicate is not None:
            data = data.slice(predicate["from"], predicate["rows"])
        if order_by:
            data = data.sort_by([(name, "ascending") for name in order_by])
        for batch in data.to_batches(max_chunksize=11):
            if self._may_fail():
                raise SourceUnavailable("the connection broke")
            yield batch

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
        raise NotImplementedError("no simulated batch is a sample")

    def sample(self, table: str, *, columns: Sequence[str], where: str | None, rows: int) -> pa.Table:
        return self._tables[table].select(list(columns)).slice(0, rows)

    def close(self) -> None:
        """Nothing is held."""
