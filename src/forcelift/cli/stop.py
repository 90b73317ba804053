"""`forcelift stop`: ask a running batch to stop, from another terminal."""

from __future__ import annotations

from pathlib import Path

import click

from forcelift.cli.options import again, batch_option, json_option, plan_option
from forcelift.cli.steer import check_running


@click.command()
@plan_option
@batch_option
@click.option("--now", is_flag=True, help="Abort the open jobs instead of finishing them; their rows are accounted for")
@click.option("--reason", help="Why, for the journal")
@json_option
def stop(plan_file: Path, batch_id: str | None, now: bool, reason: str | None, as_json: bool) -> None:
    """Stop a running batch; it can be resumed

    What is in flight is finished, and nothing more is begun. The process that runs the batch hears it within about a
    second. Example:

      forcelift stop --reason "the org is needed for something else"
    """
    from forcelift.cli.output import data, print_json
    from forcelift.migration.steering import request_stop

    batch, is_running = request_stop(plan_file, batch_id, now=now, reason=reason)
    resume = again(f"run --resume {batch.batch_id}", plan_file)
    check_running(batch, plan_file, is_running=is_running)
    if as_json:
        print_json({"batch_id": batch.batch_id, "asked": True, "now": now, "reason": reason, "resume_command": resume})
        return
    console = data()
    console.print(f"asked batch {batch.batch_id} to stop" + (" and to abort its open jobs" if now else ""))
    console.print(f"go on later with:  {resume}")
