"""An org in memory whose every call may fail, before or after it took effect, as a seed says.

It models what the engine's promises rest on: jobs with one upload, states, upsert by key, results by job, locks, jobs
that fail half way, and jobs of other people. It answers the `Org` protocol and knows nothing of the engine.
"""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from msgspec.structs import replace

from forcelift.errors import LostReply, OrgLimitReached, OrgNotFound, OrgRefused, OrgUnavailable
from forcelift.protocols.clock import Clock
from forcelift.protocols.org import (
    FieldDescribe,
    IngestJob,
    JobRequest,
    JobState,
    Limits,
    ObjectDescribe,
    ResultKind,
)

T = TypeVar("T")

US = "005000000000001AAA"
SOMEBODY = "005000000000002AAA"
LATE_COMMITS_S = 10.0


class SimulatedCrash(BaseException):
    """The process ends here. Not an `Exception`, so that nothing in the program can catch it."""


@dataclass(kw_only=True)
class Faults:
    """How often things go wrong, as probabilities of one call or row."""

    crash: float = 0.0
    refused: float = 0.0
    lost: float = 0.0
    limit: float = 0.0
    locked_row: float = 0.0
    job_fails: float = 0.0


@dataclass(kw_only=True)
class SimJob:
    view: IngestJob
    content: bytes | None = None
    waiting: list[dict[str, str]] = field(default_factory=list)
    header: list[str] = field(default_factory=list)
    done: list[tuple[str, bool, dict[str, str]]] = field(default_factory=list)
    failed: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    works_until: datetime | None = None  # an aborted job's batches that were at work still commit


class SimOrg:
    """See the module. `records[object][key in lower case]` lists the records with that key."""

    url = "http://127.0.0.1:0"
    org_id = "00D000000000001AAA"
    user_id = US
    user_name = "loader"
    api_version = "66.0"
    is_twin = True

    def __init__(
        self, objects: Mapping[str, ObjectDescribe], keys: Mapping[str, str], *, rng: random.Random, clock: Clock
    ) -> None:
        self.may_begin: Callable[[], bool] = lambda: True  # whether anything may be created, uploaded or closed now
        self.objects_by_name, self.keys, self.rng, self.clock = dict(objects), dict(keys), rng, clock
        self.faults = Faults()
        self.records: dict[str, dict[str, list[dict[str, str]]]] = {name: {} for name in objects}
        self.jobs: dict[str, SimJob] = {}
        self.images: list[str] = []
        self.api_calls = 0
        self.api_requests_left: int | None = None
        self._made = 0
        self.loaded = 0  # jobs that came with their data

    # What the engine calls.

    def describe(self, object_name: str) -> ObjectDescribe:
        return self.objects_by_name[object_name]

    def objects(self) -> list[str]:
        return sorted(self.objects_by_name)

    def limits(self) -> Limits:
        raise NotImplementedError("the simulation asks for no limits")

    def query(self, soql: str) -> Iterator[dict[str, Any]]:
        """Only whether an object holds records."""
        self._before(changes=False)
        asked = re.fullmatch(r"SELECT Id FROM (\w+) LIMIT 1", soql)
        assert asked is not None, f"the simulation asks no such query: {soql}"
        found = [record for same in self.records[asked[1]].values() for record in same]
        yield from ({"Id": record["Id"]} for record in found[:1])

    def count(self, soql: str) -> int:
        raise NotImplementedError("the simulation asks no queries")

    def bulk_query(self, soql: str) -> Iterator[bytes]:
        """What before-images ask: by a range of keys, all, or what others changed, which is nothing."""
        self._before(changes=False)
        asked = re.fullmatch(r"SELECT (.+) FROM (\w+) WHERE (.+)", soql)
        assert asked is not None, f"the simulation asks no such query: {soql}"
        names, object_name, where = asked[1].split(", "), asked[2], asked[3]
        records = [record for same in self.records[object_name].values() for record in same]
        bounds = re.fullmatch(r"Key__c >= '(.*)' AND Key__c <= '(.*)'", where)
        if bounds is not None:
            low, high = bounds[1].lower(), bounds[2].lower()
            records = [record for record in records if low <= record["Key__c"].lower() <= high]
        elif "LastModifiedById" in where:
            records = []
        else:
            assert where == "Key__c != null", where
        out = io.StringIO()
        writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([record.get(name, "") for name in names] for record in records)
        self.images.append(object_name)
        yield out.getvalue().encode()

    def find(self, object_name: str, key: FieldDescribe, values: Sequence[str]) -> Iterator[tuple[str, str]]:
        self._before(changes=False)
        for value in values:
            for record in self.records[object_name].get(value.lower(), []):
                yield record["Id"], record[key.name]

    def create_job(self, request: JobRequest) -> IngestJob:
        assert self.may_begin(), "a job was created outside of the hours"

        def create() -> IngestJob:
            return self.open_job(request, user=US)

        return self._change(create)

    def create_loaded(self, request: JobRequest, *, content: Callable[[], Iterable[bytes]], size: int) -> IngestJob:
        assert self.may_begin(), "a job was created with its data outside of the hours"
        assert request.operation == "upsert", "sent twice, it would not be harmless"
        body = b"".join(content())
        assert len(body) == size <= 100_000

        def create() -> IngestJob:
            self.loaded += 1
            return self.open_loaded(request, body, user=US)

        return self._change(create)

    def upload(self, job_id: str, *, content: Callable[[], Iterable[bytes]], size: int) -> None:
        assert self.may_begin(), "a file was uploaded outside of the hours"
        body = b"".join(content())
        assert len(body) == size

        def put() -> None:
            job = self._job(job_id)
            if job.view.state is not JobState.OPEN or job.content is not None:
                raise OrgRefused("Found multiple contents for job", code="INVALIDJOBSTATE", http_status=400)
            job.content = body

        self._change(put)

    def close_job(self, job_id: str) -> IngestJob:
        assert self.may_begin(), "a job was closed outside of the hours"

        def close() -> IngestJob:
            job = self._job(job_id)
            if job.view.state is not JobState.OPEN:
                raise OrgRefused("Closing already Completed Job not allowed", code="INVALIDJOBSTATE", http_status=400)
            assert job.content is not None, "closed without an upload"
            self._begin(job, job.content)
            return job.view

        return self._change(close)

    def abort_job(self, job_id: str) -> IngestJob:
        def abort() -> IngestJob:
            job = self._job(job_id)
            if job.view.state.is_terminal:
                raise OrgRefused("Aborting already Completed Job not allowed", code="INVALIDJOBSTATE", http_status=400)
            assert job.view.created_by_id == US, "somebody else's job was aborted"
            if job.view.state is JobState.IN_PROGRESS:
                job.works_until = self.clock.now() + timedelta(seconds=LATE_COMMITS_S)
            self._set(job, JobState.ABORTED)
            job.view = replace(job.view, records_processed=len(job.done) + len(job.failed))
            return job.view

        return self._change(abort)

    def delete_job(self, job_id: str) -> None:
        self._change(lambda: self.jobs.pop(job_id))

    def get_job(self, job_id: str) -> IngestJob:
        self._before(changes=False)
        return self._job(job_id).view

    def list_jobs(self) -> list[IngestJob]:
        self._before(changes=False)
        views = [job.view for job in self.jobs.values()]
        self.rng.shuffle(views)
        return views

    def results(self, job_id: str, kind: ResultKind) -> Iterator[bytes]:
        self._before(changes=False)
        job = self._job(job_id)
        assert job.view.state.is_terminal, "results were fetched too early"
        out = io.StringIO()
        lines: list[list[str]]
        if kind is ResultKind.SUCCESSFUL:
            head, lines = (
                ["sf__Id", "sf__Created"],
                [[rid, "true" if created else "false", *row.values()] for rid, created, row in job.done],
            )
        elif kind is ResultKind.FAILED:
            head, lines = ["sf__Id", "sf__Error"], [["", error, *row.values()] for error, row in job.failed]
        else:
            head, lines = [], [list(row.values()) for row in job.waiting]
        self.rng.shuffle(lines)
        writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow([*head, *job.header])
        writer.writerows(lines)
        yield out.getvalue().encode()

    def close(self) -> None:
        """Nothing is held."""

    # What the scheduler does behind the engine's back.

    def open_job(self, request: JobRequest, *, user: str) -> IngestJob:
        """Make a job, as the engine's user or as somebody else."""
        self._made += 1
        view = IngestJob(
            id=f"750{self._made:012d}AAA",
            object=request.object,
            operation=request.operation,
            state=JobState.OPEN,
            created_by_id=user,
            created_date=self.clock.now(),
            external_id_field=request.external_id_field,
            api_version=66.0,
            job_type="V2Ingest",
        )
        self.jobs[view.id] = SimJob(view=view)
        return view

    def open_loaded(self, request: JobRequest, content: bytes, *, user: str) -> IngestJob:
        """Make a job that has its data and is closed."""
        job = self.jobs[self.open_job(request, user=user).id]
        job.content = content
        self._begin(job, content)
        return job.view

    def _begin(self, job: SimJob, content: bytes) -> None:
        reader = csv.DictReader(io.StringIO(content.decode()))
        job.waiting, job.header = list(reader), list(reader.fieldnames or [])
        self._set(job, JobState.UPLOAD_COMPLETE)

    @property
    def has_work(self) -> bool:
        return bool(self._at_work())

    def _at_work(self) -> list[SimJob]:
        now = self.clock.now()
        return [
            job
            for job in self.jobs.values()
            if job.view.state in (JobState.UPLOAD_COMPLETE, JobState.IN_PROGRESS)
            or (job.works_until is not None and now < job.works_until and job.waiting)
        ]

    def work(self) -> None:
        """Process some rows of one job."""
        ready = self._at_work()
        if not ready:
            return
        job = self.rng.choice(ready)
        is_aborted = job.view.state is JobState.ABORTED
        if not is_aborted:
            self._set(job, JobState.IN_PROGRESS)
        for _ in range(self.rng.randint(1, 12)):
            if not job.waiting:
                break
            self._process(job, job.waiting.pop(self.rng.randrange(len(job.waiting))))
        job.view = replace(job.view, records_processed=len(job.done) + len(job.failed))
        if is_aborted:
            return
        if not job.waiting:
            self._set(job, JobState.JOB_COMPLETE)
        elif self.rng.random() < self.faults.job_fails:
            self._set(job, JobState.FAILED)
            job.view = replace(job.view, error_message="TooManyLockFailure : too many lock failures")

    def forget_a_job(self, known: Collection[str]) -> bool:
        """Drop one of these jobs that has ended, as the org does after seven days; whether there was one."""
        ended = [job.view.id for job in self.jobs.values() if job.view.state.is_terminal and job.view.id in known]
        if ended:
            del self.jobs[self.rng.choice(ended)]
        return bool(ended)

    def _process(self, job: SimJob, row: dict[str, str]) -> None:
        if self.rng.random() < self.faults.locked_row:
            job.failed.append(("UNABLE_TO_LOCK_ROW:unable to obtain exclusive access to this record:--", row))
            return
        if row.get("Note__c") == "refuse":
            job.failed.append(("FIELD_CUSTOM_VALIDATION_EXCEPTION:not wanted:Note__c --", row))
            return
        for name, value in row.items():
            # A lookup by a key that no record has refuses the row, as Salesforce does.
            if name.endswith("__r.Key__c") and value not in ("", "#N/A") and value.lower() not in self.tenants:
                job.failed.append(
                    (f"INVALID_FIELD:Foreign key external ID: {value} not found for field Key__c:--", row)
                )
                return
        key = row[self.keys[job.view.object]]
        same = self.records[job.view.object].setdefault(key.lower(), [])
        assert len(same) <= 1
        created = not same
        if created:
            self._made += 1
            same.append({"Id": f"a00{self._made:012d}AAA"})
        same[0].update({name: "" if value == "#N/A" else value for name, value in row.items() if value != ""})
        job.done.append((same[0]["Id"], created, row))

    @property
    def tenants(self) -> dict[str, list[dict[str, str]]]:
        """The records that lookups point at."""
        return self.records["Tenant__c"]

    # Faults.

    def _change(self, effect: Callable[[], T]) -> T:
        self._before(changes=True)
        result = effect()
        self.maybe_crash()
        if self.rng.random() < self.faults.lost:
            raise LostReply("the connection broke")
        return result

    def _before(self, *, changes: bool) -> None:
        self.api_calls += 1
        self.maybe_crash()
        if self.rng.random() < self.faults.refused:
            raise OrgUnavailable("503")
        if changes and self.rng.random() < self.faults.limit:
            raise OrgLimitReached("TotalRequests Limit exceeded.", code="REQUEST_LIMIT_EXCEEDED", http_status=403)

    def maybe_crash(self) -> None:
        if self.rng.random() < self.faults.crash:
            raise SimulatedCrash

    def _job(self, job_id: str) -> SimJob:
        try:
            return self.jobs[job_id]
        except KeyError:
            raise OrgNotFound("no such job", code="NOT_FOUND", http_status=404) from None

    @staticmethod
    def _set(job: SimJob, state: JobState) -> None:
        job.view = replace(job.view, state=state)
