"""Rows that change in the source after the load are drift on every kind of source, and never a difference."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
import psycopg
import pytest
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, connect, oracle_19c
from tests.validation.little_world import checks_of, little_world

from forcelift.errors import ExitCode

if TYPE_CHECKING:
    from tests.postgres_support import Postgres

__all__ = ["oracle_19c"]

pytest_plugins = ["tests.postgres_support"]

ROWS = 90
Row = tuple[str, str, int]
Write = Callable[[list[Row]], None]


def rows() -> list[Row]:
    return [(f"K{number:03d}", f"text {number}", number * 10) for number in range(ROWS)]


def changed() -> list[Row]:
    """One row with another amount, one with another text, one gone, and two that are new."""
    after = [row for row in rows() if row[0] != "K070"]
    after[5] = ("K005", "text 5", 51)
    after[40] = ("K040", "another", 400)
    return [*after, ("N001", "new", 1), ("N002", "new", 2)]


@contextmanager
def files(folder: Path, kind: str) -> Iterator[tuple[str, str, Write]]:
    place = folder / "files"
    place.mkdir()

    def write(table: list[Row]) -> None:
        if kind == "parquet":
            pl.DataFrame(table, schema=["code", "text", "amount"], orient="row").write_parquet(place / "things.parquet")
            return
        with (place / "things.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("code", "text", "amount"), *table])

    yield f"files:{place}", "things", write


@contextmanager
def database(folder: Path, kind: str, postgres: Postgres | None) -> Iterator[tuple[str, str, Write]]:
    name = postgres.create_database() if postgres is not None else ""

    def connect() -> Any:
        if kind == "sqlite":
            return sqlite3.connect(folder / "source.db")
        if kind == "duckdb":
            return duckdb.connect(str(folder / "source.duckdb"))
        assert postgres is not None
        return psycopg.connect(postgres.dsn(name))

    def write(table: list[Row]) -> None:
        """In place, so that rows which stay keep their places."""
        mark = "%s" if kind == "postgresql" else "?"
        with closing(connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS things (code VARCHAR(20) PRIMARY KEY, text VARCHAR(80), amount INT)"
            )
            cursor.execute("SELECT code, text, amount FROM things")
            before = {row[0]: row for row in cursor.fetchall()}
            after = {row[0]: row for row in table}
            for row in after.values():
                if row[0] not in before:
                    cursor.execute(f"INSERT INTO things VALUES ({mark}, {mark}, {mark})", row)
                elif row != before[row[0]]:
                    cursor.execute(
                        f"UPDATE things SET text = {mark}, amount = {mark} WHERE code = {mark}", (*row[1:], row[0])
                    )
            for code in before.keys() - after.keys():
                cursor.execute(f"DELETE FROM things WHERE code = {mark}", (code,))
            connection.commit()

    urls = {"sqlite": f"sqlite:///{folder}/source.db", "duckdb": f"duckdb:///{folder}/source.duckdb"}
    yield urls[kind] if postgres is None else postgres.plan_url(name), "things", write


@contextmanager
def oracle_database(server: OracleServer) -> Iterator[tuple[str, str, Write]]:
    def write(table: list[Row]) -> None:
        with connect(server) as connection, connection.cursor() as cursor:
            if not server.store.catalog.tables:
                cursor.execute(
                    'CREATE TABLE "things" ("code" VARCHAR2(20) PRIMARY KEY, "text" VARCHAR2(80), "amount" NUMBER(9))'
                )
            before = {row[0]: row for row in cursor.execute('SELECT "code", "text", "amount" FROM "things"').fetchall()}
            after = {row[0]: row for row in table}
            for row in after.values():
                if row[0] not in before:
                    cursor.execute('INSERT INTO "things" VALUES (:1, :2, :3)', row)
                elif row != before[row[0]]:
                    cursor.execute(
                        'UPDATE "things" SET "text" = :1, "amount" = :2 WHERE "code" = :3', (*row[1:], row[0])
                    )
            for code in before.keys() - after.keys():
                cursor.execute('DELETE FROM "things" WHERE "code" = :1', (code,))
            connection.commit()

    yield f"oracle://KPS:${{ORACLE_PASSWORD}}@{server.dsn}", "things", write


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "postgresql", "oracle", "csv", "parquet"])
def test_changed_new_and_gone_rows_are_drift(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres = request.getfixturevalue("postgres") if kind == "postgresql" else None
    if kind == "oracle":
        monkeypatch.setenv("ORACLE_PASSWORD", PASSWORD)
        opened = oracle_database(request.getfixturevalue("oracle_19c"))
    else:
        opened = files(tmp_path, kind) if kind in ("csv", "parquet") else database(tmp_path, kind, postgres)
    # DuckDB moves a row into another chunk when it closes the gap of one that has gone; of a changed file no row is
    # known to be the one that was sent.
    drift = {"sqlite": 3, "postgresql": 3, "oracle": 3, "duckdb": 4, "csv": ROWS, "parquet": ROWS}[kind]
    with opened as (url, table, write), little_world(tmp_path) as world:
        write(rows())
        checks = "[{name: sums, sum: amount, by: text, tolerance: '0'}]"
        world.write_plan(url, table=table, checks=checks, chunk_rows=40)
        world.run()
        clean = world.validate("--levels", "all", "--sample", "1000")
        assert clean.code == ExitCode.DONE, clean.out
        assert set(clean.document["statuses"].items()) >= {("failed", 0), ("drift", 0), ("not_checked", 0)}
        write(changed())
        drifted = world.validate("--levels", "all", "--sample", "1000")
        assert drifted.code == ExitCode.DONE, drifted.out
        (counted,) = checks_of(drifted, 1, "source rows then and now")
        assert (counted["status"], counted["difference"]) == ("drift", "1")
        for level in (2, 4):
            (left,) = checks_of(drifted, level, "rows changed in the source since")
            assert (left["status"], left["source"]) == ("drift", str(drift)), level
        (sampled,) = checks_of(drifted, 3)
        assert (sampled["status"], sampled["source"]) == ("drift", str(ROWS - drift))
        assert {one["status"] for one in checks_of(drifted, 5)} == {"passed"}
        if drift == ROWS:
            # What could not be compared is not said to be equal.
            assert [one["check"] for one in checks_of(drifted, 2)] == ["rows changed in the source since"]
            assert checks_of(drifted, 4, "sums")[0]["status"] == "drift"
        # Damage is told from drift: to a row that has not changed by its field, to one that has by its key alone.
        world.change("K006", {"Amount__c": 0})
        world.change("K005", {"Amount__c": 51})
        damaged = world.validate("--levels", "3,5", "--sample", "1000")
        assert damaged.code == ExitCode.ROWS_REFUSED
        named = checks_of(damaged, 5, "records")[0]["examples"]
        field = None if drift == ROWS else "Amount__c"
        assert {(one["key"], one["field"]) for one in named} == {("K005", None), ("K006", field)}
        seen = [(one["key"], one["field"]) for one in checks_of(damaged, 3)[0]["examples"]]
        assert seen == ([] if drift == ROWS else [("K006", "Amount__c")])
