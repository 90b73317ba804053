"""One session of a client that does everything wrong, or at the worst moment, with one twin over HTTPS.

Each test goes on with the same org and server: what one leaves behind must not harm the next. At the end the org is
asked for its faults, of which there must be none, and a twin of the twin is compared with it.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from tests.integration.twin_http_fixtures import BASE, Client
from tests.twin_store_support import SCHEMA, write_csv

from forcelift.salesforce import AuthSettings, connect
from forcelift.salesforce.snapshot import take_snapshot
from forcelift.twin.clock import ManualClock
from forcelift.twin.org import TwinOrg
from forcelift.twin.pace import Pace
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer
from forcelift.twin.tls import Certificate, own_certificate

INGEST = f"{BASE}/jobs/ingest"
QUERY = f"{BASE}/jobs/query"
HOOKS: dict[str, Any] = {
    "validation_rules": [
        {"name": "No_Hell", "object": "Trip__c", "formula": "Place__c = 'hell'", "error_message": "no: hell, no"}
    ],
    "triggers": [
        {"name": "T", "object": "Leg__c", "events": ["before insert", "after update"],
         "effects": [{"effect": "lock_parent", "field": "Plane__c"}]}
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return own_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(pair: Certificate) -> Iterator[TwinServer]:
    pace = Pace(rows_per_second=1000, parallel_batches=10, lock_wait_s=5)
    schema = schema_from_dict({**SCHEMA, "automations": HOOKS})
    with TwinOrg.open(schema=schema, clock=ManualClock(), seed=11, pace=pace) as org:
        with TwinServer(org, work=False, tls=pair) as running:
            yield running
        assert running.internal_errors == []


class Hostile(Client):
    def finish(self, job_id: str) -> dict[str, Any]:
        """Let the org work until the job has ended, moving its clock over the time that the work takes."""
        org = self.server.org
        clock = org.clock
        assert isinstance(clock, ManualClock)
        while not org.jobs.find(job_id).is_terminal:
            org.run_until_idle()
            clock.advance(timedelta(seconds=org.processor.busy_s()))
        answer: dict[str, Any] = self.get(f"{INGEST}/{job_id}").json()
        return answer

    def loaded(self, content: bytes, **body: Any) -> dict[str, Any]:
        job_id = self.create_job(**{"object": "Trip__c", **body})
        assert self.put_csv(job_id, content).status_code == 201
        assert self.close_job(job_id).status_code == 200
        return self.finish(job_id)

    def partition(self, job: dict[str, Any]) -> tuple[int, int, int]:
        """How many rows stand in each of the three files."""
        kinds = ("successfulResults", "failedResults", "unprocessedrecords")
        saved, failed, untouched = (len(self.results(job["id"], kind)) for kind in kinds)
        return saved, failed, untouched


@pytest.fixture
def client(server: TwinServer) -> Iterator[Hostile]:
    with Hostile(server, server.app.sign_in.open_session("loader@example.com")) as made:
        yield made
        made.delete("/__twin__/faults", headers=made.control_headers)


def error(answer: httpx.Response) -> tuple[int, str]:
    (first,) = answer.json()
    assert {"message", "errorCode"} <= set(first)
    return answer.status_code, first["errorCode"]


def raw(server: TwinServer, pair: Certificate, request: bytes) -> bytes:
    """What the server answers to these bytes over TLS, until it closes."""
    context = ssl.create_default_context(cafile=str(pair.cert_file))
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        secure.sendall(request)
        answer = b""
        while piece := secure.recv(65536):
            answer += piece
        return answer


def test_a_certificate_that_is_not_trusted_and_plain_text_on_the_tls_port(server: TwinServer, client: Client) -> None:
    with pytest.raises(httpx.ConnectError), httpx.Client() as wary:
        wary.get(f"{server.url}/services/data")
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as plain:
        plain.sendall(b"GET /services/data HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" not in plain.recv(65536)
    assert client.get("/services/data").status_code == 200


def test_a_composite_whose_references_lead_nowhere_or_round(client: Hostile) -> None:
    place = f"{BASE}/sobjects/Trip__c"

    def part(name: str, url: str, body: Any, method: str = "POST") -> dict[str, Any]:
        return {"method": method, "url": url, "referenceId": name, "body": body}

    good = part("a", place, {"Place__c": "x", "Ext__c": "comp"})
    calls = [good, part("b", f"{BASE}/sobjects/Leg__c", {"Trip__c": "@{a.id}"})]
    legs = client.post(f"{BASE}/composite", json={"allOrNone": True, "compositeRequest": calls}).json()
    assert [each["httpStatusCode"] for each in legs["compositeResponse"]] == [201, 201]
    for reference in ("@{b.id}", "@{b.nope.deep}", "@{", "@{a.id", "@{a[0].id}", "@{a.errors[99]}", "@{}"):
        calls = [
            part("a", place, {"Place__c": "x"}),
            part("b", f"{BASE}/sobjects/Leg__c", {"Trip__c": reference}),
        ]
        answer = client.post(f"{BASE}/composite", json={"allOrNone": True, "compositeRequest": calls})
        codes = [answer.status_code]
        if answer.status_code == 200:
            codes = [each["httpStatusCode"] for each in answer.json()["compositeResponse"]]
        assert all(code == 400 for code in codes), (reference, answer.text)
    hell = [good | {"body": {"Place__c": "x"}}, part("b", place, {"Place__c": "hell"})]
    answer = client.post(f"{BASE}/composite", json={"allOrNone": True, "compositeRequest": hell}).json()
    assert [each["httpStatusCode"] for each in answer["compositeResponse"]] == [400, 400]
    assert client.query("SELECT COUNT() FROM Trip__c")["totalSize"] == 1, "only the good request was kept"


def test_a_cascade_comes_back_whole_and_only_once(client: Hostile) -> None:
    trip = client.query("SELECT Id FROM Trip__c WHERE Ext__c = 'comp'")["records"][0]["Id"]
    leg = client.query("SELECT Id FROM Leg__c")["records"][0]["Id"]
    assert client.delete(f"{BASE}/sobjects/Trip__c/{trip}").status_code == 204
    assert error(client.delete(f"{BASE}/sobjects/Leg__c/{leg}")) == (404, "ENTITY_IS_DELETED")
    taken = client.loaded(b"Ext__c,Place__c\nCOMP,y\n")
    undelete = {"url": "/__twin__/undelete", "headers": client.control_headers}
    (barred,) = client.post(**undelete, json={"ids": [trip]}).json()
    assert barred["success"] is False, "somebody else has the key now"
    (usurper,) = client.results(taken["id"], "successfulResults")
    assert client.delete(f"{BASE}/sobjects/Trip__c/{usurper['sf__Id']}").status_code == 204
    assert [each["success"] for each in client.post(**undelete, json={"ids": [trip, trip]}).json()] == [True, False]
    assert client.query("SELECT Id FROM Leg__c")["records"][0]["Id"] == leg
    for junk in (["x"], [""], ["\0"], [trip[:15].swapcase()]):
        assert client.post(**undelete, json={"ids": junk}).json()[0]["success"] is False
    assert client.post(**undelete, json={"ids": [1]}).status_code == 400


def test_faults_and_locks_together_lose_no_row(client: Hostile) -> None:
    trip = client.query("SELECT Id FROM Trip__c WHERE Ext__c = 'comp'")["records"][0]["Id"]
    client.arm(
        {"action": "lock_storm", "object": "Leg__c", "probability": 0.01, "times": 100_000},
        {"action": "answer", "path": f"{INGEST}/[^/]+$", "method": "GET", "times": 1},
    )
    job_id = client.create_job(object="Leg__c")
    client.put_csv(job_id, write_csv(["Trip__c"], [[trip]] * 40_000).encode())
    client.close_job(job_id)
    org, clock = client.server.org, client.server.org.clock
    assert isinstance(clock, ManualClock)
    org.run_until_idle()
    assert client.get(f"{INGEST}/{job_id}").status_code == 503, "the fault that was armed"
    job = client.finish(job_id)
    saved, failed, untouched = client.partition(job)
    assert (saved + failed + untouched, job["numberRecordsProcessed"]) == (40_000, saved + failed)
    assert job["numberRecordsFailed"] == failed > 200, "those of the storm and those of the master's lock"
    assert {row["sf__Error"].partition(":")[0] for row in client.results(job_id, "failedResults")} == {
        "UNABLE_TO_LOCK_ROW"
    }
    assert client.query("SELECT COUNT() FROM Leg__c")["totalSize"] == saved + 1


def test_a_session_that_ends_in_the_middle_of_an_upload(client: Hostile, server: TwinServer) -> None:
    job_id = client.create_job(object="Plane__c")

    def pieces() -> Iterator[bytes]:
        yield b"Tail__c\n"
        client.delete("/__twin__/sessions", headers=client.control_headers)
        yield b"mid1\n"

    answer = client.put(f"{INGEST}/{job_id}/batches", content=pieces(), headers={"Content-Type": "text/csv"})
    assert answer.status_code in (201, 401)
    assert error(client.get(f"{INGEST}/{job_id}")) == (401, "INVALID_SESSION_ID")
    with Hostile(server, server.app.sign_in.open_session("loader@example.com")) as later:
        again = later.put_csv(job_id, b"Tail__c\nmid1\n")
        # Stored with the first, or not at all: the second tells which, and the rows are there once.
        assert (answer.status_code, again.status_code) in ((201, 400), (401, 201))
        assert later.close_job(job_id).status_code == 200
        assert later.put_csv(job_id, b"Tail__c\nmid2\n").status_code == 400
        assert later.partition(later.finish(job_id)) == (1, 0, 0)


def test_locators_of_others_and_jobs_that_are_gone(client: Hostile) -> None:
    client.loaded(write_csv(["Tail__c"], [[f"q{n}"] for n in range(10)]).encode(), object="Plane__c")
    jobs = []
    for name in ("Plane__c", "Trip__c"):
        query = {"operation": "query", "query": f"SELECT Id FROM {name}"}
        jobs.append(client.post(QUERY, json=query).json()["id"])
    client.wait(f"{QUERY}/{jobs[0]}")
    client.wait(f"{QUERY}/{jobs[1]}")
    page = client.get(f"{QUERY}/{jobs[0]}/results", params={"maxRecords": 3})
    locator = page.headers["Sforce-Locator"]
    assert locator != "null"
    for wrong in (locator, "null", "", "%00", "MTAwMDA", "-1", "9" * 400, "ก"):
        answer = client.get(f"{QUERY}/{jobs[1]}/results", params={"locator": wrong, "maxRecords": 3})
        assert answer.status_code in (200, 400), wrong
        if answer.status_code == 200:
            assert page.text.splitlines()[1] not in answer.text, "no rows of the other job"
    for size in ("0", "-1", "x", "9" * 30, "1.5"):
        assert client.get(f"{QUERY}/{jobs[0]}/results", params={"maxRecords": size}).status_code == 400, size
    assert client.delete(f"{QUERY}/{jobs[0]}").status_code == 204
    gone = client.loaded(b"Tail__c\ngone\n", object="Plane__c")["id"]
    assert client.delete(f"{INGEST}/{gone}").status_code == 204
    for method, path, body in (
        ("GET", f"{INGEST}/{gone}", None),
        ("DELETE", f"{INGEST}/{gone}", None),
        ("PATCH", f"{INGEST}/{gone}", {"state": "Aborted"}),
        ("PUT", f"{INGEST}/{gone}/batches", None),
        ("GET", f"{INGEST}/{gone}/successfulResults", None),
        ("GET", f"{QUERY}/{jobs[0]}/results", None),
        ("GET", f"{QUERY}/{gone}", None),
        ("GET", f"{INGEST}/{jobs[1]}", None),
    ):
        answer = client.request(
            method, path, json=body, headers={"Content-Type": "text/csv"} if method == "PUT" else {}
        )
        assert error(answer) == (404, "NOT_FOUND"), (method, path)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "-5"},
        {"Content-Length": "99999999999999999999999999"},
        {"Content-Length": "0x10"},
        {"Transfer-Encoding": "gzip, identity"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "br, br, br"},
        {"Content-Type": "text/csv; charset=UTF-16"},
        {"Content-Type": "\x7f/\x7f; ="},
        {"Accept-Encoding": "*;q=nope"},
        {"Sforce-Query-Options": "batchSize=99999999999999999999"},
        {"Sforce-Call-Options": "client=,,,="},
        {"If-Modified-Since": "yesterday"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer \xff"},
        {"Host": ""},
        {"Cookie": "sid=" + "x" * 9_000},
        {"Expect": "200-maybe"},
        {"Upgrade": "h2c", "Connection": "close, Upgrade"},
    ],
    ids=lambda headers: json.dumps(headers)[:40],
)
def test_headers_that_nobody_should_send(
    server: TwinServer, client: Client, pair: Certificate, headers: dict[str, str]
) -> None:
    token = client.headers["Authorization"]
    base = {"Host": "127.0.0.1", "Authorization": token, "Content-Length": "7", "Connection": "close", **headers}
    job_id = client.create_job(object="Plane__c")
    for line in (f"PUT {INGEST}/{job_id}/batches", f"POST {BASE}/sobjects/Plane__c", f"GET {BASE}/sobjects/Plane__c"):
        lines = [f"{line} HTTP/1.1", *(f"{name}: {value}" for name, value in base.items()), "", ""]
        answer = raw(server, pair, "\r\n".join(lines).encode("latin-1") + b"Tail__c")
        status = int(answer.split(b" ", 2)[1]) if answer else 400
        assert status < 500, answer[:300]
        assert b"Traceback" not in answer
    assert client.get(f"{INGEST}/{job_id}").status_code == 200


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 400, "1e-400", "NaN", "Infinity", "0x10", "1_000", "١٢"])
def test_numbers_beyond_all_bounds_fail_their_row_or_are_rounded(client: Hostile, number: str) -> None:
    for name in ("Miles__c", "Seats__c"):
        job = client.loaded(f"Place__c,{name}\nx,{number}\ny,1\n".encode())
        saved, failed, untouched = client.partition(job)
        assert (job["state"], saved + failed, untouched) == ("JobComplete", 2, 0)
        assert saved == (2 if (name, number) == ("Miles__c", "1e-400") else 1)
        body = f'{{"Place__c": "x", "{name}": {number}}}'.encode()
        answer = client.post(f"{BASE}/sobjects/Trip__c", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == (201 if (name, number) == ("Miles__c", "1e-400") else 400), answer.text
    limit = client.get(f"{BASE}/query", params={"q": f"SELECT Id FROM Trip__c WHERE Miles__c > {number}"})
    assert limit.status_code in (200, 400)


@pytest.mark.parametrize(
    ("content", "saved", "failed", "state"),
    [
        (b"Ext__c,Place__c\nu1,\xff\xfe\nu2,ok\n", None, None, None),
        (b"Ext__c,Place__c\nn1,a\0b\nn2,ok\n", None, None, None),
        (b"Ext__c,Pla\0ce__c\nn1,x\n", 0, 0, "Failed"),
        (b"Ext__c,Place__c\nm1,x\r\nm2,y\n", 0, 0, "Failed"),
        (b"Ext__c,Place__c\rm1,x\rm2,y\r", 0, 0, "Failed"),
        (b'Ext__c,Place__c\nm3,"a\r\nb"\nm4,y\n', None, None, None),
        (b'Ext__c,Place__c\nm5,"a\nb"\nm6,y', 2, 0, "JobComplete"),
        (b'Ext__c,Place__c\nq1,"x"y\n', 0, 0, "Failed"),
        (b'Ext__c,Place__c\nq1,"open\n', 0, 0, "Failed"),
        (b"Ext__c,Place__c\nw1,x,y\n", None, None, None),
        (b"\n\n\n", None, None, None),
        (b"Ext__c,Ext__c\na,b\n", 0, 0, "Failed"),
        (b"Ext__c,Place__c\nhell,hell\n", 0, 1, "JobComplete"),
        ("Ext__c,Place__c\n\ud800,x\n".encode("utf-8", "surrogatepass"), None, None, None),
    ],
)
def test_bytes_that_are_no_csv(
    client: Hostile, content: bytes, saved: int | None, failed: int | None, state: str | None
) -> None:
    """Where nobody knows what an org does with them, the job ends and every row stands in one file."""
    job = client.loaded(content)
    assert job["state"] in ("JobComplete", "Failed")
    if state is not None:
        assert job["state"] == state
    if job["state"] == "Failed":
        for kind in ("successfulResults", "failedResults"):
            assert client.get(f"{INGEST}/{job['id']}/{kind}").content.rstrip(b"\n").count(b"\n") == 0, "a header only"
        untouched = client.get(f"{INGEST}/{job['id']}/unprocessedrecords").content
        assert untouched.replace(b'"', b"").strip() == content.replace(b'"', b"").strip(), (
            "it comes back as it was sent"
        )
        return
    counts = client.partition(job)
    assert sum(counts) == job["numberRecordsProcessed"]
    if state is not None:
        assert counts[:2] == (saved, failed)


def test_at_the_end_a_twin_of_the_twin_is_the_same_and_nothing_has_broken(client: Hostile, pair: Certificate) -> None:
    auth = AuthSettings(flow="token", access_token=client.headers["Authorization"].removeprefix("Bearer "))
    org = connect(client.server.url, auth=auth, expect_twin=True, ca_file=str(pair.cert_file))
    try:
        document = json.loads(json.dumps(take_snapshot(org, ["Leg__c", "Trip__c"])))
    finally:
        org.close()
    with TwinOrg.open(schema=schema_from_dict(document)) as copied, TwinServer(copied) as other, Client(other) as copy:
        for name in ("Leg__c", "Trip__c", "Plane__c"):
            ours, theirs = (each.get(f"{BASE}/sobjects/{name}/describe").json() for each in (client, copy))
            for described in (ours, theirs):
                described["childRelationships"].sort(key=lambda entry: (entry["childSObject"], entry["field"]))
            assert ours == theirs
        refused = copy.post(f"{BASE}/sobjects/Trip__c", json={"Place__c": "hell"})
        assert refused.json()[0]["message"] == "no: hell, no"
    assert client.server.internal_errors == []
    assert client.get("/__twin__/state", headers=client.control_headers).json()["internal_errors"] == []
