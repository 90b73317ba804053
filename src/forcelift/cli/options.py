"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from forcelift.errors import UsageError

DEFAULT_PLAN: Final = "forcelift.yaml"

plan_option = click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path),
    default=Path(DEFAULT_PLAN),
    show_default=True,
    envvar="FORCELIFT_PLAN",
    show_envvar=True,
    help="The plan file",
)
batch_option = click.option("--batch", "batch_id", metavar="BATCH", help="The batch; by default the plan's newest")
project_option = click.option(
    "--project",
    "project",
    is_flag=True,
    help="Instead of a batch: all batches of the plan's project, each row counted once",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout")


def refuse_both(batch_id: str | None, *, project: bool) -> None:
    """Raise `UsageError` where a batch and the project are both asked for."""
    if project and batch_id is not None:
        raise UsageError(
            f"both batch `{batch_id}` and the whole project are asked for",
            state="nothing was read or written",
            hint="leave out the batch, or `--project`",
        )


def again(command: str, plan_file: Path) -> str:
    """A command line that a person can copy, with the plan named where it is not the default."""
    named = "" if plan_file == Path(DEFAULT_PLAN) else f" --plan {plan_file}"
    return f"forcelift {command}{named}"
