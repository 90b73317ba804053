"""What the plan's limits and the machine mean for the engine."""

from __future__ import annotations

from forcelift.assembly import Compiled, cores
from forcelift.audit.records import BatchMode
from forcelift.during.extract.room import refuse_without_room, staging_estimate
from forcelift.jobs.board import EngineSettings
from forcelift.plan import LoadedPlan
from forcelift.plan.thresholds import threshold_values
from forcelift.plan.urls import scheme_of
from forcelift.plan.windows import parse_hours
from forcelift.protocols.source import Source
from forcelift.retention import keeps_settled
from forcelift.state import State

GIGABYTE = 1_000_000_000


def check_room(loaded: LoadedPlan, state: State, source: Source, compiled: Compiled) -> None:
    """Refuse `--extract-first` where the whole batch surely does not fit. Raises `StateConflict`."""
    refuse_without_room(
        staging_estimate(source, compiled.works.values()),
        staging_bytes=int(loaded.plan.limits.staging_gb * GIGABYTE),
        disk=state.storage.disk(),
    )


def engine_settings(loaded: LoadedPlan, *, mode: BatchMode) -> EngineSettings:
    """The engine's bounds that follow from the plan and the machine."""
    limits, source = loaded.plan.limits, loaded.plan.source
    # Of a PostgreSQL source's sessions one holds the snapshot and reads nothing.
    sessions = source.limits.sessions - (scheme_of(source.url.get_secret_value()) == "postgresql")
    readers = max(1, min(cores(), sessions, 4))
    fast = loaded.plan.target.url.startswith(("twin:", "http:"))  # plain HTTP is for twins on this machine only
    return EngineSettings(
        readers=readers,
        active_chunks_max=limits.parallel_jobs + readers + 2,
        staged_bytes_max=int(limits.staging_gb * GIGABYTE),
        poll_first_s=0.1 if fast else 1.0,
        poll_max_s=1.0 if fast else 20.0,
        abort_settle_s=3.0 if fast else 30.0,
        dry_run=mode is BatchMode.DRY_RUN,
        extract_first=mode is BatchMode.EXTRACT_FIRST,
        keeps_staged=keeps_settled(loaded.plan.retention.staged_files),
        hours=parse_hours(limits.window) if limits.window is not None else None,
        disk_critical=threshold_values(loaded.plan.thresholds)["disk_usage_critical"],
    )
