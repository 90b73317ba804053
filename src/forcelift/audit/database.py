"""The connection to the audit database: opened, created, locked for one writer, its errors put into words.

SQLite keeps a write-ahead log with `synchronous=FULL`, so what a transaction committed survives a crash of the machine.
Writers take turns by a lock of the process and by `BEGIN IMMEDIATE` between processes; readers of a file do not wait.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.pool import StaticPool

from forcelift.audit import tables
from forcelift.audit.dialects import native_dates
from forcelift.errors import ForceliftError, StateConflict, StorageError, UsageError
from forcelift.protocols.clock import Clock

_BUSY_TIMEOUT_S = 30.0
_CONNECTIONS_MAX = 32

OnStep = Callable[[str], None]


def no_step(step: str) -> None:
    """Nothing happens between the steps."""


class Database:
    """An open audit database. Methods may be called from several threads at once.

    Args:
        engine: Set up by `open_database`.
        url: Where it is.
        clock: What time it is.
        on_step: Called with `write.before` just before and `write.done` just after each commit. What it raises before
            the commit undoes the transaction, as a crash there would.
    """

    def __init__(self, engine: sa.Engine, *, url: URL, clock: Clock, on_step: OnStep = no_step) -> None:
        self.engine = engine
        self._on_step = on_step
        self.url = url
        self.clock = clock
        self._lock = threading.RLock()
        # Batches that this process works on, where there is no file to lock.
        self.held_in_memory: set[str] = set()
        self.memory_guard = threading.Lock()

    @property
    def file(self) -> Path | None:
        """The SQLite file; None in memory."""
        return sqlite_file(self.url)

    @property
    def where(self) -> str:
        """The database in words, without secrets."""
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that may write: committed at the end, undone by any exception."""
        with self._lock, self._in_words("written"), self.engine.connect() as connection:
            connection = connection.execution_options(forcelift_write=True)
            with connection.begin():
                yield connection
                self._on_step("write.before")
            self._on_step("write.done")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction that sees one state and only reads."""
        # In memory all threads share one connection, so readers wait for the writer.
        turn = self._lock if self.file is None else nullcontext()
        with turn, self._in_words("read"), self.engine.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()

    @contextmanager
    def _in_words(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (IntegrityError, ProgrammingError):
            raise
        except DBAPIError as error:
            raise _storage_error(error, where=self.where, verb=verb) from error


StoreType = TypeVar("StoreType", bound=Database)


def sqlite_file(url: URL) -> Path | None:
    """The file of a SQLite URL; None in memory."""
    if url.database in (None, "", ":memory:"):
        return None
    return Path(url.database)


def open_database(
    kind: type[StoreType], url_text: str, *, clock: Clock, create: bool, on_step: OnStep = no_step
) -> StoreType:
    """Open the audit database, create its tables if it is new and `create` allows it.

    Raises:
        UsageError: The URL names no database that this build can use.
        StateConflict: There is none and it may not be created, or it belongs to another program or a newer Forcelift.
        StorageError: Folder or file cannot be read or written.
    """
    url = _sqlite_url(url_text)
    file = sqlite_file(url)
    if file is not None:
        _prepare_file(file, create=create)
    engine = _sqlite_engine(url)
    database = kind(engine, url=url, clock=clock, on_step=on_step)
    try:
        _create_or_check(database, create=create)
    except BaseException:
        database.close()
        raise
    return database


def _sqlite_url(url_text: str) -> URL:
    try:
        url = make_url(url_text)
    except sa.exc.ArgumentError as error:
        raise UsageError(
            "the audit database's URL cannot be read",
            state="nothing was begun",
            hint="write `audit: {url: sqlite:///state/audit.db}` into the plan",
        ) from error
    if url.get_backend_name() != "sqlite":
        raise UsageError(
            f"this version cannot keep its audit database on `{url.get_backend_name()}`",
            state="nothing was begun",
            hint="write `audit: {url: sqlite:///state/audit.db}` into the plan",
        )
    return url


def _prepare_file(file: Path, *, create: bool) -> None:
    if not create and not file.exists():
        raise StateConflict(
            f"there is no audit database `{file}`",
            state="no batch was begun here",
            hint="begin one with `forcelift run`, or run the command in the folder of the plan",
        )
    if file.is_dir():
        raise StorageError(
            f"the audit database `{file}` is a folder", state="nothing was begun", hint="name a file in `audit.url`"
        )
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Created by hand so that nobody else can read it from its first moment on; the log files take its mode over.
        os.close(os.open(file, os.O_RDWR | (os.O_CREAT if create else 0), 0o600))
    except OSError as error:
        raise StorageError(
            f"the audit database `{file}` cannot be opened for writing: {error.strerror}",
            state="nothing was begun or changed",
            hint="give this user the right to write the file and its folder, or name another in `audit.url`",
        ) from error


def _sqlite_engine(url: URL) -> sa.Engine:
    options: dict[str, Any] = {"connect_args": {"timeout": _BUSY_TIMEOUT_S, "check_same_thread": False}}
    if sqlite_file(url) is None:
        options["poolclass"] = StaticPool
    else:
        options["max_overflow"] = _CONNECTIONS_MAX
    engine = sa.create_engine(url, **options)

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, record: object) -> None:
        # Transactions are begun below: the driver's own begin comes late, and never before a SELECT.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("forcelift_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    native_dates(engine)
    return engine


def _create_or_check(database: Database, *, create: bool) -> None:
    with database.read() as connection:
        names = set(sa.inspect(connection).get_table_names())
        if tables.schema_version.name in names:
            return _check_version(connection, database.where)
    if names:
        raise StateConflict(
            f"`{database.where}` is the database of another program: it has tables but not Forcelift's version mark",
            state="nothing was changed in it",
            hint="name a file of its own in `audit.url`",
        )
    if not create and database.file is not None:
        raise StateConflict(
            f"the audit database `{database.where}` is empty",
            state="no batch was begun here",
            hint="begin one with `forcelift run`",
        )
    with database.write() as connection:
        # Another process may have been quicker since the look above.
        if sa.inspect(connection).has_table(tables.schema_version.name):
            return _check_version(connection, database.where)
        tables.metadata.create_all(connection, checkfirst=False)
        connection.execute(
            tables.schema_version.insert().values(
                product=tables.PRODUCT, version=tables.SCHEMA_VERSION, created_at=database.clock.now()
            )
        )
    return None


def _check_version(connection: Connection, where: str) -> None:
    found = connection.execute(
        sa.select(tables.schema_version.c.version).where(tables.schema_version.c.product == tables.PRODUCT)
    ).scalar_one_or_none()
    if found is None:
        raise StateConflict(
            f"`{where}` is the database of another program: its version mark is not Forcelift's",
            state="nothing was changed in it",
            hint="name a file of its own in `audit.url`",
        )
    if found != tables.SCHEMA_VERSION:
        age = "newer" if found > tables.SCHEMA_VERSION else "older"
        raise StateConflict(
            f"the audit database `{where}` has form {found}, made by a {age} Forcelift; this one knows form "
            f"{tables.SCHEMA_VERSION}",
            state="nothing was changed in it",
            hint=f"use the {age} Forcelift for the batches in it, or name another file in `audit.url`",
        )


_SQLITE_FAULTS = {
    "SQLITE_FULL": ("the disk is full", "free space and run the same command again"),
    "SQLITE_READONLY": ("it may only be read", "give this user the right to write the file and its folder"),
    "SQLITE_CORRUPT": ("it is damaged", "put back a copy; `forcelift audit verify` tells what a copy holds"),
    "SQLITE_NOTADB": ("it is no SQLite database", "name another file in `audit.url`"),
    "SQLITE_BUSY": ("another process keeps it locked", "run the same command again"),
    "SQLITE_LOCKED": ("another process keeps it locked", "run the same command again"),
    "SQLITE_CANTOPEN": ("it cannot be opened", "look whether folder and file exist and may be read and written"),
    "SQLITE_IOERR": ("the disk reports an error", "look at the disk, then run the same command again"),
}


def _storage_error(error: DBAPIError, *, where: str, verb: str) -> ForceliftError:
    code = getattr(error.orig, "sqlite_errorname", None) or ""
    with suppress(StopIteration):
        cause, hint = next(words for name, words in _SQLITE_FAULTS.items() if code.startswith(name))
        return StorageError(
            f"the audit database `{where}` cannot be {verb}: {cause} ({code})",
            state="what was recorded before stands; the last step was not recorded",
            hint=hint,
        )
    return StorageError(
        f"the audit database `{where}` cannot be {verb}: {type(error.orig).__name__} {code}".rstrip(),
        state="what was recorded before stands; the last step was not recorded",
        hint="look whether the database can be reached, then run the same command again",
    )
