"""Checks of the source: it can be read, and the keys that everything rests on are there.

Reads:   the source's dictionary, and one row of each table.
Writes:  nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from forcelift.before.check.model import Area, CheckResult, failed, passed, skipped, some, warned
from forcelift.errors import ForceliftError
from forcelift.plan import TablePlan
from forcelift.protocols.source import Source, SourceTable

_AREA = Area.SOURCE
_FILES = "files"


def tables_readable(source: Source, tables: Sequence[TablePlan]) -> tuple[CheckResult, dict[str, SourceTable]]:
    """Whether each table is there and a row of it can be read. Returns also those that are."""
    described: dict[str, SourceTable] = {}
    faults, fix = [], "see each message"
    for table in tables:
        try:
            found = source.describe(table.table)
            names = {column.name for column in found.columns}
            wanted = [name for name in dict.fromkeys((*table.key, *table.fields)) if name in names]
            source.sample(table.table, columns=wanted, where=table.where, rows=1)
        except ForceliftError as error:
            faults.append(f"{table.table}: {error.message}")
            fix = error.hint or fix
        else:
            described[table.table] = found
    figure = f"{len(described)} of {len(tables)} tables"
    if faults:
        return failed("source_readable", _AREA, figure, *some(faults), fix=fix), described
    return passed("source_readable", _AREA, figure, *some([f"a row of {name}" for name in described])), described


def keys(source: Source, tables: Sequence[TablePlan], described: dict[str, SourceTable]) -> CheckResult:
    """Whether the plan's keys are keys of the source, which also says that there is an index on them."""
    if source.kind == _FILES:
        return skipped(
            "source_keys", _AREA, "files declare no keys; repeated ones are found before the first row is sent"
        )
    missing, bare = [], []
    known = [table for table in tables if table.table in described]
    for table in known:
        found = described[table.table]
        names = {column.name for column in found.columns}
        if lost := [name for name in table.key if name not in names]:
            missing.append(f"{table.table}: no column `{lost[0]}`")
        elif not any(set(key) <= set(table.key) for key in (found.primary_key, *found.unique_keys) if key):
            bare.append(f"{table.table}: no primary or unique key on {', '.join(table.key)}")
    figure = f"{len(known) - len(missing) - len(bare)} of {len(known)} tables"
    if missing:
        return failed("source_keys", _AREA, figure, *some(missing), fix="correct `key` in the plan")
    if bare:
        fix = "nothing is lost, as repeated keys are found before the first row is sent; a unique index reads cheaper"
        return warned("source_keys", _AREA, figure, *some(bare), fix=fix)
    return passed("source_keys", _AREA, figure, "each key is unique by the source's own constraint")
