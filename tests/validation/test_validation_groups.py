"""Level 4's pairs of SQL and SOQL: strange group keys, null groups, groups of one side, and more groups than a page."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pytest
from tests.validation.little_world import LittleWorld, checks_of, little_world

from forcelift.errors import ExitCode

if TYPE_CHECKING:
    from tests.postgres_support import Postgres

pytest_plugins = ["tests.postgres_support"]

GROUPS = ["it's", 'a "quoted" one', "back\\slash", "ร้านกาแฟ น้ำผึ้ง", "😀 two", "Ärger", "%_like", "x'; DELETE", None]
ROWS = 180
CHECKS = """
      - {name: sums, sum: amount, by: text, tolerance: "0"}
      - name: pair
        sql: "SELECT text, sum(amount) FROM things GROUP BY text"
        soql: "SELECT Text__c, SUM(Amount__c) FROM Thing__c WHERE Key__c != null GROUP BY Text__c"
      - name: days
        sql: "SELECT sold, text, sum(pieces) FROM things GROUP BY sold, text"
        soql: "SELECT Day__c, Text__c, SUM(Pieces__c) FROM Thing__c GROUP BY Day__c, Text__c"
      - name: all
        sql: "SELECT count(*) FROM things"
        soql: "SELECT COUNT() FROM Thing__c"
"""
FIELDS = (
    "{text: {field: Text__c, personal: false}, amount: {field: Amount__c, negative: keep}, sold: Day__c,"
    " pieces: Pieces__c}"
)
SCHEMA: dict[str, Any] = {
    "objects": {
        "Thing__c": {
            "fields": {
                "Name": {"type": "string", "length": 80},
                "Key__c": {"type": "string", "length": 40, "externalId": True},
                "Text__c": {"type": "string", "length": 80},
                "Amount__c": {"type": "currency", "precision": 18, "scale": 2},
                "Pieces__c": {"type": "double", "precision": 8, "scale": 1},
                "Day__c": {"type": "date"},
            }
        }
    }
}


def rows() -> list[tuple[str, str | None, Decimal | None, str | None, Decimal | None]]:
    """Amounts of both signs and none at all; half pieces, so that a group's number has a zero to lose."""
    return [
        (
            f"K{number:04d}",
            GROUPS[number % len(GROUPS)],
            None if number % len(GROUPS) == 1 else Decimal(number * 37 - 3000) / 100,
            None if number % 5 == 0 else f"2024-02-{number % 5:02d}",
            None if number % 3 == 0 else Decimal(number % 3) / 2,
        )
        for number in range(ROWS)
    ]


def fill_duckdb(folder: Path, _: Postgres | None) -> str:
    with closing(duckdb.connect(str(folder / "source.duckdb"))) as source:
        source.execute(
            "CREATE TABLE things (code VARCHAR, text VARCHAR, amount DECIMAL(12, 2), sold DATE, pieces DECIMAL(4, 1))"
        )
        source.executemany("INSERT INTO things VALUES (?, ?, ?, ?, ?)", rows())
    return f"duckdb:///{folder}/source.duckdb"


def fill_sqlite(folder: Path, _: Postgres | None) -> str:
    with closing(sqlite3.connect(folder / "source.db")) as source:
        source.execute("CREATE TABLE things (code TEXT PRIMARY KEY, text TEXT, amount NUMERIC, sold DATE, pieces REAL)")
        plain = [tuple(float(one) if isinstance(one, Decimal) else one for one in row) for row in rows()]
        source.executemany("INSERT INTO things VALUES (?, ?, ?, ?, ?)", plain)
        source.commit()
    return f"sqlite:///{folder}/source.db"


def fill_postgresql(_: Path, postgres: Postgres | None) -> str:
    assert postgres is not None
    name = postgres.create_database()
    with psycopg.connect(postgres.dsn(name), autocommit=True) as source:
        source.execute(
            "CREATE TABLE things (code text PRIMARY KEY, text text, amount numeric(12, 2), sold date,"
            " pieces numeric(4, 1))"
        )
        source.cursor().executemany("INSERT INTO things VALUES (%s, %s, %s, %s, %s)", rows())
    return postgres.plan_url(name)


FILLS = {"duckdb": fill_duckdb, "sqlite": fill_sqlite, "postgresql": fill_postgresql}


@pytest.fixture(params=list(FILLS))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LittleWorld]:
    """The same rows, loaded from each kind of database that takes SQL."""
    kind = str(request.param)
    postgres = request.getfixturevalue("postgres") if kind == "postgresql" else None
    url = FILLS[kind](tmp_path, postgres)
    with little_world(tmp_path, schema=SCHEMA) as made:
        # SQLite adds up in binary.
        checks = CHECKS.replace('GROUP BY Text__c"', 'GROUP BY Text__c"\n        tolerance: "0.000001"')
        made.write_plan(url, fields=FIELDS, checks=checks)
        made.run()
        yield made


def test_strange_and_null_groups_are_equal_on_both_sides_and_their_damage_is_named(world: LittleWorld) -> None:
    clean = world.validate("--level", "4")
    assert clean.code == ExitCode.DONE, clean.out
    found = {one["check"]: one for one in checks_of(clean, 4)}
    assert {name: (one["status"], one["source"]) for name, one in found.items()} == {
        "sums": ("passed", "9"),
        "pair": ("passed", "9"),
        "days": ("passed", "45"),
        "all": ("passed", "1"),
    }
    # A cent in the group of a quote, a record out of the null group into one that only the org has, a null turned zero.
    world.change("K0009", {"Amount__c": float(Decimal(9 * 37 - 3000) / 100 + Decimal("0.01"))})
    world.change("K0008", {"Text__c": "only here's"})
    for number in range(1, ROWS, len(GROUPS)):
        world.change(f"K{number:04d}", {"Amount__c": 0})
    damaged = world.validate("--level", "4")
    assert damaged.code == ExitCode.ROWS_REFUSED
    for name in ("sums", "pair"):
        (check,) = checks_of(damaged, 4, name)
        assert "1 groups only the org has" in check["reason"]
        groups = {one["key"]: (one["source"], one["target"]) for one in check["examples"]}
        assert set(groups) == {"it's", 'a "quoted" one', "only here's", "(null)"}
        assert groups["only here's"] == ("(no such group)", "-27.04")
        assert groups['a "quoted" one'] == (None, "0")
        source, target = (Decimal(text) for text in groups["it's"])
        assert round(target - source, 6) == Decimal("0.01")
    days = checks_of(damaged, 4, "days")[0]["examples"]
    assert [one["key"] for one in days] == ["2024-02-03 | (null)", "2024-02-03 | only here's"]


MANY = 4_700


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LittleWorld]:
    """More groups than two answers hold, of strange texts, and some rows of none."""
    folder = tmp_path_factory.mktemp("groups")
    with closing(duckdb.connect(str(folder / "source.duckdb"))) as source:
        source.execute(
            "CREATE TABLE things AS SELECT 'K' || i AS code, CASE WHEN i % 900 <> 0 THEN"
            " ['it''s ', 'ร้านกาแฟ ', '\"q\" ', 'back\\ ', '😀 ', 'Ärger ', 'z'][i % 7 + 1] || (i % 4600) END AS text,"
            f" (i * 0.01)::DECIMAL(12, 2) AS amount FROM range({MANY}) AS r(i)"
        )
    with little_world(folder) as made:
        made.write_plan(
            f"duckdb:///{folder}/source.duckdb",
            chunk_rows=5000,
            checks="""
      - name: one key
        sql: "SELECT text, sum(amount) FROM things GROUP BY text"
        soql: "SELECT Text__c, SUM(Amount__c) FROM Thing__c GROUP BY Text__c"
        tolerance: "0.000001"
      - name: two keys
        sql: "SELECT text, code, count(*) FROM things WHERE amount > 0 GROUP BY text, code HAVING count(*) > 0"
        soql: "select Text__c, Key__c, COUNT(Id) n from Thing__c where Amount__c > 0 group  by Text__c, Key__c
          having COUNT(Id) > 0"
      - name: ordered
        sql: "SELECT text, sum(amount) FROM things GROUP BY text"
        soql: "SELECT Text__c, SUM(Amount__c) FROM Thing__c GROUP BY Text__c ORDER BY Text__c"
""",
        )
        made.run()
        yield made


def test_more_groups_than_the_org_gives_at_once_are_asked_for_in_pages(many: LittleWorld) -> None:
    screen = many.validate("--level", "4")
    assert screen.code == ExitCode.DONE, screen.out
    found = {one["check"]: one for one in checks_of(screen, 4)}
    with closing(duckdb.connect(str(many.folder / "source.duckdb"), read_only=True)) as source:
        groups = source.execute("SELECT count(*) FROM (SELECT DISTINCT text FROM things)").fetchall()[0][0]
    assert groups > 4_000
    assert (found["one key"]["status"], found["one key"]["source"]) == ("passed", str(groups))
    assert (found["two keys"]["status"], found["two keys"]["source"]) == ("passed", str(MANY - 1))
    # A query that orders its groups itself cannot be cut, and is not said to be equal.
    assert found["ordered"]["status"] == "not_checked"
    assert "more than 2,000 groups and cannot be asked for in pages: it has ORDER BY" in found["ordered"]["reason"]


def test_a_group_on_any_page_that_differs_is_named(many: LittleWorld) -> None:
    for key in ("K1", "K2", "K4650"):
        many.change(key, {"Amount__c": 999})
    screen = many.validate("--level", "4")
    assert screen.code == ExitCode.ROWS_REFUSED
    (check,) = checks_of(screen, 4, "one key")
    assert {one["key"] for one in check["examples"]} == {"ร้านกาแฟ 1", '"q" 2', '"q" 50'}
