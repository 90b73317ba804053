"""What the tests of the command line share: a small source, a served twin, a plan, and an accounting of their own."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import httpx
import pytest

from forcelift.audit.glances import dashboard_sql
from forcelift.cli.main import run_command
from forcelift.protocols.clock import SystemClock
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema import Schema
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

TENANTS = 10
SALES = 600
ORPHANS = 25  # sales of a tenant that does not exist
GOOD = SALES - ORPHANS
CHUNK_ROWS = 100
PATIENCE_S = 60.0

CLI_OBJECTS: dict[str, Any] = {
    "Tenant__c": {
        "fields": {"Name": {"type": "string"}, "Code__c": {"type": "string", "externalId": True, "unique": True}}
    },
    "Sale__c": {
        "fields": {
            "Name": {"type": "string"},
            "Sale__c": {"type": "string", "externalId": True, "unique": True},
            "Amount__c": {"type": "currency", "precision": 12, "scale": 2},
            "Tenant__c": {"type": "reference", "referenceTo": "Tenant__c", "relationshipName": "Tenant__r"},
        }
    },
}

_PLAN = """\
version: 1
project: Command line test
source: {{url: "duckdb:///source.duckdb"}}
target:
  url: {url}
  auth: {{flow: token, access_token: "${{CLI_TEST_TOKEN}}"}}
tables:
  - table: sales
    object: Sale__c
    key: sale_id
    external_id: Sale__c
    fields:
      tenant: {{field: Tenant__r.Code__c, parent: tenants}}
      amount: Amount__c
  - table: tenants
    object: Tenant__c
    key: code
    external_id: Code__c
    fields: {{name: Name}}
chunks: {{rows: {rows}}}
limits: {{parallel_jobs: 2}}
"""


def cli_schema() -> Schema:
    return schema_from_dict({"objects": CLI_OBJECTS})


def make_source(folder: Path) -> None:
    with duckdb.connect(str(folder / "source.duckdb")) as connection:
        connection.execute(
            f"CREATE TABLE tenants AS SELECT 'T' || i AS code, 'Tenant ' || i AS name FROM range({TENANTS}) AS r(i)"
        )
        connection.execute(
            f"CREATE TABLE sales AS SELECT i AS sale_id, CAST(i AS DECIMAL(12, 2)) AS amount,"
            f" CASE WHEN i < {ORPHANS} THEN 'NOBODY' ELSE 'T' || (i % {TENANTS}) END AS tenant"
            f" FROM range({SALES}) AS r(i)"
        )


@dataclass
class Migration:
    """A plan with its source, and the twin that it loads into."""

    folder: Path
    org: TwinOrg
    server: TwinServer
    log: io.StringIO = field(default_factory=io.StringIO)
    """What the twin was asked, where `served_migration` made it: a JSON document a line."""

    @property
    def plan(self) -> Path:
        return self.folder / "forcelift.yaml"

    @property
    def audit_file(self) -> Path:
        return self.folder / "state" / "audit.db"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "CLI_TEST_TOKEN": self.server.access_token, "NO_COLOR": "1"}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the command line as a process of its own, in the plan's folder."""
        return subprocess.Popen(
            [sys.executable, "-m", "forcelift", *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command line in this process; the caller has gone to the plan's folder and set the environment."""
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = run_command(list(words))
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    def document(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Run with `--json` and return the one document on stdout."""
        done = self.run(*words, "--json")
        assert done.returncode == code, done.stderr
        document = json.loads(done.stdout)
        assert isinstance(document, dict)
        return document

    def count(self, object_name: str) -> int:
        """The org's own count, by SOQL over HTTP."""
        return soql_count(self.server, object_name)

    def wait_for_jobs(self, state: str, at_least: int) -> None:
        """Wait until that many jobs are in a state."""
        wait_until(lambda: len(self.jobs(state)) >= at_least)

    def wait_until_heard(self, wish: str) -> None:
        """Wait until the run has heard an operator's wish: it looks once a second, and journals what it hears."""

        def is_heard() -> bool:
            with closing(sqlite3.connect(f"file:{self.audit_file}?mode=ro", uri=True)) as audit:
                found = audit.execute("SELECT payload FROM journal WHERE action = 'governor'").fetchall()
            return any(wish in payload for (payload,) in found)

        wait_until(is_heard)

    def jobs(self, state: str) -> list[str]:
        answer = httpx.get(
            f"{self.server.url}/services/data/v66.0/jobs/ingest",
            headers={"Authorization": f"Bearer {self.server.access_token}"},
        )
        return [job["id"] for job in answer.raise_for_status().json()["records"] if job["state"] == state]

    def audit(self, query: str) -> list[tuple[Any, ...]]:
        """The audit database's rows, by SQL beside the program."""
        with closing(sqlite3.connect(f"file:{self.audit_file}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def check_end(self, batch_id: str) -> None:
        """Exactly one record for each good row, created by this batch and told so, and the books close."""
        assert (self.count("Tenant__c"), self.count("Sale__c")) == (TENANTS, GOOD)
        outcomes = check_accounting(self.audit_file, self.folder / "state" / "staging", batch_id)
        assert outcomes == {"tenants": {"created": TENANTS}, "sales": {"created": GOOD, "rejected": ORPHANS}}


class ShiftedClock(SystemClock):
    """The machine's clock, set to a moment and moved on by the test."""

    def __init__(self, at: datetime) -> None:
        self._shift = at - datetime.now(UTC)
        self._leapt = 0.0

    def now(self) -> datetime:
        return super().now() + self._shift

    def monotonic(self) -> float:
        return super().monotonic() + self._leapt

    def leap_to(self, at: datetime) -> None:
        by = at - self.now()
        self._shift += by
        self._leapt += by.total_seconds()


M = TypeVar("M", bound=Migration)


@contextmanager
def served_migration(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    kind: type[M],
    work: bool = True,
    rows: int = CHUNK_ROWS,
) -> Iterator[M]:
    """A source and a plan in a folder, which becomes the current one, and the served twin that the plan loads into.

    Args:
        kind: What is given; a subclass may know more.
        work: The twin works on jobs by itself; otherwise when the test says so.
        rows: Of a chunk.
    """
    make_source(folder)
    monkeypatch.chdir(folder)
    org = TwinOrg.open(None, schema=cli_schema())
    log = io.StringIO()
    try:
        with TwinServer(org, work=work, log_file=log) as server:
            write_plan(folder, server, rows=rows)
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            yield kind(folder=folder, org=org, server=server, log=log)
            assert server.internal_errors == []
    finally:
        org.close()


def soql_count(server: TwinServer, object_name: str) -> int:
    answer = httpx.get(
        f"{server.url}/services/data/v66.0/query",
        params={"q": f"SELECT COUNT() FROM {object_name}"},
        headers={"Authorization": f"Bearer {server.access_token}"},
    )
    return int(answer.raise_for_status().json()["totalSize"])


def write_plan(folder: Path, server: TwinServer, *, rows: int = CHUNK_ROWS) -> None:
    (folder / "forcelift.yaml").write_text(_PLAN.format(url=server.url, rows=rows), encoding="utf-8")


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, looking again and again; fail when patience ends."""
    end = time.monotonic() + PATIENCE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, "waited too long"
        pause.wait(0.02)


def check_accounting(audit_file: Path, ledger_folder: Path, batch_id: str) -> dict[str, dict[str, int]]:
    """Every chunk's sums close, the ledger has one row per source row, the dashboard tells what the ledger tells.

    The checklist's queries are run unchanged, by SQLite alone. Returns the ledger's outcomes by table.
    """
    with sqlite3.connect(audit_file) as audit, duckdb.connect() as calculator:
        audit.row_factory = sqlite3.Row
        chunks = audit.execute(
            "SELECT l.*, c.ledger_file FROM MIGRATION_AUDIT_LOG l JOIN chunk c ON c.audit_id = l.AUDIT_ID"
            " WHERE l.BATCH_ID = ?",
            [batch_id],
        ).fetchall()
        assert chunks
        calculator.execute(
            "CREATE TABLE ledger (tab VARCHAR, chunk BIGINT, key VARCHAR, outcome VARCHAR, code VARCHAR)"
        )
        for chunk in chunks:
            _check_chunk(calculator, chunk, ledger_folder)
        _check_status(audit, calculator, chunks, batch_id)
        _check_failed(audit, calculator, batch_id)
        _check_performance(audit, calculator, chunks, batch_id)
        outcomes: dict[str, dict[str, int]] = {}
        for table, outcome, rows in calculator.execute(
            "SELECT tab, outcome, count(*) FROM ledger GROUP BY ALL"
        ).fetchall():
            outcomes.setdefault(table, {})[outcome] = rows
    audit.close()
    return outcomes


def _check_chunk(calculator: duckdb.DuckDBPyConnection, chunk: sqlite3.Row, ledger_folder: Path) -> None:
    file = ledger_folder / chunk["ledger_file"]
    calculator.execute(
        "INSERT INTO ledger SELECT ?, ?, key, outcome, code FROM read_parquet(?)",
        [chunk["TABLE_NAME"], chunk["CHUNK_ID"], str(file)],
    )
    found = dict(calculator.execute("SELECT outcome, count(*) FROM read_parquet(?) GROUP BY 1", [str(file)]).fetchall())
    assert set(found) <= {"created", "updated", "failed", "rejected", "duplicate"}
    assert sum(found.values()) == chunk["SOURCE_COUNT"] == chunk["EXTRACTED_COUNT"]
    assert chunk["EXTRACTED_COUNT"] == chunk["TRANSFORMED_COUNT"] + chunk["SKIPPED_COUNT"]
    assert chunk["TRANSFORMED_COUNT"] == chunk["LOADED_COUNT"] == chunk["SUCCESS_COUNT"] + chunk["FAILED_COUNT"]
    assert chunk["SKIPPED_COUNT"] == found.get("rejected", 0) + found.get("duplicate", 0)
    assert chunk["SUCCESS_COUNT"] == found.get("created", 0) + found.get("updated", 0)
    refused = found.get("rejected", 0) + found.get("failed", 0)
    assert chunk["STATUS"] == ("PARTIAL" if refused else "SUCCESS")


def _check_status(
    audit: sqlite3.Connection, calculator: duckdb.DuckDBPyConnection, chunks: list[sqlite3.Row], batch_id: str
) -> None:
    """Each line of the first query, from the ledger's rows of the chunks in that status."""
    shown = audit.execute(dashboard_sql("status"), {"current_batch_id": batch_id}).fetchall()
    assert {(row["TABLE_NAME"], row["STATUS"]) for row in shown} == {(c["TABLE_NAME"], c["STATUS"]) for c in chunks}
    for row in shown:
        mine = [c for c in chunks if (c["TABLE_NAME"], c["STATUS"]) == (row["TABLE_NAME"], row["STATUS"])]
        counted = calculator.execute(
            "SELECT count(*), count(*) FILTER (outcome IN ('created', 'updated')), count(*) FILTER (outcome = 'failed')"
            " FROM ledger WHERE tab = ? AND list_contains(?, chunk)",
            [row["TABLE_NAME"], [c["CHUNK_ID"] for c in mine]],
        ).fetchone()
        assert counted is not None
        source, success, failed = counted
        assert tuple(row)[2:6] == (len(mine), source, success, failed)
        assert abs(row["success_rate"] - round(100 * success / source, 2)) < 0.005
        assert row["started"] == min(c["START_TIME"] for c in mine)
        assert row["last_update"] == max(c["END_TIME"] for c in mine)


def _check_failed(audit: sqlite3.Connection, calculator: duckdb.DuckDBPyConnection, batch_id: str) -> None:
    shown = audit.execute(dashboard_sql("failed"), {"current_batch_id": batch_id}).fetchall()
    counted = calculator.execute(
        "SELECT tab, code, count(*) FROM ledger WHERE outcome IN ('failed', 'rejected') GROUP BY ALL"
    ).fetchall()
    assert sorted(tuple(row)[:3] for row in shown) == sorted(counted)
    assert [row["error_count"] for row in shown] == sorted((row["error_count"] for row in shown), reverse=True)


def _check_performance(
    audit: sqlite3.Connection, calculator: duckdb.DuckDBPyConnection, chunks: list[sqlite3.Row], batch_id: str
) -> None:
    shown = {
        row["TABLE_NAME"]: row
        for row in audit.execute(dashboard_sql("performance"), {"current_batch_id": batch_id}).fetchall()
    }
    good = [chunk for chunk in chunks if chunk["STATUS"] == "SUCCESS"]
    assert set(shown) == {chunk["TABLE_NAME"] for chunk in good}
    for table, row in shown.items():
        mine = [chunk for chunk in good if chunk["TABLE_NAME"] == table]
        rows = dict(
            calculator.execute("SELECT chunk, count(*) FROM ledger WHERE tab = ? GROUP BY 1", [table]).fetchall()
        )
        # A range of ROWIDs may hold no row.
        rates = [rows.get(c["CHUNK_ID"], 0) / c["DURATION_SECONDS"] for c in mine if c["DURATION_SECONDS"]]
        seconds = [c["DURATION_SECONDS"] for c in mine]
        if rates:
            assert abs(row["avg_records_per_sec"] - sum(rates) / len(rates)) <= 0.51
        assert abs(row["avg_chunk_duration"] - sum(seconds) / len(seconds)) <= 0.051
        assert row["max_chunk_duration"] == max(seconds)
