"""A batch that two runs share, source and audit database on PostgreSQL: who may join, and what each of them reads."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from tests.integration.cli_migration import (
    PATIENCE_S,
    Migration,
    cli_schema,
    make_source,
    soql_count,
    wait_until,
    write_plan,
)

from forcelift.account.summary import BatchSummary
from forcelift.audit.records import Batch, BatchState
from forcelift.cli.main import run_command
from forcelift.cli.report import next_lines
from forcelift.errors import ExitCode, StateConflict
from forcelift.migration.running import RunOptions, Watcher, batch_status, run_migration
from forcelift.migration.steering import request_pause, request_resume, request_stop
from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer

if TYPE_CHECKING:
    from tests.postgres_support import Postgres

pytest_plugins = ["tests.postgres_support"]

BATCH = "shared"
ROWS = 300

_PLAN = """\
version: 1
project: Share test
source: {{url: "{url}"}}
audit: {{url: "{url}"}}
target:
  url: {target}
  auth: {{flow: token, access_token: "${{CLI_TEST_TOKEN}}"}}
tables:
  - table: source_rows.tenants
    object: Tenant__c
    key: code
    external_id: Code__c
    fields: {{name: Name}}
chunks: {{rows: 50}}
"""


@dataclass
class Run:
    """A run in a thread of its own, held before its first step until it is let go."""

    plan: Path
    options: RunOptions
    begun: threading.Event = field(default_factory=threading.Event)
    may_go: threading.Event = field(default_factory=threading.Event)
    summary: BatchSummary | None = None
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _on_batch(self, batch: Batch) -> None:
        self.begun.set()
        assert self.may_go.wait(PATIENCE_S)

    def _run(self) -> None:
        try:
            self.summary = run_migration(self.plan, self.options, watcher=Watcher(on_batch=self._on_batch))
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self.error = error
            self.begun.set()

    def wait_until_begun(self) -> None:
        assert self.begun.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error

    def end(self) -> BatchSummary:
        """Let it go, and wait for its end."""
        self.may_go.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error
        assert self.summary is not None
        return self.summary


@dataclass
class Shared:
    plan: Path
    url: str
    server: TwinServer
    runs: list[Run] = field(default_factory=list)

    def start(self, **options: Any) -> Run:
        run = Run(self.plan, RunOptions(**options))
        self.runs.append(run)
        run.wait_until_begun()
        return run

    def source(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @property
    def snapshots(self) -> set[str]:
        """The states that chunks were read from."""
        return {state for (state,) in self.source("SELECT DISTINCT (staged::json)->>'snapshot' FROM chunk")}


@pytest.fixture
def shared(postgres: Postgres, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shared]:
    org = TwinOrg.open(None, schema=cli_schema())
    try:
        with TwinServer(org) as server:
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            plan = tmp_path / "here" / "forcelift.yaml"
            plan.parent.mkdir()
            url = postgres.plan_url(database)
            plan.write_text(_PLAN.format(url=url, target=server.url), encoding="utf-8")
            world = Shared(plan=plan, url=postgres.url(database), server=server)
            world.source("CREATE SCHEMA source_rows")
            world.source(
                "CREATE TABLE source_rows.tenants AS "
                f"SELECT 'T' || i AS code, 'Tenant ' || i AS name FROM generate_series(1, {ROWS}) AS g(i)"
            )
            world.source("ALTER TABLE source_rows.tenants ADD PRIMARY KEY (code)")
            try:
                yield world
            finally:
                for run in world.runs:
                    run.may_go.set()
                    run.thread.join(PATIENCE_S)
    finally:
        org.close()


def test_the_one_that_joins_reads_the_first_ones_snapshot(shared: Shared) -> None:
    """Method: rows are written after the first has begun and before the second, which then does all the work."""
    first = shared.start(batch_id=BATCH)
    shared.source("INSERT INTO source_rows.tenants SELECT 'N' || i, 'new' FROM generate_series(1, 40) AS g(i)")
    shared.source("UPDATE source_rows.tenants SET name = 'changed' WHERE code < 'T2'")
    second = shared.start(join=BATCH)
    status = batch_status(shared.plan)
    assert [one.fence for one in status.runners] == [1, 2]
    with redirect_stdout(io.StringIO()) as shown:
        assert run_command(["status", "--plan", str(shared.plan)]) == 0
    assert "running, by 2 processes" in shown.getvalue()
    assert shown.getvalue().count("last sign of life") == 2
    ended = second.end()
    assert ended.exit_code == ExitCode.DONE
    assert ended.batch.state is BatchState.DONE
    assert len(ended.at_work) == 1, "the first has not left yet"
    ended = first.end()
    assert (ended.exit_code, ended.at_work, ended.other_snapshots) == (ExitCode.DONE, (), 0)
    assert soql_count(shared.server, "Tenant__c") == ROWS
    assert shared.snapshots == {ended.batch.snapshot}
    assert shared.source("SELECT DISTINCT claim FROM chunk") == [(2,)]
    assert list((shared.plan.parent / "state" / "staging").glob("staging/*")) == [], "the last to leave clears up"
    with pytest.raises(StateConflict, match="no process is at work"):
        shared.start(join=BATCH)


def test_where_the_snapshot_is_gone_a_new_one_is_read_and_told(shared: Shared) -> None:
    """Method: the server ends the session that holds the snapshot; rows were written since."""
    first = shared.start(batch_id=BATCH)
    shared.source("INSERT INTO source_rows.tenants SELECT 'N' || i, 'new' FROM generate_series(1, 40) AS g(i)")
    shared.source(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND query LIKE '%pg_export_snapshot%' AND pid <> pg_backend_pid()"
    )
    ended = shared.start(join=BATCH).end()
    chunks = ended.tables[0].chunks
    assert ended.other_snapshots == chunks > 1
    assert ended.document()["chunks_of_other_snapshots"] == chunks
    assert ended.batch.snapshot not in shared.snapshots
    assert len(shared.snapshots) == 1
    assert soql_count(shared.server, "Tenant__c") == ROWS + 40
    assert first.end().exit_code == ExitCode.DONE


def test_who_is_refused(shared: Shared, tmp_path: Path) -> None:
    first = shared.start(batch_id=BATCH)
    with pytest.raises(StateConflict, match="is being worked on by") as caught:
        shared.start(resume=BATCH)
    assert f"run --join {BATCH}" in str(caught.value.hint)
    text = shared.plan.read_text(encoding="utf-8")
    shared.plan.write_text(text.replace("rows: 50", "rows: 51"), encoding="utf-8")
    with pytest.raises(StateConflict, match="the plan has changed"):
        shared.start(join=BATCH)
    shared.plan.write_text(text, encoding="utf-8")
    elsewhere = tmp_path / "there" / "forcelift.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(text, encoding="utf-8")
    here, shared.plan = shared.plan, elsewhere
    with pytest.raises(StateConflict, match="its marker file is missing") as caught:
        shared.start(join=BATCH)
    assert "staging" in str(caught.value.hint)
    shared.plan = here
    assert first.end().exit_code == ExitCode.DONE
    assert soql_count(shared.server, "Tenant__c") == ROWS


def test_a_stop_reaches_all_and_a_resume_goes_on(shared: Shared) -> None:
    runs = [shared.start(batch_id=BATCH), shared.start(join=BATCH)]
    assert request_stop(shared.plan, BATCH, now=False, reason="a test")[1]
    first = runs[0].end()
    if first.exit_code == ExitCode.INTERRUPTED:
        assert len(first.at_work) == 1, "the second has yet to hear of it"
        shown = next_lines(first, shared.plan)
        assert len(shown) == 1
        assert "run --resume" in shown[0], "nobody goes on with what a stop of all left"
    codes = {first.exit_code, runs[1].end().exit_code}
    assert codes <= {ExitCode.INTERRUPTED, ExitCode.DONE}
    if ExitCode.INTERRUPTED in codes:
        assert shared.source("SELECT state FROM batch") == [("stopped",)]
        assert shared.start(resume=BATCH).end().exit_code == ExitCode.DONE
    assert soql_count(shared.server, "Tenant__c") == ROWS


def out_of_hours() -> str:
    """Hours that are hours away."""
    opens = (datetime.now(UTC).hour + 6) % 24
    return f'limits: {{window: "{opens:02}:00-{(opens + 1) % 24:02}:00 UTC"}}\n'


HELD = {
    "pause": ("", "paused by"),
    "window": (out_of_hours(), "outside of `limits.window`"),
    "disk": ("thresholds: {disk_usage_warning: 0.001, disk_usage_critical: 0.002}\n", "the staging folder's disk is"),
}


@pytest.mark.parametrize("kind", list(HELD))
def test_what_holds_one_runner_back_holds_all(kind: str, shared: Shared) -> None:
    """Method: two runners are let go under a pause, outside of the hours or with a disk too full; a beat goes by."""
    settings, reason = HELD[kind]
    text = shared.plan.read_text(encoding="utf-8")
    shared.plan.write_text(text + settings, encoding="utf-8")
    runs = [shared.start(batch_id=BATCH), shared.start(join=BATCH)]
    if kind == "pause":
        assert request_pause(shared.plan, BATCH, reason="a test")[1]
    for run in runs:
        run.may_go.set()
    before = beats(shared)
    assert len(before) == 2
    wait_until(lambda: all(after != before[fence] for fence, after in beats(shared).items()))
    assert shared.source("SELECT count(*) FROM chunk WHERE claim IS NOT NULL") == [(0,)]
    assert shared.source("SELECT count(*) FROM batch_table") == [(0,)], "nothing was read"
    status = batch_status(shared.plan)
    assert reason in (status.waiting_for or f"paused by {status.asked['pause'].by}")
    if kind == "pause":
        assert request_resume(shared.plan, BATCH, reason=None)[1]
    else:
        assert request_stop(shared.plan, BATCH, now=False, reason="a test")[1]
    codes = {run.end().exit_code for run in runs}
    if kind != "pause":
        assert codes == {ExitCode.INTERRUPTED}
        # How a batch is carried out may change between its runs.
        shared.plan.write_text(text, encoding="utf-8")
        codes = {shared.start(resume=BATCH).end().exit_code}
    assert codes == {ExitCode.DONE}
    assert soql_count(shared.server, "Tenant__c") == ROWS


def beats(shared: Shared) -> dict[int, datetime]:
    """The last sign of life of each runner."""
    return {one.fence: one.heartbeat for one in batch_status(shared.plan).runners}


def test_a_batch_on_sqlite_cannot_be_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_source(tmp_path)
    monkeypatch.chdir(tmp_path)
    org = TwinOrg.open(None, schema=cli_schema())
    try:
        with TwinServer(org) as server:
            write_plan(tmp_path, server)
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            migration = Migration(folder=tmp_path, org=org, server=server)
            assert migration.run("run", "--batch", "lone").returncode == ExitCode.ROWS_REFUSED
            refused = migration.run("run", "--join", "lone")
            assert refused.returncode == ExitCode.STATE
            assert "SQLite file" in refused.stderr
            both = migration.run("run", "--join", "lone", "--resume", "lone")
            assert both.returncode == ExitCode.USAGE
    finally:
        org.close()
