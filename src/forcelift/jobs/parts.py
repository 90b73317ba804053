"""Upload files: CSV as Bulk API 2.0 takes it, cut at a size, sealed one by one."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import TracebackType
from typing import Self

import polars as pl

from forcelift.audit.records import Part
from forcelift.storage import SealedWriter, Storage

PART_BYTES_MAX = 100_000_000
"""Bulk API 2.0 takes 150 MB after base64 and asks for at most 100 MB before it (developer guide, "Upload Job Data")."""

PIECE_ROWS = 5_000
"""So many rows become text at once: a larger text costs twice the CPU, as its memory is new each time."""


class PartWriter:
    """Writes frames of text columns into files of at most `bytes_max`, header in each, rows never split.

    Args:
        storage: Where the files are sealed.
        name: Gives the name of the nth file, from 0.
        null_text: What a null cell holds.
        rows_max: Rows in one file, at most; None is as many as fit.
    """

    def __init__(
        self,
        storage: Storage,
        name: Callable[[int], str],
        *,
        null_text: str,
        bytes_max: int = PART_BYTES_MAX,
        rows_max: int | None = None,
    ) -> None:
        self._storage, self._name, self._null_text, self._bytes_max = storage, name, null_text, bytes_max
        self._writer: SealedWriter | None = None
        self._rows_max = rows_max
        self._rows = self._bytes = 0
        self._parts: list[Part] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)
            self._writer = None

    @property
    def number(self) -> int:
        """The number of the file that is being written."""
        return len(self._parts)

    def write(self, frame: pl.DataFrame) -> None:
        """Append the rows of a frame; columns must be the same in each call."""
        for start in range(0, frame.height, PIECE_ROWS):
            self._append(frame[start : start + PIECE_ROWS])

    def _append(self, frame: pl.DataFrame) -> None:
        if self._rows_max is not None and self._rows + frame.height > self._rows_max:
            room = self._rows_max - self._rows
            self._append(frame[:room])
            self._seal()
            self._append(frame[room:])
            return
        if frame.height == 0:
            return
        header = self._writer is None
        buffer = io.BytesIO()
        frame.write_csv(buffer, include_header=header, null_value=self._null_text)
        body = buffer.getbuffer()
        if self._bytes + len(body) > self._bytes_max and (frame.height > 1 or self._rows):
            if self._rows:
                self._seal()
                self._append(frame)
            else:
                half = frame.height // 2
                self._append(frame[:half])
                self._append(frame[half:])
            return
        if self._writer is None:
            self._writer = self._storage.write(self._name(len(self._parts)))
            self._writer.__enter__()
        self._writer.write(body)
        self._rows += frame.height
        self._bytes += len(body)

    def finish(self) -> tuple[Part, ...]:
        """Seal the last file; all files written."""
        if self._writer is not None:
            self._seal()
        return tuple(self._parts)

    def _seal(self) -> None:
        assert self._writer is not None
        sealed = self._writer.commit()
        self._writer.__exit__(None, None, None)
        self._writer = None
        self._parts.append(Part(file=sealed.name, rows=self._rows, bytes=sealed.size, sha256=sealed.sha256))
        self._rows = self._bytes = 0


def read_part(storage: Storage, part: Part) -> pl.LazyFrame:
    """The rows of an upload file as text columns, null where the cell is `#N/A` or empty."""
    return pl.scan_csv(storage.path(part.file), infer_schema=False, null_values=["#N/A", ""], glob=False)
