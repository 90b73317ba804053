"""The six items of the checklist before a migration: what is done, on what evidence. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from msgspec import Struct, field

from forcelift.audit import OrgState
from forcelift.audit.backups import BackupRow
from forcelift.audit.evidence import Evidence
from forcelift.audit.records import Batch, BatchMode, BatchState
from forcelift.audit.text import short_table_name
from forcelift.checkitems import Item as Item
from forcelift.checkitems import ItemState as ItemState

CHECK_FRESH: Final = timedelta(hours=24)
"""How long a preflight counts: limits and automations of an org change from day to day."""

BACKUP_FRESH: Final = timedelta(days=7)
"""How long a copy counts: what changes in the source afterwards is in no older one."""

BACKUP: Final = "backup"
"""The kind of evidence that a copy of a table is: which rows it took."""

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


def filter_digest(where: str | None) -> str | None:
    """Stands for a plan's filter, which may hold values, where it is only compared; None for all rows."""
    return None if where is None else sha256(where.encode("utf-8", "surrogatepass")).hexdigest()


class DryRows(Struct, frozen=True, kw_only=True):
    """What a dry run made of a table: rows that the rules decided, duplicates apart, and those that they rejected."""

    decided: int
    rejected: int


class Known(Struct, frozen=True, kw_only=True):
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
        dry_rows: What dry runs of this plan made of each table, by batch.
        rejected_percent_max: Above it a table's dry run is no success: the plan's `fail_rate_critical`.
        filters: Digests of the filters of those tables that have one; see `filter_digest`.
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
    dry_rows: Mapping[str, Mapping[str, DryRows]] = field(default_factory=dict)
    rejected_percent_max: float = 5.0
    filters: Mapping[str, str] = field(default_factory=dict)
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
    there: dict[str, list[BackupRow]] = {}
    for one in known.backups:
        if one.dropped_date is None:
            there.setdefault(one.table_name, []).append(one)
    missing = [table for table in known.tables if short_table_name(table) not in there]
    if missing:
        return ItemState.OPEN, f"no backup of {_first(missing)}"
    words, stale = [], []
    for table in sorted(known.tables):
        # Any copy that holds what a load would take is one, even if another was made since.
        looks = [(_why_stale(known, table, one), one) for one in reversed(there[short_table_name(table)])]
        why, copy = next((look for look in looks if look[0] is None), looks[0])
        if why is not None:
            stale.append(f"{copy.backup_table}: {why}")
        rows = "rows uncounted" if copy.row_count is None else f"{copy.row_count:,} row{'s'[: copy.row_count != 1]}"
        words.append(f"{copy.backup_table} ({rows})")
    if stale:
        return ItemState.STALE, "; ".join(stale[:5]) + ("; and more" if stale[5:] else "")
    return ItemState.DONE, ", ".join(words)


def _why_stale(known: Known, table: str, copy: BackupRow) -> str | None:
    """Why a copy does not hold what a load would take today; None if it does, as far as its age and filter tell."""
    if copy.created_date is None:
        return "nobody knows when it was made"
    if known.now - copy.created_date > BACKUP_FRESH:
        return f"it is of {copy.created_date:%Y-%m-%d %H:%M} UTC, and counts for {BACKUP_FRESH.days} days"
    made = [one for one in known.evidence if one.kind == BACKUP and one.document["backup"] == copy.backup_table]
    taken = made[-1].document["filter"] if made else None
    if taken is not None and taken != known.filters.get(table):
        return "it was made with another `where` than the plan has now"
    return None


def _first(tables: Sequence[str]) -> str:
    return f"{', '.join(tables[:5])}{' and more' if tables[5:] else ''}"


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
    # Of each table the newest dry run counts: a later one tells what was mended in the source, or broken.
    newest = {table: run for run in same for table in known.chosen.get(run.batch_id, known.tables)}
    if missing := [table for table in known.tables if table not in newest]:
        return ItemState.OPEN, f"{words}; no dry run of {_first(missing)}"
    words = f"batch {same[-1].batch_id} of {same[-1].started_at:%Y-%m-%d %H:%M} UTC"
    if (percent := known.samples.get(same[-1].batch_id)) is not None:
        words += f", a sample of {percent} %"
    nothing = DryRows(decided=0, rejected=0)
    rows = {table: known.dry_rows.get(newest[table].batch_id, {}).get(table, nothing) for table in known.tables}
    rejected, decided = sum(one.rejected for one in rows.values()), sum(one.decided for one in rows.values())
    words += f": {rejected:,} of {decided:,} rows rejected"
    most = known.rejected_percent_max
    bad = [table for table, one in rows.items() if one.rejected * 100 > most * one.decided]
    if bad:
        shares = [f"{table} {rows[table].rejected:,} of {rows[table].decided:,}" for table in bad[:5]]
        return ItemState.OPEN, f"{words}; more than {most:g} % (`fail_rate_critical`) of {', '.join(shares)}"
    return ItemState.DONE, words


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
