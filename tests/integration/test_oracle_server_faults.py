"""Faults on order, call timeouts and cancels at the Oracle test server."""

from __future__ import annotations

import threading

import oracledb
import pyarrow as pa
import pytest
from tests.oracle_server.faults import Fault
from tests.oracle_server.server import OracleServer
from tests.oracle_support import code_of, connect, connection, oracle

__all__ = ["connection", "oracle"]


@pytest.fixture
def table(connection: oracledb.Connection) -> oracledb.Connection:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE f (id NUMBER(10) PRIMARY KEY, name VARCHAR2(40))")
    cursor.executemany("INSERT INTO f VALUES (:1, :2)", [(at, f"name {at}") for at in range(2000)])
    connection.commit()
    return connection


def read_rows(connection: oracledb.Connection, size: int = 100) -> list[int]:
    found: list[int] = []
    for frame in connection.fetch_df_batches("SELECT id FROM f ORDER BY id", size=size):
        found += pa.table(frame).column("ID").to_pylist()
    return found


@pytest.mark.parametrize(("action", "code"), [("drop", "DPY-4011"), ("error", "ORA-01555")])
def test_a_read_breaks_off_where_it_was_told_to(
    oracle: OracleServer, table: oracledb.Connection, action: str, code: str
) -> None:
    oracle.faults.order(Fault(at="fetch", action=action, code=1555, match="FROM f", after_rows=700))
    with pytest.raises(oracledb.DatabaseError) as error:
        read_rows(table)
    assert code_of(error) == code
    assert oracle.faults.struck == [f"fetch:{action}"]
    again = table if action == "error" else connect(oracle)
    assert read_rows(again) == list(range(2000))


def test_an_execute_fails_as_often_as_ordered(oracle: OracleServer, table: oracledb.Connection) -> None:
    oracle.faults.order(Fault(at="execute", action="error", code=4031, match="FROM f", times=2))
    for _ in range(2):
        with pytest.raises(oracledb.DatabaseError) as error:
            read_rows(table)
        assert code_of(error) == "ORA-04031"
    assert read_rows(table) == list(range(2000))


def test_a_slow_reply_meets_the_call_timeout_and_the_session_lives_on(
    oracle: OracleServer, table: oracledb.Connection
) -> None:
    oracle.faults.order(Fault(at="fetch", action="slow", seconds=60, after_rows=300))
    table.call_timeout = 200
    with pytest.raises(oracledb.DatabaseError) as error:
        read_rows(table)
    assert code_of(error) == "DPY-4024"
    table.call_timeout = 0
    assert read_rows(table) == list(range(2000))


def test_a_call_is_cancelled_from_another_thread(oracle: OracleServer, table: oracledb.Connection) -> None:
    oracle.faults.order(Fault(at="execute", action="slow", seconds=60, match="FROM f"))
    found: list[str] = []

    def run() -> None:
        try:
            read_rows(table)
        except oracledb.DatabaseError as error:
            found.append(error.args[0].full_code)

    running = threading.Thread(target=run)
    running.start()
    while not oracle.faults.struck:
        running.join(0.005)
    table.cancel()
    running.join()
    assert found == ["ORA-01013"]
    assert read_rows(table) == list(range(2000))


def test_a_running_query_is_cancelled(table: oracledb.Connection) -> None:
    """A cross join of 8,000,000,000 rows would run for minutes."""
    table.call_timeout = 300
    with pytest.raises(oracledb.DatabaseError) as error:
        table.cursor().execute("SELECT SUM(LENGTH(a.name || b.name || c.name)) FROM f a CROSS JOIN f b CROSS JOIN f c")
    assert code_of(error) == "DPY-4024"
    table.call_timeout = 0
    assert read_rows(table) == list(range(2000))


def test_a_waiting_writer_is_cancelled(oracle: OracleServer, table: oracledb.Connection) -> None:
    other = connect(oracle)
    table.cursor().execute("UPDATE f SET name = 'x' WHERE id = 1")
    other.call_timeout = 200
    with pytest.raises(oracledb.DatabaseError) as error:
        other.cursor().execute("UPDATE f SET name = 'y' WHERE id = 1")
    assert code_of(error) == "DPY-4024"
    table.commit()
    other.cursor().execute("UPDATE f SET name = 'y' WHERE id = 1")
    other.commit()


def test_a_dropped_session_loses_its_open_changes(oracle: OracleServer, table: oracledb.Connection) -> None:
    other = connect(oracle)
    other.cursor().execute("DELETE FROM f")
    oracle.faults.order(Fault(at="execute", action="drop", match="SELECT 1"))
    with pytest.raises(oracledb.DatabaseError) as error:
        other.cursor().execute("SELECT 1 FROM dual")
    assert code_of(error) == "DPY-4011"
    assert read_rows(table) == list(range(2000))
    table.cursor().execute("DELETE FROM f WHERE id = 1")


def test_cancelling_when_nothing_runs_stops_the_next_call_at_most(table: oracledb.Connection) -> None:
    table.cancel()
    codes = []
    for _ in range(2):
        try:
            codes.append(str(len(read_rows(table))))
        except oracledb.DatabaseError as error:
            codes.append(error.args[0].full_code)
    assert codes in (["ORA-01013", "2000"], ["2000", "2000"])
