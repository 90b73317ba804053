"""How a query with GROUP BY is cut into pages."""

from __future__ import annotations

from datetime import date

import pytest

from forcelift.errors import UsageError
from forcelift.protocols.org import FieldDescribe, ObjectDescribe
from forcelift.salesforce.grouped import is_grouped, parse_grouped


def describe(name: str) -> ObjectDescribe:
    fields = {
        "Thing__c": [
            FieldDescribe(name="Text__c", label="", type="string"),
            FieldDescribe(name="Pieces__c", label="", type="int"),
            FieldDescribe(name="Day__c", label="", type="date"),
            FieldDescribe(name="Status__c", label="", type="picklist"),
            FieldDescribe(
                name="Shop__c", label="", type="reference", reference_to=("Shop__c",), relationship_name="Shop__r"
            ),
        ],
        "Shop__c": [FieldDescribe(name="Code__c", label="", type="string")],
    }[name]
    return ObjectDescribe(name=name, label="", key_prefix=None, fields={field.name: field for field in fields})


def test_the_first_page_and_the_next() -> None:
    where = "(Text__c != 'x GROUP BY (' OR Day__c = null)"
    tail = "GROUP BY Text__c ORDER BY Text__c ASC NULLS FIRST LIMIT 2000"
    head = "SELECT Text__c, SUM(Pieces__c) n FROM Thing__c WHERE "
    query = parse_grouped(f"{head}{where[1:-1]} GROUP BY Text__c", describe)
    assert query.page(None) == f"{head}{where} {tail}"
    assert query.page(["it's \\"]) == f"{head}{where} AND ((Text__c > 'it\\'s \\\\')) {tail}"
    assert query.page([None]) == f"{head}{where} AND ((Text__c != null)) {tail}"


def test_several_keys_of_several_types() -> None:
    soql = (
        "select COUNT(Id), Day__c, pieces__c, Shop__r.Code__c from Thing__c group by Day__c, Pieces__c, Shop__r.Code__c"
    )
    query = parse_grouped(soql, describe)
    last = query.keys_of({"expr0": 4, "Day__c": "2024-02-29", "Pieces__c": 15, "Shop__r": {"Code__c": None}})
    assert last == [date(2024, 2, 29), 15, None]
    page = query.page(last)
    assert (
        "WHERE ((Day__c > 2024-02-29) OR (Day__c = 2024-02-29 AND Pieces__c > 15) OR"
        " (Day__c = 2024-02-29 AND Pieces__c = 15 AND Shop__r.Code__c != null)) GROUP BY"
    ) in page


@pytest.mark.parametrize(
    ("soql", "says"),
    [
        ("SELECT Text__c, COUNT(Id) FROM Thing__c GROUP BY Text__c ORDER BY Text__c", "it has ORDER BY"),
        ("SELECT Text__c, COUNT(Id) FROM Thing__c GROUP BY Text__c LIMIT 10", "it has LIMIT"),
        ("SELECT COUNT(Id) FROM Thing__c GROUP BY Text__c", "groups by `Text__c` and does not select it"),
        ("SELECT CALENDAR_YEAR(Day__c), COUNT(Id) FROM Thing__c GROUP BY CALENDAR_YEAR(Day__c)", "by a function"),
        ("SELECT Text__c, COUNT(Id) FROM Thing__c GROUP BY ROLLUP(Text__c)", "by a function"),
        ("SELECT Status__c, COUNT(Id) FROM Thing__c GROUP BY Status__c", "cannot be told by greater and less"),
        ("SELECT t.Text__c, COUNT(t.Id) FROM Thing__c t GROUP BY t.Text__c", "its object has an alias"),
        ("SELECT Gone__c, COUNT(Id) FROM Thing__c GROUP BY Gone__c", "`Gone__c` is no field"),
    ],
)
def test_what_cannot_be_paged_is_said(soql: str, says: str) -> None:
    assert is_grouped(soql)
    with pytest.raises(UsageError, match=says.replace("(", r"\(")):
        parse_grouped(soql, describe)


def test_words_in_texts_and_subqueries_are_no_clauses() -> None:
    assert not is_grouped("SELECT Id FROM Thing__c WHERE Text__c = 'x\\' GROUP BY y'")
    assert not is_grouped("SELECT Id FROM Thing__c WHERE Shop__c IN (SELECT Id FROM Shop__c GROUP BY Id)")
