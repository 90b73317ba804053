"""`forcelift audit`: is the audit database whole, and which tables does it need?"""

from __future__ import annotations

from pathlib import Path

import click

from forcelift.cli.options import json_option, plan_option
from forcelift.errors import ExitCode, UsageError


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
    "--dialect", type=click.Choice(["sqlite", "postgresql", "oracle"]),
    help="The database that the statements are for; by default SQLite",
)  # fmt: skip
@click.option("--apply", "apply_it", is_flag=True, help="Make the tables in the audit database of the plan")
@plan_option
@json_option
def ddl(dialect: str | None, apply_it: bool, plan_file: Path, as_json: bool) -> int:
    """Print the statements that make the audit tables, or make the tables

    `run` makes them by itself in an empty database; printed, they are for reading, and for a database administrator.
    With `--apply` they are made where `audit.url` of the plan says; in an Oracle schema also beside the tables of other
    programs. Tables that are there already stay as they are. Examples:

      forcelift audit ddl --dialect oracle > audit.sql

      forcelift audit ddl --apply
    """
    from forcelift.cli.output import data, print_json

    if apply_it and dialect is not None:
        raise UsageError(
            "`--dialect` goes with printing; `--apply` takes the database from the plan", hint="leave one of them out"
        )
    if not apply_it:
        from forcelift.audit.definitions import script

        text = script(dialect or "sqlite")
        if as_json:
            print_json({"dialect": dialect or "sqlite", "statements": text, "exit_code": ExitCode.DONE})
        else:
            click.echo("".join(f"{statement};\n\n" for statement in text), nl=False)
        return ExitCode.DONE
    made, where = _make_tables(plan_file)
    if as_json:
        print_json({"database": where, "made": made, "exit_code": ExitCode.DONE})
    else:
        words = "the audit tables were made in" if made else "the audit tables are there already, in"
        data().print(f"{words} {where}")
    return ExitCode.DONE


def _make_tables(plan_file: Path) -> tuple[bool, str]:
    """Make the plan's audit tables unless they are there; whether they were made, and where."""
    from forcelift.audit import AuditStore
    from forcelift.plan import load_plan
    from forcelift.protocols.clock import SystemClock

    with AuditStore.open(load_plan(plan_file).audit_url(), clock=SystemClock(), beside_others=True) as store:
        return store.made_tables, store.where
