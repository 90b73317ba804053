"""Whether what a runner is about to write is still its own to write.

Each write about a chunk, its jobs or a table's work asks here, inside its transaction. A store that is bound to no
runner (`fence` is None) is not held back, nor is the one runner of a database that cannot be shared: there a lock of
the system decides, and a process that lost it is dead.
"""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from forcelift.audit import tables
from forcelift.audit.journal import Journal
from forcelift.audit.lease import need_live
from forcelift.audit.records import ChunkStatus, JobStep
from forcelift.audit.shares import IntentRefused
from forcelift.errors import LeaseLost

# Another runner's create call takes a fraction of a second; its jobs take longer.
_INTENT_PAUSE_S = 0.2
_JOBS_PAUSE_S = 1.0
_OPEN_STEPS = tuple(step.value for step in (JobStep.INTENDED, JobStep.CREATED, JobStep.UPLOADED, JobStep.CLOSED))


class Holding(Journal):
    """The part of the audit database that knows whose a chunk is."""

    def check_claim(self, audit_id: int) -> None:
        """Raise `LeaseLost` if the chunk is no longer this runner's."""
        with self.read() as connection:
            self.need_claim(connection, audit_id)

    def need_claim(self, connection: Connection, audit_id: int) -> None:
        """Raise `LeaseLost` if the chunk is no longer this runner's."""
        if self.fence is None or not self.can_share:
            return
        chunk = tables.chunk
        query = sa.select(chunk.c.batch_id, chunk.c.claim, chunk.c.table_name, chunk.c.chunk_no)
        held = connection.execute(query.where(chunk.c.audit_id == audit_id)).one()
        need_live(connection, held.batch_id, self.fence)
        if held.claim != self.fence:
            raise LeaseLost(
                f"table `{held.table_name}`, chunk {held.chunk_no}: another process has taken it over",
                state="what this process had done of it before stands",
                hint="let the other process work; see it by `forcelift status`",
            )

    def need_work(self, connection: Connection, batch_id: str, kind: str, table_name: str) -> None:
        """Raise `LeaseLost` if a table's work of that kind is no longer this runner's."""
        if self.fence is None or not self.can_share:
            return
        need_live(connection, batch_id, self.fence)
        claim = tables.claim
        query = sa.select(claim.c.fence).where(
            claim.c.batch_id == batch_id, claim.c.kind == kind, claim.c.table_name == table_name
        )
        if connection.execute(query).scalar_one_or_none() != self.fence:
            raise LeaseLost(
                f"table `{table_name}`: another process has taken it over",
                state="nothing was written by this process",
                hint="let the other process work; see it by `forcelift status`",
            )


def wait_for_others(
    connection: Connection, batch_id: str, fence: int, alive: Collection[int], others_max: int | None
) -> IntentRefused | None:
    """Why a runner may not intend a job now, because of other runners on the batch; None if it may.

    Only one job of a batch may be in doubt at a time, or its stray could not be told from another (ADR 0003). A job
    counts while its chunk can still go on in this session: one that was given up is left to a resume.
    """
    job, chunk, log = tables.job, tables.chunk, tables.audit_log
    theirs = (
        sa.select(job.c.step, chunk.c.claim)
        .join(chunk, chunk.c.audit_id == job.c.audit_id)
        .join(log, log.c.audit_id == job.c.audit_id)
        .where(
            job.c.batch_id == batch_id,
            job.c.step.in_(_OPEN_STEPS),
            log.c.status == ChunkStatus.RUNNING.value,
            chunk.c.claim.is_(None) | (chunk.c.claim != fence),
        )
    )
    found = connection.execute(theirs).all()
    if any(row.step == JobStep.INTENDED.value for row in found):
        return IntentRefused(reason="another process is creating a job", retry_s=_INTENT_PAUSE_S)
    open_jobs = sum(row.claim in alive for row in found)
    if others_max is not None and open_jobs > others_max:
        return IntentRefused(reason=f"{open_jobs} jobs of other processes are open", retry_s=_JOBS_PAUSE_S)
    return None
