"""`forcelift report`: the final report of a batch, and what people say of its issues."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from forcelift.cli.default_group import DefaultGroup
from forcelift.cli.options import batch_option, json_option, plan_option, project_option, refuse_both
from forcelift.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from forcelift.audit.notes import StoredNote


@click.command("report")
@plan_option
@click.argument("batch_id", metavar="[BATCH]", required=False)
@click.option(
    "--out",
    "outs",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    multiple=True,
    help="Write it to this file, which must not be there: .md, .html, .pdf or .json; may be given several times."
    " On the screen if left out",
)
@click.option(
    "--html",
    "pages",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    multiple=True,
    help="Write the HTML page, whatever the file's name",
)
@click.option(
    "--lang", "language", type=click.Choice(["en", "th"]), default="en", show_default=True, help="English or Thai"
)
@click.option("--buddhist-era", is_flag=True, help="Years as Thailand counts them (2567 for 2024); with `--lang th`")
@project_option
@json_option
def write(
    plan_file: Path,
    batch_id: str | None,
    outs: tuple[Path, ...],
    pages: tuple[Path, ...],
    language: str,
    buddhist_era: bool,
    project: bool,
    as_json: bool,
) -> int:
    """Write the final report of a batch

    In the structure of the checklist's template: summary, statistics, reconciliation, issues, performance, sign-off;
    then where the time went, rollbacks, and each check of the newest validation. Every figure is from audit database
    and ledger. Examples:

      forcelift report --out report.md --out report.html

      forcelift report --out report.pdf --lang th --buddhist-era

    Ends with 1 unless everything succeeded and no check failed.
    """
    from forcelift.after.report import Language, ReportStatus, Words, markdown
    from forcelift.after.report.json_form import json_document
    from forcelift.cli.output import data, print_json
    from forcelift.handover.reporting import check_files, report_batch, write_report

    refuse_both(batch_id, project=project)
    if buddhist_era and language != "th":
        raise UsageError("`--buddhist-era` goes with `--lang th`", state="nothing was written", hint="leave it out")
    files = [*((one, None) for one in outs), *((one, "html") for one in pages)]
    words = Words(Language(language), buddhist_era=buddhist_era)
    check_files(files)
    content = report_batch(plan_file, batch_id, project=project)
    digests = {out: write_report(content, plan_file, out, form=form, words=words) for out, form in files}
    if as_json:
        print_json({**json_document(content), **_files(digests)})
    elif not files:
        click.echo(markdown(content, words), nl=False)
    else:
        for out, digest in digests.items():
            data().print(f"{out}: {content.figures.status.value}, sha256 {digest}")
    return int(ExitCode.DONE if content.figures.status is ReportStatus.SUCCESS else ExitCode.ROWS_REFUSED)


@click.command(cls=DefaultGroup, default=write)
def report() -> None:
    """Write the final report of a batch"""


@report.command()
@plan_option
@click.argument("code", metavar="[ISSUE-CODE]", required=False)
@batch_option
@click.option("--table", metavar="TABLE", help="Only of this table; of all tables if left out")
@click.option("--cause", metavar="TEXT", help="Why the rows failed: the issue's Root Cause")
@click.option("--resolution", metavar="TEXT", help="What was done about it: the issue's Resolution")
@click.option("--by", metavar="NAME", help="Who says so")
@click.option("--list", "only_list", is_flag=True, help="Show the notes that stand")
@click.option("--remove", type=click.IntRange(1), metavar="NUMBER", help="Take this note out of the report")
@json_option
def note(
    plan_file: Path,
    code: str | None,
    batch_id: str | None,
    table: str | None,
    cause: str | None,
    resolution: str | None,
    by: str | None,
    only_list: bool,
    remove: int | None,
    as_json: bool,
) -> int:
    """Say what caused an issue, and what was done

    It stands in the report in place of the org's message and of the proposed remedy. A later note counts before an
    earlier one, and one of a table before one of all tables. Write no personal values: reports are handed on. Example:

      forcelift report note STRING_TOO_LONG --cause "Descriptions of over 32,000 letters" \\
        --resolution "Cut at 32,000 letters, agreed with the business" --by "Data Engineer"
    """
    from forcelift.cli.output import data, print_json
    from forcelift.handover.reporting import add_note, notes_of, remove_note

    if only_list + (remove is not None) + (code is not None) != 1:
        raise UsageError(
            "one of an issue's code, `--list` and `--remove` is to be given",
            state="nothing was changed",
            hint="`forcelift report note --list` shows the notes that stand",
        )
    if remove is not None:
        remove_note(plan_file, batch_id, remove, by=by)
    elif code is not None:
        add_note(plan_file, batch_id, code=code, table=table, cause=cause, resolution=resolution, by=by)
    standing = notes_of(plan_file, batch_id)
    if as_json:
        print_json({"notes": [_note_document(one) for one in standing], "exit_code": ExitCode.DONE})
        return ExitCode.DONE
    console = data()
    for one in standing:
        console.print(f"{one.note_no}  {one.code}  {one.table_name or 'all tables'}  by {one.made_by}")
        for name, text in (("cause", one.cause), ("resolution", one.resolution)):
            if text:
                console.print(f"   {name}: {text}")
    if not standing:
        console.print("no notes")
    return ExitCode.DONE


def _note_document(one: StoredNote) -> dict[str, Any]:
    return {
        "number": one.note_no,
        "batch_id": one.batch_id,
        "code": one.code,
        "table": one.table_name,
        "cause": one.cause,
        "resolution": one.resolution,
        "by": one.made_by,
        "at": one.made_at.isoformat(),
    }


def _files(digests: dict[Path, str]) -> dict[str, Any]:
    """What was written; `file` and `sha256` are of the first."""
    return {
        "file": next((str(out) for out in digests), None),
        "sha256": next(iter(digests.values()), None),
        "files": [{"file": str(out), "sha256": digest} for out, digest in digests.items()],
    }
