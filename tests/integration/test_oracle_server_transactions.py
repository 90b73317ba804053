"""Transactions, locks and the past at the Oracle test server."""

from __future__ import annotations

import threading
from typing import Any

import oracledb
import pytest
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, code_of, connect, connection, oracle

__all__ = ["connection", "oracle"]


@pytest.fixture
def accounts(connection: oracledb.Connection) -> oracledb.Cursor:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE a (id NUMBER PRIMARY KEY, x NUMBER(10) NOT NULL)")
    cursor.executemany("INSERT INTO a VALUES (:1, :2)", [(at, at * 10) for at in range(1, 6)])
    connection.commit()
    return cursor


def rows(cursor: oracledb.Cursor, past: str = "") -> list[tuple[Any, ...]]:
    return cursor.execute(f"SELECT id, x FROM a {past} ORDER BY id").fetchall()


def test_others_see_only_what_was_committed(oracle: OracleServer, accounts: oracledb.Cursor) -> None:
    other = connect(oracle).cursor()
    accounts.execute("UPDATE a SET x = x + 1 WHERE id = 1")
    accounts.execute("DELETE FROM a WHERE id = 2")
    accounts.execute("INSERT INTO a VALUES (9, 90)")
    assert accounts.connection.transaction_in_progress
    assert rows(accounts) == [(1, 11), (3, 30), (4, 40), (5, 50), (9, 90)]
    assert rows(other) == [(at, at * 10) for at in range(1, 6)]
    accounts.connection.commit()
    assert not accounts.connection.transaction_in_progress
    assert rows(other) == [(1, 11), (3, 30), (4, 40), (5, 50), (9, 90)]


def test_a_rollback_undoes_all_and_a_savepoint_a_part(accounts: oracledb.Cursor) -> None:
    accounts.execute("UPDATE a SET x = 1 WHERE id = 1")
    accounts.execute("SAVEPOINT s")
    accounts.execute("UPDATE a SET x = 2 WHERE id = 1")
    accounts.execute("DELETE FROM a WHERE id > 1")
    accounts.execute("INSERT INTO a VALUES (8, 8)")
    accounts.execute("ROLLBACK TO SAVEPOINT s")
    assert rows(accounts) == [(1, 1), (2, 20), (3, 30), (4, 40), (5, 50)]
    accounts.connection.rollback()
    assert rows(accounts) == [(at, at * 10) for at in range(1, 6)]
    with pytest.raises(oracledb.DatabaseError) as error:
        accounts.execute("ROLLBACK TO SAVEPOINT s")
    assert code_of(error) == "ORA-01086"


def test_a_failed_statement_changes_nothing_and_the_transaction_goes_on(accounts: oracledb.Cursor) -> None:
    accounts.execute("INSERT INTO a VALUES (6, 60)")
    for statement, code in (
        ("INSERT INTO a SELECT id + 3, x FROM a", "ORA-00001"),
        ("UPDATE a SET x = NULL WHERE id = 1", "ORA-01407"),
        ("INSERT INTO a (id) VALUES (7)", "ORA-01400"),
        ("UPDATE a SET x = 12345678901", "ORA-01438"),
    ):
        with pytest.raises(oracledb.DatabaseError) as error:
            accounts.execute(statement)
        assert code_of(error) == code
    assert [row[0] for row in rows(accounts)] == [1, 2, 3, 4, 5, 6]


def test_an_open_cursor_reads_the_state_of_its_beginning(oracle: OracleServer, accounts: oracledb.Cursor) -> None:
    other = connect(oracle).cursor()
    accounts.prefetchrows, accounts.arraysize = 1, 1
    accounts.execute("SELECT id, x FROM a ORDER BY id")
    assert accounts.fetchone() == (1, 10)
    other.execute("UPDATE a SET x = 0")
    other.connection.commit()
    assert accounts.fetchall() == [(at, at * 10) for at in range(2, 6)]


def test_autocommit_and_the_end_of_a_session(oracle: OracleServer, accounts: oracledb.Cursor) -> None:
    with connect(oracle) as other:
        other.autocommit = True
        other.cursor().execute("UPDATE a SET x = 7 WHERE id = 1")
        other.autocommit = False
        other.cursor().execute("UPDATE a SET x = 8 WHERE id = 2")
    assert rows(accounts)[:2] == [(1, 7), (2, 20)]


def test_a_definition_commits_what_was_open(oracle: OracleServer, accounts: oracledb.Cursor) -> None:
    accounts.execute("DELETE FROM a")
    accounts.execute("CREATE TABLE b (x NUMBER)")
    accounts.connection.rollback()
    assert rows(accounts) == []


def test_a_writer_waits_for_the_one_before_it(oracle: OracleServer, accounts: oracledb.Cursor) -> None:
    other = connect(oracle).cursor()
    accounts.execute("UPDATE a SET x = x + 1 WHERE id = 1")
    started, ended = threading.Event(), threading.Event()

    def second() -> None:
        started.set()
        other.execute("UPDATE a SET x = x + 100 WHERE id = 1")
        ended.set()

    waiting = threading.Thread(target=second)
    waiting.start()
    started.wait()
    assert not ended.wait(0.2)
    accounts.connection.commit()
    waiting.join()
    other.connection.commit()
    assert rows(accounts)[0] == (1, 111)


def test_a_key_that_another_one_is_inserting_is_waited_for(oracle: OracleServer, accounts: oracledb.Cursor) -> None:
    other = connect(oracle).cursor()
    accounts.execute("INSERT INTO a VALUES (7, 70)")
    found: list[str] = []

    def second() -> None:
        try:
            other.execute("INSERT INTO a VALUES (7, 71)")
        except oracledb.IntegrityError as error:
            found.append(error.args[0].full_code)

    waiting = threading.Thread(target=second)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    accounts.connection.commit()
    waiting.join()
    assert found == ["ORA-00001"]


def test_two_that_wait_for_each_other_are_parted(oracle: OracleServer, accounts: oracledb.Cursor) -> None:
    other = connect(oracle).cursor()
    accounts.execute("UPDATE a SET x = 1 WHERE id = 1")
    other.execute("UPDATE a SET x = 1 WHERE id = 2")
    found: list[str] = []

    def cross(cursor: oracledb.Cursor, row: int) -> None:
        try:
            cursor.execute("UPDATE a SET x = 2 WHERE id = :1", [row])
        except oracledb.DatabaseError as error:
            found.append(error.args[0].full_code)
            cursor.connection.rollback()

    threads = [threading.Thread(target=cross, args=pair) for pair in ((accounts, 2), (other, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["ORA-00060"]


def test_rows_can_be_locked(oracle: OracleServer, accounts: oracledb.Cursor) -> None:
    other = connect(oracle).cursor()
    assert accounts.execute("SELECT x FROM a WHERE id = 1 FOR UPDATE").fetchall() == [(10,)]
    with pytest.raises(oracledb.DatabaseError) as error:
        other.execute("SELECT x FROM a WHERE id = 1 FOR UPDATE NOWAIT")
    assert code_of(error) == "ORA-00054"
    assert other.execute("SELECT id FROM a WHERE id < 3 FOR UPDATE SKIP LOCKED").fetchall() == [(2,)]
    assert other.execute("SELECT id FROM a WHERE id = 1 FOR UPDATE SKIP LOCKED").fetchall() == []
    accounts.connection.rollback()
    assert other.execute("SELECT id FROM a WHERE id = 1 FOR UPDATE NOWAIT").fetchall() == [(1,)]


def test_the_past_by_scn(accounts: oracledb.Cursor) -> None:
    query = "SELECT current_scn FROM v$database"
    first = accounts.execute(query).fetchone()[0]
    assert isinstance(first, int)
    accounts.execute("UPDATE a SET x = 0 WHERE id = 1")
    accounts.execute("DELETE FROM a WHERE id = 2")
    assert rows(accounts, f"AS OF SCN {first}") == [(at, at * 10) for at in range(1, 6)]
    accounts.connection.commit()
    second = accounts.execute("SELECT DBMS_FLASHBACK.GET_SYSTEM_CHANGE_NUMBER FROM dual").fetchone()[0]
    assert second > first
    accounts.execute("INSERT INTO a VALUES (6, 60)")
    accounts.connection.commit()
    for _ in range(2):
        past = "SELECT COUNT(*), SUM(x) FROM a AS OF SCN :scn"
        assert accounts.execute(past, scn=first).fetchone() == (5, 150)
        assert accounts.execute(past, scn=second).fetchone() == (4, 120)
    assert accounts.execute("SELECT COUNT(*) FROM a").fetchone() == (5,)
    with pytest.raises(oracledb.DatabaseError) as error:
        rows(accounts, "AS OF SCN 99999999999")
    assert code_of(error) == "ORA-08181"


def test_what_undo_no_longer_holds_cannot_be_read(oracle: OracleServer, accounts: oracledb.Cursor) -> None:
    first = oracle.store.scn
    accounts.execute("UPDATE a SET x = 0")
    accounts.connection.commit()
    oracle.store.forget_before(oracle.store.scn)
    with pytest.raises(oracledb.DatabaseError) as error:
        rows(accounts, f"AS OF SCN {first}")
    assert code_of(error) == "ORA-01555"
    assert rows(accounts, f"AS OF SCN {oracle.store.scn}")[0] == (1, 0)
    accounts.execute("TRUNCATE TABLE a")
    with pytest.raises(oracledb.DatabaseError) as error:
        rows(accounts, f"AS OF SCN {oracle.store.scn - 2}")
    assert code_of(error) == "ORA-01466"


def test_the_past_needs_a_grant(oracle: OracleServer, accounts: oracledb.Cursor) -> None:
    oracle.add_user("READER", PASSWORD)
    reader = connect(oracle, "READER").cursor()
    query = f"SELECT COUNT(*) FROM kps.a AS OF SCN {oracle.store.scn}"
    for grant, code in (("SELECT", "ORA-00942"), ("FLASHBACK", "ORA-01031")):
        with pytest.raises(oracledb.DatabaseError) as error:
            reader.execute(query)
        assert code_of(error) == code
        accounts.execute(f"GRANT {grant} ON a TO reader")
    assert reader.execute(f"SELECT COUNT(*) FROM kps.a AS OF SCN {oracle.store.scn}").fetchone() == (5,)
    with pytest.raises(oracledb.DatabaseError) as error:
        reader.execute("DELETE FROM kps.a")
    assert code_of(error) == "ORA-01031"
    with pytest.raises(oracledb.DatabaseError) as error:
        reader.execute("SELECT current_scn FROM v$database")
    assert code_of(error) == "ORA-00942"


def test_a_read_only_transaction_keeps_its_state(oracle: OracleServer, accounts: oracledb.Cursor) -> None:
    other = connect(oracle).cursor()
    other.execute("SET TRANSACTION READ ONLY")
    accounts.execute("DELETE FROM a")
    accounts.connection.commit()
    assert len(rows(other)) == 5
    with pytest.raises(oracledb.DatabaseError) as error:
        other.execute("DELETE FROM a")
    assert code_of(error) == "ORA-01456"
    other.connection.commit()
    assert rows(other) == []


def test_references_are_kept(accounts: oracledb.Cursor) -> None:
    accounts.execute("CREATE TABLE c (id NUMBER PRIMARY KEY, a_id NUMBER REFERENCES a (id), CHECK (id > 0))")
    accounts.execute("INSERT INTO c VALUES (1, 1)")
    accounts.execute("INSERT INTO c VALUES (2, NULL)")
    for statement, code in (
        ("INSERT INTO c VALUES (3, 77)", "ORA-02291"),
        ("UPDATE c SET a_id = 77 WHERE id = 1", "ORA-02291"),
        ("DELETE FROM a WHERE id = 1", "ORA-02292"),
        ("INSERT INTO c VALUES (-1, 1)", "ORA-02290"),
    ):
        with pytest.raises(oracledb.IntegrityError) as error:
            accounts.execute(statement)
        assert code_of(error) == code
    accounts.execute("DELETE FROM a WHERE id = 2")
    assert accounts.rowcount == 1
