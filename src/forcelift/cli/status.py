"""`forcelift status`: batches, and what became of the rows of one of them, from the audit database and the ledger."""

from __future__ import annotations

from pathlib import Path

import click

from forcelift.cli.options import batch_option, json_option, plan_option


@click.command()
@plan_option
@batch_option
@json_option
def status(plan_file: Path, batch_id: str | None, as_json: bool) -> None:
    """Show what became of each batch's rows

    Reads the audit database only, so it may be asked at any time, also while a batch runs. Example:

      forcelift status --batch 20260131T220000Z-a1b2c3
    """
    from forcelift.cli.output import data, print_json
    from forcelift.cli.status_view import show_batch, show_batches, show_switched_off, status_document
    from forcelift.recorded import batch_status

    if as_json:
        print_json(status_document(batch_status(plan_file, batch_id), plan_file))
        return
    console = data()
    seen = batch_status(
        plan_file, batch_id, on_switched_off=lambda states: show_switched_off(console, states, plan_file)
    )
    if batch_id is None:
        show_batches(console, seen.batches, seen.samples)
    show_batch(console, seen, plan_file)
