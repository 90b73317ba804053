"""What the tests of `prepare` and `restore` share: an org with five kinds of automations, and a plan for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
from tests.integration.cli_migration import Migration
from tests.integration.twin_front_fixtures import TOOLING, retrieved, tooling
from tests.integration.twin_http_fixtures import Client

from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

SANDBOX = {"name": "Sand", "edition": "Unlimited Edition", "sandbox": True}
PRODUCTION = {"name": "Prod", "edition": "Enterprise Edition", "sandbox": False}

OBJECTS: dict[str, Any] = {
    "Sale__c": {
        "fields": {
            "Name": {"type": "string"},
            "Sale__c": {"type": "string", "length": 20, "externalId": True, "unique": True},
            "Amount__c": {"type": "currency", "precision": 12, "scale": 2},
            "Group__c": {"type": "string", "length": 20},
        }
    },
    "Other__c": {"fields": {"Name": {"type": "string"}, "Amount__c": {"type": "double", "precision": 12, "scale": 0}}},
}

AUTOMATIONS: dict[str, Any] = {
    "validation_rules": [
        {
            "name": "No_Big",
            "object": "Sale__c",
            "formula": "Amount__c > 100",
            "error_message": "Too much & <more>",
            "error_field": "Amount__c",
            "description": "Guards the till",
        },
        {"name": "Asleep", "object": "Sale__c", "formula": "Amount__c > 1", "error_message": "-", "active": False},
        {"name": "Packed", "object": "Sale__c", "formula": "false", "error_message": "-", "namespace": "pkg"},
        {"name": "Elsewhere", "object": "Other__c", "formula": "Amount__c > 100", "error_message": "no"},
    ],
    "triggers": [
        {
            "name": "SaleTrigger",
            "object": "Sale__c",
            "events": ["before insert", "after update"],
            "effects": [{"effect": "fill", "field": "Group__c", "value": "by trigger"}],
            "body": "trigger SaleTrigger on Sale__c (before insert, after update) {\n    // ยอดขาย\n}\n",
            "api_version": 58.0,
        },
        {"name": "SleepingTrigger", "object": "Sale__c", "active": False},
    ],
    "flows": [
        {
            "name": "Sale_Flow",
            "object": "Sale__c",
            "versions": [{"number": 1}, {"number": 2}, {"number": 3}],
            "active_version": 2,
        },
        {
            "name": "Old_Process",
            "object": "Sale__c",
            "process_type": "Workflow",
            "versions": [{"number": 1}],
            "active_version": 1,
        },
        {"name": "Draft_Flow", "object": "Sale__c"},
    ],
    "workflow_rules": [
        {
            "name": "Set_Group",
            "object": "Sale__c",
            "condition": "ISBLANK(Group__c)",
            "field_updates": [{"field": "Group__c", "value": "none"}],
        },
        {"name": "Idle_Rule", "object": "Sale__c", "condition": "false", "active": False},
    ],
    "duplicate_rules": [
        {"name": "Twice", "object": "Sale__c", "match_fields": ["Sale__c"]},
        {"name": "Never", "object": "Sale__c", "match_fields": ["Group__c"], "active": False},
    ],
    "apex_tests": {"classes": ["SaleTest", "OtherTest"], "coverage": 80},
}

# What is active on the plan's object and can be switched.
SWITCHED = {
    ("trigger", "SaleTrigger"),
    ("flow", "Sale_Flow"),
    ("flow", "Old_Process"),
    ("workflow_rule", "Sale__c.Set_Group"),
    ("validation_rule", "Sale__c.No_Big"),
    ("duplicate_rule", "Sale__c.Twice"),
}
ROWS = 40
BIG = 10  # rows that the validation rule would refuse

PLAN = """\
version: 1
project: Prepare test
source: {{url: "duckdb:///source.duckdb"}}
target:
  url: {url}
  auth: {{flow: token, access_token: "${{CLI_TEST_TOKEN}}"}}
tables:
  - table: sales
    object: Sale__c
    key: sale_id
    external_id: {external_id}
    fields:
      amount: Amount__c
chunks: {{rows: 10}}
limits: {{parallel_jobs: 2}}
prepare: {{leave_on: [{leave_on}]{more}}}
"""


class PreparedOrg(Migration):
    """A plan, its source, and an org with automations."""

    @property
    def client(self) -> Client:
        return Client(self.server)

    def write_plan(
        self, name: str = "forcelift.yaml", *, leave_on: str = "", more: str = "", external_id: str = "Sale__c"
    ) -> None:
        text = PLAN.format(url=self.server.url, leave_on=leave_on, more=more, external_id=external_id)
        (self.folder / name).write_text(text, encoding="utf-8")

    def picture(self) -> dict[str, Any]:
        """All automations of the org, byte for byte, by calls of a client that is not ours."""
        with self.client as client:
            picture: dict[str, Any] = {}
            for kind in ("ValidationRule", "WorkflowRule", "FlowDefinition", "ApexTrigger"):
                for row in tooling(client, f"SELECT Id FROM {kind} ORDER BY Id"):
                    answer = client.get(f"{TOOLING}/sobjects/{kind}/{row['Id']}")
                    assert answer.status_code == 200, answer.text
                    picture[f"{kind} {row['Id']}"] = answer.text
            types = "".join(
                f"<types><members>*</members><name>{kind}</name></types>"
                for kind in ("ApexTrigger", "DuplicateRule", "FlowDefinition", "ValidationRule", "WorkflowRule")
            )
            return picture | retrieved(client, types)

    def active(self) -> set[tuple[str, str]]:
        """What acts on records now, by the twin's own state."""
        words = {
            "validation_rules": "validation_rule",
            "triggers": "trigger",
            "flows": "flow",
            "workflow_rules": "workflow_rule",
            "duplicate_rules": "duplicate_rule",
        }
        return {(words[kind], one.full_name) for kind, one in self.org.automations.current().each() if one.active}

    def field(self, name: str, object_name: str = "Sale__c") -> dict[str, Any]:
        """The definition of a custom field, by a client that is not ours."""
        with self.client as client:
            where = (
                f"DeveloperName = '{name.removesuffix('__c')}' AND EntityDefinition.QualifiedApiName = '{object_name}'"
            )
            (row,) = tooling(client, f"SELECT Id FROM CustomField WHERE {where}")
            found: dict[str, Any] = client.get(f"{TOOLING}/sobjects/CustomField/{row['Id']}").json()["Metadata"]
            return found

    def change_rule(self, name: str = "No_Big", **members: Any) -> None:
        """What an administrator does meanwhile, by another client."""
        with self.client as client:
            (row,) = tooling(client, f"SELECT Id FROM ValidationRule WHERE ValidationName = '{name}'")
            url = f"{TOOLING}/sobjects/ValidationRule/{row['Id']}"
            found = client.get(url).json()
            body = {"FullName": found["FullName"], "Metadata": {**found["Metadata"], **members}}
            answer = client.patch(url, json=body)
            assert answer.status_code == 204, answer.text


@contextmanager
def prepared_org(
    folder: Path, *, org: dict[str, Any] | None = None, objects: dict[str, Any] | None = None, **changes: Any
) -> Iterator[PreparedOrg]:
    document = {"org": org or SANDBOX, "objects": objects or OBJECTS, "automations": {**AUTOMATIONS, **changes}}
    with duckdb.connect(str(folder / "source.duckdb")) as connection:
        connection.execute(
            f"CREATE TABLE sales AS SELECT i AS sale_id, CAST(CASE WHEN i < {BIG} THEN 1000 + i ELSE i END"
            f" AS DECIMAL(12, 2)) AS amount FROM range({ROWS}) AS r(i)"
        )
    with TwinOrg.open(schema=schema_from_dict(document)) as made, TwinServer(made) as server:
        migration = PreparedOrg(folder=folder, org=made, server=server)
        migration.write_plan()
        yield migration
        assert server.internal_errors == []
