"""What a backup would do, and which earlier copies may go: decided before anything is written.

Reads:   the place that keeps copies, the backup log.
Writes:  nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from msgspec import Struct

from forcelift.audit.backups import BackupRow
from forcelift.errors import SourceError, StateConflict
from forcelift.protocols.backups import Backups, Room

ROOM_MARGIN = 1.05
"""A copy is made only where so many times its size is free: the database needs a little besides."""


class BackupPlanned(Struct, frozen=True, kw_only=True):
    """A copy that can be made. `where` is what limits it; None is the whole table."""

    table: str
    name: str
    where: str | None
    room: Room


def plan_backup(
    backups: Backups, table: str, *, name: str | None, where: str | None, day: str, check_room: bool
) -> BackupPlanned:
    """Decide the copy's name and see that it can be made.

    Args:
        name: Given by a person; else the table's with `_BKP_` and the day.
        day: YYYYMMDD.
    Raises:
        StateConflict: Something of that name is there, or there is too little room.
    """
    name = name or backups.name_for(table, f"_BKP_{day}")
    if backups.exists(name):
        raise StateConflict(
            f"there is something named `{name}` already",
            state="nothing was copied, and what is there was not touched",
            hint="give the copy another name by `--name`, with one table by `--table`",
        )
    room = backups.room(table)
    if check_room and room.needed is not None and room.free is not None and room.needed * ROOM_MARGIN > room.free:
        raise StateConflict(
            f"a copy of `{table}` may need {room.needed / 1e6:,.1f} MB, and {room.where} has {room.free / 1e6:,.1f} MB"
            " free",
            state="nothing was copied",
            hint="make room, or say `--no-space-check` if you know that it fits",
        )
    return BackupPlanned(table=table, name=name, where=where if backups.keeps_where else None, room=room)


def check_room_of_all(plans: Sequence[BackupPlanned]) -> None:
    """See that there is room for all copies together, each of which would fit alone.

    Raises:
        StateConflict: There is too little.
    """
    by_place: dict[str, list[Room]] = {}
    for one in plans:
        by_place.setdefault(one.room.where, []).append(one.room)
    for where, rooms in by_place.items():
        free = min((one.free for one in rooms if one.free is not None), default=None)
        needed = sum(one.needed or 0 for one in rooms)
        if (by_all := rooms[0].needed_by_all) is not None:
            needed = min(needed, by_all)
        if free is not None and needed * ROOM_MARGIN > free:
            raise StateConflict(
                f"copies of {len(rooms)} tables may need {needed / 1e6:,.1f} MB together, and {where} has"
                f" {free / 1e6:,.1f} MB free",
                state="nothing was copied",
                hint="make room, copy fewer tables by `--table`, or say `--no-space-check` if you know that it fits",
            )


class DropDecision(StrEnum):
    """What becomes of a copy."""

    DROP = "to drop"
    GONE = "gone already"
    CHANGED = "kept: it has not the rows that were recorded"
    UNREADABLE = "kept: it cannot be read"
    OTHERS = "kept: recorded by another program"


class Dropping(Struct, frozen=True, kw_only=True):
    """A copy that is old enough, and what is to become of it."""

    backup: BackupRow
    decision: DropDecision


def decide_drops(
    backups: Backups, recorded: Sequence[BackupRow], *, now: datetime, days: int, source_url: str
) -> list[Dropping]:
    """Which copies older than so many days may go: those that this tool made of this source, unchanged since."""
    old = now - timedelta(days=days)
    found = []
    for backup in recorded:
        if backup.dropped_date is not None or backup.created_date is None or backup.created_date > old:
            continue
        if backup.source_url == source_url:
            found.append(Dropping(backup=backup, decision=_decide(backups, backup)))
        elif backup.source_url is None:
            found.append(Dropping(backup=backup, decision=DropDecision.OTHERS))
    return found


def _decide(backups: Backups, backup: BackupRow) -> DropDecision:
    if not backups.exists(backup.backup_table):
        return DropDecision.GONE
    try:
        rows = backups.count(backup.backup_table)
    except SourceError:  # told as a decision: the copy stays
        return DropDecision.UNREADABLE
    return DropDecision.DROP if rows == backup.row_count else DropDecision.CHANGED
