"""Tiny jobs that are created with their data, over HTTP: fewer calls, and nothing lost or doubled by a lost reply."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.cli_migration import (
    ORPHANS,
    SALES,
    Migration,
    ShiftedClock,
    served_migration,
    wait_until,
    write_plan,
)

from forcelift.audit.jobs import Jobs
from forcelift.errors import ExitCode, StorageError
from forcelift.jobs import one_call
from forcelift.jobs.job_handlers import NOT_TAKEN, JobHandlers
from forcelift.jobs.messages import FindStray
from forcelift.migration.running import RunOptions, batch_status, run_migration
from forcelift.twin.users import User

INGEST = "/services/data/v66.0/jobs/ingest"
REFUSALS = "action = 'one_call_jobs_off'"
CREATE = {"method": "POST", "path": "/jobs/ingest$"}


class Logged(Migration):
    """A migration that asks its twin's log."""

    def asked(self, method: str, path: str) -> int:
        """Requests of that method whose path ends so."""
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return sum(one["method"] == method and re.search(path, one["path"]) is not None for one in lines)

    def changes(self) -> tuple[int, int, int]:
        """Creates, uploads and closes."""
        return (
            self.asked("POST", r"/jobs/ingest$"),
            self.asked("PUT", r"/batches$"),
            self.asked("PATCH", r"/jobs/ingest/"),
        )

    def arm(self, *orders: dict[str, Any]) -> None:
        headers = {"Authorization": f"Bearer {self.server.control_token}"}
        httpx.post(f"{self.server.url}/__twin__/faults", headers=headers, json=list(orders)).raise_for_status()

    def made(self) -> int:
        """Jobs that were carried out, by the audit database."""
        return int(self.audit("SELECT count(*) FROM job WHERE step = 'collected'")[0][0])

    def found(self) -> list[str]:
        """Salesforce ids of jobs that the org was asked for because the reply to their creation was lost."""
        told = [json.loads(text) for (text,) in self.audit("SELECT payload FROM journal WHERE action = 'job_created'")]
        return [one["sf_id"] for one in told if one.get("found")]

    def check_end(self, batch_id: str = "first") -> None:
        """As everywhere, and no job is left open in the org."""
        super().check_end(batch_id)
        assert self.jobs("Open") == []


@pytest.fixture
def migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Logged]:
    with served_migration(tmp_path, monkeypatch, kind=Logged, rows=300) as made:
        yield made


def load(migration: Logged) -> None:
    done = migration.run("run", "--batch", "first")
    assert done.returncode == ExitCode.ROWS_REFUSED, done.stderr


def test_a_plan_of_tiny_tables_takes_two_calls_fewer_for_each_job(
    migration: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: create, upload and close are one call. Method: the twin's own log, with and without; a second batch for
    the latter, whose rows all stand already."""
    load(migration)
    migration.check_end()
    jobs = migration.made()
    assert jobs >= 3
    assert migration.changes() == (jobs, 0, 0)
    monkeypatch.setattr(one_call, "BYTES_MAX", 0)
    assert migration.run("run", "--batch", "second").returncode == ExitCode.ROWS_REFUSED
    assert migration.changes() == (2 * jobs, jobs, jobs)


@pytest.mark.parametrize(
    "fault",
    [{"action": "lose_reply"}, pytest.param({"action": "cut_response", "after_bytes": 20}, marks=pytest.mark.slow)],
    ids=["reply lost", "reply cut"],
)
def test_a_job_whose_reply_was_lost_is_found_by_its_rows(migration: Logged, fault: dict[str, Any]) -> None:
    """Goal: neither sent twice nor told as updated. Method: the first table's reply and a later one get lost."""
    migration.arm({**fault, **CREATE}, {**fault, **CREATE, "skip": 2})
    load(migration)
    migration.check_end()
    assert len(migration.found()) == 2
    assert migration.changes() == (migration.made(), 0, 0)
    assert migration.audit("SELECT count(*) FROM job WHERE step <> 'collected'") == [(0,)]


def test_a_job_that_never_came_to_be_is_sent_anew(migration: Logged) -> None:
    migration.arm({"action": "drop", **CREATE, "skip": 1}, {"action": "answer", "status": 500, **CREATE, "skip": 2})
    load(migration)
    migration.check_end()
    assert migration.found() == []
    reasons = [reason for (reason,) in migration.audit("SELECT error_message FROM job WHERE step = 'abandoned'")]
    assert reasons == ["the org does not show it, nor a job with its rows"] * 2


def test_jobs_of_another_loader_are_not_taken_for_ours(migration: Logged) -> None:
    """Goal: nobody else's job answers for our rows. Method: jobs of our user, made in the same seconds as the lost one:
    of other keys, of our keys with other values, of our keys with other columns, and one that is never closed."""
    write_plan(migration.folder, migration.server, rows=1000)
    header, keys = "Sale__c,Tenant__r.Code__c,Amount__c", range(ORPHANS, SALES)
    contents = [
        f"{header}\n" + "".join(f"X{key},,1\n" for key in keys),
        f"{header}\n" + "".join(f"{key},,1\n" for key in keys),
        "Sale__c,Tenant__r.Code__c\n" + "".join(f"{key},\n" for key in keys),
    ]
    authorization = {"Authorization": f"Bearer {migration.server.access_token}"}
    body = {"object": "Sale__c", "operation": "upsert", "externalIdFieldName": "Sale__c"}
    theirs = []
    for content in contents:
        files: Any = {
            "job": (None, json.dumps(body), "application/json"),
            "content": ("content", content, "text/csv"),
        }
        answer = httpx.post(f"{migration.server.url}{INGEST}", headers=authorization, files=files).raise_for_status()
        theirs.append(answer.json()["id"])
    left_open = httpx.post(f"{migration.server.url}{INGEST}", headers=authorization, json=body).raise_for_status()
    wait_until(lambda: set(theirs) <= set(migration.jobs("JobComplete")))
    migration.arm({"action": "drop", **CREATE, "skip": 1})
    load(migration)
    assert migration.found() == []
    assert not set(theirs) & {number for (number,) in migration.audit("SELECT sf_id FROM job")}
    assert migration.jobs("Open") == [left_open.json()["id"]], "what is open is not ours, and is left alone"
    assert migration.made() == 2, "one job of each table, so that its keys are all of them"
    answer = httpx.get(
        f"{migration.server.url}/services/data/v66.0/query",
        params={"q": "SELECT COUNT() FROM Sale__c WHERE Amount__c = 1"},
        headers=authorization,
    )
    assert answer.json()["totalSize"] == len(keys), "only the other loader's own records keep its value"


def test_a_job_that_is_at_work_is_waited_for(migration: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: nothing is sent twice while the first may still come. Method: the org takes its time with the lost job."""
    looks: list[str | None] = []
    work = migration.org.step

    def late() -> int | None:
        """Jobs are not worked on before the loader has looked for the lost one, and has said that it waits."""
        if migration.asked("GET", r"/jobs/ingest$") < 2:
            return None
        if not looks:
            if not migration.audit("SELECT 1 FROM journal WHERE action = 'waits'"):
                return None
            looks.append(batch_status(migration.plan).waiting_for)
        return work()

    monkeypatch.setattr(migration.org, "step", late)
    migration.arm({"action": "lose_reply", **CREATE})
    load(migration)
    migration.check_end()
    [sf_id] = migration.found()
    reason = f"the answer to the creation of a job of table `tenants` was lost: waiting for the end of {sf_id}, "
    assert looks == [reason + "to see whether it is that job"]
    assert batch_status(migration.plan).waiting_for is None
    told = [text for (text,) in migration.audit("SELECT payload FROM journal WHERE action = 'governor'")]
    assert sum("to see whether it is that job" in text for text in told) == 1


def test_a_job_that_could_not_be_written_down_is_found_by_a_resume(
    migration: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: what the org took and the audit database did not is neither lost nor sent twice."""
    taken = Jobs.job_taken

    def fail(self: Jobs, job_no: int, sf_id: str, *, found: bool = False) -> Any:
        raise StorageError("the audit database cannot be written")

    with monkeypatch.context() as patch:
        patch.setattr(Jobs, "job_taken", fail)
        assert migration.run("run", "--batch", "first").returncode == ExitCode.STATE
    assert Jobs.job_taken is taken
    assert migration.run("run", "--resume", "first").returncode == ExitCode.ROWS_REFUSED
    migration.check_end()
    assert len(migration.found()) == 1
    assert migration.changes() == (migration.made(), 0, 0)


@pytest.mark.parametrize("skip", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_process_killed_while_it_waits_for_the_reply(migration: Logged, skip: int) -> None:
    """Goal: the same after kill -9. Method: the org has the job and is slow to say so; then the process is killed."""
    migration.arm({"action": "slow_response", "bytes_per_second": 100, **CREATE, "skip": skip})
    killed = migration.start("run", "--batch", "first")
    try:
        wait_until(lambda: len(migration.jobs("JobComplete")) > skip)
    finally:
        killed.kill()
        killed.communicate()
    assert migration.run("run", "--resume", "first").returncode == ExitCode.ROWS_REFUSED
    migration.check_end()
    assert len(migration.found()) >= 1
    # What the killed process asked for is answered to the end before it is written down.
    wait_until(lambda: migration.changes() == (migration.made(), 0, 0))


def test_an_org_that_refuses_the_form_gets_jobs_the_usual_way(migration: Logged) -> None:
    migration.arm({"action": "answer", "status": 415, **CREATE})
    load(migration)
    migration.check_end()
    assert migration.changes() == (1 + migration.made(), migration.made(), migration.made())


@pytest.mark.parametrize("loaded", [0, 1], ids=["the refused job", "a later job"])
def test_a_process_killed_in_the_usual_create_after_a_refusal(migration: Logged, loaded: int) -> None:
    """Goal: the resume takes back the open job, as it does where jobs were always created first; the refusal is known
    to it. Method: the org refuses the form once and is slow to say that it has made a job, of the same intent or of the
    next; then the process is killed."""
    migration.arm(
        {"action": "answer", "status": 415, **CREATE},
        {"action": "slow_response", "bytes_per_second": 100, **CREATE, "skip": loaded},
    )
    killed = migration.start("run", "--batch", "first")
    try:
        wait_until(lambda: len(migration.jobs("JobComplete")) == loaded and migration.jobs("Open") != [])
    finally:
        killed.kill()
        killed.communicate()
    assert migration.audit("SELECT count(*) FROM job WHERE step = 'intended'") == [(1,)]
    (left,) = migration.jobs("Open")
    assert migration.run("run", "--resume", "first").returncode == ExitCode.ROWS_REFUSED
    migration.check_end()
    assert migration.jobs("Aborted") == [left]
    assert migration.found() == []
    made = migration.made()
    # The refused call and the job that was taken back come on top; the form is not tried again.
    wait_until(lambda: migration.changes() == (made + 2, made, made + 1))
    told = [json.loads(text) for (text,) in migration.audit(f"SELECT payload FROM journal WHERE {REFUSALS}")]
    assert [one["http_status"] for one in told] == [415]


def test_a_job_that_the_org_left_open_goes_on_the_usual_way(migration: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the one job is used, and its rows are uploaded once. Method: a twin that makes the job, and leaves the data
    that came with it."""
    jobs = migration.org.jobs

    def leave_data(body: dict[str, Any], content: bytes, user: User, *, api_version: str) -> dict[str, Any]:
        return jobs.create(body, user, api_version=api_version)

    monkeypatch.setattr(jobs, "create_multipart", leave_data)
    load(migration)
    migration.check_end()
    assert migration.jobs("Aborted") == []
    assert migration.changes() == (migration.made(),) * 3
    assert migration.audit(f"SELECT count(*) FROM journal WHERE {REFUSALS}") == [(1,)]


@pytest.mark.parametrize(("age", "told"), [(timedelta(days=6, hours=1), 1), (timedelta(days=5), 0)])
def test_a_resume_after_the_org_may_have_forgotten_says_so(
    migration: Logged, monkeypatch: pytest.MonkeyPatch, age: timedelta, told: int
) -> None:
    """Goal: the rows are sent, and that they may have been sent before is on record. Method: the call is lost on its
    way, the process ends before it has found out, and the batch is resumed days later."""

    def fail(self: JobHandlers, command: FindStray) -> Any:
        raise StorageError("the audit database cannot be read")

    migration.arm({"action": "drop", **CREATE})
    with monkeypatch.context() as patch:
        patch.setattr(JobHandlers, "find_stray", fail)
        assert migration.run("run", "--batch", "first").returncode == ExitCode.STATE
    [(number,)] = migration.audit("SELECT job_no FROM job WHERE step = 'intended'")
    later = ShiftedClock(datetime.now(UTC) + age)
    done = run_migration(migration.plan, RunOptions(resume="first"), clock=later)
    assert done.exit_code is ExitCode.ROWS_REFUSED, done.errors
    migration.check_end()
    rows = migration.audit("SELECT payload FROM journal WHERE action = 'stray_may_be_forgotten'")
    assert [json.loads(payload) for (payload,) in rows] == [{"job_no": number}] * told
    assert migration.audit(f"SELECT step, error_message FROM job WHERE job_no = {number}") == [("abandoned", NOT_TAKEN)]
