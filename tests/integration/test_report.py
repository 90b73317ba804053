"""`forcelift report`: its figures beside what the org and the audit database say, in the template's structure."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.cli_migration import (
    ORPHANS,
    SALES,
    TENANTS,
    Migration,
    cli_schema,
    make_source,
    soql_count,
    write_plan,
)

from forcelift.after.report import Content, Words, figures_of, markdown
from forcelift.after.report.figures import TableFigures
from forcelift.after.report.markdown import _cell
from forcelift.audit.readings import ApiCalls, ChunkSpan
from forcelift.audit.records import Batch, BatchMode, BatchState, ChunkStatus
from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer

GOOD = SALES - ORPHANS
SECTIONS = [
    "Executive Summary",
    "Migration Statistics",
    "Reconciliation Results",
    "Issues Encountered",
    "Performance Metrics",
    "Sign-off",
]


@pytest.fixture
def migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    make_source(tmp_path)
    monkeypatch.chdir(tmp_path)
    with TwinOrg.open(schema=cli_schema()) as org, TwinServer(org) as server:
        write_plan(tmp_path, server)
        monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
        yield Migration(folder=tmp_path, org=org, server=server)


def _tables(text: str) -> dict[str, list[str]]:
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0].strip().strip("*"): [cell.strip().strip("*") for cell in cells[1:]] for cells in rows}


def test_the_report_says_what_became_of_every_row(migration: Migration) -> None:
    assert migration.run("run").returncode == 1
    before = migration.run("report")
    assert before.returncode == 1, "rows were rejected"
    assert "⏳ NOT CHECKED" in before.stdout
    assert migration.run("validate", "--levels", "all").returncode == 0
    done = migration.run("report", "--out", "report.md")
    assert done.returncode == 1
    text = (migration.folder / "report.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[: len(SECTIONS)] == SECTIONS
    cells = _tables(text)
    assert cells["tenants"] == [str(TENANTS), str(TENANTS), str(TENANTS), "0", "100%"]
    good = soql_count(migration.server, "Sale__c")
    assert good == GOOD
    assert cells["sales"] == [str(SALES), str(good), str(good), str(ORPHANS), "95.8333%"]
    assert cells["TOTAL"][:4] == [str(SALES + TENANTS), str(good + TENANTS), str(good + TENANTS), str(ORPHANS)]
    assert cells["Count Match"] == ["✅ PASS", "100 % match"]
    assert cells["Sum Match"][0] == "✅ PASS"
    assert cells["Sample Check"] == ["✅ PASS", f"{TENANTS + 100}/{TENANTS + 100} records matched"]
    assert cells["Proof of Every Field"] == ["✅ PASS", f"100 % of {GOOD + TENANTS} records proved in every field"]
    assert f"**Issue:** {ORPHANS} records of sales failed with REJECTED_MISSING_PARENT" in text
    assert "**Status:** ⚠️ PARTIAL" in text
    assert f"0 refused by Salesforce, {ORPHANS} rejected by rules" in text
    for role in ("Data Engineer", "DBA", "Business Owner", "QA Lead"):
        assert cells[role] == ["", "", ""]
    assert int(cells["SF API Calls Used"][0].replace(",", "")) > 10
    with closing(sqlite3.connect(migration.audit_file)) as audit:
        ((payload,),) = audit.execute("SELECT payload FROM journal WHERE action = 'report_made'").fetchall()
    assert json.loads(payload)["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    again = migration.run("report", "--out", "report.md")
    assert again.returncode == 3
    assert (migration.folder / "report.md").read_text(encoding="utf-8") == text


def test_a_difference_and_a_table_that_was_not_looked_at_are_never_passed(migration: Migration) -> None:
    migration.run("run")
    query = {"q": "SELECT Id FROM Sale__c LIMIT 1"}
    headers = {"Authorization": f"Bearer {migration.server.access_token}"}
    base = f"{migration.server.url}/services/data/v66.0"
    (record,) = httpx.get(f"{base}/query", params=query, headers=headers).json()["records"]
    httpx.patch(f"{base}/sobjects/Sale__c/{record['Id']}", json={"Amount__c": 0.01}, headers=headers).raise_for_status()
    assert migration.run("validate", "--levels", "2,5", "--table", "sales").returncode == 1
    cells = _tables(migration.run("report").stdout)
    assert cells["Sum Match"][0] == "❌ FAIL"
    assert cells["Proof of Every Field"][0] == "❌ FAIL"
    assert "not validated: tenants" in cells["Proof of Every Field"][1]
    assert cells["Count Match"][0] == "⏳ NOT CHECKED"
    assert migration.run("validate", "--levels", "1", "--table", "tenants").returncode == 0
    cells = _tables(migration.run("report").stdout)
    assert cells["Count Match"] == ["⏳ NOT CHECKED", "100 % match; not validated: sales"]


def test_what_was_rolled_back_is_no_target_any_more(migration: Migration) -> None:
    migration.run("run", "--batch", "first")
    assert migration.run("validate", "first", "--levels", "1,5").returncode == 0
    assert _tables(migration.run("report", "first").stdout)["Count Match"][0] == "✅ PASS"
    assert migration.run("rollback", "first", "--execute", "--reason", "wrong | data").returncode == 0
    document = migration.document("report", "first", code=1)
    total = document["tables"][-1]
    assert (total["target"], total["rolled_back"]) == (0, GOOD + TENANTS)
    assert total["success"] == GOOD + TENANTS
    text = migration.run("report", "first").stdout
    assert "wrong \\| data" in text
    assert f"{GOOD + TENANTS} rows were taken back" in text
    for check in ("Count Match", "Proof of Every Field"):
        status, details = _tables(text)[check]
        assert status == "⏳ NOT CHECKED", "what was validated before the rollback says nothing of now"
        assert "out of date" in details
    assert migration.run("run", "--resume", "first").returncode == 1
    assert _tables(migration.run("report", "first").stdout)["Count Match"][0] == "⏳ NOT CHECKED"
    assert migration.run("validate", "first", "--levels", "1,5").returncode == 0
    assert _tables(migration.run("report", "first").stdout)["Count Match"][0] == "✅ PASS"


def test_a_batch_that_has_not_ended_says_what_is_open(migration: Migration) -> None:
    """As the audit database of a batch stands whose process was killed before the sales were sent."""
    migration.run("run", "--batch", "open")
    with closing(sqlite3.connect(migration.audit_file)) as audit:
        audit.execute(
            "UPDATE MIGRATION_AUDIT_LOG SET STATUS = 'RUNNING', END_TIME = NULL, DURATION_SECONDS = NULL,"
            " LOADED_COUNT = NULL, SUCCESS_COUNT = NULL, FAILED_COUNT = NULL WHERE TABLE_NAME = 'sales'"
        )
        audit.execute(
            "UPDATE chunk SET ledger_file = NULL, ledger_sha256 = NULL, staged = NULL WHERE table_name = 'sales'"
        )
        audit.execute("UPDATE batch SET state = 'running'")
        audit.execute("DELETE FROM MIGRATION_FAILED_RECORDS")
        audit.execute("DELETE FROM journal WHERE action = 'run_ended'")
        audit.commit()
    document = migration.document("report", "open", code=1)
    assert document["status"] == "failed"
    assert document["performance"]["api_calls_are_all"] is False
    [note] = [one for one in document["notes"] if "has not ended" in one]
    assert f"and {SALES} rows have no outcome yet" in note
    text = migration.run("report", "open").stdout
    assert f"**Note:** {note}" in text
    assert _tables(text)["SF API Calls Used"][0].startswith("at least ")
    assert migration.run("report", "open", "--html", "open.html").returncode == 1
    assert "The batch has not ended." in (migration.folder / "open.html").read_text(encoding="utf-8")


def test_a_dry_run_has_no_report(migration: Migration) -> None:
    migration.run("run", "--dry-run")
    done = migration.run("report")
    assert done.returncode == 3
    assert "dry run" in done.stderr


NOON = datetime(2024, 1, 15, 12, tzinfo=UTC)


def _figures(*, state: BatchState = BatchState.DONE, statuses: Any = None, spans: Any = (), **counts: int) -> Any:
    batch = Batch(
        batch_id="b",
        project="p",
        mode=BatchMode.RUN,
        state=state,
        org_id="00D",
        org_url="twin:",
        source_url="x",
        as_of=NOON,
        snapshot=None,
        plan_sha256="0" * 64,
        plan_revision=1,
        created_by="me",
        started_at=NOON,
    )
    values = {"source": 0, "target": 0, "success": 0, "refused": 0, "rejected": 0, "duplicate": 0} | counts
    table = TableFigures(table="t", rolled_back=0, kept=0, **values)
    return figures_of(
        batch=batch,
        tables=[table],
        statuses=statuses or {},
        validations=[],
        issues=[],
        spans=spans,
        api_calls=[ApiCalls(calls=0, is_whole=True)],
        rollbacks=[],
        roles=[],
        notes=[],
        head="h",
        made_at=NOON,
    )


def test_the_checklists_rate_never_rounds_up_to_a_hundred() -> None:
    report = _figures(source=481_000_000, target=480_995_432, success=480_995_432, refused=4_568)
    text = markdown(Content(figures=report))
    assert "| t | 481,000,000 | 480,995,432 | 480,995,432 | 4,568 | 99.999% |" in text
    nearly = markdown(Content(figures=_figures(source=481_000_000, target=480_999_999, success=480_999_999, refused=1)))
    assert "99.9999%" in nearly
    assert "100%" not in nearly


@pytest.mark.parametrize(
    ("state", "statuses", "refused", "word"),
    [
        (BatchState.DONE, {ChunkStatus.SUCCESS: 1}, 0, "success"),
        (BatchState.DONE, {ChunkStatus.PARTIAL: 1}, 1, "partial"),
        (BatchState.DONE, {ChunkStatus.FAILED: 1}, 0, "failed"),
        (BatchState.STOPPED, {}, 0, "failed"),
        (BatchState.RUNNING, {}, 0, "failed"),
    ],
)
def test_the_status(state: BatchState, statuses: Any, refused: int, word: str) -> None:
    assert _figures(state=state, statuses=statuses, refused=refused, source=1).status.value == word


def test_average_and_peak() -> None:
    def span(begin: int, end: int, rows: int) -> ChunkSpan:
        return ChunkSpan(began_at=NOON + timedelta(seconds=begin), ended_at=NOON + timedelta(seconds=end), rows=rows)

    # 100/s from 0 to 10, 200/s from 5 to 10 beside it, 50/s from 10 to 20.
    speed = _figures(spans=[span(0, 10, 1000), span(5, 10, 1000), span(10, 20, 500)]).performance
    assert (speed.seconds, speed.average, speed.peak) == (20.0, 125.0, 300.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (166_980, "46 hours 23 minutes"),
        (3_600, "1 hour 0 minutes"),
        (61, "1 minute 1 second"),
        (0, "0 seconds"),
    ],
)
def test_durations_as_in_the_template(seconds: float, text: str) -> None:
    assert Words().duration(seconds) == text


def test_a_text_cannot_leave_its_cell() -> None:
    assert _cell("KPS_T_SALES_MD _x_ ~~d~~ &lt; ผ_ก") == r"KPS_T_SALES_MD \_x\_ \~\~d\~\~ \&lt; ผ_ก"
    assert _cell("a | b\n# c <img src=x> `d` [e](f)") == "a \\| b # c \\<img src=x\\> \\`d\\` \\[e\\](f)"
