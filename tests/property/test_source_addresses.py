"""`locate` gives every row an address, and `read` and `count` with `among` give exactly the rows at these addresses."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forcelift.protocols.source import ADDRESS, Source
from forcelift.source import open_source

pytest_plugins = ["tests.postgres_support"]

FEW = settings(max_examples=6, deadline=None, derandomize=True)
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00\r"), max_size=5)
KEYS = st.lists(st.tuples(st.none() | TEXT | st.sampled_from(["a", "A", "a ", "é", "'", "|"]), TEXT), max_size=30)
WHERES = st.sampled_from([None, "n % 2 = 0", "n > 3 OR n = 1 -- said"])
SIZES = st.sampled_from([6, 15, 100])


def assert_addresses_hold(
    source: Source, table: str, *, key: list[str], where: str | None, size: int, seed: int = 7
) -> None:
    """Pick rows by their addresses, slice by slice; what comes back are they and none else, counted alike."""
    chance = random.Random(seed)
    everything: Counter[int] = Counter()
    for chunk in source.plan_chunks(table, where=where, key=key, rows_per_chunk=size):
        predicate = json.loads(json.dumps(chunk.predicate))
        located: list[tuple[int, object]] = []
        for batch in source.locate(table, columns=["n"], where=where, predicate=predicate, key=key, batch_rows=4):
            assert batch.schema.names == ["n", ADDRESS]
            located += zip((int(n) for n in batch.column(0).to_pylist()), batch.column(1).to_pylist(), strict=True)
            kind = batch.schema.field(ADDRESS).type
        everything.update(n for n, _ in located)
        addresses = sorted({address for _, address in located if address is not None}, key=str)
        chosen = [address for address in addresses if chance.random() < 0.4]
        wanted = Counter(n for n, address in located if address in chosen)
        if not located:
            continue
        among = pa.array(chosen, kind)
        for order in ([], ["n"]):
            batches = source.read(
                table,
                columns=["n"],
                where=where,
                predicate=predicate,
                key=key,
                among=among,
                order_by=order,
                batch_rows=3,
            )
            found = [int(n) for batch in batches for n in batch.column(0).to_pylist()]
            assert Counter(found) == wanted
        assert source.count(table, where=where, predicate=predicate, key=key, among=among) == wanted.total()
    whole = source.read(table, columns=["n"], where=where)
    assert everything == Counter(int(n) for batch in whole for n in batch.column(0).to_pylist())


@FEW
@given(keys=KEYS, declared=st.sampled_from(["TEXT", "NUMERIC", "", "TEXT COLLATE NOCASE"]), where=WHERES, size=SIZES)
def test_sqlite(keys, declared, where, size):
    rows = [(n, a, b) for n, (a, b) in enumerate(keys)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.db"
        with sqlite3.connect(path) as connection:
            connection.execute(f"CREATE TABLE t (n INTEGER, a {declared}, b TEXT)")
            connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
            connection.execute("DELETE FROM t WHERE n % 5 = 4")
            connection.execute("CREATE VIEW v AS SELECT * FROM t")
            connection.execute(f"CREATE TABLE w (n INTEGER, a {declared}, b TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID")
            connection.executemany("INSERT OR IGNORE INTO w VALUES (?, ?, ?)", [row for row in rows if row[1]])
        connection.close()
        source = open_source(f"sqlite:///{path}")
        for table in ("t", "v", "w"):
            assert_addresses_hold(source, table, key=["a", "b"], where=where, size=size)
        source.close()


@FEW
@given(keys=KEYS, declared=st.sampled_from(["VARCHAR", "VARCHAR COLLATE NOCASE"]), where=WHERES, size=SIZES)
def test_duckdb(keys, declared, where, size):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.duckdb"
        with duckdb.connect(str(path)) as connection:
            connection.execute(f"CREATE TABLE t (n INTEGER, a {declared}, b VARCHAR)")
            if keys:
                connection.executemany("INSERT INTO t VALUES (?, ?, ?)", [(n, a, b) for n, (a, b) in enumerate(keys)])
            connection.execute("DELETE FROM t WHERE n % 5 = 4")
            connection.execute("CREATE VIEW v AS SELECT * FROM t")
        source = open_source(f"duckdb:///{path}")
        for table in ("t", "v"):
            assert_addresses_hold(source, table, key=["a", "b"], where=where, size=size)
        source.close()


@FEW
@given(
    parts=st.lists(st.lists(TEXT, max_size=15), min_size=1, max_size=3),
    packed=st.booleans(),
    where=st.sampled_from([None, "CAST(n AS INTEGER) % 2 = 0"]),
    size=SIZES,
)
def test_csv(parts, packed, where, size):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "t").mkdir()
        n = 0
        for at, texts in enumerate(parts):
            written = io.StringIO()
            writer = csv.writer(written, lineterminator="\n")
            writer.writerow(["n", "a"])
            for text in texts:
                writer.writerow([n, text])
                n += 1
            content = written.getvalue().encode()
            file = Path(folder) / "t" / f"{at}.csv{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(content) if packed else content)
        source = open_source(f"files:{folder}")
        assert_addresses_hold(source, "t", key=["n"], where=where, size=size)
        source.close()


@FEW
@given(
    rows=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    group=st.integers(1, 9),
    where=st.sampled_from([None, "n % 3 = 0"]),
    size=SIZES,
)
def test_parquet(rows, group, where, size):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "t").mkdir()
        first = 0
        for at, count in enumerate(rows):
            table = pa.table({"n": pa.array(range(first, first + count), pa.int64())})
            pq.write_table(table, Path(folder) / "t" / f"{at}.parquet", row_group_size=group)
            first += count
        source = open_source(f"files:{folder}")
        assert_addresses_hold(source, "t", key=["n"], where=where, size=size)
        source.close()


@pytest.mark.parametrize("where", [None, "n % 2 = 0"])
@pytest.mark.parametrize("table", ["plain", "whole", "pair", "text", "view", "parted"])
def test_postgresql(postgres, database, table, where):
    with psycopg.connect(postgres.dsn(database), autocommit=True) as connection:
        connection.execute("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
        rows = (
            "SELECT n, CASE WHEN n % 11 = 0 THEN NULL WHEN n % 3 = 0 THEN 'Å''|' || n / 6 ELSE 'å''|' || n / 6 END AS a"
            ", n / 2.0 AS b FROM generate_series(0, 79) AS n"
        )
        connection.execute(f"CREATE TABLE plain AS {rows}")
        connection.execute("CREATE VIEW view AS SELECT * FROM plain")
        connection.execute("CREATE TABLE whole (n bigint, a text, b numeric, id int PRIMARY KEY)")
        connection.execute(f"INSERT INTO whole SELECT n, a, b, 1000 - n FROM ({rows}) AS r")
        connection.execute("CREATE TABLE pair (n int, a text COLLATE loose, b numeric(9,1), PRIMARY KEY (b, n))")
        connection.execute(f"INSERT INTO pair {rows}")
        connection.execute("CREATE TABLE text (n int, a text COLLATE loose, b float8)")
        connection.execute(f"INSERT INTO text {rows}")
        connection.execute("CREATE TABLE parted (n int, a text, b numeric) PARTITION BY RANGE (n)")
        connection.execute("CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (33)")
        connection.execute("CREATE TABLE high PARTITION OF parted FOR VALUES FROM (33) TO (99)")
        connection.execute(f"INSERT INTO parted {rows}")
    source = open_source(postgres.url(database))
    for size in (7, 1000):
        assert_addresses_hold(source, table, key=["a", "b"], where=where, size=size)
    assert_addresses_hold(source, table, key=["b"], where=where, size=30)
    source.close()
