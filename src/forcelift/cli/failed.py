"""`forcelift failed`: look at refused rows, send them again, mark them as resolved."""

from __future__ import annotations

from pathlib import Path

import click

from forcelift.cli.options import again, batch_option, json_option, plan_option
from forcelift.errors import ExitCode, UsageError

tables_option = click.option(
    "--table", "tables", multiple=True, metavar="TABLE", help="Only this table; may be given several times"
)
codes_option = click.option(
    "--code",
    "codes",
    multiple=True,
    metavar="CODE",
    help="Only rows refused with this code; may be given several times",
)
keys_option = click.option(
    "--keys",
    "keys_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Only rows with these keys: a text file with one key in each line, as `failed list --rows` shows them",
)


@click.group()
def failed() -> None:
    """Look at refused rows, and mend them"""


@failed.command("list")
@plan_option
@batch_option
@tables_option
@codes_option
@click.option("--rows", "with_rows", is_flag=True, help="Show the rows themselves, with personal values masked")
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="With `--rows`: at most so many"
)
@json_option
def list_failed(
    plan_file: Path,
    batch_id: str | None,
    tables: tuple[str, ...],
    codes: tuple[str, ...],
    with_rows: bool,
    limit: int,
    as_json: bool,
) -> int:
    """Show what was refused, why, and what to do about it

    Grouped by table and code, with an example, the remedy, and how many were mended or marked as resolved since.
    Exit code 1 means that rows are open. Example:

      forcelift failed list --code STRING_TOO_LONG --rows
    """
    from forcelift.cli.failed_view import show_failed
    from forcelift.cli.output import data, print_json
    from forcelift.mending.failures import failed_of

    found = failed_of(plan_file, batch_id, tables=tables, codes=codes, rows=limit if with_rows else 0)
    if as_json:
        print_json(found.document())
    else:
        show_failed(data(), found)
        if found.open:
            data().print(f"when the cause is mended:  {again(f'failed retry --batch {found.batch_id}', plan_file)}")
    return int(ExitCode.ROWS_REFUSED if found.open else ExitCode.DONE)


@failed.command()
@plan_option
@batch_option
@tables_option
@codes_option
@keys_option
@click.option(
    "--with-children/--without-children",
    default=True,
    show_default=True,
    help="Also rows of other tables that were refused for want of a parent among these tables",
)
@click.option("--dry-run", is_flag=True, help="Only tell which rows, and what the plan of now makes of them")
@json_option
def retry(
    plan_file: Path,
    batch_id: str | None,
    tables: tuple[str, ...],
    codes: tuple[str, ...],
    keys_file: Path | None,
    with_children: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Send refused rows again, as the source and the plan are now

    Rows that the org has accepted are never sent. A changed rule takes effect; where rows go may not have changed. An
    interrupted retry is gone on with by the same command. Exit code 1 means that rows are still refused. Example:

      forcelift failed retry --code STRING_TOO_LONG
    """
    from forcelift.cli.failed_view import show_retry
    from forcelift.cli.output import data, notes, print_json
    from forcelift.mending.retrying import RetryOptions, RetryWatcher, Selection, retry_failed

    console = notes()
    selection = Selection(tables=tables, codes=codes, keys=read_keys(keys_file), with_children=with_children)
    options = RetryOptions(batch_id=batch_id, selection=selection, dry_run=dry_run)
    report = retry_failed(plan_file, options, watcher=RetryWatcher(on_step=lambda words: console.print(f"{words} ...")))
    if as_json:
        print_json(report.document())
    else:
        show_retry(data(), report)
    return int(report.exit_code)


@failed.command()
@plan_option
@batch_option
@tables_option
@codes_option
@keys_option
@click.option("--note", required=True, help="What was done, or why the rows may stay out; goes into RESOLUTION_NOTES")
@click.option("--by", required=True, metavar="NAME", help="Who says so")
@click.option("--reopen", is_flag=True, help="Take such a mark back, so that the rows can be sent again")
@json_option
def resolve(
    plan_file: Path,
    batch_id: str | None,
    tables: tuple[str, ...],
    codes: tuple[str, ...],
    keys_file: Path | None,
    note: str,
    by: str,
    reopen: bool,
    as_json: bool,
) -> int:
    """Mark refused rows as resolved without sending them

    For rows that were mended by hand in the org, or that may stay out. They count as refused as before, are not sent by
    `failed retry`, and the final report shows the note. Example:

      forcelift failed resolve --code REJECTED_TOO_LONG --note "entered by hand" --by "A. Name"
    """
    from forcelift.cli.output import data, plural, print_json
    from forcelift.mending.failures import mark_failed

    if not (tables or codes or keys_file):
        raise UsageError(
            "say which rows are resolved",
            state="nothing was changed",
            hint="name them by `--code`, `--table` or `--keys`; `forcelift failed list` shows what there is",
        )
    keys = read_keys(keys_file)
    marked = mark_failed(plan_file, batch_id, tables=tables, codes=codes, keys=keys, note=note, by=by, reopen=reopen)
    if as_json:
        print_json(marked.document())
    else:
        word = "opened again" if reopen else "marked as resolved"
        data().print(f"batch {marked.batch_id}: {plural(marked.rows, 'row')} {word}, {marked.open:,} are open")
    return int(ExitCode.DONE)


@failed.command()
@plan_option
@batch_option
@click.option("--table", metavar="TABLE", help="The table; may be left out where only one has open rows")
@codes_option
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    required=True,
    help="The CSV file to write, which must not be there",
)
@json_option
def export(
    plan_file: Path, batch_id: str | None, table: str | None, codes: tuple[str, ...], out: Path, as_json: bool
) -> int:
    """Write open refused rows to a CSV file, to be corrected

    One table's rows as they were refused, with key, code and message. Columns that the plan calls personal are masked
    unless `retention.record_data` is `full`; a masked cell stays as the source has it. Example:

      forcelift failed export --table KPS_M_TENANT --out tenants.csv
    """
    from forcelift.cli.output import data, plural, print_json
    from forcelift.mending.corrections import export_failed

    done = export_failed(plan_file, batch_id, table=table, codes=codes, out=out)
    if as_json:
        print_json(done.document())
        return int(ExitCode.DONE)
    data().print(f"{done.file}: {plural(done.rows, 'row')} of {done.table}", highlight=False)
    if done.masked:
        data().print(f"masked: {', '.join(done.masked)}", highlight=False)
    data().print(f"when it is corrected:  {again(f'failed import {out} --batch {done.batch_id}', plan_file)}")
    return int(ExitCode.DONE)


@failed.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@plan_option
@batch_option
@click.option("--table", metavar="TABLE", help="The table; may be left out where only one has open rows")
@json_option
def import_(file: Path, plan_file: Path, batch_id: str | None, table: str | None, as_json: bool) -> int:
    """Take corrected values over from a CSV file

    A cell that was changed since the export counts in place of the source's value, and goes through the plan's rules in
    the next retry. Untouched and masked cells stay as the source has them. Rows and columns may be left out. Example:

      forcelift failed import tenants.csv && forcelift failed retry
    """
    from forcelift.cli.output import data, plural, print_json
    from forcelift.mending.corrections import import_failed

    done = import_failed(plan_file, batch_id, file, table=table)
    if as_json:
        print_json(done.document())
        return int(ExitCode.DONE)
    told = f"{plural(done.cells, 'cell')} of {plural(done.corrected, 'row')} of {done.table} corrected"
    data().print(told, highlight=False)
    data().print(f"send them:  {again(f'failed retry --batch {done.batch_id}', plan_file)}")
    return int(ExitCode.DONE)


def read_keys(file: Path | None) -> tuple[str, ...]:
    """The keys of a file, one in each line; blank lines are none."""
    if file is None:
        return ()
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the file of keys `{file}` cannot be read", state="nothing was changed") from error
    keys = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not keys:
        raise UsageError(
            f"the file of keys `{file}` holds none",
            state="nothing was changed",
            hint="write one key in each line, or leave `--keys` out",
        )
    return keys
