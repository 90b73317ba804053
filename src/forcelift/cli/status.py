"""`forcelift status`: batches, and what became of the rows of one of them, from the audit database and the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from forcelift.cli.options import batch_option, json_option, plan_option, project_option, refuse_both
from forcelift.errors import StateConflict

if TYPE_CHECKING:
    from forcelift.audit import OrgState


@click.command()
@plan_option
@batch_option
@project_option
@json_option
def status(plan_file: Path, batch_id: str | None, project: bool, as_json: bool) -> None:
    """Show what became of each batch's rows

    Reads the audit database only, so it may be asked at any time, also while a batch runs. Example:

      forcelift status --batch 20260131T220000Z-a1b2c3
    """
    from forcelift.account.recorded import batch_status, project_status
    from forcelift.cli.output import data, print_json
    from forcelift.cli.status_view import (
        off_document,
        show_batch,
        show_batches,
        show_switched_off,
        status_document,
    )

    refuse_both(batch_id, project=project)
    console = data()
    off: list[OrgState] = []

    def switched_off(states: Sequence[OrgState]) -> None:
        off.extend(states)
        if not as_json:
            show_switched_off(console, states, plan_file)

    if project:
        from forcelift.cli.project_view import project_document, show_project

        found = project_status(plan_file, on_switched_off=switched_off)
        if as_json:
            print_json(project_document(found))
        else:
            show_project(console, found)
        return
    try:
        seen = batch_status(plan_file, batch_id, on_switched_off=switched_off)
    except StateConflict:
        # What is off is told where there is no batch yet, too: the load that wants it so may begin later.
        if as_json and off:
            print_json({"batches": [], "batch": None, "automations_off": [off_document(one) for one in off]})
        raise
    if as_json:
        print_json(status_document(seen, plan_file))
        return
    if batch_id is None:
        show_batches(console, seen.batches, seen.samples)
    show_batch(console, seen, plan_file)
    if seen.sign_offs:
        from forcelift.cli.signed_lines import show_sign_offs

        show_sign_offs(console, seen.sign_offs)
