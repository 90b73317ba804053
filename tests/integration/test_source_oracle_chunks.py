"""How Oracle tables are cut, by each of three ways, and how slices are cut again; every row once, whatever the way."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator
from typing import Any

import oracledb
import pytest
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, connection, oracle

from forcelift.source import open_source, oracle_cuts
from forcelift.source.oracle_slices import rowid_parts, rowid_text

__all__ = ["connection", "oracle"]

ROWS = 2600


@pytest.fixture
def opened(oracle: OracleServer) -> Iterator[Any]:
    """Open the server as a source, by a user who may read only."""
    sources = []

    def build(parts: str = "", user: str = "READER") -> Any:
        url = f"oracle://127.0.0.1:{oracle.port}/{oracle.service}{parts}"
        sources.append(open_source(url, user=user, password=PASSWORD))
        return sources[-1]

    yield build
    for source in sources:
        source.close()


@pytest.fixture
def sales(oracle: OracleServer, connection: oracledb.Connection) -> oracledb.Cursor:
    """Three partitions of 200, 1,600 and 800 rows, that READER may read."""
    cursor = connection.cursor()
    cursor.execute(
        "CREATE TABLE sales (id NUMBER(10) PRIMARY KEY, tenant VARCHAR2(20), created DATE) PARTITION BY RANGE (created)"
        " (PARTITION p1 VALUES LESS THAN (DATE '2023-01-01'), PARTITION p2 VALUES LESS THAN (DATE '2024-01-01'),"
        " PARTITION p3 VALUES LESS THAN (DATE '2025-01-01'))"
    )
    years = [2022] * 200 + [2023] * 1600 + [2024] * 800
    rows = [(at, f"T{at % 7}", datetime.datetime(year, 6, 1)) for at, year in enumerate(years)]
    cursor.executemany("INSERT INTO sales VALUES (:1, :2, :3)", rows)
    connection.commit()
    oracle.add_user("READER", PASSWORD, "SELECT V_$DATABASE")
    for grant in ("READ", "FLASHBACK"):
        cursor.execute(f"GRANT {grant} ON sales TO reader")
    return cursor


def ids(source: Any, predicate: Any) -> list[int]:
    batches = source.read("KPS.SALES", columns=["ID"], where=None, predicate=predicate)
    return [at for batch in batches for at in batch.column(0).to_pylist()]


def kinds(chunks: list[Any]) -> set[str]:
    return {chunk.predicate["by"] for chunk in chunks}


def all_once(source: Any, predicates: list[Any]) -> None:
    assert Counter(at for one in predicates for at in ids(source, one)) == Counter(range(ROWS))


def plan(source: Any, rows: int = 400) -> list[Any]:
    chunks: list[Any] = source.plan_chunks("KPS.SALES", where=None, key=["ID"], rows_per_chunk=rows)
    return chunks


def test_a_large_partition_shares_no_chunk(sales: Any, opened: Any) -> None:
    source = opened(user="KPS")
    chunks = source.plan_chunks("SALES", where=None, key=["ID"], rows_per_chunk=500)
    assert kinds(chunks) == {"rowid"}
    found = [
        [at for batch in source.read("SALES", columns=["ID"], where=None, predicate=one.predicate)
         for at in batch.column(0).to_pylist()]
        for one in chunks
    ]  # fmt: skip
    assert Counter(at for part in found for at in part) == Counter(range(ROWS))
    assert not any(any(at < 1800 for at in part) and any(at >= 1800 for at in part) for part in found)
    assert sum(chunk.rows_estimate for chunk in chunks) == pytest.approx(ROWS, abs=len(chunks))


def test_the_package_cuts_where_extents_cannot_be_seen(oracle: OracleServer, sales: Any, opened: Any) -> None:
    source = opened()
    chunks = plan(source)
    assert kinds(chunks) == {"rowid"}
    assert len(chunks) > 5
    assert oracle.store.tasks == {}
    all_once(source, [chunk.predicate for chunk in chunks])


@pytest.mark.parametrize("why", ["standby", "withheld", "not wanted"])
def test_without_the_package_an_indexed_key_serves(oracle: OracleServer, sales: Any, opened: Any, why: str) -> None:
    oracle.store.is_standby = why == "standby"
    if why == "withheld":
        oracle.store.withheld.add("DBMS_PARALLEL_EXECUTE")
    source = opened("?task_chunks=no" if why == "not wanted" else "")
    chunks = plan(source)
    assert kinds(chunks) == {"key"}
    assert {chunk.predicate["column"] for chunk in chunks} == {"ID"}
    all_once(source, [chunk.predicate for chunk in chunks])


def test_a_standby_is_read_and_nothing_is_written(oracle: OracleServer, sales: Any, opened: Any) -> None:
    oracle.store.is_standby = True
    before = oracle.store.scn
    source = opened(user="KPS")
    chunks = source.plan_chunks("SALES", where=None, key=["ID"], rows_per_chunk=300)
    assert kinds(chunks) == {"rowid"}
    assert source.count("SALES", where=None) == ROWS
    assert source.snapshot_seconds() == 900
    assert oracle.store.scn == before


def test_quantiles_of_a_large_table_are_a_samples(
    oracle: OracleServer, sales: Any, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle.store.withheld.add("DBMS_PARALLEL_EXECUTE")
    monkeypatch.setattr(oracle_cuts, "_SAMPLED_FROM", 1000)
    monkeypatch.setattr(oracle_cuts, "_SAMPLE_ROWS_MIN", 500)
    monkeypatch.setattr(oracle_cuts, "_SAMPLE_ROWS_A_PART", 50)
    asked: list[str] = []
    fetch = oracle_cuts.fetch
    monkeypatch.setattr(oracle_cuts, "fetch", lambda c, q, **b: (asked.append(q), fetch(c, q, **b))[1])
    source = opened()
    chunks = plan(source)
    assert any("NTILE" in query and "SAMPLE (" in query for query in asked)
    assert not any("ROW_NUMBER" in query or "MOD(" in query for query in asked)
    sizes = [len(ids(source, chunk.predicate)) for chunk in chunks]
    assert sum(sizes) == ROWS
    assert max(sizes) < 3 * 400
    all_once(source, [chunk.predicate for chunk in chunks])


@pytest.mark.parametrize("way", ["extents", "package", "key", "all", "one block"])
@pytest.mark.parametrize("parts", [2, 8, 100])
def test_shorter_spans_hold_the_rows_of_their_slice_once(
    oracle: OracleServer, sales: Any, opened: Any, way: str, parts: int
) -> None:
    if way == "key":
        oracle.store.withheld.add("DBMS_PARALLEL_EXECUTE")
    source = opened(user="READER" if way in ("key", "package") else "KPS")
    if way == "all":
        predicates: list[Any] = [{"by": "all"}]
    else:
        predicates = [one.predicate for one in plan(source, 100 if way == "one block" else 700)]
    whole: list[Any] = []
    for predicate in predicates:
        spans = source.spans("KPS.SALES", predicate=predicate, parts=parts)
        assert 1 <= len(spans) <= parts + 1
        found = Counter(at for one in spans for at in ids(source, one))
        assert found == Counter(ids(source, predicate))
        whole += spans
    all_once(source, whole)
    if way not in ("one block",):
        assert len(whole) > len(predicates)


def test_rowids_as_text_and_back() -> None:
    for parts in ((1, 2, 3, 4), (2**32 - 1, 1023, 2**30, 32767), (0, 0, 0, 0)):
        assert rowid_parts(rowid_text(*parts)) == parts
