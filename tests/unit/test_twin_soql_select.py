"""What queries answer: records, parents, children, counts, groups, order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.unit.twin_soql_org import FIRST, NORTH, REGION, SECOND, SOUTH, THIRD, count, make_org, records

from forcelift.twin.org import TwinOrg
from forcelift.twin.soql import compile_query, render_records

URL = "/services/data/v66.0/sobjects"


@pytest.fixture(scope="module")
def org() -> Iterator[TwinOrg]:
    with make_org() as org:
        yield org


def test_record_has_attributes_schema_names_and_json_values(org: TwinOrg) -> None:
    soql = """SELECT id, NAME, amount__c, rate__c, count__c, day__c, at__c, hour__c, ok__c, tags__c, notes__c
              FROM sale__c WHERE Name = 'One'"""
    assert records(org, soql) == [
        {
            "attributes": {"type": "Sale__c", "url": f"{URL}/Sale__c/{FIRST}"},
            "Id": FIRST,
            "Name": "One",
            "Amount__c": 912260031.0,
            "Rate__c": 0.000125,
            "Count__c": 1,
            "Day__c": "2026-01-31",
            "At__c": "2026-01-31T12:00:00.000+0000",
            "Hour__c": "12:30:00.000Z",
            "Ok__c": True,
            "Tags__c": "A;B",
            "Notes__c": 'say "hi", all',
        }
    ]
    nulls = records(org, "SELECT Amount__c, Day__c, At__c, Hour__c, Notes__c FROM Sale__c WHERE Name = 'Three%'")[0]
    assert [value for key, value in nulls.items() if key != "attributes"] == [None] * 5


def test_parents_nest_and_a_missing_one_is_null(org: TwinOrg) -> None:
    soql = "SELECT Tenant__r.Name, Name, Tenant__r.Region__r.Code__c FROM Sale__c ORDER BY Name"
    first, third, second = records(org, soql)
    region = {"attributes": {"type": "Region__c", "url": f"{URL}/Region__c/{REGION}"}, "Code__c": "AS"}
    assert first["Tenant__r"] == {
        "attributes": {"type": "Tenant__c", "url": f"{URL}/Tenant__c/{NORTH}"},
        "Name": "North Mall",
        "Region__r": region,
    }
    assert list(first) == ["attributes", "Tenant__r", "Name"]
    assert third["Tenant__r"]["Region__r"] is None
    assert second["Tenant__r"] is None


def test_alias_and_object_name_may_stand_before_a_field(org: TwinOrg) -> None:
    soql = "SELECT s.Name, Sale__c.Count__c, s.Tenant__r.Name FROM Sale__c s WHERE s.Count__c = 1"
    assert records(org, soql)[0]["Name"] == "One"


def test_children_are_results_of_their_own(org: TwinOrg) -> None:
    soql = """SELECT Name, (SELECT Name, Tenant__r.Code__c FROM Sales__r ORDER BY Name DESC LIMIT 1)
              FROM Tenant__c ORDER BY Name"""
    north, south = records(org, soql)
    assert north["Sales__r"]["totalSize"] == 1
    assert north["Sales__r"]["done"] is True
    assert north["Sales__r"]["records"][0]["Name"] == "One"
    assert north["Sales__r"]["records"][0]["Tenant__r"]["Code__c"] == "ab"
    assert south["Sales__r"]["records"][0]["attributes"]["url"] == f"{URL}/Sale__c/{THIRD}"
    region = records(org, "SELECT Id, (SELECT Id FROM Tenants__r WHERE Name = 'nobody') FROM Region__c")[0]
    assert region["Tenants__r"] is None
    both = records(org, "SELECT Id, (SELECT Id FROM Sales__r) FROM Tenant__c ORDER BY Id", include_deleted=True)
    assert [len(record["Sales__r"]["records"]) for record in both] == [2, 1]


def test_count_is_the_total_size_and_has_no_records(org: TwinOrg) -> None:
    assert count(org, "SELECT COUNT() FROM Sale__c") == 3
    assert count(org, "SELECT COUNT() FROM Sale__c", include_deleted=True) == 4
    assert count(org, "select count() from sale__c where Tenant__r.Name like 'north%'") == 1
    assert count(org, "SELECT COUNT() FROM Sale__c LIMIT 2") == 2
    assert records(org, "SELECT COUNT() FROM Sale__c") == []


def test_aggregates_without_alias_are_expr0_and_on(org: TwinOrg) -> None:
    soql = """SELECT COUNT(Id), SUM(Amount__c) total, AVG(Count__c), MAX(Day__c), MIN(Name), COUNT(Status__c),
              COUNT_DISTINCT(Tenant__c), MAX(At__c) latest FROM Sale__c"""
    assert records(org, soql) == [
        {
            "attributes": {"type": "AggregateResult"},
            "expr0": 3,
            "total": 912260531.0,
            "expr1": 1.5,
            "expr2": "2026-02-01",
            "expr3": "One",
            "expr4": 2,
            "expr5": 2,
            "latest": "2026-02-01T00:00:00.000+0000",
        }
    ]
    assert count(org, soql) == 1


def test_groups_keep_their_names(org: TwinOrg) -> None:
    soql = """SELECT Tenant__r.Name, COUNT(Id) FROM Sale__c GROUP BY Tenant__r.Name
              HAVING COUNT(Id) > 0 ORDER BY Tenant__r.Name DESC NULLS LAST"""
    rows = [(row["Name"], row["expr0"]) for row in records(org, soql)]
    assert rows == [("South Mall", 1), ("North Mall", 1), (None, 1)]
    soql = """SELECT CALENDAR_YEAR(Day__c) y, SUM(Count__c) FROM Sale__c
              GROUP BY CALENDAR_YEAR(Day__c) HAVING SUM(Count__c) >= 3"""
    assert [(row["y"], row["expr0"]) for row in records(org, soql)] == [(2026, 3.0)]
    assert (
        records(org, "SELECT Status__c FROM Sale__c GROUP BY Status__c HAVING Status__c = 'OPEN'")[0]["Status__c"]
        == "Open"
    )


@pytest.mark.parametrize(
    ("order", "ids"),
    [
        ("Amount__c", [THIRD, SECOND, FIRST]),
        ("Amount__c NULLS LAST", [SECOND, FIRST, THIRD]),
        ("Amount__c DESC", [THIRD, FIRST, SECOND]),
        ("Amount__c DESC NULLS LAST", [FIRST, SECOND, THIRD]),
        ("Name", [FIRST, THIRD, SECOND]),
        ("Ok__c, Name DESC", [SECOND, THIRD, FIRST]),
        ("Tenant__r.Name NULLS LAST", [FIRST, THIRD, SECOND]),
        ("Name LIMIT 1 OFFSET 1", [THIRD]),
        ("Name LIMIT 0", []),
        ("Name LIMIT 2 FOR VIEW", [FIRST, THIRD]),
    ],
)
def test_order_puts_nulls_first_and_ignores_case(org: TwinOrg, order: str, ids: list[str]) -> None:
    assert [record["Id"] for record in records(org, f"SELECT Id FROM Sale__c ORDER BY {order}")] == ids


def test_fields_functions_select_groups_of_fields(org: TwinOrg) -> None:
    standard = records(org, "SELECT FIELDS(STANDARD) FROM Tenant__c")[0]
    assert {"Id", "Name", "IsDeleted"} <= set(standard)
    assert not any(key.endswith("__c") for key in standard)
    custom = records(org, "SELECT FIELDS(custom), Id FROM Tenant__c LIMIT 200")[0]
    assert set(custom) == {"attributes", "Code__c", "Region__c", "Id"}
    every = records(org, "SELECT FIELDS(ALL) FROM Tenant__c LIMIT 1")[0]
    assert set(every) == set(standard) | set(custom)


def test_arrow_rows_render_like_tuples(org: TwinOrg) -> None:
    compiled = compile_query("SELECT Id, (SELECT Id FROM Sales__r) FROM Tenant__c ORDER BY Id", org.schema)
    cursor = org.cursor()
    try:
        table = cursor.sql(compiled.sql).to_arrow_table()
        tuples = cursor.execute(compiled.sql).fetchall()
    finally:
        cursor.close()
    assert render_records(compiled, table, "66.0") == render_records(compiled, tuples, "66.0")
    assert [record["Id"] for record in render_records(compiled, tuples, "66.0")] == [NORTH, SOUTH]


def test_output_columns_describe_the_csv(org: TwinOrg) -> None:
    compiled = compile_query("select tenant__r.name, id FROM sale__c", org.schema, bulk=True)
    assert [column.name for column in compiled.columns] == ["Tenant__r.Name", "Id"]
    assert (compiled.object_name, compiled.is_count, compiled.is_aggregate) == ("Sale__c", False, False)
    assert not compiled.params
