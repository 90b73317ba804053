"""The connection to the audit database: opened, created, locked for one writer, its errors put into words.

SQLite keeps a write-ahead log with `synchronous=FULL`, so what a transaction committed survives a crash of the machine.
Writers take turns by a lock of the process, and between processes by `BEGIN IMMEDIATE` on SQLite and a row lock on
PostgreSQL and Oracle; readers do not wait.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.pool import StaticPool

from forcelift.audit import chain, cover, oracle, postgresql, tables
from forcelift.audit.dialects import native_dates
from forcelift.audit.shares import LeaseTimes
from forcelift.errors import ForceliftError, NothingRecorded, StateConflict, StorageError, UsageError
from forcelift.protocols.clock import Clock

_BUSY_TIMEOUT_S = 30.0
_CONNECTIONS_MAX = 32
_RIGHT_MISSING = "42501"

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
        # Set once they were found or made.
        self.has_tables = False
        # Whether this process made them when it opened the database.
        self.made_tables = False
        # Batches that this process works on, where there is no file to lock.
        self.held_in_memory: set[str] = set()
        self.memory_guard = threading.Lock()
        # Whether several runners may work on one batch: where leases are judged by a clock that they share.
        self.can_share = self.is_server
        self.lease_times = LeaseTimes()
        # The runner whose writes these are; None writes for nobody in particular, and is not held back.
        self.fence: int | None = None

    @property
    def is_server(self) -> bool:
        """True if the database is a server, which processes of several hosts may use at once."""
        return self.engine.dialect.name != "sqlite"

    @property
    def file(self) -> Path | None:
        """The SQLite file; None in memory and on a server."""
        return None if self.is_server else sqlite_file(self.url)

    @property
    def where(self) -> str:
        """The database in words, without secrets."""
        return postgresql.shown_url(self.url) if self.is_server else self.url.render_as_string(hide_password=True)

    @property
    def is_oracle(self) -> bool:
        """True if the database is Oracle."""
        return self.engine.dialect.name == "oracle"

    def server_time(self, connection: Connection) -> datetime:
        """The server's clock at this moment, which goes on within a transaction. Only where `is_server`."""
        return oracle.server_time(connection) if self.is_oracle else postgresql.server_time(connection)

    @contextmanager
    def write(self, *, in_turn: bool = True) -> Iterator[Connection]:
        """One transaction that may write: committed at the end, undone by any exception.

        Args:
            in_turn: Whether all other writers wait for its end. Without, which only a server knows, it must touch
                nothing that another one reads before it writes.
        """
        waits = in_turn or not self.is_server
        turn = self._lock if waits else nullcontext()
        with turn, self._in_words("written"), self.engine.connect() as connection:
            connection = connection.execution_options(forcelift_write=True)
            connection = cover.begin(connection, in_turn=in_turn)
            with connection.begin():
                if waits and self.is_oracle:
                    oracle.take_turn(connection)
                elif waits and self.is_server:
                    postgresql.take_turn(connection, has_tables=self.has_tables)
                yield connection
                chain.seal(connection, self.clock.now)
                self._on_step("write.before")
            self._on_step("write.done")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction that sees one state and only reads."""
        # In memory all threads share one connection, so readers wait for the writer.
        in_memory = self.file is None and not self.is_server
        turn = self._lock if in_memory else nullcontext()
        with turn, self._in_words("read"), self.engine.connect() as connection:
            if self.is_server and not self.is_oracle:
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                if self.is_oracle:
                    oracle.begin_reading(connection)
                yield connection

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()

    @contextmanager
    def _in_words(self, verb: str) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError as error:
            # SQLite quotes a damaged file in its messages, and the driver cannot read that.
            raise StorageError(
                f"the audit database `{self.where}` cannot be {verb}: it is damaged",
                state="what was recorded before stands; the last step was not recorded",
                hint=_SQLITE_FAULTS["SQLITE_CORRUPT"][1],
            ) from error
        except DBAPIError as error:
            # A statement that is wrong is a fault of the program. A right that is missing is not.
            if self.is_oracle:
                is_ours = oracle.is_ours(error)
            else:
                is_ours = isinstance(error, IntegrityError | ProgrammingError)
                is_ours = is_ours and getattr(error.orig, "sqlstate", None) != _RIGHT_MISSING
            if is_ours:
                raise
            server = oracle if self.is_oracle else postgresql
            worded = server.server_error if self.is_server else _storage_error
            raise worded(error, where=self.where, verb=verb) from error


StoreType = TypeVar("StoreType", bound=Database)


def sqlite_file(url: URL) -> Path | None:
    """The file of a SQLite URL; None in memory."""
    if url.database in (None, "", ":memory:"):
        return None
    return Path(url.database)


def open_database(
    kind: type[StoreType],
    url_text: str,
    *,
    clock: Clock,
    create: bool,
    on_step: OnStep = no_step,
    lease_times: LeaseTimes | None = None,
    beside_others: bool = False,
) -> StoreType:
    """Open the audit database, create its tables if it is new and `create` allows it.

    Args:
        beside_others: Whether a server's tables are made also where another program's are, under other names.
    Raises:
        UsageError: The URL names no database that this build can use.
        StateConflict: There is none and it may not be created, or it belongs to another program or a newer Forcelift.
        StorageError: Folder or file cannot be read or written, or the server cannot be reached.
    """
    url, lease_times = _database_url(url_text), lease_times or LeaseTimes()
    if url.get_backend_name() == "postgresql":
        engine = postgresql.postgresql_engine(url, stale_after_s=lease_times.stale_after_s)
    elif url.get_backend_name() == "oracle":
        engine = oracle.oracle_engine(url)
    else:
        file = sqlite_file(url)
        if file is not None:
            _prepare_file(file, create=create)
        engine = _sqlite_engine(url)
    cover.watch(engine)
    database = kind(engine, url=url, clock=clock, on_step=on_step)
    database.lease_times = lease_times
    try:
        _create_or_check(database, create=create, beside_others=beside_others)
        database.has_tables = True
    except BaseException:
        database.close()
        raise
    return database


def _database_url(url_text: str) -> URL:
    try:
        url = make_url(url_text)
    except sa.exc.ArgumentError as error:
        raise UsageError(
            "the audit database's URL cannot be read",
            state="nothing was begun",
            hint="write `audit: {url: sqlite:///state/audit.db}` into the plan",
        ) from error
    if url.get_backend_name() not in ("sqlite", "postgresql", "oracle"):
        raise UsageError(
            f"this version cannot keep its audit database on `{url.get_backend_name()}`",
            state="nothing was begun",
            hint="write `audit: {url: sqlite:///state/audit.db}`, `postgresql://host/db` or `oracle://host/service` "
            "into the plan",
        )
    return url


def _prepare_file(file: Path, *, create: bool) -> None:
    if not create and not file.exists():
        raise NothingRecorded(
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
        if create and not file.exists():
            # By hand, so that nobody else can read it from its first moment on; the log files take its mode over.
            with suppress(FileExistsError):
                os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        # A file that exists is never opened here: closing it would drop every lock that this process holds on it.
        if not os.access(file, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
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
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("forcelift_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    native_dates(engine)
    return engine


def _create_or_check(database: Database, *, create: bool, beside_others: bool) -> None:
    with database.read() as connection:
        names = _table_names(database, connection)
        if tables.schema_version.name in names and not _is_half_made(database, connection):
            return _check_version(connection, database.where)
    is_begun = tables.schema_version.name in names
    if names and not is_begun:
        _refuse_others(database, names, beside_others=beside_others)
    if not create and (database.file is not None or database.is_server):
        raise NothingRecorded(
            f"the audit database `{database.where}` is empty",
            state="no batch was begun here",
            hint="begin one with `forcelift run`",
        )
    if database.is_oracle:
        with database._in_words("written"):
            database.made_tables = oracle.make_tables(database.engine, database.where, database.clock.now())
        with database.read() as connection:
            return _check_version(connection, database.where)
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
    database.made_tables = True
    return None


def _table_names(database: Database, connection: Connection) -> set[str]:
    if database.is_oracle:
        return oracle.table_names(connection)
    return set(sa.inspect(connection).get_table_names())


def _is_half_made(database: Database, connection: Connection) -> bool:
    """Whether the tables are just being made, or their maker died: on Oracle each of them is committed by itself."""
    if not database.is_oracle:
        return False
    return not connection.execute(sa.select(sa.func.count()).select_from(tables.schema_version)).scalar_one()


def _refuse_others(database: Database, names: set[str], *, beside_others: bool) -> None:
    """Raise `StateConflict` for a database of another program, unless ours may stand beside its tables and can."""
    taken = names & {table.name.lower() for table in tables.metadata.sorted_tables}
    if database.is_oracle and beside_others and not taken:
        return
    if database.is_oracle:
        raise oracle.another_programs(database.where, taken)
    if database.is_server:
        raise postgresql.another_programs(database.where)
    raise StateConflict(
        f"`{database.where}` is the database of another program: it has tables but not Forcelift's version mark",
        state="nothing was changed in it",
        hint="name a file of its own in `audit.url`",
    )


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
