"""Random data and random queries: the twin answers what a plain Python model of SOQL says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.property.soql_model import (
    BY_NAME,
    RECORDS,
    STATES,
    TAGS,
    TODAY,
    Condition,
    Field,
    Order,
    Record,
    conditions,
    in_order,
    orders,
)

from forcelift.twin.clock import ManualClock
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.soql import compile_query, run, total_size

SETTINGS = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
NOON = ManualClock().now().replace(year=TODAY.year, month=TODAY.month, day=TODAY.day, hour=12)
SCHEMA: dict[str, Any] = {
    "objects": {
        "Tenant__c": {"fields": {}},
        "Sale__c": {
            "fields": {
                "Code__c": {"type": "string", "length": 20, "unique": True, "caseSensitive": True},
                "Status__c": {"type": "picklist", "values": STATES},
                "Tags__c": {"type": "multipicklist", "values": TAGS},
                "Amount__c": {"type": "currency", "precision": 18, "scale": 2},
                "Count__c": {"type": "int"},
                "Day__c": {"type": "date"},
                "At__c": {"type": "datetime"},
                "Ok__c": {"type": "boolean"},
                "Tenant__c": {
                    "type": "reference",
                    "referenceTo": "Tenant__c",
                    "relationshipName": "Tenant__r",
                    "childRelationshipName": "Sales__r",
                },
            }
        },
    }
}
PLAIN = ["Name", "Code__c", "Status__c", "Amount__c", "Count__c", "Day__c", "At__c", "Ok__c", "Tags__c"]


@pytest.fixture(scope="module")
def org() -> Iterator[TwinOrg]:
    with TwinOrg.open(None, schema=schema_from_dict(SCHEMA), clock=ManualClock(NOON)) as org:
        yield org


def store(org: TwinOrg, records: Sequence[Record]) -> list[Record]:
    """Put the records into the org in place of what is there; give them with their Ids."""
    tenants: dict[str | None, str] = {}
    made = []
    for number, record in enumerate(records):
        parent = record["Tenant__r"]
        tenant = None
        if parent is not None:
            tenant = tenants.setdefault(parent["Name"], f"a00{len(tenants):012}AAA")
        made.append({**record, "Id": f"a01{number:012}AAA", "Tenant__c": tenant})
    with org.store.write() as cursor:
        cursor.execute("DELETE FROM data.Sale__c")
        cursor.execute("DELETE FROM data.Tenant__c")
        for name, tenant in tenants.items():
            cursor.execute("INSERT INTO data.Tenant__c (Id, Name, IsDeleted) VALUES (?, ?, false)", [tenant, name])
        columns = ["Id", "Tenant__c", *PLAIN]
        cursor.executemany(
            f"INSERT INTO data.Sale__c ({', '.join(columns)}, IsDeleted) "
            f"VALUES ({', '.join('?' * len(columns))}, false)",
            [[record[column] for column in columns] for record in made],
        )
    return made


def ask(org: TwinOrg, soql: str, *, bulk: bool = False) -> list[Record]:
    cursor = org.cursor()
    try:
        return run(compile_query(soql, org.schema, now=NOON, bulk=bulk), cursor, "66.0")
    finally:
        cursor.close()


def count(org: TwinOrg, soql: str) -> int:
    cursor = org.cursor()
    try:
        return total_size(compile_query(soql, org.schema, now=NOON), cursor)
    finally:
        cursor.close()


@SETTINGS
@given(records=RECORDS, condition=conditions())
def test_conditions(org: TwinOrg, records: list[Record], condition: Condition) -> None:
    made = store(org, records)
    expected = {record["Id"] for record in made if condition.holds(record)}
    assert {record["Id"] for record in ask(org, f"SELECT Id FROM Sale__c WHERE {condition.soql}")} == expected
    assert count(org, f"SELECT COUNT() FROM Sale__c WHERE {condition.soql}") == len(expected)
    assert count(org, f"SELECT COUNT() FROM Sale__c WHERE NOT ({condition.soql})") == len(made) - len(expected)


@SETTINGS
@given(
    records=RECORDS,
    condition=conditions(),
    keys=orders(),
    limit=st.none() | st.integers(0, 10),
    offset=st.none() | st.integers(0, 5),
)
def test_order_limit_and_offset(
    org: TwinOrg, records: list[Record], condition: Condition, keys: list[Order], limit: int | None, offset: int | None
) -> None:
    made = store(org, records)
    expected = [record["Id"] for record in in_order([each for each in made if condition.holds(each)], keys)]
    soql = f"SELECT Id FROM Sale__c WHERE {condition.soql}"
    if not keys:
        assert sorted(record["Id"] for record in ask(org, soql)) == sorted(expected)
        return
    soql += f" ORDER BY {', '.join(key.soql for key in keys)}"
    soql += "" if limit is None else f" LIMIT {limit}"
    soql += "" if offset is None else f" OFFSET {offset}"
    start = offset or 0
    expected = expected[start : None if limit is None else start + limit]
    assert [record["Id"] for record in ask(org, soql)] == expected


def groups_of(records: Sequence[Record], by: Sequence[Field]) -> dict[tuple[Any, ...], list[Record]]:
    groups: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in records:
        groups[tuple(field.get(record) for field in by)].append(record)
    return groups


GROUPED = [BY_NAME[name] for name in ("Name", "Status__c", "Tenant__r.Name", "Count__c", "Day__c", "Ok__c")]


@SETTINGS
@given(
    records=RECORDS,
    condition=conditions(),
    by=st.lists(
        st.sampled_from(GROUPED), min_size=1, max_size=2, unique_by=lambda field: field.name.rpartition(".")[2]
    ),
    least=st.integers(0, 2),
)
def test_groups(org: TwinOrg, records: list[Record], condition: Condition, by: list[Field], least: int) -> None:
    made = [record for record in store(org, records) if condition.holds(record)]
    names = ", ".join(field.name for field in by)
    soql = (
        f"SELECT {names}, COUNT(Id), COUNT(Amount__c) filled, SUM(Amount__c) total, MIN(At__c), MAX(Count__c) most, "
        f"COUNT_DISTINCT(Code__c) codes FROM Sale__c WHERE {condition.soql} GROUP BY {names} HAVING COUNT(Id) > {least}"
    )
    found = {}
    for row in ask(org, soql):
        keys = tuple(row[field.name.rpartition(".")[2]] for field in by)
        found[keys] = (row["expr0"], row["filled"], row["total"], row["expr1"], row["most"], row["codes"])
    expected = {}
    for keys, members in groups_of(made, by).items():
        if len(members) <= least:
            continue
        amounts = [each["Amount__c"] for each in members if each["Amount__c"] is not None]
        moments = [each["At__c"] for each in members if each["At__c"] is not None]
        counts = [each["Count__c"] for each in members if each["Count__c"] is not None]
        codes = {each["Code__c"] for each in members if each["Code__c"] is not None}
        shown = tuple(str(key) if type(key) is type(TODAY) else key for key in keys)
        expected[shown] = (
            len(members),
            len(amounts),
            float(sum(amounts)) if amounts else None,
            f"{min(moments):%Y-%m-%dT%H:%M:%S}.000+0000" if moments else None,
            max(counts, default=None),
            len(codes),
        )
    assert found == expected


@SETTINGS
@given(records=RECORDS, condition=conditions(), negated=st.booleans())
def test_semi_joins_and_children(org: TwinOrg, records: list[Record], condition: Condition, negated: bool) -> None:
    made = store(org, records)
    inside = {record["Tenant__c"] for record in made if condition.holds(record)} - {None}
    tenants = {record["Tenant__c"] for record in made} - {None}
    soql = f"SELECT Id FROM Tenant__c WHERE Id {'NOT IN' if negated else 'IN'} "
    soql += f"(SELECT Tenant__c FROM Sale__c WHERE {condition.soql})"
    assert {record["Id"] for record in ask(org, soql)} == (tenants - inside if negated else inside)
    soql = f"SELECT Id, (SELECT Id FROM Sales__r WHERE {condition.soql} ORDER BY Id) FROM Tenant__c"
    found = {
        record["Id"]: [child["Id"] for child in (record["Sales__r"] or {"records": []})["records"]]
        for record in ask(org, soql)
    }
    expected = {
        tenant: [each["Id"] for each in made if each["Tenant__c"] == tenant and condition.holds(each)]
        for tenant in tenants
    }
    assert found == expected


@SETTINGS
@given(records=RECORDS, condition=conditions())
def test_bulk_and_rest_find_the_same(org: TwinOrg, records: list[Record], condition: Condition) -> None:
    store(org, records)
    soql = f"SELECT Id, Name, Tenant__r.Name FROM Sale__c WHERE {condition.soql} ORDER BY Id"
    assert ask(org, soql) == ask(org, soql, bulk=True)
