"""The audit database on Oracle: its connection, its tables, whose turn it is to write, and its errors in words.

As on PostgreSQL, writers of all processes take turns by the lock of one row, held to the end of a transaction. What is
particular: a definition commits whatever is under way, so tables are made under the lock of one of them, held by a
second session; an empty text is null; texts of any length are bound as LONG, which costs no round trip for each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError

from forcelift.audit import tables
from forcelift.audit.definitions import statements
from forcelift.audit.types import Moment
from forcelift.errors import ForceliftError, StateConflict, StorageError, UsageError

if TYPE_CHECKING:
    import polars as pl

CONNECT_SECONDS = 30.0
"""How long connecting may take in all: the driver's own limit covers the TCP handshake only."""
_CONNECTIONS_MAX = 32
_PARTS = ("config_dir", "protocol", "sdu", "sid", "wallet_location", "ssl_server_dn_match")
# Nobody holds the turn for longer than a transaction of some milliseconds, unless its process or its host stands still.
_TURN_WAIT_S = 120
_SETTINGS = (
    "ALTER SESSION SET TIME_ZONE = '+00:00' NLS_SORT = BINARY NLS_COMP = BINARY NLS_NUMERIC_CHARACTERS = '.,'"
    " NLS_DATE_FORMAT = 'YYYY-MM-DD HH24:MI:SS' NLS_TIMESTAMP_FORMAT = 'YYYY-MM-DD HH24:MI:SS.FF'"
)
_EXISTS = 955
UNTOUCHED = "nothing was begun"


def oracle_engine(url: URL) -> sa.Engine:
    """The engine of a database. Sessions are named `forcelift` and `audit` in its V$SESSION."""
    try:
        import oracledb
    except ImportError as error:
        raise UsageError(
            "an audit database on Oracle needs the driver, which is not installed",
            state=UNTOUCHED,
            hint="run `pip install 'forcelift[oracle]'`",
        ) from error

    options = _connect_options(url)

    def connect() -> oracledb.Connection:
        connection: oracledb.Connection = _within(CONNECT_SECONDS, lambda: oracledb.connect(**options), shown_url(url))
        connection.module, connection.action = "forcelift", "audit"
        with connection.cursor() as cursor:
            cursor.execute(_SETTINGS)
        return connection

    engine = sa.create_engine(
        "oracle+oracledb://",
        creator=connect,
        max_overflow=_CONNECTIONS_MAX,
        # A server that was restarted in the meantime is noticed before a transaction begins.
        pool_pre_ping=True,
        # Keys and messages of rows must not get into error texts.
        hide_parameters=True,
    )

    @sa.event.listens_for(engine, "do_setinputsizes")
    def long_texts(sizes: dict[Any, Any], cursor: object, statement: str, parameters: Any, context: object) -> None:
        for bind, kind in sizes.items():
            if kind is oracledb.DB_TYPE_CLOB:
                sizes[bind] = oracledb.DB_TYPE_LONG

    return engine


def _connect_options(url: URL) -> dict[str, Any]:
    query = {name: value if isinstance(value, str) else value[-1] for name, value in url.query.items()}
    unknown = sorted(set(query) - set(_PARTS))
    if unknown or not url.host:
        raise UsageError(
            "the audit database's URL is no address of an Oracle database: "
            + (f"it has no part `{unknown[0]}`" if unknown else "it names no host"),
            state=UNTOUCHED,
            hint="write `oracle://host:1521/service`, or `oracle://NAME` for a name in tnsnames.ora; known query "
            "parts: " + ", ".join(f"`{part}`" for part in _PARTS),
        )
    if not url.username or not url.password:
        raise UsageError(
            "an audit database on Oracle needs a user and a password",
            state=UNTOUCHED,
            hint="write `audit: {url: oracle://host/service, user: ..., password: ${ENV}}`",
        )
    options: dict[str, Any] = {
        "user": url.username,
        "password": url.password,
        "tcp_connect_timeout": 10.0,
        "expire_time": 2,
        **query,
    }
    if "sdu" in options:
        options["sdu"] = int(options["sdu"])
    if url.database or "sid" in query:
        return options | {"host": url.host, "port": url.port or 1521, "service_name": url.database or None}
    return options | {"dsn": unquote(url.host)}


def _within(seconds: float, connect: Callable[[], Any], where: str) -> Any:
    """What `connect` returns or raises; `StorageError` if it does neither in that time."""
    ended: list[tuple[Any, BaseException | None]] = []
    given_up = threading.Event()
    turn = threading.Lock()  # or a connection made in the instant in which it is given up would be nobody's

    def work() -> None:
        try:
            made = connect()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            ended.append((None, error))
            return
        with turn:
            is_late = given_up.is_set()
            ended.append((made, None))
        if is_late:
            made.close()

    thread = threading.Thread(target=work, name="oracle-audit-connect", daemon=True)
    thread.start()
    thread.join(seconds)
    with turn:
        if not ended:
            given_up.set()
    if given_up.is_set():
        raise StorageError(
            f"the audit database `{where}` took the connection and then said nothing for {seconds:g} s",
            state="what was recorded before stands",
            hint="see that the listener and the instance run, and that no firewall holds packets back",
        )
    made, error = ended[0]
    if error is None:
        return made
    if isinstance(error, OSError):
        raise StorageError(
            f"the audit database `{where}` cannot be reached: {error}",
            state="what was recorded before stands",
            hint="check the host in `audit.url`",
        ) from error
    raise error


def shown_url(url: URL) -> str:
    """The URL for messages: without password and query parts, which may hold secrets too."""
    return url.set(password=None, query={}).render_as_string()


# Reading and writing.


def begin_reading(connection: Connection) -> None:
    """See one state until the transaction ends, and write nothing."""
    connection.exec_driver_sql("SET TRANSACTION READ ONLY")


def take_turn(connection: Connection) -> None:
    """Wait until no other transaction writes."""
    connection.execute(
        sa.text(f"SELECT version FROM schema_version WHERE product = :product FOR UPDATE WAIT {_TURN_WAIT_S}"),
        {"product": tables.PRODUCT},
    )


def server_time(connection: Connection) -> datetime:
    """The server's clock at this moment, which goes on within a transaction."""
    query = sa.text("SELECT SYS_EXTRACT_UTC(SYSTIMESTAMP) FROM dual")
    return cast(datetime, connection.execute(query).scalar_one()).replace(tzinfo=UTC)


def _cursor(connection: Connection) -> Any:
    """The driver's own cursor: SQLAlchemy's way turns each row into a dict first and takes several times as long."""
    return connection.connection.cursor()


def insert_rows(connection: Connection, table: sa.Table, rows: pl.DataFrame) -> None:
    """Write rows by one array bind. The frame's columns are keys of the table's."""
    statement, kinds = _insert_of(table, rows.columns)
    with closing(_cursor(connection)) as driver:
        driver.setinputsizes(*kinds)
        driver.executemany(statement, rows.rows())


def insert_returning(
    connection: Connection, table: sa.Table, rows: pl.DataFrame, identity: sa.Column[Any]
) -> tuple[int, int]:
    """Write rows as `insert_rows` does; the least and the greatest number that they were given."""
    import oracledb

    statement, kinds = _insert_of(table, rows.columns)
    with closing(_cursor(connection)) as driver:
        made = driver.var(oracledb.DB_TYPE_NUMBER, arraysize=rows.height)
        driver.setinputsizes(*kinds, made)
        driver.executemany(f"{statement} RETURNING {identity.name} INTO :{len(kinds) + 1}", rows.rows())
        numbers = [int(made.getvalue(at)[0]) for at in range(rows.height)]
    return min(numbers), max(numbers)


def _insert_of(table: sa.Table, keys: list[str]) -> tuple[str, list[Any]]:
    """The statement with a bind for each column, and the driver's types of the binds."""
    import oracledb

    columns = [table.c[key] for key in keys]
    kinds: list[Any] = []
    for column in columns:
        if isinstance(column.type, Moment):
            kinds.append(oracledb.DB_TYPE_TIMESTAMP)
        elif isinstance(column.type, sa.Text):
            kinds.append(oracledb.DB_TYPE_LONG)
        else:
            kinds.append(None)
    names = ", ".join(column.name for column in columns)
    binds = ", ".join(f":{at}" for at in range(1, len(columns) + 1))
    return f"INSERT INTO {table.name} ({names}) VALUES ({binds})", kinds


# Tables.


def table_names(connection: Connection) -> set[str]:
    """The tables of the session's schema, those whose names were not quoted in lower case."""
    query = "SELECT table_name FROM all_tables WHERE owner = SYS_CONTEXT('USERENV', 'CURRENT_SCHEMA')"
    return {name.lower() if name.isupper() else name for name in connection.execute(sa.text(query)).scalars()}


def make_tables(engine: sa.Engine, where: str, created_at: datetime) -> bool:
    """Make all tables, whoever else does so at the same time, and go on where a maker died; whether any was made here.

    Each definition commits, so no transaction holds them together. Instead the table of the version mark is made first,
    and one session keeps it locked while another makes the rest; the mark's row, written last, says that all is there.
    """
    _need_rights(engine, where)
    mark = tables.schema_version
    first, *rest = statements(engine.dialect)
    with engine.connect() as guard, engine.connect() as maker:
        _define(maker, first)
        with guard.begin():
            guard.exec_driver_sql(f"LOCK TABLE {mark.name} IN EXCLUSIVE MODE")
            found = guard.execute(sa.select(sa.func.count()).select_from(mark)).scalar_one()
            if found:
                return False
            for statement in rest:
                _define(maker, statement)
            row = {"product": tables.PRODUCT, "version": tables.SCHEMA_VERSION, "created_at": created_at}
            guard.execute(mark.insert(), row)
    return True


def _define(connection: Connection, statement: str) -> None:
    try:
        connection.exec_driver_sql(statement)
    except DBAPIError as error:
        # Made by another process, or before a maker died. Names of other programs were looked for before.
        if code_of(error) != _EXISTS:
            raise


def _need_rights(engine: sa.Engine, where: str) -> None:
    with engine.connect() as connection:
        user = connection.execute(sa.text("SELECT USER FROM dual")).scalar_one()
        held = set(connection.execute(sa.text("SELECT privilege FROM session_privs")).scalars())
    missing = [right for right in ("CREATE TABLE", "CREATE SEQUENCE") if not held & {right, _ANY.get(right, right)}]
    if missing:
        raise StorageError(
            f"the audit database `{where}`: its user may not make tables with identity columns",
            state="nothing was made",
            hint=f"let a DBA run `GRANT {', '.join(missing)} TO {user}`",
        )


_ANY = {"CREATE TABLE": "CREATE ANY TABLE", "CREATE SEQUENCE": "CREATE ANY SEQUENCE"}


# Errors.


def code_of(error: DBAPIError) -> int:
    """The number of an ORA- error; 0 for those of the driver and the way to the server."""
    first = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return int(getattr(first, "code", 0) or 0)


# Statements that are wrong, and values that do not fit, are faults of this program.
_OURS = frozenset((1, 900, 904, 907, 911, 917, 923, 932, 933, 936, 947, 979, 1008, 1400, 1407, 1438, 1722, 1745, 1795))
_OURS |= {2290, 2291, 2292, 3001, 12899, 24816, 32795}


def is_ours(error: DBAPIError) -> bool:
    """Whether the statement is at fault and not the server or its user's rights."""
    return code_of(error) in _OURS


_SPACE = "let a DBA run `ALTER USER <user> QUOTA UNLIMITED ON <tablespace>`, or make the tablespace larger"
_UNLOCK = (
    "see who by `SELECT sid, module, client_info FROM v$session WHERE sid IN (SELECT blocking_session FROM v$session)`,"
    " and run the same command again"
)
_FAULTS = {
    54: ("another process keeps it locked", _UNLOCK),
    60: ("two transactions wait for each other", "run the same command again"),
    942: ("a table is missing there, or this user may not see it", "let its owner run `GRANT SELECT, INSERT, UPDATE, "
          "DELETE ON <table> TO <user>`, or make the tables by `forcelift audit ddl --apply`"),
    1017: ("the user or the password is wrong", "check `audit.user` and `audit.password`"),
    1031: ("this user lacks the right", "let a DBA run `GRANT CREATE TABLE, CREATE SEQUENCE TO <user>`, and the "
           "tables' owner `GRANT SELECT, INSERT, UPDATE, DELETE ON <table> TO <user>`"),
    1045: ("this user may not connect", "let a DBA run `GRANT CREATE SESSION TO <user>`"),
    1536: ("its user's quota is used up", _SPACE),
    1653: ("its tablespace is full", _SPACE),
    1654: ("its tablespace is full", _SPACE),
    1658: ("its tablespace is full", _SPACE),
    1691: ("its tablespace is full", _SPACE),
    1950: ("its user has no quota on the tablespace", _SPACE),
    16000: ("it may only be read", "name the primary database in `audit.url`, not a standby"),
    28000: ("the account is locked", "let a DBA run `ALTER USER <user> ACCOUNT UNLOCK`"),
    28001: ("the password has expired", "set a new one, and give it in `audit.password`"),
    30006: ("another process keeps it locked", _UNLOCK),
}  # fmt: skip
# Codes by which a server or listener says that the session is over, or that none can be had now.
_WAY = frozenset((0, 18, 20, 28, 1012, 1033, 1034, 1089, 1090, 1092, 2391, 2396, 2399, 3113, 3114, 3135, 12170))


def server_error(error: DBAPIError, *, where: str, verb: str) -> ForceliftError:
    """What the server, or the way to it, reports, without texts that may hold values."""
    code = code_of(error)
    state = "what was recorded before stands; the last step was not recorded"
    if code in _FAULTS:
        cause, hint = _FAULTS[code]
        message = f"the audit database `{where}` cannot be {verb}: {cause} (ORA-{code:05d})"
        return StorageError(message, state=state, hint=hint)
    if code not in _WAY and not 12500 <= code < 12700:
        return StorageError(
            f"the audit database `{where}` cannot be {verb}: Oracle says ORA-{code:05d}",
            state=state,
            hint="look into the server's alert log, then run the same command again",
        )
    return StorageError(
        f"the audit database `{where}` cannot be reached: {_reason(error)}",
        state="what was recorded before stands; whether the last step was recorded is read again at the next start",
        hint="check `audit.url`, user and password, and that listener and instance run; then repeat the command",
    )


def _reason(error: DBAPIError) -> str:
    first = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return str(getattr(first, "full_code", "") or type(error.orig).__name__)


def another_programs(where: str, taken: set[str]) -> StateConflict:
    """The error for a schema that has tables, and not ours."""
    state = "nothing was changed in it"
    if taken:
        return StateConflict(
            f"`{where}` holds tables of another program under names that Forcelift needs: {', '.join(sorted(taken))}",
            state=state,
            hint="name a user of its own in `audit.url`: `CREATE USER forcelift IDENTIFIED BY ... QUOTA UNLIMITED ON "
            "users`, `GRANT CREATE SESSION, CREATE TABLE, CREATE SEQUENCE TO forcelift`",
        )
    return StateConflict(
        f"`{where}` holds tables of another program and not Forcelift's version mark",
        state=state,
        hint="name a user of its own in `audit.url`, or make Forcelift's tables beside the others by "
        "`forcelift audit ddl --apply`",
    )
