"""Sessions with a PostgreSQL server that all see one state, and the server's errors as ours.

One session exports a snapshot and holds it while the source is open; all others import it, so that reads of any number
of threads, and counts, see the same rows. They are read-only transactions, kept for the next reader and never reused
after an error.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import adbc_driver_manager
import adbc_driver_manager.dbapi
import adbc_driver_postgresql.dbapi  # type: ignore[import-untyped]  # the package lacks the mark of typed ones
import pyarrow as pa

from forcelift.errors import SourceChanged, SourceError, SourceUnavailable
from forcelift.protocols.source import SharedSnapshot
from forcelift.source.names import UNTOUCHED

Connection = adbc_driver_manager.dbapi.Connection

OLDEST_VERSION = 12
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_NOT_READ = "the chunk was not read; nothing of it was sent"

# What a session needs whatever the role's or database's own settings are. Row security is off as in pg_dump: a policy
# that hides rows then is an error, where it would leave rows out in silence.
_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "row_security": "off",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
# Parts of the URL that are added unless it names them itself; libpq's own default waits for a lost host for minutes.
_PARTS = {"connect_timeout": "10", "keepalives_idle": "60", "application_name": "forcelift"}


class UnreadableRow(SourceError):
    """A row holds a value that the query or the driver cannot convert."""


class Address:
    """Where a database is: the URI for libpq, and words for messages without the password.

    What the URI leaves out, libpq takes from its environment (`PGHOST`, `PGPASSFILE`, `PGSSLROOTCERT`, ...).
    """

    def __init__(self, url: str, *, user: str | None, password: str | None) -> None:
        try:
            parts = urlsplit(url)
            query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        except ValueError:
            raise SourceError(
                "`source.url` cannot be read as a URL",
                state="nothing was read",
                hint="write `postgresql://host/db`; user and password stand apart in the plan",
            ) from None
        userinfo, _, host = parts.netloc.rpartition("@")
        url_user, _, url_password = userinfo.partition(":")
        user = unquote(url_user) or None if user is None else user
        password = unquote(url_password) or None if password is None else password
        query = {**_PARTS, **query, "client_encoding": "UTF8"}
        credentials = quote(user or "", safe="") + (f":{quote(password, safe='')}" if password else "")
        joined = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query.items())
        self.uri = f"postgresql://{credentials}{'@' if credentials else ''}{host}{parts.path}?{joined}"
        self.shown = f"postgresql://{host}{parts.path}"
        self.user = user


class Sessions:
    """Sessions that share one snapshot. Methods may be called from several threads at once."""

    def __init__(self, address: Address, offered: Sequence[SharedSnapshot] = ()) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._is_closed = False
        self._settings = dict(_SETTINGS)
        self._holder = connect_to(address)
        try:
            with postgres_errors(address.shown):
                ((version, self.server_encoding),) = fetch(
                    self._holder,
                    "SELECT current_setting('server_version_num')::int8, current_setting('server_encoding')",
                )
                self._version = int(version) // 10_000
                # Such a server would check bytes that go to a client of another encoding, and stop without a place.
                if self.server_encoding == "SQL_ASCII":
                    self._settings["client_encoding"] = "SQL_ASCII"
                if self._version < OLDEST_VERSION:
                    raise SourceError(
                        f"`{address.shown}` is PostgreSQL {self._version}; versions from {OLDEST_VERSION} are read",
                        state=UNTOUCHED,
                        hint="read a replica or a restored dump on a newer server",
                    )
                if self._version >= 17:
                    self._settings["transaction_timeout"] = "0"
                self._prepare(self._holder)
                state = self._import_first(offered)
                # Under a name of this process's own, so that its sessions do not depend on the other's life.
                ((snapshot,),) = fetch(self._holder, "SELECT pg_export_snapshot()")
                self.snapshot: str = snapshot
                self.state: str = state or snapshot
        except BaseException:
            self._holder.close()
            raise

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A session inside the snapshot, for one thread at a time; thrown away if the block raises.

        Raises:
            SourceUnavailable: The server does not answer.
            SourceChanged: The snapshot is gone.
        """
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._new()
        try:
            yield connection
        except BaseException as error:
            connection.close()
            if isinstance(error, SourceUnavailable):
                # The other idle sessions most likely ended with the same server.
                self._close_idle()
            raise
        with self._lock:
            if not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """End all idle sessions, and those at work when they are given back; the snapshot ends too."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._close_idle()
        self._holder.close()

    def _close_idle(self) -> None:
        with self._lock:
            left, self._idle = self._idle, []
        for connection in left:
            connection.close()

    def _new(self) -> Connection:
        with self._lock:
            if self._is_closed:
                raise SourceError("the source was closed", state=UNTOUCHED)
            with _connect_errors(self._address):
                connection = self._holder.adbc_clone()
        try:
            with postgres_errors(self._address.shown):
                # Not the dbapi's own transactions: they begin without the isolation that a snapshot needs.
                connection.adbc_connection.set_autocommit(True)
                self._prepare(connection)
            self._import_snapshot(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: Connection) -> None:
        calls = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in self._settings.items())
        fetch(connection, f"SELECT {calls}")
        execute(connection, _BEGIN)

    def _import_first(self, offered: Sequence[SharedSnapshot]) -> str | None:
        """Take over the first state whose holder is still there; None if there is none."""
        for one in offered:
            try:
                execute(self._holder, f"SET TRANSACTION SNAPSHOT '{_snapshot_name(one.exported)}'")
            except adbc_driver_manager.Error as error:
                if _is_lost(error):
                    raise
                execute(self._holder, "ROLLBACK")
                execute(self._holder, _BEGIN)
            else:
                return one.state
        return None

    def _import_snapshot(self, connection: Connection) -> None:
        try:
            execute(connection, f"SET TRANSACTION SNAPSHOT '{self.snapshot}'")
        except adbc_driver_manager.Error as error:
            if _is_lost(error):
                raise _worded(error, self._address.shown) from None
            raise SourceChanged(
                f"the snapshot `{self.snapshot}` of `{self._address.shown}` is gone: the session that held it ended",
                state="rows read before are from that snapshot; nothing is read from another one under its name",
                hint="go on by `forcelift run --resume`, which takes a new snapshot for what was not read yet",
            ) from None


def _snapshot_name(text: str) -> str:
    """The name, which comes from the audit database and goes into a statement."""
    if not re.fullmatch(r"[0-9A-Fa-f-]{1,63}", text):
        raise SourceError("the name of an exported snapshot is no such name", state=UNTOUCHED)
    return text


def execute(connection: Connection, statement: str) -> None:
    """Run a statement without rows."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)


def fetch(connection: Connection, query: str, *, by_copy: bool = True) -> list[tuple[Any, ...]]:
    """All rows of a small query. `by_copy=False` for statements that COPY does not take, such as EXPLAIN."""
    with closing(connection.cursor()) as cursor:
        if not by_copy:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
        cursor.execute(query)
        return list(cursor.fetchall())


def batches(connection: Connection, query: str) -> Iterator[pa.RecordBatch]:
    """The rows of a query as they come, in batches of about 16 MB."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(query)
        with cursor.fetch_record_batch() as reader:
            while True:
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
                except OSError:
                    _raise_if_lost(connection)
                    raise
                yield batch


def _raise_if_lost(connection: Connection) -> None:
    # The Arrow stream hands on no SQLSTATE. Asked again, a dead session says so, and a living one that its transaction
    # failed.
    try:
        fetch(connection, "SELECT 1")
    except adbc_driver_manager.Error as error:
        if _is_lost(error):
            raise


def connect_to(address: Address) -> Connection:
    """A session that commits each statement, with the role's and database's own settings.

    Raises:
        SourceError: The server does not let the user in.
        SourceUnavailable: It does not answer.
    """
    with _connect_errors(address):
        connection: Connection = adbc_driver_postgresql.dbapi.connect(address.uri, autocommit=True)
        return connection


# libpq hands on no SQLSTATE of a failed connection, so these are the server's and libpq's own English words. Whatever
# is not among them counts as a server that does not answer, which is tried again a few times.
_CONNECT_FAULTS = (
    (r"password authentication failed", "the password is wrong", "check `source.user` and `source.password`"),
    (r"no password supplied", "it asks for a password and none was given", "write `source.password: ${ENV}`"),
    (r"no pg_hba.conf entry", "it does not let this user in from here", "check its pg_hba.conf, and `sslmode`"),
    (r"authentication failed", "it does not let this user in", "check `source.user` and the server's pg_hba.conf"),
    (r"role .* (does not exist|is not permitted)", "there is no such user", "check `source.user`"),
    (r"database .* does not exist", "there is no such database", "check the name in `source.url`"),
    (r"permission denied for database", "this user may not connect to it", "let a DBA grant CONNECT"),
    (r"\bSSL|certificate", "TLS could not be set up", "check `sslmode` and `sslrootcert` in `source.url`"),
    (r"invalid URI query parameter", "the URL holds a part that libpq does not know", "mend `source.url`"),
    (r"^invalid ", "the URL holds a value that libpq does not take", "mend `source.url`"),
)


@contextmanager
def _connect_errors(address: Address) -> Iterator[None]:
    try:
        yield
    except adbc_driver_manager.Error as error:
        if error.sqlstate is not None:
            raise _worded(error, address.shown) from None
        # The reason stands last; before it stand names of hosts and sockets, which may hold any word.
        reason = str(error)
        for mark in ("Failed to connect: ", " failed: ", "FATAL:"):
            reason = reason.rpartition(mark)[2] if mark in reason else reason
        for words, fault, hint in _CONNECT_FAULTS:
            if re.search(words, reason.strip()):
                raise SourceError(f"`{address.shown}` cannot be opened: {fault}", state=UNTOUCHED, hint=hint) from None
        raise SourceUnavailable(
            f"`{address.shown}` cannot be reached: {_first_line(reason)}",
            state=UNTOUCHED,
            hint="check host and port in `source.url`, and that the server runs and takes connections from here",
        ) from None


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()


_LOST_CLASSES = ("08", "53", "57P", "40001", "57014")


def _is_lost(error: adbc_driver_manager.Error) -> bool:
    """True if the server, or the way to it, failed; another time the same may work."""
    if error.sqlstate is None:
        return error.status_code == adbc_driver_manager.AdbcStatusCode.IO
    return error.sqlstate.startswith(_LOST_CLASSES)


@contextmanager
def postgres_errors(what: str) -> Iterator[None]:
    """The server's errors as ours. `what` was to be read, as a message names it.

    The driver's own exception is not kept as the cause: it repeats the statement, in which keys of rows may stand.
    """
    try:
        yield
    except adbc_driver_manager.Error as error:
        raise _worded(error, what) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UnreadableRow(
            f"`{what}` cannot be read: PostgreSQL or its driver stopped in the middle of the rows "
            f"({type(error).__name__}), most likely at a value that could not be converted",
            state=_NOT_READ,
            hint="look at comparisons and casts in `where`; the server's log has the whole message",
        ) from None


def _worded(error: adbc_driver_manager.Error, what: str) -> SourceError:
    code = error.sqlstate or ""
    if _is_lost(error):
        because = f" (SQLSTATE {code})" if code else ""
        return SourceUnavailable(
            f"`{what}` cannot be read: the server ended the session or the query{because}",
            state=_NOT_READ,
            hint="see that the server runs; on a standby, `hot_standby_feedback` keeps long reads alive",
        )
    if code == "42501":
        return SourceError(
            f"`{what}` cannot be read: {_said(error)}",
            state=UNTOUCHED,
            hint="let a DBA run `GRANT SELECT` for the user of `source.user`; with row security, also `BYPASSRLS`",
        )
    if code.startswith(("42", "3F", "0A")):
        return SourceError(
            f"`{what}` cannot be read: {_said(error)}", state=UNTOUCHED, hint="check `where` and the names in the plan"
        )
    # Messages of these classes may quote a value of the row they failed on.
    kind = UnreadableRow if code.startswith("22") else SourceError
    return kind(
        f"`{what}` cannot be read: PostgreSQL stopped with SQLSTATE {code or 'unknown'}"
        + (", a value that could not be converted" if code.startswith("22") else ""),
        state=_NOT_READ,
        hint="look at comparisons and casts in `where`; the server's log has the whole message",
    )


def _said(error: adbc_driver_manager.Error) -> str:
    # The first line only: the next ones repeat the statement.
    return _first_line(str(error).partition("ERROR:")[2]) or f"SQLSTATE {error.sqlstate}"
