"""`forcelift prepare` and `forcelift restore`: automations off for a load, and back exactly as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from forcelift.cli.options import again, json_option, plan_option
from forcelift.errors import ExitCode, Interrupted

name_option = click.option(
    "--name", default="prepare", show_default=True, help="What this prepare is called; the last one to let go restores"
)


@contextmanager
def _interruptible(plan_file: Path) -> Iterator[None]:
    """Ctrl-C between two steps is as good as anywhere: what was begun is remembered."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            "stopped before everything was switched",
            state="what was switched off is remembered; `forcelift status` tells it",
            hint=f"`{again('restore', plan_file)}` shows what would be put back",
        ) from None


@click.command()
@plan_option
@click.option("--execute", is_flag=True, help="Do it; without it, show what would be done and change nothing")
@click.option(
    "--table", "tables", multiple=True, metavar="TABLE", help="Only this table's object; may be given several times"
)
@name_option
@json_option
def prepare(plan_file: Path, execute: bool, tables: tuple[str, ...], name: str, as_json: bool) -> None:
    """Switch automations off for a load

    Finds active triggers, flows, processes, workflow rules, validation rules and duplicate rules of the plan's
    objects, remembers each exactly, switches it off and reads it back. Makes external ID fields that are missing.
    `run --prepare` does the switching around a load by itself. Example:

      forcelift prepare && forcelift prepare --execute
    """
    from forcelift.cli.output import data, notes, print_json
    from forcelift.cli.prepare_view import prepare_document, show_prepare
    from forcelift.preflight.preparing import prepare_org

    with _interruptible(plan_file):
        report = prepare_org(plan_file, execute=execute, name=name, tables=tables, told=notes().print)
    if as_json:
        print_json(prepare_document(report, plan_file))
    else:
        show_prepare(data(), report, plan_file)


@click.command()
@plan_option
@click.option("--execute", is_flag=True, help="Do it; without it, show what would be done and change nothing")
@name_option
@click.option("--all", "everybody", is_flag=True, help="All prepares let go, whatever they are called")
@click.option(
    "--overwrite", multiple=True, metavar="NAME", help="Put this one back though somebody changed it in the meantime"
)
@click.option("--keep", multiple=True, metavar="NAME", help="Leave this one as it is now, and forget what it was")
@json_option
def restore(
    plan_file: Path,
    execute: bool,
    name: str,
    everybody: bool,
    overwrite: tuple[str, ...],
    keep: tuple[str, ...],
    as_json: bool,
) -> int:
    """Put back what was switched off

    Puts back exactly what `prepare`, or a batch that died, switched off, and compares. What somebody changed in the
    meantime is told and not touched; what a batch at work wants off stays off until that batch ends. Example:

      forcelift restore && forcelift restore --execute

    Exit code 1 means that something is not as it was.
    """
    from forcelift.cli.output import data, notes, print_json
    from forcelift.cli.prepare_view import restore_document, show_restore
    from forcelift.cli.screens import show_error
    from forcelift.preflight.preparing import restore_org

    with _interruptible(plan_file):
        report = restore_org(
            plan_file,
            execute=execute,
            name=name,
            everybody=everybody,
            overwrite=overwrite,
            keep=keep,
            told=notes().print,
        )
    if as_json:
        print_json(restore_document(report, plan_file))
    else:
        show_restore(data(), report, plan_file)
    if report.errors:
        show_error(report.errors[0], debug=False)
        return int(report.errors[0].exit_code)
    return int(ExitCode.ROWS_REFUSED if report.still_open else ExitCode.DONE)
