"""`forcelift audit`: is the audit database whole, and which tables does it need?"""

from __future__ import annotations

from pathlib import Path

import click

from forcelift.cli.options import json_option, plan_option
from forcelift.errors import ExitCode, UsageError


@click.group()
def audit() -> None:
    """Look after the audit database"""


_FILE = click.Path(dir_okay=False, path_type=Path)


@audit.command()
@plan_option
@click.option(
    "--head", "heads", multiple=True, metavar="HASH", help="A head that was printed earlier, as at a sign-off"
)
@click.option("--report", "reports", multiple=True, type=_FILE, metavar="FILE", help="A report, wherever it is now")
@click.option("--signed-head", type=_FILE, metavar="FILE", help="A head that `audit head --out` wrote, and ...")
@click.option("--signature", type=_FILE, metavar="FILE", help="... its signature by a key from outside, and ...")
@click.option("--public-key", type=_FILE, metavar="FILE", help="... that key's public half (Ed25519)")
@json_option
def verify(
    plan_file: Path,
    heads: tuple[str, ...],
    reports: tuple[Path, ...],
    signed_head: Path | None,
    signature: Path | None,
    public_key: Path | None,
    as_json: bool,
) -> int:
    """Look for changes made past the program

    Follows the journal's hash chain from its first row to its recorded head, and to each head that is given; compares
    every audit row with its digest there; every ledger, image and staged file with its seal; every report and sign-off.
    Neither source nor org is asked. Exit code 1 if anything differs. Examples:

      forcelift audit verify

      forcelift audit verify --head 5f0c...  --report report.md
    """
    from forcelift.cli.audit_view import proof_document, show_proof
    from forcelift.cli.output import data, print_json
    from forcelift.handover.proving import Asked, prove

    asked = Asked(heads=heads, reports=reports, signed_head=signed_head, signature=signature, public_key=public_key)
    proof = prove(plan_file, asked)
    code = ExitCode.ROWS_REFUSED if proof.faults else ExitCode.DONE
    if as_json:
        print_json({**proof_document(proof), "exit_code": code})
    else:
        show_proof(data(), proof)
    return int(code)


@audit.command()
@plan_option
@click.option("--out", type=_FILE, metavar="FILE", help="Write it to this new file, to be kept or signed elsewhere")
@click.option("--sign-with", type=_FILE, metavar="KEY", help="Sign the file with this private Ed25519 key, as FILE.sig")
@json_option
def head(plan_file: Path, out: Path | None, sign_with: Path | None, as_json: bool) -> int:
    """Print the journal's head, or write it to be signed

    Who keeps the head, or its signature by a key that this machine does not have, can tell later whether a row before
    it was changed or the journal was cut off. Examples:

      forcelift audit head

      forcelift audit head --out head.json && openssl pkeyutl -sign -rawin -in head.json -inkey key.pem -out head.sig
    """
    from forcelift.cli.output import data, print_json
    from forcelift.handover.proving import head_statement, write_head

    if out is None:
        if sign_with is not None:
            raise UsageError("`--sign-with` signs the file of `--out`", hint="name it")
        text = head_statement(plan_file).decode()
        click.echo(text, nl=False) if as_json else _show_head(text)
        return ExitCode.DONE
    signature = write_head(plan_file, out, sign_with=sign_with)
    if as_json:
        print_json({"file": str(out), "signature": str(signature) if signature is not None else None})
    else:
        data().print(f"{out}" + (f", signature {signature}" if signature is not None else ""))
    return ExitCode.DONE


def _show_head(text: str) -> None:
    import json

    from forcelift.cli.output import data

    document = json.loads(text)
    data().print(f"row {document['seq']}, {document['hash']}")


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


@audit.command()
@plan_option
@click.option(
    "--format", "form", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True,
    help="CSV is neutralised for spreadsheets; Parquet has the texts as they are",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, metavar="DIR", help="A new folder"
)
@json_option
def export(plan_file: Path, form: str, out: Path, as_json: bool) -> int:
    """Hand all audit tables out, with a manifest of digests

    One file for each table, in one state of the database, and `manifest.json` with the SHA-256 of each and the
    journal's head. Refused rows are in it as the plan's `retention.record_data` keeps them. Example:

      forcelift audit export --format parquet --out for-the-auditor
    """
    from forcelift.cli.audit_view import export_document, show_export
    from forcelift.cli.output import data, print_json
    from forcelift.handover.exporting import export_audit

    made = export_audit(plan_file, out, form=form)
    if as_json:
        print_json(export_document(made))
    else:
        show_export(data(), made)
    return int(ExitCode.DONE)


@audit.command()
@plan_option
@click.option("--batch", "batch_id", metavar="BATCH", help="This batch")
@click.option("--older-than", metavar="DAYS", help="All batches that ended longer ago, such as 90d")
@click.option("--no-way-back", is_flag=True, help="Know that they can then not be rolled back, retried or validated")
@click.option("--reason", default="", metavar="TEXT", help="Why, for the journal; needed with `--execute`")
@click.option("--execute", is_flag=True, help="Do it; without it, show what would go and change nothing")
@json_option
def purge(
    plan_file: Path,
    batch_id: str | None,
    older_than: str | None,
    no_way_back: bool,
    reason: str,
    execute: bool,
    as_json: bool,
) -> int:
    """Remove personal data of batches that are through

    Keys, values and messages of refused rows, keys and Ids of the ledger, staged files, before-images and files of
    rollbacks go. Sums, codes, outcomes, digests and the journal stay, so that `audit verify` tells purged from lost.
    Exports and reports that were written elsewhere are yours to remove. Example:

      forcelift audit purge --older-than 90d --execute --no-way-back --reason "retention time"
    """
    from forcelift.cli.audit_view import purge_document, show_purge
    from forcelift.cli.output import data, notes, print_json
    from forcelift.handover.purging import PurgeAsked, parse_age, purge_batches

    asked = PurgeAsked(
        batch_id=batch_id,
        older_than=parse_age(older_than) if older_than is not None else None,
        execute=execute,
        no_way_back=no_way_back,
        reason=reason,
    )
    report = purge_batches(plan_file, asked, told=notes().print)
    if as_json:
        print_json(purge_document(report))
    else:
        show_purge(data(), report)
    return int(ExitCode.DONE)
