"""`forcelift check` and `forcelift checklist`: is everything ready, and who says so."""

from __future__ import annotations

from pathlib import Path

import click

from forcelift.cli.options import json_option, plan_option, project_option, refuse_both
from forcelift.errors import ExitCode


@click.command()
@plan_option
@json_option
def check(plan_file: Path, as_json: bool) -> int:
    """Look whether all is ready for a load

    Named checks of machine, source, audit database, org and plan, each with its figure, what it rests on and what
    mends it. The scorecard is kept in the audit database; `run` asks for it before it loads a production org. Example:

      forcelift check

    Ends with 1 if a check fails.
    """
    from forcelift.before.check import Verdict
    from forcelift.cli.check_view import check_document, show_check
    from forcelift.cli.output import data, print_json
    from forcelift.preflight.checking import check_plan

    report = check_plan(plan_file)
    if as_json:
        print_json(check_document(report))
    else:
        show_check(data(), report, plan_file)
    return int(ExitCode.ROWS_REFUSED if report.of(Verdict.FAIL) else ExitCode.DONE)


@click.group(invoke_without_command=True)
@plan_option
@click.option(
    "--phase",
    type=click.Choice(["before", "during", "after", "all"]),
    default="all",
    show_default=True,
    help="Only the items of this phase",
)
@click.option("--batch", "batch_id", metavar="BATCH", help="The batch that the later phases are about")
@project_option
@json_option
@click.pass_context
def checklist(
    ctx: click.Context, plan_file: Path, phase: str, batch_id: str | None, project: bool, as_json: bool
) -> int:
    """Show what is done before, during, after

    Each item with its state and what that rests on. A load of a production org is refused until each item before it has
    evidence or is waived by name. Example:

      forcelift checklist --phase after

    Ends with 1 while something of the phases shown is open.
    """
    if ctx.invoked_subcommand is not None:
        return int(ExitCode.DONE)
    refuse_both(batch_id, project=project)
    from forcelift.cli.check_view import checklist_document, items_document, show_checklist, show_items
    from forcelift.cli.output import data, print_json
    from forcelift.handover.phase_checklists import after_checklist, during_checklist
    from forcelift.preflight.checklists import before_checklist

    before = before_checklist(plan_file) if phase in ("before", "all") else None
    during = during_checklist(plan_file, batch_id) if phase in ("during", "all") else ()
    after = after_checklist(plan_file, batch_id, project=project) if phase in ("after", "all") else ()
    if as_json:
        document = checklist_document(before) if before is not None else {}
        print_json(
            document | {name: items_document(one) for name, one in (("during", during), ("after", after)) if one}
        )
    else:
        if before is not None:
            show_checklist(data(), before, plan_file)
        for name, items in (("during", during), ("after", after)):
            show_items(data(), name, items)
    items = (*(before.items if before is not None else ()), *during, *after)
    return int(ExitCode.DONE if all(item.is_in_order for item in items) else ExitCode.ROWS_REFUSED)


@checklist.command()
@click.argument("item")
@plan_option
@click.option("--by", required=True, metavar="NAME", help="Who says so")
@click.option("--note", required=True, metavar="TEXT", help="What was done, and when")
def tick(item: str, plan_file: Path, by: str, note: str) -> int:
    """Record what only a person can know

    Example:

      forcelift checklist tick sign_off --by "A. Person" --note "signed on paper, 4 December"
    """
    from forcelift.cli.output import data
    from forcelift.preflight.checklists import tick as record

    made = record(plan_file, item, by=by, note=note)
    data().print(f"{item}: ticked by {made.made_by} (evidence {made.evidence_no})")
    return int(ExitCode.DONE)


@checklist.command()
@click.argument("name")
@plan_option
@click.option("--by", required=True, metavar="NAME", help="Who answers for it")
@click.option("--reason", required=True, metavar="TEXT", help="Why it is done without")
def waive(name: str, plan_file: Path, by: str, reason: str) -> int:
    """Go on without an item, or in spite of a check that failed

    It counts for the plan as it is now and the org that was looked at last, and stands in the journal. Example:

      forcelift checklist waive backup --by "A. Person" --reason "the DBA keeps a full copy"
    """
    from forcelift.cli.output import data
    from forcelift.preflight.checklists import waive as record

    made = record(plan_file, name, by=by, reason=reason)
    data().print(f"{name}: waived by {made.made_by} (evidence {made.evidence_no})")
    return int(ExitCode.DONE)
