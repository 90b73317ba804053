"""The retry drill: 4,568 rows too long for a field, a rule changed to truncate, and exactly those mended.

Once the rule keeps them from being sent. Once the org refuses them with the code that the checklist's report names
wrongly: the field was longer when the batch began, as one that an administrator shortens meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from tests.integration.cli_migration import Migration

from forcelift.errors import ExitCode
from forcelift.migration.running import open_recorded
from forcelift.twin.fault_orders import parse_orders
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

ROWS, TOO_LONG, LENGTH = 20_000, 4_568, 60

PLAN = """\
version: 1
project: Retry drill
source: {{url: "duckdb:///source.duckdb"}}
target:
  url: {url}
  auth: {{flow: token, access_token: "${{CLI_TEST_TOKEN}}"}}
tables:
  - table: sales
    object: Sale__c
    key: sale_id
    external_id: Sale__c
    fields:
      sale_id: Sale__c
      description: {{field: Description__c, too_long: {rule}}}
chunks: {{rows: 5000}}
"""
OBJECTS = {
    "Sale__c": {
        "fields": {
            "Name": {"type": "string"},
            "Sale__c": {"type": "string", "externalId": True, "unique": True},
            "Description__c": {"type": "string", "length": LENGTH},
        }
    }
}


@pytest.fixture
def migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    with duckdb.connect(str(tmp_path / "source.duckdb")) as source:
        source.execute(
            "CREATE TABLE sales AS SELECT 'S' || i AS sale_id,"
            f" CASE WHEN i * 7919 % {ROWS} < {TOO_LONG} THEN repeat('ยาว', 40) ELSE 'sale ' || i END AS description"
            f" FROM range({ROWS}) AS r(i)"
        )
    monkeypatch.chdir(tmp_path)
    org = TwinOrg.open(None, schema=schema_from_dict({"objects": OBJECTS}))
    try:
        with TwinServer(org) as server:
            write_plan(tmp_path, server.url, "reject")
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            yield Migration(folder=tmp_path, org=org, server=server)
            assert server.internal_errors == []
    finally:
        org.close()


def write_plan(folder: Path, url: str, rule: str) -> None:
    (folder / "forcelift.yaml").write_text(PLAN.format(url=url, rule=rule), encoding="utf-8")


def tell_another_length(migration: Migration, length: int) -> None:
    """Let the first look at the object tell of a field as it was before it was shortened."""
    told = migration.org.describe("Sale__c")
    [field] = [one for one in told["fields"] if one["name"] == "Description__c"]
    field["length"] = length
    answer = {"action": "answer", "status": 200, "body": json.dumps(told), "content_type": "application/json"}
    migration.server.app.desk.arm(parse_orders({**answer, "method": "GET", "path": "/sobjects/Sale__c/describe"}))


def count_match(migration: Migration) -> dict[str, Any]:
    """What the report says of level 1."""
    document = json.loads(migration.run("report", "drill", "--json").stdout)
    return dict(document["reconciliation"][0])


@pytest.mark.parametrize("code", ["REJECTED_TOO_LONG", "STRING_TOO_LONG"])
def test_the_rows_that_were_too_long_are_mended_and_no_others(migration: Migration, code: str) -> None:
    if code == "STRING_TOO_LONG":
        tell_another_length(migration, 255)
    migration.document("run", "--batch", "drill", code=ExitCode.ROWS_REFUSED)
    assert migration.count("Sale__c") == ROWS - TOO_LONG
    [group] = migration.document("failed", "list", code=ExitCode.ROWS_REFUSED)["groups"]
    assert (group["code"], group["rows"]) == (code, TOO_LONG)
    with open_recorded(migration.plan) as (_, state):
        refused = {key for _, key, _ in state.audit.failed_keys("drill")}
    migration.document("validate", "drill", "--levels", "1")
    assert count_match(migration)["status"] == "pass"
    write_plan(migration.folder, migration.server.url, "truncate")
    done = migration.document("failed", "retry")
    assert count_match(migration)["status"] == "not checked", "it was taken before the retry"
    assert "out of date" in count_match(migration)["details"]
    assert (done["rows"], done["mended"], done["still_refused"]) == (TOO_LONG, TOO_LONG, 0)
    assert migration.count("Sale__c") == ROWS
    with open_recorded(migration.plan) as (_, state):
        files = [chunk.ledger_file for chunk in state.audit.chunks("drill") if chunk.ledger_file]
        lines = state.ledger.scan(files).collect()
        retries = {job.job_no for job in state.audit.jobs("drill") if job.kind == "retry"}
        sent = sum(job.part.rows for job in state.audit.jobs("drill") if job.kind == "retry")
    assert set(lines.filter(pl.col("job").is_in(retries))["key"]) == refused
    assert sent == TOO_LONG == len(refused)
    assert lines["id"].n_unique() == ROWS
    proof = migration.document("validate", "drill", "--levels", "all")
    assert proof["statuses"].get("failed", 0) == proof["statuses"].get("drift", 0) == 0
    report = migration.run("report", "drill")
    assert report.returncode == ExitCode.DONE, report.stderr
    assert f"4,568 records of sales failed with {code}" in report.stdout.replace("\\", "")
    [issue] = [line for line in report.stdout.splitlines() if "Records Fixed" in line]
    assert "4,568" in issue
    assert "plan revision 2 (fields.description.too_long: reject -> truncate): created" in report.stdout.replace(
        "\\", ""
    )
