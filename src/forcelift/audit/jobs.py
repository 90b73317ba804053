"""Our bulk jobs and the budget of the rolling day.

A job's row is written before the org is asked to create it, so that no job of ours is ever unknown to us. Its rows are
reserved in the same transaction: in every 24 hours, at most the allowance, whoever else reserves for the same org.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from forcelift.audit import tables
from forcelift.audit.codec import job_from
from forcelift.audit.holding import Holding, wait_for_others
from forcelift.audit.journal import append, append_chunk
from forcelift.audit.lease import lease_time, living, taker_of
from forcelift.audit.records import BudgetRefused, IllegalMove, Job, JobDraft, JobKind, JobStep
from forcelift.audit.shares import IntentRefused
from forcelift.audit.text import fit_text
from forcelift.errors import LeaseLost, StateConflict

# Salesforce cuts the rows of a Bulk API 2.0 job into batches of at most this many.
SALESFORCE_BATCH_ROWS = 10_000
_HOUR = timedelta(hours=1)
# An hour's reservations may lie at its very end, so the hour counts until 24 hours after that: one hour more than 24.
_HOURS_COUNTED = timedelta(hours=25)

_STEPS_BEFORE: Mapping[JobStep, frozenset[JobStep]] = {
    JobStep.CREATED: frozenset({JobStep.INTENDED}),
    JobStep.UPLOADED: frozenset({JobStep.CREATED}),
    # A lost reply to the upload or the close may hide that it was done: the org's own word then decides.
    JobStep.CLOSED: frozenset({JobStep.CREATED, JobStep.UPLOADED}),
    JobStep.COLLECTED: frozenset({JobStep.CREATED, JobStep.UPLOADED, JobStep.CLOSED}),
    JobStep.ABANDONED: frozenset({JobStep.INTENDED, JobStep.CREATED, JobStep.UPLOADED, JobStep.CLOSED}),
}


class Jobs(Holding):
    """Jobs and budgets."""

    def intend_job(
        self,
        draft: JobDraft,
        *,
        org_id: str,
        rows_per_day: int,
        batches_per_day: int = 15_000,
        fence: int,
        others_max: int | None = None,
    ) -> Job | BudgetRefused | IntentRefused:
        """Record that a job will be created, and reserve its rows and Salesforce batches.

        Args:
            others_max: Where several runners share the batch, how many jobs of the others may be open beside this one.
        Returns:
            The job, or why and until when the rolling day's allowance does not hold it, or which jobs of the batch's
            other runners it has to wait for.
        Raises:
            StateConflict: The lease was lost to another process, or the job alone is larger than the allowance.
        """
        with self.write() as connection:
            now = self.clock.now()
            batch_id = _batch_of(connection, draft.audit_id)
            _check_fence(connection, batch_id, fence)
            self.need_claim(connection, draft.audit_id)
            if self.can_share and self.fence is not None:
                alive = {one.fence for one in living(self, connection, batch_id, lease_time(self, connection))}
                waits = wait_for_others(connection, batch_id, fence, alive, others_max)
                if waits is not None:
                    return waits
            rows, batches = draft.part.rows, salesforce_batches(draft.part.rows)
            refused = _over_budget(connection, org_id, now, (rows, batches), (rows_per_day, batches_per_day))
            if refused is not None:
                return refused
            hour = _hour(now)
            _reserve(connection, org_id, hour, rows, batches)
            job_no = _insert_job(connection, draft, batch_id=batch_id, org_id=org_id, now=now, hour=hour, fence=fence)
            payload = {
                "job": job_no,
                "audit_id": draft.audit_id,
                "kind": draft.kind.value,
                "attempt": draft.attempt,
                "rows": rows,
                "file": draft.part.file,
                "sha256": draft.part.sha256,
            }
            append(connection, now, "job_intended", payload, batch_id=batch_id)
            return _need_job(connection, job_no)

    def job_created(self, job_no: int, sf_id: str) -> Job:
        """The org created the job. The first load job of a chunk becomes its SF_JOB_ID."""
        with self.write() as connection:
            now = self.clock.now()
            self._need_claim(connection, job_no)
            job = _step(connection, job_no, JobStep.CREATED, sf_id=sf_id, org_state="Open", created_at=now)
            _note_created(connection, job, sf_id, now, {"job": job_no, "sf_id": sf_id})
            return job

    def job_taken(self, job_no: int, sf_id: str, *, found: bool = False) -> Job:
        """The org created the job and took its file in the same call: it is created, uploaded and closed at once.

        Args:
            found: Whether the org was asked for it, as the reply to that call was lost.
        """
        with self.write() as connection:
            now = self.clock.now()
            self._need_claim(connection, job_no)
            _need_unknown(connection, job_no, sf_id)
            values = {"sf_id": sf_id, "org_state": "UploadComplete", "created_at": now, "closed_at": now}
            _step(connection, job_no, JobStep.CREATED, **values)
            job = _step(connection, job_no, JobStep.CLOSED)
            payload = {"job": job_no, "sf_id": sf_id, "with_data": True, "found": found}
            _note_created(connection, job, sf_id, now, payload)
            append(connection, now, "job_uploaded", {"job": job_no}, batch_id=job.batch_id)
            append(connection, now, "job_closed", {"job": job_no}, batch_id=job.batch_id)
            return job

    def job_uploaded(self, job_no: int) -> Job:
        """The org took the file."""
        with self.write() as connection:
            self._need_claim(connection, job_no)
            job = _step(connection, job_no, JobStep.UPLOADED)
            append(connection, self.clock.now(), "job_uploaded", {"job": job_no}, batch_id=job.batch_id)
            return job

    def job_closed(self, job_no: int) -> Job:
        """The org will work on the job: from now on its rows count against the day, whatever becomes of it.

        Said of a closed job again, as after a lost reply, it changes nothing.
        """
        with self.write() as connection:
            now = self.clock.now()
            self._need_claim(connection, job_no)
            job = _need_job(connection, job_no)
            if job.step is JobStep.CLOSED:
                return job
            job = _step(connection, job_no, JobStep.CLOSED, org_state="UploadComplete", closed_at=now)
            append(connection, now, "job_closed", {"job": job_no}, batch_id=job.batch_id)
            return job

    def job_seen(self, job_no: int, org_state: str, error_message: str | None = None) -> Job:
        """The org shows the job in that state; its step stays."""
        with self.write() as connection:
            self._need_claim(connection, job_no)
            job = _need_job(connection, job_no)
            values = {"org_state": org_state, "error_message": fit_text(error_message, tables.ERROR_MESSAGE_BYTES)}
            if (job.org_state, job.error_message) != (values["org_state"], values["error_message"]):
                _update(connection, job_no, values)
            return _need_job(connection, job_no)

    def job_collected(
        self,
        job_no: int,
        results_file: str | None,
        answered: int,
        org_state: str | None,
        error_message: str | None = None,
        *,
        seconds: float = 0.0,
        results_sha256: str | None = None,
    ) -> Job:
        """The job's answers are sealed in storage; `org_state` is None where the org has forgotten the job.

        `seconds` are those that fetching and joining the answers took.
        """
        with self.write() as connection:
            now = self.clock.now()
            self._need_claim(connection, job_no)
            job = _step(
                connection,
                job_no,
                JobStep.COLLECTED,
                results_file=results_file,
                answered=answered,
                org_state=org_state,
                error_message=fit_text(error_message, tables.ERROR_MESSAGE_BYTES),
                ended_at=now,
            )
            payload = {
                "job": job_no,
                "answered": answered,
                "org_state": org_state,
                "results_file": results_file,
                "results_sha256": results_sha256,
                "seconds": round(seconds, 3),
            }
            append(connection, now, "job_collected", payload, batch_id=job.batch_id)
            return job

    def job_abandoned(self, job_no: int, reason: str) -> Job:
        """The job never processed a row. Its reservation is given back unless it was ever closed."""
        with self.write() as connection:
            now = self.clock.now()
            self._need_claim(connection, job_no)
            before = _need_job(connection, job_no)
            values: dict[str, Any] = {"error_message": fit_text(reason, tables.ERROR_MESSAGE_BYTES), "ended_at": now}
            given_back = before.step is not JobStep.CLOSED
            if given_back:
                _give_back(connection, job_no)
                values["budget_hour"] = None
            job = _step(connection, job_no, JobStep.ABANDONED, **values)
            payload = {"job": job_no, "rows_given_back": job.part.rows if given_back else 0}
            append(connection, now, "job_abandoned", payload, batch_id=job.batch_id)
            return job

    def _need_claim(self, connection: Connection, job_no: int) -> None:
        if self.fence is not None and self.can_share:
            self.need_claim(connection, _need_job(connection, job_no).audit_id)

    def jobs(self, batch_id: str, audit_id: int | None = None) -> list[Job]:
        """The batch's jobs, or one chunk's, in the order in which they were intended."""
        query = sa.select(tables.job).where(tables.job.c.batch_id == batch_id).order_by(tables.job.c.job_no)
        if audit_id is not None:
            query = query.where(tables.job.c.audit_id == audit_id)
        with self.read() as connection:
            return [job_from(row) for row in connection.execute(query).mappings()]

    def job(self, job_no: int) -> Job:
        """One job. Raises `StateConflict` if there is none of that number."""
        with self.read() as connection:
            return _need_job(connection, job_no)

    def known_sf_ids(self, org_id: str) -> frozenset[str]:
        """Salesforce ids of all jobs that any batch here ever made in that org."""
        query = sa.select(tables.job.c.sf_id).where(tables.job.c.org_id == org_id, tables.job.c.sf_id.is_not(None))
        with self.read() as connection:
            return frozenset(connection.execute(query).scalars())

    def open_intents(self) -> list[Job]:
        """Jobs of any batch that are intended and whose Salesforce id is not written down."""
        query = sa.select(tables.job).where(tables.job.c.step == JobStep.INTENDED.value, tables.job.c.sf_id.is_(None))
        with self.read() as connection:
            return [job_from(row) for row in connection.execute(query).mappings()]

    def reserved(self, org_id: str) -> tuple[int, int]:
        """Rows and Salesforce batches that count against the org's rolling day now."""
        with self.read() as connection:
            hours = _hours_counted(connection, org_id, self.clock.now())
        return sum(hour.rows_reserved for hour in hours), sum(hour.batches_reserved for hour in hours)


def salesforce_batches(rows: int) -> int:
    """How many Salesforce batches so many rows make: at least one."""
    return max(1, -(-rows // SALESFORCE_BATCH_ROWS))


def _batch_of(connection: Connection, audit_id: int) -> str:
    query = sa.select(tables.chunk.c.batch_id).where(tables.chunk.c.audit_id == audit_id)
    batch_id: str | None = connection.execute(query).scalar_one_or_none()
    if batch_id is None:
        raise StateConflict(f"there is no chunk with AUDIT_ID {audit_id}", state="no job was made")
    return batch_id


def _check_fence(connection: Connection, batch_id: str, fence: int) -> None:
    lease = tables.lease
    query = sa.select(lease.c.lost_at, lease.c.released_at).where(lease.c.batch_id == batch_id, lease.c.fence == fence)
    mine = connection.execute(query).one_or_none()
    if mine is not None and (mine.lost_at is not None or mine.released_at is not None):
        raise LeaseLost(
            f"batch `{batch_id}` was taken over by {taker_of(connection, batch_id, fence)}",
            state="no job was made by this process since",
            hint="let the other process work; see it by `forcelift status`",
        )


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _hours_counted(connection: Connection, org_id: str, now: datetime) -> list[sa.Row[Any]]:
    # There is no upper end: hours after `now` exist if a clock was set back, and their windows reach back to now too.
    query = sa.select(tables.budget).where(
        tables.budget.c.org_id == org_id, tables.budget.c.hour > now - _HOURS_COUNTED
    )
    return list(connection.execute(query.order_by(tables.budget.c.hour)))


def _over_budget(
    connection: Connection, org_id: str, now: datetime, wanted: tuple[int, int], allowed: tuple[int, int]
) -> BudgetRefused | None:
    if wanted[0] > allowed[0] or wanted[1] > allowed[1]:
        raise StateConflict(
            f"one job of {wanted[0]:,} rows is larger than the whole day's allowance of {allowed[0]:,} rows and "
            f"{allowed[1]:,} Salesforce batches",
            state="the job was not made",
            hint="raise `limits.rows_per_day`, or begin a new batch with smaller `chunks.rows`",
        )
    hours = _hours_counted(connection, org_id, now)
    rows = sum(hour.rows_reserved for hour in hours)
    batches = sum(hour.batches_reserved for hour in hours)
    if rows + wanted[0] <= allowed[0] and batches + wanted[1] <= allowed[1]:
        return None
    over_rows = rows + wanted[0] > allowed[0]
    reason = (
        f"{rows:,} of {allowed[0]:,} rows a rolling day are used or reserved; this job has {wanted[0]:,}"
        if over_rows
        else f"{batches:,} of {allowed[1]:,} Salesforce batches a rolling day are used or reserved; "
        f"this job makes {wanted[1]:,}"
    )
    until = now
    for hour in hours:
        rows, batches, until = rows - hour.rows_reserved, batches - hour.batches_reserved, hour.hour + _HOURS_COUNTED
        if rows + wanted[0] <= allowed[0] and batches + wanted[1] <= allowed[1]:
            break
    return BudgetRefused(until=until, reason=reason)


def _reserve(connection: Connection, org_id: str, hour: datetime, rows: int, batches: int) -> None:
    budget = tables.budget
    found = connection.execute(
        budget.update()
        .where(budget.c.org_id == org_id, budget.c.hour == hour)
        .values(rows_reserved=budget.c.rows_reserved + rows, batches_reserved=budget.c.batches_reserved + batches)
    )
    if found.rowcount == 0:
        values = {"org_id": org_id, "hour": hour, "rows_reserved": rows, "batches_reserved": batches}
        connection.execute(budget.insert(), values)


def _give_back(connection: Connection, job_no: int) -> None:
    job = tables.job
    held = connection.execute(
        sa.select(job.c.org_id, job.c.budget_hour, job.c.rows.label("reserved")).where(job.c.job_no == job_no)
    ).one()
    if held.budget_hour is not None:
        _reserve(connection, held.org_id, held.budget_hour, -held.reserved, -salesforce_batches(held.reserved))


def _insert_job(
    connection: Connection, draft: JobDraft, *, batch_id: str, org_id: str, now: datetime, hour: datetime, fence: int
) -> int:
    made = connection.execute(
        tables.job.insert(),
        {
            "batch_id": batch_id,
            "audit_id": draft.audit_id,
            "org_id": org_id,
            "kind": draft.kind.value,
            "object": draft.object,
            "operation": draft.operation,
            "external_id_field": draft.external_id_field,
            "file": draft.part.file,
            "rows": draft.part.rows,
            "bytes": draft.part.bytes,
            "sha256": draft.part.sha256,
            "attempt": draft.attempt,
            "step": JobStep.INTENDED.value,
            "intended_at": now,
            "fence": fence,
            "budget_hour": hour,
        },
    )
    key = made.inserted_primary_key
    assert key is not None
    return int(key[0])


def _need_job(connection: Connection, job_no: int) -> Job:
    row = connection.execute(sa.select(tables.job).where(tables.job.c.job_no == job_no)).mappings().one_or_none()
    if row is None:
        raise StateConflict(f"there is no job number {job_no}", state="nothing was changed")
    return job_from(row)


def _need_unknown(connection: Connection, job_no: int, sf_id: str) -> None:
    """A job of the org is never two of ours."""
    job = tables.job
    known = sa.select(job.c.job_no).where(job.c.sf_id == sf_id, job.c.job_no != job_no)
    other = connection.execute(known).scalars().first()
    if other is not None:
        raise IllegalMove(f"job number {job_no}: Salesforce job `{sf_id}` is job number {other} already")


def _note_created(connection: Connection, job: Job, sf_id: str, now: datetime, payload: Mapping[str, Any]) -> None:
    """In the journal; the first load job of a chunk becomes its SF_JOB_ID too."""
    log = tables.audit_log
    first = (log.c.audit_id == job.audit_id) & log.c.sf_job_id.is_(None)
    if job.kind is JobKind.LOAD and connection.execute(log.update().where(first).values(sf_job_id=sf_id)).rowcount:
        append_chunk(connection, now, "job_created", job.audit_id, payload, batch_id=job.batch_id)
    else:
        append(connection, now, "job_created", payload, batch_id=job.batch_id)


def _update(connection: Connection, job_no: int, values: Mapping[str, Any]) -> None:
    connection.execute(tables.job.update().where(tables.job.c.job_no == job_no).values(**values))


def _step(connection: Connection, job_no: int, step: JobStep, **values: Any) -> Job:
    job = _need_job(connection, job_no)
    if job.step not in _STEPS_BEFORE[step]:
        raise IllegalMove(f"job number {job_no}: its step may not go from {job.step} to {step}")
    _update(connection, job_no, {"step": step.value, **values})
    return _need_job(connection, job_no)
