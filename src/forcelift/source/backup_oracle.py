"""Copies of tables inside an Oracle database, by CREATE TABLE AS SELECT.

Writes:  one table. The statement commits by itself and leaves no table when it fails; a copy whose count is wrong is
         dropped again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import oracledb

from forcelift.errors import ForceliftError, SourceError
from forcelift.protocols.backups import Copied, Room
from forcelift.source.backup_names import NOT_MADE, check_rows, condition, quoted_path, suffixed
from forcelift.source.oracle_address import Address
from forcelift.source.oracle_errors import code_of, oracle_errors
from forcelift.source.oracle_session import connect_to, fetch

_NAME_BYTES = 128  # from 12.2 on; an older database says so by ORA-00972
_REFUSED = {
    955: ("there is a table of that name already", "give the copy another name by `--name`"),
    972: ("names are shorter in this database", "give the copy a short name by `--name`"),
    997: ("a column of type LONG cannot be copied so", "copy the table by Data Pump (`expdp`)"),
    1031: ("this user may make no tables", "let a DBA run `GRANT CREATE TABLE TO ...`"),
    1536: ("the user's quota is used up", "let a DBA run `ALTER USER ... QUOTA ... ON ...`"),
    1652: ("the tablespace is full", "let a DBA make it larger"),
    1653: ("the tablespace is full", "let a DBA make it larger"),
    1658: ("the tablespace is full", "let a DBA make it larger"),
    1950: ("the user has no quota", "let a DBA run `ALTER USER ... QUOTA UNLIMITED ON ...`"),
    8180: ("the database knows no state of that time", "name an SCN, or a time of the last days"),
    8181: ("the database holds no state as old as that", "name a later SCN or time, or copy without `--flashback`"),
    1555: ("the undo of that state is gone", "name a later SCN or time, or copy without `--flashback`"),
}


class OracleBackups:
    """Copies in the user's own schema, or in the schema of a table that is named with one."""

    kind = "oracle"
    has_flashback = True
    keeps_where = True

    def __init__(self, url: str, *, user: str | None, password: str | None) -> None:
        address = Address(url, user=user, password=password)
        self._place = address.shown
        self._connection = connect_to(address)
        with self._errors(self._place):
            self._connection.action = "backup"

    def name_for(self, table: str, suffix: str) -> str:
        return suffixed(table, suffix, bytes_max=_NAME_BYTES)

    def exists(self, name: str) -> bool:
        owner, _, last = name.rpartition(".")
        with self._errors(self._place):
            if owner:
                query = "SELECT COUNT(*) FROM all_tables WHERE owner = :owner AND table_name = :name"
                ((found,),) = fetch(self._connection, query, owner=owner, name=last)
            else:
                query = "SELECT COUNT(*) FROM user_tables WHERE table_name = :name"
                ((found,),) = fetch(self._connection, query, name=last)
        return bool(found)

    def room(self, table: str) -> Room:
        """The table's segments, and the free extents of the user's default tablespace, which may yet grow.

        Of a table in another schema the first needs DBA_SEGMENTS, and the second is not known: the copy goes there.
        """
        owner, _, last = table.rpartition(".")
        with self._errors(self._place):
            if owner:
                query = "SELECT SUM(bytes) FROM dba_segments WHERE owner = :owner AND segment_name = :name"
                needed, free = self._bytes(query, owner=owner, name=last), None
            else:
                needed = self._bytes("SELECT SUM(bytes) FROM user_segments WHERE segment_name = :name", name=last)
                free = self._bytes(
                    "SELECT NVL(SUM(bytes), 0) FROM user_free_space WHERE tablespace_name ="
                    " (SELECT default_tablespace FROM user_users)"
                )
        return Room(needed=needed, free=free, where="the user's default tablespace")

    def copy(self, table: str, *, name: str, where: str | None, as_of: str | None) -> Copied:
        flashback = "" if as_of is None else f" AS OF {_moment(as_of)}"
        rows = f"FROM {quoted_path(table)}{flashback}{condition(where)}"
        with self._errors(table):
            before = self._number(f"SELECT COUNT(*) {rows}")
            self._run(f"CREATE TABLE {quoted_path(name)} AS SELECT * {rows}")
        try:
            with self._errors(table):
                copy_rows = self._number(f"SELECT COUNT(*) FROM {quoted_path(name)}")
            copied = Copied(rows=copy_rows, source_rows=before, is_one_state=as_of is not None)
            return check_rows(copied, table=table, name=name)
        except BaseException as error:
            self._drop_after(error, name)
            raise

    def count(self, name: str) -> int:
        with self._errors(name):
            return self._number(f"SELECT COUNT(*) FROM {quoted_path(name)}")

    def drop(self, name: str) -> None:
        with self._errors(name):
            self._run(f"DROP TABLE {quoted_path(name)}")

    def _drop_after(self, error: BaseException, name: str) -> None:
        """Take a copy away that is of no use. If that fails too, what is told is why it was to go and that it stays."""
        try:
            self.drop(name)
        except ForceliftError as left:
            if isinstance(error, ForceliftError):
                error.state = f"the copy `{name}` could not be taken away ({left.message}); the table is as it was"

    def close(self) -> None:
        try:
            self._connection.close()
        except (oracledb.Error, OSError):
            return  # It was dead already; the server notices by itself.

    def _number(self, query: str) -> int:
        ((number,),) = fetch(self._connection, query)
        return int(number)

    def _bytes(self, query: str, **names: str) -> int | None:
        try:
            ((found,),) = fetch(self._connection, query, **names)
        except oracledb.DatabaseError as error:
            if code_of(error) not in (942, 1031):  # a view that this user may not see; a backup can do without
                raise
            return None
        return None if found is None else int(found)

    def _run(self, statement: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        with oracle_errors(what):
            try:
                yield
            except oracledb.Error as error:
                if code_of(error) not in _REFUSED:
                    raise
                fault, hint = _REFUSED[code_of(error)]
                raise SourceError(
                    f"`{what}` cannot be copied: {fault} (ORA-{code_of(error):05d})", state=NOT_MADE, hint=hint
                ) from None


def _moment(as_of: str) -> str:
    """What comes after AS OF: a statement that makes a table takes no binds, so only digits and a time get into it."""
    if as_of.isascii() and as_of.isdigit():
        return f"SCN {as_of}"
    try:
        moment = datetime.fromisoformat(as_of)
    except ValueError:
        raise SourceError(
            f"`{as_of}` is neither an SCN nor a time such as 2026-12-04T22:00",
            state=NOT_MADE,
            hint="give an SCN in digits, or a time in ISO 8601",
        ) from None
    if moment.tzinfo is not None:
        # AS OF takes the database's own time, whose zone nobody tells: to drop the one that is given would be to guess.
        raise SourceError(
            f"`{as_of}` names a time zone, and a flashback is as of the clock of the database's server",
            state=NOT_MADE,
            hint="give the time that the server's clock showed, without a zone, or an SCN",
        )
    text = moment.isoformat(sep=" ", timespec="seconds")
    return f"TIMESTAMP TO_TIMESTAMP('{text}', 'YYYY-MM-DD HH24:MI:SS')"
