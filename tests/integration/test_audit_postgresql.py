"""The audit database on a real PostgreSQL server: all that SQLite does, and several processes at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from tests.integration import audit_processes
from tests.unit import (
    audit_checklist_sql as checklist,
)
from tests.unit import (
    test_audit_batches,
    test_audit_chunks,
    test_audit_claims,
    test_audit_dashboard,
    test_audit_jobs,
    test_audit_journal,
    test_audit_org_states,
    test_report_readings,
)
from tests.unit.audit_cover_rows import change_and_look, fill
from tests.unit.audit_fixtures import (
    ORG,
    StillClock,
    make_draft,
    make_failed,
    make_staged,
    open_store,
    plan_chunks,
    settle,
)

from forcelift.audit import AuditStore, LeaseTimes, cover, tables
from forcelift.audit.records import BudgetRefused
from forcelift.audit.text import short_batch_id
from forcelift.errors import StateConflict, StorageError

pytest_plugins = ["tests.postgres_support"]

ROOT = Path(__file__).parents[2]
# The tests of the audit database that take a `store`, and run here once more, against the `store` of this module.
SHARED = (
    test_audit_batches,
    test_audit_chunks,
    test_audit_claims,
    test_audit_jobs,
    test_audit_org_states,
    test_report_readings,
)
for module in SHARED:
    for name, function in list(vars(module).items()):
        if name.startswith("test_"):
            globals()[name.replace("test_", f"test_{module.__name__.rpartition('_')[2]}_", 1)] = function


@pytest.fixture(scope="module")
def url(postgres):
    """A database with Forcelift's tables, shared by the tests of this module."""
    name = postgres.create_database()
    open_store(StillClock(), postgres.url(name)).close()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def empty(url, postgres):
    """The URL of the shared database, with nothing recorded."""
    names = ", ".join(table.name for table in tables.metadata.sorted_tables if table is not tables.schema_version)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {names} RESTART IDENTITY CASCADE")
    return url


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture
def store(clock, empty):
    with open_store(clock, empty) as store:
        yield store


@pytest.fixture
def chunk(store):
    [chunk] = plan_chunks(store)
    return chunk


def query(url, statement, parameters=None) -> list[tuple]:
    """As another client of the database sees it."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def migration(tmp_path, empty, monkeypatch):
    """The dashboard's migration, with its statements run by a plain client."""
    import random

    rng, clock = random.Random(test_audit_dashboard.SEED), StillClock()
    ledger = test_audit_dashboard.Ledger(test_audit_dashboard.FolderStorage(tmp_path / "staging", fsync=False))

    def run_raw(url, statement):
        bound = statement.replace(":current_batch_id", "%(batch)s")
        rows = query(url, bound, {"batch": short_batch_id(test_audit_dashboard.BATCH)})
        plain = {Decimal: float, datetime: datetime.isoformat}
        return [tuple(plain.get(type(value), lambda same: same)(value) for value in row) for row in rows]

    monkeypatch.setattr(test_audit_dashboard, "run_raw", run_raw)
    make_ledger, settle_from = test_audit_dashboard.make_ledger, test_audit_dashboard.settle_from
    with AuditStore.open(empty, clock=clock) as store:
        for name, refused in test_audit_dashboard.TABLES.items():
            for chunk in plan_chunks(store, 5, batch_id=test_audit_dashboard.BATCH, name=name)[:4]:
                lines = make_ledger(rng, rng.randint(50, 200), refused=refused)
                settle_from(store, ledger, chunk, lines, clock)
        [other] = plan_chunks(store, batch_id="other")
        settle_from(store, ledger, other, make_ledger(rng, 77, refused=1), clock)
        yield store, ledger, empty


test_dashboard_status = test_audit_dashboard.test_current_status
test_dashboard_failed = test_audit_dashboard.test_failed_records_summary
test_dashboard_performance = test_audit_dashboard.test_performance_metrics
test_dashboard_totals = test_audit_dashboard.test_totals_close_over_all_chunks
test_dashboard_other_batch = test_audit_dashboard.test_records_of_another_batch_stay_out


def test_ninety_nine_of_a_hundred_in_any_client(store, empty):
    [chunk] = plan_chunks(store)
    settle(
        store, chunk.audit_id, staged=make_staged(transformed=100, rejected=0, duplicate=0), failed=make_failed(["k"])
    )
    [row] = query(empty, checklist.STATUS.replace(":current_batch_id", "'B1'"))
    assert row[:2] == ("KPS_T_SALES_MD", "PARTIAL")
    assert row[6] == Decimal("99.00")
    assert store.status_rows("B1")[0].success_rate == 99.0


def test_backup_insert_runs_through_our_connection_and_needs_a_word_changed_elsewhere(store, empty):
    with store.write() as connection:
        connection.exec_driver_sql(checklist.BACKUP_INSERT)
    [(rows, created)] = query(empty, "SELECT row_count, created_date FROM migration_backup_log")
    assert rows == 261_000_000
    assert abs((created.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()) < 60
    with pytest.raises(psycopg.errors.UndefinedColumn, match="sysdate"):
        query(empty, checklist.BACKUP_INSERT)


def test_names_and_indexes_are_the_checklists(empty):
    columns = query(
        empty,
        "SELECT upper(column_name) FROM information_schema.columns WHERE table_name = 'migration_audit_log'"
        " ORDER BY ordinal_position",
    )
    assert [name for (name,) in columns] == [line.split()[0] for line in checklist.AUDIT_LOG.splitlines()]
    indexes = {name for (name,) in query(empty, "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'idx_audit%'")}
    assert indexes == {"idx_audit_batch", "idx_audit_table", "idx_audit_status", "idx_audit_date"}


@pytest.mark.parametrize(*test_audit_journal.test_changes_past_the_program_are_found.pytestmark[0].args)
def test_changes_past_the_program_are_found(store, statement, fault):
    one, two = plan_chunks(store, 2)
    settle(store, one.audit_id, failed=make_failed(["a"] * 7))
    store.journal("governor", {"open": 5, "reason": "ก"}, batch_id="B1")
    store.start_chunk(two.audit_id)
    test_audit_journal.test_changes_past_the_program_are_found(store, statement, fault)


AWKWARD = ["", "\\.", "\\N", "a\\b", "tab\tnewline\nreturn\r\n\\.\nend", "'quoted\"", "ก\U0001f600", "%s", ",", None]


def test_awkward_texts_of_failed_records_arrive_unharmed(store, chunk):
    frame = make_failed([f"k{at}" for at in range(len(AWKWARD))]).with_columns(
        message=test_audit_dashboard.pl.Series(AWKWARD), data=test_audit_dashboard.pl.Series(AWKWARD)
    )
    settle(store, chunk.audit_id, staged=make_staged(rejected=0, duplicate=0), failed=frame)
    records = store.failed_records("B1")
    assert [record.message for record in records] == AWKWARD
    assert [record.data for record in records] == AWKWARD
    assert [record.record_key for record in records] == [f"k{at}" for at in range(len(AWKWARD))]


def test_zero_characters_become_replacement_marks(store, chunk):
    settle(store, chunk.audit_id, staged=make_staged(rejected=0, duplicate=0), failed=make_failed(["a\x00b"]))
    assert store.failed_records("B1")[0].record_key == "a\ufffdb"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONWARNINGS": "error"}


def start(script: str, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
    )


def test_processes_that_start_at_once_share_an_empty_database(postgres, database):
    url = postgres.url(database)
    racers = [start(audit_processes.RACER, url, f"runner{at}") for at in range(2)]
    try:
        assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 2
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        assert sorted(racer.stdout.readline() for racer in racers) == ["lost\n", "won 1\n"]
        made = []
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        for racer in racers:
            made.append(int(racer.stdout.readline()))
            racer.communicate()
        assert [racer.returncode for racer in racers] == [0, 0]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    # 28 jobs of 70 rows fit into 2,000, whoever made them.
    assert sum(made) == 28
    with open_store(StillClock(at=datetime.now(UTC)), url) as store:
        assert store.reserved(ORG) == (28 * 70, 28)
        assert store.verify_journal() == []
        assert len(store.batches()) == 2


def test_killed_in_the_middle_of_a_transaction(empty):
    holder = start(audit_processes.HOLDER, empty)
    try:
        assert holder.stdout.readline() == "1\n"
    finally:
        holder.kill()
        holder.communicate()
    with open_store(StillClock(), empty) as store:
        # The server ends the dead process's transaction, and with it the lock that all writers wait for.
        store.journal("noted", {})
        assert query(empty, "SELECT count(*) FROM migration_failed_records") == [(0,)]
        assert store.chunk(1).status == "RUNNING"
        with pytest.raises(StateConflict, match="dying@host pid 1") as caught, store.lease("B1", "next"):
            pytest.fail("the lease was given twice")
        assert "if it died, the batch is free" in caught.value.hint
        query(empty, "UPDATE lease SET heartbeat = heartbeat - interval '61 seconds'")
        assert store.lease_holder("B1") is None
        with store.lease("B1", "next") as lease:
            assert lease.fence == 2
            assert store.lease_holder("B1").owner == "next"
        assert store.verify_journal() == []


def test_holder_that_was_taken_over_makes_and_closes_no_job(store, chunk, empty):
    with open_store(StillClock(), empty) as other, store.lease("B1", "slow@host") as slow:
        slow.beat()
        slow.check()
        query(empty, "UPDATE lease SET heartbeat = heartbeat - interval '61 seconds'")
        with other.lease("B1", "quick@host") as quick:
            assert quick.fence == slow.fence + 1
            for step in (slow.check, slow.beat):
                with pytest.raises(StateConflict, match="quick@host took it over"):
                    step()
            with pytest.raises(StateConflict, match="taken over by quick@host"):
                store.intend_job(make_draft(chunk.audit_id), org_id=ORG, rows_per_day=1000, fence=slow.fence)
            job = other.intend_job(make_draft(chunk.audit_id), org_id=ORG, rows_per_day=1000, fence=quick.fence)
            assert not isinstance(job, BudgetRefused)
        # The slow one's end does not touch the lease that is no longer its own.
    released = query(empty, "SELECT payload FROM journal WHERE action = 'lease_released'")
    assert released == [('{"fence":2}',)]
    assert store.verify_journal() == []


def test_heartbeat_is_the_servers_time_and_waits_for_no_writer(store, empty):
    with store.lease("B1", "me@host") as lease:
        # The clock of this process stands in March; the lease's does not.
        before = store.lease_holder("B1").heartbeat
        assert abs((before - datetime.now(UTC)).total_seconds()) < 60
        with open_store(StillClock(), empty) as other, other.write() as connection:
            connection.exec_driver_sql("UPDATE journal_head SET seq = seq")
            lease.beat()
            assert store.lease_holder("B1").heartbeat > before
        with pytest.raises(StateConflict, match="me@host"), store.lease("B1", "again"):
            pytest.fail("the lease was given twice")
        with store.lease("B2", "me@host") as second:
            assert second.fence == 1


def test_heart_beats_by_itself(empty):
    times = LeaseTimes(beat_pause_s=0.01)
    with AuditStore.open(empty, clock=StillClock(), lease_times=times) as store, store.lease("B1", "me"):
        first = store.lease_holder("B1").heartbeat
        deadline = time.monotonic() + 30
        while store.lease_holder("B1").heartbeat == first:
            assert time.monotonic() < deadline


def test_server_that_restarts_between_two_steps(postgres, store, chunk):
    store.start_chunk(chunk.audit_id)
    postgres.restart()
    # The pool's connections are dead, and are replaced unseen.
    store.fail_chunk(chunk.audit_id, "no")
    assert store.chunk(chunk.audit_id).status == "FAILED"
    assert store.verify_journal() == []


def test_server_that_dies_in_the_middle_of_a_step(store, chunk, empty):
    def step():
        with store.write() as connection:
            connection.execute(sa.update(tables.chunk).values(generation=9))
            query(empty, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'")

    with pytest.raises(StorageError, match="cannot be reached"):
        step()
    assert store.chunk(chunk.audit_id).generation == 0


def test_databases_that_cannot_be_used(postgres, database):
    def opened(url, **options):
        return AuditStore.open(url, clock=StillClock(), **options)

    with pytest.raises(StorageError, match="cannot be reached: Connection refused") as caught:
        opened("postgresql://me:geheim@127.0.0.1:1/db")
    assert "geheim" not in str(caught.value) + caught.value.hint
    with pytest.raises(StorageError, match='database "nowhere" does not exist'):
        opened(postgres.url("nowhere"))
    with pytest.raises(StateConflict, match="is empty"):
        opened(postgres.url(database), create=False)
    query(postgres.dsn(database), "CREATE TABLE invoices (n int)")
    with pytest.raises(StateConflict, match="another program") as caught:
        opened(postgres.url(database))
    assert "search_path" in caught.value.hint
    query(postgres.dsn(database), "CREATE SCHEMA forcelift")
    with opened(postgres.url(database, options="-csearch_path=forcelift")) as store:
        plan_chunks(store)
    query(postgres.dsn(database), "DROP ROLE IF EXISTS onlooker")
    query(postgres.dsn(database), "CREATE ROLE onlooker LOGIN")
    query(postgres.dsn(database), "GRANT USAGE ON SCHEMA forcelift TO onlooker")
    query(postgres.dsn(database), "GRANT SELECT ON ALL TABLES IN SCHEMA forcelift TO onlooker")
    mine = postgres.url(database, options="-csearch_path=forcelift").replace("forcelift_tests@", "onlooker@")
    with opened(mine) as store:
        assert len(store.chunks("B1")) == 1
        with pytest.raises(StorageError, match="this user lacks the right"):
            store.journal("noted", {})
    query(postgres.dsn(database), "DROP OWNED BY onlooker")
    query(postgres.dsn(database), "UPDATE forcelift.schema_version SET version = 99")
    with pytest.raises(StateConflict, match="made by a newer Forcelift"):
        opened(postgres.url(database, options="-csearch_path=forcelift"))


def test_changes_of_every_covered_table_past_the_program_are_found(store):
    fill(store)
    assert store.verify_journal() == []
    assert len({table for table, _ in change_and_look(store, seed=20260131)}) == len(cover.covered_tables())
    with store.engine.begin() as connection:
        connection.execute(tables.journal.delete().where(tables.journal.c.seq == store.journal_head().seq))
    [fault] = store.verify_journal()[:1]
    assert "its recorded head is row" in fault
