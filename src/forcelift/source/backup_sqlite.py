"""Copies of tables inside a SQLite database, and inside a DuckDB one.

Writes:  one table, in one transaction: a crash leaves none of it.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote as percent_encode

import duckdb

from forcelift.embedded import connect
from forcelift.errors import SourceError, SourceUnavailable
from forcelift.protocols.backups import Copied, Room
from forcelift.source.backup_names import NOT_MADE, check_rows, condition, quoted_path, suffixed
from forcelift.source.duckdb_session import duckdb_errors
from forcelift.source.names import quote, quote_text, require_file, unknown_table

_BUSY_S = 10.0


def _room_of_file(path: Path, needed: int) -> Room:
    free = shutil.disk_usage(path.parent).free
    return Room(needed=needed, free=free, where=f"the disk of `{path}`", needed_by_all=path.stat().st_size)


class SqliteBackups:
    """Copies in a SQLite file.

    By Python's own `sqlite3`, since the reader's driver cannot hold a transaction over several statements. Nothing else
    in this process may have the file open: see `source/sqlite.py` on locks.
    """

    kind = "sqlite"
    has_flashback = False
    keeps_where = True

    def __init__(self, path: Path) -> None:
        require_file(path)
        self.path = path
        with self._errors():
            self._connection = sqlite3.connect(
                f"file:{percent_encode(str(path))}?mode=rw", uri=True, timeout=_BUSY_S, isolation_level=None
            )
            self._connection.execute("PRAGMA synchronous=FULL")

    def name_for(self, table: str, suffix: str) -> str:
        return suffixed(table, suffix, bytes_max=None)

    def exists(self, name: str) -> bool:
        with self._errors(), closing(self._connection.cursor()) as cursor:
            query = "SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND lower(name) = lower(?)"
            return cursor.execute(query, [name]).fetchone() is not None

    def room(self, table: str) -> Room:
        """The table's pages where this SQLite can tell them, else the whole file's."""
        with self._errors(), closing(self._connection.cursor()) as cursor:
            try:
                ((needed,),) = cursor.execute("SELECT sum(pgsize) FROM dbstat WHERE name = ?", [table]).fetchall()
            except sqlite3.OperationalError:  # built without that view
                needed = None
        return _room_of_file(self.path, self.path.stat().st_size if needed is None else int(needed))

    def copy(self, table: str, *, name: str, where: str | None, as_of: str | None) -> Copied:
        rows = f"FROM {quote(table)}{condition(where)}"
        self._need(table)
        with self._errors(table), closing(self._connection.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                cursor.execute(f"CREATE TABLE {quote(name)} AS SELECT * {rows}")
                ((copy_rows,),) = cursor.execute(f"SELECT count(*) FROM {quote(name)}").fetchall()
                ((source_rows,),) = cursor.execute(f"SELECT count(*) {rows}").fetchall()
                copied = check_rows(
                    Copied(rows=copy_rows, source_rows=source_rows, is_one_state=True), table=table, name=name
                )
                cursor.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    cursor.execute("ROLLBACK")
                raise
        return copied

    def count(self, name: str) -> int:
        with self._errors(name), closing(self._connection.cursor()) as cursor:
            ((rows,),) = cursor.execute(f"SELECT count(*) FROM {quote(name)}").fetchall()
            return int(rows)

    def drop(self, name: str) -> None:
        with self._errors(name), closing(self._connection.cursor()) as cursor:
            cursor.execute(f"DROP TABLE {quote(name)}")

    def close(self) -> None:
        self._connection.close()

    def _need(self, table: str) -> None:
        if not self.exists(table):
            with self._errors(), closing(self._connection.cursor()) as cursor:
                query = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name"
                known = [name for (name,) in cursor.execute(query)]
            raise unknown_table(table, known, place=f"`{self.path}`")

    @contextmanager
    def _errors(self, table: str | None = None) -> Iterator[None]:
        what = f"table `{table}`" if table else f"`{self.path}`"
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise SourceUnavailable(
                    f"{what} cannot be copied: another program writes to the database",
                    state=NOT_MADE,
                    hint="end the other program's transaction, then run the same command again",
                ) from error
            raise SourceError(
                f"{what} cannot be copied: {error}",
                state=NOT_MADE,
                hint="see that the disk has room and that this user may write the file; check `where`",
            ) from error
        except sqlite3.Error as error:
            raise SourceError(f"{what} cannot be copied: {error}", state=NOT_MADE, hint="check the file") from error


class DuckdbBackups:
    """Copies in a DuckDB file, which nobody else may have open meanwhile."""

    kind = "duckdb"
    has_flashback = False
    keeps_where = True

    def __init__(self, path: Path) -> None:
        require_file(path)
        self.path = path
        with duckdb_errors(f"`{path}`"):
            self._connection = connect(path)

    def name_for(self, table: str, suffix: str) -> str:
        return suffixed(table, suffix, bytes_max=None)

    def exists(self, name: str) -> bool:
        return name.lower() in (known.lower() for known in self._tables())

    def room(self, table: str) -> Room:
        """The whole file's size: a copy takes no more, compressed as the table is."""
        return _room_of_file(self.path, self.path.stat().st_size)

    def copy(self, table: str, *, name: str, where: str | None, as_of: str | None) -> Copied:
        known = self._tables()
        if table not in known:
            raise unknown_table(table, known, place=f"`{self.path}`")
        rows = f"FROM {quoted_path(table)}{condition(where)}"
        with duckdb_errors(f"table `{table}`"):
            query = f"SELECT count(*) {rows}"
            if len(duckdb.extract_statements(query)) != 1:
                raise SourceError(
                    f"the condition of table `{table}` is more than one statement", state=NOT_MADE, hint="mend `where`"
                )
            self._connection.execute("BEGIN")
            try:
                self._connection.execute(f"CREATE TABLE {quoted_path(name)} AS SELECT * {rows}")
                copied = check_rows(
                    Copied(
                        rows=self._number(f"SELECT count(*) FROM {quoted_path(name)}"),
                        source_rows=self._number(query),
                        is_one_state=True,
                    ),
                    table=table,
                    name=name,
                )
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(duckdb.TransactionException):  # after a commit that failed there is none any more
                    self._connection.execute("ROLLBACK")
                raise
        return copied

    def count(self, name: str) -> int:
        with duckdb_errors(f"`{name}`"):
            return self._number(f"SELECT count(*) FROM {quoted_path(name)}")

    def drop(self, name: str) -> None:
        with duckdb_errors(f"`{name}`"):
            self._connection.execute(f"DROP TABLE {quoted_path(name)}")

    def close(self) -> None:
        self._connection.close()

    def _number(self, query: str) -> int:
        ((number,),) = self._connection.execute(query).fetchall()
        return int(number)

    def _tables(self) -> list[str]:
        here = f"database_name = current_database() AND schema_name <> {quote_text('information_schema')}"
        query = (
            f"SELECT schema_name, table_name FROM duckdb_tables() WHERE {here} UNION ALL"
            f" SELECT schema_name, view_name FROM duckdb_views() WHERE {here} AND NOT internal"
        )
        with duckdb_errors(f"`{self.path}`"):
            rows = self._connection.execute(query).fetchall()
        return sorted(name if schema == "main" else f"{schema}.{name}" for schema, name in rows)
