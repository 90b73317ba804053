"""Checks of the org itself: who we are in it, what kind it is, and what is left of its limits.

Reads:   what the caller asked of the org.
Writes:  nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from forcelift.before.check.model import Area, CheckResult, failed, passed, skipped, warned
from forcelift.before.estimate import BATCHES_PER_DAY, Forecast
from forcelift.protocols.org import Limits, Org
from forcelift.protocols.setup import HostFacts, OrgFacts, Permissions

_AREA = Area.ORG
SKEW_WARN_S, SKEW_FAIL_S = 60.0, 180.0
"""A sign-in by JWT is refused when its time is minutes off; a record's times are judged by the org's clock."""

BULK_API_2_SINCE = 41.0
_QUERY_MB = "DailyBulkV2QueryFileStorageMB"
_QUERY_JOBS = "DailyBulkV2QueryJobs"


def reachable(org: Org, facts: OrgFacts) -> CheckResult:
    """That we are signed in, and as whom."""
    kind = "a twin" if org.is_twin else f"{facts.edition}, {'PRODUCTION' if facts.is_production else 'no production'}"
    return passed("org_reachable", _AREA, f"{facts.name}: {kind}", f"{org.org_id} at {org.url} as {org.user_name}")


def kind(facts: OrgFacts) -> CheckResult:
    """Sandbox or production."""
    if not facts.is_production:
        return passed("org_kind", _AREA, "no production org", facts.edition)
    fix = "nothing, if it is the org that is meant; try a sandbox or `forcelift rehearse` first"
    return warned("org_kind", _AREA, "PRODUCTION", facts.edition, fix=fix)


def clock_skew(host: HostFacts, now: datetime) -> CheckResult:
    """How far this machine's clock is from the org's. The org tells whole seconds."""
    if host.now is None:
        return skipped("clock_skew", _AREA, "the org's answer names no time")
    seconds = (now - host.now).total_seconds()
    figure, fix = f"{seconds:+.0f} s", "set this machine's clock (NTP)"
    evidence = "this machine's clock against the `Date` of the org's answer"
    if abs(seconds) >= SKEW_FAIL_S:
        return failed("clock_skew", _AREA, figure, evidence, fix=fix)
    if abs(seconds) >= SKEW_WARN_S:
        return warned("clock_skew", _AREA, figure, evidence, fix=fix)
    return passed("clock_skew", _AREA, figure, evidence)


def api_version(host: HostFacts, version: str) -> CheckResult:
    """Whether the org offers the API version that is spoken, and that has Bulk API 2.0."""
    newest = host.versions[-1] if host.versions else "unknown"
    figure, evidence = f"v{version}", f"the org offers up to v{newest}"
    if version not in host.versions or float(version) < BULK_API_2_SINCE:
        fix = f'set `target.api_version: "{newest}"`'
        return failed("api_version", _AREA, figure, evidence, fix=fix)
    return passed("api_version", _AREA, figure, evidence)


def api_requests(limits: Limits, foretold: Forecast, *, reserve: int) -> CheckResult:
    """Whether the day's API requests last for a day of the load."""
    calls = foretold.api_calls + sum(one.api_calls_images for one in foretold.tables)
    a_day = -(-calls // max(1, len(foretold.days)))
    left, most = limits.api_requests_left, limits.api_requests_max
    if left is None:
        return skipped("api_requests", _AREA, "the org does not tell its API requests")
    figure = f"{left:,} of {most or 0:,} left"
    evidence = (f"a day of the load needs about {a_day:,}", f"{reserve:,} are left to others (`api_calls_reserve`)")
    if left - reserve < a_day:
        fix = "wait until the day's requests come back, buy more, or make chunks larger"
        return failed("api_requests", _AREA, figure, *evidence, fix=fix)
    return passed("api_requests", _AREA, figure, *evidence)


def rows_of_the_day(foretold: Forecast, *, rows_per_day: int, spent: int) -> CheckResult:
    """How the rows stand to the 150,000,000 of a rolling day."""
    figure = f"{foretold.rows_sent:,} rows, {rows_per_day:,} a day"
    evidence = [f"at least {foretold.shortest_days:.2f} days"]
    if spent:
        evidence.append(f"{spent:,} rows were sent in the last day already")
    if rows_per_day > 150_000_000:
        fix = "lower `limits.rows_per_day` to 150000000, unless Salesforce has raised it for this org"
        return warned("rows_of_the_day", _AREA, figure, *evidence, fix=fix)
    if foretold.shortest_days > 1:
        fix = "plan the days: `forcelift estimate` shows the calendar"
        return warned("rows_of_the_day", _AREA, figure, *evidence, fix=fix)
    return passed("rows_of_the_day", _AREA, figure, *evidence)


def salesforce_batches(limits: Limits, foretold: Forecast) -> CheckResult:
    """Whether the day's Salesforce batches last for a day of the load."""
    need = max((day.salesforce_batches for day in foretold.days), default=0)
    left = limits.bulk_batches_left
    if left is None:
        return skipped("salesforce_batches", _AREA, "the org does not tell its Salesforce batches")
    figure = f"{left:,} of {limits.bulk_batches_max or BATCHES_PER_DAY:,} left"
    evidence = f"the fullest day of the load needs {need:,}"
    if left < need:
        fix = "the load waits by itself until they come back; larger chunks waste fewer"
        return warned("salesforce_batches", _AREA, figure, evidence, fix=fix)
    return passed("salesforce_batches", _AREA, figure, evidence)


def bulk_queries(limits: Limits, foretold: Forecast) -> CheckResult:
    """Whether before-images and level 5 of a validation find enough of the bulk query's allowance."""
    jobs, storage = _pair(limits.raw, _QUERY_JOBS), _pair(limits.raw, _QUERY_MB)
    if jobs is None or storage is None:
        return skipped("bulk_queries", _AREA, "the org does not tell its bulk query allowance")
    images = sum(one.chunks for one in foretold.tables if one.api_calls_images)
    proofs = len({one.size.object for one in foretold.tables})
    bytes_mb = sum(one.size.rows * one.size.row_bytes for one in foretold.tables) / 1e6
    figure = f"{jobs:,} jobs and {storage:,} MB of results left today"
    evidence = (
        f"before-images take up to {images:,} jobs, a proof of every field {proofs:,}",
        f"both read about {bytes_mb:,.0f} MB each",
    )
    days = max(1, len(foretold.days))
    if images / days + proofs > jobs or bytes_mb / days > storage:
        fix = "validate on a day of its own, or table by table (`validate --level 5 --table`)"
        return warned("bulk_queries", _AREA, figure, *evidence, fix=fix)
    return passed("bulk_queries", _AREA, figure, *evidence)


def _pair(raw: Any, name: str) -> int | None:
    entry = raw.get(name) if isinstance(raw, dict) else None
    left = entry.get("Remaining") if isinstance(entry, dict) else None
    return int(left) if isinstance(left, (int, float)) else None


def data_storage(limits: Limits, foretold: Forecast) -> CheckResult:
    """Whether the records fit, if all of them are new."""
    needed_mb = -(-sum(one.storage_kb for one in foretold.tables) // 1024)
    left = limits.storage_mb_left
    if left is None:
        return skipped("data_storage", _AREA, "the org does not tell its data storage")
    figure = f"{left:,} of {limits.storage_mb_max or 0:,} MB left"
    evidence = (
        f"{needed_mb:,} MB if all {foretold.rows:,} rows become new records of about 2 KB",
        "the org recounts its storage with a delay",
    )
    if needed_mb > left:
        fix = "buy storage, delete what is not needed, or move fewer rows; records that exist take no more"
        return failed("data_storage", _AREA, figure, *evidence, fix=fix)
    if needed_mb > left * 0.8:
        return warned("data_storage", _AREA, figure, *evidence, fix="see that nobody else needs the rest meanwhile")
    return passed("data_storage", _AREA, figure, *evidence)


def user_permissions(permissions: Permissions, *, switches: bool) -> CheckResult:
    """What the signed-in user may do beyond objects and fields.

    Args:
        switches: Whether automations are on that `prepare` would switch.
    """
    words = {True: "yes", False: "no", None: "the org does not tell"}
    evidence = [
        f"API enabled: {words[permissions.api_enabled]}",
        f"Bulk API Hard Delete: {words[permissions.bulk_hard_delete]}",
        f"Customize Application: {words[permissions.customize_application]}",
        f"Modify Metadata: {words[permissions.modify_metadata]}",
    ]
    name = "user_permissions"
    if permissions.api_enabled is False:
        return failed(name, _AREA, "no API", *evidence, fix="give the user `API Enabled`")
    can_switch = permissions.modify_metadata or permissions.customize_application
    if switches and can_switch is False:
        fix = "give the user `Modify Metadata Through Metadata API Functions` and `Customize Application`, or let an "
        return failed(name, _AREA, "cannot switch automations", *evidence, fix=fix + "administrator run `prepare`")
    if permissions.bulk_hard_delete is False:
        fix = "give the user `Bulk API Hard Delete` if a rollback is to free storage at once (`rollback --hard`)"
        return warned(name, _AREA, "no hard delete", *evidence, fix=fix)
    return passed(name, _AREA, "enough", *evidence)
