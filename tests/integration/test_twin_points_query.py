"""What simulators and clients get wrong about queries, results, records, deletes and errors: one test for each point.

The numbers are those of the list in section 9 of the project's Salesforce API reference.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from tests.integration.twin_http_fixtures import BASE, Client

from forcelift.twin.clock import ManualClock
from forcelift.twin.ids import id18
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

SCHEMA: dict[str, Any] = {
    "org": {"sandbox": False},
    "users": [{"username": "etl@kpc.example", "permissions": ["bulk_hard_delete"]}, {"username": "b@kpc.example"}],
    "objects": {
        "Shop__c": {
            "fields": {
                "Code__c": {"type": "string", "length": 20, "externalId": True, "unique": True},
                "Exact__c": {"type": "string", "length": 20, "externalId": True, "unique": True, "caseSensitive": True},
                "Loose__c": {"type": "string", "length": 20, "externalId": True},
                "Must__c": {"type": "string", "length": 20, "required": True},
                "Flag__c": {"type": "boolean", "defaultValue": True},
                "Amount__c": {"type": "currency", "precision": 18, "scale": 2},
                "Count__c": {"type": "int"},
                "Day__c": {"type": "date"},
                "At__c": {"type": "datetime"},
                "Free__c": {"type": "picklist", "values": ["A"]},
                "State__c": {
                    "type": "picklist",
                    "restrictedPicklist": True,
                    "values": [{"value": "New", "label": "Neu"}, {"value": "Old", "active": False}],
                },
            },
            "recordTypes": [{"name": "Retail", "developerName": "Retail"}],
        },
        "Till__c": {
            "fields": {
                "Shop__c": {
                    "type": "reference",
                    "referenceTo": "Shop__c",
                    "relationshipOrder": 0,
                    "childRelationshipName": "Tills__r",
                }
            }
        },
        "Empty__c": {"fields": {}, "recordTypes": [{"name": "Other", "developerName": "Other"}]},
    },
}


@pytest.fixture(scope="module")
def server() -> Iterator[TwinServer]:
    org = TwinOrg.open(None, schema=schema_from_dict(SCHEMA), clock=ManualClock(), seed=9)
    with TwinServer(org) as running:
        yield running
    assert running.internal_errors == []
    org.close()


@pytest.fixture
def client(server: TwinServer) -> Iterator[Client]:
    with Client(server, server.app.sign_in.open_session("etl@kpc.example")) as made:
        yield made


def create(client: Client, **values: Any) -> httpx.Response:
    return client.post(f"{BASE}/sobjects/Shop__c", json={"Must__c": "x", **values})


def made(client: Client, **values: Any) -> str:
    answer = create(client, **values)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def refused(answer: httpx.Response, code: str, status: int = 400) -> dict[str, Any]:
    """The one error of a refusal."""
    assert (answer.status_code, answer.json()[0]["errorCode"]) == (status, code), answer.text
    (error,) = answer.json()
    return dict(error)


def soql(client: Client, text: str, path: str = "query") -> httpx.Response:
    return client.get(f"{BASE}/{path}", params={"q": text})


def bulk_query(client: Client, text: str, operation: str = "query") -> dict[str, Any]:
    answer = client.post(f"{BASE}/jobs/query", json={"operation": operation, "query": text})
    assert answer.status_code == 200, answer.text
    return client.wait(f"{BASE}/jobs/query/{answer.json()['id']}")


def results(client: Client, job: dict[str, Any], **params: Any) -> httpx.Response:
    answer = client.get(f"{BASE}/jobs/query/{job['id']}/results", params=params)
    assert answer.status_code == 200, answer.text
    return answer


def rows(answer: httpx.Response) -> list[list[str]]:
    return list(csv.reader(io.StringIO(answer.text, newline="")))


def test_point_4_versions_are_numbers_and_times_have_no_colon(client: Client) -> None:
    job = bulk_query(client, "SELECT Id FROM Empty__c")
    assert job["apiVersion"] == 66.0
    assert isinstance(job["apiVersion"], float)
    assert job["createdDate"].endswith(".000+0000")
    shop = made(client, Code__c="p4", At__c="2026-01-31T19:00:00+07:00")
    record = client.get(f"{BASE}/sobjects/Shop__c/{shop}").json()
    assert record["At__c"] == "2026-01-31T12:00:00.000+0000"
    assert record["CreatedDate"] == "2026-01-01T00:00:00.000+0000"


def test_point_6_numbers_are_rewritten_in_bulk_and_order_is_undefined(client: Client) -> None:
    amounts = [912260031, 896852810, 500, 30.5, 0.25, -2, 0]
    for at, amount in enumerate(amounts):
        made(client, Code__c=f"p6-{at}", Amount__c=amount, Count__c=at)
    job = bulk_query(client, "SELECT Count__c, Amount__c FROM Shop__c WHERE Code__c LIKE 'p6-%'")
    found = {int(row[0]): row[1] for row in rows(results(client, job))[1:]}
    assert found == dict(enumerate(["9.12260031E8", "8.9685281E8", "500.0", "30.5", "0.25", "-2.0", "0.0"]))
    content = "\n".join(["Code__c,Must__c", *(f"p6o{at:04},x" for at in range(500)), ""]).encode()
    assert client.load(content, object="Shop__c")["numberRecordsFailed"] == 0
    job = bulk_query(client, "SELECT Code__c FROM Shop__c WHERE Code__c LIKE 'p6o%'")
    listed = [row[0] for row in rows(results(client, job))[1:]]
    assert sorted(listed) == [f"p6o{at:04}" for at in range(500)]
    assert listed != sorted(listed)


def test_point_12_an_unknown_parent_key_fails_its_record_alone(client: Client) -> None:
    made(client, Code__c="p12")
    records = [{"attributes": {"type": "Till__c"}, "Shop__r": {"Code__c": code}} for code in ("p12", "p12-none")]
    good, bad = client.post(f"{BASE}/composite/sobjects", json={"records": records}).json()
    assert good["success"] is True
    assert bad["errors"][0]["statusCode"] == "INVALID_FIELD"
    assert (
        bad["errors"][0]["message"] == "Foreign key external ID: p12-none not found for field Code__c in entity Shop__c"
    )


def test_point_14_text_keys_ignore_case_unless_unique_and_case_sensitive(client: Client) -> None:
    first = made(client, Code__c="p14Ab", Exact__c="p14Ab")
    error = refused(create(client, Code__c="P14AB"), "DUPLICATE_VALUE")
    assert error["message"] == f"duplicate value found: Code__c duplicates value on record with id: {first[:15]}"
    second = made(client, Exact__c="p14aB")  # another value to a case-sensitive field
    by_key = f"{BASE}/sobjects/Shop__c"
    assert client.get(f"{by_key}/Code__c/p14aB").json()["Id"] == first
    assert client.get(f"{by_key}/Code__c/p14ab%20%20").json()["Id"] == first  # trailing blanks are ignored
    assert client.get(f"{by_key}/Exact__c/p14aB").json()["Id"] == second
    assert client.get(f"{by_key}/Exact__c/p14ab").status_code == 404
    assert client.patch(f"{by_key}/Code__c/P14AB%20", json={}).json() == {
        "id": first,
        "success": True,
        "errors": [],
        "created": False,
    }
    assert soql(client, "SELECT Id FROM Shop__c WHERE Code__c = 'p14AB'").json()["totalSize"] == 1
    assert soql(client, "SELECT Id FROM Shop__c WHERE Exact__c = 'p14AB'").json()["totalSize"] == 0
    assert soql(client, "SELECT Id FROM Shop__c WHERE Exact__c IN ('p14AB', 'p14Ab')").json()["totalSize"] == 1


def test_point_15_both_forms_of_an_id_are_one_record(client: Client) -> None:
    shop = made(client, Code__c="p15")
    for form in (shop, shop[:15]):
        assert client.get(f"{BASE}/sobjects/Shop__c/{form}").json()["Id"] == shop
        assert soql(client, f"SELECT Id FROM Shop__c WHERE Id = '{form}'").json()["records"][0]["Id"] == shop
        assert soql(client, f"SELECT Id FROM Shop__c WHERE Id IN ('{form}')").json()["totalSize"] == 1
    assert shop == id18(shop[:15])
    swapped = shop[:15].swapcase()
    assert client.get(f"{BASE}/sobjects/Shop__c/{swapped}").status_code == 404  # case counts in 15 characters
    wrong = shop[:15] + ("AAA" if shop[15:] != "AAA" else "AAB")
    assert (
        "invalid ID field"
        in refused(soql(client, f"SELECT Id FROM Shop__c WHERE Id = '{wrong}'"), "INVALID_QUERY_FILTER_OPERATOR")[
            "message"
        ]
    )


def test_point_22_limits_and_outages_are_403_503_and_420(client: Client) -> None:
    client.arm({"action": "limit", "name": "DailyApiRequests", "maximum": 0})
    answer = client.get(f"{BASE}/limits")
    client.delete("/__twin__/faults", headers=client.control_headers)
    assert refused(answer, "REQUEST_LIMIT_EXCEEDED", 403)["message"] == "TotalRequests Limit exceeded."
    assert "retry-after" not in answer.headers
    client.arm(
        {"action": "answer", "path": "/limits"}, {"action": "answer", "path": "/limits", "status": 420, "body": ""}
    )
    html, edge, fine = (client.get(f"{BASE}/limits") for _ in range(3))
    client.delete("/__twin__/faults", headers=client.control_headers)
    assert (html.status_code, html.headers["content-type"]) == (503, "text/html")
    assert (edge.status_code, edge.content, fine.status_code) == (420, b"", 200)


def test_point_23_errors_are_arrays_but_for_sign_in(client: Client) -> None:
    answers = [
        soql(client, "SELECT"),
        client.get(f"{BASE}/sobjects/Nope__c/describe"),
        client.get(f"{BASE}/nope"),
        create(client, Nope__c=1),
        client.get(f"{BASE}/jobs/query/750000000000000AAA"),
        client.post(f"{BASE}/jobs/query", json={"operation": "query"}),
        client.put(f"{BASE}/limits"),
        client.get(f"{BASE}/limits", headers={"Authorization": "Bearer x"}),
        client.post(f"{BASE}/sobjects/Shop__c", content=b"{", headers={"Content-Type": "application/json"}),
    ]
    for answer in answers:
        assert answer.status_code >= 400
        (error,) = answer.json()
        assert {"message", "errorCode"} <= error.keys() <= {"message", "errorCode", "fields"}
    sign_in = client.post("/services/oauth2/token", data={"grant_type": "password"})
    assert sign_in.status_code == 400
    assert set(sign_in.json()) == {"error", "error_description"}
    assert refused(create(client, Must__c=None), "REQUIRED_FIELD_MISSING")["fields"] == ["Must__c"]
    collection = client.post(
        f"{BASE}/composite/sobjects", json={"records": [{"attributes": {"type": "Shop__c"}, "Code__c": "p23"}]}
    ).json()
    assert collection[0]["errors"][0].keys() == {"statusCode", "message", "fields"}


def test_point_24_where_a_count_stands(client: Client) -> None:
    for at in range(3):
        made(client, Code__c=f"p24-{at}")
    where = "WHERE Code__c LIKE 'p24-%'"
    assert soql(client, f"SELECT COUNT() FROM Shop__c {where}").json() == {"totalSize": 3, "done": True, "records": []}
    assert soql(client, f"SELECT COUNT(Id) FROM Shop__c {where}").json() == {
        "totalSize": 1,
        "done": True,
        "records": [{"attributes": {"type": "AggregateResult"}, "expr0": 3}],
    }
    counts = client.get(f"{BASE}/limits/recordCount", params={"sObjects": "Shop__c,Empty__c"}).json()["sObjects"]
    assert [entry["name"] for entry in counts] == ["Shop__c"]  # objects without records are left out
    assert client.get(f"{BASE}/limits/recordCount", params={"sObjects": "Empty__c"}).json() == {"sObjects": []}


def test_point_25_required_is_createable_not_nillable_and_not_defaulted(client: Client) -> None:
    fields = {field["name"]: field for field in client.get(f"{BASE}/sobjects/Shop__c/describe").json()["fields"]}
    required = {
        name
        for name, field in fields.items()
        if field["createable"] and not field["nillable"] and not field["defaultedOnCreate"]
    }
    assert required == {"Must__c"}
    assert (fields["Flag__c"]["nillable"], fields["Flag__c"]["defaultedOnCreate"]) == (False, True)
    shop = made(client, Code__c="p25")
    record = client.get(f"{BASE}/sobjects/Shop__c/{shop}").json()
    assert (record["Flag__c"], record["OwnerId"]) == (True, client.server.org.users[0].id)
    assert (
        "Required fields are missing: [Must__c]"
        in refused(create(client, Must__c=None), "REQUIRED_FIELD_MISSING")["message"]
    )


def test_point_26_picklists_take_values_not_labels(client: Client) -> None:
    made(client, Code__c="p26a", Free__c="anything", State__c="New")
    for value in ("Neu", "Old", "new thing"):
        error = refused(create(client, State__c=value), "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST")
        assert error["fields"] == ["State__c"]
    found = soql(client, "SELECT State__c, toLabel(State__c) shown FROM Shop__c WHERE Code__c = 'p26a'").json()
    assert (found["records"][0]["State__c"], found["records"][0]["shown"]) == ("New", "Neu")


def test_point_27_decimals_are_rounded_and_integer_digits_are_not(client: Client) -> None:
    shop = made(client, Code__c="p27", Amount__c="1.005")
    assert client.get(f"{BASE}/sobjects/Shop__c/{shop}").json()["Amount__c"] == 1.01
    refused(create(client, Amount__c=1e16), "NUMBER_OUTSIDE_VALID_RANGE")


def test_point_28_an_int_takes_no_decimal_point_and_a_double_takes_none_or_one(client: Client) -> None:
    for wrong in ("250.0", 250.5):
        error = refused(create(client, Count__c=wrong), "INVALID_TYPE_ON_FIELD_IN_RECORD")
        assert error["fields"] == ["Count__c"]
    made(client, Code__c="p28", Count__c=250, Amount__c=250)


def test_point_29_dates_must_exist_and_lose_their_time(client: Client) -> None:
    for wrong in ("2026-02-30", "2026-02-30T23:30:00.000-05:00"):
        refused(create(client, Day__c=wrong), "INVALID_TYPE_ON_FIELD_IN_RECORD")
    shop = made(client, Code__c="p29", Day__c="2026-02-28", At__c="2026-02-28T23:30:00.999-01:00")
    record = client.get(f"{BASE}/sobjects/Shop__c/{shop}").json()
    assert (record["Day__c"], record["At__c"]) == ("2026-02-28", "2026-03-01T00:30:00.000+0000")
    timed = made(client, Code__c="p29t", Day__c="2026-02-28T23:30:00.000-05:00")
    assert client.get(f"{BASE}/sobjects/Shop__c/{timed}").json()["Day__c"] == "2026-02-28"


def test_point_30_deletes_of_repeated_ids_and_of_what_fell_with_its_master(client: Client) -> None:
    shop = made(client, Code__c="p30")
    till = client.post(f"{BASE}/sobjects/Till__c", json={"Shop__c": shop}).json()["id"]
    ids = f"{BASE}/composite/sobjects"
    repeated = client.delete(ids, params={"ids": f"{shop},{shop[:15]}"}).json()
    assert [result["success"] for result in repeated] == [True, False]
    assert repeated[1]["errors"][0]["statusCode"] == "ENTITY_IS_DELETED"
    child = client.delete(ids, params={"ids": till}).json()[0]
    assert child["errors"][0] == {"statusCode": "ENTITY_IS_DELETED", "message": "entity is deleted", "fields": []}
    refused(client.delete(f"{BASE}/sobjects/Till__c/{till}"), "ENTITY_IS_DELETED", 404)
    extra = client.load(f"Id,Name\n{shop},x\n".encode(), object="Shop__c", operation="delete")
    assert extra["state"] == "Failed"
    assert extra["errorMessage"] == "InvalidBatch : The 'delete' batch must contain only ids"


def test_point_31_deleted_records_wait_in_the_bin_and_free_their_key(client: Client) -> None:
    first = made(client, Code__c="p31")
    assert client.delete(f"{BASE}/sobjects/Shop__c/{first}").status_code == 204
    query = "SELECT Id, IsDeleted FROM Shop__c WHERE Code__c = 'p31'"
    assert soql(client, query).json()["totalSize"] == 0
    assert soql(client, query, "queryAll").json()["records"][0]["IsDeleted"] is True
    upserted = client.patch(f"{BASE}/sobjects/Shop__c/Code__c/p31", json={"Must__c": "x"})
    assert (upserted.status_code, upserted.json()["created"]) == (201, True)  # a deleted record is no match
    assert upserted.json()["id"] != first
    assert soql(client, query, "queryAll").json()["totalSize"] == 2
    for operation, total in (("query", 1), ("queryAll", 2)):
        assert bulk_query(client, query, operation)["numberRecordsProcessed"] == total
    counted = client.get(f"{BASE}/limits/recordCount", params={"sObjects": "Shop__c"}).json()["sObjects"][0]["count"]
    assert counted == soql(client, "SELECT COUNT() FROM Shop__c", "queryAll").json()["totalSize"]
    clock = client.server.org.clock
    assert isinstance(clock, ManualClock)
    clock.advance(timedelta(days=15))
    with Client(client.server, client.server.app.sign_in.open_session("etl@kpc.example")) as later:
        assert soql(later, query, "queryAll").json()["totalSize"] == 1


def test_point_36_the_last_locator_is_the_word_null(client: Client) -> None:
    for at in range(5):
        made(client, Code__c=f"p36-{at}")
    job = bulk_query(client, "SELECT Code__c FROM Shop__c WHERE Code__c LIKE 'p36-%' ORDER BY Code__c")
    seen: list[str] = []
    locator: str | None = None
    for size in (2, 2, 1):
        params = {"maxRecords": 2, **({} if locator is None else {"locator": locator})}
        page = results(client, job, **params)
        header, *body = rows(page)
        assert header == ["Code__c"]  # each page repeats the header row
        assert page.text.startswith('"Code__c"\n"')
        assert (page.headers["SFORCE-NUMBEROFRECORDS"], len(body)) == (str(size), size)
        seen += [row[0] for row in body]
        locator = page.headers["Sforce-Locator"]
    assert locator == "null"
    assert seen == [f"p36-{at}" for at in range(5)]
    other = client.get(f"/services/data/v65.0/jobs/query/{job['id']}/results")
    assert other.status_code == 409
    pages = client.get(f"{BASE}/jobs/query/{job['id']}/resultPages").json()
    assert (pages["done"], len(pages["resultPages"]), pages.get("nextRecordsUrl")) == (True, 1, None)
    assert client.get(pages["resultPages"][0]["resultUrl"]).text == results(client, job).text
    assert client.get(f"/services/data/v57.0/jobs/query/{job['id']}/resultPages").status_code == 404
    none = bulk_query(client, "SELECT Id, Code__c FROM Shop__c WHERE Code__c = 'p36-none'")
    assert results(client, none).text == '"Id","Code__c"\n'
    assert results(client, none).headers["sforce-locator"] == "null"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("SELECT COUNT() FROM Shop__c", "Aggregate functions not supported in Bulk Query"),
        ("SELECT COUNT(Id) FROM Shop__c", "Aggregate functions not supported in Bulk Query"),
        ("SELECT Name FROM Shop__c GROUP BY Name", "GROUP BY not supported in Bulk Query"),
        ("SELECT Id FROM Shop__c LIMIT 5 OFFSET 1", "OFFSET not supported in Bulk Query"),
        ("SELECT Id, (SELECT Id FROM Tills__r) FROM Shop__c", "Aggregate Relationships not supported in Bulk Query"),
        ("SELECT TYPEOF Owner WHEN User THEN Name END FROM Shop__c", "TYPEOF not supported in Bulk Query"),
    ],
)
def test_point_37_bulk_query_cannot_count_group_or_skip(client: Client, query: str, text: str) -> None:
    error = refused(client.post(f"{BASE}/jobs/query", json={"operation": "query", "query": query}), "API_ERROR")
    assert text in error["message"]


def test_point_37_order_by_and_limit_are_kept_in_bulk_query_and_slices_are_counted_by_rest(client: Client) -> None:
    content = "\n".join(["Code__c,Must__c,Count__c", *(f"p37-{at:03},x,{at}" for at in range(300)), ""]).encode()
    assert client.load(content, object="Shop__c")["numberRecordsFailed"] == 0
    where = "WHERE Code__c LIKE 'p37-%'"
    ordered = bulk_query(client, f"SELECT Count__c FROM Shop__c {where} ORDER BY Count__c DESC LIMIT 10")
    assert [int(row[0]) for row in rows(results(client, ordered))[1:]] == list(range(299, 289, -1))
    everything = bulk_query(client, f"SELECT Count__c FROM Shop__c {where}")
    slices = [
        soql(client, f"SELECT COUNT() FROM Shop__c {where} AND Count__c >= {start} AND Count__c < {start + 100}")
        for start in range(0, 300, 100)
    ]
    assert sum(each.json()["totalSize"] for each in slices) == everything["numberRecordsProcessed"] == 300


def test_point_38_query_jobs_vanish_after_seven_days(client: Client) -> None:
    job = bulk_query(client, "SELECT Id FROM Empty__c")
    clock = client.server.org.clock
    assert isinstance(clock, ManualClock)
    clock.advance(timedelta(days=7, seconds=1))
    with Client(client.server, client.server.app.sign_in.open_session("etl@kpc.example")) as later:
        for path in ("", "/results", "/resultPages"):
            refused(later.get(f"{BASE}/jobs/query/{job['id']}{path}"), "NOT_FOUND", 404)
        assert job["id"] not in [each["id"] for each in later.get(f"{BASE}/jobs/query").json()["records"]]


def test_point_45_what_the_user_cannot_see_is_not_there(client: Client) -> None:
    client.arm({"action": "hide_field", "object": "Shop__c", "field": "Free__c"})
    try:
        names = [field["name"] for field in client.get(f"{BASE}/sobjects/Shop__c/describe").json()["fields"]]
        assert "Free__c" not in names
        error = refused(soql(client, "SELECT Free__c FROM Shop__c"), "INVALID_FIELD")
        assert "No such column 'Free__c' on entity 'Shop__c'" in error["message"]
        job = client.post(f"{BASE}/jobs/query", json={"operation": "query", "query": "SELECT Free__c FROM Shop__c"})
        refused(job, "INVALID_FIELD")
    finally:
        client.delete("/__twin__/faults", headers=client.control_headers)


@pytest.mark.parametrize("field", ["CreatedDate", "CreatedById", "LastModifiedDate", "SystemModstamp", "IsDeleted"])
def test_point_46_audit_fields_are_not_writable(client: Client, field: str) -> None:
    value: Any = {"CreatedById": client.server.org.users[0].id, "IsDeleted": True}.get(field, "2020-01-01T00:00:00Z")
    error = refused(create(client, **{field: value}), "INVALID_FIELD_FOR_INSERT_UPDATE")
    assert error["fields"] == [field]


def test_point_47_a_record_type_must_be_one_of_the_object(client: Client) -> None:
    types = {
        record["DeveloperName"]: record["Id"]
        for record in soql(client, "SELECT Id, DeveloperName FROM RecordType").json()["records"]
    }
    assert made(client, Code__c="p47", RecordTypeId=types["Retail"])
    found = soql(client, "SELECT RecordType.DeveloperName FROM Shop__c WHERE RecordType.Name = 'retail'").json()
    assert found["records"][0]["RecordType"]["DeveloperName"] == "Retail"
    for wrong in (types["Other"], id18("012000000000zzz")):
        error = refused(create(client, RecordTypeId=wrong), "INVALID_CROSS_REFERENCE_KEY")
        assert error["message"] == f"Record Type ID: this ID value isn't valid for the user: {wrong}"
