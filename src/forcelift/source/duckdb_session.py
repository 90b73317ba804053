"""What every use of DuckDB here shares: settings of a connection, and the driver's errors as ours."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from forcelift.errors import SourceError, SourceUnavailable
from forcelift.source.names import UNTOUCHED, quote_text

# These speak of SQL and of names. All other classes may quote a value of the row they failed on.
_STOPPED = "Query interrupted"
_ABOUT_SQL = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.SyntaxException)


SORT_LEAST_MB = 192
"""With less, DuckDB ends the sort of a chunk with an error instead of spilling it: two readers of 500,000 rows each."""


def allow_sort(connection: duckdb.DuckDBPyConnection, *, memory_mb: int | None) -> None:
    """Raise a database's memory limit to what sorting takes, if it was set lower."""
    if memory_mb is not None and memory_mb < SORT_LEAST_MB:
        connection.execute(f"SET memory_limit = '{SORT_LEAST_MB}MB'")


def configure(connection: duckdb.DuckDBPyConnection, *, memory_mb: int | None, threads: int | None) -> None:
    """Settings for reading: no downloads, and room to spill outside the source's folder.

    Whoever fetches a result works on it, too: with one thread there are no others, and each of several readers still
    has its own. DuckDB's threads read ahead of a reader that takes its time, each with rows in memory, and that costs
    half as much CPU again as reading alone.

    They are set on the open database, not at opening, so that several readers in one process can share a file: DuckDB
    refuses a second connection that was opened with other options.
    """
    spill = Path(tempfile.gettempdir()) / f"forcelift-duckdb-{os.getpid()}"
    connection.execute("SET autoinstall_known_extensions = false")
    ((now,),) = connection.execute("SELECT current_setting('temp_directory')").fetchall()
    if now != str(spill):
        connection.execute(f"SET temp_directory = {quote_text(str(spill))}")
    if memory_mb is not None:
        connection.execute(f"SET memory_limit = '{memory_mb}MB'")
    if threads is not None:
        connection.execute(f"SET threads = {threads}")


def new_cursor(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """A connection of its own to the same database, its instants in UTC; that setting is not handed down."""
    cursor = connection.cursor()
    cursor.execute("SET TimeZone = 'UTC'")
    return cursor


@contextmanager
def duckdb_errors(what: str) -> Iterator[None]:
    """DuckDB's errors as ours; `what` is what was to be read, as a message names it."""
    try:
        yield
    except _ABOUT_SQL as error:
        raise SourceError(
            f"{what} cannot be read: {error}", state=UNTOUCHED, hint="check `where` and the names in the plan"
        ) from error
    except duckdb.IOException as error:
        raise SourceUnavailable(
            f"{what} cannot be read: {error}", state=UNTOUCHED, hint="see that no other program holds the file open"
        ) from error
    except (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.InvalidInputException) as error:
        raise SourceError(
            f"{what} cannot be read: DuckDB stopped with {type(error).__name__}, a value that could not be converted",
            state="the chunk was not read; nothing of it was sent",
            hint="look at comparisons and casts in `where`, and at numbers of more than 38 digits",
        ) from None
    except duckdb.Error as error:
        raise SourceError(
            f"{what} cannot be read: DuckDB stopped with {type(error).__name__}",
            state="the chunk was not read; nothing of it was sent",
            hint="try the same query in DuckDB's own shell",
        ) from None
    except RuntimeError as error:
        # What DuckDB's Python makes of Ctrl-C while a statement runs.
        if str(error) == _STOPPED:
            raise KeyboardInterrupt from error
        raise
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{what} cannot be read: DuckDB stopped in the middle of the rows ({type(error).__name__})",
            state="the chunk was not read; nothing of it was sent",
            hint="look at comparisons and casts in `where`, and at numbers of more than 38 digits",
        ) from None
