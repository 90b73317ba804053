"""`forcelift estimate`: what a migration takes, and how long."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import click

from forcelift.cli.options import json_option, plan_option
from forcelift.errors import ExitCode


def _given_rows(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, int]:
    """`TABLE=ROWS`, as often as wanted; digits may be grouped by `,` or `_`."""
    given = {}
    for value in values:
        table, mark, number = value.rpartition("=")
        digits = number.replace(",", "").replace("_", "")
        if not mark or not table or not (digits.isascii() and digits.isdigit()):
            raise click.BadParameter(f"`{value}` is not TABLE=ROWS, such as SALES=261,000,000", ctx, param)
        given[table] = int(digits)
    return given


def _instant(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """A time in ISO 8601; without a zone it is this machine's."""
    if value is None:
        return None
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f"`{value}` is no time such as 2026-12-04T22:00 or 2026-12-04T22:00+07:00", ctx, param
        ) from None
    return instant if instant.tzinfo is not None else instant.astimezone()


@click.command()
@plan_option
@click.option("--table", "tables", multiple=True, metavar="TABLE", help="Only this table; may be given several times")
@click.option(
    "--rows",
    multiple=True,
    callback=_given_rows,
    metavar="TABLE=ROWS",
    help="Rows of a table that are not to be counted; may be given several times",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="ROWS/S",
    help="Rows per second to expect; by default what the plan's newest batch has measured",
)
@click.option(
    "--begin",
    "begins_at",
    callback=_instant,
    metavar="TIME",
    help="When the load begins, such as 2026-12-04T22:00+07:00",
)
@click.option(
    "--statistics", "by_statistics", is_flag=True, help="Take the database's own estimates of rows instead of counting"
)
@click.option("--undo", "is_undo", is_flag=True, help="The same for a rollback of everything that the load creates")
@click.option("--offline", "is_offline", is_flag=True, help="Do not sign in to the org: nothing is said of its limits")
@json_option
def estimate(
    plan_file: Path,
    tables: tuple[str, ...],
    rows: dict[str, int],
    rate: float | None,
    begins_at: datetime | None,
    by_statistics: bool,
    is_undo: bool,
    is_offline: bool,
    as_json: bool,
) -> int:
    """Tell what a load takes, how long

    Rows, chunks, jobs, Salesforce batches, API calls, staged bytes and storage in the org, for each table and in all;
    the shortest time that the org's limits allow, the time to expect, and a calendar. Example:

      forcelift estimate --rows SALES=261,000,000 --rate 4000

    Ends with 1 if the org has too little of something.
    """
    from forcelift.cli.estimate_view import estimate_document, show_estimate
    from forcelift.cli.output import data, print_json
    from forcelift.preflight.estimating import EstimateSettings, estimate_plan

    settings = EstimateSettings(
        tables=tables,
        rows=rows,
        rate=rate,
        begins_at=begins_at,
        by_statistics=by_statistics,
        is_undo=is_undo,
        is_offline=is_offline,
    )
    report = estimate_plan(plan_file, settings)
    if as_json:
        print_json(estimate_document(report))
    else:
        show_estimate(data(), report, plan_file)
    return int(ExitCode.ROWS_REFUSED if report.shortages else ExitCode.DONE)
