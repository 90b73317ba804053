"""A sample of 1 % of a large table: twice the same rows, and each lookup resolves, as the org itself shows it.

Method: children with parents and grandparents, made by SQL. The sample runs twice into one org, in other chunks; then
the org is asked over HTTP, and its records are compared with what SQL finds in the source for the same keys.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from tests.scenarios.scenario_support import Project

from forcelift.rules import SamplePercent
from forcelift.rules.duplicates import key_hash

SCHEMA = """\
objects:
  Region__c:
    fields:
      Code__c: {type: string, externalId: true, unique: true}
  Tenant__c:
    fields:
      Code__c: {type: string, externalId: true, unique: true}
      Region__c: {type: reference, referenceTo: Region__c, relationshipName: Region__r}
  Sale__c:
    fields:
      Code__c: {type: string, externalId: true, unique: true}
      Amount__c: {type: currency, precision: 12, scale: 2}
      Tenant__c: {type: reference, referenceTo: Tenant__c, relationshipName: Tenant__r}
"""
PLAN = """\
version: 1
project: One percent
source: {url: "duckdb:///source.duckdb"}
target: {url: "twin:./org.duckdb", twin_schema: schema.yaml}
tables:
  - {table: regions, object: Region__c, key: code, external_id: Code__c, fields: {code: Code__c}}
  - table: tenants
    object: Tenant__c
    key: code
    external_id: Code__c
    fields: {region: {field: Region__r.Code__c, parent: regions, missing_parent: reject}}
  - table: sales
    object: Sale__c
    key: code
    external_id: Code__c
    fields:
      amount: Amount__c
      tenant: {field: Tenant__r.Code__c, parent: tenants, missing_parent: reject}
chunks: {rows: 1000}
"""
RECORDS = {
    "regions": ("Region__c", []),
    "tenants": ("Tenant__c", ["Region__r.Code__c"]),
    "sales": ("Sale__c", ["Amount__c", "Tenant__r.Code__c"]),
}


@pytest.mark.parametrize("sales", [30_000, pytest.param(600_000, marks=pytest.mark.slow)])
def test_one_percent_twice_gives_the_same_rows_and_every_lookup_resolves(sales: int, tmp_path: Path) -> None:
    project = make_project(tmp_path, sales=sales)
    first = project.run("--sample-percent", "1", "--batch", "one", "--json")
    assert first.code == 0, first.err
    seen = records(project)
    project.change_plan({"rows: 1000": "rows: 370"})
    second = project.run("--sample-percent", "1", "--batch", "two", "--json")
    assert second.code == 0, second.err
    # The same rows: each is found again, none is new, and the org holds what it held.
    made = {table["table"]: table["created"] for table in first.document["tables"]}
    again = {table["table"]: (table["created"], table["updated"]) for table in second.document["tables"]}
    assert again == {table: (0, count) for table, count in made.items()}
    assert {table: [row[0] for row in rows] for table, rows in project.outcomes("one").items()} == {
        table: [row[0] for row in rows] for table, rows in project.outcomes("two").items()
    }
    assert records(project) == seen
    assert sales * 0.008 < len(seen["sales"]) < sales * 0.012
    check_lookups(project, seen)


def make_project(folder: Path, *, sales: int) -> Project:
    """A tenth as many tenants as sales, a hundredth as many regions; every child has a parent."""
    project = Project(folder)
    (folder / "schema.yaml").write_text(SCHEMA)
    project.plan.write_text(PLAN)
    tenants, regions = sales // 10, sales // 100
    with closing(duckdb.connect(str(folder / "source.duckdb"))) as source:
        source.execute(f"CREATE TABLE regions AS SELECT 'R' || n AS code FROM range({regions}) t(n)")
        source.execute(
            f"CREATE TABLE tenants AS SELECT 'T' || n AS code, 'R' || (hash(n) % {regions}) AS region"
            f" FROM range({tenants}) t(n)"
        )
        source.execute(
            "CREATE TABLE sales AS SELECT 'S' || n AS code, (n % 100000) / 4 AS amount,"
            f" 'T' || (hash(n + 7) % {tenants}) AS tenant FROM range({sales}) t(n)"
        )
    return project


Records = dict[str, dict[str, dict[str, str | None]]]


def records(project: Project) -> Records:
    with project.served() as org:
        return {table: org.records(name, "Code__c", fields) for table, (name, fields) in RECORDS.items()}


def check_lookups(project: Project, seen: Records) -> None:
    """Every record has its source row's parent, which stands in the org; who is there was drawn or is needed."""
    rows: dict[str, list[tuple[Any, ...]]] = {}
    with closing(duckdb.connect(str(project.folder / "source.duckdb"), read_only=True)) as source:
        for table in RECORDS:
            rows[table] = source.execute(f"SELECT * FROM {table}").fetchall()
    tenant_of = {code: tenant for code, _, tenant in rows["sales"]}
    region_of = dict(rows["tenants"])
    assert all(record["Tenant__r.Code__c"] == tenant_of[code] for code, record in seen["sales"].items())
    assert all(record["Region__r.Code__c"] == region_of[code] for code, record in seen["tenants"].items())
    drawn = {table: drawn_keys([row[0] for row in found]) for table, found in rows.items()}
    tenants = drawn["tenants"] | {tenant_of[code] for code in drawn["sales"]}
    regions = drawn["regions"] | {region_of[code] for code in tenants}
    assert {table: set(found) for table, found in seen.items()} == {
        "sales": drawn["sales"],
        "tenants": tenants,
        "regions": regions,
    }


def drawn_keys(codes: list[str]) -> set[str]:
    """Those whose hash draws them for their own sake; the fields compare without case."""
    highs = key_hash(pl.Series([code.lower() for code in codes]))["high"].to_list()
    threshold = SamplePercent.of("1").threshold
    return {code for code, high in zip(codes, highs, strict=True) if high < threshold}
