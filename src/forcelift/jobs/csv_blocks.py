"""CSV that comes in pieces, as whole rows: so that a result file is read as it arrives and never lies anywhere.

A line ends at a line feed outside quotes, that is after an even number of quotes, as a quote inside a value is doubled
(RFC 4180, which Salesforce's result files keep to). Where the last row begins most often shows at its first character;
if not, quotes are counted by polars, a block at a time.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Final

import pyarrow as pa

from forcelift.rules import series_of

BLOCK_BYTES: Final = 3_500_000
"""Fits the cache of a core, and beginning to read a block of this size costs little against reading it.

With its last piece it stays below the size from which `allocators` has memory mapped anew: of blocks a little larger,
each page was a page fault, and those were a tenth of a load's CPU time.
"""

_LINE_QUOTE: Final = b'\n"'
_AFTER_A_QUOTE: Final = b'",\r\n'
_TRIES: Final = 16  # rows of which the first value is empty tell nothing; then the quotes are counted


def whole_rows(pieces: Iterable[bytes], *, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Blocks of whole rows, each below the file's header; a block without rows is the header alone.

    Nothing is given for no bytes at all. A last row without a line end is given as it is.
    """
    header = b""
    waiting: list[bytes] = []  # what came since the last block, the header left out; joined once, into the block
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size < block_bytes:
            continue
        if not header:
            begun = b"".join(waiting)
            header = begun[: _first_row(begun)]
            waiting = [begun[len(header) :]]
        begin = _row_begin(waiting[-1]) if header else 0
        if begin:
            yield b"".join([header, *waiting[:-1], waiting[-1][:begin]])
            waiting = [waiting[-1][begin:]]
            size = len(waiting[0])
            continue
        # Nearly always the last line end is the end of a row, so that little is copied behind it.
        end = waiting[-1].rfind(b"\n") + 1 if header else 0
        block = b"".join([header, *waiting[:-1], waiting[-1][:end]])
        rest = waiting[-1][end:]
        cut = _last_row_end(block) if header else 0
        waiting = [block[max(cut, len(header)) :], rest]
        size = len(waiting[0]) + len(rest)
        if cut > len(header):
            yield block[:cut]  # the block itself, not a copy, if it is whole
    last = b"".join([header, *waiting])
    if last:
        yield last


def header_of(block: bytes) -> list[str]:
    """The names of a block's columns."""
    return next(csv.reader(io.StringIO(block[: _first_row(block) or None].decode("utf-8-sig"), newline="")), [])


def _first_row(held: bytes) -> int:
    """The length of the first row with its line end; 0 if it is not all there."""
    end = -1
    while (end := held.find(b"\n", end + 1)) >= 0:
        if held.count(b'"', 0, end) % 2 == 0:
            return end + 1
    return 0


def _row_begin(piece: bytes) -> int:
    """Where the last row begins that can be told from this piece alone; 0 if there is none.

    A quote that begins a line begins a row, unless a quote, a comma or a line end follows it: inside of quotes it would
    either close the value or be the first of two, so that one of these would follow.
    """
    found = len(piece)
    for _ in range(_TRIES):
        found = piece.rfind(_LINE_QUOTE, 0, found)
        if found < 0:
            break
        if piece[found + 2 : found + 3].strip(_AFTER_A_QUOTE):
            return found + 1
        found += 1
    return 0


def _last_row_end(held: bytes) -> int:
    """Where the last whole row ends; 0 if there is none."""
    end = len(held)
    line_end = held.rfind(b"\n", 0, end)
    quotes = _quotes(held) if line_end >= 0 else 0
    while line_end >= 0:
        quotes -= held.count(b'"', line_end, end)
        if quotes % 2 == 0:
            return line_end + 1
        end = line_end
        line_end = held.rfind(b"\n", 0, end)
    return 0


def _quotes(held: bytes) -> int:
    """How many quotes: by columns a fourth of what `bytes.count` needs where each value has two."""
    octets = pa.Array.from_buffers(pa.uint8(), len(held), [None, pa.py_buffer(held)])
    return int((series_of(octets) == ord('"')).sum())
