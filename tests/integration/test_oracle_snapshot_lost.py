"""A run whose SCN is lost on the way: spans of it, then the declared fallback, told wherever a batch is told of."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cli_migration import CHUNK_ROWS, ORPHANS, SALES, TENANTS, Migration, check_accounting
from tests.integration.test_oracle_run import GOOD, check, migration
from tests.oracle_server.faults import Fault
from tests.oracle_server.server import OracleServer
from tests.oracle_support import connect, oracle

from forcelift.errors import ExitCode

__all__ = ["migration", "oracle"]


def journal(migration: Migration, action: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(migration.audit_file)) as audit:
        rows = audit.execute("SELECT payload FROM journal WHERE action = ? ORDER BY seq", (action,)).fetchall()
    return [json.loads(payload) for (payload,) in rows]


def too_old(oracle: OracleServer, times: int, match: str = 'AS "c1"') -> None:
    oracle.faults.order(Fault(at="execute", action="error", code=1555, match=match, times=times))


def whenever(oracle: OracleServer, code: int, action: Callable[[], object]) -> None:
    """Do something whenever a fault of that code has struck."""
    original = oracle.faults.strike

    def strike(at: str, statement: str = "", rows: int = 0) -> Fault | None:
        struck = original(at, statement, rows)
        if struck is not None and struck.code == code:
            action()
        return struck

    oracle.faults.strike = strike  # type: ignore[method-assign]  # something happens at one moment of the run


def larger_chunks(migration: Migration, rows: int) -> None:
    text = migration.plan.read_text()
    assert f"rows: {CHUNK_ROWS}" in text
    migration.plan.write_text(text.replace(f"rows: {CHUNK_ROWS}", f"rows: {rows}"))


def test_a_chunk_is_read_in_shorter_spans_of_the_same_scn(oracle: OracleServer, migration: Migration) -> None:
    larger_chunks(migration, 300)
    too_old(oracle, 1, match='ORDER BY "sales"')
    document = migration.document("run", "--batch", "spans", code=ExitCode.ROWS_REFUSED)
    assert oracle.faults.struck == ["execute:error"]
    assert document["chunks_of_other_snapshots"] == 0
    (told,) = journal(migration, "chunk_read_in_spans")
    assert (told["table"], told["read"]) == ("sales", told["lost"])
    assert told["spans"] > 1
    check(migration, "spans")


def test_a_chunk_is_read_as_it_is_now_and_that_is_told(oracle: OracleServer, migration: Migration) -> None:
    larger_chunks(migration, 300)
    # By one reader, or two chunks share the faults.
    migration.plan.write_text(migration.plan.read_text().replace("user: KPS,", "user: KPS, limits: {sessions: 1},"))
    whenever(oracle, 1555, oracle.store.advance)
    too_old(oracle, 2, match='ORDER BY "sales"')
    document = migration.document("run", "--batch", "afresh", code=ExitCode.ROWS_REFUSED)
    assert document["chunks_of_other_snapshots"] == 1
    (told,) = journal(migration, "snapshot_replaced")
    assert told["read"] not in (told["lost"], None)
    check(migration, "afresh")
    status = migration.run("status")
    assert "1 chunk read from a later state of the source" in " ".join(status.stdout.split())


def test_undo_that_is_gone_for_good(oracle: OracleServer, migration: Migration) -> None:
    """Somebody updates the table while it is read, and the undo of the batch's SCN is overwritten."""

    oracle.faults.order(Fault(at="execute", action="error", code=3113, match='ORDER BY "sales"'))

    def overwrite() -> None:
        with connect(oracle) as other:
            other.cursor().execute('UPDATE "sales" SET "amount" = "amount" + 1')
            other.commit()
        oracle.store.forget_before(oracle.store.scn)

    whenever(oracle, 3113, overwrite)
    document = migration.document("run", "--batch", "gone", code=ExitCode.ROWS_REFUSED)
    assert document["chunks_of_other_snapshots"] >= SALES // CHUNK_ROWS - 4
    assert {one["table"] for one in journal(migration, "snapshot_replaced")} == {"sales"}
    assert (migration.count("Tenant__c"), migration.count("Sale__c")) == (TENANTS, GOOD)
    outcomes = check_accounting(migration.audit_file, migration.folder / "state" / "staging", "gone")
    assert outcomes["sales"] == {"created": GOOD, "rejected": ORPHANS}


def test_a_plan_that_wants_one_state_stops_instead(oracle: OracleServer, migration: Migration, tmp_path: Path) -> None:
    text = migration.plan.read_text()
    migration.plan.write_text(text.replace("user: KPS,", "user: KPS, lost_snapshot: stop,"))
    too_old(oracle, 1000, match='ORDER BY "sales"')
    stopped = migration.run("run", "--batch", "strict")
    assert stopped.returncode == ExitCode.SOURCE
    assert "ORA-01555" in stopped.stderr
    assert journal(migration, "snapshot_replaced") == []
    oracle.faults.clear()
    migration.document("run", "--resume", "strict", code=ExitCode.ROWS_REFUSED)
    check(migration, "strict")


def test_planning_goes_on_as_of_now(oracle: OracleServer, migration: Migration) -> None:
    # The first one meets the forecast, which ends no run.
    too_old(oracle, 2, match='COUNT(*) FROM "KPS"."sales" AS OF')
    migration.document("run", "--batch", "planned", code=ExitCode.ROWS_REFUSED)
    assert [one["table"] for one in journal(migration, "snapshot_replaced")] == ["sales"]
    check(migration, "planned")


@pytest.mark.parametrize("percent", ["50"])
def test_a_sample_is_read_as_it_is_now(oracle: OracleServer, migration: Migration, percent: str) -> None:
    too_old(oracle, 2, match='ORDER BY "sales"')
    sampled = migration.document("run", "--sample-percent", percent, "--batch", "half", code=ExitCode.ROWS_REFUSED)
    sales = next(table for table in sampled["tables"] if table["table"] == "sales")
    assert migration.count("Sale__c") == sales["created"]


def test_a_run_says_beforehand_that_its_snapshot_will_not_last(oracle: OracleServer, migration: Migration) -> None:
    oracle.store.undo_retention_s = 0
    done = migration.run("run", "--batch", "short")
    assert done.returncode == ExitCode.ROWS_REFUSED, done.stderr
    words = " ".join(done.stderr.split())
    assert "and the source keeps its snapshot for about 1 s only" in words
    assert "`source.lost_snapshot`" in words
    (told,) = journal(migration, "snapshot_forecast")
    assert (told["verdict"], told["rows"], told["snapshot_seconds"]) == ("too_short", SALES + TENANTS, 0.0)


def test_a_run_whose_snapshot_lasts_says_nothing(oracle: OracleServer, migration: Migration) -> None:
    done = migration.run("run", "--batch", "long")
    assert "snapshot" not in done.stderr
    assert [one["verdict"] for one in journal(migration, "snapshot_forecast")] == ["fine"]
