"""Where rows of findings go: counted, a few kept as examples, and all written out if that is asked.

Writes: with a folder, one CSV file for each finding, and one for the rejected rows of each table. They are
written for people (`people_csv`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import polars as pl
from msgspec import Struct, field

from forcelift.before.profile.records import EXAMPLES_MAX, MASK, Action, Example, finding_name
from forcelift.people_csv import append_frame

_VALUE_SHOWN: Final = 120


class Found(Struct):
    """The rows of one finding so far."""

    rows: int = 0
    decides: int = 0
    examples: list[Example] = field(default_factory=list)
    facts: tuple[tuple[str, int | str], ...] = ()


class FindingSink:
    """Collects the findings of one table.

    Args:
        folder: Where all keys are written; None if only a few are to be kept.
        personal: Columns whose values are masked.
    """

    def __init__(self, table: str, *, personal: frozenset[str], folder: Path | None) -> None:
        self.found: dict[tuple[str, str, Action], Found] = {}
        self._table, self._personal, self._folder = table, personal, folder
        self._begun: set[str] = set()

    def add(self, kind: str, column: str, action: Action, keys: pl.Series, values: pl.Series | None) -> None:
        """Note rows of a finding.

        Args:
            column: The source column; several are joined by commas.
            keys: Of each row the canonical key, null for none.
            values: Of each row what the column holds, as text; None if no single column is meant.
        """
        if not keys.len():
            return
        found = self.found.setdefault((kind, column, action), Found())
        found.rows += keys.len()
        shown = self._shown(column, values, keys.len())
        for place in range(min(keys.len(), EXAMPLES_MAX - len(found.examples))):
            found.examples.append(Example(key=keys[place], value=shown[place]))
        if self._folder is not None:
            frame = pl.DataFrame({"key": keys.alias("key"), "value": shown})
            self._write(finding_name(self._table, column, kind, action), frame)

    def note(self, kind: str, column: str, found: Found) -> None:
        """Note a finding on a column as a whole."""
        self.found[kind, column, Action.TOLD] = found

    def refused(self, word: str, rows: pl.DataFrame) -> None:
        """Note rows that would be `rejected`, or `failed` by the link pass.

        Args:
            rows: Columns `key`, `code` (the one that decides) and `details` (all reasons).
        """
        if self._folder is not None and rows.height:
            self._write(f"{self._table}.{word}", rows.select("key", "code", reasons="details"))

    def _shown(self, column: str, values: pl.Series | None, rows: int) -> pl.Series:
        if values is None:
            return pl.repeat(None, rows, dtype=pl.String, eager=True).alias("value")
        if self._personal.intersection(column.split(",")):
            return values.to_frame("v").select(pl.when(pl.col("v").is_not_null()).then(pl.lit(MASK)).alias("value"))[
                "value"
            ]
        return values.cast(pl.String).str.slice(0, _VALUE_SHOWN).alias("value")

    def _write(self, name: str, frame: pl.DataFrame) -> None:
        assert self._folder is not None
        # The file is opened anew for each batch: a profile may have more findings than a process may have files open.
        is_new = name not in self._begun
        self._begun.add(name)
        append_frame(self._folder / f"{file_name(name)}.csv", frame, is_new=is_new)


def file_name(name: str) -> str:
    """A name of a table and column as a name of a file."""
    return re.sub(r"[^\w.,-]+", "_", name)
