"""SQL over Arrow batches: `where` and `order_by` of sources that have no engine of their own, run by DuckDB."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from forcelift.embedded import connect
from forcelift.errors import ForceliftError
from forcelift.source.duckdb_session import allow_sort, configure, duckdb_errors, new_cursor
from forcelift.source.names import quote


class Engine:
    """One DuckDB in memory, started when it is first needed, with a cursor for each query.

    Args:
        memory_mb: Its memory limit; DuckDB's own default if None.
        threads: Its threads; as many as the machine has cores if None.
    """

    def __init__(self, *, memory_mb: int | None, threads: int | None = None) -> None:
        self._memory_mb, self._threads = memory_mb, threads
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._lock = threading.Lock()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own for one query."""
        with self._lock:
            if self._connection is None:
                self._connection = connect()
                configure(self._connection, memory_mb=self._memory_mb, threads=self._threads)
                allow_sort(self._connection, memory_mb=self._memory_mb)  # nothing is cached here; what needs it, sorts
            return new_cursor(self._connection)

    def select(
        self, batches: Iterator[pa.RecordBatch], *, table: str, schema: pa.Schema, query: str, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Run a query over the batches, streaming in and out.

        Args:
            batches: The rows, in `schema`; read once.
            table: The name by which `query` calls them.
        """
        failure: list[ForceliftError] = []

        def watched() -> Iterator[pa.RecordBatch]:
            # DuckDB makes one of its own errors of what goes wrong in here; the first cause must not be lost.
            try:
                yield from batches
            except ForceliftError as error:
                failure.append(error)
                raise

        with _first_cause(failure), duckdb_errors(f"table `{table}`"), self.cursor() as cursor:
            cursor.register(table, pa.RecordBatchReader.from_batches(schema, watched()))
            for batch in cursor.sql(query).to_arrow_reader(batch_rows):
                if batch.num_rows:
                    yield batch

    def close(self) -> None:
        """Stop DuckDB; a later query starts it anew."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


@contextmanager
def _first_cause(failure: list[ForceliftError]) -> Iterator[None]:
    try:
        yield
    except ForceliftError:
        if failure:
            raise failure[0] from None
        raise


def where_tail(where: str | None, order_by: Sequence[str] = ()) -> str:
    """WHERE and ORDER BY as SQL."""
    order = ", ".join(f"{quote(name)} ASC NULLS LAST" for name in order_by)
    return f"WHERE ({where or 'true'}\n)" + (f" ORDER BY {order}" if order else "")
