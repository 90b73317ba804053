"""`forcelift signoff` and `forcelift approve`: who signs, and who consents to what destroys."""

from __future__ import annotations

from pathlib import Path

import click

from forcelift.cli.options import json_option, plan_option
from forcelift.errors import ExitCode, UsageError


@click.group(invoke_without_command=True)
@plan_option
@click.option("--phase", type=click.Choice(["before", "after"]), help="Before the migration, or after it")
@click.option("--role", metavar="ROLE", help="One of the plan's `roles.sign_off`")
@click.option("--name", metavar="NAME", help="Who signs")
@click.option("--note", default="", metavar="TEXT", help="What is to stand beside the signature")
@click.option("--batch", "batch_id", metavar="BATCH", help="The batch; with `--phase after` by default the newest")
@click.option("--project", is_flag=True, help="With `--phase after`: all batches of the plan's project together")
@click.option("--without", multiple=True, metavar="WHAT", help="Sign though this is missing or out of date")
@click.option("--because", default="", metavar="TEXT", help="Why, with `--without`")
@json_option
@click.pass_context
def signoff(
    ctx: click.Context,
    plan_file: Path,
    phase: str | None,
    role: str | None,
    name: str | None,
    note: str,
    batch_id: str | None,
    project: bool,
    without: tuple[str, ...],
    because: str,
    as_json: bool,
) -> int:
    """Sign off, before and after

    `before` binds the plan and the newest check, profile and estimate of it; `after` binds the newest report and the
    data. What is bound is kept as digests, so that later changes show. The journal's head that is printed belongs
    somewhere else, such as on the signed paper: `audit verify --head` asks for it. Example:

      forcelift signoff --phase after --role DBA --name "A. Person"
    """
    if ctx.invoked_subcommand is not None:
        return int(ExitCode.DONE)
    if phase is None or role is None or name is None:
        raise UsageError(
            "`--phase`, `--role` and `--name` are needed",
            state="nothing was signed",
            hint='such as `forcelift signoff --phase before --role DBA --name "A. Person"`; `signoff list` shows them',
        )
    from forcelift.cli.output import data, print_json
    from forcelift.cli.signoff_view import show_signed, signed_document
    from forcelift.handover.signing import SignOffAsked, sign_off

    if project and phase == "before":
        raise UsageError("before a migration a sign-off is the project's anyway", hint="leave `--project` out")
    asked = SignOffAsked(
        phase=phase,
        role=role,
        name=name,
        note=note,
        batch_id=batch_id,
        project=project,
        without=without,
        because=because,
    )
    signed = sign_off(plan_file, asked)
    if as_json:
        print_json(signed_document(signed))
    else:
        show_signed(data(), signed, plan_file)
    return int(ExitCode.DONE)


@signoff.command("list")
@plan_option
@json_option
def list_(plan_file: Path, as_json: bool) -> int:
    """Show who signed what, and what has changed since

    Ends with 1 if a sign-off is out of date. Example:

      forcelift signoff list
    """
    from forcelift.cli.output import data, print_json
    from forcelift.cli.signoff_view import list_document, show_list
    from forcelift.handover.signing import list_sign_offs

    found = list_sign_offs(plan_file)
    if as_json:
        print_json(list_document(found))
    else:
        show_list(data(), found)
    return int(ExitCode.ROWS_REFUSED if any(one.is_stale for one in found.standing) else ExitCode.DONE)


@signoff.command()
@click.argument("number", type=click.IntRange(min=1))
@plan_option
@click.option("--because", required=True, metavar="TEXT", help="Why; it stands in the journal")
@json_option
def withdraw(number: int, plan_file: Path, because: str, as_json: bool) -> int:
    """Take a sign-off back

    It stays readable, with the reason. Example:

      forcelift signoff withdraw 3 --because "the totals of March are wrong"
    """
    from forcelift.cli.output import data, print_json
    from forcelift.cli.signoff_view import withdrawn_document
    from forcelift.handover.signing import withdraw as take_back

    row = take_back(plan_file, number, because=because)
    if as_json:
        print_json(withdrawn_document(row))
    else:
        data().print(f"sign-off {number} ({row.phase}, {row.role}, {row.name}) was withdrawn by {row.withdrawn_by}")
    return int(ExitCode.DONE)


@click.command()
@click.argument("number", type=click.IntRange(min=1), metavar="REQUEST", required=False)
@plan_option
@click.option("--name", metavar="NAME", help="Who consents")
@click.option("--note", default="", metavar="TEXT", help="What is to stand beside the consent")
@click.option("--valid-hours", type=click.IntRange(1, 168), default=24, show_default=True, help="How long it holds")
@click.option(
    "--shared-login",
    is_flag=True,
    help="Consent at the login that asked, where people share one: it then rests on the name alone, and says so",
)
@json_option
def approve(
    number: int | None,
    plan_file: Path,
    name: str | None,
    note: str,
    valid_hours: int,
    shared_login: bool,
    as_json: bool,
) -> int:
    """Consent to what destroys, as second

    Without a number the requests are listed that wait. A consent holds for exactly what was asked for, once, and for
    some hours. Example:

      forcelift approve 2 --name "B. Person"
    """
    from forcelift.account.consents import Approval, give_consent, waiting_consents
    from forcelift.cli.output import data, print_json
    from forcelift.cli.signoff_view import consent_document, show_consent, show_consents

    if number is None:
        waiting = waiting_consents(plan_file)
        if as_json:
            print_json({"waiting": [consent_document(one) for one in waiting]})
        else:
            show_consents(data(), waiting, plan_file)
        return int(ExitCode.DONE)
    if name is None:
        raise UsageError("who consents has a name", state="nothing was changed", hint="say it by `--name`")
    approval = Approval(number=number, name=name, note=note, hours=valid_hours, shared_login=shared_login)
    given = give_consent(plan_file, approval)
    if as_json:
        print_json(consent_document(given))
    else:
        show_consent(data(), given)
    return int(ExitCode.DONE)
