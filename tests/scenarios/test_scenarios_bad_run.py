"""Runs that cannot begin or cannot go on: the org away or unwilling, a full disk, what the recorded state forbids."""

from __future__ import annotations

import errno
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.scenarios.scenario_support import Project, Screen, assert_clear_error, copy_case

from forcelift.account.recorded import login
from forcelift.audit.records import Batch
from forcelift.errors import ExitCode
from forcelift.migration.running import RunOptions, Watcher, run_migration
from forcelift.twin.auth import ConnectedApp
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import load_schema
from forcelift.twin.server import TwinServer

CASE = "bad_run"
TWIN = "  url: twin:./org.duckdb\n  twin_schema: schema.yaml\n"
ALL = 7  # two tenants and five sales
APP = ConnectedApp(client_id="loader", client_secret=SecretStr("right"), run_as="admin@twin.invalid")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return copy_case(CASE, tmp_path)


@contextmanager
def served(project: Project) -> Iterator[TwinServer]:
    schema = load_schema(project.folder / "schema.yaml")
    with closing(TwinOrg.open(project.org_file, schema=schema)) as org, TwinServer(org) as server:
        yield server


def point_at(project: Project, url: str, auth: str) -> None:
    project.change_plan({TWIN: f"  url: {url}\n  auth: {auth}\n"})


def assert_nothing_begun(project: Project) -> None:
    assert project.traces() == (0, 0)
    assert project.batches() == []
    assert not list(project.state.rglob("*.parquet"))


def test_an_org_that_nobody_serves(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    monkeypatch.setenv("FORCELIFT_TEST_TOKEN", "00D000000000001!abc")
    point_at(project, f"http://127.0.0.1:{port}", '{flow: token, access_token: "${FORCELIFT_TEST_TOKEN}"}')
    assert_clear_error(project.run(), code=5, says=["`127.0.0.1` did not answer", "target.url"])
    assert_nothing_begun(project)


@pytest.mark.parametrize(
    ("auth", "says"),
    [
        ('{flow: token, access_token: "${FORCELIFT_TEST_SECRET}"}', ["token"]),
        ('{flow: client_credentials, client_id: loader, client_secret: "${FORCELIFT_TEST_SECRET}"}', ["client_secret"]),
        ('{flow: client_credentials, client_id: nobody, client_secret: "${FORCELIFT_TEST_SECRET}"}', ["client_id"]),
    ],
    ids=["token", "secret", "app"],
)
def test_wrong_credentials(auth: str, says: list[str], project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCELIFT_TEST_SECRET", "00D000000000001!wrong-secret")
    with served(project) as server:
        app = APP.model_copy(update={"run_as": server.username})
        server.app.sign_in.apps[app.client_id] = app
        point_at(project, server.url, auth)
        screen = project.run()
    assert_clear_error(screen, code=5, says=says)
    assert "wrong-secret" not in screen.err + screen.out
    assert_nothing_begun(project)


def test_a_batch_that_is_running_is_left_alone(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Method: while a run goes on, two more are started under the same name from its first message."""
    seen: list[Screen] = []

    def start_more(batch: Batch) -> None:
        seen.append(project.run("--resume", batch.batch_id))
        seen.append(project.run("--batch", batch.batch_id))

    with served(project) as server:
        monkeypatch.setenv("FORCELIFT_TEST_TOKEN", server.access_token)
        point_at(project, server.url, '{flow: token, access_token: "${FORCELIFT_TEST_TOKEN}"}')
        summary = run_migration(project.plan, RunOptions(batch_id="one"), watcher=Watcher(on_batch=start_more))
    owner = f"{login()}@{socket.gethostname()}:{os.getpid()}"
    for screen in seen:
        assert_clear_error(screen, code=3, says=["batch `one` is being worked on by", owner, "forcelift stop"])
    assert summary.exit_code is ExitCode.DONE
    assert project.batches() == [("one", "done")]
    assert project.traces() == (ALL, 4)


def test_a_second_program_on_a_twin_in_a_file(project: Project) -> None:
    """Goal: the batch's owner is named although the twin's file is locked, too. Method: ask from another process."""
    seen: list[Screen] = []

    def start_more(batch: Batch) -> None:
        for words in (["--resume"], ["--batch", "two"]):
            command = [sys.executable, "-m", "forcelift", "run", "--plan", str(project.plan), *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            seen.append(Screen(done.returncode, done.stdout, done.stderr))

    run_migration(project.plan, RunOptions(batch_id="one"), watcher=Watcher(on_batch=start_more))
    assert_clear_error(seen[0], code=3, says=["batch `one` is being worked on by", f":{os.getpid()}"])
    assert_clear_error(seen[1], code=3, says=["org.duckdb", "end the other program"])
    assert project.traces() == (ALL, 4)


def test_names_and_resumes_that_the_state_forbids(project: Project) -> None:
    assert_clear_error(project.run("--resume"), code=3, says=["forcelift run"])
    assert_clear_error(project.run("--resume", "ghost"), code=3, says=["forcelift run"])
    assert_nothing_begun(project)
    assert project.run("--batch", "one").code == 0
    for words, says in (
        (["--batch", "one"], ["there is a batch `one` already", "forcelift run --resume one"]),
        (["--resume", "ghost"], ["there is no batch `ghost`", "forcelift status"]),
        (["--resume"], ["no batch of this plan is unfinished", "forcelift run"]),
        (["--resume", "one"], ["batch `one` is finished"]),
    ):
        assert_clear_error(project.run(*words), code=3, says=says)
    assert_clear_error(project.run("--table", "sale"), code=2, says=["no table `sale`", "did you mean `sales`?"])
    assert project.batches() == [("one", "done")]
    assert project.traces() == (ALL, 4)


def test_a_resume_under_a_changed_plan_says_what_changed(project: Project) -> None:
    """Method: a broken file leaves a batch unfinished; then the plan is changed in its words, its sense, and back."""
    sales = project.folder / "data" / "sales.csv"
    good = sales.read_bytes()
    sales.write_bytes(good + b"6,T1\n")
    assert_clear_error(project.run("--batch", "one"), code=4, says=["line 7"])
    sales.write_bytes(good)
    change = {"TITLE: Title__c": "TITLE: {field: Title__c, too_long: truncate}"}
    project.change_plan(change)
    screen = project.run("--resume", "one")
    says = ["the plan has changed since batch `one`", "too_long", "truncate", "reject", "TITLE"]
    assert_clear_error(screen, code=3, says=says)
    assert project.traces() == (0, 0)
    assert project.batches() == [("one", "failed")]
    project.change_plan({new: old for old, new in change.items()})
    project.plan.write_text(f"# only a remark\n{project.plan.read_text(encoding='utf-8')}", encoding="utf-8")
    assert project.run("--resume", "one").code == 0
    assert project.traces() == (ALL, 4)


def test_null_keys_with_stop(project: Project) -> None:
    project.change_plan({"external_id: Tenant_Code__c": "external_id: Tenant_Code__c\n    null_key: stop"})
    with (project.folder / "data" / "tenants.csv").open("a", encoding="utf-8") as file:
        file.write(",Nobody\n   ,Nobody\n")
    assert_clear_error(project.run(), code=4, says=["`tenants`", "2 rows have no key (CODE)", "null_key: stop"])
    assert project.traces() == (0, 0)
    assert not list(project.state.rglob("*.csv*"))


def journal(project: Project, action: str) -> list[tuple[str]]:
    """Payloads of the journal, oldest first; none before there is one."""
    try:
        return project.audit(f"SELECT payload FROM journal WHERE action = '{action}' ORDER BY seq")
    except sqlite3.OperationalError:
        return []


def assert_full_disk_is_survived(project: Project, free_space: Callable[[], None], *, rows: int) -> None:
    """The run waits and says so; once there is room it goes on by itself."""
    told: list[str] = []

    def free_when_told() -> None:
        while not told:
            told.extend(payload for (payload,) in journal(project, "waits") if "disk is full" in payload)
            threading.Event().wait(0.02)
        free_space()

    helper = threading.Thread(target=free_when_told)
    helper.start()
    screen = project.run("--batch", "one")
    helper.join()
    assert screen.code == 0, screen.err
    assert "waiting: " in screen.err
    assert "cannot be written: the disk is full" in screen.err
    assert [json.loads(payload)["waits"] for (payload,) in journal(project, "waits")][-1] == []
    assert not list((project.state / "staging").rglob("*.tmp"))
    assert project.batches() == [("one", "done")]
    assert project.traces()[0] == rows
    assert project.audit("SELECT SUM(SOURCE_COUNT), SUM(SUCCESS_COUNT) FROM MIGRATION_AUDIT_LOG") == [(rows, rows)]


@pytest.fixture
def small_disk(project: Project) -> Iterator[Path]:
    """A disk of 512 kB where staged files go."""
    folder = project.state / "staging"
    folder.mkdir(parents=True)
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no `mount`")
    if done.returncode:
        pytest.skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_full_while_staging(project: Project, small_disk: Path) -> None:
    """The disk takes the parents and not the one chunk of the children; a larger one takes all."""
    project.change_plan({"chunks: {rows: 2}": "chunks: {rows: auto}"})
    lines = "".join(f"{number},T1,{number:040}\n" for number in range(12_000))
    (project.folder / "data" / "sales.csv").write_text(f"SALES_ID,TENANT_CODE,TITLE\n{lines}", encoding="utf-8")

    def enlarge() -> None:
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)

    assert_full_disk_is_survived(project, enlarge, rows=12_002)


@pytest.mark.skipif(sys.platform != "linux", reason="the name of an open file is looked up in /proc")
def test_a_disk_that_is_full_at_a_sync(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no small disk can be mounted: the system refuses to force the third upload file to the disk."""
    real, syncs = os.fsync, []

    def fsync(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if ".csv" in name:
            syncs.append(name)
            if len(syncs) >= 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert_full_disk_is_survived(project, monkeypatch.undo, rows=ALL)


def test_the_installed_program_ends_with_the_same_code(project: Project) -> None:
    project.change_plan({"TITLE: Title__c": "TITTLE: Title__c"})
    done = subprocess.run(
        [sys.executable, "-m", "forcelift", "run", "--plan", project.plan], capture_output=True, text=True, check=False
    )
    says = ["`sales` has no column `TITTLE`", "did you mean `TITLE`?"]
    assert_clear_error(Screen(done.returncode, done.stdout, done.stderr), code=2, says=says)
    assert_nothing_begun(project)
