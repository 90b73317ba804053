"""`forcelift rehearse` over the kinds of a plan: what it foretells of each is what then fails in the org."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
from tests.integration.cli_migration import Migration, soql_count

from forcelift.people_csv import read_rows
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

PEOPLE, LOGS = 200, 60
SCHEMA: dict[str, Any] = {
    "org": {"name": "Sand", "edition": "Unlimited Edition", "sandbox": True},
    "users": [{"username": "admin@kinds.test", "permissions": ["bulk_hard_delete"]}, {"username": "clerk@kinds.test"}],
    "objects": {
        "Person__c": {
            "fields": {
                "Name": {"type": "string"},
                "Code__c": {"type": "string", "length": 20, "externalId": True, "unique": True},
                "Mail__c": {"type": "string", "length": 40, "unique": True},
                "Must__c": {"type": "string", "length": 20, "nillable": False},
                "Amount__c": {"type": "currency", "precision": 12, "scale": 2},
                "Locked__c": {"type": "string", "length": 20},
                "Kind__c": {"type": "picklist", "restrictedPicklist": True, "values": ["A", "B", "C"]},
                "Boss__c": {"type": "reference", "referenceTo": "Person__c", "relationshipName": "Boss__r"},
            },
            "record_types": [
                {"name": "Retail", "developerName": "Retail", "picklistValues": {"Kind__c": ["A", "B"]}},
                {"name": "Trade", "developerName": "Trade", "picklistValues": {"Kind__c": ["A", "B", "C"]}},
            ],
        },
        "Log__c": {
            "fields": {
                "Name": {"type": "string"},
                "Key__c": {"type": "string", "length": 20, "externalId": True, "unique": True},
                "Serial__c": {"type": "string", "length": 20, "unique": True},
                "Amount__c": {"type": "double", "precision": 12, "scale": 0},
                "Person__c": {"type": "reference", "referenceTo": "Person__c", "relationshipName": "Person__r"},
            }
        },
    },
    "automations": {
        "validation_rules": [
            {"name": "No_Big", "object": "Person__c", "formula": "Amount__c > 150", "error_message": "Too much"},
            {
                "name": "Locked",
                "object": "Person__c",
                "formula": 'AND(Locked__c = "yes", Amount__c > 0)',
                "error_message": "It is locked",
            },
            {"name": "Even", "object": "Log__c", "formula": "MOD(Amount__c, 7) = 3", "error_message": "No sevens"},
        ],
    },
}
PLAN = """\
version: 1
project: Kinds test
source: {{url: "duckdb:///source.duckdb"}}
target:
  url: {url}
  auth: {{flow: token, access_token: "${{CLI_TEST_TOKEN}}"}}
tables:
  - table: people
    object: Person__c
    key: code
    external_id: Code__c
    duplicates: merge
    changed_at: changed
    fields:
      mail: Mail__c
      must: Must__c
      amount: {{field: Amount__c, merge: sum}}
      kind: Kind__c
      boss: {{field: Boss__r.Code__c, parent: people}}
    constants:
      RecordTypeId: {{record_type: Retail}}
      OwnerId: {{owner: clerk@kinds.test}}
  - table: logs
    object: Log__c
    operation: insert
    key: log_id
    external_id: Key__c
    fields:
      serial: Serial__c
      amount: Amount__c
      person: {{field: Person__r.Code__c, parent: people}}
chunks: {{rows: 50}}
"""


@contextmanager
def kinds_migration(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    with duckdb.connect(str(folder / "source.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE people AS SELECT 'P' || i AS code, TIMESTAMP '2026-01-01' + INTERVAL (i) MINUTE AS changed,"
            " CASE WHEN i = 10 THEN 'taken@x' WHEN i % 50 = 49 THEN 'm' || (i - 1) ELSE 'm' || i END AS mail,"
            " CASE WHEN i % 23 = 7 THEN NULL ELSE 'x' END AS must, i::DECIMAL(12, 2) AS amount,"
            " CASE WHEN i % 29 = 11 THEN 'Z' ELSE 'A' END AS kind,"
            " CASE WHEN i % 31 = 0 THEN NULL WHEN i % 37 = 1 THEN 'NOBODY' WHEN i = 12 THEN 'OLD'"
            f" ELSE 'P' || ((i * 7 + 1) % {PEOPLE}) END AS boss FROM range({PEOPLE}) r(i)"
        )
        # Copies that are merged: their sum is over what the rule takes, while neither is.
        connection.execute(
            "INSERT INTO people SELECT 'P' || i, TIMESTAMP '2026-02-01', 'n' || i, 'x', 100, 'A', NULL"
            " FROM range(60, 90, 5) r(i)"
        )
        connection.execute(
            "CREATE TABLE logs AS SELECT i AS log_id, CASE WHEN i = 4 THEN 'S-OLD' ELSE 'S' || i END AS serial,"
            f" i AS amount, 'P' || i AS person FROM range({LOGS}) r(i)"
        )
    with TwinOrg.open(schema=schema_from_dict(SCHEMA)) as org, TwinServer(org) as server:
        migration = Migration(folder=folder, org=org, server=server)
        migration.plan.write_text(PLAN.format(url=server.url), encoding="utf-8")
        monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
        monkeypatch.chdir(folder)
        _insert(server, "Person__c", {"Name": "Old", "Code__c": "OLD", "Mail__c": "taken@x", "Must__c": "x"})
        _insert(server, "Person__c", {"Name": "P3", "Code__c": "P3", "Mail__c": "was3", "Must__c": "x"})
        _insert(server, "Log__c", {"Name": "Old", "Key__c": "OLD", "Serial__c": "S-OLD"})
        _insert(server, "Log__c", {"Name": "Old 9", "Key__c": "9"})
        locked = {"Name": "P6", "Code__c": "P6", "Mail__c": "was6", "Must__c": "x", "Locked__c": "yes"}
        _insert(server, "Person__c", locked)
        yield migration
        assert server.internal_errors == []


def _insert(server: TwinServer, name: str, record: dict[str, Any]) -> str:
    answer = httpx.post(
        f"{server.url}/services/data/v66.0/sobjects/{name}",
        json=record,
        headers={"Authorization": f"Bearer {server.access_token}"},
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def failed_rows(folder: Path) -> set[tuple[str, str, str]]:
    with closing(sqlite3.connect(folder / "state" / "audit.db")) as audit:
        query = "SELECT TABLE_NAME, RECORD_ID, SF_ERROR_CODE FROM MIGRATION_FAILED_RECORDS"
        return set(audit.execute(query).fetchall())


def foretold_rows(file: Path) -> set[tuple[str, str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        return {(row["table"], row["key"], row["code"]) for row in csv.DictReader(lines)}


def test_what_is_foretold_of_every_kind_is_what_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kinds_migration(tmp_path, monkeypatch) as migration:
        before = {name: soql_count(migration.server, name) for name in SCHEMA["objects"]}
        document = migration.document("rehearse", "--export-keys", "keys.csv", code=1)
        assert {name: soql_count(migration.server, name) for name in SCHEMA["objects"]} == before
        # Z is no value at all, which a describe tells; that C is none of the record type's it does not.
        assert document["cannot_know"] == [
            "picklist Person__c.Kind__c: which values each record type takes cannot be known"
        ]
        assert not document["is_certain"]
        foretold = foretold_rows(tmp_path / "keys.csv")
        done = migration.run("run")
        assert done.returncode == 1, done.stderr
        failed = failed_rows(tmp_path)
        assert sorted(foretold - failed) == sorted(failed - foretold) == [], (done.stdout, len(foretold))
        tables = {table for table, _, _ in failed}
        assert tables == {"people", "logs"}
        assert ("people", "P10") in {(table, key) for table, key, _ in failed}, "its mail is taken in the org"
        assert ("people", "P6") in {(table, key) for table, key, _ in failed}, "the org's record is locked"
        assert ("logs", "4") in {(table, key) for table, key, _ in failed}, "its serial is taken in the org"
        assert ("logs", "9") in {(table, key) for table, key, _ in failed}, "it is in the org, and is inserted"


def test_what_profile_foretells_is_what_the_rules_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With automations on: by key and code all rows that our rules keep out, but for children of what the org refuses.

    `rehearse` knows these, too (above), since it has the org's rules.
    """
    with kinds_migration(tmp_path, monkeypatch) as migration:
        migration.run("profile", "--export-keys", "found")
        foretold = {
            (file.name.partition(".")[0], row["key"], row["code"])
            for word in ("rejected", "failed")
            for file in (tmp_path / "found").glob(f"*.{word}.csv")
            for row in read_rows(file, ("key", "code"))
        }
        done = migration.run("run")
        assert done.returncode == 1, done.stderr
        failed = failed_rows(tmp_path)
        rejected = {one for one in failed if one[2].startswith("REJECTED_")}
        assert len(foretold) > 20
        assert len(failed) > len(rejected), "what only the org refuses"
        # A row that the org refuses for something else has the org's reason.
        instead = {(table, key): code for table, key, code in failed - rejected}
        assert all((table, key) in instead for table, key, _ in foretold - rejected)
        refused = {key for table, key, _ in failed if table == "people"}
        for table, key, code in rejected - foretold:
            number = int(key.removeprefix("P"))
            parent = f"P{(number * 7 + 1) % PEOPLE}" if table == "people" else f"P{number}"
            assert (code, parent in refused) == ("REJECTED_MISSING_PARENT", True), (table, key)
