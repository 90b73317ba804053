"""Copies of tables inside a PostgreSQL database.

Writes:  one table, in one transaction that sees one state: a crash leaves none of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import adbc_driver_manager

from forcelift.errors import SourceError
from forcelift.protocols.backups import Copied, Room
from forcelift.source.backup_names import NOT_MADE, check_rows, condition, quoted_path, suffixed
from forcelift.source.names import quote_text
from forcelift.source.postgresql_catalog import Relation, find_relation
from forcelift.source.postgresql_session import Address, connect_to, execute, fetch, postgres_errors

_NAME_BYTES = 63  # NAMEDATALEN - 1
_REFUSED = {
    "42501": ("this user may make no tables there", "let a DBA run `GRANT CREATE ON SCHEMA ... TO ...`"),
    "53100": ("the server's disk is full", "make room on the server"),
    "42P07": ("there is a table of that name already", "give the copy another name by `--name`"),
}


class PostgresqlBackups:
    """Copies in the schema of the table that is copied."""

    kind = "postgresql"
    has_flashback = False
    keeps_where = True

    def __init__(self, url: str, *, user: str | None, password: str | None) -> None:
        address = Address(url, user=user, password=password)
        self._place, self._user = address.shown, address.user
        self._connection = connect_to(address)
        with self._errors(self._place):
            execute(self._connection, "SELECT set_config('statement_timeout', '0', false)")
            # Rows that a policy hides would be missing from the copy in silence; so they are an error.
            execute(self._connection, "SELECT set_config('row_security', 'off', false)")

    def name_for(self, table: str, suffix: str) -> str:
        """Bare where it comes to lie in the schema that new tables go to, else `schema.table`."""
        relation = self._find(table)
        here = relation.schema == self._schema()
        return suffixed(relation.name if here else f"{relation.schema}.{relation.name}", suffix, bytes_max=_NAME_BYTES)

    def exists(self, name: str) -> bool:
        with self._errors(self._place):
            ((found,),) = fetch(
                self._connection, f"SELECT to_regclass({quote_text(self._path(name))})::text", by_copy=False
            )
            return found is not None

    def room(self, table: str) -> Room:
        """The table's size; what is free only where the server runs on this host and shows its folder."""
        relation = self._find(table)
        with self._errors(self._place):
            ((needed,),) = fetch(self._connection, f"SELECT pg_table_size({relation.oid}::oid)", by_copy=False)
        return Room(needed=int(needed), free=self._free(), where="the server's disk")

    def copy(self, table: str, *, name: str, where: str | None, as_of: str | None) -> Copied:
        rows = f"FROM {self._find(table).sql}{condition(where)}"
        copy_path = self._path(name)
        with self._errors(table):
            execute(self._connection, "BEGIN ISOLATION LEVEL REPEATABLE READ")
            try:
                execute(self._connection, f"CREATE TABLE {copy_path} AS SELECT * {rows}")
                copied = check_rows(
                    Copied(
                        rows=self._number(f"SELECT count(*) FROM {copy_path}"),
                        source_rows=self._number(f"SELECT count(*) {rows}"),
                        is_one_state=True,
                    ),
                    table=table,
                    name=name,
                )
                execute(self._connection, "COMMIT")
            except BaseException:
                execute(self._connection, "ROLLBACK")
                raise
        return copied

    def count(self, name: str) -> int:
        with self._errors(name):
            return self._number(f"SELECT count(*) FROM {self._path(name)}")

    def drop(self, name: str) -> None:
        with self._errors(name):
            execute(self._connection, f"DROP TABLE {self._path(name)}")

    def close(self) -> None:
        self._connection.close()

    def _number(self, query: str) -> int:
        ((number,),) = fetch(self._connection, query, by_copy=False)
        return int(number)

    def _find(self, table: str) -> Relation:
        with self._errors(self._place):
            return find_relation(self._connection, table, place=self._place, user=self._user)

    def _schema(self) -> str:
        with self._errors(self._place):
            ((schema,),) = fetch(self._connection, "SELECT current_schema()::text", by_copy=False)
        if schema is None:
            raise SourceError(
                f"`{self._place}` has no schema for new tables of this user",
                state=NOT_MADE,
                hint="let a DBA run `GRANT CREATE ON SCHEMA ...`, or set the role's `search_path`",
            )
        return str(schema)

    def _path(self, name: str) -> str:
        """`schema.name`, each part quoted; a bare name is of the schema that new tables go to."""
        return quoted_path(name if "." in name else f"{self._schema()}.{name}")

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        with postgres_errors(what):
            try:
                yield
            except adbc_driver_manager.Error as error:
                if error.sqlstate not in _REFUSED:
                    raise
                fault, hint = _REFUSED[error.sqlstate]
                raise SourceError(f"`{what}` cannot be copied: {fault}", state=NOT_MADE, hint=hint) from None

    def _free(self) -> int | None:
        try:
            ((folder,),) = fetch(self._connection, "SELECT current_setting('data_directory')", by_copy=False)
            ((host,),) = fetch(self._connection, "SELECT host(inet_server_addr())", by_copy=False)
        except adbc_driver_manager.Error:  # a setting that only some users may see
            return None
        is_here = host is None or str(host) in ("127.0.0.1", "::1")
        try:
            return shutil.disk_usage(str(folder)).free if is_here and Path(str(folder)).is_dir() else None
        except OSError:  # the server's folder is for the server alone
            return None
