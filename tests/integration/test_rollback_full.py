"""A full rollback by date: what this migration created since then, or, with the object's name typed twice, all."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

import forcelift
from forcelift.cli.main import run_command
from forcelift.errors import ExitCode
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

OBJECTS: dict[str, Any] = {
    "Order__c": {
        "fields": {
            "Name": {"type": "string"},
            "Order_No__c": {"type": "string", "externalId": True, "unique": True},
            "Oracle_Created_Date__c": {"type": "date"},
        }
    }
}
PLAN = """\
version: 1
project: Full rollback
source: {{url: "duckdb:///source.duckdb"}}
target:
  url: {url}
  auth: {{flow: token, access_token: "${{FULL_TEST_TOKEN}}"}}
tables:
  - table: orders
    object: Order__c
    key: no
    external_id: Order_No__c
    created_field: Oracle_Created_Date__c
    fields: {{name: Name, made: Oracle_Created_Date__c}}
chunks: {{rows: 20}}
"""
ROWS = 60  # of 60 days from 2026-01-01 on


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TwinServer]:
    with duckdb.connect(str(tmp_path / "source.duckdb")) as connection:
        connection.execute(
            f"CREATE TABLE orders AS SELECT printf('O%03d', i) AS no, 'order ' || i AS name, "
            f"DATE '2026-01-01' + i::INTEGER AS made FROM range({ROWS}) AS r(i)"
        )
    monkeypatch.chdir(tmp_path)
    org = TwinOrg.open(None, schema=schema_from_dict({"objects": OBJECTS}))
    try:
        with TwinServer(org) as made:
            (tmp_path / "forcelift.yaml").write_text(PLAN.format(url=made.url), encoding="utf-8")
            monkeypatch.setenv("FULL_TEST_TOKEN", made.access_token)
            yield made
            assert made.internal_errors == []
    finally:
        org.close()


def call(server: TwinServer, method: str, path: str, **options: Any) -> Any:
    headers = {"Authorization": f"Bearer {server.access_token}"}
    answer = httpx.request(method, f"{server.url}/services/data/v66.0{path}", headers=headers, **options)
    return answer.raise_for_status().json() if answer.content else None


def names(server: TwinServer) -> set[str]:
    found = call(server, "GET", "/query", params={"q": "SELECT Order_No__c FROM Order__c"})
    return {record["Order_No__c"] for record in found["records"]}


def run(*words: str) -> tuple[int, dict[str, Any], str]:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = run_command([*words, "--json"])
    return code, json.loads(out.getvalue() or "{}"), err.getvalue()


def test_only_what_the_migration_created_since_the_date(server: TwinServer) -> None:
    body = {"Order_No__c": "theirs", "Oracle_Created_Date__c": "2026-02-20"}
    call(server, "POST", "/sobjects/Order__c", json=body)
    earlier = {"Order_No__c": "O050", "Name": "before", "Oracle_Created_Date__c": "2026-02-01"}
    call(server, "POST", "/sobjects/Order__c", json=earlier)
    assert run("run", "--batch", "first")[0] == 0
    shown = forcelift.full_rollback("order__C", "2026-02-01")
    assert (shown["executed"], shown["deleted"]) == (False, ROWS - 31 - 1)
    assert len(names(server)) == ROWS + 1

    done = forcelift.full_rollback("Order__c", "2026-02-01", execute=True, reason="wrong from February on", hard=False)
    assert (done["executed"], done["deleted"], done["kept"]) == (True, ROWS - 31 - 1, 0)
    assert names(server) == {f"O{day:03d}" for day in range(31)} | {"O050", "theirs"}
    # The part of the batch that is left can be taken back as well, and its changed record is put back.
    code, rest, _ = run("rollback", "first", "--execute", "--reason", "all of it")
    assert (code, rest["deleted"], rest["restored"]) == (0, 31, 1)
    assert names(server) == {"O050", "theirs"}


def test_all_records_need_the_objects_name_twice(server: TwinServer) -> None:
    body = {"Order_No__c": "theirs", "Oracle_Created_Date__c": "2026-02-20"}
    call(server, "POST", "/sobjects/Order__c", json=body)
    call(server, "POST", "/sobjects/Order__c", json={**body, "Order_No__c": "old", "Oracle_Created_Date__c": None})
    assert run("run", "--batch", "first")[0] == 0
    words = ("rollback", "--full", "Order__c", "--since", "2026-02-01", "--execute", "--reason", "drill")
    code, _, told = run(*words, "--all-records", "Orders__c")
    assert code == ExitCode.USAGE
    assert "type the object's API name" in told
    assert len(names(server)) == ROWS + 2
    # The org does not mind the case of an object's name.
    words = ("rollback", "--full", "order__c", "--since", "2026-02-01", "--execute", "--reason", "drill")
    code, done, told = run(*words, "--all-records", "ORDER__c", "--hard")
    assert code == 0, told
    assert done["deleted"] == ROWS - 31 + 1
    assert names(server) == {f"O{day:03d}" for day in range(31)} | {"old"}
