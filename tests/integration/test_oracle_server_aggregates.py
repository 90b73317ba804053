"""The Oracle test server's aggregates where Oracle's differ: LOBs are not compared; sets of groups; doubles as text."""

from __future__ import annotations

import oracledb
import pytest
from tests.oracle_server.server import OracleServer
from tests.oracle_support import code_of, connect, oracle_19c

__all__ = ["oracle_19c"]


@pytest.fixture
def session(oracle_19c: OracleServer) -> oracledb.Connection:
    made = connect(oracle_19c)
    cursor = made.cursor()
    cursor.execute("CREATE TABLE t (id NUMBER(9), note CLOB, c CHAR(4), d BINARY_DOUBLE, r RAW(9), e VARCHAR2(9))")
    rows = [(1, "a", "x", 0.1, b"ab", ""), (2, None, "x", 2.5, b"c", "e"), (3, "b", None, 3.0, None, None)]
    cursor.executemany("INSERT INTO t VALUES (:1, :2, :3, :4, :5, :6)", rows)
    made.commit()
    return made


@pytest.mark.parametrize(
    "query",
    [
        "SELECT MIN(note) FROM t",
        "SELECT MAX(note) FROM t",
        "SELECT COUNT(DISTINCT note) FROM t",
        "SELECT APPROX_COUNT_DISTINCT(note) FROM t",
        "SELECT note, COUNT(*) FROM t GROUP BY note",
    ],
)
def test_lobs_are_not_compared(session: oracledb.Connection, query: str) -> None:
    with session, pytest.raises(oracledb.DatabaseError) as error:
        session.cursor().execute(query).fetchall()
    assert code_of(error) == "ORA-00932"


def test_what_oracle_counts(session: oracledb.Connection) -> None:
    with session:
        cursor = session.cursor()
        (line,) = cursor.execute(
            "SELECT COUNT(note), MAX(DBMS_LOB.GETLENGTH(note)), MAX(LENGTH(c)), COUNT(e), MAX(UTL_RAW.LENGTH(r)),"
            " APPROX_COUNT_DISTINCT(c), MIN(TO_CHAR(d)) FROM t"
        ).fetchall()
        # CHAR is padded, and an empty text is a null.
        assert line == (2, 1, 4, 1, 2, 1, "1.0000000000000001E-001")
        texts = cursor.execute("SELECT TO_CHAR(d) FROM t ORDER BY id").fetchall()
        assert [text for (text,) in texts][1:] == ["2.5E+000", "3.0E+000"]
        groups = cursor.execute(
            "SELECT GROUPING(c), GROUPING(e), c, e, COUNT(*) FROM t GROUP BY GROUPING SETS ((c), (e)) ORDER BY 1, 2, 5"
        ).fetchall()
        assert groups == [
            (0, 1, None, None, 1),
            (0, 1, "x   ", None, 2),
            (1, 0, None, "e", 1),
            (1, 0, None, None, 2),
        ]
