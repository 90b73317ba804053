"""The six items of the checklist before a migration: what is done, on what evidence. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from forcelift.audit import OrgState
from forcelift.audit.backups import BackupRow
from forcelift.audit.evidence import Evidence
from forcelift.audit.records import Batch, BatchMode, BatchState
from forcelift.checkitems import Item as Item
from forcelift.checkitems import ItemState as ItemState

CHECK_FRESH: Final = timedelta(hours=24)
"""How long a preflight counts: limits and automations of an org change from day to day."""

TITLES: Final[Mapping[str, str]] = {
    "data_profiling": "Data profiling complete",
    "audit_tables": "Audit tables created",
    "backup": "Backup taken",
    "automations_off": "SF triggers/workflows disabled",
    "dry_run": "Dry run successful",
    "sign_off": "Stakeholder sign-off",
}
NAMES: Final = tuple(TITLES)
TICKED: Final = frozenset({"sign_off"})
"""Items that only a person can know; all others have evidence of their own, or are waived."""

_HOW: Final[Mapping[str, str]] = {
    "data_profiling": "forcelift profile",
    "audit_tables": "forcelift check",
    "backup": "forcelift backup",
    "automations_off": "forcelift prepare --execute, or forcelift run --prepare",
    "dry_run": "forcelift run --dry-run",
    "sign_off": "forcelift signoff --phase before --role ROLE --name NAME; or, signed on paper, "
    "forcelift checklist tick sign_off --by NAME --note TEXT",
}
PREPARE: Final = "prepare"
"""The kind of evidence that a prepare is which switched off what was on."""

_OF_AUTOMATIONS = ("automations", "duplicate_rules")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is recorded of a plan.

    Attributes:
        tables: The plan's.
        org_id: The org that it is about; None where it was never asked.
        audit_where: Where the audit database is; None while there is none.
        evidence: Of the project, oldest first.
        batches: Of the project, oldest first.
        backups: Of the plan's source.
        held: What is switched off in the org.
        put_back_at: When an automation of the plan's objects was put back last; None if none ever was.
        prepares: Whether the run that asks switches automations off by itself.
        chosen: Tables of the dry runs that were not of all tables, by batch.
        samples: Percent of the dry runs that were samples, by batch.
        roles: Those of the plan that sign.
        signed: Sign-offs before the migration that stand, in words by role.
        stale: Those that are out of date, in words.
    """

    plan_sha256: str
    tables: Sequence[str]
    org_id: str | None
    audit_where: str | None
    evidence: Sequence[Evidence]
    batches: Sequence[Batch]
    backups: Sequence[BackupRow]
    held: Sequence[OrgState]
    now: datetime
    prepares: bool = False
    put_back_at: datetime | None = None
    chosen: Mapping[str, Sequence[str]] = field(default_factory=dict)
    samples: Mapping[str, str] = field(default_factory=dict)
    roles: Sequence[str] = ()
    signed: Mapping[str, str] = field(default_factory=dict)
    stale: Sequence[str] = ()

    def waiver(self, name: str) -> Evidence | None:
        """The waiver of an item or a check, for this plan and org."""
        return next((one for one in reversed(self.evidence) if one.kind == "waiver" and self._is_of(one, name)), None)

    def tick(self, name: str) -> Evidence | None:
        """The tick of an item, for this plan and org."""
        return next((one for one in reversed(self.evidence) if one.kind == "tick" and self._is_of(one, name)), None)

    def newest(self, kind: str) -> Evidence | None:
        """The newest evidence of a kind about this org, whatever the plan was then."""
        about = [one for one in self.evidence if one.kind == kind and one.org_id in (None, self.org_id)]
        return about[-1] if about else None

    def _is_of(self, one: Evidence, name: str) -> bool:
        return one.name == name and one.plan_sha256 == self.plan_sha256 and one.org_id == self.org_id


def before_items(known: Known) -> list[Item]:
    """The six items, in the checklist's order."""
    looks = {
        "data_profiling": _profiled,
        "audit_tables": _audited,
        "backup": _backed_up,
        "automations_off": _switched_off,
        "dry_run": _rehearsed,
        "sign_off": _signed,
    }
    items = []
    for name, look in looks.items():
        state, evidence = look(known)
        waiver = known.waiver(name)
        if state not in (ItemState.DONE,) and waiver is not None:
            state, evidence = ItemState.WAIVED, _said(waiver)
        items.append(Item(name=name, title=TITLES[name], state=state, evidence=evidence, how=_HOW[name]))
    return items


def not_in_order(known: Known) -> list[str]:
    """What keeps a load from a production org, one line each: items, and checks that failed and are not waived."""
    lines = [f"{item.name}: {item.state.value}; {item.how}" for item in before_items(known) if not item.is_in_order]
    check = known.newest("check")
    if check is None or check.plan_sha256 != known.plan_sha256 or check.org_id != known.org_id:
        return [*lines, "no preflight of this plan and org is recorded; forcelift check"]
    if known.now - check.made_at > CHECK_FRESH:
        return [*lines, f"the preflight is of {check.made_at:%Y-%m-%d %H:%M} UTC; forcelift check"]
    failed = [one for one in check.document["results"] if one["verdict"] == "fail"]
    unwaived = [one for one in failed if known.waiver(one["name"]) is None]
    return [*lines, *(f"check {one['name']} failed ({one['figure']}); {one['fix']}" for one in unwaived)]


def _profiled(known: Known) -> tuple[ItemState, str]:
    found = known.newest("profile")
    if found is None:
        return ItemState.OPEN, "no profile is recorded"
    words = f"profile {found.evidence_no} of {found.made_at:%Y-%m-%d %H:%M} UTC by {found.made_by}"
    if found.plan_sha256 != known.plan_sha256:
        return ItemState.STALE, f"{words}; the plan has changed since"
    return ItemState.DONE, words


def _audited(known: Known) -> tuple[ItemState, str]:
    if known.audit_where is None:
        return ItemState.OPEN, "there is no audit database yet"
    return ItemState.DONE, known.audit_where


def _backed_up(known: Known) -> tuple[ItemState, str]:
    there = {one.table_name: one for one in known.backups if one.dropped_date is None}
    missing = [table for table in known.tables if table not in there]
    if missing:
        return ItemState.OPEN, f"no backup of {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}"
    return ItemState.DONE, ", ".join(sorted(there[table].backup_table for table in known.tables))


def _switched_off(known: Known) -> tuple[ItemState, str]:
    if known.prepares:
        return ItemState.DONE, "this run switches them off itself (`--prepare`)"
    looks = [one for one in map(known.newest, ("check", PREPARE)) if one is not None and one.org_id == known.org_id]
    if not looks:
        return ItemState.OPEN, "nothing is known of the org's automations"
    newest = max(looks, key=lambda one: one.evidence_no)
    state, words = (_by_prepare if newest.kind == PREPARE else _by_preflight)(known, newest)
    if newest.plan_sha256 != known.plan_sha256:
        return ItemState.STALE, f"{words}; the plan has changed since"
    if state is ItemState.DONE and known.put_back_at is not None and known.put_back_at >= newest.made_at:
        # They were off when that was looked at, and are on again, or left as somebody wanted them.
        return ItemState.STALE, f"{words}; automations were put back since, {known.put_back_at:%Y-%m-%d %H:%M} UTC"
    return state, words


def _by_preflight(known: Known, check: Evidence) -> tuple[ItemState, str]:
    verdicts = {one["name"]: one for one in check.document["results"] if one["name"] in _OF_AUTOMATIONS}
    on = [one["figure"] for one in verdicts.values() if one["verdict"] != "pass"]
    words = f"preflight {check.evidence_no} of {check.made_at:%Y-%m-%d %H:%M} UTC"
    if on or not verdicts:
        return ItemState.OPEN, f"{words}: {', '.join(on) or 'they were not looked at'}"
    return ItemState.DONE, f"{words}: none left to switch off{_held(known)}"


def _by_prepare(known: Known, prepare: Evidence) -> tuple[ItemState, str]:
    words = f"prepare {prepare.evidence_no} of {prepare.made_at:%Y-%m-%d %H:%M} UTC by {prepare.made_by}"
    if missing := [table for table in known.tables if table not in prepare.document["tables"]]:
        return ItemState.OPEN, f"{words}: not of {', '.join(missing[:5])}{' and more' if missing[5:] else ''}"
    return ItemState.DONE, f"{words}: none left to switch off{_held(known)}"


def _held(known: Known) -> str:
    """The snapshots of what is switched off."""
    if not known.held:
        return ""
    numbers = sorted(one.state_no for one in known.held)
    return f", {len(numbers)} held off by Forcelift (snapshots {', '.join(map(str, numbers))})"


def _rehearsed(known: Known) -> tuple[ItemState, str]:
    runs = [one for one in known.batches if one.mode is BatchMode.DRY_RUN and one.state is BatchState.DONE]
    if not runs:
        return ItemState.OPEN, "no dry run has ended"
    words = f"batch {runs[-1].batch_id} of {runs[-1].started_at:%Y-%m-%d %H:%M} UTC"
    same = [one for one in runs if one.plan_sha256 == known.plan_sha256]
    if not same:
        return ItemState.STALE, f"{words}; the plan has changed since"
    seen = {table for one in same for table in known.chosen.get(one.batch_id, known.tables)}
    if missing := [table for table in known.tables if table not in seen]:
        return ItemState.OPEN, f"{words}; no dry run of {', '.join(missing[:5])}{' and more' if missing[5:] else ''}"
    words = f"batch {same[-1].batch_id} of {same[-1].started_at:%Y-%m-%d %H:%M} UTC"
    percent = known.samples.get(same[-1].batch_id)
    return ItemState.DONE, words if percent is None else f"{words}, a sample of {percent} %"


def _signed(known: Known) -> tuple[ItemState, str]:
    if known.roles and all(role in known.signed for role in known.roles):
        return ItemState.DONE, "; ".join(known.signed.values())
    tick = known.tick("sign_off")
    if tick is not None:
        return ItemState.DONE, _said(tick)
    earlier = [one for one in known.evidence if one.kind == "tick" and one.name == "sign_off"]
    if earlier:
        return ItemState.STALE, f"{_said(earlier[-1])}; the plan has changed since, or it was of another org"
    if known.signed or known.stale:
        lacking = [role for role in known.roles if role not in known.signed]
        words = "; ".join([*known.signed.values(), *known.stale, f"still to sign: {', '.join(lacking)}"])
        return (ItemState.STALE if known.stale else ItemState.OPEN), words
    return ItemState.OPEN, "nobody has signed"


def _said(one: Evidence) -> str:
    note = str(one.document.get("note") or "")
    return f"{one.made_by}, {one.made_at:%Y-%m-%d %H:%M} UTC: {note}"
