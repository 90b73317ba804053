"""The whole flow by the command line with Oracle twice: the source's rows and the audit database of one test server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from msgspec.structs import replace
from tests.integration.cli_migration import ORPHANS, SALES, TENANTS, Migration, cli_schema, wait_until, write_plan
from tests.oracle_audit_support import new_user, query
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, connect, oracle

from forcelift.audit.records import BatchMode
from forcelift.errors import ExitCode
from forcelift.migration.running import RunOptions, run_migration
from forcelift.opening.bounds import engine_settings
from forcelift.plan import load_plan
from forcelift.twin.fault_orders import parse_orders
from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer

__all__ = ["oracle"]

GOOD = SALES - ORPHANS


@dataclass(kw_only=True)
class OracleMigration(Migration):
    """A migration whose source and whose audit database are users of one Oracle."""

    oracle: OracleServer
    auditor: str

    def audit(self, statement: str, **binds: object) -> list[tuple[Any, ...]]:
        """As another client of the audit database sees it."""
        return query(self.oracle, self.auditor, statement, **binds)

    def settled(self) -> int:
        return self.look("CHUNK", "\"STEP\" = 'settled'")

    def look(self, table: str, condition: str) -> int:
        """How many committed rows there are, past SQL: whoever waits looks often, and must not take time from those
        that it waits for."""
        found = self.oracle.store.catalog.tables.get((self.auditor, table))
        if found is None:
            return 0
        store = self.oracle.store
        visible = store.visible(store.scn, None)
        sql = f"SELECT count(*) FROM {found.stored} WHERE {visible} AND {condition}"
        return int(store.cursor().execute(sql).fetchall()[0][0])

    def let_leases_grow_stale(self) -> None:
        """The server's time would do so within a minute of a runner's death."""
        self.audit("UPDATE lease SET heartbeat = heartbeat - INTERVAL '61' SECOND")

    def check_books(self, batch_id: str) -> dict[str, dict[str, int]]:
        """Every chunk's sums close, and the ledger has one line for each row; its outcomes by table."""
        closes = (
            "SOURCE_COUNT = EXTRACTED_COUNT AND EXTRACTED_COUNT = TRANSFORMED_COUNT + SKIPPED_COUNT"
            " AND TRANSFORMED_COUNT = LOADED_COUNT AND LOADED_COUNT = SUCCESS_COUNT + FAILED_COUNT"
        )
        chunks = self.audit(
            f"SELECT l.TABLE_NAME, c.ledger_file, l.SOURCE_COUNT, CASE WHEN {closes} THEN 'closes' END"
            " FROM MIGRATION_AUDIT_LOG l JOIN chunk c ON c.audit_id = l.AUDIT_ID WHERE c.batch_id = :b",
            b=batch_id,
        )
        assert chunks
        assert {closed for *_, closed in chunks} == {"closes"}
        outcomes: dict[str, dict[str, int]] = {}
        for table, file, source, _ in chunks:
            path = str(self.folder / "state" / "staging" / file)
            with duckdb.connect() as calculator:
                found = calculator.execute("SELECT outcome, count(*) FROM read_parquet(?) GROUP BY 1", [path])
                lines = dict(found.fetchall())
            assert sum(lines.values()) == source
            for outcome, rows in lines.items():
                mine = outcomes.setdefault(table, {})
                mine[outcome] = mine.get(outcome, 0) + rows
        return outcomes

    def check_end(self, batch_id: str) -> None:
        """Exactly one record for each good row, the books close, and the journal is whole."""
        assert (self.count("Tenant__c"), self.count("Sale__c")) == (TENANTS, GOOD)
        expected = {"tenants": {"created": TENANTS}, "sales": {"created": GOOD, "rejected": ORPHANS}}
        assert self.check_books(batch_id) == expected
        assert self.document("audit", "verify")["is_whole"]


# Each of these takes half a minute of CPU and more, as the server below the audit database is slow: one runs always.
slow = pytest.mark.slow


@pytest.fixture
def migration(oracle: OracleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OracleMigration]:
    """The plan of the command line's tests; the twin works on jobs once `org.start` was called."""
    with connect(oracle) as connection:
        cursor = connection.cursor()
        cursor.execute('CREATE TABLE "tenants" ("code" VARCHAR2(20) PRIMARY KEY, "name" VARCHAR2(80))')
        cursor.execute(
            'CREATE TABLE "sales" ("sale_id" NUMBER(10) PRIMARY KEY, "amount" NUMBER(12,2), "tenant" VARCHAR2(20))'
        )
        tenants = [(f"T{at}", f"ร้านค้า {at}") for at in range(TENANTS)]
        cursor.executemany('INSERT INTO "tenants" VALUES (:1, :2)', tenants)
        sales = [(at, at, "NOBODY" if at < ORPHANS else f"T{at % TENANTS}") for at in range(SALES)]
        cursor.executemany('INSERT INTO "sales" VALUES (:1, :2, :3)', sales)
        connection.commit()
    auditor = new_user(oracle)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORACLE_PASSWORD", PASSWORD)
    org = TwinOrg.open(None, schema=cli_schema())
    try:
        with TwinServer(org, work=False) as server:
            write_plan(tmp_path, server, rows=200)
            plan = tmp_path / "forcelift.yaml"
            url = f"oracle://127.0.0.1:{oracle.port}/{oracle.service}"
            text = plan.read_text().replace(
                'source: {url: "duckdb:///source.duckdb"}',
                f'source: {{url: "{url}", user: KPS, password: "${{ORACLE_PASSWORD}}"}}\n'
                f'audit: {{url: "{url}", user: {auditor}, password: "${{ORACLE_PASSWORD}}"}}',
            )
            plan.write_text(text)
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            yield OracleMigration(folder=tmp_path, org=org, server=server, oracle=oracle, auditor=auditor)
            assert server.internal_errors == []
    finally:
        org.close()


@slow
def test_tables_made_dry_run_sample_and_its_rollback(migration: OracleMigration) -> None:
    made = migration.document("audit", "ddl", "--apply")
    assert made["made"]
    assert PASSWORD not in str(made)
    assert not migration.document("audit", "ddl", "--apply")["made"]
    migration.org.start()
    migration.document("run", "--dry-run", "--batch", "dry", code=ExitCode.ROWS_REFUSED)
    assert migration.count("Sale__c") == 0
    sampled = migration.document("run", "--sample-percent", "50", "--batch", "half", code=ExitCode.ROWS_REFUSED)
    sales = next(table for table in sampled["tables"] if table["table"] == "sales")
    assert 200 < sales["source"] < 400
    assert migration.count("Sale__c") == sales["created"]
    migration.document("rollback", "half", "--execute", "--reason", "ทดลองเท่านั้น")
    assert (migration.count("Tenant__c"), migration.count("Sale__c")) == (0, 0)
    statuses = migration.audit("SELECT DISTINCT STATUS FROM MIGRATION_AUDIT_LOG WHERE BATCH_ID = 'half'")
    assert statuses == [("ROLLED_BACK",)]
    assert migration.document("audit", "verify")["is_whole"]


@slow
def test_killed_resumed_validated_and_rolled_back(migration: OracleMigration) -> None:
    with migration.start("run", "--batch", "main") as process:
        migration.wait_for_jobs("UploadComplete", 1)
        migration.org.start()
        wait_until(lambda: migration.settled() >= 2)
        process.kill()
    migration.org.stop()
    refused = migration.run("run", "--resume", "main")
    assert refused.returncode == ExitCode.STATE
    assert "batch `main` is being worked on by" in refused.stderr
    migration.let_leases_grow_stale()
    status = migration.document("status")
    assert status["batch"]["batch_id"] == "main"
    migration.org.start()
    done = migration.run("run", "--resume", "main")
    assert done.returncode == ExitCode.ROWS_REFUSED, done.stderr
    migration.check_end("main")
    validated = migration.document("validate", "main", "--levels", "all")
    assert validated["exit_code"] == 0, validated
    assert {one["level"] for one in validated["checks"]} == {1, 2, 3, 4, 5}
    fifth = {one["table"]: one["status"] for one in validated["checks"] if one["level"] == 5}
    assert fifth == {"tenants": "passed", "sales": "passed"}
    proved = migration.audit("SELECT count(*), count(SOURCE_CHECKSUM), count(TARGET_CHECKSUM) FROM MIGRATION_AUDIT_LOG")
    assert proved[0][0] == proved[0][1] == proved[0][2]
    migration.document("rollback", "main", "--execute", "--reason", "back")
    assert (migration.count("Tenant__c"), migration.count("Sale__c")) == (0, 0)
    assert migration.document("audit", "verify")["is_whole"]


def test_paused_stopped_and_resumed(migration: OracleMigration) -> None:
    with migration.start("run", "--batch", "held") as process:
        migration.wait_for_jobs("UploadComplete", 1)
        migration.document("pause", "--reason", "สิ้นเดือน")
        status = migration.document("status")
        assert status["paused"]
        migration.document("resume")
        migration.document("stop", "--reason", "enough")
        migration.org.start()
        _, errors = process.communicate(timeout=200)
    assert process.returncode == ExitCode.INTERRUPTED, errors
    done = migration.run("run", "--resume")
    assert done.returncode == ExitCode.ROWS_REFUSED, done.stderr
    migration.check_end("held")


@slow
def test_rows_that_met_a_lock_are_sent_again(migration: OracleMigration) -> None:
    storm = {"action": "lock_storm", "object": "Sale__c", "probability": 0.5, "times": 60}
    migration.server.app.desk.arm(parse_orders(storm))
    migration.org.start()
    settings = replace(
        engine_settings(load_plan(migration.plan), mode=BatchMode.RUN), attempts_max=10, resend_delay_s=0.05
    )
    summary = run_migration(migration.plan, RunOptions(batch_id="storm"), engine=settings)
    assert summary.exit_code == ExitCode.ROWS_REFUSED
    migration.check_end("storm")
    assert int(migration.audit("SELECT count(*) FROM job WHERE kind = 'resend'")[0][0]) > 0


@slow
def test_two_processes_share_a_batch(migration: OracleMigration) -> None:
    with migration.start("run", "--batch", "shared") as first:
        migration.wait_for_jobs("UploadComplete", 1)
        with migration.start("run", "--join", "shared") as second:
            wait_until(lambda: migration.look("LEASE", "true") == 2)
            migration.org.start()
            endings = [process.communicate(timeout=200) for process in (first, second)]
    assert {first.returncode, second.returncode} <= {0, ExitCode.ROWS_REFUSED}, endings
    migration.check_end("shared")
    assert migration.audit("SELECT fence FROM lease WHERE released_at IS NULL") == []
