"""A second opinion on the SQL that we send to Oracle: it parses in the Oracle dialect of sqlglot."""

from __future__ import annotations

import re
from typing import Any

import oracledb
import pytest
import sqlglot
from sqlglot import expressions as exp
from sqlglot.errors import ErrorLevel
from tests.integration.test_source_oracle_chunks import opened, sales
from tests.oracle_server.faults import Fault
from tests.oracle_server.server import OracleServer
from tests.oracle_support import connection, oracle

from forcelift.protocols.source import ADDRESS

__all__ = ["connection", "opened", "oracle", "sales"]


def use(source: Any, table: str) -> None:
    """Everything that a batch asks of a source."""
    source.tables()
    source.describe(table)
    source.now()
    source.snapshot_seconds()
    condition = "created >= DATE '2023-01-01' AND tenant <> 'T1'"
    columns = [column.name for column in source.describe(table).columns]
    source.sample(table, columns=columns, where=condition, rows=10)
    source.figures(table, columns=columns, exact=["ID"], where=condition)
    slices = [chunk.predicate for chunk in source.plan_chunks(table, where=None, key=["ID"], rows_per_chunk=500)]
    source.figures(table, columns=columns, exact=[], where=None, slices=slices[:2])
    for chunk in source.plan_chunks(table, where=condition, key=["ID"], rows_per_chunk=500)[:2]:
        source.count(table, where=condition, predicate=chunk.predicate)
        list(source.read(table, columns=columns, where=condition, predicate=chunk.predicate, order_by=["TENANT"]))
        found = list(source.locate(table, columns=["ID"], where=None, predicate=chunk.predicate, key=["ID"]))
        for batch in found[:1]:  # a range of blocks may hold no row
            among = batch.column(ADDRESS)[:3]
            list(source.read(table, columns=["ID"], where=None, predicate=chunk.predicate, key=["ID"], among=among))
        source.spans(table, predicate=chunk.predicate, parts=4)
    source.ask("SELECT tenant, COUNT(*) FROM kps.sales GROUP BY tenant", rows_max=5)


def test_what_we_send_is_oracles_sql(
    oracle: OracleServer,
    connection: oracledb.Connection,
    sales: Any,
    opened: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[str] = []
    original = oracle.faults.strike

    def strike(at: str, statement: str = "", rows: int = 0) -> Fault | None:
        sent.append(statement)
        return original(at, statement, rows)

    monkeypatch.setattr(oracle.faults, "strike", strike)
    use(opened(user="KPS"), "SALES")
    use(opened(), "KPS.SALES")
    oracle.store.withheld.add("DBMS_PARALLEL_EXECUTE")
    use(opened("?snapshot=none"), "KPS.SALES")
    queries = {one for one in sent if one.lstrip().startswith("SELECT")}
    assert len(queries) > 30
    assert any("AS OF SCN" in one for one in queries)
    for query in sorted(queries):
        (parsed,) = sqlglot.parse(query, read="oracle", error_level=ErrorLevel.RAISE)
        assert isinstance(parsed, exp.Select | exp.Union), query
    others = {re.split(r"\s+", one.strip())[0] for one in sent if one} - {"SELECT"}
    assert others <= {"ALTER", "SET", "BEGIN"}
