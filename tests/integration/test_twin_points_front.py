"""What simulators and clients get wrong (section 9 of the API reference), one test a point: sign-in, describe, REST
shapes, Tooling and Metadata. Each test is named after its point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.twin_front_fixtures import (
    PRODUCTION,
    SANDBOX,
    TOOLING,
    deployed,
    document,
    error_of,
    make_zip,
    one,
    retrieved,
    trigger_zip,
)
from tests.integration.twin_http_fixtures import BASE, Client, tenants

from forcelift.twin.errors import SchemaError
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

RETAIL = {"name": "Retail", "developerName": "Retail", "default": True}
CLOSED = {"name": "Closed", "developerName": "Closed", "available": False}


def serve(facts: dict[str, Any], **changes: Any) -> Iterator[Client]:
    content = {**document(facts), **changes}
    content["objects"] = {
        **content["objects"],
        "Typed__c": {
            "record_types": [RETAIL, CLOSED],
            "fields": {
                "Flag__c": {"type": "boolean"},
                "State__c": {"type": "picklist", "restrictedPicklist": True,
                             "values": [{"value": "A", "label": "Alpha"}, {"value": "Z", "active": False}]},
                "Free__c": {"type": "picklist", "values": ["A"]},
                "Needed__c": {"type": "string", "length": 9, "required": True},
            },
        },
    }  # fmt: skip
    with TwinOrg.open(schema=schema_from_dict(content)) as org:
        with TwinServer(org) as server, Client(server) as made:
            yield made
        assert server.internal_errors == []


@pytest.fixture
def client() -> Iterator[Client]:
    yield from serve(SANDBOX)


@pytest.fixture
def production() -> Iterator[Client]:
    yield from serve(PRODUCTION)


@pytest.fixture(scope="module")
def reader() -> Iterator[Client]:
    yield from serve(SANDBOX)


def fields_of(client: Client, name: str) -> dict[str, dict[str, Any]]:
    described = client.get(f"{BASE}/sobjects/{name}/describe").json()
    return {field["name"]: field for field in described["fields"]}


def test_point_15_ids_of_15_and_18_characters_are_the_same_record(client: Client) -> None:
    made = client.post(f"{BASE}/sobjects/Tenant__c", json={"Tenant_Code__c": "A", "Name": "A"}).json()["id"]
    assert len(made) == 18
    assert client.get(f"{BASE}/sobjects/Tenant__c/{made[:15]}").json()["Id"] == made
    swapped = made[:15].swapcase()
    assert client.get(f"{BASE}/sobjects/Tenant__c/{swapped}").status_code == 404, "15 characters are case-sensitive"
    rule = one(client, "SELECT Id FROM ValidationRule WHERE ValidationName = 'No_Zero'")["Id"]
    assert client.get(f"{TOOLING}/sobjects/ValidationRule/{rule[:15]}").json()["Id"] == rule


def test_point_22_a_used_up_allowance_is_403_and_never_429() -> None:
    for client in serve(SANDBOX, limits={"DailyApiRequests": 2}):
        answers = [client.get(f"{BASE}/limits") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 403]
        assert answers[2].json() == [
            {"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}
        ]
        assert "retry-after" not in answers[2].headers


def test_point_23_errors_are_a_list_for_rest_and_an_object_for_oauth(reader: Client) -> None:
    for answer in (
        reader.get(f"{BASE}/sobjects/Nope/describe"),
        reader.get(f"{TOOLING}/query", params={"q": "SELECT"}),
        reader.patch(f"{TOOLING}/sobjects/ValidationRule/nope", json={}),
        reader.get(f"{BASE}/metadata/deployRequest/0Af000000000000AAA"),
        reader.get(f"{BASE}/limits", headers={"Authorization": "Bearer 00Dno!token"}),
    ):
        body = answer.json()
        assert isinstance(body, list), answer.url
        assert {"message", "errorCode"} <= set(body[0])
    oauth = reader.post("/services/oauth2/token", data={"grant_type": "nonsense"})
    assert oauth.status_code == 400
    assert oauth.json() == {"error": "unsupported_grant_type", "error_description": "grant type not supported"}


def test_point_24_counts_stand_in_total_size_or_in_expr0_and_empty_objects_are_left_out(client: Client) -> None:
    client.load(tenants(3))
    bare = client.query("SELECT COUNT() FROM Tenant__c")
    assert (bare["totalSize"], bare["records"]) == (3, [])
    counted = client.query("SELECT COUNT(Id) FROM Tenant__c")
    assert (counted["totalSize"], counted["records"][0]["expr0"]) == (1, 3)
    rules = client.get(f"{TOOLING}/query", params={"q": "SELECT COUNT() FROM ValidationRule"}).json()
    assert (rules["totalSize"], rules["records"]) == (2, [])
    counts = client.get(f"{BASE}/limits/recordCount", params={"sObjects": "Tenant__c,Sale__c"}).json()
    assert counts == {"sObjects": [{"count": 3, "name": "Tenant__c"}]}


def test_point_25_required_is_createable_not_nillable_and_not_defaulted(client: Client) -> None:
    fields = fields_of(client, "Typed__c")
    required = [
        name
        for name, field in fields.items()
        if field["createable"] and not field["nillable"] and not field["defaultedOnCreate"]
    ]
    assert required == ["Needed__c"]
    assert (fields["Flag__c"]["nillable"], fields["Flag__c"]["defaultedOnCreate"]) == (False, True)
    made = client.post(f"{BASE}/sobjects/Typed__c", json={"Needed__c": "x"})
    assert made.status_code == 201, "a boolean that is left out takes its default"
    refused = client.post(f"{BASE}/sobjects/Typed__c", json={"Flag__c": True})
    assert error_of(refused) == (400, "REQUIRED_FIELD_MISSING")


def test_point_26_picklists_take_api_values_and_the_restricted_ones_nothing_else(client: Client) -> None:
    fields = fields_of(client, "Typed__c")
    values = [(entry["value"], entry["label"], entry["active"]) for entry in fields["State__c"]["picklistValues"]]
    assert values == [("A", "Alpha", True), ("Z", "Z", False)]
    assert (fields["State__c"]["restrictedPicklist"], fields["Free__c"]["restrictedPicklist"]) == (True, False)

    def create(**given: str) -> tuple[int, str]:
        answer = client.post(f"{BASE}/sobjects/Typed__c", json={"Needed__c": "x", **given})
        return (201, "") if answer.status_code == 201 else error_of(answer)

    assert create(State__c="A", Free__c="Anything") == (201, "")
    for value in ("Alpha", "Z", "Other"):
        assert create(State__c=value) == (400, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"), value


def test_point_33_a_partial_metadata_loses_the_rest_and_flows_return_to_their_saved_version(client: Client) -> None:
    record = one(client, "SELECT Id, Metadata FROM ValidationRule WHERE ValidationName = 'No_Zero'")
    url = f"{TOOLING}/sobjects/ValidationRule/{record['Id']}"
    saved = record["Metadata"]
    assert error_of(client.patch(url, json={"Metadata": {"active": False}})) == (400, "REQUIRED_FIELD_MISSING")
    assert client.get(url).json()["Metadata"] == saved, "what is refused changes nothing"
    needed = {name: saved[name] for name in ("active", "errorConditionFormula", "errorMessage")}
    assert client.patch(url, json={"Metadata": {**needed, "active": False}}).status_code == 204
    after = client.get(url).json()["Metadata"]
    assert (after["description"], after["errorDisplayField"]) == (None, None), "optional members are wiped"
    assert client.patch(url, json={"Metadata": saved}).status_code == 204
    assert client.get(url).json()["Metadata"] == saved
    flow = one(client, "SELECT Id, ActiveVersion.VersionNumber, LatestVersion.VersionNumber FROM FlowDefinition")
    active, latest = flow["ActiveVersion"]["VersionNumber"], flow["LatestVersion"]["VersionNumber"]
    assert (active, latest) == (2, 3), "the latest version is not the one that was active"
    flow_url = f"{TOOLING}/sobjects/FlowDefinition/{flow['Id']}"
    assert client.patch(flow_url, json={"Metadata": {"activeVersionNumber": 0}}).status_code == 204
    assert client.patch(flow_url, json={"Metadata": {"activeVersionNumber": active}}).status_code == 204
    (running,) = client.server.org.automations.active_on("Sale__c").flows
    assert running.active_version == 2


def test_point_34_a_trigger_is_switched_in_production_by_a_deploy_that_runs_tests(production: Client) -> None:
    record = one(production, "SELECT Id, Metadata FROM ApexTrigger")
    patched = production.patch(
        f"{TOOLING}/sobjects/ApexTrigger/{record['Id']}",
        json={"Metadata": {**record["Metadata"], "status": "Inactive"}},
    )
    assert patched.json()[0]["message"] == "Can't alter metadata in an active org"
    restore = make_zip(**retrieved(production, "<types><members>SaleTrigger</members><name>ApexTrigger</name></types>"))
    refused = deployed(production, trigger_zip("Inactive"))
    assert (refused["status"], refused["numberTestsTotal"], refused["numberTestErrors"]) == ("Failed", 2, 2)
    checked = deployed(production, restore, checkOnly=True)
    assert (checked["status"], checked["checkOnly"], checked["numberTestsTotal"]) == ("Succeeded", True, 2)
    for tolerant in serve(PRODUCTION, automations=document({}, apex_tests={"classes": ["SaleTest"]})["automations"]):
        assert deployed(tolerant, trigger_zip("Inactive"))["numberTestsTotal"] == 1
        assert tolerant.server.org.automations.active_on("Sale__c").triggers == ()
        assert deployed(tolerant, restore)["numberTestsTotal"] == 1, "the way back runs tests as well"
        assert tolerant.server.org.automations.active_on("Sale__c").triggers


def test_point_35_a_new_field_without_field_level_security_looks_like_a_wrong_header(client: Client) -> None:
    body = {"FullName": "Tenant__c.Fresh__c", "Metadata": {"type": "Text", "label": "Fresh", "length": 9}}
    assert client.post(f"{TOOLING}/sobjects/CustomField", json=body).status_code == 201
    assert "Fresh__c" not in fields_of(client, "Tenant__c")
    job = client.load(b"Tenant_Code__c,Fresh__c\nA,x\n")
    assert (job["state"], job["errorMessage"]) == ("Failed", "InvalidBatch : Field name not found : Fresh__c")
    permission_set = client.query("SELECT Id FROM PermissionSet")["records"][0]["Id"]
    grant = {"ParentId": permission_set, "SobjectType": "Tenant__c", "Field": "Tenant__c.Fresh__c"}
    answer = client.post(f"{BASE}/sobjects/FieldPermissions", json={**grant, "PermissionsRead": True})
    assert answer.status_code == 201
    assert "Fresh__c" in fields_of(client, "Tenant__c")
    assert client.load(b"Tenant_Code__c,Fresh__c\nA,x\n")["state"] == "JobComplete"


def test_point_45_fields_and_their_traits_are_those_of_the_loading_user() -> None:
    """Goal: describe, SOQL and loads follow field-level security of the caller. Method: two users on one org."""
    users = [
        {"username": "etl@kpc.example"},
        {
            "username": "clerk@kpc.example",
            "unseen_fields": ["Tenant__c.Note__c", "Typed__c.Flag__c"],
            "read_only_fields": ["Tenant__c.Name"],
        },
    ]
    for client in serve(SANDBOX, users=users):
        server = client.server
        with Client(server, server.app.sign_in.open_session("clerk@kpc.example")) as clerk:
            assert "Note__c" in fields_of(client, "Tenant__c")
            seen = fields_of(clerk, "Tenant__c")
            assert "Note__c" not in seen
            assert (seen["Name"]["createable"], fields_of(client, "Tenant__c")["Name"]["createable"]) == (False, True)
            soql = {"q": "SELECT Note__c FROM Tenant__c"}
            assert client.get(f"{BASE}/query", params=soql).status_code == 200
            assert error_of(clerk.get(f"{BASE}/query", params=soql)) == (400, "INVALID_FIELD")
            rows = b"Tenant_Code__c,Note__c\nA,x\n"
            job = clerk.load(rows)
            assert job["errorMessage"] == "InvalidBatch : Field name not found : Note__c"
            assert client.load(rows)["numberRecordsFailed"] == 0
            (refused,) = clerk.results(clerk.load(b"Tenant_Code__c,Name\nB,x\n")["id"], "failedResults")
            assert refused["sf__Error"].startswith(
                "INVALID_FIELD_FOR_INSERT_UPDATE:Unable to create/update fields: Name."
            )
            record = clerk.post(f"{BASE}/sobjects/Tenant__c", json={"Tenant_Code__c": "C", "Note__c": "x"})
            assert error_of(record) == (400, "INVALID_FIELD")
            url = client.query("SELECT Id FROM Tenant__c")["records"][0]["attributes"]["url"]
            assert "Note__c" not in clerk.get(url).json()
            assert client.get(url).json()["Note__c"] == "x"
            made = clerk.post(f"{BASE}/sobjects/Typed__c", json={"Needed__c": "x"})
            assert made.status_code == 201
            assert client.query("SELECT Flag__c FROM Typed__c")["records"][0]["Flag__c"] is False


@pytest.mark.parametrize(
    ("field", "problem"),
    [("Sale__c.Nope__c", "no field"), ("Sale__c.Must__c", "does not apply"), ("Sale__c.Id", "does not apply")],
)
def test_point_45_security_names_only_fields_that_it_applies_to(field: str, problem: str) -> None:
    with pytest.raises(SchemaError, match=problem):
        schema_from_dict({**document(SANDBOX), "users": [{"username": "a@b.c", "unseen_fields": [field]}]})


def test_point_46_audit_fields_cannot_be_written(client: Client) -> None:
    assert fields_of(client, "Tenant__c")["CreatedDate"]["createable"] is False
    body = {"Tenant_Code__c": "A", "CreatedDate": "2020-01-01T00:00:00.000Z"}
    refused = client.post(f"{BASE}/sobjects/Tenant__c", json=body)
    assert error_of(refused) == (400, "INVALID_FIELD_FOR_INSERT_UPDATE")
    job = client.load(b"Tenant_Code__c,CreatedDate\nA,2020-01-01T00:00:00.000Z\n")
    (row,) = client.results(job["id"], "failedResults")
    assert row["sf__Error"].startswith("INVALID_FIELD_FOR_INSERT_UPDATE:Unable to create/update fields: CreatedDate.")


def test_point_47_a_record_type_must_exist_and_be_available(client: Client) -> None:
    described = client.get(f"{BASE}/sobjects/Typed__c/describe").json()["recordTypeInfos"]
    infos = {entry["developerName"]: entry for entry in described}
    assert infos["Master"]["recordTypeId"] == "012000000000000AAA"
    assert (infos["Retail"]["available"], infos["Closed"]["available"]) == (True, False)

    def create(record_type: str) -> tuple[int, str]:
        body = {"Needed__c": "x", "RecordTypeId": record_type}
        answer = client.post(f"{BASE}/sobjects/Typed__c", json=body)
        return (201, "") if answer.status_code == 201 else (400, answer.json()[0]["message"])

    assert create(infos["Retail"]["recordTypeId"]) == (201, "")
    status, message = create("012000000000001AAA")
    assert status == 400
    assert message.startswith("Record Type ID: this ID value isn't valid for the user: 012000000000001")
    assert create(infos["Closed"]["recordTypeId"])[0] == 400, "it exists and is not available to this user"
