"""When each step of a batch's chunks and jobs began and ended, as the journal tells it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from msgspec import Struct

from forcelift.audit import tables
from forcelift.audit.journal import Journal

CHUNK_ACTIONS: Final = (
    "chunk_started",
    "chunk_staged",
    "chunk_loaded",
    "links_staged",
    "chunk_settled",
    "chunk_failed",
)
JOB_ACTIONS: Final = ("job_intended", "job_created", "job_closed", "job_collected", "job_abandoned")
WAIT_ACTIONS: Final = ("governor", "waits", "pause_asked", "resume_asked", "control_cleared")

_TAKEN: Final = "lease_taken"
_JOINED: Final = "runner_joined"
_RELEASED: Final = "lease_released"
_LOST: Final = "lease_lost"


class StepEvent(Struct, frozen=True, kw_only=True):
    """One move of a chunk or of one of its jobs, or of what a batch waits for, which has no chunk."""

    at: datetime
    action: str
    audit_id: int | None
    job_no: int | None
    payload: Mapping[str, Any]


class ReservedHour(Struct, frozen=True, kw_only=True):
    """Rows and Salesforce batches that were reserved in one hour of an org's day, by all batches of this database."""

    hour: datetime
    rows: int
    batches: int


class StepTimes(Journal):
    """Questions about the time that a batch took."""

    def step_events(self, batch_ids: Sequence[str]) -> list[StepEvent]:
        """All moves of these batches, in the order in which they were made."""
        journal, job = tables.journal, tables.job
        query = (
            sa.select(journal.c.at, journal.c.action, journal.c.payload)
            .where(journal.c.batch_id.in_(batch_ids))
            .where(journal.c.action.in_([*CHUNK_ACTIONS, *JOB_ACTIONS, *WAIT_ACTIONS]))
            .order_by(journal.c.seq)
        )
        with self.read() as connection:
            of_jobs = sa.select(job.c.job_no, job.c.audit_id).where(job.c.batch_id.in_(batch_ids))
            chunk_of = {row.job_no: row.audit_id for row in connection.execute(of_jobs)}
            found = []
            for at, action, text in connection.execute(query):
                payload = json.loads(text)
                number = payload.get("job")
                found.append(
                    StepEvent(
                        at=datetime.fromisoformat(at),
                        action=action,
                        audit_id=payload.get("audit_id", chunk_of.get(number)),
                        job_no=number,
                        payload=payload,
                    )
                )
        return found

    def work_times(self, batch_ids: Sequence[str]) -> list[tuple[datetime, datetime]]:
        """From when to when processes were at work on these batches; one that was killed, until its last heartbeat.

        Leases are in the time of the server where there is one, and all other moves in that of the process. Whichever
        clock is ahead, a process was at work at each move that the journal has between its first and its last.
        """
        journal, lease = tables.journal, tables.lease
        actions = [*CHUNK_ACTIONS, *JOB_ACTIONS, _TAKEN, _JOINED, _RELEASED, _LOST]
        moves = (
            sa.select(journal.c.at, journal.c.action, journal.c.batch_id, journal.c.payload)
            .where(journal.c.batch_id.in_(batch_ids), journal.c.action.in_(actions))
            .order_by(journal.c.seq)
        )
        held = sa.select(lease.c.batch_id, lease.c.fence, lease.c.since, lease.c.heartbeat)
        with self.read() as connection:
            lasted = {
                (row.batch_id, int(row.fence)): row.heartbeat - row.since
                for row in connection.execute(held.where(lease.c.batch_id.in_(batch_ids)))
            }
            found: dict[tuple[str, int], tuple[datetime, datetime]] = {}
            alive: set[tuple[str, int]] = set()
            for text, action, batch_id, payload in connection.execute(moves):
                at = datetime.fromisoformat(text)
                if action not in (_TAKEN, _JOINED, _RELEASED, _LOST):
                    for place in alive:
                        if place[0] == batch_id:
                            found[place] = min(found[place][0], at), max(found[place][1], at)
                    continue
                place = batch_id, int(json.loads(payload)["fence"])
                if action == _TAKEN:
                    alive = {one for one in alive if one[0] != batch_id}
                if action in (_TAKEN, _JOINED):
                    found[place] = at, at + lasted.get(place, timedelta(0))
                    alive.add(place)
                elif place in alive:
                    alive.discard(place)
                    if action == _RELEASED:
                        found[place] = found[place][0], max(found[place][1], at)
        return sorted(found.values())

    def reserved_hours(self, org_id: str, began: datetime, ended: datetime) -> list[ReservedHour]:
        """What was reserved of an org's rolling day, hour by hour, from a day before the first instant on."""
        budget = tables.budget
        query = (
            sa.select(budget)
            .where(budget.c.org_id == org_id, budget.c.hour > began - timedelta(hours=24), budget.c.hour <= ended)
            .order_by(budget.c.hour)
        )
        with self.read() as connection:
            return [
                ReservedHour(hour=row.hour, rows=int(row.rows_reserved), batches=int(row.batches_reserved))
                for row in connection.execute(query)
            ]
