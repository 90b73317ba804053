"""How `forcelift signoff` and `forcelift approve` look, on a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from forcelift.account.signed import SignOff
from forcelift.audit.consents import Consent
from forcelift.audit.signoffs import SignOffRow
from forcelift.cli.options import again
from forcelift.cli.output import table_lines
from forcelift.handover.signing import Signed, SignOffList, login_of


def signed_document(signed: Signed) -> dict[str, Any]:
    """The document of `signoff --json`; described in docs/reference/cli.md."""
    row = signed.row
    return {
        **_row_document(row),
        "binds": dict(row.binds),
        "binds_sha256": row.binds_sha256,
        "head": {"seq": signed.head.seq, "hash": signed.head.hash},
        "lacking": list(signed.lacking),
    }


def list_document(found: SignOffList) -> dict[str, Any]:
    """The document of `signoff list --json`."""
    return {
        "project": found.project,
        "roles": list(found.roles),
        "sign_offs": [sign_off_document(one) for one in found.standing],
        "withdrawn": [withdrawn_document(row) for row in found.withdrawn],
    }


def sign_off_document(one: SignOff) -> dict[str, Any]:
    """One sign-off with what has changed since."""
    return {
        "number": one.number,
        "phase": one.phase,
        "batch_id": one.batch_id,
        "role": one.role,
        "name": one.name,
        "note": one.note,
        "at": one.at.isoformat(),
        "typed_by": login_of(one.typed_by),
        "is_stale": one.is_stale,
        "why_stale": one.why_stale,
    }


def withdrawn_document(row: SignOffRow) -> dict[str, Any]:
    """One sign-off that was taken back."""
    at = row.withdrawn_at
    return {
        **_row_document(row),
        "withdrawn_at": at.isoformat() if at is not None else None,
        "withdrawn_by": row.withdrawn_by,
        "because": row.withdrawn_because,
    }


def _row_document(row: SignOffRow) -> dict[str, Any]:
    return {
        "number": row.sign_off_no,
        "phase": row.phase,
        "batch_id": row.batch_id,
        "role": row.role,
        "name": row.name,
        "note": row.note,
        "at": row.signed_at.isoformat(),
        "typed_by": login_of(row.typed_by),
    }


def show_signed(console: Console, signed: Signed, plan_file: Path) -> None:
    """What was signed, what it binds, and the head to keep."""
    row = signed.row
    console.print(
        Text.assemble(
            (f"signed: {row.phase} the migration, {row.role}, {row.name}", "bold"),
            f", {row.signed_at:%Y-%m-%d %H:%M:%S} UTC (sign-off {row.sign_off_no})",
        )
    )
    for line in _bound(row):
        console.print(f"  {line}")
    console.print(
        f"  typed at the login {login_of(row.typed_by)}; the name is what was typed there, and proves no more"
    )
    for role in signed.lacking:
        console.print(f"  still to sign: {role}")
    console.print(f"journal head: row {signed.head.seq}, {signed.head.hash}")
    console.print(f"keep it elsewhere; later:  {again(f'audit verify --head {signed.head.hash}', plan_file)}")


def _bound(row: SignOffRow) -> list[str]:
    binds, lines = row.binds, []
    if row.phase == "before":
        lines.append(f"plan {binds['plan']['sha256']}")
        for kind in ("check", "profile", "estimate"):
            if kind in binds:
                one = binds[kind]
                passed = {True: "passed", False: "NOT passed", None: "recorded"}[one["passed"]]
                lines.append(f"{kind}: evidence {one['evidence']} of {one['made_at'][:16]} UTC, {passed}")
    else:
        for batch_id, tables in binds["data"].items():
            lines.append(f"batch {batch_id}: the data of {len(tables)} tables")
        if "report" in binds:
            lines.append(f"report {binds['report']['file']}, sha256 {binds['report']['sha256']}")
    return lines + [f"WITHOUT {what}: {why}" for what, why in binds["without"].items()]


def show_list(console: Console, found: SignOffList) -> None:
    """Role by role; what is out of date with the reason."""
    rows = [
        (str(one.number), one.phase, one.batch_id or "-", one.role, one.name, f"{one.at:%Y-%m-%d %H:%M}", _state(one))
        for one in found.standing
    ]
    for row in found.withdrawn:
        at = f"{row.signed_at:%Y-%m-%d %H:%M}"
        rows.append(
            (str(row.sign_off_no), row.phase, row.batch_id or "-", row.role, row.name, at,
             f"withdrawn: {row.withdrawn_because}")
        )  # fmt: skip
    if not rows:
        console.print(f"{found.project}: nobody has signed")
        return
    headers = ("no", "phase", "batch", "role", "name", "signed (UTC)", "state")
    for line in table_lines(headers, rows, left=(0, 1, 2, 3, 4, 5, 6)):
        console.print(line)


def _state(one: SignOff) -> str:
    return "stands" if one.why_stale is None else f"OUT OF DATE: {one.why_stale}"


def consent_document(one: Consent) -> dict[str, Any]:
    """The document of `approve --json`."""
    return {
        "request": one.consent_no,
        "step": one.step,
        "subject": one.subject,
        "details": dict(one.details),
        "sha256": one.sha256,
        "asked_by": login_of(one.asked_by),
        "asked_at": one.asked_at.isoformat(),
        "name": one.name,
        "typed_by": login_of(one.typed_by) if one.typed_by is not None else None,
        "shared_login": one.shared_login,
        "approved_at": one.approved_at.isoformat() if one.approved_at is not None else None,
        "expires_at": one.expires_at.isoformat() if one.expires_at is not None else None,
        "used_at": one.used_at.isoformat() if one.used_at is not None else None,
    }


def show_consents(console: Console, waiting: Sequence[Consent], plan_file: Path) -> None:
    """The requests that wait for a second person."""
    if not waiting:
        console.print("no request waits for a second person")
        return
    for one in waiting:
        console.print(
            f"{one.consent_no}  {one.step} of {one.subject}, asked by {login_of(one.asked_by)}, "
            f"{one.asked_at:%Y-%m-%d %H:%M} UTC"
        )
        for name, value in one.details.items():
            console.print(f"     {name}: {value}")
    console.print(f"consent by:  {again('approve REQUEST --name NAME', plan_file)}")


def show_consent(console: Console, one: Consent) -> None:
    """What was consented to, and how long it holds."""
    console.print(f"{one.name} consents to: {one.step} of {one.subject} (request {one.consent_no})")
    if one.expires_at is not None:
        console.print(f"it holds once, until {one.expires_at:%Y-%m-%d %H:%M} UTC, and for exactly what was asked for")
    if one.shared_login:
        console.print("typed at the login that asked: it rests on the name alone")
