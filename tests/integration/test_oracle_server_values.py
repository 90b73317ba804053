"""Every type of the Oracle test server at its ends, through the real driver: by rows and by Arrow."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from decimal import Decimal

import oracledb
import pyarrow as pa
import pytest
from tests.oracle_server import values
from tests.oracle_support import code_of, connection, oracle

__all__ = ["connection", "oracle"]

NUMBERS = [
    "0",
    "1",
    "-1",
    "100",
    "-100",
    "99",
    "0.01",
    "-0.01",
    "0.001",
    "12345678901234567890123456789012345678",
    "-99999999999999999999999999999999999999",
    "0.12345678901234567890123456789012345678",
    "1E+125",
    "-1E-130",
    "9.99E+100",
    "1234567.891",
    "-1234567.891",
    "5000000000000000000",
]


def column(connection: oracledb.Connection, declared: str, literals: list[str]) -> oracledb.Cursor:
    """A table of one column with these values, in order."""
    cursor = connection.cursor()
    cursor.execute(f"CREATE TABLE v (id NUMBER(10), x {declared})")
    for at, text in enumerate(literals):
        cursor.execute(f"INSERT INTO v VALUES ({at}, {text})")
    connection.commit()
    return cursor


def fetched(cursor: oracledb.Cursor, expression: str = "x", **more: object) -> list[object]:
    return [row[0] for row in cursor.execute(f"SELECT {expression} FROM v ORDER BY id", **more)]


@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_s_bytes_mean_the_number(text: str) -> None:
    raw = values.number_bytes(Decimal(text))
    assert values.number_value(raw) == Decimal(text)
    assert len(raw) <= 21


def test_the_bytes_of_numbers_sort_as_the_numbers_do() -> None:
    numbers = sorted(Decimal(text) for text in NUMBERS)
    assert sorted(values.number_bytes(one) for one in numbers) == [values.number_bytes(one) for one in numbers]


def test_known_bytes_of_numbers_as_documented() -> None:
    """DUMP of a real server prints these for 123, -123, 0 and 1."""
    assert values.number_bytes(Decimal(123)) == bytes((194, 2, 24))
    assert values.number_bytes(Decimal(-123)) == bytes((61, 100, 78, 102))
    assert values.number_bytes(Decimal(0)) == bytes((128,))
    assert values.number_bytes(Decimal(1)) == bytes((193, 2))


def test_numbers_without_a_size_keep_every_digit(connection: oracledb.Connection) -> None:
    cursor = column(connection, "NUMBER", NUMBERS)
    assert fetched(cursor, fetch_decimals=True) == [Decimal(text) for text in NUMBERS]
    cursor.execute("DELETE FROM v")
    cursor.setinputsizes(None, oracledb.DB_TYPE_NUMBER)
    cursor.executemany("INSERT INTO v VALUES (:1, :2)", [(at, Decimal(text)) for at, text in enumerate(NUMBERS)])
    assert fetched(cursor, fetch_decimals=True) == [Decimal(text) for text in NUMBERS]
    assert [row[0] for row in cursor.execute("SELECT TO_CHAR(x) FROM v WHERE id IN (6, 7) ORDER BY id")] == [
        ".01",
        "-.01",
    ]


@pytest.mark.parametrize(
    ("declared", "texts", "expected"),
    [
        ("NUMBER(38)", ["9" * 38, "-" + "9" * 38], ["9" * 38, "-" + "9" * 38]),
        ("NUMBER(18,2)", ["1.005", "-1.005", "1234567890123456.78"], ["1.01", "-1.01", "1234567890123456.78"]),
        ("NUMBER(5,-2)", ["1250", "-1250", "9999949"], ["1300", "-1300", "9999900"]),
        ("NUMBER(2,5)", ["0.00012", "0.000995"], ["0.00012", None]),
        ("NUMBER(38,38)", ["0." + "1" * 38], ["0." + "1" * 38]),
        ("NUMBER(*,1)", ["1.25", "12345678901234567890.1"], ["1.3", "12345678901234567890.1"]),
        ("INTEGER", ["1.5", "-2.5"], ["2", "-3"]),
        ("NUMBER(17,5)", ["0.00001", "999999999999.99999"], ["0.00001", "999999999999.99999"]),
    ],
)
def test_sized_numbers_are_rounded_and_bounded(
    connection: oracledb.Connection, declared: str, texts: list[str], expected: list[str | None]
) -> None:
    cursor = column(connection, declared, [])
    for at, (text, result) in enumerate(zip(texts, expected, strict=True)):
        if result is None:
            with pytest.raises(oracledb.DatabaseError) as error:
                cursor.execute(f"INSERT INTO v VALUES ({at}, {text})")
            assert code_of(error) == "ORA-01438"
        else:
            cursor.execute(f"INSERT INTO v VALUES ({at}, {text})")
    kept = [Decimal(one) for one in expected if one is not None]
    assert fetched(cursor, fetch_decimals=True) == kept


def test_describes_tell_the_declared_sizes(connection: oracledb.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute(
        "CREATE TABLE v (a NUMBER(18,2), b NUMBER, c VARCHAR2(10 CHAR), d NVARCHAR2(5), e FLOAT, f TIMESTAMP(3), "
        "g CHAR(3), h RAW(16), i DATE NOT NULL, j NUMBER(5,-2))"
    )
    cursor.execute("SELECT v.*, COUNT(*) OVER () n FROM v")
    found = {one.name: (one.type_code.name, one.precision, one.scale, one.null_ok) for one in cursor.description}
    assert found["A"] == ("DB_TYPE_NUMBER", 18, 2, True)
    assert found["B"][1:3] == (0, -127)
    assert found["E"][1:3] == (126, -127)
    assert found["J"][1:3] == (5, -2)
    assert found["N"][1:3] == (0, -127)
    assert found["F"][0] == "DB_TYPE_TIMESTAMP"
    assert [one.internal_size for one in cursor.description][2:4] == [40, 10]
    assert [one.display_size for one in cursor.description][2:4] == [10, 5]


def test_texts_are_padded_cut_off_nowhere_and_never_empty(connection: oracledb.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE v (id NUMBER, a CHAR(5), b VARCHAR2(6), c NCHAR(3), d NVARCHAR2(4), e CHAR(4 CHAR))")
    cursor.execute("INSERT INTO v VALUES (1, 'ab', '', N'ก', N'ขค', 'กข')")
    cursor.execute("INSERT INTO v VALUES (2, :1, :2, :3, :4, :5)", ["", "กข", None, "😀", "x"])
    rows = cursor.execute("SELECT a, b, c, d, e FROM v ORDER BY id").fetchall()
    assert rows == [("ab   ", None, "ก  ", "ขค", "กข  "), (None, "กข", None, "😀", "x   ")]
    for column_name, value in (("a", "abcdef"), ("b", "กขค"), ("d", "abcde")):
        with pytest.raises(oracledb.DatabaseError) as error:
            cursor.execute(f"INSERT INTO v (id, {column_name}) VALUES (3, :1)", [value])
        assert code_of(error) == "ORA-12899"
    assert cursor.execute("SELECT COUNT(*) FROM v WHERE b IS NULL").fetchone() == (1,)
    assert cursor.execute("SELECT COUNT(*) FROM v WHERE b = ''").fetchone() == (0,)
    # CHARs are compared with blanks added, a VARCHAR2 bind is not.
    assert cursor.execute("SELECT COUNT(*) FROM v WHERE a = 'ab'").fetchone() == (1,)
    assert cursor.execute("SELECT COUNT(*) FROM v WHERE a = :1", ["ab"]).fetchone() == (0,)
    assert pa.table(connection.fetch_df_all("SELECT a, d FROM v ORDER BY id")).to_pylist()[0] == {
        "A": "ab   ",
        "D": "ขค",
    }


def test_moments_over_the_whole_range(connection: oracledb.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE v (id NUMBER, d DATE, a TIMESTAMP(0), b TIMESTAMP(3), c TIMESTAMP, e TIMESTAMP(9))")
    ends = [
        datetime(1, 1, 1),
        datetime(9999, 12, 31, 23, 59, 59),
        datetime(1582, 10, 15),
        datetime(1969, 12, 31, 23, 59),
    ]
    for at, moment in enumerate(ends):
        text = f"TIMESTAMP '{moment.year:04d}-{moment:%m-%d %H:%M:%S}.123456789'"
        if at == 1:
            text = "TIMESTAMP '9999-12-31 23:59:59.123456789'"
        cursor.execute(f"INSERT INTO v VALUES ({at}, {text}, {text}, {text}, {text}, {text})")
    micro, milli = timedelta(microseconds=123457), timedelta(milliseconds=123)
    cut = timedelta(microseconds=123456)
    expected = [(one, one, one + milli, one + micro, one + cut) for one in ends]
    assert cursor.execute("SELECT d, a, b, c, e FROM v ORDER BY id").fetchall() == expected
    texts = fetched(cursor, "TO_CHAR(e, 'YYYY-MM-DD\"T\"HH24:MI:SS.FF9')")
    assert texts[:2] == ["0001-01-01T00:00:00.123456789", "9999-12-31T23:59:59.123456789"]
    schema = pa.schema([("D", pa.timestamp("s")), ("E", pa.timestamp("us"))])
    frame = pa.table(connection.fetch_df_all("SELECT d, e FROM v ORDER BY id", requested_schema=schema))
    assert frame.column("E").to_pylist() == [one + cut for one in ends]
    assert frame.column("D").to_pylist() == ends


def test_zones_keep_the_instant(connection: oracledb.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE v (id NUMBER, z TIMESTAMP(6) WITH TIME ZONE, l TIMESTAMP(6) WITH LOCAL TIME ZONE)")
    cursor.execute("ALTER SESSION SET TIME_ZONE = '+07:00'")
    cursor.execute(
        "INSERT INTO v VALUES (1, TIMESTAMP '2024-01-01 00:30:00.5 +07:00', TIMESTAMP '2024-01-01 00:30:00')"
    )
    cursor.execute(
        "INSERT INTO v VALUES (2, TIMESTAMP '2024-01-01 00:30:00 -03:30', TIMESTAMP '2024-06-01 00:00:00 +00:00')"
    )
    utc = fetched(cursor, "SYS_EXTRACT_UTC(z)")
    assert utc == [datetime(2023, 12, 31, 17, 30, 0, 500000), datetime(2024, 1, 1, 4, 0)]
    # The driver hands out the wall clock in the value's own zone, without the offset.
    assert fetched(cursor, "z") == [datetime(2024, 1, 1, 0, 30, 0, 500000), datetime(2024, 1, 1, 0, 30)]
    assert fetched(cursor, "TO_CHAR(z, 'HH24:MI TZH:TZM')") == ["00:30 +07:00", "00:30 -03:30"]
    assert fetched(cursor, "l") == [datetime(2024, 1, 1, 0, 30), datetime(2024, 6, 1, 7, 0)]
    cursor.execute("ALTER SESSION SET TIME_ZONE = '+00:00'")
    assert fetched(cursor, "l") == [datetime(2023, 12, 31, 17, 30), datetime(2024, 6, 1, 0, 0)]
    assert cursor.execute("SELECT id FROM v ORDER BY z").fetchall() == [(1,), (2,)]


def test_binary_floats_with_all_their_oddities(connection: oracledb.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE v (id NUMBER, x BINARY_DOUBLE, f BINARY_FLOAT)")
    numbers = [0.0, -0.0, 1.5, -1.5, 1.7976931348623157e308, 5e-324, math.inf, -math.inf, math.nan]
    cursor.setinputsizes(None, oracledb.DB_TYPE_BINARY_DOUBLE, oracledb.DB_TYPE_BINARY_FLOAT)
    singles = [0.0, -0.0, 1.5, -1.5, 3.4028234663852886e38, 1e-45, math.inf, -math.inf, math.nan]
    rows = [(at, a, b) for at, (a, b) in enumerate(zip(numbers, singles, strict=True))]
    cursor.executemany("INSERT INTO v VALUES (:1, :2, :3)", rows)
    found = fetched(cursor)
    assert found[:8] == numbers[:8]
    # Minus zero is kept as zero.
    assert math.copysign(1, found[1]) == 1  # type: ignore[arg-type]  # a float
    assert math.isnan(found[8])  # type: ignore[arg-type]  # a float
    frame = pa.table(connection.fetch_df_all("SELECT x, f FROM v ORDER BY id"))
    assert frame.column("F").to_pylist()[6:8] == [math.inf, -math.inf]
    assert cursor.execute("SELECT COUNT(*) FROM v WHERE x IS NAN").fetchone() == (1,)


def test_intervals_raws_and_rowids(connection: oracledb.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE v (id NUMBER, d INTERVAL DAY(9) TO SECOND(9), y INTERVAL YEAR(9) TO MONTH, r RAW(4))")
    cursor.execute(
        "INSERT INTO v VALUES (1,"
        " INTERVAL '5 04:03:02.123456' DAY TO SECOND, INTERVAL '3-2' YEAR TO MONTH, HEXTORAW('00FF10'))"
    )
    delta = timedelta(days=-999999998, seconds=-5)
    cursor.execute("INSERT INTO v VALUES (2, :1, :2, :3)", [delta, oracledb.IntervalYM(-4, -5), b"\x00\x01\x02\x03"])
    cursor.execute("INSERT INTO v VALUES (3, NULL, NULL, '')")
    rows = cursor.execute("SELECT d, y, r FROM v ORDER BY id").fetchall()
    assert rows[0] == (
        timedelta(days=5, hours=4, minutes=3, seconds=2, microseconds=123456),
        oracledb.IntervalYM(3, 2),
        b"\x00\xff\x10",
    )
    assert rows[1][1:] == (oracledb.IntervalYM(-4, -5), b"\x00\x01\x02\x03")
    assert rows[1][0] == delta
    assert rows[2] == (None, None, None)
    texts = fetched(cursor, "ROWIDTOCHAR(ROWID)")
    assert fetched(cursor, "ROWID") == texts
    assert all(values.rowid_text(values.rowid_value(text)) == text for text in texts)  # type: ignore[arg-type]  # texts
    assert cursor.execute("SELECT id FROM v WHERE ROWID = :1", [texts[1]]).fetchall() == [(2,)]
    assert cursor.execute(
        "SELECT id FROM v WHERE ROWID BETWEEN :1 AND CHARTOROWID(:2)", [texts[0], texts[1]]
    ).fetchall()


@pytest.mark.parametrize("size", [1, 252, 253, 4000, 32767, 70000, 1_000_000])
def test_lobs_of_any_length_come_whole(connection: oracledb.Connection, size: int) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE v (id NUMBER, x CLOB, n NCLOB, b BLOB)")
    text, raw = ("กx😀" * size)[:size], bytes(at % 251 for at in range(size))
    cursor.setinputsizes(oracledb.DB_TYPE_CLOB, oracledb.DB_TYPE_NCLOB, oracledb.DB_TYPE_BLOB)
    cursor.execute("INSERT INTO v VALUES (1, :1, :2, :3)", [text, text, raw])
    cursor.execute("INSERT INTO v VALUES (2, NULL, NULL, NULL)")
    query = "SELECT x, n, b FROM v ORDER BY id"
    assert cursor.execute(query, fetch_lobs=False).fetchall() == [(text, text, raw), (None, None, None)]
    (x, n, b), _ = connection.cursor().execute(query + " ", fetch_lobs=True).fetchall()
    assert (x.read(), n.read(), b.read()) == (text, text, raw)
    assert x.size() == len(text.encode("utf-16-be")) // 2
    frame = pa.table(connection.fetch_df_all(query))
    assert frame.to_pylist()[0] == {"X": text, "N": text, "B": raw}
    assert frame.column("X").null_count == 1


def test_long_strings_bind_after_the_others(connection: oracledb.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE v (x CLOB, id NUMBER, y CLOB, z VARCHAR2(10))")
    cursor.execute("INSERT INTO v VALUES (:1, :2, :3, :4)", ["a" * 40000, 7, "b" * 50000, "z"])
    assert cursor.execute("SELECT x, id, y, z FROM v", fetch_lobs=False).fetchall() == [
        ("a" * 40000, 7, "b" * 50000, "z")
    ]
