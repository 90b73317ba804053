"""Opening the audit database: what is refused and how, file modes, threads, and other processes."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from tests.unit.audit_fixtures import StillClock, make_batch, open_store, plan_chunks

from forcelift.audit import AuditStore
from forcelift.errors import ExitCode, StateConflict, StorageError, UsageError


def url_of(path) -> str:
    return f"sqlite:///{path}"


def test_new_file_and_folder_are_private(tmp_path):
    file = tmp_path / "state" / "audit.db"
    with open_store(StillClock(), url_of(file)) as store:
        store.begin_batch(make_batch(), plan_document={})
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
        with store.lease("B1", "me"):
            pass
        modes |= {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert "audit.db-wal" in modes
    assert set(modes.values()) == {0o600}


def test_connections_keep_what_they_committed(tmp_path):
    with open_store(StillClock(), url_of(tmp_path / "a.db")) as store, store.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_opened_again_it_knows_what_was_written(tmp_path):
    url = url_of(tmp_path / "a.db")
    with open_store(StillClock(), url) as store:
        chunks = plan_chunks(store, 3)
    with AuditStore.open(url, clock=StillClock(), create=False) as store:
        assert store.batch("B1") == make_batch()
        assert store.chunks("B1") == chunks


def test_missing_file_is_not_made_unless_asked(tmp_path):
    file = tmp_path / "nowhere" / "a.db"
    with pytest.raises(StateConflict, match="there is no audit database") as caught:
        AuditStore.open(url_of(file), clock=StillClock(), create=False)
    assert caught.value.exit_code is ExitCode.STATE
    assert "forcelift run" in caught.value.hint
    assert not file.parent.exists()


def test_empty_file_counts_as_missing(tmp_path):
    file = tmp_path / "a.db"
    file.touch()
    with pytest.raises(StateConflict, match="is empty"):
        AuditStore.open(url_of(file), clock=StillClock(), create=False)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be opened for writing"):
        AuditStore.open(url_of(tmp_path / "file" / "a.db"), clock=StillClock())


def test_folder_in_place_of_the_file(tmp_path):
    with pytest.raises(StorageError, match="is a folder"):
        AuditStore.open(url_of(tmp_path), clock=StillClock())


def test_no_database_at_all(tmp_path):
    file = tmp_path / "a.db"
    file.write_text("plain text, and long enough to be no header of a database\n" * 100)
    with pytest.raises(StorageError, match="no SQLite database"):
        AuditStore.open(url_of(file), clock=StillClock())


def test_another_programs_database_is_left_alone(tmp_path):
    file = tmp_path / "a.db"
    other = sqlite3.connect(file)
    other.execute("CREATE TABLE invoices (n INTEGER)")
    other.close()
    with pytest.raises(StateConflict, match="another program"):
        AuditStore.open(url_of(file), clock=StillClock())
    other = sqlite3.connect(file)
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("invoices",)]
    other.close()


@pytest.mark.parametrize(("version", "age"), [(99, "newer"), (0, "older")])
def test_another_form_is_refused(tmp_path, version, age):
    file = tmp_path / "a.db"
    open_store(StillClock(), url_of(file)).close()
    raw = sqlite3.connect(file)
    raw.execute("UPDATE schema_version SET version = ?", (version,))
    raw.commit()
    raw.close()
    with pytest.raises(StateConflict, match=f"made by a {age} Forcelift"):
        AuditStore.open(url_of(file), clock=StillClock())


def test_damaged_file_is_told_and_not_used(tmp_path):
    file = tmp_path / "a.db"
    with open_store(StillClock(), url_of(file)) as store:
        plan_chunks(store, 2000)
    size = file.stat().st_size
    with file.open("r+b") as raw:
        raw.seek(4096)
        raw.write(b"\xff" * (size - 4096))
    with pytest.raises(StorageError, match="damaged"), AuditStore.open(url_of(file), clock=StillClock()) as store:
        store.chunks("B1")


def test_full_disk_is_told_and_the_step_undone(tmp_path):
    with open_store(StillClock(), url_of(tmp_path / "a.db")) as store:
        plan_chunks(store, 1)
        # A page limit makes SQLite report a full disk without one.
        with store.read() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        store.engine.dispose()

        @sa.event.listens_for(store.engine, "connect")
        def limit(connection, record):
            connection.execute(f"PRAGMA max_page_count={pages}").close()

        with pytest.raises(StorageError, match="the disk is full"):
            plan_chunks(store, 5000, name="SECOND")
        assert [table.table_name for table in store.tables("B1")] == ["KPS_T_SALES_MD"]
        assert store.verify_journal() == []


@pytest.mark.parametrize("url", ["mysql://host/db", "not a url"])
def test_databases_of_later_builds_are_refused(url):
    with pytest.raises(UsageError) as caught:
        AuditStore.open(url, clock=StillClock())
    assert "sqlite" in caught.value.hint


def test_memory_is_shared_by_threads():
    with open_store(StillClock()) as store:
        chunks = plan_chunks(store, 40)

        def work(chunk):
            store.start_chunk(chunk.audit_id)
            return store.chunk(chunk.audit_id).status

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(work, chunks)) == {"RUNNING"}
        assert store.verify_journal() == []


def test_file_is_shared_by_threads_and_stores(tmp_path):
    url = url_of(tmp_path / "a.db")
    with open_store(StillClock(), url) as one, open_store(StillClock(), url) as two:
        chunks = plan_chunks(one, 60)

        def work(number):
            store = (one, two)[number % 2]
            store.start_chunk(chunks[number].audit_id)
            store.fail_chunk(chunks[number].audit_id, "no")
            return len(store.chunks("B1"))

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(work, range(60))) == {60}
        assert one.verify_journal() == []
        assert {chunk.status for chunk in two.chunks("B1")} == {"FAILED"}


def test_failure_before_the_commit_undoes_all_of_it_and_after_it_nothing():
    class Crash(Exception):
        pass

    crash_at = None

    def on_step(step):
        if step == crash_at:
            raise Crash

    with AuditStore.open("sqlite://", clock=StillClock(), on_step=on_step) as store:
        [chunk] = plan_chunks(store, 1)
        crash_at = "write.before"
        with pytest.raises(Crash):
            store.start_chunk(chunk.audit_id)
        assert store.chunk(chunk.audit_id).status == "PENDING"
        crash_at = "write.done"
        with pytest.raises(Crash):
            store.start_chunk(chunk.audit_id)
        crash_at = None
        assert store.chunk(chunk.audit_id).status == "RUNNING"
        assert store.verify_journal() == []


def test_second_runner_is_refused_by_name_in_one_process(tmp_path):
    for url in ("sqlite://", url_of(tmp_path / "a.db")):
        with open_store(StillClock(), url) as store:
            with store.lease("B1", "ann@host pid 1") as first:
                taken = pytest.raises(StateConflict, match="ann@host pid 1, since 2026-03-01 08:30:00")
                with taken, store.lease("B1", "bob@host pid 2"):
                    pytest.fail("the lease was given twice")
                with store.lease("B2", "bob@host pid 2"):
                    assert store.lease_holder("B2").owner == "bob@host pid 2"
                assert store.lease_holder("B1").owner == "ann@host pid 1"
                first.check()
                first.beat()
            assert store.lease_holder("B1") is None
            with store.lease("B1", "bob@host pid 2") as second:
                assert second.fence == first.fence + 1
                with pytest.raises(StateConflict, match="bob@host pid 2 took it over"):
                    first.check()


HOLDER = """
import sys, time
from forcelift.audit import AuditStore
from forcelift.protocols.clock import SystemClock
store = AuditStore.open(sys.argv[1], clock=SystemClock())
with store.lease("B1", "dying@host pid 1") as lease:
    print(lease.fence, flush=True)
    sys.stdin.read()
"""


def test_kill_frees_the_lease(tmp_path):
    url = url_of(tmp_path / "a.db")
    with open_store(StillClock(), url) as store:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert holder.stdout.readline() == "1\n"
            assert store.lease_holder("B1").owner == "dying@host pid 1"
            with pytest.raises(StateConflict, match="dying@host pid 1"), store.lease("B1", "me"):
                pytest.fail("the lease was given twice")
        finally:
            holder.kill()
            holder.communicate()
        assert store.lease_holder("B1") is None
        with store.lease("B1", "me") as lease:
            assert lease.fence == 2


WRITER = """
import sys
from forcelift.audit import AuditStore
from forcelift.protocols.clock import SystemClock
with AuditStore.open(sys.argv[1], clock=SystemClock()) as store:
    for number in range(15):
        store.journal("counted", {"by": sys.argv[2], "number": number})
"""


def test_processes_write_one_unbroken_journal(tmp_path):
    url = url_of(tmp_path / "a.db")
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, url, str(n)], env=environment) for n in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    with open_store(StillClock(), url) as store:
        assert store.journal_head().seq == 30
        assert store.verify_journal() == []


def test_lease_is_not_tied_to_the_thread_that_took_it(tmp_path):
    with open_store(StillClock(), url_of(tmp_path / "a.db")) as store, store.lease("B1", "me") as lease:
        errors = []

        def beat():
            try:
                lease.beat()
            except StateConflict as error:
                errors.append(error)

        thread = threading.Thread(target=beat)
        thread.start()
        thread.join()
        assert errors == []
