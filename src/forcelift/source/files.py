"""A folder of CSV or Parquet files as a source: a table is a file, or a sub-folder of files with the same columns.

Reads:   the files, never more of one than a chunk needs.
Writes:  nothing.
Re-run:  a chunk names bytes (CSV) or rows (Parquet) of files with their size and time of change; if these differ, the
         read is refused instead of giving other rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from forcelift.protocols.source import ADDRESS, ChunkPredicate, Column, ColumnKind, Predicate, SourceTable
from forcelift.source.csv_files import CsvFormat
from forcelift.source.file_numbers import numbered, take_numbers
from forcelift.source.file_table import FileFormat, FileTable, Piece, file_state, find_tables, pack, pieces_of
from forcelift.source.files_sql import Engine, where_tail
from forcelift.source.names import pick_columns, quote, unknown_table
from forcelift.source.parquet_files import ParquetFormat
from forcelift.source.types import as_schema, readable, schema_of

SAMPLE_PROBES = 20
PROBE_ROWS = 10_000
"""Rows of a batch that a probe takes its rows from. On its way to a place in a Parquet file's row group all rows before
it are read, and in batches of a few rows each that takes many times as long."""


class FilesSource:
    """A folder.

    Args:
        folder: Where the files are.
        encoding: Encoding of CSV files. Other than UTF-8: their columns are delivered as bytes.
        byte_tables: CSV tables whose columns are delivered as bytes in any case, with the encoding of their headers.
        memory_mb: DuckDB's memory limit where it filters or sorts; its own default if None.
        threads: DuckDB's threads there; as many as the machine has cores if None.
    """

    kind = "files"

    def __init__(
        self,
        folder: Path,
        *,
        encoding: str = "utf-8",
        byte_tables: Mapping[str, str] | None = None,
        memory_mb: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.folder = folder
        self._engine = Engine(memory_mb=memory_mb, threads=threads)
        self._formats: dict[str, FileFormat] = {
            "csv": CsvFormat(encoding=encoding, byte_tables=byte_tables or {}, engine=self._engine),
            "parquet": ParquetFormat(engine=self._engine),
        }
        find_tables(folder)

    def tables(self) -> list[str]:
        """Names of the files without their ending, and of the sub-folders that hold such files, sorted."""
        return sorted(find_tables(self.folder))

    def describe(self, table: str) -> SourceTable:
        """Columns by the header (CSV: all text) or by the file's schema (Parquet); files know no keys."""
        found, form = self._find(table)
        return SourceTable(
            name=table,
            columns=form.columns(found),
            rows_estimate=form.rows_estimate(found),
            bytes_estimate=sum(file.stat().st_size for file in found.files),
        )

    def now(self) -> datetime:
        """The machine's clock."""
        return datetime.now(UTC)

    def fingerprint(self, table: str) -> str:
        """Names, sizes and times of change of the table's files."""
        found, _ = self._find(table)
        return "files:" + "/".join(f"{file.name}:{file_state(file)}" for file in found.files)

    def snapshot(self) -> str | None:
        """None: files have no states to choose from."""
        return None

    def plan_chunks(
        self, table: str, *, where: str | None, key: Sequence[str], rows_per_chunk: int
    ) -> list[ChunkPredicate]:
        """Cut the files in one pass. Slices are cut by all rows; `where` then leaves fewer of them."""
        found, form = self._find(table)
        return pack(found, form.pieces(found, rows=rows_per_chunk), rows=rows_per_chunk)

    def count(
        self,
        table: str,
        *,
        where: str | None,
        predicate: Predicate | None = None,
        key: Sequence[str] = (),
        among: pa.Array | None = None,
    ) -> int:
        """Rows as another reader counts them: polars for CSV, DuckDB for Parquet and wherever `where` is to be run."""
        found, form = self._find(table)
        return form.count(found, where=where, pieces=pieces_of(found, predicate), among=among)

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
        """Stream a slice. A broken row raises `SourceError` that names file and line."""
        found, form = self._find(table)
        known = form.columns(found)
        described = SourceTable(name=table, columns=known)
        picked = pick_columns(described, columns)
        pick_columns(described, order_by)
        pieces = pieces_of(found, predicate)
        if among is not None:
            return self._picked(found, form, picked, pieces, order_by=order_by, batch_rows=batch_rows, among=among)
        if where is None and not order_by:
            return form.read(found, picked, pieces, batch_rows=batch_rows)
        wanted = readable(known) if where is not None else _with(picked, pick_columns(described, order_by))
        names = ", ".join(quote(column.name) for column in picked)
        query = f"SELECT {names} FROM {quote(table)} {where_tail(where, order_by)}"
        return self._select(found, form, wanted, picked, pieces, query=query, batch_rows=batch_rows)

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
        """An address is the row's number (from 0) in its slice, counted over all its rows, within `where` or not."""
        found, form = self._find(table)
        known = form.columns(found)
        picked = pick_columns(SourceTable(name=table, columns=known), columns)
        pieces = pieces_of(found, predicate)
        place = Column(name=ADDRESS, kind=ColumnKind.INTEGER, declared="address", arrow=pa.int64())
        if where is None:
            return numbered(form.read(found, picked, pieces, batch_rows=batch_rows))
        names = ", ".join(quote(column.name) for column in (*picked, place))
        query = f"SELECT {names} FROM {quote(table)} {where_tail(where)}"
        return self._engine.select(
            numbered(form.read(found, readable(known), pieces, batch_rows=batch_rows)),
            table=table,
            schema=schema_of([*readable(known), place]),
            query=query,
            batch_rows=batch_rows,
        )

    def sample(self, table: str, *, columns: Sequence[str], where: str | None, rows: int) -> pa.Table:
        """The first rows of evenly spaced stretches; with a `where`, a reservoir sample by DuckDB."""
        found, form = self._find(table)
        known = form.columns(found)
        picked = pick_columns(SourceTable(name=table, columns=known), columns)
        schema = schema_of(picked)
        if where is None:
            return pa.Table.from_batches(list(self._probes(found, form, picked, rows=rows)), schema)
        everything = readable(known)
        names = ", ".join(quote(column.name) for column in picked)
        query = (
            f"SELECT {names} FROM (SELECT * FROM {quote(table)} {where_tail(where)})"
            f" USING SAMPLE reservoir({rows} ROWS) REPEATABLE (1)"
        )
        batches = self._select(found, form, everything, picked, None, query=query, batch_rows=max(rows, 1))
        return pa.Table.from_batches(list(batches), schema)

    def close(self) -> None:
        """Close the DuckDB that filters and sorts; no file stays open between calls."""
        self._engine.close()

    def _find(self, table: str) -> tuple[FileTable, FileFormat]:
        tables = find_tables(self.folder)
        if table not in tables:
            raise unknown_table(table, sorted(tables), place=f"`{self.folder}`")
        return tables[table], self._formats[tables[table].format]

    def _select(
        self,
        found: FileTable,
        form: FileFormat,
        wanted: Sequence[Column],
        picked: Sequence[Column],
        pieces: Sequence[Piece] | None,
        *,
        query: str,
        batch_rows: int,
    ) -> Iterator[pa.RecordBatch]:
        schema = schema_of(picked)
        for batch in self._engine.select(
            form.read(found, wanted, pieces, batch_rows=batch_rows),
            table=found.name,
            schema=schema_of(wanted),
            query=query,
            batch_rows=batch_rows,
        ):
            yield as_schema(batch, schema)

    def _picked(
        self,
        found: FileTable,
        form: FileFormat,
        picked: Sequence[Column],
        pieces: Sequence[Piece] | None,
        *,
        order_by: Sequence[str],
        batch_rows: int,
        among: pa.Array,
    ) -> Iterator[pa.RecordBatch]:
        """The rows of these numbers, which were within `where` when they were numbered: the files are unchanged."""
        described = SourceTable(name=found.name, columns=form.columns(found))
        wanted = _with(picked, pick_columns(described, order_by))
        rows = take_numbers(form.read(found, wanted, pieces, batch_rows=batch_rows), among)
        if not order_by:
            yield from rows
            return
        names = ", ".join(quote(column.name) for column in picked)
        query = f"SELECT {names} FROM {quote(found.name)} {where_tail(None, order_by)}"
        schema = schema_of(picked)
        for batch in self._engine.select(
            rows, table=found.name, schema=schema_of(wanted), query=query, batch_rows=batch_rows
        ):
            yield as_schema(batch, schema)

    def _probes(
        self, found: FileTable, form: FileFormat, picked: Sequence[Column], *, rows: int
    ) -> Iterator[pa.RecordBatch]:
        estimate = form.rows_estimate(found) or 0
        probes = max(1, min(SAMPLE_PROBES, rows))
        pieces = list(form.pieces(found, rows=max(1, -(-estimate // probes))))
        left = rows
        for at, piece in enumerate(pieces):
            wanted = -(-left // (len(pieces) - at))
            reader = form.read(found, picked, [piece], batch_rows=max(PROBE_ROWS, wanted))
            batch = next(reader, None)
            if batch is not None:
                taken = batch.slice(0, min(wanted, left))
                left -= taken.num_rows
                yield taken


def _with(picked: Sequence[Column], more: Sequence[Column]) -> list[Column]:
    return list({column.name: column for column in (*picked, *more)}.values())
