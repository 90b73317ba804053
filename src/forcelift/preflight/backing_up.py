"""Copy a plan's tables inside their source before a migration, record the copies, and drop old ones.

Reads:   the plan file, the source.
Writes:  the source (one new table for each table of the plan, or a copy of its files), and MIGRATION_BACKUP_LOG.
Re-run:  refuses to overwrite: a copy that is there stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from forcelift.account.consents import need_consent
from forcelift.account.recorded import open_recorded, owner
from forcelift.account.state import open_state
from forcelift.audit.backups import BackupRow
from forcelift.audit.text import short_table_name
from forcelift.before.backup import (
    BackupPlanned,
    DropDecision,
    Dropping,
    check_room_of_all,
    decide_drops,
    plan_backup,
)
from forcelift.before.checklist import BACKUP, filter_digest
from forcelift.errors import ForceliftError, StateConflict, UsageError
from forcelift.opening.assembly import open_backups
from forcelift.plan import LoadedPlan, TablePlan, load_plan, masked_url
from forcelift.protocols.backups import Copied
from forcelift.protocols.clock import Clock, SystemClock

Told = Callable[[str], None]


class BackupSettings(Struct, frozen=True, kw_only=True):
    """What is asked.

    Attributes:
        tables: Only these; all of the plan if empty.
        name: Of the copy, with one table; else `<TABLE>_BKP_<YYYYMMDD>`.
        all_rows: The whole table, whatever the plan's `where`.
        flashback: Oracle: an SCN or a time at which the tables are read.
        check_room: Whether free space is looked at first.
    """

    tables: tuple[str, ...] = ()
    name: str | None = None
    all_rows: bool = False
    flashback: str | None = None
    check_room: bool = True


class BackupMade(Struct, frozen=True, kw_only=True):
    """A copy that was made, counted and recorded."""

    planned: BackupPlanned
    copied: Copied


class BackupReport(Struct, frozen=True, kw_only=True):
    """All copies of one call. `kind` is the source's."""

    kind: str
    made: tuple[BackupMade, ...]


class DropReport(Struct, frozen=True, kw_only=True):
    """Copies that are old enough, and whether those to drop were dropped."""

    items: tuple[Dropping, ...]
    executed: bool


def back_up(
    plan_file: str | Path,
    settings: BackupSettings | None = None,
    *,
    told: Told = lambda sentence: None,
    clock: Clock | None = None,
) -> BackupReport:
    """Copy the plan's tables within the plan's filter, check the rows of each copy, and record it.

    Names and room of all are looked at before the first is copied.

    Raises:
        UsageError: A table that the plan lacks, or a name for several tables.
        StateConflict: Something of a copy's name is there already, or there is too little room.
        SourceError: The source refuses, or a copy does not hold the table's rows; then it is taken away again.
    """
    settings = settings or BackupSettings()
    clock = clock or SystemClock()
    loaded = load_plan(plan_file)
    tables = _chosen(loaded, settings)
    day = f"{clock.now().astimezone():%Y%m%d}"
    made = []
    with open_backups(loaded) as backups, open_state(loaded, clock=clock, create=True) as state:
        if settings.flashback is not None and not backups.has_flashback:
            raise UsageError(
                f"a {backups.kind} source has no earlier states to copy",
                state="nothing was copied",
                hint="leave `--flashback` out",
            )
        plans = [
            plan_backup(
                backups,
                table.table,
                name=settings.name,
                where=None if settings.all_rows else table.where,
                day=day,
                check_room=settings.check_room,
            )
            for table in tables
        ]
        if settings.check_room:
            check_room_of_all(plans)
        for planned in plans:
            told(f"copying {planned.table} to {planned.name}")
            copied = backups.copy(planned.table, name=planned.name, where=planned.where, as_of=settings.flashback)
            try:
                # Before the log's row: without that, a copy counts for nothing.
                state.audit.add_evidence(
                    project=loaded.plan.project,
                    kind=BACKUP,
                    name=short_table_name(planned.table),
                    plan_sha256=loaded.sha256,
                    org_id=None,
                    passed=True,
                    document={
                        "table": planned.table,
                        "backup": planned.name,
                        "filter": filter_digest(planned.where),
                        "rows": copied.rows,
                    },
                    by=owner(),
                )
                state.audit.add_backup(
                    table=planned.table,
                    backup_table=planned.name,
                    rows=copied.rows,
                    source_url=source_name(loaded),
                    checksum=copied.checksum,
                    by=owner(),
                )
            except ForceliftError as error:
                raise StateConflict(
                    f"the copy `{planned.name}` was made and could not be recorded: {error.message}",
                    state=f"the copy has {copied.rows:,} rows, as the table; MIGRATION_BACKUP_LOG has no row for it",
                    hint=f"mend the audit database, drop `{planned.name}` and run the same command again",
                ) from error
            made.append(BackupMade(planned=planned, copied=copied))
        return BackupReport(kind=backups.kind, made=tuple(made))


def list_backups(plan_file: str | Path, *, clock: Clock | None = None) -> list[BackupRow]:
    """All copies that the backup log knows, oldest first."""
    with open_recorded(plan_file, clock=clock) as (_, state):
        return state.audit.backups()


def drop_backups(
    plan_file: str | Path,
    *,
    older_than_days: int,
    execute: bool = False,
    tables: Sequence[str] = (),
    clock: Clock | None = None,
) -> DropReport:
    """Drop copies of this source that are older than so many days and unchanged since they were recorded.

    Args:
        execute: Do it; without it, nothing is changed.
        tables: Only copies of these.
    """
    clock = clock or SystemClock()
    with open_recorded(plan_file, clock=clock) as (loaded, state), open_backups(loaded) as backups:
        recorded = [one for one in state.audit.backups() if not tables or one.table_name in tables]
        items = decide_drops(backups, recorded, now=clock.now(), days=older_than_days, source_url=source_name(loaded))
        if execute:
            going = [item.backup for item in items if item.decision is DropDecision.DROP]
            if going:
                need_consent(
                    loaded,
                    state.audit,
                    step="drop_backup",
                    subject=f"{len(going)} copies of tables",
                    details={"copies": sorted(f"{one.source_url} {one.backup_table}" for one in going)},
                )
            for item in items:
                if item.decision is DropDecision.DROP:
                    backups.drop(item.backup.backup_table)
                if item.decision in (DropDecision.DROP, DropDecision.GONE):
                    state.audit.backup_dropped(item.backup, by=owner())
        return DropReport(items=tuple(items), executed=execute)


def source_name(loaded: LoadedPlan) -> str:
    """The source's address without secrets, as batches record it."""
    return masked_url(loaded.source_url())


def _chosen(loaded: LoadedPlan, settings: BackupSettings) -> list[TablePlan]:
    known = [table.table for table in loaded.plan.tables]
    for name in settings.tables:
        if name not in known:
            raise UsageError(
                f"the plan has no table `{name}`", state="nothing was copied", hint=f"it has: {', '.join(known)}"
            )
    chosen = [table for table in loaded.plan.tables if not settings.tables or table.table in settings.tables]
    if settings.name is not None and len(chosen) != 1:
        raise UsageError(
            f"one name for {len(chosen)} tables", state="nothing was copied", hint="name one table by `--table`"
        )
    return chosen
