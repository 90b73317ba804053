"""`forcelift rollback`: show what undoing a batch would do, and with `--execute` do it."""

from __future__ import annotations

from pathlib import Path

import click

from forcelift.cli.options import again, json_option, plan_option, project_option
from forcelift.errors import ExitCode, UsageError


@click.command()
@click.argument("batch_id", metavar="[BATCH]", required=False)
@plan_option
@click.option("--table", "tables", multiple=True, metavar="TABLE", help="Only this table; may be given several times")
@click.option(
    "--chunk", "chunks", multiple=True, type=click.IntRange(min=1), help="Only this chunk of the one `--table`"
)
@click.option("--full", "full_object", metavar="OBJECT", help="Instead of a batch: all batches' records of an object")
@click.option("--since", metavar="DATE", help="With `--full`: only records whose `created_field` is not before")
@click.option(
    "--all-records",
    metavar="OBJECT",
    help="With `--full`: also records that others made or changed; type the object's name once more",
)
@click.option(
    "--hard/--soft",
    default=None,
    help="Delete for good, past the recycle bin (needs a permission of its own); or into it, the default",
)
@click.option(
    "--no-before-images",
    is_flag=True,
    help="In a production org: let records stay as they are that were changed without before-images",
)
@click.option("--execute", is_flag=True, help="Do it; without it, show what would be done and change nothing")
@click.option("--reason", help="Why, for the journal; needed with `--execute`")
@project_option
@json_option
def rollback(
    batch_id: str | None,
    plan_file: Path,
    tables: tuple[str, ...],
    chunks: tuple[int, ...],
    full_object: str | None,
    since: str | None,
    all_records: str | None,
    hard: bool | None,
    no_before_images: bool,
    execute: bool,
    reason: str | None,
    project: bool,
    as_json: bool,
) -> int:
    """Undo what a batch did to the org

    Records that it created are deleted, and those that it changed get their earlier values back. Records that others
    have changed since, or have hung records on, are kept and told with the reason. An interrupted rollback is gone on
    with by the same command. Example:

      forcelift rollback kpc-2026-01 && forcelift rollback kpc-2026-01 --execute --reason "wrong prices"

    Exit code 1 means that records were kept.
    """
    _check(batch_id, tables, chunks, full_object, since, all_records, project=project)
    from forcelift.cli.output import data, notes, print_json
    from forcelift.cli.rollback_view import show_rollback
    from forcelift.undoing.batch import RollbackOptions, RollbackWatcher, Scope, roll_back
    from forcelift.undoing.functions import full_document, roll_back_object, since_date

    console = notes()
    watcher = RollbackWatcher(on_step=lambda words: console.print(f"{words} ..."))
    if project:
        from forcelift.cli.rollback_view import show_project_rollback
        from forcelift.undoing.project import roll_back_project

        found = roll_back_project(
            plan_file,
            tables=tables,
            hard=hard,
            execute=execute,
            reason=reason,
            without_images=no_before_images,
            watcher=lambda batch: RollbackWatcher(on_step=lambda words: console.print(f"{batch}: {words} ...")),
        )
        if as_json:
            print_json(found.document())
        else:
            show_project_rollback(data(), found)
            _next(plan_file, None, execute=execute, kept=bool(found.kept))
        return int(found.exit_code)
    if full_object is not None:
        assert since is not None
        cutoff = since_date(since)
        reports = roll_back_object(
            plan_file,
            full_object,
            since=cutoff,
            execute=execute,
            reason=reason,
            hard=bool(hard),
            all_records=all_records is not None,
            without_images=no_before_images,
            watcher=lambda batch: watcher,
        )
        if as_json:
            print_json(full_document(full_object, cutoff, reports, executed=execute))
    else:
        assert batch_id is not None
        scope = Scope(tables=tables, chunks=chunks, hard=bool(hard))
        options = RollbackOptions(
            batch_id=batch_id,
            scope=scope,
            execute=execute,
            reason=reason,
            hard=hard,
            without_images=no_before_images,
        )
        reports = [roll_back(plan_file, options, watcher=watcher)]
        if as_json:
            print_json(reports[0].document())
    if not as_json:
        for report in reports:
            show_rollback(data(), report)
        _next(plan_file, batch_id, execute=execute, kept=any(report.kept for report in reports))
    return int(ExitCode.ROWS_REFUSED if any(report.kept for report in reports) else ExitCode.DONE)


def _next(plan_file: Path, batch_id: str | None, *, execute: bool, kept: bool) -> None:
    from forcelift.cli.output import data

    if not execute:
        data().print('nothing was changed; do it by the same command with `--execute --reason "..."`')
    elif batch_id is not None:
        data().print(f"mend the cause, then load again with:  {again(f'run --resume {batch_id}', plan_file)}")
        if kept:
            data().print("kept records stay as they are then; a new batch writes over them")


def _check(
    batch_id: str | None,
    tables: tuple[str, ...],
    chunks: tuple[int, ...],
    full_object: str | None,
    since: str | None,
    all_records: str | None,
    *,
    project: bool,
) -> None:
    if (batch_id is not None) + (full_object is not None) + project != 1:
        raise UsageError(
            "name either a batch or, by `--full`, an object, or ask for `--project`",
            state="nothing was changed",
            hint="`forcelift status` lists the batches",
        )
    if project and chunks:
        raise UsageError("`--project` takes no `--chunk`: each batch has its own", state="nothing was changed")
    if (full_object is None) != (since is None):
        raise UsageError(
            "`--full` and `--since` go together",
            state="nothing was changed",
            hint="such as `--full KPS_Sales__c --since 2026-01-01`",
        )
    if all_records is not None and all_records.lower() != (full_object or "").lower():
        raise UsageError(
            f"`--all-records {all_records}` is not the object of `--full`",
            state="nothing was changed",
            hint="it deletes records that this migration did not make: type the object's API name in both places",
        )
    if full_object is not None and (tables or chunks):
        raise UsageError("`--full` takes no `--table` or `--chunk`", state="nothing was changed")
    if chunks and len(tables) != 1:
        raise UsageError(
            "`--chunk` needs the one `--table` whose chunks it names",
            state="nothing was changed",
            hint="see them by `forcelift status`",
        )
