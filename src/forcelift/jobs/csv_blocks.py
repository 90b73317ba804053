"""CSV that comes in pieces, as whole rows: so that a result file is read as it arrives and never lies anywhere.

A line ends at a line feed outside quotes, that is after an even number of quotes, as a quote inside a value is doubled
(RFC 4180, which Salesforce's result files keep to). Quotes are counted by Arrow, a block at a time.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

BLOCK_BYTES: Final = 2_000_000
"""Fits the cache of a core, and beginning to read a block of this size costs nothing against reading it."""

_QUOTE: Final = pa.scalar(ord('"'), pa.uint8())


def whole_rows(pieces: Iterable[bytes], *, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Blocks of whole rows, each below the file's header; a block without rows is the header alone.

    Nothing is given for no bytes at all. A last row without a line end is given as it is.
    """
    held = bytearray()
    header = 0  # its length, line end included
    for piece in pieces:
        held += piece
        if len(held) < block_bytes:
            continue
        header = header or _first_row(held)
        end = _last_row_end(held) if header else 0
        if end > header:
            yield bytes(memoryview(held)[:end])
            del held[header:end]
    header = header or _first_row(held)
    if len(held) > header or (header and len(held) == header):
        yield bytes(held)


def header_of(block: bytes) -> list[str]:
    """The names of a block's columns."""
    return next(csv.reader(io.StringIO(block[: _first_row(block) or None].decode("utf-8-sig"), newline="")), [])


def _first_row(held: bytes | bytearray) -> int:
    """The length of the first row with its line end; 0 if it is not all there."""
    end = -1
    while (end := held.find(b"\n", end + 1)) >= 0:
        if held.count(b'"', 0, end) % 2 == 0:
            return end + 1
    return 0


def _last_row_end(held: bytearray) -> int:
    """Where the last whole row ends; 0 if there is none."""
    view = pa.Array.from_buffers(pa.uint8(), len(held), [None, pa.py_buffer(held)])
    quotes = pc.equal(view, _QUOTE).true_count
    del view  # or the bytes could not be moved
    end = len(held)
    while (line_end := held.rfind(b"\n", 0, end)) >= 0:
        quotes -= held.count(b'"', line_end, end)
        if quotes % 2 == 0:
            return line_end + 1
        end = line_end
    return 0
