"""`profile` over tables that nobody would make on purpose: it ends, in JSON that others can read, with true counts."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import duckdb
import pytest
from rich.console import Console
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, connect, oracle_19c

from forcelift.before.profile.page import html_page
from forcelift.cli.profile_view import show_profile
from forcelift.preflight.profiling import ProfileSettings, profile_plan
from forcelift.source.oracle import open_oracle

__all__ = ["oracle_19c"]

SCHEMA: Final = """\
objects:
  Odd__c:
    fields:
      Key__c: {type: string, length: 255, externalId: true, unique: true}
      A__c: {type: string, length: 255}
      B__c: {type: double, precision: 18, scale: 4}
"""
_ODD: Final = {"id": "INTEGER", "v": "VARCHAR", "d": "TIMESTAMP", "n": "DECIMAL(10,2)", "b": "BOOLEAN", "f": "DOUBLE"}
_WIDE: Final = {f"c{at:03}": "VARCHAR" if at % 3 else "INTEGER" for at in range(200)}
# By name: columns with DuckDB's types, the key, rows.
TABLES: Final[dict[str, tuple[dict[str, str], list[str], list[list[Any]]]]] = {
    "zero": ({**_ODD, "x": "BLOB"}, ["id"], []),
    "allnull": (_ODD, ["id"], [[number, *[None] * 5] for number in range(3)]),
    "nullkey": ({"id": "INTEGER", "v": "VARCHAR"}, ["id"], [[None, None]] * 2),
    "wide": (_WIDE, ["c000"], [[row if at % 3 == 0 else f"v{row}" for at in range(200)] for row in range(20)]),
    "composite": (
        {"k1": "VARCHAR", "k2": "INTEGER", "v": "VARCHAR"},
        ["k1", "k2"],
        [["a", 1, "x"], ["a", 1, "y"], ["a|b", 2, None], [None, 3, None]],
    ),
    "huge": (
        {"id": "BIGINT", "n": "DECIMAL(38,0)", "f": "DOUBLE", "d": "DATE", "t": "TIMESTAMP"},
        ["id"],
        [
            [2**63 - 1, 10**38 - 1, 1.7e308, date(9999, 12, 31), datetime(9999, 12, 31, 23, 59, 59)],
            [-(2**63), 1 - 10**38, -1.7e308, date(1, 1, 1), datetime(1, 1, 1)],
            [0, 10**38 - 1, float("nan"), None, None],
            [1, 10**38 - 1, float("inf"), None, None],
            [2, 10**38 - 1, 5e-324, None, None],
        ],
    ),
    "quo\"te's; --": (
        {
            'co"l': "VARCHAR",
            "o'brien": "VARCHAR",
            "{x}": "VARCHAR",
            "{0}": "VARCHAR",
            "%s": "VARCHAR",
            "t\tt": "VARCHAR",
        },
        ['co"l'],
        [["1", "2", "3", "4", "5", "6"], [None] * 6],
    ),
    "fold": ({"Name": "VARCHAR", "name_": "VARCHAR"}, ["Name"], [["a", "b"], ["A ", ""]]),
    "order": (
        {"select": "VARCHAR", "from": "DECIMAL(18,2)", "group": "DATE"},
        ["select"],
        [["a", Decimal("1.5"), None]],
    ),
    "long": ({"id": "INTEGER", "t": "VARCHAR"}, ["id"], [[1, "x" * 50_000], [2, "😀" * 40_000]]),
}


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def make(folder: Path, kind: str) -> str:
    """All tables in a source of that kind; its URL."""
    if kind == "sqlite":
        with closing(sqlite3.connect(folder / "s.db")) as connection:
            for name, (columns, _, rows) in TABLES.items():
                listed = ", ".join(f"{quoted(one)} {declared}" for one, declared in columns.items())
                connection.execute(f"CREATE TABLE {quoted(name)} ({listed})")
                marks = ", ".join("?" * len(columns))
                connection.executemany(
                    f"INSERT INTO {quoted(name)} VALUES ({marks})", [list(map(_lite, row)) for row in rows]
                )
            connection.commit()
        return "sqlite:///s.db"
    path = folder / "s.duckdb" if kind == "duckdb" else ":memory:"
    (folder / "data").mkdir()
    with closing(duckdb.connect(str(path))) as database:
        for name, (columns, _, rows) in TABLES.items():
            listed = ", ".join(f"{quoted(one)} {declared}" for one, declared in columns.items())
            database.execute(f"CREATE TABLE {quoted(name)} ({listed})")
            if rows:
                database.executemany(f"INSERT INTO {quoted(name)} VALUES ({', '.join('?' * len(columns))})", rows)
            if kind != "duckdb":
                target = str(folder / "data" / f"{name}.{kind}").replace("'", "''")
                header = ", HEADER" if kind == "csv" else ""
                database.execute(f"COPY {quoted(name)} TO '{target}' (FORMAT {kind}{header})")
    return "duckdb:///s.duckdb" if kind == "duckdb" else "files:./data"


def _lite(value: Any) -> Any:
    if isinstance(value, Decimal) or (isinstance(value, int) and abs(value) > 2**63):
        return float(value)
    return str(value) if isinstance(value, date) else value


def write_plan(folder: Path, url: str, names: list[str]) -> Path:
    """A plan of these tables, each with a text and a number mapped."""
    tables = []
    for name in names:
        columns, key, _ = TABLES[name]
        rest = [one for one in columns if one not in key]
        texts = [one for one in rest if columns[one] == "VARCHAR"][:1]
        numbers = [one for one in rest if columns[one][:3] in ("DEC", "DOU")][:1]
        fields = {**dict.fromkeys(texts, "A__c"), **dict.fromkeys(numbers, "B__c")}
        tables.append({"table": name, "object": "Odd__c", "key": key, "external_id": "Key__c", "fields": fields})
    plan = {
        "version": 1,
        "project": "hostile",
        "source": {"url": url, "timezone": "Asia/Bangkok"},
        "target": {"url": "twin:./org.duckdb", "twin_schema": "schema.yaml"},
        "tables": tables,
    }
    (folder / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    path = folder / "forcelift.yaml"
    path.write_text(json.dumps(plan, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "kind",
    ["sqlite", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("duckdb", "parquet", "csv"))],
)
def test_it_ends_and_counts(tmp_path: Path, kind: str) -> None:
    path = write_plan(tmp_path, make(tmp_path, kind), list(TABLES))
    profile = profile_plan(path, ProfileSettings(export=tmp_path / "keys"))
    json.dumps(profile.document(), allow_nan=False)
    assert "<script" not in html_page(profile)
    show_profile(Console(file=io.StringIO()), profile, plan_file=path, page=None, export=None)
    for table in profile.tables:
        columns, _, rows = TABLES[table.table]
        assert table.rows == len(rows), table.table
        assert [one.name for one in table.columns] == list(columns), table.table
        assert "changed meanwhile" not in table.counted
    by_name = {table.table: table for table in profile.tables}
    assert by_name["nullkey"].null_keys == 2
    assert (by_name["composite"].null_keys, by_name["composite"].copies_equal) == (1, 1)
    if kind != "csv":
        identity = by_name["huge"].columns[0]
        assert (identity.least, identity.most) == (str(-(2**63)), str(2**63 - 1))
    profile_plan(path, ProfileSettings(all_columns=True, sample_percent="50"))


def test_oracle_tells_of_lobs_and_broken_text_what_it_can(oracle_19c: OracleServer) -> None:
    """A LOB is not compared, 200 columns go in two statements, and bytes that are no UTF-8 do not end it."""
    wide = ", ".join(f"c{at} NUMBER(9)" for at in range(200))
    with connect(oracle_19c) as connection:
        cursor = connection.cursor()
        cursor.execute(f'CREATE TABLE "odd" (note CLOB, broken VARCHAR2(20), {wide})')
        insert = 'INSERT INTO "odd" (note, broken, c0) VALUES (:1, UTL_RAW.CAST_TO_VARCHAR2(HEXTORAW(:2)), :3)'
        cursor.executemany(insert, [("x" * 5_000, "636166ff", 1), (None, "41", 1)])
        connection.commit()
    source = open_oracle(f"oracle://127.0.0.1:{oracle_19c.port}/{oracle_19c.service}", user="KPS", password=PASSWORD)
    try:
        names = [column.name for column in source.describe("odd").columns]
        found = source.figures("odd", columns=names, exact=[], where=None)
    finally:
        source.close()
    note, broken = found.columns["NOTE"], found.columns["BROKEN"]
    assert (note.present, note.distinct, note.least, note.longest, note.top) == (1, None, None, 5_000, None)
    assert (broken.distinct, broken.least, broken.most) == (2, "A", "caf\ufffd")
    assert (found.rows, len(found.columns)) == (2, 202)
    assert found.columns["C0"].top == (("1", 2),)
    assert found.columns["C199"].present == 0
