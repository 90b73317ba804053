"""Queries over REST: pages of at most 2000 records, and the cursors that hold what comes after the first page.

A result that needs more than one page is kept in a temporary table of its own connection, so that all its pages show
one moment, can be read again, and take no memory.
"""

from __future__ import annotations

import secrets
import string
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import duckdb

from forcelift.twin.errors import ApiError
from forcelift.twin.ids import id18
from forcelift.twin.schema import Schema
from forcelift.twin.soql import CompiledQuery, compile_query, render_records, total_size

PAGE_ROWS_MAX: Final = 2000
PAGE_ROWS_MIN: Final = 200
CURSORS_PER_USER_MAX: Final = 10
CURSOR_LIFETIME: Final = timedelta(days=2)
_ALPHABET: Final = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a query's result. `next_locator` is None on the last one."""

    total_size: int
    records: list[dict[str, Any]]
    next_locator: str | None

    def as_json(self, *, api_version: str) -> dict[str, Any]:
        answer: dict[str, Any] = {"totalSize": self.total_size, "done": self.next_locator is None}
        if self.next_locator is not None:
            answer["nextRecordsUrl"] = f"/services/data/v{api_version}/query/{self.next_locator}"
        return {**answer, "records": self.records}


@dataclass(slots=True, kw_only=True)
class _Cursor:
    user_id: str
    compiled: CompiledQuery
    connection: duckdb.DuckDBPyConnection
    total_size: int
    page_rows: int
    opened_at: datetime
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, start: int, api_version: str) -> list[dict[str, Any]]:
        with self.lock:
            rows = self.connection.execute(
                'SELECT * EXCLUDE ("#") FROM page_source WHERE "#" > ? AND "#" <= ? ORDER BY "#"',
                [start, start + self.page_rows],
            ).fetchall()
            return render_records(self.compiled, rows, api_version)


class QueryPages:
    """Runs SOQL for REST and keeps the cursors of all users.

    Args:
        connect: Gives a new DuckDB connection of the org.
    """

    def __init__(
        self, schema: Schema, *, connect: Callable[[], duckdb.DuckDBPyConnection], now: Callable[[], datetime]
    ) -> None:
        self._schema = schema
        self._connect = connect
        self._now = now
        self._cursors: OrderedDict[str, _Cursor] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, soql: str, *, user_id: str, include_deleted: bool = False) -> CompiledQuery:
        """Raises SoqlError."""
        return compile_query(
            soql, self._schema.seen_by(user_id), include_deleted=include_deleted, now=self._now(), user_id=user_id
        )

    def first(self, compiled: CompiledQuery, *, user_id: str, page_rows: int, api_version: str) -> Page:
        """Run a query and return its first page."""
        connection = self._connect()
        kept = False
        try:
            if compiled.is_count:
                return Page(total_size=total_size(compiled, connection), records=[], next_locator=None)
            head = connection.execute(compiled.sql).fetchmany(page_rows + 1)
            if len(head) <= page_rows:
                records = render_records(compiled, head, api_version)
                return Page(total_size=len(records), records=records, next_locator=None)
            name, cursor = self._keep(compiled, connection, user_id, page_rows)
            kept = True
            return self._page(name, cursor, 0, api_version)
        finally:
            if not kept:
                connection.close()

    def next(self, locator: str, *, user_id: str, api_version: str) -> Page:
        """The page at a locator (`01g...-2000`). Raises ApiError INVALID_QUERY_LOCATOR."""
        name, _, offset = locator.partition("-")
        with self._lock:
            self._drop_old()
            cursor = self._cursors.get(name)
            if cursor is not None:
                self._cursors.move_to_end(name)
        if cursor is None or cursor.user_id != user_id or not offset.isascii() or not offset.isdigit():
            raise ApiError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        if int(offset) >= cursor.total_size:
            raise ApiError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        return self._page(name, cursor, int(offset), api_version)

    def close(self) -> None:
        """Drop all cursors."""
        with self._lock:
            for name in list(self._cursors):
                self._drop(name)

    @property
    def open_cursors(self) -> int:
        with self._lock:
            return len(self._cursors)

    def _page(self, name: str, cursor: _Cursor, start: int, api_version: str) -> Page:
        try:
            records = cursor.read(start, api_version)
        except duckdb.ConnectionException as error:
            # Dropped between the look-up and the reading: the user opened ten more.
            raise ApiError(400, "INVALID_QUERY_LOCATOR", "invalid query locator") from error
        end = start + len(records)
        return Page(
            total_size=cursor.total_size,
            records=records,
            next_locator=f"{name}-{end}" if end < cursor.total_size else None,
        )

    def _keep(
        self, compiled: CompiledQuery, connection: duckdb.DuckDBPyConnection, user_id: str, page_rows: int
    ) -> tuple[str, _Cursor]:
        connection.execute(
            f'CREATE TEMP TABLE page_source AS SELECT row_number() OVER () AS "#", * FROM ({compiled.sql}) AS result'
        )
        row = connection.execute("SELECT count(*) FROM page_source").fetchone()
        cursor = _Cursor(
            user_id=user_id,
            compiled=compiled,
            connection=connection,
            total_size=int(row[0]) if row else 0,
            page_rows=page_rows,
            opened_at=self._now(),
        )
        name = id18("01g" + "".join(secrets.choice(_ALPHABET) for _ in range(12)))
        with self._lock:
            self._drop_old()
            mine = [key for key, other in self._cursors.items() if other.user_id == user_id]
            for key in mine[: max(0, len(mine) - CURSORS_PER_USER_MAX + 1)]:
                self._drop(key)  # the one used longest ago
            self._cursors[name] = cursor
        return name, cursor

    def _drop_old(self) -> None:
        limit = self._now() - CURSOR_LIFETIME
        for name in [key for key, cursor in self._cursors.items() if cursor.opened_at <= limit]:
            self._drop(name)

    def _drop(self, name: str) -> None:
        cursor = self._cursors.pop(name)
        with cursor.lock:
            cursor.connection.close()


def page_rows_from(header: str | None) -> int:
    """Rows a page from `Sforce-Query-Options: batchSize=N`, a hint: what cannot be read is left out of account."""
    for item in (header or "").split(","):
        name, _, value = item.partition("=")
        if name.strip().lower() == "batchsize" and value.strip().isascii() and value.strip().isdigit():
            return min(max(int(value), PAGE_ROWS_MIN), PAGE_ROWS_MAX)
    return PAGE_ROWS_MAX


def soql_text(value: str) -> str:
    """A text literal of SOQL."""
    escaped = (
        value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )
    return f"'{escaped}'"
