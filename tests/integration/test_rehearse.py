"""`forcelift rehearse`: the rows that it foretells are the rows that then fail, and what it cannot know it says."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
from tests.integration.cli_migration import Migration, soql_count
from tests.integration.prepare_fixtures import BIG, PRODUCTION, prepared_org

from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

SHOPS, SALES = 8, 400
SCHEMA: dict[str, Any] = {
    "org": PRODUCTION,
    "objects": {
        "Region__c": {
            "fields": {
                "Name": {"type": "string"},
                "Code__c": {"type": "string", "externalId": True, "unique": True},
                "Must__c": {"type": "string", "nillable": False},
            }
        },
        "Shop__c": {
            "fields": {
                "Name": {"type": "string"},
                "Code__c": {"type": "string", "externalId": True, "unique": True},
                "Region__c": {"type": "reference", "referenceTo": "Region__c", "relationshipName": "Region__r"},
            }
        },
        "Sale__c": {
            "fields": {
                "Name": {"type": "string"},
                "Sale__c": {"type": "string", "length": 20, "externalId": True, "unique": True},
                "Amount__c": {"type": "currency", "precision": 12, "scale": 2},
                "Kind__c": {"type": "picklist", "restrictedPicklist": True, "values": ["A", "B"]},
                "Note__c": {"type": "string", "length": 10},
                "Tag__c": {"type": "string", "length": 20, "unique": True},
                "Shop__c": {"type": "reference", "referenceTo": "Shop__c", "relationshipName": "Shop__r"},
            }
        },
    },
    "automations": {
        "validation_rules": [
            {
                "name": "No_Big",
                "object": "Sale__c",
                "formula": "Amount__c > 350",
                "error_message": "Too much",
                "error_field": "Amount__c",
            },
            {"name": "No_Empty", "object": "Sale__c", "formula": "ISBLANK(Note__c)", "error_message": "Say something"},
            {"name": "Must", "object": "Region__c", "formula": 'Must__c <> "x"', "error_message": "Must be x"},
        ],
    },
}
PLAN = """\
version: 1
project: Rehearsal test
source: {{url: "duckdb:///source.duckdb"}}
target:
  url: {url}
  auth: {{flow: token, access_token: "${{CLI_TEST_TOKEN}}"}}
tables:
  - table: shops
    object: Shop__c
    key: code
    external_id: Code__c
    fields: {{name: Name, region: Region__r.Code__c}}
  - table: sales
    object: Sale__c
    key: sale_id
    external_id: Sale__c
    fields:
      amount: Amount__c
      kind: {{field: Kind__c}}
      note: {{field: Note__c, too_long: reject}}
      tag: Tag__c
      shop: {{field: Shop__r.Code__c, parent: shops}}
chunks: {{rows: 50}}
"""


def _flow(name: str, *, effects: list[dict[str, Any]], process_type: str = "AutoLaunchedFlow") -> dict[str, Any]:
    """An active record-triggered flow, or a process."""
    return {
        "name": name,
        "object": "Sale__c",
        "process_type": process_type,
        "versions": [{"number": 1, "effects": effects}],
        "active_version": 1,
    }


@contextmanager
def _migration(folder: Path, monkeypatch: pytest.MonkeyPatch, automations: dict[str, Any]) -> Iterator[Migration]:
    with duckdb.connect(str(folder / "source.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE shops AS SELECT 'S' || i AS code, 'Shop ' || i AS name,"
            f" CASE WHEN i = 3 THEN 'NOWHERE' ELSE 'R' || (i % 2) END AS region FROM range({SHOPS}) r(i)"
        )
        connection.execute(
            "CREATE TABLE sales AS SELECT i AS sale_id, i::DECIMAL(12, 2) AS amount,"
            " CASE WHEN i % 29 = 0 THEN 'Z' ELSE 'A' END AS kind,"
            " CASE WHEN i % 31 = 0 THEN NULL WHEN i % 37 = 0 THEN 'far too long for it' ELSE 'note' END AS note,"
            # Within one chunk: which of two rows is the second does not hang on the order of jobs then.
            " 'tag ' || (CASE WHEN i % 50 = 49 THEN i - 1 ELSE i END) AS tag,"
            f" CASE WHEN i % 41 = 0 THEN 'OLD' WHEN i % 43 = 0 THEN 'GONE' ELSE 'S' || (i % {SHOPS}) END AS shop"
            f" FROM range({SALES}) r(i)"
        )
    schema = schema_from_dict({**SCHEMA, "automations": automations})
    with (
        (folder / "requests.log").open("w", encoding="utf-8") as log,
        TwinOrg.open(schema=schema) as org,
        TwinServer(org, log_file=log) as server,
    ):
        migration = Migration(folder=folder, org=org, server=server)
        migration.plan.write_text(PLAN.format(url=server.url), encoding="utf-8")
        monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
        monkeypatch.chdir(folder)
        _insert(server, "Shop__c", {"Name": "Old", "Code__c": "OLD"})  # in the org already, and not in the source
        for code in ("R0", "R1"):
            _insert(server, "Region__c", {"Name": code, "Code__c": code, "Must__c": "x"})
        yield migration
        assert server.internal_errors == []


def _insert(server: TwinServer, name: str, record: dict[str, Any]) -> None:
    answer = httpx.post(
        f"{server.url}/services/data/v66.0/sobjects/{name}",
        json=record,
        headers={"Authorization": f"Bearer {server.access_token}"},
    )
    assert answer.status_code == 201, answer.text


def _failed(folder: Path) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(folder / "state" / "audit.db")) as audit:
        query = "SELECT TABLE_NAME, RECORD_ID FROM MIGRATION_FAILED_RECORDS"
        return set(audit.execute(query).fetchall())


def _requests(folder: Path) -> list[tuple[str, str]]:
    """Method and path of every request that the org was sent, by its own log."""
    lines = (folder / "requests.log").read_text(encoding="utf-8").splitlines()
    return [(one["method"], one["path"]) for one in map(json.loads, lines)]


def _foretold(file: Path) -> set[tuple[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        return {(row["table"], row["key"]) for row in csv.DictReader(lines)}


@pytest.fixture
def automations() -> dict[str, Any]:
    return dict(SCHEMA["automations"])


def test_what_is_foretold_is_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, automations: dict[str, Any]
) -> None:
    with _migration(tmp_path, monkeypatch, automations) as migration:
        before = {name: soql_count(migration.server, name) for name in SCHEMA["objects"]}
        asked_before = len(_requests(tmp_path))
        document = migration.document("rehearse", "--export-keys", "keys.csv", code=1)
        sent = _requests(tmp_path)[asked_before:]
        assert sent
        writes = [path for method, path in sent if method != "GET" and "/jobs/query" not in path]
        assert writes == [], "bulk queries are made and removed again; nothing else is written, by the org's own log"
        assert document["is_certain"], document["cannot_know"]
        assert {name: soql_count(migration.server, name) for name in SCHEMA["objects"]} == before, "nothing is written"
        assert not list((tmp_path / "state" / "rehearsals").iterdir()), "nothing is left"
        foretold = _foretold(tmp_path / "keys.csv")
        assert document["parents_taken"] == {"Shop__c": 1, "Region__c": 2}
        waive_all(migration)
        done = migration.run("run")
        assert done.returncode == 1, done.stderr
        failed = _failed(tmp_path)
        assert len(failed) > 60
        assert foretold == failed
        assert document["would_fail"] == len(failed)
        by_rule = {one["rule"]: one["rows"] for one in document["foretold"] if one["rule"]}
        assert set(by_rule) == {"Sale__c.No_Big", "Sale__c.No_Empty"}
        codes = {one["code"] for one in document["foretold"]}
        assert {"DUPLICATE_VALUE", "FIELD_CUSTOM_VALIDATION_EXCEPTION"} <= codes


@pytest.mark.slow
def test_a_sample_and_what_prepare_switches_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, automations: dict[str, Any]
) -> None:
    with _migration(tmp_path, monkeypatch, automations) as migration:
        sample = migration.document("rehearse", "--sample-percent", "20", code=1)
        assert sample["sample_percent"] == "20"
        assert 0 < sum(table["rows"] for table in sample["tables"]) < SALES
        prepared = migration.document("rehearse", "--prepared", code=1)
        assert not [one for one in prepared["foretold"] if one["rule"]]


@pytest.mark.slow
def test_what_is_foretold_of_a_sample_is_what_fails_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, automations: dict[str, Any]
) -> None:
    with _migration(tmp_path, monkeypatch, automations) as migration:
        migration.document("rehearse", "--sample-percent", "20", "--export-keys", "keys.csv", code=1)
        waive_all(migration)
        done = migration.run("run", "--sample-percent", "20")
        assert done.returncode == 1, done.stderr
        failed = _failed(tmp_path)
        assert len(failed) > 5
        assert _foretold(tmp_path / "keys.csv") == failed, "a run draws the same sample"


def waive_all(migration: Migration) -> None:
    """So that the org, a production org, is loaded at all."""
    migration.run("check")
    waivers = ("data_profiling", "backup", "automations_off", "dry_run", "sign_off")
    for name in (*waivers, "required_fields", "source_keys"):
        migration.run("checklist", "waive", name, "--by", "A drill", "--reason", "the prediction is tested")


@pytest.mark.slow
def test_lookups_by_salesforce_ids_are_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, automations: dict[str, Any]
) -> None:
    """The org takes them, and a twin, whose records have Ids of their own, would refuse them all."""
    with _migration(tmp_path, monkeypatch, automations) as migration:
        query = httpx.get(
            f"{migration.server.url}/services/data/v66.0/query",
            params={"q": "SELECT Id FROM Shop__c"},
            headers={"Authorization": f"Bearer {migration.server.access_token}"},
        )
        (shop,) = (record["Id"] for record in query.json()["records"])
        with duckdb.connect(str(tmp_path / "source.duckdb")) as connection:
            connection.execute(f"UPDATE sales SET shop = '{shop}'")
        text = migration.plan.read_text(encoding="utf-8")
        text = text.replace("shop: {field: Shop__r.Code__c, parent: shops}", "shop: Shop__c")
        migration.plan.write_text(text, encoding="utf-8")
        document = migration.document("rehearse", "--export-keys", "keys.csv", code=1)
        assert not document["is_certain"]
        assert [line[:50] for line in document["cannot_know"]] == ["lookup Sale__c.Shop__c is filled with Salesforce I"]
        waive_all(migration)
        assert migration.run("run").returncode == 1
        failed = _failed(tmp_path)
        assert len(failed) > 60
        assert _foretold(tmp_path / "keys.csv") == failed


def test_what_a_snapshot_cannot_express_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with prepared_org(tmp_path) as made:
        monkeypatch.setenv("CLI_TEST_TOKEN", made.server.access_token)
        monkeypatch.chdir(tmp_path)
        document = made.document("rehearse", code=1)
        said = " / ".join(document["cannot_know"])
        for name in ("SaleTrigger", "Sale_Flow", "Old_Process", "Set_Group", "Twice"):
            assert name in said
        for name in ("SleepingTrigger", "Draft_Flow", "Idle_Rule", "Never"):
            assert name not in said
        assert not document["is_certain"]
        shown = made.run("rehearse").stdout.splitlines()
        assert shown[1].startswith("What the twin cannot act out")
        prepared = made.document("rehearse", "--prepared", code=0)
        assert prepared["is_certain"], prepared["cannot_know"]
        assert prepared["would_fail"] == 0


_FILLED = [{"effect": "fill", "field": "Amount__c", "value": 5000, "when": "Amount__c = 20"}]
_REFUSED = [{"effect": "reject", "message": "no", "when": "Amount__c > 30"}]
ON = {
    "trigger": {"triggers": [{"name": "Bad", "object": "Sale__c", "effects": _REFUSED}]},
    "flow": {"flows": [_flow("Bad", effects=_REFUSED)]},
    "process": {"flows": [_flow("Bad", effects=_REFUSED, process_type="Workflow")]},
    "trigger that spoils": {"triggers": [{"name": "Bad", "object": "Sale__c", "effects": _FILLED}]},
    "trigger that mends": {
        "triggers": [
            {
                "name": "Bad",
                "object": "Sale__c",
                "effects": [{"effect": "fill", "field": "Amount__c", "value": 1, "when": "Amount__c > 1004"}],
            }
        ]
    },
    "workflow rule": {
        "workflow_rules": [
            {
                "name": "Bad",
                "object": "Sale__c",
                "condition": "Amount__c = 20",
                "field_updates": [{"field": "Group__c", "value": "far longer than the field's twenty"}],
            }
        ]
    },
    "duplicate rule": {"duplicate_rules": [{"name": "Bad", "object": "Sale__c", "match_fields": ["Group__c"]}]},
}


@pytest.mark.parametrize(
    "kind", [kind if kind == "trigger" else pytest.param(kind, marks=pytest.mark.slow) for kind in ON]
)
def test_what_an_automation_alone_decides_cannot_be_known_and_is_said(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the one kind on, other rows may fail than are foretold, which is said; with it off, the very same fail."""
    off: dict[str, Any] = {name: [] for name in ("triggers", "flows", "workflow_rules", "duplicate_rules")}
    with prepared_org(tmp_path, **(off | ON[kind])) as made:
        monkeypatch.setenv("CLI_TEST_TOKEN", made.server.access_token)
        monkeypatch.chdir(tmp_path)
        document = made.document("rehearse", "--export-keys", "keys.csv", code=1)
        assert not document["is_certain"]
        assert len(document["cannot_know"]) == 1
        assert "Bad" in document["cannot_know"][0]
        foretold = _foretold(tmp_path / "keys.csv")
        assert len(foretold) == BIG, "the validation rule's"
        # As after `prepare`: the validation rule is left on, so that something fails.
        made.write_plan(leave_on="Sale__c.No_Big")
        prepared = made.document("rehearse", "--prepared", "--export-keys", "prepared.csv", code=1)
        assert prepared["is_certain"], prepared["cannot_know"]
        assert made.run("run", "--prepare", "--batch", "without").returncode == 1
        assert _failed(tmp_path) == _foretold(tmp_path / "prepared.csv") == foretold
        made.run("run", "--batch", "with")
        with closing(sqlite3.connect(tmp_path / "state" / "audit.db")) as audit:
            query = (
                "SELECT RECORD_ID FROM MIGRATION_FAILED_RECORDS WHERE AUDIT_ID IN"
                " (SELECT AUDIT_ID FROM MIGRATION_AUDIT_LOG WHERE BATCH_ID = 'with')"
            )
            failed = {key for (key,) in audit.execute(query)}
        # No two rows of this source are duplicates, which nobody can know without the fields that the rule matches by.
        assert (failed == {key for _, key in foretold}) == (kind == "duplicate rule")


def test_it_is_evidence_and_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, automations: dict[str, Any]
) -> None:
    with _migration(tmp_path, monkeypatch, automations) as migration:
        document = migration.document("rehearse", "--keep", code=1)
        folder = Path(document["folder"])
        assert (folder / "audit.db").is_file()
        assert folder.stat().st_mode & 0o777 == 0o700
        with closing(sqlite3.connect(tmp_path / "state" / "audit.db")) as audit:
            rows = audit.execute("SELECT kind, passed FROM evidence").fetchall()
        assert rows == [("rehearsal", 0)]


def test_an_org_that_cannot_be_asked_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, automations: dict[str, Any]
) -> None:
    with _migration(tmp_path, monkeypatch, automations) as migration:
        monkeypatch.setenv("CLI_TEST_TOKEN", "wrong")
        refused = migration.run("rehearse")
        assert refused.returncode == 5
        assert not list((tmp_path / "state" / "rehearsals").iterdir())
