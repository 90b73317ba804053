"""DuckDB as the twin opens it: silent. A copy of two lines, as the twin shares no code with what it is to prove."""

from __future__ import annotations

from typing import Any

import duckdb


def connect(path: str = ":memory:", *, config: dict[str, Any] | None = None) -> duckdb.DuckDBPyConnection:
    """Open a database; the bar that DuckDB draws on stdout where Python looks interactive is turned off."""
    connection = duckdb.connect(path, config=config or {})
    connection.execute("SET enable_progress_bar = false")
    return connection
