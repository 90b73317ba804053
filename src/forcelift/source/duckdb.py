"""A DuckDB database as a source.

Reads:   one database file, opened read-only; a file that is missing is never created.
Writes:  nothing beside the source; large sorts spill to the machine's folder for temporary files.
Re-run:  a chunk is a range of rowids, or of the key for views; it finds the same rows as long as the file is unchanged.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from forcelift.embedded import connect
from forcelift.errors import SourceError
from forcelift.protocols.source import (
    ADDRESS,
    ChunkPredicate,
    Column,
    ColumnKind,
    Predicate,
    SourceTable,
    TableFigures,
)
from forcelift.source.duckdb_figures import DUCKDB_FIGURES, duckdb_figure
from forcelift.source.duckdb_session import allow_sort, configure, duckdb_errors, new_cursor
from forcelift.source.figures import figures_of
from forcelift.source.misfits import table_of, with_misfits
from forcelift.source.names import UNTOUCHED, pick_columns, quote, quote_text, require_file, unknown_table
from forcelift.source.types import duckdb_column, duckdb_expression, duckdb_misfit, schema_of

# Slices are put together from counted buckets of rowids; so many to a slice keep it near its wished size.
BUCKETS_PER_CHUNK = 8
SAMPLE_PROBES = 50

_AMONG = "forcelift among"

_MAGIC = b"DUCK"
_MAGIC_OFFSET = 8  # after the checksum of the first block, see DuckDB, "Storage Versions and Format"


class DuckdbSource:
    """A DuckDB database file. Tables outside the schema `main` are named `schema.table`.

    Args:
        path: The database file.
        memory_mb: DuckDB's memory limit; its own default (80 % of the machine) if None. Sorting takes more if it must.
        threads: DuckDB's threads; as many as the machine has cores if None.
    """

    kind = "duckdb"

    def __init__(self, path: Path, *, memory_mb: int | None = None, threads: int | None = None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._memory_mb = memory_mb
        require_file(path)
        with duckdb_errors(f"`{path}`"):
            self._connection = _connect(path)
            configure(self._connection, memory_mb=memory_mb, threads=threads)

    def tables(self) -> list[str]:
        """Names of all tables and views, sorted."""
        return sorted(self._places())

    def describe(self, table: str) -> SourceTable:
        """Columns, keys and DuckDB's own estimate of the rows."""
        schema, name = self._place(table)
        here = (
            f"database_name = current_database() AND schema_name = {quote_text(schema)}"
            f" AND table_name = {quote_text(name)}"
        )
        listed = self._rows(
            f"SELECT column_name, data_type, is_nullable FROM duckdb_columns() WHERE {here} ORDER BY column_index"
        )
        keys = self._rows(
            f"SELECT constraint_type, constraint_column_names FROM duckdb_constraints() WHERE {here}"
            " AND constraint_type IN ('PRIMARY KEY', 'UNIQUE') ORDER BY constraint_index"
        )
        estimate = self._rows(f"SELECT estimated_size FROM duckdb_tables() WHERE {here}")
        return SourceTable(
            name=table,
            columns=tuple(duckdb_column(name, declared, nullable=bool(null)) for name, declared, null in listed),
            primary_key=next((tuple(names) for kind, names in keys if kind == "PRIMARY KEY"), ()),
            unique_keys=tuple(tuple(names) for kind, names in keys if kind == "UNIQUE"),
            rows_estimate=int(estimate[0][0]) if estimate else None,
        )

    def now(self) -> datetime:
        """The machine's clock, which is the one an embedded database has."""
        return datetime.now(UTC)

    def fingerprint(self, table: str) -> str:
        """Size and time of change of the database file and of its write-ahead log."""
        log = self.path.with_name(self.path.name + ".wal")
        states = [path.stat() for path in (self.path, log) if path.exists()]
        return "duckdb:" + "/".join(f"{state.st_size}:{state.st_mtime_ns}" for state in states)

    def snapshot(self) -> str | None:
        """None. While the source is open, DuckDB keeps other programs from writing to the file."""
        return None

    def plan_chunks(
        self, table: str, *, where: str | None, key: Sequence[str], rows_per_chunk: int
    ) -> list[ChunkPredicate]:
        """Count buckets of rowids; for a view, number the sorted keys."""
        described = self.describe(table)
        if self._has_rowid(described):
            return self._rowid_chunks(table, where=where, rows=rows_per_chunk)
        pick_columns(described, key)
        return self._key_chunks(described, where=where, key=key, rows=rows_per_chunk)

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
        described = self.describe(table)
        query = f"SELECT count(*) {self._from(table, where, predicate, picked=self._among(described, key, among))}"
        ((counted,),) = self._rows(query, what=f"table `{table}`", among=among)
        return int(counted)

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
        """Stream a slice."""
        described = self.describe(table)
        picked = pick_columns(described, columns)
        pick_columns(described, order_by)
        tail = self._from(table, where, predicate, picked=self._among(described, key, among))
        query = f"SELECT {_selected(picked)} {tail}"
        if order_by:
            with duckdb_errors(f"`{self.path}`"), self._cursor() as cursor:
                allow_sort(cursor, memory_mb=self._memory_mb)
            query += " ORDER BY " + ", ".join(f"{quote(name)} ASC NULLS LAST" for name in order_by)
        return self._stream(table, query, picked, batch_rows=batch_rows, among=among)

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
        """An address is the rowid, else the key's texts in hexadecimal."""
        described = self.describe(table)
        picked = pick_columns(described, columns)
        place = self._address(described, key)
        query = f"SELECT {_selected(picked)}, {place} {self._from(table, where, predicate)}"
        kind = pa.int64() if place == "rowid" else pa.string()
        return self._stream(table, query, picked, batch_rows=batch_rows, last=pa.field(ADDRESS, kind))

    def sample(self, table: str, *, columns: Sequence[str], where: str | None, rows: int) -> pa.Table:
        """Rows from evenly spaced places of a table; a reservoir sample where there is a `where`, and of views."""
        described = self.describe(table)
        picked = pick_columns(described, columns)
        expressions = _selected(picked)
        total = described.rows_estimate or 0
        if where is None and self._has_rowid(described) and total > rows:
            probes = max(1, min(SAMPLE_PROBES, rows))
            most = -(-rows // probes)
            starts = [total * probe // probes for probe in range(probes)]
            pieces = [f"rowid BETWEEN {start} AND {start + most - 1}" for start in starts]
            query = f"SELECT {expressions} {self._from(table, ' OR '.join(pieces), None)} LIMIT {rows}"
        else:
            query = (
                f"SELECT {expressions} FROM (SELECT * {self._from(table, where, None)})"
                f" USING SAMPLE reservoir({rows} ROWS) REPEATABLE (1)"
            )
        return table_of(list(self._stream(table, query, picked, batch_rows=max(rows, 1))), schema_of(picked))

    def ask(self, sql: str, *, rows_max: int) -> list[tuple[Any, ...]]:
        """The rows of a query of the plan, at most so many; the database is open for reading only."""
        with duckdb_errors("a query of the plan's `checks`"), self._cursor() as cursor:
            return cursor.execute(sql).fetchmany(rows_max)

    def figures(
        self,
        table: str,
        *,
        columns: Sequence[str],
        exact: Collection[str],
        where: str | None,
        slices: Sequence[Predicate] | None = None,
    ) -> TableFigures:
        """Counted by DuckDB, different values nearly (HyperLogLog)."""
        described = self.describe(table)
        wanted = [one for one in pick_columns(described, columns) if one.kind is not ColumnKind.UNSUPPORTED]
        tails = [self._from(table, where, one) for one in (slices if slices is not None else [None])]
        return figures_of(
            described,
            [duckdb_figure(column) for column in wanted],
            dialect=DUCKDB_FIGURES,
            exact=exact,
            tails=tails,
            ask=lambda query: self._rows(query, what=f"table `{table}`"),
        )

    def close(self) -> None:
        """Close the database; readers that are still at work fail."""
        self._connection.close()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            return new_cursor(self._connection)

    def _rows(self, query: str, *, what: str | None = None, among: pa.Array | None = None) -> list[tuple[Any, ...]]:
        with duckdb_errors(what or f"`{self.path}`"), self._cursor() as cursor:
            if among is not None:
                cursor.register(_AMONG, pa.table({ADDRESS: among}))
            return cursor.execute(query).fetchall()

    def _places(self) -> dict[str, tuple[str, str]]:
        listed = self._rows(
            "SELECT schema_name, table_name FROM duckdb_tables()"
            " WHERE database_name = current_database() AND NOT internal"
            " UNION ALL SELECT schema_name, view_name FROM duckdb_views()"
            " WHERE database_name = current_database() AND NOT internal"
        )
        return {name if schema == "main" else f"{schema}.{name}": (schema, name) for schema, name in listed}

    def _place(self, table: str) -> tuple[str, str]:
        places = self._places()
        if table not in places:
            raise unknown_table(table, sorted(places), place=f"`{self.path}`")
        return places[table]

    def _has_rowid(self, described: SourceTable) -> bool:
        # Only tables have an estimate. A column that is called rowid hides the real one.
        return described.rows_estimate is not None and all(
            column.name.lower() != "rowid" for column in described.columns
        )

    def _from(self, table: str, where: str | None, predicate: Predicate | None, *, picked: str = "true") -> str:
        schema, name = self._place(table)
        conditions = f"({where or 'true'}\n) AND ({_condition(predicate)}) AND {picked}"
        return f"FROM {quote(schema)}.{quote(name)} WHERE {conditions}"

    def _address(self, described: SourceTable, key: Sequence[str]) -> str:
        if self._has_rowid(described):
            return "rowid"
        # In hexadecimal no collation of a column can make two texts one.
        parts = [f"hex(CAST({quote(column.name)} AS VARCHAR))" for column in pick_columns(described, key)]
        return " || '|' || ".join(parts)

    def _among(self, described: SourceTable, key: Sequence[str], among: pa.Array | None) -> str:
        if among is None:
            return "true"
        return f"{self._address(described, key)} IN (SELECT {quote(ADDRESS)} FROM {quote(_AMONG)})"

    def _stream(
        self,
        table: str,
        query: str,
        columns: Sequence[Column],
        *,
        batch_rows: int,
        among: pa.Array | None = None,
        last: pa.Field | None = None,
    ) -> Iterator[pa.RecordBatch]:
        with duckdb_errors(f"table `{table}`"), self._cursor() as cursor:
            if among is not None:
                cursor.register(_AMONG, pa.table({ADDRESS: among}))
            # `sql(...)` streams, while `execute(...)` would hold the whole result in memory.
            reader = cursor.sql(query).to_arrow_reader(batch_rows)
            # In a loop, its name would hold a batch while the next one is read.
            yield from filter(_has_rows, map(partial(_built, columns=columns, last=last), reader))

    def _count(self, table: str, *, where: str | None, predicate: Predicate | None) -> int:
        query = f"SELECT count(*) {self._from(table, where, predicate)}"
        ((counted,),) = self._rows(query, what=f"table `{table}`")
        return int(counted)

    def _rowid_chunks(self, table: str, *, where: str | None, rows: int) -> list[ChunkPredicate]:
        step = max(1, rows // BUCKETS_PER_CHUNK)
        buckets = self._rows(
            f"SELECT rowid // {step} AS bucket, count(*) {self._from(table, where, None)} GROUP BY 1 ORDER BY 1",
            what=f"table `{table}`",
        )
        edges: list[int] = []
        sizes = [0]
        for bucket, size in buckets:
            if sizes[-1] and sizes[-1] + size > rows:
                edges.append(int(bucket) * step)
                sizes.append(0)
            sizes[-1] += size
        return [
            ChunkPredicate(predicate={"by": "rowid", "from": low, "below": high}, rows_estimate=size)
            for (low, high), size in zip(pairwise([None, *edges, None]), sizes, strict=True)
        ]

    def _key_chunks(
        self, described: SourceTable, *, where: str | None, key: Sequence[str], rows: int
    ) -> list[ChunkPredicate]:
        names = [quote(name) for name in key]
        declared = [column.declared for column in pick_columns(described, key)]
        whole = {"by": "key", "columns": list(key), "types": declared, "after": None, "upto": None}
        nulls = {"by": "null", "columns": list(key)}
        numbered = (
            f'SELECT {", ".join(names)}, row_number() OVER (ORDER BY {", ".join(names)}) AS "forcelift row" '
            f"{self._from(described.name, where, whole)}"
        )
        found = self._rows(
            f"SELECT DISTINCT ON ({', '.join(names)}) {', '.join(f'CAST({name} AS VARCHAR)' for name in names)}"
            f' FROM ({numbered}) WHERE "forcelift row" % {rows} = 0 ORDER BY {", ".join(names)}',
            what=f"table `{described.name}`",
        )
        bounds = [list(row) for row in found]
        total = self._count(described.name, where=where, predicate=whole)
        if bounds and total == len(bounds) * rows:
            bounds.pop()
        chunks = [
            ChunkPredicate(
                predicate={**whole, "after": after, "upto": upto},
                rows_estimate=rows if upto is not None else max(0, total - rows * len(bounds)),
            )
            for after, upto in pairwise([None, *bounds, None])
        ]
        null_rows = self._count(described.name, where=where, predicate=nulls)
        if null_rows:
            chunks = [*(chunks if total else []), ChunkPredicate(predicate=nulls, rows_estimate=null_rows)]
        return chunks


def _selected(columns: Sequence[Column]) -> str:
    """The columns, and behind them the misfits of those that can have any."""
    return ", ".join([*map(duckdb_expression, columns), *filter(None, map(duckdb_misfit, columns))]) or "true"


def _has_rows(batch: pa.RecordBatch) -> bool:
    return bool(batch.num_rows)


def _built(batch: pa.RecordBatch, columns: Sequence[Column], last: pa.Field | None) -> pa.RecordBatch:
    """The batch of a query of `_selected`, and of one more column behind if `last` says so."""
    misfits = iter(batch.columns[len(columns) :])
    arrays = [
        array if array.type == column.arrow else array.cast(column.arrow)
        for array, column in zip(batch, columns, strict=False)
    ]
    arrays = [
        array if duckdb_misfit(column) is None else with_misfits(array, texts=next(misfits).cast(pa.string()))
        for column, array in zip(columns, arrays, strict=True)
    ]
    names = [column.name for column in columns]
    if last is not None:
        arrays, names = [*arrays, next(misfits).cast(last.type)], [*names, last.name]
    return pa.RecordBatch.from_arrays(arrays, names=names)


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    try:
        return connect(path.absolute(), read_only=True)
    except duckdb.Error as error:
        # Looked at only now: closing the file drops the locks that this process may hold on it through DuckDB.
        with path.open("rb") as file:
            is_duckdb = file.read(_MAGIC_OFFSET + len(_MAGIC))[_MAGIC_OFFSET:] == _MAGIC
        if is_duckdb:
            raise
        raise SourceError(f"`{path}` is not a DuckDB database", state=UNTOUCHED, hint="check `source.url`") from error


def _condition(predicate: Predicate | None) -> str:
    if predicate is None:
        return "true"
    try:
        if predicate["by"] == "rowid":
            sides = [(">=", predicate["from"]), ("<", predicate["below"])]
            return " AND ".join(f"rowid {sign} {int(value)}" for sign, value in sides if value is not None) or "true"
        columns = [quote(name) for name in predicate["columns"]]
        if predicate["by"] == "null":
            return " OR ".join(f"{column} IS NULL" for column in columns)
        if predicate["by"] != "key":
            raise ValueError("unknown slice")
        parts = [f"{column} IS NOT NULL" for column in columns]
        for sign, bound in ((">", predicate["after"]), ("<=", predicate["upto"])):
            if bound is not None:
                values = [
                    f"CAST({quote_text(value)} AS {declared})"
                    for value, declared in zip(bound, predicate["types"], strict=True)
                ]
                parts.append(f"({', '.join(columns)}) {sign} ({', '.join(values)})")
        return " AND ".join(parts)
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            "a stored chunk cannot be read as a slice of a DuckDB table",
            state="nothing was read for this chunk",
            hint="the batch was planned on another kind of source, or on an older table: begin a new batch",
        ) from error
