"""`forcelift validate`: compare what a batch sent with what the org has."""

from __future__ import annotations

from pathlib import Path

import click

from forcelift.cli.options import json_option, plan_option, project_option, refuse_both
from forcelift.errors import Interrupted


@click.command()
@plan_option
@click.argument("batch_id", metavar="[BATCH]", required=False)
@click.option(
    "--level", "level", type=click.IntRange(1, 5), multiple=True, help="One level; may be given several times"
)
@click.option("--levels", "levels", metavar="LIST", help="Levels such as `1,2,5`, `1-4` or `all`  [default: 1-4]")
@click.option("--table", "tables", metavar="TABLE", multiple=True, help="Only this table; may be given several times")
@click.option(
    "--sample", "sample_rows", type=click.IntRange(1), default=100, show_default=True, help="Keys that level 3 draws"
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which keys: the same seed draws the same")
@click.option(
    "--tolerance",
    metavar="PERCENT",
    default="0.01",
    show_default=True,
    help="Level 2: sums and averages may differ by less than this",
)
@click.option(
    "--named",
    "named_max",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Level 5: of how many records each field is named; all are counted",
)
@project_option
@json_option
def validate(
    plan_file: Path,
    batch_id: str | None,
    level: tuple[int, ...],
    levels: str | None,
    tables: tuple[str, ...],
    sample_rows: int,
    seed: int,
    tolerance: str,
    named_max: int,
    project: bool,
    as_json: bool,
) -> int:
    """Prove what the org has

    It is compared with what the batch sent: 1 counts, 2 aggregates, 3 samples, 4 business rules, 5 every field of
    every row. Ends with 1 on any difference. With `--project` each record is compared with the newest row that any
    batch of the project has sent of it. Example:

      forcelift validate --levels all
    """
    from forcelift.after.validate.world import ValidateSettings
    from forcelift.cli.output import data, notes, print_json
    from forcelift.cli.validate_view import show_project_validation, show_validation
    from forcelift.validating.batch import Validated, parse_levels, percent_setting, validate_batch
    from forcelift.validating.project import ProjectValidated, validate_project

    refuse_both(batch_id, project=project)
    settings = ValidateSettings(
        levels=tuple(sorted({*level, *(parse_levels(levels) if levels else ())})) or (1, 2, 3, 4),
        tables=tables,
        variance_percent=percent_setting(tolerance),
        sample_rows=sample_rows,
        seed=seed,
        named_max=named_max,
    )
    console = notes()
    validated: Validated | ProjectValidated
    try:
        if project:
            validated = validate_project(plan_file, settings, tell=console.print)
        else:
            validated = validate_batch(plan_file, batch_id, settings, tell=console.print)
    except KeyboardInterrupt:
        raise Interrupted(
            "stopped before all levels were done",
            state="nothing was changed in source or org; levels that were done are written down",
            hint="run the same command again: what was read of the org is not read again",
        ) from None
    if as_json:
        print_json(validated.document())
    elif isinstance(validated, ProjectValidated):
        show_project_validation(data(), validated)
    else:
        show_validation(data(), validated)
    return int(validated.exit_code)
