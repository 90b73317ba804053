"""The Tooling API of the twin: what it lists, what a PATCH replaces, custom fields and who sees them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.twin_front_fixtures import (
    PRODUCTION,
    SANDBOX,
    TOOLING,
    document,
    error_of,
    one,
    tooling,
)
from tests.integration.twin_http_fixtures import BASE, Client, tenants

from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

FIELD = {
    "FullName": "Sale__c.Legacy_Id__c",
    "Metadata": {
        "type": "Text", "label": "Legacy Id", "length": 50, "externalId": True, "unique": True, "caseSensitive": True,
        "required": False,
    },
}  # fmt: skip


def serve(org_facts: dict[str, Any], **more: Any) -> Iterator[Client]:
    with TwinOrg.open(schema=schema_from_dict({**document(org_facts), **more})) as org:
        with TwinServer(org) as server, Client(server) as made:
            yield made
        assert server.internal_errors == []


@pytest.fixture
def client() -> Iterator[Client]:
    yield from serve(SANDBOX)


@pytest.fixture(scope="module")
def reader() -> Iterator[Client]:
    """For tests that change nothing."""
    yield from serve(SANDBOX)


def test_the_queries_of_the_reference_are_answered(reader: Client) -> None:
    """Goal: each listing of section 6 gives what it is for. Method: the very queries, on an org with one of each."""
    (rule, _) = tooling(
        reader,
        "SELECT Id,ValidationName,Active,EntityDefinition.QualifiedApiName,NamespacePrefix FROM ValidationRule "
        "WHERE EntityDefinition.QualifiedApiName='Sale__c' ORDER BY ValidationName DESC",
    )
    assert (rule["ValidationName"], rule["Active"], rule["NamespacePrefix"]) == ("No_Zero", True, None)
    assert rule["EntityDefinition"]["QualifiedApiName"] == "Sale__c"
    assert rule["attributes"]["url"] == f"{TOOLING}/sobjects/ValidationRule/{rule['Id']}"
    assert rule["Id"].startswith("03d")
    workflow = one(reader, "SELECT Id,Name,TableEnumOrId,NamespacePrefix FROM WorkflowRule")
    assert workflow["Name"] == "Set_Group"
    assert workflow["TableEnumOrId"].startswith("01I")
    trigger = one(
        reader,
        "SELECT Id,Name,TableEnumOrId,Status,UsageBeforeInsert,UsageAfterInsert,UsageBeforeUpdate,UsageAfterUpdate,"
        "UsageBeforeDelete,UsageAfterDelete,UsageAfterUndelete,UsageIsBulk,ApiVersion,NamespacePrefix FROM ApexTrigger",
    )
    assert trigger["Status"] == "Active"
    assert [name for name in trigger if name.startswith("Usage") and trigger[name]] == [
        "UsageBeforeInsert", "UsageAfterUpdate", "UsageIsBulk",
    ]  # fmt: skip
    flow = one(
        reader,
        "SELECT Id, DeveloperName, ActiveVersion.VersionNumber, LatestVersion.VersionNumber FROM FlowDefinition",
    )
    assert (flow["ActiveVersion"]["VersionNumber"], flow["LatestVersion"]["VersionNumber"]) == (2, 3)
    statuses = tooling(reader, "SELECT VersionNumber, Status FROM Flow ORDER BY VersionNumber")
    assert [entry["Status"] for entry in statuses] == ["Obsolete", "Active", "Draft"]
    view = reader.query(
        "SELECT Id,ApiName,Label,ProcessType,TriggerType,RecordTriggerType,TriggerObjectOrEventLabel,"
        "TriggerObjectOrEventId,IsActive,ActiveVersionId,VersionNumber,NamespacePrefix FROM FlowDefinitionView"
    )["records"][0]
    assert (view["ApiName"], view["IsActive"], view["VersionNumber"]) == ("Sale_Flow", True, 2)
    assert (view["TriggerType"], view["RecordTriggerType"]) == ("RecordAfterSave", "CreateAndUpdate")
    duplicate = reader.query(
        "SELECT Id,DeveloperName,MasterLabel,SobjectType,IsActive,NamespacePrefix FROM DuplicateRule"
    )
    assert duplicate["records"][0]["IsActive"] is True
    fields = tooling(
        reader,
        "SELECT QualifiedApiName,DataType,IsIndexed,IsCalculated,IsNillable,Length,Precision,Scale,ReferenceTo,"
        "RelationshipName,IsPolymorphicForeignKey,IsFieldHistoryTracked FROM FieldDefinition "
        "WHERE EntityDefinition.QualifiedApiName='Sale__c'",
    )
    by_name = {entry["QualifiedApiName"]: entry for entry in fields}
    assert by_name["Tenant__c"]["ReferenceTo"] == {"referenceTo": ["Tenant__c"]}
    assert by_name["Amount__c"]["DataType"] == "Currency(16, 2)"
    assert (by_name["Amount__c"]["Precision"], by_name["Amount__c"]["Scale"]) == (18, 2)
    assert by_name["Sale_Id__c"]["DataType"] == "Text(30) (External ID) (Unique)"
    assert by_name["Sale_Id__c"]["IsIndexed"] is True
    assert by_name["Must__c"]["IsNillable"] is False


def test_the_answer_has_the_shape_of_a_tooling_query(reader: Client) -> None:
    answer = reader.get(f"{TOOLING}/query", params={"q": "SELECT Id FROM ApexTrigger"}).json()
    assert {key: answer[key] for key in ("size", "totalSize", "done", "queryLocator", "entityTypeName")} == {
        "size": 1, "totalSize": 1, "done": True, "queryLocator": None, "entityTypeName": "ApexTrigger",
    }  # fmt: skip
    count = reader.get(f"{TOOLING}/query", params={"q": "SELECT COUNT() FROM CustomField"}).json()
    assert (count["totalSize"], count["size"], count["records"]) == (11, 0, [])


def test_metadata_and_full_name_are_for_one_row_only(reader: Client) -> None:
    many = reader.get(f"{TOOLING}/query", params={"q": "SELECT Id, Metadata FROM CustomField"})
    assert error_of(many) == (400, "MALFORMED_QUERY")
    assert "no more than one row" in many.text
    record = one(reader, "SELECT FullName, Metadata FROM ValidationRule WHERE ValidationName = 'No_Zero'")
    assert record["FullName"] == "Sale__c.No_Zero"
    assert record["Metadata"] == {
        "description": "Sales of nothing",
        "errorConditionFormula": "Amount__c = 0",
        "errorDisplayField": "Amount__c",
        "errorMessage": "Not zero & not <less>",
        "shouldEvaluateOnClient": None,
        "urls": None,
        "active": True,
    }


@pytest.mark.parametrize(
    ("soql", "code"),
    [
        ("SELECT Nope FROM ValidationRule", "INVALID_FIELD"),
        ("SELECT Id FROM Sale__c", "INVALID_TYPE"),
        ("SELECT", "MALFORMED_QUERY"),
        ("", "MALFORMED_QUERY"),
        ("SELECT QualifiedApiName FROM FieldDefinition", "MALFORMED_QUERY"),
    ],
)
def test_what_tooling_queries_refuse(reader: Client, soql: str, code: str) -> None:
    assert error_of(reader.get(f"{TOOLING}/query", params={"q": soql})) == (400, code)


def test_roots_lists_and_describe(reader: Client) -> None:
    root = reader.get(BASE).json()
    assert reader.get(root["tooling"]).json()["sobjects"] == f"{TOOLING}/sobjects"
    listed = reader.get(f"{TOOLING}/sobjects").json()["sobjects"]
    assert {"ValidationRule", "WorkflowRule", "ApexTrigger", "Flow", "FlowDefinition", "CustomField"} <= {
        entry["name"] for entry in listed
    }
    info = reader.get(f"{TOOLING}/sobjects/ValidationRule").json()["objectDescribe"]
    assert info["urls"]["describe"] == f"{TOOLING}/sobjects/ValidationRule/describe"
    assert error_of(reader.get("/services/data/v29.0/tooling/query", params={"q": "SELECT Id FROM Flow"})) == (
        410,
        "GONE",
    )
    described = reader.get(f"{TOOLING}/sobjects/ValidationRule/describe").json()
    fields = {entry["name"]: entry for entry in described["fields"]}
    assert fields["Active"]["updateable"] is False
    assert fields["Metadata"]["updateable"] is True
    assert fields["FullName"]["type"] == "string"
    assert error_of(reader.get(f"{TOOLING}/sobjects/Nope/describe")) == (404, "NOT_FOUND")
    assert error_of(reader.get(f"{TOOLING}/sobjects/ValidationRule/03d000000000000AAA")) == (404, "NOT_FOUND")


def test_queries_beyond_a_page_go_on_at_their_locator() -> None:
    fields = {f"F{number}__c": {"type": "boolean"} for number in range(700)}
    objects = {f"O{number}__c": {"fields": fields} for number in range(3)}
    schema = schema_from_dict({"objects": objects})
    with TwinOrg.open(schema=schema) as org, TwinServer(org) as server, Client(server) as client:
        first = client.get(f"{TOOLING}/query", params={"q": "SELECT Id FROM CustomField"}).json()
        assert (first["size"], first["totalSize"], first["done"]) == (2000, 2100, False)
        rest = client.get(first["nextRecordsUrl"]).json()
        assert (rest["size"], rest["totalSize"], rest["done"]) == (100, 2100, True)
        ids = {record["Id"] for record in [*first["records"], *rest["records"]]}
        assert len(ids) == 2100
        assert error_of(client.get(f"{TOOLING}/query/01gnothing-2000")) == (400, "INVALID_QUERY_LOCATOR")


def test_a_validation_rule_is_switched_off_and_on_by_the_whole_metadata(client: Client) -> None:
    record = one(client, "SELECT Id, FullName, Metadata FROM ValidationRule WHERE ValidationName = 'No_Zero'")
    url = f"{TOOLING}/sobjects/ValidationRule/{record['Id']}"
    body = {"FullName": record["FullName"], "Metadata": {**record["Metadata"], "active": False}}
    answer = client.patch(url, json=body)
    assert (answer.status_code, answer.content) == (204, b"")
    assert client.get(url).json()["Active"] is False
    assert client.server.org.automations.active_on("Sale__c").validation_rules[0].name == "Managed"
    assert client.patch(url, json={"Metadata": record["Metadata"]}).status_code == 204
    again = client.get(url).json()
    assert again["Metadata"] == record["Metadata"]
    assert again["Id"] == record["Id"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"Active": False}, "INVALID_FIELD_FOR_INSERT_UPDATE"),
        ({}, "REQUIRED_FIELD_MISSING"),
        ({"Metadata": {"active": False}}, "REQUIRED_FIELD_MISSING"),
        ({"Metadata": "off"}, "JSON_PARSER_ERROR"),
        ({"Metadata": {"activ": False}}, "REQUIRED_FIELD_MISSING"),
        ({"FullName": "Sale__c.Other", "Metadata": {}}, "FIELD_INTEGRITY_EXCEPTION"),
        ({"Id": "x", "Metadata": {}}, "INVALID_FIELD"),
        (
            {"Metadata": {"active": True, "errorConditionFormula": "false", "errorMessage": "-",
                          "errorDisplayField": "Nope__c"}},
            "FIELD_INTEGRITY_EXCEPTION",
        ),
    ],
)  # fmt: skip
def test_what_a_patch_of_a_validation_rule_refuses(reader: Client, body: dict[str, Any], code: str) -> None:
    record = one(reader, "SELECT Id FROM ValidationRule WHERE ValidationName = 'No_Zero'")
    before = reader.server.org.automations.current()
    answer = reader.patch(f"{TOOLING}/sobjects/ValidationRule/{record['Id']}", json=body)
    assert error_of(answer) == (400, code)
    assert reader.server.org.automations.current() == before


BROKEN_FORMULAS = ["Amount__c =", "Nope__c = 1", "VLOOKUP(Amount__c)", "Amount__c + 1", "((((", "REGEX(Group__c, '(')"]


@pytest.mark.parametrize("formula", BROKEN_FORMULAS)
def test_a_formula_that_cannot_be_computed_is_refused_and_loads_go_on(reader: Client, formula: str) -> None:
    before = reader.server.org.automations.current()
    rule = one(reader, "SELECT Id, Metadata FROM ValidationRule WHERE ValidationName = 'No_Zero'")
    changed = {**rule["Metadata"], "errorConditionFormula": formula}
    answer = reader.patch(f"{TOOLING}/sobjects/ValidationRule/{rule['Id']}", json={"Metadata": changed})
    assert error_of(answer) == (400, "FIELD_INTEGRITY_EXCEPTION")
    fresh = {"FullName": "Sale__c.Broken", "Metadata": changed}
    answer = reader.post(f"{TOOLING}/sobjects/ValidationRule", json=fresh)
    assert error_of(answer) == (400, "FIELD_INTEGRITY_EXCEPTION")
    workflow = one(reader, "SELECT Id, Metadata FROM WorkflowRule")
    changed = {**workflow["Metadata"], "formula": formula}
    answer = reader.patch(f"{TOOLING}/sobjects/WorkflowRule/{workflow['Id']}", json={"Metadata": changed})
    assert error_of(answer) == (400, "FIELD_INTEGRITY_EXCEPTION")
    assert reader.server.org.automations.current() == before


def test_what_is_managed_can_be_read_and_not_changed(reader: Client) -> None:
    record = one(reader, "SELECT Id, Metadata, NamespacePrefix FROM ValidationRule WHERE ValidationName = 'Managed'")
    assert record["NamespacePrefix"] == "pkg"
    url = f"{TOOLING}/sobjects/ValidationRule/{record['Id'][:15]}"
    assert error_of(reader.patch(url, json={"Metadata": record["Metadata"]})) == (
        400,
        "INSUFFICIENT_ACCESS_OR_READONLY",
    )


def test_a_workflow_rule_keeps_only_the_actions_that_the_patch_names(client: Client) -> None:
    record = one(client, "SELECT Id, Metadata FROM WorkflowRule")
    url = f"{TOOLING}/sobjects/WorkflowRule/{record['Id']}"
    off = {**record["Metadata"], "active": False}
    assert client.patch(url, json={"Metadata": off}).status_code == 204
    assert client.server.org.automations.active_on("Sale__c").workflow_rules == ()
    assert client.patch(url, json={"Metadata": record["Metadata"]}).status_code == 204
    assert client.get(url).json()["Metadata"] == record["Metadata"]
    bare = {name: record["Metadata"][name] for name in ("active", "formula", "triggerType")}
    assert client.patch(url, json={"Metadata": bare}).status_code == 204
    (rule,) = client.server.org.automations.active_on("Sale__c").workflow_rules
    assert rule.field_updates == ()
    unknown = {**bare, "actions": [{"name": "Send", "type": "Alert"}]}
    assert error_of(client.patch(url, json={"Metadata": unknown})) == (400, "INVALID_CROSS_REFERENCE_KEY")
    assert client.delete(url).status_code == 204
    assert tooling(client, "SELECT Id FROM WorkflowRule") == []


def test_a_validation_rule_can_be_made(client: Client) -> None:
    metadata = {"active": True, "errorConditionFormula": "Count__c < 0", "errorMessage": "no"}
    body = {"FullName": "sale__c.Positive", "Metadata": metadata}
    made = client.post(f"{TOOLING}/sobjects/ValidationRule", json=body)
    assert made.status_code == 201
    assert made.json()["success"] is True
    assert client.server.org.automations.active_on("Sale__c").validation_rules[-1].full_name == "Sale__c.Positive"
    assert client.get(f"{TOOLING}/sobjects/ValidationRule/{made.json()['id']}").json()["ErrorMessage"] == "no"
    assert error_of(client.post(f"{TOOLING}/sobjects/ValidationRule", json=body)) == (400, "DUPLICATE_DEVELOPER_NAME")
    nowhere = {**body, "FullName": "Nope__c.Positive"}
    assert error_of(client.post(f"{TOOLING}/sobjects/ValidationRule", json=nowhere)) == (400, "INVALID_TYPE")


def test_flows_are_switched_by_the_number_of_the_active_version(client: Client) -> None:
    record = one(client, "SELECT Id FROM FlowDefinition")
    url = f"{TOOLING}/sobjects/FlowDefinition/{record['Id']}"

    def switch(metadata: dict[str, Any]) -> int | None:
        answer = client.patch(url, json={"Metadata": metadata})
        assert (answer.status_code, answer.content) == (204, b"")
        view = client.query("SELECT IsActive, VersionNumber FROM FlowDefinitionView")["records"][0]
        active = client.server.org.automations.active_on("Sale__c").flows
        assert view["IsActive"] is bool(active)
        return active[0].active_version if active else None

    assert switch({"activeVersionNumber": 0}) is None
    assert switch({"activeVersionNumber": 1}) == 1
    assert switch({}) is None
    assert switch({"activeVersionNumber": 2}) == 2
    unknown = client.patch(url, json={"Metadata": {"activeVersionNumber": 9}})
    assert error_of(unknown) == (400, "INVALID_CROSS_REFERENCE_KEY")
    version = one(client, "SELECT Id, Metadata FROM Flow WHERE VersionNumber = 2")
    flow_url = f"{TOOLING}/sobjects/Flow/{version['Id']}"
    assert client.patch(flow_url, json={"Metadata": {**version["Metadata"], "status": "Obsolete"}}).status_code == 204
    assert client.server.org.automations.active_on("Sale__c").flows == ()


def test_a_trigger_is_altered_in_a_sandbox_and_never_in_production(client: Client) -> None:
    record = one(client, "SELECT Id, Metadata FROM ApexTrigger")
    body = {"Metadata": {**record["Metadata"], "status": "Inactive"}}
    assert client.patch(f"{TOOLING}/sobjects/ApexTrigger/{record['Id']}", json=body).status_code == 204
    assert client.server.org.automations.active_on("Sale__c").triggers == ()
    for production in serve(PRODUCTION):
        record = one(production, "SELECT Id FROM ApexTrigger")
        refused = production.patch(f"{TOOLING}/sobjects/ApexTrigger/{record['Id']}", json=body)
        assert refused.status_code == 400
        assert refused.json()[0]["message"] == "Can't alter metadata in an active org"
        assert production.server.org.automations.active_on("Sale__c").triggers
        rule = one(production, "SELECT Id, Metadata FROM ValidationRule WHERE ValidationName = 'No_Zero'")
        off = {"Metadata": {**rule["Metadata"], "active": False}}
        url = f"{TOOLING}/sobjects/ValidationRule/{rule['Id']}"
        assert production.patch(url, json=off).status_code == 204, "production lets rules be switched"


def grant(client: Client, field: str) -> int:
    permission_set = client.query("SELECT Id FROM PermissionSet")["records"][0]["Id"]
    body = {"ParentId": permission_set, "SobjectType": field.partition(".")[0], "Field": field,
            "PermissionsRead": True, "PermissionsEdit": True}  # fmt: skip
    return client.post(f"{BASE}/sobjects/FieldPermissions", json=body).status_code


def names_of(client: Client) -> list[str]:
    described = client.get(f"{BASE}/sobjects/Sale__c/describe").json()
    return [field["name"] for field in described["fields"]]


def test_a_field_made_by_a_call_is_seen_by_nobody_until_it_is_granted(client: Client) -> None:
    made = client.post(f"{TOOLING}/sobjects/CustomField", json=FIELD)
    assert made.status_code == 201, made.text
    assert made.json()["id"].startswith("00N")
    assert made.json()["success"] is True
    definition = one(
        client,
        "SELECT DataType FROM FieldDefinition WHERE EntityDefinition.QualifiedApiName = 'Sale__c' "
        "AND QualifiedApiName = 'Legacy_Id__c'",
    )
    assert definition["DataType"] == "Text(50) (External ID) (Unique)"
    assert "Legacy_Id__c" not in names_of(client)
    soql = "SELECT Legacy_Id__c FROM Sale__c"
    assert error_of(client.get(f"{BASE}/query", params={"q": soql})) == (400, "INVALID_FIELD")
    rows = b"Sale_Id__c,Must__c,Legacy_Id__c\ns1,m,L1\n"
    failed = client.load(rows, object="Sale__c")
    assert failed["errorMessage"] == "InvalidBatch : Field name not found : Legacy_Id__c"
    assert grant(client, "Sale__c.Legacy_Id__c") == 201
    described = client.get(f"{BASE}/sobjects/Sale__c/describe").json()["fields"]
    (field,) = [entry for entry in described if entry["name"] == "Legacy_Id__c"]
    assert (field["externalId"], field["unique"], field["idLookup"], field["caseSensitive"]) == (True,) * 4
    assert client.load(rows, object="Sale__c")["numberRecordsFailed"] == 0
    assert client.query(soql)["records"][0]["Legacy_Id__c"] == "L1"
    upsert = client.load(b"Legacy_Id__c,Must__c\nL1,n\n", object="Sale__c", operation="upsert",
                         externalIdFieldName="Legacy_Id__c")  # fmt: skip
    assert upsert["numberRecordsFailed"] == 0
    assert client.query("SELECT Must__c FROM Sale__c WHERE Legacy_Id__c = 'L1'")["records"][0]["Must__c"] == "n"
    assert error_of(client.post(f"{TOOLING}/sobjects/CustomField", json=FIELD)) == (400, "DUPLICATE_DEVELOPER_NAME")


def test_a_described_object_is_newer_after_a_field_came(client: Client) -> None:
    url = f"{BASE}/sobjects/Sale__c/describe"
    before = client.get(url).headers["last-modified"]
    assert client.get(url, headers={"If-Modified-Since": before}).status_code == 304
    client.server.org.schema_changed_at = client.server.org.schema_changed_at.replace(year=2099)
    assert client.get(url, headers={"If-Modified-Since": before}).status_code == 200


def test_fields_of_every_type_can_be_made_and_loaded(client: Client) -> None:
    values = {"valueSetDefinition": {"sorted": False, "value": [{"fullName": "A", "default": True}, {"fullName": "B"}]},
              "restricted": True}  # fmt: skip
    kinds: dict[str, dict[str, Any]] = {
        "T1__c": {"type": "TextArea"},
        "T2__c": {"type": "LongTextArea", "length": 5000, "visibleLines": 3},
        "N1__c": {"type": "Number", "precision": 9, "scale": 2, "externalId": True, "unique": True},
        "C1__c": {"type": "Currency", "precision": 18, "scale": 2},
        "B1__c": {"type": "Checkbox", "defaultValue": "true"},
        "D1__c": {"type": "Date"},
        "D2__c": {"type": "DateTime"},
        "E1__c": {"type": "Email", "externalId": True},
        "U1__c": {"type": "Url"},
        "P1__c": {"type": "Picklist", "valueSet": values},
        "L1__c": {"type": "Lookup", "referenceTo": "Tenant__c", "relationshipName": "More"},
    }
    for name, metadata in kinds.items():
        body = {"FullName": f"Sale__c.{name}", "Metadata": {"label": name[:2], **metadata}}
        made = client.post(f"{TOOLING}/sobjects/CustomField", json=body)
        assert made.status_code == 201, made.text
        record = client.get(f"{TOOLING}/sobjects/CustomField/{made.json()['id']}").json()
        assert record["FullName"] == f"Sale__c.{name}"
        given = {key: value for key, value in metadata.items() if key != "valueSet"}
        assert {key: record["Metadata"][key] for key in given} == given
        assert grant(client, f"Sale__c.{name}") == 201
    rows = "Sale_Id__c,Must__c,T1__c,N1__c,B1__c,D1__c,E1__c,P1__c\ns1,m,text,1.25,false,2026-01-31,a@b.co,B\n"
    job = client.load(rows.encode(), object="Sale__c")
    assert job["numberRecordsFailed"] == 0, client.results(job["id"], "failedResults")
    record = client.query("SELECT N1__c, P1__c, B1__c FROM Sale__c")["records"][0]
    assert (record["N1__c"], record["P1__c"], record["B1__c"]) == (1.25, "B", False)


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ({"length": 300}, "FIELD_INTEGRITY_EXCEPTION"),
        ({"type": "Nope"}, "FIELD_INTEGRITY_EXCEPTION"),
        ({"type": "Date", "length": None}, "FIELD_INTEGRITY_EXCEPTION"),
        ({"unique": False}, "FIELD_INTEGRITY_EXCEPTION"),
        ({"lenght": 50}, "INVALID_FIELD"),
        ({"label": None}, "INVALID_FIELD"),
        ({"length": "many"}, "INVALID_FIELD"),
    ],
)
def test_what_a_new_field_may_not_be(reader: Client, metadata: dict[str, Any], code: str) -> None:
    body = {**FIELD, "Metadata": {**FIELD["Metadata"], **metadata}}  # type: ignore[dict-item]  # the dict of a test
    assert error_of(reader.post(f"{TOOLING}/sobjects/CustomField", json=body)) == (400, code)


def test_the_org_takes_25_external_ids_and_no_more() -> None:
    fields = {f"K{number}__c": {"type": "string", "length": 9, "externalId": True} for number in range(25)}
    schema = schema_from_dict({"objects": {"Sale__c": {"fields": fields}}})
    with TwinOrg.open(schema=schema) as org, TwinServer(org) as server, Client(server) as client:
        assert error_of(client.post(f"{TOOLING}/sobjects/CustomField", json=FIELD)) == (400, "LIMIT_EXCEEDED")


def test_a_grant_of_a_field_that_is_not_there_is_refused(client: Client) -> None:
    assert grant(client, "Sale__c.Nope__c") == 400
    assert grant(client, "Sale__c.Amount__c") == 201


def test_a_restart_keeps_made_fields_granted_or_not(tmp_path: Path) -> None:
    data, schema = tmp_path / "org.duckdb", schema_from_dict(document(SANDBOX))
    with TwinOrg.open(data, schema=schema) as org, TwinServer(org) as server, Client(server) as client:
        for name in ("Seen__c", "Unseen__c"):
            body = {"FullName": f"Sale__c.{name}", "Metadata": {"type": "Text", "label": name, "length": 5}}
            assert client.post(f"{TOOLING}/sobjects/CustomField", json=body).status_code == 201
        assert grant(client, "Sale__c.Seen__c") == 201
        seen_id = one(client, "SELECT Id FROM CustomField WHERE DeveloperName = 'Seen'")["Id"]
    for again in (schema_from_dict(document(SANDBOX)), None):
        with TwinOrg.open(data, schema=again) as org, TwinServer(org) as server, Client(server) as client:
            assert "Seen__c" in names_of(client)
            assert "Unseen__c" not in names_of(client)
            assert one(client, "SELECT Id FROM CustomField WHERE DeveloperName = 'Seen'")["Id"] == seen_id
    with TwinOrg.open(data) as org, TwinServer(org) as server, Client(server) as client:
        assert grant(client, "Sale__c.Unseen__c") == 201
        assert client.load(b"Sale_Id__c,Must__c,Unseen__c\ns,m,u\n", object="Sale__c")["numberRecordsFailed"] == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_bodies_never_are_a_fault_of_the_twin(reader: Client, data: st.DataObject) -> None:
    state = reader.server.org.automations
    kind = data.draw(st.sampled_from(["ValidationRule", "WorkflowRule", "FlowDefinition", "Flow", "CustomField"]))
    record_id = tooling(reader, f"SELECT Id FROM {kind} LIMIT 1")[0]["Id"]
    known = reader.get(f"{TOOLING}/sobjects/{kind}/{record_id}").json()["Metadata"]
    metadata = data.draw(st.one_of(JSON, st.dictionaries(st.sampled_from([*known, "x"]), JSON, max_size=5).map(
        lambda changes: {**known, **changes})))  # fmt: skip
    body = data.draw(st.sampled_from([{"Metadata": metadata}, metadata, {"FullName": metadata, "Metadata": metadata}]))
    before = state.current()
    for answer in (
        reader.patch(f"{TOOLING}/sobjects/{kind}/{record_id}", json=body),
        reader.post(f"{TOOLING}/sobjects/{kind}", json=body),
        reader.post(f"{TOOLING}/sobjects/{kind}", content=str(body), headers={"Content-Type": "application/json"}),
        reader.get(f"{TOOLING}/query", params={"q": str(body)}),
    ):
        assert answer.status_code < 500, answer.text
    if state.current() != before:
        state.put(*before.each())
    assert reader.server.internal_errors == []


def test_fields_come_while_rows_are_loaded(client: Client) -> None:
    """Goal: a schema change disturbs no load. Method: one thread loads job after job while fields are made and seen."""
    problems: list[str] = []
    done = threading.Event()

    def load() -> None:
        with Client(client.server) as loader:
            for number in range(60):
                job = loader.load(tenants(200, start=number * 200))
                if (job["state"], job["numberRecordsProcessed"], job["numberRecordsFailed"]) != ("JobComplete", 200, 0):
                    problems.append(str(job))
                if done.is_set() and number >= 5:
                    return

    thread = threading.Thread(target=load)
    thread.start()
    for number in range(6):
        body = {"FullName": f"Tenant__c.N{number}__c", "Metadata": {"type": "Text", "label": "N", "length": 9}}
        assert client.post(f"{TOOLING}/sobjects/CustomField", json=body).status_code == 201
        assert grant(client, f"Tenant__c.N{number}__c") == 201
        assert client.get(f"{BASE}/query", params={"q": f"SELECT N{number}__c FROM Tenant__c LIMIT 1"}).is_success
    done.set()
    thread.join()
    assert problems == []
    assert client.query("SELECT COUNT() FROM Tenant__c")["totalSize"] >= 1200


def test_automations_act_on_fields_that_the_writing_user_does_not_see() -> None:
    """Goal: rules and fills work on whole records. Method: one user without the fields, by REST and in bulk."""
    hidden = {
        "validation_rules": [
            {
                "name": "Hidden",
                "object": "Tenant__c",
                "formula": "BEGINS(Note__c, 'bad')",
                "error_message": "hidden is bad",
            }
        ],
        "triggers": [
            {
                "name": "Fill",
                "object": "Tenant__c",
                "events": ["before insert", "before update"],
                "effects": [{"effect": "fill", "field": "Note__c", "formula": "Tenant_Code__c"}],
            }
        ],
    }
    users = [{"username": "etl@kpc.example"}, {"username": "clerk@kpc.example", "unseen_fields": ["Tenant__c.Note__c"]}]
    for client in serve(SANDBOX, users=users, automations=hidden):
        server = client.server
        with Client(server, server.app.sign_in.open_session("clerk@kpc.example")) as clerk:
            made = clerk.post(f"{BASE}/sobjects/Tenant__c", json={"Tenant_Code__c": "good"})
            assert made.status_code == 201, made.text
            refused = clerk.post(f"{BASE}/sobjects/Tenant__c", json={"Tenant_Code__c": "bad"})
            assert error_of(refused) == (400, "FIELD_CUSTOM_VALIDATION_EXCEPTION")
            job = clerk.load(b"Tenant_Code__c\nok\nbad\n")
            assert (job["state"], job["numberRecordsFailed"]) == ("JobComplete", 1)
            changed = clerk.patch(f"{BASE}/sobjects/Tenant__c/{made.json()['id']}", json={"Name": "x"})
            assert changed.status_code == 204, changed.text
            rows = client.query("SELECT Tenant_Code__c, Note__c FROM Tenant__c ORDER BY Tenant_Code__c")["records"]
            assert [(row["Tenant_Code__c"], row["Note__c"]) for row in rows] == [("good", "good"), ("ok", "ok")]
            # Switched off by Tooling, the rule lets both ways pass.
            rule = one(client, "SELECT Id, Metadata FROM ValidationRule WHERE ValidationName = 'Hidden'")
            off = {"Metadata": {**rule["Metadata"], "active": False}}
            assert client.patch(f"{TOOLING}/sobjects/ValidationRule/{rule['Id']}", json=off).status_code == 204
            assert clerk.post(f"{BASE}/sobjects/Tenant__c", json={"Tenant_Code__c": "bad1"}).status_code == 201
            on = {"Metadata": rule["Metadata"]}
            assert client.patch(f"{TOOLING}/sobjects/ValidationRule/{rule['Id']}", json=on).status_code == 204
            assert clerk.load(b"Tenant_Code__c\nbad2\n")["numberRecordsFailed"] == 1
