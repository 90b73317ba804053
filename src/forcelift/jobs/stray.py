"""Which open job in the org is the one whose creation we never heard the answer of.

Aborting somebody else's job would be worse than leaving ours: an open job without data never processes a row and the
org removes it after 24 hours. So a job is taken for ours only if everything fits and nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from msgspec import Struct

from forcelift.audit.records import Job
from forcelift.protocols.org import IngestJob, JobState

WINDOW_BEFORE = timedelta(seconds=30)  # clocks of org and client differ
WINDOW_AFTER = timedelta(seconds=150)  # the longest a create call may take, and the clocks again


class StrayVerdict(Struct, frozen=True, kw_only=True):
    """`ours` is to be aborted; `doubtful` ones are to be reported and left alone."""

    ours: IngestJob | None
    doubtful: tuple[IngestJob, ...]


def judge_strays(
    intent: Job,
    *,
    listed: Iterable[IngestJob],
    known_ids: frozenset[str],
    open_intents: Iterable[Job],
    user_id: str,
    api_version: str,
) -> StrayVerdict:
    """Find the job of `intent` among the org's jobs.

    Args:
        intent: A job that was intended and whose id is not known.
        listed: All ingest jobs that the org lists.
        known_ids: Ids of all jobs in the audit database, read after `listed`: those are accounted for.
        open_intents: All jobs of the audit database that are intended and have no id yet: one of another batch may be
            the one whose creation has just been answered.
        user_id: Who we are signed in as.
        api_version: The version that we create jobs with.
    """
    fitting = [
        job
        for job in listed
        if job.state is JobState.OPEN
        and _looks_alike(job, intent, known_ids=known_ids, user_id=user_id, api_version=api_version)
        and intent.intended_at - WINDOW_BEFORE <= job.created_date <= intent.intended_at + WINDOW_AFTER
    ]
    rivals = any(
        other.batch_id != intent.batch_id
        and (other.object, other.operation) == (intent.object, intent.operation)
        and abs(other.intended_at - intent.intended_at) <= WINDOW_AFTER
        for other in open_intents
    )
    if len(fitting) == 1 and not rivals:
        return StrayVerdict(ours=fitting[0], doubtful=())
    return StrayVerdict(ours=None, doubtful=tuple(fitting))


class LoadedStrays(Struct, frozen=True, kw_only=True):
    """Jobs of which one may have taken its data with its creation. Into `ended`, oldest first, one can look."""

    at_work: tuple[IngestJob, ...]
    ended: tuple[IngestJob, ...]


def loaded_strays(
    intent: Job, *, listed: Iterable[IngestJob], known_ids: frozenset[str], user_id: str, api_version: str
) -> LoadedStrays:
    """The org's jobs that may be what an intent became whose data went with the creation: such a job is never open.

    There is no latest time: a process may have stood still between its intent and its call, and what a job holds tells
    more than when it was made. Arguments as those of `judge_strays`.
    """
    fitting = [
        job
        for job in listed
        if job.state is not JobState.OPEN
        and _looks_alike(job, intent, known_ids=known_ids, user_id=user_id, api_version=api_version)
        and intent.intended_at - WINDOW_BEFORE <= job.created_date
    ]
    fitting.sort(key=lambda job: (job.created_date, job.id))
    return LoadedStrays(
        at_work=tuple(job for job in fitting if not job.state.is_terminal),
        ended=tuple(job for job in fitting if job.state.is_terminal),
    )


def same_elsewhere(intent: Job, open_intents: Iterable[Job]) -> bool:
    """Whether another batch is in doubt about a job of the very same file, so that a job found may be its."""
    return any(other.job_no != intent.job_no and other.part.sha256 == intent.part.sha256 for other in open_intents)


def _looks_alike(job: IngestJob, intent: Job, *, known_ids: frozenset[str], user_id: str, api_version: str) -> bool:
    return (
        job.id not in known_ids
        and job.created_by_id == user_id
        and job.object == intent.object
        and job.operation == intent.operation
        and (job.external_id_field or None) == (intent.external_id_field or None)
        and (job.api_version is None or job.api_version == float(api_version))
    )
