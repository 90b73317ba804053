"""Faults that a review found, each kept from coming back by a run of the whole product."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl
import pytest

from forcelift.account.summary import BatchSummary
from forcelift.cli.main import run_command
from forcelift.errors import ExitCode, PlanError
from forcelift.migration.running import RunOptions, run_migration

SCHEMA = """
org: {name: Review, sandbox: true}
objects:
  Parent__c:
    fields:
      Key__c: {type: string, length: 20, externalId: true, unique: true}
  Child__c:
    fields:
      Key__c: {type: double, precision: 18, scale: 0, externalId: true, unique: true}
      Parent__c: {type: reference, referenceTo: [Parent__c], relationshipName: Parent__r}
"""
PLAN = """
version: 1
project: review
source: {url: "duckdb:///source.duckdb"}
target: {url: "twin:./org.duckdb", twin_schema: schema.yaml}
tables:
  - {table: PARENTS, object: Parent__c, key: K, external_id: Key__c, fields: {K: Key__c}}
  - table: CHILDREN
    object: Child__c
    key: K
    external_id: Key__c
    fields:
      K: Key__c
      P: {field: Parent__r.Key__c, parent: PARENTS}
"""


def project(folder: Path, *, children: str) -> Path:
    folder.mkdir()
    (folder / "schema.yaml").write_text(SCHEMA)
    (folder / "forcelift.yaml").write_text(PLAN)
    with duckdb.connect(str(folder / "source.duckdb")) as connection:
        connection.execute("CREATE TABLE PARENTS AS SELECT 'P' || i AS K FROM range(5) t(i)")
        connection.execute(f"CREATE TABLE CHILDREN AS SELECT * FROM (VALUES {children}) t(K, P)")
    return folder / "forcelift.yaml"


def counts(summary: BatchSummary, table: str) -> tuple[int, int, int]:
    found = next(each for each in summary.tables if each.table == table)
    return found.created, found.updated, found.rejected


def test_a_folder_with_brackets_in_its_name(tmp_path: Path) -> None:
    plan = project(tmp_path / "proj [v1]*", children="(1, 'P1'), (1, 'P2'), (2, 'P2')")
    summary = run_migration(plan, RunOptions())
    assert summary.errors == ()
    assert counts(summary, "PARENTS") == (5, 0, 0)
    assert counts(summary, "CHILDREN") == (1, 0, 2)


def test_a_numeric_key_that_a_double_cannot_hold_is_rejected_before_it_is_sent(tmp_path: Path) -> None:
    children = "(123456789012345677, 'P1'), (123456789012345678, 'P1'), (999999999999999, 'P1')"
    summary = run_migration(project(tmp_path / "p", children=children), RunOptions())
    assert summary.errors == ()
    assert counts(summary, "CHILDREN") == (1, 0, 2)
    assert summary.exit_code is ExitCode.ROWS_REFUSED


def test_a_child_alone_finds_its_parents_in_the_org(tmp_path: Path) -> None:
    plan = project(tmp_path / "p", children="(1, 'P1'), (2, 'nobody')")
    alone = run_migration(plan, RunOptions(tables=("CHILDREN",)))
    assert counts(alone, "CHILDREN") == (0, 0, 2), "no parent stands in the org yet"
    assert counts(run_migration(plan, RunOptions(tables=("PARENTS",))), "PARENTS") == (5, 0, 0)
    again = run_migration(plan, RunOptions(tables=("CHILDREN",)))
    assert counts(again, "CHILDREN") == (1, 0, 1)
    assert again.errors == ()


def test_a_fault_in_a_condition_is_a_fault_of_the_plan(tmp_path: Path) -> None:
    plan = project(tmp_path / "p", children="(1, 'P1')")
    plan.write_text(plan.read_text().replace("    key: K\n", '    key: K\n    where: "NO_SUCH_COLUMN = 1"\n'))
    with pytest.raises(PlanError, match=r"line \d+: `tables.CHILDREN.where`"):
        run_migration(plan, RunOptions())
    assert not (tmp_path / "p" / "state").exists()


def test_a_lookup_emptied_by_the_link_pass_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    plan = project(folder, children="(1, 'P1')")
    (folder / "schema.yaml").write_text(
        SCHEMA.replace(
            "      Key__c: {type: string, length: 20, externalId: true, unique: true}\n",
            "      Key__c: {type: string, length: 20, externalId: true, unique: true}\n"
            "      Boss__c: {type: reference, referenceTo: [Parent__c], relationshipName: Boss__r}\n",
            1,
        )
    )
    lookup = "B: {field: Boss__r.Key__c, parent: PARENTS, missing_parent: %s}"
    plan.write_text(PLAN.replace("fields: {K: Key__c}", "fields: {K: Key__c, " + lookup % "to_null" + "}"))
    with duckdb.connect(str(folder / "source.duckdb")) as connection:
        connection.execute("DROP TABLE PARENTS")
        connection.execute("CREATE TABLE PARENTS AS SELECT * FROM (VALUES ('A', 'B'), ('B', 'Z'), ('C', 'Y')) t(K, B)")
    table = run_migration(plan, RunOptions(tables=("PARENTS",))).tables[0]
    assert (table.created, table.failed, table.changes) == (3, 0, {"missing_parent:B": 2})
    plan.write_text(PLAN.replace("fields: {K: Key__c}", "fields: {K: Key__c, " + lookup % "reject" + "}"))
    table = run_migration(plan, RunOptions(tables=("PARENTS",))).tables[0]
    assert (table.updated, table.failed, table.failed_in_org) == (1, 2, 2)
    ledger = list((folder / "state").glob("staging/ledger/*/PARENTS/*.parquet"))
    assert len(ledger) == 2, "one file for each chunk of each batch that is done"


ECHO_SCHEMA = """
org: {name: Review, sandbox: true}
objects:
  Person__c:
    fields:
      Key__c: {type: string, length: 20, externalId: true, unique: true}
      Name__c: {type: string, length: 80}
automations:
  triggers:
    - name: Echo
      object: Person__c
      events: [before insert]
      effects:
        - {effect: reject, when: "Name__c = 'Somchai Jaidee'", message: "Hold for SOMCHAI JAIDEE and Malee Sukjai"}
"""
ECHO_PLAN = """
version: 1
project: review
source: {url: "duckdb:///source.duckdb"}
target: {url: "twin:./org.duckdb", twin_schema: schema.yaml}
tables:
  - {table: PEOPLE, object: Person__c, key: K, external_id: Key__c, fields: {FULL_NAME: Name__c}}
"""


def test_a_name_that_a_trigger_repeats_is_kept_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "schema.yaml").write_text(ECHO_SCHEMA)
    (tmp_path / "forcelift.yaml").write_text(ECHO_PLAN)
    with duckdb.connect(str(tmp_path / "source.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE PEOPLE AS SELECT 1 AS K, 'Somchai Jaidee' AS FULL_NAME UNION SELECT 2, 'Other'"
        )
    words = ["--plan", str(tmp_path / "forcelift.yaml"), "--json"]
    assert run_command(["run", *words]) == ExitCode.ROWS_REFUSED
    assert run_command(["status", *words]) == ExitCode.DONE
    shown = capsys.readouterr()
    assert "Hold for <value> and Malee Sukjai" in shown.out
    assert "SOMCHAI" not in (shown.out + shown.err).upper()
    for file in (tmp_path / "state").rglob("*"):
        if file.is_file() and file.suffix != ".parquet":
            assert b"SOMCHAI" not in file.read_bytes().upper(), file
    ledger = pl.read_parquet(tmp_path / "state" / "staging" / "ledger" / "**" / "*.parquet")
    assert "Hold for <value> and Malee Sukjai" in ledger["message"].to_list()
