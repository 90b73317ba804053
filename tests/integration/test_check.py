"""`forcelift check` and `checklist`: checks are made to fail, and a production org is closed until all is well."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from msgspec.structs import replace
from tests.integration.cli_migration import soql_count, wait_until
from tests.integration.prepare_fixtures import BIG, OBJECTS, PRODUCTION, ROWS, PreparedOrg, prepared_org

from forcelift.before.check import Verdict, fit
from forcelift.before.check.machine import BROKER_VARIABLE, airflow_workers, cli_agrees, redis
from forcelift.errors import UsageError
from forcelift.opening.assembly import open_org
from forcelift.plan import load_plan
from forcelift.preflight.checking import CheckReport, check_plan
from forcelift.preflight.checklists import before_checklist, tick, waive
from forcelift.protocols.clock import SystemClock
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

USER = {"username": "loader@twin.example", "name": "Loader", "email": "loader@twin.example"}


@contextmanager
def _org(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, user: dict[str, Any] | None = None, **document: Any
) -> Iterator[PreparedOrg]:
    """An org of one object, whose user may be allowed little."""
    with duckdb.connect(str(folder / "source.duckdb")) as connection:
        connection.execute(
            f"CREATE TABLE sales AS SELECT i AS sale_id, i::DECIMAL(12, 2) AS amount FROM range({ROWS}) r(i)"
        )
    made = {"objects": OBJECTS, "users": [{**USER, **(user or {})}], **document}
    with TwinOrg.open(schema=schema_from_dict(made)) as org, TwinServer(org) as server:
        migration = PreparedOrg(folder=folder, org=org, server=server)
        migration.write_plan()
        monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
        monkeypatch.chdir(folder)
        yield migration


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PreparedOrg]:
    with prepared_org(tmp_path) as made:
        monkeypatch.setenv("CLI_TEST_TOKEN", made.server.access_token)
        monkeypatch.chdir(tmp_path)
        yield made


@pytest.fixture
def production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PreparedOrg]:
    with prepared_org(tmp_path, org=PRODUCTION) as made:
        monkeypatch.setenv("CLI_TEST_TOKEN", made.server.access_token)
        monkeypatch.chdir(tmp_path)
        yield made


def _verdicts(report: CheckReport) -> dict[str, str]:
    names = [one.name for one in report.results]
    assert len(names) == len(set(names)), "each check once"
    return {one.name: one.verdict.value for one in report.results}


def _result(report: CheckReport, name: str) -> str:
    (one,) = [one for one in report.results if one.name == name]
    return " / ".join((one.verdict.value, one.figure, *one.evidence, one.fix or ""))


def _change(migration: PreparedOrg, old: str, new: str) -> None:
    text = migration.plan.read_text(encoding="utf-8")
    assert old in text
    migration.plan.write_text(text.replace(old, new), encoding="utf-8")


def test_an_org_with_automations_warns_and_is_kept_as_evidence(prepared: PreparedOrg) -> None:
    report = check_plan(prepared.plan, environment={})
    verdicts = _verdicts(report)
    assert {name for name, verdict in verdicts.items() if verdict == "fail"} == set()
    assert "5 automations on" in _result(report, "automations")
    assert "validation rule Sale__c.No_Big" in _result(report, "automations")
    assert "Packed: managed, stays on" in _result(report, "automations")
    assert "1 duplicate rules on" in _result(report, "duplicate_rules")
    assert verdicts["source_keys"] == "warn"
    assert report.evidence_no == 1
    assert all(one.evidence and one.figure for one in report.results), "each says what it rests on"
    assert all(one.fix for one in report.results if one.verdict in (Verdict.WARN, Verdict.FAIL))
    again = check_plan(prepared.plan, environment={})
    assert again.evidence_no == 2
    assert prepared.run("prepare", "--execute").returncode == 0
    assert _verdicts(check_plan(prepared.plan, environment={}))["automations"] == "pass"
    assert prepared.run("audit", "verify").returncode == 0


def test_a_user_who_may_little_is_told_what_is_lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = {"unseen_fields": ["Sale__c.Amount__c"], "permissions": []}
    with _org(tmp_path, monkeypatch, user=user) as migration:
        report = check_plan(migration.plan, environment={})
    assert _verdicts(report)["field_security"] == "fail"
    assert "Sale__c.Amount__c: there, but this user may not see it" in _result(report, "field_security")
    assert "no hard delete" in _result(report, "user_permissions")
    assert _verdicts(report)["field_types"] == "fail"


def test_a_field_that_may_only_be_read_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _org(tmp_path, monkeypatch, user={"read_only_fields": ["Sale__c.Amount__c"]}) as migration:
        assert "Amount__c: may not be written" in _result(check_plan(migration.plan, environment={}), "field_security")


def test_hard_delete_is_seen_where_it_is_granted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _org(tmp_path, monkeypatch, user={"permissions": ["bulk_hard_delete"]}) as migration:
        assert "Bulk API Hard Delete: yes" in _result(check_plan(migration.plan, environment={}), "user_permissions")


def test_required_fields_types_audit_fields_and_external_ids(prepared: PreparedOrg) -> None:
    _change(prepared, "amount: Amount__c", "amount: CreatedDate")
    report = check_plan(prepared.plan, environment={})
    assert "Sale__c.CreatedDate: may not be set" in _result(report, "audit_fields")
    assert _verdicts(report)["field_types"] == "fail"
    _change(prepared, "external_id: Sale__c", "external_id: Missing__c")
    report = check_plan(prepared.plan, environment={})
    assert "Sale__c.Missing__c: missing" in _result(report, "external_ids")


def test_a_required_field_that_nothing_fills_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = {
        "Sale__c": {"fields": {**OBJECTS["Sale__c"]["fields"], "Need__c": {"type": "string", "nillable": False}}}
    }
    with _org(tmp_path, monkeypatch, objects=objects) as migration:
        report = check_plan(migration.plan, environment={})
        assert "Sale__c.Need__c (string)" in _result(report, "required_fields")
        _change(migration, "amount: Amount__c", "amount: Amount__c\n    constants: {Need__c: x}")
        assert _verdicts(check_plan(migration.plan, environment={}))["required_fields"] == "pass"


def test_an_org_that_is_nearly_used_up_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"DataStorageMB": 0, "DailyApiRequests": 900, "DailyBulkApiBatches": 2, "DailyBulkV2QueryJobs": 0}
    with _org(tmp_path, monkeypatch, limits=limits) as migration:
        report = check_plan(migration.plan, environment={})
        verdicts = _verdicts(report)
        assert (verdicts["data_storage"], verdicts["api_requests"]) == ("fail", "fail")
        assert "1 MB if all 40 rows become new records" in _result(report, "data_storage")
        assert "1,000 are left to others" in _result(report, "api_requests")
        assert (verdicts["salesforce_batches"], verdicts["bulk_queries"]) == ("warn", "warn")
        _change(migration, "limits: {parallel_jobs: 2}", "limits: {parallel_jobs: 2, api_calls_reserve: 100}")
        assert _verdicts(check_plan(migration.plan, environment={}))["api_requests"] == "pass"


def test_an_external_id_that_is_not_unique_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {**OBJECTS["Sale__c"]["fields"], "Sale__c": {"type": "string", "length": 20, "externalId": True}}
    with _org(tmp_path, monkeypatch, objects={"Sale__c": {"fields": fields}}) as migration:
        report = check_plan(migration.plan, environment={})
    assert _verdicts(report)["external_ids"] == "warn"
    assert "not unique: two records with one key make an upsert fail" in _result(report, "external_ids")


@pytest.mark.parametrize(
    ("lacking", "verdict", "said"),
    [
        ({"createable": False}, "fail", "may not create"),
        ({"updateable": False}, "fail", "may not edit"),
        ({"queryable": False}, "fail", "may not query"),
        ({"deletable": False}, "warn", "may not delete"),
    ],
)
def test_an_object_that_the_user_may_not_do_all_with_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: dict[str, bool], verdict: str, said: str
) -> None:
    with _org(tmp_path, monkeypatch) as migration:
        loaded = load_plan(migration.plan)
        with open_org(loaded, clock=SystemClock()) as org:
            describe = replace(org.describe("Sale__c"), **lacking)
    result = fit.object_permissions(loaded.plan.tables, {"Sale__c": describe})
    assert result.verdict.value == verdict
    assert f"Sale__c: {said}" in result.evidence


def test_history_of_a_field_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {
        **OBJECTS["Sale__c"]["fields"],
        "Amount__c": {**OBJECTS["Sale__c"]["fields"]["Amount__c"], "trackHistory": True},
    }
    with _org(tmp_path, monkeypatch, objects={"Sale__c": {"fields": fields}}) as migration:
        report = check_plan(migration.plan, environment={})
    assert "warn / 1 fields tracked / Sale__c.Amount__c" in _result(report, "field_history")


def test_what_cannot_be_reached_fails_and_what_rests_on_it_is_skipped(
    prepared: PreparedOrg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLI_TEST_TOKEN", "wrong")
    shutil.move(prepared.folder / "source.duckdb", prepared.folder / "elsewhere.duckdb")
    report = check_plan(prepared.plan, environment={})
    verdicts = _verdicts(report)
    assert verdicts["org_reachable"] == verdicts["source_reachable"] == "fail"
    assert verdicts["automations"] == verdicts["source_readable"] == "skipped"
    assert prepared.run("check").returncode == 1


def test_a_clock_that_is_off_and_a_machine_that_is_small(prepared: PreparedOrg) -> None:
    class Late:
        def now(self) -> datetime:
            return datetime.now(UTC) + timedelta(minutes=10)

        def monotonic(self) -> float:
            return time.monotonic()

        def sleep(self, seconds: float) -> None:
            raise AssertionError("nothing waits here")

    _change(prepared, "limits: {parallel_jobs: 2}", "limits: {parallel_jobs: 2, memory_mb: 99999999, rows_per_day: 10}")
    report = check_plan(prepared.plan, clock=Late(), environment={})
    assert _verdicts(report)["clock_skew"] == "fail"
    assert _verdicts(report)["memory"] == "fail"
    assert "at least 4.00 days" in _result(report, "rows_of_the_day")


def test_disk_thresholds(prepared: PreparedOrg) -> None:
    _change(prepared, "chunks:", "thresholds: {disk_usage_warning: 0}\nchunks:")
    assert _verdicts(check_plan(prepared.plan, environment={}))["staging_disk"] == "warn"
    _change(prepared, "disk_usage_warning: 0", "disk_usage_warning: 0, disk_usage_critical: 0")
    assert _verdicts(check_plan(prepared.plan, environment={}))["staging_disk"] == "fail"


def test_a_production_org_is_closed_until_all_is_in_order(production: PreparedOrg) -> None:
    refused = production.run("run")
    assert refused.returncode == 3
    for name in ("data_profiling", "backup", "automations_off", "dry_run", "sign_off", "forcelift check"):
        assert name in refused.stderr
    assert soql_count(production.server, "Sale__c") == 0
    assert production.run("check").returncode == 0
    assert production.run("run", "--dry-run").returncode == 0, "a dry run needs no evidence: it is one"
    assert production.run("backup").returncode == 0
    tick(production.plan, "sign_off", by="Somebody", note="signed on paper")
    waive(production.plan, "data_profiling", by="Somebody", reason="profiled elsewhere")
    still = production.run("run")
    assert still.returncode == 3
    assert "automations_off" in still.stderr
    assert "backup" not in still.stderr
    assert production.run("run", "--prepare", "--no-before-images").returncode == 0
    assert soql_count(production.server, "Sale__c") == ROWS


def _off_item(made: PreparedOrg) -> tuple[str, str]:
    (item,) = [one for one in before_checklist(made.plan).items if one.name == "automations_off"]
    return item.state.value, item.evidence


def test_the_snapshots_of_a_prepare_are_evidence_until_they_are_put_back(production: PreparedOrg) -> None:
    assert production.run("check").returncode == 0
    assert _off_item(production)[0] == "open"
    assert production.run("prepare", "--execute").returncode == 0
    state, evidence = _off_item(production)
    assert state == "done"
    assert "prepare 2 of " in evidence
    assert "6 held off by Forcelift (snapshots 1, 2, 3, 4, 5, 6)" in evidence
    assert production.run("check").returncode == 0
    assert "preflight 3 of " in _off_item(production)[1]
    for name in ("data_profiling", "backup", "dry_run", "sign_off"):
        waive(production.plan, name, by="Somebody", reason="a test")
    assert before_checklist(production.plan).blocking == ()
    assert production.run("restore", "--execute").returncode == 0
    state, evidence = _off_item(production)
    assert (state, "automations were put back since" in evidence) == ("stale", True)
    refused = production.run("run")
    assert refused.returncode == 3, "they are on again, whatever the preflight saw"
    assert "automations_off: stale" in refused.stderr
    assert production.run("check").returncode == 0
    assert _off_item(production)[0] == "open"


def test_a_prepare_of_one_table_is_no_prepare_of_the_plan(production: PreparedOrg) -> None:
    _second_table(production)
    assert production.run("check").returncode == 0
    assert production.run("prepare", "--execute", "--table", "sales").returncode == 0
    state, evidence = _off_item(production)
    assert (state, "not of more_sales" in evidence) == ("open", True)


def test_who_is_on_call_can_be_ticked(production: PreparedOrg) -> None:
    assert production.run("check").returncode == 0
    ticked = production.run("checklist", "tick", "on_call", "--by", "Somebody", "--note", "until Sunday")
    assert ticked.returncode == 0, ticked.stderr
    assert "on_call" not in " ".join(before_checklist(production.plan).blocking)
    assert "until Sunday" in production.run("checklist").stdout


def test_a_changed_plan_makes_evidence_stale(production: PreparedOrg) -> None:
    for words in (["check"], ["run", "--dry-run"]):
        assert production.run(*words).returncode == 0
    tick(production.plan, "sign_off", by="Somebody", note="signed")
    states = {item.name: item.state.value for item in before_checklist(production.plan).items}
    assert (states["dry_run"], states["sign_off"]) == ("done", "done")
    _change(production, "chunks: {rows: 10}", "chunks: {rows: 20}")
    states = {item.name: item.state.value for item in before_checklist(production.plan).items}
    assert (states["dry_run"], states["sign_off"], states["automations_off"]) == ("stale", "stale", "stale")


def test_before_anything_was_done_all_items_are_open(production: PreparedOrg) -> None:
    """A list that nobody has begun is a list, and makes no audit database."""
    document = production.document("checklist", code=1)
    assert [item["state"] for item in document["before"]] == ["open"] * 6
    assert "no audit database" in next(one["evidence"] for one in document["before"] if one["name"] == "audit_tables")
    assert production.run("checklist").stdout.count("open") >= 6
    assert not (production.folder / "state").exists()


def test_nothing_is_said_of_an_org_that_nobody_has_looked_at(production: PreparedOrg) -> None:
    """What was said before any preflight would be said of every org that the plan ever signs in to."""
    with pytest.raises(UsageError, match="which org"):
        waive(production.plan, "backup", by="Somebody", reason="a drill")
    with pytest.raises(UsageError, match="which org"):
        tick(production.plan, "sign_off", by="Somebody", note="signed")


def _second_table(production: PreparedOrg) -> None:
    text = production.plan.read_text(encoding="utf-8")
    again = text[text.index("  - table: sales") : text.index("chunks:")].replace("table: sales", "table: more_sales")
    with duckdb.connect(str(production.folder / "source.duckdb")) as connection:
        connection.execute("CREATE TABLE more_sales AS SELECT sale_id + 1000 AS sale_id, amount FROM sales")
    production.plan.write_text(text.replace("chunks:", f"{again}chunks:"), encoding="utf-8")


def test_a_dry_run_of_one_table_is_no_dry_run_of_the_plan(production: PreparedOrg) -> None:
    _second_table(production)
    assert production.run("run", "--dry-run", "--table", "sales").returncode == 0

    def dry_run() -> tuple[str, str]:
        (item,) = [one for one in before_checklist(production.plan).items if one.name == "dry_run"]
        return item.state.value, item.evidence

    state, evidence = dry_run()
    assert (state, "no dry run of more_sales" in evidence) == ("open", True)
    assert production.run("run", "--dry-run", "--table", "more_sales", "--sample-percent", "50").returncode == 0
    state, evidence = dry_run()
    assert (state, "a sample of 50 %" in evidence) == ("done", True)


class Days:
    """A clock so many days ahead."""

    def __init__(self, ahead: float) -> None:
        self._ahead = timedelta(days=ahead)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing waits here")


def _item(made: PreparedOrg, name: str, *, days: float = 0) -> tuple[str, str]:
    (item,) = [one for one in before_checklist(made.plan, clock=Days(days)).items if one.name == name]
    return item.state.value, item.evidence


def test_a_backup_counts_for_a_week_and_for_its_filter(production: PreparedOrg) -> None:
    _change(production, "    key: sale_id", "    key: sale_id\n    where: sale_id < 20")
    assert production.run("backup").returncode == 0
    state, evidence = _item(production, "backup")
    assert (state, "(19 rows)" in evidence or "(20 rows)" in evidence) == ("done", True), evidence
    assert _item(production, "backup", days=6.9)[0] == "done"
    state, evidence = _item(production, "backup", days=7.1)
    assert (state, "counts for 7 days" in evidence) == ("stale", True)
    _change(production, "where: sale_id < 20", "where: sale_id < 30")
    state, evidence = _item(production, "backup")
    assert (state, "another `where`" in evidence) == ("stale", True)
    assert production.run("backup", "--name", "sales_whole", "--all-rows").returncode == 0
    assert _item(production, "backup")[0] == "done"
    _change(production, "where: sale_id < 30", "where: sale_id < 40")
    assert _item(production, "backup")[0] == "done", "all rows hold those of any filter"


def test_a_dry_run_that_rejects_much_is_no_success(production: PreparedOrg) -> None:
    with duckdb.connect(str(production.folder / "source.duckdb")) as connection:
        connection.execute("INSERT INTO sales SELECT * REPLACE (NULL AS sale_id) FROM sales LIMIT 2")
    assert production.run("run", "--dry-run").returncode == 1
    state, evidence = _item(production, "dry_run")
    assert f"2 of {ROWS + 2} rows rejected" in evidence
    assert state == ("open" if 5 * (ROWS + 2) < 200 else "done")
    _change(production, "chunks:", "thresholds: {fail_rate_warning: 0, fail_rate_critical: 0.1}\nchunks:")
    assert production.run("run", "--dry-run").returncode == 1
    state, evidence = _item(production, "dry_run")
    assert (state, "more than 0.1 % (`fail_rate_critical`) of sales 2 of" in evidence) == ("open", True)


def test_a_profile_before_any_preflight_is_evidence(production: PreparedOrg) -> None:
    assert _item(production, "data_profiling")[0] == "open"
    assert production.run("profile").returncode in (0, 1)
    state, evidence = _item(production, "data_profiling")
    assert (state, evidence.startswith("profile 1 of ")) == ("done", True)


def test_a_failed_check_is_waived_by_name_only(production: PreparedOrg) -> None:
    assert production.run("check").returncode == 0
    for name in ("data_profiling", "backup", "automations_off", "dry_run", "sign_off"):
        waive(production.plan, name, by="Somebody", reason="a drill")
    with pytest.raises(UsageError, match="no item or failed check"):
        waive(production.plan, "memory", by="Somebody", reason="a drill")
    _change(production, "limits: {parallel_jobs: 2}", "limits: {parallel_jobs: 2, memory_mb: 99999999}")
    assert production.run("check").returncode == 1
    for name in ("data_profiling", "backup", "automations_off", "dry_run", "sign_off"):
        waive(production.plan, name, by="Somebody", reason="a drill")
    refused = production.run("run", "--no-before-images")
    assert (refused.returncode, "check memory failed" in refused.stderr) == (3, True)
    waive(production.plan, "memory", by="Somebody", reason="it is a large machine")
    done = production.run("run", "--no-before-images")
    assert done.returncode == 1, "the validation rule refuses some"
    assert soql_count(production.server, "Sale__c") == ROWS - BIG


def test_a_preflight_of_another_day_does_not_count(production: PreparedOrg) -> None:
    class Yesterday:
        def now(self) -> datetime:
            return datetime.now(UTC) - timedelta(hours=25)

        def monotonic(self) -> float:
            return time.monotonic()

        def sleep(self, seconds: float) -> None:
            raise AssertionError("nothing waits here")

    check_plan(production.plan, clock=Yesterday(), environment={})
    assert "the preflight is of" in production.run("run").stderr


def test_ticks_and_waivers_need_a_name_and_a_reason(production: PreparedOrg) -> None:
    with pytest.raises(UsageError, match="not ticked by hand"):
        tick(production.plan, "backup", by="Somebody", note="surely")
    with pytest.raises(UsageError, match="empty"):
        waive(production.plan, "backup", by="Somebody", reason=" ")
    assert production.run("check").returncode == 0
    assert production.run("checklist", "tick", "sign_off", "--by", "A", "--note", "b").returncode == 0
    assert production.run("checklist", "waive", "backup", "--by", "A", "--reason", "b").returncode == 0
    document = production.document("checklist", code=1)
    states = {item["name"]: item["state"] for item in document["before"]}
    assert (states["sign_off"], states["backup"], states["dry_run"]) == ("done", "waived", "open")


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server on this machine")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    environment = {BROKER_VARIABLE: f"redis://127.0.0.1:{port}/0"}
    try:
        wait_until(lambda: redis(environment).verdict is Verdict.PASS)
        yield environment[BROKER_VARIABLE]
    finally:
        server.terminate()
        server.wait()


def test_workers_are_pinged_through_the_broker(redis_url: str, tmp_path: Path) -> None:
    environment = {BROKER_VARIABLE: redis_url}
    assert redis(environment).figure == "PONG"
    alone = airflow_workers(environment)
    assert (alone.verdict, alone.figure) == (Verdict.FAIL, "0 workers")
    (tmp_path / "some_app.py").write_text(f"from celery import Celery\napp = Celery(broker={redis_url!r})\n")
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "some_app", "worker", "--pool", "solo", "--hostname", "w@here"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: airflow_workers(environment).verdict is Verdict.PASS)
        found = airflow_workers(environment)
        assert (found.figure, found.evidence) == ("1 workers", ("w@here",))
    finally:
        worker.terminate()
        worker.wait()


def test_a_broker_that_does_not_answer_fails_and_one_that_is_not_configured_is_skipped() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {BROKER_VARIABLE: f"redis://:a-secret@127.0.0.1:{port}/0"}
    for look in (redis, airflow_workers):
        result = look(environment)
        assert result.verdict is Verdict.FAIL
        assert "a-secret" not in str(result)
        assert look({}).verdict is Verdict.SKIPPED


def test_the_salesforce_cli_must_mean_the_same_org(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli_agrees(None, org_id="00D000000000001AAA", url="https://x", user_name="me@x").verdict is Verdict.SKIPPED
    program = tmp_path / "sf"
    answer = '{"result": {"id": "00D000000000001AAA", "instanceUrl": "https://x/", "accessToken": "a-secret"}}'
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    same = cli_agrees("prod", org_id="00D000000000001", url="https://x", user_name="me@x")
    assert same.verdict is Verdict.PASS
    assert "a-secret" not in str(same)
    assert cli_agrees("prod", org_id="00D000000000002AAA", url="https://x", user_name="me@x").verdict is Verdict.FAIL
    assert cli_agrees("prod", org_id="00D000000000001AAA", url="https://y", user_name="me@x").verdict is Verdict.WARN
    program.write_text("#!/bin/sh\nexit 1\n")
    assert cli_agrees("prod", org_id="00D000000000001AAA", url="https://x", user_name="me@x").verdict is Verdict.WARN
    assert cli_agrees(None, org_id="00D000000000001AAA", url="https://x", user_name="me@x").verdict is Verdict.SKIPPED
    # Where the plan signs in by itself, the CLI is asked for the same user.
    program.write_text(f"#!/bin/sh\n[ \"$3\" = --target-org=me@x ] && echo '{answer}'\n")
    assert cli_agrees(None, org_id="00D000000000001AAA", url="https://x", user_name="me@x").verdict is Verdict.PASS
    assert cli_agrees(None, org_id="00D000000000002AAA", url="https://x", user_name="me@x").verdict is Verdict.FAIL
    assert cli_agrees(None, org_id="00D000000000001AAA", url="https://x", user_name="you@x").verdict is Verdict.SKIPPED
