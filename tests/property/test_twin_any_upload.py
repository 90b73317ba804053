"""Any bytes as an upload, by HTTP and by the whole job: never a 500, never a traceback, no row lost or doubled."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.integration.twin_http_fixtures import BASE, Client
from tests.twin_store_support import SCHEMA, make_org

from forcelift.twin.server import TwinServer

INGEST = f"{BASE}/jobs/ingest"
EXAMPLES = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FIELDS = ["Id", "Name", "Plane__r.Tail__c", "Next__r.Ext__c", "RecordTypeId", *SCHEMA["objects"]["Trip__c"]["fields"]]
RULES = {
    "validation_rules": [
        {"name": "R", "object": "Trip__c", "error_message": "no",
         "formula": "OR(Miles__c / Seats__c > 3, LEN(Place__c) = 2, ISCHANGED(Mail__c))"}
    ],
    "triggers": [
        {"name": "T", "object": "Trip__c", "effects": [
            {"effect": "fill", "field": "Seats__c", "formula": "VALUE(Loose__c) * 10 ^ LEN(Loose__c)"},
            {"effect": "exceed_limit", "limit": "heap", "when": "REGEX(Place__c, '[a-c]+')"},
        ]}
    ],
    "workflow_rules": [
        {"name": "W", "object": "Trip__c", "condition": "ISBLANK(Code__c)",
         "field_updates": [{"field": "Code__c", "formula": "LEFT(Place__c & Name, 5)"}]}
    ],
    "duplicate_rules": [{"name": "D", "object": "Trip__c", "match_fields": ["Day__c", "Loose__c"]}],
}  # fmt: skip
CELLS = st.one_of(
    st.sampled_from(
        ["", "#N/A", " ", "x", "1", "-0", "1e308", "1e-308", "9" * 40, "0x1", "NaN", "inf", "true", "2026-02-30",
         "2026-01-01",
         "0001-01-01", "9999-12-31T23:59:59Z", "2026-01-01T00:00:00+99:99", "2026-01-01T24:00:00Z",
         "a00000000000000AAA",
         "0" * 15, "New", "a@b.c", "\0", "\u2028", "😀" * 6, '"', "'", "{0}", "%s", "\\", "=1+1", "ก" * 11]
    ),
    st.text(max_size=12),
)  # fmt: skip
TABLES = st.lists(st.sampled_from(FIELDS), min_size=1, max_size=6, unique=True).flatmap(
    lambda names: st.tuples(
        st.just(names), st.lists(st.lists(CELLS, min_size=len(names), max_size=len(names)), max_size=8)
    )
)


@pytest.fixture(scope="module")
def server() -> Iterator[TwinServer]:
    with make_org(automations=RULES) as org, TwinServer(org, work=False) as server:
        yield server


def whole_job(server: TwinServer, content: bytes, body: dict[str, str]) -> dict[str, object]:
    """Load the bytes, and check what holds for every job."""
    with Client(server) as client:
        job_id = client.create_job(**{"object": "Trip__c", **body})
        assert client.put_csv(job_id, content).status_code == 201
        assert client.close_job(job_id).status_code == 200
        server.org.run_until_idle()
        job: dict[str, object] = client.get(f"{INGEST}/{job_id}").json()
        assert job["state"] in ("JobComplete", "Failed")
        files = [
            client.get(f"{INGEST}/{job_id}/{kind}")
            for kind in ("successfulResults", "failedResults", "unprocessedrecords")
        ]
        assert [file.status_code for file in files] == [200, 200, 200]
        if job["state"] == "JobComplete":
            separator = {"PIPE": "|"}.get(body.get("columnDelimiter", ""), ",")
            rows = [list(csv.reader(io.StringIO(file.text, newline=""), delimiter=separator)) for file in files]
            saved, failed = (max(len(part) - 1, 0) for part in rows[:2])
            assert job["numberRecordsProcessed"] == saved + failed
            assert job["numberRecordsFailed"] == failed
        assert client.delete(f"{INGEST}/{job_id}").status_code == 204
    assert server.internal_errors == []
    return job


@EXAMPLES
@example(content=b"")
@example(content=b"\n\n\n")
@example(content=b'"')
@example(content=b"Place__c\n\xff\xfe\n")
@example(content=b"Place__c,Place__c\nx,y\n")
@example(content=b"Place__c\nx,y\n")
@example(content=b"Place__c\r\nx\r\n")
@example(content=b"\xef\xbb\xbfPlace__c\nx\n")
@example(content=b"Place__c\n\0\n")
@given(content=st.one_of(st.binary(max_size=200), st.text('ab,"\n\r#N/A\0é', max_size=60).map(str.encode)))
def test_any_bytes(server: TwinServer, content: bytes) -> None:
    whole_job(server, content, {"operation": "insert"})


@EXAMPLES
@given(
    table=TABLES,
    operation=st.sampled_from(["insert", "update", "upsert", "delete", "hardDelete"]),
    shape=st.sampled_from([("COMMA", "LF"), ("PIPE", "CRLF")]),
)
def test_any_cells(
    server: TwinServer, table: tuple[list[str], list[list[str]]], operation: str, shape: tuple[str, str]
) -> None:
    names, rows = table
    file = io.StringIO(newline="")
    ending = {"LF": "\n", "CRLF": "\r\n"}[shape[1]]
    writer = csv.writer(file, lineterminator=ending, delimiter={"COMMA": ",", "PIPE": "|"}[shape[0]])
    writer.writerows([names, *rows])
    body = {"operation": operation, "columnDelimiter": shape[0], "lineEnding": shape[1]}
    if operation == "upsert":
        body["externalIdFieldName"] = "Ext__c"
    whole_job(server, file.getvalue().encode("utf-8", "surrogatepass"), body)
