"""`forcelift profile`: what the rows are like and what a run would do with them; and findings that people accept."""

from __future__ import annotations

from pathlib import Path

import click

from forcelift.cli.options import json_option, plan_option


@click.group(invoke_without_command=True)
@plan_option
@click.option("--table", "tables", metavar="TABLE", multiple=True, help="Only this table; may be given several times")
@click.option(
    "--sample-percent",
    metavar="PERCENT",
    help="Read only so much of each table, evenly from its first to its last rows",
)
@click.option("--all-columns", is_flag=True, help="Search columns that the plan does not load for defects, too")
@click.option(
    "--export-keys",
    "export",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write the keys of all rows with a finding as CSV files into this new folder",
)
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a page with all figures and plots; it needs no network",
)
@json_option
@click.pass_context
def profile(
    context: click.Context,
    plan_file: Path,
    tables: tuple[str, ...],
    sample_percent: str | None,
    all_columns: bool,
    export: Path | None,
    page: Path | None,
    as_json: bool,
) -> int | None:
    """Find what would fail, beforehand

    Has the plan's own rules judge the rows of each table: how many would be rejected, dropped or changed and why, with
    examples; and says what the columns are like, by SQL where the source is a database. Ends with 1 while a finding is
    neither mended nor accepted.
    Example:

      forcelift profile --html profile.html
    """
    if context.invoked_subcommand is not None:
        return None
    from forcelift.cli.output import data, notes, print_json
    from forcelift.cli.profile_view import show_profile
    from forcelift.preflight.profiling import ProfileSettings, check_page, exit_code, profile_plan, write_page

    if page is not None:
        check_page(page)
    settings = ProfileSettings(tables=tables, sample_percent=sample_percent, all_columns=all_columns, export=export)
    found = profile_plan(plan_file, settings, tell=notes().print)
    if page is not None:
        write_page(found, page)
    if as_json:
        print_json(found.document())
    else:
        show_profile(data(), found, plan_file=plan_file, page=page, export=export)
    return int(exit_code(found))


@profile.command()
@plan_option
@click.argument("name")
@click.option("--by", required=True, help="Who accepts it")
@click.option("--reason", required=True, help="Why")
@json_option
def accept(plan_file: Path, name: str, by: str, reason: str, as_json: bool) -> None:
    """Accept a finding of the newest profile

    It stays accepted as long as it has no more rows than now. Example:

      forcelift profile accept KPS_T_SALES_MD.SALES_AMOUNT.negative --by "QA Lead" --reason "refunds"
    """
    from forcelift.cli.output import data, plural, print_json
    from forcelift.preflight.profiling import accept_finding

    row = accept_finding(plan_file, name, by=by, reason=reason)
    if as_json:
        print_json(
            {
                "finding": row.finding,
                "rows": row.found_rows,
                "profile_id": row.profile_id,
                "accepted_by": row.accepted_by,
                "reason": row.reason,
                "accepted_at": row.accepted_at.isoformat(),
            }
        )
    else:
        data().print(f"{row.finding}: {plural(row.found_rows, 'row')} accepted by {row.accepted_by}; {row.reason}")


@profile.command()
@plan_option
@click.argument("name")
@click.option("--by", required=True, help="Who withdraws it")
def reopen(plan_file: Path, name: str, by: str) -> None:
    """Withdraw what was accepted

    Example:

      forcelift profile reopen KPS_T_SALES_MD.SALES_AMOUNT.negative --by "QA Lead"
    """
    from forcelift.cli.output import data
    from forcelift.preflight.profiling import reopen_finding

    reopen_finding(plan_file, name, by=by)
    data().print(f"{name} is open again")
