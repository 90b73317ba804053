"""A table made of files: which files it has, and how a slice names pieces of them so that a change is noticed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from msgspec import Struct

from forcelift.errors import SourceChanged, SourceError
from forcelift.protocols.source import ChunkPredicate, Column, Predicate
from forcelift.source.names import UNTOUCHED

CSV_ENDINGS = (".csv", ".csv.gz")
PARQUET_ENDINGS = (".parquet",)


class FileTable(Struct, frozen=True, kw_only=True):
    """A table: its name, its format and its files, sorted by name."""

    name: str
    format: str  # csv or parquet
    files: tuple[Path, ...]


class Piece(Struct, frozen=True, kw_only=True):
    """Part of one file. `first` and `last` are bytes (CSV) or rows (Parquet), `last` not included; `line` is from 0."""

    file: Path
    first: int
    last: int
    rows: int
    line: int = 0


class FileFormat(Protocol):
    """What is particular to a format."""

    def columns(self, table: FileTable) -> tuple[Column, ...]: ...

    def rows_estimate(self, table: FileTable) -> int | None: ...

    def pieces(self, table: FileTable, *, rows: int) -> Iterator[Piece]:
        """All rows of all files, in order, cut into pieces of at most `rows`."""
        ...

    def read(
        self, table: FileTable, columns: Sequence[Column], pieces: Sequence[Piece] | None, *, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """The rows of the pieces (None: of all files), with these columns."""
        ...

    def count(
        self, table: FileTable, *, where: str | None, pieces: Sequence[Piece] | None, among: pa.Array | None = None
    ) -> int:
        """Rows within `where`, counted by another reader than `read` uses; of `among` those that are there."""
        ...


def find_tables(folder: Path) -> dict[str, FileTable]:
    """The tables of a folder: its files, and its sub-folders that hold files of one format.

    Raises:
        SourceError: The folder is missing or unreadable, a name is taken twice, or a sub-folder mixes formats.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith((".", "_")))
    except OSError as error:
        raise SourceError(
            f"the folder `{folder}` cannot be read: {error.strerror}",
            state=UNTOUCHED,
            hint="check `source.url`: a relative path starts at the plan file's folder",
        ) from error
    tables: dict[str, FileTable] = {}
    for entry in entries:
        found = _of_folder(entry) if entry.is_dir() else _of_file(entry)
        if found is None:
            continue
        if found.name in tables:
            raise SourceError(
                f"two tables in `{folder}` have the name `{found.name}`: "
                f"`{tables[found.name].files[0].name}` and `{found.files[0].name}`",
                state=UNTOUCHED,
                hint="rename one, or put both into one sub-folder of that name",
            )
        tables[found.name] = found
    return tables


def _of_file(path: Path) -> FileTable | None:
    for form, endings in (("csv", CSV_ENDINGS), ("parquet", PARQUET_ENDINGS)):
        for ending in endings:
            if path.name.lower().endswith(ending) and len(path.name) > len(ending):
                return FileTable(name=path.name[: -len(ending)], format=form, files=(path,))
    return None


def _of_folder(path: Path) -> FileTable | None:
    parts = [
        part
        for entry in sorted(path.iterdir())
        if entry.is_file() and not entry.name.startswith((".", "_")) and (part := _of_file(entry))
    ]
    if not parts:
        return None
    if len({part.format for part in parts}) > 1:
        raise SourceError(
            f"the folder `{path}` mixes CSV and Parquet files", state=UNTOUCHED, hint="keep one format in a folder"
        )
    return FileTable(name=path.name, format=parts[0].format, files=tuple(part.files[0] for part in parts))


def pack(table: FileTable, pieces: Iterator[Piece], *, rows: int) -> list[ChunkPredicate]:
    """Join small pieces to slices of at most `rows`; a table without rows gives one empty slice."""
    chunks: list[ChunkPredicate] = []
    held: list[Piece] = []
    held_rows = 0
    for piece in pieces:
        if held and held_rows + piece.rows > rows:
            chunks.append(_slice(held, held_rows))
            held, held_rows = [], 0
        held.append(piece)
        held_rows += piece.rows
    if held or not chunks:
        chunks.append(_slice(held, held_rows))
    return chunks


def _slice(pieces: Sequence[Piece], rows: int) -> ChunkPredicate:
    return ChunkPredicate(
        predicate={
            "by": "pieces",
            "pieces": [
                {
                    "file": piece.file.name,
                    "first": piece.first,
                    "last": piece.last,
                    "rows": piece.rows,
                    "line": piece.line,
                    "state": file_state(piece.file),
                }
                for piece in pieces
            ],
        },
        rows_estimate=rows,
    )


def pieces_of(table: FileTable, predicate: Predicate | None) -> list[Piece] | None:
    """The pieces that a slice names; None for the whole table.

    Raises:
        SourceChanged: A file has changed or gone since the slice was cut, so its offsets mean nothing any more.
        SourceError: The predicate is none of this adapter.
    """
    if predicate is None:
        return None
    files = {file.name: file for file in table.files}
    try:
        listed: list[dict[str, Any]] = predicate["pieces"]
        for entry in listed:
            file = files.get(entry["file"])
            if file is None or file_state(file) != entry["state"]:
                raise SourceChanged(
                    f"`{entry['file']}` of table `{table.name}` has changed since the batch was planned",
                    state="the chunk was not read; nothing of it was sent",
                    hint="put the earlier file back (with its time of change), or begin a new batch",
                )
        return [
            Piece(
                file=files[entry["file"]],
                first=int(entry["first"]),
                last=int(entry["last"]),
                rows=int(entry["rows"]),
                line=int(entry["line"]),
            )
            for entry in listed
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            "a stored chunk cannot be read as pieces of files",
            state="nothing was read for this chunk",
            hint="the batch was planned on another kind of source: begin a new batch",
        ) from error


def file_state(file: Path) -> str:
    """Size and time of change, as one text."""
    try:
        state = file.stat()
    except OSError as error:
        raise SourceError(
            f"`{file}` cannot be read: {error.strerror}", state=UNTOUCHED, hint="check the path and its permissions"
        ) from error
    return f"{state.st_size}:{state.st_mtime_ns}"
