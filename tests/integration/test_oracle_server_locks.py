"""Locks, rights, names and answers of changes, as the documentation has them."""

from __future__ import annotations

import oracledb
import pytest
from tests.oracle_server.server import OracleServer
from tests.oracle_support import code_of, connect, connection, oracle

__all__ = ["connection", "oracle"]


def test_a_locked_table_is_read_and_not_written(oracle: OracleServer, connection: oracledb.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t (n NUMBER)")
    cursor.execute("INSERT INTO t VALUES (1)")
    connection.commit()
    cursor.execute("LOCK TABLE t IN EXCLUSIVE MODE")
    with connect(oracle) as other, other.cursor() as second:
        assert second.execute("SELECT n FROM t").fetchall() == [(1,)]
        with pytest.raises(oracledb.Error) as error:
            second.execute("LOCK TABLE t IN EXCLUSIVE MODE NOWAIT")
        assert code_of(error) == "ORA-00054"
        with pytest.raises(oracledb.Error) as error:
            second.execute("SELECT n FROM t FOR UPDATE NOWAIT")
        assert code_of(error) == "ORA-00054"
        with pytest.raises(oracledb.Error) as error:
            second.execute("LOCK TABLE t IN EXCLUSIVE MODE WAIT 1")
        assert code_of(error) == "ORA-30006"
        # A change waits, and ends when its caller gives up.
        other.call_timeout = 300
        with pytest.raises(oracledb.Error) as error:
            second.execute("UPDATE t SET n = 2")
        assert code_of(error) == "DPY-4024"
        other.call_timeout = 0
        connection.commit()
        second.execute("UPDATE t SET n = 2")
        with pytest.raises(oracledb.Error) as error:
            cursor.execute("LOCK TABLE t IN EXCLUSIVE MODE NOWAIT")
        assert code_of(error) == "ORA-00054"
        other.commit()
    cursor.execute("LOCK TABLE t IN EXCLUSIVE MODE NOWAIT")
    with pytest.raises(oracledb.Error) as error:
        cursor.execute("LOCK TABLE t IN SHARE MODE")
    assert code_of(error) == "ORA-03001"


def test_a_row_that_stays_locked_ends_a_limited_wait(oracle: OracleServer, connection: oracledb.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t (n NUMBER)")
    cursor.execute("INSERT INTO t VALUES (1)")
    connection.commit()
    cursor.execute("SELECT n FROM t FOR UPDATE")
    with connect(oracle) as other, pytest.raises(oracledb.Error) as error:
        other.cursor().execute("SELECT n FROM t FOR UPDATE WAIT 1")
    assert code_of(error) == "ORA-30006"


def test_numbers_of_many_rows_come_back_one_for_each(connection: oracledb.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t (n NUMBER GENERATED ALWAYS AS IDENTITY, w VARCHAR2(10), c CLOB)")
    made = cursor.var(oracledb.DB_TYPE_NUMBER, arraysize=300)
    cursor.setinputsizes(None, oracledb.DB_TYPE_LONG, made)
    rows = [(f"w{at}", "ก" * at * 40) for at in range(300)]
    cursor.executemany("INSERT INTO t (w, c) VALUES (:1, :2) RETURNING n INTO :3", rows)
    assert [made.getvalue(at) for at in range(300)] == [[at + 1] for at in range(300)]
    found = cursor.execute("SELECT n, w, LENGTH(c) FROM t ORDER BY n").fetchall()
    assert found == [(at + 1, f"w{at}", at * 40 or None) for at in range(300)]
    # A number goes into a text, as Oracle converts it.
    text = cursor.var(str)
    cursor.execute("INSERT INTO t (w) VALUES ('x') RETURNING n INTO :1", [text])
    assert text.getvalue() == ["301"]


def test_reserved_words_are_names_in_quotes_only(connection: oracledb.Connection) -> None:
    cursor = connection.cursor()
    with pytest.raises(oracledb.Error) as error:
        cursor.execute("CREATE TABLE t (file VARCHAR2(10))")
    assert code_of(error) == "ORA-00904"
    cursor.execute('CREATE TABLE t ("file" VARCHAR2(10), level_ NUMBER)')


def test_lists_are_as_long_as_the_version_takes(oracle: OracleServer, connection: oracledb.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t (n NUMBER)")
    numbers = ", ".join(map(str, range(1001)))
    statement = f"SELECT n FROM t WHERE n IN ({numbers})"
    if oracle.profile == "23ai":
        assert cursor.execute(statement).fetchall() == []
        return
    with pytest.raises(oracledb.Error) as error:
        cursor.execute(statement)
    assert code_of(error) == "ORA-01795"


def test_identities_need_a_right_of_their_own_and_indexes_are_named_in_a_schema(oracle: OracleServer) -> None:
    for name in ("ONE", "TWO"):
        user = oracle.add_user(name, "Kps_Secret_1", "CREATE TABLE")
        with connect(oracle, name) as session, session.cursor() as cursor:
            with pytest.raises(oracledb.Error) as error:
                cursor.execute("CREATE TABLE t (n NUMBER GENERATED ALWAYS AS IDENTITY)")
            assert code_of(error) == "ORA-01031"
            user.granted.add("CREATE SEQUENCE")
            cursor.execute("CREATE TABLE t (n NUMBER GENERATED ALWAYS AS IDENTITY)")
            cursor.execute("CREATE INDEX i ON t (n)")
