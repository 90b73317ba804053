"""A small org with records in it, shared by the tests of SOQL and of query jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from forcelift.twin.clock import ManualClock
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema import Schema
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.soql import compile_query, run, total_size

NOW = datetime(2026, 2, 1, 10, 30, tzinfo=UTC)  # a Sunday

SCHEMA_DOCUMENT: dict[str, Any] = {
    "objects": {
        "Region__c": {"fields": {"Code__c": {"type": "string", "length": 10}}},
        "Tenant__c": {
            "fields": {
                "Code__c": {
                    "type": "string",
                    "length": 20,
                    "externalId": True,
                    "unique": True,
                    "caseSensitive": True,
                },
                "Region__c": {
                    "type": "reference",
                    "referenceTo": "Region__c",
                    "relationshipName": "Region__r",
                    "childRelationshipName": "Tenants__r",
                },
            }
        },
        "Sale__c": {
            "fields": {
                "Amount__c": {"type": "currency", "precision": 18, "scale": 2},
                "Rate__c": {"type": "double", "precision": 18, "scale": 6},
                "Count__c": {"type": "int"},
                "Day__c": {"type": "date"},
                "At__c": {"type": "datetime"},
                "Hour__c": {"type": "time"},
                "Ok__c": {"type": "boolean"},
                "Status__c": {"type": "picklist", "picklistValues": ["Open", "Closed"]},
                "Tags__c": {"type": "multipicklist", "picklistValues": ["A", "B", "C"]},
                "Notes__c": {"type": "textarea", "length": 32000},
                "Tenant__c": {
                    "type": "reference",
                    "referenceTo": "Tenant__c",
                    "relationshipName": "Tenant__r",
                    "childRelationshipName": "Sales__r",
                },
            }
        },
    },
}

REGION, NORTH, SOUTH = "a00000000000001AAA", "a01000000000001AAA", "a01000000000002AAA"
FIRST, SECOND, THIRD, DELETED = (f"a0200000000000{number}AAA" for number in range(1, 5))

_RECORDS = f"""
INSERT INTO data.Region__c BY NAME (SELECT '{REGION}' AS Id, 'Asia' AS Name, 'AS' AS Code__c, false AS IsDeleted);
INSERT INTO data.Tenant__c BY NAME SELECT * FROM (VALUES
    ('{NORTH}', 'North Mall', 'ab', '{REGION}', false), ('{SOUTH}', 'South Mall', 'AB', NULL, false)
) AS rows(Id, Name, Code__c, Region__c, IsDeleted);
INSERT INTO data.Sale__c BY NAME SELECT * FROM (VALUES
    ('{FIRST}', 'One', 912260031.00, 0.000125, 1, DATE '2026-01-31', TIMESTAMP '2026-01-31 12:00:00', TIME '12:30:00',
     true, 'Open', 'A;B', 'say "hi", all', '{NORTH}', false),
    ('{SECOND}', 'two_x', 500.00, -2.5, 2, DATE '2026-02-01', TIMESTAMP '2026-02-01 00:00:00', NULL,
     false, 'Closed', 'B', NULL, NULL, false),
    ('{THIRD}', 'Three%', NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, NULL, NULL, '{SOUTH}', false),
    ('{DELETED}', 'Gone', 7.00, 7, 7, DATE '2026-01-31', NULL, NULL, true, 'Open', NULL, NULL, '{NORTH}', true)
) AS rows(Id, Name, Amount__c, Rate__c, Count__c, Day__c, At__c, Hour__c, Ok__c, Status__c, Tags__c, Notes__c,
          Tenant__c, IsDeleted);
"""


def make_schema() -> Schema:
    return schema_from_dict(SCHEMA_DOCUMENT)


def make_org(path: Any = None) -> TwinOrg:
    """An org with two tenants and four sales, one of them in the recycle bin. Close it."""
    org = TwinOrg.open(path, schema=make_schema(), clock=ManualClock(NOW), seed=7)
    with org.store.write() as cursor:
        cursor.execute(_RECORDS)
    return org


def records(org: TwinOrg, soql: str, **options: Any) -> list[dict[str, Any]]:
    compiled = compile_query(soql, org.schema, now=org.clock.now(), **options)
    cursor = org.cursor()
    try:
        return run(compiled, cursor, "66.0")
    finally:
        cursor.close()


def names(org: TwinOrg, where: str, **options: Any) -> list[str]:
    """The names of the sales that a condition finds, sorted."""
    return sorted(record["Name"] for record in records(org, f"SELECT Name FROM Sale__c WHERE {where}", **options))


def count(org: TwinOrg, soql: str, **options: Any) -> int:
    compiled = compile_query(soql, org.schema, now=org.clock.now(), **options)
    cursor = org.cursor()
    try:
        return total_size(compiled, cursor)
    finally:
        cursor.close()
