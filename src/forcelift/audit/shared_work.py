"""What several runners on one batch tell each other of its work: claims of it, and how far it is."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct

from forcelift.audit.records import Batch, Chunk, Job
from forcelift.audit.shares import LeaseHolder


class WorkState(StrEnum):
    """Whose a piece of work is that is done once for a table."""

    MINE = "mine"
    ELSEWHERE = "elsewhere"
    DONE = "done"


class WorkClaim(Struct, frozen=True, kw_only=True):
    """The answer to a claim of such work, with its result where it is done."""

    state: WorkState
    result: Any = None


class ClaimedChunks(Struct, frozen=True, kw_only=True):
    """Chunks that are this runner's from now on, with all their jobs."""

    chunks: tuple[Chunk, ...]
    jobs: tuple[Job, ...]


class FailedElsewhere(Struct, frozen=True, kw_only=True):
    """A chunk that another runner could not finish."""

    audit_id: int
    message: str | None


class Around(Struct, frozen=True, kw_only=True):
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


class Departure(Struct, frozen=True, kw_only=True):
    """How a batch stands once a runner has left it, and who is still at work on it."""

    batch: Batch
    others: tuple[LeaseHolder, ...]
