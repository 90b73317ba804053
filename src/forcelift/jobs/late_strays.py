"""Jobs that came into being after their intent was given up: a process stood still in the middle of creating one.

The process that took over asked the org, which did not show the job yet, and went on with a new one. Who stood still
aborts its job when it wakes up; if it is killed before, nobody knows the job's id, and it would stand open until the
org removes it. So whoever goes on with a batch, and whoever leaves it, looks for such jobs once more.

Reads:   intents of the batch that were given up because the org did not show their job.
Writes:  aborts what is certainly ours, by the rules of `stray`; a row of the journal for each.
Re-run:  an aborted job is not open any more, so it is not found again.
"""

from __future__ import annotations

from forcelift.audit.records import JobStep
from forcelift.errors import TargetError
from forcelift.jobs.stray import judge_strays
from forcelift.jobs.world import JobWorld
from forcelift.protocols.org import JobState

NOT_SHOWN = "the org does not show it"
"""Why an intent is given up whose job may yet appear."""


def abort_late_strays(world: JobWorld) -> list[str]:
    """Abort such jobs; their ids. An org that does not answer is no reason to fail: the next process looks again."""
    audit, batch_id = world.audit, world.batch.batch_id
    given_up = [
        job
        for job in audit.jobs(batch_id)
        if job.step is JobStep.ABANDONED and job.sf_id is None and job.error_message == NOT_SHOWN
    ]
    if not given_up:
        return []
    aborted: list[str] = []
    try:
        listed = world.org.list_jobs()
        known, intents = audit.known_sf_ids(world.org.org_id), audit.open_intents()
        for job in given_up:
            # The answer to an intent that is open now may be on its way: its job would look the same.
            if any((one.object, one.operation) == (job.object, job.operation) for one in intents):
                continue
            verdict = judge_strays(
                job,
                listed=[one for one in listed if one.id not in aborted],
                known_ids=known,
                open_intents=intents,
                user_id=world.org.user_id,
                api_version=world.org.api_version,
            )
            if verdict.ours is None:
                continue
            world.lease.check()
            seen = world.org.abort_job(verdict.ours.id)
            if seen.state is JobState.ABORTED:
                aborted.append(seen.id)
                audit.journal("late_job_aborted", {"job_no": job.job_no, "sf_id": seen.id}, batch_id=batch_id)
    except TargetError as error:
        audit.journal("late_jobs_not_looked_for", {"reason": error.message}, batch_id=batch_id)
    return aborted
