"""What the coordinator asks for, and what it is told.

A command names one step whose effect is durable or absent, so that a crash between two commands loses nothing. Each
command is answered by exactly one `Answer`, with a result of the type named in the command's docstring or an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from forcelift.audit.records import Chunk, ChunkStatus, Control, JobDraft
from forcelift.jobs.holds import DiskSeen
from forcelift.protocols.org import IngestJob


class PlanTable(Struct, frozen=True, kw_only=True):
    """Cut a table into chunks, find its duplicates, write both down. -> `TablePlanned`; None if another runner does."""

    table: str


class StageChunk(Struct, frozen=True, kw_only=True):
    """Read, clean and seal a chunk's upload files. -> `ChunkStaged`."""

    audit_id: int


class TakeImage(Struct, frozen=True, kw_only=True):
    """Seal the records of a staged chunk's keys as they stand now, before its first job. -> number of records."""

    audit_id: int


class IntendJob(Struct, frozen=True, kw_only=True):
    """Write down that a job is about to be created, and reserve its allowance.

    -> `Job`, `BudgetRefused`, or `IntentRefused` where more than `others_max` jobs of other runners are open.
    """

    draft: JobDraft
    others_max: int | None = None


class CreateJob(Struct, frozen=True, kw_only=True):
    """Create the job in the org and write down its id. -> `Job`."""

    job_no: int


class FindStray(Struct, frozen=True, kw_only=True):
    """Look in the org for the job of an intent whose answer was lost; abort it if it is certainly ours.

    A job that took its data with its creation is not aborted: it becomes the intent's. With `is_last` the intent is
    given up where the org shows no such job; before, it may be too early to tell.
    -> `IngestJob` at work or ended, `StrayAwaited`, or None where the intent was given up.
    """

    job_no: int
    is_last: bool = True


class UploadJob(Struct, frozen=True, kw_only=True):
    """Send the job's one file. -> `Job`."""

    job_no: int


class CloseJob(Struct, frozen=True, kw_only=True):
    """Let the org begin. -> `Job`."""

    job_no: int


class AskJob(Struct, frozen=True, kw_only=True):
    """Ask for the state after a lost answer. -> `IngestJob`, or None if the org does not know the job."""

    job_no: int


class AbandonJob(Struct, frozen=True, kw_only=True):
    """Abort a job that was never closed, unless it turns out to be at work. -> `IngestJob` at work, else None."""

    job_no: int
    reason: str


class AbortJob(Struct, frozen=True, kw_only=True):
    """Abort a job at work, as `stop --now` asks. -> `IngestJob` or None if gone."""

    job_no: int


class PollJobs(Struct, frozen=True, kw_only=True):
    """Ask for the states of closed jobs. -> dict job_no -> `IngestJob`, None where the org does not know the job."""

    job_nos: tuple[int, ...]


class CollectJob(Struct, frozen=True, kw_only=True):
    """Fetch the answers of a job in a terminal state and seal them. -> `Tally`.

    `seen` is the job as the last look at it showed it, so that the org need not be asked again what is known.
    """

    job_no: int
    seen: IngestJob | None = None


class StageResend(Struct, frozen=True, kw_only=True):
    """Seal files of the rows that still lack a final answer, as attempt `attempt`. -> `Resend`.

    With `attempt` None nothing is sealed: the rows are only counted. `include_unknown` takes in rows whose answers are
    gone, as a resume does.
    """

    audit_id: int
    links: bool
    attempt: int | None
    include_unknown: bool


class LoadChunk(Struct, frozen=True, kw_only=True):
    """Write the ledger of a chunk whose links are still to come. -> rows whose answers are gone (then it failed)."""

    audit_id: int


class StageLinks(Struct, frozen=True, kw_only=True):
    """Seal the link files of a loaded chunk. -> tuple of `JobDraft`."""

    audit_id: int


class SettleChunk(Struct, frozen=True, kw_only=True):
    """Join all answers, write ledger, failed records and audit row. -> `ChunkSettled`."""

    audit_id: int


class FailChunk(Struct, frozen=True, kw_only=True):
    """Write down that a chunk cannot be finished now. -> None.

    `is_left` where only this runner goes: on a shared batch another one takes the chunk over as it stands.
    """

    audit_id: int
    message: str
    is_left: bool = False


class SkipChunks(Struct, frozen=True, kw_only=True):
    """Write down that the chunks not begun are skipped. -> number of chunks."""

    reason: str


class CheckTable(Struct, frozen=True, kw_only=True):
    """Look over a finished table's ledger for two rows in one record.

    -> tuple of Ids (normally empty); None while another runner looks.
    """

    table: str


class ClaimChunks(Struct, frozen=True, kw_only=True):
    """On a shared batch: take chunks of these tables that nobody works on. -> `ClaimedChunks`."""

    tables: tuple[str, ...]
    wanted: int


class LookAround(Struct, frozen=True, kw_only=True):
    """On a shared batch: see what the others have done. -> `Around`.

    `open_ids` are the chunks that this runner knows as unsettled and does not work on.
    """

    open_ids: frozenset[int]
    unplanned: tuple[str, ...]


Command = (
    PlanTable
    | StageChunk
    | TakeImage
    | IntendJob
    | CreateJob
    | FindStray
    | UploadJob
    | CloseJob
    | AskJob
    | AbandonJob
    | AbortJob
    | PollJobs
    | CollectJob
    | StageResend
    | LoadChunk
    | StageLinks
    | SettleChunk
    | FailChunk
    | SkipChunks
    | CheckTable
    | ClaimChunks
    | LookAround
)


class TablePlanned(Struct, frozen=True, kw_only=True):
    chunks: tuple[Chunk, ...]


class ChunkStaged(Struct, frozen=True, kw_only=True):
    """The drafts of the chunk's load jobs; empty if no row is to be sent."""

    drafts: tuple[JobDraft, ...]
    extracted: int
    rejected: int
    duplicate: int
    has_links: bool
    staged_bytes: int


class Tally(Struct, frozen=True, kw_only=True):
    """The answers of one job, in rows. `open` rows have no final answer: not processed, or not to be found."""

    sent: int
    created: int
    updated: int
    failed: int
    transient: int  # of `failed`: refused for a reason that passes
    locked: int  # of `transient`: locks
    open: int
    unknown: int
    job_error: str | None = None
    job_error_transient: bool = False

    def __add__(self, other: Tally) -> Tally:
        """Both parts of one job's answers together."""
        counts = ("sent", "created", "updated", "failed", "transient", "locked", "open", "unknown")
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in counts})

    @property
    def is_clean(self) -> bool:
        return not (self.transient or self.open)


class StrayAwaited(Struct, frozen=True, kw_only=True):
    """It cannot be told yet what became of a creation. `at_work` are jobs that may be the one, once they have ended."""

    at_work: tuple[str, ...] = ()


class Resend(Struct, frozen=True, kw_only=True):
    """What lacks a final answer: `open` rows were never processed, `transient` ones refused for a passing reason."""

    drafts: tuple[JobDraft, ...]
    open: int
    transient: int


class ChunkSettled(Struct, frozen=True, kw_only=True):
    status: ChunkStatus
    created: int
    updated: int
    failed: int
    rejected: int
    duplicate: int
    unknown: int


class Answer(Struct, frozen=True, kw_only=True):
    """What became of a command: a result, or the error that its handler raised."""

    command: Command
    result: Any = None
    error: Exception | None = None
    api_requests_left: int | None = None


class ControlSeen(Struct, frozen=True, kw_only=True):
    """An operator's wish, read from the audit database or from a signal."""

    control: Control


Event = Answer | ControlSeen | DiskSeen


class Seen(Struct, frozen=True, kw_only=True):
    """The states of several jobs at once."""

    jobs: Mapping[int, IngestJob | None]
