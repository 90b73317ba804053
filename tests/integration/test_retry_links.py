"""A retry of rows whose links were refused after their record had been made: by upsert, and by insert."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from tests.integration.cli_migration import Migration
from tests.integration.test_failed_retry import audit, outcomes, proved, query

from forcelift.errors import ExitCode
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

PEOPLE = 40
PLAN = """\
version: 1
project: Links
source: {{url: "duckdb:///source.duckdb"}}
target:
  url: {url}
  auth: {{flow: token, access_token: "${{CLI_TEST_TOKEN}}"}}
tables:
  - table: people
    object: Person__c
    key: code
    external_id: Code__c
    operation: {operation}
    fields:
      code: Code__c
      town: {{field: Town__c, too_long: {too_long}}}
      boss: {{field: Boss__r.Code__c, parent: people, missing_parent: reject}}
chunks: {{rows: 15}}
"""
OBJECTS = {
    "Person__c": {
        "fields": {
            "Name": {"type": "string"},
            "Code__c": {"type": "string", "externalId": True, "unique": True},
            "Town__c": {"type": "string", "length": 10},
            "Boss__c": {"type": "reference", "referenceTo": "Person__c", "relationshipName": "Boss__r"},
        }
    }
}


@pytest.fixture
def migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    with duckdb.connect(str(tmp_path / "source.duckdb")) as source:
        source.execute(
            "CREATE TABLE people AS SELECT 'P' || i AS code,"
            " CASE WHEN i = 7 THEN repeat('x', 20) ELSE 'town' END AS town,"
            f" CASE WHEN i IN (3, 20, 33) THEN 'P7' WHEN i > 5 THEN 'P1' END AS boss FROM range({PEOPLE}) AS r(i)"
        )
    monkeypatch.chdir(tmp_path)
    org = TwinOrg.open(None, schema=schema_from_dict({"objects": OBJECTS}))
    try:
        with TwinServer(org) as server:
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            yield Migration(folder=tmp_path, org=org, server=server)
            assert server.internal_errors == []
    finally:
        org.close()


@pytest.mark.parametrize("operation", ["upsert", "insert"])
def test_links_are_sent_once_their_parent_stands(migration: Migration, operation: str) -> None:
    def write(too_long: str) -> None:
        text = PLAN.format(url=migration.server.url, operation=operation, too_long=too_long)
        migration.plan.write_text(text, encoding="utf-8")

    write("reject")
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    # The three were made by the load, and their links refused by the rule.
    assert migration.count("Person__c") == PEOPLE - 1
    assert outcomes(migration, "first") == {
        ("people", "created"): PEOPLE - 4,
        ("people", "failed"): 3,
        ("people", "rejected"): 1,
    }
    write("truncate")
    done = migration.document("failed", "retry")
    assert (done["rows"], done["mended"]) == (4, 4)
    assert migration.count("Person__c") == PEOPLE
    assert len(query(migration, "SELECT Id FROM Person__c WHERE Boss__r.Code__c = 'P7'")) == 3
    assert outcomes(migration, "first") == {("people", "created"): PEOPLE}
    sent = audit(migration, "SELECT SUM(rows) FROM job WHERE kind = 'retry'")
    assert sent == [(4 if operation == "upsert" else 1,)]
    proved(migration, "first")
    undone = migration.document("rollback", "first", "--execute", "--reason", "all of it")
    assert (undone["deleted"], undone["kept"], migration.count("Person__c")) == (PEOPLE, 0, 0)
