"""SQLite as a source, read through its ADBC driver.

Reads:   one database file, opened read-only; a file that is missing is never created.
Writes:  nothing.
Re-run:  a chunk is a range of rowids, or of the key for views and tables WITHOUT ROWID; it finds the same rows again.

One library must do all reading: POSIX drops a process's locks on a file as soon as anybody in the process closes it, so
this module never opens the source by itself, nor with Python's own `sqlite3`, beside the driver.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote as percent_encode

import adbc_driver_sqlite.dbapi
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from forcelift.errors import SourceChanged
from forcelift.protocols.source import (
    ADDRESS,
    ChunkPredicate,
    Column,
    ColumnKind,
    Predicate,
    SourceTable,
    TableFigures,
)
from forcelift.source.broken_text import as_utf8
from forcelift.source.figures import figures_of
from forcelift.source.misfits import table_of
from forcelift.source.names import pick_columns, quote, quote_text, require_file, unknown_table
from forcelift.source.sqlite_columns import Reading, reading, with_misfit_parts
from forcelift.source.sqlite_figures import SQLITE_FIGURES, sqlite_figure
from forcelift.source.sqlite_queries import (
    Shape,
    among_condition,
    columns_with_misfits,
    count,
    key_chunks,
    rowid_chunks,
    rows_from,
    sample_from,
    span,
    typed_query,
)
from forcelift.source.sqlite_session import BUSY_TIMEOUT_MS, Connection, batches, errors, fetch
from forcelift.source.sqlite_slices import address_of
from forcelift.source.types import schema_of, sqlite_column

_TEXT_AFFINITY = ("CHAR", "CLOB", "TEXT")
_ROWID_NAMES = ("rowid", "_rowid_", "oid")


class SqliteSource:
    """A SQLite database file.

    Args:
        path: The database file.
        encoding: Encoding of its text. Other than UTF-8: text columns are delivered as bytes.
        byte_tables: Tables whose text columns are delivered as bytes in any case.
        text_columns: Per table, columns to deliver as text whatever their declared type.
    """

    kind = "sqlite"

    def __init__(
        self,
        path: Path,
        *,
        encoding: str = "utf-8",
        byte_tables: Collection[str] = (),
        text_columns: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self.path = path
        self._raw_text = encoding.lower().replace("_", "-") not in ("utf-8", "utf8", "ascii", "us-ascii")
        self._byte_tables = frozenset(byte_tables)
        self._text_columns = {table: frozenset(names) for table, names in (text_columns or {}).items()}
        self._mixed: dict[str, frozenset[str]] = {}  # by table, the columns that are known to hold misfits
        self._open: set[Connection] = set()
        self._lock = threading.Lock()
        self.tables()

    def tables(self) -> list[str]:
        """Names of all tables and views, sorted; SQLite's own are left out."""
        with self._connection() as connection:
            return self._tables(connection)

    def describe(self, table: str) -> SourceTable:
        """Columns, keys and a size estimate (the span of the rowids) of a table or view."""
        with self._connection() as connection, errors(table):
            return self._shape(connection, table).table

    def now(self) -> datetime:
        """The machine's clock, which is the one an embedded database has."""
        return datetime.now(UTC)

    def fingerprint(self, table: str) -> str:
        """Size and time of change of the database file and of its write-ahead log, if that holds anything."""
        log = self.path.with_name(self.path.name + "-wal")
        states = [path.stat() for path in (self.path, log) if path.exists()]
        return "sqlite:" + "/".join(f"{state.st_size}:{state.st_mtime_ns}" for state in states if state.st_size)

    def snapshot(self) -> str | None:
        """None: SQLite has no state that several connections can share."""
        return None

    def plan_chunks(
        self, table: str, *, where: str | None, key: Sequence[str], rows_per_chunk: int
    ) -> list[ChunkPredicate]:
        """Walk the rowids once, or the sorted keys of a view or a table WITHOUT ROWID."""
        with self._connection() as connection, errors(table):
            shape = self._shape(connection, table)
            if shape.rowid is not None:
                return rowid_chunks(connection, shape, where=where, rows=rows_per_chunk)
            columns = (shape.table.primary_key if shape.is_table else ()) or tuple(key)
            pick_columns(shape.table, columns)
            return key_chunks(connection, shape, where=where, key=columns, rows=rows_per_chunk)

    def count(
        self,
        table: str,
        *,
        where: str | None,
        predicate: Predicate | None = None,
        key: Sequence[str] = (),
        among: pa.Array | None = None,
    ) -> int:
        """A COUNT(*) over the slice."""
        with self._connection() as connection, errors(table):
            shape = self._shape(connection, table)
            return count(connection, shape, where=where, predicate=predicate, picked=among_condition(shape, key, among))

    def read(
        self,
        table: str,
        *,
        columns: Sequence[str],
        where: str | None,
        predicate: Predicate | None = None,
        order_by: Sequence[str] = (),
        batch_rows: int = 50_000,
        key: Sequence[str] = (),
        among: pa.Array | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Stream a slice. Values that their declared type cannot hold come beside the others, as misfits."""
        with self._connection() as connection, errors(table):
            shape = self._shape(connection, table)
        picked = pick_columns(shape.table, columns)
        pick_columns(shape.table, order_by)
        tail = rows_from(shape, where=where, predicate=predicate, picked=among_condition(shape, key, among))
        if order_by:
            tail += " ORDER BY " + ", ".join(f"{quote(name)} ASC NULLS LAST" for name in order_by)
        return self._stream(shape, picked, tail=tail, batch_rows=batch_rows)

    def locate(
        self,
        table: str,
        *,
        columns: Sequence[str],
        where: str | None,
        predicate: Predicate,
        key: Sequence[str],
        batch_rows: int = 50_000,
    ) -> Iterator[pa.RecordBatch]:
        """An address is the rowid, else the key's storage classes and bytes."""
        with self._connection() as connection, errors(table):
            shape = self._shape(connection, table)
        picked = pick_columns(shape.table, columns)
        tail = rows_from(shape, where=where, predicate=predicate)
        if shape.rowid is not None:
            place = Column(name=shape.rowid, kind=ColumnKind.INTEGER, declared="INTEGER", arrow=pa.int64())
        else:
            pick_columns(shape.table, key)
            tail = f"FROM (SELECT *, {address_of(key)} AS {quote(ADDRESS)} {tail})"
            place = Column(name=ADDRESS, kind=ColumnKind.TEXT, declared="TEXT", arrow=pa.string())
        names = [*(column.name for column in picked), ADDRESS]
        for batch in self._stream(shape, [*picked, place], tail=tail, batch_rows=batch_rows):
            yield batch.rename_columns(names)

    def sample(self, table: str, *, columns: Sequence[str], where: str | None, rows: int) -> pa.Table:
        """Rows from evenly spaced places: by rowid where there is one, else every n-th row of the view."""
        with self._connection() as connection, errors(table):
            shape = self._shape(connection, table)
            picked = pick_columns(shape.table, columns)
            tail = sample_from(connection, shape, where=where, rows=rows)
        shape = replace(shape, rowid=None)  # the sample's own query has none
        return table_of(list(self._stream(shape, picked, tail=tail, batch_rows=max(rows, 1))), schema_of(picked))

    def ask(self, sql: str, *, rows_max: int) -> list[tuple[Any, ...]]:
        """The rows of a query of the plan, at most so many; the database is open for reading only."""
        with self._connection() as connection, errors(None, place=str(self.path)):
            return fetch(connection, sql, rows_max=rows_max)

    def figures(
        self,
        table: str,
        *,
        columns: Sequence[str],
        exact: Collection[str],
        where: str | None,
        slices: Sequence[Predicate] | None = None,
    ) -> TableFigures:
        """Counted by SQLite, different values exactly."""
        with self._connection() as connection, errors(table):
            shape = self._shape(connection, table)
            picked = pick_columns(shape.table, columns)
            tails = [rows_from(shape, where=where, predicate=one) for one in (slices if slices is not None else [None])]
            found = [sqlite_figure(column) for column in picked]
            return figures_of(
                shape.table,
                [one for one in found if one is not None],
                dialect=SQLITE_FIGURES,
                exact=exact,
                tails=tails,
                ask=lambda query: fetch(connection, query),
            )

    def close(self) -> None:
        """Close connections that are still open; call it when nobody reads any more."""
        with self._lock:
            left, self._open = self._open, set()
        for connection in left:
            connection.close()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        require_file(self.path)
        uri = f"file:{percent_encode(str(self.path.absolute()))}?mode=ro"
        with errors(None, place=str(self.path)):
            connection = adbc_driver_sqlite.dbapi.connect(uri)
        with self._lock:
            self._open.add(connection)
        try:
            with errors(None, place=str(self.path)):
                fetch(connection, f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            yield connection
        finally:
            with self._lock:
                ours = connection in self._open
                self._open.discard(connection)
            if ours:
                connection.close()

    def _tables(self, connection: Connection) -> list[str]:
        with errors(None, place=str(self.path)):
            return sorted(
                name
                for (name,) in fetch(
                    connection,
                    "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'view', 'virtual')"
                    " AND name NOT LIKE 'sqlite^_%' ESCAPE '^'",
                )
            )

    def _shape(self, connection: Connection, table: str) -> Shape:
        known = self._tables(connection)
        if table not in known:
            raise unknown_table(table, known, place=f"`{self.path}`")
        literal = quote_text(table)
        (kind, without_rowid), *_ = fetch(
            connection, f"SELECT type, wr FROM pragma_table_list WHERE schema = 'main' AND name = {literal}"
        )
        listed = fetch(
            connection,
            f'SELECT name, type, "notnull", pk FROM pragma_table_xinfo({literal}) '
            "WHERE hidden IN (0, 2, 3) ORDER BY cid",
        )
        as_text = self._text_columns.get(table, frozenset())
        raw_text = self._raw_text or table in self._byte_tables
        columns = tuple(
            sqlite_column(name, declared, nullable=not not_null, raw_text=raw_text, as_text=name in as_text)
            for name, declared, not_null, _ in listed
        )
        names = {column.name.lower() for column in columns}
        free = next((name for name in _ROWID_NAMES if name not in names), None)
        rowid = free if kind == "table" and not without_rowid else None
        described = SourceTable(
            name=table,
            columns=columns,
            primary_key=tuple(name for pk, name in sorted((pk, name) for name, _, _, pk in listed if pk)),
            unique_keys=_unique_keys(connection, literal),
            rows_estimate=min(span(connection, table, rowid), self._rows_bound(len(columns))) if rowid else None,
        )
        affinity = frozenset(
            name
            for name, declared, _, _ in listed
            if any(word in declared.upper() for word in _TEXT_AFFINITY) and "INT" not in declared.upper()
        )
        return Shape(table=described, rowid=rowid, text_affinity=affinity, raw_text=raw_text, is_table=kind == "table")

    def _rows_bound(self, columns: int) -> int:
        # A row takes two bytes in its page's index, one or more each for its length and rowid, and a header with a byte
        # for each column (SQLite, "Database File Format", 1.6 and 2.1). Rowids may have gaps as wide as their range.
        return self.path.stat().st_size // (5 + columns)

    def _stream(
        self, shape: Shape, columns: Sequence[Column], *, tail: str, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        table = shape.table.name
        strict = [reading(column, text_affinity=column.name in shape.text_affinity) for column in columns]
        delivered = 0
        with self._connection() as connection, errors(table):
            while True:
                mixed = self._mixed.get(table, frozenset())
                readings = [
                    with_misfit_parts(column, how, raw_text=shape.raw_text) if column.name in mixed else how
                    for column, how in zip(columns, strict, strict=True)
                ]
                query = typed_query(columns, readings, tail, skip=delivered)
                for rows in _without_first(connection, query, batch_rows=batch_rows):
                    built = _assembled(columns, readings, rows)
                    if built is None:
                        break
                    yield built
                    delivered += built.num_rows
                else:
                    return
                # Same rows in the same order: the driver keeps a connection's queries in one transaction, and SQLite
                # walks a query by its conditions and by the columns it touches, which stay what they were.
                found = columns_with_misfits(connection, columns, strict, tail)
                if found <= mixed:
                    raise SourceChanged(
                        f"table `{table}` changed while it was being read",
                        state="the chunk was not read",
                        hint="run again",
                    )
                with self._lock:
                    self._mixed[table] = self._mixed.get(table, frozenset()) | found


def _without_first(connection: Connection, query: str, *, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of a typed query without the row that only fixes the types."""
    with closing(batches(connection, query, batch_rows=batch_rows)) as reader:
        first = True
        for batch in reader:
            rows = batch.slice(1) if first else batch
            first = False
            if rows.num_rows:
                yield rows


def _assembled(columns: Sequence[Column], readings: Sequence[Reading], batch: pa.RecordBatch) -> pa.RecordBatch | None:
    """The batch in its columns' types; None if it holds a misfit that the readings do not show."""
    parts = batch.columns
    shown = sum(len(part) - part.null_count for part in parts[:-1])
    if shown != (pc.sum(parts[-1]).as_py() or 0):
        return None
    arrays: list[pa.Array] = []
    position = 0
    for how in readings:
        width = len(how.parts)
        taken = parts[position : position + width]
        position += width
        arrays.append(how.build([as_utf8(part) if pa.types.is_string(part.type) else part for part in taken]))
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


def _unique_keys(connection: Connection, literal: str) -> tuple[tuple[str, ...], ...]:
    listed = fetch(
        connection,
        "SELECT i.name, c.seqno, c.name FROM"
        f" (SELECT name FROM pragma_index_list({literal})"
        " WHERE \"unique\" = 1 AND partial = 0 AND origin <> 'pk') AS i,"
        " pragma_index_info(i.name) AS c ORDER BY i.name, c.seqno",
    )
    keys: dict[str, list[str | None]] = {}
    for index, _, column in listed:
        keys.setdefault(index, []).append(column)
    # A part without a name is an expression; such an index says nothing about columns.
    return tuple(tuple(name for name in names if name) for names in keys.values() if None not in names)
