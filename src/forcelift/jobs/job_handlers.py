"""Carry out the commands on single jobs: from the intent to the sealed answers.

Reads:   upload files, the org's jobs and result files.
Writes:  job steps in the audit database, the org's jobs, sealed answers.
Re-run:  a step is marked after it took effect; a crash between the two leaves a doubt that the next process settles.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial, reduce
from operator import add

import polars as pl
from msgspec.structs import replace

from forcelift.audit.records import (
    BudgetRefused,
    Chunk,
    Job,
    JobKind,
    JobStep,
)
from forcelift.audit.shares import IntentRefused
from forcelift.errors import LeaseLost, OrgLimitReached, OrgNotFound, OrgRefused, OrgUnavailable, TargetError
from forcelift.jobs.answers import AnswerCollector, answers_writer, doubt_duplicates, tally
from forcelift.jobs.late_strays import NOT_SHOWN
from forcelift.jobs.messages import (
    AbandonJob,
    AbortJob,
    AskJob,
    CloseJob,
    CollectJob,
    CreateJob,
    FindStray,
    IntendJob,
    PollJobs,
    StrayAwaited,
    Tally,
    UploadJob,
)
from forcelift.jobs.one_call import REFUSED_FORM, fits_one_call, holds_our_rows
from forcelift.jobs.parts import read_part
from forcelift.jobs.shares import ANSWER_BYTES
from forcelift.jobs.slices import SLICE_ROWS
from forcelift.jobs.stray import judge_strays, loaded_strays, same_elsewhere
from forcelift.jobs.world import JobWorld
from forcelift.protocols.org import IngestJob, JobRequest, JobState
from forcelift.storage import Sealed, sealed_pieces

log = logging.getLogger(__name__)

INTENT_AGE_MAX = timedelta(seconds=60)
"""An intent older than this is written anew before its job is created, or its stray could not be told by its time."""

FORGOTTEN_AFTER = timedelta(days=6)
"""From this age on an intent's job may be gone from the org's list, which keeps jobs for seven days."""

ONE_CALL_OFF = "one_call_jobs_off"
"""Action of the journal: the org does not take jobs with their data, and the batch sends it none any more."""

NOT_TAKEN = "the org does not show it, nor a job with its rows"

PIECE_BYTES = 1 << 20
JOBS_PER_PAGE = 1000


class JobHandlers:
    """Handlers of the commands that name a job."""

    def __init__(self, world: JobWorld) -> None:
        self._world = world
        self._jobs_listed = 0
        # An org that refused the form once is not asked again in this batch, by no process: see `_one_call_off`.
        self._one_call = world.one_call and not world.audit.has_journalled(ONE_CALL_OFF, world.batch.batch_id)
        self._not_ours: set[tuple[int, str]] = set()  # what was looked into, and is no longer asked for

    def intend(self, command: IntendJob) -> Job | BudgetRefused | IntentRefused:
        world = self._world
        return world.audit.intend_job(
            command.draft,
            org_id=world.org.org_id,
            rows_per_day=world.rows_per_day,
            fence=world.lease.fence,
            others_max=command.others_max,
        )

    def create(self, command: CreateJob) -> Job:
        world = self._world
        job = world.audit.job(command.job_no)
        if world.clock.now() - job.intended_at > INTENT_AGE_MAX:
            raise OrgUnavailable(f"job {job.job_no} was intended too long ago to be created now")
        self._check_ours(job)
        request = JobRequest(object=job.object, operation=job.operation, external_id_field=job.external_id_field)
        if self._goes_at_once(job) and (taken := self._create_loaded(job, request)) is not None:
            return taken
        created = world.org.create_job(request)
        try:
            world.audit.job_created(job.job_no, created.id)
        except LeaseLost:
            # This process stood still between the check and here, and its chunk has gone on without it. Nobody else
            # knows this job's id. If the abort fails too, `late_strays` finds it, or the org removes it one day.
            with suppress(TargetError):
                world.org.abort_job(created.id)
            raise
        return replace(job, sf_id=created.id, step=JobStep.CREATED)

    def _goes_at_once(self, job: Job) -> bool:
        return self._one_call and fits_one_call(job)

    def _create_loaded(self, job: Job, request: JobRequest) -> Job | None:
        """Create a job with its data; None if the org does not take jobs in this form, and so has taken nothing."""
        world = self._world
        try:
            created = world.org.create_loaded(request, content=self._pieces(job), size=job.part.bytes)
        except OrgRefused as error:
            if isinstance(error, OrgLimitReached) or error.http_status not in REFUSED_FORM:
                raise
            # It may be the form or the job that is refused: the usual way tells.
            self._one_call_off(job, http_status=error.http_status)
            log.warning(
                "the org refused a job with its data (HTTP %d): jobs are created first from now on",
                error.http_status,
                extra={"action": ONE_CALL_OFF},
            )
            return None
        if created.state is JobState.OPEN:  # as no document says: the org made the job and has not taken its data
            known = world.audit.job_created(job.job_no, created.id)
            self._one_call_off(job, http_status=None)
            return known
        world.audit.job_taken(job.job_no, created.id)
        return replace(job, sf_id=created.id, step=JobStep.CLOSED)

    def _one_call_off(self, job: Job, *, http_status: int | None) -> None:
        """Create jobs first from now on, and have every later process of the batch know it before any is created so.

        By this row a resume looks for an open job, as it is to abort, and not for one that holds our rows. A batch has
        one open intent at a time, so none is older than the row and yet in doubt about a job with its data.
        """
        payload = {"job_no": job.job_no, "http_status": http_status}
        self._world.audit.journal(ONE_CALL_OFF, payload, batch_id=self._world.batch.batch_id)
        self._one_call = False

    def find_stray(self, command: FindStray) -> IngestJob | StrayAwaited | None:
        """Settle an intent whose job may or may not exist; never aborts a job that may be somebody else's."""
        world = self._world
        job = world.audit.job(command.job_no)
        self._check_ours(job)
        if job.sf_id is not None:  # found by an earlier try, whose abort did not get through
            return self._abort_open(job, "its creation was lost")
        if self._goes_at_once(job):
            return self._find_loaded(job, is_last=command.is_last)
        verdict = judge_strays(
            job,
            listed=world.org.list_jobs(),
            known_ids=world.audit.known_sf_ids(world.org.org_id),
            open_intents=world.audit.open_intents(),
            user_id=world.org.user_id,
            api_version=world.org.api_version,
        )
        if verdict.ours is not None:
            world.audit.job_created(job.job_no, verdict.ours.id)
            return self._abort_open(replace(job, sf_id=verdict.ours.id, step=JobStep.CREATED), "its creation was lost")
        if verdict.doubtful:
            ids = sorted(stray.id for stray in verdict.doubtful)
            world.audit.journal(
                "strays_left_alone", {"job_no": job.job_no, "sf_ids": ids}, batch_id=world.batch.batch_id
            )
        world.audit.job_abandoned(job.job_no, NOT_SHOWN)
        return None

    def _find_loaded(self, job: Job, *, is_last: bool) -> IngestJob | StrayAwaited | None:
        """The same for a job that took its data with its creation: it is ours if its answers hold our file's rows."""
        world = self._world
        _, work, _ = world.chunk(job.audit_id)
        strays = loaded_strays(
            job,
            listed=world.org.list_jobs(),
            known_ids=world.audit.known_sf_ids(world.org.org_id),
            user_id=world.org.user_id,
            api_version=world.org.api_version,
        )
        left_alone: list[str] = []
        for stray in strays.ended:
            if (job.job_no, stray.id) in self._not_ours:
                continue
            if not holds_our_rows(world.org, stray, job.part, storage=world.storage, key=work.key_field.name):
                if stray.state is not JobState.ABORTED:  # whose late batches may still bring answers
                    self._not_ours.add((job.job_no, stray.id))
            elif same_elsewhere(job, world.audit.open_intents()):
                left_alone.append(stray.id)
            else:
                world.audit.job_taken(job.job_no, stray.id, found=True)
                return stray
        if strays.at_work:
            return StrayAwaited(at_work=tuple(stray.id for stray in strays.at_work))
        if not is_last:
            return StrayAwaited()
        batch_id = world.batch.batch_id
        if left_alone:
            world.audit.journal("strays_left_alone", {"job_no": job.job_no, "sf_ids": left_alone}, batch_id=batch_id)
        if world.clock.now() - job.intended_at > FORGOTTEN_AFTER:
            # Its rows may be there: they are sent again, and are told as updated although this job may have made them.
            world.audit.journal("stray_may_be_forgotten", {"job_no": job.job_no}, batch_id=batch_id)
        world.audit.job_abandoned(job.job_no, NOT_TAKEN)
        return None

    def _pieces(self, job: Job) -> Callable[[], Iterator[bytes]]:
        """A job's sealed file. That it was changed is found before its last bytes are given."""
        part = job.part
        return partial(
            sealed_pieces, self._world.storage, part.file, size=part.bytes, sha256=part.sha256, piece_bytes=PIECE_BYTES
        )

    def upload(self, command: UploadJob) -> Job:
        world = self._world
        job = world.audit.job(command.job_no)
        assert job.sf_id is not None
        # Of a changed file the last bytes are not sent, and the org drops what is shorter than announced.
        world.org.upload(job.sf_id, content=self._pieces(job), size=job.part.bytes)
        world.audit.job_uploaded(job.job_no)
        return replace(job, step=JobStep.UPLOADED)

    def close(self, command: CloseJob) -> Job:
        world = self._world
        job = world.audit.job(command.job_no)
        assert job.sf_id is not None
        self._check_ours(job)
        world.org.close_job(job.sf_id)
        world.audit.job_closed(job.job_no)
        return replace(job, step=JobStep.CLOSED)

    def ask(self, command: AskJob) -> IngestJob | None:
        job = self._world.audit.job(command.job_no)
        seen = self._look(job)
        if seen is None or seen.state is not JobState.OPEN:
            self._world.audit.job_closed(job.job_no)
        return seen

    def abandon(self, command: AbandonJob) -> IngestJob | None:
        job = self._world.audit.job(command.job_no)
        self._check_ours(job)
        if job.sf_id is None:
            self._world.audit.job_abandoned(job.job_no, command.reason)
            return None
        return self._abort_open(job, command.reason)

    def abort(self, command: AbortJob) -> IngestJob | None:
        job = self._world.audit.job(command.job_no)
        self._check_ours(job)
        assert job.sf_id is not None
        try:
            aborted = self._world.org.abort_job(job.sf_id)
        except OrgNotFound:
            return None
        self._world.audit.journal(
            "job_aborted", {"job_no": job.job_no, "sf_id": job.sf_id}, batch_id=self._world.batch.batch_id
        )
        return aborted

    def poll(self, command: PollJobs) -> dict[int, IngestJob | None]:
        """One list call for all, while its pages are no more than the jobs; else a call for each."""
        jobs = [self._world.audit.job(number) for number in command.job_nos]
        listed: dict[str, IngestJob] = {}
        if len(jobs) > max(1, -(-self._jobs_listed // JOBS_PER_PAGE)):
            everything = self._world.org.list_jobs()
            self._jobs_listed = len(everything)
            listed = {job.id: job for job in everything}
        return {job.job_no: self._counted(job, listed.get(job.sf_id or "")) for job in jobs}

    def _counted(self, job: Job, listed: IngestJob | None) -> IngestJob | None:
        """A job with its counters where they matter: lists leave them out."""
        return self._look(job) if listed is None or listed.state is JobState.ABORTED else listed

    def collect(self, command: CollectJob) -> Tally:
        world = self._world
        job = world.audit.job(command.job_no)
        chunk, work, names = world.chunk(job.audit_id)
        # Only of a job that ended by itself nothing can change any more; results that are gone since then say so.
        is_done = command.seen is not None and command.seen.state is JobState.JOB_COMPLETE
        seen = command.seen if is_done else self._look(job)
        keys = self._keys_sent(chunk, job, work.key_field.name)
        collector = AnswerCollector(
            org=world.org,
            refusals=world.refusals,
            work=work,
            keys=keys,
            find=lambda keys: world.org.find(work.spec.object, work.key_field, keys),
            turn=world.shares.turn,
        )
        with world.shares.room.of(job.part.rows * ANSWER_BYTES):
            return self._collect(collector, job, seen, names.answers(job.job_no))

    def _collect(self, collector: AnswerCollector, job: Job, seen: IngestJob | None, name: str) -> Tally:
        world = self._world
        began = world.clock.monotonic()
        answers = collector.collect(job, seen)
        if seen is not None and seen.state is JobState.ABORTED:
            self._check_still(job, seen)
        error = seen.error_message if seen is not None and seen.state is JobState.FAILED else None
        passes = error is None or world.refusals.job_error_passes(error)
        lines = answers.slices(SLICE_ROWS)
        if job.operation == "insert" and job.attempt > 1:
            lines = map(doubt_duplicates, lines)
        sealed, result = self._seal(name, lines, partial(tally, job_error=error, passes=passes))
        world.audit.job_collected(
            job.job_no,
            results_file=sealed.name,
            results_sha256=sealed.sha256,
            answered=result.sent - result.open,
            org_state=seen.state.value if seen is not None else None,
            error_message=error,
            seconds=world.clock.monotonic() - began,
        )
        return result

    def _keys_sent(self, chunk: Chunk, job: Job, key_field: str) -> pl.Series:
        """The keys in a job's file, in its order.

        The files of a first load hold the staged rows that nothing kept back, one after the other, and reading those
        rows' keys costs a tenth of reading the file again.
        """
        parts = chunk.staged.parts if chunk.staged is not None else ()
        # A retry's rows are staged by their places in the chunk, and some are sent in the link pass alone.
        if chunk.staged is None or job.part not in parts or job.kind is JobKind.RETRY:
            return read_part(self._world.storage, job.part).select(key_field).collect().to_series()
        before = sum(part.rows for part in parts[: parts.index(job.part)])
        staged = pl.scan_parquet(self._world.storage.path(chunk.staged.rows_file), glob=False)
        sent = staged.filter(pl.col("outcome").is_null()).select("key").collect().to_series()
        if sent.len() != sum(part.rows for part in parts):
            raise AssertionError(f"{sent.len()} rows were staged and {sum(part.rows for part in parts)} written")
        return sent.slice(before, job.part.rows)

    def _check_ours(self, job: Job) -> None:
        """Raise `LeaseLost` if batch or chunk are another's: asked before each call that changes a job in the org."""
        self._world.lease.check()
        if self._world.own_fence is not None:
            self._world.audit.check_claim(job.audit_id)

    def _look(self, job: Job) -> IngestJob | None:
        assert job.sf_id is not None
        try:
            return self._world.org.get_job(job.sf_id)
        except OrgNotFound:
            return None

    def _check_still(self, job: Job, seen: IngestJob) -> None:
        """An aborted job whose counter moved while its answers were fetched has more answers to give."""
        after = self._look(job)
        if after is not None and after.records_processed != seen.records_processed:
            raise OrgUnavailable(f"Salesforce job `{job.sf_id}` was aborted and is still taking rows")

    def _abort_open(self, job: Job, reason: str) -> IngestJob | None:
        """Abort a job of ours that should still be open; if it is at work after all, hand it back."""
        assert job.sf_id is not None
        seen = self._look(job)
        if seen is not None and seen.state is JobState.OPEN:
            try:
                seen = self._world.org.abort_job(job.sf_id)
            except OrgNotFound:
                seen = None
            except OrgRefused:
                seen = self._look(job)
                if seen is not None and seen.state is JobState.OPEN:
                    raise  # a limit, a right: the job is as it was, and so is what we know of it
        if seen is not None and seen.state is not JobState.ABORTED:
            self._world.audit.job_closed(job.job_no)
            return seen
        self._world.audit.job_abandoned(job.job_no, reason)
        return None

    def _seal(
        self, name: str, slices: Iterator[pl.DataFrame], count: Callable[[pl.DataFrame], Tally]
    ) -> tuple[Sealed, Tally]:
        """Seal answers that come in slices, and count them. There is always a slice, if only one without rows."""
        counted: list[Tally] = []
        with self._world.storage.write(name) as file:
            with answers_writer(file.path) as writer:
                while True:
                    with self._world.shares.turn:
                        lines = next(slices, None)
                        if lines is None:
                            break
                        counted.append(count(lines))
                        writer.write_table(lines.to_arrow(compat_level=pl.CompatLevel.oldest()))
                    del lines  # or it would be held while others have the turn
            return file.commit(), reduce(add, counted)
