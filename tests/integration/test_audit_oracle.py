"""The audit database on Oracle (the test server): all that SQLite does, and several processes at once."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa
from tests.integration import audit_processes
from tests.oracle_audit_support import audit_url, empty_tables, new_user, query
from tests.oracle_server.faults import Fault
from tests.oracle_server.server import PROFILES, OracleServer
from tests.oracle_support import connect
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
    test_rollback_audit,
)
from tests.unit.audit_checklist_sql import checklist_statements
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

from forcelift.audit import AuditStore, cover, oracle, tables
from forcelift.audit.chunk_rows import find_chunks
from forcelift.audit.definitions import script
from forcelift.audit.records import BudgetRefused
from forcelift.audit.text import short_batch_id
from forcelift.errors import StateConflict, StorageError, UsageError

# Both profiles take minutes; they differ in logon and in how replies end, which no audit table sees.
MARKS = {"19c": [pytest.mark.slow], "23ai": []}
# The tests of the audit database that take a `store`, and run here once more, against the `store` of this module.
SHARED = (
    test_audit_batches,
    test_audit_chunks,
    test_audit_claims,
    test_audit_jobs,
    test_audit_org_states,
    test_report_readings,
    test_rollback_audit,
)
for module in SHARED:
    for name, function in list(vars(module).items()):
        if name.startswith("test_"):
            globals()[name.replace("test_", f"test_{module.__name__.rpartition('.')[2][5:]}_", 1)] = function


@pytest.mark.slow
def test_audit_chunks_hundred_thousand_failed_records(store):
    test_audit_chunks.test_hundred_thousand_failed_records(store)


@pytest.fixture(scope="module", params=[pytest.param(one, marks=MARKS[one]) for one in PROFILES])
def server(request):
    with OracleServer(request.param) as server:
        yield server


@pytest.fixture(scope="module")
def user(server):
    """A user with Forcelift's tables, shared by the tests of this module."""
    name = new_user(server)
    open_store(StillClock(), audit_url(server, name)).close()
    return name


@pytest.fixture
def empty(server, user):
    """The URL of the shared tables, with nothing recorded."""
    empty_tables(server, user)
    return audit_url(server, user)


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


@pytest.fixture
def migration(tmp_path, server, user, empty, monkeypatch):
    """The dashboard's migration, with its statements run by a plain client."""
    rng, clock = random.Random(test_audit_dashboard.SEED), StillClock()
    ledger = test_audit_dashboard.Ledger(test_audit_dashboard.FolderStorage(tmp_path / "staging", fsync=False))

    def run_raw(url, statement):
        bare = statement.rstrip().removesuffix(";")
        rows = query(server, user, bare, current_batch_id=short_batch_id(test_audit_dashboard.BATCH))
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


def test_the_dashboards_queries_run_as_they_are(migration):
    # One migration for all of them, as it takes seconds to write down.
    test_audit_dashboard.test_current_status(migration)
    test_audit_dashboard.test_failed_records_summary(migration)
    test_audit_dashboard.test_performance_metrics(migration)
    test_audit_dashboard.test_totals_close_over_all_chunks(migration)
    test_audit_dashboard.test_records_of_another_batch_stay_out(migration)


@pytest.mark.parametrize(*test_audit_journal.test_changes_past_the_program_are_found.pytestmark[0].args)
def test_changes_past_the_program_are_found(store, statement, fault):
    one, two = plan_chunks(store, 2)
    settle(store, one.audit_id, failed=make_failed(["a"] * 7))
    store.journal("governor", {"open": 5, "reason": "ก"}, batch_id="B1")
    store.start_chunk(two.audit_id)
    test_audit_journal.test_changes_past_the_program_are_found(store, statement, fault)


# What is particular to Oracle.

DICTIONARY = {
    "columns": "SELECT table_name, column_id, column_name, data_type, data_length, data_precision, data_scale,"
    " nullable, data_default, char_used, identity_column FROM user_tab_columns WHERE table_name IN ({names})"
    " ORDER BY 1, 2",
    "keys": "SELECT c.table_name, c.constraint_type, cc.column_name, p.table_name FROM user_constraints c"
    " JOIN user_cons_columns cc ON cc.constraint_name = c.constraint_name"
    " LEFT JOIN user_constraints p ON p.constraint_name = c.r_constraint_name"
    " WHERE c.table_name IN ({names}) AND c.constraint_type IN ('P', 'R', 'U') ORDER BY 1, 2, 3",
    "identities": "SELECT table_name, column_name, generation_type FROM user_tab_identity_cols"
    " WHERE table_name IN ({names}) ORDER BY 1",
    "indexes": "SELECT i.table_name, i.index_name, i.uniqueness, c.column_name FROM user_indexes i"
    " JOIN user_ind_columns c ON c.index_name = i.index_name"
    " WHERE i.table_name IN ({names}) AND i.index_name LIKE 'IDX%' ORDER BY 1, 2",
}


def test_printed_tables_equal_the_checklists_own_in_the_dictionary(server):
    theirs, ours = new_user(server), new_user(server)
    with connect(server, theirs) as connection, connection.cursor() as cursor:
        for statement in checklist_statements():
            cursor.execute(statement)
    with connect(server, ours) as connection, connection.cursor() as cursor:
        for statement in script("oracle"):
            cursor.execute(statement)
    names = "'MIGRATION_AUDIT_LOG', 'MIGRATION_FAILED_RECORDS'"
    for what, statement in DICTIONARY.items():
        expected = query(server, theirs, statement.format(names=names))
        assert query(server, ours, statement.format(names=names)) == expected, what
        assert expected
    # A database whose tables a DBA made from the printed statements is Forcelift's, for a user who may make none.
    server.store.catalog.users[ours].granted -= {"CREATE TABLE", "CREATE SEQUENCE"}
    with open_store(StillClock(), audit_url(server, ours)) as store:
        assert not store.made_tables
        plan_chunks(store)


def test_start_time_is_null_until_a_chunk_begins_whatever_the_default(server, user, store):
    [chunk] = plan_chunks(store)
    query(server, user, "INSERT INTO MIGRATION_AUDIT_LOG (BATCH_ID, TABLE_NAME) VALUES ('theirs', 'T')")
    rows = query(server, user, "SELECT BATCH_ID, START_TIME FROM MIGRATION_AUDIT_LOG ORDER BY AUDIT_ID")
    assert rows[0] == ("B1", None)
    assert rows[1][1] is not None
    assert store.start_chunk(chunk.audit_id).start_time == store.clock.now()


def test_backup_insert_runs_as_written_in_any_client(server, user, store):
    query(server, user, checklist.BACKUP_INSERT.rstrip().removesuffix(";"))
    with store.write() as connection:
        connection.exec_driver_sql(checklist.BACKUP_INSERT.rstrip().removesuffix(";"))
    rows = query(server, user, "SELECT ROW_COUNT, BATCH_ID FROM MIGRATION_BACKUP_LOG")
    assert rows == [(261_000_000, None)] * 2


def test_a_long_batch_id_is_shortened_and_kept_whole_beside(server, user, store):
    runs = [f"scheduled__2024-01-15T02:00:00+07:00__การย้ายข้อมูล_{at}" for at in range(3)]
    for run in runs:
        plan_chunks(store, batch_id=run)
    rows = query(server, user, "SELECT batch_id, short_id FROM batch ORDER BY batch_no")
    assert [whole for whole, _ in rows] == runs
    short = [one for _, one in rows]
    assert len(set(short)) == 3
    assert max(len(one.encode()) for one in short) <= 50
    audited = query(server, user, "SELECT BATCH_ID FROM MIGRATION_AUDIT_LOG ORDER BY AUDIT_ID")
    assert [one for (one,) in audited] == short
    assert store.batch(runs[1]).batch_id == runs[1]


AWKWARD = ["", "a\\b", "tab\tnewline\nreturn\r\nend", "'quoted\"", "ก\U0001f600", "%s :1 &x", "\x00", "x" * 9000, None]


def test_awkward_texts_of_failed_records_arrive_unharmed(store, chunk):
    texts = pl.Series(AWKWARD)
    frame = make_failed([f"k{at}" for at in range(len(AWKWARD))]).with_columns(message=texts, data=texts)
    settle(store, chunk.audit_id, staged=make_staged(rejected=0, duplicate=0), failed=frame)
    records = store.failed_records("B1")
    assert [record.message for record in records] == [(text and (text[:4000] or None)) or None for text in AWKWARD]
    assert [record.data for record in records] == [text or None for text in AWKWARD]
    assert [record.record_key for record in records] == [f"k{at}" for at in range(len(AWKWARD))]


def test_thai_text_is_cut_by_bytes_between_letters(server, user, store, chunk):
    settle(store, chunk.audit_id, failed=make_failed(["ก" * 60] * 7, message="ก" * 2000))
    query_text = "SELECT LENGTHB(SF_ERROR_MESSAGE), LENGTH(SF_ERROR_MESSAGE), LENGTHB(RECORD_ID)"
    rows = query(server, user, f"{query_text} FROM MIGRATION_FAILED_RECORDS")
    assert set(rows) == {(3999, 1333, 99)}
    keys = query(server, user, "SELECT record_key FROM failed_key")
    assert keys == [("ก" * 60,)]


def test_times_keep_their_microseconds_and_are_utc_whatever_the_zone_of_a_session(server, user, store, chunk):
    store.clock.at = datetime(2026, 3, 1, 8, 30, 0, 123456, tzinfo=UTC)
    assert store.start_chunk(chunk.audit_id).start_time == store.clock.at
    [(found,)] = query(server, user, "SELECT START_TIME FROM MIGRATION_AUDIT_LOG")
    assert found == datetime(2026, 3, 1, 8, 30, 0, 123456)


def test_the_journal_is_the_same_on_every_database(store):
    """Same steps at the same times: same rows of the journal, and the same rows of other tables covered by them.

    The digests are of the values as each database gives them, so that they are not the same.
    """

    def steps(store):
        one, two = plan_chunks(store, 2)
        settle(store, one.audit_id, failed=make_failed(["a", "ก" * 99, None, "", "b", "c", "d"]))
        store.start_chunk(two.audit_id)
        store.clock.move(seconds=12.345678)
        store.fail_chunk(two.audit_id, "", "ไม่สำเร็จ")
        store.start_chunk(two.audit_id)
        job = store.intend_job(make_draft(two.audit_id), org_id=ORG, rows_per_day=1000, fence=1)
        store.job_abandoned(job.job_no, "ก")
        store.request_pause("B1", by="me", reason="")
        with store.read() as connection:
            rows = connection.execute(sa.select(tables.journal).order_by(tables.journal.c.seq)).all()
        return [
            (row.seq, row.at, row.action, row.batch_id, row.payload)
            if row.action != cover.ACTION
            else (row.seq, row.at, {name: sorted(keys) for name, keys in json.loads(row.payload).items()})
            for row in rows
        ]

    with open_store(StillClock()) as other:
        assert steps(store) == steps(other)
        assert store.verify_journal() == other.verify_journal() == []


def test_more_chunks_than_a_list_may_name(store):
    chunks = plan_chunks(store, 1005)
    runner = store.of_runner(store.enter("B1", "me"))
    around = runner.look_around("B1", open_ids=[one.audit_id for one in chunks], unplanned=[])
    assert len(around.free) == 1005
    with store.read() as connection:
        found = find_chunks(connection, "B1", None, [one.audit_id for one in chunks])
    assert [one.chunk_no for one in found] == list(range(1, 1006))
    with store.read() as connection:
        assert find_chunks(connection, "B1", None, []) == []


# Who may what.


def test_missing_rights_are_named_with_the_statement_that_gives_them(server):
    def refused(*rights):
        name = new_user(server, *rights)
        with pytest.raises(StorageError) as caught:
            open_store(StillClock(), audit_url(server, name))
        return name, caught.value

    name, error = refused("CREATE SESSION")
    assert f"GRANT CREATE TABLE, CREATE SEQUENCE TO {name}" in error.hint
    name, error = refused("CREATE SESSION", "CREATE TABLE")
    assert f"GRANT CREATE SEQUENCE TO {name}" in error.hint
    shut_out = new_user(server)
    server.store.catalog.users[shut_out].granted.discard("CREATE SESSION")
    with pytest.raises(StorageError) as caught:
        open_store(StillClock(), audit_url(server, shut_out))
    assert "GRANT CREATE SESSION" in caught.value.hint
    wrong = audit_url(server, new_user(server), "wrong")
    with pytest.raises(StorageError, match="the user or the password is wrong") as caught:
        open_store(StillClock(), wrong)
    assert "wrong@" not in str(caught.value) + str(caught.value.hint)


def test_databases_that_cannot_be_used(server):
    def opened(url, **options):
        return AuditStore.open(url, clock=StillClock(), **options)

    with pytest.raises(StorageError, match="cannot be reached: DPY-6005") as caught:
        opened("oracle://me:geheim@127.0.0.1:1/db")
    assert "geheim" not in str(caught.value) + str(caught.value.hint)
    with pytest.raises(StorageError, match="cannot be reached"):
        opened(f"oracle://me:geheim@127.0.0.1:{server.port}/nowhere")
    with pytest.raises(UsageError, match="needs a user and a password"):
        opened("oracle://127.0.0.1/db")
    with pytest.raises(UsageError, match="no part `colour`"):
        opened("oracle://me:word@127.0.0.1/db?colour=red")
    name = new_user(server)
    url = audit_url(server, name)
    with pytest.raises(StateConflict, match="is empty"):
        opened(url, create=False)
    query(server, name, "CREATE TABLE invoices (n NUMBER)")
    with pytest.raises(StateConflict, match="another program") as caught:
        opened(url)
    assert "audit ddl --apply" in caught.value.hint
    with opened(url, beside_others=True) as store:
        assert store.made_tables
        plan_chunks(store)
    with opened(url) as store:
        assert len(store.chunks("B1")) == 1
    query(server, name, "UPDATE schema_version SET version = 99")
    with pytest.raises(StateConflict, match="made by a newer Forcelift"):
        opened(url)
    taken = new_user(server)
    query(server, taken, "CREATE TABLE job (n NUMBER)")
    with pytest.raises(StateConflict, match="names that Forcelift needs: job"):
        opened(audit_url(server, taken), beside_others=True)


def test_tables_that_a_dead_maker_left_half_made_are_completed(server):
    name = new_user(server)
    for statement in script("oracle")[:7]:
        query(server, name, statement)
    with open_store(StillClock(), audit_url(server, name)) as store:
        plan_chunks(store)
        assert store.verify_journal() == []


# Several processes.

ROOT = Path(__file__).parents[2]


def start(script, *arguments):
    command = [sys.executable, "-c", script, *arguments]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )


def test_processes_that_start_at_once_share_an_empty_database(server):
    url = audit_url(server, new_user(server))
    racers = [start(audit_processes.RACER, url, f"runner{at}") for at in range(2)]
    try:
        assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 2
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        assert sorted(racer.stdout.readline() for racer in racers) == ["lost\n", "won 1\n"]
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        made = [int(racer.stdout.readline()) for racer in racers]
        for racer in racers:
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


def test_killed_in_the_middle_of_a_transaction(server, user, empty):
    holder = start(audit_processes.HOLDER, empty)
    try:
        assert holder.stdout.readline() == "1\n"
    finally:
        holder.kill()
        holder.communicate()
    with open_store(StillClock(), empty) as store:
        # The server ends the dead process's transaction, and with it the lock that all writers wait for.
        store.journal("noted", {})
        assert query(server, user, "SELECT count(*) FROM migration_failed_records") == [(0,)]
        assert store.chunk(1).status == "RUNNING"
        with pytest.raises(StateConflict, match="dying@host pid 1") as caught, store.lease("B1", "next"):
            pytest.fail("the lease was given twice")
        assert "if it died, the batch is free" in caught.value.hint
        query(server, user, "UPDATE lease SET heartbeat = heartbeat - INTERVAL '61' SECOND")
        assert store.lease_holder("B1") is None
        with store.lease("B1", "next") as lease:
            assert lease.fence == 2
            assert store.lease_holder("B1").owner == "next"
        assert store.verify_journal() == []


def test_holder_that_was_taken_over_makes_and_closes_no_job(server, user, store, chunk, empty):
    with open_store(StillClock(), empty) as other, store.lease("B1", "slow@host") as slow:
        slow.beat()
        slow.check()
        query(server, user, "UPDATE lease SET heartbeat = heartbeat - INTERVAL '61' SECOND")
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
    released = query(server, user, "SELECT payload FROM journal WHERE action = 'lease_released'")
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


def test_a_reading_sees_one_state_and_writes_nothing(store, chunk):
    with store.read() as connection:
        first = connection.execute(sa.select(tables.chunk.c.step)).scalar_one()
        store.start_chunk(chunk.audit_id)
        store.journal("noted", {})
        assert connection.execute(sa.select(sa.func.count()).where(tables.journal.c.action == "noted")).scalar() == 0
        assert connection.execute(sa.select(tables.audit_log.c.status)).scalar_one() == "PENDING"
    assert first == "planned"
    with pytest.raises(StorageError, match="ORA-01456"), store.read() as connection:
        connection.execute(tables.chunk.update().values(generation=9))
    assert store.chunk(chunk.audit_id).generation == 0


def test_a_turn_that_never_comes_is_told(server, user, store, chunk, monkeypatch):
    monkeypatch.setattr(oracle, "_TURN_WAIT_S", 1)
    with connect(server, user) as other, other.cursor() as cursor:
        cursor.execute("SELECT version FROM schema_version FOR UPDATE")
        with pytest.raises(StorageError, match="another process keeps it locked") as caught:
            store.start_chunk(chunk.audit_id)
    assert "v$session" in caught.value.hint
    assert store.start_chunk(chunk.audit_id).status == "RUNNING"


def test_session_that_dies_in_the_middle_of_a_step(server, store, chunk):
    server.faults.order(Fault(at="execute", action="drop", match="UPDATE MIGRATION_AUDIT_LOG"))
    with pytest.raises(StorageError, match="cannot be reached: DPY-4011"):
        store.start_chunk(chunk.audit_id)
    assert store.chunk(chunk.audit_id).status == "PENDING"
    assert store.start_chunk(chunk.audit_id).status == "RUNNING"
    assert store.verify_journal() == []


def test_changes_of_every_covered_table_past_the_program_are_found(store):
    fill(store)
    assert store.verify_journal() == []
    # The test server takes its time for each question; the other two databases have every table changed.
    assert len(change_and_look(store, seed=20260131, tables_most=6, kinds_most=1)) == 6
    with store.engine.begin() as connection:
        connection.execute(tables.journal.delete().where(tables.journal.c.seq == store.journal_head().seq))
    [fault] = store.verify_journal()[:1]
    assert "its recorded head is row" in fault
