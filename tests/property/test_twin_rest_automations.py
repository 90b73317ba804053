"""REST writes of any values on an org with any automations: answers in Salesforce's form, never a 500.

Method: rules with formulas put together at random (those beyond the twin's subset must act on nothing), triggers,
flows, workflow and duplicate rules with random effects; then single records, collections, composites and trees over
HTTP. Hypothesis and not schemathesis: the twin has no OpenAPI document, and what matters here is the pair of an
automation and a value, which no document of paths describes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.twin_http_fixtures import BASE, Client
from tests.twin_store_support import make_org, make_schema

from forcelift.twin.automation_models import Automations, read_automations
from forcelift.twin.formulas import check_formula
from forcelift.twin.server import TwinServer

TRIP = make_schema().object("Trip__c")
assert TRIP is not None
SETTINGS = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
    ],
)
TEXTS = ["Ext__c", "Loose__c", "Place__c", "Mail__c", "Name", "'x'", "'[a-'", "''", "Code__c", "'ก😀'", "'1e400'"]
NUMBERS = ["Miles__c", "Seats__c", "0", "-1", "1e15", "99999999999999999999", "0.001"]
DATES = ["Day__c", "TODAY()", "DATE(2026, 2, 30)", "DATE(4000, 12, 31)", "DATEVALUE(At__c)", "DATEVALUE('x')"]
LEAVES = {"text": TEXTS, "number": NUMBERS, "date": DATES}
CALLS = {
    "text": ["UPPER({text})", "LEFT({text}, {number})", "MID({text}, {number}, {number})", "TEXT({number})",
             "TEXT({date})", "TEXT(State__c)", "SUBSTITUTE({text}, {text}, {text})", "{text} & {text}",
             "IF({boolean}, {text}, {text})", "BLANKVALUE({text}, {text})", "PRIORVALUE(Loose__c)"],
    "number": ["{number} / {number}", "{number} ^ {number}", "MOD({number}, {number})", "SQRT({number})",
               "ROUND({number}, {number})", "VALUE({text})", "LEN({text})", "{number} * {number}", "YEAR({date})",
               "{date} - {date}", "CASE({number}, {number}, {number}, {number})", "PRIORVALUE(Miles__c)"],
    "date": ["{date} + {number}", "ADDMONTHS({date}, {number})", "DATE({number}, {number}, {number})"],
    "boolean": ["{number} > {number}", "{text} = {text}", "{date} <= {date}", "ISBLANK({text})", "ISNEW()",
                "REGEX({text}, {text})",
                "NOT({boolean})", "AND({boolean}, {boolean})", "Open__c", "ISCHANGED(Miles__c)",
                "CONTAINS({text}, {text})", "ISPICKVAL(State__c, {text})", "VLOOKUP({text})", "ISNUMBER({text})"],
}  # fmt: skip


@st.composite
def formulas(draw: st.DrawFn, kind: str = "boolean", depth: int = 0) -> str:
    if kind in LEAVES and (depth > 3 or draw(st.booleans())):
        return draw(st.sampled_from(LEAVES[kind]))
    shape = draw(st.sampled_from(["TRUE", "FALSE", "Open__c"] if depth > 3 else CALLS[kind]))
    for wanted in ("text", "number", "date", "boolean"):
        while f"{{{wanted}}}" in shape:
            shape = shape.replace(f"{{{wanted}}}", f"({draw(formulas(wanted, depth + 1))})", 1)
    return shape


def readable(kind: str = "boolean") -> st.SearchStrategy[str | None]:
    """For effects, which are refused where rules are kept: such that the twin reads, or none."""
    wants = "boolean" if kind == "boolean" else "any"
    return formulas(kind).map(lambda each: each if check_formula(each, TRIP, wants=wants) is None else None)


FILLED = st.sampled_from(["Loose__c", "Seats__c", "Miles__c", "Day__c", "At__c", "Place__c", "Open__c", "State__c"])
FILL = st.one_of(
    st.fixed_dictionaries(
        {"field": FILLED, "value": st.sampled_from([None, "x" * 300, 1e300, True, -1, "2026-02-30"])}
    ),
    st.fixed_dictionaries(
        {"field": FILLED, "formula": st.sampled_from(["text", "number", "date", "boolean"]).flatmap(readable)}
    ),
)
EFFECTS = st.one_of(
    st.builds(lambda fill, when: {"effect": "fill", **fill, "when": when}, FILL, readable()),
    st.builds(
        lambda when, how: {"effect": "reject", "message": "no: 'x', %s {0}", "when": when, "how": how},
        readable(),
        st.sampled_from(["error", "exception"]),
    ),
    st.builds(lambda when: {"effect": "exceed_limit", "limit": "heap", "when": when}, readable()),
    st.builds(lambda depth: {"effect": "recurse", "depth": depth}, st.integers(1, 20)),
    st.builds(lambda ms: {"effect": "time", "row_ms": ms}, st.sampled_from([0.0, 1.5, 70_000.0])),
    st.just({"effect": "lock_parent", "field": "Plane__c"}),
)
EVENTS = ["before insert", "before update", "after insert", "after update", "before delete"]
AUTOMATIONS = st.builds(
    lambda rule, events, effects, flow, timing, condition, workflow, update, on, match: {
        "validation_rules": [{"name": "R", "object": "Trip__c", "error_message": "no", "formula": rule}],
        "triggers": [{"name": "T", "object": "Trip__c", "events": events, "effects": effects}],
        "flows": [
            {"name": "F", "object": "Trip__c", "timing": timing, "condition": condition, "active_version": 1,
             "versions": [{"number": 1, "effects": flow}]}
        ],
        "workflow_rules": [
            {"name": "W", "object": "Trip__c", "condition": workflow, "field_updates": [update], "on": on}
        ],
        "duplicate_rules": [{"name": "D", "object": "Trip__c", "match_fields": match}],
    },
    formulas(),
    st.lists(st.sampled_from(EVENTS), min_size=1, max_size=3, unique=True),
    st.lists(EFFECTS, max_size=2),
    st.lists(EFFECTS, max_size=2),
    st.sampled_from(["before_save", "after_save"]),
    readable(),
    formulas(),
    FILL,
    st.sampled_from(["onCreateOnly", "onCreateOrTriggeringUpdate", "onAllChanges"]),
    st.lists(st.sampled_from(["Day__c", "Loose__c", "Miles__c", "Open__c", "Plane__c"]), min_size=1, unique=True),
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        [None, True, 0, -1, 250.5, 1e308, 10**40, -(10**18), "", "x", "#N/A", "2026-02-28", "2026-02-30", "New", "[a-",
         "2026-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00", "\0", "😀" * 6, "1e400", "'; --", [], {}, ["x"],
         {"Tail__c": "p"}, {"Tail__c": {}}]
    ),
    st.text(max_size=12),
)  # fmt: skip
NAMES = ["Ext__c", "Code__c", "Loose__c", "Plane__c", "Plane__r", "Place__c", "Miles__c", "Seats__c", "Open__c"]
NAMES += ["Day__c", "At__c", "Mail__c", "State__c", "Free__c", "Sum__c", "Name", "OwnerId", "RecordTypeId", "Id"]
RECORDS = st.builds(
    lambda values, place: {"Place__c": "here", **values} if place else values,
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4),
    st.integers(0, 9).map(bool),
)
WRITES = st.lists(
    st.tuples(
        st.sampled_from(["create", "update", "upsert", "collection", "upserts", "composite", "tree", "delete"]),
        st.lists(RECORDS, min_size=1, max_size=4),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with make_org() as org, TwinServer(org, work=False) as server, Client(server) as made:
        yield made


def send(client: Client, how: str, records: list[dict[str, Any]], whole: bool, known: str) -> httpx.Response:
    place, first = f"{BASE}/sobjects/Trip__c", records[0]
    typed = [{"attributes": {"type": "Trip__c", "referenceId": f"r{at}"}, **each} for at, each in enumerate(records)]
    match how:
        case "create":
            return client.post(place, json=first)
        case "update":
            return client.patch(f"{place}/{known}", json=first)
        case "upsert":
            return client.patch(f"{place}/Ext__c/k", json=first)
        case "collection":
            return client.post(f"{BASE}/composite/sobjects", json={"allOrNone": whole, "records": typed})
        case "upserts":
            given_keys = [{"Ext__c": f"k{at % 2}", **each} for at, each in enumerate(typed)]
            body = {"allOrNone": whole, "records": given_keys}
            return client.patch(f"{BASE}/composite/sobjects/Trip__c/Ext__c", json=body)
        case "composite":
            calls = [
                {"method": "POST", "url": place, "referenceId": f"r{at}", "body": each}
                for at, each in enumerate(records)
            ]
            calls.append({"method": "PATCH", "url": f"{place}/@{{r0.id}}", "referenceId": "last", "body": first})
            return client.post(f"{BASE}/composite", json={"allOrNone": whole, "compositeRequest": calls})
        case "tree":
            return client.post(f"{BASE}/composite/tree/Trip__c", json={"records": typed})
    return client.delete(f"{place}/{known}")


def check(client: Client, declared: dict[str, Any], writes: list[tuple[str, list[dict[str, Any]], bool]]) -> None:
    org = client.server.org
    automations: Automations = read_automations(declared)
    org.automations.put(*automations.each())
    known = "a01000000000000AAA"
    for how, records, whole in writes:
        before = client.query("SELECT COUNT() FROM Trip__c")["totalSize"]
        answer = send(client, how, records, whole, known)
        assert client.server.internal_errors == [], f"{how} {records}: {client.server.internal_errors}"
        assert answer.status_code < 500 or answer.status_code == 501, answer.text
        assert "Traceback" not in answer.text
        after = client.query("SELECT COUNT() FROM Trip__c")["totalSize"]
        if answer.status_code >= 400:
            assert after == before, "what is refused has saved nothing"
        elif how == "create":
            known = answer.json()["id"]
            assert after == before + 1
        elif how == "collection":
            results = answer.json()
            saved = sum(result["success"] for result in results)
            assert len(results) == len(records)
            assert after == before + saved
            assert saved in (0, len(records)) or not whole
            assert all(result["errors"] for result in results if not result["success"])


@settings(SETTINGS, max_examples=25)
@given(declared=AUTOMATIONS, writes=WRITES)
def test_any_write_on_any_automations(
    client: Client, declared: dict[str, Any], writes: list[tuple[str, list[dict[str, Any]], bool]]
) -> None:
    check(client, declared, writes)


@pytest.mark.slow
@settings(SETTINGS, max_examples=400)
@given(declared=AUTOMATIONS, writes=WRITES)
def test_many_writes_on_many_automations(
    client: Client, declared: dict[str, Any], writes: list[tuple[str, list[dict[str, Any]], bool]]
) -> None:
    check(client, declared, writes)
