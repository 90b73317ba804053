"""The same tests over a real Oracle: run where FORCELIFT_TEST_ORACLE_DSN names one, skipped everywhere else.

`tests/oracle_server/README.md` says how. The user's schema must be empty; what a test makes is dropped after it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oracledb
import pytest
from tests.integration.cli_migration import Migration
from tests.integration.test_oracle_run import (
    filled_oracle,
    test_a_sample_and_a_dry_run,
    test_a_whole_migration_from_oracle,
)
from tests.integration.test_oracle_types_run import CASES
from tests.integration.test_source_oracle import (
    read,
    sales,
    test_a_fault_of_where_is_told_without_values,
    test_a_sample_is_from_all_over_the_table,
    test_addresses_find_their_rows_again,
    test_all_reads_see_one_scn,
    test_many_readers_at_once,
    test_oddities_of_binary_floats_arrive,
    test_order_batches_and_no_columns,
    test_slices_by_rowid_hold_every_row_once,
)

from forcelift.source import open_source

DSN, USER, PASSWORD = (os.environ.get(f"FORCELIFT_TEST_ORACLE_{name}", "") for name in ("DSN", "USER", "PASSWORD"))
pytestmark = pytest.mark.skipif(not DSN, reason="FORCELIFT_TEST_ORACLE_DSN names no Oracle")
__all__ = [
    "sales",
    "test_a_fault_of_where_is_told_without_values",
    "test_a_sample_and_a_dry_run",
    "test_a_sample_is_from_all_over_the_table",
    "test_a_whole_migration_from_oracle",
    "test_addresses_find_their_rows_again",
    "test_all_reads_see_one_scn",
    "test_many_readers_at_once",
    "test_oddities_of_binary_floats_arrive",
    "test_order_batches_and_no_columns",
    "test_slices_by_rowid_hold_every_row_once",
]


def _tables(cursor: oracledb.Cursor) -> list[str]:
    return [name for (name,) in cursor.execute("SELECT table_name FROM user_tables").fetchall()]


@pytest.fixture
def connection() -> Iterator[oracledb.Connection]:
    """A session in an empty schema, which is empty afterwards."""
    with oracledb.connect(user=USER, password=PASSWORD, dsn=DSN) as made:
        cursor = made.cursor()
        if _tables(cursor):
            pytest.fail(f"the schema of {USER} is not empty: these tests drop what they find there after them")
        try:
            yield made
        finally:
            made.rollback()
            for name in _tables(cursor):
                cursor.execute(f'DROP TABLE "{name}"')


@pytest.fixture
def opened(connection: oracledb.Connection) -> Iterator[Any]:
    sources = []

    def build(parts: str = "", **options: Any) -> Any:
        sources.append(open_source(f"oracle://{DSN}{parts}", user=USER, password=PASSWORD, **options))
        return sources[-1]

    yield build
    for source in sources:
        source.close()


@pytest.fixture
def migration(connection: oracledb.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    sign_in = (USER, PASSWORD)
    yield from filled_oracle(connection, f"oracle://{DSN}", sign_in, tmp_path, monkeypatch, work=True)


def test_each_type_can_be_read(connection: oracledb.Connection, opened: Any) -> None:
    """Goal: no type stops the driver. What the org makes of the values is the test server's part."""
    cursor = connection.cursor()
    for at, (declared, value, *_) in enumerate(CASES):
        if "BINARY_DOUBLE" in value or "BINARY_FLOAT" in value or declared == "JSON":
            continue
        cursor.execute(f"CREATE TABLE t{at} (id NUMBER(5) PRIMARY KEY, v {declared})")
        cursor.execute(f"INSERT INTO t{at} VALUES (1, {value})")
    connection.commit()
    source = opened()
    for name in source.tables():
        assert read(source, name, ["ID", "V"]).num_rows == 1, name
