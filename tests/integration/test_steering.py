"""A real run with a twin, steered: hours, pause, throttle, extract-first, files that stay, plans that change."""

from __future__ import annotations

import errno
import json
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from msgspec.structs import replace
from tests.integration.cli_migration import (
    CHUNK_ROWS,
    ORPHANS,
    SALES,
    TENANTS,
    Migration,
    ShiftedClock,
    served_migration,
    wait_until,
)

from forcelift.errors import ExitCode, LostReply, StorageError
from forcelift.jobs import one_call
from forcelift.jobs.chunk_handlers import ChunkHandlers
from forcelift.jobs.coordinator import Coordinator
from forcelift.jobs.job_handlers import JobHandlers
from forcelift.jobs.messages import CreateJob, FindStray, SettleChunk
from forcelift.migration.running import RunOptions, Watcher, batch_status, run_migration
from forcelift.protocols.org import JobRequest, Org

CHUNKS = 1 + SALES // CHUNK_ROWS


@pytest.fixture
def migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    """A plan into a twin that works at once."""
    with served_migration(tmp_path, monkeypatch, kind=Migration) as made:
        yield made


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    """A plan into a twin that works on jobs only when the test says so."""
    with served_migration(tmp_path, monkeypatch, kind=Migration, work=False) as made:
        yield made


def change_plan(migration: Migration, old: str, new: str) -> None:
    text = migration.plan.read_text()
    assert text.count(old) == 1
    migration.plan.write_text(text.replace(old, new))


def slow_down(migration: Migration, *, rows_per_second: int) -> None:
    change_plan(migration, "source: {", f"source: {{limits: {{rows_per_second: {rows_per_second}}}, ")


def decisions(migration: Migration) -> list[str]:
    rows = migration.audit("SELECT payload FROM journal WHERE action = 'governor' ORDER BY seq")
    return [json.loads(payload)["decision"] for (payload,) in rows]


def test_a_run_outside_of_its_hours_begins_by_waiting_and_keeps_to_them(migration: Migration) -> None:
    """Method: begin at noon, leap to the opening, after two jobs leap past the end, then to the next day.

    What was created before the end may be there after it; what was not created then must not be, until the next day.
    """
    change_plan(migration, "limits: {parallel_jobs: 2}", 'limits: {parallel_jobs: 2, window: "22:00-23:00 UTC"}')
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    clock = ShiftedClock(noon)
    seen: dict[str, Any] = {"turns": 0, "stage": "noon"}
    evening = noon.replace(hour=22)

    def jobs() -> int:
        return sum(len(migration.jobs(state)) for state in ("Open", "UploadComplete", "InProgress", "JobComplete"))

    def working() -> bool:
        return any(migration.jobs(state) for state in ("UploadComplete", "InProgress"))

    def on_progress(coordinator: Coordinator, org: Org) -> None:
        outside = bool(coordinator.waits)
        seen["turns"] = seen["turns"] + 1 if outside else 0
        if seen["stage"] == "noon" and seen["turns"] >= 2:
            assert jobs() == 0
            assert migration.audit("SELECT count(*) FROM chunk") == [(0,)], "nothing was read"
            status = batch_status(migration.plan, clock=clock)
            assert status.waiting_for == (
                "outside of `limits.window` 22:00-23:00 UTC (until 2026-03-01T22:00:00+00:00)"
            )
            assert coordinator.waiting_for == status.waiting_for
            seen["stage"] = "evening"
            clock.leap_to(evening)
        elif seen["stage"] == "evening" and len(migration.jobs("JobComplete")) >= 2:
            seen["stage"] = "night"
            clock.leap_to(evening + timedelta(hours=1))
        elif seen["stage"] == "night" and seen["turns"] >= 3 and not working():
            if "jobs" not in seen:
                seen["jobs"], seen["turns"] = jobs(), 0
                return
            assert jobs() == seen["jobs"] < CHUNKS, "no job was created outside of the hours"
            seen["stage"] = "next day"
            clock.leap_to(evening + timedelta(days=1))

    summary = run_migration(
        migration.plan, RunOptions(batch_id="night"), watcher=Watcher(on_progress=on_progress), clock=clock
    )
    assert summary.exit_code is ExitCode.ROWS_REFUSED, summary.errors
    assert seen["stage"] in ("night", "next day")
    waits = migration.audit("SELECT payload FROM journal WHERE action = 'waits' ORDER BY seq")
    kinds = [[wait["kind"] for wait in json.loads(payload)["waits"]] for (payload,) in waits]
    assert kinds[:3] == [["window"], [], ["window"]]
    assert kinds[-1] == []
    migration.check_end("night")


def test_pause_throttle_and_resume_do_what_they_say(held: Migration) -> None:
    """Method: the org stands still; after the wish is heard and all open jobs are done there is no further job."""
    with held.start("run", "--batch", "paused") as process:
        held.wait_for_jobs("UploadComplete", 1)
        held.document("pause", "--reason", "month end")
        wait_until(lambda: any("month end" in line for line in decisions(held)))
        status = held.document("status")
        assert (status["paused"], status["pause_reason"]) == (True, "month end")
        wait_until(lambda: _work(held) and _open_jobs(held) == 0)
        made = held.audit("SELECT count(*) FROM job")
        held.document("throttle", "--jobs", "1")
        wait_until(lambda: any("at most 1 job at once" in line for line in decisions(held)))
        assert held.audit("SELECT count(*) FROM job") == made
        shown = held.run("status").stdout
        assert "month end" in shown
        assert "at most 1 job at once" in shown
        assert "no reason given" in shown
        assert "stands still" in shown, "a rate of before the pause would look like one that goes on"
        held.document("resume")
        most = 0
        while process.poll() is None:
            # By their ids: a job may go on from one state to the next between two questions.
            most = max(
                most, len({job for state in ("Open", "UploadComplete", "InProgress") for job in held.jobs(state)})
            )
            _work(held)
        assert process.returncode == ExitCode.ROWS_REFUSED
        assert most == 1
    asked = [
        json.loads(payload).get("reason")
        for (payload,) in held.audit("SELECT payload FROM journal WHERE action LIKE '%_asked' ORDER BY seq")
    ]
    assert asked == ["month end", None, None]
    held.check_end("paused")


def _open_jobs(held: Migration) -> int:
    query = "SELECT count(*) FROM job WHERE step NOT IN ('collected', 'abandoned')"
    return int(held.audit(query)[0][0])


def _work(held: Migration) -> bool:
    held.org.run_until_idle()
    return True


@pytest.mark.parametrize("stopped", [False, True])
def test_extract_first_stages_everything_before_the_first_job(held: Migration, stopped: bool) -> None:
    """Also over a stop and a resume, which keeps to the mode that the batch was begun with."""
    if stopped:
        slow_down(held, rows_per_second=300)
    with held.start("run", "--batch", "all", "--extract-first") as process:
        if stopped:
            wait_until(lambda: _staged(held) >= 1)
            held.document("stop", "--reason", "enough")
            assert process.wait(60) == ExitCode.INTERRUPTED
            assert held.audit("SELECT count(*) FROM job") == [(0,)]
            assert _staged(held) < CHUNKS
            assert held.audit("SELECT count(*) FROM MIGRATION_AUDIT_LOG WHERE STATUS = 'RUNNING'") == [(0,)]
        else:
            held.wait_for_jobs("UploadComplete", 1)
            wait_until(lambda: _work(held) and process.poll() is not None)
            assert process.returncode == ExitCode.ROWS_REFUSED
    if stopped:
        held.org.start()
        done = held.run("run", "--resume")
        held.org.stop()
        assert done.returncode == ExitCode.ROWS_REFUSED, done.stderr
    rows = held.audit("SELECT action, seq FROM journal WHERE action IN ('chunk_staged', 'job_intended')")
    assert max(seq for name, seq in rows if name == "chunk_staged") < min(
        seq for name, seq in rows if name == "job_intended"
    )
    assert held.document("status")["batch"]["mode"] == "extract_first"
    held.check_end("all")


def _staged(held: Migration) -> int:
    try:
        return int(held.audit("SELECT count(*) FROM chunk WHERE step = 'staged'")[0][0])
    except sqlite3.OperationalError:
        return 0


def test_extract_first_is_refused_where_it_cannot_fit(migration: Migration) -> None:
    change_plan(migration, "limits: {parallel_jobs: 2}", "limits: {parallel_jobs: 2, staging_gb: 0.000001}")
    refused = migration.run("run", "--extract-first")
    assert refused.returncode == ExitCode.STATE
    assert "limits.staging_gb" in refused.stderr
    assert migration.audit("SELECT count(*) FROM batch") == [(0,)]


def test_extract_first_rejects_children_of_parents_that_a_rule_rejected(migration: Migration) -> None:
    """Under `--extract-first` a parent counts as there when its row is staged, and that one's is not."""
    with duckdb.connect(str(migration.folder / "source.duckdb")) as source:
        source.execute("UPDATE tenants SET name = repeat('x', 300) WHERE code = 'T1'")
    change_plan(migration, "fields: {name: Name}", "fields: {name: {field: Name, too_long: reject}}")
    run = migration.document("run", "--batch", "one", "--extract-first", code=ExitCode.ROWS_REFUSED)
    sales = next(table for table in run["tables"] if table["table"] == "sales")
    children = (SALES // TENANTS) - sum(1 for i in range(ORPHANS) if i % TENANTS == 1)
    assert sales["rejected"] == ORPHANS + children
    assert sales["failed"] == 0


@pytest.mark.parametrize(
    ("keep", "stays"), [("until_settled", False), ("until_done", False), ("keep", True), ("3", True), ("0", False)]
)
def test_staged_files_stay_as_long_as_the_plan_says(migration: Migration, keep: str, stays: bool) -> None:
    change_plan(migration, "chunks: ", f"retention: {{staged_files: {keep}}}\nchunks: ")
    assert migration.run("run", "--batch", "kept").returncode == ExitCode.ROWS_REFUSED
    assert bool(staged_files(migration)) == stays
    migration.check_end("kept")


def test_files_kept_until_the_batch_is_done_outlive_one_that_failed(migration: Migration) -> None:
    """A failed batch is not done: its resume may need them. The resume that ends it removes them."""
    change_plan(migration, "chunks: ", "retention: {staged_files: until_done}\nchunks: ")
    settle = ChunkHandlers.settle

    def fail(self: ChunkHandlers, command: SettleChunk) -> Any:
        raise StorageError("the ledger cannot be written")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChunkHandlers, "settle", fail)
        assert migration.run("run", "--batch", "kept").returncode == ExitCode.STATE
    assert ChunkHandlers.settle is settle
    assert migration.audit("SELECT state FROM batch") == [("failed",)]
    assert staged_files(migration)
    assert migration.run("run", "--resume").returncode == ExitCode.ROWS_REFUSED
    assert staged_files(migration) == []
    migration.check_end("kept")


def test_a_job_that_came_late_is_aborted_by_whoever_leaves_or_goes_on(migration: Migration) -> None:
    """Goal: no open job is left of a process that was killed between creating a job and saying so.

    Method: the first create is lost, and the org does not show its job when it is asked; only then, by the hand of the
    test, the org gets the job, as from a process that stood still. A look-alike of another operation stays.
    """
    create, find = JobHandlers.create, JobHandlers.find_stray
    lost: list[JobRequest] = []
    late: list[str] = []
    orgs: list[Org] = []

    def lose(self: JobHandlers, command: CreateJob) -> Any:
        if lost:
            return create(self, command)
        job = self._world.audit.job(command.job_no)
        lost.append(JobRequest(object=job.object, operation=job.operation, external_id_field=job.external_id_field))
        raise LostReply("nobody knows")

    def find_none(self: JobHandlers, command: FindStray) -> Any:
        found = find(self, command)
        orgs.append(self._world.org)
        late.append(orgs[0].create_job(lost[0]).id)
        late.append(orgs[0].create_job(replace(lost[0], operation="insert", external_id_field=None)).id)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobHandlers, "create", lose)
        patch.setattr(one_call, "BYTES_MAX", 0)  # a job that goes with its data is never open
        patch.setattr(JobHandlers, "find_stray", find_none)
        done = run_migration(migration.plan, RunOptions(batch_id="late"))
    assert done.exit_code is ExitCode.ROWS_REFUSED, done.errors
    ours, other = late
    assert ours not in migration.jobs("Open")
    assert ours in migration.jobs("Aborted")
    assert other in migration.jobs("Open"), "no intent of ours was of that operation"
    told = migration.audit("SELECT payload FROM journal WHERE action = 'late_job_aborted'")
    assert [json.loads(payload)["sf_id"] for (payload,) in told] == [ours]
    migration.check_end("late")


def staged_files(migration: Migration) -> list[Path]:
    return list((migration.folder / "state" / "staging" / "staging").rglob("*.csv"))


@pytest.mark.slow
def test_files_kept_for_days_go_with_the_next_run_after_them(migration: Migration) -> None:
    change_plan(migration, "chunks: ", "retention: {staged_files: 3}\nchunks: ")
    run_migration(migration.plan, RunOptions(batch_id="first"), clock=ShiftedClock(datetime(2026, 3, 1, tzinfo=UTC)))
    first = len(staged_files(migration))
    assert first >= CHUNKS
    run_migration(migration.plan, RunOptions(batch_id="second"), clock=ShiftedClock(datetime(2026, 3, 3, tzinfo=UTC)))
    assert len(staged_files(migration)) == 2 * first
    run_migration(migration.plan, RunOptions(batch_id="third"), clock=ShiftedClock(datetime(2026, 3, 5, tzinfo=UTC)))
    assert {path.parts[-4] for path in staged_files(migration)} == {"second", "third"}
    removed = migration.audit("SELECT batch_id FROM journal WHERE action = 'staged_files_removed'")
    assert removed == [("first",)]


def test_files_that_cannot_be_removed_are_told(migration: Migration, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses to remove; the run ends as it would have, and says what is left."""
    remove, staging = shutil.rmtree, migration.folder.resolve() / "state" / "staging" / "staging"

    def refuse(path: Any, *more: Any, **options: Any) -> None:
        if Path(path).is_relative_to(staging):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        remove(path, *more, **options)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    shown = migration.run("run", "--batch", "left")
    assert shown.returncode == ExitCode.ROWS_REFUSED
    assert "note: staged files could not be removed" in shown.stdout
    assert "permission denied" in shown.stdout
    assert staged_files(migration)
    monkeypatch.undo()
    migration.check_end("left")


def test_a_resume_takes_another_window_as_a_revision_and_refuses_another_meaning(held: Migration) -> None:
    with held.start("run", "--batch", "changed") as process:
        held.wait_for_jobs("UploadComplete", 1)
        held.document("stop", "--now")
        process.wait(60)
    change_plan(held, "limits: {parallel_jobs: 2}", "limits: {parallel_jobs: 1, memory_mb: 600}")
    change_plan(held, "{name: Name}", "{name: {field: Name, too_long: truncate}}")
    refused = held.run("run", "--resume")
    assert refused.returncode == ExitCode.STATE
    assert "too_long" in refused.stderr
    assert "parallel_jobs" not in refused.stderr
    change_plan(held, "{name: {field: Name, too_long: truncate}}", "{name: Name}")
    held.org.start()
    done = held.run("run", "--resume")
    held.org.stop()
    assert done.returncode == ExitCode.ROWS_REFUSED, done.stderr
    assert held.audit("SELECT revision FROM plan_revision ORDER BY revision") == [(1,), (2,)]
    held.check_end("changed")


def test_a_stop_in_the_middle_of_a_slow_read_is_heard_before_the_chunk_is_read(held: Migration) -> None:
    """Method: so slow a read that a chunk takes a minute; the stop ends it between two of its pieces."""
    slow_down(held, rows_per_second=1)
    with held.start("run", "--batch", "slow", "--table", "tenants") as process:
        wait_until(lambda: _running(held) == 1)
        held.document("stop")
        assert process.wait(60) == ExitCode.INTERRUPTED
    statuses = held.audit("SELECT STATUS, ERROR_MESSAGE FROM MIGRATION_AUDIT_LOG")
    assert [status for status, _ in statuses] in (["FAILED"], ["SKIPPED"])


def _running(held: Migration) -> int:
    try:
        return len(held.audit("SELECT * FROM MIGRATION_AUDIT_LOG WHERE STATUS = 'RUNNING'"))
    except sqlite3.OperationalError:
        return 0
