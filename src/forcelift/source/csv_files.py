"""CSV files: comma, quotes as RFC 4180 has them, line feeds with or without carriage return, a header line; all text.

Every row must have as many fields as the header. An empty field is null, quoted or not.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, cast

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
from isal import igzip, isal_zlib

from forcelift.errors import SourceError
from forcelift.protocols.source import Column, ColumnKind
from forcelift.source.broken_text import as_utf8
from forcelift.source.csv_scan import BLOCK_BYTES, CsvFault, nth_row_end, shrink, stretches
from forcelift.source.file_numbers import numbers_of
from forcelift.source.file_table import FileTable, Piece
from forcelift.source.files_sql import Engine, where_tail
from forcelift.source.names import UNTOUCHED, quote
from forcelift.source.types import as_schema, schema_of

# A row must fit into one block of pyarrow's reader.
ROW_BYTES_MAX = 16 << 20
ESTIMATE_BYTES = 1 << 20
# A whole file is read and counted in pieces of so many rows, so that the first batch need not wait for the last row.
PIECE_ROWS_MAX = 1_000_000

_FILE_ERRORS: tuple[type[Exception], ...] = (OSError, EOFError, cast("type[Exception]", isal_zlib.error))
_NOT_READ = "the chunk was not read; nothing of it was sent"


class CsvFormat:
    """CSV in one encoding.

    Args:
        encoding: Any that keeps ASCII as it is (all but UTF-16 and its like). Other than UTF-8: columns are bytes.
        byte_tables: Tables whose columns are bytes in any case, each with the encoding of its header line.
    """

    def __init__(self, *, encoding: str, byte_tables: Mapping[str, str], engine: Engine) -> None:
        self._encoding = _codec(encoding)
        self._is_utf8 = self._encoding in ("utf-8", "ascii", "utf-8-sig")
        self._byte_tables = dict(byte_tables)
        self._engine = engine

    def columns(self, table: FileTable) -> tuple[Column, ...]:
        """The header's columns, which all files of a table must share."""
        headers = [(file, self._header(table, file)[0]) for file in table.files]
        first_file, names = headers[0]
        for file, other in headers:
            if other != names:
                raise SourceError(
                    f"`{file.name}` and `{first_file.name}` of table `{table.name}` have different header lines",
                    state=UNTOUCHED,
                    hint="give all files of the folder the same columns in the same order",
                )
        arrow = pa.string() if self._is_text(table) else pa.binary()
        return tuple(Column(name=name, kind=ColumnKind.TEXT, declared="text", arrow=arrow) for name in names)

    def rows_estimate(self, table: FileTable) -> int | None:
        """By the rows in the first megabyte of each file."""
        return sum(self._estimate(table, file) for file in table.files)

    def pieces(self, table: FileTable, *, rows: int) -> Iterator[Piece]:
        """Stretches of whole rows, as bytes; offsets in a `.csv.gz` are those of the unpacked text.

        The whole file is checked on the way: quotes, and the number of fields of each row.
        """
        self.columns(table)
        for file in table.files:
            names, start, line = self._header(table, file)
            with _reading(file) as content:
                content.seek(start)
                try:
                    for part in stretches(content, start=start, line=line, rows=rows, fields=len(names)):
                        yield Piece(file=file, first=part.start, last=part.end, rows=part.rows, line=part.line)
                except CsvFault as fault:
                    raise _broken(file, fault.line, fault.message) from None

    def read(
        self, table: FileTable, columns: Sequence[Column], pieces: Sequence[Piece] | None, *, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Stream the rows. Quotes and field counts are checked as pieces are cut, the latter here again, with UTF-8."""
        names = [column.name for column in self.columns(table)]
        whole = self.pieces(table, rows=PIECE_ROWS_MAX) if pieces is None else iter(pieces)
        for piece in whole:
            yield from self._read_piece(piece, names, columns, batch_rows=batch_rows)

    def count(
        self, table: FileTable, *, where: str | None, pieces: Sequence[Piece] | None, among: pa.Array | None = None
    ) -> int:
        """Rows by polars' CSV reader (which shares nothing with `read`); with a `where`, by DuckDB."""
        columns = self.columns(table)
        held = list(self.pieces(table, rows=PIECE_ROWS_MAX)) if pieces is None else pieces
        if where is None and among is None:
            return sum(_count_piece(piece, len(columns)) for piece in held)
        if among is not None:
            return self._count_among(held, len(columns), among)
        counted = self._engine.select(
            self.read(table, columns, held, batch_rows=50_000),
            table=table.name,
            schema=schema_of(columns),
            query=f"SELECT count(*) AS n FROM {quote(table.name)} {where_tail(where)}",
            batch_rows=1,
        )
        return sum(int(batch.column(0)[0].as_py()) for batch in counted)

    def _count_among(self, pieces: Sequence[Piece], width: int, among: pa.Array) -> int:
        """Of these row numbers those that polars finds; they were within `where` when the same files were numbered."""
        before = counted = 0
        wanted = numbers_of(among)
        for piece in pieces:
            rows = _count_piece(piece, width)
            counted += int(wanted.is_between(before, before + rows - 1).sum())
            before += rows
        return counted

    def _is_text(self, table: FileTable) -> bool:
        return self._is_utf8 and table.name not in self._byte_tables

    def _header(self, table: FileTable, file: Path) -> tuple[list[str], int, int]:
        """Names of the columns, the first byte behind the header line, and that byte's line (from 0)."""
        encoding = _codec(self._byte_tables.get(table.name, self._encoding))
        with _reading(file) as content:
            head = b""
            while block := content.read(1 << 16):
                head += block
                if b"\n" in shrink(head, inside=False)[0]:
                    break
        mark = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
        text, inside = shrink(head[mark:], inside=False)
        if inside and b"\n" not in text:
            raise _broken(file, 0, "a quoted field is never closed")
        end = mark + nth_row_end(head[mark:], inside=False, nth=1) if b"\n" in text else len(head)
        try:
            rows = list(csv.reader(io.StringIO(head[mark:end].decode(encoding), newline=""), strict=True))
        except UnicodeDecodeError as error:
            raise _not_decodable(file, encoding) from error
        except csv.Error as error:
            raise _broken(file, 0, "its quotes are not closed as they should be") from error
        names = rows[0] if rows else []
        doubled = sorted({name for name in names if names.count(name) > 1})
        if not names or "" in names or doubled:
            fault = f"names the column `{doubled[0]}` twice" if doubled else "lacks the name of a column"
            raise SourceError(
                f"the header line of `{file.name}` {fault}",
                state=UNTOUCHED,
                hint="the first line must name every column, each once",
            )
        return names, end, head.count(b"\n", 0, end)

    def _estimate(self, table: FileTable, file: Path) -> int:
        _, start, _ = self._header(table, file)
        with _reading(file) as content:
            content.seek(start)
            head = content.read(ESTIMATE_BYTES)
        rows = shrink(head, inside=False)[0].count(b"\n") + (0 if head.endswith(b"\n") or not head else 1)
        if len(head) < ESTIMATE_BYTES:
            return rows
        growth = 4 if file.name.lower().endswith(".gz") else 1  # what text is usually packed to
        return rows * growth * file.stat().st_size // len(head)

    def _read_piece(
        self, piece: Piece, names: Sequence[str], columns: Sequence[Column], *, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        schema = schema_of(columns)
        bad_rows: list[pa_csv.InvalidRow] = []

        def refuse(row: pa_csv.InvalidRow) -> str:
            bad_rows.append(row)
            return "error"

        with closing(_PieceReader(piece)) as content:
            try:
                reader = pa_csv.open_csv(
                    pa.PythonFile(content, mode="r"),
                    read_options=pa_csv.ReadOptions(
                        column_names=list(names), use_threads=False, block_size=ROW_BYTES_MAX
                    ),
                    parse_options=pa_csv.ParseOptions(
                        newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=refuse
                    ),
                    convert_options=pa_csv.ConvertOptions(
                        column_types={column.name: column.arrow for column in columns},
                        include_columns=[column.name for column in columns],
                        null_values=[""],
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=True,
                        check_utf8=False,  # done below, so that one such value costs its row and not the file
                    ),
                )
                for batch in reader:
                    for at in range(0, batch.num_rows, batch_rows):
                        yield _checked(as_schema(batch.slice(at, batch_rows), schema))
            except (pa.ArrowException, *_FILE_ERRORS) as error:
                raise _explained(piece, bad_rows, error) from None


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    arrays = [as_utf8(array) if pa.types.is_string(array.type) else array for array in batch.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def _explained(piece: Piece, bad_rows: Sequence[pa_csv.InvalidRow], error: Exception) -> SourceError:
    """Arrow's messages quote the row, so the fault is told anew, with the line looked up."""
    if bad_rows:
        row = bad_rows[0]
        line = _line_of_row(piece, (row.number or 1) - 1)
        return _broken(piece.file, line, f"the row has {row.actual_columns} fields, not {row.expected_columns}")
    if not isinstance(error, pa.ArrowException):
        return _unreadable(piece.file, error)
    return SourceError(
        f"a row of `{piece.file.name}` after line {piece.line + 1} cannot be read ({type(error).__name__})",
        state=_NOT_READ,
        hint=f"a row must not be longer than {ROW_BYTES_MAX >> 20} MB",
    )


def _not_decodable(file: Path, encoding: str) -> SourceError:
    return SourceError(
        f"`{file.name}`, line 1: bytes that are not {encoding.upper()}",
        state=_NOT_READ,
        hint="name the encoding of the files with `source.encoding`, or of the table with `encoding:`",
    )


def _codec(encoding: str) -> str:
    """Python's name of an encoding in which CSV can be told apart byte by byte."""
    try:
        keeps_ascii = 'a,"\r\n'.encode(encoding) == b'a,"\r\n'
        name = codecs.lookup(encoding).name
    except LookupError as error:
        raise SourceError(
            f"the encoding `{encoding}` is not known", state=UNTOUCHED, hint="name one that Python knows"
        ) from error
    if not keeps_ascii:
        raise SourceError(
            f"CSV files in the encoding `{encoding}` cannot be read", state=UNTOUCHED, hint="convert them to UTF-8"
        )
    return name


def _open(file: Path) -> IO[bytes]:
    try:
        if file.name.lower().endswith(".gz"):
            opened: Any = igzip  # its classes carry no types
            return cast("IO[bytes]", opened.IGzipFile(file, "rb"))
        return file.open("rb")
    except OSError as error:
        raise SourceError(
            f"`{file.name}` cannot be opened: {error.strerror}", state=UNTOUCHED, hint="check its permissions"
        ) from error


@contextmanager
def _reading(file: Path) -> Iterator[IO[bytes]]:
    with _open(file) as content:
        try:
            yield content
        except _FILE_ERRORS as error:
            raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> SourceError:
    return SourceError(
        f"`{file.name}` cannot be read to its end ({type(error).__name__})",
        state=_NOT_READ,
        hint="check the disk, or that a packed file is whole",
    )


def _broken(file: Path, line: int, fault: str) -> SourceError:
    return SourceError(
        f"`{file.name}`, line {line + 1}: {fault}",
        state=_NOT_READ,
        hint="mend that line; quote fields that hold commas, quotes or line feeds, and double the quotes in them",
    )


class _PieceReader(io.RawIOBase):
    """The bytes of a piece as a file. Its quotes were checked when it was cut, and the file is the same since."""

    def __init__(self, piece: Piece) -> None:
        self._file = _open(piece.file)
        self._file.seek(piece.first)
        self._left = piece.last - piece.first

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        block = self._file.read(min(size, self._left) if size >= 0 else self._left)
        self._left -= len(block)
        return block

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _count_piece(piece: Piece, width: int) -> int:
    with _reading(piece.file) as content:
        content.seek(piece.first)
        text = content.read(piece.last - piece.first)
    schema = {f"column {at}": pl.String for at in range(width)}
    frame = pl.scan_csv(io.BytesIO(text), has_header=False, schema=schema, encoding="utf8-lossy")
    return int(frame.select(pl.len()).collect().item())


def _blocks(piece: Piece) -> Iterator[bytes]:
    left = piece.last - piece.first
    with _reading(piece.file) as content:
        content.seek(piece.first)
        while left and (block := content.read(min(left, BLOCK_BYTES))):
            left -= len(block)
            yield block


def _line_of_row(piece: Piece, row: int) -> int:
    """The line (from 0, in the file) on which a row (from 0, in the piece) begins."""
    line, inside = piece.line, False
    for block in _blocks(piece):
        shrunk, ends_inside = shrink(block, inside=inside)
        rows = shrunk.count(b"\n")
        if rows >= row:
            return line + (block.count(b"\n", 0, nth_row_end(block, inside=inside, nth=row)) if row else 0)
        row -= rows
        line += block.count(b"\n")
        inside = ends_inside
    return line
