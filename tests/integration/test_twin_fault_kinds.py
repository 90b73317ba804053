"""Every fault that the reference names (end of section 9): by its name, in a file, and as the client meets it."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message
from tests.integration.twin_http_fixtures import BASE, CUT, Client, make_schema, tenants

from forcelift.twin import http_perimeter
from forcelift.twin.fault_orders import NAMED, FaultFileError, FaultOrder, load_orders, named_order, parse_orders
from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer


@pytest.fixture(scope="module")
def log_file() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def server(log_file: io.StringIO) -> Iterator[TwinServer]:
    org = TwinOrg.open(None, schema=make_schema(), seed=11)
    with TwinServer(org, seed=7, log_file=log_file) as running:
        yield running
    assert running.internal_errors == []
    org.close()


@pytest.fixture
def client(server: TwinServer) -> Iterator[Client]:
    with Client(server) as made:
        yield made
        assert made.delete("/__twin__/faults", headers=made.control_headers).status_code == 204
        server.access_token = server.app.sign_in.open_session("etl@kpc.example")


def arm(client: Client, *names: str) -> None:
    client.server.app.desk.arm([named_order(name) for name in names])


def sales(count: int, start: int) -> bytes:
    rows = [f"S{number:06d},x,{number}" for number in range(start, start + count)]
    return "\n".join(["Sale_Id__c,Must__c,Count__c", *rows, ""]).encode()


def failed(client: Client, job: dict[str, Any]) -> list[dict[str, str]]:
    return client.results(job["id"], "failedResults")


def codes(rows: list[dict[str, str]]) -> Counter[str]:
    return Counter(row["sf__Error"].partition(":")[0] for row in rows)


def test_session_expiry_after_n_calls(client: Client) -> None:
    arm(client, "session-expiry=2")
    answers = [client.get(f"{BASE}/limits") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 401, 401]
    assert answers[2].json() == [{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]
    token = client.server.app.sign_in.open_session("etl@kpc.example")
    with Client(client.server, token) as renewed:
        assert renewed.get(f"{BASE}/limits").status_code == 200


def test_answers_of_the_edge(client: Client) -> None:
    arm(client, "unavailable=2", "no-route", "bad-gateway", "html-body", "request-limit")
    answers = [client.get(f"{BASE}/limits") for _ in range(7)]
    assert [answer.status_code for answer in answers] == [503, 503, 420, 502, 200, 403, 200]
    assert all("<html>" in answers[at].text for at in (0, 1, 3, 4))
    assert answers[2].content == b""
    assert answers[5].json()[0] == {"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}
    arm(client, "query-timeout")
    assert client.get(f"{BASE}/limits").status_code == 200
    timeout = client.get(f"{BASE}/query", params={"q": "SELECT Id FROM Tenant__c"})
    assert (timeout.status_code, timeout.json()[0]["errorCode"]) == (400, "QUERY_TIMEOUT")


def test_queries_that_find_too_much_time_out(client: Client) -> None:
    """A count, its records and its groups alike; what finds less is answered, and bulk queries are not bounded."""
    for count in range(3):
        body = {"Tenant_Code__c": f"Q{count}", "Name": "q"}
        assert client.post(f"{BASE}/sobjects/Tenant__c", json=body).status_code == 201
    arm(client, "query-rows=2")
    large = [
        "SELECT COUNT() FROM Tenant__c",
        "SELECT Id FROM Tenant__c",
        "SELECT Name, COUNT(Id) FROM Tenant__c GROUP BY Name",
    ]
    for soql in large:
        answer = client.get(f"{BASE}/query", params={"q": soql})
        assert (answer.status_code, answer.json()[0]["errorCode"]) == (400, "QUERY_TIMEOUT"), soql
    assert client.query("SELECT COUNT() FROM Tenant__c WHERE Tenant_Code__c IN ('Q0', 'Q1')")["totalSize"] == 2
    assert "query_rows" not in client.get(f"{BASE}/limits").json()


def test_a_slow_upload_arrives_whole(client: Client, log_file: io.StringIO) -> None:
    arm(client, "slow-upload=50000000")
    job = client.load(tenants(2000, start=50_000))
    assert (job["numberRecordsProcessed"], job["numberRecordsFailed"]) == (2000, 0)
    struck = [json.loads(line) for line in log_file.getvalue().splitlines() if "slow_request" in line]
    assert [(line["method"], line["faults"]) for line in struck] == [("PUT", ["slow_request"])]


@pytest.mark.parametrize("direction", ["request", "response"])
def test_slowness_is_bytes_by_time(direction: str) -> None:
    slept: list[float] = []
    passed: list[Message] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"x" * 500, "more_body": True}

    async def send(message: Message) -> None:
        passed.append(message)

    if direction == "request":
        message = asyncio.run(http_perimeter._slow_receive(receive, 100, sleep)())
        assert len(message["body"]) == 500
        assert slept == [5.0]
    else:
        slow = http_perimeter._slow_send(send, 1000, sleep)
        asyncio.run(slow({"type": "http.response.start", "status": 200}))
        asyncio.run(slow({"type": "http.response.body", "body": b"x" * 250}))
        assert (slept, len(passed)) == ([0.25], 2)


def test_a_download_of_results_breaks(client: Client) -> None:
    job = client.load(tenants(3000, start=60_000))
    arm(client, "cut-results=500")
    plain = {"Accept-Encoding": "identity"}
    url = f"{BASE}/jobs/ingest/{job['id']}/successfulResults"
    with pytest.raises(CUT):
        client.get(url, headers=plain)
    assert len(client.get(url, headers=plain).content.splitlines()) == 3001


def test_a_lost_reply_by_name(client: Client) -> None:
    arm(client, "lost-reply")
    body = {"Tenant_Code__c": "LOST", "Name": "x"}
    with pytest.raises(CUT):
        client.post(f"{BASE}/sobjects/Tenant__c", json=body)
    assert client.query("SELECT COUNT() FROM Tenant__c WHERE Tenant_Code__c = 'LOST'")["totalSize"] == 1


def test_a_lock_storm_takes_its_share_and_repeats_with_the_seed() -> None:
    """Goal: the same rows fail again in a replay. Method: the same job in two orgs of one seed, and one of another."""

    def struck(seed: int) -> list[str]:
        org = TwinOrg.open(None, schema=make_schema(), seed=seed)
        with TwinServer(org, seed=seed) as server, Client(server) as client:
            arm(client, "lock-storm=0.25")
            job = client.load(tenants(4000))
            rows = failed(client, job)
            assert codes(rows) == {"UNABLE_TO_LOCK_ROW": len(rows)}
            assert job["numberRecordsFailed"] == len(rows)
            shown = client.get("/__twin__/faults", headers=client.control_headers).json()
            assert (shown["seed"], shown["faults"][0]["struck"]) == (seed, len(rows))
        org.close()
        return sorted(row["Tenant_Code__c"] for row in rows)

    first = struck(3)
    assert 800 < len(first) < 1200
    assert struck(3) == first
    assert struck(4) != first


def test_a_trigger_throws_for_the_rows_of_a_condition(client: Client) -> None:
    arm(client, "trigger-exception=Sale__c:Count__c >= 7 AND Sale_Id__c LIKE 'S%'")
    job = client.load(sales(10, 0), object="Sale__c")
    rows = failed(client, job)
    assert sorted(row["Count__c"] for row in rows) == ["7", "8", "9"]
    assert rows[0]["sf__Error"].startswith(
        "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY:FaultTrigger: execution of BeforeInsert"
    )
    record = client.post(f"{BASE}/sobjects/Sale__c", json={"Must__c": "x", "Sale_Id__c": "Sx", "Count__c": 70})
    assert (record.status_code, record.json()[0]["errorCode"]) == (400, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY")
    # An update is judged by the record as it would be stored: the count that is there, with the new text.
    kept = client.query("SELECT Id FROM Sale__c WHERE Sale_Id__c = 'S000001'")["records"][0]["Id"]
    assert client.patch(f"{BASE}/sobjects/Sale__c/{kept}", json={"Must__c": "y"}).status_code == 204
    assert client.patch(f"{BASE}/sobjects/Sale__c/{kept}", json={"Count__c": 8}).status_code == 400


def test_a_condition_may_ask_a_parent(client: Client) -> None:
    client.load(tenants(2, start=70_000))
    arm(client, "duplicate-rule=Sale__c:Tenant__r.Tenant_Code__c = 'T070001'")
    content = b"Must__c,Tenant__r.Tenant_Code__c\nx,T070000\nx,T070001\n"
    rows = failed(client, client.load(content, object="Sale__c"))
    assert [row["Tenant__r.Tenant_Code__c"] for row in rows] == ["T070001"]
    assert rows[0]["sf__Error"] == "DUPLICATES_DETECTED:Use one of these records?:--"


def test_a_cpu_limit_takes_the_whole_chunk(client: Client) -> None:
    arm(client, "cpu-timeout=Sale__c:Count__c = 1250")
    rows = failed(client, client.load(sales(600, 1000), object="Sale__c"))
    assert {int(row["Count__c"]) for row in rows} == set(range(1200, 1400))
    assert codes(rows) == {"CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY": 200}


def test_faults_strike_at_most_so_many_rows_and_deletes_too(client: Client) -> None:
    client.arm({"action": "too_many_retries", "object": "Sale__c", "times": 3})
    rows = failed(client, client.load(sales(10, 2000), object="Sale__c"))
    assert codes(rows) == {"CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY": 3}
    found = client.query("SELECT Id, Count__c FROM Sale__c WHERE Count__c >= 2000 ORDER BY Count__c")["records"]
    client.arm({"action": "lock_storm", "object": "Sale__c", "where": f"Count__c = {found[0]['Count__c']}"})
    content = "\n".join(["Id", *(record["Id"] for record in found), ""]).encode()
    rows = failed(client, client.load(content, object="Sale__c", operation="delete"))
    assert [(row["Id"], row["sf__Error"].partition(":")[0]) for row in rows] == [(found[0]["Id"], "UNABLE_TO_LOCK_ROW")]


def test_storage_is_full(client: Client) -> None:
    arm(client, "storage-full")
    limits = client.get(f"{BASE}/limits").json()
    assert limits["DataStorageMB"] == {"Max": 0, "Remaining": 0}
    assert codes(failed(client, client.load(tenants(3, start=80_000)))) == {"STORAGE_LIMIT_EXCEEDED": 3}
    one = client.post(f"{BASE}/sobjects/Tenant__c", json={"Tenant_Code__c": "FULL"})
    assert one.json()[0]["errorCode"] == "STORAGE_LIMIT_EXCEEDED"
    client.delete("/__twin__/faults", headers=client.control_headers)
    assert client.post(f"{BASE}/sobjects/Tenant__c", json={"Tenant_Code__c": "FULL"}).status_code == 201


def test_daily_caps(client: Client) -> None:
    arm(client, "daily-rows=0")
    job = client.load(tenants(3, start=81_000))
    assert (job["state"], job["numberRecordsProcessed"]) == ("Failed", 0)
    assert len(client.results(job["id"], "unprocessedrecords")) == 3
    client.delete("/__twin__/faults", headers=client.control_headers)
    arm(client, "daily-batches=0")
    assert client.get(f"{BASE}/limits").json()["DailyBulkApiBatches"] == {"Max": 0, "Remaining": 0}
    assert client.load(tenants(3, start=81_000))["state"] == "Failed"
    arm(client, "daily-query-jobs=0")
    query = client.post(f"{BASE}/jobs/query", json={"operation": "query", "query": "SELECT Id FROM Tenant__c"})
    assert (query.status_code, query.json()[0]["errorCode"]) == (400, "LIMIT_EXCEEDED")
    arm(client, "daily-requests=0")
    refused = client.get(f"{BASE}/limits")
    assert (refused.status_code, refused.json()[0]["errorCode"]) == (403, "REQUEST_LIMIT_EXCEEDED")


def test_a_field_without_field_level_security_looks_like_a_wrong_header(client: Client) -> None:
    arm(client, "field-without-fls=Tenant__c.Note__c")
    names = [field["name"] for field in client.get(f"{BASE}/sobjects/Tenant__c/describe").json()["fields"]]
    assert "Note__c" not in names
    job = client.load(b"Tenant_Code__c,Note__c\nF1,x\n")
    assert (job["state"], job["errorMessage"]) == ("Failed", "InvalidBatch : Field name not found : Note__c")
    query = client.get(f"{BASE}/query", params={"q": "SELECT Note__c FROM Tenant__c"})
    assert query.json()[0]["errorCode"] == "INVALID_FIELD"
    one = client.post(f"{BASE}/sobjects/Tenant__c", json={"Tenant_Code__c": "F2", "Note__c": "x"})
    assert "No such column 'Note__c'" in one.json()[0]["message"]
    assert "Note__c" not in client.query("SELECT FIELDS(ALL) FROM Tenant__c LIMIT 1")["records"][0]
    client.delete("/__twin__/faults", headers=client.control_headers)
    assert client.load(b"Tenant_Code__c,Note__c\nF1,x\n")["state"] == "JobComplete"


def test_a_lookup_without_field_level_security_has_no_path(client: Client) -> None:
    arm(client, "field-without-fls=Sale__c.Tenant__c")
    query = client.get(f"{BASE}/query", params={"q": "SELECT Tenant__r.Name FROM Sale__c"})
    assert query.json()[0]["errorCode"] == "INVALID_FIELD"


@pytest.mark.parametrize(
    "order",
    [
        {"action": "lock_storm", "object": "Nope__c"},
        {"action": "lock_storm", "where": "Name = 'x'"},
        {"action": "lock_storm", "object": "Sale__c", "where": "Nope__c = 1"},
        {"action": "lock_storm", "object": "Sale__c", "where": "Must__c = 'x' LIMIT 1"},
        {"action": "lock_storm", "probability": 0},
        {"action": "slow_request"},
        {"action": "limit", "name": "Nope", "maximum": 1},
        {"action": "limit", "name": "DataStorageMB", "maximum": -1},
        {"action": "hide_field", "object": "Sale__c", "field": "Nope__c"},
        {"action": "hide_field", "object": "Sale__c", "field": "Id"},
        {"faults": 5},
        [{"action": "nope"}],
    ],
)
def test_orders_that_cannot_strike(client: Client, order: Any) -> None:
    answer = client.post("/__twin__/faults", json=order, headers=client.control_headers)
    assert (answer.status_code, answer.json()[0]["errorCode"]) == (400, "INVALID_FAULT")


def test_undelete_by_the_control_endpoint(client: Client) -> None:
    made = client.post(f"{BASE}/sobjects/Tenant__c", json={"Tenant_Code__c": "UND"}).json()["id"]
    assert client.delete(f"{BASE}/sobjects/Tenant__c/{made}").status_code == 204
    url = "/__twin__/undelete"
    assert client.post(url, json={"ids": [made]}).status_code == 401  # a session of the org is no control token
    results = client.post(url, json={"ids": [made, made]}, headers=client.control_headers).json()
    assert [result["success"] for result in results] == [True, False]
    assert client.get(f"{BASE}/sobjects/Tenant__c/{made}").status_code == 200
    for body in ({}, {"ids": []}, {"ids": [1]}, {"ids": ["x"] * 201}):
        assert client.post(url, json=body, headers=client.control_headers).status_code == 400


def test_the_log_tells_faults_but_no_keys(client: Client, log_file: io.StringIO) -> None:
    arm(client, "unavailable")
    client.get(f"{BASE}/sobjects/Tenant__c/Tenant_Code__c/Somchai%2Fx")
    client.get(f"{BASE}/sobjects/Tenant__c/Tenant_Code__c/Somchai%2Fx")
    client.get("/Somchai")
    lines = [json.loads(line) for line in log_file.getvalue().splitlines()][-3:]
    assert [line["path"] for line in lines] == [f"{BASE}/sobjects/Tenant__c/Tenant_Code__c/*"] * 2 + ["(unknown)"]
    assert (lines[0]["faults"], lines[0]["status"], "faults" in lines[1]) == (["answer"], 503, False)
    assert "Somchai" not in log_file.getvalue()


EXAMPLES = {
    "session-expiry": "5",
    "slow-upload": "1000",
    "lock-storm": "0.5",
    "daily-rows": "1",
    "daily-batches": "1",
    "daily-requests": "1",
    "daily-query-jobs": "1",
    "query-rows": "1",
    "trigger-exception": "A__c:B__c = 1",
    "field-without-fls": "A__c.B__c",
}


def test_every_named_fault_makes_an_order(tmp_path: Path) -> None:
    texts = [f"{name}={EXAMPLES[name]}" if name in EXAMPLES else name for name in NAMED]
    file = tmp_path / "faults.yaml"
    file.write_text(json.dumps({"faults": [*texts, {"action": "drop", "method": "PUT"}]}))
    orders = load_orders(file)
    assert len(orders) == len(NAMED) + 1
    last = orders[-1]
    assert isinstance(last, FaultOrder)
    assert (last.action, last.method) == ("drop", "PUT")
    assert (
        parse_orders([order.model_dump() for order in orders]) == orders
    )  # what the endpoint shows can be armed again


@pytest.mark.parametrize(
    "text", ["nope", "lock-storm", "lock-storm=2", "slow-upload=x", "daily-rows=-1", "unavailable=0"]
)
def test_names_and_values_that_are_none(text: str) -> None:
    with pytest.raises(FaultFileError) as caught:
        named_order(text)
    assert "there is no fault" in str(caught.value) or "takes" in str(caught.value)


@pytest.mark.parametrize("content", ["a: [", "5", "faults: 3", "- nope", "- {action: nope}", "\xff"])
def test_fault_files_that_are_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / "faults.yaml"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(FaultFileError):
        load_orders(file)
