"""All slices of a table together hold every row once, for any table, `where` and size of slice."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forcelift.protocols.source import Source
from forcelift.source import open_source
from forcelift.source.csv_scan import CsvFault, CsvStructure, stretches

MANY = settings(max_examples=25, deadline=None, derandomize=True)
FEWER = settings(max_examples=12, deadline=None, derandomize=True)

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r"), max_size=6)
SIZES = st.integers(1, 12)
SQLITE_VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-3, 3),
    st.floats(allow_nan=False),
    TEXT,
    st.binary(max_size=4),
    st.sampled_from(["a", "A", "b", "10", "9", ""]),
)


def rows_of(source: Source, table: str, column: str, **options) -> list:
    found: list = []
    for batch in source.read(table, columns=[column], batch_rows=3, **options):
        batch.validate(full=True)
        assert 0 < batch.num_rows <= 3
        found += batch.column(0).to_pylist()
    return found


def assert_slices_are_whole(
    source: Source, table: str, *, key: list[str], number: str, where: str | None, size: int
) -> None:
    """Read slice by slice and at once; compare the numbers of the rows, and the counts."""
    chunks = source.plan_chunks(table, where=where, key=key, rows_per_chunk=size)
    assert chunks
    stored = [json.loads(json.dumps(chunk.predicate)) for chunk in chunks]
    whole = Counter(rows_of(source, table, number, where=where))
    found: Counter = Counter()
    for predicate in stored:
        part = rows_of(source, table, number, where=where, predicate=predicate, order_by=key)
        assert source.count(table, where=where, predicate=predicate) == len(part)
        found.update(part)
    assert found == whole
    assert source.count(table, where=where) == sum(whole.values())
    if where is None:
        assert sum(chunk.rows_estimate for chunk in chunks) == sum(whole.values())


@MANY
@given(
    rows=st.lists(st.tuples(SQLITE_VALUES, SQLITE_VALUES), max_size=40),
    gaps=st.integers(1, 10**6),
    declared=st.sampled_from(["TEXT", "INTEGER", "NUMERIC", "", "TEXT COLLATE NOCASE", "BLOB"]),
    where=st.sampled_from([None, "n % 2 = 0", "n > 3 OR n = 1 -- said", "a IS NULL", "n < 0"]),
    size=SIZES,
)
@example(rows=[(None, None)] * 3, gaps=1, declared="", where=None, size=2)
@example(rows=[(1e308, "x"), (b"\x00", 2**53 + 1)], gaps=1, declared="", where=None, size=1)
def test_sqlite_slices(rows, gaps, declared, where, size):
    numbered = [(n, a, b) for n, (a, b) in enumerate(rows)]
    pairs = {(a, b): (n, a, b) for n, a, b in numbered if a is not None and b is not None}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.db"
        connection = sqlite3.connect(path)
        connection.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, a {declared}, b {declared})")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", [(n * gaps - 5, n, a, b) for n, a, b in numbered])
        connection.execute("CREATE VIEW v AS SELECT n, a, b FROM t")
        connection.execute(f"CREATE TABLE w (n INTEGER, a {declared}, b {declared}, PRIMARY KEY (b, a)) WITHOUT ROWID")
        connection.executemany("INSERT OR IGNORE INTO w VALUES (?, ?, ?)", pairs.values())
        connection.commit()
        connection.close()
        source = open_source(f"sqlite:///{path}")
        for table in ("t", "v", "w"):
            assert_slices_are_whole(source, table, key=["a", "b"], number="n", where=where, size=size)
        chunks = source.plan_chunks("t", where=where, key=["id"], rows_per_chunk=size)
        counts = [source.count("t", where=where, predicate=chunk.predicate) for chunk in chunks]
        assert all(count == size for count in counts[:-1])
        assert counts == [chunk.rows_estimate for chunk in chunks]
        source.close()


@FEWER
@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1),
            st.none() | TEXT.filter(lambda text: "\x00" not in text),
            st.none() | st.floats(),
        ),
        max_size=40,
    ),
    key=st.sampled_from([["i"], ["s"], ["f"], ["s", "i"], ["f", "s", "i"]]),
    where=st.sampled_from([None, "n % 2 = 0", "n > 3 OR n = 1 -- said", "i IS NULL", "n < 0"]),
    size=SIZES,
)
@example(rows=[(1, "'", float("nan")), (1, None, float("inf")), (1, "'", -0.0)] * 3, key=["f"], where=None, size=1)
def test_duckdb_slices(rows, key, where, size):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.duckdb"
        with duckdb.connect(str(path)) as connection:
            connection.execute("CREATE TABLE t (n INTEGER, i BIGINT, s VARCHAR, f DOUBLE)")
            connection.execute("CREATE VIEW v AS SELECT * FROM t")
            if rows:
                connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", [(n, *row) for n, row in enumerate(rows)])
            connection.execute("DELETE FROM t WHERE n % 7 = 3")
        source = open_source(f"duckdb:///{path}")
        for table in ("t", "v"):
            assert_slices_are_whole(source, table, key=key, number="n", where=where, size=size)
        source.close()


@MANY
@given(
    parts=st.lists(st.lists(st.tuples(TEXT, TEXT), max_size=15), min_size=1, max_size=3),
    line_end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    last_open=st.booleans(),
    where=st.sampled_from([None, "CAST(n AS INTEGER) % 2 = 0"]),
    size=SIZES,
)
def test_csv_slices(parts, line_end, quoting, last_open, where, size):
    n = 0
    expected = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "t").mkdir()
        for at, rows in enumerate(parts):
            text = io.StringIO()
            writer = csv.writer(text, lineterminator=line_end, quoting=quoting)
            writer.writerow(["n", "a", 'the "b"'])
            for a, b in rows:
                writer.writerow([n, a, b])
                expected.append({"n": str(n), "a": a or None, 'the "b"': b or None})
                n += 1
            content = text.getvalue()
            content = content.removesuffix(line_end) if last_open else content
            (Path(folder) / "t" / f"{at}.csv").write_text(content, newline="", encoding="utf-8")
        source = open_source(f"files:{folder}")
        assert_slices_are_whole(source, "t", key=["n"], number="n", where=where, size=size)
        batches = list(source.read("t", columns=["n", "a", 'the "b"'], where=None))
        assert [row for batch in batches for row in batch.to_pylist()] == expected


@MANY
@given(values=st.lists(TEXT, max_size=20), size=SIZES)
def test_csv_of_one_column_keeps_its_empty_rows(values, size):
    with tempfile.TemporaryDirectory() as folder:
        lines = ["v", *('"' + value.replace('"', '""') + '"' if value else "" for value in values)]
        (Path(folder) / "t.csv").write_text("\n".join(lines) + "\n", newline="", encoding="utf-8")
        source = open_source(f"files:{folder}")
        assert_slices_are_whole(source, "t", key=["v"], number="v", where=None, size=size)
        assert rows_of(source, "t", "v", where=None) == [value or None for value in values]


@FEWER
@given(
    rows=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    group=st.integers(1, 9),
    where=st.sampled_from([None, "n % 3 = 0", "n < 0"]),
    size=SIZES,
)
def test_parquet_slices(rows, group, where, size):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "[t]*").mkdir()
        first = 0
        for at, count in enumerate(rows):
            table = pa.table({"n": pa.array(range(first, first + count), pa.int64())})
            pq.write_table(table, Path(folder) / "[t]*" / f"{at}.parquet", row_group_size=group)
            first += count
        source = open_source(f"files:{folder}")
        assert_slices_are_whole(source, "[t]*", key=["n"], number="n", where=where, size=size)


@MANY
@given(
    rows=st.lists(st.lists(TEXT, min_size=2, max_size=2), max_size=12),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    block=st.integers(1, 40),
    size=SIZES,
)
def test_the_structure_is_the_same_in_any_blocks(rows, quoting, block, size):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)
    content = text.getvalue().encode()
    structure = CsvStructure()
    for at in range(0, len(content), block):
        structure.feed(content[at : at + block])
    structure.finish()
    assert (structure.rows, structure.lines) == (len(rows), content.count(b"\n"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("forcelift.source.csv_scan.BLOCK_BYTES", block)
        parts = list(stretches(io.BytesIO(content), start=0, line=0, rows=size, fields=2))
    assert b"".join(content[part.start : part.end] for part in parts) == content
    assert [part.rows for part in parts[:-1]] == [size] * (len(parts) - 1)
    assert all(part.line == content.count(b"\n", 0, part.start) for part in parts)
    found = [
        row
        for part in parts
        for row in csv.reader(io.StringIO(content[part.start : part.end].decode(), newline=""), strict=True)
    ]
    assert found == rows


@MANY
@given(
    rows=st.lists(st.lists(TEXT, min_size=2, max_size=2), max_size=8),
    bad=st.sampled_from([b"one\n", b"1,2,3\n", b'"1,2"\n', b"1,2,\n", b"\xff\n", b"1,\xe0\xb9,1\n", b"1,2,3"]),
    at=st.integers(0, 8),
    block=st.integers(1, 40),
)
def test_a_broken_row_is_found_on_its_line_in_any_blocks(rows, bad, at, block):
    at = at if bad.endswith(b"\n") else len(rows)
    before, after = io.StringIO(), io.StringIO()
    csv.writer(before, lineterminator="\n").writerows(rows[:at])
    csv.writer(after, lineterminator="\n").writerows(rows[at:])
    head = before.getvalue().encode()
    content = head + bad + after.getvalue().encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("forcelift.source.csv_scan.BLOCK_BYTES", block)
        with pytest.raises(CsvFault) as raised:
            list(stretches(io.BytesIO(content), start=0, line=0, rows=3, fields=2))
    assert raised.value.line == head.count(b"\n")
