"""In which order the jobs of several batches were intended, so that words of their ledgers can be put in order."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa
from msgspec import Struct

from forcelift.audit import tables
from forcelift.audit.journal import Journal
from forcelift.audit.records import JobKind


class JobPlace(Struct, frozen=True, kw_only=True):
    """A job, and its place, from 1, among those of all batches that were asked for."""

    job_no: int
    batch_id: str
    audit_id: int
    intended_at: datetime
    place: int


class ProjectWords(Journal):
    """Questions over several batches."""

    def job_places(self, batch_ids: Iterable[str]) -> list[JobPlace]:
        """The jobs of these batches that sent rows, in the order in which they were intended; not those of rollbacks.

        Numbers of jobs need not grow with time where several instances serve one database.
        """
        job = tables.job
        found = []
        with self.read() as connection:
            for batch_id in batch_ids:
                query = sa.select(job.c.intended_at, job.c.job_no, job.c.audit_id).where(
                    job.c.batch_id == batch_id, job.c.kind != JobKind.UNDO.value
                )
                found += [(row.intended_at, row.job_no, batch_id, row.audit_id) for row in connection.execute(query)]
        return [
            JobPlace(job_no=job_no, batch_id=batch_id, audit_id=audit_id, intended_at=intended_at, place=place)
            for place, (intended_at, job_no, batch_id, audit_id) in enumerate(sorted(found), start=1)
        ]
