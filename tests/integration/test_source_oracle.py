"""Oracle as a source, by the real driver against the test server: exact values, one SCN, slices, honest errors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import oracledb
import pyarrow as pa
import pytest
from tests.oracle_server.faults import Fault
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, connect, connection, oracle

from forcelift.errors import SourceChanged, SourceError, SourceUnavailable
from forcelift.protocols.source import ADDRESS, ExportsSnapshot, SharedSnapshot
from forcelift.source import open_source
from forcelift.source.oracle_session import batches

__all__ = ["connection", "oracle"]


@pytest.fixture
def opened(oracle: OracleServer) -> Iterator[Any]:
    """Open the server as a source."""
    sources = []

    def build(parts: str = "", user: str = "KPS", **options: Any) -> Any:
        url = f"oracle://127.0.0.1:{oracle.port}/{oracle.service}{parts}"
        sources.append(open_source(url, user=user, password=PASSWORD, **options))
        return sources[-1]

    yield build
    for source in sources:
        source.close()


@pytest.fixture
def sales(connection: oracledb.Connection) -> oracledb.Cursor:
    """A table of 3,000 rows in 30 blocks."""
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE sales (id NUMBER(10) PRIMARY KEY, tenant VARCHAR2(20), amount NUMBER(12,2))")
    cursor.executemany("INSERT INTO sales VALUES (:1, :2, :3)", [(at, f"T{at % 7}", at / 4) for at in range(3000)])
    connection.commit()
    return cursor


def read(source: Any, table: str, columns: list[str], **options: Any) -> pa.Table:
    batches = list(source.read(table, columns=columns, **{"where": None, **options}))
    for batch in batches:
        batch.validate(full=True)
    return pa.Table.from_batches(batches) if batches else pa.table({name: [] for name in columns})


TINY_DAYS = "+000000007 00:00:00.000000001"
TINY = "12345678901234567890123456789012345678"
LAST = datetime(9999, 12, 31, 23, 59, 59, 123456)
NAIVE, UTC_TYPE = pa.timestamp("us"), pa.timestamp("us", "UTC")
BANGKOK = "TIMESTAMP '2024-03-01 06:59:59.123456 +07:00'"
NEWFOUNDLAND = "TIMESTAMP '2024-02-29 20:29:59.123456 -03:30'"
MICRO = datetime(2024, 2, 29, 23, 59, 59, 123456)
TYPES: list[tuple[str, str, str, pa.DataType, Any]] = [
    # declared, a value as SQL, kind, Arrow type, what arrives
    ("NUMBER(18)", "999999999999999999", "integer", pa.int64(), 10**18 - 1),
    ("NUMBER(19)", "-9999999999999999999", "decimal", pa.decimal128(19, 0), Decimal(-(10**19) + 1)),
    ("NUMBER(38)", "9" * 38, "decimal", pa.decimal128(38, 0), Decimal("9" * 38)),
    ("INTEGER", "-5", "decimal", pa.decimal128(38, 0), Decimal(-5)),
    ("NUMBER(18,2)", "-1234567890.10", "decimal", pa.decimal128(18, 2), Decimal("-1234567890.10")),
    ("NUMBER(38,10)", "9" * 28 + ".0123456789", "decimal", pa.decimal128(38, 10), Decimal("9" * 28 + ".0123456789")),
    ("NUMBER(5,-3)", "12345678", "integer", pa.int64(), 12346000),
    ("NUMBER(38,-2)", "1" + "0" * 39, "text", pa.string(), "1" + "0" * 39),
    ("NUMBER(3,5)", "0.00123", "decimal", pa.decimal128(5, 5), Decimal("0.00123")),
    ("NUMBER", f"-0.{TINY}", "text", pa.string(), f"-.{TINY}"),
    ("FLOAT", "1E+100", "text", pa.string(), "1E+100"),
    ("VARCHAR2(20)", "' ก\"''x '", "text", pa.string(), " ก\"'x "),
    ("CHAR(5)", "'ab'", "text", pa.string(), "ab   "),
    ("NCHAR(3)", "N'ก'", "text", pa.string(), "ก  "),
    ("NVARCHAR2(10)", "N'ก😀'", "text", pa.string(), "ก😀"),
    ("CLOB", "'long ก'", "text", pa.string(), "long ก"),
    ("NCLOB", "N'long ก'", "text", pa.string(), "long ก"),
    ("RAW(4)", "HEXTORAW('00FF')", "binary", pa.binary(), b"\x00\xff"),
    ("BLOB", "HEXTORAW('00FE')", "binary", pa.binary(), b"\x00\xfe"),
    ("DATE", "DATE '0001-01-01' + 0.5", "timestamp", NAIVE, datetime(1, 1, 1, 12)),
    ("TIMESTAMP", "TIMESTAMP '2024-02-29 23:59:59.123456'", "timestamp", NAIVE, MICRO),
    ("TIMESTAMP(9)", "TIMESTAMP '9999-12-31 23:59:59.123456789'", "timestamp", NAIVE, LAST),
    ("TIMESTAMP(0)", "TIMESTAMP '2024-02-29 23:59:58.6'", "timestamp", NAIVE, MICRO.replace(microsecond=0)),
    ("TIMESTAMP WITH TIME ZONE", BANGKOK, "instant", UTC_TYPE, MICRO.replace(tzinfo=UTC)),
    ("TIMESTAMP WITH LOCAL TIME ZONE", NEWFOUNDLAND, "instant", UTC_TYPE, MICRO.replace(tzinfo=UTC)),
    ("BINARY_FLOAT", "0.1", "float", pa.float64(), 0.1),
    ("BINARY_DOUBLE", "1e308d", "float", pa.float64(), 1e308),
    ("INTERVAL DAY TO SECOND", "INTERVAL '-12 03:04:05.5' DAY TO SECOND", "text", pa.string(), "-12 03:04:05.500000"),
    ("INTERVAL DAY(9) TO SECOND(9)", "INTERVAL '7 0:00:00.000000001' DAY TO SECOND", "text", pa.string(), TINY_DAYS),
    ("INTERVAL YEAR TO MONTH", "INTERVAL '-1-6' YEAR TO MONTH", "text", pa.string(), "-01-06"),
    ("INTERVAL YEAR(4) TO MONTH", "INTERVAL '9999-11' YEAR TO MONTH", "text", pa.string(), "+9999-11"),
    ("XMLTYPE", "XMLTYPE('<a>ก</a>')", "text", pa.string(), "<a>ก</a>"),
    ("JSON", "'{\"a\": [1, \"ก\"]}'", "text", pa.string(), '{"a": [1, "ก"]}'),
    ("ROWID", "'AAARFxAACAAAACAAAC'", "text", pa.string(), "AAARFxAACAAAACAAAC"),
]  # fmt: skip


def test_every_type_arrives_as_described(connection: oracledb.Connection, opened: Any) -> None:
    cursor = connection.cursor()
    names = [f"C{at}" for at in range(len(TYPES))]
    columns = ", ".join(f"{name} {declared}" for name, (declared, *_) in zip(names, TYPES, strict=True))
    cursor.execute(f"CREATE TABLE t ({columns}, n NUMBER(5) NOT NULL)")
    cursor.execute(f"INSERT INTO t VALUES ({', '.join(value for _, value, *_ in TYPES)}, 1)")
    cursor.execute("INSERT INTO t (n) VALUES (2)")
    connection.commit()
    source = opened()
    described = source.describe("T")
    assert [(one.kind, one.arrow) for one in described.columns[:-1]] == [
        (kind, arrow) for _, _, kind, arrow, _ in TYPES
    ]
    table = read(source, "T", names, order_by=["N"])
    assert [field.type for field in table.schema] == [arrow for _, _, _, arrow, _ in TYPES]
    first, second = table.to_pylist()
    assert list(first.values()) == [expected for *_, expected in TYPES]
    assert set(second.values()) == {None}
    backwards = read(source, "T", names[::-1], order_by=["N"])
    assert backwards.to_pylist()[0] == first
    assert (described.column("N").nullable, described.column("C0").nullable) == (False, True)


def test_a_sample_of_a_table_with_a_long(connection: oracledb.Connection, opened: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE notes (id NUMBER(5) PRIMARY KEY, note LONG)")
    cursor.executemany("INSERT INTO notes VALUES (:1, :2)", [(at, f"note {at}") for at in range(900)])
    connection.commit()
    with pytest.raises(oracledb.DatabaseError, match="ORA-00997"):
        cursor.execute("SELECT id, note FROM notes FETCH FIRST 5 ROWS ONLY")
    source = opened()
    found = source.sample("NOTES", columns=["ID", "NOTE"], where=None, rows=20)
    assert found.num_rows == 20
    assert all(f"note {row['ID']}" == row["NOTE"] for row in found.to_pylist())
    assert source.count("NOTES", where=None) == 900  # a session that was left in the middle is not given out again


def test_an_index_of_the_tables_own_name_makes_no_chunks(sales: Any, opened: Any) -> None:
    before = opened().plan_chunks("SALES", where=None, key=["ID"], rows_per_chunk=170)
    sales.execute("CREATE INDEX sales ON sales (tenant)")
    after = opened().plan_chunks("SALES", where=None, key=["ID"], rows_per_chunk=170)
    assert after == before


def test_moments_before_year_1_arrive_and_keep_no_other_row_back(connection: oracledb.Connection, opened: Any) -> None:
    cursor = connection.cursor()
    many = ", ".join(f"d{at} DATE" for at in range(101))
    cursor.execute(f"CREATE TABLE t (id NUMBER(5) PRIMARY KEY, d DATE NOT NULL, ts TIMESTAMP, {many})")
    cursor.execute("INSERT INTO t (id, d, ts) VALUES (1, DATE '-4712-01-01', NULL)")
    cursor.execute("INSERT INTO t (id, d, ts) VALUES (2, DATE '2024-02-29', TIMESTAMP '-0001-12-31 23:59:59.123456')")
    cursor.execute("INSERT INTO t (id, d, d100) VALUES (3, DATE '-0001-02-28' + 0.5, DATE '-0044-03-15')")
    cursor.execute("INSERT INTO t (id, d, ts) VALUES (4, DATE '0001-01-01', TIMESTAMP '0001-01-01 00:00:00')")
    connection.commit()
    source = opened()
    found = pa.Table.from_batches(source.read("T", columns=["D", "TS", "D100"], where=None, order_by=["ID"]))
    texts = [column.cast(pa.int64()).to_numpy(zero_copy_only=False) for column in found.columns]

    def micros(text: str) -> int:
        return int(np.datetime64(text, "us").astype(np.int64))

    assert [type(kind) for kind in found.schema.types] == [pa.TimestampType] * 3
    assert texts[0].tolist() == [
        micros(one) for one in ("-4711-01-01", "2024-02-29", "0000-02-28T12:00:00", "0001-01-01")
    ]
    assert [found["TS"].is_valid().to_pylist(), found["D100"].is_valid().to_pylist()] == [
        [False, True, False, True],
        [False, False, True, False],
    ]
    assert (texts[1][1], texts[1][3], texts[2][2]) == (
        micros("0000-12-31T23:59:59.123456"),
        micros("0001-01-01"),
        micros("-0043-03-15"),
    )


def test_a_query_that_the_driver_cannot_answer_is_a_fault_of_ours(connection: oracledb.Connection, opened: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t (d DATE)")
    cursor.execute("INSERT INTO t VALUES (DATE '-0044-03-15')")
    connection.commit()
    with pytest.raises(SourceError, match="a value does not fit the type of its column"):
        opened().ask("SELECT d FROM t", rows_max=1)


def test_slices_by_a_date_key_reach_before_year_1(
    oracle: OracleServer, connection: oracledb.Connection, opened: Any
) -> None:
    oracle.add_user("FEW", PASSWORD, "EXECUTE DBMS_FLASHBACK")
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE days (d DATE PRIMARY KEY)")
    days = [f"DATE '-{4712 - at:04d}-01-01'" for at in range(0, 40)] + [f"DATE '{2000 + at}-01-01'" for at in range(40)]
    for day in days:
        cursor.execute(f"INSERT INTO days VALUES ({day})")
    connection.commit()
    for grant in ("READ", "FLASHBACK"):
        cursor.execute(f"GRANT {grant} ON days TO few")
    source = opened("?task_chunks=no", user="FEW")
    chunks = source.plan_chunks("KPS.DAYS", where=None, key=["D"], rows_per_chunk=9)
    assert chunks[0].predicate["by"] == "key"
    counts = [source.count("KPS.DAYS", where=None, predicate=one.predicate) for one in chunks]
    assert len(counts) == 9
    assert sum(counts) == len(days)


def test_oddities_of_binary_floats_arrive(connection: oracledb.Connection, opened: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE f (n NUMBER(2), x BINARY_DOUBLE, y BINARY_FLOAT)")
    cursor.setinputsizes(None, oracledb.DB_TYPE_BINARY_DOUBLE, oracledb.DB_TYPE_BINARY_FLOAT)
    odd = [math.inf, -math.inf, math.nan]
    cursor.executemany("INSERT INTO f VALUES (:1, :2, :3)", [(at, one, one) for at, one in enumerate(odd)])
    connection.commit()
    found = read(opened(), "F", ["X", "Y"], order_by=["N"])
    for name in ("X", "Y"):
        values = found.column(name).to_pylist()
        assert values[:2] == odd[:2]
        assert math.isnan(values[2])


def test_keys_estimates_and_what_cannot_be_read(connection: oracledb.Connection, sales: Any, opened: Any) -> None:
    sales.execute("CREATE TABLE odd (id NUMBER(3), d INTERVAL DAY TO SECOND, CONSTRAINT odd_uk UNIQUE (id))")
    sales.callproc("DBMS_STATS.GATHER_TABLE_STATS", ["KPS", "SALES"])
    source = opened()
    described = source.describe("SALES")
    assert (described.primary_key, described.rows_estimate) == (("ID",), 3000)
    assert described.bytes_estimate == 3000 * 81
    assert source.describe("ODD").unique_keys == (("ID",),)
    assert source.describe("KPS.ODD").name == "KPS.ODD"
    assert source.tables() == ["ODD", "SALES"]
    assert source.describe("ODD").column("D").arrow == pa.string()
    with pytest.raises(SourceError, match="no column `AMOUNTS`") as error:
        read(source, "SALES", ["AMOUNTS"])
    assert "AMOUNT" in str(error.value.hint)
    with pytest.raises(SourceError, match="no table `sales`") as error:
        source.describe("sales")
    assert "SALES" in str(error.value.hint)


def whole(source: Any, table: str, chunks: list[Any], **options: Any) -> list[int]:
    found: list[int] = []
    for chunk in chunks:
        part = read(source, table, ["ID"], predicate=chunk.predicate, **options).column("ID").to_pylist()
        assert source.count(table, **{"where": None, **options}, predicate=chunk.predicate) == len(part)
        found += part
    return found


@pytest.mark.parametrize("rows", [1, 170, 1000, 2999, 3000, 10_000])
def test_slices_by_rowid_hold_every_row_once(sales: Any, opened: Any, rows: int) -> None:
    source = opened()
    chunks = source.plan_chunks("SALES", where=None, key=["ID"], rows_per_chunk=rows)
    expected = 1 if rows >= 3000 else None
    assert expected in (None, len(chunks))
    if rows == 170:
        assert {chunk.predicate["by"] for chunk in chunks} == {"rowid"}
        assert len(chunks) > 15
    assert Counter(whole(source, "SALES", chunks)) == Counter(range(3000))
    if rows == 1000:
        some = source.plan_chunks("SALES", where="tenant = 'T3'", key=["ID"], rows_per_chunk=100)
        expected_rows = [at for at in range(3000) if at % 7 == 3]
        assert sorted(whole(source, "SALES", some, where="tenant = 'T3'")) == expected_rows


def test_without_the_grants_slices_go_by_the_key(oracle: OracleServer, sales: Any, opened: Any) -> None:
    oracle.add_user("READER", PASSWORD, "EXECUTE DBMS_FLASHBACK")
    for grant in ("READ", "FLASHBACK"):
        sales.execute(f"GRANT {grant} ON sales TO reader")
    oracle.store.withheld.add("DBMS_PARALLEL_EXECUTE")
    source = opened(user="READER")
    assert source.tables() == ["KPS.SALES"]
    chunks = source.plan_chunks("KPS.SALES", where=None, key=["ID"], rows_per_chunk=400)
    assert {chunk.predicate["by"] for chunk in chunks} == {"key"}
    assert len(chunks) == 8
    assert Counter(whole(source, "KPS.SALES", chunks)) == Counter(range(3000))


def test_slices_by_a_nullable_key_of_few_values(
    oracle: OracleServer, connection: oracledb.Connection, opened: Any
) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE k (id NUMBER(5), t VARCHAR2(5), d DATE)")
    days = [None if at % 5 == 0 else datetime(2024, 1, 1 + at % 9, 5) for at in range(500)]
    cursor.executemany("INSERT INTO k VALUES (:1, :2, :3)", [(at, f"'{at % 4}", day) for at, day in enumerate(days)])
    connection.commit()
    oracle.add_user("READER", PASSWORD, "SELECT V_$DATABASE")
    for grant in ("READ", "FLASHBACK"):
        cursor.execute(f"GRANT {grant} ON k TO reader")
    oracle.store.withheld.add("DBMS_PARALLEL_EXECUTE")
    source = opened(user="READER")
    for key in ("T", "D", "ID"):
        chunks = source.plan_chunks("KPS.K", where=None, key=[key], rows_per_chunk=60)
        assert len(chunks) > 2
        assert Counter(whole(source, "KPS.K", chunks)) == Counter(range(500))
    with pytest.raises(SourceError, match="no primary key"):
        source.plan_chunks("KPS.K", where=None, key=[], rows_per_chunk=60)


def test_all_reads_see_one_scn(sales: Any, opened: Any) -> None:
    source = opened()
    assert source.snapshot() is not None
    assert source.snapshot().startswith("scn:")
    sales.execute("DELETE FROM sales WHERE id < 100")
    sales.execute("UPDATE sales SET amount = -1")
    sales.connection.commit()
    assert source.count("SALES", where=None) == 3000
    assert read(source, "SALES", ["AMOUNT"]).column("AMOUNT").to_pylist().count(Decimal("-1.00")) == 0
    later = opened()
    assert later.count("SALES", where=None) == 2900
    again = opened(offered=[SharedSnapshot(state=source.snapshot(), exported=source.exported())])
    assert again.count("SALES", where=None) == 3000
    assert again.snapshot() == source.snapshot()
    without = opened("?snapshot=none")
    assert isinstance(source, ExportsSnapshot)
    assert not isinstance(without, ExportsSnapshot)
    assert without.snapshot() is None
    assert without.count("SALES", where=None) == 2900


def test_an_scn_whose_undo_is_gone_is_said_to_be(oracle: OracleServer, sales: Any, opened: Any) -> None:
    source = opened()
    sales.execute("UPDATE sales SET amount = -1")
    sales.connection.commit()
    oracle.store.forget_before(oracle.store.scn)
    with pytest.raises(SourceChanged, match="ORA-01555") as error:
        source.count("SALES", where=None)
    assert "--resume" in str(error.value.hint)
    sales.execute("TRUNCATE TABLE sales")
    with pytest.raises(SourceChanged, match="ORA-"):
        source.count("SALES", where=None)


def test_without_flashback_the_grant_is_named(oracle: OracleServer, sales: Any, opened: Any) -> None:
    oracle.add_user("READER", PASSWORD)
    sales.execute("GRANT READ ON sales TO reader")
    with pytest.raises(SourceError, match="cannot be read: ORA-01031") as error:
        opened(user="READER").count("KPS.SALES", where=None)
    assert "GRANT FLASHBACK" in str(error.value.hint)
    assert opened("?snapshot=none", user="READER").count("KPS.SALES", where=None) == 3000


def test_addresses_find_their_rows_again(sales: Any, opened: Any) -> None:
    source = opened()
    for chunk in source.plan_chunks("SALES", where=None, key=["ID"], rows_per_chunk=1700):
        located = pa.Table.from_batches(
            source.locate("SALES", columns=["ID"], where=None, predicate=chunk.predicate, key=["ID"])
        )
        picked = located.take(list(range(0, located.num_rows, 1 if located.num_rows < 1500 else 3)))
        options = {"predicate": chunk.predicate, "key": ["ID"], "among": picked.column(ADDRESS).combine_chunks()}
        assert source.count("SALES", where=None, **options) == picked.num_rows
        found = read(source, "SALES", ["ID"], order_by=["ID"], **options)
        assert found.column("ID").to_pylist() == sorted(picked.column("ID").to_pylist())


def test_a_sample_is_from_all_over_the_table(sales: Any, opened: Any) -> None:
    source = opened()
    found = source.sample("SALES", columns=["ID", "TENANT"], where=None, rows=200).column("ID").to_pylist()
    assert len(found) == 200
    assert len(set(found)) == len(found)
    assert min(found) < 500
    assert max(found) > 2500
    assert source.sample("SALES", columns=["ID"], where="id < 5", rows=200).num_rows == 5


def test_a_sample_of_a_large_table_reads_some_blocks_only(
    sales: Any, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forcelift.source.oracle._BLOCKS_FROM", 1000)
    asked: list[str] = []
    monkeypatch.setattr(
        "forcelift.source.oracle.batches",
        lambda connection, query, schema, **more: (asked.append(query), batches(connection, query, schema, **more))[1],
    )
    found = opened().sample("SALES", columns=["ID"], where=None, rows=5).column("ID").to_pylist()
    assert len(found) == len(set(found)) == 5
    assert "SAMPLE BLOCK (0.333333)" in asked[0]
    assert "SAMPLE (" in asked[-1] or len(asked) == 1, "where some blocks are too few, rows are picked"


def test_order_batches_and_no_columns(sales: Any, opened: Any) -> None:
    source = opened()
    sales.execute("INSERT INTO sales VALUES (5000, NULL, 0)")
    sales.connection.commit()
    fresh = opened()
    batches = list(fresh.read("SALES", columns=["TENANT"], where=None, order_by=["TENANT", "ID"], batch_rows=700))
    assert [batch.num_rows for batch in batches] == [700, 700, 700, 700, 201]
    assert batches[-1].column(0).to_pylist()[-1] is None
    assert sum(batch.num_rows for batch in source.read("SALES", columns=[], where="id < 10")) == 10


def test_text_comes_as_bytes_where_an_encoding_is_named(sales: Any, opened: Any) -> None:
    sales.execute("CREATE TABLE b (a VARCHAR2(20), c CLOB, n NUMBER(3))")
    sales.execute("INSERT INTO b VALUES ('กข', 'x', 1)")
    sales.connection.commit()
    source = opened(byte_tables=["B"])
    assert read(source, "B", ["A", "C", "N"]).to_pylist() == [{"A": "กข".encode(), "C": b"x", "N": 1}]
    sales.execute("CREATE TABLE n (a NVARCHAR2(20), b VARCHAR2(20), r ROWID)")
    sales.execute("INSERT INTO n VALUES (N'กข😀', 'ab', 'AAARFxAACAAAACAAAC')")
    sales.connection.commit()
    assert read(opened(byte_tables=["N"]), "N", ["A", "B", "R"]).to_pylist() == [
        {"A": "กข😀", "B": b"ab", "R": "AAARFxAACAAAACAAAC"}
    ]
    assert source.describe("SALES").column("TENANT").arrow == pa.string()


def test_a_fault_of_where_is_told_without_values(sales: Any, opened: Any) -> None:
    source = opened()
    with pytest.raises(SourceError, match='"NOTHING": invalid identifier') as error:
        source.count("SALES", where="nothing = 1")
    assert "check `where`" in str(error.value.hint)
    with pytest.raises(SourceError, match="ORA-01722") as error:
        source.count("SALES", where="tenant = 7")
    assert "T1" not in str(error.value)
    with pytest.raises(SourceError, match="ORA-00933"):
        source.count("SALES", where="id = 1) OR (1 = 1 ORDER BY 1")


def test_many_readers_at_once(sales: Any, opened: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    source = opened()
    chunks = source.plan_chunks("SALES", where=None, key=["ID"], rows_per_chunk=300)
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(
            lambda one: read(source, "SALES", ["ID"], predicate=one.predicate).column("ID").to_pylist(), chunks
        )
        assert Counter(at for part in parts for at in part) == Counter(range(3000))


@pytest.mark.parametrize("seed", range(6))
def test_a_session_lost_in_the_middle_is_a_passing_fault(
    oracle: OracleServer, sales: Any, opened: Any, seed: int
) -> None:
    source = opened()
    action = ("drop", "error")[seed % 2]
    oracle.faults.order(Fault(at="fetch", action=action, code=3113, match='"SALES"', after_rows=97 * seed))
    with pytest.raises(SourceUnavailable):
        for _ in source.read("SALES", columns=["ID"], where=None, batch_rows=100):
            pass
    assert Counter(read(source, "SALES", ["ID"], batch_rows=100).column("ID").to_pylist()) == Counter(range(3000))


def test_what_is_wrong_with_an_address(oracle: OracleServer, opened: Any) -> None:
    with pytest.raises(SourceError, match="the user or the password is wrong") as error:
        open_source(f"oracle://127.0.0.1:{oracle.port}/KPCPROD", user="KPS", password="wrong word")
    assert "wrong word" not in str(error.value)
    with pytest.raises(SourceUnavailable, match="DPY-6001"):
        open_source(f"oracle://127.0.0.1:{oracle.port}/OTHER", user="KPS", password=PASSWORD)
    for parts in ("?mode=sysdba", "?x"):
        with pytest.raises(SourceError, match="no address of an Oracle database"):
            opened(parts)
    free = oracle.port
    oracle.close()
    with pytest.raises(SourceUnavailable):
        open_source(f"oracle://127.0.0.1:{free}/KPCPROD", user="KPS", password=PASSWORD)


def test_a_listener_that_says_nothing_is_not_waited_for_for_ever(
    oracle: OracleServer, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forcelift.source.oracle_session.CONNECT_SECONDS", 0.3)
    oracle.faults.order(Fault(at="connect", action="mute"))
    with pytest.raises(SourceUnavailable, match="said nothing"):
        opened()


def test_a_dba_sees_who_reads(oracle: OracleServer, opened: Any, connection: oracledb.Connection) -> None:
    source = opened()
    with source._sessions.session() as mine:
        seen = mine.cursor().execute("SELECT module, action FROM v$session").fetchall()
    assert seen == [("forcelift", "read")]
    with connect(oracle) as other:
        other.ping()
