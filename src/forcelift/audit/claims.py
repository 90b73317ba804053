"""Runners that share a batch: who has which chunk, who does a table's work, and who is the last to leave.

A claim is the fence of a runner. It holds while that runner lives; a dead runner's claims are free, and taking one
over gives the chunk its next generation, so that no file of the dead one is ever written over. Each method that claims
is one transaction in the writers' turn: two runners never get the same.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from forcelift.audit import tables
from forcelift.audit.batches import move_batch, need_batch
from forcelift.audit.chunk_rows import fail, find_chunks, find_table, skip_pending, start
from forcelift.audit.codec import job_from
from forcelift.audit.holding import Holding
from forcelift.audit.journal import append
from forcelift.audit.lease import bury_silent, lease_time, living, need_live, release, silence
from forcelift.audit.records import BatchState, Chunk, ChunkStatus, ChunkStep, JobStep
from forcelift.audit.shared_work import Around, ClaimedChunks, Departure, FailedElsewhere, WorkClaim, WorkState

_ENDED_HERE = (ChunkStatus.FAILED.value, ChunkStatus.SKIPPED.value)
_AT_WORK = (ChunkStatus.PENDING.value, ChunkStatus.RUNNING.value)


class Claims(Holding):
    """Claims of runners; only where `can_share`."""

    def claim_chunks(self, batch_id: str, *, tables_open: Collection[str], wanted: int) -> ClaimedChunks:
        """Take up to so many chunks that nobody has, interrupted ones first, then in load order.

        Args:
            batch_id: The batch.
            tables_open: Tables whose chunks may begin.
            wanted: At most so many. A chunk whose job a dead runner left in doubt comes beside them, from any table:
                no job of the batch can be intended before that doubt is settled.
        Raises:
            LeaseLost: This runner was counted as dead.
        """
        fence = self._fence()
        with self.write() as connection:
            now, alive = self._alive(connection, batch_id)
            free = _is_free(alive)
            found = list(connection.execute(_candidates(batch_id).where(free, _has_open_intent())))
            if wanted > 0 and tables_open:
                query = _candidates(batch_id).where(free, tables.chunk.c.table_name.in_(sorted(tables_open)))
                found += connection.execute(query.limit(wanted)).all()
            audit_ids = sorted({row.audit_id for row in found})
            for row in {row.audit_id: row for row in found}.values():
                self._take(connection, batch_id, row, fence, now)
            jobs = connection.execute(
                sa.select(tables.job).where(tables.job.c.audit_id.in_(audit_ids)).order_by(tables.job.c.job_no)
            )
            return ClaimedChunks(
                jobs=tuple(job_from(job) for job in jobs.mappings()) if audit_ids else (),
                chunks=tuple(find_chunks(connection, batch_id, None, audit_ids)) if audit_ids else (),
            )

    @staticmethod
    def _take(connection: Connection, batch_id: str, row: sa.Row[Any], fence: int, now: datetime) -> None:
        values: dict[str, Any] = {"claim": fence}
        if row.status == ChunkStatus.RUNNING.value:
            values["generation"] = row.generation + 1
        connection.execute(tables.chunk.update().where(tables.chunk.c.audit_id == row.audit_id).values(**values))
        if row.status in _ENDED_HERE:
            start(connection, row.audit_id, now)
        elif row.status == ChunkStatus.RUNNING.value:
            taken = {"audit_id": row.audit_id, "fence": fence, "from_fence": row.claim}
            append(connection, now, "chunk_taken_over", taken, batch_id=batch_id)

    def look_around(self, batch_id: str, *, open_ids: Collection[int], unplanned: Collection[str]) -> Around:
        """What others have done since, by what this runner knows.

        Args:
            batch_id: The batch.
            open_ids: Chunks that it does not work on and knows as unsettled.
            unplanned: Tables that it does not know as planned.
        Raises:
            LeaseLost: This runner was counted as dead.
        """
        fence = self._fence()
        with self.read() as connection:
            need_live(connection, batch_id, fence)
            now = lease_time(self, connection)
            runners = living(self, connection, batch_id, now)
            alive = {one.fence for one in runners} | {fence}
            chunk, log = tables.chunk, tables.audit_log
            columns = (chunk.c.audit_id, chunk.c.step, chunk.c.claim, log.c.status, log.c.error_message)
            rows = [
                row
                for row in connection.execute(
                    sa.select(*columns)
                    .join(log, log.c.audit_id == chunk.c.audit_id)
                    .where(chunk.c.batch_id == batch_id)
                )
                if row.audit_id in open_ids
            ]
            settled = [row.audit_id for row in rows if row.step == ChunkStep.SETTLED.value]
            given_up = [row for row in rows if row.status in _ENDED_HERE and row.claim is not None]
            ended = {row.audit_id for row in given_up} | set(settled)
            open_rows = [row for row in rows if row.audit_id not in ended]
            held = {row.audit_id: row.claim for row in open_rows if row.claim in alive and row.claim != fence}
            intents = connection.execute(_candidates(batch_id).where(_is_free(alive), _has_open_intent())).first()
            return Around(
                runners=len(alive),
                planned={
                    name: tuple(find_chunks(connection, batch_id, name))
                    for name in unplanned
                    if find_table(connection, batch_id, name) is not None
                },
                settled=tuple(find_chunks(connection, batch_id, None, settled)) if settled else (),
                loaded=frozenset(row.audit_id for row in open_rows if row.step in _LOADED),
                failed=tuple(FailedElsewhere(audit_id=row.audit_id, message=row.error_message) for row in given_up),
                free=frozenset(row.audit_id for row in open_rows if row.claim not in alive),
                held=frozenset(held),
                silent_s=silence(connection, batch_id, set(held.values()), now),
                orphan_intent=intents is not None,
            )

    def claim_work(self, batch_id: str, kind: str, table_name: str) -> WorkClaim:
        """Take on work that is done once for a table: `plan` or `check`.

        Raises:
            LeaseLost: This runner was counted as dead.
        """
        fence, claim = self._fence(), tables.claim
        with self.write() as connection:
            _, alive = self._alive(connection, batch_id)
            if kind == "plan" and find_table(connection, batch_id, table_name) is not None:
                return WorkClaim(state=WorkState.DONE)
            this = (claim.c.batch_id == batch_id) & (claim.c.kind == kind) & (claim.c.table_name == table_name)
            row = connection.execute(sa.select(claim).where(this)).one_or_none()
            if row is None:
                values = {"batch_id": batch_id, "kind": kind, "table_name": table_name, "fence": fence}
                connection.execute(claim.insert(), values)
                return WorkClaim(state=WorkState.MINE)
            if row.done_at is not None:
                return WorkClaim(state=WorkState.DONE, result=row.result)
            if row.fence != fence and row.fence in alive:
                return WorkClaim(state=WorkState.ELSEWHERE)
            connection.execute(claim.update().where(this).values(fence=fence))
            return WorkClaim(state=WorkState.MINE)

    def work_done(self, batch_id: str, kind: str, table_name: str, result: Any) -> None:
        """Such work is done, with a result (JSON) that the other runners need not find again."""
        claim = tables.claim
        with self.write() as connection:
            self.need_work(connection, batch_id, kind, table_name)
            this = (claim.c.batch_id == batch_id) & (claim.c.kind == kind) & (claim.c.table_name == table_name)
            connection.execute(claim.update().where(this).values(done_at=self.clock.now(), result=result))

    def leave(self, batch_id: str, state: BatchState, *, reason: str) -> Departure:
        """End this runner's part. The last to leave writes how the batch ended, and what did not come to its end.

        Args:
            batch_id: The batch.
            state: How it ended as this runner sees it. DONE stands at once, others only where nobody goes on.
            reason: Why chunks did not come to their end, for those that nobody goes on with.
        Raises:
            LeaseLost: This runner was counted as dead; what it had is another's to end.
        """
        fence = self._fence()
        with self.write() as connection:
            self._alive(connection, batch_id)
            lease_now = lease_time(self, connection)
            release(connection, batch_id, fence, lease_now)
            others = tuple(living(self, connection, batch_id, lease_now))
            batch = need_batch(connection, batch_id)
            if batch.state is not BatchState.RUNNING or (others and state is not BatchState.DONE):
                return Departure(batch=batch, others=others)
            now = self.clock.now()
            if state is not BatchState.DONE:
                skip_pending(connection, batch_id, now, reason)
                for chunk in _unfinished(connection, batch_id):
                    fail(connection, chunk.audit_id, now, f"not finished: {reason}; a resume goes on from here")
            return Departure(batch=move_batch(connection, batch_id, state, now), others=others)

    def _fence(self) -> int:
        if self.fence is None or not self.can_share:
            raise ValueError("claims are of a runner, in a database that can be shared")
        return self.fence

    def _alive(self, connection: Connection, batch_id: str) -> tuple[datetime, set[int]]:
        """The time of leases, and the fences that live, once all silent runners are written off; ours lives."""
        fence = self._fence()
        need_live(connection, batch_id, fence)
        now = lease_time(self, connection)
        lease = tables.lease
        mine = (lease.c.batch_id == batch_id) & (lease.c.fence == fence)
        # Whoever comes here is alive, even if its heart has just begun to beat again.
        connection.execute(lease.update().where(mine, lease.c.heartbeat < now).values(heartbeat=now))
        owner = connection.execute(sa.select(lease.c.owner).where(mine)).scalar_one()
        bury_silent(self, connection, batch_id, now, taker=owner)
        return now, {one.fence for one in living(self, connection, batch_id, now)}


_LOADED = (ChunkStep.LOADED.value, ChunkStep.LINKING.value)


def _candidates(batch_id: str) -> sa.Select[Any]:
    """Unsettled chunks of a batch, interrupted ones first."""
    chunk, log, table = tables.chunk, tables.audit_log, tables.batch_table
    begun = sa.case((log.c.status == ChunkStatus.RUNNING.value, 0), else_=1)
    return (
        sa.select(chunk.c.audit_id, chunk.c.claim, chunk.c.generation, log.c.status)
        .join(log, log.c.audit_id == chunk.c.audit_id)
        .join(table, (table.c.batch_id == chunk.c.batch_id) & (table.c.table_name == chunk.c.table_name))
        .where(chunk.c.batch_id == batch_id, chunk.c.step != ChunkStep.SETTLED.value)
        .order_by(begun, table.c.position, chunk.c.table_name, chunk.c.chunk_no)
    )


def _is_free(alive: Collection[int]) -> sa.ColumnElement[bool]:
    """Nobody's, or at work at a runner that is dead. What was given up stays so until a new session forgets claims."""
    chunk, log = tables.chunk, tables.audit_log
    dead = log.c.status.in_(_AT_WORK) & chunk.c.claim.not_in(sorted(alive))
    return chunk.c.claim.is_(None) | dead


def _has_open_intent() -> sa.ColumnElement[bool]:
    job = tables.job
    return (
        sa.select(job.c.job_no)
        .where(job.c.audit_id == tables.chunk.c.audit_id, job.c.step == JobStep.INTENDED.value)
        .exists()
    )


def _unfinished(connection: Connection, batch_id: str) -> list[Chunk]:
    return [chunk for chunk in find_chunks(connection, batch_id, None) if chunk.status is ChunkStatus.RUNNING]
