"""Pages of REST queries: how many records, what comes after, and what cannot be continued."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from forcelift.twin.clock import ManualClock
from forcelift.twin.errors import ApiError
from forcelift.twin.org import TwinOrg
from forcelift.twin.rest import Page, QueryPages, page_rows_from
from forcelift.twin.rest_unit import WorkUnits
from forcelift.twin.schema_file import schema_from_dict

USER = "005000000000001AAA"
TEXT = {"type": "textarea", "length": 4000}
SCHEMA = {
    "objects": {
        "Parent__c": {"fields": {}},
        "Child__c": {
            "fields": {
                "Number__c": {"type": "int"},
                "Long1__c": TEXT,
                "Long2__c": TEXT,
                "Parent__c": {
                    "type": "reference",
                    "referenceTo": "Parent__c",
                    "relationshipName": "Parent__r",
                    "childRelationshipName": "Children__r",
                },
            }
        },
    }
}
CHILDREN = 2500


@pytest.fixture(scope="module")
def org() -> Iterator[TwinOrg]:
    with TwinOrg.open(None, schema=schema_from_dict(SCHEMA), clock=ManualClock()) as org:
        with org.store.write() as cursor:
            cursor.execute(
                "INSERT INTO data.Parent__c BY NAME (SELECT 'a0000000000000' || n AS Id, false AS IsDeleted "
                "FROM range(3) r(n))"
            )
            cursor.execute(
                "INSERT INTO data.Child__c BY NAME (SELECT 'a01' || lpad(n::VARCHAR, 12, '0') || 'AAA' AS Id, "
                f"n AS Number__c, 'a0000000000000' || (n // 2200) AS Parent__c, false AS IsDeleted "
                f"FROM range({CHILDREN}) r(n))"
            )
        yield org


@pytest.fixture
def pages(org: TwinOrg) -> Iterator[QueryPages]:
    made = QueryPages(org.schema, connect=org.cursor, now=org.clock.now)
    yield made
    made.close()


def first(pages: QueryPages, soql: str, page_rows: int = 2000) -> Page:
    compiled = pages.compile(soql, user_id=USER)
    return pages.first(compiled, user_id=USER, page_rows=page_rows, api_version="66.0")


def test_aggregates_fill_one_page_only(pages: QueryPages) -> None:
    grouped = "SELECT Number__c, COUNT(Id) FROM Child__c GROUP BY Number__c"
    with pytest.raises(ApiError) as caught:
        first(pages, grouped)
    assert (caught.value.http_status, caught.value.error_code) == (400, "EXCEEDED_ID_LIMIT")
    assert caught.value.message.startswith("Aggregate query does not support queryMore()")
    page = first(pages, grouped + " LIMIT 2000", page_rows=200)
    assert (page.total_size, len(page.records), page.next_locator) == (2000, 2000, None)
    assert first(pages, "SELECT COUNT() FROM Child__c").total_size == CHILDREN


def test_wide_rows_shrink_the_page(pages: QueryPages) -> None:
    assert len(first(pages, "SELECT Id, Long1__c FROM Child__c").records) == 2000
    wide = first(pages, "SELECT Id, Long1__c, Long2__c FROM Child__c")
    assert (len(wide.records), wide.total_size) == (200, CHILDREN)


def test_children_have_pages_of_their_own(pages: QueryPages) -> None:
    soql = "SELECT Id, (SELECT Number__c FROM Children__r ORDER BY Number__c) FROM Parent__c ORDER BY Id"
    many, few, none = first(pages, soql).records
    nested = many["Children__r"]
    assert (nested["totalSize"], nested["done"], len(nested["records"])) == (2200, False, 2000)
    assert (few["Children__r"]["done"], few["Children__r"]["totalSize"], none["Children__r"]) == (True, 300, None)
    locator = nested["nextRecordsUrl"].rpartition("/")[2]
    rest = pages.next(locator, user_id=USER, api_version="66.0")
    assert [record["Number__c"] for record in nested["records"] + rest.records] == list(range(2200))
    assert (rest.total_size, rest.next_locator) == (2200, None)
    with pytest.raises(ApiError):
        pages.next(locator, user_id="005000000000002AAA", api_version="66.0")


def test_a_query_of_many_pages_has_no_place_in_a_transaction(org: TwinOrg) -> None:
    # 501 is no answer of Salesforce: the twin says plainly what it does not carry out.
    units = WorkUnits(org.store)
    pages = QueryPages(org.schema, connect=units.connect, now=org.clock.now)
    with units.all_or_none():
        assert first(pages, "SELECT Id FROM Child__c LIMIT 5").total_size == 5
        with pytest.raises(ApiError) as caught:
            first(pages, "SELECT Id FROM Child__c")
    assert caught.value.http_status == 501
    assert first(pages, "SELECT Id FROM Child__c").total_size == CHILDREN


@pytest.mark.parametrize("offset", ["", "-1", "2500", "x", "9" * 5000, "٣", "1.5"])
def test_locators_that_are_none(pages: QueryPages, offset: str) -> None:
    locator = first(pages, "SELECT Id FROM Child__c").next_locator
    assert locator is not None
    name = locator.partition("-")[0]
    for wrong in (f"{name}-{offset}", f"01g000000000000AAA-{offset}"):
        with pytest.raises(ApiError) as caught:
            pages.next(wrong, user_id=USER, api_version="66.0")
        assert (caught.value.http_status, caught.value.error_code) == (400, "INVALID_QUERY_LOCATOR")


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        (None, 2000),
        ("batchSize=500", 500),
        ("BATCHSIZE = 1", 200),
        ("batchSize=99999999999999999999", 2000),
        ("batchSize=x", 2000),
        ("other=1, batchSize=300", 300),
    ],
)
def test_the_page_size_is_a_hint(header: str | None, rows: int) -> None:
    assert page_rows_from(header) == rows
