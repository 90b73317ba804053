"""Bulk API 2.0 over HTTP: every endpoint of ingest and query, with the awkward details that clients meet."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.integration.twin_http_fixtures import BASE, Client, make_schema, tenants

from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer

INGEST = f"{BASE}/jobs/ingest"
QUERY = f"{BASE}/jobs/query"


@pytest.fixture(scope="module")
def server() -> Iterator[TwinServer]:
    org = TwinOrg.open(None, schema=make_schema())
    with TwinServer(org) as running:
        yield running
    assert running.internal_errors == []
    org.close()


@pytest.fixture
def client(server: TwinServer) -> Iterator[Client]:
    with Client(server) as made:
        yield made


def test_a_job_from_creation_to_deletion(client: Client) -> None:
    created = client.post(f"{INGEST}/", json={"object": "Tenant__c", "operation": "insert"})
    assert created.status_code == 200
    job = created.json()
    assert job["state"] == "Open"
    assert job["contentUrl"] == f"services/data/v66.0/jobs/ingest/{job['id']}/batches"
    assert isinstance(job["apiVersion"], float)
    assert "jobType" not in job
    put = client.put_csv(job["id"], tenants(3, start=100))
    assert (put.status_code, put.content) == (201, b"")
    closed = client.close_job(job["id"])
    assert closed.json()["state"] == "UploadComplete"
    assert "contentUrl" not in closed.json()
    ended = client.wait(f"{INGEST}/{job['id']}")
    assert (ended["state"], ended["numberRecordsProcessed"], ended["numberRecordsFailed"]) == ("JobComplete", 3, 0)
    rows = client.results(job["id"], "successfulResults")
    assert {row["Tenant_Code__c"] for row in rows} == {"T000100", "T000101", "T000102"}
    assert all(row["sf__Created"] == "true" and len(row["sf__Id"]) == 18 for row in rows)
    assert client.results(job["id"], "failedResults/") == []
    for spelling in ("unprocessedrecords", "unprocessedRecords", "unprocessedrecords/"):
        assert client.results(job["id"], spelling) == []
    assert client.delete(f"{INGEST}/{job['id']}").status_code == 204
    gone = client.get(f"{INGEST}/{job['id']}")
    assert (gone.status_code, gone.json()) == (
        404,
        [{"message": "The requested resource does not exist", "errorCode": "NOT_FOUND"}],
    )


def test_garbage_is_taken_by_the_put_and_refused_after_the_close(client: Client) -> None:
    job_id = client.create_job()
    assert client.put_csv(job_id, b"Nonsense__c\n1\n").status_code == 201
    client.close_job(job_id)
    job = client.wait(f"{INGEST}/{job_id}")
    assert job["state"] == "Failed"
    assert job["errorMessage"] == "InvalidBatch : Field name not found : Nonsense__c"
    unprocessed = client.get(f"{INGEST}/{job_id}/unprocessedrecords")
    assert unprocessed.text.splitlines()[0] == "Nonsense__c"


def test_one_put_only_and_none_after_the_close(client: Client) -> None:
    job_id = client.create_job()
    assert client.put_csv(job_id, tenants(1, start=200)).status_code == 201
    second = client.put_csv(job_id, tenants(1, start=201))
    assert second.status_code == 400
    assert second.json()[0]["message"].startswith(f"Found multiple contents for job: <{job_id}>")
    client.close_job(job_id)
    client.wait(f"{INGEST}/{job_id}")
    late = client.put_csv(job_id, tenants(1, start=202))
    assert (late.status_code, late.json()[0]["errorCode"]) == (400, "INVALIDJOBSTATE")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_upload(client: Client, encoding: str) -> None:
    start = 300 if encoding == "gzip" else 3000
    content = tenants(500, start=start)
    packed = gzip.compress(content) if encoding == "gzip" else zlib.compress(content)
    job_id = client.create_job()
    assert client.put_csv(job_id, packed, **{"Content-Encoding": encoding}).status_code == 201
    client.close_job(job_id)
    assert client.wait(f"{INGEST}/{job_id}")["numberRecordsProcessed"] == 500


@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_damaged_gzip_upload_stores_nothing(client: Client, damage: str) -> None:
    packed = gzip.compress(tenants(500, start=900_000))
    content = packed[:-20] if damage == "cut" else b"not gzip at all"
    job_id = client.create_job()
    answer = client.put_csv(job_id, content, **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()[0]["errorCode"]) == (400, "BAD_REQUEST")
    assert client.put_csv(job_id, tenants(1, start=910_000)).status_code == 201


def test_an_upload_of_the_wrong_type(client: Client) -> None:
    job_id = client.create_job()
    answer = client.put_csv(job_id, b"x", **{"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()[0]["errorCode"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    odd = client.put_csv(job_id, b"x", **{"Content-Encoding": "br"})
    assert odd.status_code == 415
    assert client.put_csv(job_id, b"Name\n", **{"Content-Type": "text/csv; charset=UTF-8"}).status_code == 201


def test_an_upload_beyond_the_limit_of_a_job(client: Client) -> None:
    """Goal: 150 MB in base64 is the limit of the inflated data. Method: 113 MB of zeros, sent as gzip."""
    job_id = client.create_job()
    engine = zlib.compressobj(1, zlib.DEFLATED, 31)
    packed = b"".join(engine.compress(bytes(1_000_000)) for _ in range(113)) + engine.flush()
    answer = client.put_csv(job_id, packed, **{"Content-Encoding": "gzip"})
    assert answer.status_code == 413
    assert client.get(f"{INGEST}/{job_id}").json()["state"] == "Open"


def test_results_come_compressed_when_asked_for(client: Client) -> None:
    job = client.load(tenants(2000, start=10_000))
    url = f"{INGEST}/{job['id']}/successfulResults"
    plain = client.get(url, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    packed = client.get(url, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content
    with client.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as raw:
        wire = b"".join(raw.iter_raw())
    assert len(wire) < len(plain.content) / 2
    refused = client.get(url, headers={"Accept-Encoding": "gzip;q=0, br"})
    assert "content-encoding" not in refused.headers


def test_multipart_creates_loads_and_closes(client: Client) -> None:
    job = json.dumps({"object": "Tenant__c", "operation": "insert"})
    files: dict[str, tuple[str | None, bytes | str, str]] = {
        "job": (None, job, "application/json"),
        "content": ("content", tenants(4, start=20_000), "text/csv"),
    }
    answer = client.post(INGEST, files=files)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["state"] == "UploadComplete"
    assert "contentUrl" not in document
    assert client.wait(f"{INGEST}/{document['id']}")["numberRecordsProcessed"] == 4


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"x"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="job"\r\n\r\n{}\r\n'),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="job"\r\n\r\n{}\r\n--b--\r\n',
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="job"\r\n\r\n[\r\n'
            b'--b\r\nContent-Disposition: form-data; name="content"\r\n\r\nName\r\n--b--\r\n',
        ),
    ],
)
def test_multipart_bodies_that_are_none(client: Client, content_type: str, body: bytes) -> None:
    answer = client.post(INGEST, content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 400
    assert answer.json()[0]["errorCode"] in ("BAD_REQUEST", "INVALIDJOB", "JSON_PARSER_ERROR")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"object": "Nothing__c", "operation": "insert"}, "INVALIDJOB"),
        ({"object": "Tenant__c", "operation": "upsert"}, "INVALIDJOB"),
        ({"object": "Tenant__c", "operation": "Insert"}, "INVALIDJOB"),
        ({"object": "User", "operation": "insert"}, "INVALIDENTITY"),
        ({"object": "Tenant__c", "operation": "insert", "batchSize": 1}, "JSON_PARSER_ERROR"),
    ],
)
def test_jobs_that_cannot_be_created(client: Client, body: dict[str, Any], code: str) -> None:
    answer = client.post(INGEST, json=body)
    assert (answer.status_code, answer.json()[0]["errorCode"]) == (400, code)


def test_malformed_json_and_the_wrong_content_type(client: Client) -> None:
    json_type = {"Content-Type": "application/json"}
    for content in (b"{", b"[]", b'"x"', b"\xff", b"", b'{"object": "\\ud800"}', b"[" * 100_000):
        answer = client.post(INGEST, content=content, headers=json_type)
        assert (answer.status_code, answer.json()[0]["errorCode"]) == (400, "JSON_PARSER_ERROR"), content
    assert client.post(INGEST, data={"a": "b"}).status_code == 415
    assert client.patch(f"{INGEST}/750000000000001AAA", content=b"{}").status_code == 415
    job_id = client.create_job()
    no_state = client.patch(f"{INGEST}/{job_id}", json={})
    assert no_state.status_code == 400
    bad_state = client.patch(f"{INGEST}/{job_id}", json={"state": "JobComplete"})
    assert bad_state.status_code == 400


def test_methods_that_a_path_does_not_have(client: Client) -> None:
    answer = client.put(INGEST, json={})
    assert answer.status_code == 405
    assert answer.json()[0]["errorCode"] == "METHOD_NOT_ALLOWED"
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
    job_id = client.create_job()
    override = client.post(f"{INGEST}/{job_id}", params={"_HttpMethod": "PATCH"}, json={"state": "Aborted"})
    assert override.json()["state"] == "Aborted"


def test_abort_delete_and_their_refusals(client: Client) -> None:
    job_id = client.create_job()
    running = client.delete(f"{INGEST}/{job_id}")
    assert (running.status_code, running.json()[0]["errorCode"]) == (400, "API_ERROR")
    assert client.patch(f"{INGEST}/{job_id}", json={"state": "Aborted"}).json()["state"] == "Aborted"
    again = client.patch(f"{INGEST}/{job_id}", json={"state": "Aborted"})
    assert again.json() == [{"message": "Aborting already Completed Job not allowed", "errorCode": "INVALIDJOBSTATE"}]
    assert client.delete(f"{INGEST}/{job_id}").status_code == 204


def test_only_the_creator_may_change_a_job(client: Client) -> None:
    job_id = client.create_job()
    token = client.server.app.sign_in.open_session("other@kpc.example")
    with Client(client.server, token) as other:
        assert other.close_job(job_id).status_code == 403
        listed = other.get(INGEST).json()["records"]
    assert job_id in [job["id"] for job in listed]


def test_the_list_shows_query_jobs_too_unless_filtered(client: Client) -> None:
    ingest = client.create_job()
    query = client.post(QUERY, json={"operation": "query", "query": "SELECT Id FROM Tenant__c"}).json()["id"]
    types = {job["id"]: job["jobType"] for job in client.get(INGEST).json()["records"]}
    assert (types[ingest], types[query]) == ("V2Ingest", "V2Query")
    only = client.get(INGEST, params={"jobType": "V2Ingest"}).json()
    assert query not in [job["id"] for job in only["records"]]
    assert client.get(INGEST, params={"isPkChunkingEnabled": "true"}).json()["records"] == []
    assert client.get(INGEST, params={"queryLocator": "nonsense"}).status_code == 400


def test_upsert_with_a_parent_by_its_key(client: Client) -> None:
    client.load(tenants(2, start=30_000))
    rows = (
        "Sale_Id__c,Amount__c,Paid__c,Must__c,Tenant__r.Tenant_Code__c\n"
        "S1,12.5,true,m,T030000\nS2,7,false,m,T030001\nS3,1,false,m,T999999\nS4,1,false,,T030000\n"
    )
    body = {"object": "Sale__c", "operation": "upsert", "externalIdFieldName": "Sale_Id__c"}
    job = client.load(rows.encode(), **body)
    assert (job["numberRecordsProcessed"], job["numberRecordsFailed"]) == (4, 2)
    failed = {row["Sale_Id__c"]: row["sf__Error"] for row in client.results(job["id"], "failedResults")}
    assert failed["S3"].startswith("INVALID_FIELD:Foreign key external ID: T999999 not found")
    assert failed["S4"] == "REQUIRED_FIELD_MISSING:Required fields are missing: [Must__c]:Must__c --"
    found = client.query("SELECT Sale_Id__c, Tenant__r.Tenant_Code__c FROM Sale__c ORDER BY Sale_Id__c")
    assert [record["Tenant__r"]["Tenant_Code__c"] for record in found["records"]] == ["T030000", "T030001"]
    again = client.load(b"Sale_Id__c,Must__c\nS1,m\n", **body)
    (row,) = client.results(again["id"], "successfulResults")
    assert row["sf__Created"] == "false"


def test_bulk_query_in_pages(client: Client) -> None:
    client.load(tenants(1200, start=40_000))
    where = "Tenant_Code__c >= 'T040000' AND Tenant_Code__c < 'T050000'"
    soql = f"SELECT Id, Tenant_Code__c, Note__c FROM Tenant__c WHERE {where}"
    created = client.post(QUERY, json={"operation": "query", "query": soql})
    assert created.status_code == 200
    job = created.json()
    assert job["state"] == "UploadComplete"
    ended = client.wait(f"{QUERY}/{job['id']}")
    assert (ended["state"], ended["numberRecordsProcessed"], ended["jobType"]) == ("JobComplete", 1200, "V2Query")
    codes: list[str] = []
    locator: str | None = None
    for page in range(3):
        params = {"maxRecords": "500", **({} if locator is None else {"locator": locator})}
        answer = client.get(f"{QUERY}/{job['id']}/results/", params=params)
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert answer.headers["Sforce-NumberOfRecords"] == str(len(rows))
        assert rows[0].keys() == {"Id", "Tenant_Code__c", "Note__c"}
        codes += [row["Tenant_Code__c"] for row in rows]
        locator = answer.headers["Sforce-Locator"]
        assert (locator == "null") == (page == 2)
    assert sorted(codes) == [f"T{number:06d}" for number in range(40_000, 41_200)]
    pages = client.get(f"{QUERY}/{job['id']}/resultPages").json()
    assert pages["done"] is True
    assert client.get(pages["resultPages"][0]["resultUrl"]).status_code == 200
    other_version = client.get(f"/services/data/v60.0/jobs/query/{job['id']}/results")
    assert other_version.status_code == 409
    assert client.delete(f"{QUERY}/{job['id']}").status_code == 204
    assert client.get(f"{QUERY}/{job['id']}").status_code == 404


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5"])
def test_page_sizes_that_are_none(client: Client, text: str) -> None:
    job = client.post(QUERY, json={"operation": "query", "query": "SELECT Id FROM Tenant__c"}).json()
    client.wait(f"{QUERY}/{job['id']}")
    answer = client.get(f"{QUERY}/{job['id']}/results", params={"maxRecords": text})
    assert answer.status_code == 400


def test_bulk_query_refuses_what_the_real_one_refuses(client: Client) -> None:
    for soql in ("SELECT COUNT() FROM Tenant__c", "SELECT Nope__c FROM Tenant__c", "SELECT", ""):
        answer = client.post(QUERY, json={"operation": "query", "query": soql})
        assert answer.status_code == 400, soql
        assert isinstance(answer.json(), list)
    finished = client.post(QUERY, json={"operation": "query", "query": "SELECT Id FROM Tenant__c"}).json()
    client.wait(f"{QUERY}/{finished['id']}")
    abort = client.patch(f"{QUERY}/{finished['id']}", json={"state": "Aborted"})
    assert (abort.status_code, abort.json()[0]["errorCode"]) == (400, "INVALIDJOBSTATE")


def test_many_clients_at_once(client: Client) -> None:
    """Goal: DuckDB work in threads neither blocks nor mixes calls. Method: five uploads and polls side by side."""

    def load(number: int) -> int:
        with Client(client.server) as own:
            job = own.load(tenants(500, start=100_000 + number * 1000))
            return int(job["numberRecordsProcessed"]) - int(job["numberRecordsFailed"])

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(load, range(5))) == [500] * 5
    found = client.query(
        "SELECT COUNT() FROM Tenant__c WHERE Tenant_Code__c >= 'T100000' AND Tenant_Code__c < 'T105000'"
    )
    assert found == {"totalSize": 2500, "done": True, "records": []}


def test_a_client_that_goes_away_in_the_middle_of_an_upload(client: Client) -> None:
    job_id = client.create_job()

    def broken() -> Iterator[bytes]:
        yield tenants(3000, start=200_000)
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        client.put(f"{INGEST}/{job_id}/batches", content=broken(), headers={"Content-Type": "text/csv"})
    with httpx.Client(base_url=client.server.url, headers=client.headers) as other:
        assert other.get(f"{INGEST}/{job_id}").json()["state"] == "Open"
