"""Whatever a client sends, the twin answers in Salesforce's form: never a 500, never a trace.

Method: real HTTP to one served org. Paths are every path of the REST surface, filled with names that exist and that do
not; bodies are random JSON and mutations of good ones; queries are made from a grammar and mutated as text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.property.soql_grammar import any_query
from tests.unit.twin_soql_org import make_org

from forcelift.twin.server import TwinServer

VERSION = "/services/data/v66.0"
SETTINGS = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
OBJECTS = ["Sale__c", "Tenant__c", "Region__c", "User", "Organization", "Nope__c", "sale__C"]
FIELDS = [
    "Id",
    "Name",
    "Amount__c",
    "Count__c",
    "Code__c",
    "Day__c",
    "Tenant__c",
    "Tenant__r",
    "Nope",
    "attributes",
    "OwnerId",
]
IDS = [
    "a02000000000001AAA",
    "a01000000000001",
    "a00000000000001AAA",
    "005000000000001AAA",
    "x",
    "",
    "01g000000000000AAA-5",
]
TEXT = st.one_of(st.sampled_from([*OBJECTS, *FIELDS, *IDS, "#N/A", "@{a.id}", "' OR 1", "%"]), st.text(max_size=12))


@pytest.fixture(scope="module")
def server() -> Iterator[TwinServer]:
    org = make_org()
    with TwinServer(org) as running:
        yield running
    org.close()


@pytest.fixture(scope="module")
def client(server: TwinServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {server.access_token}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60, verify=False) as made:
        yield made


def check(server: TwinServer, answer: httpx.Response) -> None:
    """The answer is a success or an error in Salesforce's form."""
    assert server.internal_errors == [], f"{answer.request.method} {answer.request.url}: {server.internal_errors}"
    assert answer.status_code < 500 or answer.status_code == 501, answer.text
    assert "Traceback" not in answer.text
    if answer.status_code >= 400 and answer.content and answer.request.method != "HEAD":
        document = answer.json()
        if isinstance(document, dict):  # only a tree tells its errors under its results
            assert document["hasErrors"] is True
        else:
            assert document
            assert all({"message", "errorCode"} <= error.keys() for error in document)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT, st.dates().map(str)
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=6,
)
ATTRIBUTES = st.fixed_dictionaries(
    {"type": st.sampled_from(OBJECTS) | VALUES}, optional={"referenceId": st.sampled_from("abc") | VALUES}
)
RECORD = st.dictionaries(st.sampled_from(FIELDS) | TEXT, VALUES, max_size=4).flatmap(
    lambda record: ATTRIBUTES.map(lambda attributes: {**record, "attributes": attributes})
)
LINKS = st.sampled_from(
    [
        "/limits",
        "/sobjects/Sale__c",
        "/query?q=SELECT+Id+FROM+Sale__c",
        "/query?q=x",
        "/sobjects/Tenant__c/Code__c/a%2Fb",
        "/composite/sobjects",
        "/jobs/ingest",
        "x",
        "//[",
        "/sobjects/Sale__c/@{a.id}",
    ]
)
METHODS = st.sampled_from(["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "BREW"])
PART = st.fixed_dictionaries(
    {
        "method": METHODS | VALUES,
        "url": LINKS.map(lambda link: VERSION + link) | LINKS.map(lambda link: "v66.0" + link),
    },
    optional={"referenceId": st.sampled_from("abcde") | VALUES, "body": RECORD | VALUES, "richInput": RECORD},
)
BODIES = st.one_of(
    VALUES,
    RECORD,
    st.fixed_dictionaries(
        {"records": st.lists(RECORD, max_size=4) | VALUES}, optional={"allOrNone": st.booleans() | VALUES}
    ),
    st.fixed_dictionaries(
        {"compositeRequest": st.lists(PART, max_size=4)}, optional={"allOrNone": st.booleans() | VALUES}
    ),
    st.fixed_dictionaries({"batchRequests": st.lists(PART, max_size=4)}, optional={"haltOnError": st.booleans()}),
    st.fixed_dictionaries({"ids": st.lists(TEXT, max_size=4) | VALUES, "fields": st.lists(TEXT, max_size=3) | VALUES}),
    st.fixed_dictionaries(
        {"operation": st.sampled_from(["insert", "query", "queryAll", "x"]) | VALUES},
        optional={
            "query": any_query() | VALUES,
            "object": TEXT | VALUES,
            "columnDelimiter": TEXT,
            "lineEnding": TEXT,
            "contentType": TEXT,
            "state": TEXT | VALUES,
            "externalIdFieldName": TEXT | VALUES,
        },
    ),
    st.fixed_dictionaries({"state": st.sampled_from(["Aborted", "UploadComplete"]) | VALUES}),
)
PATHS = [
    "",
    "/limits",
    "/limits/recordCount",
    "/query",
    "/queryAll",
    "/query/{id}",
    "/queryAll/{id}",
    "/sobjects",
    "/sobjects/{object}",
    "/sobjects/{object}/describe",
    "/sobjects/{object}/updated",
    "/sobjects/{object}/deleted",
    "/sobjects/{object}/Id",
    "/sobjects/{object}/{id}",
    "/sobjects/{object}/{field}/{text}",
    "/composite",
    "/composite/batch",
    "/composite/tree/{object}",
    "/composite/sobjects",
    "/composite/sobjects/{object}",
    "/composite/sobjects/{object}/{field}",
    "/jobs",
    "/jobs/ingest",
    "/jobs/ingest/{id}",
    "/jobs/ingest/{id}/batches",
    "/jobs/ingest/{id}/successfulResults",
    "/jobs/query",
    "/jobs/query/{id}",
    "/jobs/query/{id}/results",
    "/jobs/query/{id}/resultPages",
    "/{text}",
]
PARAMETERS = st.dictionaries(
    st.sampled_from(
        [
            "q",
            "fields",
            "ids",
            "sObjects",
            "start",
            "end",
            "locator",
            "maxRecords",
            "queryLocator",
            "columns",
            "jobType",
            "allOrNone",
            "updateOnly",
            "_HttpMethod",
        ]
    ),
    st.one_of(
        TEXT,
        any_query(),
        st.sampled_from(
            ["2026-01-01T00:00:00Z", "2025-12-31T00:00:00+14:00", "true", "0", "9" * 5000, "MTAw", "Id,Name"]
        ),
    ),
    max_size=3,
)
HEADERS = st.dictionaries(
    st.sampled_from(["Sforce-Query-Options", "If-Modified-Since", "If-Unmodified-Since", "X-PrettyPrint"]),
    st.sampled_from(["batchSize=200", "batchSize=" + "9" * 30, "Fri, 02 Jan 2099 00:00:00 GMT", "Fri, 99", "1", "x"]),
    max_size=2,
)


@SETTINGS
@given(data=st.data())
def test_any_call_is_answered(server: TwinServer, client: httpx.Client, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(PATHS))
    made = {
        "object": data.draw(st.sampled_from(OBJECTS)),
        "field": data.draw(st.sampled_from(FIELDS)),
        "id": data.draw(st.sampled_from(IDS) | TEXT),
        "text": data.draw(TEXT),
    }
    url = VERSION + path.format(**{name: quote(value, safe="") for name, value in made.items()})
    method = data.draw(st.sampled_from(["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD"]))
    parameters = data.draw(PARAMETERS)
    headers = data.draw(HEADERS)
    content = b""
    if method in ("POST", "PATCH", "PUT"):
        content = json.dumps(data.draw(BODIES)).encode()
        if data.draw(st.integers(0, 9)) == 0:
            cut = data.draw(st.integers(0, len(content)))
            content = content[:cut] + data.draw(st.binary(max_size=3)) + content[cut + 1 :]
        headers["Content-Type"] = data.draw(st.sampled_from(["application/json"] * 5 + ["text/csv", "x", ""]))
    check(server, client.request(method, url, params=parameters, headers=headers, content=content))


@SETTINGS
@given(data=st.data())
def test_any_body_at_the_calls_that_write(server: TwinServer, client: httpx.Client, data: st.DataObject) -> None:
    url, method = data.draw(
        st.sampled_from(
            [
                ("/composite", "POST"),
                ("/composite/batch", "POST"),
                ("/composite/tree/Tenant__c", "POST"),
                ("/composite/sobjects", "POST"),
                ("/composite/sobjects", "PATCH"),
                ("/sobjects/Sale__c", "POST"),
                ("/composite/sobjects/Tenant__c/Code__c", "PATCH"),
                ("/sobjects/Tenant__c/Code__c/k", "PATCH"),
                ("/jobs/query", "POST"),
                ("/jobs/ingest", "POST"),
                ("/composite/sobjects/Sale__c", "POST"),
            ]
        )
    )
    check(server, client.request(method, VERSION + url, json=data.draw(BODIES)))


@SETTINGS
@given(soql=any_query(), path=st.sampled_from(["query", "queryAll"]), bulk=st.booleans())
@example(soql="SELECT TYPEOF Owner WHEN User THEN Name END FROM Sale__c", path="query", bulk=False)
@example(soql="SELECT Id FROM Sale__c WHERE Name = '\\ud800\\udc00' ORDER BY Id", path="query", bulk=True)
def test_any_query_over_http(server: TwinServer, client: httpx.Client, soql: str, path: str, bulk: bool) -> None:
    if bulk:
        check(server, client.post(f"{VERSION}/jobs/query", json={"operation": path, "query": soql}))
    else:
        check(server, client.get(f"{VERSION}/{path}", params={"q": soql}))
