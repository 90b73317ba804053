"""Any text gives either a result or a SoqlError, and what stands in a literal stays a literal."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.unit.twin_soql_org import NOW, make_org

from forcelift.twin.org import TwinOrg
from forcelift.twin.soql import SoqlError, compile_query, run, total_size

GOOD = [
    "SELECT Id, Name, Tenant__r.Region__r.Code__c FROM Sale__c "
    "WHERE Amount__c > 5.5 AND (Name LIKE 'a%' OR Ok__c = true)",
    "SELECT COUNT() FROM Sale__c WHERE Day__c = LAST_N_DAYS:30 AND At__c < 2026-01-31T12:00:00+07:00",
    "SELECT Tenant__r.Name, SUM(Amount__c) s, COUNT(Id) FROM Sale__c GROUP BY Tenant__r.Name HAVING COUNT(Id) > 1 "
    "ORDER BY COUNT(Id) DESC NULLS LAST LIMIT 10 OFFSET 2",
    "SELECT Id, (SELECT Id, Name FROM Sales__r WHERE Tags__c INCLUDES ('A;B') ORDER BY Name LIMIT 2) FROM Tenant__c",
    "SELECT FIELDS(ALL) FROM Tenant__c WHERE Region__c IN (SELECT Id FROM Region__c WHERE Name != null) LIMIT 20",
    "SELECT Id FROM Sale__c WHERE Status__c NOT IN ('Open', null, 'it\\'s') AND NOT CALENDAR_YEAR(Day__c) = 2026",
    "SELECT Id FROM Sale__c WHERE Hour__c >= 12:00:00.000Z AND Tenant__c = 'a01000000000001' FOR UPDATE",
]
TOKENS = sorted({token for soql in GOOD for token in soql.replace("(", " ( ").replace(",", " , ").split()})
TOKENS += [
    "'x'",
    "''",
    "null",
    "-1",
    "1e999",
    "9999-12-31",
    "TODAY",
    "NEXT_N_YEARS:9999",
    "0001-01-01T00:00:00+14:00",
    "\\",
    "\x00",
]

SETTINGS = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def org() -> Iterator[TwinOrg]:
    with make_org() as org:
        yield org


def ask(org: TwinOrg, soql: str, *, bulk: bool = False) -> None:
    """Run a query to its end. Anything but a result or a SoqlError is a fault."""
    try:
        compiled = compile_query(soql, org.schema, bulk=bulk, now=NOW, user_id="005000000000001AAA")
    except SoqlError as error:
        json.dumps(error.body())
        return
    cursor = org.cursor()
    try:
        json.dumps(run(compiled, cursor, "66.0"))
        assert total_size(compiled, cursor) >= 0
    finally:
        cursor.close()


@pytest.mark.parametrize("soql", GOOD)
def test_the_queries_that_get_mutated_are_good(org: TwinOrg, soql: str) -> None:
    compile_query(soql, org.schema, now=NOW)
    ask(org, soql)


@SETTINGS
@given(soql=st.text(max_size=60))
@example(soql="\x00")
@example(soql="SELECT Id FROM Sale__c WHERE Name = '\ud800'")
@example(soql="SELECT Id FROM Sale__c WHERE Name = '\\ud800' OR Name LIKE '\\u0000%'")
@example(soql="ſELECT Id FROM Sale__c")
@example(soql="SELECT Id FROM Sale__c WHERE Count__c = ٣")
def test_any_text(org: TwinOrg, soql: str) -> None:
    ask(org, soql)


@SETTINGS
@given(tokens=st.lists(st.sampled_from(TOKENS), max_size=25))
def test_any_sequence_of_words(org: TwinOrg, tokens: list[str]) -> None:
    ask(org, "SELECT " + " ".join(tokens))


@SETTINGS
@given(data=st.data(), bulk=st.booleans())
def test_any_mutation_of_a_good_query(org: TwinOrg, data: st.DataObject, bulk: bool) -> None:
    soql = data.draw(st.sampled_from(GOOD))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(soql)))
        end = data.draw(st.integers(start, min(len(soql), start + 12)))
        put = data.draw(st.one_of(st.sampled_from(TOKENS), st.text(max_size=3)))
        soql = soql[:start] + put + soql[end:]
    ask(org, soql, bulk=bulk)


@SETTINGS
@given(
    operator=st.sampled_from(["=", "!=", "<", ">=", "LIKE"]),
    field=st.sampled_from(["Amount__c", "Rate__c", "Count__c", "Day__c", "At__c", "Hour__c", "Ok__c", "Name", "Id"]),
    value=st.one_of(
        st.floats().map(repr),
        st.decimals(allow_nan=False, allow_infinity=False).map(str),
        st.integers().map(str),
        st.dates().map(str),
        st.datetimes().map(lambda at: at.isoformat() + "Z"),
        st.sampled_from(["LAST", "NEXT"])
        .flatmap(
            lambda way: st.tuples(
                st.just(way), st.sampled_from(["DAYS", "WEEKS", "MONTHS", "QUARTERS", "YEARS"]), st.integers(0, 10**7)
            )
        )
        .map(lambda parts: f"{parts[0]}_N_{parts[1]}:{parts[2]}"),
    ),
)
def test_any_literal_against_any_field(org: TwinOrg, operator: str, field: str, value: str) -> None:
    ask(org, f"SELECT Id FROM Sale__c WHERE {field} {operator} {value}")


@SETTINGS
@given(value=st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=40))
@example(value="' OR Name != '")
@example(value="'; DROP TABLE data.Sale__c; --")
@example(value="\\' OR 1=1 --")
@example(value="a\x00b")
@example(value="%_\\")
def test_a_value_in_quotes_finds_itself_and_nothing_else(org: TwinOrg, value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    pattern = quoted.replace("%", "\\%").replace("_", "\\_")
    with org.store.write() as cursor:
        cursor.execute("UPDATE data.Region__c SET Code__c = ?", [value])
    cursor = org.cursor()
    try:
        for condition in (f"Code__c = '{quoted}'", f"Code__c IN ('x', '{quoted}')", f"Code__c LIKE '{pattern}'"):
            compiled = compile_query(f"SELECT COUNT() FROM Region__c WHERE {condition}", org.schema)
            assert total_size(compiled, cursor) == 1
            compiled = compile_query(f"SELECT COUNT() FROM Region__c WHERE NOT ({condition})", org.schema)
            assert total_size(compiled, cursor) == 0
    finally:
        cursor.close()
