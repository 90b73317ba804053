"""What a rollback refuses, and with which exit code: no permission, source or images, a process at work, a rival."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.cli_migration import (
    CLI_OBJECTS,
    ORPHANS,
    SALES,
    TENANTS,
    Migration,
    make_source,
    wait_until,
    write_plan,
)

from forcelift.errors import ExitCode
from forcelift.migration.running import open_recorded
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

GOOD = SALES - ORPHANS
BASE = "/services/data/v66.0"
LOADER = "etl@kpc.example"
ROLL_BACK = ("rollback", "first", "--execute", "--reason", "wrong prices")


@contextmanager
def served(folder: Path, monkeypatch: pytest.MonkeyPatch, *, is_production: bool) -> Iterator[Migration]:
    """An org whose loader may not delete for good."""
    make_source(folder)
    monkeypatch.chdir(folder)
    facts = {"edition": "Enterprise Edition", "sandbox": not is_production}
    schema = schema_from_dict({"org": facts, "users": [{"username": LOADER}], "objects": CLI_OBJECTS})
    org = TwinOrg.open(None, schema=schema)
    try:
        with TwinServer(org) as server:
            write_plan(folder, server)
            monkeypatch.setenv("CLI_TEST_TOKEN", server.app.sign_in.open_session(LOADER))
            yield Migration(folder=folder, org=org, server=server)
            assert server.internal_errors == []
    finally:
        org.close()


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    with served(tmp_path, monkeypatch, is_production=False) as migration:
        yield migration


@pytest.fixture
def production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    """A production org, for which all that its gate asks for is waived."""
    with served(tmp_path, monkeypatch, is_production=True) as migration:
        migration.run("check")
        told = migration.run("run", "--batch", "refused").stderr
        for name in re.findall(r"^  - ([A-Za-z_.: -]+?): ", told, flags=re.MULTILINE):
            waived = migration.run("checklist", "waive", name, "--by", "A Person", "--reason", "a test")
            assert waived.returncode == ExitCode.DONE, waived.stderr + told
        yield migration


def call(migration: Migration, method: str, path: str, **options: Any) -> Any:
    headers = {"Authorization": f"Bearer {migration.server.access_token}"}
    answer = httpx.request(method, f"{migration.server.url}{BASE}{path}", headers=headers, **options)
    return answer.raise_for_status().json() if answer.content else None


def arm(migration: Migration, *orders: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {migration.server.control_token}"}
    url = f"{migration.server.url}/__twin__/faults"
    httpx.post(url, headers=headers, json=list(orders)).raise_for_status()


def steps(migration: Migration) -> list[int]:
    with sqlite3.connect(migration.audit_file) as audit:
        rows = audit.execute("SELECT payload FROM journal WHERE action = 'rollback_step' ORDER BY seq").fetchall()
    return [json.loads(payload)["step"] for (payload,) in rows]


def test_production_is_not_undone_without_images_unless_that_is_said(production: Migration) -> None:
    call(production, "POST", "/sobjects/Sale__c", json={"Sale__c": "30", "Amount__c": 1.5, "Name": "earlier"})
    production.document("run", "--batch", "first", "--no-before-images", code=ExitCode.ROWS_REFUSED)
    shown = production.document("rollback", "first", code=ExitCode.ROWS_REFUSED)
    assert any("no before-images" in warning for warning in shown["warnings"])
    refused = production.run(*ROLL_BACK)
    assert refused.returncode == ExitCode.USAGE
    assert "changed 1 records of table `sales` without before-images" in refused.stderr
    assert production.count("Sale__c") == GOOD
    with open_recorded(production.plan) as (_, state):
        assert state.audit.rollbacks("first") == []
    done = production.document(*ROLL_BACK, "--no-before-images", code=ExitCode.ROWS_REFUSED)
    # The changed sale hangs on a tenant of the batch, which it keeps.
    assert (done["deleted"], done["kept"]) == (GOOD - 1 + TENANTS - 1, 2)
    assert production.count("Sale__c") == 1


def test_a_production_load_takes_images_by_default_and_stops_where_it_cannot(production: Migration) -> None:
    call(production, "POST", "/sobjects/Sale__c", json={"Sale__c": "30", "Amount__c": 1.5, "Name": "earlier"})
    body = json.dumps([{"errorCode": "INSUFFICIENT_ACCESS", "message": "no bulk queries for you"}])
    answer = {"action": "answer", "status": 403, "body": body, "content_type": "application/json", "times": None}
    arm(production, {**answer, "method": "POST", "path": "/jobs/query$"})
    stopped = production.run("run", "--batch", "first")
    assert stopped.returncode == ExitCode.TARGET
    assert production.count("Sale__c") == 1
    assert call(production, "GET", "/sobjects/Sale__c/Sale__c/30")["Amount__c"] == 1.5


def test_hard_without_the_permission_changes_nothing_and_can_go_on_softly(sandbox: Migration) -> None:
    sandbox.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    refused = sandbox.run(*ROLL_BACK, "--hard")
    assert refused.returncode == ExitCode.TARGET
    assert "Bulk API Hard Delete" in refused.stderr
    assert (sandbox.count("Sale__c"), sandbox.count("Tenant__c")) == (GOOD, TENANTS)
    # Until it is through, the batch is not loaded on.
    resumed = sandbox.run("run", "--resume", "first")
    assert resumed.returncode == ExitCode.STATE
    assert "is being rolled back" in resumed.stderr
    done = sandbox.document("rollback", "first", "--execute", "--soft")
    assert (done["deleted"], done["kept"]) == (GOOD + TENANTS, 0)
    assert (sandbox.count("Sale__c"), sandbox.count("Tenant__c")) == (0, 0)
    assert steps(sandbox) == list(range(1, 10))


def test_a_source_that_cannot_be_read_ends_with_its_own_code(sandbox: Migration) -> None:
    sandbox.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    (sandbox.folder / "source.duckdb").rename(sandbox.folder / "away.duckdb")
    missing = sandbox.run(*ROLL_BACK)
    assert missing.returncode == ExitCode.SOURCE, missing.stderr
    assert sandbox.count("Sale__c") == GOOD
    (sandbox.folder / "away.duckdb").rename(sandbox.folder / "source.duckdb")
    assert sandbox.document(*ROLL_BACK)["deleted"] == GOOD + TENANTS


def test_while_a_load_or_another_rollback_is_at_work_nothing_is_undone(sandbox: Migration) -> None:
    """Both are processes of their own; each is held at work by an org that answers slowly."""
    arm(sandbox, {"action": "delay", "method": "POST", "path": "/jobs/ingest$", "seconds": 2.0, "times": 6})
    arm(sandbox, {"action": "delay", "method": "PUT", "path": "/batches$", "seconds": 2.0, "times": None})
    load = sandbox.start("run", "--batch", "first")
    wait_until(lambda: sandbox.audit_file.exists() and bool(sandbox.jobs("JobComplete")))
    for words in (ROLL_BACK, ("rollback", "first")):
        refused = sandbox.run(*words)
        assert refused.returncode == ExitCode.STATE, refused.stderr
        assert "is being worked on by" in refused.stderr
    assert load.wait(60) == ExitCode.ROWS_REFUSED
    load.communicate()
    assert sandbox.count("Sale__c") == GOOD
    first = sandbox.start(*ROLL_BACK)
    wait_until(lambda: len(steps(sandbox)) >= 4)
    rival = sandbox.run(*ROLL_BACK)
    assert rival.returncode == ExitCode.STATE, rival.stderr
    assert first.wait(60) == ExitCode.DONE
    first.communicate()
    assert (sandbox.count("Sale__c"), sandbox.count("Tenant__c")) == (0, 0)
    assert steps(sandbox) == list(range(1, 10))
    # A second one finds nothing left and says so; the batch can be loaded again after it.
    empty = sandbox.document(*ROLL_BACK)
    assert (empty["deleted"], empty["restored"], empty["kept"]) == (0, 0, 0)
