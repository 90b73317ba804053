"""Properties of the adapter's pure parts: nothing lost, nothing leaked, columns and single texts agree."""

from __future__ import annotations

import gzip
from urllib.parse import quote

import httpx
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forcelift.errors import OrgUnavailable
from forcelift.salesforce.catalogue import entries, is_transient
from forcelift.salesforce.download import read_pieces
from forcelift.salesforce.ids import id18
from forcelift.salesforce.results import scrub, scrub_series, split_error, split_error_expr
from forcelift.salesforce.soql import quoted, select_in
from forcelift.salesforce.transient import transient_expr

TEXT = st.text(max_size=60)
CODES = st.sampled_from(["A", "STRING_TOO_LONG", "InvalidBatch", "DUPLICATE_VALUE"])
FIELDS = st.lists(st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,10}", fullmatch=True), max_size=3)
PROSE = st.text(alphabet="aZ09 :,-\n\"'[](ก=.@_", max_size=60)
ECHO_WORDS = st.sampled_from(
    [
        "data value too large: ",
        " (max length=255)",
        "Foreign key external ID: ",
        " not found for field ",
        "value not of required type: ",
        "Email: invalid email address: ",
        "bad value for restricted picklist field: ",
        "Duplicate external id specified: ",
    ]
)
MESSAGES = st.lists(ECHO_WORDS | PROSE | TEXT, max_size=5).map("".join)


@given(code=CODES, message=PROSE.map(str.strip), fields=FIELDS)
def test_what_salesforce_writes_is_read_back(code: str, message: str, fields: list[str]) -> None:
    error = split_error(f"{code}:{message}:{','.join(fields)} --" if fields else f"{code}:{message}:--")
    assert error == (code, message, tuple(fields))


@given(st.lists(st.none() | PROSE | TEXT | st.tuples(CODES, PROSE).map(":".join), min_size=1, max_size=20))
def test_error_texts_as_columns_and_one_by_one(texts: list[str | None]) -> None:
    frame = pl.DataFrame({"e": texts}, schema={"e": pl.String})
    rows = frame.select(split_error_expr(pl.col("e")).alias("x")).unnest("x").rows()
    for text, row in zip(texts, rows, strict=True):
        if text is None:
            assert row == (None, None, None)
        else:
            one = split_error(text)
            assert row == (one.code, one.message, ",".join(one.fields))


@given(st.lists(st.none() | MESSAGES, max_size=20))
def test_scrubbing_columns_and_one_by_one(messages: list[str | None]) -> None:
    told = scrub_series(pl.Series("m", messages, dtype=pl.String)).to_list()
    assert told == [None if message is None else scrub(message) for message in messages]


@given(
    before=st.sampled_from(["value not of required type: ", "invalid email address: "]),
    value=st.text(min_size=1, max_size=80),
)
def test_no_part_of_an_echoed_value_stays(before: str, value: str) -> None:
    assert scrub(f"Field: {before}{value}") == f"Field: {before}<value>"


@given(value=st.text(max_size=80))
def test_no_part_of_a_value_that_is_too_long_stays(value: str) -> None:
    told = scrub(f"Name: data value too large: {value} (max length=80)")
    assert told == "Name: data value too large: <value> (max length=80)"


@given(
    st.lists(
        st.tuples(st.sampled_from([e.advice.code for e in entries()] + ["NEW"]), st.none() | MESSAGES), max_size=10
    )
)
def test_the_verdict_on_columns_and_one_by_one(rows: list[tuple[str, str | None]]) -> None:
    frame = pl.DataFrame(rows, schema={"c": pl.String, "m": pl.String}, orient="row")
    told = frame.select(transient_expr(pl.col("c"), pl.col("m"))).to_series().to_list()
    assert told == [is_transient(code, message or "") for code, message in rows]


def unquote(text: str) -> str:
    """SOQL's string escapes undone, by a reader written for this test."""
    assert text[0] == text[-1] == "'"
    plain = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "'": "'", '"': '"', "\\": "\\"}
    out: list[str] = []
    rest = text[1:-1]
    while rest:
        if rest[0] == "\\":
            if rest[1] == "u":
                out.append(chr(int(rest[2:6], 16)))
                rest = rest[6:]
            else:
                out.append(plain[rest[1]])
                rest = rest[2:]
        else:
            assert rest[0] != "'", "a free quote ends the literal"
            out.append(rest[0])
            rest = rest[1:]
    return "".join(out)


@given(st.text())
def test_a_quoted_text_reads_back_as_itself(text: str) -> None:
    assert unquote(quoted(text)) == text


@given(values=st.lists(st.text(max_size=30), max_size=60), room=st.integers(1_400, 3_000))
def test_cutting_a_list_loses_and_repeats_nothing(values: list[str], room: int) -> None:
    queries = list(select_in("Account", ["Id"], field="Ext__c", values=values, url_bytes_max=room))
    head = "SELECT Id FROM Account WHERE Ext__c IN ("
    assert all(query.startswith(head) and query.endswith(")") for query in queries)
    assert ",".join(query[len(head) : -1] for query in queries) == ",".join(map(quoted, values))
    assert all(len(quote(query, safe="")) <= room - 600 for query in queries)


@settings(max_examples=50)
@given(data=st.binary(max_size=5000), cut=st.integers(0, 5000), pieces=st.integers(1, 700))
def test_a_compressed_download_is_whole_or_raises(data: bytes, cut: int, pieces: int) -> None:
    packed = gzip.compress(data)
    sent = packed[:cut]
    stream = (sent[at : at + pieces] for at in range(0, len(sent), pieces))
    headers = {"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}
    response = httpx.Response(200, headers=headers, content=stream, request=httpx.Request("GET", "http://127.0.0.1/"))
    if len(sent) < len(packed):
        with pytest.raises(OrgUnavailable):
            list(read_pieces(response, what="test"))
    else:
        assert b"".join(read_pieces(response, what="test")) == data


@given(st.from_regex(r"[A-Za-z0-9]{15}", fullmatch=True), st.from_regex(r"[A-Za-z0-9]{15}", fullmatch=True))
def test_long_ids_differ_even_without_case(one: str, other: str) -> None:
    assert id18(id18(one)) == id18(one)
    assert (id18(one).lower() == id18(other).lower()) == (one == other)
