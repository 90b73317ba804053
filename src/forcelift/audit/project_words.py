"""In which order the jobs of several batches were intended, so that words of their ledgers can be put in order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from forcelift.audit import tables
from forcelift.audit.journal import Journal


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlace:
    """A job, and its place, from 1, among those of all batches that were asked for."""

    job_no: int
    audit_id: int
    intended_at: datetime
    place: int


class ProjectWords(Journal):
    """Questions over several batches."""

    def job_places(self, batch_ids: Iterable[str]) -> list[JobPlace]:
        """The jobs of these batches in the order in which they were intended.

        Numbers of jobs need not grow with time where several instances serve one database.
        """
        job = tables.job
        found = []
        with self.read() as connection:
            for batch_id in batch_ids:
                query = sa.select(job.c.intended_at, job.c.job_no, job.c.audit_id).where(job.c.batch_id == batch_id)
                found += [(row.intended_at, row.job_no, row.audit_id) for row in connection.execute(query)]
        return [
            JobPlace(job_no=job_no, audit_id=audit_id, intended_at=intended_at, place=place)
            for place, (intended_at, job_no, audit_id) in enumerate(sorted(found), start=1)
        ]
