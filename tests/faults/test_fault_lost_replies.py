"""Replies that get lost, are cut, or say something else: one record per good row, and no open job of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.faults.fault_checks import journal_entries
from tests.faults.fault_data import KEYS, SALE, SALE_OBJECT
from tests.faults.fault_twin import org_client
from tests.faults.fault_world import World, fault_world

CREATE = {"method": "POST", "path": "/jobs/ingest$"}
UPLOAD = {"method": "PUT", "path": "/batches$"}
CHANGE = {"method": "PATCH", "path": "/jobs/ingest/"}
EXPIRED = {
    "action": "answer",
    "status": 401,
    "body": json.dumps([{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]),
    "content_type": "application/json",
}
UNAVAILABLE = {"action": "answer", "status": 503}
PAGE = {"action": "answer", "status": 200, "body": "<html><body>Please log in</body></html>"}

FAULTS: dict[str, list[dict[str, Any]]] = {
    "create": [{"action": "lose_reply", **CREATE}, {"action": "lose_reply", **CREATE, "skip": 4}],
    "upload": [{"action": "lose_reply", **UPLOAD}, {"action": "cut_request", **UPLOAD, "skip": 2, "after_bytes": 5000}],
    "close": [{"action": "lose_reply", **CHANGE}, {"action": "drop", **CHANGE, "skip": 3}],
    # The first job is the only one at work, so the first change after its lost upload is its abort.
    "abort": [{"action": "lose_reply", **UPLOAD}, {"action": "lose_reply", **CHANGE}],
    "download": [
        {"action": "cut_response", "method": "GET", "path": "successfulResults$", "after_bytes": 1000, "times": 2},
        {"action": "cut_response", "method": "GET", "path": "failedResults$", "after_bytes": 20, "skip": 1},
    ],
    "busy": [
        {**UNAVAILABLE, **CREATE},
        {**UNAVAILABLE, **UPLOAD, "skip": 1},
        {**UNAVAILABLE, **CHANGE, "skip": 2},
        {**UNAVAILABLE, "method": "GET", "path": "/jobs/ingest", "skip": 3, "times": 2},
    ],
    "login page": [{**PAGE, **CREATE}, {**PAGE, **UPLOAD, "skip": 1}, {**PAGE, "method": "GET", "path": "Results$"}],
    "session": [
        {**EXPIRED, "path": path, "skip": 1} for path in ("/jobs/ingest$", "/batches$", "/query$", "successfulResults$")
    ],
}


ABORTED = {"create": 1, "upload": 2, "abort": 1, "busy": 1, "login page": 1}
"""Jobs whose creation or upload is in doubt are aborted, and no others."""

FOUND = {"create": 1}
"""The tenants' job is tiny and goes with its data: one whose creation is in doubt is found by its rows."""

TOGETHER = [("create", "download"), ("abort", "close", "session"), ("busy", "login page")]


def run_through(world: World, kinds: tuple[str, ...]) -> None:
    """Goal: each kind of fault costs nothing but time. Method: arm them, run a batch once, then ask the org."""
    with org_client(world.twin) as org:
        org.arm(*(order for kind in kinds for order in FAULTS[kind]))
        assert world.loader.run() == 1, "rows are refused, so the exit code is 1"
        assert [fault for fault in org.faults() if not fault["spent"]] == []
        aborted = {number for number, job in org.jobs().items() if job["state"] == "Aborted"}
    assert world.loader.starts == 1
    world.check_end()
    assert journal_entries(world.loader, "strays_left_alone") == []
    abandoned = world.loader.audit("SELECT sf_id FROM job WHERE step = 'abandoned' AND sf_id IS NOT NULL")
    assert {number for (number,) in abandoned} == aborted
    assert len(aborted) == sum(ABORTED.get(kind, 0) for kind in kinds)
    found = [entry for entry in journal_entries(world.loader, "job_created") if entry.get("found")]
    assert len(found) == sum(FOUND.get(kind, 0) for kind in kinds)


@pytest.mark.parametrize(
    "kinds", [TOGETHER[0], *(pytest.param(kinds, marks=pytest.mark.slow) for kinds in TOGETHER[1:])], ids=", ".join
)
def test_faults_on_the_way(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    with fault_world(tmp_path, seed=31, rows=20_000, chunk_rows=4_000) as world:
        run_through(world, kinds)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAULTS)
def test_one_fault_on_the_way(tmp_path: Path, kind: str) -> None:
    with fault_world(tmp_path, seed=32, rows=20_000, chunk_rows=4_000) as world:
        run_through(world, (kind,))


@pytest.mark.slow
def test_an_upload_that_never_arrived_though_it_was_acknowledged(tmp_path: Path) -> None:
    """Goal: no row is lost to a proxy that swallows a file. Method: 201 for the upload of links, which get no answer.

    The job then ends without a row, so it has written none of them, although their records stand in the org.
    """
    with fault_world(tmp_path, seed=34, rows=20_000, chunk_rows=4_000) as world:
        with org_client(world.twin) as org:
            org.arm({"action": "answer", "status": 201, "body": "", "content_type": "text/plain", **UPLOAD, "skip": 1})
        assert world.loader.run() == 1
        world.check_end()


def test_a_look_alike_made_while_a_creation_is_in_doubt_is_left_alone(tmp_path: Path) -> None:
    """Goal: somebody's job is never aborted. Method: make the very same job, by the same user, in the same seconds."""
    with fault_world(tmp_path, seed=33, rows=20_000, chunk_rows=4_000) as world, org_client(world.twin) as org:
        org.arm({"action": "lose_reply", **CREATE, "skip": 3})
        world.loader.start()
        assert world.loader.wait_until(lambda: world.loader.count("creates") >= 2, "two jobs are created")
        assert org.end_sessions() >= 1, "the loader has to sign in again on the way"
        assert world.loader.wait_until(lambda: bool(org.faults()[0]["spent"]), "the reply is lost")
        look_alike = org.create_job(SALE_OBJECT, KEYS[SALE])
        assert world.loader.wait() == 1
        [entry] = journal_entries(world.loader, "strays_left_alone")
        doubtful = set(entry["sf_ids"])
        assert look_alike in doubtful
        assert len(doubtful) == 2
        world.check_end(open_jobs=doubtful)
