"""PostgreSQL as a source, on a real server: exact values, one snapshot, honest errors, slices of any table."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import psycopg
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rules_support import AS_OF, compiled, describe_field, object_of, source_column, texts_of

from forcelift.errors import ExitCode, SourceChanged, SourceError, SourceUnavailable
from forcelift.protocols.source import BROKEN_TEXT, ColumnKind
from forcelift.rules import ChunkCleaner, plain_text
from forcelift.source import open_source

pytest_plugins = ["tests.postgres_support"]


@pytest.fixture
def run(postgres, database):
    """Run statements in the test's database, each committed."""

    def execute(*statements: str, name: str = database):
        with psycopg.connect(postgres.dsn(name), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else None

    return execute


@pytest.fixture
def make(postgres, database, run):
    """Run statements, then open the database as a source."""
    sources = []

    def build(*statements: str, url: str | None = None, **options):
        run("SELECT 1", *statements)
        sources.append(open_source(url or postgres.url(database), **options))
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


def column_of(source, table, column, **options) -> list:
    found = read(source, table, [column], **options)
    return found.column(column).to_pylist() if found.num_columns else []


LONG = "1234567890123456789012345678901234567890.10"
LAST = datetime(2024, 2, 29, 23, 59, 59)
TYPES = [
    # declared, a value, kind, Arrow type, what arrives
    ("smallint", "-32768", "integer", pa.int64(), -32768),
    ("integer", "2147483647", "integer", pa.int64(), 2**31 - 1),
    ("bigint", "-9223372036854775808", "integer", pa.int64(), -(2**63)),
    ("oid", "4294967295", "integer", pa.int64(), 2**32 - 1),
    ("numeric(12,2)", "-1234567890.10", "decimal", pa.decimal128(12, 2), Decimal("-1234567890.10")),
    ("numeric(18,18)", "0.000000000000000001", "decimal", pa.decimal128(18, 18), Decimal("1e-18")),
    ("numeric(18,0)", "-999999999999999999", "decimal", pa.decimal128(18, 0), Decimal(-(10**18) + 1)),
    ("numeric(38,10)", "9" * 28 + ".0123456789", "decimal", pa.decimal128(38, 10), Decimal("9" * 28 + ".0123456789")),
    ("numeric(5,-3)", "12345678", "decimal", pa.decimal128(8, 0), Decimal(12346000)),
    ("numeric(3,5)", "0.00123", "decimal", pa.decimal128(5, 5), Decimal("0.00123")),
    ("numeric", "1234567890123456789012345678901234567890.10", "text", pa.string(), LONG),
    ("numeric(50,2)", "1e40", "text", pa.string(), "1" + "0" * 40 + ".00"),
    ("money", "12.5", "text", pa.string(), "12.50"),
    ("real", "0.1", "float", pa.float64(), 0.1),
    ("double precision", "1e308", "float", pa.float64(), 1e308),
    ("boolean", "yes", "boolean", pa.bool_(), True),
    ("text", " ก\t\n\"',\U0001f600 ", "text", pa.string(), " ก\t\n\"',\U0001f600 "),
    ("varchar(20)", "ab ", "text", pa.string(), "ab "),
    ("char(5)", "ab", "text", pa.string(), "ab"),
    ("name", "x", "text", pa.string(), "x"),
    ("bytea", "\\x00ff", "binary", pa.binary(), b"\x00\xff"),
    ("date", "2024-02-29", "date", pa.date32(), date(2024, 2, 29)),
    ("timestamp", "2024-02-29 23:59:59.123456", "timestamp", pa.timestamp("us"), LAST.replace(microsecond=123456)),
    ("timestamptz", "2024-03-01 06:59:59+07", "instant", pa.timestamp("us", "UTC"), LAST.replace(tzinfo=UTC)),
    ("time", "23:59:59.5", "text", pa.string(), "23:59:59.5"),
    ("timetz", "23:59:59+07", "text", pa.string(), "23:59:59+07"),
    ("interval", "1 year 2 days 03:00", "text", pa.string(), "1 year 2 days 03:00:00"),
    ("json", '{"b": 1,  "a": "ก"}', "text", pa.string(), '{"b": 1,  "a": "ก"}'),
    ("jsonb", '{"b": 1,  "a": "ก"}', "text", pa.string(), '{"a": "ก", "b": 1}'),
    ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "text", pa.string(), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("xml", "<a>ก</a>", "text", pa.string(), "<a>ก</a>"),
    ("inet", "10.0.0.1/8", "text", pa.string(), "10.0.0.1/8"),
    ("bit(3)", "101", "text", pa.string(), "101"),
    ("mood", "happy", "text", pa.string(), "happy"),
    ("price", "3.5", "decimal", pa.decimal128(9, 2), Decimal("3.50")),
    ("short", "ab", "text", pa.string(), "ab"),
]  # fmt: skip
DOMAINS = (
    "CREATE TYPE mood AS ENUM ('happy', 'sad')",
    "CREATE DOMAIN base_price AS numeric(9,2)",
    "CREATE DOMAIN price AS base_price CHECK (VALUE > 0)",
    "CREATE DOMAIN short AS varchar(3)",
)


def test_every_type_arrives_as_described(make, run):
    columns = ", ".join(f"c{at} {declared}" for at, (declared, *_) in enumerate(TYPES))
    run(*DOMAINS, f"CREATE TABLE t ({columns}, n serial)")
    quoted = ", ".join("'" + value.replace("'", "''") + "'" for _, value, *_ in TYPES)
    names = [f"c{at}" for at in range(len(TYPES))]
    run(f"INSERT INTO t ({', '.join(names)}) VALUES ({quoted})", "INSERT INTO t DEFAULT VALUES")
    source = make()
    described = source.describe("t")
    assert [(c.kind, c.arrow) for c in described.columns[:-1]] == [(kind, arrow) for _, _, kind, arrow, _ in TYPES]
    table = read(source, "t", names, order_by=["n"])
    assert [field.type for field in table.schema] == [arrow for _, _, _, arrow, _ in TYPES]
    first, second = table.to_pylist()
    assert list(first.values()) == [expected for *_, expected in TYPES]
    assert set(second.values()) == {None}
    # The same again with the columns in another order: no column depends on its place.
    backwards = read(source, "t", names[::-1], order_by=["n"])
    assert backwards.to_pylist()[0] == first
    assert (described.column("n").nullable, described.column("c0").nullable) == (False, True)
    price = described.column(f"c{len(TYPES) - 2}")
    assert (price.declared, price.precision, price.scale) == ("price", 9, 2)


def test_types_that_cannot_be_read_are_named(make):
    source = make(
        "CREATE TYPE pair AS (a int, b text)",
        "CREATE TABLE t (id int PRIMARY KEY, tags text[], p pair, r int4range, m int4multirange, gone int)",
        "ALTER TABLE t DROP COLUMN gone",
        "INSERT INTO t VALUES (1, '{a,b}')",
    )
    kinds = {column.name: column.kind for column in source.describe("t").columns}
    assert kinds == {"id": "integer", **dict.fromkeys(["tags", "p", "r", "m"], ColumnKind.UNSUPPORTED)}
    with pytest.raises(SourceError, match=r"column `tags` of table `t` is declared text\[\], which cannot be read"):
        source.read("t", columns=["id", "tags"], where=None)
    assert column_of(source, "t", "id") == [1]


FAR_DATES = ["infinity", "-infinity", "4714-11-24 BC", "0044-03-15 BC", "9999-12-31", "150000-01-01", "1700-01-01"]


def test_dates_without_end_reach_the_rules_as_dates_out_of_range(make):
    rows = ", ".join(f"({at}, '{value}', '{value}', '{value}')" for at, value in enumerate(FAR_DATES))
    source = make("CREATE TABLE t (n int, d date, s timestamp, z timestamptz)", f"INSERT INTO t VALUES {rows}")
    frame = pl.from_arrow(read(source, "t", ["d", "s", "z"], order_by=["n"]))
    described = source.describe("t")
    for name, target in (("d", "date"), ("s", "datetime"), ("z", "datetime"), ("d", "string")):
        assert frame[name].dt.year().to_list() == [99999, -4712, -4712, -43, 9999, 99999, 1700], name
        field = describe_field("Far__c", target, length=40)
        columns = (source_column("ID", ColumnKind.INTEGER), described.column(name))
        fields = {"ID": {"field": "Key__c"}, name: {"field": "Far__c", "personal": False}}
        table = compiled(fields, columns=columns, describe=object_of(field), timezone="UTC")
        cleaner = ChunkCleaner(table, chunk_no=0, as_of=AS_OF, duplicates=None, parents={})
        cleaned = cleaner.clean(frame.select(pl.int_range(pl.len()).alias("ID"), name))
        *far, near = texts_of(cleaned, "Far__c")
        if target == "string":
            assert far[:2] == ["+99999-12-31", "-4712-01-01"]
        else:
            assert set(far) == {"REJECTED_INVALID_DATE"}, (name, target)
        assert near == {"date": "1700-01-01", "string": "1700-01-01", "datetime": "1700-01-01T00:00:00Z"}[target]


def test_numbers_that_are_none(make):
    source = make(
        "CREATE TABLE t (id int PRIMARY KEY, n numeric, f float8, d numeric(5,2), big numeric(30,2))",
        "INSERT INTO t VALUES (1, 'NaN', 'NaN', 1, 1), (2, 'Infinity', '-Infinity', 1, 1), (3, '-0.00', '-0', 1, 1)",
        "CREATE TABLE bad AS SELECT * FROM t",
        "UPDATE bad SET d = 'NaN' WHERE id = 1",
        "UPDATE bad SET big = 'NaN' WHERE id = 3",
    )
    assert column_of(source, "t", "n", order_by=["id"]) == ["NaN", "Infinity", "0.00"]
    floats = column_of(source, "t", "f", order_by=["id"])
    assert [str(value) for value in floats] == ["nan", "-inf", "-0.0"]
    assert column_of(source, "bad", "d", where="id > 1", order_by=["id"]) == [Decimal(1), Decimal(1)]
    batches = list(source.read("bad", columns=["id", "d", "big"], where=None, order_by=["id"]))
    assert {batch.schema.field("d").type for batch in batches} == {pa.decimal128(5, 2)}
    frame = pl.concat(pl.from_arrow(batch) for batch in batches)
    assert plain_text(frame["d"]).to_list() == ["NaN", "1", "1"]
    assert plain_text(frame["big"]).to_list() == ["1", "1", "NaN"]
    assert source.sample("bad", columns=["d", "big"], where=None, rows=3).num_rows == 3


def test_a_decimal_that_is_no_number_is_refused_and_the_other_rows_go_on(make):
    source = make(
        "CREATE TABLE t (id int PRIMARY KEY,"
        " a numeric(5,2), b numeric(3), c numeric(38), d numeric(30,2), e numeric(4,-2))",
        f"INSERT INTO t VALUES (1, 999.99, -999, {'9' * 38}, 0.5, -999900), (2, NULL, NULL, NULL, NULL, NULL),"
        f" (3, -999.99, 0, -{'9' * 38}, -0.5, 100)",
        "INSERT INTO t VALUES (4, 'NaN', 'NaN', 'NaN', 'NaN', 'NaN')",
    )
    number = describe_field("Far__c", "double", precision=18, scale=2)
    text = describe_field("Far__c", "string", length=40)
    columns = (source_column("ID", ColumnKind.INTEGER), *source.describe("t").columns)
    frame = pl.concat(
        pl.from_arrow(batch) for batch in source.read("t", columns=["id", *"abcde"], where=None, order_by=["id"])
    ).rename({"id": "ID"})
    nines = "9" * 38
    texts = [("999.99", "-999.99"), ("-999", "0"), (nines, f"-{nines}"), ("0.5", "-0.5"), ("-999900", "100")]
    for name, (first, third) in zip("abcde", texts, strict=True):
        for field in (number, text):
            fields = {"ID": {"field": "Key__c"}, name: {"field": "Far__c", "personal": False}}
            table = compiled(fields, columns=columns, describe=object_of(field))
            cleaner = ChunkCleaner(table, chunk_no=0, as_of=AS_OF, duplicates=None, parents={})
            ends = texts_of(cleaner.clean(frame.select("ID", name)), "Far__c")
            if field is text:
                assert ends == [first, None, third, "NaN"]
            elif name == "c":
                assert ends == ["REJECTED_NUMBER_SIZE", None, "REJECTED_NUMBER_SIZE", "REJECTED_INVALID_NUMBER"]
            else:
                assert ends == [first, None, third, "REJECTED_INVALID_NUMBER"]


def test_session_settings_of_the_role_change_nothing(make, run, postgres, database):
    run(
        "CREATE TABLE t (z timestamptz, r real, i interval, d date)",
        "INSERT INTO t VALUES ('2024-01-01 00:00+00', 0.1, '1 day', '2024-02-01')",
        'CREATE TABLE k (n int, s text COLLATE "C", b bytea, d date, PRIMARY KEY (s, b, d))',
        r"INSERT INTO k VALUES (1, 'a\', '\x5c27', '2024-02-01'), (2, 'a\', '\x00', '2024-01-02')",
        r"INSERT INTO k VALUES (3, 'a\', '\xff', '2024-02-01')",
    )
    for setting in (
        "TimeZone = 'Asia/Bangkok'",
        "DateStyle = 'German'",
        "extra_float_digits = 0",
        "IntervalStyle = 'iso_8601'",
        "statement_timeout = '5s'",
        "client_encoding = 'LATIN1'",
        "standard_conforming_strings = off",
        "bytea_output = 'escape'",
    ):
        run(f"ALTER DATABASE {database} SET {setting}")
    source = make()
    assert read(source, "t", ["z", "r", "i", "d"]).to_pylist() == [
        {"z": datetime(2024, 1, 1, tzinfo=UTC), "r": 0.1, "i": "1 day", "d": date(2024, 2, 1)}
    ]
    assert source.count("t", where="current_setting('statement_timeout') = '0'") == 1
    assert slices(source, "k", rows=1) == [[2], [1], [3]]
    assert abs((source.now() - datetime.now(UTC)).total_seconds()) < 60


def test_every_read_sees_the_snapshot_of_the_opening(make, run):
    source = make("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    run("DELETE FROM t WHERE n > 500", "INSERT INTO t SELECT generate_series(2001, 9000)", "UPDATE t SET n = -n")
    expected = list(range(1, 1001))
    barrier = threading.Barrier(4)

    def work(_):
        batches = source.read("t", columns=["n"], where=None, batch_rows=10)
        first = next(batches).column(0).to_pylist()
        barrier.wait(30)  # all four are in the middle of a read at once
        return sorted(first + [n for batch in batches for n in batch.column(0).to_pylist()])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [expected] * 4
    assert source.count("t", where=None) == 1000
    assert source.snapshot()
    later = make()
    assert later.count("t", where=None) == 7500
    assert later.snapshot() != source.snapshot()
    assert source.fingerprint("t") == later.fingerprint("t")


def test_nothing_can_be_written(make, run):
    source = make(
        "CREATE TABLE t AS SELECT 1 AS n",
        "CREATE FUNCTION f() RETURNS bool LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING true'",
    )
    with pytest.raises(SourceError):
        source.count("t", where="f()")
    assert run("SELECT count(*) FROM t") == [(1,)]
    assert run("SELECT DISTINCT application_name FROM pg_stat_activity WHERE application_name = 'forcelift'")


def test_lost_holder_ends_new_reads_and_never_mixes_snapshots(make, run):
    source = make("CREATE TABLE t AS SELECT generate_series(1, 10) AS n")
    assert source.count("t", where=None) == 10
    run(
        "INSERT INTO t VALUES (11)",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'forcelift'",
    )
    with pytest.raises(SourceUnavailable) as caught:
        source.count("t", where=None)
    assert caught.value.exit_code is ExitCode.SOURCE
    with pytest.raises(SourceChanged, match="is gone") as changed:
        source.count("t", where=None)
    assert "--resume" in changed.value.hint


def test_server_that_dies_in_the_middle_of_a_read(make, run):
    source = make("CREATE TABLE t AS SELECT n, repeat('x', 500) AS s FROM generate_series(1, 100000) n")
    batches = source.read("t", columns=["n", "s"], where=None)
    next(batches)
    run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'forcelift'")
    with pytest.raises(SourceUnavailable):
        list(batches)


def test_servers_that_do_not_answer_or_let_nobody_in(postgres, database, run, tmp_path):
    folder = postgres.folder
    with pytest.raises(SourceUnavailable, match="cannot be reached: Connection refused") as caught:
        open_source("postgresql://127.0.0.1:1/db", user="me", password="geheim")
    assert "geheim" not in str(caught.value) + caught.value.hint + repr(caught.value.__cause__)
    with pytest.raises(SourceUnavailable, match="cannot be reached"):
        open_source("postgresql://nowhere.invalid/db")
    with pytest.raises(SourceError, match="no such database"):
        open_source(postgres.url("nowhere"))
    with pytest.raises(SourceError, match="no such user"):
        open_source(f"postgresql:///{database}?host={folder}", user="nobody")
    with pytest.raises(SourceError, match="a part that libpq does not know"):
        open_source(f"postgresql://me@/{database}?host={folder}&sslmod=require")
    with pytest.raises(SourceError, match="a value that libpq does not take"):
        open_source("postgresql://host:port/db")


def test_wrong_and_right_passwords(postgres, database, run):
    password = "p@ss/w:rd %?&"
    run("DROP ROLE IF EXISTS guarded", f"CREATE ROLE guarded LOGIN PASSWORD '{password}'")
    rules = postgres.data / "pg_hba.conf"
    before = rules.read_text()
    url = f"postgresql:///{database}?host={postgres.folder}"
    try:
        rules.write_text("local all guarded scram-sha-256\n" + before)
        run("SELECT pg_reload_conf()")
        source = open_source(url, user="guarded", password=password)
        assert source.tables() == []
        source.close()
        with pytest.raises(SourceError, match="password is wrong") as caught:
            open_source(url, user="guarded", password="wr0ng")
        assert not isinstance(caught.value, SourceUnavailable)
        assert "wr0ng" not in str(caught.value) + str(caught.value.__cause__)
        with pytest.raises(SourceError, match="none was given"):
            open_source(url, user="guarded")
    finally:
        rules.write_text(before)
        run("SELECT pg_reload_conf()", "DROP ROLE guarded")


def test_tables_that_may_not_be_read(make, run, postgres, database):
    run(
        "DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN",
        "CREATE TABLE open (id int PRIMARY KEY, s text, secret text)", "CREATE TABLE closed (id int)",
        "CREATE TABLE policed (id int)", "ALTER TABLE policed ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY p ON policed USING (id > 1)", "INSERT INTO policed VALUES (1), (2)",
        "GRANT SELECT ON policed TO reader", "GRANT SELECT (id, s) ON open TO reader",
    )  # fmt: skip
    source = make(url=f"postgresql:///{database}?host={postgres.folder}", user="reader")
    assert source.tables() == ["open", "policed"]
    assert source.count("open", where=None) == 0
    with pytest.raises(SourceError, match="permission denied for table open") as caught:
        read(source, "open", ["secret"])
    assert "GRANT SELECT" in caught.value.hint
    with pytest.raises(SourceError, match="may not read table `closed`") as caught:
        source.describe("closed")
    assert 'GRANT SELECT ON "public"."closed"' in caught.value.hint
    # A policy would leave rows out in silence.
    with pytest.raises(SourceError, match="row-level security"):
        source.count("policed", where=None)
    run("DROP OWNED BY reader", "ALTER ROLE reader BYPASSRLS", "DROP TABLE policed")


def test_where_is_put_in_parentheses_and_its_faults_are_told(make):
    source = make(
        "CREATE TABLE t (id int PRIMARY KEY, s text)", "INSERT INTO t VALUES (1, 'geheim'), (2, 'b'), (3, 'c')"
    )
    assert column_of(source, "t", "id", where="id = 1 OR id = 2 -- said", predicate=None) == [1, 2]
    assert source.count("t", where="t.id = 1 OR id = 2", predicate={"by": "null", "columns": ["id"]}) == 0
    with pytest.raises(SourceError, match='column "nope" does not exist') as caught:
        source.count("t", where="nope = 1")
    assert caught.value.exit_code is ExitCode.SOURCE
    with pytest.raises(SourceError, match="syntax error"):
        source.count("t", where="id = = 1")
    with pytest.raises(SourceError, match="a value that could not be converted") as caught:
        read(source, "t", ["id"], where="s::int = 1")
    assert "geheim" not in str(caught.value)
    # A failed statement does not spoil the next one.
    assert source.count("t", where=None) == 3


def test_names_schemas_views_and_keys(make):
    source = make(
        'CREATE SCHEMA "Sales Dept"',
        'CREATE TABLE "Sales Dept"."Größe ""x"" " ("Key 1" int, "k2" varchar(5), "ส" text NOT NULL,'
        ' PRIMARY KEY ("k2", "Key 1"), UNIQUE ("ส"))',
        """INSERT INTO "Sales Dept"."Größe ""x"" " VALUES (1, '''', 'a'), (2, '''', 'b'), (1, 'z', 'c')""",
        "CREATE TABLE plain (id int, u int UNIQUE)",
        "CREATE UNIQUE INDEX ON plain (id) WHERE u > 1",
        "CREATE UNIQUE INDEX ON plain (abs(id))",
        "CREATE VIEW v AS SELECT * FROM plain",
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM plain",
    )
    odd = 'Sales Dept.Größe "x" '
    assert source.tables() == sorted([odd, "m", "plain", "v"])
    described = source.describe(odd)
    assert described.primary_key == ("k2", "Key 1")
    assert described.unique_keys == (("ส",),)
    assert source.describe("plain").unique_keys == (("u",),)
    assert source.describe("public.plain").columns == source.describe("plain").columns
    assert source.describe("v").rows_estimate is None
    assert sorted(column_of(source, odd, "ส")) == ["a", "b", "c"]
    chunks = source.plan_chunks(odd, where=None, key=[], rows_per_chunk=1)
    assert [column_of(source, odd, "ส", predicate=chunk.predicate) for chunk in chunks] == [["a"], ["b"], ["c"]]
    with pytest.raises(SourceError, match="no table `plian`") as caught:
        source.describe("plian")
    assert "`plain`" in caught.value.hint
    with pytest.raises(SourceError, match="no column `idd`"):
        source.read("plain", columns=["idd"], where=None)
    with pytest.raises(SourceError, match="stored chunk cannot be read"):
        source.count("plain", where=None, predicate={"by": "rowid", "from": 1})


def test_order_by_puts_nulls_last_and_means_the_column(make):
    source = make(
        "CREATE TABLE t (id int PRIMARY KEY, parent int, int8 numeric(5,1))",
        "INSERT INTO t VALUES (1, NULL, 3), (2, 7, 1), (3, 5, 2)",
    )
    assert column_of(source, "t", "id", order_by=["parent"]) == [3, 2, 1]
    assert read(source, "t", ["int8", "id"], order_by=["int8"]).column("id").to_pylist() == [2, 3, 1]


def test_encodings(make, postgres):
    thai = "ก".encode("tis-620")
    name = postgres.create_database("ENCODING 'SQL_ASCII' TEMPLATE template0")
    latin = postgres.create_database("ENCODING 'LATIN1' TEMPLATE template0")
    try:
        with psycopg.connect(postgres.dsn(name), autocommit=True) as connection:
            connection.execute("CREATE TABLE t (id int, s text)")
            connection.execute("INSERT INTO t VALUES (1, convert_from('\\xa1', 'SQL_ASCII')), (2, 'abc')")
        with psycopg.connect(postgres.dsn(latin), autocommit=True) as connection:
            connection.execute("CREATE TABLE t (s char(5))")
            connection.execute("INSERT INTO t VALUES ('é')")
        raw = make(url=postgres.url(name), encoding="TIS-620")
        assert raw.describe("t").column("s").arrow == pa.binary()
        assert column_of(raw, "t", "s", order_by=["id"]) == [thai, b"abc"]
        plain = make(url=postgres.url(name))
        assert column_of(plain, "t", "s", where="id = 2") == ["abc"]
        assert column_of(plain, "t", "s", order_by=["id"]) == [BROKEN_TEXT + "a1", "abc"]
        assert column_of(make(url=postgres.url(latin)), "t", "s") == ["é"]
        assert column_of(make(url=postgres.url(latin), encoding="latin-1"), "t", "s") == ["é".encode("latin-1")]
    finally:
        postgres.drop_database(name)
        postgres.drop_database(latin)


def slices(source, table, *, key=(), where=None, rows) -> list[list[int]]:
    chunks = source.plan_chunks(table, where=where, key=list(key), rows_per_chunk=rows)
    stored = [json.loads(json.dumps(chunk.predicate)) for chunk in chunks]
    read_rows = [column_of(source, table, "n", where=where, predicate=predicate) for predicate in stored]
    assert [source.count(table, where=where, predicate=predicate) for predicate in stored] == list(map(len, read_rows))
    return read_rows


def test_small_tables_are_cut_exactly(make):
    source = make("CREATE TABLE t (n int PRIMARY KEY)", "INSERT INTO t SELECT generate_series(1, 1000)")
    assert [len(part) for part in slices(source, "t", rows=300)] == [300, 300, 300, 100]
    assert [len(part) for part in slices(source, "t", rows=500)] == [500, 500]
    assert [len(part) for part in slices(source, "t", rows=300, where="n % 2 = 0")] == [300, 200]
    assert slices(source, "t", rows=300, where="n < 0") == [[]]


def test_large_tables_are_cut_by_a_sample_of_their_blocks(make, monkeypatch):
    monkeypatch.setattr("forcelift.source.postgresql_slices.EXACT_ROWS_MAX", 10_000)
    monkeypatch.setattr("forcelift.source.postgresql_slices.SAMPLES_MIN", 1000)
    source = make(
        "CREATE TABLE t (id uuid PRIMARY KEY, n int)",
        "INSERT INTO t SELECT md5(n::text)::uuid, n FROM generate_series(1, 60000) n",
    )
    parts = slices(source, "t", rows=3_000)
    assert Counter(n for part in parts for n in part) == Counter(range(1, 60_001))
    assert 15 <= len(parts) <= 25
    assert all(1_500 < len(part) < 4_800 for part in parts[:-1])
    chunks = source.plan_chunks("t", where=None, key=[], rows_per_chunk=3_000)
    assert abs(sum(chunk.rows_estimate for chunk in chunks) - 60_000) < 15_000


def test_tables_without_a_key_are_cut_by_blocks_and_read_only_those(make, run):
    source = make(
        "CREATE TABLE t AS SELECT n, repeat('x', 100) AS s FROM generate_series(1, 20000) n",
        "DELETE FROM t WHERE n BETWEEN 5000 AND 9000",
        "CREATE TABLE part (n int, k int) PARTITION BY LIST (k)",
        "CREATE TABLE part_a PARTITION OF part FOR VALUES IN (1)",
        "CREATE TABLE part_b (k int, n int)",
        "ALTER TABLE part ATTACH PARTITION part_b FOR VALUES IN (2)",
        "INSERT INTO part SELECT n, n % 2 + 1 FROM generate_series(1, 5000) n",
        "CREATE TABLE heir (n int)", "CREATE TABLE heir_child () INHERITS (heir)",
        "INSERT INTO heir VALUES (1)", "INSERT INTO heir_child VALUES (2), (3)",
        "CREATE TABLE void (n int)",
    )  # fmt: skip
    parts = slices(source, "t", rows=3000)
    expected = [n for n in range(1, 20_001) if not 5000 <= n <= 9000]
    assert sorted(n for part in parts for n in part) == expected
    assert len(parts) >= 5
    [(document,)] = run(
        "EXPLAIN (FORMAT JSON) SELECT * FROM ONLY t WHERE ctid >= '(10,0)'::tid AND ctid < '(20,0)'::tid"
    )
    assert document[0]["Plan"]["Node Type"] == "Tid Range Scan"
    halves = slices(source, "part", rows=1000, where="part.k = 1 OR part.k = 2")
    assert sorted(n for part in halves for n in part) == list(range(1, 5001))
    assert sorted(n for part in slices(source, "heir", rows=1000) for n in part) == [1, 2, 3]
    assert slices(source, "void", rows=10) == [[]]


def test_a_view_needs_a_key_and_its_null_keys_have_a_chunk(make):
    source = make(
        'CREATE TABLE t (n int, k text COLLATE "C")',
        "INSERT INTO t SELECT n, CASE WHEN n % 10 = 0 THEN NULL ELSE chr(65 + n % 7) || n / 20 END"
        " FROM generate_series(1, 500) n",
        "CREATE VIEW v AS SELECT * FROM t",
    )
    with pytest.raises(SourceError, match="without a key it cannot be cut"):
        source.plan_chunks("v", where=None, key=[], rows_per_chunk=10)
    parts = slices(source, "v", key=["k"], rows=100)
    assert Counter(n for part in parts for n in part) == Counter(range(1, 501))
    assert parts[-1] == list(range(10, 501, 10))
    assert len(parts) == 6


@pytest.fixture(scope="module")
def numbered(postgres):
    name = postgres.create_database()
    with psycopg.connect(postgres.dsn(name), autocommit=True) as connection:
        yield connection, postgres.url(name)
    postgres.drop_database(name)


KEYS = {
    "int": st.integers(-(2**31), 2**31 - 1) | st.integers(-3, 3),
    "text": st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=4),
    "varchar(9)": st.sampled_from(["a", "A", "é", "z'", "", " ", "\\", "ก"]),
    "char(3)": st.sampled_from(["a", "a  ", "b", "", "'"]),
    "numeric": st.decimals(allow_nan=False, allow_infinity=False, places=3) | st.just(Decimal("NaN")),
    "float8": st.floats(),
    "timestamptz": st.datetimes(timezones=st.just(UTC)),
    "bytea": st.binary(max_size=3),
    "boolean": st.booleans(),
}


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    data=st.data(), declared=st.sampled_from(sorted(KEYS)), other=st.sampled_from(sorted(KEYS)), size=st.integers(1, 9)
)
def test_slices_hold_every_row_once(numbered, data, declared, other, size):
    connection, url = numbered
    rows = data.draw(st.lists(st.tuples(KEYS[declared], st.none() | KEYS[other]), max_size=30))
    where = data.draw(st.sampled_from([None, "n % 2 = 0", "n > 3 OR n = 1 -- said", "n < 0"]))
    connection.execute("DROP TABLE IF EXISTS t, keyed CASCADE")
    connection.execute(f"CREATE TABLE t (n int, a {declared}, b {other})")
    connection.execute(f"CREATE TABLE keyed (n int, a {declared}, b {other}, PRIMARY KEY (b, a))")
    numbered_rows = [(n, *row) for n, row in enumerate(rows)]
    with connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO t VALUES (%s, %s::{declared}, %s::{other})", numbered_rows)
    connection.execute("INSERT INTO keyed SELECT * FROM t WHERE b IS NOT NULL ON CONFLICT DO NOTHING")
    connection.execute("CREATE VIEW v AS SELECT * FROM t")
    source = open_source(url)
    try:
        for table in ("t", "keyed", "v"):
            whole = Counter(column_of(source, table, "n", where=where))
            parts = slices(source, table, key=["b", "a"], where=where, rows=size)
            assert Counter(n for part in parts for n in part) == whole
            assert source.count(table, where=where) == sum(whole.values())
    finally:
        source.close()


def test_batches_keep_to_their_size_and_a_read_may_be_left(make):
    source = make("CREATE TABLE t AS SELECT n FROM generate_series(1, 30000) n")
    sizes = [batch.num_rows for batch in source.read("t", columns=["n"], where=None, batch_rows=7000)]
    assert sum(sizes) == 30_000
    assert max(sizes) <= 7000
    for _ in range(3):
        batches = source.read("t", columns=["n"], where=None, batch_rows=10)
        next(batches)
        batches.close()
    assert source.count("t", where=None) == 30_000


def test_samples_come_from_all_over(make, run):
    source = make(
        "CREATE TABLE t AS SELECT n, repeat('x', 200) AS s FROM generate_series(1, 100000) n",
        "CREATE VIEW v AS SELECT * FROM t",
    )
    for table in ("t", "v"):
        sample = source.sample(table, columns=["n"], where=None, rows=1000)
        numbers = sample.column("n").to_pylist()
        assert len(set(numbers)) == 1000
        tenths = Counter((n - 1) // 10_000 for n in numbers)
        assert len(tenths) == 10
        assert max(tenths.values()) < 400
    assert source.sample("t", columns=["n"], where="n <= 20", rows=1000).num_rows == 20
    assert source.sample("v", columns=["n", "s"], where="n < 0", rows=5).schema.names == ["n", "s"]


def test_estimates_and_fingerprints_follow_the_table(make, run):
    source = make(
        "CREATE TABLE t AS SELECT n, repeat('x', 90) AS s FROM generate_series(1, 50000) n", "CREATE VIEW v AS SELECT 1"
    )
    table = source.describe("t")
    assert 25_000 < table.rows_estimate < 100_000
    assert 5_000_000 < table.bytes_estimate < 10_000_000
    run("ANALYZE t")
    assert 49_000 < make().describe("t").rows_estimate < 51_000
    before = make().fingerprint("t")
    run("UPDATE t SET n = n WHERE n = 1", "SELECT pg_stat_force_next_flush()")
    assert make().fingerprint("t") != before
    assert source.fingerprint("v") == ""
