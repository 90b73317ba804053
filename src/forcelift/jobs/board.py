"""The coordinator's picture of a batch: tables, the chunks at work, and what holds them back.

Only chunks at work are looked at on each event; those that wait sit in their table's queue, so that a batch of
thousands of chunks costs no more per event than a small one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from msgspec import Struct, field

from forcelift.audit.records import Chunk, ChunkStatus, Control, Job, JobStep, jobs_at_once
from forcelift.jobs.governor import Governor
from forcelift.jobs.holds import Holds, Hours
from forcelift.jobs.tracks import ChunkTrack, JobTrack, Phase, TableSpec, TableTrack, restore_chunk, unclaimed


class EngineSettings(Struct, frozen=True, kw_only=True):
    """Bounds of the engine. Times are in seconds.

    Attributes:
        readers: Chunks read and cleaned at once.
        active_chunks_max: Chunks between their first read and their settling.
        staged_bytes_max: Staged files on disk that are not settled yet, or at all if they are kept.
        keeps_staged: Files of settled chunks stay, and count.
        extract_first: Everything is staged before the first job.
        hours: When to read and send; None is always.
        disk_critical: Share in % of the staging folder's file system above which nothing more is staged.
        room_patience_s: How long `extract_first` waits for room on the disk.
        attempts_max: Times a row is sent before its last answer stands.
        resend_delay_s: Pause before the first re-send; doubles with each.
        poll_first_s, poll_max_s: Pause between looks at closed jobs, at least and at most; see `jobs/polling.py`.
        stray_delay_s: Pause between a lost answer to a create and the look for its job.
        unseen_s: How long after its intent a job may yet show that was created with its data and whose answer was lost.
        abort_settle_s: How long the counters of an aborted job must stand still before its answers are fetched.
        source_tries_max: Times a chunk is read again when the source does not answer.
        look_pause_s: Pause between looks at what other runners of a shared batch have done.
        takes_images: Whether the records of a chunk's keys are sealed before its first job, where that may change them.
        is_shared: Whether other runners may work on the batch, so that chunks are claimed before they are begun.
    """

    readers: int = 2
    active_chunks_max: int = 10
    staged_bytes_max: int = 100_000_000_000
    attempts_max: int = 5
    resend_delay_s: float = 5.0
    poll_first_s: float = 0.5
    poll_max_s: float = 60.0
    stray_delay_s: float = 5.0
    unseen_s: float = 30.0
    abort_settle_s: float = 30.0
    source_tries_max: int = 8
    look_pause_s: float = 2.0
    dry_run: bool = False
    keeps_staged: bool = False
    extract_first: bool = False
    hours: Hours | None = None
    disk_critical: float | None = None
    room_patience_s: float = 1800.0
    takes_images: bool = False
    is_shared: bool = False


class Share(Struct, kw_only=True):
    """What is known of other runners on the batch. `elsewhere` are chunks that one of them had at the last look."""

    runners: int = 1
    silent_s: float = 0.0  # of the most silent of those that have them, as of the last look
    elsewhere: dict[int, ChunkTrack] = field(default_factory=dict)
    claiming: bool = False
    looking: bool = False
    next_look: datetime | None = None
    orphan_intent: bool = True  # until the first claim has looked
    intend_after: datetime | None = None
    check_after: datetime | None = None


class Board(Struct, kw_only=True):
    """All mutable state of the coordinator."""

    settings: EngineSettings
    governor: Governor
    tables: dict[str, TableTrack]
    holds: Holds = field(default_factory=Holds)
    staged_bytes: int = 0  # on disk, of all chunks that may still need them
    active: dict[int, ChunkTrack] = field(default_factory=dict)
    control: Control = field(default_factory=Control)
    errors: list[Exception] = field(default_factory=list)
    halting: bool = False  # begin nothing more, finish what is at work
    intending: int = 0
    in_flight: int = 0
    polling: bool = False
    seconds_per_row: dict[str, float] = field(default_factory=dict)  # of jobs in the org, by object
    skipped: bool = False
    skipped_chunks: int = 0
    doubled_ids: dict[str, tuple[str, ...]] = field(default_factory=dict)
    share: Share | None = None  # None where this runner has the batch to itself
    is_lost: bool = False  # another runner has what this one worked on: touch nothing any more

    @property
    def is_stopping(self) -> bool:
        return self.halting or self.control.stop or self.control.stop_now

    def hear(self, control: Control) -> None:
        """An operator's wish counts from here on; what it changes goes to the journal."""
        before, self.control = self.control, control
        self.holds.hear(control)
        if control.paused != before.paused:
            self.governor.decisions.append(self.holds.paused_because if control.paused else "paused no more")
        if control.throttle_jobs != before.throttle_jobs:
            limit = "no throttle" if control.throttle_jobs is None else jobs_at_once(control.throttle_jobs)
            by, reason = control.by or "an operator", control.reason or "no reason given"
            self.governor.decisions.append(f"{limit}, as {by} asked: {reason}")
        if control.stop and not before.stop:
            how = "stopping at once" if control.stop_now else "stopping"
            by, reason = control.by or "an operator", control.reason or "no reason given"
            self.governor.decisions.append(f"{how}, as {by} asked: {reason}")

    def jobs(self) -> Iterable[tuple[ChunkTrack, JobTrack]]:
        """All jobs at work with their chunks."""
        return ((chunk, job) for chunk in self.active.values() for job in chunk.jobs.values())

    def job(self, job_no: int) -> tuple[ChunkTrack, JobTrack]:
        """The job of that number and its chunk; KeyError if it is not at work."""
        for chunk in self.active.values():
            if job_no in chunk.jobs:
                return chunk, chunk.jobs[job_no]
        raise KeyError(job_no)

    def open_jobs(self) -> int:
        """Jobs that stand open in the org, or are about to."""
        return self.intending + sum(not job.is_terminal for _, job in self.jobs())

    def has_open_intent(self) -> bool:
        """Whether a job is intended and it is not yet known whether the org has it."""
        return bool(self.intending) or any(job.job.step is JobStep.INTENDED for _, job in self.jobs())

    def needs_image(self, chunk: ChunkTrack) -> bool:
        """Whether the records of a chunk's keys are to be sealed before its first job."""
        is_load = chunk.phase is Phase.SENDING and self.table_of(chunk).spec.operation == "upsert"
        return self.settings.takes_images and is_load and not chunk.has_image

    def table_of(self, chunk: ChunkTrack) -> TableTrack:
        return self.tables[chunk.table]

    def add_chunks(self, table: TableTrack, chunks: Sequence[Chunk], jobs: Mapping[int, list[Job]]) -> None:
        """Take the chunks of a planned table in, as new or as a resume finds them.

        On a shared batch none is this runner's before it has claimed it, whatever state it is in.
        """
        table.planned = True
        for chunk in chunks:
            track = restore_chunk(table.spec, chunk, jobs.get(chunk.audit_id, []))
            if self.share is not None and track.phase is not Phase.DONE:
                loaded, track = track.loaded, unclaimed(chunk)
                track.loaded = loaded
            table.figures.chunks += 1
            table.figures.rows += chunk.source_count if chunk.source_count is not None else chunk.rows_estimate
            if track.phase is not Phase.DONE or self.settings.keeps_staged:
                self.staged_bytes += track.staged_bytes
            if track.phase is Phase.DONE:
                table.figures.chunks_done += 1
                self.count_settled(table, chunk)
                continue
            table.unfinished += 1
            if track.phase is not Phase.PENDING:
                self.count_staged(table, chunk)
            if not track.loaded:
                table.not_loaded += 1
            if track.phase is Phase.PENDING:
                table.pending.append(track)
            elif track.phase is Phase.LOADED:
                table.parked.append(track)
            elif self._must_wait(table) and not track.loaded and not track.jobs and not track.answers_unknown:
                self.lay_ready(track)
            else:
                self.active[track.audit_id] = track

    def _must_wait(self, table: TableTrack) -> bool:
        """Whether a staged chunk must not be sent at once: not all is read, or its parents were rolled back since."""
        return self.settings.extract_first or not self.may_start(table)

    @staticmethod
    def count_staged(table: TableTrack, chunk: Chunk) -> None:
        """A chunk that was read before this process had it."""
        if chunk.staged is not None:
            staged, figures = chunk.staged, table.figures
            figures.extracted += staged.extracted
            figures.rejected += staged.rejected
            figures.duplicate += staged.duplicate

    @staticmethod
    def count_settled(table: TableTrack, chunk: Chunk) -> None:
        figures = table.figures
        figures.extracted += chunk.extracted_count or 0
        if chunk.staged is not None:
            figures.rejected += chunk.staged.rejected
            figures.duplicate += chunk.staged.duplicate
        figures.answered += chunk.loaded_count or 0
        figures.success += chunk.success_count or 0
        figures.failed += chunk.failed_count or 0

    def end_chunk(self, chunk: ChunkTrack, phase: Phase, status: ChunkStatus | None = None) -> None:
        """A chunk leaves the board: done, failed, or held for a resume."""
        table = self.table_of(chunk)
        if not chunk.loaded and phase is Phase.DONE:
            self.mark_loaded(chunk)
        chunk.phase, chunk.status = phase, status
        self.active.pop(chunk.audit_id, None)
        if phase is Phase.DONE and not self.settings.keeps_staged:
            self.staged_bytes -= chunk.staged_bytes
        if phase is Phase.DONE:
            table.unfinished -= 1
            table.figures.chunks_done += 1
        else:
            table.failed = True

    def mark_loaded(self, chunk: ChunkTrack) -> None:
        """All load jobs of a chunk are answered."""
        chunk.loaded = True
        self.table_of(chunk).not_loaded -= 1

    def park(self, chunk: ChunkTrack) -> None:
        """A loaded chunk waits for its group, and must not keep others of the group from their turn."""
        chunk.phase = Phase.LOADED
        self.active.pop(chunk.audit_id)
        self.table_of(chunk).parked.append(chunk)

    def lay_ready(self, chunk: ChunkTrack) -> None:
        """A staged chunk makes room for others to be read."""
        chunk.phase = Phase.READY
        self.active.pop(chunk.audit_id, None)
        self.table_of(chunk).ready.append(chunk)

    def is_staged(self, table: TableTrack) -> bool:
        """Whether every chunk of a table is staged, or further."""
        return (
            table.planned
            and not table.pending
            and not any(
                chunk.phase is Phase.STAGING and chunk.table == table.spec.name for chunk in self.active.values()
            )
        )

    def group_of(self, table: TableTrack) -> list[TableTrack]:
        """All tables of a table's group, itself included."""
        return [other for other in self.tables.values() if other.spec.group == table.spec.group]

    def halt(self, error: Exception) -> None:
        """Begin nothing more because of this error."""
        self.errors.append(error)
        self.halting = True

    def lose(self, error: Exception) -> None:
        """Another runner has what this one worked on: all of it is left as it stands."""
        self.errors.append(error)
        self.halting = self.is_lost = True
        self.active.clear()
        for table in self.tables.values():
            table.parked.clear()

    def is_blocked(self, table: TableTrack) -> bool:
        """Whether a table can never start in this run, because one that it waits for did not finish."""
        return any(self._cannot_settle(self.tables[name]) for name in table.spec.waits_for)

    def _cannot_settle(self, table: TableTrack) -> bool:
        return table.failed or self.is_blocked(table)

    def may_start(self, table: TableTrack) -> bool:
        """Whether a table's chunks may begin: everything that it refers to has settled."""
        return table.planned and all(self.tables[name].is_settled for name in table.spec.waits_for)

    def may_stage(self, table: TableTrack) -> bool:
        """Whether a table's chunks may be read: what its lookups refer to is settled, or staged if that is enough."""
        if not self.settings.extract_first:
            return self.may_start(table)
        return table.planned and all(self.is_staged(self.tables[name]) for name in table.spec.waits_for)

    def group_is_loaded(self, table: TableTrack) -> bool:
        """Whether every chunk of the table's group has been loaded, so that links can be sent."""
        return all(other.planned and other.not_loaded == 0 and not other.failed for other in self.group_of(table))


def new_board(specs: Sequence[TableSpec], *, settings: EngineSettings, governor: Governor) -> Board:
    """A board on which nothing has happened yet. `specs` are in load order."""
    holds = Holds(hours=settings.hours, disk_critical=settings.disk_critical)
    tables = {spec.name: TableTrack(spec=spec) for spec in specs}
    share = Share() if settings.is_shared else None
    return Board(settings=settings, governor=governor, tables=tables, holds=holds, share=share)
