"""REST over HTTP: discovery, describe, records, queries, limits, and what all calls have in common."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from tests.integration.twin_http_fixtures import BASE, Client, make_schema, tenants

from forcelift.twin.clock import ManualClock
from forcelift.twin.org import TwinOrg
from forcelift.twin.server import ServerFailed, TwinServer

NOT_FOUND = [{"message": "The requested resource does not exist", "errorCode": "NOT_FOUND"}]


@pytest.fixture(scope="module")
def server() -> Iterator[TwinServer]:
    org = TwinOrg.open(None, schema=make_schema())
    with TwinServer(org) as running:
        with Client(running) as client:
            client.load(tenants(5000))
        yield running
    assert running.internal_errors == []
    org.close()


@pytest.fixture
def client(server: TwinServer) -> Iterator[Client]:
    with Client(server) as made:
        yield made


def test_versions_and_their_names(client: Client) -> None:
    versions = httpx.get(f"{client.server.url}/services/data/").json()
    by_number = {entry["version"]: entry["label"] for entry in versions}
    assert list(by_number) == [f"{number}.0" for number in range(31, 68)]
    known = {
        "31.0": "Summer '14",
        "60.0": "Spring '24",
        "62.0": "Winter '25",
        "66.0": "Spring '26",
        "67.0": "Summer '26",
    }
    assert {number: by_number[number] for number in known} == known
    assert versions[-1]["url"] == "/services/data/v67.0"


@pytest.mark.parametrize(
    ("version", "status", "code"),
    [("31.0", 200, ""), ("67.0", 200, ""), ("30.0", 410, "GONE"), ("21.0", 410, "GONE"), ("20.0", 404, "NOT_FOUND"),
     ("68.0", 404, "NOT_FOUND"), ("x", 404, "NOT_FOUND")],
)  # fmt: skip
def test_live_retired_and_unknown_versions(client: Client, version: str, status: int, code: str) -> None:
    answer = client.get(f"/services/data/v{version}/limits")
    assert answer.status_code == status
    if code:
        assert answer.json()[0]["errorCode"] == code


def test_paths_tolerate_doubled_and_trailing_slashes(client: Client) -> None:
    for path in (f"{BASE}/", f"/{BASE}//sobjects//", "//services/data/v66.0//jobs/ingest/"):
        assert client.get(client.server.url + path).status_code == 200


def test_unknown_paths_are_404_in_salesforces_form(client: Client) -> None:
    for path in (f"{BASE}/nothing", f"{BASE}/sobjects/Nothing__c/describe", "/nothing"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


def test_resource_root(client: Client) -> None:
    root = client.get(BASE).json()
    assert root["sobjects"] == f"{BASE}/sobjects"
    assert root["identity"].startswith(f"{client.server.url}/id/{client.server.org.org_id}/005")
    for name, path in root.items():
        if name not in ("identity", "query", "queryAll"):
            assert client.get(path).status_code == 200, name


def test_objects_and_describe(client: Client) -> None:
    listed = client.get(f"{BASE}/sobjects").json()
    names = [entry["name"] for entry in listed["sobjects"]]
    assert {"Tenant__c", "Sale__c", "User", "Organization"} <= set(names)
    assert (listed["encoding"], listed["maxBatchSize"]) == ("UTF-8", 200)
    info = client.get(f"{BASE}/sobjects/Tenant__c").json()
    assert info["objectDescribe"]["name"] == "Tenant__c"
    describe = client.get(f"{BASE}/sobjects/tenant__C/describe").json()
    key = next(field for field in describe["fields"] if field["name"] == "Tenant_Code__c")
    assert (key["externalId"], key["unique"], key["idLookup"], key["length"]) == (True, True, True, 20)


def test_limits_and_the_usage_header(client: Client) -> None:
    first = client.get(f"{BASE}/limits")
    second = client.get(f"{BASE}/limits/recordCount", params={"sObjects": "Tenant__c,Sale__c,Nothing"})
    assert second.json() == {"sObjects": [{"count": 5000, "name": "Tenant__c"}]}
    used = [
        int(answer.headers["Sforce-Limit-Info"].removeprefix("api-usage=").split("/")[0]) for answer in (first, second)
    ]
    assert used[1] == used[0] + 1
    limits = first.json()["DailyApiRequests"]
    assert limits["Max"] - limits["Remaining"] == used[0]
    assert "Sforce-Limit-Info" in client.get(f"{BASE}/nothing").headers


def test_query_pages_of_one_moment(client: Client) -> None:
    """Goal: pages fit together and can be read again. Method: read them while records are being added."""
    soql = "SELECT Tenant_Code__c FROM Tenant__c ORDER BY Tenant_Code__c DESC"
    page = client.query(soql)
    assert (page["totalSize"], page["done"], len(page["records"])) == (5000, False, 2000)
    client.post(f"{BASE}/sobjects/Tenant__c", json={"Tenant_Code__c": "T999999"})
    codes = [record["Tenant_Code__c"] for record in page["records"]]
    first_url = page["nextRecordsUrl"]
    while not page["done"]:
        page = client.get(page["nextRecordsUrl"]).json()
        assert page["totalSize"] == 5000
        codes += [record["Tenant_Code__c"] for record in page["records"]]
    assert codes == [f"T{number:06d}" for number in range(4999, -1, -1)]
    assert client.get(first_url).json()["records"][0]["Tenant_Code__c"] == "T002999"
    assert client.query("SELECT COUNT() FROM Tenant__c")["totalSize"] == 5001
    record = client.query("SELECT Id FROM Tenant__c WHERE Tenant_Code__c = 'T999999'")["records"][0]
    assert client.delete(record["attributes"]["url"]).status_code == 204


def test_page_size_hint(client: Client) -> None:
    for hint, size in (("batchSize=250", 250), ("batchSize=1", 200), ("batchSize=9999", 2000), ("batchSize=x", 2000)):
        headers = {"Sforce-Query-Options": hint}
        answer = client.get(f"{BASE}/query", params={"q": "SELECT Id FROM Tenant__c"}, headers=headers)
        assert len(answer.json()["records"]) == size


def test_cursors_are_bounded_and_belong_to_their_user(client: Client) -> None:
    urls = [client.query("SELECT Id FROM Tenant__c")["nextRecordsUrl"] for _ in range(11)]
    refused = client.get(urls[0])
    assert refused.status_code == 400
    assert refused.json() == [{"message": "invalid query locator", "errorCode": "INVALID_QUERY_LOCATOR"}]
    assert client.get(urls[-1]).status_code == 200
    with Client(client.server, client.server.app.sign_in.open_session("other@kpc.example")) as other:
        assert other.get(urls[-1]).status_code == 400
    for locator in ("01gxxx-2000", "x", urls[-1].rpartition("/")[2].partition("-")[0] + "-99999"):
        assert client.get(f"{BASE}/query/{locator}").status_code == 400


def test_query_errors_are_arrays(client: Client) -> None:
    expected = {
        "SELECT Id FROM Nothing__c": "INVALID_TYPE",
        "SELECT Nope FROM Tenant__c": "INVALID_FIELD",
        "SELEC Id": "MALFORMED_QUERY",
        "": "MALFORMED_QUERY",
    }
    for soql, code in expected.items():
        answer = client.get(f"{BASE}/query", params={"q": soql})
        assert (answer.status_code, answer.json()[0]["errorCode"]) == (400, code), soql


def test_counts_and_aggregates(client: Client) -> None:
    assert client.query("SELECT COUNT() FROM Tenant__c") == {"totalSize": 5000, "done": True, "records": []}
    counted = client.query("SELECT COUNT(Id) FROM Tenant__c")
    assert counted["records"] == [{"attributes": {"type": "AggregateResult"}, "expr0": 5000}]


def test_columns_of_a_query(client: Client) -> None:
    params = {"q": "SELECT Id, Name, Owner.Name FROM Tenant__c", "columns": "true"}
    document = client.get(f"{BASE}/query", params=params).json()
    assert [column["columnName"] for column in document["columnMetadata"]] == ["Id", "Name", "Name"]
    assert (document["entityName"], document["idSelected"]) == ("Tenant__c", True)


def test_organization_and_user(client: Client) -> None:
    org_id = client.server.org.org_id
    record = client.get(f"{BASE}/sobjects/Organization/{org_id}", params={"fields": "Id,IsSandbox"}).json()
    assert (record["Id"], record["IsSandbox"]) == (org_id, False)
    users = client.query("SELECT Username FROM User WHERE IsActive = true ORDER BY Username")
    assert [user["Username"] for user in users["records"]] == ["etl@kpc.example", "other@kpc.example"]
    refused = client.post(f"{BASE}/sobjects/Organization", json={"Name": "x"})
    assert (refused.status_code, refused.json()[0]["errorCode"]) == (400, "INVALID_TYPE_FOR_OPERATION")


def test_a_record_from_creation_to_deletion(client: Client) -> None:
    path = f"{BASE}/sobjects/Sale__c"
    body = {
        "Sale_Id__c": "R1", "Must__c": "m", "Amount__c": 12.345, "Paid__c": True, "Sold_On__c": "2026-01-31",
        "Sold_At__c": "2026-01-31T12:00:00Z", "Count__c": 5, "Tenant__r": {"Tenant_Code__c": "T000001"},
    }  # fmt: skip
    created = client.post(path, json=body)
    assert created.status_code == 201, created.text
    record_id = created.json()["id"]
    assert created.json() == {"id": record_id, "success": True, "errors": []}
    record = client.get(f"{path}/{record_id}").json()
    assert record["attributes"] == {"type": "Sale__c", "url": f"{path}/{record_id}"}
    assert (record["Amount__c"], record["Paid__c"], record["Count__c"]) == (12.35, True, 5)
    assert (record["Sold_On__c"], record["Sold_At__c"]) == ("2026-01-31", "2026-01-31T12:00:00.000+0000")
    assert client.patch(f"{path}/{record_id}", json={"Amount__c": None, "Count__c": 6}).status_code == 204
    changed = client.get(f"{path}/{record_id[:15]}", params={"fields": "Amount__c,Count__c,Sale_Id__c"}).json()
    assert (changed["Amount__c"], changed["Count__c"], changed["Sale_Id__c"]) == (None, 6, "R1")
    assert client.delete(f"{path}/{record_id}").status_code == 204
    gone = client.get(f"{path}/{record_id}")
    assert (gone.status_code, gone.json()[0]["errorCode"]) == (404, "ENTITY_IS_DELETED")
    deleted = client.get(f"{BASE}/queryAll", params={"q": f"SELECT IsDeleted FROM Sale__c WHERE Id = '{record_id}'"})
    assert deleted.json()["records"][0]["IsDeleted"] is True


def test_upsert_by_external_id(client: Client) -> None:
    path = f"{BASE}/sobjects/Sale__c/Sale_Id__c/a%2Fb%20c"
    created = client.patch(path, json={"Must__c": "m"})
    assert created.status_code == 201
    assert created.json()["created"] is True
    updated = client.patch(path, json={"Must__c": "n"})
    assert (updated.status_code, updated.json()["created"]) == (200, False)
    assert updated.json()["id"] == created.json()["id"]
    old = client.patch(path.replace("v66.0", "v45.0"), json={"Must__c": "o"})
    assert (old.status_code, old.content) == (204, b"")
    record = client.get(path).json()
    assert (record["Sale_Id__c"], record["Must__c"]) == ("a/b c", "o")
    assert client.patch(f"{BASE}/sobjects/Sale__c/Must__c/x", json={}).status_code == 404
    repeated = client.patch(path, json={"Sale_Id__c": "other"})
    assert repeated.status_code == 400


def test_an_external_id_that_several_records_have(client: Client) -> None:
    for key in ("G1", "G2"):
        client.post(f"{BASE}/sobjects/Sale__c", json={"Sale_Id__c": key, "Group__c": "many", "Must__c": "m"})
    path = f"{BASE}/sobjects/Sale__c/Group__c/many"
    for answer in (client.get(path), client.patch(path, json={"Must__c": "x"}), client.delete(path)):
        assert answer.status_code == 300
        assert len(answer.json()) == 2


@pytest.mark.parametrize(
    ("body", "code", "fields"),
    [
        ({"Sale_Id__c": "E1"}, "REQUIRED_FIELD_MISSING", ["Must__c"]),
        ({"Must__c": "too long"}, "STRING_TOO_LONG", ["Must__c"]),
        ({"Must__c": "m", "Sold_On__c": "2026-02-30"}, "INVALID_TYPE_ON_FIELD_IN_RECORD", ["Sold_On__c"]),
        ({"Must__c": "m", "Tenant__r": {"Tenant_Code__c": "none"}}, "INVALID_FIELD", []),
        ({"Must__c": "m", "Nope__c": 1}, "INVALID_FIELD", []),
        ({"Must__c": 5}, "JSON_PARSER_ERROR", []),
        ({"Must__c": ["m"]}, "JSON_PARSER_ERROR", []),
        ({"Must__c": "m", "Tenant__r": {}}, "INVALID_FIELD", []),
    ],
)
def test_records_that_are_refused(client: Client, body: dict[str, Any], code: str, fields: list[str]) -> None:
    answer = client.post(f"{BASE}/sobjects/Sale__c", json=body)
    (error,) = answer.json()
    assert (answer.status_code, error["errorCode"], error.get("fields", [])) == (400, code, fields)


def test_records_that_are_not_there(client: Client) -> None:
    path = f"{BASE}/sobjects/Tenant__c"
    unknown = "a00000000000999AAA"
    for answer in (
        client.get(f"{path}/{unknown}"),
        client.patch(f"{path}/{unknown}", json={"Note__c": "x"}),
        client.delete(f"{path}/{unknown}"),
        client.get(f"{path}/rubbish"),
        client.get(f"{path}/Tenant_Code__c/none"),
    ):
        assert (answer.status_code, answer.json()[0]["errorCode"]) == (404, "NOT_FOUND")


def test_collections_keep_the_order_of_the_request(client: Client) -> None:
    path = f"{BASE}/composite/sobjects"
    attributes = {"type": "Sale__c"}
    records = [
        {"attributes": attributes, "Sale_Id__c": "C1", "Must__c": "m"},
        {"attributes": attributes, "Sale_Id__c": "C2"},
        {"attributes": {"type": "Tenant__c"}, "Tenant_Code__c": "C3"},
        {"attributes": attributes, "Sale_Id__c": "C4", "Must__c": "m"},
    ]
    results = client.post(path, json={"records": records}).json()
    assert [result["success"] for result in results] == [True, False, True, True]
    assert results[1]["errors"][0]["statusCode"] == "REQUIRED_FIELD_MISSING"
    ids = [results[0]["id"], results[3]["id"]]
    changes = [{"attributes": attributes, "Id": record_id, "Must__c": "z"} for record_id in ids]
    assert all(result["success"] for result in client.patch(path, json={"records": changes}).json())
    upsert = [{"attributes": attributes, "Sale_Id__c": key, "Must__c": "u"} for key in ("C1", "C9")]
    answer = client.patch(f"{path}/Sale__c/Sale_Id__c", json={"records": upsert}).json()
    assert [result["created"] for result in answer] == [False, True]
    deleted = client.delete(path, params={"ids": ",".join([*ids, "rubbish", ids[0]])}).json()
    assert [result["success"] for result in deleted] == [True, True, False, False]
    assert deleted[3]["errors"][0]["statusCode"] == "ENTITY_IS_DELETED"


def test_all_or_none_keeps_nothing(client: Client) -> None:
    attributes = {"type": "Sale__c"}
    records = [{"attributes": attributes, "Sale_Id__c": "N1", "Must__c": "m"}, {"attributes": attributes}]
    results = client.post(f"{BASE}/composite/sobjects", json={"allOrNone": True, "records": records}).json()
    assert [result["errors"][0]["statusCode"] for result in results] == [
        "ALL_OR_NONE_OPERATION_ROLLED_BACK",
        "REQUIRED_FIELD_MISSING",
    ]
    assert client.query("SELECT COUNT() FROM Sale__c WHERE Sale_Id__c = 'N1'")["totalSize"] == 0


def test_collections_that_are_none(client: Client) -> None:
    path = f"{BASE}/composite/sobjects"
    many = [{"attributes": {"type": "Tenant__c"}, "Tenant_Code__c": str(number)} for number in range(201)]
    bodies: list[dict[str, Any]] = [
        {},
        {"records": []},
        {"records": ["x"]},
        {"records": many},
        {"records": [{"Name": "x"}]},
    ]
    for body in bodies:
        assert client.post(path, json=body).status_code == 400
    assert client.delete(path).status_code == 400


def test_composite_passes_results_on(client: Client) -> None:
    requests = [
        {"method": "POST", "url": f"{BASE}/sobjects/Tenant__c", "referenceId": "new", "body": {"Tenant_Code__c": "P1"}},
        {"method": "GET", "url": f"{BASE}/sobjects/Tenant__c/@{{new.id}}?fields=Tenant_Code__c", "referenceId": "read"},
        {"method": "POST", "url": f"{BASE}/sobjects/Sale__c", "referenceId": "bad", "body": {"Tenant__c": "@{new.id}"}},
        {"method": "GET", "url": f"{BASE}/sobjects/Sale__c/@{{bad.id}}", "referenceId": "halted"},
        {
            "method": "GET",
            "url": f"{BASE}/query/?q=SELECT+Id+FROM+Tenant__c+WHERE+Id='@{{new.id}}'",
            "referenceId": "query",
        },
        {"method": "DELETE", "url": f"{BASE}/sobjects/Tenant__c/@{{query.records[0].Id}}", "referenceId": "gone"},
        {"method": "GET", "url": f"{BASE}/jobs/ingest", "referenceId": "other"},
    ]
    answer = client.post(f"{BASE}/composite", json={"compositeRequest": requests})
    assert answer.status_code == 200
    parts = {part["referenceId"]: part for part in answer.json()["compositeResponse"]}
    assert [part["httpStatusCode"] for part in parts.values()] == [201, 200, 400, 400, 200, 204, 404]
    assert parts["new"]["httpHeaders"]["Location"].endswith(parts["new"]["body"]["id"])
    assert parts["read"]["body"]["Tenant_Code__c"] == "P1"
    assert parts["halted"]["body"][0]["errorCode"] == "PROCESSING_HALTED"
    assert parts["gone"]["body"] is None


def test_composite_requests_that_are_none(client: Client) -> None:
    one = {"method": "GET", "url": f"{BASE}/limits", "referenceId": "a"}
    change = {"method": "DELETE", "url": f"{BASE}/sobjects/Tenant__c/x", "referenceId": "a"}
    bodies: list[dict[str, Any]] = [
        {},
        {"compositeRequest": [one, one]},
        {"compositeRequest": ["x"]},
        {"compositeRequest": [{**one, "referenceId": str(number)} for number in range(26)]},
        {"compositeRequest": [{**one, "url": f"{BASE}/query?q=x", "referenceId": str(number)} for number in range(6)]},
        {"compositeRequest": [{"method": "GET"}]},
    ]
    for body in bodies:
        assert client.post(f"{BASE}/composite", json=body).status_code == 400
    both = {"allOrNone": True, "compositeRequest": [change, {**change, "referenceId": "b"}]}
    parts = client.post(f"{BASE}/composite", json=both).json()["compositeResponse"]
    assert [part["httpStatusCode"] for part in parts] == [404, 400]
    assert client.post(f"{BASE}/composite", json={**both, "allOrNone": "yes"}).status_code == 400


def test_describe_not_modified(client: Client) -> None:
    path = f"{BASE}/sobjects/Tenant__c/describe"
    stamp = client.get(path).headers["Last-Modified"]
    unchanged = client.get(path, headers={"If-Modified-Since": stamp})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    for earlier in ("Thu, 01 Jan 2015 00:00:00 GMT", "nonsense"):
        assert client.get(path, headers={"If-Modified-Since": earlier}).status_code == 200


def test_used_up_requests() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    org = TwinOrg.open(None, schema=make_schema(limits={"DailyApiRequests": 3}), clock=clock)
    with TwinServer(org) as server, Client(server) as client:
        assert [client.get(f"{BASE}/limits").status_code for _ in range(4)] == [200, 200, 200, 403]
        refused = client.get(BASE)
        assert refused.json() == [{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}]
        assert refused.headers["Sforce-Limit-Info"] == "api-usage=3/3"
        token = client.server.access_token
        clock.advance(timedelta(hours=25))
        assert client.get(BASE).status_code == 401  # the window has rolled on, but so has the session
        with Client(server, server.app.sign_in.open_session("etl@kpc.example")) as again:
            assert again.get(BASE).status_code == 200
        assert token
    org.close()


def test_requests_that_are_too_long(client: Client) -> None:
    assert client.get(f"{BASE}/query", params={"q": "x" * 17_000}).status_code == 414
    assert client.get(BASE, headers={"X-Long": "x" * 17_000}).status_code == 431


def test_pretty_print(client: Client) -> None:
    assert client.get(BASE, headers={"X-PrettyPrint": "1"}).text.startswith('{\n  "')


def test_a_fault_of_the_twin_is_told_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    org = TwinOrg.open(None, schema=make_schema())

    def broken() -> None:
        raise ZeroDivisionError("secret value")

    with TwinServer(org) as server, Client(server) as client:
        monkeypatch.setattr(org.usage, "limits_json", broken)
        answer = client.get(f"{BASE}/limits")
        assert answer.status_code == 500
        (error,) = answer.json()
        assert error["errorCode"] == "UNKNOWN_EXCEPTION"
        assert "secret" not in answer.text
        assert "Zero" not in answer.text
        assert len(server.internal_errors) == 1
        assert "secret" not in server.internal_errors[0]
    org.close()


def test_a_port_that_is_taken_and_a_server_that_was_stopped(client: Client) -> None:
    org = TwinOrg.open(None, schema=make_schema())
    second = TwinServer(org, port=client.server.port)
    with pytest.raises(ServerFailed, match="cannot listen"):
        second.start()
    second.stop()
    with pytest.raises(ServerFailed, match="once"):
        second.start()
    org.close()
