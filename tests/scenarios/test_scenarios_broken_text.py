"""Bytes that are not UTF-8 in a table of which the plan says nothing: RULES' default rejects the row, and it alone."""

from __future__ import annotations

import csv
import io
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, connect, oracle
from tests.scenarios.scenario_support import Project

if TYPE_CHECKING:
    from tests.postgres_support import Postgres

__all__ = ["oracle"]

pytest_plugins = ["tests.postgres_support"]

SCHEMA = """\
objects:
  Shop__c:
    fields:
      Code__c: {type: string, length: 20, externalId: true, unique: true}
      Town__c: {type: string, length: 40}
      Memo__c: {type: string, length: 40}
"""
PLAN = """\
version: 1
project: Broken text
source: {url: "sqlite:///source.db"}
target: {url: "twin:./org.duckdb", twin_schema: schema.yaml}
tables:
  - table: shops
    object: Shop__c
    key: CODE
    external_id: Code__c
    duplicates: keep_first
    fields: {TOWN: Town__c, MEMO: {field: Memo__c, too_long: truncate}}
chunks: {rows: 3}
"""
KAO = "ก้าว".encode("tis-620")
# Code, town, memo; broken in a value, in two, at an end, in a key; and copies whose tie the broken text decides.
SHOPS = [
    (b"a", "ก้าว".encode(), b"ok"),
    (b"b", KAO, b"ok"),
    (b"c", b"x\xff", b" \xe0\xb9"),
    (b"d", b"plain", None),
    (b"e\xfe", b"plain", b"ok"),
    (b"f", b"x" * 30, b"y" * 50),
    (b"twin", b"z", b"ok"),
    (b"twin", b"\xa1", b"ok"),
    (b"TWIN", b"z\xa1", b"ok"),
]
WANTED = {
    "a": {"Town__c": "ก้าว", "Memo__c": "ok"},
    "d": {"Town__c": "plain", "Memo__c": None},
    "f": {"Town__c": "x" * 30, "Memo__c": "y" * 40},
}
WHERE = '"MEMO" <> \'no\' OR "CODE" IS NOT NULL'
BROKEN = ["b", "c", "e\ufffd"]


def sqlite_source(project: Project) -> str:
    with closing(sqlite3.connect(project.folder / "source.db")) as connection:
        connection.execute("CREATE TABLE shops (CODE TEXT, TOWN TEXT, MEMO)")
        connection.executemany("INSERT INTO shops VALUES (CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT))", SHOPS)
        connection.commit()
    return "sqlite:///source.db"


def csv_source(project: Project) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["CODE", "TOWN", "MEMO"])
    writer.writerows([[(value or b"").decode("latin-1") for value in shop] for shop in SHOPS])
    (project.folder / "data").mkdir()
    (project.folder / "data" / "shops.csv").write_bytes(text.getvalue().encode("latin-1"))
    return "files:./data"


def parquet_source(project: Project) -> str:
    kinds = (pa.string(), pa.string(), pa.large_string())
    arrays = [
        pa.array(column, pa.binary() if kind == pa.string() else pa.large_binary()).view(kind)
        for column, kind in zip(zip(*SHOPS, strict=True), kinds, strict=True)
    ]
    (project.folder / "data").mkdir()
    pq.write_table(pa.table(arrays, names=["CODE", "TOWN", "MEMO"]), project.folder / "data" / "shops.parquet")
    return "files:./data"


def postgresql_source(project: Project, postgres: Postgres, database: str) -> str:
    with psycopg.connect(postgres.dsn(database), client_encoding="SQL_ASCII", autocommit=True) as connection:
        connection.execute('CREATE TABLE shops ("CODE" text, "TOWN" text, "MEMO" varchar(60))')
        stored = ", ".join(["convert_from(%s, getdatabaseencoding())"] * 3)
        for shop in SHOPS:
            connection.execute(f"INSERT INTO shops VALUES ({stored})", shop)
    return postgres.url(database).replace("@/", "@localhost/")


def oracle_source(server: OracleServer) -> str:
    """The URL, and behind it the plan's words for who signs in."""
    with connect(server) as connection, connection.cursor() as cursor:
        cursor.execute('CREATE TABLE "shops" ("CODE" VARCHAR2(60), "TOWN" VARCHAR2(60), "MEMO" VARCHAR2(60))')
        texts = ", ".join(f"UTL_RAW.CAST_TO_VARCHAR2(HEXTORAW(:{at}))" for at in (1, 2, 3))
        for shop in SHOPS:
            stored = [None if value is None else value.hex() for value in shop]
            cursor.execute(f'INSERT INTO "shops" VALUES ({texts})', stored)
        connection.commit()
    return f'oracle://{server.dsn}", user: KPS, password: "${{ORACLE_PASSWORD}}'


MAKERS = {"sqlite": sqlite_source, "csv": csv_source, "parquet": parquet_source}


@pytest.mark.parametrize("kind", list(MAKERS))
def test_the_row_is_rejected_and_counted_and_all_others_arrive(kind: str, tmp_path: Path) -> None:
    project = make_project(tmp_path)
    check_twice(project, MAKERS[kind](project), where=WHERE)


def test_the_same_from_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    project = make_project(tmp_path)
    database = postgres.create_database("ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        check_twice(project, postgresql_source(project, postgres, database), where=WHERE)
    finally:
        postgres.drop_database(database)


def test_the_same_from_oracle(tmp_path: Path, oracle: OracleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORACLE_PASSWORD", PASSWORD)
    check_twice(make_project(tmp_path), oracle_source(oracle), where=WHERE)


@pytest.mark.parametrize("kind", list(MAKERS))
def test_what_is_broken_may_be_replaced_in_a_column_of_any_source(kind: str, tmp_path: Path) -> None:
    project = make_project(tmp_path)
    project.change_plan({'"sqlite:///source.db"': f'"{MAKERS[kind](project)}"'})
    project.change_plan({"TOWN: Town__c": "TOWN: {field: Town__c, encoding_error: replace}"})
    screen = project.run("--json", "--batch", "one")
    assert screen.code == 1, screen.err
    rows = {(key or "").lower(): (outcome, code) for key, outcome, code in project.outcomes("one")["shops"]}
    assert rows["b"] == ("created", None)
    assert rows["c"] == ("rejected", "REJECTED_ENCODING_ERROR")  # by its other column, which names nothing
    with project.served() as org:
        assert org.records("Shop__c", "Code__c", ["Town__c"])["b"]["Town__c"] == KAO.decode("utf-8", "replace")


def check_twice(project: Project, url: str, *, where: str) -> None:
    """In any other chunks the same; and where SQL has a say before the rules, it has it over such rows, too."""
    project.change_plan({'"sqlite:///source.db"': f'"{url}"'})
    screen = project.run("--json", "--batch", "one")
    assert screen.code == 1, screen.err
    check(project)
    quoted = where.replace("'", "''")
    project.change_plan({"rows: 3": "rows: 100", "key: CODE": f"key: CODE\n    where: '{quoted}'"})
    again = project.run("--json", "--batch", "two")
    assert again.code == 1, again.err
    assert decided(project, "two") == decided(project, "one")


def make_project(folder: Path) -> Project:
    project = Project(folder)
    (folder / "schema.yaml").write_text(SCHEMA)
    project.plan.write_text(PLAN)
    return project


def check(project: Project) -> None:
    rows = {(key or "").lower(): (outcome, code) for key, outcome, code in project.outcomes("one")["shops"]}
    assert {key: rows[key] for key in BROKEN} == dict.fromkeys(BROKEN, ("rejected", "REJECTED_ENCODING_ERROR"))
    outcomes = sorted(outcome or "" for _, outcome, _ in project.outcomes("one")["shops"])
    assert outcomes.count("duplicate") == 2
    with project.served() as org:
        found = org.records("Shop__c", "Code__c", ["Town__c", "Memo__c"])
    assert {key: found[key] for key in WANTED} == WANTED
    assert set(found) - {"twin", "TWIN"} == set(WANTED)
    shown = {record[1]: record[4] for record in project.failed_records()}
    assert len(shown) == len(project.failed_records())
    assert all("\x00" not in str(data) and "10fffe" not in ascii(data) for data in shown.values())


def decided(project: Project, batch: str) -> list[tuple[str, str, str | None]]:
    found = project.outcomes(batch)["shops"]
    return sorted((key or "", (outcome or "").replace("updated", "created"), code) for key, outcome, code in found)


def test_a_whole_file_in_another_encoding_is_rejected_row_by_row_with_what_to_do(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    (tmp_path / "data").mkdir()
    lines = [b"CODE,TOWN,MEMO\n", *(b"%d,%s,x\n" % (number, KAO) for number in range(20))]
    (tmp_path / "data" / "shops.csv").write_bytes(b"".join(lines))
    project.change_plan({"sqlite:///source.db": "files:./data"})
    screen = project.run()
    assert screen.code == 1, screen.err
    assert "REJECTED_ENCODING_ERROR" in screen.out
    assert "encoding" in screen.out
    assert project.traces() == (0, 0)
    project.change_plan({'url: "files:./data"': 'url: "files:./data", encoding: TIS-620'})
    assert project.run().code == 0
    assert project.traces()[0] == 20


def test_duckdb_itself_lets_no_such_text_in() -> None:
    """Why that source has no case above: what cannot be stored cannot be rejected."""
    with closing(duckdb.connect()) as connection:
        connection.execute("CREATE TABLE shops (town VARCHAR)")
        with pytest.raises(duckdb.Error):
            connection.execute("INSERT INTO shops SELECT decode('\\xA1\\xA2'::BLOB)")
        stored = connection.execute("SELECT CAST('\\xA1'::BLOB AS VARCHAR)").fetchone()
        assert stored == ("\\xA1",)
