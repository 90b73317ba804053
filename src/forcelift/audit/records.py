"""What the audit database remembers, as frozen records. Times are aware and in UTC; counts are rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct, field


class ChunkStatus(StrEnum):
    """STATUS of MIGRATION_AUDIT_LOG; which moves are allowed stands in DESIGN section 4."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    PARTIAL = "PARTIAL"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    ROLLED_BACK = "ROLLED_BACK"


class ChunkStep(StrEnum):
    """How far a chunk has come; the engine's own finer measure beside STATUS."""

    PLANNED = "planned"
    STAGED = "staged"  # its files are sealed: the source is not read again
    LOADED = "loaded"  # all load jobs answered; its links wait for the other tables of the group
    LINKING = "linking"  # its link files are sealed
    SETTLED = "settled"


class BatchMode(StrEnum):
    RUN = "run"
    DRY_RUN = "dry_run"
    EXTRACT_FIRST = "extract_first"  # a run that stages everything before it sends anything


class BatchState(StrEnum):
    RUNNING = "running"  # begun; whether a process is at work is the lease's to tell
    STOPPED = "stopped"
    FAILED = "failed"
    DONE = "done"


class JobKind(StrEnum):
    LOAD = "load"
    LINK = "link"
    RESEND = "resend"
    RETRY = "retry"
    UNDO = "undo"
    QUERY = "query"


class JobStep(StrEnum):
    """How far one of our jobs is known to have come. Each step is written after the fact, but the first."""

    INTENDED = "intended"  # written before the org is asked
    CREATED = "created"
    UPLOADED = "uploaded"
    CLOSED = "closed"
    COLLECTED = "collected"  # its answers are sealed in storage
    ABANDONED = "abandoned"  # never processed a row: aborted, or not found in the org


class Batch(Struct, frozen=True, kw_only=True):
    batch_id: str
    project: str
    mode: BatchMode
    state: BatchState
    org_id: str
    org_url: str
    source_url: str  # without secrets
    as_of: datetime  # by the source's clock
    snapshot: str | None
    plan_sha256: str
    plan_revision: int
    created_by: str
    started_at: datetime
    ended_at: datetime | None = None
    marker: str | None = None  # what stands in the marker file of its staging folder


FOLDS_KEYS: Final = "folds_keys"
"""In a table's `info`: whether the org's key field takes keys that differ in case only for the same."""


class BatchTable(Struct, frozen=True, kw_only=True):
    """One table of a batch. `position` is its place in the load order."""

    batch_id: str
    table_name: str
    object: str
    position: int
    fingerprint: str
    duplicates_file: str | None = None  # name in storage of the decisions of the whole-table scan
    source_count: int | None = None
    info: Mapping[str, Any] = field(default_factory=dict)


class Part(Struct, frozen=True, kw_only=True):
    """One sealed upload file of a chunk: CSV, UTF-8, LF, with header."""

    file: str  # name in storage
    rows: int
    bytes: int
    sha256: str


class StagedChunk(Struct, frozen=True, kw_only=True):
    """What staging found and sealed."""

    source_count: int
    extracted: int
    transformed: int
    rejected: int
    duplicate: int
    parts: tuple[Part, ...]
    rows_file: str  # Parquet: one line per source row, see `ledger`
    refused_file: str | None  # Parquet: the rejected rows' RECORD_DATA, already masked
    links_file: str | None  # Parquet: keys and lookups of the link pass
    source_checksum: str
    changes: Mapping[str, int] = field(default_factory=dict)  # "rule:column" -> rows
    seconds: float = 0.0
    clean_seconds: float = 0.0  # of `seconds` those in rules and files, not waiting for the source
    bytes: int = 0  # of all its files on disk; 0 in records of earlier versions
    snapshot: str | None = None  # the source's state that the rows were read from, where it has names for them
    link_rows_file: str | None = None  # Parquet: what became of each row of the link pass
    standing: int = 0  # rows that an earlier rollback left in the org: not sent again


class Chunk(Struct, frozen=True, kw_only=True):
    """A chunk: its row of MIGRATION_AUDIT_LOG and what the engine needs beside it."""

    audit_id: int
    batch_id: str
    table_name: str
    chunk_no: int
    predicate: Mapping[str, Any]
    rows_estimate: int
    status: ChunkStatus
    step: ChunkStep
    generation: int = 0
    staged: StagedChunk | None = None
    link_parts: tuple[Part, ...] = ()
    link_refused: int = 0
    ledger_file: str | None = None
    ledger_sha256: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    duration_seconds: float | None = None
    source_count: int | None = None
    extracted_count: int | None = None
    transformed_count: int | None = None
    loaded_count: int | None = None
    success_count: int | None = None
    failed_count: int | None = None
    skipped_count: int | None = None
    error_message: str | None = None
    source_checksum: str | None = None
    claim: int | None = None  # fence of the runner that has it, or had it last, where several may share a batch
    superseded: int = 0  # 0: it counts; else it was rolled back, and a later row of the same chunk counts


class JobDraft(Struct, frozen=True, kw_only=True):
    """A job before it is intended."""

    audit_id: int
    kind: JobKind
    object: str
    operation: str
    external_id_field: str | None
    part: Part
    attempt: int  # 1 for the first sending of this part's rows


class Job(Struct, frozen=True, kw_only=True):
    """One of our bulk jobs."""

    job_no: int
    batch_id: str
    audit_id: int
    kind: JobKind
    object: str
    operation: str
    external_id_field: str | None
    part: Part
    attempt: int
    step: JobStep
    intended_at: datetime
    sf_id: str | None = None
    org_state: str | None = None  # Salesforce's own word, the last seen
    results_file: str | None = None  # Parquet in storage: the answers, joined by key
    answered: int | None = None  # rows with an answer
    error_message: str | None = None
    fence: int = 0


class BudgetRefused(Struct, frozen=True, kw_only=True):
    """The rolling day's allowance does not hold this job yet."""

    until: datetime
    reason: str


class ChunkCounts(Struct, frozen=True, kw_only=True):
    """Counts of a chunk that ends; None where nothing was sent (a dry run)."""

    source: int
    extracted: int
    transformed: int
    skipped: int
    loaded: int | None
    success: int | None
    failed: int | None


class Control(Struct, frozen=True, kw_only=True):
    """What an operator asked of a running batch."""

    stop: bool = False
    stop_now: bool = False
    paused: bool = False
    throttle_jobs: int | None = None
    reason: str | None = None
    by: str | None = None
    at: datetime | None = None


NO_REASON = "no reason given"


class Asked(Struct, frozen=True, kw_only=True):
    """One wish of an operator, with the reason given for it."""

    by: str
    at: datetime
    reason: str = NO_REASON


class FailedGroup(Struct, frozen=True, kw_only=True):
    """Refused rows of one table with one code."""

    table_name: str
    code: str
    count: int
    sample_message: str


class IllegalMove(ValueError):
    """A move of STATUS that DESIGN section 4 does not allow: a fault of the program, never of a user."""


def jobs_at_once(jobs: int) -> str:
    """A throttle in words."""
    return f"at most {jobs} {'job' if jobs == 1 else 'jobs'} at once"
