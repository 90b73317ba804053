"""The command line against a served twin: what is printed, what is counted, how processes end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.cli_migration import (
    CHUNK_ROWS,
    GOOD,
    ORPHANS,
    SALES,
    TENANTS,
    Migration,
    check_accounting,
    served_migration,
    wait_until,
)

from forcelift.errors import ExitCode


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


def test_run_status_and_run_again(migration: Migration) -> None:
    first = migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    assert first["batch_id"] == "first"
    assert first["resume_command"] is None
    tables = {table["table"]: table for table in first["tables"]}
    assert [table["table"] for table in first["tables"]] == ["tenants", "sales"]
    sales = tables["sales"]
    assert (sales["source"], sales["rejected"], sales["sent"], sales["created"]) == (SALES, ORPHANS, GOOD, GOOD)
    (refused,) = sales["refused_by_code"]
    assert (refused["code"], refused["rows"]) == ("REJECTED_MISSING_PARENT", ORPHANS)
    assert refused["remedy"]
    migration.check_end("first")

    again = migration.document("run", "--batch", "second", code=ExitCode.ROWS_REFUSED)
    assert [(table["created"], table["updated"]) for table in again["tables"]] == [(0, TENANTS), (0, GOOD)]
    assert migration.count("Sale__c") == GOOD

    status = migration.document("status", "--batch", "first")
    assert [batch["batch_id"] for batch in status["batches"]] == ["first", "second"]
    assert (status["at_work"], status["waiting_for"], status["resume_command"]) == (None, None, None)
    assert status["batch"]["tables"] == first["tables"]
    assert migration.document("audit", "verify")["is_whole"] is True


def test_what_a_person_sees(migration: Migration) -> None:
    done = migration.run("run", "--batch", "seen")
    assert done.returncode == ExitCode.ROWS_REFUSED
    assert done.stderr.splitlines()[0].startswith("batch seen")
    assert "\x1b" not in done.stdout + done.stderr
    assert re.search(rf"^Sale__c +{SALES:,} +{SALES:,} +{ORPHANS} +0 +{GOOD} +{GOOD} +0 +0$", done.stdout, re.MULTILINE)
    assert f"{ORPHANS} rows of sales: REJECTED_MISSING_PARENT" in done.stdout
    assert str(migration.audit_file) in done.stdout
    shown = migration.run("status")
    assert shown.returncode == 0
    assert re.search(r"^seen +run +done", shown.stdout, re.MULTILINE)
    assert re.search(r"^sales +1 PARTIAL, \d+ SUCCESS ", shown.stdout, re.MULTILINE)


def test_a_dry_run_sends_nothing_and_predicts_what_a_run_takes(migration: Migration) -> None:
    dry = migration.document("run", "--dry-run", "--batch", "dry", code=ExitCode.ROWS_REFUSED)
    assert (migration.count("Sale__c"), migration.jobs("JobComplete")) == (0, [])
    assert (dry["mode"], dry["jobs"]) == ("dry_run", 0)
    assert sum(table["rejected"] for table in dry["tables"]) == ORPHANS
    done = migration.document("run", "--batch", "real", code=ExitCode.ROWS_REFUSED)
    assert done["jobs"] == dry["jobs_predicted"]
    assert done["upload_bytes"] == dry["upload_bytes"]
    # All jobs are so small that each may be created with its data, which is two calls fewer.
    assert done["api_calls"] >= dry["api_calls_predicted"] - 2 * done["jobs"]
    words = migration.run("run", "--dry-run").stdout
    assert "nothing was sent" in words


def test_one_table_alone(migration: Migration) -> None:
    document = migration.document("run", "--table", "tenants")
    assert [table["table"] for table in document["tables"]] == ["tenants"]
    assert (migration.count("Tenant__c"), migration.count("Sale__c")) == (TENANTS, 0)


def test_what_does_not_exist_is_told_and_nothing_is_done(migration: Migration) -> None:
    for words, code, said in (
        (["run", "--table", "tenant"], ExitCode.USAGE, "did you mean `tenants`?"),
        (["run", "--plan", "other.yaml"], ExitCode.USAGE, "other.yaml"),
        (["run", "--resume"], ExitCode.STATE, "forcelift run"),
        (["run", "--resume", "nobody"], ExitCode.STATE, "forcelift run"),
        (["status"], ExitCode.STATE, "forcelift run"),
        (["stop"], ExitCode.STATE, "forcelift run"),
        (["explain", "gibberish"], ExitCode.USAGE, "gibberish"),
    ):
        done = migration.run(*words)
        assert (done.returncode, done.stdout) == (code, ""), words
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert migration.count("Tenant__c") == 0


def test_wrong_credentials_and_an_org_that_is_not_there_are_the_targets(migration: Migration) -> None:
    plan = migration.plan.read_text()
    (migration.folder / "no-token").write_text("00Dwrong")
    migration.plan.write_text(plan.replace("${CLI_TEST_TOKEN}", "file:no-token"))
    refused = migration.run("run")
    assert (refused.returncode, refused.stdout) == (ExitCode.TARGET, "")
    assert "00Dwrong" not in refused.stderr
    migration.plan.write_text(plan.replace(f":{migration.server.port}", ":9"))
    unreachable = migration.run("run")
    assert (unreachable.returncode, unreachable.stdout) == (ExitCode.TARGET, "")
    assert not migration.audit_file.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_what_is_in_flight_and_resume_does_the_rest(held: Migration, number: signal.Signals) -> None:
    """Goal: a clean stop loses and doubles nothing. Method: stop while jobs wait, let the org work, resume."""
    with held.start("run", "--batch", "stopped") as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("batch stopped")
        _work_until(held, jobs_done=2)
        held.wait_for_jobs("UploadComplete", 1)
        process.send_signal(number)
        _await_line(process.stderr, "stopping:")
        _work_while_running(held, process)
        shown = process.stderr.read()
        assert process.returncode == ExitCode.INTERRUPTED
        assert "forcelift run --resume stopped" in shown
    before = held.document("status", "--batch", "stopped")
    assert before["batch"]["state"] == "stopped"
    assert before["resume_command"] == "forcelift run --resume stopped"
    sent = sum(table["sent"] for table in before["batch"]["tables"])
    assert 0 < sent < TENANTS + GOOD
    assert sent == held.count("Tenant__c") + held.count("Sale__c")
    _finish(held, "stopped")


def test_a_second_signal_aborts_the_open_jobs(held: Migration) -> None:
    with held.start("run", "--batch", "aborted") as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("batch aborted")
        _work_until(held, jobs_done=1)
        held.wait_for_jobs("UploadComplete", 2)
        process.send_signal(signal.SIGINT)
        _await_line(process.stderr, "stopping:")
        process.send_signal(signal.SIGINT)
        _await_line(process.stderr, "aborting")
        assert process.wait(60) == ExitCode.INTERRUPTED
    assert held.jobs("Open") == held.jobs("UploadComplete") == held.jobs("InProgress") == []
    assert len(held.jobs("Aborted")) >= 2
    _finish(held, "aborted")


def test_a_plan_that_is_edited_while_it_runs_costs_nobody_the_summary(held: Migration) -> None:
    with held.start("run", "--batch", "long", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline().startswith("batch long")
        held.wait_for_jobs("UploadComplete", 1)
        held.plan.write_text("version: [\n")
        _work_while_running(held, process)
        ended = json.loads(process.stdout.read())
    assert process.returncode == ExitCode.ROWS_REFUSED, "orphans are refused"
    assert ended["state"] == "done"
    assert ended["locations"]["plan"] == str(held.plan)


@pytest.mark.parametrize("now", [False, True])
def test_stop_from_another_terminal(held: Migration, now: bool) -> None:
    with held.start("run", "--batch", "busy") as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("batch busy")
        _work_until(held, jobs_done=1)
        held.wait_for_jobs("UploadComplete", 1)
        status = held.document("status")
        assert status["at_work"]["owner"]
        assert status["batch"]["state"] == "running"
        taken = held.run("run", "--resume", "busy")
        assert (taken.returncode, taken.stdout) == (ExitCode.STATE, "")
        asked = held.document("stop", "--reason", "quarter end", *(["--now"] if now else []))
        assert asked["resume_command"] == "forcelift run --resume busy"
        held.wait_until_heard("stopping")
        process.wait(60) if now else _work_while_running(held, process)
        assert process.returncode == ExitCode.INTERRUPTED
    status = held.document("status")
    assert (status["at_work"], status["stop_reason"]) == (None, "quarter end")
    assert bool(held.jobs("Aborted")) == now
    nobody = held.run("stop")
    assert nobody.returncode == ExitCode.STATE
    _finish(held, "busy")


def _work_until(held: Migration, *, jobs_done: int) -> None:
    """Let the org work until that many of our jobs are complete."""

    def is_done() -> bool:
        if len(held.jobs("JobComplete")) >= jobs_done:
            return True
        held.org.step()
        return False

    wait_until(is_done)


def _work_while_running(held: Migration, process: subprocess.Popen[str]) -> None:
    """Let the org work until our process has ended."""

    def is_over() -> bool:
        held.org.run_until_idle()
        return process.poll() is not None

    wait_until(is_over)


def _await_line(stream: object, beginning: str) -> None:
    for line in stream:  # type: ignore[attr-defined]  # a text stream
        if line.startswith(beginning):
            return
    raise AssertionError(f"no line begins with {beginning!r}")


def _finish(held: Migration, batch_id: str) -> None:
    """Resume to the end; then the org holds exactly one record per good row, and the books close."""
    held.org.start()
    done = held.run("run", "--resume", batch_id, "--json")
    held.org.stop()
    assert done.returncode == ExitCode.ROWS_REFUSED, done.stderr
    held.check_end(batch_id)
    assert len(held.jobs("JobComplete")) >= SALES // CHUNK_ROWS


def test_status_of_a_settled_batch_reads_no_ledger(migration: Migration) -> None:
    """Rows were counted when each file was sealed: a look at a batch needs no library for columns, and no network."""
    document = migration.document("run", "--batch", "one", code=ExitCode.ROWS_REFUSED)
    program = (
        "import json, sys; from forcelift.cli.main import run_command; code = run_command(['status', '--json']);"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=migration.folder, capture_output=True, text=True)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert not {"duckdb", "polars", "pyarrow", "numpy", "httpx", "filelock"} & set(json.loads(done.stderr))
    shown = {table["table"]: table for table in json.loads(done.stdout)["batch"]["tables"]}
    for table in document["tables"]:
        assert shown[table["table"]] == table
    counted = check_accounting(migration.audit_file, migration.folder / "state" / "staging", "one")
    assert {name: table["created"] for name, table in shown.items()} == {
        name: outcomes["created"] for name, outcomes in counted.items()
    }


def test_a_process_ends_without_words_of_its_libraries(migration: Migration) -> None:
    """What libraries find to say while the interpreter ends is no business of a user's."""
    for words in (["run", "--batch", "one"], ["validate", "one"], ["status"]):
        command = [sys.executable, "-m", "forcelift", *words]
        done = subprocess.run(command, cwd=migration.folder, capture_output=True, text=True, check=False)
        assert done.returncode in (ExitCode.DONE, ExitCode.ROWS_REFUSED), done.stderr
        assert "leaked" not in done.stderr
