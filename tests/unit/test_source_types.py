"""Declared types become kinds and Arrow types, by the declaration alone."""

from __future__ import annotations

import pyarrow as pa
import pytest

from forcelift.errors import ExitCode, SourceError
from forcelift.protocols.source import Column, ColumnKind, SourceTable
from forcelift.source import open_source
from forcelift.source.names import nearest, pick_columns, quote, unknown_table
from forcelift.source.types import arrow_column, duckdb_column, duckdb_expression, sqlite_column


@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        ("INTEGER", "integer"),
        ("BIGINT UNSIGNED", "integer"),
        ("INT8", "integer"),
        ("VARCHAR(255)", "text"),
        ("nvarchar(10)", "text"),
        ("CLOB", "text"),
        ("", "text"),
        ("STRING", "text"),
        ("INTERVAL", "text"),
        ("POINT", "text"),
        ("DATE", "text"),
        ("DATETIME", "text"),
        ("TIMESTAMP", "text"),
        ("UUID", "text"),
        ("BLOB", "binary"),
        ("DOUBLE PRECISION", "float"),
        ("BOOLEAN", "boolean"),
        ("NUMERIC", "decimal"),
        ("DECIMAL(10, 2)", "decimal"),
        ("number(18)", "decimal"),
    ],
)
def test_sqlite_kinds(declared, kind):
    column = sqlite_column("c", declared, nullable=True, raw_text=False, as_text=False)
    assert column.kind == kind
    assert column.declared == declared


def test_sqlite_decimals_keep_their_declared_size_beside_a_type_that_loses_nothing():
    column = sqlite_column("c", "NUMERIC(12,2)", nullable=True, raw_text=False, as_text=False)
    assert (column.precision, column.scale, column.arrow) == (12, 2, pa.decimal128(38, 19))


def test_sqlite_text_of_another_encoding_is_bytes():
    assert sqlite_column("c", "TEXT", nullable=True, raw_text=True, as_text=False).arrow == pa.binary()
    assert sqlite_column("c", "INTEGER", nullable=True, raw_text=False, as_text=True).kind is ColumnKind.TEXT


@pytest.mark.parametrize(
    ("declared", "kind", "arrow", "expression"),
    [
        ("HUGEINT", "decimal", pa.decimal128(38, 0), 'TRY_CAST("c" AS DECIMAL(38,0))'),
        ("SMALLINT", "integer", pa.int64(), 'CAST("c" AS BIGINT)'),
        ("BIGINT", "integer", pa.int64(), '"c"'),
        ("DECIMAL(30,4)", "decimal", pa.decimal128(30, 4), '"c"'),
        ("TIMESTAMP WITH TIME ZONE", "instant", pa.timestamp("us", "UTC"), None),
        ("TIMESTAMP_S", "timestamp", pa.timestamp("us"), None),
        ("ENUM('a', 'b')", "text", pa.string(), 'CAST("c" AS VARCHAR)'),
        ("UUID", "text", pa.string(), 'CAST("c" AS VARCHAR)'),
        ("INTEGER[]", "unsupported", pa.null(), None),
        ("ENUM('a')[]", "unsupported", pa.null(), None),
        ("STRUCT(a INTEGER)", "unsupported", pa.null(), None),
    ],
)
def test_duckdb_types(declared, kind, arrow, expression):
    column = duckdb_column("c", declared, nullable=True)
    assert (column.kind, column.arrow) == (kind, arrow)
    if expression:
        assert duckdb_expression(column) == expression


@pytest.mark.parametrize(
    ("arrow", "kind", "delivered"),
    [
        (pa.dictionary(pa.int8(), pa.string()), "text", pa.string()),
        (pa.uint64(), "decimal", pa.decimal128(38, 0)),
        (pa.int8(), "integer", pa.int64()),
        (pa.float32(), "float", pa.float64()),
        (pa.timestamp("ns"), "timestamp", pa.timestamp("ns")),
        (pa.timestamp("ms", "Asia/Bangkok"), "instant", pa.timestamp("us", "UTC")),
        (pa.decimal256(50, 10), "text", pa.string()),
        (pa.large_string(), "text", pa.string()),
        (pa.time64("us"), "text", pa.string()),
        (pa.list_(pa.int8()), "unsupported", pa.null()),
    ],
)
def test_parquet_types(arrow, kind, delivered):
    column = arrow_column(pa.field("c", arrow))
    assert (column.kind, column.arrow) == (kind, delivered)


def test_names_are_quoted_and_near_ones_found():
    assert quote('a "b"') == '"a ""b"""'
    assert nearest("flihgts", ["FLIGHTS", "planes"]) == ["FLIGHTS"]
    assert "did you mean `FLIGHTS`" in str(unknown_table("flights", ["FLIGHTS"], place="x").hint)
    assert "known tables: `a`" in str(unknown_table("zzz", ["a"], place="x").hint)
    assert "no tables at all" in str(unknown_table("zzz", [], place="x").hint)


def test_columns_are_picked_in_order_or_refused():
    table = SourceTable(
        name="T",
        columns=(
            Column(name="A", kind=ColumnKind.TEXT, declared="TEXT", arrow=pa.string()),
            Column(name="B", kind=ColumnKind.UNSUPPORTED, declared="INTEGER[]", arrow=pa.null()),
        ),
    )
    assert pick_columns(table, ["A"]) == [table.columns[0]]
    with pytest.raises(SourceError, match="no column `a`") as unknown:
        pick_columns(table, ["a"])
    assert "`A`" in str(unknown.value.hint)
    with pytest.raises(SourceError, match=r"declared INTEGER\[\], which cannot be read"):
        pick_columns(table, ["B"])


@pytest.mark.parametrize("url", ["mysql://host/x", "data.db", "sqlite:", "sqlite://", "sqlite:///", "duckdb://host/x"])
def test_urls_that_name_no_source(url):
    with pytest.raises(SourceError) as raised:
        open_source(url)
    assert raised.value.exit_code is ExitCode.SOURCE
    assert "write one of" in str(raised.value.hint)


def test_a_password_is_refused_where_none_is_taken_and_not_repeated(tmp_path):
    with pytest.raises(SourceError, match="no user and no password") as raised:
        open_source(f"files:{tmp_path}", password="hunter2")
    assert "hunter2" not in str(raised.value) + str(raised.value.hint)
