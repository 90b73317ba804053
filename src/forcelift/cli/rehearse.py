"""`forcelift rehearse`: load a twin of the plan's org, and foretell what would fail."""

from __future__ import annotations

from pathlib import Path

import click

from forcelift.cli.options import json_option, plan_option
from forcelift.errors import ExitCode


@click.command()
@plan_option
@click.option("--table", "tables", multiple=True, metavar="TABLE", help="Only this table; may be given several times")
@click.option("--sample-percent", metavar="P", help="Only P percent of each table's keys, with all their parents")
@click.option("--prepared", "is_prepared", is_flag=True, help="As after `prepare`: what it switches off does not act")
@click.option(
    "--export-keys",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the keys of all rows that would fail, as CSV",
)
@click.option("--keep", is_flag=True, help="Leave the twin and its audit database, to look into them")
@json_option
def rehearse(
    plan_file: Path,
    tables: tuple[str, ...],
    sample_percent: str | None,
    is_prepared: bool,
    export_keys: Path | None,
    keep: bool,
    as_json: bool,
) -> int:
    """Load a twin to foretell faults

    Takes the org's describes, automations and the keys that lookups go by, makes a twin of them, loads the plan into
    it, and tells what would fail, by code, field and rule. Nothing is written to the org. What the twin cannot act
    out (Apex, flows, some formulas) is told first. Example:

      forcelift rehearse --sample-percent 1

    Ends with 1 if a row would fail, or if that cannot be known for certain.
    """
    from forcelift.cli.output import data, notes, print_json
    from forcelift.cli.rehearse_view import rehearsal_document, show_rehearsal
    from forcelift.rehearsing import RehearseSettings, rehearse_plan

    settings = RehearseSettings(
        tables=tables,
        sample_percent=sample_percent,
        is_prepared=is_prepared,
        export_keys=export_keys,
        keep=keep,
    )
    report = rehearse_plan(plan_file, settings, told=notes().print)
    if as_json:
        print_json(rehearsal_document(report))
    else:
        show_rehearsal(data(), report, plan_file)
    return int(ExitCode.ROWS_REFUSED if report.fails or report.cannot_know else ExitCode.DONE)
