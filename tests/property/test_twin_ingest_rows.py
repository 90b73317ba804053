"""Any rows: each ends in exactly one result file, and what is stored is what a plain model of the rules says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.twin_store_support import finished, make_org, records, run_job, write_csv

from forcelift.twin import values
from forcelift.twin.errors import CsvRefused
from forcelift.twin.ids import id18, is_id, make_id, make_ids
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema import FieldSchema
from forcelift.twin.upload_csv import parse_upload

# One org serves all examples of a test; each example empties its tables first.
SHARED_ORG = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
BLANKS = "\t\n\v\f\r "
KEYS = st.sampled_from(["a", "A", " a", "b", "b ", "ß", "c", "d", "", "#N/A", " "])
TEXTS = st.one_of(st.sampled_from(["", "#N/A", " ", "x", " x ", "12345678901"]), st.text("aé😀 \n,\"'", max_size=12))


@pytest.fixture(scope="module")
def org() -> Iterator[TwinOrg]:
    with make_org() as org:
        yield org


def empty(org: TwinOrg) -> None:
    with org.store.write() as cursor:
        cursor.execute('DELETE FROM data."Trip__c"')


def stored_text(cell: str) -> str | None:
    """What a text field stores for a cell that is not empty; None is null."""
    return None if cell == "#N/A" else (cell.strip(BLANKS) or None)


def expected_upsert(rows: list[tuple[str, str]]) -> tuple[dict[str, str | None], int]:
    """The table and the number of saved rows after an upsert of one chunk: key -> Loose__c (length 10)."""
    keys = [None if key == "" else stored_text(key) for key, _ in rows]
    fits = [len((stored_text(text) or "").encode("utf-16-le")) // 2 <= 10 for _, text in rows]
    copies = Counter(key.lower() for key, fit in zip(keys, fits, strict=True) if key is not None and fit)
    table: dict[str, str | None] = {}
    saved = 0
    for key, fit, (_, text) in zip(keys, fits, rows, strict=True):
        if key is None or not fit or copies[key.lower()] > 1:
            continue
        saved += 1
        table[key] = stored_text(text) if text != "" else None
    return table, saved


@SHARED_ORG
@given(rows=st.lists(st.tuples(KEYS, TEXTS), max_size=12))
def test_upsert_of_a_chunk_follows_the_model_and_loses_no_row(org: TwinOrg, rows: list[tuple[str, str]]) -> None:
    empty(org)
    content = write_csv(["Ext__c", "Loose__c", "Place__c"], [[*row, "x"] for row in rows])
    done = run_job(org, "upsert", "Trip__c", content, key="Ext__c")
    table, saved = expected_upsert(rows)
    assert dict(records(org, "Trip__c", "Ext__c", "Loose__c")) == table
    assert (len(done.saved), len(done.failed), done.unprocessed) == (saved, len(rows) - saved, [])
    assert (done.job["numberRecordsProcessed"], done.job["numberRecordsFailed"]) == (len(rows), len(rows) - saved)
    told = Counter((row["Ext__c"], row["Loose__c"]) for row in done.saved + done.failed)
    assert told == Counter(rows)
    assert len({row["sf__Id"] for row in done.saved}) == saved
    again = run_job(org, "upsert", "Trip__c", content, key="Ext__c")
    assert {row["sf__Created"] for row in again.saved} <= {"false"}


@SHARED_ORG
@given(rows=st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["p", "q", "r", ""])), max_size=10))
def test_unique_fields_never_hold_a_value_twice_and_fail_no_row_without_cause(
    org: TwinOrg, rows: list[tuple[str, str]]
) -> None:
    empty(org)
    content = write_csv(["Ext__c", "Code__c", "Place__c"], [[*row, "x"] for row in rows])
    done = run_job(org, "insert", "Trip__c", content)
    taken: tuple[set[str], set[str]] = (set(), set())
    kept = []
    for key, code in rows:
        if key not in taken[0] and code not in taken[1]:
            kept.append((key, code))
            taken[0].add(key)
            taken[1].update({code} - {""})
    assert Counter((row["Ext__c"], row["Code__c"]) for row in done.saved) == Counter(kept)


@SHARED_ORG
@given(
    numbers=st.lists(
        st.one_of(
            st.decimals(min_value=-999_999, max_value=999_999, places=4).map(str),
            st.floats(min_value=-9e5, max_value=9e5).map(repr),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_numbers_are_rounded_half_up_to_the_scale_and_echoed_in_java_form(org: TwinOrg, numbers: list[str]) -> None:
    empty(org)
    rows = [[f"N{place}", number, "x"] for place, number in enumerate(numbers)]
    done = run_job(org, "insert", "Trip__c", write_csv(["Ext__c", "Miles__c", "Place__c"], rows))
    assert not done.failed
    expected = {key: Decimal(number).quantize(Decimal("0.01"), ROUND_HALF_UP) for key, number, _ in rows}
    assert dict(records(org, "Trip__c", "Ext__c", "Miles__c")) == expected
    sent = {key: float(number) for key, number, _ in rows}
    for row in finished(org, done.job["id"]).saved:
        echo = row["Miles__c"]
        number = sent[row["Ext__c"]]
        assert float(echo) == number
        digits = echo.lstrip("-").partition("E")[0]
        assert ("E" in echo) == (number != 0 and not 1e-3 <= abs(number) < 1e7)
        assert "." in digits
        assert not ("E" in echo and len(digits.partition(".")[0]) != 1)


def strict_rows(content: str) -> list[list[str]] | None:
    """A plain reader of RFC 4180 with LF, character by character; None for a stray quote."""
    rows: list[list[str]] = []
    row: list[str] = []
    place = 0
    while place <= len(content):
        if content[place : place + 1] == '"':
            text, place = "", place + 1
            while True:
                end = content.find('"', place)
                if end < 0:
                    return None
                text += content[place:end]
                place = end + 1
                if content[place : place + 1] != '"':
                    break
                text, place = text + '"', place + 1
            if content[place : place + 1] not in (",", "\n", ""):
                return None
        else:
            end = min(
                (e for e in (content.find(",", place), content.find("\n", place)) if e >= 0), default=len(content)
            )
            text, place = content[place:end], end
            if '"' in text:
                return None
        row.append(text)
        if content[place : place + 1] != ",":
            rows.append(row)
            row = []
        place += 1
    return rows[:-1] if rows and rows[-1] == [""] and content.endswith("\n") else rows


@settings(max_examples=300, deadline=None)
@given(body=st.text('ab",\n ', max_size=24))
def test_stray_quotes_are_found_exactly_where_a_plain_reader_finds_them(body: str) -> None:
    content = "h1,h2\n" + body
    expected = strict_rows(content)
    try:
        upload = parse_upload(content.encode(), delimiter="COMMA", line_ending="LF")
    except CsvRefused as error:
        if "unescaped quote" in error.error_message:
            assert expected is None
        else:
            assert expected is not None
            assert max(map(len, expected)) > 2
    else:
        assert expected is not None
        padded = [tuple([*row, ""][:2]) for row in expected[1:]]
        assert upload.cells.rows() == padded


@given(start=st.integers(0, 62**9 - 1000), count=st.integers(0, 50), prefix=st.sampled_from(["a00", "aZz", "001"]))
def test_ids_made_as_a_column_equal_ids_made_alone(start: int, count: int, prefix: str) -> None:
    made = make_ids(prefix, "5F", start, count).to_list()
    assert made == [make_id(prefix, "5F", number) for number in range(start, start + count)]
    assert all(is_id(entry) and id18(entry[:15]) == entry for entry in made)


def test_ids_cross_the_run_border() -> None:
    assert make_ids("a00", "5F", 62**5 - 3, 6).to_list() == [make_id("a00", "5F", 62**5 - 3 + n) for n in range(6)]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("912260031", "9.12260031E8"), ("896852810", "8.9685281E8"), ("500", "500.0"), ("30", "30.0"), ("0", "0.0"),
        ("1e7", "1.0E7"), ("9999999.5", "9999999.5"), ("0.001", "0.001"), ("0.0005", "5.0E-4"), ("-0.00012", "-1.2E-4"),
        ("1e16", "1.0E16"), ("123456789012345680", "1.2345678901234568E17"), ("abc", "abc"), ("", ""), ("#N/A", "#N/A"),
    ],
)  # fmt: skip
def test_java_double_form(org: TwinOrg, number: str, text: str) -> None:
    field = FieldSchema(name="A", label="A", type="double", precision=18)
    with org.store.read() as cursor:
        assert cursor.execute(
            f"SELECT {values.echoed(field, 'c')} FROM (SELECT unnest(?) AS c)", [[number]]
        ).fetchone() == (text,)


def test_published_ids_have_the_checksums_that_salesforce_gave_them() -> None:
    for known in ("0018c00002FInboAAD", "001A0000006Vm9rIAC"):
        assert id18(known[:15]) == known
