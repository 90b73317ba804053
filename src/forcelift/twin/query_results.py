"""Results of bulk query jobs: frozen once in a table, read as CSV pages as often as asked for.

Writes:  `meta.query_result_<number>`: the rows in their final order, with DuckDB's own types.
Reads:   the same table in pieces; a piece becomes CSV inside DuckDB and leaves as one buffer, no loop over rows.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import pyarrow as pa

from forcelift.twin.soql.compiled import CompiledQuery, plain, rest
from forcelift.twin.soql.views import Category, quoted

PIECE_ROWS: Final = 20_480  # a multiple of DuckDB's vector; a few MB of CSV at once
DELIMITERS: Final = {
    "BACKQUOTE": "`",
    "CARET": "^",
    "COMMA": ",",
    "PIPE": "|",
    "SEMICOLON": ";",
    "TAB": "\t",
}
LINE_ENDINGS: Final = {"LF": "\n", "CRLF": "\r\n"}

_THREADS: Final = min(4, os.cpu_count() or 1)
_AHEAD: Final = 2 * _THREADS  # pieces in memory at most

Connect = Callable[[], duckdb.DuckDBPyConnection]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultTable:
    """The frozen result of one job.

    Args:
        number: The job's running number; it names the table.
        columns: Name and category of each column, in SELECT order.
        delimiter: The character between values.
        line_ending: What ends a line.
    """

    number: int
    columns: tuple[tuple[str, Category], ...]
    delimiter: str
    line_ending: str

    @property
    def name(self) -> str:
        return result_table_name(self.number)

    def header(self) -> bytes:
        """The header line, names quoted."""
        names = ('"' + name.replace('"', '""') + '"' for name, _ in self.columns)
        return (self.delimiter.join(names) + self.line_ending).encode()

    def page(self, connect: Connect, start: int, end: int) -> Iterator[bytes]:
        """Header and rows `start` up to and without `end`, as CSV in pieces. Several pieces are made at once."""
        yield self.header()
        starts = iter(range(start, end, PIECE_ROWS))
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="twin-result") as pool:
            ahead: deque[Future[list[bytes]]] = deque()
            try:
                for first in starts:
                    ahead.append(pool.submit(self._piece, connect, first, min(first + PIECE_ROWS, end)))
                    if len(ahead) >= _AHEAD:
                        yield from ahead.popleft().result()
                while ahead:
                    yield from ahead.popleft().result()
            finally:
                # A client that goes away in the middle leaves pieces that nobody wants.
                for piece in ahead:
                    piece.cancel()

    def _piece(self, connect: Connect, start: int, end: int) -> list[bytes]:
        cursor = connect()
        try:
            return [
                _text_of(chunk) for chunk in cursor.sql(self._lines_sql(start, end)).to_arrow_table().column(0).chunks
            ]
        finally:
            cursor.close()

    def _lines_sql(self, start: int, end: int) -> str:
        """One text column with a whole CSV line in each row.

        The text of a number is made in an inner SELECT: the pieces of its Java form are cut out of it many times.
        """
        numbers = [at for at, (_, category) in enumerate(self.columns) if category is Category.NUMBER]
        doubles = "".join(f", CAST(c{at} AS DOUBLE) AS d{at}" for at in numbers)
        texts = "".join(f", CAST(abs(d{at}) AS VARCHAR) AS x{at}" for at in numbers)
        cells = [_cell_sql(at, category) for at, (_, category) in enumerate(self.columns)]
        between = _constant(f'"{self.delimiter}"')
        line = f" || {between} || ".join(cells)
        line_end = _constant('"' + self.line_ending)
        rows = f'SELECT *{doubles} FROM {self.name} WHERE "#" >= {start} AND "#" < {end}'
        return (
            f'SELECT \'"\' || {line} || {line_end} AS line FROM (SELECT *{texts} FROM ({rows}) AS r) AS t ORDER BY "#"'
        )


def freeze(cursor: duckdb.DuckDBPyConnection, number: int, compiled: CompiledQuery, *, seed: int) -> int:
    """Run a job's query and keep its rows; gives how many there are.

    Without ORDER BY the rows get an order that depends on the seed alone, since the real org promises none.
    """
    table = result_table_name(number)
    shuffled = f"ORDER BY hash({compiled.id_sql}, {int(seed)})"
    select = compiled.select_sql(plain, hidden=False, order=shuffled)
    cursor.execute(
        f'CREATE OR REPLACE TABLE {table} AS SELECT row_number() OVER () - 1 AS "#", * FROM ({select}) AS result'
    )
    row = cursor.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(row[0]) if row else 0


def result_bytes(cursor: duckdb.DuckDBPyConnection, number: int, compiled: CompiledQuery) -> int:
    """About how many bytes a result has as CSV: its texts exactly, other values at the usual width of their kind."""
    widths = {Category.ID: 21, Category.BOOLEAN: 8, Category.DATE: 13, Category.DATETIME: 27, Category.TIME: 16}
    texts = [at for at, column in enumerate(compiled.columns) if column.category is Category.TEXT]
    fixed = sum(widths.get(column.category, 10) for column in compiled.columns if column.category is not Category.TEXT)
    sums = [f"coalesce(sum(strlen(c{at}) + 3), 0)" for at in texts]
    row = cursor.execute(
        f"SELECT {' + '.join([*sums, f'count(*) * {fixed}'])} FROM {result_table_name(number)}"
    ).fetchone()
    return int(row[0]) if row else 0


def result_table_name(number: int) -> str:
    """The SQL name of the table that holds a job's result."""
    return f"meta.{quoted(f'query_result_{number}')}"


def _constant(text: str) -> str:
    """A text constant of DuckDB; delimiters and line ends hold no quote marks of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _cell_sql(at: int, category: Category) -> str:
    """A value as text, as bulk query results have it; null is the empty text."""
    column = f"c{at}"
    match category:
        case Category.NUMBER:
            text = java_double_sql(f"d{at}", f"x{at}")
        case Category.DATETIME:
            text = f"strftime({column}, '%Y-%m-%dT%H:%M:%S.%gZ')"
        case Category.TIME:
            text = rest(category, column)
        case Category.TEXT:
            text = f"replace({column}, '\"', '\"\"')"
        case _:
            text = f"CAST({column} AS VARCHAR)"
    return f"coalesce({text}, '')"


def java_double_sql(number: str, text: str) -> str:
    """A DOUBLE as Java's `Double.toString` writes it: `500.0`, `9.12260031E8`, `1.0E-4`.

    Plain from 0.001 up to but not including ten million, else one digit, a point, the rest, and the exponent.
    DuckDB writes the same shortest digits, plain from 0.0001 to below 1e16 and as `1e+16` or `1.5e-05` outside.

    Args:
        number: The DOUBLE.
        text: Its absolute value as DuckDB writes it.
    """
    sign = f"CASE WHEN {number} < 0 THEN '-' ELSE '' END"
    whole_rest = f"coalesce(nullif(rtrim({text}[2:-3], '0'), ''), '0')"
    large_rest = f"CASE WHEN ends_with({text}, '.0') THEN {whole_rest} ELSE replace({text}[2:], '.', '') END"
    large = f"{text}[1] || '.' || {large_rest} || 'E' || (instr({text}, '.') - 2)"
    # Between 0.0001 and 0.001 exactly three zeros follow the point.
    small = f"{text}[6] || '.' || coalesce(nullif({text}[7:], ''), '0') || 'E-4'"
    return (
        f"{sign} || CASE WHEN abs({number}) >= 0.001 AND abs({number}) < 1e7 OR {number} = 0 THEN {text} "
        f"WHEN abs({number}) >= 1e7 AND abs({number}) < 1e16 THEN {large} "
        f"WHEN NOT contains({text}, 'e') THEN {small} "
        f"WHEN contains({text}, '.') THEN {_exponent_sql(text, '')} ELSE {_exponent_sql(text, '.0')} END"
    )


def _exponent_sql(text: str, before: str) -> str:
    """`e+16` to `E16`, `e-05` to `E-5`."""
    result = text
    for old, new in (("e+0", "E"), ("e+", "E"), ("e-0", "E-"), ("e-", "E-")):
        result = f"replace({result}, '{old}', '{before}{new}')"
    return result


def _text_of(chunk: pa.Array) -> bytes:
    """The bytes of all lines of a text column, one after the other: they lie so in Arrow's buffer."""
    if len(chunk) == 0:
        return b""
    _, offsets, data = chunk.buffers()
    width: Any = "q" if pa.types.is_large_string(chunk.type) else "i"
    places: Sequence[int] = memoryview(offsets).cast("B").cast(width)
    return bytes(memoryview(data)[places[chunk.offset] : places[chunk.offset + len(chunk)]])
