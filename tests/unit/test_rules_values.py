"""Each rule of a column, with the default and every other value."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from tests.rules_support import describe_field, one_column, texts_of

from forcelift.errors import PlanError
from forcelift.protocols.source import ColumnKind
from forcelift.rules import canonical_from_org

TEXT = describe_field("V__c", "string", length=10)
LONG = describe_field("V__c", "textarea", length=1000)
AMOUNT = describe_field("V__c", "currency", precision=6, scale=2)
DAY = describe_field("V__c", "date")
MOMENT = describe_field("V__c", "datetime")
FLAG = describe_field("V__c", "boolean", nillable=False, defaulted_on_create=True)


def results(values: list[Any], field: Any, /, **rule: Any) -> list[str | None]:
    return texts_of(one_column(values, field, **rule), "V__c")


def changes(values: list[Any], field: Any, /, **rule: Any) -> dict[str, int]:
    return {name: count for (name, _), count in one_column(values, field, **rule).changes.items()}


def test_outer_blanks_are_trimmed_by_default_and_only_these() -> None:
    values = [" a", "a\t\r\n", "\x0ba\x0c", "a b", "\u00a0a", None]
    assert results(values, TEXT) == ["a", "a", "a", "a b", "\u00a0a", None]
    assert changes(values, TEXT) == {"outer_blanks": 3}


def test_outer_blanks_can_be_rejected() -> None:
    assert results([" a", "a"], TEXT, outer_blanks="reject") == ["REJECTED_OUTER_BLANKS", "a"]


@pytest.mark.parametrize(("unmapped", "expected"), [("reject", "REJECTED_UNMAPPED"), ("keep", "X"), ("to_null", None)])
def test_values_are_mapped_after_trimming(unmapped: str, expected: str | None) -> None:
    values = [" A ", "B", "X", "", None]
    mapped = {"A": "Active", "B": "Blocked"}
    assert results(values, TEXT, values=mapped, unmapped=unmapped) == ["Active", "Blocked", expected, None, None]


def test_map_keys_are_the_text_of_any_kind() -> None:
    assert results([1, 0, None], TEXT, kind=ColumnKind.INTEGER, values={"1": "yes", "0": "no"}) == ["yes", "no", None]
    assert results([True, False], TEXT, kind=ColumnKind.BOOLEAN, values={"true": "Y", "false": "N"}) == ["Y", "N"]
    assert results([Decimal("2.50")], TEXT, kind=ColumnKind.DECIMAL, values={"2.5": "x"}) == ["x"]


def test_a_map_may_name_the_blank_and_give_it_a_value() -> None:
    assert results(["  ", "", "A"], TEXT, values={"": "none", "A": "a"}) == ["none", "none", "a"]


def test_mapped_values_go_through_the_field_s_type() -> None:
    assert results(["one", "two"], AMOUNT, values={"one": "1.00", "two": "2"}) == ["1", "2"]


def test_empty_becomes_null_by_default_and_is_counted() -> None:
    assert results(["", "   ", None, "a"], TEXT) == [None, None, None, "a"]
    assert changes(["", "   ", None, "a"], TEXT) == {"empty": 2, "outer_blanks": 1}


def test_empty_takes_the_default_in_canonical_form() -> None:
    assert results(["", None, "a"], TEXT, empty={"default": " z "}) == ["z", "z", "a"]
    assert results([None, Decimal("1.5")], AMOUNT, kind=ColumnKind.DECIMAL, empty={"default": "0.00"}) == ["0", "1.5"]
    assert results([None], DAY, kind=ColumnKind.DATE, empty={"default": "2020-01-01"}) == ["2020-01-01"]
    assert results(["x", ""], TEXT, values={"x": ""}, empty={"default": "d"}) == ["d", "d"]


def test_empty_can_be_rejected() -> None:
    assert results(["", None, "a"], TEXT, empty="reject") == ["REJECTED_EMPTY", "REJECTED_EMPTY", "a"]


def test_a_required_field_left_empty_is_rejected() -> None:
    required = describe_field("V__c", "string", length=10, nillable=False)
    assert results(["", None, "a"], required) == ["REJECTED_EMPTY_REQUIRED", "REJECTED_EMPTY_REQUIRED", "a"]
    assert results([""], required, empty={"default": "x"}) == ["x"]


def test_a_rejected_value_is_not_reported_as_empty_too() -> None:
    required = describe_field("V__c", "date", nillable=False)
    cleaned = one_column(["2026-02-30"], required)
    assert cleaned.rows["code"].to_list() == ["REJECTED_INVALID_DATE"]
    assert "required" not in cleaned.rows["details"][0]


@pytest.mark.parametrize(("rule", "expected"), [("reject", "REJECTED_NA_TEXT"), ("to_null", None)])
def test_the_null_literal(rule: str, expected: str | None) -> None:
    values = ["#N/A", " #N/A ", "#n/a", "x #N/A"]
    assert results(values, TEXT, na_text=rule) == [expected, expected, "#n/a", "x #N/A"]


@pytest.mark.parametrize("hidden", ["\x00#N/A", "#N\x07/A", "\u009f #N/A"])
def test_the_null_literal_does_not_slip_through_other_rules(hidden: str) -> None:
    assert results([hidden], TEXT) == ["REJECTED_NA_TEXT"]
    assert results([hidden], TEXT, na_text="to_null") == [None]


def test_truncation_does_not_make_the_null_literal() -> None:
    four = describe_field("V__c", "string", length=4)
    assert results(["#N/A etc"], four, too_long="truncate") == ["REJECTED_NA_TEXT"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("remove", ["ab", "a\tb\nc", None, "ab"]), ("keep", ["a\x01b", "a\tb\nc", "\x7f", "ab"])],
)
def test_control_characters(rule: str, expected: list[str | None]) -> None:
    assert results(["a\x01b", "a\tb\nc", "\x7f", "a\x00b"], TEXT, control_characters=rule) == expected


def test_control_characters_can_be_rejected_and_tab_and_line_feed_are_none() -> None:
    values = ["a\x01b", "a\tb\nc", "a\x85b"]
    code = "REJECTED_CONTROL_CHARACTERS"
    assert results(values, TEXT, control_characters="reject") == [code, "a\tb\nc", code]


def test_zero_width_characters_stay_unless_told_otherwise() -> None:
    assert results(["a\u200bb", "\ufeff"], TEXT) == ["a\u200bb", "\ufeff"]
    assert results(["a\u200bb", "\ufeff"], TEXT, zero_width="remove") == ["ab", None]


def test_line_ends_are_folded_and_counted() -> None:
    assert results(["a\r\nb\rc\nd"], TEXT) == ["a\nb\nc\nd"]
    assert changes(["a\r\nb\rc\nd"], TEXT) == {"line_ends": 1}


def test_unicode_form_is_kept_or_composed() -> None:
    assert results(["e\u0301"], TEXT) == ["e\u0301"]
    assert results(["e\u0301", "\u0e14\u0e49\u0e38", "abc"], TEXT, unicode="nfc") == ["é", "\u0e14\u0e38\u0e49", "abc"]


def test_too_long_counts_utf16_units_after_folding() -> None:
    values = ["a" * 10, "a" * 11, "😀" * 5, "😀" * 6, "ก" * 10, "a\r\n" * 5 + "b"]
    expected = ["a" * 10, "REJECTED_TOO_LONG", "😀" * 5, "REJECTED_TOO_LONG", "ก" * 10, "REJECTED_TOO_LONG"]
    assert results(values, TEXT) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a" * 12, "a" * 10),
        ("123456789 x", "123456789"),
        ("12345678👍🏽", "12345678"),
        ("😀" * 6, "😀" * 5),
        ("123456789e\u0301", "123456789"),
        ("กกกกกกกกกด้\u0e38", "กกกกกกกกก"),
        ("12345🇹🇭🇹🇭", "12345🇹🇭"),
        ("123456\u1100\u1161\u11a8\u1100\u1161\u11a8", "123456\u1100\u1161\u11a8"),
        ("각각각각각각각각각각각", "각각각각각각각각각각"),
    ],
)
def test_truncation_cuts_between_grapheme_clusters(value: str, expected: str) -> None:
    assert results([value], TEXT, too_long="truncate") == [expected]


def test_a_cluster_that_fills_more_than_the_field_is_rejected() -> None:
    assert results(["e" + "\u0301" * 20], TEXT, too_long="truncate") == ["REJECTED_TOO_LONG"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("1.005"), "1.01"),
        (Decimal("-1.005"), "-1.01"),
        (Decimal("-0.004"), "0"),
        (Decimal("100.00"), "100"),
        (Decimal("9999.994999"), "9999.99"),
        (Decimal("9999.995"), "REJECTED_NUMBER_SIZE"),
        (Decimal("12345"), "REJECTED_NUMBER_SIZE"),
        (None, None),
    ],
)
def test_decimals_are_exact(value: Decimal | None, expected: str | None) -> None:
    assert results([value], AMOUNT, kind=ColumnKind.DECIMAL) == [expected]


def test_floats_go_by_their_shortest_decimal() -> None:
    values = [2.675, 1e3, -0.0, 1.5e-7, float("nan"), float("inf"), 1e300]
    invalid, size = "REJECTED_INVALID_NUMBER", "REJECTED_NUMBER_SIZE"
    assert results(values, AMOUNT, kind=ColumnKind.FLOAT) == ["2.68", "1000", "0", "0", invalid, invalid, size]


def test_numbers_in_text() -> None:
    values = ["1,5", "1.50", "+2", ".5", "1e2", "0x1", "٣", " 7 "]
    invalid = "REJECTED_INVALID_NUMBER"
    assert results(values, AMOUNT) == [invalid, "1.5", "2", "0.5", "100", invalid, invalid, "7"]
    assert changes(["1.005", "1.50"], AMOUNT) == {"rounded": 1}


def test_whole_number_fields_get_no_point() -> None:
    whole = describe_field("V__c", "int", digits=8)
    assert results([Decimal("250.000000")], whole, kind=ColumnKind.DECIMAL) == ["250"]
    assert results(["250.0", "123456789"], whole) == ["250", "REJECTED_NUMBER_SIZE"]


@pytest.mark.parametrize(("rule", "expected"), [("warn", "-1"), ("reject", "REJECTED_NEGATIVE"), ("keep", "-1")])
def test_negative(rule: str, expected: str) -> None:
    cleaned = one_column([-1, 0, 1], AMOUNT, kind=ColumnKind.INTEGER, negative=rule)
    assert texts_of(cleaned, "V__c") == [expected, "0", "1"]
    assert cleaned.changes == ({("warn_negative", "V"): 1} if rule == "warn" else {})
    assert cleaned.examples == ({("warn_negative", "V"): ("0",)} if rule == "warn" else {})


@pytest.mark.parametrize(("rule", "expected"), [("reject", "REJECTED_INVALID_DATE"), ("to_null", None)])
def test_invalid_dates(rule: str, expected: str | None) -> None:
    values = ["2026-02-30", "31/12/2020", "1699-12-31", "4001-01-01", "1700-01-01", "2024-02-29"]
    wanted = [expected] * 4 + ["1700-01-01", "2024-02-29"]
    assert results(values, DAY, invalid_date=rule, future_date="keep") == wanted


def test_dates_from_every_kind() -> None:
    assert results([date(4000, 12, 31)], DAY, kind=ColumnKind.DATE, future_date="keep") == ["4000-12-31"]
    assert results([datetime(2024, 1, 2, 23, 59)], DAY, kind=ColumnKind.TIMESTAMP) == ["2024-01-02"]
    instant = datetime(2024, 1, 2, 23, 59, tzinfo=UTC)
    assert results([instant], DAY, kind=ColumnKind.INSTANT, timezone="Asia/Bangkok") == ["2024-01-03"]
    assert results(["2024-01-02T05:00:00Z", "2024-01-02"], DAY) == ["2024-01-02", "2024-01-02"]
    assert results(["02/01/2024"], DAY, date_format="%d/%m/%Y") == ["2024-01-02"]
    assert results([20240102], DAY, kind=ColumnKind.INTEGER, date_format="%Y%m%d") == ["2024-01-02"]


def test_datetimes_are_utc_and_cut_to_the_second() -> None:
    naive = [datetime(2024, 1, 2, 6, 59, 59, 999_999), datetime(1960, 1, 1, 7, 0, 0, 500_000)]
    expected = ["2024-01-01T23:59:59Z", "1960-01-01T00:00:00Z"]
    assert results(naive, MOMENT, kind=ColumnKind.TIMESTAMP, timezone="Asia/Bangkok") == expected
    texts = [
        "2024-01-02T07:00:00.999+07:00",
        "2024-01-02 00:00:00Z",
        "2024-01-02",
        "2024-01-02T00:00",
        "2024-01-01 17:30-0630",
    ]
    assert results(texts, MOMENT, timezone="UTC") == ["2024-01-02T00:00:00Z"] * 5
    assert results([date(2024, 1, 2)], MOMENT, kind=ColumnKind.DATE, timezone="Asia/Bangkok") == [
        "2024-01-01T17:00:00Z"
    ]


def test_text_into_a_datetime_needs_a_zone_from_the_plan() -> None:
    """Whether every text has an offset of its own would be known only after the last row."""
    with pytest.raises(PlanError, match="times without a zone"):
        results(["2024-01-02T00:00:00Z"], MOMENT)
    texts = ["2024-01-02T00:00:00", "2024-01-02T00:00:00Z"]
    assert results(texts, MOMENT, timezone="Asia/Bangkok") == ["2024-01-01T17:00:00Z", "2024-01-02T00:00:00Z"]


def test_zone_gaps_are_invalid_and_folds_take_the_first_and_warn() -> None:
    values = [datetime(2013, 3, 10, 2, 30), datetime(2013, 11, 3, 1, 30), datetime(2013, 7, 1)]
    cleaned = one_column(values, MOMENT, kind=ColumnKind.TIMESTAMP, timezone="America/New_York")
    assert texts_of(cleaned, "V__c") == ["REJECTED_INVALID_DATE", "2013-11-03T05:30:00Z", "2013-07-01T04:00:00Z"]
    assert cleaned.changes == {("warn_ambiguous_time", "V"): 1}


def test_a_skipped_time_is_told_from_what_is_no_date() -> None:
    values = ["2013-03-10 02:30", "2013-02-30 02:30", "4001-01-01"]
    cleaned = one_column(values, MOMENT, timezone="America/New_York")
    assert texts_of(cleaned, "V__c") == ["REJECTED_INVALID_DATE"] * 3
    no_date = "V: is not a date that Salesforce can hold (1700-01-01 to 4000-12-31)"
    skipped = "V: is a clock time that its zone skips, as at the change to summer time"
    assert cleaned.rows["details"].to_list() == [skipped, no_date, no_date]
    emptied = one_column(values, MOMENT, timezone="America/New_York", invalid_date="to_null")
    assert emptied.changes == {("invalid_date", "V"): 3}


def test_zone_rules_hold_beyond_the_year_2099() -> None:
    """Clock changes of years for which polars has no table: gap, fold and both sides of each."""
    walls = ["3999-03-14 02:30", "3999-03-14 01:59", "3999-03-14 03:00", "3999-11-07 01:30", "3999-11-07 02:00"]
    cleaned = one_column(walls, MOMENT, timezone="America/New_York", future_date="keep")
    assert texts_of(cleaned, "V__c") == [
        "REJECTED_INVALID_DATE",
        "3999-03-14T06:59:00Z",
        "3999-03-14T07:00:00Z",
        "3999-11-07T05:30:00Z",
        "3999-11-07T07:00:00Z",
    ]
    assert cleaned.changes == {("warn_ambiguous_time", "V"): 1}


def test_the_range_of_datetimes_is_counted_in_utc() -> None:
    values = [datetime(1700, 1, 1), datetime(1700, 1, 2), datetime(4000, 12, 31, 23, 59, 59)]
    cleaned = one_column(values, MOMENT, kind=ColumnKind.TIMESTAMP, timezone="Asia/Bangkok", future_date="keep")
    assert cleaned.rows["code"].to_list() == ["REJECTED_INVALID_DATE", None, None]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("warn", "2567-03-04"),
        ("keep", "2567-03-04"),
        ("reject", "REJECTED_BUDDHIST_ERA"),
        ("convert", "2024-03-04"),
    ],
)
def test_buddhist_era(rule: str, expected: str) -> None:
    values = [date(2567, 3, 4), date(2399, 12, 31), date(2701, 1, 1)]
    options: dict[str, Any] = {"kind": ColumnKind.DATE, "buddhist_era": rule, "future_date": "keep"}
    cleaned = one_column(values, DAY, **options)
    assert texts_of(cleaned, "V__c") == [expected, "2399-12-31", "2701-01-01"]
    names = {"warn": {("warn_buddhist_era", "V"): 1}, "convert": {("buddhist_era", "V"): 1}}
    assert cleaned.changes == names.get(rule, {})


def test_buddhist_years_are_converted_before_the_future_is_looked_at() -> None:
    values = [date(2567, 3, 4), date(2600, 1, 1)]
    codes = results(values, DAY, kind=ColumnKind.DATE, buddhist_era="convert", future_date="reject")
    assert codes == ["2024-03-04", "REJECTED_FUTURE_DATE"]


def test_a_converted_day_that_does_not_exist_is_invalid() -> None:
    values = [date(2564, 2, 29)]
    options: dict[str, Any] = {"kind": ColumnKind.DATE, "buddhist_era": "convert"}
    assert results(values, DAY, **options) == ["REJECTED_INVALID_DATE"]
    assert results(values, DAY, invalid_date="to_null", **options) == [None]


def test_buddhist_datetimes_keep_their_wall_clock() -> None:
    options: dict[str, Any] = {"buddhist_era": "convert", "timezone": "Asia/Bangkok"}
    values = [datetime(2567, 1, 1, 3, 0), datetime(2024, 1, 1, 3, 0)]
    assert results(values, MOMENT, kind=ColumnKind.TIMESTAMP, **options) == ["2023-12-31T20:00:00Z"] * 2
    assert results(["2567-01-01T03:00:00+05:00"], MOMENT, **options) == ["2023-12-31T22:00:00Z"]
    instant = datetime(2566, 12, 31, 20, 0, tzinfo=UTC)
    assert results([instant], MOMENT, kind=ColumnKind.INSTANT, **options) == ["2023-12-31T20:00:00Z"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("warn", "2026-07-02"), ("keep", "2026-07-02"), ("reject", "REJECTED_FUTURE_DATE"), ("to_null", None)],
)
def test_future_dates_by_the_day_of_the_zone(rule: str, expected: str | None) -> None:
    values = [date(2026, 7, 1), date(2026, 7, 2)]  # it is 1 July in Bangkok when the batch begins
    options: dict[str, Any] = {"kind": ColumnKind.DATE, "timezone": "Asia/Bangkok", "future_date": rule}
    assert results(values, DAY, **options) == ["2026-07-01", expected]


def test_future_datetimes_by_the_instant() -> None:
    values = [datetime(2026, 7, 1, 1, 0, 0), datetime(2026, 7, 1, 1, 0, 1)]
    options: dict[str, Any] = {"kind": ColumnKind.TIMESTAMP, "timezone": "Asia/Bangkok", "future_date": "reject"}
    assert results(values, MOMENT, **options) == ["2026-06-30T18:00:00Z", "REJECTED_FUTURE_DATE"]


def test_booleans_in_many_spellings() -> None:
    values = ["TRUE", "f", "Yes", "n", "1", "0", "on", "off", "maybe", "", None]
    expected = ["true", "false", "true", "false", "true", "false", "true", "false"]
    assert results(values, FLAG) == [*expected, "REJECTED_INVALID_BOOLEAN", "false", "false"]
    assert results([1, 0, 2, None], FLAG, kind=ColumnKind.INTEGER) == [
        "true",
        "false",
        "REJECTED_INVALID_BOOLEAN",
        "false",
    ]
    assert changes([True, None], FLAG, kind=ColumnKind.BOOLEAN) == {"boolean_null": 1}
    assert results([None], FLAG, kind=ColumnKind.BOOLEAN, empty={"default": "yes"}) == ["true"]


def test_ids_become_18_characters() -> None:
    owner = describe_field("OwnerId", "reference", reference_to=("User",), relationship_name="Owner")
    cleaned = one_column(["0018c00002FInbo", "0018c00002FInboAAD", "x", None], owner)
    invalid = "REJECTED_INVALID_ID"
    assert texts_of(cleaned, "OwnerId") == ["0018c00002FInboAAD", "0018c00002FInboAAD", invalid, None]


def test_times_of_day() -> None:
    clock = describe_field("V__c", "time")
    assert results(["07:30", "23:59:59.1234Z", "24:00", "7:30"], clock) == [
        "07:30:00.000Z",
        "23:59:59.123Z",
        "REJECTED_INVALID_TIME",
        "REJECTED_INVALID_TIME",
    ]


@pytest.mark.parametrize(
    ("encoding", "raw"),
    [
        ("TIS-620", "ร้านกาแฟ".encode("tis-620")),
        ("windows-874", "ร้านกาแฟ".encode("cp874")),
        ("ISO-8859-11", "ร้านกาแฟ".encode("iso8859_11")),
        ("utf-8", "ร้านกาแฟ".encode()),
        ("utf-16-le", "ร้านกาแฟ".encode("utf-16-le")),
    ],
)
def test_bytes_are_decoded(encoding: str, raw: bytes) -> None:
    assert results([raw, b"", None, raw], LONG, encoding=encoding) == ["ร้านกาแฟ", None, None, "ร้านกาแฟ"]


@pytest.mark.parametrize("encoding", ["TIS-620", "utf-8"])
def test_bytes_that_the_encoding_lacks(encoding: str) -> None:
    values = [b"ok", b"a\xffb", b"a\x00c"]
    assert results(values, LONG, encoding=encoding) == ["ok", "REJECTED_ENCODING_ERROR", "ac"]
    replaced = one_column(values, LONG, encoding=encoding, encoding_error="replace")
    assert texts_of(replaced, "V__c") == ["ok", "a\ufffdb", "ac"]
    assert replaced.changes[("encoding_error", "V")] == 1


def test_text_fields_take_other_kinds_in_canonical_form() -> None:
    assert results([Decimal("1.500000"), None], TEXT, kind=ColumnKind.DECIMAL) == ["1.5", None]
    assert results([1e21, 0.1], LONG, kind=ColumnKind.FLOAT) == ["1000000000000000000000", "0.1"]
    assert results([True], TEXT, kind=ColumnKind.BOOLEAN) == ["true"]
    assert results([datetime(2024, 1, 2, 3, 4, 5, 600_000)], LONG, kind=ColumnKind.TIMESTAMP) == [
        "2024-01-02T03:04:05.6"
    ]
    assert results([datetime(2024, 1, 2, tzinfo=UTC)], LONG, kind=ColumnKind.INSTANT) == ["2024-01-02T00:00:00Z"]


def test_the_first_reason_is_the_code_and_all_stand_in_the_details_without_values() -> None:
    cleaned = one_column(["  secret" + "x" * 20 + "\x01"], TEXT, outer_blanks="reject", control_characters="reject")
    assert cleaned.rows.select("outcome", "code", "fields").row(0) == ("rejected", "REJECTED_OUTER_BLANKS", "V")
    details = cleaned.rows["details"][0]
    assert details.split("; ") == [
        "V: starts or ends with blanks",
        "V: holds control characters",
        "V: is longer than the field",
    ]
    assert "secret" not in details


def test_changes_of_rejected_rows_are_not_counted() -> None:
    cleaned = one_column([" " + "x" * 30, " y"], TEXT)
    assert cleaned.changes == {("outer_blanks", "V"): 1}


def test_an_empty_batch_is_fine() -> None:
    cleaned = one_column([], TEXT)
    assert cleaned.rows.height == 0
    assert cleaned.accepted.columns == ["row", "Key__c", "V__c"]
    assert cleaned.accepted.schema["V__c"] == pl.String


def test_a_leap_day_of_a_buddhist_year_is_valid_once_converted() -> None:
    """2567 is 2024 and has a 29 February, which 2567 itself has not; 2568 is 2025 and has none."""
    values = ["2567-02-29", "2568-02-29", "2567-02-30", "2024-02-29", "2023-02-29", "1957-02-29", None]
    bad = "REJECTED_INVALID_DATE"
    wanted = ["2024-02-29", bad, bad, "2024-02-29", bad, bad, None]
    assert results(values, DAY, buddhist_era="convert") == wanted
    assert changes(values, DAY, buddhist_era="convert") == {"buddhist_era": 1}
    assert results(values[:1], DAY) == [bad]
    assert results(values[1:2], DAY, buddhist_era="convert", invalid_date="to_null") == [None]


@pytest.mark.parametrize(
    ("text", "date_format"),
    [
        ("29/02/2567", "%d/%m/%Y"),
        ("29022567", "%d%m%Y"),
        ("2567.2.29", "%Y.%m.%d"),
        ("29 Feb 2567", "%d %b %Y"),
        ("2567-02-29", "%F"),
        ("(2567) 29|02", "(%Y) %d|%m"),
    ],
)
def test_buddhist_leap_days_in_any_format(text: str, date_format: str) -> None:
    options = {"buddhist_era": "convert", "date_format": date_format}
    assert results([text], DAY, **options) == ["2024-02-29"]
    assert changes([text], DAY, **options) == {"buddhist_era": 1}


def test_buddhist_leap_days_with_a_time() -> None:
    options: dict[str, Any] = {"buddhist_era": "convert", "timezone": "Asia/Bangkok"}
    values = ["2567-02-29T06:00:00", "2567-02-29 01:30:00+07:00", "2024-03-01", "2567-03-01T00:00:00Z"]
    assert results(values, MOMENT, **options) == [
        "2024-02-28T23:00:00Z",
        "2024-02-28T18:30:00Z",
        "2024-02-29T17:00:00Z",
        "2024-03-01T00:00:00Z",
    ]
    assert changes(values, MOMENT, **options) == {"buddhist_era": 3}
    options["date_format"] = "%d/%m/%Y %H:%M"
    assert results(["29/02/2567 06:00"], MOMENT, **options) == ["2024-02-28T23:00:00Z"]


STATUS = describe_field("V__c", "picklist", length=40, restricted_picklist=True, picklist_values=("Open", "ปิด"))


def test_a_restricted_picklist_takes_its_values_letter_for_letter() -> None:
    refused = "REJECTED_PICKLIST"
    assert results([" Open", "ปิด", "open", "Shut", None], STATUS) == ["Open", "ปิด", refused, refused, None]
    assert results(["x", "Open"], STATUS, values={"x": "ปิด"}, unmapped="keep") == ["ปิด", "Open"]
    free = describe_field("V__c", "picklist", length=40, picklist_values=("Open",))
    assert results(["Shut"], free) == ["Shut"]


def test_a_multipicklist_takes_several_joined_by_semicolons() -> None:
    several = describe_field(
        "V__c", "multipicklist", length=40, restricted_picklist=True, picklist_values=("A", "B", "C d")
    )
    refused = "REJECTED_PICKLIST"
    values = ["A", "A;C d", "B;X", "A;;B", "A; B", "a", None]
    assert results(values, several) == ["A", "A;C d", refused, refused, refused, refused, None]


def test_bytes_that_tis_620_lacks_are_no_control_characters() -> None:
    """Python reads C1 controls from 0x80 to 0x9F there, which the default rule would remove without a word."""
    from forcelift.rules.texts import decode

    values = pl.Series("x", ["ก".encode("tis-620"), b"\x80", b"a\x9fb", None], dtype=pl.Binary)
    text, broken = decode(values, "tis-620")
    assert text.to_list() == ["ก", "\ufffd", "a\ufffdb", None]
    assert broken.to_list() == [1, 2]


def test_values_of_a_multipicklist_have_one_order_on_both_sides() -> None:
    """The org answers in an order of its own; an order that was sent says nothing. See ADR 0027."""
    sent = ["c;a", "a;c", "b", "b;a;b", None, "ก;ข;a"]
    expected = ["a;c", "a;c", "b", "a;b", None, "a;ก;ข"]
    several = describe_field("V__c", "multipicklist", length=255)
    assert canonical_from_org(several, pl.Series(sent)).to_list() == expected
    assert results(sent, several) == expected
    assert results(sent, TEXT) == sent
    assert canonical_from_org(TEXT, pl.Series(sent)).to_list() == sent
