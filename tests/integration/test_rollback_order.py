"""In which order a rollback deletes: what hangs on a record goes before it, and a child that the org keeps keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
from tests.integration.cli_migration import (
    CLI_OBJECTS,
    ORPHANS,
    SALES,
    TENANTS,
    Migration,
    make_source,
    write_plan,
)

from forcelift.errors import ExitCode
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

GOOD = SALES - ORPHANS
BASE = "/services/data/v66.0"
ROLL_BACK = ("rollback", "first", "--execute", "--reason", "wrong prices")
DEPTH = 6
CHAINS = 7


@contextmanager
def served(
    folder: Path, monkeypatch: pytest.MonkeyPatch, objects: dict[str, Any], plan: str | None
) -> Iterator[Migration]:
    monkeypatch.chdir(folder)
    org = TwinOrg.open(None, schema=schema_from_dict({"objects": objects}))
    try:
        with TwinServer(org) as server:
            if plan is None:
                write_plan(folder, server)
            else:
                (folder / "forcelift.yaml").write_text(plan.format(url=server.url), encoding="utf-8")
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            yield Migration(folder=folder, org=org, server=server)
            assert server.internal_errors == []
    finally:
        org.close()


def call(migration: Migration, method: str, path: str, **options: Any) -> Any:
    headers = {"Authorization": f"Bearer {migration.server.access_token}"}
    answer = httpx.request(method, f"{migration.server.url}{BASE}{path}", headers=headers, **options)
    return answer.raise_for_status().json() if answer.content else None


def refuse_deletes(migration: Migration, object_name: str, where: str) -> None:
    """A trigger of the org lets nobody delete these records."""
    headers = {"Authorization": f"Bearer {migration.server.control_token}"}
    order = {"action": "trigger_exception", "object": object_name, "where": where, "times": None}
    httpx.post(f"{migration.server.url}/__twin__/faults", headers=headers, json=[order]).raise_for_status()


def kept(document: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {
        table["table"]: {group["code"]: group["records"] for group in table["kept"]}
        for table in document["tables"]
        if table["kept"]
    }


@pytest.mark.parametrize("is_master", [False, True])
def test_a_child_that_the_org_does_not_delete_keeps_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_master: bool
) -> None:
    """With a lookup the org would empty it, with a master it would delete the child along: both would go unreported."""
    make_source(tmp_path)
    lookup = dict(CLI_OBJECTS["Sale__c"]["fields"]["Tenant__c"]) | ({"relationshipOrder": 0} if is_master else {})
    sale = {"fields": {**CLI_OBJECTS["Sale__c"]["fields"], "Tenant__c": lookup}}
    with served(tmp_path, monkeypatch, {**CLI_OBJECTS, "Sale__c": sale}, None) as migration:
        migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
        before = call(migration, "GET", "/sobjects/Sale__c/Sale__c/300")
        refuse_deletes(migration, "Sale__c", "Sale__c = '300'")
        done = migration.document(*ROLL_BACK, code=ExitCode.ROWS_REFUSED)
        assert kept(done) == {
            "tenants": {"CHILDREN_OF_OTHERS": 1},
            "sales": {"CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY": 1},
        }
        assert done["deleted"] == GOOD - 1 + TENANTS - 1
        after = call(migration, "GET", "/sobjects/Sale__c/Sale__c/300")
        assert (after["Tenant__c"], after["SystemModstamp"]) == (before["Tenant__c"], before["SystemModstamp"])
        assert (migration.count("Sale__c"), migration.count("Tenant__c")) == (1, 1)


SELF_PLAN = """\
version: 1
project: Nodes
source: {{url: "duckdb:///source.duckdb"}}
target:
  url: {url}
  auth: {{flow: token, access_token: "${{CLI_TEST_TOKEN}}"}}
tables:
  - table: nodes
    object: Node__c
    key: code
    external_id: Code__c
    fields:
      name: Name
      above: {{field: Above__r.Code__c, parent: nodes}}
chunks: {{rows: 10}}
limits: {{parallel_jobs: 3}}
"""


def self_objects(*, restricted: bool) -> dict[str, Any]:
    above = {"type": "reference", "referenceTo": "Node__c", "relationshipName": "Above__r"}
    return {
        "Node__c": {
            "fields": {
                "Name": {"type": "string"},
                "Code__c": {"type": "string", "externalId": True, "unique": True},
                "Above__c": {**above, "restrictedDelete": restricted},
            }
        }
    }


def make_nodes(folder: Path) -> None:
    """Chains of records, each hanging on the one before; the order of keys has nothing to do with it."""
    with duckdb.connect(str(folder / "source.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE nodes AS SELECT printf('N%03d', (c * 31 + d * 17) % 97) AS code, "
            "printf('%d-%d', c, d) AS name, "
            "CASE WHEN d > 0 THEN printf('N%03d', (c * 31 + (d - 1) * 17) % 97) END AS above "
            f"FROM range({CHAINS}) AS a(c), range({DEPTH}) AS b(d)"
        )


def test_records_of_one_table_go_after_those_that_hang_on_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lookup forbids that a record goes while another hangs on it; chunks and jobs cut across the chains."""
    make_nodes(tmp_path)
    with served(tmp_path, monkeypatch, self_objects(restricted=True), SELF_PLAN) as migration:
        assert migration.document("run", "--batch", "first")["tables"][0]["created"] == CHAINS * DEPTH
        done = migration.document(*ROLL_BACK)
        assert (done["deleted"], done["kept"]) == (CHAINS * DEPTH, 0)
        assert migration.count("Node__c") == 0


@pytest.mark.parametrize("restricted", [False, True])
def test_one_that_stays_in_the_middle_keeps_all_above_it_and_none_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restricted: bool
) -> None:
    make_nodes(tmp_path)
    with served(tmp_path, monkeypatch, self_objects(restricted=restricted), SELF_PLAN) as migration:
        migration.document("run", "--batch", "first")
        refuse_deletes(migration, "Node__c", "Name = '3-2'")
        done = migration.document(*ROLL_BACK, code=ExitCode.ROWS_REFUSED)
        found = call(migration, "GET", "/query", params={"q": "SELECT Name, Above__r.Name FROM Node__c"})["records"]
        above = {one["Name"]: (one["Above__r"] or {}).get("Name") for one in found}
        assert above == {"3-0": None, "3-1": "3-0", "3-2": "3-1"}
        assert kept(done) == {"nodes": {"CHILDREN_OF_OTHERS": 2, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY": 1}}
