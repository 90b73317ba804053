"""SOQL is written so that no value can become code, and no query too long for a URL."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from forcelift.errors import UsageError
from forcelift.salesforce.ids import id18, is_id
from forcelift.salesforce.soql import encoded_length, identifier, literal, quoted, select, select_in


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (-0.5, "-0.5"),
        (1e22, "10000000000000000000000"),
        (Decimal("1.50"), "1.50"),
        (Decimal("1E+3"), "1000"),
        (date(2026, 1, 31), "2026-01-31"),
        (datetime(2026, 1, 31, 1, 2, 3, 999, tzinfo=UTC), "2026-01-31T01:02:03Z"),
        (datetime(2026, 1, 31, 1, 2, 3, tzinfo=timezone(timedelta(hours=7))), "2026-01-30T18:02:03Z"),
        (datetime(1700, 1, 1, tzinfo=UTC), "1700-01-01T00:00:00Z"),
        ("plain", "'plain'"),
        ('O\'Neil \\ "x"', "'O\\'Neil \\\\ \\\"x\\\"'"),
        ("a\nb\tc\rd\x00e", "'a\\nb\\tc\\rd\\u0000e'"),
        ("สวัสดี", "'สวัสดี'"),
        ("' OR Name != '", "'\\' OR Name != \\''"),
    ],
)
def test_literals(value: Any, text: str) -> None:
    assert literal(value) == text


@pytest.mark.parametrize("value", [float("nan"), Decimal("Infinity"), datetime(2026, 1, 1)])
def test_values_without_a_literal(value: Any) -> None:
    with pytest.raises(UsageError):
        literal(value)


@pytest.mark.parametrize("name", ["Name", "Ext_Id__c", "Tenant__r.Code__c", "ns__A__r.ns__B__c"])
def test_names(name: str) -> None:
    assert identifier(name) == name


@pytest.mark.parametrize("name", ["", "Name ", "1a", "a..b", "Name FROM User", "Name'", "a.b.", "ชื่อ", "a\n", "a/b"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(UsageError):
        identifier(name)


def test_select() -> None:
    assert select("Account", ["Id", "Owner.Name"]) == "SELECT Id, Owner.Name FROM Account"
    assert select("Account", ["Id"], where="A = 1") == "SELECT Id FROM Account WHERE A = 1"
    (query,) = select_in("Account", ["Id"], field="Ext__c", values=["a", "b'"], where="A = 1 OR B = 2")
    assert query == "SELECT Id FROM Account WHERE (A = 1 OR B = 2) AND Ext__c IN ('a','b\\'')"
    assert list(select_in("Account", ["Id"], field="Ext__c", values=[])) == []


def test_long_lists_are_cut_below_the_length_of_a_url() -> None:
    values = [f"กุญแจ {number:06}" for number in range(5000)]
    queries = list(select_in("KPS_Sales__c", ["Id", "External_ID__c"], field="External_ID__c", values=values))
    assert all(encoded_length(query) < 16_000 - 500 for query in queries)
    assert sum(query.count("กุญแจ") for query in queries) == 5000
    assert encoded_length(queries[0]) > 15_000, "queries should be as long as they may be"


def test_a_value_that_is_too_long_alone() -> None:
    with pytest.raises(UsageError, match="too long for a query"):
        list(select_in("Account", ["Id"], field="Name", values=["ก" * 4000]))


def test_quoting_leaves_no_free_quote() -> None:
    inner = quoted("\\' OR ''=''")[1:-1]
    assert inner.replace("\\\\", "").replace("\\'", "").count("'") == 0


def test_ids() -> None:
    assert id18("0018c00002FInbo") == "0018c00002FInboAAD"
    assert id18("0018c00002FInboAAD") == "0018c00002FInboAAD"
    assert id18("012000000000000") == "012000000000000AAA"
    assert is_id("0018c00002FInbo")
    assert not any(map(is_id, ["", "0018c00002FInb", "0018c00002FInboAA", "0018c00002FInb/", "0018c00002FInboAAD\n"]))
