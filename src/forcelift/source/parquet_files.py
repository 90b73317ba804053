"""Parquet files: columns in the types that the files declare; a slice is a range of rows of one or more files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from forcelift.errors import SourceError
from forcelift.protocols.source import ADDRESS, Column, ColumnKind
from forcelift.source.broken_text import as_utf8
from forcelift.source.duckdb_session import duckdb_errors
from forcelift.source.file_table import FileTable, Piece
from forcelift.source.files_sql import Engine
from forcelift.source.names import UNTOUCHED, quote, quote_text
from forcelift.source.types import arrow_column, schema_of

_ROW_NUMBER = "file_row_number"
_AMONG = "forcelift among"
# 4713-01-01 BC and 99999-12-31, in days from 1970-01-01.
_EARLIEST_DAY, _LATEST_DAY = -2_440_550, 35_804_721


class ParquetFormat:
    """Parquet by pyarrow, which keeps every declared type; counted by DuckDB."""

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine

    def columns(self, table: FileTable) -> tuple[Column, ...]:
        """The schema's columns, which all files of a table must share."""
        first: pa.Schema | None = None
        for file in table.files:
            with _opened(file) as parquet:
                schema = parquet.schema_arrow.remove_metadata()
            if first is None:
                first = schema
            elif [(field.name, field.type) for field in schema] != [(field.name, field.type) for field in first]:
                raise SourceError(
                    f"`{file.name}` and `{table.files[0].name}` of table `{table.name}` have different columns",
                    state=UNTOUCHED,
                    hint="give all files of the folder the same columns and types in the same order",
                )
        return tuple(arrow_column(field) for field in first or ())

    def rows_estimate(self, table: FileTable) -> int | None:
        """Exact: the files' footers say it."""
        return sum(_rows(file) for file in table.files)

    def pieces(self, table: FileTable, *, rows: int) -> Iterator[Piece]:
        """Ranges of rows, by the footers alone."""
        for file in table.files:
            total = _rows(file)
            for first in range(0, total, rows):
                last = min(first + rows, total)
                yield Piece(file=file, first=first, last=last, rows=last - first)

    def read(
        self, table: FileTable, columns: Sequence[Column], pieces: Sequence[Piece] | None, *, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Stream the rows. Of a row group that a range begins in, the rows before it are read and dropped."""
        wanted = self.pieces(table, rows=1 << 62) if pieces is None else iter(pieces)
        for piece in wanted:
            with _opened(piece.file) as parquet:
                for batch in _slice(parquet, piece, [column.name for column in columns], batch_rows=batch_rows):
                    yield _convert(batch, columns, file=piece.file)

    def count(
        self, table: FileTable, *, where: str | None, pieces: Sequence[Piece] | None, among: pa.Array | None = None
    ) -> int:
        """A COUNT(*) by DuckDB's Parquet reader."""
        counted = 0
        held = list(self.pieces(table, rows=1 << 62)) if pieces is None else pieces
        with duckdb_errors(f"table `{table.name}`"), self._engine.cursor() as cursor:
            if among is not None:
                cursor.register(_AMONG, pa.table({ADDRESS: among}))
            before = 0  # rows of the slice in earlier pieces
            for piece in held:
                # Without a condition no column is looked at: DuckDB gives up on some times beyond its own range.
                names = "*" if where else _ROW_NUMBER
                rows = (
                    f"SELECT {names} FROM read_parquet({quote_text(_literal_path(piece.file))}, file_row_number = true)"
                    f" WHERE {_ROW_NUMBER} >= {piece.first} AND {_ROW_NUMBER} < {piece.last}"
                )
                if among is not None:
                    number = f"{_ROW_NUMBER} - {piece.first} + {before}"
                    rows += f" AND {number} IN (SELECT {quote(ADDRESS)} FROM {quote(_AMONG)})"
                before += piece.last - piece.first
                query = f"SELECT count(*) FROM ({rows}) AS t WHERE ({where or 'true'}\n)"
                counted += int(cursor.execute(query).fetchall()[0][0])
        return counted


def _literal_path(file: Path) -> str:
    """The path without the meaning that DuckDB gives to *, ? and [ in it."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(file))


@contextmanager
def _opened(file: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(file, memory_map=True) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"`{file.name}` cannot be read as Parquet ({type(error).__name__})",
            state="nothing was sent of what was being read",
            hint="check that the file is whole: its writer may not have finished it",
        ) from error


def _rows(file: Path) -> int:
    with _opened(file) as parquet:
        return int(parquet.metadata.num_rows)


def _slice(parquet: pq.ParquetFile, piece: Piece, names: Sequence[str], *, batch_rows: int) -> Iterator[pa.RecordBatch]:
    sizes = [parquet.metadata.row_group(at).num_rows for at in range(parquet.metadata.num_row_groups)]
    starts = [0, *accumulate(sizes)]
    groups = [
        at for at, size in enumerate(sizes) if size and starts[at] < piece.last and starts[at] + size > piece.first
    ]
    if not groups:
        return
    skip, left = piece.first - starts[groups[0]], piece.last - piece.first
    for batch in parquet.iter_batches(batch_size=batch_rows, row_groups=groups, columns=list(names), use_threads=False):
        part = batch.slice(skip, left)
        skip = max(0, skip - batch.num_rows)
        left -= part.num_rows
        if part.num_rows:
            yield part
        if not left:
            return


def _convert(batch: pa.RecordBatch, columns: Sequence[Column], *, file: Path) -> pa.RecordBatch:
    arrays = []
    for column in columns:
        # By name: pyarrow also picks columns whose name begins with a wanted one and a dot.
        array = batch.column(batch.schema.get_field_index(column.name))
        try:
            arrays.append(_to_type(array, column))
        except pa.ArrowException as error:
            raise SourceError(
                f"column `{column.name}` of `{file.name}` holds a value that does not fit its type",
                state="the chunk was not read; nothing of it was sent",
                hint="mend the file, or leave the column out of the plan",
            ) from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema_of(columns))


def _to_type(array: pa.Array, column: Column) -> pa.Array:
    if pa.types.is_floating(array.type) and array.type != column.arrow:
        # The shortest decimal of a narrow float is lost when it is widened bit by bit: 0.1 would be 0.10000000149.
        array = array.cast(pa.float32()).cast(pa.string())
    if column.kind in (ColumnKind.DATE, ColumnKind.TIMESTAMP, ColumnKind.INSTANT):
        array = _bounded(array)
    converted = array if array.type == column.arrow else array.cast(column.arrow)
    return as_utf8(converted) if column.kind is ColumnKind.TEXT else converted


def _bounded(array: pa.Array) -> pa.Array:
    """Dates and times from 4713-01-01 BC to 99999-12-31; one look at the extremes where all are.

    What lies beyond is delivered as these two, so that the rules refuse it as out of range: polars knows 262,000 years,
    and microseconds 292,000. PostgreSQL and DuckDB are read in the same way.
    """
    if array.null_count == len(array) or (unit := _units_a_day(array.type)) is None:
        return array
    physical = pa.int32() if pa.types.is_date32(array.type) else pa.int64()
    low, high = _EARLIEST_DAY * unit, _LATEST_DAY * unit
    numbers = array.view(physical)
    found = pc.min_max(numbers).as_py()
    if low <= found["min"] and found["max"] <= high:
        return array
    held = pc.if_else(pc.greater(numbers, high), high, pc.if_else(pc.less(numbers, low), low, numbers))
    return held.cast(physical).view(array.type)


def _units_a_day(arrow: pa.DataType) -> int | None:
    """None for nanoseconds, which end in the year 2262."""
    if pa.types.is_date32(arrow):
        return 1
    unit = "ms" if pa.types.is_date64(arrow) else arrow.unit
    return {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000}.get(unit)
