"""`forcelift twin snapshot`: a twin made from the snapshot of a twin describes itself as that twin does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.twin_front_fixtures import AUTOMATIONS, PRODUCTION, TOOLING, document, one, tooling
from tests.integration.twin_http_fixtures import BASE, SCHEMA_DOCUMENT, Client, tenants

from forcelift.cli.main import run_command
from forcelift.errors import OrgNotFound
from forcelift.salesforce import AuthSettings, SalesforceOrg, connect
from forcelift.salesforce.snapshot import _Reader, take_snapshot
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import load_schema, schema_from_dict
from forcelift.twin.server import TwinServer

ORIGIN: dict[str, Any] = document({**PRODUCTION, "instance": "AP99", "namespace": "kpc", "trial_expires": "2027-01-31"})
ORIGIN["limits"] = {"DailyApiRequests": 123_456, "DataStorageMB": 77}
ORIGIN["objects"] = {
    **SCHEMA_DOCUMENT["objects"],
    "Detail__c": {
        "record_types": [{"name": "Retail", "developerName": "Retail", "default": True}],
        "fields": {
            "Sale__c": {
                "type": "reference",
                "referenceTo": "Sale__c",
                "relationshipOrder": 0,
                "childRelationshipName": "Details__r",
            },
            "Who__c": {"type": "reference", "referenceTo": ["Tenant__c", "Sale__c"], "relationshipName": "Who__r"},
            "Kind__c": {
                "type": "picklist",
                "restrictedPicklist": True,
                "values": ["A", {"value": "B", "active": False}],
            },
            "Number__c": {"type": "autoNumber", "displayFormat": "D-{0000}"},
            "Mail__c": {"type": "email", "unique": True},
            "Rich__c": {"type": "textarea", "length": 9000, "htmlFormatted": True, "extraTypeInfo": "richtextarea"},
        },
    },
}


@pytest.fixture(scope="module")
def origin() -> Iterator[Client]:
    with TwinOrg.open(schema=schema_from_dict(ORIGIN)) as org:
        with TwinServer(org) as server, Client(server) as made:
            yield made
        assert server.internal_errors == []


def connected(client: Client) -> SalesforceOrg:
    auth = AuthSettings(flow="token", access_token=client.server.access_token)
    return connect(client.server.url, auth=auth, expect_twin=True)


@pytest.fixture(scope="module")
def picture(origin: Client) -> dict[str, Any]:
    origin.load(tenants(7))
    org = connected(origin)
    try:
        return take_snapshot(org, ["Detail__c"])
    finally:
        org.close()


@pytest.fixture(scope="module")
def copy(picture: dict[str, Any]) -> Iterator[Client]:
    """A twin made from nothing but the snapshot's JSON."""
    schema = schema_from_dict(json.loads(json.dumps(picture)))
    with TwinOrg.open(schema=schema) as org, TwinServer(org) as server, Client(server) as made:
        yield made


def described(client: Client, name: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"{BASE}/sobjects/{name}/describe").json()
    # The children's list is in the order of the org's objects, which says nothing.
    found["childRelationships"].sort(key=lambda entry: (entry["childSObject"], entry["field"]))
    return found


@pytest.mark.parametrize("name", ["Detail__c", "Sale__c", "Tenant__c", "User"])
def test_the_twin_of_a_twin_serves_the_same_describe(origin: Client, copy: Client, name: str) -> None:
    assert described(copy, name) == described(origin, name)


def test_lookups_are_followed_unless_told_otherwise(origin: Client, picture: dict[str, Any]) -> None:
    assert [entry["name"] for entry in picture["describes"]] == ["Detail__c", "Sale__c", "Tenant__c"]
    org = connected(origin)
    alone = take_snapshot(org, ["Detail__c"], follow_lookups=False)
    with pytest.raises(OrgNotFound):
        take_snapshot(org, ["Nope__c"])
    org.close()
    assert [entry["name"] for entry in alone["describes"]] == ["Detail__c"]
    assert alone["automations"]["triggers"] == []
    schema_from_dict(alone)


def test_org_limits_and_counts_are_taken_and_no_records(copy: Client, picture: dict[str, Any]) -> None:
    facts = "Name, OrganizationType, IsSandbox, InstanceName, NamespacePrefix, TrialExpirationDate"
    record = copy.query(f"SELECT {facts} FROM Organization")["records"][0]
    assert record["OrganizationType"] == "Enterprise Edition"
    assert (record["InstanceName"], record["NamespacePrefix"]) == ("AP99", "kpc")
    assert record["TrialExpirationDate"] == "2027-01-31T00:00:00.000+0000"
    assert copy.get(f"{BASE}/limits").json()["DailyApiRequests"]["Max"] == 123_456
    assert picture["record_counts"] == {"Tenant__c": 7}
    assert copy.query("SELECT COUNT() FROM Tenant__c")["totalSize"] == 0
    text = json.dumps(picture)
    assert "Tenant 3" not in text
    assert "etl@kpc.example" not in text
    assert copy.server.org.org_id not in text


def test_automations_are_taken_and_what_cannot_be_known_is_told(
    origin: Client, copy: Client, picture: dict[str, Any]
) -> None:
    rule = "SELECT Metadata FROM ValidationRule WHERE ValidationName = 'No_Zero'"
    assert one(copy, rule) == {**one(origin, rule), "attributes": one(copy, rule)["attributes"]}
    managed = one(copy, "SELECT NamespacePrefix FROM ValidationRule WHERE ValidationName = 'Managed'")
    assert managed["NamespacePrefix"] == "pkg"
    trigger = "SELECT Name, Status, UsageBeforeInsert, UsageAfterUpdate, UsageBeforeUpdate, ApiVersion FROM ApexTrigger"
    assert {**one(copy, trigger), "attributes": 0} == {**one(origin, trigger), "attributes": 0}
    flows = "SELECT ApiName, IsActive, VersionNumber, TriggerType, RecordTriggerType FROM FlowDefinitionView"
    strip = [{**row, "attributes": 0} for row in copy.query(flows)["records"]]
    assert strip == [{**row, "attributes": 0} for row in origin.query(flows)["records"]]
    assert len(tooling(copy, "SELECT Id FROM Flow")) == 3
    assert one(copy, "SELECT Metadata FROM WorkflowRule")["Metadata"]["formula"] == "ISBLANK(Group__c)"
    notes = "\n".join(picture["notes"])
    for name in (
        "trigger SaleTrigger",
        "flow Sale_Flow",
        "workflow rule Sale__c.Set_Group",
        "duplicate rule Sale__c.Twice",
    ):
        assert name in notes
    assert len(AUTOMATIONS["validation_rules"]) == len(tooling(copy, "SELECT Id FROM ValidationRule"))


def test_a_part_that_the_org_refuses_is_told_and_the_rest_taken(origin: Client) -> None:
    body = [{"errorCode": "INSUFFICIENT_ACCESS", "message": "no"}]
    answer = {"action": "answer", "status": 403, "body": json.dumps(body), "content_type": "application/json"}
    origin.arm({**answer, "path": "/tooling/query", "times": 2, "skip": 1}, {**answer, "path": "/limits", "times": 2})
    org = connected(origin)
    document = take_snapshot(org, ["Tenant__c"])
    org.close()
    assert [note for note in document["notes"] if "refused to" in note] == [
        "limits: the org refused to tell them (INSUFFICIENT_ACCESS); the twin has its own",
        "validation_rules: the org refused to list them (INSUFFICIENT_ACCESS); none were taken",
        "triggers: the org refused to list them (INSUFFICIENT_ACCESS); none were taken",
        "record_counts: the org refused to tell them (INSUFFICIENT_ACCESS)",
    ]
    assert (document["limits"], document["record_counts"]) == ({}, {})
    assert [entry["name"] for entry in document["describes"]] == ["Tenant__c"]


PLAN = """\
version: 1
project: Snapshot
source: {{url: "sqlite:///source.db"}}
target:
  url: {url}
  auth: {{flow: token, access_token: "${{TWIN_TOKEN}}"}}
tables:
  - table: T
    object: Sale__c
    key: ID
    external_id: Sale_Id__c
    fields: {{ID: Sale_Id__c}}
"""


def test_the_command_writes_a_file_that_serve_takes(
    origin: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, out = tmp_path / "forcelift.yaml", tmp_path / "deep" / "org.json"
    plan.write_text(PLAN.format(url=origin.server.url))
    monkeypatch.setenv("TWIN_TOKEN", origin.server.access_token)
    words = ["twin", "snapshot", "--plan", str(plan), "--out", str(out)]
    assert run_command([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["objects"], told["automations"]) == (2, 5)
    assert told["notes"]
    schema = load_schema(out)
    assert schema.object("Sale__c") is not None
    assert schema.object("Detail__c") is None
    assert [path.name for path in out.parent.iterdir()] == ["org.json"]
    before = out.read_bytes()
    assert run_command(words) == 3
    assert "exists" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert run_command([*words, "--overwrite", "--object", "Tenant__c"]) == 0
    assert load_schema(out).object("Sale__c") is None
    assert one(origin, "SELECT COUNT(Id) n FROM ApexTrigger")["n"] == 1
    assert origin.get(f"{TOOLING}").status_code == 200


FAR = 'VLOOKUP($ObjectType.Sale__c.Fields.Name, $ObjectType.Sale__c.Fields.Name, "x") = "y"'


def test_an_org_with_formulas_that_the_twin_cannot_read_is_served_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: one formula beyond the subset costs that rule its effect, and nothing else.

    Method: the snapshot of such an org, served again by the command; notes, Tooling, loads and a switch there and back.
    """
    rule = {"name": "Far", "object": "Sale__c", "formula": FAR, "error_message": "no", "error_field": "Amount__c"}
    mine = {"name": "No_Zero", "object": "Sale__c", "formula": "Amount__c = 0", "error_message": "not zero"}
    managed = {"name": "Off", "object": "Sale__c", "formula": "$User.Alias = 'x'", "error_message": "no",
               "active": False, "namespace": "pkg"}  # fmt: skip
    workflow = {"name": "Wide", "object": "Sale__c", "condition": "Tenant__r.Owner.IsActive"}
    content = {
        **SCHEMA_DOCUMENT,
        "automations": {"validation_rules": [rule, mine, managed], "workflow_rules": [workflow]},
    }
    plan, out = tmp_path / "forcelift.yaml", tmp_path / "org.json"
    with TwinOrg.open(schema=schema_from_dict(content)) as org, TwinServer(org) as server:
        plan.write_text(PLAN.format(url=server.url))
        monkeypatch.setenv("TWIN_TOKEN", server.access_token)
        assert run_command(["twin", "snapshot", "--plan", str(plan), "--out", str(out), "--json"]) == 0
    told = [note for note in json.loads(capsys.readouterr().out)["notes"] if "cannot read" in note]
    assert told == json.loads(out.read_text())["notes"][-3:]
    assert told[0].startswith("validation rule Sale__c.Far is active in the org, but acts on nothing here: ")
    assert "reaches beyond the record" in told[0]
    assert told[1].startswith("validation rule Sale__c.Off is inactive: ")
    assert told[2].startswith("workflow rule Sale__c.Wide is active in the org, but acts on nothing here: ")
    command = [sys.executable, "-m", "forcelift", "twin", "serve", "--schema", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline())
            headers = {"Authorization": f"Bearer {first['access_token']}"}
            with httpx.Client(base_url=first["url"], headers=headers) as client:
                found = client.get(
                    f"{TOOLING}/query", params={"q": "SELECT Id, Active, ValidationName FROM ValidationRule"}
                )
                rules = {row["ValidationName"]: row for row in found.json()["records"]}
                assert {name: row["Active"] for name, row in rules.items()} == {
                    "Far": True, "No_Zero": True, "Off": False,
                }  # fmt: skip
                sale = {"Sale_Id__c": "a", "Must__c": "x", "Amount__c": 0}
                refused = client.post(f"{BASE}/sobjects/Sale__c", json=sale).json()
                assert [error["message"] for error in refused] == ["not zero"], "the rules beside it act"
                made = client.post(f"{BASE}/sobjects/Sale__c", json={**sale, "Amount__c": 1})
                assert made.status_code == 201
                url = f"{TOOLING}/sobjects/ValidationRule/{rules['Far']['Id']}"
                saved = client.get(url).json()["Metadata"]
                assert saved["errorConditionFormula"] == FAR
                for active in (False, True):
                    body = {"FullName": "Sale__c.Far", "Metadata": {**saved, "active": active}}
                    assert client.patch(url, json=body).status_code == 204
                    assert client.get(url).json()["Metadata"] == {**saved, "active": active}
                    control = {"Authorization": f"Bearer {first['control_token']}"}
                    unread = client.get("/__twin__/state", headers=control).json()["unread_rules"]
                    assert [(each["name"], each["active"]) for each in unread] == [
                        ("Sale__c.Far", active), ("Sale__c.Off", False), ("Sale__c.Wide", True),
                    ]  # fmt: skip
                other = {**saved, "errorConditionFormula": "VLOOKUP(Amount__c)"}
                assert client.patch(url, json={"Metadata": other}).json()[0]["errorCode"] == "FIELD_INTEGRITY_EXCEPTION"
                readable = {**saved, "errorConditionFormula": "Amount__c = 3", "errorMessage": "not three"}
                assert client.patch(url, json={"Metadata": readable}).status_code == 204
                three = client.post(f"{BASE}/sobjects/Sale__c", json={**sale, "Sale_Id__c": "b", "Amount__c": 3})
                assert three.json()[0]["message"] == "not three", "a formula that can be read acts at once"
        finally:
            process.terminate()
        assert process.stderr is not None
        shown = [line for line in process.stderr.read().splitlines() if line.startswith("note: ")]
        assert shown == [f"note: {note}" for note in told]


def test_of_two_rules_with_one_name_the_orgs_own_is_taken(origin: Client) -> None:
    org = connected(origin)
    reader = _Reader(org, lambda _: None)
    org.close()
    packaged = {"object": "Sale__c", "name": "No_zero", "namespace": "pkg"}
    own = {"object": "sale__c", "name": "No_Zero", "namespace": None}
    assert reader._once("validation_rules", iter([packaged, own])) == [own]
    assert reader.notes == ["validation_rules: pkg__No_zero has the name of another; left out"]
