"""Sessions with an Oracle database that all read as of one SCN, and the server's errors as ours.

An SCN is a number that any session may read at (`AS OF SCN`) as long as the database still holds the undo, so nothing
is held open for it. Sessions are kept for the next reader and never reused after an error. Nothing is ever written.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import oracledb
import pyarrow as pa

from forcelift.errors import SourceChanged, SourceError, SourceUnavailable
from forcelift.protocols.source import SharedSnapshot
from forcelift.source.names import UNTOUCHED

CONNECT_SECONDS = 30.0
"""How long connecting may take in all. The driver's own limit covers the TCP handshake only, and a listener that then
says nothing would hold it for ever (its makers say so)."""
_NOT_READ = "the chunk was not read; nothing of it was sent"
_PARTS = ("config_dir", "protocol", "sdu", "sid", "snapshot", "wallet_location")

_REFUSED = {
    1017: ("the user or the password is wrong", "check `source.user` and `source.password`"),
    1045: ("the user may not connect", "let a DBA run `GRANT CREATE SESSION`"),
    28000: ("the account is locked", "let a DBA run `ALTER USER ... ACCOUNT UNLOCK`"),
    28001: ("the password has expired", "set a new password, and give it in `source.password`"),
}
# Whatever the server's or a logon trigger's are. By a linguistic order, ranges of a text key would overlap, since it
# orders rows in one way and compares them in another.
_SETTINGS = (
    "ALTER SESSION SET TIME_ZONE = '+00:00' NLS_SORT = BINARY NLS_COMP = BINARY NLS_NUMERIC_CHARACTERS = '.,'"
    " NLS_DATE_FORMAT = 'YYYY-MM-DD HH24:MI:SS' NLS_TIMESTAMP_FORMAT = 'YYYY-MM-DD HH24:MI:SS.FF'"
)
# Another time the same may work: sessions that ended, instances that start or stop, limits on sessions and memory.
# fmt: off
_PASSING = frozenset((
    18, 20, 28, 31, 600, 603, 604, 1012, 1013, 1033, 1034, 1089, 1090, 1092, 1652, 2391, 2396, 2399, 3113, 3114,
    3135, 4021, 4031, 12170, 12505, 12514, 12516, 12518, 12519, 12520, 12526, 12527, 12528, 12537, 12541, 12547,
    12570, 12571, 12757, 12801, 12805,
))
# fmt: on
_PASSING_DRIVER = ("DPY-1001", "DPY-4005", "DPY-4011", "DPY-4024", "DPY-6000", "DPY-6001", "DPY-6005")
_TOO_OLD = frozenset((1555, 8180, 8181, 22924))
_MOVED = frozenset((1410, 1466, 8103))
_NAMES = frozenset((1031, *range(900, 1000)))


class UnreadableRow(SourceError):
    """A row holds a value that the query or the driver cannot convert."""


class Address:
    """Where a database is: what the driver is given, and words for messages without the password."""

    def __init__(self, url: str, *, user: str | None, password: str | None) -> None:
        try:
            parts = urlsplit(url)
            query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
            host, port, service = parts.hostname or "", parts.port, unquote(parts.path.lstrip("/"))
        except ValueError:
            raise _bad_url("it cannot be taken apart") from None
        unknown = sorted(set(query) - set(_PARTS))
        if unknown or not host:
            raise _bad_url(f"it has no part `{unknown[0]}`" if unknown else "it names no host")
        self.user = user or (unquote(parts.username) if parts.username else None)
        password = password or (unquote(parts.password) if parts.password else None)
        if not self.user or not password:
            raise SourceError(
                "an Oracle source needs a user and a password (signing in by a wallet or the system is not built yet)",
                state=UNTOUCHED,
                hint="write `source.user` and `source.password: ${ENV}`",
            )
        self.uses_snapshot = query.pop("snapshot", "scn") != "none"
        self.shown = f"oracle://{host}" + (f":{port}" if port else "") + (f"/{service}" if service else "")
        self.options: dict[str, Any] = {"user": self.user, "password": password}
        if "config_dir" in query:
            self.options["config_dir"] = query.pop("config_dir")
        if service or "sid" in query:
            self.options |= {"host": host, "port": port or 1521, "service_name": service or None, **query}
        else:
            self.options |= {"dsn": host, **query}
        if "sdu" in self.options:
            self.options["sdu"] = int(self.options["sdu"])


def _bad_url(fault: str) -> SourceError:
    return SourceError(
        f"`source.url` is no address of an Oracle database: {fault}",
        state=UNTOUCHED,
        hint="write `oracle://host:1521/service`, or `oracle://NAME` for a name in tnsnames.ora; known query parts: "
        + ", ".join(f"`{part}`" for part in _PARTS),
    )


class Sessions:
    """Connections to one database, and the SCN at which all of them read.

    Args:
        address: Where.
        offered: SCNs that other processes read at; the first is taken.
    Attributes:
        scn: The SCN, or None where the plan wants none or the user may ask for none.
    """

    def __init__(self, address: Address, offered: Sequence[SharedSnapshot]) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._free: list[oracledb.Connection] = []
        self._closed = False
        self.scn: int | None = None
        # Opened in any case, so that a wrong address is told at once.
        with self.session() as connection:
            if address.uses_snapshot:
                taken = next((int(one.exported) for one in offered if one.exported.isdigit()), None)
                self.scn = _current_scn(connection, address.shown) if taken is None else taken

    @contextmanager
    def session(self) -> Iterator[oracledb.Connection]:
        """A session for one reader. It is kept afterwards if all went well."""
        with self._lock:
            connection = self._free.pop() if self._free else None
        if connection is None:
            connection = connect_to(self._address)
        try:
            yield connection
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
            connection = oracledb.connect(**address.options, tcp_connect_timeout=10, expire_time=2)
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
        connection.module, connection.action = "forcelift", "read"
        with connection.cursor() as cursor:
            cursor.execute(_SETTINGS)
        return connection


_SCN_QUERIES = (
    "SELECT current_scn FROM v$database",
    "SELECT DBMS_FLASHBACK.GET_SYSTEM_CHANGE_NUMBER FROM dual",
    "SELECT TIMESTAMP_TO_SCN(SYSTIMESTAMP) FROM dual",
)


def _current_scn(connection: oracledb.Connection, place: str) -> int:
    """The SCN now, from the first place that the user may ask."""
    for query in _SCN_QUERIES:
        try:
            # By text: an SCN may be longer than what a float holds.
            inner = query.replace("SELECT ", "SELECT TO_CHAR(", 1).replace(" FROM", ") FROM", 1)
            ((scn,),) = connection.cursor().execute(inner).fetchall()
            return int(scn)
        except oracledb.DatabaseError as error:
            if code_of(error) not in (904, 942, 1031, 3001):
                raise _worded(error, place) from None
    raise SourceError(
        f"`{place}` names no SCN to this user, so that its chunks would not be of one moment",
        state=UNTOUCHED,
        hint="let a DBA run `GRANT SELECT ON V_$DATABASE TO ...`; or write `?snapshot=none` in `source.url` to read "
        "each chunk as of its own moment",
    )


def fetch(connection: oracledb.Connection, query: str, **binds: Any) -> list[tuple[Any, ...]]:
    """All rows of a small query."""
    with connection.cursor() as cursor:
        return list(cursor.execute(query, binds).fetchall())


def fetch_exact(connection: oracledb.Connection, query: str, *, rows_max: int) -> list[tuple[Any, ...]]:
    """The first rows of a query, numbers as decimals: the driver's own way is binary floats, which lose cents."""
    with connection.cursor() as cursor:
        cursor.arraysize = min(rows_max, 10_000)
        cursor.execute(query, fetch_decimals=True)
        return list(cursor.fetchmany(rows_max))


def batches(connection: oracledb.Connection, query: str, schema: pa.Schema, *, size: int) -> Iterator[pa.RecordBatch]:
    """The rows of a query as they come, in the types of `schema`."""
    for frame in connection.fetch_df_batches(query, size=size, requested_schema=schema):
        table = pa.table(frame)
        yield from table.to_batches()


def code_of(error: oracledb.Error) -> int:
    """The number after `ORA-`; 0 for the driver's own errors."""
    return int(getattr(error.args[0], "code", 0) or 0) if error.args else 0


@contextmanager
def oracle_errors(what: str) -> Iterator[None]:
    """The server's errors as ours. `what` was to be read, as a message names it.

    The driver's own exception is not kept as the cause: its text may repeat a value of the row it failed on.
    """
    try:
        yield
    except oracledb.Error as error:
        raise _worded(error, what) from None
    except OSError as error:
        raise SourceUnavailable(
            f"`{what}` cannot be reached: {error.strerror or type(error).__name__}",
            state=UNTOUCHED,
            hint="check host and port in `source.url`, and that the listener takes connections from here",
        ) from None
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise UnreadableRow(
            f"`{what}` cannot be read: a value does not fit the type of its column ({type(error).__name__})",
            state=_NOT_READ,
            hint="look for values that the declared type should not allow",
        ) from None


def _worded(error: oracledb.Error, what: str) -> SourceError:
    full = str(getattr(error.args[0], "full_code", "")) if error.args else ""
    code = code_of(error)
    if code in _REFUSED:
        fault, hint = _REFUSED[code]
        return SourceError(f"`{what}` cannot be opened: {fault} (ORA-{code:05d})", state=UNTOUCHED, hint=hint)
    if code in _TOO_OLD:
        return SourceChanged(
            f"`{what}` cannot be read as of the batch's SCN any more: the undo is gone (ORA-{code:05d})",
            state="rows read before are as of that SCN; nothing is read from another one under its name",
            hint="go on by `forcelift run --resume`, which takes a new SCN for what was not read yet; a larger "
            "`undo_retention`, or `--extract-first`, makes the SCN last",
        )
    if code in _MOVED:
        return SourceChanged(
            f"`{what}` was altered, truncated or moved while it was read (ORA-{code:05d})",
            state=_NOT_READ,
            hint="begin a new batch once nobody alters the table",
        )
    if code in _PASSING or full in _PASSING_DRIVER:
        return SourceUnavailable(
            f"`{what}` cannot be read: the server ended the session or the query ({full or f'ORA-{code:05d}'})",
            state=_NOT_READ,
            hint="see that the instance runs and has sessions and memory left; the same is tried again",
        )
    if code in _NAMES:
        return SourceError(
            f"`{what}` cannot be read: {_first_line(error)}",
            state=UNTOUCHED,
            hint="check `where` and the names in the plan; for ORA-01031 let a DBA run `GRANT SELECT` and "
            "`GRANT FLASHBACK` on the table",
        )
    if not code and full:
        return UnreadableRow(
            f"`{what}` cannot be read: the driver stopped at a value or a setting ({full})",
            state=_NOT_READ,
            hint=f"look up {full} in the driver's documentation",
        )
    return UnreadableRow(
        f"`{what}` cannot be read: Oracle stopped with ORA-{code:05d}",
        state=_NOT_READ,
        hint="look at comparisons and conversions in `where`",
    )


def _first_line(error: oracledb.Error) -> str:
    return str(error).strip().partition("\n")[0].strip()
