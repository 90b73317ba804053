"""Why a statement on an Oracle table takes long, and which index or partition would help."""

from __future__ import annotations

import re

from forcelift.errors import SourceError
from forcelift.source.oracle_catalog import Shape

_TEXT_OR_NAME = re.compile(r"'(?:[^']|'')*'|\"([^\"]+)\"|([A-Za-z][A-Za-z0-9_$#]*)")


class SlowStatement(SourceError):
    """The server worked on one statement for longer than the plan allows: most likely it scans the whole table."""


def columns_in(where: str | None, shape: Shape) -> list[str]:
    """The table's columns that a condition names, in its order."""
    known = {column.name for column in shape.table.columns}
    names = (quoted or bare.upper() for quoted, bare in _TEXT_OR_NAME.findall(where or "") if quoted or bare)
    return list(dict.fromkeys(name for name in names if name in known))


def advice(shape: Shape, where: str | None) -> list[str]:
    """What would make reading rows within `where` shorter, as far as the dictionary shows it; most helpful first."""
    wanted = columns_in(where, shape)
    found = []
    if shape.partitioned_by and shape.partitioned_by[0] not in wanted:
        column = shape.partitioned_by[0]
        found.append(f"the table is partitioned by `{column}`: a `where` on that column reads its partitions only")
    if wanted and not shape.leading.intersection(wanted):
        listed = " or ".join(f"`{name}`" for name in wanted)
        found.append(f"no index begins with {listed}, which `where` compares: one would spare the scan")
    if not wanted and not shape.partitioned_by:
        found.append("without `where` the whole table is scanned: smaller `chunks.rows` make each statement shorter")
    return found


def slow_statement(shape: Shape | None, table: str, where: str | None, *, seconds: float) -> SlowStatement:
    """The error for a statement that took longer than it may."""
    helps = advice(shape, where) if shape is not None else []
    more = "`statement_minutes=N` in `source.url` allows more"
    return SlowStatement(
        f"`{table}` cannot be read: the server worked on one statement for more than {seconds / 60:g} min, as a full "
        "scan would",
        state="the statement was ended; nothing of this chunk was sent",
        hint="; ".join([*helps, more]),
    )
