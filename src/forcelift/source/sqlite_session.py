"""A session with SQLite through its ADBC driver: rows, batches, and the driver's errors as ours."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any

import adbc_driver_manager
import adbc_driver_manager.dbapi
import pyarrow as pa

from forcelift.errors import SourceError, SourceUnavailable
from forcelift.source.names import UNTOUCHED

BUSY_TIMEOUT_MS = 10_000

Connection = adbc_driver_manager.dbapi.Connection


def batches(connection: Connection, query: str, *, batch_rows: int) -> Generator[pa.RecordBatch, None, None]:
    with closing(connection.cursor()) as cursor:
        cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(batch_rows)})
        cursor.execute(query)
        with cursor.fetch_record_batch() as reader:
            yield from reader


def fetch(connection: Connection, query: str, *, rows_max: int | None = None) -> list[tuple[Any, ...]]:
    with closing(connection.cursor()) as cursor:
        cursor.execute(query)
        return list(cursor.fetchall() if rows_max is None else cursor.fetchmany(rows_max))


@contextmanager
def errors(table: str | None, *, place: str = "") -> Iterator[None]:
    """Driver errors as ours. What SQLite says names columns and syntax, not values."""
    try:
        yield
    except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
        said = (
            str(error).split("\nquery:")[0].split("Failed to prepare query: ")[-1].split("Failed to step query: ")[-1]
        )
        what = f"table `{table}`" if table else f"`{place}`"
        # The driver hands on no result code, and these are SQLite's fixed words for SQLITE_BUSY and SQLITE_LOCKED.
        if "is locked" in said:
            raise SourceUnavailable(
                f"{what} cannot be read: the database is locked by another program",
                state=UNTOUCHED,
                hint=f"end the other program's transaction; {BUSY_TIMEOUT_MS // 1000} s were waited for it",
            ) from error
        hint = "check `where` and the names in the plan" if table else "check `source.url`"
        raise SourceError(f"{what} cannot be read: {said}", state=UNTOUCHED, hint=hint) from error
