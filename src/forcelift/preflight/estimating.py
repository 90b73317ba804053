"""What a plan's migration takes: rows, jobs, calls, bytes and days, before the first call is spent on a record.

Reads:   the plan file, the source's counts and a sample of each table, the org's limits, the audit database if there is
         one.
Writes:  its totals as evidence, if there is an audit database: a sign-off binds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from forcelift.account.recorded import owner
from forcelift.account.state import State, open_known_state
from forcelift.audit.records import BatchMode
from forcelift.before.estimate import Allowance, Forecast, TableSize, forecast, measure_table
from forcelift.errors import UsageError
from forcelift.opening.assembly import open_org, open_source
from forcelift.opening.bounds import engine_settings
from forcelift.plan import LoadedPlan, load_order, load_plan
from forcelift.plan.windows import parse_hours
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.protocols.org import Limits
from forcelift.protocols.source import Source
from forcelift.storage import Disk, disk_of

KIND: Final = "estimate"

MEASURED_ROWS_MIN: Final = 10_000
"""A batch of fewer rows says nothing about the rate of a long load: most of its time is waiting for the first job."""


class EstimateSettings(Struct, frozen=True, kw_only=True):
    """What is asked.

    Attributes:
        tables: Only these; all if empty.
        rows: Rows of tables that are given rather than counted.
        rate: Rows per second; None takes what the plan's newest batch has measured.
        begins_at: When the load begins; now if None.
        by_statistics: Take the database's own estimates of rows where it has them.
        is_undo: Of a rollback of everything that the load creates.
        is_offline: Do not sign in to the org.
    """

    tables: tuple[str, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    rate: float | None = None
    begins_at: datetime | None = None
    by_statistics: bool = False
    is_undo: bool = False
    is_offline: bool = False


class Rate(Struct, frozen=True, kw_only=True):
    """Rows per second and where that comes from."""

    rows_per_second: float
    origin: str


class Shortage(Struct, frozen=True, kw_only=True):
    """Something that there is not enough of. `what` names it, `needed` and `there` are in its own unit."""

    what: str
    needed: int
    there: int
    unit: str
    remedy: str


class EstimateReport(Struct, frozen=True, kw_only=True):
    """What the migration takes, what there is of it, and what is short.

    Attributes:
        rate: None if none was given and none measured; then nothing is said about the expected time.
        limits: The org's; None offline.
        disk: Of the staging folder.
        evidence_no: Under which a sign-off finds it; None for a part of the plan, and without an audit database.
    """

    project: str
    forecast: Forecast
    rate: Rate | None
    rows_per_day: int
    spent: int
    window: str | None
    limits: Limits | None
    disk: Disk
    staging_bytes_max: int
    shortages: tuple[Shortage, ...]
    evidence_no: int | None = None


def estimate_plan(
    plan_file: str | Path, settings: EstimateSettings | None = None, *, clock: Clock | None = None
) -> EstimateReport:
    """Estimate a plan's load, or its rollback.

    Raises:
        PlanError: The plan has faults.
        UsageError: A table that the plan lacks is named.
        SourceError: A table cannot be read.
        TargetError: The org cannot be asked; `is_offline` does without it.
    """
    settings = settings or EstimateSettings()
    clock = clock or SystemClock()
    loaded = load_plan(plan_file)
    _check_names(loaded, (*settings.tables, *settings.rows))
    with open_source(loaded) as source:
        sizes = measure_plan(loaded, settings, source=source)
    org_id, limits = (None, None) if settings.is_offline else _org_limits(loaded, clock)
    rate = Rate(rows_per_second=settings.rate, origin="given") if settings.rate is not None else None
    spent = 0
    with open_known_state(loaded, clock=clock) as state:
        if state is not None:
            rate = rate or _measured(state, loaded.plan.project)
            spent = state.audit.reserved(org_id)[0] if org_id is not None else 0
    plan_limits = loaded.plan.limits
    allowance = Allowance(
        rows_per_day=plan_limits.rows_per_day,
        rate=rate.rows_per_second if rate is not None else None,
        hours=parse_hours(plan_limits.window) if plan_limits.window is not None else None,
        spent=spent,
    )
    foretold = forecast(
        sizes,
        allowance,
        begins_at=settings.begins_at or clock.now().astimezone(),
        is_undo=settings.is_undo,
        one_call=loaded.audit_url().startswith("sqlite"),
    )
    disk = disk_of(Path(loaded.staging()))
    report = EstimateReport(
        project=loaded.plan.project,
        forecast=foretold,
        rate=rate,
        rows_per_day=plan_limits.rows_per_day,
        spent=spent,
        window=allowance.hours.text if allowance.hours is not None else None,
        limits=limits,
        disk=disk,
        staging_bytes_max=int(plan_limits.staging_gb * 1e9),
        shortages=tuple(_shortages(loaded, foretold, limits)),
    )
    if settings.tables or settings.is_undo:
        return report
    return replace(report, evidence_no=_record(loaded, report, org_id, clock))


def _record(loaded: LoadedPlan, report: EstimateReport, org_id: str | None, clock: Clock) -> int | None:
    """What a sign-off binds, written down where there is an audit database; its number."""
    foretold = report.forecast
    document = {
        "rows": foretold.rows,
        "rows_sent": foretold.rows_sent,
        "api_calls": foretold.api_calls,
        "days": len(foretold.days),
        "rows_per_second": report.rate.rows_per_second if report.rate is not None else None,
        "expected_seconds": foretold.expected_seconds,
        "shortages": [one.what for one in report.shortages],
    }
    with open_known_state(loaded, clock=clock) as state:
        if state is None:
            return None
        made = state.audit.add_evidence(
            project=loaded.plan.project,
            kind=KIND,
            name=KIND,
            plan_sha256=loaded.sha256,
            org_id=org_id,
            passed=not report.shortages,
            document=document,
            by=owner(),
        )
        return made.evidence_no


def measure_plan(loaded: LoadedPlan, settings: EstimateSettings, *, source: Source) -> list[TableSize]:
    """Measure the plan's tables, in load order."""
    chunk_rows = loaded.plan.chunks.rows
    readers = engine_settings(loaded, mode=BatchMode.RUN).readers
    sizes = []
    for number, group in enumerate(load_order(loaded.plan)):
        for name in group.tables:
            if settings.tables and name not in settings.tables:
                continue
            size = measure_table(
                source,
                loaded.plan.table(name),
                group=number,
                has_links=bool(group.link_columns.get(name)),
                rows=settings.rows.get(name),
                chunk_rows=None if chunk_rows == "auto" else chunk_rows,
                readers=readers,
                by_statistics=settings.by_statistics,
            )
            sizes.append(size)
    return sizes


def _org_limits(loaded: LoadedPlan, clock: Clock) -> tuple[str, Limits]:
    with open_org(loaded, clock=clock) as org:
        return org.org_id, org.limits()


def _measured(state: State, project: str) -> Rate | None:
    """The rate of the project's newest batch that was long enough to tell one."""
    for batch in reversed(state.audit.batches(project)):
        if batch.mode is not BatchMode.RUN:
            continue
        totals = state.audit.totals(batch.batch_id)
        starts = [one.first_start for one in totals if one.first_start is not None]
        ends = [one.last_end for one in totals if one.last_end is not None]
        rows = sum(one.success + one.failed for one in totals)
        if rows < MEASURED_ROWS_MIN or not starts or not ends:
            continue
        seconds = (max(ends) - min(starts)).total_seconds()
        if seconds > 0:
            return Rate(rows_per_second=rows / seconds, origin=f"measured by batch {batch.batch_id}")
    return None


def _shortages(loaded: LoadedPlan, foretold: Forecast, limits: Limits | None) -> list[Shortage]:
    """What of the org there is too little of. Calls are those of a day, as its limit is."""
    if limits is None:
        return []
    found = []
    calls_with_images = foretold.api_calls + sum(one.api_calls_images for one in foretold.tables)
    days = max(1, len(foretold.days))
    calls_a_day = -(-calls_with_images // days)
    reserve = loaded.plan.limits.api_calls_reserve
    if limits.api_requests_left is not None and calls_a_day > limits.api_requests_left - reserve:
        found.append(
            Shortage(
                what="API requests of a day",
                needed=calls_a_day + reserve,
                there=limits.api_requests_left,
                unit="calls",
                remedy="larger chunks need fewer calls; or wait until the day's calls come back",
            )
        )
    storage_mb = 0 if foretold.is_undo else -(-sum(one.storage_kb for one in foretold.tables) // 1024)
    if limits.storage_mb_left is not None and storage_mb > limits.storage_mb_left:
        found.append(
            Shortage(
                what="data storage of the org",
                needed=storage_mb,
                there=limits.storage_mb_left,
                unit="MB",
                remedy="buy storage, delete what is not needed, or move fewer rows; records that exist take no more",
            )
        )
    return found


def _check_names(loaded: LoadedPlan, names: Sequence[str]) -> None:
    known = [table.table for table in loaded.plan.tables]
    for name in names:
        if name not in known:
            raise UsageError(
                f"the plan has no table `{name}`",
                state="nothing was read or written",
                hint=f"it has: {', '.join(known)}",
            )
