"""A migration by the command line, from the Oracle test server into a served twin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.cli_migration import (
    ORPHANS,
    SALES,
    TENANTS,
    Migration,
    check_accounting,
    cli_schema,
    write_plan,
)
from tests.oracle_server.faults import Fault
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, connect, oracle

from forcelift.errors import ExitCode
from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer

__all__ = ["oracle"]

GOOD = SALES - ORPHANS


@pytest.fixture
def migration(oracle: OracleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    """The plan of the command line's tests, over the same rows in Oracle."""
    with connect(oracle) as connection:
        cursor = connection.cursor()
        cursor.execute('CREATE TABLE "tenants" ("code" VARCHAR2(20) PRIMARY KEY, "name" VARCHAR2(80))')
        cursor.execute(
            'CREATE TABLE "sales" ("sale_id" NUMBER(10) PRIMARY KEY, "amount" NUMBER(12,2), "tenant" VARCHAR2(20))'
        )
        cursor.executemany(
            'INSERT INTO "tenants" VALUES (:1, :2)', [(f"T{at}", f"Tenant {at}") for at in range(TENANTS)]
        )
        sales = [(at, at, "NOBODY" if at < ORPHANS else f"T{at % TENANTS}") for at in range(SALES)]
        cursor.executemany('INSERT INTO "sales" VALUES (:1, :2, :3)', sales)
        connection.commit()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORACLE_PASSWORD", PASSWORD)
    org = TwinOrg.open(None, schema=cli_schema())
    try:
        with TwinServer(org) as server:
            write_plan(tmp_path, server)
            plan = tmp_path / "forcelift.yaml"
            url = f"oracle://127.0.0.1:{oracle.port}/{oracle.service}"
            source = f'{{url: "{url}", user: KPS, password: "${{ORACLE_PASSWORD}}"}}'
            text = plan.read_text().replace('{url: "duckdb:///source.duckdb"}', source)
            assert "oracle:" in text
            plan.write_text(text)
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            yield Migration(folder=tmp_path, org=org, server=server)
            assert server.internal_errors == []
    finally:
        org.close()


def check(migration: Migration, batch_id: str) -> None:
    assert (migration.count("Tenant__c"), migration.count("Sale__c")) == (TENANTS, GOOD)
    outcomes = check_accounting(migration.audit_file, migration.folder / "state" / "staging", batch_id)
    assert outcomes["sales"] == {"created": GOOD, "rejected": ORPHANS}


def test_a_whole_migration_from_oracle(migration: Migration) -> None:
    first = migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    sales = next(table for table in first["tables"] if table["table"] == "sales")
    assert (sales["source"], sales["rejected"], sales["created"]) == (SALES, ORPHANS, GOOD)
    check(migration, "first")


def test_reads_that_break_off_are_done_again_and_no_row_comes_twice(oracle: OracleServer, migration: Migration) -> None:
    for at, action in enumerate(("drop", "error", "drop")):
        oracle.faults.order(Fault(at="execute", action=action, code=3113, match='AS "c1"', times=1 + at % 2))
    migration.document("run", "--batch", "broken", code=ExitCode.ROWS_REFUSED)
    assert len(oracle.faults.struck) == 4
    check(migration, "broken")


def test_a_sample_and_a_dry_run(migration: Migration) -> None:
    migration.document("run", "--dry-run", "--batch", "dry", code=ExitCode.ROWS_REFUSED)
    assert migration.count("Sale__c") == 0
    sampled = migration.document("run", "--sample-percent", "50", "--batch", "half", code=ExitCode.ROWS_REFUSED)
    sales = next(table for table in sampled["tables"] if table["table"] == "sales")
    assert 200 < sales["source"] < 400
    assert migration.count("Sale__c") == sales["created"]
