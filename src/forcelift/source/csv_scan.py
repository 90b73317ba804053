"""The structure of a CSV file, found at the speed of bytes: where rows end, whether its quotes obey RFC 4180, and
whether each row has its number of fields.

Splitting a block at its quotes leaves every second piece outside of quoted text; joined again they are the block with
each quoted part shrunk to a quote. Rows end at the line feeds of that text, and a fault of quoting is a quote in it
with a wrong neighbour. What is left of that text without all but commas and line feeds must be one pattern, repeated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import IO

from msgspec import Struct

BLOCK_BYTES = 4 << 20
_ALL_BUT_SEPARATORS = bytes(sorted(set(range(256)) - set(b",\n")))

_FAULT_WORDS = {
    b'"': "a quote stands inside a field that is not quoted, or text follows a closing quote",
    b"\r": "a carriage return without a line feed ends a line",
}


class CsvFault(Exception):
    """A broken row. `line` counts from the first byte that the structure was fed, from 0."""

    def __init__(self, message: str, *, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


class CsvStructure(Struct):
    """What has to be remembered between the blocks of one stretch of CSV that begins at a row's first byte."""

    lines: int = 0
    rows: int = 0
    _inside: bool = False
    _before: bytes = b"\n"  # the last byte outside of quotes
    _opened_line: int = 0

    def feed(self, block: bytes) -> bytes:
        """Take the next bytes; gives them back shrunk. Raises `CsvFault` at the first row whose quotes are broken."""
        shrunk, inside = shrink(block, inside=self._inside)
        text = self._before + shrunk
        if _is_broken(text):
            raise self._fault(block)
        if inside and b'"' in block:
            self._opened_line = self.lines + block.count(b"\n", 0, block.rindex(b'"'))
        self.rows += shrunk.count(b"\n")
        self.lines += block.count(b"\n")
        self._inside = inside
        self._before = text[-1:]
        return shrunk

    def finish(self) -> None:
        """End of the bytes. Raises `CsvFault` for a quote that was never closed."""
        if self._inside:
            raise CsvFault("a quoted field is never closed", line=self._opened_line)
        if self._before == b"\r":
            raise CsvFault(_FAULT_WORDS[b"\r"], line=self.lines)

    @property
    def inside(self) -> bool:
        """True if the bytes so far end within a quoted field."""
        return self._inside

    @property
    def ends_open(self) -> bool:
        """True if the last row has no line end yet."""
        return self._before != b"\n"

    def _fault(self, block: bytes) -> CsvFault:
        low, high = 0, len(block)  # a prefix of `low` bytes is sound, one of `high` bytes is not
        while high - low > 1:
            middle = (low + high) // 2
            if _is_broken(self._before + shrink(block[:middle], inside=self._inside)[0]):
                high = middle
            else:
                low = middle
        text = self._before + shrink(block[:high], inside=self._inside)[0]
        word = b"\r" if text[-2:-1] == b"\r" and not text.endswith(b'"') else b'"'
        return CsvFault(_FAULT_WORDS[word], line=self.lines + block.count(b"\n", 0, low))


def _is_broken(text: bytes) -> bool:
    """True if a quote or a carriage return has a wrong neighbour; the first and the last byte have just one to judge.

    Counting pairs of bytes takes about 1 ns a byte, a regular expression 30.
    """
    returns = text.count(b"\r")
    if returns and returns != text.count(b"\r\n") + text.endswith(b"\r"):
        return True
    if b'"' not in text:
        return False
    while b'""' in text:
        text = text.replace(b'""', b'"')
    quotes = text.count(b'"')
    begun = text.count(b',"') + text.count(b'\n"') + text.startswith(b'"')
    ended = text.count(b'",') + text.count(b'"\n') + (text.count(b'"\r') if returns else 0) + text.endswith(b'"')
    return begun != quotes or ended != quotes


def shrink(block: bytes, *, inside: bool) -> tuple[bytes, bool]:
    """The block with each quoted part shrunk to one quote, and whether it ends within a quoted part."""
    if b'"' not in block:
        return (b"", True) if inside else (block, False)
    pieces = block.split(b'"')
    ends_inside = (len(pieces) % 2 == 0) != inside
    outside = b'"'.join(pieces[1::2] if inside else pieces[0::2])
    return (outside + b'"' if ends_inside else outside), ends_inside


def nth_row_end(block: bytes, *, inside: bool, nth: int) -> int:
    """The offset just behind the `nth` (from 1) line feed outside of quotes; the block holds that many."""
    start, size = 0, len(block)
    while size > 1:
        half = size // 2
        shrunk, ends_inside = shrink(block[start : start + half], inside=inside)
        rows = shrunk.count(b"\n")
        if rows >= nth:
            size = half
        else:
            nth -= rows
            inside = ends_inside
            start += half
            size -= half
    return start + 1


class _Ends(Struct, frozen=True, kw_only=True):
    """A block, and how many rows end in it; `line` is that of its first byte."""

    block: bytes
    inside: bool
    rows: int
    line: int

    def line_behind(self, nth: int) -> int:
        """The line on which the row behind the `nth` (from 1) row end of the block begins."""
        return self.line + self.block.count(b"\n", 0, nth_row_end(self.block, inside=self.inside, nth=nth))

    @property
    def line_behind_last(self) -> int:
        return self.line_behind(self.rows) if self.rows else self.line


class _WrongWidth(Struct, frozen=True, kw_only=True):
    """A row (from 0, of those that end in the block) whose number of fields is wrong."""

    row: int
    message: str


class _Widths(Struct, kw_only=True):
    """Counts the fields of all rows by comparing their separators with what they must be, 1 ns a byte."""

    fields: int
    _open: bytes = b""  # separators of the row that has not ended

    def feed(self, shrunk: bytes, *, surplus: int) -> _WrongWidth | None:
        """Take the next shrunk bytes.

        Args:
            surplus: Empty lines that end the bytes so far. They are no rows; more rows behind them are another's fault.
        """
        marks = self._open + shrunk.translate(None, _ALL_BUT_SEPARATORS)
        end = marks.rfind(b"\n") + 1
        self._open = marks[end:]
        whole = marks[: max(0, end - surplus)]
        if whole == self._row * whole.count(b"\n"):
            return None
        widths = [row.count(b",") + 1 for row in whole.split(b"\n")[:-1]]
        row = next(at for at, width in enumerate(widths) if width != self.fields)
        return _WrongWidth(row=row, message=self._sentence(widths[row]))

    def finish(self) -> _WrongWidth | None:
        """End of the bytes, which end with a row and not with a line feed."""
        width = len(self._open) + 1
        return None if width == self.fields else _WrongWidth(row=0, message=self._sentence(width))

    @property
    def _row(self) -> bytes:
        return b"," * (self.fields - 1) + b"\n"

    def _sentence(self, width: int) -> str:
        return f"the row has {width} fields, not {self.fields}"


class Stretch(Struct, frozen=True, kw_only=True):
    """Whole rows of one file: bytes `start` to `end` (not included); `line` is that of the first row, from 0."""

    start: int
    end: int
    line: int
    rows: int


def stretches(file: IO[bytes], *, start: int, line: int, rows: int, fields: int) -> Iterator[Stretch]:
    """Cut the rows from byte `start` to the end of the file into stretches of `rows`, in one pass that checks them all.

    Args:
        file: Positioned at `start`.
        line: Line of the first row, from 0.
        fields: How many each row must have. With one, empty lines at the end of the file are rows.
    Raises:
        CsvFault: Quotes or the number of fields are broken; its line counts from the file's first.
    """
    blanks_are_rows = fields == 1
    structure = CsvStructure(lines=line)
    widths = _Widths(fields=fields)
    begins = _Ends(block=b"", inside=False, rows=0, line=line)  # the last block in which a row ended
    offset = begun = start
    begun_line, begun_rows, cut_rows = line, 0, 0
    cuts: deque[tuple[int, int]] = deque()  # byte and line behind every `rows` rows, not given out yet
    ending = b"\n"  # the line ends that the bytes so far end with
    while block := file.read(BLOCK_BYTES):
        inside, rows_before, lines_before = structure.inside, structure.rows, structure.lines
        shrunk = structure.feed(block)
        if not blanks_are_rows and _has_blank_line((ending + shrunk).rstrip(b"\r\n")):
            raise _blank_line(block, inside=inside, ending=ending, line=lines_before)
        ending = _ending(block, ending) if not structure.inside else b""
        surplus = 0 if blanks_are_rows else max(0, ending.count(b"\n") - 1)
        here = _Ends(block=block, inside=inside, rows=structure.rows - rows_before, line=lines_before)
        if (wrong := widths.feed(shrunk, surplus=surplus)) is not None:
            raise CsvFault(wrong.message, line=here.line_behind(wrong.row) if wrong.row else begins.line_behind_last)
        begins = here if here.rows else begins
        done = 0  # of this block, in bytes
        while structure.rows - cut_rows >= rows:
            step = nth_row_end(block[done:], inside=inside, nth=cut_rows + rows - rows_before)
            lines_before += block.count(b"\n", done, done + step)
            cut_rows += rows
            done, rows_before, inside = done + step, cut_rows, False
            cuts.append((offset + done, lines_before))
        # Only when one more row has ended is the stretch before it certainly not the last one.
        while cuts and structure.rows - surplus - begun_rows > rows:
            end, next_line = cuts.popleft()
            yield Stretch(start=begun, end=end, line=begun_line, rows=rows)
            begun, begun_line, begun_rows = end, next_line, begun_rows + rows
        offset += len(block)
    structure.finish()
    if structure.ends_open and (wrong := widths.finish()) is not None:
        raise CsvFault(wrong.message, line=begins.line_behind_last)
    left = structure.rows - begun_rows + (1 if structure.ends_open else 0)
    surplus = 0 if blanks_are_rows else ending.count(b"\n") - 1
    if surplus > 0:
        offset -= len(ending) - (ending.index(b"\n") + 1)
        left -= surplus
    if left > 0:
        yield Stretch(start=begun, end=offset, line=begun_line, rows=left)


def _ending(block: bytes, before: bytes) -> bytes:
    stripped = block.rstrip(b"\r\n")
    return block[len(stripped) :] if stripped else before + block


def _has_blank_line(text: bytes) -> bool:
    return b"\n\n" in text or b"\n\r\n" in text


def _blank_line(block: bytes, *, inside: bool, ending: bytes, line: int) -> CsvFault:
    low, high = 0, len(block)  # a prefix of `low` bytes has none, one of `high` bytes has one
    while high - low > 1:
        middle = (low + high) // 2
        has_one = _has_blank_line(ending + shrink(block[:middle], inside=inside)[0])
        low, high = (low, middle) if has_one else (middle, high)
    return CsvFault("an empty line stands between the rows", line=line + block.count(b"\n", 0, low))
