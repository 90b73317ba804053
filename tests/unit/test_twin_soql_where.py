"""What conditions find: null, case, ids, lists, patterns, dates."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.unit.twin_soql_org import NORTH, make_org, names, records

from forcelift.twin.org import TwinOrg


@pytest.fixture(scope="module")
def org() -> Iterator[TwinOrg]:
    with make_org() as org:
        yield org


ONE, TWO, THREE = "One", "two_x", "Three%"


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("Name = 'ONE'", [ONE]),
        ("name != 'one'", [THREE, TWO]),
        ("Status__c != 'open'", [THREE, TWO]),
        ("Status__c <> 'Open' AND Status__c != null", [TWO]),
        ("Status__c = null", [THREE]),
        ("Status__c = ''", [THREE]),
        ("Status__c IN ('OPEN', null)", [ONE, THREE]),
        ("Status__c NOT IN ('open')", [THREE, TWO]),
        ("Status__c NOT IN ('open', null)", [TWO]),
        ("NOT Status__c = 'open'", [THREE, TWO]),
        ("NOT (Amount__c > 600 OR Count__c = 2)", [THREE]),
        ("NOT NOT Amount__c > 600", [ONE]),
        ("Amount__c > null", []),
        ("Amount__c = 912260031", [ONE]),
        ("Amount__c = 9.12260031E8", [ONE]),
        ("Amount__c >= 500.001", [ONE]),
        ("Amount__c < 1e300", [ONE, TWO]),
        ("Rate__c = -2.5", [TWO]),
        ("Rate__c IN (0.000125, 12345678901234567890.5)", [ONE]),
        ("Count__c = 1.0", [ONE]),
        ("Count__c > 1.5", [TWO]),
        ("Ok__c = TRUE", [ONE]),
        ("Ok__c != true", [THREE, TWO]),
        ("Name LIKE 't%'", [THREE, TWO]),
        ("Name LIKE 'T_o__'", [TWO]),
        ("Name LIKE '%\\_x'", [TWO]),
        ("Name LIKE '%\\%'", [THREE]),
        ("NOT Name LIKE 't%'", [ONE]),
        ("Status__c LIKE null", [THREE]),
        ("Name > 'P'", [THREE, TWO]),
        ("Tags__c INCLUDES ('b')", [ONE, TWO]),
        ("Tags__c INCLUDES ('A;B', 'C')", [ONE]),
        ("Tags__c EXCLUDES ('A')", [THREE, TWO]),
        ("Tags__c = 'A;B'", [ONE]),
        ("Tenant__c = 'a01000000000001'", [ONE]),
        (f"Tenant__c != '{NORTH}'", [THREE, TWO]),
        ("Tenant__r.Code__c = 'ab'", [ONE]),
        ("Tenant__r.Code__c = 'AB'", [THREE]),
        ("tenant__r.region__r.code__c = 'as'", [ONE]),
        ("Tenant__r.Region__c = null", [THREE, TWO]),
        ("Tenant__c IN (SELECT Id FROM Tenant__c WHERE Name LIKE 'north%')", [ONE]),
        ("Tenant__c NOT IN (SELECT Id FROM Tenant__c WHERE Name LIKE 'north%')", [THREE, TWO]),
        ("Id IN (SELECT Region__c FROM Tenant__c)", []),
        ("Hour__c = 12:30:00Z", [ONE]),
        ("CALENDAR_MONTH(Day__c) = 1", [ONE]),
        ("DAY_IN_WEEK(Day__c) = 1", [TWO]),
        ("DAY_ONLY(At__c) = 2026-01-31", [ONE]),
        ("DAY_ONLY(convertTimezone(At__c)) = TODAY", [TWO]),
        ("HOUR_IN_DAY(At__c) IN (12, 13)", [ONE]),
    ],
)
def test_condition_finds(org: TwinOrg, where: str, found: list[str]) -> None:
    assert names(org, where) == sorted(found)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("Day__c = TODAY", [TWO]),
        ("Day__c < TODAY", [ONE]),
        ("Day__c <= today", [ONE, TWO]),
        ("Day__c > YESTERDAY", [TWO]),
        ("Day__c >= YESTERDAY", [ONE, TWO]),
        ("Day__c != YESTERDAY", [THREE, TWO]),
        ("Day__c = LAST_N_DAYS:1", [ONE, TWO]),
        ("Day__c = LAST_MONTH", [ONE]),
        ("Day__c IN (LAST_WEEK, 2026-02-01)", [ONE, TWO]),
        ("Day__c NOT IN (THIS_WEEK)", [ONE, THREE]),
        ("Day__c = 2026-01-31", [ONE]),
        ("At__c = TODAY", [TWO]),
        ("At__c = YESTERDAY", [ONE]),
        ("At__c = THIS_YEAR", [ONE, TWO]),
        ("At__c = 2026-01-31T12:00:00Z", [ONE]),
        ("At__c = 2026-01-31T19:00:00+07:00", [ONE]),
        ("At__c = 2026-01-31T07:00:00.000-0500", [ONE]),
        ("At__c > 2026-01-31T12:00:00.001Z", [TWO]),
    ],
)
def test_dates_are_days_of_utc(org: TwinOrg, where: str, found: list[str]) -> None:
    assert names(org, where) == sorted(found)


def test_deleted_records_show_only_when_asked_for(org: TwinOrg) -> None:
    assert "Gone" not in names(org, "Ok__c = true")
    assert names(org, "Ok__c = true", include_deleted=True) == ["Gone", ONE]
    assert names(org, "IsDeleted = true", include_deleted=True) == ["Gone"]


def test_a_deleted_record_is_no_match_of_a_semi_join(org: TwinOrg) -> None:
    with org.store.write() as cursor:
        cursor.execute("UPDATE data.Tenant__c SET IsDeleted = true WHERE Id = ?", [NORTH])
    try:
        assert names(org, "Tenant__c IN (SELECT Id FROM Tenant__c)") == [THREE]
        assert names(org, "Tenant__c IN (SELECT Id FROM Tenant__c)", include_deleted=True) == ["Gone", ONE, THREE]
    finally:
        with org.store.write() as cursor:
            cursor.execute("UPDATE data.Tenant__c SET IsDeleted = false WHERE Id = ?", [NORTH])


def test_string_escapes(org: TwinOrg) -> None:
    texts = {"\\'": "'", "\\\\": "\\", "\\n": "\n", "\\r": "\r", "\\t": "\t", "\\b": "\b", "\\f": "\f", '\\"': '"'}
    texts |= {"\\u0e01": "ก", "\\_": "_", "\\%": "%", "'' OR 1=1 --".replace("'", "\\'"): "'' OR 1=1 --"}
    for written, meant in texts.items():
        with org.store.write() as cursor:
            cursor.execute("UPDATE data.Region__c SET Code__c = ?", [f"a{meant}b"])
        soql = f"SELECT Code__c FROM Region__c WHERE Code__c = 'A{written}B'"
        assert [record["Code__c"] for record in records(org, soql)] == [f"a{meant}b"]
    with org.store.write() as cursor:
        cursor.execute("UPDATE data.Region__c SET Code__c = 'AS'")


def test_scope_mine_means_the_owner(org: TwinOrg) -> None:
    soql = "SELECT Name FROM Sale__c USING SCOPE Mine"
    assert records(org, soql, user_id="005000000000001AAA") == []
    assert len(records(org, "SELECT Name FROM Sale__c USING SCOPE everything")) == 3
