"""Tables with every defect of the checklist planted in known numbers, in each kind of source."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import duckdb
import oracledb
import psycopg
from tests.scenarios.scenario_support import Project, make_csv, make_duckdb, make_parquet, make_sqlite

GOOD: Final = 150
SCRIPT: Final = """
CREATE TABLE stores (CODE VARCHAR, NAME VARCHAR);
CREATE TABLE people (CODE VARCHAR, BOSS VARCHAR);
CREATE TABLE sales (
    ID VARCHAR, NAME VARCHAR, NOTE VARCHAR, AMOUNT DECIMAL(12,4), SOLD_ON DATE, STATUS VARCHAR, MUST VARCHAR,
    STORE VARCHAR, EMAIL VARCHAR, TOWN BLOB
);
"""
PLAN: Final = """\
version: 1
project: defects
source: {{url: "{url}", timezone: Asia/Bangkok{user}}}
target: {{url: "twin:./org.duckdb", twin_schema: schema.yaml}}
tables:
  - table: stores
    object: Store__c
    key: CODE
    external_id: Store_Code__c
    fields: {{CODE: {{field: Store_Code__c, personal: false}}, NAME: {{field: Name, personal: true}}}}
  - table: people
    object: Person__c
    key: CODE
    external_id: Person_Code__c
    fields:
      CODE: Person_Code__c
      BOSS: {{field: Boss__r.Person_Code__c, parent: people}}
  - table: sales
    object: Sale__c
    key: ID
    external_id: Sale_Key__c
    duplicates: keep_first
    fields:
      ID: {{field: Sale_Key__c, personal: false}}
      NAME: {{field: Title__c, personal: true}}
      NOTE: {{field: Note__c, personal: false}}
      AMOUNT: {{field: Amount__c, personal: false}}
      SOLD_ON: {{field: Sold_On__c, personal: false}}
      STATUS: {{field: Status__c, personal: false}}
      MUST: {{field: Must__c, personal: false}}
      STORE: {{field: Store__r.Store_Code__c, parent: stores, personal: false}}
      EMAIL: Email__c
      TOWN: {{field: Town__c, encoding: windows-874, personal: false}}
"""
SCHEMA: Final = """\
objects:
  Store__c:
    fields:
      Store_Code__c: {type: string, length: 10, externalId: true, unique: true}
  Person__c:
    fields:
      Person_Code__c: {type: string, length: 10, externalId: true, unique: true}
      Boss__c: {type: reference, referenceTo: Person__c, relationshipName: Boss__r}
  Sale__c:
    fields:
      Sale_Key__c: {type: string, length: 12, externalId: true, unique: true}
      Title__c: {type: string, length: 20}
      Note__c: {type: textarea, length: 40}
      Amount__c: {type: currency, precision: 8, scale: 2}
      Sold_On__c: {type: date}
      Status__c: {type: picklist, restrictedPicklist: true, picklistValues: [Open, Closed]}
      Must__c: {type: string, length: 5, required: true}
      Store__c: {type: reference, referenceTo: Store__c, relationshipName: Store__r}
      Email__c: {type: string, length: 80}
      Town__c: {type: string, length: 40}
"""
COLUMNS: Final = ("ID", "NAME", "NOTE", "AMOUNT", "SOLD_ON", "STATUS", "MUST", "STORE", "EMAIL", "TOWN")
BASE: Final[dict[str, Any]] = {
    "NAME": "ร้านค้า",
    "NOTE": "สุวรรณภูมิ",
    "AMOUNT": "12.5000",
    "SOLD_ON": "2024-05-05",
    "STATUS": "Open",
    "MUST": "yes",
    "STORE": "S1",
    "EMAIL": "someone@example.com",
    "TOWN": "กรุงเทพ".encode("cp874"),
}
# What is planted: kind of finding, its column, what is done with it, and what the rows have instead of the base's.
PLANTED: Final[list[tuple[str, str, str, list[dict[str, Any]]]]] = [
    ("null_key", "ID", "rejected", [{"ID": None}] * 3),
    ("too_long", "NAME", "rejected", [{"NAME": "ก" * 21}] * 4 + [{"NAME": "x" * 19 + "😀"}]),
    ("number_size", "AMOUNT", "rejected", [{"AMOUNT": "1234567.0000"}] * 3 + [{"AMOUNT": "999999.9950"}]),
    ("rounded", "AMOUNT", "changed", [{"AMOUNT": "1.0050"}] * 3),
    ("negative", "AMOUNT", "warned", [{"AMOUNT": "-1.0000"}] * 6),
    ("invalid_date", "SOLD_ON", "rejected", [{"SOLD_ON": "1650-01-01"}] * 2 + [{"SOLD_ON": "4500-01-01"}] * 2),
    ("future_date", "SOLD_ON", "warned", [{"SOLD_ON": "2150-01-01"}] * 3),
    ("buddhist_era", "SOLD_ON", "warned", [{"SOLD_ON": "2567-05-05"}] * 7),
    ("control_characters", "NOTE", "changed", [{"NOTE": "bell\x07"}] * 4),
    ("special_characters", "NOTE", "kept", [{"NOTE": "zero\u200bwidth"}, {"NOTE": "no\u00a0break"}]),
    ("replacement_character", "NOTE", "kept", [{"NOTE": "lost \ufffd"}] * 2),
    ("mojibake", "NOTE", "kept", [{"NOTE": "cafÃ©"}, {"NOTE": "à¸ªà¸§à¸±"}, {"NOTE": "ÊÇÑÊ´Õ"}]),
    ("encoding_error", "TOWN", "rejected", [{"TOWN": b"\xa1\xdb"}] * 3),
    ("picklist", "STATUS", "rejected", [{"STATUS": "Lost"}] * 4),
    ("empty_required", "MUST", "rejected", [{"MUST": None}] * 4 + [{"MUST": "  "}]),
    ("missing_parent", "STORE", "rejected", [{"STORE": "S9"}] * 5 + [{"STORE": "STORE-TOO-LONG"}]),
    ("outer_blanks", "NAME", "changed", [{"NAME": " padded "}] * 2),
    ("na_text", "NAME", "rejected", [{"NAME": "#N/A"}]),
    ("duplicate", "ID", "dropped", [{"ID": key} for key in (*["TWIN"] * 3, *["COPY"] * 3, "cAsE", "CASE", " case ")]),
]  # fmt: skip
COPIES_EQUAL, COPIES_BY_RULE, REPEATED_KEYS = 4, 2, 3
# Beside what was meant: a Buddhist year is in the future, and blanks go before the rule of the key or of the field.
BESIDE: Final = {
    ("future_date", "SOLD_ON", "warned"): 7,
    ("outer_blanks", "ID", "changed"): 0,
    ("duplicate", "ID", "dropped"): -REPEATED_KEYS,
    ("empty", "MUST", "changed"): 0,
}
TOLD: Final = {
    ("mixed_calendars", "SOLD_ON", "told"): 7,
    ("unclassified_personal", "EMAIL", "told"): None,  # all rows
}
STORES: Final = [("S1", "Airport"), ("S2", "City"), ("STORE-TOO-LONG", "Never")]
# Two in a circle, one for itself, one below them, three of no circle; two look nobody up that exists.
PEOPLE: Final = [
    ("ann", "bob"), ("bob", "ANN"), ("cid", "cid"), ("dot", "ann"), ("top", None), ("mid", "top"), ("low", "mid"),
    ("lost", "nobody"), ("gone", "none"),
]  # fmt: skip
PEOPLE_FOUND: Final = {("circular_reference", "BOSS", "linked"): 3, ("missing_parent", "BOSS", "failed"): 2}


def sales_rows() -> list[list[Any]]:
    """Good rows, and behind them the planted ones."""
    made = [{"ID": f"K{number:05}", **BASE} for number in range(GOOD)]
    number = GOOD
    for _, _, _, rows in PLANTED:
        for row in rows:
            made.append({"ID": f"K{number:05}", **BASE, **row})
            number += 1
    return [[row[name] for name in COLUMNS] for row in made]


def sales_found() -> dict[tuple[str, str, str], int]:
    """How many rows each finding of `sales` must have."""
    found = {(kind, column, action): len(rows) for kind, column, action, rows in PLANTED}
    for name, more in BESIDE.items():
        found[name] = found.get(name, 0) + more
    rows = len(sales_rows())
    found |= {name: rows if count is None else count for name, count in TOLD.items()}
    return {name: count for name, count in found.items() if count}


def all_rows() -> dict[str, Sequence[Sequence[Any]]]:
    """Rows by table."""
    return {"stores": [list(row) for row in STORES], "people": [list(row) for row in PEOPLE], "sales": sales_rows()}


def make_project(folder: Path, kind: str, *, url: str = "", user: str = "") -> Project:
    """A project with the defects in a source that is a file or a folder; for servers only plan and schema."""
    project = Project(folder)
    urls = {"sqlite": "sqlite:///source.db", "duckdb": "duckdb:///source.duckdb"}
    text = PLAN.format(url=url or urls.get(kind, "files:./data"), user=user)
    project.plan.write_text(text, encoding="utf-8")
    (folder / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    makers = {"sqlite": make_sqlite, "duckdb": make_duckdb, "csv": make_csv, "parquet": make_parquet}
    if kind in makers:
        makers[kind](project, SCRIPT, all_rows())
    return project


def make_postgresql(dsn: str) -> None:
    """The tables in PostgreSQL, with its own types."""
    with closing(duckdb.connect()) as drafts, psycopg.connect(dsn) as connection:
        drafts.execute(SCRIPT)
        kinds = {"BLOB": "bytea", "VARCHAR": "text", "DATE": "date"}
        for table, rows in all_rows().items():
            described = drafts.execute(f"DESCRIBE {table}").fetchall()
            columns = ", ".join(f'"{name}" {kinds.get(kind, kind)}' for name, kind, *_ in described)
            connection.execute(f'CREATE TABLE "{table}" ({columns})')
            marks = ", ".join("%s" for _ in described)
            connection.cursor().executemany(f'INSERT INTO "{table}" VALUES ({marks})', rows)


def make_oracle(connection: oracledb.Connection) -> None:
    """The tables in Oracle, with its own types."""
    cursor = connection.cursor()
    cursor.execute('CREATE TABLE "stores" (CODE VARCHAR2(20), NAME VARCHAR2(80))')
    cursor.execute('CREATE TABLE "people" (CODE VARCHAR2(20), BOSS VARCHAR2(20))')
    cursor.execute(
        'CREATE TABLE "sales" (ID VARCHAR2(20), NAME VARCHAR2(200), NOTE VARCHAR2(200), AMOUNT NUMBER(12,4),'
        " SOLD_ON DATE, STATUS VARCHAR2(20), MUST VARCHAR2(20), STORE VARCHAR2(20), EMAIL VARCHAR2(80), TOWN RAW(80))"
    )
    for table, rows in all_rows().items():
        marks = ", ".join(f":{place}" for place in range(1, len(rows[0]) + 1))
        bound = [[_bound(name, value) for name, value in zip(COLUMNS, row, strict=False)] for row in rows]
        cursor.executemany(f'INSERT INTO "{table}" VALUES ({marks})', bound if table == "sales" else list(rows))
    connection.commit()


def _bound(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name == "AMOUNT":
        return Decimal(value)
    return datetime.fromisoformat(value) if name == "SOLD_ON" else value
