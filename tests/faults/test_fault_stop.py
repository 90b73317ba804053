"""A stop asked for from outside, at once or after what is in flight, and the resume after it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.fault_checks import journal_entries
from tests.faults.fault_loader import BATCH, LoaderProcess
from tests.faults.fault_twin import org_client
from tests.faults.fault_world import fault_world

from forcelift.migration.steering import request_pause, request_resume, request_stop, request_throttle


def test_a_stop_finishes_what_is_in_flight_and_a_resume_goes_on(tmp_path: Path) -> None:
    with fault_world(tmp_path, seed=41, rows=40_000, chunk_rows=2_000) as world:
        loader = world.loader
        loader.start()
        assert loader.wait_until(lambda: loader.progress() >= 0.2, "a part is loaded")
        ask_to_stop(loader, now=False)
        assert loader.wait() == 130
        assert loader.audit("SELECT state FROM batch") == [("stopped",)]
        statuses = {status for (status,) in loader.audit("SELECT DISTINCT STATUS FROM MIGRATION_AUDIT_LOG")}
        assert "SKIPPED" in statuses
        assert "RUNNING" not in statuses
        with org_client(world.twin) as org:
            open_ones = {number for number, job in org.jobs().items() if job["state"] == "Open"}
        assert open_ones == world.others_jobs
        assert loader.run() == 1
        world.check_end()


def test_a_stop_at_once_aborts_jobs_and_says_what_became_of_them(tmp_path: Path) -> None:
    """Goal: rows that an aborted job had taken are accounted for. Method: a slow org, stopped in the middle of jobs."""
    with fault_world(tmp_path, seed=42, rows=10_000, chunk_rows=1_000, pace="realistic") as world:
        loader = world.loader
        loader.start()
        assert loader.wait_until(lambda: sales_in_process(loader) >= 2, "jobs of the children are at work")
        ask_to_stop(loader, now=True)
        assert loader.wait() == 130
        told = {str(entry["sf_id"]) for entry in journal_entries(loader, "job_aborted")}
        assert told
        with org_client(world.twin) as org:
            jobs = {number: org.job(number) for number in org.jobs()}
        assert {number for number, job in jobs.items() if job["state"] == "Open"} == world.others_jobs
        assert told <= {number for number, job in jobs.items() if job["state"] == "Aborted"}
        accounted = dict(loader.audit("SELECT sf_id, answered FROM job WHERE step = 'collected'"))
        for number in told:
            assert accounted[number] == jobs[number]["numberRecordsProcessed"]
        assert loader.run() == 1
        world.check_end()


@pytest.mark.slow
def test_a_pause_begins_nothing_and_a_resume_goes_on(tmp_path: Path) -> None:
    """Method: pause in the middle; two beats of the lease later there is not one job more than when all were done."""
    with fault_world(tmp_path, seed=43, rows=20_000, chunk_rows=1_000) as world:
        loader = world.loader
        loader.start()
        assert loader.wait_until(lambda: loader.progress() >= 0.2, "a part is loaded")
        loader.let_go_of_audit()
        assert request_pause(loader.plan, BATCH, reason="a test")[1]
        beat = last_beat(loader)
        assert loader.wait_until(lambda: last_beat(loader) > beat, "the loader has had time to hear it")
        assert loader.wait_until(lambda: has_no_open_jobs(loader), "what was open is finished")
        jobs = loader.audit("SELECT count(*), max(job_no) FROM job")
        beat = last_beat(loader)
        assert loader.wait_until(lambda: last_beat(loader) > beat, "time goes by")
        assert loader.audit("SELECT count(*), max(job_no) FROM job") == jobs
        assert loader.is_running
        assert loader.audit("SELECT count(*) FROM chunk WHERE step = 'planned'")[0][0] > 0
        loader.let_go_of_audit()
        assert request_throttle(loader.plan, BATCH, jobs=1, reason="a test")[1]
        assert request_resume(loader.plan, BATCH, reason="a test")[1]
        assert loader.wait() == 1
        world.check_end()


def last_beat(loader: LoaderProcess) -> str:
    return str(loader.audit("SELECT heartbeat FROM lease")[0][0])


def has_no_open_jobs(loader: LoaderProcess) -> bool:
    """Whether no job stands open in the org or is about to."""
    return loader.audit("SELECT count(*) FROM job WHERE step NOT IN ('collected', 'abandoned')")[0][0] == 0


def ask_to_stop(loader: LoaderProcess, *, now: bool) -> None:
    """Write the wish into the audit database, as `forcelift stop` does."""
    loader.let_go_of_audit()
    _, running = request_stop(loader.plan, BATCH, now=now, reason="a test")
    assert running


def sales_in_process(loader: LoaderProcess) -> int:
    """Jobs of the child table that were closed and have not been collected."""
    found = loader.audit("SELECT count(*) FROM job WHERE object = 'Sale__c' AND step = 'closed'")
    return int(found[0][0]) if found else 0
