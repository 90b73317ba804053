"""`forcelift audit`: is the audit database whole, and which tables does it need?"""

from __future__ import annotations

from pathlib import Path

import click

from forcelift.cli.options import json_option, plan_option
from forcelift.errors import ExitCode


@click.group()
def audit() -> None:
    """Look after the audit database"""


@audit.command()
@plan_option
@json_option
def verify(plan_file: Path, as_json: bool) -> int:
    """Look for changes made past the program

    Follows the journal's hash chain from its first row to its recorded head, compares each audit row with its digest
    there, and each ledger file with its seal. Exit code 1 if anything differs. Example:

      forcelift audit verify
    """
    from forcelift.cli.output import data, plural, print_json
    from forcelift.recorded import ledger_faults, open_recorded

    with open_recorded(plan_file) as (_, state):
        faults = state.audit.verify_journal()
        faults += ledger_faults(state)
        head = state.audit.journal_head()
    code = ExitCode.ROWS_REFUSED if faults else ExitCode.DONE
    if as_json:
        print_json({"is_whole": not faults, "rows": head.seq, "head": head.hash, "faults": faults, "exit_code": code})
        return code
    console = data()
    for fault in faults:
        console.print(f"- {fault}")
    verdict = f"{plural(len(faults), 'fault')} found" if faults else "the journal is whole, and so is the ledger"
    console.print(f"{verdict}: {plural(head.seq, 'row')}, head {head.hash}")
    return code


@audit.command()
@click.option(
    "--dialect", type=click.Choice(["sqlite", "postgresql", "oracle"]), default="sqlite", show_default=True,
    help="The database that the statements are for",
)  # fmt: skip
def ddl(dialect: str) -> None:
    """Print the statements that make the audit tables

    Forcelift makes its own SQLite file; this is for reading, and for a database administrator. Example:

      forcelift audit ddl --dialect oracle > audit.sql
    """
    import sqlalchemy as sa
    from sqlalchemy.schema import CreateIndex, CreateTable

    from forcelift.audit import tables

    speaks = sa.engine.url.URL.create(dialect).get_dialect()()
    for table in tables.metadata.sorted_tables:
        click.echo(str(CreateTable(table).compile(dialect=speaks)).strip() + ";\n")
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            click.echo(str(CreateIndex(index).compile(dialect=speaks)).strip() + ";\n")
