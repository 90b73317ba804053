"""How the command line writes: data on stdout, notes on stderr, aligned columns, numbers that read well."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

GAP = "  "


def notes() -> Console:
    """The console for progress, notes and errors: stderr. Texts are never read as markup."""
    return Console(file=sys.stderr, stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def data() -> Console:
    """The console for results: stdout."""
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one document on stdout."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


def table_lines(headers: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> list[Text]:
    """Lines of a table: the header in bold, columns aligned, nothing cut off.

    Args:
        headers: One word per column.
        rows: Cells as texts.
        left: Columns that are aligned at their left; all others are numbers.
    """
    widths = [max(cell_len(cell) for cell in column) for column in zip(headers, *rows, strict=True)]
    lines = [Text(_line(headers, widths, left), style="bold")]
    return lines + [Text(_line(row, widths, left)) for row in rows]


def _line(cells: Sequence[str], widths: Sequence[int], left: Sequence[int]) -> str:
    placed = []
    for number, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        blanks = " " * (width - cell_len(cell))
        placed.append(cell + blanks if number in left else blanks + cell)
    return GAP.join(placed).rstrip()


def count(number: int | None) -> str:
    """A count with thousands separated; a dash for none."""
    return "-" if number is None else f"{number:,}"


def plural(number: int, word: str, words: str | None = None) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number:,} {word if number == 1 else words or word + 's'}"


def duration(seconds: float) -> str:
    """A length of time in the two units that matter: `8 s`, `3 min 20 s`, `46 h 23 min`."""
    whole = round(seconds)
    if whole < 1:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(number: int) -> str:
    """Bytes in the unit that matters, of powers of ten."""
    amount = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
