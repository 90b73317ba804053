"""Which open job in the org is the one whose creation we never heard the answer of.

Aborting somebody else's job would be worse than leaving ours: an open job without data never processes a row and the
org removes it after 24 hours. So a job is taken for ours only if everything fits and nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from forcelift.audit.records import Job
from forcelift.protocols.org import IngestJob, JobState

WINDOW_BEFORE = timedelta(seconds=30)  # clocks of org and client differ
WINDOW_AFTER = timedelta(seconds=150)  # the longest a create call may take, and the clocks again


@dataclass(frozen=True, slots=True, kw_only=True)
class StrayVerdict:
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
        and job.id not in known_ids
        and job.created_by_id == user_id
        and job.object == intent.object
        and job.operation == intent.operation
        and (job.external_id_field or None) == (intent.external_id_field or None)
        and (job.api_version is None or job.api_version == float(api_version))
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
