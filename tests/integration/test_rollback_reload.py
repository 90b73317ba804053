"""After a rollback that kept records, `run --resume` loads what was taken back, and only that; the org is asked.

With the audit database on SQLite, and, as slow tests, on PostgreSQL and on the Oracle test server.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import polars as pl
import psycopg
import pytest
from tests.integration.cli_migration import ORPHANS, SALES, TENANTS, Migration, cli_schema, make_source, write_plan
from tests.oracle_audit_support import RIGHTS, audit_url
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, connect

from forcelift.audit.glances import dashboard_sql
from forcelift.errors import ExitCode
from forcelift.migration.running import open_recorded
from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer

if TYPE_CHECKING:
    from tests.postgres_support import Postgres

pytest_plugins = ["tests.postgres_support"]

GOOD = SALES - ORPHANS
BASE = "/services/data/v66.0"
ROLL_BACK = ("rollback", "first", "--execute", "--reason", "wrong prices")


class Books(Protocol):
    """An audit database, as a client of its own sees it."""

    url: str

    def ask(self, statement: str, parameters: Mapping[str, str]) -> tuple[Sequence[str], list[Any]]:
        """Names of the columns, and the rows."""

    def change(self, statement: str) -> None: ...

    later: str  # SQL of a moment that is decades after END_TIME


@dataclass
class SqliteBooks:
    file: Path
    url: str = "sqlite:///state/audit.db"
    later: str = "replace(END_TIME, '20', '21')"

    def ask(self, statement: str, parameters: Mapping[str, str]) -> tuple[Sequence[str], list[Any]]:
        with closing(sqlite3.connect(self.file)) as audit:
            found = audit.execute(statement, parameters)
            return [one[0] for one in found.description], found.fetchall()

    def change(self, statement: str) -> None:
        with closing(sqlite3.connect(self.file)) as audit:
            audit.execute(statement)
            audit.commit()


@dataclass
class PostgresBooks:
    dsn: str
    url: str
    later: str = "END_TIME + INTERVAL '90 years'"

    def ask(self, statement: str, parameters: Mapping[str, str]) -> tuple[Sequence[str], list[Any]]:
        for name in parameters:
            statement = statement.replace(f":{name}", f"%({name})s")
        with psycopg.connect(self.dsn) as audit:
            found = audit.execute(statement, parameters)  # type: ignore[call-overload]  # the checklist's SQL, no literal
            return [one.name for one in found.description], found.fetchall()

    def change(self, statement: str) -> None:
        with psycopg.connect(self.dsn) as audit:
            audit.execute(statement)  # type: ignore[call-overload]  # as above


@dataclass
class OracleBooks:
    server: OracleServer
    user: str
    url: str
    later: str = "END_TIME + INTERVAL '90' DAY"

    def ask(self, statement: str, parameters: Mapping[str, str]) -> tuple[Sequence[str], list[Any]]:
        with connect(self.server, self.user) as audit, audit.cursor() as cursor:
            cursor.execute(statement.rstrip().removesuffix(";"), dict(parameters))
            return [one.name for one in cursor.description], cursor.fetchall()

    def change(self, statement: str) -> None:
        with connect(self.server, self.user) as audit, audit.cursor() as cursor:
            cursor.execute(statement)
            audit.commit()


def books_on(kind: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Books]:
    """An empty audit database of that kind."""
    if kind == "sqlite":
        yield SqliteBooks(folder / "state" / "audit.db")
    elif kind == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        database: str = request.getfixturevalue("database")
        yield PostgresBooks(dsn=postgres.dsn(database), url=postgres.plan_url(database))
    else:
        with OracleServer("23ai") as server:
            server.add_user("AUDITOR", PASSWORD, *RIGHTS)
            yield OracleBooks(server=server, user="AUDITOR", url=audit_url(server, "AUDITOR", "${AUDIT_PASSWORD}"))


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.slow),
        pytest.param("oracle", marks=pytest.mark.slow),
    ]
)
def books(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Books]:
    yield from books_on(request.param, tmp_path, request)


@pytest.fixture
def migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, books: Books) -> Iterator[Migration]:
    make_source(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIT_PASSWORD", PASSWORD)
    org = TwinOrg.open(None, schema=cli_schema())
    try:
        with TwinServer(org) as server:
            write_plan(tmp_path, server)
            plan = tmp_path / "forcelift.yaml"
            plan.write_text(f'{plan.read_text()}audit: {{url: "{books.url}"}}\n')
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            yield Migration(folder=tmp_path, org=org, server=server)
            assert server.internal_errors == []
    finally:
        org.close()


def call(migration: Migration, method: str, path: str, **options: Any) -> Any:
    headers = {"Authorization": f"Bearer {migration.server.access_token}"}
    answer = httpx.request(method, f"{migration.server.url}{BASE}{path}", headers=headers, **options)
    return answer.raise_for_status().json() if answer.content else None


def record(migration: Migration, table: str, key: str) -> dict[str, Any]:
    field = {"Sale__c": "Sale__c", "Tenant__c": "Code__c"}[table]
    found: dict[str, Any] = call(migration, "GET", f"/sobjects/{table}/{field}/{key}")
    return found


def dashboard(books: Books, name: str) -> list[dict[str, Any]]:
    """A query of the checklist, unchanged, by a client of the database alone; names in capitals."""
    names, rows = books.ask(dashboard_sql(name), {"current_batch_id": "first"})
    return [dict(zip([one.upper() for one in names], row, strict=True)) for row in rows]


def test_what_was_kept_is_not_sent_again_and_all_else_is(migration: Migration, books: Books) -> None:
    """A changed sale keeps its tenant; both stay as they are, their chunks are loaded again, children find parents."""
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    kept_sale, kept_tenant = record(migration, "Sale__c", "300"), record(migration, "Tenant__c", "T0")
    call(migration, "PATCH", f"/sobjects/Sale__c/{kept_sale['Id']}", json={"Amount__c": 7777})
    done = migration.document(*ROLL_BACK, code=ExitCode.ROWS_REFUSED)
    assert (done["deleted"], done["kept"]) == (TENANTS - 1 + GOOD - 1, 2)
    assert (migration.count("Sale__c"), migration.count("Tenant__c")) == (1, 1)

    again = migration.document("run", "--resume", "first", code=ExitCode.ROWS_REFUSED)
    tables = {table["table"]: table for table in again["tables"]}
    assert (tables["sales"]["created"], tables["sales"]["kept"], tables["sales"]["updated"]) == (GOOD - 1, 1, 0)
    assert (tables["tenants"]["created"], tables["tenants"]["kept"]) == (TENANTS - 1, 1)
    assert [group["code"] for group in tables["sales"]["refused_by_code"]] == ["REJECTED_MISSING_PARENT"]
    assert tables["sales"]["rejected"] == ORPHANS
    assert (migration.count("Sale__c"), migration.count("Tenant__c")) == (GOOD, TENANTS)
    assert record(migration, "Sale__c", "300")["Amount__c"] == 7777
    assert record(migration, "Sale__c", "300")["Id"] == kept_sale["Id"]
    assert record(migration, "Tenant__c", "T0")["LastModifiedDate"] == kept_tenant["LastModifiedDate"]
    assert record(migration, "Sale__c", "310")["Tenant__c"] == kept_tenant["Id"]

    with open_recorded(migration.plan) as (_, state):
        assert sum(totals.source for totals in state.audit.totals("first")) == SALES + TENANTS
        assert sum(totals.success for totals in state.audit.totals("first")) == GOOD + TENANTS
        assert {
            chunk.status.value for chunk in state.audit.chunks("first", with_superseded=True) if chunk.superseded
        } == {"ROLLED_BACK"}
        assert state.audit.verify_journal() == []
        files = [chunk.ledger_file for chunk in state.audit.chunks("first") if chunk.ledger_file]
        lines = state.ledger.scan(files).filter(pl.col("outcome") == "kept").collect()
        assert dict(lines.select("key", "code").iter_rows()) == {"300": "CHANGED_FIELDS", "T0": "CHILDREN_OF_OTHERS"}
    status = dashboard(books, "status")
    counted = {(row["TABLE_NAME"], row["STATUS"]): row["TOTAL_SUCCESS"] for row in status}
    assert counted["tenants", "SUCCESS"] == TENANTS
    assert counted["sales", "SUCCESS"] + counted["sales", "PARTIAL"] == GOOD
    # What was undone and nothing else: of the kept ones the old rows tell no more.
    assert (counted["tenants", "ROLLED_BACK"], counted["sales", "ROLLED_BACK"]) == (TENANTS - 1, GOOD - 1)
    assert [row["ERROR_COUNT"] for row in dashboard(books, "failed")] == [ORPHANS]
    migration.document("validate", "first", "--levels", "all")

    # Taken back once more, the changed one is still somebody else's, and its tenant is still held.
    once_more = migration.document(*ROLL_BACK, code=ExitCode.ROWS_REFUSED)
    assert (once_more["deleted"], once_more["kept"]) == (TENANTS - 1 + GOOD - 1, 2)
    assert record(migration, "Sale__c", "300")["Amount__c"] == 7777
    # With the child gone the tenant that it held may go, too.
    call(migration, "DELETE", f"/sobjects/Sale__c/{kept_sale['Id']}")
    last = migration.document(*ROLL_BACK)
    assert (migration.count("Sale__c"), migration.count("Tenant__c")) == (0, 0)
    assert last["kept"] == 0


def test_what_others_made_between_rollback_and_reload_is_put_back(migration: Migration) -> None:
    """The object was empty at the first load, and is not at the second: its image is asked for anew."""
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    migration.document(*ROLL_BACK)
    theirs = call(migration, "POST", "/sobjects/Sale__c", json={"Sale__c": "30", "Amount__c": 1.5, "Name": "theirs"})
    again = migration.document("run", "--resume", "first", code=ExitCode.ROWS_REFUSED)
    assert {table["table"]: table["updated"] for table in again["tables"]} == {"tenants": 0, "sales": 1}
    done = migration.document(*ROLL_BACK)
    assert (done["restored"], done["kept"]) == (1, 0)
    left = record(migration, "Sale__c", "30")
    assert (left["Id"], left["Amount__c"], left["Name"], left["Tenant__c"]) == (theirs["id"], 1.5, "theirs", None)
    assert (migration.count("Sale__c"), migration.count("Tenant__c")) == (1, 0)


def test_an_updated_record_that_was_kept_gets_its_earliest_values_once_it_may(
    migration: Migration, books: Books
) -> None:
    """Its image is that of the first load, although the chunk was loaded again since."""
    body = {"Sale__c": "300", "Amount__c": 1.5, "Name": "before"}
    earlier = call(migration, "POST", "/sobjects/Sale__c", json=body)["id"]
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    call(migration, "PATCH", f"/sobjects/Sale__c/{earlier}", json={"Amount__c": 7777})
    assert migration.document(*ROLL_BACK, code=ExitCode.ROWS_REFUSED)["kept"] == 2
    migration.document("run", "--resume", "first", code=ExitCode.ROWS_REFUSED)
    assert record(migration, "Sale__c", "300")["Amount__c"] == 7777
    call(migration, "PATCH", f"/sobjects/Sale__c/{earlier}", json={"Amount__c": 300})
    # As if their work had been done and undone before the first load was settled.
    books.change(f"UPDATE MIGRATION_AUDIT_LOG SET END_TIME = {books.later}")
    done = migration.document(*ROLL_BACK)
    assert (done["restored"], done["kept"]) == (1, 0)
    assert record(migration, "Sale__c", "300")["Amount__c"] == 1.5
    assert (migration.count("Sale__c"), migration.count("Tenant__c")) == (1, 0)


@pytest.mark.slow
def test_a_reload_that_was_cut_off_is_ended_before_it_is_taken_back(migration: Migration) -> None:
    """Meanwhile the kept record is told in no row that counts: leaving it without a word would be silence."""
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    kept_sale = record(migration, "Sale__c", "300")
    call(migration, "PATCH", f"/sobjects/Sale__c/{kept_sale['Id']}", json={"Amount__c": 7777})
    migration.document(*ROLL_BACK, code=ExitCode.ROWS_REFUSED)
    headers = {"Authorization": f"Bearer {migration.server.control_token}"}
    faults = f"{migration.server.url}/__twin__/faults"
    order = {"action": "answer", "method": "POST", "path": "/jobs/ingest$", "status": 400, "times": None}
    body = '[{"errorCode": "INVALIDJOB", "message": "no more of this"}]'
    httpx.post(faults, headers=headers, json=[{**order, "body": body, "content_type": "application/json"}])
    assert migration.run("run", "--resume", "first").returncode == ExitCode.TARGET
    httpx.delete(faults, headers=headers).raise_for_status()

    shown = migration.document("rollback", "first")
    assert any("a resume has begun to load them again" in warning for warning in shown["warnings"])
    refused = migration.run(*ROLL_BACK)
    assert refused.returncode == ExitCode.STATE
    assert "records that an earlier rollback kept" in refused.stderr
    migration.document("run", "--resume", "first", code=ExitCode.ROWS_REFUSED)
    assert (migration.count("Sale__c"), migration.count("Tenant__c")) == (GOOD, TENANTS)
    done = migration.document(*ROLL_BACK, code=ExitCode.ROWS_REFUSED)
    assert (done["deleted"], done["kept"]) == (TENANTS - 1 + GOOD - 1, 2)
