"""`rollback --project`: all batches, the newest first; the preview says what the execution then does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.cli_migration import ORPHANS, SALES, TENANTS, Migration
from tests.integration.project_migration import change_source, counts, served_project, set_where, status

GOOD = SALES - ORPHANS
EXECUTE = ("rollback", "--project", "--execute", "--reason", "wrong prices")
BASE = "/services/data/v66.0"


@pytest.fixture
def migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    with served_project(tmp_path, monkeypatch) as project:
        yield project


def call(migration: Migration, method: str, path: str, **options: Any) -> Any:
    headers = {"Authorization": f"Bearer {migration.server.access_token}"}
    answer = httpx.request(method, f"{migration.server.url}{BASE}{path}", headers=headers, **options)
    return answer.raise_for_status().json() if answer.content else None


def amounts(migration: Migration) -> dict[str, float]:
    query = {"q": "SELECT Sale__c, Amount__c FROM Sale__c"}
    return {one["Sale__c"]: one["Amount__c"] for one in call(migration, "GET", "/query", params=query)["records"]}


def sums(document: dict[str, Any]) -> tuple[int, int, int]:
    return document["deleted"], document["restored"], document["kept"]


def test_what_was_there_before_the_project_is_there_again(migration: Migration) -> None:
    """Records of others, changed by two batches of which the second has another plan; children and parents apart."""
    for sale in (100, 350, 590):
        call(migration, "PATCH", f"/sobjects/Sale__c/Sale__c/{sale}", json={"Amount__c": 7.5, "Name": "theirs"})
    migration.run("run", "--table", "tenants", "--batch", "parents")
    set_where(migration, "sales", "sale_id < 400")
    migration.run("run", "--table", "sales", "--batch", "low")
    change_source(migration, "UPDATE sales SET amount = amount + 1000, tenant = 'T3' WHERE sale_id >= 300")
    set_where(migration, "sales", "sale_id >= 300")
    migration.run("run", "--table", "sales", "--batch", "high")
    assert len(amounts(migration)) == GOOD
    assert amounts(migration)["350"] == 1350

    preview = migration.document("rollback", "--project")
    assert [one["batch_id"] for one in preview["batches"]] == ["high", "low", "parents"]
    assert sums(preview) == (GOOD - 3 + TENANTS, 3, 0)
    assert len(amounts(migration)) == GOOD, "a preview changes nothing"
    assert not list((migration.folder / "state").glob("**/preview/*"))
    shown = migration.run("rollback", "--project")
    assert shown.returncode == 0
    assert f"{GOOD - 3 + TENANTS} would be deleted, 3 would be put back, 0 would be kept" in shown.stdout

    assert migration.run(*EXECUTE[:3]).returncode == 2, "a reason is needed"
    done = migration.document(*EXECUTE)
    assert sums(done) == sums(preview)
    assert amounts(migration) == {"100": 7.5, "350": 7.5, "590": 7.5}
    assert migration.count("Tenant__c") == 0
    again = migration.document(*EXECUTE)
    assert (sums(again), again["passed_over"]) == ((0, 0, 0), ["parents", "low", "high"])
    sales = status(migration)["sales"]
    assert counts(sales) == {"source": SALES, "rejected": ORPHANS, "rolled_back": GOOD}


@pytest.mark.slow
def test_a_record_that_others_changed_is_kept_with_its_parent_in_preview_and_execution(migration: Migration) -> None:
    migration.run("run", "--table", "tenants", "--batch", "parents")
    migration.run("run", "--table", "sales", "--batch", "first")
    migration.run("run", "--table", "sales", "--batch", "second")
    call(migration, "PATCH", "/sobjects/Sale__c/Sale__c/100", json={"Amount__c": 0.25})
    preview = migration.document("rollback", "--project", code=1)
    assert sums(preview) == (GOOD - 1 + TENANTS - 1, 0, 2)
    done = migration.document(*EXECUTE, code=1)
    assert sums(done) == sums(preview)
    assert (amounts(migration), migration.count("Tenant__c")) == ({"100": 0.25}, 1)
    # A second try finds the same; others go on where one is refused.
    assert sums(migration.document(*EXECUTE, code=1)) == (0, 0, 2)


@pytest.mark.slow
def test_one_table_of_all_batches(migration: Migration) -> None:
    migration.run("run", "--batch", "first")
    migration.run("run", "--batch", "second")
    preview = migration.document("rollback", "--project", "--table", "sales")
    assert sums(preview) == (GOOD, 0, 0)
    assert sums(migration.document(*EXECUTE, "--table", "sales")) == (GOOD, 0, 0)
    assert (migration.count("Sale__c"), migration.count("Tenant__c")) == (0, TENANTS)
    assert migration.run("rollback", "--project", "--table", "nothing").returncode == 2
    assert migration.run("rollback", "first", "--project").returncode == 2
    assert migration.run("rollback", "--project", "--table", "sales", "--chunk", "1").returncode == 2


@pytest.mark.slow
def test_a_batch_that_is_refused_is_told_and_the_others_go_on(migration: Migration) -> None:
    """The key of a table that an earlier batch wrote has gone from the source: that batch cannot be compared."""
    migration.run("run", "--table", "tenants", "--batch", "parents")
    set_where(migration, "sales", "sale_id < 100")
    migration.run("run", "--table", "sales", "--batch", "low")
    text = migration.plan.read_text(encoding="utf-8")
    migration.plan.write_text(text.replace("amount: Amount__c", "price: Amount__c"), encoding="utf-8")
    change_source(migration, "ALTER TABLE sales RENAME amount TO price")
    set_where(migration, "sales", "sale_id >= 100")
    migration.run("run", "--table", "sales", "--batch", "high")
    before = migration.count("Sale__c")
    done = migration.document(*EXECUTE, code=3)
    assert [one["batch_id"] for one in done["refused"]] == ["low"]
    assert "amount" in done["refused"][0]["reason"]
    assert [one["batch_id"] for one in done["batches"]] == ["high", "parents"]
    assert migration.count("Sale__c") == before - (SALES - 100) == 100 - ORPHANS
    assert migration.count("Tenant__c") == TENANTS, "what is left of the refused batch hangs on them"


@pytest.mark.slow
def test_batches_that_sent_in_turns_are_gone_through_until_nothing_comes_back(migration: Migration) -> None:
    """The first batch wrote before and, resumed, after the second: neither order alone would undo both."""
    amount = "CASE WHEN sale_id = 550 AND amount = 550 THEN 'x' ELSE CAST(amount AS VARCHAR) END"
    change_source(
        migration,
        "ALTER TABLE sales RENAME TO good_sales",
        f"CREATE VIEW sales AS SELECT sale_id, CAST({amount} AS DECIMAL(12, 2)) AS amount, tenant FROM good_sales",
    )
    assert migration.run("run", "--batch", "first").returncode not in (0, 1)
    change_source(migration, "UPDATE good_sales SET amount = amount + 1000")
    migration.document("run", "--batch", "second", code=1)
    change_source(migration, "UPDATE good_sales SET amount = amount + 1000")
    migration.document("run", "--resume", "first", code=1)
    assert amounts(migration)["550"] == 2550
    assert "in turns" in migration.run("rollback", "--project").stdout
    done = migration.document(*EXECUTE)
    assert done["took_turns"]
    assert sums(done) == (GOOD + TENANTS, 0, 0)
    assert (amounts(migration), migration.count("Tenant__c")) == ({}, 0)
