"""CSV files for people: written so that no spreadsheet computes a cell, and read back as they were.

Writes: UTF-8 with the mark by which spreadsheets know it. A cell that one might take for a formula gets an apostrophe
        in front; so does one that begins with apostrophes and then such a sign, so that reading takes off one
        apostrophe and never one that was there before.
Reads:  what was written so, also after a spreadsheet saved it with another separator.

Source: OWASP, "CSV Injection": `=`, `+`, `-`, `@`, tab, carriage return, line feed, and the signs' full-width forms.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from forcelift.errors import StorageError, UsageError

ENCODING: Final = "utf-8-sig"

# Blanks before a sign are included, since some programs take them off before they look.
_FORMULA: Final = "(?:[\t\r\n]|[ \u00a0]*[=+\\-@\uff1d\uff0b\uff0d\uff20])"
_IS_FORMULA: Final = f"^'*{_FORMULA}"
_IS_NEUTRAL: Final = f"^'+{_FORMULA}"
_IS_FORMULA_RE: Final = re.compile(_IS_FORMULA)
_IS_NEUTRAL_RE: Final = re.compile(_IS_NEUTRAL)
_SEPARATORS: Final = (",", ";", "\t")
_CELL_CHARACTERS_MAX: Final = 2**31 - 1
_NOTHING: Final = "nothing was changed by this file"


def neutral(cell: str) -> str:
    """A cell as it is written: with an apostrophe in front if a spreadsheet might compute it."""
    return f"'{cell}" if _IS_FORMULA_RE.match(cell) else cell


def original(cell: str) -> str:
    """A cell as it was before `neutral`."""
    return cell[1:] if _IS_NEUTRAL_RE.match(cell) else cell


def neutral_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """All texts of a frame as `neutral` writes them; other columns as they are."""
    return frame.with_columns(
        pl.when(pl.col(name).str.contains(_IS_FORMULA))
        .then(pl.concat_str(pl.lit("'"), name))
        .otherwise(name)
        .alias(name)
        for name, dtype in frame.schema.items()
        if dtype == pl.String
    )


def original_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """All texts of a frame as they were before `neutral_frame`."""
    return frame.with_columns(
        pl.when(pl.col(name).str.contains(_IS_NEUTRAL)).then(pl.col(name).str.slice(1)).otherwise(name).alias(name)
        for name, dtype in frame.schema.items()
        if dtype == pl.String
    )


def append_frame(path: Path, frame: pl.DataFrame, *, is_new: bool) -> None:
    """Write the rows of a frame behind those that the file has.

    Args:
        is_new: Begin the file: with the mark, and the column names in the first line.
    """
    with path.open("w" if is_new else "a", encoding=ENCODING if is_new else "utf-8", newline="") as file:
        if is_new:
            csv.writer(file, lineterminator="\n").writerow([neutral(name) for name in frame.columns])
        file.write(neutral_frame(frame).write_csv(include_header=False))


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    """Write a file, whole or not at all, and give the number of its rows. Rows are taken one by one; None is empty.

    Raises:
        StorageError: It cannot be written; what stood there before still does.
    """
    new = path.with_name(f".{path.name}.new")
    count = 0
    try:
        with new.open("w", encoding=ENCODING, newline="") as file:
            writer = csv.writer(file)
            writer.writerow([neutral(column) for column in columns])
            for row in rows:
                writer.writerow([neutral(str(cell)) if cell is not None else "" for cell in row])
                count += 1
        new.replace(path)
    except OSError as error:
        raise StorageError(f"`{path}` cannot be written: {error.strerror}", state="no rows were written") from error
    finally:
        new.unlink(missing_ok=True)
    return count


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Read a file that people may have changed: of each line the cells of these columns, as they were before writing.

    Other columns are passed over. Lines without any cell are too, since spreadsheets leave such behind.

    Raises:
        UsageError: It cannot be read, is not UTF-8, lacks a column, or has a line with more or fewer cells.
    """
    try:
        file = path.open(encoding=ENCODING, newline="")
    except OSError as error:
        raise UsageError(f"`{path}` cannot be read: {error.strerror}", state=_NOTHING) from error
    with file:
        try:
            first = file.readline()
            separator = _separator(path, first, columns)
            file.seek(0)
            csv.field_size_limit(_CELL_CHARACTERS_MAX)
            reader = csv.reader(file, delimiter=separator, strict=True)
            names = [original(name.strip()) for name in next(reader)]
            places = [names.index(column) for column in columns]
            for cells in reader:
                if not any(cells):
                    continue
                if len(cells) != len(names):
                    raise UsageError(
                        f"line {reader.line_num} of `{path}` has {len(cells)} cells, its first line {len(names)}",
                        state=_NOTHING,
                        hint="mend that line; a cell with separators, quotes or line breaks stands in double quotes",
                    )
                yield {column: original(cells[place]) for column, place in zip(columns, places, strict=True)}
        except UnicodeDecodeError as error:
            raise UsageError(
                f"`{path}` is not UTF-8 (byte {error.start} of a block)",
                state=_NOTHING,
                hint="save it as `CSV UTF-8`; a spreadsheet's plain `CSV` loses Thai letters",
            ) from error
        except csv.Error as error:
            raise UsageError(f"`{path}` is not a CSV file: {error}", state=_NOTHING) from error


def _separator(path: Path, first: str, columns: Sequence[str]) -> str:
    """The separator under which the first line has all columns."""
    found: list[str] = []
    for separator in _SEPARATORS:
        names = next(csv.reader(io.StringIO(first, newline=""), delimiter=separator), [])
        names = [original(name.strip()) for name in names]
        if all(names.count(column) == 1 for column in columns):
            return separator
        found = max(found, names, key=len)
    missing = [column for column in columns if found.count(column) != 1]
    raise UsageError(
        f"the first line of `{path}` must name the column `{missing[0]}` exactly once",
        state=_NOTHING,
        hint=f"its columns are: {', '.join(f'`{column}`' for column in columns)}",
    )
