"""A million failed records in one batch, half of them refused by a rule and half by the org: all kept, memory flat."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import psycopg
import pytest
from tests.oracle_audit_support import audit_url, new_user, query
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD

if TYPE_CHECKING:
    from tests.postgres_support import Postgres

pytest_plugins = ["tests.postgres_support"]

ROWS = 1_000_000
MEMORY_MB = 2048
SCHEMA = """\
objects:
  Person__c:
    fields:
      Code__c: {type: string, length: 20, externalId: true, unique: true}
      Note__c: {type: string, length: 40}
      Mail__c: {type: email}
"""
PLAN = """\
version: 1
project: a million refused rows
source: {{url: "duckdb:///source.duckdb"}}
target: {{url: "twin:./org.duckdb", twin_schema: schema.yaml}}
audit: {{url: "{audit}"}}
limits: {{memory_mb: {memory}}}
tables:
  - table: people
    object: Person__c
    key: code
    external_id: Code__c
    fields: {{code: Code__c, note: Note__c, mail: Mail__c}}
"""


@pytest.fixture
def oracle_server() -> Iterator[OracleServer]:
    with OracleServer("23ai") as server:
        yield server


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "oracle"])
def test_a_million_failed_records(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limits: 1.5 times the budget for plan, engine, polars and the twin in one process. Timed by the record alone."""
    audit = "sqlite:///state/audit.db"
    if kind == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        database: str = request.getfixturevalue("database")
        audit = postgres.url(database).replace("@/", "@localhost/")
    if kind == "oracle":
        server = request.getfixturevalue("oracle_server")
        user = new_user(server)
        # A password is written out in no plan.
        monkeypatch.setenv("AUDIT_PASSWORD", PASSWORD)
        audit = audit_url(server, user, "${AUDIT_PASSWORD}")
    (tmp_path / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    (tmp_path / "forcelift.yaml").write_text(PLAN.format(audit=audit, memory=MEMORY_MB), encoding="utf-8")
    with closing(duckdb.connect(str(tmp_path / "source.duckdb"))) as source:
        source.execute(
            "CREATE TABLE people AS SELECT 'P-' || i AS code, repeat('n', CASE WHEN i % 2 = 0 THEN 60 ELSE 20 END)"
            f" AS note, 'nobody ' || i AS mail FROM range({ROWS}) AS r(i)"
        )
    words = [sys.executable, "-m", "forcelift", "run", "--plan", str(tmp_path / "forcelift.yaml")]
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 1, (tmp_path / "out").read_text(encoding="utf-8")
    statement = (
        "SELECT SF_ERROR_CODE, COUNT(*), COUNT(DISTINCT RECORD_ID) FROM MIGRATION_FAILED_RECORDS"
        " GROUP BY SF_ERROR_CODE ORDER BY SF_ERROR_CODE"
    )
    if kind == "oracle":
        found = query(server, user, statement)
    elif kind == "postgresql":
        with psycopg.connect(postgres.dsn(database)) as connection:
            found = connection.execute(statement).fetchall()
    else:
        with closing(sqlite3.connect(tmp_path / "state" / "audit.db")) as connection:
            found = connection.execute(statement).fetchall()
    half = ROWS // 2
    assert found == [("INVALID_EMAIL_ADDRESS", half, half), ("REJECTED_TOO_LONG", half, half)]
    peak_mb = used.ru_maxrss / 1024
    print(f"{kind}: peak {peak_mb:,.0f} MB, {used.ru_utime + used.ru_stime:,.0f} s of CPU")
    assert peak_mb < 1.5 * MEMORY_MB
