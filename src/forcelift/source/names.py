"""Names of tables and columns: quoting them for SQL, and saying which known one an unknown one resembles."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from forcelift.errors import SourceError
from forcelift.protocols.source import Column, ColumnKind, SourceTable

UNTOUCHED = "nothing was changed in the source"


def quote(name: str) -> str:
    """A name as an SQL identifier, in double quotes. Works for blanks, quotes and letters of any script."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(value: str) -> str:
    """A text as an SQL literal. The caller makes sure that there is no NUL in it."""
    return "'" + value.replace("'", "''") + "'"


def nearest(name: str, known: Iterable[str], *, most: int = 3) -> list[str]:
    """The known names most like `name`, best first; letter case does not count."""
    by_folded: dict[str, list[str]] = {}
    for candidate in known:
        by_folded.setdefault(candidate.casefold(), []).append(candidate)
    close = get_close_matches(name.casefold(), by_folded, n=most, cutoff=0.6)
    return [candidate for folded in close for candidate in by_folded[folded]][:most]


def nearest_hint(name: str, known: Sequence[str], *, noun: str) -> str:
    """A sentence that names the nearest known names, or some of them when none is near."""
    close = nearest(name, known)
    if close:
        return f"did you mean {' or '.join(f'`{candidate}`' for candidate in close)}? Names are compared exactly"
    if not known:
        return f"the source has no {noun}s at all: check `source.url`"
    shown = ", ".join(f"`{candidate}`" for candidate in list(known)[:10])
    return f"known {noun}s: {shown}{', ...' if len(known) > 10 else ''}"


def unknown_table(table: str, known: Sequence[str], *, place: str) -> SourceError:
    """The error for a table that the source lacks."""
    return SourceError(
        f"there is no table `{table}` in {place}", state=UNTOUCHED, hint=nearest_hint(table, known, noun="table")
    )


def require_file(path: Path) -> None:
    """Raise `SourceError` unless there is a readable file. Does not open it, and creates nothing."""
    hint = "check `source.url`: a relative path starts at the plan file's folder"
    if path.is_dir():
        raise SourceError(f"`{path}` is a folder, not a database", state=UNTOUCHED, hint=hint)
    if not path.exists():
        raise SourceError(f"there is no file `{path}`", state="nothing was created", hint=hint)
    if not os.access(path, os.R_OK):
        raise SourceError(f"`{path}` may not be read", state=UNTOUCHED, hint="check the file's permissions")


def pick_columns(table: SourceTable, names: Sequence[str]) -> list[Column]:
    """The columns of those names, in that order.

    Raises:
        SourceError: A name is unknown (with the nearest known ones), or its type cannot be read.
    """
    by_name = {column.name: column for column in table.columns}
    picked: list[Column] = []
    for name in names:
        column = by_name.get(name)
        if column is None:
            raise SourceError(
                f"table `{table.name}` has no column `{name}`",
                state=UNTOUCHED,
                hint=nearest_hint(name, list(by_name), noun="column"),
            )
        if column.kind is ColumnKind.UNSUPPORTED:
            raise SourceError(
                f"column `{name}` of table `{table.name}` is declared {column.declared}, which cannot be read",
                state=UNTOUCHED,
                hint="leave the column out of the plan, or make a view that turns it into text",
            )
        picked.append(column)
    return picked
