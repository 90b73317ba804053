"""PostgreSQL's declared types, and the URL as libpq gets it: no server needed."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forcelift.errors import SourceError
from forcelift.protocols.source import ColumnKind
from forcelift.source.postgresql_session import Address
from forcelift.source.postgresql_types import BaseType, decoded, postgres_column


def numeric(precision: int, scale: int) -> BaseType:
    modifier = ((precision << 16) | (scale & 0x7FF)) + 4
    return BaseType(name="numeric", schema="pg_catalog", kind="b", category="N", modifier=modifier)


def base(name: str, *, schema: str = "pg_catalog", kind: str = "b", category: str = "U") -> BaseType:
    return BaseType(name=name, schema=schema, kind=kind, category=category, modifier=-1)


def column(type_: BaseType, *, raw_text: bool = False):
    return postgres_column('a "b"', "declared", type_, nullable=True, raw_text=raw_text)


@pytest.mark.parametrize(
    ("precision", "scale", "arrow"),
    [
        (12, 2, pa.decimal128(12, 2)),
        (38, 38, pa.decimal128(38, 38)),
        (5, -3, pa.decimal128(8, 0)),
        (3, 5, pa.decimal128(5, 5)),
        (38, -1, pa.string()),
        (39, 0, pa.string()),
        (1000, 10, pa.string()),
        (2, 40, pa.string()),
    ],
)
def test_numerics_become_the_smallest_decimal_that_holds_them_or_text(precision, scale, arrow):
    found = column(numeric(precision, scale)).column
    assert found.arrow == arrow
    assert (found.kind is ColumnKind.DECIMAL) == pa.types.is_decimal(arrow)


def test_numeric_without_a_size_is_text():
    assert column(base("numeric", category="N")).column.arrow == pa.string()


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        (base("_int4", category="A"), ColumnKind.UNSUPPORTED),
        (base("int4range", kind="r", category="R"), ColumnKind.UNSUPPORTED),
        (base("int4multirange", kind="m", category="R"), ColumnKind.UNSUPPORTED),
        (base("address", schema="public", kind="c", category="C"), ColumnKind.UNSUPPORTED),
        (base("geometry", schema="public"), ColumnKind.UNSUPPORTED),
        (base("int4", schema="public"), ColumnKind.UNSUPPORTED),
        (base("citext", schema="public", category="S"), ColumnKind.TEXT),
        (base("mood", schema="public", kind="e", category="E"), ColumnKind.TEXT),
        (base("cidr"), ColumnKind.TEXT),
        (base("tsvector"), ColumnKind.TEXT),
    ],
)
def test_types_of_others_are_read_only_where_their_text_is_theirs(type_, kind):
    assert column(type_).column.kind is kind


def test_text_of_another_encoding_comes_as_the_bytes_that_are_stored():
    found = column(base("varchar", category="S"), raw_text=True)
    assert found.column.kind is ColumnKind.TEXT
    assert found.column.arrow == pa.binary()
    assert found.expression == 'convert_to("a ""b"""::text, getdatabaseencoding())'


@settings(derandomize=True, max_examples=50)
@given(
    digits=st.lists(st.none() | st.integers(-(10**18) + 1, 10**18 - 1), max_size=8),
    scale=st.integers(0, 18),
    offset=st.integers(0, 3),
)
def test_scaled_integers_become_exact_decimals(digits, scale, offset):
    array = pa.array([0] * offset + digits, pa.int64()).slice(offset)
    found = decoded(array, column(numeric(18, scale)))
    found.validate(full=True)
    expected = [None if value is None else Decimal(value).scaleb(-scale) for value in digits]
    assert found.to_pylist() == expected
    assert found.type == pa.decimal128(18, scale)


def test_addresses_keep_what_is_said_and_add_what_is_not():
    address = Address("postgresql://db.example:5433/sales?sslmode=verify-full", user="me@x", password="p/w:?#%")
    assert address.uri == (
        "postgresql://me%40x:p%2Fw%3A%3F%23%25@db.example:5433/sales?connect_timeout=10&keepalives_idle=60"
        "&application_name=forcelift&sslmode=verify-full&client_encoding=UTF8"
    )
    assert address.shown == "postgresql://db.example:5433/sales"
    own = Address("postgresql://u:p%40@h/d?application_name=mine&client_encoding=LATIN1", user=None, password=None)
    assert own.uri.startswith("postgresql://u:p%40@h/d?")
    assert "application_name=mine" in own.uri
    assert own.uri.endswith("client_encoding=UTF8")
    assert own.shown == "postgresql://h/d"
    assert Address("postgresql:///d", user=None, password=None).uri.startswith("postgresql:///d?")
    # Who is named apart counts before the URL's user.
    assert Address("postgresql://u:p@h/d", user="v", password=None).uri.startswith("postgresql://v:p@h/d?")


@pytest.mark.parametrize("url", ["postgresql://[h/d", "postgresql://h/d?sslmode"])
def test_urls_that_cannot_be_read(url):
    with pytest.raises(SourceError, match="cannot be read as a URL") as caught:
        Address(url, user="u", password="geheim")
    assert "geheim" not in str(caught.value)
