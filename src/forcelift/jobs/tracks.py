"""What the coordinator remembers of tables, chunks and jobs while a batch runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from msgspec import Struct, field

from forcelift.audit.records import Chunk, ChunkStatus, ChunkStep, Job, JobDraft, JobKind, JobStep, Part
from forcelift.jobs.messages import Tally
from forcelift.protocols.org import IngestJob


class Phase(StrEnum):
    """Where a chunk stands in this process."""

    PENDING = "pending"
    STAGING = "staging"
    READY = "ready"  # staged, and waits until everything is (`--extract-first`)
    SENDING = "sending"  # load jobs and their re-sends
    LOADED = "loaded"  # waits for the other chunks of a group before its links
    LINKING = "linking"  # link jobs and their re-sends
    SETTLING = "settling"
    DONE = "done"
    FAILED = "failed"
    HELD = "held"  # stopped before it was through; a resume goes on


class TableSpec(Struct, frozen=True, kw_only=True):
    """What the engine knows of a table before it begins.

    `kind` is that of its chunks' first jobs. Tables of one group refer to each other (or a table to itself): their
    lookups among themselves are the links, sent after all of the group is loaded. `waits_for` names tables outside the
    group that must have settled before.
    """

    name: str
    object: str
    operation: str
    external_id_field: str
    group: int
    kind: JobKind = JobKind.LOAD
    waits_for: frozenset[str] = frozenset()
    has_links: bool = False

    def draft(self, *, audit_id: int, kind: JobKind, part: Part, attempt: int) -> JobDraft:
        """A job for one of the table's files. Links always go by upsert: their records exist already."""
        return JobDraft(
            audit_id=audit_id,
            kind=kind,
            object=self.object,
            operation="upsert" if kind is JobKind.LINK else self.operation,
            external_id_field=self.external_id_field if kind is JobKind.LINK or self.operation == "upsert" else None,
            part=part,
            attempt=attempt,
        )


class JobTrack(Struct, kw_only=True):
    """A job between its intent and its answers. `doing` names the command under way, if any.

    `in_doubt`: the last step's effect is not known, because its answer was lost or another process took it.
    """

    job: Job
    doing: str | None = None
    in_doubt: bool = False
    retry_at: datetime | None = None
    tries: int = 0
    awaited: tuple[str, ...] = ()  # of a lost reply: jobs at work of which one may be this one
    is_terminal: bool = False
    closed_at: datetime | None = None  # or first seen at work, if it was closed by an earlier process
    is_timed: bool = False  # `closed_at` is when the org began
    looked_at: datetime | None = None  # when the org was last seen at work on it
    worked_s: float = 0.0  # so long it was seen at work, without time in which nobody could look
    seen: IngestJob | None = None  # as the org showed it at the last look; lists leave the counters out
    abort_asked: bool = False
    aborted_at: datetime | None = None  # since when an aborted job's counter stands where it stands
    aborted_count: int | None = None
    redraft: bool = False  # the intent is too old or was refused: write a new one

    @property
    def is_closed(self) -> bool:
        return self.job.step is JobStep.CLOSED


class Figures(Struct, kw_only=True):
    """Counts for progress displays, in rows."""

    rows: int = 0
    extracted: int = 0
    rejected: int = 0
    duplicate: int = 0
    answered: int = 0
    success: int = 0
    failed: int = 0
    chunks: int = 0
    chunks_done: int = 0


class ChunkTrack(Struct, kw_only=True):
    """A chunk that is being worked on, or waits to be."""

    audit_id: int
    table: str
    chunk_no: int
    rows_estimate: int
    phase: Phase = Phase.PENDING
    begun: bool = False  # a read of it was begun and given up: it is RUNNING in the audit log although it waits
    drafts: deque[JobDraft] = field(default_factory=deque)
    jobs: dict[int, JobTrack] = field(default_factory=dict)
    doing: str | None = None
    intending: int = 0
    retry_at: datetime | None = None
    tries: int = 0
    source_failed: bool = False
    attempt: int = 1
    attempts_before: int = 0  # made by earlier processes: a resume has a full number of its own
    is_clean: bool = True  # every answer so far is final
    answers_unknown: bool = False  # jobs were collected before this process began: ask the files
    has_links: bool = False
    has_image: bool = False  # or needs none any more: the records of its keys were sealed before its first job
    loaded: bool = False  # its load jobs are all answered, and counted so in its table
    staged_bytes: int = 0
    live: Figures = field(default_factory=Figures)  # what it has added to its table's figures so far
    error: Exception | None = None
    status: ChunkStatus | None = None

    @property
    def is_sending(self) -> bool:
        return self.phase in (Phase.SENDING, Phase.LINKING)

    @property
    def is_over(self) -> bool:
        return self.phase in (Phase.DONE, Phase.FAILED, Phase.HELD)

    def count(self, tally: Tally) -> None:
        """Take the answers of one job into account."""
        self.is_clean = self.is_clean and tally.is_clean


class TableTrack(Struct, kw_only=True):
    """A table of the batch and how far it has come."""

    spec: TableSpec
    planned: bool = False
    planning: bool = False
    tries: int = 0
    source_failed: bool = False
    retry_at: datetime | None = None
    pending: deque[ChunkTrack] = field(default_factory=deque)
    ready: deque[ChunkTrack] = field(default_factory=deque)  # staged, not to be sent yet (`--extract-first`)
    parked: deque[ChunkTrack] = field(default_factory=deque)  # loaded, waiting for the rest of the group
    bytes_per_row: float = 0.0  # on disk, of the chunks staged so far: the largest
    unfinished: int = 0  # chunks not yet DONE
    not_loaded: int = 0  # chunks not yet LOADED or DONE
    checked: bool = False
    checking: bool = False
    failed: bool = False
    figures: Figures = field(default_factory=Figures)

    @property
    def is_settled(self) -> bool:
        return self.planned and self.unfinished == 0


def unclaimed(chunk: Chunk) -> ChunkTrack:
    """The track of a chunk of which this runner only knows that it is not settled."""
    return ChunkTrack(
        audit_id=chunk.audit_id, table=chunk.table_name, chunk_no=chunk.chunk_no, rows_estimate=chunk.rows_estimate
    )


OPEN_STEPS = frozenset({JobStep.INTENDED, JobStep.CREATED, JobStep.UPLOADED, JobStep.CLOSED})


def restore_chunk(spec: TableSpec, chunk: Chunk, jobs: Iterable[Job]) -> ChunkTrack:
    """Rebuild a chunk's track from what is durable, as a resume needs it.

    Jobs that were open go on from their last certain step, in doubt about the next. Files without a live or collected
    job are drafted anew.
    """
    track = unclaimed(chunk)
    if chunk.staged is not None:
        track.staged_bytes = chunk.staged.bytes or sum(part.bytes for part in chunk.staged.parts)
    if chunk.step is ChunkStep.SETTLED:
        track.phase, track.status = Phase.DONE, chunk.status
        return track
    if chunk.staged is None:
        track.begun = chunk.status is ChunkStatus.RUNNING
        return track
    track.has_links = chunk.staged.links_file is not None
    if chunk.step is ChunkStep.LOADED:
        track.phase, track.loaded = Phase.LOADED, True
        return track
    linking = track.loaded = chunk.step is ChunkStep.LINKING
    track.phase = Phase.LINKING if linking else Phase.SENDING
    covered: set[str] = set()
    for job in jobs:
        if job.kind is JobKind.UNDO and spec.kind is not JobKind.UNDO:
            continue
        track.has_image = True  # it is taken before the first intent
        if (job.kind is JobKind.LINK) != linking or job.step is JobStep.ABANDONED:
            continue
        track.attempt = max(track.attempt, job.attempt)
        covered.add(job.part.file)
        if job.step in OPEN_STEPS:
            track.jobs[job.job_no] = JobTrack(job=job, in_doubt=True)
        else:
            track.answers_unknown = True
    track.attempts_before = track.attempt - 1
    kind = JobKind.LINK if linking else spec.kind
    track.drafts.extend(
        spec.draft(audit_id=chunk.audit_id, kind=kind, part=part, attempt=1)
        for part in (chunk.link_parts if linking else chunk.staged.parts)
        if part.file not in covered
    )
    return track
