"""What the plan's limits and the machine mean for the engine."""

from __future__ import annotations

import math

from msgspec import Struct

from forcelift.account.retention import keeps_settled
from forcelift.account.state import State
from forcelift.audit.records import BatchMode
from forcelift.during.extract.room import refuse_without_room, staging_estimate
from forcelift.jobs.board import EngineSettings
from forcelift.opening.assembly import Compiled, cores
from forcelift.plan import LoadedPlan
from forcelift.plan.thresholds import threshold_values
from forcelift.plan.urls import scheme_of
from forcelift.plan.windows import parse_hours
from forcelift.protocols.source import Source

GIGABYTE = 1_000_000_000

SENDERS_MORE = 3
"""Threads for steps in the audit database and calls that are no upload, beside one for each job."""

# As measured with the table of `bench/sales.py`, whose rows are of 466 bytes; see docs/concepts/memory.md.
_PROGRAM_MB = 224  # the interpreter with its libraries, before the first row, and what is too small to be counted
_READER_MB = 45  # what a thread that reads has from the source beside its batch
_BATCH_MB_PER_1000_ROWS = 1.6  # a batch in each form that the rules give it, on its way from the source to files
_SOURCE_MOST_MB = 40
_JOINER_MB = 60  # answers of a job, joined to its keys


class MemoryShares(Struct, frozen=True, kw_only=True):
    """How `limits.memory_mb` is divided among those who hold rows.

    Attributes:
        source_mb: What a source that caches (DuckDB, files) may keep.
        scan_mb: For one question over a whole table: repeated keys, samples, records written twice.
        readers_max, joiners: Chunks that are read, and collected or settled, at once.
        batch_rows: Rows of one Arrow batch.
        turns: Batches and slices that are worked on at once, by readers and joiners together.
        room_mb: For the answers of whole jobs, and for chunks that are settled whole.
    """

    source_mb: int
    scan_mb: int
    readers_max: int
    joiners: int
    batch_rows: int
    turns: int
    room_mb: int

    @classmethod
    def of(cls, memory_mb: int, *, senders: int) -> MemoryShares:
        """Divide so much memory; at least one reader and one joiner work, however little there is."""
        scan_mb = max(64, memory_mb // 4)
        # A table is read once, from end to end: a larger cache only fills up.
        source_mb = max(32, min(memory_mb // 16, _SOURCE_MOST_MB))
        # Each batch waits dozens of times for the threads of polars: with 50,000 rows and not 25,000 a load of five
        # million took a sixth less time and a twelfth less CPU, and its peak rose from 468 to 550 MB.
        batch_rows = 50_000 if memory_mb >= 1024 else 30_000 if memory_mb >= 512 else 10_000
        left = memory_mb - _PROGRAM_MB - source_mb
        reader_mb = math.ceil(_READER_MB + _BATCH_MB_PER_1000_ROWS * batch_rows / 1000)
        readers = max(1, (left - _JOINER_MB) // reader_mb)
        turns = min(readers, cores())
        room_mb = max(_JOINER_MB, left - turns * reader_mb)
        # More than the cores would work no sooner, and each holds a job's answers. On one core, one waits for the net.
        joiners = max(1, min(room_mb // _JOINER_MB, max(2, cores()), senders))
        return cls(
            source_mb=source_mb,
            scan_mb=scan_mb,
            readers_max=readers,
            joiners=joiners,
            batch_rows=batch_rows,
            turns=turns,
            room_mb=room_mb,
        )

    def holders(self, readers: int) -> int:
        """How many of so many readers and of the joiners may be at work at once.

        With all of them a large table's peak would be where all happen to meet, once in some minutes; this many meet in
        a small table too. There is always room for one reader and one joiner.
        """
        return max(readers + math.ceil(self.joiners / 2), self.joiners + 1)


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
    shares = MemoryShares.of(limits.memory_mb, senders=limits.parallel_jobs + SENDERS_MORE)
    readers = max(1, min(cores(), sessions, 4, shares.readers_max))
    fast = loaded.plan.target.url.startswith(("twin:", "http:"))  # plain HTTP is for twins on this machine only
    return EngineSettings(
        readers=readers,
        active_chunks_max=limits.parallel_jobs + readers + 2,
        staged_bytes_max=int(limits.staging_gb * GIGABYTE),
        poll_first_s=0.05 if fast else 1.0,
        poll_max_s=60.0,
        unseen_s=5.0 if fast else 30.0,
        abort_settle_s=3.0 if fast else 30.0,
        dry_run=mode is BatchMode.DRY_RUN,
        extract_first=mode is BatchMode.EXTRACT_FIRST,
        keeps_staged=keeps_settled(loaded.plan.retention.staged_files),
        hours=parse_hours(limits.window) if limits.window is not None else None,
        disk_critical=threshold_values(loaded.plan.thresholds)["disk_usage_critical"],
    )
