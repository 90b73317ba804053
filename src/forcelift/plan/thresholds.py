"""The alert thresholds: names and values of the checklist that the product implements."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct


class Threshold(Struct, frozen=True):
    """One threshold: its default, unit, and what it watches."""

    default: float
    unit: str
    meaning: str


THRESHOLDS: Mapping[str, Threshold] = {
    "fail_rate_warning": Threshold(1.0, "%", "failed and rejected rows of all rows decided, above"),
    "fail_rate_critical": Threshold(5.0, "%", "failed and rejected rows of all rows decided, above"),
    "chunk_duration_warning": Threshold(600, "s", "time that one chunk takes, above"),
    "chunk_duration_critical": Threshold(1800, "s", "time that one chunk takes, above"),
    "min_records_per_sec": Threshold(1000, "rows/s", "rate of the load, below"),
    "disk_usage_warning": Threshold(80, "%", "use of the staging folder's file system, above"),
    "disk_usage_critical": Threshold(95, "%", "use of the staging folder's file system, above"),
    "pending_chunks_warning": Threshold(100, "chunks", "chunks that wait, above"),
    "job_stale_minutes": Threshold(60, "min", "time without progress, above"),
}


def threshold_values(overrides: Mapping[str, float]) -> dict[str, float]:
    """Every threshold's value: the plan's, or the default."""
    return {name: overrides.get(name, threshold.default) for name, threshold in THRESHOLDS.items()}
