"""`forcelift pause`, `resume` and `throttle`: steer a running batch from another terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from forcelift.cli.options import again, batch_option, json_option, plan_option
from forcelift.errors import StateConflict

if TYPE_CHECKING:
    from forcelift.audit.records import Batch

reason_option = click.option("--reason", help="Why, for whoever looks at the status")


def check_running(batch: Batch, plan_file: Path, *, is_running: bool) -> None:
    """Raise `StateConflict` if nobody is there to hear what is asked."""
    if not is_running:
        raise StateConflict(
            f"no process is at work on batch `{batch.batch_id}`, which is {batch.state.value}",
            state="nothing was changed",
            hint=f"`{again(f'status --batch {batch.batch_id}', plan_file)}` shows how far it came",
        )


def _tell(batch: Batch, sentence: str, *, as_json: bool, **asked: object) -> None:
    from forcelift.cli.output import data, print_json

    if as_json:
        print_json({"batch_id": batch.batch_id, "asked": True, **asked})
    else:
        data().print(sentence)


@click.command()
@plan_option
@batch_option
@reason_option
@json_option
def pause(plan_file: Path, batch_id: str | None, reason: str | None, as_json: bool) -> None:
    """Pause a running batch until `resume`

    Nothing more is begun. Open jobs are finished and accounted for; the process stays and waits. Example:

      forcelift pause --reason "month end until 18:00"
    """
    from forcelift.migration.steering import request_pause

    batch, is_running = request_pause(plan_file, batch_id, reason=reason)
    check_running(batch, plan_file, is_running=is_running)
    go_on = again(f"resume --batch {batch.batch_id}", plan_file)
    _tell(
        batch,
        f"asked batch {batch.batch_id} to pause\ngo on with:  {go_on}",
        as_json=as_json,
        paused=True,
        reason=reason,
    )


@click.command()
@plan_option
@batch_option
@reason_option
@json_option
def resume(plan_file: Path, batch_id: str | None, reason: str | None, as_json: bool) -> None:
    """Let a paused batch go on

    A batch whose process has ended goes on with `run --resume` instead. Example:

      forcelift resume
    """
    from forcelift.migration.steering import request_resume

    batch, is_running = request_resume(plan_file, batch_id, reason=reason)
    if not is_running:
        raise StateConflict(
            f"no process is at work on batch `{batch.batch_id}`, which is {batch.state.value}",
            state="nothing was changed",
            hint=f"to go on with it: `{again(f'run --resume {batch.batch_id}', plan_file)}`",
        )
    _tell(batch, f"asked batch {batch.batch_id} to go on", as_json=as_json, paused=False, reason=reason)


@click.command()
@plan_option
@batch_option
@click.option("--jobs", type=click.IntRange(min=1), help="Most jobs open at once; without it the throttle is lifted")
@reason_option
@json_option
def throttle(plan_file: Path, batch_id: str | None, jobs: int | None, reason: str | None, as_json: bool) -> None:
    """Let a running batch have fewer jobs

    That is, open at once. The plan's `limits.parallel_jobs` stays the ceiling; open jobs above the number are
    finished. Example:

      forcelift throttle --jobs 1 --reason "users complain"
    """
    from forcelift.audit.records import jobs_at_once
    from forcelift.migration.steering import request_throttle

    batch, is_running = request_throttle(plan_file, batch_id, jobs=jobs, reason=reason)
    check_running(batch, plan_file, is_running=is_running)
    wanted = jobs_at_once(jobs) if jobs is not None else "as many jobs at once as the plan allows"
    _tell(batch, f"asked batch {batch.batch_id} for {wanted}", as_json=as_json, jobs=jobs, reason=reason)
