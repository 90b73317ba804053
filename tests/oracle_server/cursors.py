"""A session's cursors: statements that were parsed, their binds and defines, and the rows still to be fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from tests.oracle_server import blocks, replies, requests
from tests.oracle_server.changes import Changes, Done
from tests.oracle_server.compiler import Compiler, Output
from tests.oracle_server.control import WORDS, control
from tests.oracle_server.definitions import Definitions
from tests.oracle_server.encode import encode_rows, one_value
from tests.oracle_server.errors import OracleError, not_taught
from tests.oracle_server.expressions import Value, null_of
from tests.oracle_server.faults import Fault, Faults
from tests.oracle_server.functions import BROKEN_LETTERS, oracle_error, utf8_bytes
from tests.oracle_server.lobs import Lobs
from tests.oracle_server.parser import parsed_query
from tests.oracle_server.requests import BATCH_ERRORS, COMMIT, DESCRIBE, EXECUTE, FETCH, PARSE, Descriptor, Execute
from tests.oracle_server.session_state import SessionState
from tests.oracle_server.store import RID
from tests.oracle_server.table_locks import lock_table
from tests.oracle_server.tokens import tokens_of
from tests.oracle_server.values import number_bytes, number_text
from tests.oracle_server.watch import Watch
from tests.oracle_server.wire import Writer

End = Callable[..., Writer]
_BATCH_ROWS = 20_000


@dataclass(slots=True)
class Cursor:
    """One statement. `descriptors` and `defines` are kept, as clients do not send them again."""

    number: int
    statement: str
    kind: str
    bind_places: list[int]
    bind_names: list[str]
    return_binds: frozenset[int]
    descriptors: list[Descriptor] = field(default_factory=list)
    defines: list[Descriptor] | None = None
    outputs: list[Output] = field(default_factory=list)
    batches: Iterator[pa.RecordBatch] | None = None
    rest: pa.Table | None = None
    fetched: int = 0
    offset_minutes: int = 0

    def decoded(self, row: list[Any], sent: list[Descriptor], lobs: dict[bytes, Any]) -> list[Any]:
        """Values of one iteration, from their bytes."""
        return [requests.python_value(raw, one, lobs, self.offset_minutes) for raw, one in zip(row, sent, strict=True)]


def _kind(statement: str) -> str:
    first = tokens_of(statement)[0].text
    if first in ("SELECT", "WITH"):
        return "query"
    if first in ("INSERT", "UPDATE", "DELETE", "MERGE"):
        return "change"
    if first in ("BEGIN", "DECLARE", "CALL"):
        return "block"
    if first == "LOCK":
        return "lock"
    if first in WORDS or (first == "ALTER" and tokens_of(statement)[1].text == "SESSION"):
        return "control"
    return "definition"


class Cursors:
    """The open cursors of a session."""

    def __init__(self, state: SessionState, faults: Faults, watch: Watch, lobs: Lobs) -> None:
        self._state = state
        self._faults = faults
        self._watch = watch
        self._lobs = lobs
        self._open: dict[int, Cursor] = {}
        self._next = 1

    def of(self, request: Execute) -> Cursor:
        """The cursor that a request names, or a new one for its statement."""
        if request.cursor_id and request.statement is None:
            return self.find(request.cursor_id)
        statement = request.statement or ""
        tokens = tokens_of(statement)
        binds = [token for token in tokens if token.kind == "bind"]
        kind = _kind(statement)
        if kind == "block":
            names = list(dict.fromkeys(token.text for token in binds))
        else:
            names = [token.text for token in binds]
        into = None
        if kind == "change":
            words = [token.text if token.kind == "word" else "" for token in tokens]
            if "RETURNING" in words:
                into = next(
                    (tokens[at].at for at in range(words.index("RETURNING"), len(words)) if words[at] == "INTO"), None
                )
        returned = frozenset(at for at, token in enumerate(binds) if into is not None and token.at > into)
        number = request.cursor_id or self._next
        if not request.cursor_id:
            self._next = self._next % 65_000 + 1
        cursor = Cursor(
            number=number,
            statement=statement,
            kind=kind,
            bind_places=[token.at for token in binds],
            bind_names=names,
            return_binds=returned,
            offset_minutes=self._state.offset_minutes,
        )
        if len(self._open) >= 300:
            raise OracleError(1000)
        self._open[number] = cursor
        return cursor

    def find(self, number: int) -> Cursor:
        if number not in self._open:
            raise OracleError(1001)
        return self._open[number]

    def close(self, numbers: list[int]) -> None:
        for number in numbers:
            self._open.pop(number, None)

    # Executing.

    def execute(self, cursor: Cursor, request: Execute, end: End, version: int) -> Writer | bytearray:
        """The reply to an execute of any kind. A statement that fails while it is parsed leaves no cursor."""
        try:
            if cursor.kind == "query":
                return self._query(cursor, request, end, version)
            if cursor.kind == "change":
                return self._change(cursor, request, end)
            if cursor.kind == "block":
                return self._block(cursor, request, end)
            if not request.options & EXECUTE:
                return end(cursor_id=cursor.number)
            if cursor.kind == "definition":
                try:
                    Definitions(self._state, cursor.statement).run()
                except duckdb.Error as error:
                    raise oracle_error(error) from error
            elif cursor.kind == "lock":
                lock_table(self._state, cursor.statement, self._watch.is_cancelled)
            else:
                control(self._state, cursor.statement)
            return end(cursor_id=cursor.number)
        except OracleError:
            if request.options & PARSE:
                self._open.pop(cursor.number, None)
            raise

    def _bind(self, cursor: Cursor, row: list[Any]) -> None:
        sent = [at for at in range(len(cursor.bind_names)) if at not in cursor.return_binds]
        if len(row) != len(sent):
            raise OracleError(1008)
        self._state.binds = {
            cursor.bind_places[at]: requests.bind_value(value, cursor.descriptors[at])
            for at, value in zip(sent, row, strict=True)
        }

    def _query(self, cursor: Cursor, request: Execute, end: End, version: int) -> Writer | bytearray:
        if request.defines is not None:
            # The client says how it wants LOBs; the rows come by fetches.
            cursor.defines = request.defines
            return end(cursor_id=cursor.number)
        if request.options & DESCRIBE:
            self._state.binds = {at: null_of(Output("", _ANY).value.type) for at in cursor.bind_places}
        else:
            self._bind(cursor, request.rows[0] if request.rows else [])
        self._open_query(cursor, only_describe=bool(request.options & DESCRIBE))
        out: Writer = replies.describe(cursor.outputs, version) if request.options & PARSE else Writer()
        if request.options & FETCH and not any(one.value.type.is_lob for one in cursor.outputs):
            out += replies.row_header()
            rows, encoded = self._rows(cursor, request.fetch_rows)
            out += encoded
            if rows < request.fetch_rows:
                out += end(OracleError(1403), cursor_id=cursor.number, rows=cursor.fetched)
                return out
        out += end(cursor_id=cursor.number, rows=cursor.fetched)
        return out

    def _open_query(self, cursor: Cursor, *, only_describe: bool) -> None:
        node = parsed_query(cursor.statement)
        compiler = Compiler(self._state)
        compiled = compiler.query(node)
        sql = compiled.sql
        cursor.outputs = compiled.outputs
        cursor.fetched, cursor.rest, cursor.batches = 0, None, None
        if only_describe:
            return
        if node.parts[5] is not None:
            free = Changes(self._state, self._watch.is_cancelled).lock(node, compiler)
            sql = Compiler(self._state).query(node).sql
            if free is not None:
                if " WHERE " not in cursor.statement.upper() and not free:
                    free = []
                rids = ", ".join(map(str, free)) or "NULL"
                sql = _only(sql, rids)
        connection = self._state.store.cursor()
        with self._watch.over(connection):
            try:
                reader = connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
            except duckdb.Error as error:
                raise oracle_error(error) from error
        cursor.batches = self._batches(connection, reader)

    def _batches(self, connection: duckdb.DuckDBPyConnection, reader: Any) -> Iterator[pa.RecordBatch]:
        while True:
            with self._watch.over(connection):
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
                except (duckdb.Error, pa.ArrowException, OSError) as error:
                    raise oracle_error(error) from error  # type: ignore[arg-type]  # only its text is read
            yield batch

    def _rows(self, cursor: Cursor, count: int) -> tuple[int, bytes]:
        """The next rows, encoded."""
        if cursor.batches is None:
            raise OracleError(1002, detail="fetch out of sequence")
        parts = [cursor.rest] if cursor.rest is not None else []
        have = sum(part.num_rows for part in parts)
        while have < count:
            batch = next(cursor.batches, None)
            if batch is None:
                break
            parts.append(pa.Table.from_batches([batch]))
            have += batch.num_rows
        if not parts:
            return 0, b""
        table = pa.concat_tables(parts)
        taken, cursor.rest = table.slice(0, count), table.slice(count)
        if not taken.num_rows:
            return 0, b""
        columns = []
        for at, output in enumerate(cursor.outputs):
            array = taken.column(at).combine_chunks()
            array = array if isinstance(array, pa.Array) else array.chunk(0)
            columns.append(self._cells(cursor, at, array, output))
        cursor.fetched += taken.num_rows
        return taken.num_rows, encode_rows(columns, self._state.offset_minutes)

    def _cells(self, cursor: Cursor, at: int, array: pa.Array, output: Output) -> tuple[pa.Array, Any, str]:
        kind = output.value.type
        if kind.kind in ("XMLTYPE", "JSON"):
            raise not_taught(f"sending {kind.kind} other than serialized")
        if kind.is_text and not kind.is_national and self._state.store.charset == "US7ASCII":
            # What is no ASCII means nothing to the server, which tells the client so, letter by letter.
            array = pc.replace_substring_regex(array, "[^\\x00-\\x7f]", "\ufffd")
        if kind.is_text and self._state.store.has_broken_text:
            is_broken = pc.match_substring_regex(array, BROKEN_LETTERS)
            if pc.any(is_broken).as_py():
                array = pa.array([None if one is None else utf8_bytes(one) for one in array.to_pylist()], pa.binary())
        if kind.kind in ("LONG", "LONG RAW"):
            return array, kind, "long"
        if not kind.is_lob:
            return array, kind, "value"
        if cursor.defines is not None and cursor.defines[at].type in (8, 24):
            if kind.is_national:
                array = pa.array(
                    [None if one is None else one.encode("utf-16-be") for one in array.to_pylist()], pa.binary()
                )
            return array, kind, "long"
        cells = []
        for value in array.to_pylist():
            if value is None:
                cells.append(None)
                continue
            locator = self._lobs.keep(value)
            size = len(value) if isinstance(value, bytes) else len(value.encode("utf-16-be")) // 2
            cells.append(replies.locator_cell(locator, size))
        return pa.array(cells, pa.binary()), kind, "locator"

    def fetch(self, cursor: Cursor, count: int, end: End, strike: Callable[[Fault], None]) -> Writer | bytearray:
        """The next rows of a query, with ORA-01403 once there are no more."""
        fault = self._faults.strike("fetch", cursor.statement, cursor.fetched)
        if fault is not None:
            strike(fault)
        out = replies.row_header()
        rows, encoded = self._rows(cursor, count)
        out += encoded
        error = OracleError(1403) if rows < count else None
        out += end(error, cursor_id=cursor.number, rows=cursor.fetched)
        return out

    # Changing.

    def _change(self, cursor: Cursor, request: Execute, end: End) -> Writer:
        if not request.options & EXECUTE:
            return end(cursor_id=cursor.number)
        rows = request.rows or [[] for _ in range(request.iterations)]
        run = _Run(self, cursor, rows, every=bool(request.options & BATCH_ERRORS))
        run.all()
        if run.failed is None and request.options & COMMIT:
            self._state.commit()
        out = Writer()
        if request.flags & requests.ROW_COUNTS:
            out += replies.row_counts(run.counts)
        if cursor.return_binds and run.failed is None:
            for done in run.done:
                # Iterations that went together made one row each.
                together = [[row] for row in done.returned] if done.iterations > 1 else [done.returned]
                for rows in together:
                    out += self._returned(cursor, done, rows)
        out += end(run.failed, cursor_id=cursor.number, rows=sum(run.counts), rid=run.rid, batch=run.errors or None)
        return out

    def _returned(self, cursor: Cursor, done: Done, rows: list[tuple[Any, ...]]) -> Writer:
        out = Writer().u8(7)
        for column, at in enumerate(sorted(cursor.return_binds)):
            kind = requests.bind_type(cursor.descriptors[at])
            have = done.returned_types[column].type
            as_text = kind.is_text and have.is_number
            if kind.number != have.number and not (kind.is_text and (have.is_text or have.kind == "ROWID" or as_text)):
                raise OracleError(932, kind.name, have.name)
            out.ub(len(rows))
            for row in rows:
                value = row[column]
                if as_text and value is not None:
                    value = number_text(value if isinstance(value, bytes) else number_bytes(str(value)))
                out += one_value(value, kind if as_text else have, self._state.offset_minutes)
                out.ub(0)
        return out

    def apply(self, cursor: Cursor, rows: list[list[Any]]) -> Done:
        """One statement for one or more iterations; several only where `together` says so."""
        changes = Changes(self._state, self._watch.is_cancelled)
        try:
            if len(rows) == 1:
                self._bind(cursor, rows[0])
                return changes.run(cursor.statement)
            arrays: dict[str, pa.Array] = {"at#": pa.array(range(len(rows)), pa.int64())}
            binds: dict[int, Value] = {}
            sent = [at for at in range(len(cursor.bind_places)) if at not in cursor.return_binds]
            for index, at in enumerate(sent):
                place = cursor.bind_places[at]
                column = [row[index] for row in rows]
                arrays[f"b{at}"], binds[place] = requests.bind_column(column, cursor.descriptors[at], f"b{at}")
            self._state.binds = binds
            done = changes.run(cursor.statement, pa.table(arrays))
            done.iterations = len(rows)
            return done
        except duckdb.Error as error:
            raise oracle_error(error) from error

    def _block(self, cursor: Cursor, request: Execute, end: End) -> Writer:
        row = request.rows[0] if request.rows else []
        given = dict(zip(cursor.bind_names, row, strict=False))
        results = blocks.run(self._state, cursor.statement, given, self._watch.is_cancelled)
        if request.options & COMMIT:
            self._state.commit()
        if not cursor.bind_names:
            return end(cursor_id=cursor.number, rows=1)
        directions = [16 if name in results else 32 for name in cursor.bind_names]
        out = replies.io_vector(directions)
        if results:
            out.u8(7)
            for name, descriptor in zip(cursor.bind_names, cursor.descriptors, strict=True):
                if name in results:
                    out += one_value(results[name], requests.bind_type(descriptor), self._state.offset_minutes)
                    out.ub(0)
        out += end(cursor_id=cursor.number, rows=1)
        return out


class _Run:
    """The iterations of one change. Those of INSERT ... VALUES go together; a failing one is found by halving."""

    def __init__(self, cursors: Cursors, cursor: Cursor, rows: list[list[Any]], *, every: bool) -> None:
        self._cursors, self._cursor, self._rows, self._every = cursors, cursor, rows, every
        self.counts: list[int] = []
        self.done: list[Done] = []
        self.errors: list[replies.BatchError] = []
        self.failed: OracleError | None = None
        self.rid = 0

    def all(self) -> None:
        words = [token.text for token in tokens_of(self._cursor.statement) if token.kind == "word"]
        together = words[0] == "INSERT" and "VALUES" in words
        step = len(self._rows) if together and self._cursor.bind_places else 1
        for start in range(0, len(self._rows), step):
            if self.failed is None:
                self._part(start, min(start + step, len(self._rows)))

    def _part(self, start: int, stop: int) -> None:
        try:
            done = self._cursors.apply(self._cursor, self._rows[start:stop])
        except OracleError as error:
            if error.code == 1013:
                raise
            if stop - start == 1:
                if self._every:
                    self.errors.append(replies.BatchError(start, error))
                    self.counts.append(0)
                else:
                    self.failed = error
                return
            middle = (start + stop) // 2
            self._part(start, middle)
            if self.failed is None:
                self._part(middle, stop)
            return
        self.counts += [1] * done.rows if stop - start > 1 else [done.rows]
        self.done.append(done)
        self.rid = done.rid or self.rid


_ANY = null_of(requests.varchar(1))


def _only(sql: str, rids: str) -> str:
    """The query of SELECT ... FOR UPDATE SKIP LOCKED, for the rows that could be locked."""
    return sql.replace('WHERE (("born#"', f'WHERE {RID} IN ({rids}) AND (("born#"', 1)
