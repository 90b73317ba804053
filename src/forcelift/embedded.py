"""DuckDB as everything here opens it: silent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb


def connect(
    path: str | Path = ":memory:", *, read_only: bool = False, config: Mapping[str, str | bool | int] | None = None
) -> duckdb.DuckDBPyConnection:
    """Open a database, in memory if no file is named.

    Where Python looks interactive (a notebook, `python -c`, an embedded interpreter), DuckDB's client draws a bar on
    stdout while a query takes long; stdout is for data. The option belongs to a session and is refused at opening, so
    that it does not keep several readers of one file apart; cursors do not draw.

    Raises:
        duckdb.Error: The file cannot be opened, or is not a database.
    """
    connection = duckdb.connect(str(path), read_only=read_only, config=dict(config or {}))
    connection.execute("SET enable_progress_bar = false")
    return connection
