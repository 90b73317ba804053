"""Canonical form against independent computations, and from both sides: the source's values and the org's answer."""

from __future__ import annotations

import unicodedata
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rules_support import describe_field, one_column, texts_of

from forcelift.plan.zones import codec_name
from forcelift.protocols.source import ColumnKind
from forcelift.rules import canonical_from_org, texts
from forcelift.rules.numbers import number_text, typed_number_text

EXACT = Context(prec=2000)
BATCH = settings(max_examples=40, deadline=None)


def reference_number(text: str, scale: int | None) -> str:
    """Python's decimal, rounded half away from zero and written plainly."""
    value = EXACT.create_decimal(text)
    if scale is not None:
        value = value.quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP, EXACT)
    plain = format(value, "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in ("-0", "", "-") else plain


def java_double(value: float) -> str:
    """What Java's Double.toString prints, as bulk results show it (912260031 comes back as 9.12260031E8)."""
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return format(Decimal(repr(value)), "f") if "." in format(Decimal(repr(value)), "f") else f"{value:.1f}"
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    assert isinstance(exponent, int)
    stripped = "".join(map(str, digits)).rstrip("0") or "0"
    power = exponent + len(digits) - 1
    return f"{'-' if sign else ''}{stripped[0]}.{stripped[1:] or '0'}E{power}"


plain_numbers = (
    st.decimals(allow_nan=False, allow_infinity=False, places=None)
    .map(str)
    .filter(lambda text: abs(int(text.lower().partition("e")[2] or 0)) < 300)
)
digit_texts = st.builds(
    lambda sign, whole, fraction, power: sign + whole + fraction + power,
    st.sampled_from(["", "-", "+"]),
    st.text("0123456789", min_size=1, max_size=40) | st.text("9", min_size=1, max_size=30),
    st.just("") | st.text("0459", max_size=30).map(lambda text: f".{text}"),
    st.just("") | st.integers(-60, 60).map(lambda power: f"e{power}") | st.integers(0, 9).map(lambda n: f"E+00{n}"),
)


@BATCH
@given(st.lists(plain_numbers | digit_texts, min_size=1, max_size=60), st.none() | st.integers(0, 18))
def test_numbers_equal_python_s_decimal(numbers: list[str], scale: int | None) -> None:
    expected = [reference_number(number, scale) for number in numbers]
    assert number_text(pl.Series(numbers), scale=scale).to_list() == expected


@BATCH
@given(
    st.lists(st.integers(-(10**38) + 1, 10**38 - 1), min_size=1, max_size=40), st.integers(0, 18), st.integers(0, 18)
)
def test_decimals_of_38_digits_are_exact(units: list[int], places: int, scale: int) -> None:
    values = [Decimal(unit).scaleb(-places, EXACT) for unit in units]
    column = pl.Series(values, dtype=pl.Decimal(38, places))
    exact = typed_number_text(column, scale=None)
    assert exact.to_list() == [reference_number(str(value), None) for value in values]
    assert number_text(exact, scale=scale).to_list() == [reference_number(str(value), scale) for value in values]


@BATCH
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=60), st.integers(0, 18))
def test_floats_go_by_their_shortest_decimal(values: list[float], scale: int) -> None:
    expected = [reference_number(repr(value), scale) for value in values]
    assert typed_number_text(pl.Series(values, dtype=pl.Float64), scale=scale).to_list() == expected


@BATCH
@given(st.lists(st.integers(-(10**15) + 1, 10**15 - 1), min_size=1, max_size=40), st.integers(0, 9))
def test_numbers_are_the_same_from_source_and_org(units: list[int], scale: int) -> None:
    """Up to 15 digits a double keeps them, so what the org prints must lead back to what was sent."""
    field = describe_field("V__c", "double", precision=18, scale=scale)
    values = [Decimal(unit).scaleb(-scale) for unit in units]
    sent = texts_of(one_column(values, field, kind=ColumnKind.DECIMAL, dtype=pl.Decimal(38, scale)), "V__c")
    kept = [(value, text) for value, text in zip(values, sent, strict=True) if text != "REJECTED_NUMBER_SIZE"]
    stored = pl.Series([java_double(float(value)) for value, _ in kept], dtype=pl.String)
    assert canonical_from_org(field, stored).to_list() == [text for _, text in kept]


@pytest.mark.parametrize(
    ("printed", "expected"),
    [("9.12260031E8", "912260031"), ("500.0", "500"), ("-0.0", "0"), ("1.5E-4", "0"), ("", None), (None, None)],
)
def test_doubles_as_the_org_prints_them(printed: str | None, expected: str | None) -> None:
    field = describe_field("V__c", "currency", precision=18, scale=2)
    assert canonical_from_org(field, pl.Series([printed], dtype=pl.String)).to_list() == [expected]


moments = st.datetimes(datetime(1700, 1, 2), datetime(4000, 12, 30))


@BATCH
@given(st.lists(moments, min_size=1, max_size=20), st.sampled_from(["Asia/Bangkok", "America/New_York", "UTC"]))
def test_datetimes_are_the_same_from_source_and_org(values: list[datetime], zone: str) -> None:
    field = describe_field("V__c", "datetime")
    sent = texts_of(one_column(values, field, kind=ColumnKind.TIMESTAMP, timezone=zone), "V__c")
    for value, text in zip(values, sent, strict=True):
        first = value.replace(tzinfo=ZoneInfo(zone), fold=0)
        utc = first.astimezone(UTC)
        if utc.astimezone(ZoneInfo(zone)).replace(tzinfo=None) != value:
            assert text == "REJECTED_INVALID_DATE"  # the clocks skipped that time
            continue
        assert text == utc.strftime("%Y-%m-%dT%H:%M:%SZ")
        for printed in (f"{text[:-1]}.000Z", f"{text[:-1]}.000+0000", f"{text[:-1]}.000+00:00"):
            assert canonical_from_org(field, pl.Series([printed])).to_list() == [text]


@BATCH
@given(st.lists(moments, min_size=1, max_size=20), st.integers(-14 * 60, 14 * 60))
def test_offsets_in_text_lead_to_the_same_instant(values: list[datetime], minutes: int) -> None:
    sign, size = ("-" if minutes < 0 else "+"), abs(minutes)
    offset = f"{sign}{size // 60:02}:{size % 60:02}"
    printed = [(value + timedelta(minutes=minutes)).isoformat(timespec="microseconds") + offset for value in values]
    cleaned = one_column(printed, describe_field("V__c", "datetime"), future_date="keep", timezone="Asia/Bangkok")
    assert texts_of(cleaned, "V__c") == [value.strftime("%Y-%m-%dT%H:%M:%SZ") for value in values]


@BATCH
@given(st.lists(st.dates(date(1, 1, 1), date(9999, 12, 31)), min_size=1, max_size=40))
def test_dates_in_range_and_only_these(values: list[date]) -> None:
    field = describe_field("V__c", "date")
    sent = texts_of(one_column(values, field, kind=ColumnKind.DATE), "V__c")
    in_range = [date(1700, 1, 1) <= value <= date(4000, 12, 31) for value in values]
    assert sent == [
        value.isoformat() if good else "REJECTED_INVALID_DATE" for value, good in zip(values, in_range, strict=True)
    ]
    kept = pl.Series([text for text, good in zip(sent, in_range, strict=True) if good], dtype=pl.String)
    assert canonical_from_org(field, kept).to_list() == kept.to_list()


awkward = st.text(
    st.sampled_from("aB1|\\ \t\n\r\x0b\x00\x01\x1f\x7f\x85\u00a0\u200b\ufeffกด้ิ\u0e38e\u0301é😀👍🏽🇹🇭한각#N/A")
    | st.characters(exclude_categories=["Cs"]),
    max_size=30,
)


def reference_text(value: str) -> str | None:
    """The default rules, one value at a time."""
    blanks = "\t\n\x0b\x0c\r "
    value = value.strip(blanks)
    if value == "#N/A":
        return "REJECTED_NA_TEXT"
    value = value.replace("\r\n", "\n").replace("\r", "\n")
    controls = [*range(9), 11, 12, *range(14, 32), *range(127, 160)]
    value = value.translate(dict.fromkeys(controls)).strip(blanks)
    return "REJECTED_NA_TEXT" if value == "#N/A" else value or None


@settings(max_examples=100, deadline=None)
@given(st.lists(awkward, min_size=1, max_size=20))
def test_text_equals_the_rules_applied_one_by_one(values: list[str]) -> None:
    field = describe_field("V__c", "textarea", length=1000)
    sent = texts_of(one_column(values, field), "V__c")
    assert sent == [reference_text(value) for value in values]
    kept = pl.Series([text for text in sent if text != "REJECTED_NA_TEXT"], dtype=pl.String)
    assert canonical_from_org(field, kept).to_list() == kept.to_list()
    assert texts_of(one_column(kept.to_list(), field), "V__c") == kept.to_list()


@settings(max_examples=80, deadline=None)
@given(st.lists(awkward, min_size=1, max_size=20))
def test_composing_equals_python_s_normalisation(values: list[str]) -> None:
    composed = texts.compose(pl.Series(values, dtype=pl.String)).to_list()
    assert composed == [unicodedata.normalize("NFC", value) for value in values]


@settings(max_examples=80, deadline=None)
@given(st.lists(awkward.map(lambda text: text.replace("\x00", "")), min_size=1, max_size=20), st.integers(1, 12))
def test_truncation_keeps_a_prefix_of_whole_clusters(values: list[str], units: int) -> None:
    column = pl.Series(values, dtype=pl.String)
    rows = texts.rows_over_length(column, units).to_list()
    assert rows == [at for at, value in enumerate(values) if len(value.encode("utf-16-le")) // 2 > units]
    if not rows:
        return
    long = column.gather(rows)
    clusters = long.str.extract_all(texts._CLUSTER).to_list()
    for value, parts, cut in zip(long, clusters, texts.truncate(long, units), strict=True):
        assert "".join(parts) == value
        whole = ""
        for part in parts:
            if len((whole + part).encode("utf-16-le")) // 2 > units:
                break
            whole += part
        assert cut == whole.rstrip("\t\n\x0b\x0c\r ")


@BATCH
@given(
    st.lists(st.none() | st.binary(max_size=20), min_size=1, max_size=20),
    st.sampled_from(["tis-620", "cp874", "latin-1", "utf-8", "cp932"]),
)
def test_decoding_equals_python_s(values: list[bytes | None], encoding: str) -> None:
    if encoding == "tis-620":  # which lacks the bytes that Python reads as control characters there
        values = [value and bytes(byte for byte in value if not 0x80 <= byte <= 0x9F) for value in values]
    decoded, broken = texts.decode(pl.Series(values, dtype=pl.Binary), codec_name(encoding))
    assert decoded.to_list() == [None if value is None else value.decode(encoding, "replace") for value in values]
    wrong = []
    for at, value in enumerate(values):
        try:
            (value or b"").decode(encoding)
        except UnicodeDecodeError:
            wrong.append(at)
    assert broken.to_list() == wrong


@BATCH
@given(st.lists(st.from_regex(r"[A-Za-z0-9]{15}", fullmatch=True), min_size=1, max_size=20))
def test_ids_of_15_and_18_characters_are_the_same(values: list[str]) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
    long = [
        value
        + "".join(
            alphabet[sum(1 << place for place, char in enumerate(value[at : at + 5]) if "A" <= char <= "Z")]
            for at in (0, 5, 10)
        )
        for value in values
    ]
    field = describe_field("V__c", "reference", reference_to=("User",))
    assert canonical_from_org(field, pl.Series(values)).to_list() == long
    assert canonical_from_org(field, pl.Series(long)).to_list() == long
    assert texts_of(one_column(list[Any](values), field), "V__c") == long


gate_text = st.text(
    st.sampled_from(" \t\n\r\x00\x1f\x7f\x80\x9f\u00a0éกๆ😀#N/A") | st.characters(exclude_categories=["Cs"]),
    max_size=90,
)

code = st.text(st.sampled_from("!~aZ09#N/A"), max_size=4) | st.sampled_from(["#N/A", "", "a b", "a\x7f", "~\x80", "ก"])


@BATCH
@given(st.lists(st.none() | code, max_size=8), st.integers(0, 5))
def test_a_look_at_all_texts_at_once_finds_what_the_pattern_finds(values: list[str | None], start: int) -> None:
    part = pl.Series(values, dtype=pl.String)[start:]
    assert texts.suspects(part).to_list() == part.str.contains(texts.GATE).fill_null(False).arg_true().to_list()
    assert texts.is_plain(part) == all("!" <= letter <= "~" for value in part.to_list() for letter in value or "")


@BATCH
@given(st.lists(st.none() | gate_text | st.sampled_from(["#N/A", "", "ข" * 400]), max_size=30), st.integers(0, 5))
def test_the_fast_gate_finds_what_the_pattern_finds(values: list[str | None], start: int) -> None:
    """Goal: long texts, which are looked at by their bytes, are judged as short ones are, slices included."""
    padded = pl.Series([*values, "ก" * 4000], dtype=pl.String)[start:]
    assert texts.suspects(padded).to_list() == padded.str.contains(texts.GATE).fill_null(False).arg_true().to_list()
    for part in (padded, padded.head(0)):
        units = [None if text is None else len(text.encode("utf-16-le")) // 2 for text in part.to_list()]
        wanted = [row for row, count in enumerate(units) if count is not None and count > 20]
        assert texts.rows_over_length(part, 20).to_list() == wanted
