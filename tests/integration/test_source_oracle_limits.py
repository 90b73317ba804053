"""What an Oracle source asks of the server at most, and what becomes of a call that takes too long."""

from __future__ import annotations

import datetime
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import oracledb
import pyarrow as pa
import pytest
from tests.oracle_server.faults import Fault
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, connection, oracle

from forcelift.errors import SourceError, SourceUnavailable
from forcelift.source import open_source, oracle_errors
from forcelift.source.oracle_advice import SlowStatement, advice
from forcelift.source.oracle_errors import MEANINGS, Meaning, meaning_of
from forcelift.source.oracle_session import StatementTooLong, batches

__all__ = ["connection", "oracle"]


@pytest.fixture
def opened(oracle: OracleServer) -> Iterator[Any]:
    sources = []

    def build(parts: str = "", **options: Any) -> Any:
        url = f"oracle://127.0.0.1:{oracle.port}/{oracle.service}{parts}"
        sources.append(open_source(url, user="KPS", password=PASSWORD, **options))
        return sources[-1]

    yield build
    for source in sources:
        source.close()


@pytest.fixture
def sales(connection: oracledb.Connection) -> oracledb.Cursor:
    cursor = connection.cursor()
    cursor.execute(
        "CREATE TABLE sales (id NUMBER(10) PRIMARY KEY, tenant VARCHAR2(20), created DATE) PARTITION BY RANGE (created)"
        " (PARTITION p2023 VALUES LESS THAN (DATE '2024-01-01'), PARTITION p2024 VALUES LESS THAN (DATE '2025-01-01'))"
    )
    cursor.execute("CREATE INDEX sales_created ON sales (created)")

    day = datetime.datetime(2023, 6, 1)
    rows = [(at, f"T{at % 7}", day + datetime.timedelta(days=at % 500)) for at in range(1200)]
    cursor.executemany("INSERT INTO sales VALUES (:1, :2, :3)", rows)
    connection.commit()
    return cursor


def read(source: Any, **options: Any) -> int:
    return sum(b.num_rows for b in source.read("SALES", columns=["ID"], **{"where": None, **options}))


def test_a_session_can_write_nothing(sales: Any, opened: Any) -> None:
    source = opened()
    with source._sessions.session() as session, pytest.raises(oracledb.DatabaseError, match="ORA-01456"):
        session.cursor().execute("DELETE FROM sales")
    assert read(source) == 1200


def test_a_dba_sees_what_each_session_does(sales: Any, opened: Any) -> None:
    source = opened()
    query = "SELECT module, action FROM v$session"
    for action in ("read", "plan", "count"):
        with source._sessions.session(action=action) as session:
            assert session.cursor().execute(query).fetchall() == [("forcelift", action)]


def test_no_more_sessions_are_opened_than_allowed(oracle: OracleServer, sales: Any, opened: Any) -> None:
    source = opened(sessions=2)
    places, most, lock = [0], [0], threading.Lock()
    chunks = source.plan_chunks("SALES", where=None, key=["ID"], rows_per_chunk=100)
    assert len(chunks) > 6
    lent = source._sessions._lent

    def counted(*given: Any, **more: Any) -> Iterator[Any]:
        with lock:
            places[0] += 1
            most[0] = max(most[0], places[0])
        try:
            yield from lent(*given, **more)
        finally:
            with lock:
                places[0] -= 1

    source._sessions._lent = counted
    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(lambda one: read(source, predicate=one.predicate), chunks)) == 1200
    assert 1 <= most[0] <= 2


def test_who_gets_no_session_is_told_why(sales: Any, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forcelift.source.oracle_session._WAIT_SECONDS", 0.05)
    source = opened(sessions=1)
    with (
        source._sessions.session(),
        pytest.raises(SourceUnavailable, match="all 1 sessions that the plan allows are in use"),
    ):
        source.count("SALES", where=None)
    assert source.count("SALES", where=None) == 1200


def test_a_call_that_takes_too_long_is_tried_again(oracle: OracleServer, sales: Any, opened: Any) -> None:
    source = opened("?call_timeout=0.3")
    assert source.count("SALES", where=None) == 1200
    oracle.faults.order(Fault(at="execute", action="slow", seconds=30, match="COUNT(*)"))
    with pytest.raises(SourceUnavailable, match="one call took longer"):
        source.count("SALES", where=None)
    assert source.count("SALES", where=None) == 1200


def test_a_full_scan_that_takes_too_long_names_the_index_that_would_help(
    oracle: OracleServer, sales: Any, opened: Any
) -> None:
    source = opened("?statement_minutes=0.005")
    oracle.faults.order(Fault(at="execute", action="slow", seconds=30, match="COUNT(*)", times=3))
    for where, words in (
        ("tenant = 'T1'", r"partitioned by `CREATED`.*no index begins with `TENANT`"),
        ("created >= DATE '2024-01-01'", r"statement_minutes=N"),
        (None, r"partitioned by `CREATED`"),
    ):
        with pytest.raises(SlowStatement, match=r"for more than 0\.005 min, as a full scan would") as error:
            source.count("SALES", where=where)
        assert re.search(words, str(error.value.hint))
        assert not isinstance(error.value, SourceUnavailable)
    assert "no index" not in str(error.value.hint)


def test_the_time_that_the_reader_takes_does_not_count(
    connection: oracledb.Connection, sales: Any, opened: Any
) -> None:

    schema = pa.schema([("id", pa.int64())])
    ticks = iter(range(0, 10_000, 10))
    found = batches(
        connection, "SELECT id FROM sales", schema, size=300, seconds=35.0, monotonic=lambda: float(next(ticks))
    )
    # Four replies of 10 s each: the fourth is past 35 s, and what lies between replies is nobody's time.
    assert [next(found).num_rows for _ in range(3)] == [300, 300, 300]
    with pytest.raises(StatementTooLong):
        list(found)


def test_advice_looks_at_the_dictionary_only(sales: Any, opened: Any) -> None:
    source = opened()
    source.describe("SALES")
    shape = source._shapes["SALES"]
    assert shape.partitioned_by == ("CREATED",)
    assert shape.leading == {"ID", "CREATED"}
    assert advice(shape, "created > SYSDATE - 1 AND tenant = 'ID'") == []
    assert advice(shape, 'id = 5 AND "CREATED" IS NULL') == []
    assert len(advice(shape, "'created' = tenant")) == 2


def test_one_table_says_what_every_number_means() -> None:
    assert len({code for code in MEANINGS if isinstance(code, int)}) > 130
    passing = {code for code, meaning in MEANINGS.items() if meaning in (Meaning.PASSES, Meaning.CROWDED)}
    for code in (3113, 3135, 12170, 12514, 12609, 1033, 1219, "DPY-4011", "DPY-6005", 18, 1652, 4036):
        assert code in passing
    for code in (1017, 28000, 942, 904, 1555, 1466, 12505):
        assert code not in passing
    assert MEANINGS[1555] is Meaning.TOO_OLD
    assert meaning_of(oracledb.DatabaseError("no number")) is Meaning.VALUE


@pytest.mark.parametrize("code", [3113, 12170, 1652, 600, 1089, 4031])
def test_what_passes_is_unavailable_and_what_does_not_is_final(
    oracle: OracleServer, sales: Any, opened: Any, code: int
) -> None:
    source = opened()
    oracle.faults.order(Fault(at="execute", action="error", code=code, match="COUNT(*)"))
    with pytest.raises(SourceUnavailable):
        source.count("SALES", where=None)
    oracle.faults.order(Fault(at="execute", action="error", code=1722, match="COUNT(*)"))
    with pytest.raises(SourceError) as error:
        source.count("SALES", where=None)
    assert not isinstance(error.value, SourceUnavailable)
    assert isinstance(error.value, oracle_errors.UnreadableRow)
