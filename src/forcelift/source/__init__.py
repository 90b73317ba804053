"""Source adapters: one module a database, one protocol (`forcelift.protocols.source`), Arrow batches out."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from forcelift.errors import SourceError
from forcelift.protocols.backups import Backups
from forcelift.protocols.source import SharedSnapshot, Source

__all__ = ["open_backups", "open_source"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_KNOWN = "`oracle://host/service`, `postgresql://host/db`, `sqlite:///path`, `duckdb:///path`, `files:./folder`"


def open_source(
    url: str,
    *,
    user: str | None = None,
    password: str | None = None,
    encoding: str = "utf-8",
    byte_tables: Mapping[str, str] | None = None,
    text_columns: Mapping[str, Collection[str]] | None = None,
    memory_mb: int | None = None,
    threads: int | None = None,
    offered: Sequence[SharedSnapshot] = (),
    sessions: int | None = None,
) -> Source:
    """Open the source that a URL names, read-only.

    Args:
        url: `oracle://host/service`, `postgresql://host/db`, `sqlite:///path`, `duckdb:///path` or `files:./folder`.
            Three slashes begin a path relative to the current folder, four an absolute one, as SQLAlchemy has it; a
            folder is written as it is.
        user: For Oracle and PostgreSQL; the others know no users, and refuse it.
        password: As `user`.
        encoding: Encoding of text in databases and CSV. Other than UTF-8: their text is delivered as the bytes that
            are stored, for the rules to decode. DuckDB and Parquet are UTF-8 by definition.
        byte_tables: Tables whose text is delivered as bytes whatever `encoding` is, because a table or a column of the
            plan has an encoding of its own; each with the encoding that its CSV header is written in.
        text_columns: SQLite only: per table, columns to deliver as text whatever their declared type.
        memory_mb: A limit for DuckDB, which reads DuckDB files and sorts and filters files; its own default if None.
        threads: How many threads DuckDB uses for that; as many as the machine has cores if None.
        offered: Oracle and PostgreSQL only: states of the source that other processes read and offer, see
            `SharedSnapshot`.
        sessions: Oracle only: how many sessions may be open at once; 8 if None.

    Raises:
        SourceError: The URL is not understood, there is nothing at its path, or what is there is of another kind.
        SourceUnavailable: It is there and locked by another program, or the server does not answer.
    """
    match = _SCHEME.fullmatch(url)
    scheme, rest = (match[1].lower(), match[2]) if match else ("", url)
    if scheme == "postgresql":
        from forcelift.source.postgresql import PostgresqlSource

        return PostgresqlSource(
            url, user=user, password=password, encoding=encoding, byte_tables=byte_tables or (), offered=offered
        )
    if scheme == "oracle":
        return _open_oracle(
            url,
            user=user,
            password=password,
            encoding=encoding,
            byte_tables=byte_tables or (),
            offered=offered,
            sessions=sessions,
        )
    if scheme not in ("sqlite", "duckdb", "files"):
        raise SourceError(
            f"`source.url` begins with `{scheme}:`, which no source adapter knows"
            if scheme
            else "`source.url` names no kind of source",
            state="nothing was read",
            hint=f"write one of {_KNOWN}",
        )
    if user is not None or password is not None:
        raise SourceError(
            f"a `{scheme}` source takes no user and no password",
            state="nothing was read",
            hint="remove `source.user` and `source.password` from the plan",
        )
    if scheme == "files":
        from forcelift.source.files import FilesSource

        folder = Path(unquote(rest.removeprefix("//")))
        return FilesSource(folder, encoding=encoding, byte_tables=byte_tables, memory_mb=memory_mb, threads=threads)
    if not rest.startswith("///") or not rest[3:]:
        raise SourceError(
            f"`source.url` names no file: a {scheme} source is written `{scheme}:///path`",
            state="nothing was read",
            hint=f"write one of {_KNOWN}",
        )
    path = Path(unquote(rest[3:]))
    if scheme == "sqlite":
        from forcelift.source.sqlite import SqliteSource

        return SqliteSource(path, encoding=encoding, byte_tables=byte_tables or (), text_columns=text_columns)
    from forcelift.source.duckdb import DuckdbSource

    return DuckdbSource(path, memory_mb=memory_mb, threads=threads)


def _open_oracle(url: str, **options: Any) -> Source:
    try:
        from forcelift.source.oracle import open_oracle
    except ModuleNotFoundError as error:
        if error.name != "oracledb":
            raise
        raise SourceError(
            "an Oracle source needs the driver python-oracledb, which is not installed",
            state="nothing was read",
            hint="install it by `pip install 'forcelift[oracle]'`",
        ) from None
    return open_oracle(url, **options)


def open_backups(
    url: str, *, user: str | None = None, password: str | None = None, encoding: str = "utf-8", into: Path
) -> Backups:
    """Open the place that keeps copies of a source's tables, to write.

    Args:
        url, user, password, encoding: As for `open_source`, which has opened that source before.
        into: Where copies of files go; databases keep theirs beside the tables.
    """
    scheme, _, rest = url.partition(":")
    scheme = scheme.lower()
    if scheme == "postgresql":
        from forcelift.source.backup_postgresql import PostgresqlBackups

        return PostgresqlBackups(url, user=user, password=password)
    if scheme == "oracle":
        from forcelift.source.backup_oracle import OracleBackups

        return OracleBackups(url, user=user, password=password)
    if scheme == "files":
        from forcelift.source.backup_files import FileBackups

        return FileBackups(Path(unquote(rest.removeprefix("//"))), into=into, encoding=encoding)
    from forcelift.source.backup_sqlite import DuckdbBackups, SqliteBackups

    path = Path(unquote(rest[3:]))
    return SqliteBackups(path) if scheme == "sqlite" else DuckdbBackups(path)
