"""Faults armed on the twin: what the client sees, and what the org has done all the same."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
from tests.integration.twin_http_fixtures import BASE, CUT, Client, make_schema, tenants

from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer


@pytest.fixture(scope="module")
def log_file() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def server(log_file: io.StringIO) -> Iterator[TwinServer]:
    org = TwinOrg.open(None, schema=make_schema())
    with TwinServer(org, seed=7, log_file=log_file) as running:
        yield running
    assert running.internal_errors == []
    org.close()


@pytest.fixture
def client(server: TwinServer) -> Iterator[Client]:
    with Client(server) as made:
        yield made
        assert made.delete("/__twin__/faults", headers=made.control_headers).status_code == 204


def job_count(client: Client) -> int:
    return len(client.get(f"{BASE}/jobs/ingest").json()["records"])


def test_a_lost_reply_has_done_the_work(client: Client) -> None:
    before = job_count(client)
    client.arm({"action": "lose_reply", "method": "POST", "path": "/jobs/ingest$"})
    with pytest.raises(CUT):
        client.create_job()
    assert job_count(client) == before + 1
    client.create_job()  # struck once only
    assert job_count(client) == before + 2


def test_a_dropped_call_has_done_nothing(client: Client) -> None:
    before = job_count(client)
    client.arm({"action": "drop", "method": "POST", "times": 2})
    for _ in range(2):
        with pytest.raises(CUT):
            client.create_job()
    assert job_count(client) == before


def test_answers_in_place_of_work(client: Client) -> None:
    limit = json.dumps([{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}])
    client.arm(
        {"action": "answer", "path": "/limits", "times": 2},
        {"action": "answer", "path": "/limits", "status": 403, "body": limit, "content_type": "application/json"},
    )
    answers = [client.get(f"{BASE}/limits") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 503, 403, 200]
    assert answers[0].headers["content-type"] == "text/html"
    assert answers[2].json()[0]["errorCode"] == "REQUEST_LIMIT_EXCEEDED"


def test_skip_and_delay(client: Client) -> None:
    client.arm(
        {"action": "delay", "path": "/limits", "seconds": 0.01},
        {"action": "answer", "path": "/limits", "skip": 1, "status": 500, "body": ""},
    )
    assert [client.get(f"{BASE}/limits").status_code for _ in range(3)] == [200, 500, 200]
    shown = client.get("/__twin__/faults", headers=client.control_headers).json()["faults"]
    assert [(fault["met"], fault["struck"], fault["spent"]) for fault in shown] == [(1, 1, True), (2, 1, True)]


def test_a_download_is_cut(client: Client) -> None:
    job = client.load(tenants(3000))
    url = f"{BASE}/jobs/ingest/{job['id']}/successfulResults"
    plain = {"Accept-Encoding": "identity"}
    whole = client.get(url, headers=plain).content
    client.arm({"action": "cut_response", "path": "successfulResults", "after_bytes": 1000})
    seen = bytearray()

    def download() -> None:
        with client.stream("GET", url, headers=plain) as answer:
            for piece in answer.iter_raw():
                seen.extend(piece)

    with pytest.raises(CUT):
        download()
    assert seen == whole[:1000]
    assert client.get(url, headers=plain).content == whole


def test_an_upload_that_breaks_off_leaves_the_job_open_and_empty(client: Client) -> None:
    job_id = client.create_job()
    client.arm({"action": "cut_request", "method": "PUT", "after_bytes": 5000})
    with pytest.raises(CUT):
        client.put_csv(job_id, tenants(5000, start=10_000))
    assert client.get(f"{BASE}/jobs/ingest/{job_id}").json()["state"] == "Open"
    assert client.put_csv(job_id, tenants(10, start=10_000)).status_code == 201
    client.close_job(job_id)
    assert client.wait(f"{BASE}/jobs/ingest/{job_id}")["numberRecordsProcessed"] == 10


def test_random_faults_repeat_with_the_seed() -> None:
    """Goal: a failing run can be replayed. Method: the same calls on two twins of one seed."""

    def struck() -> list[int]:
        org = TwinOrg.open(None, schema=make_schema())
        with TwinServer(org, seed=3) as server, Client(server) as client:
            client.arm({"action": "answer", "path": "v66.0$", "times": None, "probability": 0.5})
            statuses = [client.get(BASE).status_code for _ in range(20)]
        org.close()
        return statuses

    first = struck()
    assert first == struck()
    assert set(first) == {200, 503}


def test_control_wants_its_own_token_and_a_program(client: Client) -> None:
    for headers in ({}, {"Authorization": "Bearer x"}):
        answer = client.get("/__twin__/state", headers=headers)
        assert answer.status_code == 401
    page = {**client.control_headers, "Origin": "http://evil.example"}
    assert client.get("/__twin__/state", headers=page).status_code == 403
    other_name = {**client.control_headers, "Host": "evil.example"}
    assert client.get("/__twin__/state", headers=other_name).status_code == 403


@pytest.mark.parametrize(
    "order",
    [{}, {"action": "explode"}, {"action": "drop", "path": "("}, {"action": "delay"}, {"action": "drop", "x": 1}],
)
def test_orders_that_make_no_sense(client: Client, order: dict[str, object]) -> None:
    answer = client.post("/__twin__/faults", json=order, headers=client.control_headers)
    assert (answer.status_code, answer.json()[0]["errorCode"]) == (400, "INVALID_FAULT")


def test_state_shows_what_a_test_wants_to_know(client: Client) -> None:
    client.create_job()
    state = client.get("/__twin__/state", headers=client.control_headers).json()
    assert state["org_id"] == client.server.org.org_id
    assert state["jobs"]["Open"] >= 1
    assert state["internal_errors"] == []


def test_all_sessions_are_ended(client: Client) -> None:
    token = client.server.app.sign_in.open_session("etl@kpc.example")
    kept = client.server.app.sign_in.open_session
    answer = client.delete("/__twin__/sessions", headers=client.control_headers)
    assert answer.json()["ended"] >= 2
    with Client(client.server, token) as other:
        assert other.get(BASE).status_code == 401
    client.server.access_token = kept("etl@kpc.example")


def test_the_log_tells_no_secret(client: Client, log_file: io.StringIO) -> None:
    client.arm({"action": "drop", "method": "POST"})
    with pytest.raises(CUT):
        client.create_job()
    client.get(f"{BASE}/query", params={"q": "SELECT Id FROM Tenant__c WHERE Name = 'Somchai'"})
    lines = [json.loads(line) for line in log_file.getvalue().splitlines()]
    assert lines[-1].keys() == {"time", "method", "path", "status", "ms"}
    assert lines[-1]["path"] == f"{BASE}/query"
    assert lines[-1]["status"] == 200
    assert any(line["status"] == 0 for line in lines)  # the connection that was closed without an answer
    text = log_file.getvalue()
    assert "Somchai" not in text
    assert client.server.access_token not in text
    assert client.server.control_token not in text
