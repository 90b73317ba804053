"""Read an upload's CSV, or say as the org does why it cannot be read.

The file is checked only here, after the job was closed: the PUT stores bytes without looking at them.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Final

import polars as pl

from forcelift.twin.cells import Traits
from forcelift.twin.errors import CsvRefused

DELIMITERS: Final = {"COMMA": ",", "BACKQUOTE": "`", "CARET": "^", "PIPE": "|", "SEMICOLON": ";", "TAB": "\t"}
LINE_ENDINGS: Final = {"LF": b"\n", "CRLF": b"\r\n"}
HEADER_LENGTH_MAX: Final = 32_000
_QUOTE_PIECE_BYTES: Final = 1_000_000
_BOM: Final = b"\xef\xbb\xbf"
_UNESCAPED_QUOTE: Final = "InvalidBatch : Failed to parse CSV. Found unescaped quote"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A parsed upload: the header as sent, its names, and all cells as text in columns `c0`, `c1`, ..."""

    header_line: str
    names: tuple[str, ...]
    cells: pl.DataFrame
    traits: Traits

    @property
    def row_count(self) -> int:
        return self.cells.height


def parse_upload(content: bytes, *, delimiter: str, line_ending: str) -> Upload:
    """Parse a whole upload.

    Args:
        content: The bytes of the PUT, UTF-8.
        delimiter: The job's `columnDelimiter`.
        line_ending: The job's `lineEnding`.
    Raises:
        CsvRefused: With the job's errorMessage.
    """
    _check_line_endings(content, line_ending)
    if line_ending == "CRLF":
        # Line ends inside values are folded with those of rows: the platform stores LF.
        content = content.replace(b"\r\n", b"\n")
    separator = DELIMITERS[delimiter]
    _check_quotes(content, separator)
    end = content.find(b"\n")
    head = content if end < 0 else content[:end]
    has_body = 0 <= end < len(content) - 1
    if len(head) > HEADER_LENGTH_MAX:
        raise CsvRefused(f"InvalidBatch : Header is longer than {HEADER_LENGTH_MAX} characters")
    header_line = _decoded(head)
    if "\r" in header_line:
        raise _wrong_line_ending(line_ending)
    names = tuple(next(csv.reader(io.StringIO(header_line), delimiter=separator), [""] if has_body else []))
    return Upload(
        header_line=header_line,
        names=names,
        cells=_cells(content if has_body else b"", separator, max(len(names), 1)),
        traits=Traits(carriage_returns=b"\r" in content, supplementary=_has_supplementary(content)),
    )


def _has_supplementary(content: bytes) -> bool:
    """True if some character lies beyond U+FFFF: in UTF-8 those, and only those, begin with one of these bytes."""
    return any(lead in content for lead in (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4"))


def _check_line_endings(content: bytes, line_ending: str) -> None:
    # Inside quotes the other kind of line end is refused too, as users of the real API report.
    if (
        b"\r" in content and b"\r\n" in content
        if line_ending == "LF"
        else content.count(b"\r\n") != content.count(b"\n")
    ):
        raise _wrong_line_ending(line_ending)


def _wrong_line_ending(line_ending: str) -> CsvRefused:
    return CsvRefused(
        f"ClientInputError : LineEnding is invalid on user data. Current LineEnding setting is {line_ending}"
    )


def _check_quotes(content: bytes, separator: str) -> None:
    """Refuse stray quotes. Between quotes, texts are by turns outside and inside of values.

    Outside ones must begin and end at a delimiter or line end; an empty one is a doubled quote.
    """
    if content.startswith(_BOM + b'"'):
        raise CsvRefused(_UNESCAPED_QUOTE)
    position, skip = content.find(b'"'), 1
    if position < 0:
        return
    if position > 0 and content[position - 1 : position] not in (separator.encode(), b"\n"):
        raise CsvRefused(_UNESCAPED_QUOTE)
    # Piece by piece, each from behind one quote up to another, so that the texts of a piece are by turns in and out.
    while position >= 0:
        following = content.find(b'"', position + _QUOTE_PIECE_BYTES)
        piece = content[position + 1 : following] if following >= 0 else content[position + 1 :]
        texts = pl.Series([_decoded(piece)]).str.split('"').explode(empty_as_null=False)
        outside = texts.gather_every(2, offset=skip)
        empty = outside == ""
        if following < 0 and texts.len() % 2 == skip:
            raise CsvRefused(_UNESCAPED_QUOTE)
        begun = empty | outside.str.starts_with(separator) | outside.str.starts_with("\n")
        ended = empty | outside.str.ends_with(separator) | outside.str.ends_with("\n")
        # Behind the last quote of the file nothing has to end.
        checked = outside.len() - 1 if following < 0 else outside.len()
        if not (begun.all() and ended.head(checked).all()):
            raise CsvRefused(_UNESCAPED_QUOTE)
        skip = (skip + texts.len()) % 2
        position = following


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CsvRefused("ClientInputError : Upload is not encoded in UTF-8") from error


def _cells(content: bytes, separator: str, width: int) -> pl.DataFrame:
    names = [f"c{index}" for index in range(width)]
    if not content:
        return pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    try:
        return pl.read_csv(
            content,
            has_header=False,
            skip_lines=1,
            schema=dict.fromkeys(names, pl.String),
            separator=separator,
            quote_char='"',
            eol_char="\n",
            missing_columns="insert",
            extra_columns="raise",
            truncate_ragged_lines=False,
        ).with_columns(pl.all().fill_null(""))
    except (pl.exceptions.ComputeError, pl.exceptions.SchemaError) as error:
        if "utf" in str(error).lower():
            raise CsvRefused("ClientInputError : Upload is not encoded in UTF-8") from error
        raise CsvRefused("InvalidBatch : Failed to parse CSV. A row has more values than the header") from error
