"""What a database counts by SQL is what the rows give when they are read, column by column, under awkward names."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import psycopg
import pytest
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, connect, oracle_19c
from tests.scenarios.scenario_support import Project

from forcelift.before.profile import ColumnProfile, TableProfile, scan
from forcelift.preflight.profiling import ProfileSettings, profile_plan

if TYPE_CHECKING:
    from tests.postgres_support import Postgres

__all__ = ["oracle_19c"]

pytest_plugins = ["tests.postgres_support"]

ROWS: Final = 700
TABLE: Final = 'The "odd" ตาราง'
# Name, and how each database declares it; the last two are not mapped.
COLUMNS: Final[dict[str, tuple[str, str, str, str]]] = {
    "select": ("INTEGER", "BIGINT", "bigint", "NUMBER(12)"),
    "ชื่อ": ("TEXT", "VARCHAR", "text", "VARCHAR2(200)"),
    'we"ird': ("TEXT", "VARCHAR", "varchar(80)", "VARCHAR2(80)"),
    "two words": ("DECIMAL(12,4)", "DECIMAL(12,4)", "numeric(12,4)", "NUMBER(12,4)"),
    "v0": ("REAL", "DOUBLE", "float8", "BINARY_DOUBLE"),
    "n": ("NUMERIC", "DECIMAL(38,0)", "numeric", "NUMBER"),
    "Day": ("TEXT", "DATE", "date", "DATE"),
    "moment": ("TEXT", "TIMESTAMP", "timestamp", "TIMESTAMP(6)"),
    "nothing": ("TEXT", "VARCHAR", "text", "VARCHAR2(10)"),
    "digits": ("TEXT", "VARCHAR", "text", "VARCHAR2(20)"),
    "padded": ("TEXT", "VARCHAR", "char(6)", "CHAR(6)"),
    "apart": ("TEXT", "VARCHAR", "text", "VARCHAR2(40)"),
    "order": ("INTEGER", "INTEGER", "int4", "NUMBER(9)"),
}
KINDS: Final = ("sqlite", "duckdb", "postgresql", "oracle")
UNMAPPED: Final = ("apart", "order")


def rows() -> list[list[Any]]:
    draw = random.Random(4711)
    made: list[list[Any]] = []
    for number in range(ROWS):
        day = date(1690, 1, 1) + timedelta(days=draw.randrange(140_000))
        moment = datetime(1999, 12, 31, 23, 59, 58) + timedelta(microseconds=draw.randrange(10**15))
        made.append(
            [
                number,
                draw.choice(["ก", "กขค", "Zebra", "apple", "Äpfel", "😀", "x" * 150, "x" * 150 + "y", " a ", "a"]),
                f"{draw.randrange(10**6)}" if draw.random() < 0.9 else None,
                Decimal(draw.randrange(-(10**8), 10**8)) / 10_000 if draw.random() < 0.95 else None,
                draw.choice([0.1, 2.5, -1e300, 1e-7, 3.0, None]),
                Decimal(draw.choice([0, -7, 10**20, 12])),
                day if draw.random() < 0.8 else None,
                moment,
                None,
                draw.choice(["7", "12", "100", "-3", "08"]),
                draw.choice(["abc   ", "abcdef"]),
                draw.choice(["secret", "other", None]),
                draw.choice([1, 2, 2, 3]),
            ]
        )
    return made


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def plan_of(url: str, user: str) -> str:
    def fields(name: str, at: int) -> str:
        return f"      '{name}': {{field: F{at}__c, personal: false}}"

    listed = [fields(name, at) for at, name in enumerate(COLUMNS) if name not in UNMAPPED]
    return (
        f'version: 1\nproject: odd\nsource: {{url: "{url}", timezone: UTC{user}}}\n'
        'target: {url: "twin:./org.duckdb", twin_schema: schema.yaml}\n'
        f"tables:\n  - table: '{TABLE}'\n    object: Odd__c\n    key: select\n    external_id: F0__c\n    fields:\n"
        + "\n".join(listed)
        + "\n"
    )


SCHEMA: Final = """\
objects:
  Odd__c:
    fields:
      F0__c: {type: string, length: 40, externalId: true, unique: true}
      F1__c: {type: string, length: 255}
      F2__c: {type: string, length: 80}
      F3__c: {type: double, precision: 16, scale: 4}
      F4__c: {type: string, length: 255}
      F5__c: {type: string, length: 80}
      F6__c: {type: date}
      F7__c: {type: datetime}
      F8__c: {type: string, length: 10}
      F9__c: {type: double, precision: 12, scale: 0}
      F10__c: {type: string, length: 10}
"""


def fill_sqlite(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        listed = ", ".join(f"{quoted(name)} {kinds[0]}" for name, kinds in COLUMNS.items())
        connection.execute(f"CREATE TABLE {quoted(TABLE)} ({listed})")
        plain = [
            [float(v) if isinstance(v, Decimal) else str(v) if isinstance(v, date) else v for v in row]
            for row in rows()
        ]
        connection.executemany(f"INSERT INTO {quoted(TABLE)} VALUES ({', '.join('?' * len(COLUMNS))})", plain)
        connection.commit()


def fill_duckdb(path: Path) -> None:
    with closing(duckdb.connect(str(path))) as connection:
        listed = ", ".join(f"{quoted(name)} {kinds[1]}" for name, kinds in COLUMNS.items())
        connection.execute(f"CREATE TABLE {quoted(TABLE)} ({listed})")
        connection.executemany(f"INSERT INTO {quoted(TABLE)} VALUES ({', '.join('?' * len(COLUMNS))})", rows())


def fill_postgresql(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        listed = ", ".join(f"{quoted(name)} {kinds[2]}" for name, kinds in COLUMNS.items())
        connection.execute(f"CREATE TABLE {quoted(TABLE)} ({listed})")
        marks = ", ".join(["%s"] * len(COLUMNS))
        connection.cursor().executemany(f"INSERT INTO {quoted(TABLE)} VALUES ({marks})", rows())


ORACLE_TABLE: Final = "The odd ตาราง"  # no Oracle name holds a double quote
ORACLE_NAMES: Final = {'we"ird': "we'ird"}


def fill_oracle(server: OracleServer) -> None:
    with connect(server) as connection:
        cursor = connection.cursor()
        listed = ", ".join(f'"{ORACLE_NAMES.get(name, name)}" {kinds[3]}' for name, kinds in COLUMNS.items())
        cursor.execute(f'CREATE TABLE "{ORACLE_TABLE}" ({listed})')
        marks = ", ".join(f":{at + 1}" for at in range(len(COLUMNS)))
        days = [
            [datetime(v.year, v.month, v.day) if type(v) is date else -1e100 if v == -1e300 else v for v in row]
            for row in rows()
        ]
        cursor.executemany(f'INSERT INTO "{ORACLE_TABLE}" VALUES ({marks})', days)
        connection.commit()


@pytest.fixture
def odd(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The odd table in the source that the test names."""
    kind: str = request.param
    project = Project(tmp_path)
    (tmp_path / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    url, user = f"{kind}:///source.db", ""
    if kind == "sqlite":
        fill_sqlite(tmp_path / "source.db")
    elif kind == "duckdb":
        fill_duckdb(tmp_path / "source.db")
    elif kind == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        database: str = request.getfixturevalue("database")
        fill_postgresql(postgres.dsn(database))
        url = postgres.url(database).replace("@/", "@localhost/")
    else:
        server: OracleServer = request.getfixturevalue("oracle_19c")
        fill_oracle(server)
        monkeypatch.setenv("ORACLE_PASSWORD", PASSWORD)
        url, user = f"oracle://127.0.0.1:{server.port}/{server.service}", ', user: KPS, password: "${ORACLE_PASSWORD}"'
    text = plan_of(url, user)
    if kind == "oracle":
        text = text.replace(f"'{TABLE}'", f"'{ORACLE_TABLE}'").replace("'we\"ird'", '"we\'ird"')
    project.plan.write_text(text, encoding="utf-8")
    return project


def figures(table: TableProfile) -> dict[str, tuple[Any, ...]]:
    return {one.name: _figures(one) for one in table.columns}


def _figures(one: ColumnProfile) -> tuple[Any, ...]:
    if one.name == "n":
        # As it is read it is text in two databases, and in SQLite the largest do not fit; SQL counts them as numbers.
        return (one.nulls, one.shortest, one.longest)
    least, most = one.least, one.most
    if one.kind in ("decimal", "float", "integer"):
        least, most = (None if text is None else f"{float(text):.12g}" for text in (least, most))
    return (
        one.nulls,
        one.distinct,
        least,
        most,
        None if one.average is None else pytest.approx(one.average),
        one.shortest,
        one.longest,
        None if one.average_length is None else pytest.approx(one.average_length),
    )


@pytest.mark.parametrize("odd", KINDS, indirect=True)
def test_what_sql_counts_is_what_the_rows_give(odd: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = profile_plan(odd.plan, ProfileSettings(all_columns=True)).tables[0]
    monkeypatch.setattr(scan, "count_columns", lambda *given: None)
    read = profile_plan(odd.plan, ProfileSettings(all_columns=True)).tables[0]
    # Texts that a number field takes are numbers to the plan alone.
    assert counted.counted.startswith(
        f"{len(COLUMNS) - 1} of {len(COLUMNS)} columns were counted by the database itself"
    )
    assert "as the rows were read" in read.counted
    assert len(counted.columns) == len(COLUMNS)
    assert figures(counted) == figures(read)
    for one, other in zip(counted.columns, read.columns, strict=True):
        # What is counted one by one in all rows by both ways must be the same values, most frequent first.
        if one.top_of == other.top_of == ROWS and one.name != "n":
            assert one.top == other.top, one.name
        assert one.lengths == other.lengths
    assert {(f.name, f.rows) for f in counted.findings} == {(f.name, f.rows) for f in read.findings}
    assert all(one.distinct_is_exact for one in counted.columns)
    number = next(one for one in counted.columns if one.name == "n")
    assert (float(number.least or "nan"), float(number.most or "nan")) == (-7, 1e20)
    assert number.top[0].value is not None
    assert {one.value for one in number.top} == {"0", "-7", "12", f"1{'0' * 20}"}


@pytest.mark.parametrize(
    "odd", ["sqlite", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])], indirect=True
)
def test_every_column_has_figures_and_only_mapped_ones_are_read(odd: Project) -> None:
    table = profile_plan(odd.plan).tables[0]
    columns = {one.name: one for one in table.columns}
    apart, order = columns["apart"], columns["order"]
    given = [row[list(COLUMNS).index("apart")] for row in rows()]
    assert (apart.nulls, apart.distinct, apart.longest, apart.field) == (given.count(None), 2, 6, None)
    assert [(one.value, one.rows) for one in apart.top] == sorted(
        (("***", given.count(word)) for word in ("secret", "other")), key=lambda one: -one[1]
    )
    assert (order.least, order.most, order.top[0].value) == ("1", "3", "2")
    assert not [one for one in table.findings if one.column in UNMAPPED]
