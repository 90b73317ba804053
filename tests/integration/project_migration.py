"""What the tests of a whole project share: a plan that runs in several batches, and counts of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.integration.cli_migration import Migration, cli_schema, make_source, write_plan

from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer


@contextmanager
def served_project(folder: Path, monkeypatch: pytest.MonkeyPatch, *, audit: str | None = None) -> Iterator[Migration]:
    """A source, an empty org and a plan; the audit database is SQLite unless its lines of the plan are given."""
    make_source(folder)
    monkeypatch.chdir(folder)
    with TwinOrg.open(schema=cli_schema()) as org, TwinServer(org) as server:
        write_plan(folder, server)
        if audit is not None:
            plan = folder / "forcelift.yaml"
            plan.write_text(plan.read_text(encoding="utf-8") + audit, encoding="utf-8")
        monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
        yield Migration(folder=folder, org=org, server=server)
        assert server.internal_errors == []


def status(migration: Migration) -> dict[str, dict[str, Any]]:
    """`status --project`, by table."""
    return {table["table"]: table for table in migration.document("status", "--project")["tables"]}


def counts(table: Mapping[str, Any]) -> dict[str, int]:
    """The counts of a table that are not 0."""
    names = (
        "source",
        "created",
        "updated",
        "failed",
        "rejected",
        "duplicate",
        "unknown",
        "rolled_back",
        "kept",
        "in_org",
    )
    return {name: table[name] for name in names if table[name]}


def source_count(migration: Migration, table: str, where: str = "true") -> int:
    """A count of the source of its own."""
    with duckdb.connect(str(migration.folder / "source.duckdb"), read_only=True) as connection:
        ((rows,),) = connection.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchall()
    return int(rows)


def change_source(migration: Migration, *statements: str) -> None:
    with duckdb.connect(str(migration.folder / "source.duckdb")) as connection:
        for statement in statements:
            connection.execute(statement)


def set_where(migration: Migration, table: str, where: str) -> None:
    """Give a table of the plan another `where`."""
    text: list[str] = []
    for line in migration.plan.read_text(encoding="utf-8").splitlines():
        if not (line.startswith("    where:") and text and text[-1].startswith("    where:")):
            text.append(line)
        if line.strip() == f"- table: {table}":
            text.append(f'    where: "{where}"')
    migration.plan.write_text("\n".join(text) + "\n", encoding="utf-8")
