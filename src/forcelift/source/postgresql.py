"""PostgreSQL as a source, read through its ADBC driver.

Reads:   one database, in read-only transactions that all see the snapshot taken when the source was opened.
Writes:  nothing.
Re-run:  a chunk is a range of the primary key, of a view's key, or of blocks, and is found again by a later run. That
         run has a snapshot of its own; rows written in between are in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from forcelift.protocols.source import ChunkPredicate, Predicate, SharedSnapshot, SourceTable, TableFigures
from forcelift.source.broken_text import as_utf8
from forcelift.source.figures import figures_of
from forcelift.source.names import quote
from forcelift.source.postgresql_address import address_column, among_condition
from forcelift.source.postgresql_catalog import Shape, describe_shape, find_relation, parts, planned_rows, relations
from forcelift.source.postgresql_figures import POSTGRESQL_FIGURES, postgresql_figure
from forcelift.source.postgresql_session import (
    Address,
    Connection,
    Sessions,
    batches,
    fetch,
    postgres_errors,
)
from forcelift.source.postgresql_slices import count_rows, plan_slices, slice_tail
from forcelift.source.postgresql_types import PostgresColumn, decoded
from forcelift.source.types import schema_of

# A sample is widened until it has the rows that were asked for, or would look at more rows than this.
_SAMPLE_ROWS_MAX = 2_000_000


class PostgresqlSource:
    """A PostgreSQL database.

    Args:
        url: `postgresql://host/db`, with libpq's parameters as query parts.
        user: The user; else the URL's, else libpq's environment.
        password: As `user`.
        encoding: Other than UTF-8: text is delivered as the bytes that the database stores, for the rules to decode.
        byte_tables: Tables whose text is delivered so in any case.
        offered: States of this database that other processes read and offer; the first that still stands is read.
    """

    kind = "postgresql"

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        password: str | None = None,
        encoding: str = "utf-8",
        byte_tables: Collection[str] = (),
        offered: Sequence[SharedSnapshot] = (),
    ) -> None:
        address = Address(url, user=user, password=password)
        self._place, self._user = address.shown, address.user
        self._raw_text = encoding.lower().replace("_", "-") not in ("utf-8", "utf8", "ascii", "us-ascii")
        self._byte_tables = frozenset(byte_tables)
        self._sessions = Sessions(address, offered)
        # Such a database stores any bytes as text, and hands them on unseen.
        self._check_text = self._sessions.server_encoding == "SQL_ASCII" and not self._raw_text

    def tables(self) -> list[str]:
        """Names of the tables and views that this user may read, sorted; outside the search path `schema.table`."""
        with self._sessions.session() as connection, postgres_errors(self._place):
            return sorted(name for name, (_, readable) in relations(connection).items() if readable)

    def describe(self, table: str) -> SourceTable:
        """Columns, keys and size; rows as the planner expects them, None for views and foreign tables."""
        with self._sessions.session() as connection:
            return self._shape(connection, table).table

    def now(self) -> datetime:
        """The server's clock."""
        with self._sessions.session() as connection, postgres_errors(self._place):
            ((now,),) = fetch(connection, "SELECT clock_timestamp()")
        moment: datetime = now
        return moment.astimezone(UTC)

    def fingerprint(self, table: str) -> str:
        """The table's files and counts of rows ever written, as the server's statistics have them; empty for views."""
        with self._sessions.session() as connection, postgres_errors(table):
            relation = find_relation(connection, table, place=self._place, user=self._user)
            if not relation.is_table:
                return ""
            states = [part.state for part in parts(connection, relation)]
        return "postgresql:" + "/".join(str(sum(values)) for values in zip(*states, strict=True))

    def snapshot(self) -> str | None:
        """The one state that all reads see, by the name under which its first reader exported it."""
        return self._sessions.state

    def exported(self) -> str:
        """The name under which other processes may import that state from this one."""
        return self._sessions.snapshot

    def plan_chunks(
        self, table: str, *, where: str | None, key: Sequence[str], rows_per_chunk: int
    ) -> list[ChunkPredicate]:
        """Cut by the primary key, else by blocks; a view by `key`."""
        with self._sessions.session() as connection:
            shape = self._shape(connection, table)
            with postgres_errors(table):
                return plan_slices(connection, shape, where=where, key=key, rows=rows_per_chunk)

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
        with self._sessions.session() as connection:
            shape = self._shape(connection, table)
            with postgres_errors(table):
                picked = among_condition(shape, key, among)
                return count_rows(connection, slice_tail(shape, where=where, predicate=predicate, picked=picked))

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
        """Stream a slice by `COPY`. A `numeric` with a size that is not a number arrives as `BROKEN_NUMBER`."""
        with self._sessions.session() as connection:
            shape = self._shape(connection, table)
        picked = shape.pick(columns)
        shape.pick(order_by)
        tail = slice_tail(shape, where=where, predicate=predicate, picked=among_condition(shape, key, among))
        if order_by:
            # A bare name could also mean a column of the result, such as `int8` for a cast.
            places = [f"{quote(shape.relation.name)}.{quote(name)}" for name in order_by]
            tail += " ORDER BY " + ", ".join(f"{place} ASC NULLS LAST" for place in places)
        return self._stream(table, picked, tail=tail, batch_rows=batch_rows)

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
        """An address is the primary key's values, or those of `key` where there is none."""
        with self._sessions.session() as connection:
            shape = self._shape(connection, table)
        picked = [*shape.pick(columns), address_column(shape, key)]
        tail = slice_tail(shape, where=where, predicate=predicate)
        return self._stream(table, picked, tail=tail, batch_rows=batch_rows)

    def sample(self, table: str, *, columns: Sequence[str], where: str | None, rows: int) -> pa.Table:
        """Rows of randomly chosen blocks; of a view, rows chosen at random while it is evaluated."""
        with self._sessions.session() as connection:
            shape = self._shape(connection, table)
            picked = shape.pick(columns)
            with postgres_errors(table):
                tail = _sample_tail(connection, shape, where=where, rows=rows)
        schema = schema_of([one.column for one in picked])
        return pa.Table.from_batches(list(self._stream(table, picked, tail=tail, batch_rows=max(rows, 1))), schema)

    def ask(self, sql: str, *, rows_max: int) -> list[tuple[Any, ...]]:
        """The rows of a query of the plan, at most so many, in the one read-only state that all reads see."""
        with self._sessions.session() as connection, postgres_errors("a query of the plan's `checks`"):
            return fetch(connection, f"SELECT * FROM ({sql.strip().rstrip(';')}) AS asked LIMIT {rows_max}")

    def figures(
        self,
        table: str,
        *,
        columns: Sequence[str],
        exact: Collection[str],
        where: str | None,
        slices: Sequence[Predicate] | None = None,
    ) -> TableFigures:
        """Counted by the server, different values exactly."""
        with self._sessions.session() as connection:
            shape = self._shape(connection, table)
            found = [postgresql_figure(one, is_text_sound=not self._check_text) for one in shape.pick(columns)]
            with postgres_errors(table):
                return figures_of(
                    shape.table,
                    [one for one in found if one is not None],
                    dialect=POSTGRESQL_FIGURES,
                    exact=exact,
                    tails=[
                        slice_tail(shape, where=where, predicate=one)
                        for one in (slices if slices is not None else [None])
                    ],
                    ask=lambda query: fetch(connection, query),
                )

    def close(self) -> None:
        """End the sessions; the snapshot ends with them."""
        self._sessions.close()

    def _shape(self, connection: Connection, table: str) -> Shape:
        with postgres_errors(table):
            relation = find_relation(connection, table, place=self._place, user=self._user)
            raw_text = self._raw_text or table in self._byte_tables
            return describe_shape(connection, relation, table=table, raw_text=raw_text)

    def _stream(
        self, table: str, columns: Sequence[PostgresColumn], *, tail: str, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        # A query needs a column even where none is wanted.
        expressions = ", ".join(one.expression for one in columns) or "true"
        schema = schema_of([one.column for one in columns])
        with self._sessions.session() as connection, postgres_errors(table):
            for batch in batches(connection, f"SELECT {expressions} {tail}"):
                built = self._built(columns, batch, schema)
                for start in range(0, built.num_rows, batch_rows):
                    yield built.slice(start, batch_rows)

    def _built(self, columns: Sequence[PostgresColumn], batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
        arrays = [decoded(array, one) for array, one in zip(batch.columns, columns, strict=False)]
        if self._check_text:
            arrays = [as_utf8(array) if pa.types.is_string(array.type) else array for array in arrays]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _sample_tail(connection: Connection, shape: Shape, *, where: str | None, rows: int) -> str:
    """FROM to LIMIT of a sample: a share of the table's blocks, or of a view's rows, widened until it has enough."""
    stored = shape.relation.is_table
    whole = slice_tail(shape, where=where, predicate=None)
    # The planner's guess may be far off, so what it leaves out is looked for again in ten times as much.
    total = max((shape.table.rows_estimate or 0) if stored else planned_rows(connection, whole), 1)
    share = min(1.0, 3 * rows / total)
    while True:
        tail = slice_tail(shape, where=where, predicate=None, share=share)
        too_wide = stored and 10 * share * total > _SAMPLE_ROWS_MAX
        if share >= 1 or too_wide or count_rows(connection, tail) >= rows:
            break
        share = min(1.0, 10 * share)
    # The blocks come in the table's order, so the first rows would be those of its beginning.
    order = f"md5({quote(shape.relation.name)}.ctid::text)" if stored else "random()"
    return f"{tail} ORDER BY {order} LIMIT {rows}"
