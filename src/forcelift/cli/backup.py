"""`forcelift backup`: copies of the plan's tables, inside their source."""

from __future__ import annotations

from pathlib import Path

import click

from forcelift.cli.options import again, json_option, plan_option
from forcelift.errors import ExitCode, UsageError


@click.command()
@plan_option
@click.option("--table", "tables", multiple=True, metavar="TABLE", help="Only this table; may be given several times")
@click.option("--name", metavar="NAME", help="What the copy is called, with one table  [default: TABLE_BKP_YYYYMMDD]")
@click.option("--all-rows", is_flag=True, help="The whole table, whatever the plan's `where`")
@click.option("--flashback", metavar="SCN|TIME", help="Oracle: copy the tables as they were at an SCN or a time")
@click.option("--no-space-check", is_flag=True, help="Copy even if there seems to be too little room")
@click.option("--list", "is_list", is_flag=True, help="Show the copies that the backup log knows")
@click.option(
    "--drop-older-than", type=click.IntRange(0), metavar="DAYS", help="Drop copies that are older; needs --execute"
)
@click.option("--execute", is_flag=True, help="With --drop-older-than: drop them; without it, show them")
@json_option
def backup(
    plan_file: Path,
    tables: tuple[str, ...],
    name: str | None,
    all_rows: bool,
    flashback: str | None,
    no_space_check: bool,
    is_list: bool,
    drop_older_than: int | None,
    execute: bool,
    as_json: bool,
) -> int:
    """Copy the plan's tables beforehand

    Inside their database, within the plan's `where`; files into the staging folder, with checksums. The rows of each
    copy are counted against the table's, and MIGRATION_BACKUP_LOG gets a row. Nothing is overwritten. Example:

      forcelift backup --table SALES
    """
    from forcelift.cli.backup_view import (
        drop_document,
        list_document,
        made_document,
        show_drops,
        show_list,
        show_made,
    )
    from forcelift.cli.output import data, notes, print_json
    from forcelift.preflight.backing_up import BackupSettings, back_up, drop_backups, list_backups

    if execute and drop_older_than is None:
        raise UsageError(
            "`--execute` belongs to `--drop-older-than`: a backup needs none",
            state="nothing was copied or dropped",
            hint=again("backup", plan_file),
        )
    if is_list:
        rows = list_backups(plan_file)
        if as_json:
            print_json(list_document(rows))
        else:
            show_list(data(), rows)
        return int(ExitCode.DONE)
    if drop_older_than is not None:
        dropped = drop_backups(plan_file, older_than_days=drop_older_than, execute=execute, tables=tables)
        if as_json:
            print_json(drop_document(dropped))
        else:
            show_drops(data(), dropped, drop_older_than, plan_file)
        return int(ExitCode.DONE)
    settings = BackupSettings(
        tables=tables, name=name, all_rows=all_rows, flashback=flashback, check_room=not no_space_check
    )
    made = back_up(plan_file, settings, told=notes().print)
    if as_json:
        print_json(made_document(made))
    else:
        show_made(data(), made)
    return int(ExitCode.DONE)
