"""Users of the Oracle test server who keep an audit database there, and what stands in it as another client sees it."""

from __future__ import annotations

from itertools import count

import oracledb
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, connect

from forcelift.audit import tables

RIGHTS = ("CREATE SESSION", "CREATE TABLE", "CREATE SEQUENCE")
_numbers = count(1)


def new_user(server: OracleServer, *rights: str) -> str:
    """The name of a new user, with just the rights that the tables need unless others are named."""
    name = f"AUDITOR_{next(_numbers)}"
    server.add_user(name, PASSWORD, *(rights or RIGHTS))
    return name


def audit_url(server: OracleServer, user: str, password: str = PASSWORD) -> str:
    """The URL of that user's audit database."""
    return f"oracle://{user}:{password}@127.0.0.1:{server.port}/{server.service}"


def query(server: OracleServer, user: str, statement: str, *parameters: object, **named: object) -> list[tuple]:
    """As another client of the database sees it; a change is committed."""
    with connect(server, user) as connection, connection.cursor() as cursor:
        oracledb_lobs_as_texts(cursor)
        cursor.execute(statement, list(parameters) or named)
        rows = cursor.fetchall() if cursor.description else []
        connection.commit()
        return rows


def oracledb_lobs_as_texts(cursor: oracledb.Cursor) -> None:
    """Have CLOBs fetched as texts."""

    def handler(cursor: oracledb.Cursor, metadata: oracledb.FetchInfo) -> oracledb.Var | None:
        if metadata.type_code is oracledb.DB_TYPE_CLOB:
            return cursor.var(oracledb.DB_TYPE_LONG, arraysize=cursor.arraysize)
        return None

    cursor.outputtypehandler = handler


def empty_tables(server: OracleServer, user: str) -> None:
    """Nothing recorded any more, and numbers that begin at 1 again; past SQL, which would take a second for each."""
    found = [
        server.store.catalog.tables[user, table.name.upper()]
        for table in tables.metadata.sorted_tables
        if table is not tables.schema_version
    ]
    with server.store.latch:
        server.store.write(lambda writer: [writer.execute(f"DELETE FROM {table.stored}") for table in found])
        server.store.advance()
    for table in found:
        table.next_identity = 1
