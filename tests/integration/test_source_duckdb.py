"""DuckDB files as a source."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest

from forcelift.errors import SourceError, SourceUnavailable
from forcelift.rules import frame_of, plain_text
from forcelift.source import open_source


@pytest.fixture
def make(tmp_path):
    """Make a database from statements, and open it as a source."""
    sources = []

    def build(*statements: str):
        path = tmp_path / "data.duckdb"
        with duckdb.connect(str(path)) as connection:
            for statement in statements:
                connection.execute(statement)
        sources.append(open_source(f"duckdb:///{path}"))
        return sources[-1]

    yield build
    for source in sources:
        source.close()


def read(source, table, columns, **options) -> pa.Table:
    options = {"where": None, **options}
    batches = list(source.read(table, columns=columns, **options))
    for batch in batches:
        batch.validate(full=True)
    return pa.Table.from_batches(batches) if batches else pa.table({})


def test_every_type_arrives_as_described(make):
    values = {
        "ti": ("TINYINT", "-5", -5),
        "ui": ("UINTEGER", "4000000000", 4_000_000_000),
        "bi": ("BIGINT", "-9223372036854775808", -(2**63)),
        "ub": ("UBIGINT", "18446744073709551615", Decimal(2**64 - 1)),
        "hi": ("HUGEINT", "99999999999999999999999999999999999999", Decimal("9" * 38)),
        "de": ("DECIMAL(38,10)", "1.0000000001", Decimal("1.0000000001")),
        "fl": ("FLOAT", "0.1", 0.1),
        "db": ("DOUBLE", "0.1", 0.1),
        "bo": ("BOOLEAN", "true", True),
        "tx": ("VARCHAR", "'กข''x'", "กข'x"),
        "bl": ("BLOB", "'\\xFF\\x00'::BLOB", b"\xff\x00"),
        "da": ("DATE", "'9999-12-31'", dt.date(9999, 12, 31)),
        "ts": ("TIMESTAMP", "'2024-02-29 23:59:59.123456'", dt.datetime(2024, 2, 29, 23, 59, 59, 123456)),
        "se": ("TIMESTAMP_S", "'2024-02-29 23:59:59'", dt.datetime(2024, 2, 29, 23, 59, 59)),
        "tz": ("TIMESTAMPTZ", "'2024-01-01 07:00:00+07'", dt.datetime(2024, 1, 1, tzinfo=dt.UTC)),
        "ti2": ("TIME", "'10:11:12'", "10:11:12"),
        "uu": ("UUID", "'00000000-0000-0000-0000-00000000000a'", "00000000-0000-0000-0000-00000000000a"),
        "en": ("ENUM('a', 'b')", "'b'", "b"),
        "iv": ("INTERVAL", "INTERVAL 1 DAY", "1 day"),
        "bt": ("BIT", "'1010'", "1010"),
    }
    declared = ", ".join(f"{name} {kind}" for name, (kind, _, _) in values.items())
    source = make(
        f"CREATE TABLE t ({declared}, li INTEGER[])",
        f"INSERT INTO t ({', '.join(values)}) SELECT {', '.join('NULL' for _ in values)} FROM range(3000)",
        f"INSERT INTO t VALUES ({', '.join(text for _, text, _ in values.values())}, [1])",
    )
    table = read(source, "t", list(values), order_by=["ti"])
    described = {column.name: column.arrow for column in source.describe("t").columns}
    assert {field.name: field.type for field in table.schema} == {name: described[name] for name in values}
    assert table.slice(0, 1).to_pylist() == [{name: value for name, (_, _, value) in values.items()}]
    assert all(column.null_count == 3000 for column in table.columns)
    with pytest.raises(SourceError, match=r"`li` .* INTEGER\[\], which cannot be read"):
        source.read("t", columns=["li"], where=None)


def test_dates_beyond_pythons_range_survive(make):
    source = make(
        "CREATE TABLE t (d DATE, a TIMESTAMP)", "INSERT INTO t VALUES ('20000-01-01', '20000-01-01 00:00:00')"
    )
    table = read(source, "t", ["d", "a"])
    days = 10_957 + 45 * 146_097  # to 2000-01-01, and then 18,000 years of 146,097 days in 400
    assert table.column("d").cast(pa.int32()).to_pylist() == [days]
    assert table.column("a").cast(pa.int64()).to_pylist() == [days * 86_400_000_000]


def test_numbers_and_times_that_arrow_cannot_hold_come_as_text_beside_the_others(make):
    wide = 2**127 - 1
    source = make(
        "CREATE TABLE t (h HUGEINT, u UHUGEINT, n TIMESTAMP_NS)",
        f"INSERT INTO t VALUES (1, 2, '2024-01-31'), ({wide}, {2 * wide}, 'infinity'), (NULL, NULL, NULL)",
    )
    (batch,) = source.read("t", columns=["h", "u", "n"], where=None)
    assert frame_of(batch).rows() == [
        ("1", "2", "2024-01-31T00:00:00"),
        (str(wide), str(2 * wide), "infinity"),
        (None,) * 3,
    ]
    (batch,) = source.read("t", columns=["h"], where="h = 1")
    assert batch.column("h").type == pa.decimal128(38, 0)
    (batch,) = source.locate(
        "t", columns=["u", "h"], where=None, predicate={"by": "rowid", "from": None, "below": None}, key=[]
    )
    assert [len(row) for row in frame_of(batch).rows()] == [3, 3, 3]
    assert frame_of(source.sample("t", columns=["h"], where=None, rows=10)).height == 3


@pytest.mark.parametrize("kind", ["DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMPTZ"])
def test_dates_without_end_are_held_where_all_can_calculate_with_them(make, kind):
    source = make(
        f"CREATE TABLE t (v {kind})",
        "INSERT INTO t VALUES ('infinity'), ('-infinity'), ('290000-01-01'), ('2024-01-31'), (NULL)",
    )
    (batch,) = source.read("t", columns=["v"], where=None)
    found = plain_text(frame_of(batch)["v"]).to_list()
    assert [text and text[:12].rstrip("T").removesuffix("T0") for text in found] == [
        "+99999-12-31",
        "-4712-01-01",
        "+99999-12-31",
        "2024-01-31",
        None,
    ]


def test_a_where_that_fails(make):
    source = make("CREATE TABLE t (v VARCHAR)", "INSERT INTO t VALUES ('secret')")
    for where, said in (
        ("nope = 1", '"nope" not found'),
        ("(v = ", "syntax error"),
        ("v::INT = 1", "ConversionException"),
    ):
        for call in (
            lambda where=where: source.count("t", where=where),
            lambda where=where: list(source.read("t", columns=["v"], where=where)),
            lambda where=where: source.plan_chunks("t", where=where, key=["v"], rows_per_chunk=10),
        ):
            with pytest.raises(SourceError, match=said) as raised:
                call()
            assert "`t`" in raised.value.message
            assert "secret" not in raised.value.message


def test_schemas_views_keys_and_odd_names(make):
    source = make(
        'CREATE TABLE "ตา ""ราง" ("ก ข" INTEGER NOT NULL, rowid VARCHAR, PRIMARY KEY ("ก ข"), UNIQUE (rowid))',
        """INSERT INTO "ตา ""ราง" SELECT range, 'r' || range FROM range(10)""",
        "CREATE SCHEMA other",
        "CREATE TABLE other.t AS SELECT 1 AS a",
        "CREATE VIEW v AS SELECT 2 AS a",
    )
    assert source.tables() == sorted(["other.t", "v", 'ตา "ราง'])
    table = source.describe('ตา "ราง')
    assert table.primary_key == ("ก ข",)
    assert table.unique_keys == (("rowid",),)
    assert table.rows_estimate == 10
    assert [column.nullable for column in table.columns] == [False, True]
    chunks = source.plan_chunks(table.name, where=None, key=["ก ข"], rows_per_chunk=4)
    sizes = [source.count(table.name, where=None, predicate=chunk.predicate) for chunk in chunks]
    assert (sizes, [chunk.rows_estimate for chunk in chunks]) == ([4, 4, 2], [4, 4, 2])
    assert read(source, "other.t", ["a"]).column("a").to_pylist() == [1]
    assert read(source, "v", ["a"]).column("a").to_pylist() == [2]
    with pytest.raises(SourceError, match="no table `V`") as raised:
        source.describe("V")
    assert "`v`" in str(raised.value.hint)


def test_nothing_is_created(tmp_path):
    with pytest.raises(SourceError, match="there is no file"):
        open_source(f"duckdb:///{tmp_path / 'missing.duckdb'}")
    (tmp_path / "text.duckdb").write_text("this is no database")
    with pytest.raises(SourceError, match="is not a DuckDB database"):
        open_source(f"duckdb:///{tmp_path / 'text.duckdb'}")
    (tmp_path / "empty.duckdb").touch()
    with pytest.raises(SourceError, match="is not a DuckDB database"):
        open_source(f"duckdb:///{tmp_path / 'empty.duckdb'}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.duckdb", "text.duckdb"]


def test_a_file_that_another_program_writes_may_be_free_later(tmp_path):
    path = tmp_path / "data.duckdb"
    program = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); c.execute('CREATE TABLE t (v INT)');"
        "print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == b"open\n"
        with pytest.raises(SourceUnavailable, match="cannot be read"):
            open_source(f"duckdb:///{path}")
        writer.stdin.close()
    source = open_source(f"duckdb:///{path}")
    assert source.count("t", where=None) == 0
    source.close()


def test_two_sources_on_one_file_and_many_threads(make, tmp_path):
    source = make("CREATE TABLE t AS SELECT range AS id FROM range(300_000)")
    second = open_source(f"duckdb:///{tmp_path / 'data.duckdb'}")
    chunks = source.plan_chunks("t", where="id % 3 = 0", key=["id"], rows_per_chunk=10_000)
    assert 10 <= len(chunks) <= 12

    def ids(at):
        reader = (source, second)[at % 2]
        options = {"predicate": chunks[at].predicate, "where": "id % 3 = 0", "order_by": ["id"]}
        return read(reader, "t", ["id"], **options).column("id").to_pylist()

    with ThreadPoolExecutor(4) as pool:
        assert [n for found in pool.map(ids, range(len(chunks))) for n in found] == list(range(0, 300_000, 3))
    second.close()


def test_the_first_batch_comes_before_the_last_row_is_read(make):
    source = make(
        "CREATE TABLE n AS SELECT range AS id FROM range(5_000_000)",
        "CREATE VIEW t AS SELECT CASE WHEN id = 4_999_999 THEN error('end') ELSE id END AS id FROM n",
    )
    batches = source.read("t", columns=["id"], where=None, batch_rows=1000)
    assert next(batches).num_rows > 0
    with pytest.raises(SourceError, match="cannot be read"):
        list(batches)


def test_nothing_is_written_beside_the_source(make, tmp_path):
    source = make("CREATE TABLE t AS SELECT hash(range)::VARCHAR AS v FROM range(200_000)")
    assert read(source, "t", ["v"], order_by=["v"]).num_rows == 200_000
    assert [path.name for path in tmp_path.iterdir()] == ["data.duckdb"]


def test_samples_come_from_all_over(make):
    source = make("CREATE TABLE t AS SELECT range AS id FROM range(100_000)", "CREATE VIEW v AS SELECT * FROM t")
    for name, where in (("t", None), ("v", None), ("t", "id % 2 = 0")):
        ids = source.sample(name, columns=["id"], where=where, rows=200).column("id").to_pylist()
        assert len(set(ids)) == 200
        assert min(ids) < 10_000
        assert max(ids) > 90_000
        assert where is None or all(n % 2 == 0 for n in ids)
    assert source.sample("t", columns=["id"], where="id < 0", rows=5).num_rows == 0


def test_the_fingerprint_follows_the_file(make, tmp_path):
    source = make("CREATE TABLE t AS SELECT 1 AS a")
    before = source.fingerprint("t")
    source.close()
    with duckdb.connect(str(tmp_path / "data.duckdb")) as connection:
        connection.execute("INSERT INTO t SELECT range FROM range(100000)")
    again = open_source(f"duckdb:///{tmp_path / 'data.duckdb'}")
    assert again.fingerprint("t") != before
    assert again.snapshot() is None
    again.close()


def test_nobody_writes_while_the_source_is_open(make, tmp_path):
    source = make("CREATE TABLE t AS SELECT 1 AS a")
    second = open_source(f"duckdb:///{tmp_path / 'data.duckdb'}")
    second.close()
    source.fingerprint("t")
    command = [sys.executable, "-c", "import duckdb, sys; duckdb.connect(sys.argv[1])", str(tmp_path / "data.duckdb")]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
    assert source.count("t", where=None) == 1
    source.close()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_sort_of_more_than_the_limit_spills(tmp_path):
    """Two readers sort at once, each more than a small budget's limit: below a floor DuckDB gives up instead."""
    path = tmp_path / "data.duckdb"
    with duckdb.connect(str(path)) as connection:
        columns = "i AS id, hash(i) AS place, repeat(md5(i::VARCHAR), 15) AS text"
        connection.execute(f"CREATE TABLE t AS SELECT {columns} FROM range(300000) AS r(i)")
    source = open_source(f"duckdb:///{path}", memory_mb=32, threads=1)
    try:
        chunks = source.plan_chunks("t", where=None, key=["id"], rows_per_chunk=150_000)

        def places(predicate) -> pa.Table:
            options = {"where": None, "predicate": predicate, "order_by": ["place"], "batch_rows": 20_000}
            batches = list(source.read("t", columns=["place", "text"], **options))
            return pa.Table.from_batches(batches)

        with ThreadPoolExecutor(2) as pool:
            for found in pool.map(places, [chunk.predicate for chunk in chunks]):
                assert found["place"].to_pylist() == sorted(found["place"].to_pylist())
        assert len(chunks) == 2
    finally:
        source.close()
