"""The tables of the fault tests, and what must become of each row, computed by SQL of their own from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl

TENANT, SALE = "TENANT", "SALE"
TENANT_OBJECT, SALE_OBJECT, OTHER_OBJECT = "Tenant__c", "Sale__c", "Other__c"
OBJECTS = {TENANT: TENANT_OBJECT, SALE: SALE_OBJECT}
KEYS = {TENANT: "Tenant_Code__c", SALE: "Sale_Id__c"}
NOTE_LENGTH = 40


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What must become of the rows.

    Attributes:
        rows: Source rows by table.
        outcomes: Rows by table and outcome, where `good` is created or updated.
        records: The records that must stand in the org in the end, by table, columns as `RECORDS` names them.
        existing: The keys of `records` that stand in the org before the run, with other values, by table.
        holders: Records that stand there before and hold a unique value, because of which the org refuses rows.
    """

    rows: dict[str, int]
    outcomes: dict[str, dict[str, int]]
    records: dict[str, pl.DataFrame]
    existing: dict[str, pl.DataFrame]
    holders: dict[str, pl.DataFrame]


RECORDS = {
    TENANT: ["Tenant_Code__c", "Name", "Serial__c", "Boss__r.Tenant_Code__c"],
    SALE: ["Sale_Id__c", "Amount__c", "Sold_On__c", "Note__c", "Serial__c", "Tenant__r.Tenant_Code__c"],
}

_DRAW = "(hash({n} * 7919 + {salt} * 104729 + {seed}) % {of})"

_TENANTS = """
CREATE TABLE TENANT AS
SELECT printf('T%07d', n) AS TENANT_CODE, 'Tenant ' || n AS NAME,
    CASE WHEN {draw_taken} = 0 THEN printf('TAKEN-T%07d', n) ELSE printf('TS%07d', n) END AS SERIAL,
    CASE WHEN {draw_link} < 4 THEN NULL WHEN {draw_link} = 4 THEN printf('X%07d', n)
        ELSE printf('T%07d', {draw_boss}) END AS BOSS
FROM range({count}) t(n)
"""

_SALES = """
CREATE TABLE SALE AS
SELECT CASE WHEN kind = 0 THEN NULL WHEN kind IN (1, 2) THEN printf('s%08d', n - 1) ELSE printf('S%08d', n) END
        AS SALE_ID,
    CAST({draw_amount} AS DECIMAL(18, 2)) / 100 AS AMOUNT,
    DATE '2020-01-01' + CAST({draw_day} AS INTEGER) AS SOLD_ON,
    CASE WHEN kind IN (3, 4) THEN repeat('long ', 20) ELSE 'note ' || n || ', "quoted" ราคา' END AS NOTE,
    CASE WHEN kind IN (5, 6, 7) THEN printf('TAKEN-S%08d', n) ELSE printf('SS%08d', n) END AS SERIAL,
    CASE WHEN kind IN (8, 9, 10, 11) THEN printf('X%07d', n) WHEN kind = 12 THEN NULL
        ELSE printf('T%07d', {draw_tenant}) END AS TENANT_CODE,
    TIMESTAMP '2024-01-01' + INTERVAL (({draw_changed}) * {count} + n) SECOND AS CHANGED
FROM (SELECT n, {draw_kind} AS kind FROM range(1, {count} + 1) t(n))
"""

_TENANT_OUTCOMES = """
CREATE TABLE tenant_out AS
SELECT *, CASE WHEN SERIAL LIKE 'TAKEN%' THEN 'failed' ELSE 'good' END AS outcome FROM TENANT
"""

_SALE_OUTCOMES = """
CREATE TABLE sale_out AS
SELECT s.*, CASE
    WHEN SALE_ID IS NULL THEN 'rejected'
    WHEN row_number() OVER (PARTITION BY lower(SALE_ID) ORDER BY CHANGED DESC) > 1 THEN 'duplicate'
    WHEN NOTE LIKE 'long%' OR (s.TENANT_CODE IS NOT NULL AND t.TENANT_CODE IS NULL) THEN 'rejected'
    WHEN s.SERIAL LIKE 'TAKEN%' THEN 'failed' ELSE 'good' END AS outcome
FROM SALE s LEFT JOIN tenant_out t ON t.TENANT_CODE = s.TENANT_CODE AND t.outcome = 'good'
"""

_TENANT_RECORDS = """
SELECT t.TENANT_CODE AS "Tenant_Code__c", t.NAME AS "Name", t.SERIAL AS "Serial__c",
    b.TENANT_CODE AS "Boss__r.Tenant_Code__c" FROM tenant_out t
LEFT JOIN tenant_out b ON b.TENANT_CODE = t.BOSS AND b.outcome = 'good' WHERE t.outcome = 'good'
"""

_SALE_RECORDS = """
SELECT SALE_ID AS "Sale_Id__c", AMOUNT::VARCHAR AS "Amount__c", SOLD_ON::VARCHAR AS "Sold_On__c", NOTE AS "Note__c",
    SERIAL AS "Serial__c", TENANT_CODE AS "Tenant__r.Tenant_Code__c" FROM sale_out WHERE outcome = 'good'
"""


def make_source(file: Path, *, seed: int, rows: int) -> Expected:
    """Write a DuckDB file with both tables, a tenth of the rows tenants, and compute what must become of them.

    There are records of the org to update, rows that the org refuses (a unique value that another record holds), rows
    too long, null keys, copies that differ in case, orphans, and children of parents that the org refuses.
    """
    tenants, sales = rows // 10, rows - rows // 10
    with duckdb.connect(str(file)) as connection:
        connection.execute("SET preserve_insertion_order = true")
        draws = {
            name: _DRAW.format(n="n", salt=salt, seed=seed, of=of)
            for salt, (name, of) in enumerate(
                {
                    "draw_taken": 100,
                    "draw_link": 10,
                    "draw_boss": tenants,
                    "draw_amount": 10_000_000,
                    "draw_day": 1500,
                    "draw_tenant": tenants,
                    "draw_changed": 2,
                    "draw_kind": 300,
                }.items()
            )
        }
        connection.execute(_TENANTS.format(count=tenants, **draws))
        connection.execute(_SALES.format(count=sales, **draws))
    return _expect(file, seed=seed)


def _expect(file: Path, *, seed: int) -> Expected:
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{file}' AS source (READ_ONLY)")
        for table in (TENANT, SALE):
            connection.execute(f"CREATE TABLE {table} AS FROM source.{table}")
        connection.execute(_TENANT_OUTCOMES)
        connection.execute(_SALE_OUTCOMES)
        outcomes = {
            table: dict(connection.execute(f"SELECT outcome, count(*) FROM {table}_out GROUP BY 1").fetchall())
            for table in (TENANT, SALE)
        }
        records = {
            table: _frame(connection, query).sort(KEYS[table])
            for table, query in ((TENANT, _TENANT_RECORDS), (SALE, _SALE_RECORDS))
        }
        holders = {
            table: _frame(
                connection,
                f"SELECT 'HOLD-' || SERIAL AS key, SERIAL AS serial FROM {table}_out WHERE outcome = 'failed'",
            )
            for table in (TENANT, SALE)
        }
    existing = {
        table: frame.filter(pl.col(KEYS[table]).hash(seed) % 7 == 0).select(KEYS[table])
        for table, frame in records.items()
    }
    return Expected(
        rows={table: sum(counts.values()) for table, counts in outcomes.items()},
        outcomes=outcomes,
        records=records,
        existing=existing,
        holders=holders,
    )


def _frame(connection: duckdb.DuckDBPyConnection, query: str) -> pl.DataFrame:
    frame = pl.from_arrow(connection.sql(query).to_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    return frame


SCHEMA = """
org: {name: Fault tests, sandbox: false}
users:
  - {username: etl@kpc.example}
  - {username: other@kpc.example}
connected_apps:
  - {client_id: loader, client_secret: loader-secret, run_as: etl@kpc.example}
  - {client_id: other, client_secret: other-secret, run_as: other@kpc.example}
objects:
  Tenant__c:
    fields:
      Tenant_Code__c: {type: string, length: 40, externalId: true, unique: true}
      Serial__c: {type: string, length: 40, unique: true}
      Boss__c: {type: reference, referenceTo: Tenant__c, relationshipName: Boss__r, childRelationshipName: Minions__r}
  Sale__c:
    fields:
      Sale_Id__c: {type: string, length: 40, externalId: true, unique: true}
      Amount__c: {type: currency, precision: 18, scale: 2}
      Sold_On__c: {type: date}
      Note__c: {type: string, length: 40}
      Serial__c: {type: string, length: 40, unique: true}
      Tenant__c: {type: reference, referenceTo: Tenant__c, relationshipName: Tenant__r, childRelationshipName: Sales__r}
  Other__c:
    fields:
      Code__c: {type: string, length: 40, externalId: true, unique: true}
      Sale__c: {type: reference, referenceTo: Sale__c, relationshipName: Sale__r, childRelationshipName: Others__r}
"""

PLAN = """
version: 1
project: Fault tests
source: {{url: "duckdb:///source.duckdb"}}
target:
  url: {url}
  auth: {{flow: client_credentials, client_id: loader, client_secret: "${{SF_CLIENT_SECRET}}"}}
tables:
  - table: TENANT
    object: Tenant__c
    key: TENANT_CODE
    external_id: Tenant_Code__c
    fields:
      TENANT_CODE: Tenant_Code__c
      NAME: Name
      SERIAL: Serial__c
      BOSS: {{field: Boss__r.Tenant_Code__c, parent: TENANT, missing_parent: to_null}}
  - table: SALE
    object: Sale__c
    key: SALE_ID
    external_id: Sale_Id__c
    changed_at: CHANGED
    duplicates: keep_latest
    fields:
      SALE_ID: Sale_Id__c
      AMOUNT: Amount__c
      SOLD_ON: Sold_On__c
      NOTE: Note__c
      SERIAL: Serial__c
      TENANT_CODE: {{field: Tenant__r.Tenant_Code__c, parent: TENANT, missing_parent: reject}}
chunks: {{rows: {chunk_rows}}}
"""
