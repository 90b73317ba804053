"""`forcelift run`: load the plan's tables, show how it goes, say what became of every row."""

from __future__ import annotations

from pathlib import Path

import click

from forcelift.cli.options import json_option, plan_option
from forcelift.errors import UsageError


@click.command()
@plan_option
@click.option("--batch", "batch_id", metavar="BATCH", help="Name of the new batch; made up if left out")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[BATCH]",
    help="Go on with a batch; without a name, with the plan's newest unfinished one",
)
@click.option(
    "--join",
    is_flag=False,
    flag_value="",
    metavar="[BATCH]",
    help="Help with a batch that another process works on; needs an audit database on PostgreSQL",
)
@click.option("--dry-run", is_flag=True, help="Do everything but the upload, and predict what a run would take")
@click.option(
    "--prepare/--no-prepare",
    default=None,
    help="Switch automations off while the batch loads, and put them back however it ends; a resume does as the batch "
    "was begun",
)
@click.option("--extract-first", is_flag=True, help="Read and stage everything before the first row is sent")
@click.option(
    "--table", "tables", multiple=True, metavar="TABLE", help="Only this table of the plan; may be given several times"
)
@click.option(
    "--sample-percent",
    metavar="P",
    help="Only P percent of each table's keys, the same each time, with all parents that they refer to",
)
@click.option(
    "--no-before-images",
    is_flag=True,
    help="Do not keep the records that the batch changes as they were: a rollback could not put them back",
)
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    plan_file: Path,
    batch_id: str | None,
    resume: str | None,
    join: str | None,
    dry_run: bool,
    prepare: bool | None,
    extract_first: bool,
    tables: tuple[str, ...],
    sample_percent: str | None,
    no_before_images: bool,
    as_json: bool,
) -> int:
    """Load the plan's tables into the org

    Tables that others look up are loaded first. Ctrl-C finishes what is in flight and prints the command that goes
    on; a second Ctrl-C aborts the open jobs. Example:

      forcelift run --dry-run && forcelift run

    Exit code 1 means that everything was carried through, but rows were refused.
    """
    others = {"--batch": batch_id is not None, "--dry-run": dry_run, "--extract-first": extract_first}
    others |= {"--no-before-images": no_before_images}
    others |= {"--table": bool(tables), "--join": resume is not None and join is not None}
    _check_options("--resume" if resume is not None else "--join" if join is not None else None, others)
    if prepare and (dry_run or join is not None):
        raise UsageError(
            "a dry run changes nothing in the org, and who joins a batch finds it prepared",
            state="nothing was read or written",
            hint="leave `--prepare` out; `forcelift prepare` shows what it would do",
        )
    if dry_run and extract_first:
        raise UsageError(
            "a dry run sends nothing, so that nothing can come before it",
            state="nothing was read or written",
            hint="leave `--extract-first` out",
        )
    from forcelift.cli.lean import import_lean

    import_lean()
    from forcelift.cli.output import data, notes, print_json
    from forcelift.cli.running import run_document, show_end, show_what_went_wrong, watched_run
    from forcelift.migration.running import RunOptions

    options = RunOptions(
        batch_id=batch_id,
        resume=resume,
        join=join,
        dry_run=dry_run,
        prepare=prepare,
        extract_first=extract_first,
        tables=tables,
        sample_percent=sample_percent,
        before_images=not no_before_images,
    )
    console = notes()
    ended = watched_run(plan_file, options, console)
    if as_json:
        print_json(run_document(ended))
    else:
        show_end(data(), ended, resumed=options.known is not None)
    show_what_went_wrong(console, ended.summary, plan_file, debug=bool(ctx.find_root().params.get("debug")))
    return int(ended.summary.exit_code)


def _check_options(goes_on: str | None, others: dict[str, bool]) -> None:
    given = [f"`{name}`" for name, is_given in others.items() if is_given]
    if goes_on is not None and given:
        raise UsageError(
            f"`{goes_on}` goes on with a batch as it was begun; {' and '.join(given)} cannot be given with it",
            state="nothing was read or written",
            hint="leave one of them out",
        )
