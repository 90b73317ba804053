"""`audit ddl`: statements that can be run, and tables that are made where the plan says."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from forcelift.audit import AuditStore
from forcelift.cli.main import run_command
from forcelift.errors import ExitCode
from forcelift.protocols.clock import SystemClock

PLAN = """\
version: 1
project: DDL
source: {url: "sqlite:///source.db"}
target: {url: "twin:./org.duckdb"}
tables:
  - {table: t, object: T__c, key: k, external_id: K__c, fields: {n: Name}}
"""


def command(*words: str) -> tuple[int, str, str]:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = run_command(["audit", "ddl", *words])
    return code, out.getvalue(), err.getvalue()


def test_what_is_printed_makes_a_database_that_forcelift_takes_for_its_own(tmp_path: Path) -> None:
    code, text, _ = command()
    assert code == 0
    file = tmp_path / "audit.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(text)
    with AuditStore.open(f"sqlite:///{file}", clock=SystemClock(), create=False) as store:
        assert not store.made_tables
        assert store.batches() == []
    document: dict[str, Any] = json.loads(command("--dialect", "oracle", "--json")[1])
    assert document["statements"][0].startswith("CREATE TABLE schema_version")
    assert document["statements"][-1] == "COMMIT"


def test_tables_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "forcelift.yaml").write_text(PLAN, encoding="utf-8")
    first, second = (json.loads(command("--apply", "--json")[1]) for _ in range(2))
    assert (first["made"], second["made"]) == (True, False)
    assert command("--apply")[1].startswith("the audit tables are there already, in sqlite:///")
    code, _, errors = command("--apply", "--dialect", "oracle")
    assert code == ExitCode.USAGE
    assert "leave one of them out" in errors
