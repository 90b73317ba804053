"""Logging on to the Oracle test server, and what a listener refuses."""

from __future__ import annotations

import threading

import oracledb
import pytest
from tests.oracle_server.faults import Fault
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, code_of, connect, connection, oracle

__all__ = ["connection", "oracle"]


def test_a_session_knows_where_it_is(oracle: OracleServer, connection: oracledb.Connection) -> None:
    assert connection.version.startswith("23." if oracle.profile == "23ai" else "19.")
    assert connection.service_name == "KPCPROD"
    assert connection.thin
    connection.ping()
    cursor = connection.cursor()
    query = "SELECT SYS_CONTEXT('USERENV', 'SESSION_USER'), USER, SYS_CONTEXT('USERENV', 'CURRENT_SCHEMA') FROM dual"
    assert cursor.execute(query).fetchone() == ("KPS", "KPS", "KPS")


@pytest.mark.parametrize(
    ("user", "password", "code"),
    [("KPS", "wrong", "ORA-01017"), ("NOBODY", PASSWORD, "ORA-01017"), ("LOCKED", PASSWORD, "ORA-28000")],
)
def test_who_is_not_let_in(oracle: OracleServer, user: str, password: str, code: str) -> None:
    oracle.add_user("LOCKED", PASSWORD).locked = True
    with pytest.raises(oracledb.DatabaseError) as error:
        oracledb.connect(user=user, password=password, dsn=oracle.dsn)
    assert code_of(error) == code


def test_a_user_needs_the_right_to_connect(oracle: OracleServer) -> None:
    oracle.add_user("READER", PASSWORD).granted.clear()
    with pytest.raises(oracledb.DatabaseError) as error:
        connect(oracle, "READER")
    assert code_of(error) == "ORA-01045"


def test_names_are_taken_in_any_case_but_passwords_are_not(oracle: OracleServer) -> None:
    connect(oracle, "kps").close()
    with pytest.raises(oracledb.DatabaseError):
        oracledb.connect(user="kps", password=PASSWORD.lower(), dsn=oracle.dsn)


def test_what_the_listener_refuses(oracle: OracleServer) -> None:
    for dsn, text in (
        (f"127.0.0.1:{oracle.port}/OTHER", "DPY-6001"),
        (
            f"(DESCRIPTION=(ADDRESS=(PROTOCOL=tcp)(HOST=127.0.0.1)(PORT={oracle.port}))(CONNECT_DATA=(SID=X)))",
            "DPY-6003",
        ),
    ):
        with pytest.raises(oracledb.OperationalError) as error:
            oracledb.connect(user="KPS", password=PASSWORD, dsn=dsn)
        assert text in str(error.value)
    oracle.faults.order(Fault(at="connect", action="refuse", code=12516))
    with pytest.raises(oracledb.OperationalError, match="12516"):
        connect(oracle)
    connect(oracle).close()


def test_a_listener_that_says_nothing_holds_a_connect_until_it_is_closed(oracle: OracleServer) -> None:
    oracle.faults.order(Fault(at="connect", action="mute"))
    failures: list[Exception] = []

    def try_it() -> None:
        try:
            connect(oracle, tcp_connect_timeout=1)
        except (oracledb.Error, OSError) as error:
            failures.append(error)

    waiting = threading.Thread(target=try_it)
    waiting.start()
    while not oracle.faults.struck:
        waiting.join(0.01)
    assert waiting.is_alive()
    oracle.close()
    waiting.join()
    assert len(failures) == 1


def test_a_dropped_connect_is_an_error(oracle: OracleServer) -> None:
    oracle.faults.order(Fault(at="connect", action="drop"))
    with pytest.raises(oracledb.Error) as error:
        connect(oracle)
    assert code_of(error) in ("DPY-4011", "DPY-6005")


def test_module_and_action_are_seen_by_a_dba(oracle: OracleServer, connection: oracledb.Connection) -> None:
    connection.module, connection.action, connection.clientinfo = "forcelift", "extract", "batch 7"
    cursor = connection.cursor()
    query = "SELECT username, module, action, client_info FROM v$session"
    assert cursor.execute(query).fetchall() == [("KPS", "forcelift", "extract", "batch 7")]
    cursor.execute("BEGIN DBMS_APPLICATION_INFO.SET_MODULE('other', 'work'); END;")
    assert cursor.execute(query).fetchone()[1:3] == ("other", "work")


def test_a_pool_gives_sessions_out_and_takes_them_back(oracle: OracleServer) -> None:
    pool = oracledb.create_pool(user="KPS", password=PASSWORD, dsn=oracle.dsn, min=1, max=3, increment=1)
    sessions = [pool.acquire() for _ in range(3)]
    ids = {one.cursor().execute("SELECT SYS_CONTEXT('USERENV', 'SID') FROM dual").fetchone()[0] for one in sessions}
    assert len(ids) == 3
    for one in sessions:
        one.close()
    with pool.acquire() as again:
        again.ping()
    pool.close()


def test_a_small_packet_size_changes_no_value(oracle: OracleServer) -> None:
    for size in (512, 8192, 65535):
        dsn = f"{oracle.dsn}?sdu={size}"
        with oracledb.connect(user="KPS", password=PASSWORD, dsn=dsn) as made:
            cursor = made.cursor()
            text = "ก" * 1000
            assert cursor.execute("SELECT :1 || 'x', LENGTH(:2) FROM dual", [text, text]).fetchone() == (
                text + "x",
                1000,
            )
