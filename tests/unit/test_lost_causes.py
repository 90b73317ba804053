"""What goes wrong on the way out of a fault is told beside its cause, never in its place."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.integration.cli_migration import cli_schema

from forcelift.audit import oracle
from forcelift.errors import SourceError, StorageError
from forcelift.source import backup_files
from forcelift.source.backup_files import FileBackups
from forcelift.source.backup_oracle import OracleBackups
from forcelift.source.backup_sqlite import DuckdbBackups
from forcelift.twin.org import TwinOrg
from forcelift.twin.server import ServerFailed, TwinServer


class FailsToCommit:
    """A connection to DuckDB whose commits meet a full disk, after which there is no transaction any more."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def execute(self, statement: str, *more: Any) -> Any:
        if statement != "COMMIT":
            return self._connection.execute(statement, *more)
        self._connection.execute("ROLLBACK")
        raise duckdb.IOException("IO Error: No space left on device")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_why_a_copy_could_not_be_committed_is_told(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "source.duckdb")) as connection:
        connection.execute("CREATE TABLE sales AS SELECT 1 AS sale_id")
    backups: Any = DuckdbBackups(tmp_path / "source.duckdb")
    backups._connection = FailsToCommit(backups._connection)
    try:
        with pytest.raises(Exception, match="No space left on device"):
            backups.copy("sales", name="sales_copy", where=None, as_of=None)
        assert not backups.exists("sales_copy")
    finally:
        backups.close()


def test_a_copy_that_cannot_be_taken_away_is_told_with_the_reason_why_it_should() -> None:
    backups: Any = object.__new__(OracleBackups)

    def refuse(name: str) -> None:
        raise SourceError("the server is away")

    backups.drop = refuse
    error = SourceError("the copy has 1 row and the table 2", state="the copy was taken away again")
    backups._drop_after(error, "SALES_COPY")
    assert error.message == "the copy has 1 row and the table 2"
    assert error.state == "the copy `SALES_COPY` could not be taken away (the server is away); the table is as it was"


def test_a_connection_that_comes_too_late_is_closed_and_one_in_time_is_given() -> None:
    class Made:
        def __init__(self) -> None:
            self.closed = threading.Event()

        def close(self) -> None:
            self.closed.set()

    goes_on, late, in_time = threading.Event(), Made(), Made()

    def connect() -> Made:
        goes_on.wait()
        return late

    with pytest.raises(StorageError, match="said nothing"):
        oracle._within(0.0, connect, "audit")
    goes_on.set()
    assert late.closed.wait(60)
    assert oracle._within(60.0, lambda: in_time, "audit") is in_time
    assert not in_time.closed.is_set()


def test_files_whose_copy_is_told_as_failed_leave_none_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "sales.csv").write_text("sale_id\n1\n", encoding="utf-8")
    copies = tmp_path / "copies"
    backups = FileBackups(tmp_path / "source", into=copies, encoding="utf-8")

    def fails_once_renamed(folder: Path) -> None:
        if (copies / "sales_copy").exists():
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(backup_files, "_sync_folder", fails_once_renamed)
        with pytest.raises(SourceError, match="Input/output error"):
            backups.copy("sales", name="sales_copy", where=None, as_of=None)
    assert not [path.name for path in copies.iterdir() if path.is_dir()]
    assert backups.copy("sales", name="sales_copy", where=None, as_of=None).rows == 1
    backups.close()


def test_a_twin_that_ended_by_itself_says_so_when_it_is_stopped() -> None:
    org = TwinOrg.open(None, schema=cli_schema())
    server = TwinServer(org).start()
    assert server._server is not None

    async def fails() -> None:
        raise RuntimeError("the loop is out of files")

    server._server.shutdown = lambda sockets=None: fails()  # type: ignore[method-assign]
    try:
        with pytest.raises(ServerFailed, match="ended before it was stopped") as told:
            server.stop()
    finally:
        org.close()
    assert str(told.value.__cause__) == "the loop is out of files"
    server.stop()
