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
from forcelift.twin.rest_unit import Borrowed
from forcelift.twin.schema import Schema
from forcelift.twin.soql import ChildPages, CompiledQuery, compile_query, render_records, total_size

PAGE_ROWS_MAX: Final = 2000
PAGE_ROWS_MIN: Final = 200
CURSORS_PER_USER_MAX: Final = 10
CHILD_CURSORS_PER_USER_MAX: Final = 200
CURSOR_LIFETIME: Final = timedelta(days=2)
AGGREGATE_ROWS_MAX: Final = 2000
# SOAP API guide, "Changing the Batch Size in Queries": with two or more long texts no page has more than 200 records.
WIDE_PAGE_ROWS: Final = 200
LONG_TEXTS_OF_A_WIDE_ROW: Final = 2
LOCATOR_DIGITS_MAX: Final = 12
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

    def read(self, start: int, api_version: str, child_pages: ChildPages) -> list[dict[str, Any]]:
        with self.lock:
            rows = self.connection.execute(
                'SELECT * EXCLUDE ("#") FROM page_source WHERE "#" > ? AND "#" <= ? ORDER BY "#"',
                [start, start + self.page_rows],
            ).fetchall()
            return render_records(self.compiled, rows, api_version, child_pages=child_pages)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ChildCursor:
    """The children of one record, of which there are more than a page."""

    user_id: str
    records: list[dict[str, Any]]
    page_rows: int
    opened_at: datetime

    @property
    def total_size(self) -> int:
        return len(self.records)


class QueryPages:
    """Runs SOQL for REST and keeps the cursors of all users.

    Args:
        connect: Gives a new DuckDB connection of the org.
        rows_max: How many records a query may find before it times out; None for any number.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        connect: Callable[[], duckdb.DuckDBPyConnection | Borrowed],
        now: Callable[[], datetime],
        rows_max: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._schema = schema
        self._rows_max = rows_max
        self._connect = connect
        self._now = now
        self._cursors: OrderedDict[str, _Cursor] = OrderedDict()
        self._children: OrderedDict[str, _ChildCursor] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, soql: str, *, user_id: str, include_deleted: bool = False) -> CompiledQuery:
        """Raises SoqlError."""
        return compile_query(
            soql, self._schema.seen_by(user_id), include_deleted=include_deleted, now=self._now(), user_id=user_id
        )

    def first(self, compiled: CompiledQuery, *, user_id: str, page_rows: int, api_version: str) -> Page:
        """Run a query and return its first page.

        Raises:
            ApiError: An aggregate that fills more than one page, or a query that finds too many records.
        """
        if sum(column.is_long_text for column in compiled.columns) >= LONG_TEXTS_OF_A_WIDE_ROW:
            page_rows = min(page_rows, WIDE_PAGE_ROWS)
        if compiled.is_aggregate:
            page_rows = AGGREGATE_ROWS_MAX
        connection = self._connect()
        kept = False
        try:
            self._require_few(compiled, connection)
            if compiled.is_count:
                return Page(total_size=total_size(compiled, connection), records=[], next_locator=None)
            head = connection.execute(compiled.sql).fetchmany(page_rows + 1)
            if compiled.is_aggregate and len(head) > page_rows:
                message = (
                    "Aggregate query does not support queryMore(), use LIMIT to restrict the results to a single batch"
                )
                raise ApiError(400, "EXCEEDED_ID_LIMIT", message)
            if len(head) <= page_rows:
                child_pages = self._child_pages(user_id, page_rows, api_version)
                records = render_records(compiled, head, api_version, child_pages=child_pages)
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
            cursor: _Cursor | _ChildCursor | None = self._cursors.get(name)
            if cursor is not None:
                self._cursors.move_to_end(name)
            else:
                cursor = self._children.get(name)
        if cursor is None or cursor.user_id != user_id or not offset.isascii() or not offset.isdigit():
            raise ApiError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        if len(offset) > LOCATOR_DIGITS_MAX or int(offset) >= cursor.total_size:
            raise ApiError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        return self._page(name, cursor, int(offset), api_version)

    def close(self) -> None:
        """Drop all cursors."""
        with self._lock:
            self._children.clear()
            for name in list(self._cursors):
                self._drop(name)

    @property
    def open_cursors(self) -> int:
        with self._lock:
            return len(self._cursors)

    def _page(self, name: str, cursor: _Cursor | _ChildCursor, start: int, api_version: str) -> Page:
        try:
            if isinstance(cursor, _ChildCursor):
                records = cursor.records[start : start + cursor.page_rows]
            else:
                child_pages = self._child_pages(cursor.user_id, cursor.page_rows, api_version)
                records = cursor.read(start, api_version, child_pages)
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
        self, compiled: CompiledQuery, connection: duckdb.DuckDBPyConnection | Borrowed, user_id: str, page_rows: int
    ) -> tuple[str, _Cursor]:
        if isinstance(connection, Borrowed):
            message = "The twin cannot page a query in a composite request with allOrNone; use LIMIT for one page"
            raise ApiError(501, "FUNCTIONALITY_NOT_ENABLED", message)
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
        name = _new_locator()
        with self._lock:
            self._drop_old()
            mine = [key for key, other in self._cursors.items() if other.user_id == user_id]
            for key in mine[: max(0, len(mine) - CURSORS_PER_USER_MAX + 1)]:
                self._drop(key)  # the one used longest ago
            self._cursors[name] = cursor
        return name, cursor

    def _require_few(self, compiled: CompiledQuery, connection: duckdb.DuckDBPyConnection | Borrowed) -> None:
        """Answer as an org does after two minutes of search. The groups of an aggregate count by their records."""
        rows_max = self._rows_max()
        if rows_max is None:
            return
        found = connection.execute(
            f"SELECT coalesce(sum(n), 0) FROM (SELECT count(*) AS n {compiled.body_sql})"
        ).fetchone()
        if found is not None and found[0] > rows_max:
            raise ApiError(400, "QUERY_TIMEOUT", "Your query request was running for too long.")

    def _child_pages(self, user_id: str, page_rows: int, api_version: str) -> ChildPages:
        """Cuts the children of a record into pages, and keeps those after the first."""

        def pages(records: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str | None]:
            if len(records) <= page_rows:
                return records, None
            name = _new_locator()
            with self._lock:
                mine = [key for key, other in self._children.items() if other.user_id == user_id]
                for key in mine[: max(0, len(mine) - CHILD_CURSORS_PER_USER_MAX + 1)]:
                    del self._children[key]
                self._children[name] = _ChildCursor(
                    user_id=user_id, records=records, page_rows=page_rows, opened_at=self._now()
                )
            return records[:page_rows], f"/services/data/v{api_version}/query/{name}-{page_rows}"

        return pages

    def _drop_old(self) -> None:
        limit = self._now() - CURSOR_LIFETIME
        for name in [key for key, child in self._children.items() if child.opened_at <= limit]:
            del self._children[name]
        for name in [key for key, cursor in self._cursors.items() if cursor.opened_at <= limit]:
            self._drop(name)

    def _drop(self, name: str) -> None:
        cursor = self._cursors.pop(name)
        with cursor.lock:
            cursor.connection.close()


def _new_locator() -> str:
    return id18("01g" + "".join(secrets.choice(_ALPHABET) for _ in range(12)))


def page_rows_from(header: str | None) -> int:
    """Rows a page from `Sforce-Query-Options: batchSize=N`, a hint: what cannot be read is left out of account."""
    for item in (header or "").split(","):
        name, _, value = item.partition("=")
        if name.strip().lower() == "batchsize" and value.strip().isascii() and value.strip().isdigit():
            digits = value.strip()
            return min(max(int(digits), PAGE_ROWS_MIN), PAGE_ROWS_MAX) if len(digits) < 10 else PAGE_ROWS_MAX
    return PAGE_ROWS_MAX


def soql_text(value: str) -> str:
    """A text literal of SOQL."""
    escaped = (
        value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )
    return f"'{escaped}'"
