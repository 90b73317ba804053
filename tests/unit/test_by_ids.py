"""Which question is asked for records by their Ids: lists, a range, or one for all chunks of a table."""

from __future__ import annotations

import polars as pl
import pytest

from forcelift.after.rollback.links import condition_of_others, own_rows
from forcelift.after.rollback.scope import UndoNames, wave_of_file
from forcelift.after.rollback.states import is_fetched_once
from forcelift.jobs.by_ids import IN_LIST_MAX, LISTS_MAX, conditions, id_number, span

SIGNS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LETTERS_MAX = 100_000  # of a SOQL query


def made_id(number: int) -> str:
    """The Id of that place in an object, 18 letters long; its check letters tell nothing here."""
    text = ""
    for _ in range(9):
        number, digit = divmod(number, 62)
        text = SIGNS[digit] + text
    return f"a00000{text}AAA"


def ids(*numbers: int) -> pl.Series:
    return pl.Series("Id", [made_id(number) for number in numbers])


def test_ids_are_numbers_in_the_order_of_the_org() -> None:
    """The bounds are those that Salesforce's page on PK chunking gives for chunks of 250,000."""
    told = ["001300000000000", "00130000000132G", "00130000000264W", "00130000000396m"]
    assert [id_number(one) - id_number(told[0]) for one in told] == [0, 250_000, 500_000, 750_000]
    assert span(made_id(7), made_id(7)) == 1
    ordered = [made_id(number) for number in (0, 9, 10, 35, 36, 61, 62, 10**9)]
    assert ordered == sorted(ordered)


def test_few_ids_are_listed_and_many_close_ones_are_a_range() -> None:
    few = conditions("Id", ids(5, 3, 1_000_000))
    assert few == [f"Id IN ('{made_id(3)}', '{made_id(5)}', '{made_id(1_000_000)}')"]
    close = conditions("Tenant__c", ids(*range(IN_LIST_MAX + 1)))
    assert close == [f"Tenant__c >= '{made_id(0)}' AND Tenant__c <= '{made_id(IN_LIST_MAX)}'"]


@pytest.mark.parametrize("count", [IN_LIST_MAX, IN_LIST_MAX + 1, IN_LIST_MAX * LISTS_MAX])
def test_many_scattered_ids_are_lists_that_a_query_can_hold(count: int) -> None:
    scattered = ids(*range(0, count * 1000, 1000))
    asked = conditions("Id", scattered)
    assert len(asked) == -(-count // IN_LIST_MAX)
    assert all(len(one) < LETTERS_MAX / 2 for one in asked)
    named = [text.strip("' )") for one in asked for text in one.removeprefix("Id IN (").split(", ")]
    assert sorted(named) == scattered.to_list()


def test_very_many_scattered_ids_are_a_range_unless_lists_are_demanded() -> None:
    very_many = ids(*range(0, (IN_LIST_MAX * LISTS_MAX + 1) * 100, 100))
    assert len(conditions("Id", very_many)) == 1
    assert len(conditions("Id", very_many, in_lists=True)) == LISTS_MAX + 1


def test_a_table_is_fetched_once_where_its_chunks_would_fetch_it_again_and_again() -> None:
    def chunk(first: int, last: int, rows: int) -> tuple[str, str, int]:
        return made_id(first), made_id(last), rows

    beside_each_other = [chunk(number * 100_000, (number + 1) * 100_000 - 1, 100_000) for number in range(20)]
    assert not is_fetched_once(beside_each_other)
    all_over = [chunk(number, 2_000_000 - number, 100_000) for number in range(20)]
    assert is_fetched_once(all_over)
    few_of_very_many = [chunk(number, 500_000_000 - number, 5_000) for number in range(20)]
    assert not is_fetched_once(few_of_very_many)
    assert is_fetched_once([chunk(number, 500_000_000 - number, 5_000) for number in range(200)])
    assert not is_fetched_once([])


def test_rows_that_the_org_keeps_itself_are_no_children() -> None:
    for child in ("Sale__Share", "Sale__History", "Sale__ChangeEvent"):
        assert own_rows("Sale__c", child)
    assert own_rows("Account", "AccountShare")
    assert own_rows("Account", "AccountHistory")
    for child in ("Other__Share", "Sale__c", "History__c", "AccountHistoryNote__c", "Task"):
        assert not own_rows("Sale__c", child)
        assert not own_rows("Account", child)
    assert condition_of_others("Sale__c", "Sale__c") is None
    assert "TrackedChange" in (condition_of_others("Sale__c", "Sale__Feed") or "")


def test_a_file_tells_its_wave() -> None:
    names = UndoNames(folder="rollback/b.delete.w007.x/r0001", table="t", chunk_no=3)
    assert wave_of_file(names.part("delete", 1, wave=12)) == 12
    assert wave_of_file(names.part("delete", 1, 2, wave=0)) == 0
    assert wave_of_file(names.part("restore", 1)) is None
