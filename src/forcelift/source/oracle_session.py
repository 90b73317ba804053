"""Sessions with an Oracle database that all read as of one SCN, and never more of them than the plan allows.

An SCN is a number that any session may read at (`AS OF SCN`) as long as the database still holds the undo, so nothing
is held open for it. A session reads in a transaction that is READ ONLY, so that not even a function named in `where`
can write. Sessions are kept for the next reader and never reused after an error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import oracledb
import pyarrow as pa

from forcelift.errors import SourceError, SourceUnavailable
from forcelift.protocols.source import SharedSnapshot
from forcelift.source.names import UNTOUCHED
from forcelift.source.oracle_address import Address
from forcelift.source.oracle_errors import CallTimeout, code_of, oracle_errors, worded

CONNECT_SECONDS = 30.0
"""How long connecting may take in all. The driver's own limit covers the TCP handshake only, and a listener that then
says nothing would hold it for ever (its makers say so)."""
SESSIONS_MAX = 8
_WAIT_SECONDS = 600.0
# Whatever the server's or a logon trigger's are. By a linguistic order, ranges of a text key would overlap, since it
# orders rows in one way and compares them in another.
_SETTINGS = (
    "ALTER SESSION SET TIME_ZONE = '+00:00' NLS_SORT = BINARY NLS_COMP = BINARY NLS_NUMERIC_CHARACTERS = '.,'"
    " NLS_DATE_FORMAT = 'YYYY-MM-DD HH24:MI:SS' NLS_TIMESTAMP_FORMAT = 'YYYY-MM-DD HH24:MI:SS.FF'"
)


class Sessions:
    """Connections to one database, and the SCN at which all of them read.

    Args:
        address: Where.
        offered: SCNs that other processes read at; the first is taken.
        sessions_max: How many may be open at once; who wants one more waits.
    Attributes:
        scn: The SCN, or None where the plan wants none.
    """

    def __init__(
        self, address: Address, offered: Sequence[SharedSnapshot] = (), *, sessions_max: int = SESSIONS_MAX
    ) -> None:
        self.address = address
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(sessions_max)
        self._sessions_max = sessions_max
        self._free: list[oracledb.Connection] = []
        self._closed = False
        self.scn: int | None = None
        # Opened in any case, so that a wrong address is told at once.
        with self.session() as connection:
            if address.uses_snapshot:
                taken = next((int(one.exported) for one in offered if one.exported.isdigit()), None)
                self.scn = current_scn(connection, address.shown) if taken is None else taken

    @contextmanager
    def session(self, *, action: str = "read", read_only: bool = True) -> Iterator[oracledb.Connection]:
        """A session for one reader. It is kept afterwards if all went well.

        Args:
            action: What a DBA sees it do, beside the module `forcelift`.
            read_only: Begin a transaction that can write nothing.
        Raises:
            SourceUnavailable: No session became free in time.
        """
        if not self._places.acquire(timeout=_WAIT_SECONDS):
            raise SourceUnavailable(
                f"`{self.address.shown}`: all {self._sessions_max} sessions that the plan allows are in use",
                state=UNTOUCHED,
                hint="raise `source.limits.sessions`",
            )
        try:
            yield from self._lent(action, read_only=read_only)
        finally:
            self._places.release()

    def _lent(self, action: str, *, read_only: bool) -> Iterator[oracledb.Connection]:
        with self._lock:
            connection = self._free.pop() if self._free else None
        if connection is None:
            connection = connect_to(self.address)
            connection.call_timeout = max(1, round(self.address.call_seconds * 1000))
        try:
            connection.action = action
            if read_only:
                with oracle_errors(self.address.shown):
                    execute(connection, "SET TRANSACTION READ ONLY")
            yield connection
            with oracle_errors(self.address.shown):
                connection.rollback()
        except BaseException:
            _close(connection)
            raise
        with self._lock:
            if not self._closed:
                self._free.append(connection)
                return
        _close(connection)

    def close(self) -> None:
        """End the sessions that nobody uses now; the others end when they are given back."""
        with self._lock:
            self._closed, free = True, self._free
            self._free = []
        for connection in free:
            _close(connection)


def _close(connection: oracledb.Connection) -> None:
    try:
        connection.close()
    except (oracledb.Error, OSError):
        return  # It was dead already; the server notices by itself.


def connect_to(address: Address) -> oracledb.Connection:
    """Connect within `CONNECT_SECONDS`, and set what a session needs whatever its defaults are."""
    made: list[oracledb.Connection] = []
    failed: list[BaseException] = []
    gone = threading.Event()

    def work() -> None:
        try:
            connection = oracledb.connect(
                **address.options, tcp_connect_timeout=10, expire_time=2, program="forcelift", disable_oob=True
            )
        except (oracledb.Error, OSError) as error:
            failed.append(error)
            return
        made.append(connection)
        if gone.is_set():
            _close(connection)

    thread = threading.Thread(target=work, name="oracle-connect", daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if not made and not failed:
        gone.set()
        raise SourceUnavailable(
            f"`{address.shown}` took the connection and then said nothing for {CONNECT_SECONDS:g} s",
            state=UNTOUCHED,
            hint="see that the listener and the instance run, and that no firewall holds packets back",
        )
    with oracle_errors(address.shown):
        if failed:
            raise failed[0]
        connection = made[0]
        connection.module, connection.action = "forcelift", "connect"
        execute(connection, _SETTINGS)
        return connection


_SCN_QUERIES = (
    "SELECT current_scn FROM v$database",
    "SELECT DBMS_FLASHBACK.GET_SYSTEM_CHANGE_NUMBER FROM dual",
    "SELECT TIMESTAMP_TO_SCN(SYSTIMESTAMP) FROM dual",
)


def current_scn(connection: oracledb.Connection, place: str) -> int:
    """The SCN now, from the first place that the user may ask."""
    for query in _SCN_QUERIES:
        try:
            # By text: an SCN may be longer than what a float holds.
            inner = query.replace("SELECT ", "SELECT TO_CHAR(", 1).replace(" FROM", ") FROM", 1)
            ((scn,),) = fetch(connection, inner)
            return int(scn)
        except oracledb.DatabaseError as error:
            if code_of(error) not in (904, 942, 1031, 3001):
                raise worded(error, place) from None
    raise SourceError(
        f"`{place}` names no SCN to this user, so that its chunks would not be of one moment",
        state=UNTOUCHED,
        hint="let a DBA run `GRANT SELECT ON V_$DATABASE TO ...`; or write `?snapshot=none` in `source.url` to read "
        "each chunk as of its own moment",
    )


def execute(connection: oracledb.Connection, statement: str, **binds: Any) -> None:
    """Run a statement without a result."""
    with connection.cursor() as cursor:
        cursor.execute(statement, binds)


def fetch(connection: oracledb.Connection, query: str, **binds: Any) -> list[tuple[Any, ...]]:
    """All rows of a small query."""
    with connection.cursor() as cursor:
        return list(cursor.execute(query, binds).fetchall())


def fetch_readable(connection: oracledb.Connection, query: str) -> list[tuple[Any, ...]]:
    """All rows of a small query, broken text with U+FFFD: the driver's own way is to give up on such a row."""

    def lenient(cursor: oracledb.Cursor, metadata: oracledb.FetchInfo) -> oracledb.Var | None:
        if metadata.type_code not in (oracledb.DB_TYPE_VARCHAR, oracledb.DB_TYPE_NVARCHAR):
            return None
        return cursor.var(metadata.type_code, arraysize=cursor.arraysize, encoding_errors="replace")

    with connection.cursor() as cursor:
        cursor.outputtypehandler = lenient
        return list(cursor.execute(query).fetchall())


def fetch_exact(connection: oracledb.Connection, query: str, *, rows_max: int) -> list[tuple[Any, ...]]:
    """The first rows of a query, numbers as decimals: the driver's own way is binary floats, which lose cents."""
    with connection.cursor() as cursor:
        cursor.arraysize = min(rows_max, 10_000)
        cursor.execute(query, fetch_decimals=True)
        return list(cursor.fetchmany(rows_max))


class StatementTooLong(CallTimeout):
    """The server worked on one statement for longer than it may."""


def batches(
    connection: oracledb.Connection,
    query: str,
    schema: pa.Schema,
    *,
    size: int,
    seconds: float,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[pa.RecordBatch]:
    """The rows of a query as they come, in the types of `schema`.

    Args:
        size: Rows of one reply.
        seconds: How long the server may work on it in all; what the caller does in between does not count.
    """
    began, worked = monotonic(), 0.0
    for frame in connection.fetch_df_batches(query, size=size, requested_schema=schema):
        worked += monotonic() - began
        if worked > seconds:
            raise StatementTooLong("the statement took longer than it may")
        table = pa.table(frame)
        yield from table.to_batches()
        began = monotonic()
