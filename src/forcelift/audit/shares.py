"""What runners that share a batch tell each other through the audit database, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from forcelift.audit.records import Batch, Chunk, Job


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """How often a runner says that it lives, and after how long a silence others count it as dead.

    Six heartbeats may be missed, so that a slow server or a paused machine does not cost a healthy runner its work.
    """

    beat_pause_s: float = 10.0
    stale_after_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseHolder:
    """Who works on a batch. `reads` names the state of the source that it sees; `exports` is what others import."""

    owner: str
    fence: int
    since: datetime
    heartbeat: datetime
    patience_s: float
    reads: str | None = None
    exports: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SilentClaim:
    """Chunks that living runners wait for, because a runner that may be dead has them.

    Attributes:
        owner: Who has them, or the one of several that was heard of last.
        chunks: How many there are.
        silent_s: Seconds since its last sign of life.
        free_in_s: Seconds until the others may take them over.
    """

    owner: str
    chunks: int
    silent_s: float
    free_in_s: float

    def __str__(self) -> str:
        chunks = "1 chunk is" if self.chunks == 1 else f"{self.chunks} chunks are"
        return (
            f"{chunks} {self.owner}'s, whose last sign of life is {self.silent_s:.0f} s old; if it is dead, the others "
            f"take over {self.free_in_s:.0f} s from now"
        )


class WorkState(StrEnum):
    """Whose a piece of work is that is done once for a table."""

    MINE = "mine"
    ELSEWHERE = "elsewhere"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkClaim:
    """The answer to a claim of such work, with its result where it is done."""

    state: WorkState
    result: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedChunks:
    """Chunks that are this runner's from now on, with all their jobs."""

    chunks: tuple[Chunk, ...]
    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedElsewhere:
    """A chunk that another runner could not finish."""

    audit_id: int
    message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What the others have done, as one look at the audit database shows it.

    Attributes:
        runners: Processes alive on the batch, this one included.
        planned: Chunks of tables that this runner did not know as planned, by table.
        settled: Chunks that this runner did not know as settled.
        loaded: Chunks whose load jobs are all answered.
        failed: Chunks that a runner gave up in this session.
        free: Chunks that may be claimed: nobody's, or a dead runner's.
        held: Chunks that another living runner has.
        silent_s: How long the most silent of those that have `held` chunks has given no sign of life, in seconds.
        orphan_intent: Whether a dead runner left a job of which it is not known whether the org has it.
    """

    runners: int
    planned: dict[str, tuple[Chunk, ...]]
    settled: tuple[Chunk, ...]
    loaded: frozenset[int]
    failed: tuple[FailedElsewhere, ...]
    free: frozenset[int]
    held: frozenset[int]
    silent_s: float
    orphan_intent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentRefused:
    """A job must wait for those of other runners on the same batch."""

    reason: str
    retry_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """How a batch stands once a runner has left it, and who is still at work on it."""

    batch: Batch
    others: tuple[LeaseHolder, ...]
