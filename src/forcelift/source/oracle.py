"""Oracle as a source, read through python-oracledb in its thin mode.

Reads:   one database, every query as of the SCN taken when the source was opened (`?snapshot=none`: as of its own).
Writes:  nothing; DBMS_PARALLEL_EXECUTE, where it cuts a table, keeps a task in the user's schema meanwhile.
Re-run:  a chunk is a range of ROWIDs, or of the key where the user may not see the table's extents, and is found again
         by a later run. That run has an SCN of its own; rows written in between are in it.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

import oracledb
import pyarrow as pa

from forcelift.errors import SourceError
from forcelift.protocols.source import (
    ADDRESS,
    ChunkPredicate,
    Column,
    ColumnKind,
    Predicate,
    SharedSnapshot,
    SourceTable,
    TableFigures,
)
from forcelift.source.figures import figures_of
from forcelift.source.names import UNTOUCHED, quote
from forcelift.source.oracle_address import Address
from forcelift.source.oracle_advice import slow_statement
from forcelift.source.oracle_bytes import cut_lob, joined
from forcelift.source.oracle_catalog import Shape, describe_shape, extents, find_relation, relations, undo_seconds
from forcelift.source.oracle_columns import OracleColumn
from forcelift.source.oracle_cuts import cut_again, cut_by_extents, cut_by_key, cut_by_package
from forcelift.source.oracle_errors import CallTimeout, oracle_errors
from forcelift.source.oracle_figures import oracle_dialect, oracle_figure
from forcelift.source.oracle_moments import is_moment, put_back, texts_before, within_years
from forcelift.source.oracle_session import (
    SESSIONS_MAX,
    Sessions,
    StatementTooLong,
    batches,
    current_scn,
    fetch,
    fetch_exact,
    fetch_readable,
)
from forcelift.source.oracle_slices import count_rows, slice_tail
from forcelift.source.oracle_types import decoded
from forcelift.source.types import schema_of

# What the driver fetches in one reply: enough rows to hide the way there and back, in bounded memory.
_REPLY_BYTES, _REPLY_ROWS_MAX = 16_000_000, 50_000
_BLOCKS_FROM = 1_000_000  # rows from which a sample is of whole blocks
_LISTED_MAX = 1000  # ORA-01795: no list has more


def open_oracle(
    url: str,
    *,
    user: str | None,
    password: str | None,
    encoding: str = "utf-8",
    byte_tables: Collection[str] = (),
    offered: Sequence[SharedSnapshot] = (),
    sessions: int | None = None,
) -> OracleSource:
    """Open a database.

    Args:
        url: As `Address` has it.
        user: The user; else the URL's.
        password: As `user`.
        encoding: As `OracleSource` has it, like the rest.
        byte_tables: As above.
        offered: As above.
        sessions: As above.
    """
    address = Address(url, user=user, password=password)
    kind = SharingOracleSource if address.uses_snapshot else OracleSource
    return kind(address, encoding=encoding, byte_tables=byte_tables, offered=offered, sessions=sessions or SESSIONS_MAX)


_ADDRESS_COLUMN = OracleColumn(
    column=Column(name=ADDRESS, kind=ColumnKind.TEXT, declared="address", arrow=pa.string()),
    expression="ROWIDTOCHAR(ROWID)",
    asked=pa.string(),
    width=18,
)


class OracleSource:
    """An Oracle database.

    Args:
        address: Where it is.
        encoding: Other than UTF-8: text is delivered as the bytes that the database stores, for the rules to decode.
        byte_tables: Tables whose text is delivered so in any case.
        offered: SCNs at which other processes read this database; the first is read at.
        sessions: How many may be open at once.
    """

    kind = "oracle"

    def __init__(
        self,
        address: Address,
        *,
        encoding: str = "utf-8",
        byte_tables: Collection[str] = (),
        offered: Sequence[SharedSnapshot] = (),
        sessions: int = SESSIONS_MAX,
    ) -> None:
        self._place, self._address = address.shown, address
        self._raw_text = encoding.lower().replace("_", "-") not in ("utf-8", "utf8", "ascii", "us-ascii")
        self._byte_tables = frozenset(byte_tables)
        self._sessions = Sessions(address, offered, sessions_max=sessions)
        self._scn = self._sessions.scn
        self._shapes: dict[str, Shape] = {}

    def tables(self) -> list[str]:
        """Names of the tables and views that this user may read, sorted; of other schemas `OWNER.NAME`."""
        with self._sessions.session() as connection, oracle_errors(self._place):
            return sorted(relations(connection))

    def describe(self, table: str) -> SourceTable:
        """Columns, keys and size; rows as statistics have them, None where there are none and for views."""
        with self._sessions.session() as connection:
            return self._shape(connection, table).table

    def now(self) -> datetime:
        """The server's clock."""
        with self._sessions.session() as connection, oracle_errors(self._place):
            ((moment,),) = fetch(connection, "SELECT SYS_EXTRACT_UTC(SYSTIMESTAMP) FROM dual")
        utc: datetime = moment
        return utc.replace(tzinfo=UTC)

    def fingerprint(self, table: str) -> str:
        """Empty: Oracle knows no cheap sign of change that every user may read."""
        return ""

    def snapshot(self) -> str | None:
        """The SCN that all reads see; None for `?snapshot=none`."""
        return None if self._scn is None else f"scn:{self._scn}"

    def snapshot_seconds(self) -> float | None:
        """How long an SCN lasts: the shortest retention that the server tuned itself to within a day, or its target.

        None where the user may see neither V$UNDOSTAT nor V$PARAMETER.
        """
        with self._sessions.session(action="check") as connection, oracle_errors(self._place):
            return undo_seconds(connection)

    def afresh(self) -> OracleSource | None:
        """This database as of an SCN of now; None for `?snapshot=none`, where every read is of now."""
        if self._scn is None:
            return None
        other = copy.copy(self)
        with self._sessions.session() as connection, oracle_errors(self._place):
            other._scn = current_scn(connection, self._place)
        return other

    def spans(self, table: str, *, predicate: Predicate, parts: int) -> list[Predicate]:
        """Shorter slices: of blocks, or of the key's range."""
        with self._sessions.session(action="plan") as connection:
            shape = self._shape(connection, table)
            with self._guarded(table, None):
                seen = extents(connection, shape.relation) if predicate["by"] in ("rowid", "all") else None
                return cut_again(connection, shape, predicate, seen, parts=parts)

    def plan_chunks(
        self, table: str, *, where: str | None, key: Sequence[str], rows_per_chunk: int
    ) -> list[ChunkPredicate]:
        """Cut by ROWIDs where extents can be seen or the package may cut, else by an indexed key."""
        with self._sessions.session(action="plan") as connection:
            shape = self._shape(connection, table)
            with self._guarded(table, where):
                total = count_rows(connection, slice_tail(shape, scn=self._scn, where=where, predicate=None))
                if total <= rows_per_chunk:
                    return [ChunkPredicate(predicate={"by": "all"}, rows_estimate=total)]
                if seen := extents(connection, shape.relation):
                    return cut_by_extents(seen, total=total, rows=rows_per_chunk)
        if shape.relation.has_rowids and self._address.task_chunks:
            with self._sessions.session(action="plan", read_only=False) as connection, oracle_errors(table):
                chunks = cut_by_package(connection, shape.relation, total=total, rows=rows_per_chunk)
                if chunks is not None:
                    return chunks
        with self._sessions.session(action="plan") as connection, self._guarded(table, where):
            return cut_by_key(connection, shape, scn=self._scn, where=where, key=key, total=total, rows=rows_per_chunk)

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
        with self._sessions.session(action="count") as connection:
            shape = self._shape(connection, table)
            with self._guarded(table, where):
                picked = _among(shape, among)
                tail = slice_tail(shape, scn=self._scn, where=where, predicate=predicate, picked=picked)
                return count_rows(connection, tail)

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
        with self._sessions.session() as connection:
            shape = self._shape(connection, table)
        picked = shape.pick(columns)
        shape.pick(order_by)
        tail = slice_tail(shape, scn=self._scn, where=where, predicate=predicate, picked=_among(shape, among))
        order = ", ".join(f"{quote(shape.relation.name)}.{quote(one)} NULLS LAST" for one in order_by)
        end = f" ORDER BY {order}" if order else ""
        return self._stream(table, picked, tail=tail, end=end, batch_rows=batch_rows, where=where)

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
        """An address is the row's ROWID, as stable as the ranges of them that slices are."""
        with self._sessions.session() as connection:
            shape = self._shape(connection, table)
        _require_rowids(shape)
        picked = [*shape.pick(columns), _ADDRESS_COLUMN]
        tail = slice_tail(shape, scn=self._scn, where=where, predicate=predicate)
        return self._stream(table, picked, tail=tail, batch_rows=batch_rows, where=where)

    def sample(self, table: str, *, columns: Sequence[str], where: str | None, rows: int) -> pa.Table:
        """Rows picked by chance, twice as many as wanted, then every n-th; of a large table, blocks of rows."""
        with self._sessions.session() as connection:
            shape = self._shape(connection, table)
            picked = shape.pick(columns)
            whole = slice_tail(shape, scn=self._scn, where=None, predicate=None)
            with oracle_errors(table):
                total = shape.table.rows_estimate or count_rows(connection, whole)
        percent = 200.0 * rows / max(total, 1) if shape.relation.is_table else 100.0
        schema = schema_of([one.column for one in picked])
        while True:
            percent = min(100.0, max(0.000001, percent))
            # Picking rows reads every block.
            by_block = total >= _BLOCKS_FROM and percent < 1.0
            tail = slice_tail(shape, scn=self._scn, where=where, predicate=None, percent=percent, by_block=by_block)
            stream = self._stream(table, picked, tail=tail, all_rows=whole, batch_rows=max(rows, 1), where=where)
            # Statistics may be old: about so many are taken at most. FETCH FIRST would refuse a LONG (ORA-00997).
            parts, taken = [], 0
            with closing(stream):
                for batch in stream:
                    parts.append(batch)
                    taken += batch.num_rows
                    if taken >= 8 * rows:
                        break
            found = pa.Table.from_batches(parts, schema)
            if found.num_rows >= rows or percent >= 100.0:
                break
            percent *= 10
        if found.num_rows <= rows:
            return found
        return found.take(pa.array([at * found.num_rows // rows for at in range(rows)]))

    def ask(self, sql: str, *, rows_max: int) -> list[tuple[Any, ...]]:
        """The rows of a query of the plan as they are now, at most so many; as a subquery it can change nothing."""
        with self._sessions.session(action="check") as connection, oracle_errors("a query of the plan's `checks`"):
            return fetch_exact(connection, f"SELECT * FROM ({sql.strip().rstrip(';')}\n)", rows_max=rows_max)

    def figures(
        self,
        table: str,
        *,
        columns: Sequence[str],
        exact: Collection[str],
        where: str | None,
        slices: Sequence[Predicate] | None = None,
    ) -> TableFigures:
        """Counted by the server, different values nearly where it can (12.1.0.2)."""
        with self._sessions.session(action="profile") as connection:
            shape = self._shape(connection, table)
            found = [oracle_figure(one) for one in shape.pick(columns)]
            with self._guarded(table, where):
                return figures_of(
                    shape.table,
                    [one for one in found if one is not None],
                    dialect=oracle_dialect(connection),
                    exact=exact,
                    tails=[
                        slice_tail(shape, scn=self._scn, where=where, predicate=one)
                        for one in (slices if slices is not None else [None])
                    ],
                    ask=lambda query: fetch_readable(connection, query),
                )

    def close(self) -> None:
        """End the sessions."""
        self._sessions.close()

    @contextmanager
    def _guarded(self, table: str, where: str | None) -> Iterator[None]:
        """Errors as ours; of a statement that took too long, with what would make it shorter."""
        try:
            with oracle_errors(table):
                yield
        except CallTimeout as error:
            limit = self._address.statement_seconds
            if not isinstance(error, StatementTooLong) and self._address.call_seconds < limit:
                raise
            raise slow_statement(self._shapes.get(table), table, where, seconds=limit) from None

    def _shape(self, connection: oracledb.Connection, table: str) -> Shape:
        # Oracle's dictionary views are slow, and a batch asks for each table hundreds of times.
        known = self._shapes.get(table)
        if known is not None:
            return known
        with oracle_errors(table):
            relation = find_relation(connection, table, place=self._place)
            raw_text = self._raw_text or table in self._byte_tables
            shape = describe_shape(connection, relation, table=table, raw_text=raw_text)
        return self._shapes.setdefault(table, shape)

    def _stream(
        self,
        table: str,
        columns: Sequence[OracleColumn],
        *,
        tail: str,
        batch_rows: int,
        where: str | None,
        end: str = "",
        all_rows: str = "",
    ) -> Generator[pa.RecordBatch]:
        """Rows of a query.

        Args:
            tail: FROM and WHERE.
            end: What follows them.
            all_rows: FROM and WHERE of all rows that it may deliver, where that is not `tail`.
        """
        schema = schema_of([one.column for one in columns])
        limit = self._address.statement_seconds
        with self._sessions.session() as connection, self._guarded(table, where):
            columns = _with_lobs_cut(connection, columns, tail=all_rows or tail)
            # A query needs a column even where none is wanted, and the driver's schema needs distinct names.
            parts = [
                (expression, kind)
                for one in columns
                for expression, kind in ((_selected(one), one.asked), *((piece, pa.binary()) for piece in one.pieces))
            ]
            parts = [*parts, *((text, pa.string()) for text in texts_before(columns))] or [("1", pa.int64())]
            expressions = ", ".join(f'{expression} AS "c{at}"' for at, (expression, _) in enumerate(parts))
            asked = pa.schema([pa.field(f"c{at}", kind) for at, (_, kind) in enumerate(parts)])
            width = sum(one.width for one in columns) or 8
            size = max(1, min(batch_rows, _REPLY_ROWS_MAX, _REPLY_BYTES // width))
            query = f"SELECT {expressions} {tail}{end}"
            for batch in batches(connection, query, asked, size=size, seconds=limit):
                if batch.num_rows:
                    yield _built(batch, columns, schema)


class SharingOracleSource(OracleSource):
    """An Oracle database whose reads share an SCN, which other processes may take over (`ExportsSnapshot`)."""

    def exported(self) -> str:
        """The SCN."""
        return str(self._scn)


def _selected(one: OracleColumn) -> str:
    return within_years(one) if is_moment(one) else one.expression


def _with_lobs_cut(
    connection: oracledb.Connection, columns: Sequence[OracleColumn], *, tail: str
) -> Sequence[OracleColumn]:
    """Columns whose LOBs are in as many pieces as the longest value of these rows needs."""
    lobs = [one for one in columns if one.lob]
    if not lobs:
        return columns
    (longest,) = fetch(connection, f"SELECT {', '.join(f'MAX({one.expression})' for one in lobs)} {tail}")
    selected = sum(1 + len(one.pieces) for one in columns) + len(texts_before(columns))
    cut = {}
    for one, length in zip(lobs, longest, strict=True):
        made = cut_lob(one, longest=int(length or 0), others=selected)
        selected += len(made.pieces)
        cut[one.column.name] = made
    return [cut.get(one.column.name, one) for one in columns]


def _built(batch: pa.RecordBatch, columns: Sequence[OracleColumn], schema: pa.Schema) -> pa.RecordBatch:
    if not columns:
        return pa.RecordBatch.from_struct_array(pa.array([{}] * batch.num_rows, pa.struct([])))
    arrived = iter(batch.columns)
    arrays = []
    for one in columns:
        first = next(arrived)
        pieces = [next(arrived) for _ in one.pieces]
        arrays.append(joined(first, pieces, one) if pieces else decoded(first, one))
    return pa.RecordBatch.from_arrays(put_back(arrays, columns, list(arrived)), schema=schema)


def _require_rowids(shape: Shape) -> None:
    if not shape.relation.has_rowids:
        raise SourceError(
            f"rows of `{shape.table.name}`, a view or an index-organized table, have no ROWID to be found again by",
            state=UNTOUCHED,
            hint="read the tables below the view, or run without a sample",
        )


def _among(shape: Shape, among: pa.Array | None) -> str:
    """The condition of rows at these addresses."""
    if among is None:
        return "1 = 1"
    _require_rowids(shape)
    listed = [f"'{one}'" for one in among.to_pylist()]
    parts = [listed[at : at + _LISTED_MAX] for at in range(0, len(listed), _LISTED_MAX)]
    return " OR ".join(f"ROWID IN ({', '.join(part)})" for part in parts) or "1 = 0"
