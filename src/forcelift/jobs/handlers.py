"""Carry out the coordinator's commands on jobs and chunks: org, storage, ledger and audit database.

Reads:   staged files, the org's answers.
Writes:  job steps, sealed answers, re-send files, the ledger, the audit row.
Re-run:  every handler may be repeated after a crash; what is marked is not done twice, what is not marked is redone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol

import polars as pl

from forcelift.audit import AuditStore, Lease
from forcelift.audit.records import (
    Batch,
    BudgetRefused,
    Chunk,
    ChunkCounts,
    ChunkStatus,
    Job,
    JobKind,
    JobStep,
    StagedChunk,
)
from forcelift.errors import OrgNotFound, OrgRefused, OrgUnavailable
from forcelift.jobs.answers import AnswerCollector, merge_answers, tally
from forcelift.jobs.messages import (
    AbandonJob,
    AbortJob,
    AskJob,
    CheckTable,
    ChunkSettled,
    CloseJob,
    CollectJob,
    Command,
    CreateJob,
    FailChunk,
    FindStray,
    IntendJob,
    LoadChunk,
    PollJobs,
    Resend,
    SettleChunk,
    SkipChunks,
    StageResend,
    Tally,
    UploadJob,
)
from forcelift.jobs.parts import PartWriter, read_part
from forcelift.jobs.settlement import Settlement, open_keys, settle_rows
from forcelift.jobs.stray import judge_strays
from forcelift.jobs.work import StagedNames, TableWork, staged_names
from forcelift.ledger import Ledger
from forcelift.protocols.clock import Clock
from forcelift.protocols.org import IngestJob, JobRequest, JobState, Org
from forcelift.protocols.refusals import RefusalReader
from forcelift.rules import checksum
from forcelift.storage import Sealed, Storage

INTENT_AGE_MAX = timedelta(seconds=60)
"""An intent older than this is written anew before its job is created, or its stray could not be told by its time."""

PIECE_BYTES = 1 << 20
JOBS_PER_PAGE = 1000


class RecordData(Protocol):
    """Makes the RECORD_DATA of refused rows: given keys, a frame `key`, `data` of masked JSON texts."""

    def __call__(self, work: TableWork, staged: pl.LazyFrame, keys: pl.Series) -> pl.DataFrame: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWorld:
    """Everything that the job handlers touch."""

    batch: Batch
    org: Org
    audit: AuditStore
    lease: Lease
    storage: Storage
    ledger: Ledger
    clock: Clock
    refusals: RefusalReader
    record_data: RecordData
    rows_per_day: int
    keep_staged: bool
    works: Mapping[str, TableWork]


class JobHandlers:
    """The handlers of all commands but planning and staging, which belong to the extraction."""

    def __init__(self, world: JobWorld) -> None:
        self._world = world
        self._jobs_listed = 0

    def handlers(self) -> dict[type, Callable[[Any], Any]]:
        """Handler by command type."""
        return {
            IntendJob: self.intend,
            CreateJob: self.create,
            FindStray: self.find_stray,
            UploadJob: self.upload,
            CloseJob: self.close,
            AskJob: self.ask,
            AbandonJob: self.abandon,
            AbortJob: self.abort,
            PollJobs: self.poll,
            CollectJob: self.collect,
            StageResend: self.stage_resend,
            LoadChunk: self.load_chunk,
            SettleChunk: self.settle,
            FailChunk: self.fail,
            SkipChunks: self.skip,
            CheckTable: self.check_table,
        }

    def intend(self, command: IntendJob) -> Job | BudgetRefused:
        world = self._world
        return world.audit.intend_job(
            command.draft, org_id=world.org.org_id, rows_per_day=world.rows_per_day, fence=world.lease.fence
        )

    def create(self, command: CreateJob) -> Job:
        world = self._world
        job = world.audit.job(command.job_no)
        if world.clock.now() - job.intended_at > INTENT_AGE_MAX:
            raise OrgUnavailable(f"job {job.job_no} was intended too long ago to be created now")
        world.lease.check()
        request = JobRequest(object=job.object, operation=job.operation, external_id_field=job.external_id_field)
        created = world.org.create_job(request)
        world.audit.job_created(job.job_no, created.id)
        return replace(job, sf_id=created.id, step=JobStep.CREATED)

    def find_stray(self, command: FindStray) -> IngestJob | None:
        """Settle an intent whose job may or may not exist; never aborts a job that may be somebody else's."""
        world = self._world
        job = world.audit.job(command.job_no)
        if job.sf_id is not None:  # found by an earlier try, whose abort did not get through
            return self._abort_open(job, "its creation was lost")
        verdict = judge_strays(
            job,
            listed=world.org.list_jobs(),
            known_ids=world.audit.known_sf_ids(world.org.org_id),
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
        world.audit.job_abandoned(job.job_no, "the org does not show it")
        return None

    def upload(self, command: UploadJob) -> Job:
        world = self._world
        job = world.audit.job(command.job_no)
        assert job.sf_id is not None
        world.storage.verify(job.part.file, job.part.sha256)
        world.org.upload(job.sf_id, content=lambda: _pieces(world.storage, job.part.file), size=job.part.bytes)
        world.audit.job_uploaded(job.job_no)
        return replace(job, step=JobStep.UPLOADED)

    def close(self, command: CloseJob) -> Job:
        world = self._world
        job = world.audit.job(command.job_no)
        assert job.sf_id is not None
        world.lease.check()
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
        if job.sf_id is None:
            self._world.audit.job_abandoned(job.job_no, command.reason)
            return None
        return self._abort_open(job, command.reason)

    def abort(self, command: AbortJob) -> IngestJob | None:
        job = self._world.audit.job(command.job_no)
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
        return {job.job_no: listed.get(job.sf_id or "") or self._look(job) for job in jobs}

    def collect(self, command: CollectJob) -> Tally:
        world = self._world
        job = world.audit.job(command.job_no)
        _, work, names = self._chunk(job.audit_id)
        seen = self._look(job)
        keys = read_part(world.storage, job.part).select(work.key_field.name).collect().to_series()
        collector = AnswerCollector(
            org=world.org,
            storage=world.storage,
            refusals=world.refusals,
            work=work,
            keys=keys,
            find=lambda keys: world.org.find(work.spec.object, work.key_field, keys),
        )
        answers = collector.collect(job, seen, lambda kind: names.download(job.job_no, kind))
        sealed = self._seal(names.answers(job.job_no), answers)
        error = seen.error_message if seen is not None and seen.state is JobState.FAILED else None
        result = tally(answers, job_error=error, passes=error is None or world.refusals.job_error_passes(error))
        world.audit.job_collected(
            job.job_no,
            results_file=sealed,
            answered=result.sent - result.open,
            org_state=seen.state.value if seen is not None else None,
            error_message=error,
        )
        return result

    def stage_resend(self, command: StageResend) -> Resend:
        """Files of the rows that still lack a final answer, cut from the staged ones: the source is not read again."""
        chunk, work, names = self._chunk(command.audit_id)
        parts = self._parts(chunk, links=command.links)
        staged = pl.concat([read_part(self._world.storage, part) for part in parts])
        key = work.key_field.name
        answers = merge_answers(self._answers(chunk, links=command.links))
        keys = open_keys(
            staged.select(pl.col(key).alias("key")).collect(), answers, include_unknown=command.include_unknown
        )
        transient = int(keys["transient"].sum())
        result = Resend(drafts=(), open=keys.height - transient, transient=transient)
        if command.attempt is None or keys.height == 0:
            return result
        attempt = command.attempt
        with PartWriter(
            self._world.storage,
            lambda number: names.resend_part(attempt, number, links=command.links),
            null_text=work.null_text,
        ) as writer:
            wanted = keys.select(pl.col("key").alias(key))
            writer.write(staged.join(wanted.lazy(), on=key, how="semi", maintain_order="left").collect())
            sealed = writer.finish()
        kind = JobKind.LINK if command.links else JobKind.RESEND
        drafts = tuple(
            work.spec.draft(audit_id=chunk.audit_id, kind=kind, part=part, attempt=attempt) for part in sealed
        )
        return replace(result, drafts=drafts)

    def load_chunk(self, command: LoadChunk) -> int:
        """The ledger of a chunk whose links are still to come, so that others can find their parents in it."""
        chunk, _, _ = self._chunk(command.audit_id)
        settlement = self._settle(chunk, links=False)
        if settlement.unknown:
            self._fail_unknown(chunk, settlement.unknown)
            return settlement.unknown
        sealed = self._write_ledger(chunk, settlement, settled=False)
        self._world.audit.load_chunk(chunk.audit_id, sealed.name, sealed.sha256)
        return 0

    def settle(self, command: SettleChunk) -> ChunkSettled:
        world = self._world
        chunk, work, names = self._chunk(command.audit_id)
        assert chunk.staged is not None
        if world.batch.mode == "dry_run":
            return self._settle_dry(chunk, chunk.staged, names)
        settlement = self._settle(chunk, links=bool(chunk.staged.links_file))
        settled = ChunkSettled(
            status=settlement.status,
            **{
                name: settlement.count(name)
                for name in ("created", "updated", "failed", "rejected", "duplicate", "unknown")
            },
        )
        if settlement.unknown:
            self._fail_unknown(chunk, settlement.unknown)
            return settled
        sealed = self._write_ledger(chunk, settlement, settled=True)
        accepted = settlement.ledger.filter(pl.col("outcome").is_in(["created", "updated"]))
        world.audit.settle_chunk(
            chunk.audit_id,
            status=settlement.status,
            counts=settlement.counts(chunk.staged),
            ledger_file=sealed.name,
            ledger_sha256=sealed.sha256,
            failed=self._failed_records(chunk, work, settlement.ledger),
            source_checksum=str(checksum(accepted["hash"])),
        )
        if not world.keep_staged:
            world.storage.delete_tree(names.folder)
        return settled

    def _settle_dry(self, chunk: Chunk, staged: StagedChunk, names: StagedNames) -> ChunkSettled:
        rows = pl.read_parquet(self._world.storage.path(names.rows))
        rejected = rows.filter(pl.col("outcome") == "rejected")
        status = ChunkStatus.PARTIAL if staged.rejected else ChunkStatus.SUCCESS
        self._world.audit.settle_chunk(
            chunk.audit_id,
            status=status,
            counts=ChunkCounts(
                source=staged.source_count,
                extracted=staged.extracted,
                transformed=staged.transformed,
                skipped=staged.rejected + staged.duplicate,
                loaded=None,
                success=None,
                failed=None,
            ),
            ledger_file=None,
            ledger_sha256=None,
            failed=self._refused_records(names, rejected.rename({"details": "message"})),
            error_message="dry run: nothing was sent",
        )
        return ChunkSettled(
            status=status,
            created=0,
            updated=0,
            failed=0,
            rejected=staged.rejected,
            duplicate=staged.duplicate,
            unknown=0,
        )

    def _fail_unknown(self, chunk: Chunk, rows: int) -> None:
        """A chunk with such rows must not look settled; its files stay, so that a resume can send them again."""
        self._world.audit.fail_chunk(
            chunk.audit_id, f"{rows:,} rows were sent and their answers are gone; a resume sends them again"
        )

    def fail(self, command: FailChunk) -> None:
        self._world.audit.fail_chunk(command.audit_id, command.message)

    def skip(self, command: SkipChunks) -> int:
        return self._world.audit.skip_chunks(self._world.batch.batch_id, command.reason)

    def check_table(self, command: CheckTable) -> tuple[str, ...]:
        chunks = self._world.audit.chunks(self._world.batch.batch_id, command.table)
        files = [chunk.ledger_file for chunk in chunks if chunk.ledger_file is not None]
        doubled = tuple(self._world.ledger.duplicate_ids(files)["id"].to_list())
        if doubled:
            self._world.audit.journal(
                "records_written_twice",
                {"table": command.table, "ids": list(doubled[:100]), "count": len(doubled)},
                batch_id=self._world.batch.batch_id,
            )
        return doubled

    def _chunk(self, audit_id: int) -> tuple[Chunk, TableWork, StagedNames]:
        chunk = self._world.audit.chunk(audit_id)
        return (
            chunk,
            self._world.works[chunk.table_name],
            staged_names(chunk.batch_id, chunk.table_name, chunk.chunk_no),
        )

    def _look(self, job: Job) -> IngestJob | None:
        assert job.sf_id is not None
        try:
            return self._world.org.get_job(job.sf_id)
        except OrgNotFound:
            return None

    def _abort_open(self, job: Job, reason: str) -> IngestJob | None:
        """Abort a job of ours that should still be open; if it is at work after all, hand it back."""
        seen = self._look(job)
        if seen is not None and seen.state is JobState.OPEN:
            assert job.sf_id is not None
            try:
                self._world.org.abort_job(job.sf_id)
            except OrgNotFound:
                seen = None
            except OrgRefused:
                seen = self._look(job)
            else:
                seen = None
        if seen is not None and seen.state is not JobState.ABORTED:
            self._world.audit.job_closed(job.job_no)
            return seen
        self._world.audit.job_abandoned(job.job_no, reason)
        return None

    def _parts(self, chunk: Chunk, *, links: bool) -> tuple[Any, ...]:
        assert chunk.staged is not None
        return chunk.link_parts if links else chunk.staged.parts

    def _answers(self, chunk: Chunk, *, links: bool) -> Iterator[pl.DataFrame]:
        """The sealed answers of one pass, oldest job first."""
        for job in sorted(self._world.audit.jobs(chunk.batch_id, chunk.audit_id), key=lambda job: job.job_no):
            if (job.kind is JobKind.LINK) == links and job.results_file is not None:
                yield pl.read_parquet(self._world.storage.path(job.results_file))

    def _settle(self, chunk: Chunk, *, links: bool) -> Settlement:
        assert chunk.staged is not None
        names = staged_names(chunk.batch_id, chunk.table_name, chunk.chunk_no)
        path = self._world.storage.path
        rows = pl.read_parquet(path(names.rows))
        answers = merge_answers(self._answers(chunk, links=False))
        if not links:
            return settle_rows(rows, answers)
        return settle_rows(
            rows,
            answers,
            link_rows=pl.read_parquet(path(names.link_rows)),
            link_answers=merge_answers(self._answers(chunk, links=True)),
        )

    def _write_ledger(self, chunk: Chunk, settlement: Settlement, *, settled: bool) -> Sealed:
        # Two files for each generation of a chunk: what is loaded, and what is settled. A marked one is never changed.
        generation = 2 * chunk.generation + int(settled)
        return self._world.ledger.write(chunk.batch_id, chunk.table_name, chunk.chunk_no, generation, settlement.ledger)

    def _failed_records(self, chunk: Chunk, work: TableWork, ledger: pl.DataFrame) -> pl.DataFrame:
        """The rows of MIGRATION_FAILED_RECORDS: rejected ones as they were read, refused ones as they were sent."""
        assert chunk.staged is not None
        names = staged_names(chunk.batch_id, chunk.table_name, chunk.chunk_no)
        rejected = self._refused_records(names, ledger.filter(pl.col("outcome") == "rejected"))
        failed = ledger.filter(pl.col("outcome") == "failed")
        if failed.height == 0:
            return rejected
        staged = pl.concat([read_part(self._world.storage, part) for part in chunk.staged.parts])
        data = self._world.record_data(work, staged, failed["key"])
        refused = failed.select("row", "key", "code", "message", "fields").join(data, on="key", how="left")
        return pl.concat([rejected, refused.select(rejected.columns)]).sort("row")

    def _refused_records(self, names: StagedNames, rejected: pl.DataFrame) -> pl.DataFrame:
        records = rejected.select("row", "key", "code", "message", "fields")
        if not self._world.storage.exists(names.refused):
            return records.with_columns(data=pl.lit(None, dtype=pl.String))
        data = pl.read_parquet(self._world.storage.path(names.refused))
        return records.join(data.select("row", "data"), on="row", how="left")

    def _seal(self, name: str, frame: pl.DataFrame) -> str:
        with self._world.storage.write(name) as file:
            frame.write_parquet(file.path, compression="zstd")
            return str(file.commit().name)


def _pieces(storage: Storage, name: str) -> Iterator[bytes]:
    with storage.open(name) as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def dispatch(handlers: Mapping[type, Callable[[Any], Any]], command: Command) -> Any:
    """Run the handler of a command."""
    return handlers[type(command)](command)
