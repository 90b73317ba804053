"""Changes of several REST calls that stand or fall together: composite and collections with `allOrNone`, and trees."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb

from forcelift.twin.errors import ApiError
from forcelift.twin.store import Store

ROLLED_BACK_TEXT = "The transaction was rolled back since another operation in the same transaction failed."


class RollBack(Exception):
    """Ends a unit without keeping any of its changes; `answer` is what the call that failed would have answered."""

    def __init__(self, answer: Any = None) -> None:
        super().__init__()
        self.answer = answer


class Borrowed:
    """The transaction's own connection, lent to a reader: it sees what was changed, and cannot be closed or kept."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor

    def execute(self, query: str, *values: Any) -> duckdb.DuckDBPyConnection:
        return self._cursor.execute(query, *values)

    def close(self) -> None:
        """Nothing: the transaction goes on."""


class WorkUnits:
    """Gives writers and readers of one thread the same transaction while a unit is open in it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._local = threading.local()

    @property
    def is_open(self) -> bool:
        """True inside `all_or_none`, in this thread."""
        return self._cursor is not None

    @property
    def _cursor(self) -> duckdb.DuckDBPyConnection | None:
        cursor: duckdb.DuckDBPyConnection | None = getattr(self._local, "cursor", None)
        return cursor

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Keep all changes that this thread makes inside, or, when an exception ends it, none. Units do not nest."""
        with self._store.write() as cursor:
            self._local.cursor = cursor
            try:
                yield
            finally:
                self._local.cursor = None

    @contextmanager
    def write(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The open unit's transaction, or one of its own."""
        cursor = self._cursor
        if cursor is not None:
            yield cursor
            return
        with self._store.write() as own:
            yield own

    def connect(self) -> duckdb.DuckDBPyConnection | Borrowed:
        """A connection for a reader, who closes it."""
        cursor = self._cursor
        return self._store.cursor() if cursor is None else Borrowed(cursor)


def rolled_back_error() -> ApiError:
    """What the other calls of a unit answer when one of them has failed."""
    return ApiError(400, "PROCESSING_HALTED", ROLLED_BACK_TEXT)
