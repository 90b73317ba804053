"""Refused rows out to a CSV file that a person corrects, and the corrected values back in.

Reads:   the audit database; on import the file.
Writes:  the file; on import the corrected values, which the next retry takes in place of the source's.
Re-run:  a file that is imported again gives the same values.

A cell counts as corrected if it differs from what was written there; masked cells and untouched ones are the source's.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, to_builtins

from forcelift.account.recorded import find_batch, open_recorded, owner
from forcelift.account.retention import refuse_purged
from forcelift.account.state import State
from forcelift.audit.failed_marks import FailedFilter
from forcelift.audit.records import Batch
from forcelift.errors import StateConflict, UsageError
from forcelift.people_csv import original, read_rows, write_rows
from forcelift.plan import LoadedPlan

MASK: Final = "***"
_KEY, _CODE, _MESSAGE, _FIELDS = "key", "refused as", "message", "refused fields"
_BESIDE: Final = (_KEY, _CODE, _MESSAGE, _FIELDS)
_SHOWN = 5


class Exported(Struct, frozen=True, kw_only=True):
    """A file that was written: open refused rows of one table. `masked` columns hold no values."""

    batch_id: str
    table: str
    file: str
    rows: int
    columns: tuple[str, ...]
    masked: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The JSON document of `--json`."""
        document: dict[str, Any] = to_builtins(self)
        return document


class Imported(Struct, frozen=True, kw_only=True):
    """Corrected values that were taken over: `cells` of `corrected` rows, of the `rows` in the file."""

    batch_id: str
    table: str
    rows: int
    corrected: int
    cells: int
    columns: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The JSON document of `--json`."""
        document: dict[str, Any] = to_builtins(self)
        return document


def export_failed(
    plan_file: str | Path, batch_id: str | None, *, table: str | None, codes: tuple[str, ...], out: Path
) -> Exported:
    """Write the open refused rows of one table as they were refused: key, code, message, and their columns.

    Args:
        table: The table; may be left out where only one has open rows.
        out: The file, which must not be there.
    Raises:
        UsageError: Several tables have open rows and none is named, or the file is there.
        StateConflict: The plan keeps no data of refused rows, or they were purged.
    """
    if out.exists():
        raise UsageError(f"`{out}` is there already", state="nothing was written", hint="name another file")
    with open_recorded(plan_file) as (loaded, state):
        batch = find_batch(loaded, state, batch_id)
        refuse_purged(state, batch)
        name = _table(loaded, state, batch, table)
        columns: dict[str, None] = {}
        masked: dict[str, bool] = {}
        rows = 0
        for _, _, _, _, data in state.audit.open_failed_rows(batch.batch_id, name, codes):
            rows += 1
            for column, text in _cells(data).items():
                columns.setdefault(column)
                masked[column] = masked.get(column, False) or text == MASK
        if rows and not columns:
            raise StateConflict(
                "no values of refused rows are kept (`retention.record_data: none`)",
                state="nothing was written",
                hint="correct the rows in the source, then `forcelift failed retry`",
            )
        plan = loaded.plan.table(name)
        ordered = list(dict.fromkeys([*(one for one in (*plan.key, *plan.fields) if one in columns), *columns]))
        written = write_rows(out, [*_BESIDE, *ordered], _lines(state, batch, name, codes, ordered))
        out.chmod(0o600)
        payload = {"table": name, "rows": written, "by": owner()}
        state.audit.journal("failed_exported", payload, batch_id=batch.batch_id)
        return Exported(
            batch_id=batch.batch_id,
            table=name,
            file=str(out),
            rows=written,
            columns=tuple(ordered),
            masked=tuple(column for column in ordered if masked.get(column)),
        )


def import_failed(plan_file: str | Path, batch_id: str | None, file: Path, *, table: str | None) -> Imported:
    """Take corrected values over from a file that `export_failed` wrote and a person changed.

    Raises:
        UsageError: The file names rows that are not refused and open, or a row twice; or it changes a key, or a column
            that the plan does not read. Then nothing is taken over.
        StateConflict: A process works on the batch, a retry of it is not through, or its personal data were purged.
    """
    with open_recorded(plan_file) as (loaded, state):
        batch = find_batch(loaded, state, batch_id)
        refuse_purged(state, batch)
        if state.audit.runners(batch.batch_id) or state.audit.open_retry(batch.batch_id) is not None:
            raise StateConflict(
                f"batch `{batch.batch_id}` is being worked on, or a retry of it is not through",
                state="nothing was changed",
                hint=f"wait for its end; a retry is gone on with by `forcelift failed retry --batch {batch.batch_id}`",
            )
        name = _table(loaded, state, batch, table)
        plan = loaded.plan.table(name)
        named = [column for column in _header(file) if column not in _BESIDE]
        if unknown := [column for column in named if column not in plan.fields and column not in plan.key]:
            # What the plan itself makes of a row stands in the file for people, and may not be changed there.
            named = [column for column in named if column not in unknown]
        known = {key: _cells(data) for key, _, _, _, data in state.audit.open_failed_rows(batch.batch_id, name, ())}
        cells: list[tuple[str, str, str | None]] = []
        seen: set[str] = set()
        strangers: list[int] = []
        for number, row in enumerate(read_rows(file, [_KEY, *named, *unknown]), start=2):
            key = row[_KEY]
            if key not in known or key in seen:
                strangers.append(number)
                continue
            seen.add(key)
            before = known[key]
            for column in (*named, *unknown):
                text = row[column]
                if text == MASK or _folded(text) == _folded(before.get(column, "")):
                    continue
                if column in plan.key or column in unknown:
                    raise UsageError(
                        f"row {number} of `{file}` changes the column `{column}`, which cannot be corrected here",
                        state="nothing was taken over",
                        hint="keys and what the plan makes of a row stay; correct the columns that it is made of",
                    )
                cells.append((key, column, text or None))
        if strangers:
            raise UsageError(
                f"{len(strangers)} rows of `{file}` are no open refused rows of `{name}`, or stand there twice: "
                f"rows {', '.join(map(str, strangers[:_SHOWN]))}",
                state="nothing was taken over",
                hint="export the file anew by `forcelift failed export`, and correct it there",
            )
        if cells:
            import polars as pl  # only here: what is not corrected needs no frames

            from forcelift.after.retry.corrected import CORRECTIONS, write_corrections

            frame = pl.DataFrame(cells, schema=CORRECTIONS, orient="row")
            told = {
                "table": name,
                "rows": frame["key"].n_unique(),
                "cells": frame.height,
                "columns": frame["column"].unique().sort().to_list(),
                "by": owner(),
            }
            write_corrections(state.storage, state.audit, batch.batch_id, name, frame, told)
        return Imported(
            batch_id=batch.batch_id,
            table=name,
            rows=len(seen),
            corrected=len({key for key, _, _ in cells}),
            cells=len(cells),
            columns=tuple(dict.fromkeys(column for _, column, _ in cells)),
        )


def _table(loaded: LoadedPlan, state: State, batch: Batch, table: str | None) -> str:
    groups = state.audit.failed_counts(batch.batch_id, FailedFilter())
    names = list(dict.fromkeys(group.table_name for group in groups if group.open))
    if table is None and len(names) == 1:
        return names[0]
    if table is None or table not in names:
        if not names:
            message, hint = "no refused row is open", "`forcelift failed list` shows what there is"
        else:
            message = f"table `{table}` has no open refused rows" if table else "several tables have open refused rows"
            hint = f"name one by `--table`: {', '.join(names)}"
        raise UsageError(message, state="nothing was changed", hint=hint)
    return table


def _lines(
    state: State, batch: Batch, table: str, codes: tuple[str, ...], columns: list[str]
) -> Iterator[list[object]]:
    for key, code, message, fields, data in state.audit.open_failed_rows(batch.batch_id, table, codes):
        cells = _cells(data)
        yield [key, code, message, fields, *(cells.get(column, "") for column in columns)]


def _cells(data: str | None) -> Mapping[str, str]:
    """The values of a refused row as texts, numbers as they are written; no value is empty."""
    if not data:
        return {}
    found = json.loads(data, parse_float=str, parse_int=str)
    return {name: "" if value is None else _text(value) for name, value in found.items()}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _folded(text: str) -> str:
    """Line ends as a spreadsheet may change them."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _header(file: Path) -> list[str]:
    """The column names of a file, by whichever separator a spreadsheet has saved it with."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            first = lines.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"`{file}` cannot be read as UTF-8", state="nothing was changed by this file") from error
    best: list[str] = []
    for separator in (",", ";", "\t"):
        names = next(csv.reader(io.StringIO(first, newline=""), delimiter=separator), [])
        names = [original(name.strip()) for name in names]
        if _KEY in names and len(names) > len(best):
            best = names
    if not best:
        raise UsageError(
            f"the first line of `{file}` does not name the column `{_KEY}`",
            state="nothing was changed by this file",
            hint="correct a file that `forcelift failed export` wrote, and leave its first line as it is",
        )
    return best
