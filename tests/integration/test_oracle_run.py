"""A migration by the command line, from the Oracle test server into a served twin."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import oracledb
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

from forcelift.errors import ExitCode, SourceError
from forcelift.protocols.source import AnswersSql
from forcelift.source import open_source
from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer

__all__ = ["oracle"]

GOOD = SALES - ORPHANS


@pytest.fixture
def migration(oracle: OracleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    """The plan of the command line's tests, over the same rows in Oracle, into a twin that works at once."""
    yield from oracle_migration(oracle, tmp_path, monkeypatch)


@pytest.fixture
def held(oracle: OracleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    """The same into a twin that works on jobs only when the test says so."""
    yield from oracle_migration(oracle, tmp_path, monkeypatch, work=False)


def oracle_migration(
    oracle: OracleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, parts: str = "", work: bool = True
) -> Iterator[Migration]:
    """Fill the server and write the plan. `parts` are the query parts of the source's URL."""
    url = f"oracle://127.0.0.1:{oracle.port}/{oracle.service}{parts}"
    with connect(oracle) as connection:
        yield from filled_oracle(connection, url, ("KPS", PASSWORD), tmp_path, monkeypatch, work=work)


def filled_oracle(
    connection: oracledb.Connection,
    url: str,
    sign_in: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    work: bool,
) -> Iterator[Migration]:
    """The rows by a connection, and the plan for them."""
    cursor = connection.cursor()
    cursor.execute('CREATE TABLE "tenants" ("code" VARCHAR2(20) PRIMARY KEY, "name" VARCHAR2(80))')
    cursor.execute(
        'CREATE TABLE "sales" ("sale_id" NUMBER(10) PRIMARY KEY, "amount" NUMBER(12,2), "tenant" VARCHAR2(20))'
    )
    cursor.executemany('INSERT INTO "tenants" VALUES (:1, :2)', [(f"T{at}", f"Tenant {at}") for at in range(TENANTS)])
    sales = [(at, at, "NOBODY" if at < ORPHANS else f"T{at % TENANTS}") for at in range(SALES)]
    cursor.executemany('INSERT INTO "sales" VALUES (:1, :2, :3)', sales)
    connection.commit()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORACLE_PASSWORD", sign_in[1])
    org = TwinOrg.open(None, schema=cli_schema())
    try:
        with TwinServer(org, work=work) as server:
            write_plan(tmp_path, server)
            plan = tmp_path / "forcelift.yaml"
            source = f'{{url: "{url}", user: {sign_in[0]}, password: "${{ORACLE_PASSWORD}}"}}'
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


def test_a_validation_asks_oracle_itself(migration: Migration) -> None:
    """All levels, a pair of queries among them: sums of NUMBER come as decimals, exactly, and null groups count."""
    text = migration.plan.read_text()
    checks = """
    checks:
      - name: amounts
        sql: SELECT "tenant", SUM("amount") FROM "sales" WHERE "tenant" <> 'NOBODY' GROUP BY "tenant"
        soql: SELECT Tenant__r.Code__c, SUM(Amount__c) FROM Sale__c GROUP BY Tenant__r.Code__c
      - {name: sums, sum: amount, by: tenant, tolerance: "0"}
  - table: tenants"""
    migration.plan.write_text(text.replace("\n  - table: tenants", checks))
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    found = migration.document("validate", "--levels", "all", code=ExitCode.DONE)
    by_name = {one["check"]: one for one in found["checks"] if one["level"] == 4}
    assert [(by_name[name]["status"], by_name[name]["source"]) for name in ("amounts", "sums")] == [
        ("passed", str(TENANTS)),
        ("passed", str(TENANTS)),
    ]
    assert {one["status"] for one in found["checks"] if one["table"] == "sales"} == {"passed"}


def test_a_query_for_a_check_gives_decimals_and_changes_nothing(oracle: OracleServer) -> None:
    with connect(oracle) as connection:
        connection.cursor().execute('CREATE TABLE "t" ("a" NUMBER(20,2), "b" VARCHAR2(20))')
        connection.cursor().executemany('INSERT INTO "t" VALUES (:1, :2)', [(Decimal("0.1"), "O'Neil"), (None, None)])
        connection.commit()
    url = f"oracle://127.0.0.1:{oracle.port}/{oracle.service}"
    source = open_source(url, user="KPS", password=PASSWORD)
    assert isinstance(source, AnswersSql)
    assert source.ask('SELECT "b", "a" FROM "t" ORDER BY "a";', rows_max=5) == [
        ("O'Neil", Decimal("0.1")),
        (None, None),
    ]
    assert len(source.ask('SELECT "b" FROM "t"', rows_max=1)) == 1
    with pytest.raises(SourceError):
        source.ask('DELETE FROM "t"', rows_max=1)
    source.close()
