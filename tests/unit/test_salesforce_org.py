"""The calls of the org protocol against a real HTTP server, right and wrong answers."""

from __future__ import annotations

import gzip
import json
import logging
import random
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from tests.salesforce_server import ORG_ID, ROOT, USER_ID, OrgServer, Reply, TestClock, error, job_json, running

from forcelift.errors import (
    LostReply,
    OrgLimitReached,
    OrgNotFound,
    OrgRefused,
    OrgUnavailable,
    StorageError,
    TargetError,
    UsageError,
)
from forcelift.protocols.org import JobRequest, JobState, Org, ResultKind
from forcelift.salesforce import AuthSettings, HttpSettings, SalesforceOrg, connect
from forcelift.salesforce.client import make_client

JOB = "750000000000001AAA"
INGEST = f"{ROOT}/jobs/ingest"
TOKEN = "00D000000000001!token"
REQUEST = JobRequest(object="Account", operation="upsert", external_id_field="Legacy_Id__c")


@pytest.fixture
def server() -> Iterator[OrgServer]:
    with running() as started:
        yield started


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


def signed_in(server: OrgServer, clock: TestClock, **more: Any) -> SalesforceOrg:
    auth = AuthSettings(flow="token", access_token=TOKEN)
    return connect(server.url, auth=auth, clock=clock, rng=random.Random(1), **more)


@pytest.fixture
def org(server: OrgServer, clock: TestClock) -> Iterator[SalesforceOrg]:
    started = signed_in(server, clock)
    yield started
    started.close()


def test_it_is_an_org_and_knows_who_is_signed_in(org: SalesforceOrg, server: OrgServer) -> None:
    held: Org = org
    assert (held.url, held.org_id, held.user_id, held.user_name) == (server.url, ORG_ID, USER_ID, "etl@example.com")
    assert (held.api_version, held.is_twin) == ("66.0", False)
    first = server.asked[0]
    assert (first.path, first.token) == ("/services/data", None), "the first request must carry no token"
    assert server.asked[1].token == TOKEN


def test_without_the_openid_scope_the_identity_comes_from_the_resource_root(
    server: OrgServer, clock: TestClock
) -> None:
    server.on("GET", "/services/oauth2/userinfo", Reply(403, b"Bad_OAuth_Token"))
    server.on("GET", f"{ROOT}/", Reply(body={"identity": f"https://login.salesforce.com/id/{ORG_ID}/{USER_ID}"}))
    rows = [{"attributes": {"type": "User"}, "Username": "etl@example.com"}]
    server.on("GET", f"{ROOT}/query", Reply(body={"totalSize": 1, "done": True, "records": rows}))
    org = signed_in(server, clock)
    assert (org.org_id, org.user_id, org.user_name) == (ORG_ID, USER_ID, "etl@example.com")
    org.close()


def test_every_request_names_the_client_and_counts(org: SalesforceOrg, server: OrgServer) -> None:
    info = {"Sforce-Limit-Info": "api-usage=18/5000; per-app-api-usage=17/250(appName=sample-app)"}
    server.on("GET", f"{ROOT}/limits", Reply(body={}, headers=info))
    assert org.api_requests_left is None
    before = org.api_calls
    org.limits()
    assert org.api_requests_left == 4982
    assert org.api_calls == before + 1 == len(server.asked)
    headers = server.asked[-1].headers
    assert headers["user-agent"].startswith("Forcelift/")
    assert headers["sforce-call-options"] == "client=Forcelift"
    assert headers["accept-encoding"] == "gzip"


def test_describe_takes_what_is_there_and_defaults_the_rest(org: SalesforceOrg, server: OrgServer) -> None:
    answer = {
        "name": "KPS_Sales__c",
        "label": "Sales",
        "keyPrefix": None,
        "recordTypeInfos": [
            {"recordTypeId": "012000000000000AAA", "name": "Master", "developerName": "Master", "master": True},
            {
                "recordTypeId": "012000000000001AAA",
                "name": "Retail shop",
                "developerName": "Retail",
                "active": True,
                "available": False,
                "defaultRecordTypeMapping": True,
            },
        ],
        "fields": [
            {
                "name": "External_ID__c",
                "label": "External ID",
                "type": "string",
                "length": 40,
                "externalId": True,
                "idLookup": True,
                "unique": True,
                "nillable": False,
                "defaultedOnCreate": False,
                "relationshipName": None,
                "referenceTo": [],
                "somethingNew": {"x": 1},
            },
            {
                "name": "Tenant__c",
                "type": "reference",
                "referenceTo": ["KPS_Tenant__c"],
                "relationshipName": "Tenant__r",
            },
            {
                "name": "Status__c",
                "type": "picklist",
                "restrictedPicklist": True,
                "length": None,
                "picklistValues": [{"value": "Active", "active": True}, {"value": "Old", "active": False}],
            },
        ],
    }
    server.on("GET", f"{ROOT}/sobjects/KPS_Sales__c/describe", Reply(body=answer))
    described = org.describe("KPS_Sales__c")
    assert list(described.fields) == ["External_ID__c", "Tenant__c", "Status__c"]
    key = described.fields["External_ID__c"]
    assert (key.required, key.id_lookup, key.length, key.external_id) == (True, True, 40, True)
    tenant = described.relationship("Tenant__r")
    assert tenant is not None
    assert (tenant.reference_to, tenant.nillable, tenant.label) == (("KPS_Tenant__c",), True, "Tenant__c")
    status = described.fields["Status__c"]
    assert (status.picklist_values, status.length, status.restricted_picklist) == (("Active",), 0, True)
    (retail,) = described.record_types
    assert (retail.developer_name, retail.available, retail.default) == ("Retail", False, True)


def test_describe_of_an_unknown_object(org: SalesforceOrg) -> None:
    with pytest.raises(OrgNotFound) as caught:
        org.describe("Nope__c")
    assert (caught.value.code, caught.value.http_status) == ("NOT_FOUND", 404)
    assert "forcelift check" in (caught.value.hint or "")


def test_a_name_that_is_none_never_reaches_the_org(org: SalesforceOrg, server: OrgServer) -> None:
    before = len(server.asked)
    with pytest.raises(UsageError):
        org.describe("Account/../../limits")
    with pytest.raises(UsageError):
        org.get_job("../query")
    assert len(server.asked) == before


def test_objects_and_limits(org: SalesforceOrg, server: OrgServer) -> None:
    server.on("GET", f"{ROOT}/sobjects", Reply(body={"sobjects": [{"name": "Account"}, {"name": "X__c"}]}))
    assert org.objects() == ["Account", "X__c"]
    server.on(
        "GET",
        f"{ROOT}/limits",
        Reply(
            body={
                "DailyApiRequests": {"Max": 15000, "Remaining": 14998},
                "DailyBulkApiRequests": {"Max": 10, "Remaining": 9},
            }
        ),
    )
    limits = org.limits()
    assert (limits.api_requests_max, limits.api_requests_left) == (15000, 14998)
    assert (limits.bulk_batches_max, limits.bulk_batches_left, limits.storage_mb_left) == (10, 9, None)


def test_query_follows_pages_by_locator_only(org: SalesforceOrg, server: OrgServer) -> None:
    def row(number: int) -> dict[str, Any]:
        parent = {"attributes": {"type": "Account"}, "Name": f"P{number}"} if number else None
        return {"attributes": {"type": "Contact", "url": "x"}, "Id": str(number), "Account": parent}

    evil = "https://evil.example/services/data/v66.0/query/01gABC-2000"
    server.on(
        "GET", f"{ROOT}/query", Reply(body={"totalSize": 2, "done": False, "nextRecordsUrl": evil, "records": [row(0)]})
    )
    server.on("GET", f"{ROOT}/query/01gABC-2000", Reply(body={"totalSize": 2, "done": True, "records": [row(1)]}))
    soql = "SELECT Id, Account.Name FROM Contact WHERE Name = 'สวัสดี & 100%'"
    assert list(org.query(soql)) == [{"Id": "0", "Account": None}, {"Id": "1", "Account": {"Name": "P1"}}]
    from urllib.parse import parse_qs

    assert parse_qs(server.of("GET", f"{ROOT}/query")[0].query)["q"] == [soql]


def test_child_rows_come_as_a_list_with_all_their_pages(org: SalesforceOrg, server: OrgServer) -> None:
    children = {
        "totalSize": 2,
        "done": False,
        "nextRecordsUrl": f"{ROOT}/query/01gCHILD-1",
        "records": [{"attributes": {}, "Id": "c1"}],
    }
    records = [{"attributes": {}, "Id": "p", "Contacts": children}]
    server.on("GET", f"{ROOT}/query", Reply(body={"totalSize": 1, "done": True, "records": records}))
    last = {"totalSize": 2, "done": True, "records": [{"attributes": {}, "Id": "c2"}]}
    server.on("GET", f"{ROOT}/query/01gCHILD-1", Reply(body=last))
    assert list(org.query("SELECT Id, (SELECT Id FROM Contacts) FROM Account")) == [
        {"Id": "p", "Contacts": [{"Id": "c1"}, {"Id": "c2"}]}
    ]


def test_count_reads_total_size(org: SalesforceOrg, server: OrgServer) -> None:
    server.on("GET", f"{ROOT}/query", Reply(body={"totalSize": 17, "done": True, "records": []}))
    assert org.count("SELECT COUNT() FROM Account") == 17


def test_a_query_that_no_url_can_hold_is_not_sent(org: SalesforceOrg, server: OrgServer) -> None:
    with pytest.raises(UsageError, match="too long"):
        list(org.query(f"SELECT Id FROM Account WHERE Name = '{'ก' * 2000}'"))
    assert not server.of("GET", f"{ROOT}/query")


def test_a_get_that_hangs_is_given_up_and_repeated(server: OrgServer, clock: TestClock) -> None:
    import threading

    release = threading.Event()
    calls: list[int] = []

    def wait_once(asked: Any) -> Reply:
        calls.append(1)
        if len(calls) == 1:
            release.wait(30)
        return Reply(body={})

    org = signed_in(server, clock, http=HttpSettings(get_timeout_s=0.3))
    server.on("GET", f"{ROOT}/limits", wait_once)
    try:
        org.limits()
    finally:
        release.set()
        org.close()
    assert len(clock.slept) == 1


def test_a_refused_query_does_not_repeat_its_own_text(org: SalesforceOrg, server: OrgServer) -> None:
    text = (
        "\nselect id from XYZZY where Email = 'somchai@example.com'\n  ^\nERROR at Row:1:Column:21\n"
        "sObject type 'XYZZY' is not supported."
    )
    server.on("GET", f"{ROOT}/query", error(400, "INVALID_TYPE", text))
    with pytest.raises(OrgRefused) as caught:
        list(org.query("SELECT Id FROM XYZZY"))
    assert "sObject type 'XYZZY' is not supported." in caught.value.message
    assert "somchai" not in caught.value.message


def test_the_life_of_a_job(org: SalesforceOrg, server: OrgServer) -> None:
    server.on("POST", INGEST, Reply(body=job_json()))
    job = org.create_job(REQUEST)
    assert (job.id, job.state, job.external_id_field, job.api_version) == (JOB, JobState.OPEN, "Legacy_Id__c", 66.0)
    assert (job.records_processed, job.job_type) == (None, None)
    assert job.created_date.isoformat() == "2026-01-02T21:33:43+00:00"
    sent = json.loads(server.of("POST", INGEST)[0].body)
    assert sent == {
        "object": "Account",
        "operation": "upsert",
        "externalIdFieldName": "Legacy_Id__c",
        "contentType": "CSV",
        "columnDelimiter": "COMMA",
        "lineEnding": "LF",
    }

    server.on("PUT", f"{INGEST}/{JOB}/batches", Reply(201))
    csv = b"Legacy_Id__c,Name\n" + b"1,x\n" * 700_000
    org.upload(JOB, content=lambda: (csv[at : at + 9_999] for at in range(0, len(csv), 9_999)), size=len(csv))
    (put,) = server.of("PUT", f"{INGEST}/{JOB}/batches")
    assert put.body == csv
    assert (put.headers["content-type"], put.headers["content-length"]) == ("text/csv", str(len(csv)))
    assert "transfer-encoding" not in put.headers

    server.on("PATCH", f"{INGEST}/{JOB}", Reply(body=job_json(state="UploadComplete")))
    assert org.close_job(JOB).state is JobState.UPLOAD_COMPLETE
    assert json.loads(server.of("PATCH", f"{INGEST}/{JOB}")[0].body) == {"state": "UploadComplete"}
    done = job_json(
        state="JobComplete", jobType="V2Ingest", numberRecordsProcessed=4, numberRecordsFailed=4, totalProcessingTime=26
    )
    server.on("GET", f"{INGEST}/{JOB}", Reply(body=done))
    job = org.get_job(JOB)
    assert (job.state.is_terminal, job.records_processed, job.records_failed, job.total_processing_ms) == (
        True,
        4,
        4,
        26,
    )
    server.on("DELETE", f"{INGEST}/{JOB}", Reply(204))
    org.delete_job(JOB)


def test_list_jobs_reads_every_page_and_only_our_kind(org: SalesforceOrg, server: OrgServer) -> None:
    second = "750000000000002AAA"
    classic = {"id": "750000000000009AAA", "jobType": "Classic", "state": "Closed"}

    def answer(asked: Any) -> Reply:
        if "queryLocator=01gRM-1000" in asked.query:
            return Reply(body={"done": True, "records": [job_json(second, jobType="V2Ingest")]})
        next_url = f"{INGEST}?jobType=V2Ingest&queryLocator=01gRM-1000"
        return Reply(
            body={"done": False, "nextRecordsUrl": next_url, "records": [job_json(jobType="V2Ingest"), classic]}
        )

    server.on("GET", INGEST, answer)
    assert [job.id for job in org.list_jobs()] == [JOB, second]
    assert [asked.query for asked in server.of("GET", INGEST)] == [
        "jobType=V2Ingest",
        "jobType=V2Ingest&queryLocator=01gRM-1000",
    ]


def test_a_list_that_goes_round_in_circles_ends(org: SalesforceOrg, server: OrgServer) -> None:
    server.on("GET", INGEST, Reply(body={"done": False, "nextRecordsUrl": f"{INGEST}?queryLocator=a-1", "records": []}))
    with pytest.raises(OrgUnavailable, match="names no next page"):
        org.list_jobs()


CSV = b'"sf__Id","sf__Created",Name\n' + b'"001000000000001AAA","true","Lorem"\n' * 5000


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("encoded", ["plain", "gzip", "two members"])
def test_results_stream_inflated(org: SalesforceOrg, server: OrgServer, chunked: bool, encoded: str) -> None:
    body = {
        "plain": CSV,
        "gzip": gzip.compress(CSV),
        "two members": gzip.compress(CSV[:5000]) + gzip.compress(CSV[5000:]),
    }[encoded]
    headers = {} if encoded == "plain" else {"Content-Encoding": "gzip"}
    server.on("GET", f"{INGEST}/{JOB}/successfulResults/", Reply(body=body, headers=headers, chunked=chunked))
    assert b"".join(org.results(JOB, ResultKind.SUCCESSFUL)) == CSV


def test_empty_results_give_no_bytes(org: SalesforceOrg, server: OrgServer) -> None:
    server.on("GET", f"{INGEST}/{JOB}/failedResults/", Reply(204))
    server.on("GET", f"{INGEST}/{JOB}/unprocessedrecords/", Reply(200))
    assert list(org.results(JOB, ResultKind.FAILED)) == []
    assert list(org.results(JOB, ResultKind.UNPROCESSED)) == []


CUTS = {
    "length not met": Reply(body=CSV, cut_at=1000),
    "chunks not ended": Reply(body=CSV, cut_at=5000, chunked=True),
    "gzip cut, chunks ended": Reply(body=gzip.compress(CSV)[:-9], headers={"Content-Encoding": "gzip"}, chunked=True),
    "gzip trailer wrong": Reply(body=gzip.compress(CSV)[:-8] + b"\0" * 8, headers={"Content-Encoding": "gzip"}),
    "no gzip at all": Reply(body=CSV, headers={"Content-Encoding": "gzip"}),
    "encoding not asked for": Reply(body=zlib.compress(CSV), headers={"Content-Encoding": "deflate"}),
    "length unknown": Reply(body=CSV, announce=False, headers={"Connection": "close"}),
    "a web page": Reply(body=b"<html></html>", headers={"Content-Type": "text/html"}),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_download_that_is_not_whole_raises(org: SalesforceOrg, server: OrgServer, cut: str) -> None:
    server.on("GET", f"{INGEST}/{JOB}/successfulResults/", CUTS[cut])
    with pytest.raises(OrgUnavailable):
        list(org.results(JOB, ResultKind.SUCCESSFUL))


def test_results_in_pages_are_one_csv(org: SalesforceOrg, server: OrgServer) -> None:
    def answer(asked: Any) -> Reply:
        if asked.query == "locator=MTAw":
            return Reply(body=b"sf__Id,Name\n2,b\n", headers={"Sforce-Locator": "null"})
        return Reply(body=b"sf__Id,Name\n1,a\n", headers={"Sforce-Locator": "MTAw"})

    server.on("GET", f"{INGEST}/{JOB}/successfulResults/", answer)
    assert b"".join(org.results(JOB, ResultKind.SUCCESSFUL)) == b"sf__Id,Name\n1,a\n2,b\n"


CHANGES: dict[str, Any] = {
    "create": (("POST", INGEST), lambda org: org.create_job(REQUEST)),
    "create with data": (
        ("POST", INGEST),
        lambda org: org.create_loaded(REQUEST, content=lambda: [b"a\n"], size=2),
    ),
    "upload": (("PUT", f"{INGEST}/{JOB}/batches"), lambda org: org.upload(JOB, content=lambda: [b"a\n"], size=2)),
    "close": (("PATCH", f"{INGEST}/{JOB}"), lambda org: org.close_job(JOB)),
    "abort": (("PATCH", f"{INGEST}/{JOB}"), lambda org: org.abort_job(JOB)),
    "delete": (("DELETE", f"{INGEST}/{JOB}"), lambda org: org.delete_job(JOB)),
}
UNKNOWN = {
    "hang up": Reply(hang_up=True),
    "500": Reply(500, b"<html>", headers={"Content-Type": "text/html"}),
    "502": Reply(502, b""),
    "503": error(503, "SERVER_UNAVAILABLE", "try later"),
    "504": Reply(504, b""),
    "406": Reply(406, b""),
}


@pytest.mark.parametrize("failure", UNKNOWN)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_without_a_usable_answer_is_a_lost_reply_and_is_sent_once(
    org: SalesforceOrg, server: OrgServer, change: str, failure: str
) -> None:
    route, call = CHANGES[change]
    server.on(*route, UNKNOWN[failure])
    with pytest.raises(LostReply) as caught:
        call(org)
    assert "unknown" in (caught.value.state or "")
    assert len(server.of(*route)) == 1


@pytest.mark.parametrize("change", ["create", "close", "abort"])
@pytest.mark.parametrize(
    "body",
    [b"<html>busy</html>", b"", b'{"id": "750', b"[]", b'{"id": "750000000000001AAA"}'],
    ids=["html", "empty", "cut", "list", "half"],
)
def test_a_change_with_an_unreadable_success_is_a_lost_reply(
    org: SalesforceOrg, server: OrgServer, change: str, body: bytes
) -> None:
    route, call = CHANGES[change]
    server.on(*route, Reply(200, body))
    with pytest.raises(LostReply):
        call(org)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("status", [420, 429])
def test_a_change_that_the_edge_turned_away_was_not_done(
    org: SalesforceOrg, server: OrgServer, change: str, status: int
) -> None:
    route, call = CHANGES[change]
    server.on(*route, Reply(status, b""))
    with pytest.raises(OrgUnavailable):
        call(org)
    assert len(server.of(*route)) == 1


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_was_refused_says_why(org: SalesforceOrg, server: OrgServer, change: str) -> None:
    route, call = CHANGES[change]
    server.on(*route, error(400, "INVALIDJOBSTATE", "Closing already Completed Job not allowed"))
    with pytest.raises(OrgRefused) as caught:
        call(org)
    assert type(caught.value) is OrgRefused
    assert (caught.value.code, caught.value.http_status) == ("INVALIDJOBSTATE", 400)


@pytest.mark.parametrize("change", CHANGES)
def test_nobody_listening_means_certainly_not_done(org: SalesforceOrg, server: OrgServer, change: str) -> None:
    _, call = CHANGES[change]
    org._http._client.close()
    org._http._client = make_client(org._http.base, settings=HttpSettings(), ca_file=None, wire=None)  # a fresh pool
    server.shutdown()
    server.server_close()
    with pytest.raises(OrgUnavailable):
        call(org)


def test_a_reply_that_takes_too_long_is_lost(server: OrgServer, clock: TestClock) -> None:
    import threading

    release = threading.Event()

    def wait(asked: Any) -> Reply:
        release.wait(30)
        return Reply(body=job_json())

    server.on("POST", INGEST, wait)
    org = signed_in(server, clock, http=HttpSettings(change_timeout_s=0.2))
    try:
        with pytest.raises(LostReply, match="no answer within the time allowed"):
            org.create_job(REQUEST)
    finally:
        release.set()
        org.close()


@pytest.mark.parametrize("code", ["REQUEST_LIMIT_EXCEEDED", "LIMIT_EXCEEDED", "ExceededQuota", "EXCEEDEDQUOTA"])
def test_limits_are_told_apart_and_not_repeated(
    org: SalesforceOrg, server: OrgServer, clock: TestClock, code: str
) -> None:
    server.on("GET", f"{ROOT}/limits", error(403, code, "TotalRequests Limit exceeded."))
    with pytest.raises(OrgLimitReached) as caught:
        org.limits()
    assert caught.value.code == code
    assert clock.slept == []
    assert len(server.of("GET", f"{ROOT}/limits")) == 1


@pytest.mark.parametrize("failure", [*UNKNOWN, "420", "429", "not JSON", "cut"])
def test_a_get_is_repeated_with_growing_waits(
    org: SalesforceOrg, server: OrgServer, clock: TestClock, failure: str
) -> None:
    more = {
        "420": Reply(420),
        "429": Reply(429),
        "not JSON": Reply(200, b"<html>", headers={"Content-Type": "text/html"}),
        "cut": Reply(body={"DailyApiRequests": {}}, cut_at=3),
    }
    bad = {**UNKNOWN, **more}[failure]
    path = f"{ROOT}/limits"
    server.on("GET", path, bad, bad, Reply(body={"DataStorageMB": {"Max": 5, "Remaining": 4}}))
    assert org.limits().storage_mb_left == 4
    assert len(clock.slept) == 2
    assert 0.5 <= clock.slept[0] <= 1.0 <= clock.slept[1] <= 2.0

    server.on("GET", path, bad)
    before = len(server.asked)
    with pytest.raises(OrgUnavailable):
        org.limits()
    assert len(server.asked) - before == 4


@pytest.mark.parametrize(("asked", "waits"), [("7", [7.0]), ("Fri, 02 Jan 2026 03:04:35 GMT", [30.0]), ("soon", None)])
def test_retry_after_is_honoured(
    org: SalesforceOrg, server: OrgServer, clock: TestClock, asked: str, waits: list[float] | None
) -> None:
    server.on("GET", f"{ROOT}/limits", error(503, "SERVER_UNAVAILABLE", "", Retry_After=asked), Reply(body={}))
    org.limits()
    if waits is None:
        assert 0.5 <= clock.slept[0] <= 1.0
    else:
        assert clock.slept == waits


def test_a_long_retry_after_is_left_to_the_caller(org: SalesforceOrg, server: OrgServer, clock: TestClock) -> None:
    server.on("GET", f"{ROOT}/limits", error(503, "SERVER_UNAVAILABLE", "", Retry_After="3600"))
    with pytest.raises(OrgUnavailable):
        org.limits()
    assert clock.slept == []


def test_redirects_are_not_followed(org: SalesforceOrg, server: OrgServer) -> None:
    server.on("GET", f"{ROOT}/limits", Reply(302, headers={"Location": f"{server.url}/elsewhere?sid=secret"}))
    with pytest.raises(OrgRefused, match="points to another address") as caught:
        org.limits()
    assert caught.value.code == "REDIRECT"
    assert "secret" not in str(caught.value)
    assert not server.of("GET", "/elsewhere")


@pytest.mark.parametrize("size", [1, 3])
def test_an_upload_of_another_size_than_announced_is_broken_off(
    org: SalesforceOrg, server: OrgServer, size: int
) -> None:
    server.on("PUT", f"{INGEST}/{JOB}/batches", Reply(201))
    with pytest.raises(StorageError, match="announced"):
        org.upload(JOB, content=lambda: [b"a", b"\n"], size=size)


def test_an_error_while_reading_the_content_reaches_the_caller(org: SalesforceOrg) -> None:
    def broken() -> Iterator[bytes]:
        yield b"a,b\n"
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        org.upload(JOB, content=broken, size=100)


def test_compressed_uploads_and_the_way_back_to_plain_ones(server: OrgServer, clock: TestClock) -> None:
    path = f"{INGEST}/{JOB}/batches"
    org = signed_in(server, clock, gzip_uploads=True)
    server.on("PUT", path, Reply(201))
    csv = b"Name\n" + b"x\n" * 100_000
    org.upload(JOB, content=lambda: [csv], size=len(csv))
    put = server.of("PUT", path)[-1]
    assert put.headers["content-encoding"] == "gzip"
    assert gzip.decompress(put.body) == csv

    server.on("PUT", path, error(415, "UNSUPPORTED_MEDIA_TYPE", "no"), Reply(201))
    org.upload(JOB, content=lambda: [csv], size=len(csv))
    assert server.of("PUT", path)[-1].body == csv
    org.upload(JOB, content=lambda: [csv], size=len(csv))
    assert "content-encoding" not in server.of("PUT", path)[-1].headers
    org.close()


QUERY = f"{ROOT}/jobs/query"
QUERY_JOB = f"{QUERY}/{JOB}"


def test_bulk_query_waits_pages_and_deletes(server: OrgServer, clock: TestClock) -> None:
    org = signed_in(server, clock, bulk_page_rows=2)
    states = ["UploadComplete", "InProgress", "InProgress", "JobComplete"]
    server.on("POST", QUERY, Reply(body={"id": JOB, "state": "UploadComplete"}))
    server.on("GET", QUERY_JOB, *[Reply(body={"id": JOB, "state": state}) for state in states])
    pages = {"": (b'"Id"\n"1"\n"2"\n', "MTAw"), "MTAw": (b'"Id"\n"3\0"\n', "null")}

    def page(asked: Any) -> Reply:
        from urllib.parse import parse_qs

        given = parse_qs(asked.query)
        assert given["maxRecords"] == ["2"]
        body, locator = pages[given.get("locator", [""])[0]]
        return Reply(body=body, headers={"Sforce-Locator": locator, "Sforce-NumberOfRecords": "2"})

    server.on("GET", f"{QUERY_JOB}/results", page)
    server.on("DELETE", QUERY_JOB, Reply(204))
    assert list(org.bulk_query("SELECT Id FROM Account")) == [b'"Id"\n"1"\n"2"\n', b'"Id"\n"3"\n']
    assert clock.slept == [1.0, 1.5, 2.25]
    assert len(server.of("DELETE", QUERY_JOB)) == 1
    assert not server.of("PATCH", QUERY_JOB)
    org.close()


def test_a_bulk_query_that_fails(org: SalesforceOrg, server: OrgServer) -> None:
    server.on("POST", QUERY, Reply(hang_up=True), Reply(body={"id": JOB, "state": "UploadComplete"}))
    failed = {"id": JOB, "state": "Failed", "errorMessage": "InvalidBatch : Field name not found : Foo__c"}
    server.on("GET", QUERY_JOB, Reply(body=failed))
    server.on("PATCH", QUERY_JOB, error(400, "INVALIDJOBSTATE", "Aborting already Completed Job not allowed"))
    server.on("DELETE", QUERY_JOB, Reply(204))
    with pytest.raises(OrgRefused) as caught:
        list(org.bulk_query("SELECT Foo__c FROM Account"))
    assert caught.value.code == "InvalidBatch"
    assert "Foo__c" in caught.value.message
    assert not server.of("PATCH", QUERY_JOB), "a job that has ended cannot be aborted"
    assert len(server.of("DELETE", QUERY_JOB)) == 1


def test_a_bulk_query_that_nobody_reads_on_is_cleaned_up(org: SalesforceOrg, server: OrgServer) -> None:
    server.on("POST", QUERY, Reply(body={"id": JOB, "state": "UploadComplete"}))
    server.on("GET", QUERY_JOB, Reply(body={"id": JOB, "state": "JobComplete"}))
    server.on("GET", f"{QUERY_JOB}/results", Reply(body=b"Id\n1\n", headers={"Sforce-Locator": "x"}))
    server.on("DELETE", QUERY_JOB, Reply(204))
    pages = org.bulk_query("SELECT Id FROM Account")
    assert next(pages) == b"Id\n1\n"
    pages.close()  # type: ignore[attr-defined]  # it is a generator
    assert len(server.of("DELETE", QUERY_JOB)) == 1


def test_a_bulk_query_that_never_ends_is_given_up(org: SalesforceOrg, server: OrgServer, clock: TestClock) -> None:
    server.on("POST", QUERY, Reply(body={"id": JOB, "state": "UploadComplete"}))
    server.on("GET", QUERY_JOB, Reply(body={"id": JOB, "state": "InProgress"}))
    server.on("PATCH", QUERY_JOB, Reply(body={"id": JOB, "state": "Aborted"}))
    server.on("DELETE", QUERY_JOB, Reply(204))
    with pytest.raises(TargetError, match="still InProgress after 6 hours"):
        list(org.bulk_query("SELECT Id FROM Account"))
    assert len(server.of("PATCH", QUERY_JOB)) == 1
    assert len(clock.slept) < 800


def test_logs_hold_neither_token_nor_query(
    org: SalesforceOrg, server: OrgServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.on("GET", f"{ROOT}/query", error(503, "X"), Reply(body={"totalSize": 0, "done": True, "records": []}))
    with caplog.at_level(logging.DEBUG):
        assert list(org.query("SELECT Id FROM Contact WHERE Email = 'somchai@example.com'")) == []
    assert f"GET {ROOT}/query: 200" in caplog.text
    assert "/query" in "".join(record.getMessage() for record in caplog.records if record.name == "httpx")
    assert TOKEN not in caplog.text
    assert "somchai" not in caplog.text


def test_a_job_goes_with_its_data_as_one_form(org: SalesforceOrg, server: OrgServer) -> None:
    """Goal: the documented form: the part `job`, then the part `content` as a file, the data byte for byte."""
    server.on("POST", INGEST, Reply(body=job_json(state="UploadComplete")))
    csv = 'Legacy_Id__c,Name\n1,"a\r\n--b"\n2,\u0e44\u0e17\u0e22\n'.encode()
    job = org.create_loaded(REQUEST, content=lambda: [csv[:10], csv[10:]], size=len(csv))
    assert (job.id, job.state) == (JOB, JobState.UPLOAD_COMPLETE)
    (post,) = server.of("POST", INGEST)
    kind, _, boundary = post.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/form-data"
    assert post.headers["content-length"] == str(len(post.body))
    begin, first, second, end = post.body.split(f"--{boundary}".encode())
    assert (begin, end) == (b"", b"--\r\n")
    head, _, document = first.partition(b"\r\n\r\n")
    assert set(head.split(b"\r\n")) == {
        b"", b"Content-Type: application/json", b'Content-Disposition: form-data; name="job"'
    }  # fmt: skip
    assert json.loads(document)["externalIdFieldName"] == "Legacy_Id__c"
    head, _, data = second.partition(b"\r\n\r\n")
    assert b'form-data; name="content"; filename="content"' in head
    assert data == csv + b"\r\n"


def test_a_file_of_another_size_is_not_sent_with_its_job(org: SalesforceOrg, server: OrgServer) -> None:
    with pytest.raises(StorageError, match="2 bytes"):
        org.create_loaded(REQUEST, content=lambda: [b"abc"], size=2)
    assert server.of("POST", INGEST) == []
