"""The audit database on PostgreSQL: its connection, whose turn it is to write, bulk writes, and its errors in words.

Writers of all processes take turns by the lock of one row, held to the end of a transaction. So budgets cannot be
overdrawn, and the journal grows by one row after the other, as on SQLite, where `BEGIN IMMEDIATE` does the same.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import unquote

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError

from forcelift.audit import tables
from forcelift.audit.dialects import native_dates
from forcelift.errors import ForceliftError, StateConflict, StorageError

_CONNECTIONS_MAX = 32
_DEFAULTS = {"connect_timeout": "10", "keepalives_idle": "60", "application_name": "forcelift"}

# A process that hangs in the middle of a transaction must not stop all others for good: the server ends its session,
# and who waits for its turn says after a while why nothing happens.
_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "statement_timeout": "0",
    "lock_timeout": "120s",
}
# A transaction takes milliseconds; this much may pass between two of its statements on a busy machine.
_IDLE_MIN_S = 5.0
# Any number of our own: two processes that find an empty database make its tables one after the other.
_CREATION_LOCK = 0x666F7263656C6966


def postgresql_engine(url: URL, *, stale_after_s: float) -> sa.Engine:
    """The engine of a database. What its URL leaves out, libpq takes from its environment.

    Args:
        stale_after_s: When a silent process counts as dead. One that stands still in the middle of a transaction must
            not keep the others from writing for longer than that: the server ends its session after half the time.
    """
    settings = _SETTINGS | {"idle_in_transaction_session_timeout": f"{max(_IDLE_MIN_S, stale_after_s / 2):.0f}s"}
    query = {**_DEFAULTS, **url.query, "client_encoding": "utf8"}
    # A socket's folder may stand in the host's place, percent-encoded, as libpq has it.
    host = unquote(url.host) if url.host else None
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg", host=host, query=query),
        isolation_level="READ COMMITTED",
        max_overflow=_CONNECTIONS_MAX,
        # A server that was restarted in the meantime is noticed before a transaction begins.
        pool_pre_ping=True,
        # Keys and messages of rows must not get into error texts.
        hide_parameters=True,
    )

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: Any, record: object) -> None:
        with connection.cursor() as cursor:
            for name, value in settings.items():
                cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
            # What was recorded survives a crash of the server. Stronger settings, of replicated servers, stay.
            cursor.execute(
                "SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') = 'off'"
            )
        connection.commit()

    native_dates(engine)
    return engine


def shown_url(url: URL) -> str:
    """The URL for messages: without password and query parts, which may hold secrets too."""
    return url.set(password=None, query={}).render_as_string()


def take_turn(connection: Connection, *, has_tables: bool) -> None:
    """Wait until no other transaction writes. In a database without our tables, until none makes them."""
    mark = tables.schema_version
    if has_tables:
        connection.execute(sa.select(mark.c.version).where(mark.c.product == tables.PRODUCT).with_for_update())
    else:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))


def server_time(connection: Connection) -> datetime:
    """The server's clock at this moment, which goes on within a transaction."""
    now = cast(datetime, connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one())
    return now.astimezone(UTC)


_FAULTS = {
    "53100": ("its disk is full", "free space there and run the same command again"),
    "53300": ("it takes no more connections", "end other sessions, or raise its `max_connections`"),
    "42501": ("this user lacks the right", "let a DBA grant CONNECT and, on the schema, USAGE and CREATE"),
    "25006": ("it may only be read", "name a server that is no standby in `audit.url`"),
    "55P03": ("another process keeps it locked", "see which by `pg_stat_activity`, and run the same command again"),
    "25P03": ("this process held a transaction open for too long", "run the same command again"),
    "22021": ("a text holds a byte that it cannot store", "report this: it should have been replaced"),
}


def server_error(error: DBAPIError, *, where: str, verb: str) -> ForceliftError:
    """What the server, or the way to it, reports, without texts that may hold values."""
    code = getattr(error.orig, "sqlstate", None) or ""
    state = "what was recorded before stands; the last step was not recorded"
    if code in _FAULTS:
        cause, hint = _FAULTS[code]
        return StorageError(f"the audit database `{where}` cannot be {verb}: {cause} ({code})", state=state, hint=hint)
    if code and not code.startswith(("08", "57P")):
        return StorageError(
            f"the audit database `{where}` cannot be {verb}: PostgreSQL says {code}",
            state=state,
            hint="look into the server's log, then run the same command again",
        )
    return StorageError(
        f"the audit database `{where}` cannot be reached: {_reason(error)}",
        state="what was recorded before stands; whether the last step was recorded is read again at the next start",
        hint="check `audit.url`, user and password, and that the server runs; then run the same command again",
    )


def _reason(error: DBAPIError) -> str:
    # The reason stands last, behind names of hosts. With a connection that broke there may be several lines.
    reason = str(error.orig)
    for mark in (" failed: ", "FATAL:"):
        reason = reason.rpartition(mark)[2] if mark in reason else reason
    return reason.strip().partition("\n")[0].strip() or type(error.orig).__name__


def another_programs(where: str) -> StateConflict:
    """The error for a database that has tables, and not ours."""
    return StateConflict(
        f"`{where}` holds tables of another program and not Forcelift's version mark",
        state="nothing was changed in it",
        hint="name a database of its own in `audit.url`, or a schema: "
        "`postgresql://host/db?options=-csearch_path%3Dforcelift`",
    )
