"""Text that is read as the bytes an Oracle database stores: long values, CLOBs, keys, and text that is no UTF-8."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import oracledb
import pyarrow as pa
import pytest
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, code_of, connect, connection, oracle

from forcelift.errors import SourceError
from forcelift.protocols.source import BROKEN_TEXT, ColumnKind
from forcelift.source.oracle import OracleSource, open_oracle
from forcelift.source.oracle_bytes import Stored, byte_column, cut_lob, stored_in
from forcelift.source.oracle_columns import Declared, OracleColumn
from forcelift.source.oracle_types import oracle_column

__all__ = ["connection", "oracle"]

# Thai letters of TIS-620 are bytes beyond ASCII, one each.
LETTERS = "กขคฆงจฉชซญ".encode("cp874")
SIZES = (1, 1_999, 2_000, 2_001, 3_999, 4_000)
LOB_SIZES = (0, 1, 2_000, 2_001, 9_999, 100_003)


def thai(size: int) -> bytes:
    """Bytes whose order tells where a piece is missing or came twice."""
    return (LETTERS + b"%d " % size).ljust(17, b".").__mul__(size // 17 + 1)[:size]


def written(raw: bytes, *, lob: bool = False) -> str:
    """SQL of a text of these bytes; no literal of it is longer than a statement may hold."""
    parts = [raw[at : at + 1_000] for at in range(0, len(raw), 1_000)]
    texts = [f"UTL_RAW.CAST_TO_VARCHAR2(HEXTORAW('{part.hex()}'))" for part in parts]
    return " || ".join(f"TO_CLOB({text})" if lob else text for text in texts) or "EMPTY_CLOB()"


@pytest.fixture(params=["US7ASCII", "WE8ISO8859P1"])
def legacy(oracle: OracleServer, request: pytest.FixtureRequest) -> OracleServer:
    """A database whose character set knows no Thai, with Thai in it."""
    oracle.store.charset = request.param
    return oracle


def opened(server: OracleServer, *, encoding: str = "windows-874", user: str = "KPS") -> OracleSource:
    url = f"oracle://127.0.0.1:{server.port}/{server.service}"
    return open_oracle(url, user=user, password=PASSWORD, encoding=encoding)


def values(batches: Iterable[pa.RecordBatch]) -> dict[Any, Any]:
    """The second column by the first."""
    return {
        key: value
        for batch in batches
        for key, value in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)
    }


def test_a_cast_of_more_than_2000_bytes_is_refused_as_oracle_does(legacy: OracleServer) -> None:
    with connect(legacy) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE t (v VARCHAR2(4000), c CLOB)")
        cursor.execute(f"INSERT INTO t VALUES ({written(thai(2_001))}, {written(thai(2_001), lob=True)})")
        assert cursor.execute("SELECT LENGTHB(v) FROM t").fetchone() == (2_001,)
        with pytest.raises(oracledb.DatabaseError) as found:
            cursor.execute("SELECT UTL_RAW.CAST_TO_RAW(v) FROM t").fetchall()
        assert code_of(found) == "ORA-06502"
        with pytest.raises(oracledb.DatabaseError) as found:
            cursor.execute("SELECT UTL_RAW.CAST_TO_RAW(c) FROM t").fetchall()
        assert code_of(found) == "ORA-00932"
        with pytest.raises(oracledb.DatabaseError) as found:
            cursor.execute("CREATE TABLE long_texts (v VARCHAR2(4001))")
        assert code_of(found) == "ORA-00910"


def test_long_values_arrive_byte_by_byte(legacy: OracleServer) -> None:
    with connect(legacy) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE t (id NUMBER(9) PRIMARY KEY, v VARCHAR2(4000))")
        for size in SIZES:
            cursor.execute(f"INSERT INTO t VALUES ({size}, {written(thai(size))})")
        cursor.execute("INSERT INTO t VALUES (-1, NULL)")
        connection.commit()
    source = opened(legacy)
    expected = {-1: None, **{size: thai(size) for size in SIZES}}
    assert source.describe("T").column("V").arrow == pa.binary()
    assert values(source.read("T", columns=["ID", "V"], where=None, order_by=["ID"])) == expected
    assert values(source.sample("T", columns=["ID", "V"], where=None, rows=50).to_batches()) == expected
    source.close()


def test_extended_strings_arrive_in_one_piece(legacy: OracleServer) -> None:
    legacy.store.extended_strings = True
    with connect(legacy) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE t (id NUMBER(9), v VARCHAR2(32767))")
        cursor.execute(f"INSERT INTO t VALUES (1, {written(thai(32_767))})")
        connection.commit()
    source = opened(legacy)
    assert values(source.read("T", columns=["ID", "V"], where=None)) == {1: thai(32_767)}
    source.close()


@pytest.mark.parametrize("kind", ["CLOB", "XMLTYPE"])
def test_lobs_come_in_as_many_pieces_as_the_longest_needs(legacy: OracleServer, kind: str) -> None:
    sizes = LOB_SIZES if kind == "CLOB" else LOB_SIZES[2:]
    with connect(legacy) as connection:
        cursor = connection.cursor()
        cursor.execute(f"CREATE TABLE t (id NUMBER(9) PRIMARY KEY, v {kind}, w VARCHAR2(4000))")
        for size in sizes:
            text = written(thai(size), lob=True)
            text = f"XMLTYPE({text})" if kind == "XMLTYPE" else text
            cursor.execute(f"INSERT INTO t VALUES ({size}, {text}, {written(thai(2_500))})")
        cursor.execute("INSERT INTO t (id) VALUES (-1)")
        connection.commit()
    source = opened(legacy)
    expected = {-1: None, **{size: thai(size) for size in sizes}}
    rows = list(source.read("T", columns=["ID", "V", "W"], where=None, order_by=["ID"]))
    assert values(rows) == expected
    assert values(one.select([0, 2]) for one in rows) == {-1: None, **dict.fromkeys(sizes, thai(2_500))}
    assert values(source.read("T", columns=["ID", "V"], where="id < 3000")) == {
        key: value for key, value in expected.items() if key < 3000
    }
    assert values(source.sample("T", columns=["ID", "V"], where=None, rows=50).to_batches()) == expected
    source.close()


def test_a_lob_that_no_query_holds_is_refused_and_not_cut() -> None:
    declared = Declared(name="C", type="CLOB", owner=None, length=4000, precision=None, scale=None, nullable=True)
    column = oracle_column(declared, stored=Stored.SINGLE)
    assert len(cut_lob(column, longest=1_980_000, others=10).pieces) == 990
    with pytest.raises(SourceError, match="1,980,001 bytes, and no query gives the bytes of a CLOB beyond 1,980,000"):
        cut_lob(column, longest=1_980_001, others=10)


def test_long_is_refused_when_a_plan_is_checked() -> None:
    declared = Declared(name="L", type="LONG", owner=None, length=0, precision=None, scale=None, nullable=True)
    column = oracle_column(declared, stored=Stored.SINGLE).column
    told = "LONG (whose bytes no SQL gives, unless TO_LOB copies it into a CLOB)"
    assert (column.kind, column.declared) == (ColumnKind.UNSUPPORTED, told)
    assert oracle_column(declared, stored=Stored.AS_SENT).column.arrow == pa.binary()


@pytest.mark.parametrize(
    ("charset", "stored"),
    [
        ("AL32UTF8", Stored.AS_SENT),
        *((name, Stored.SINGLE) for name in ("US7ASCII", "WE8MSWIN1252", "TH8TISASCII", "BLT8CP921", "D7DEC")),
        *((name, Stored.MULTI) for name in ("UTF8", "JA16SJIS", "ZHT32EUC", "ZHS16GBK", "AL24UTFFSS", "KO16KSC5601")),
    ],
)
def test_character_sets_by_their_names(charset: str, stored: Stored) -> None:
    assert stored_in(charset) is stored


def pieces_of(length: int, characters: int, stored: Stored) -> OracleColumn:
    declared = Declared(
        name="V",
        type="VARCHAR2",
        owner=None,
        length=length,
        characters=characters,
        precision=None,
        scale=None,
        nullable=True,
    )
    return byte_column(declared, oracle_column(declared, stored=None), stored)


def test_pieces_of_characters_of_several_bytes_never_pass_the_limit() -> None:
    column = pieces_of(4_000, 4_000, Stored.MULTI)
    starts = [1, *(at + 1 for at in range(500, 4_000, 500))]
    assert len(column.pieces) == len(starts)
    for piece, start in zip(column.pieces, starts, strict=True):
        assert f'SUBSTR("V", {start}, 500)' in piece
    assert len(pieces_of(4_000, 1_000, Stored.MULTI).pieces) == 2
    assert len(pieces_of(4_000, 4_000, Stored.SINGLE).pieces) == 2
    assert pieces_of(2_000, 500, Stored.MULTI).pieces == ()


def test_chunks_by_a_key_of_such_text_hold_each_row_once(legacy: OracleServer) -> None:
    """Bounds that were converted to the client's letters and back would be other ones, and ranges would overlap."""
    legacy.add_user("PLAIN", PASSWORD)
    legacy.store.withheld.add("DBMS_PARALLEL_EXECUTE")
    with connect(legacy) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE t (code VARCHAR2(20) PRIMARY KEY)")
        keys = [bytes((161 + at % 46, 161 + at % 30)) + b"%d" % at for at in range(300)]
        insert = "INSERT INTO t VALUES (UTL_RAW.CAST_TO_VARCHAR2(HEXTORAW(:1)))"
        cursor.executemany(insert, [(key.hex(),) for key in keys])
        cursor.execute("GRANT SELECT, FLASHBACK ON t TO plain")
        connection.commit()
    source = opened(legacy, user="PLAIN")
    chunks = source.plan_chunks("KPS.T", where=None, key=["CODE"], rows_per_chunk=30)
    assert {one.predicate["kind"] for one in chunks} == {"bytes"}
    found = [
        key
        for one in chunks
        for batch in source.read("KPS.T", columns=["CODE"], where=None, predicate=one.predicate)
        for key in batch.column(0).to_pylist()
    ]
    assert len(chunks) == 10
    assert sorted(found) == sorted(keys)
    source.close()


@pytest.fixture
def broken(oracle: OracleServer) -> OracleServer:
    """A database in UTF-8 with a text that is none, which a client with the wrong NLS_LANG can put there."""
    with connect(oracle) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE t (id NUMBER(9) PRIMARY KEY, v VARCHAR2(40), l CLOB)")
        cursor.execute(f"INSERT INTO t VALUES (1, {written('ไทย'.encode('cp874'))}, 'whole')")
        cursor.execute("INSERT INTO t VALUES (2, 'ไทย', 'whole')")
        connection.commit()
        with pytest.raises(UnicodeDecodeError):
            cursor.execute("SELECT v FROM t").fetchall()
    return oracle


def test_text_that_is_no_utf8_goes_to_the_rules_and_leaves_the_other_rows_alone(broken: OracleServer) -> None:
    source = opened(broken, encoding="utf-8")
    found = values(source.read("T", columns=["ID", "V"], where=None))
    assert found == {1: BROKEN_TEXT + "ไทย".encode("cp874").hex(), 2: "ไทย"}
    source.close()


def test_a_database_in_utf8_sends_bytes_as_they_are(broken: OracleServer) -> None:
    source = opened(broken)
    assert values(source.read("T", columns=["ID", "V"], where=None)) == {
        1: "ไทย".encode("cp874"),
        2: "ไทย".encode(),
    }
    assert values(source.read("T", columns=["ID", "L"], where=None)) == {1: b"whole", 2: b"whole"}
    source.close()
