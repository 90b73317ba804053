"""Whether a source's snapshot lasts as long as a batch reads, estimated before the batch begins.

Reads:   the source's statistics, a sample and the first rows of its largest table, its own measure of what it keeps.
Writes:  nothing.

`forecast_snapshot` is for whoever wants to know beforehand (a run, a check); `SnapshotForecast` is pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from forcelift.during.extract.room import row_bytes
from forcelift.jobs.work import TableWork
from forcelift.plan import LoadedPlan
from forcelift.plan.urls import is_loopback, scheme_of
from forcelift.protocols.clock import Clock
from forcelift.protocols.source import ForgetsSnapshot, Source
from forcelift.storage import Disk

LOAD_ROWS_PER_SECOND: Final = 2_883
"""What an org takes on average over a long load: the checklist's own figure (481 million rows in 46 h 23 min)."""
USUAL_RETENTION_S: Final = 900.0
"""Oracle's default `undo_retention`, taken where the real one cannot be asked."""
SAFETY: Final = 1.5
_MEASURED_ROWS, _DAY_S = 100_000, 86_400
_FEW_ROWS = 10_000  # too few for a rate that means anything


class Lasting(StrEnum):
    """What a forecast says of the snapshot."""

    FINE = "fine"
    UNKNOWN = "unknown"  # the source may not be asked how long it keeps a state, and the read is a long one
    EXTRACT_FIRST = "extract_first"  # it would last if all were read before the load
    TOO_SHORT = "too_short"  # it would not last either way


class SnapshotForecast(Struct, frozen=True, kw_only=True):
    """How long reading takes, and how long the snapshot lasts.

    Attributes:
        rows: Of all tables, by the source's statistics where it has them.
        staged_bytes: What staging all of them takes.
        room_bytes: What staging may take: the plan's limit, or the disk's free space if that is less.
        read_rows_per_second: Measured on the largest table, or the plan's limit if that is less.
        load_rows_per_second: What the org takes; None for a twin, which is hardly slower than reading.
        snapshot_seconds: How long the source keeps a state; None where it may not be asked.
        is_extract_first: Whether the batch reads everything before its first job.
    """

    rows: int
    staged_bytes: int
    room_bytes: int
    read_rows_per_second: float
    load_rows_per_second: float | None
    snapshot_seconds: float | None
    is_extract_first: bool = False

    @property
    def extract_seconds(self) -> float:
        """Reading everything at once."""
        return self.rows / self.read_rows_per_second

    @property
    def run_seconds(self) -> float:
        """Reading as the batch does: without `--extract-first` no faster than the org takes the rows."""
        if self.is_extract_first or self.load_rows_per_second is None:
            return self.extract_seconds
        return self.rows / min(self.read_rows_per_second, self.load_rows_per_second)

    @property
    def verdict(self) -> Lasting:
        """Whether the snapshot lasts, with half as much time again for what an estimate does not know."""
        kept = self.snapshot_seconds if self.snapshot_seconds is not None else USUAL_RETENTION_S
        if self.run_seconds * SAFETY <= kept:
            return Lasting.FINE
        if self.snapshot_seconds is None:
            return Lasting.UNKNOWN
        fits = self.staged_bytes <= self.room_bytes
        is_shorter = self.extract_seconds * SAFETY <= kept
        return Lasting.EXTRACT_FIRST if fits and is_shorter and not self.is_extract_first else Lasting.TOO_SHORT

    def sentences(self) -> list[str]:
        """The forecast for people; empty if the snapshot lasts."""
        reading = f"reading {self.rows:,} rows takes about {_span(self.run_seconds)}"
        if not self.is_extract_first and self.run_seconds > self.extract_seconds * 1.1:
            reading += " at the pace of the load"
        verdict = self.verdict
        if verdict is Lasting.FINE:
            return []
        if verdict is Lasting.UNKNOWN:
            return [
                f"{reading}; how long the source keeps its snapshot cannot be seen "
                "(`GRANT SELECT ON V_$UNDOSTAT`), and Oracle's default is 15 min"
            ]
        assert self.snapshot_seconds is not None
        found = [f"{reading}, and the source keeps its snapshot for about {_span(self.snapshot_seconds)} only"]
        if verdict is Lasting.EXTRACT_FIRST:
            found.append(
                f"`--extract-first` reads everything in about {_span(self.extract_seconds)} and stages about "
                f"{self.staged_bytes / 1e9:,.1f} GB, for which there is room"
            )
            return found
        needed = _span(SAFETY * self.extract_seconds)
        found.append(
            f"chunks that it forgets are read as `source.lost_snapshot` says; an `undo_retention` of {needed}, fewer "
            "tables in one batch, or a standby makes it last"
        )
        if self.staged_bytes > self.room_bytes:
            found.append(
                f"`--extract-first` would stage about {self.staged_bytes / 1e9:,.1f} GB; there is room for "
                f"{self.room_bytes / 1e9:,.1f} GB"
            )
        return found

    def document(self) -> dict[str, Any]:
        """The forecast's figures, as the journal and JSON have them."""
        return {
            "verdict": self.verdict.value,
            "rows": self.rows,
            "extract_seconds": round(self.extract_seconds, 1),
            "run_seconds": round(self.run_seconds, 1),
            "snapshot_seconds": self.snapshot_seconds,
            "staged_bytes": self.staged_bytes,
            "room_bytes": self.room_bytes,
        }


def forecast_snapshot(
    loaded: LoadedPlan,
    source: Source,
    works: Iterable[TableWork],
    *,
    disk: Disk,
    clock: Clock,
    extract_first: bool = False,
) -> SnapshotForecast | None:
    """Estimate whether the snapshot of an open source lasts for these tables.

    Args:
        works: The plan's tables, compiled.
        disk: Of the staging folder.
        extract_first: Whether the batch reads everything before its first job.
    Returns:
        None for a source that keeps its state as long as it is open, or that has none.
    Raises:
        SourceError: The source cannot be read.
    """
    if not isinstance(source, ForgetsSnapshot) or source.snapshot() is None:
        return None
    tables = list(works)
    sizes = {work.plan.table: _rows(source, work) for work in tables}
    rows = sum(sizes.values())
    staged = sum(_bytes(source, work, sizes[work.plan.table]) for work in tables)
    limits = loaded.plan.limits
    largest = max(tables, key=lambda work: sizes[work.plan.table], default=None)
    rate = _rate(source, largest, clock) if largest is not None and rows else float(_MEASURED_ROWS)
    if (allowed := loaded.plan.source.limits.rows_per_second) is not None:
        rate = min(rate, allowed)
    url = loaded.plan.target.url
    is_twin = scheme_of(url) == "twin" or is_loopback(url)
    pace = float(LOAD_ROWS_PER_SECOND)
    if rows > limits.rows_per_day:
        pace = min(pace, limits.rows_per_day / _DAY_S)
    return SnapshotForecast(
        rows=rows,
        staged_bytes=int(staged),
        room_bytes=min(int(limits.staging_gb * 1e9), disk.free),
        read_rows_per_second=rate,
        load_rows_per_second=None if is_twin else pace,
        snapshot_seconds=source.snapshot_seconds(),
        is_extract_first=extract_first,
    )


def _rows(source: Source, work: TableWork) -> int:
    """By statistics where nothing is left out, as counting a large table is a scan of its own."""
    if work.source.rows_estimate is not None:
        return work.source.rows_estimate
    return source.count(work.plan.table, where=work.plan.where)


def _bytes(source: Source, work: TableWork, rows: int) -> float:
    """By statistics, over all columns of the table, or by a sample where there are none."""
    if work.source.bytes_estimate is not None:
        return work.source.bytes_estimate
    return row_bytes(source, work) * rows if rows else 0.0


def _rate(source: Source, work: TableWork, clock: Clock) -> float:
    """Rows per second of the first rows of a table; the usual rate where it has too few.

    Without the plan's `where`, which might have to look through the whole table for them.
    """
    began, rows = clock.monotonic(), 0
    batches = source.read(work.plan.table, columns=work.rules.source_columns, where=None)
    for batch in batches:
        rows += batch.num_rows
        if rows >= _MEASURED_ROWS:
            break
    seconds = clock.monotonic() - began
    close = getattr(batches, "close", None)
    if close is not None:
        close()
    return rows / seconds if rows >= _FEW_ROWS and seconds > 0 else float(_MEASURED_ROWS)


def _span(seconds: float) -> str:
    """A length of time in words, to two figures or so."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
