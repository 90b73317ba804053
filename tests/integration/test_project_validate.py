"""`validate --project` and `report --project`: each record once, with the newest row that any batch has sent of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.cli_migration import ORPHANS, SALES, TENANTS, Migration
from tests.integration.project_migration import change_source, served_project, set_where, status

from forcelift.audit.records import BatchMode
from forcelift.cli.options import DEFAULT_PLAN
from forcelift.handover.reporting import report_batch

GOOD = SALES - ORPHANS


@pytest.fixture
def migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    with served_project(tmp_path, monkeypatch) as project:
        yield project


def damage(migration: Migration, sale: int) -> None:
    headers = {"Authorization": f"Bearer {migration.server.access_token}"}
    address = f"{migration.server.url}/services/data/v66.0/sobjects/Sale__c/Sale__c/{sale}"
    httpx.patch(address, json={"Amount__c": 0.01}, headers=headers).raise_for_status()


def proved(document: dict[str, Any]) -> int:
    return sum(
        int(check["source"])
        for batch in document["batches"]
        for check in batch["checks"]
        if check["check"] == "records" and check["level"] == 5
    )


def failed(document: dict[str, Any]) -> list[tuple[str, int, str, str]]:
    return [
        (batch["batch_id"], check["level"], check["table"], check["check"])
        for batch in document["batches"]
        for check in batch["checks"]
        if check["status"] == "failed"
    ]


def test_each_record_is_proved_once_with_the_newest_row_of_it(migration: Migration) -> None:
    """Wheres that overlap, amounts that changed between the batches, and a damage that only one of them can see."""
    set_where(migration, "sales", "sale_id < 400")
    migration.run("run", "--batch", "low")
    change_source(migration, "UPDATE sales SET amount = amount + 1000 WHERE sale_id >= 300")
    set_where(migration, "sales", "sale_id >= 300")
    migration.run("run", "--batch", "high")
    document = migration.document("validate", "--project", "--levels", "all")
    assert failed(document) == []
    assert document["not_validated"] == []
    assert proved(document) == GOOD + TENANTS == migration.count("Sale__c") + migration.count("Tenant__c")
    damage(migration, 350)
    document = migration.document("validate", "--project", "--level", "5", code=1)
    assert {(batch, table) for batch, _, table, _ in failed(document)} == {("high", "sales")}
    damage(migration, 100)
    document = migration.document("validate", "--project", "--level", "5", code=1)
    assert {(batch, table) for batch, _, table, _ in failed(document)} == {("high", "sales"), ("low", "sales")}
    shown = migration.run("validate", "--project", "--level", "5", "--table", "sales")
    assert shown.returncode == 1
    assert "project Command line test, 2 batches" in shown.stdout


def test_the_report_of_a_project_counts_each_row_once_and_tells_what_was_mended(migration: Migration) -> None:
    migration.run("run", "--sample-percent", "10", "--batch", "sample")
    migration.run("run", "--batch", "all")
    change_source(migration, f"UPDATE sales SET tenant = 'T1' WHERE sale_id < {ORPHANS - 5}")
    migration.run("run", "--batch", "mended", "--table", "sales")
    before = migration.document("report", "--project", code=1)
    assert {one["status"] for one in before["reconciliation"]} == {"not checked"}
    assert migration.run("validate", "--project", "--levels", "all").returncode == 0
    document = migration.document("report", "--project", code=1)
    assert (document["scope"], document["batches"]) == ("project", ["sample", "all", "mended"])
    tables = {table["table"]: table for table in document["tables"]}
    sales = tables["sales"]
    assert (sales["source"], sales["success"], sales["rejected"]) == (SALES, SALES - 5, 5)
    assert sales["target"] == migration.count("Sale__c") == status(migration)["sales"]["in_org"]
    assert tables["tenants"]["target"] == migration.count("Tenant__c") == TENANTS
    assert tables["TOTAL"]["source"] == SALES + TENANTS
    # Level 4 has no rules to check in this plan.
    words = {one["check"]: one["status"] for one in document["reconciliation"]}
    assert {words[check] for check in ("Count Match", "Sum Match", "Sample Check", "Proof of Every Field")} == {"pass"}
    proof = next(one["details"] for one in document["reconciliation"] if one["level"] == 5)
    assert proof == f"100 % of {SALES - 5 + TENANTS:,} records proved in every field"
    (issue,) = document["issues"]
    assert (issue["code"], issue["rows"], issue["fixed"]) == ("REJECTED_MISSING_PARENT", ORPHANS, ORPHANS - 5)
    assert document["status"] == "partial"
    text = migration.run("report", "--project").stdout
    assert "- **Batch:** sample, all, mended" in text
    # A later batch of one table makes what was proved of it old, and leaves the others.
    migration.run("run", "--batch", "late", "--table", "sales")
    document = migration.document("report", "--project", code=1)
    assert "sales of late" in next(one["details"] for one in document["reconciliation"] if one["level"] == 5)


@pytest.mark.slow
def test_working_time_leaves_out_the_pause_between_batches(migration: Migration) -> None:
    migration.run("run", "--table", "tenants", "--batch", "first")
    migration.run("run", "--table", "sales", "--batch", "second")
    whole = report_batch(DEFAULT_PLAN, project=True)
    parts = [report_batch(DEFAULT_PLAN, one) for one in ("first", "second")]
    assert whole.performance.seconds == pytest.approx(sum(one.performance.seconds for one in parts))
    assert whole.performance.began_at is not None
    assert whole.performance.ended_at is not None
    assert (whole.performance.ended_at - whole.performance.began_at).total_seconds() > whole.performance.seconds
    assert whole.performance.api_calls == sum(one.performance.api_calls for one in parts)
    assert [batch.mode for batch in whole.batches] == [BatchMode.RUN, BatchMode.RUN]


@pytest.mark.slow
def test_a_batch_that_was_broken_off_is_made_up_for_by_one_that_read_everything(migration: Migration) -> None:
    broken = "CAST(CASE WHEN sale_id = 550 THEN 'x' ELSE CAST(amount AS VARCHAR) END AS DECIMAL(12, 2))"
    change_source(
        migration,
        "ALTER TABLE sales RENAME TO good_sales",
        f"CREATE VIEW sales AS SELECT sale_id, {broken} AS amount, tenant FROM good_sales",
    )
    assert migration.run("run", "--batch", "first").returncode not in (0, 1)
    first = status(migration)["sales"]
    assert first["open_chunks"] > 0
    assert report_batch(DEFAULT_PLAN, project=True).status.value == "failed"
    change_source(migration, "DROP VIEW sales", "ALTER TABLE good_sales RENAME TO sales")
    migration.run("run", "--batch", "second")
    assert not any(table["open_chunks"] for table in status(migration).values())
    assert report_batch(DEFAULT_PLAN, project=True).status.value == "partial"


@pytest.mark.slow
def test_what_a_resume_sent_after_a_later_batch_is_the_newest(migration: Migration) -> None:
    broken = (
        "CAST(CASE WHEN sale_id = 550 AND amount = 550 THEN 'x' ELSE CAST(amount AS VARCHAR) END AS DECIMAL(12, 2))"
    )
    change_source(
        migration,
        "ALTER TABLE sales RENAME TO good_sales",
        f"CREATE VIEW sales AS SELECT sale_id, {broken} AS amount, tenant FROM good_sales",
    )
    assert migration.run("run", "--batch", "first").returncode not in (0, 1)
    change_source(migration, "UPDATE good_sales SET amount = 1 WHERE sale_id = 550")
    migration.document("run", "--batch", "second", code=1)
    change_source(migration, "UPDATE good_sales SET amount = 2 WHERE sale_id = 550")
    migration.document("run", "--resume", "first", code=1)
    query = {"q": "SELECT Amount__c FROM Sale__c WHERE Sale__c = '550'"}
    headers = {"Authorization": f"Bearer {migration.server.access_token}"}
    answer = httpx.get(f"{migration.server.url}/services/data/v66.0/query", params=query, headers=headers).json()
    assert [one["Amount__c"] for one in answer["records"]] == [2], "the resume came last"
    document = migration.document("validate", "--project", "--levels", "3,5")
    assert failed(document) == []
    assert proved(document) == GOOD + TENANTS
    assert status(migration)["sales"]["created"] == GOOD
    damage(migration, 550)
    document = migration.document("validate", "--project", "--level", "5", code=1)
    assert {(batch, table) for batch, _, table, _ in failed(document)} == {("first", "sales")}
