"""Records over REST in larger calls: composite with allOrNone, batch, tree, retrieve, what changed, upsert variants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.twin_http_fixtures import BASE, SCHEMA_DOCUMENT, Client

from forcelift.twin.clock import ManualClock
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

MEMO = {
    "fields": {
        "Memo_Id__c": {"type": "string", "length": 20, "externalId": True, "unique": True},
        "Sale__c": {
            "type": "reference",
            "referenceTo": "Sale__c",
            "relationshipName": "Sale__r",
            "childRelationshipName": "Memos__r",
        },
        "About__c": {"type": "reference", "referenceTo": ["Tenant__c", "Sale__c"], "relationshipName": "About__r"},
    }
}
HALTED = "The transaction was rolled back since another operation in the same transaction failed."


@pytest.fixture(scope="module")
def server() -> Iterator[TwinServer]:
    document = {**SCHEMA_DOCUMENT, "objects": {**SCHEMA_DOCUMENT["objects"], "Memo__c": MEMO}}
    org = TwinOrg.open(None, schema=schema_from_dict(document), clock=ManualClock(), seed=5)
    with TwinServer(org) as running:
        yield running
    assert running.internal_errors == []
    org.close()


@pytest.fixture
def client(server: TwinServer) -> Iterator[Client]:
    with Client(server) as made:
        yield made


def tenant(code: str) -> dict[str, Any]:
    return {"Tenant_Code__c": code, "Name": code}


def codes(client: Client, like: str) -> list[str]:
    soql = f"SELECT Tenant_Code__c FROM Tenant__c WHERE Tenant_Code__c LIKE '{like}%' ORDER BY Tenant_Code__c"
    return [record["Tenant_Code__c"] for record in client.query(soql)["records"]]


def part(method: str, path: str, name: str, body: Any = None) -> dict[str, Any]:
    return {"method": method, "url": f"{BASE}{path}", "referenceId": name, **({} if body is None else {"body": body})}


def test_a_composite_request_with_all_or_none_is_one_transaction(client: Client) -> None:
    good = part("POST", "/sobjects/Tenant__c", "a", tenant("ca1"))
    query = "/query?q=SELECT+Name+FROM+Tenant__c+WHERE+Tenant_Code__c='ca1'"
    seen = part("GET", query, "seen")
    sale = part("POST", "/sobjects/Sale__c", "sale", {"Sale_Id__c": "cs1", "Must__c": "x", "Tenant__c": "@{a.id}"})
    bad = part("POST", "/sobjects/Sale__c", "bad", {"Sale_Id__c": "cs2"})
    body = {"allOrNone": True, "compositeRequest": [good, seen, sale, bad, part("GET", "/limits", "last")]}
    parts = client.post(f"{BASE}/composite", json=body).json()["compositeResponse"]
    assert [each["referenceId"] for each in parts] == ["a", "seen", "sale", "bad", "last"]
    assert [each["httpStatusCode"] for each in parts] == [400] * 5
    assert parts[3]["body"][0]["errorCode"] == "REQUIRED_FIELD_MISSING"
    for at in (0, 1, 2, 4):
        assert parts[at]["body"] == [{"message": HALTED, "errorCode": "PROCESSING_HALTED"}]
    assert codes(client, "ca") == []
    body["compositeRequest"] = [good, seen, sale]
    parts = client.post(f"{BASE}/composite", json=body).json()["compositeResponse"]
    assert [each["httpStatusCode"] for each in parts] == [201, 200, 201]
    assert parts[1]["body"]["records"][0]["Name"] == "ca1"  # a query inside sees what its own transaction has done
    assert codes(client, "ca") == ["ca1"]


def test_a_failed_collection_undoes_the_composite_request_around_it(client: Client) -> None:
    records = [{"attributes": {"type": "Tenant__c"}, **tenant(code)} for code in ("cb2", "cb2")]
    many = part("POST", "/composite/sobjects", "many", {"allOrNone": True, "records": records})
    one = part("POST", "/sobjects/Tenant__c", "one", tenant("cb1"))
    body = {"allOrNone": True, "compositeRequest": [one, many]}
    parts = client.post(f"{BASE}/composite", json=body).json()["compositeResponse"]
    assert [each["httpStatusCode"] for each in parts] == [400, 400]
    assert {error["statusCode"] for each in parts[1]["body"] for error in each["errors"]} == {
        "DUPLICATE_VALUE",
        "ALL_OR_NONE_OPERATION_ROLLED_BACK",
    }
    assert codes(client, "cb") == []
    upsert = part("PATCH", "/composite/sobjects/Tenant__c/Tenant_Code__c", "up", many["body"])
    parts = client.post(f"{BASE}/composite", json={**body, "compositeRequest": [one, upsert]}).json()[
        "compositeResponse"
    ]
    assert parts[1]["body"][0]["errors"][0]["statusCode"] == "DUPLICATE_VALUE"
    assert codes(client, "cb") == []
    body["allOrNone"] = False
    parts = client.post(f"{BASE}/composite", json=body).json()["compositeResponse"]
    assert [each["httpStatusCode"] for each in parts] == [201, 200]
    assert codes(client, "cb") == ["cb1"]


def test_collections_of_several_objects_stand_or_fall_together(client: Client) -> None:
    def saved(must: str | None) -> list[dict[str, Any]]:
        records = [
            {"attributes": {"type": "Tenant__c"}, **tenant("co1")},
            {"attributes": {"type": "Sale__c"}, "Sale_Id__c": "co2", "Must__c": must},
            {"attributes": {"type": "Tenant__c"}, **tenant("co3")},
        ]
        answer = client.post(f"{BASE}/composite/sobjects", json={"allOrNone": True, "records": records})
        assert answer.status_code == 200
        listed: list[dict[str, Any]] = answer.json()
        return listed

    failed = saved(None)
    assert [result["errors"][0]["statusCode"] for result in failed] == [
        "ALL_OR_NONE_OPERATION_ROLLED_BACK",
        "REQUIRED_FIELD_MISSING",
        "ALL_OR_NONE_OPERATION_ROLLED_BACK",
    ]
    assert codes(client, "co") == []
    ids = [result["id"] for result in saved("x")]
    assert codes(client, "co") == ["co1", "co3"]
    gone = f"{BASE}/composite/sobjects"
    wrong = client.delete(gone, params={"ids": ",".join([*ids, "a00000000000099AAA"]), "allOrNone": "true"}).json()
    assert [result["success"] for result in wrong] == [False] * 4
    assert codes(client, "co") == ["co1", "co3"]
    assert all(result["success"] for result in client.delete(gone, params={"ids": ",".join(ids)}).json())
    assert codes(client, "co") == []


def test_a_batch_runs_each_call_on_its_own(client: Client) -> None:
    requests = [
        {"method": "POST", "url": "v66.0/sobjects/Tenant__c", "richInput": tenant("ba1")},
        {"method": "POST", "url": "v66.0/sobjects/Tenant__c", "richInput": tenant("ba1")},
        {"method": "GET", "url": f"{BASE}/query/?q=SELECT+COUNT()+FROM+Tenant__c+WHERE+Name='ba1'"},
        {"method": "GET", "url": "v66.0/jobs/ingest"},
        {"method": "PUT", "url": "v66.0/limits"},
    ]
    answer = client.post(f"{BASE}/composite/batch", json={"batchRequests": requests}).json()
    assert answer["hasErrors"] is True
    assert [result["statusCode"] for result in answer["results"]] == [201, 400, 200, 404, 405]
    assert answer["results"][1]["result"][0]["errorCode"] == "DUPLICATE_VALUE"
    assert answer["results"][2]["result"]["totalSize"] == 1
    halted = client.post(f"{BASE}/composite/batch", json={"haltOnError": True, "batchRequests": requests[1:]}).json()
    assert [result["statusCode"] for result in halted["results"]] == [400, 412, 412, 412]
    assert halted["results"][1]["result"][0]["errorCode"] == "BATCH_PROCESSING_HALTED"
    fine = client.post(f"{BASE}/composite/batch", json={"batchRequests": requests[2:3]}).json()
    assert fine["hasErrors"] is False


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"batchRequests": []},
        {"batchRequests": ["x"]},
        {"batchRequests": [{"method": "GET"}]},
        {"batchRequests": [{"method": "GET", "url": "v66.0/limits"}] * 26},
        {"haltOnError": 1, "batchRequests": [{"method": "GET", "url": "v66.0/limits"}]},
    ],
)
def test_batches_that_are_none(client: Client, body: dict[str, Any]) -> None:
    assert client.post(f"{BASE}/composite/batch", json=body).status_code == 400


def node(kind: str, name: str, values: dict[str, Any], **children: list[Any]) -> dict[str, Any]:
    nested = {relationship: {"records": records} for relationship, records in children.items()}
    return {"attributes": {"type": kind, "referenceId": name}, **values, **nested}


def sale(name: str, **children: list[Any]) -> dict[str, Any]:
    return node("Sale__c", name, {"Sale_Id__c": name, "Must__c": "x"}, **children)


def test_a_tree_makes_parents_and_children_in_one_go(client: Client) -> None:
    memos = [node("Memo__c", "m1", {"Memo_Id__c": "m1"}), node("Memo__c", "m2", {"Memo_Id__c": "m2"})]
    tree = [node("Tenant__c", "t1", tenant("tr1"), Sales__r=[sale("s1", Memos__r=memos), sale("s2")])]
    tree.append(node("Tenant__c", "t2", tenant("tr2")))
    answer = client.post(f"{BASE}/composite/tree/Tenant__c", json={"records": tree})
    assert (answer.status_code, answer.json()["hasErrors"]) == (201, False)
    assert [result["referenceId"] for result in answer.json()["results"]] == ["t1", "s1", "m1", "m2", "s2", "t2"]
    soql = "SELECT Memo_Id__c, Sale__r.Sale_Id__c, Sale__r.Tenant__r.Name FROM Memo__c WHERE Memo_Id__c LIKE 'm%'"
    found = {record["Memo_Id__c"]: record["Sale__r"] for record in client.query(soql)["records"]}
    assert {name: (link["Sale_Id__c"], link["Tenant__r"]["Name"]) for name, link in found.items()} == {
        "m1": ("s1", "tr1"),
        "m2": ("s1", "tr1"),
    }


def test_a_tree_with_an_error_leaves_nothing(client: Client) -> None:
    tree = [node("Tenant__c", "t1", tenant("tf1"), Sales__r=[node("Sale__c", "s9", {"Sale_Id__c": "s9"})])]
    answer = client.post(f"{BASE}/composite/tree/Tenant__c", json={"records": tree})
    assert answer.status_code == 400
    (result,) = answer.json()["results"]
    assert (answer.json()["hasErrors"], result["referenceId"]) == (True, "s9")
    assert result["errors"][0]["statusCode"] == "REQUIRED_FIELD_MISSING"
    assert codes(client, "tf") == []


@pytest.mark.parametrize(
    ("records", "code"),
    [
        (None, "JSON_PARSER_ERROR"),
        ([], "JSON_PARSER_ERROR"),
        (["x"], "INVALID_INPUT"),
        ([{"attributes": {"type": "Tenant__c"}}], "INVALID_INPUT"),
        ([node("Sale__c", "a", {})], "INVALID_INPUT"),
        ([node("Tenant__c", "a", {}), node("Tenant__c", "a", {})], "INVALID_INPUT"),
        ([node("Tenant__c", str(at), {}) for at in range(201)], "INVALID_INPUT"),
        ([node("Tenant__c", "a", {}, Nope__r=[sale("b")])], "INVALID_FIELD"),
        ([node("Tenant__c", "a", {"Nope__c": 1})], "INVALID_FIELD"),
    ],
)
def test_trees_that_are_none(client: Client, records: Any, code: str) -> None:
    answer = client.post(f"{BASE}/composite/tree/Tenant__c", json={"records": records})
    assert (answer.status_code, answer.json()[0]["errorCode"]) == (400, code)


def test_records_are_retrieved_in_the_order_of_their_ids(client: Client) -> None:
    ids = [client.post(f"{BASE}/sobjects/Tenant__c", json=tenant(f"re{at}")).json()["id"] for at in range(3)]
    asked = [ids[2], "a00000000000000AAA", ids[0][:15], "x", ids[2]]
    url = f"{BASE}/composite/sobjects/Tenant__c"
    by_get = client.get(url, params={"ids": ",".join(asked), "fields": "Name,Owner.Name"}).json()
    by_post = client.post(url, json={"ids": asked, "fields": ["Name", "Owner.Name"]}).json()
    assert by_get == by_post
    assert [None if each is None else each["Name"] for each in by_get] == ["re2", None, "re0", None, "re2"]
    for body in (
        {},
        {"ids": ids, "fields": []},
        {"ids": "x", "fields": ["Id"]},
        {"ids": ids, "fields": ["Id FROM User"]},
    ):
        assert client.post(url, json=body).status_code == 400
    assert client.post(url, json={"ids": ids * 1000, "fields": ["Id"]}).json()[0]["errorCode"] == "EXCEEDED_ID_LIMIT"


def test_what_was_changed_and_deleted_in_a_span(client: Client, server: TwinServer) -> None:
    keep, gone = (client.post(f"{BASE}/sobjects/Sale__c", json={"Must__c": "x"}).json()["id"] for _ in range(2))
    assert client.delete(f"{BASE}/sobjects/Sale__c/{gone}").status_code == 204
    span = {"start": "2025-12-31T23:00:00Z", "end": "2026-01-01T00:01:30+00:00"}
    updated = client.get(f"{BASE}/sobjects/Sale__c/updated/", params=span).json()
    assert keep in updated["ids"]
    assert gone not in updated["ids"]
    assert updated["latestDateCovered"] == "2026-01-01T00:01:00.000+0000"
    deleted = client.get(f"{BASE}/sobjects/Sale__c/deleted", params=span).json()
    assert {"id": gone, "deletedDate": "2026-01-01T00:00:00.000+0000"} in deleted["deletedRecords"]
    assert keep not in [each["id"] for each in deleted["deletedRecords"]]
    assert deleted["earliestDateAvailable"] == "2025-12-17T00:00:00.000+0000"
    earlier = {"start": "2025-12-31T22:00:00Z", "end": "2025-12-31T23:00:00Z"}
    assert client.get(f"{BASE}/sobjects/Sale__c/updated", params=earlier).json()["ids"] == []
    for start, end, code in [
        ("", "2026-01-01T00:00:00Z", "MISSING_ARGUMENT"),
        ("yesterday", "2026-01-01T00:00:00Z", "INVALID_REPLICATION_DATE"),
        ("2026-01-01T00:00:00Z", "2025-12-31T00:00:00Z", "INVALID_REPLICATION_DATE"),
        ("2025-11-01T00:00:00Z", "2026-01-01T00:00:00Z", "INVALID_REPLICATION_DATE"),
        ("0001-01-01T00:00:00+14:00", "2026-01-01T00:00:00Z", "INVALID_REPLICATION_DATE"),
    ]:
        answer = client.get(f"{BASE}/sobjects/Sale__c/updated", params={"start": start, "end": end})
        assert (answer.status_code, answer.json()[0]["errorCode"]) == (400, code)


def test_upsert_that_must_not_create_and_upsert_by_id(client: Client) -> None:
    url = f"{BASE}/sobjects/Tenant__c/Tenant_Code__c/up1"
    assert client.patch(url, params={"updateOnly": "true"}, json={"Name": "x"}).status_code == 404
    made = client.post(f"{BASE}/sobjects/Tenant__c/Id", json=tenant("up1"))
    assert made.status_code == 201
    assert client.patch(url, params={"updateOnly": "true"}, json={"Name": "y"}).json()["created"] is False
    by_id = client.patch(f"{BASE}/sobjects/Tenant__c/Id/{made.json()['id']}", json={"Name": "z"})
    assert (by_id.status_code, by_id.json()["created"]) == (200, False)
    assert (
        client.get(f"{BASE}/sobjects/Tenant__c/Tenant_Code__c/UP1%20", params={"fields": "Name"}).json()["Name"] == "z"
    )


def test_a_parent_among_several_objects_is_named_with_its_type(client: Client) -> None:
    client.post(f"{BASE}/sobjects/Tenant__c", json=tenant("po1"))
    about = {"attributes": {"type": "Tenant__c"}, "Tenant_Code__c": "po1"}
    made = client.post(f"{BASE}/sobjects/Memo__c", json={"Memo_Id__c": "po", "About__r": about})
    assert made.status_code == 201, made.text
    soql = "SELECT About__r.Name, About__r.Type FROM Memo__c WHERE Memo_Id__c = 'po'"
    found = client.query(soql)["records"][0]["About__r"]
    assert (found["Name"], found["Type"], found["attributes"]["type"]) == ("po1", "Tenant__c", "Name")
    untyped = client.post(f"{BASE}/sobjects/Memo__c", json={"About__r": {"Tenant_Code__c": "po1"}})
    assert untyped.json()[0]["errorCode"] == "INVALID_FIELD"


@pytest.mark.parametrize("content", [b'{"Name": NaN}', b'{"Name": ' + b"9" * 5000 + b"}", b'{"Name": Infinity}'])
def test_numbers_that_are_no_json(client: Client, content: bytes) -> None:
    answer = client.post(f"{BASE}/sobjects/Tenant__c", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()[0]["errorCode"]) == (400, "JSON_PARSER_ERROR")


def test_not_modified(client: Client) -> None:
    made = client.post(f"{BASE}/sobjects/Tenant__c", json=tenant("nm1")).json()["id"]
    record = f"{BASE}/sobjects/Tenant__c/{made}"
    for url in (record, f"{BASE}/sobjects", f"{BASE}/sobjects/Tenant__c", f"{BASE}/sobjects/Tenant__c/describe"):
        assert client.get(url).status_code == 200
        later = {"If-Modified-Since": "Fri, 02 Jan 2026 00:00:00 GMT"}
        assert (client.get(url, headers=later).status_code, client.get(url, headers=later).content) == (304, b"")
        earlier = {"If-Modified-Since": "Tue, 30 Dec 2025 00:00:00 GMT"}
        assert client.get(url, headers=earlier).status_code == 200
    before = {"If-Unmodified-Since": "Tue, 30 Dec 2025 00:00:00 GMT"}
    assert client.get(record, headers=before).status_code == 412
    assert client.patch(record, json={"Name": "x"}, headers=before).status_code == 412
    after = {"If-Unmodified-Since": "Fri, 02 Jan 2026 00:00:00 GMT"}
    assert client.patch(record, json={"Name": "x"}, headers=after).status_code == 204
