"""`audit export`: what an auditor reads in the files is what stands in the database, and no spreadsheet computes it."""

from __future__ import annotations

import csv
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.unit.audit_fixtures import StillClock, make_failed, open_store, plan_chunks, settle

from forcelift.audit import AuditStore, tables
from forcelift.cli.main import run_command
from forcelift.errors import ExitCode, StorageError
from forcelift.handover.exporting import export_audit
from forcelift.people_csv import original

PLAN = """\
version: 1
project: Exported
source: {url: "duckdb:///source.duckdb"}
target: {url: "twin:./org.duckdb"}
tables:
  - {table: sales, object: Sale__c, key: id, external_id: Sale__c, fields: {name: Name}}
"""
# What a cell of a source may hold, and spreadsheets take for more than a text.
KEYS = [
    "=1+1",
    "+66 2 123",
    "-5",
    "@SUM(A1)",
    "\t=1",
    " =1",
    "＝1+1",
    "'=quoted",
    "ยอดขาย\nกุมภาพันธ์",
    'a,"b";c',
    "012",
    "#N/A",
]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "forcelift.yaml").write_text(PLAN, encoding="utf-8")
    (tmp_path / "state").mkdir()
    with open_store(StillClock(), f"sqlite:///{tmp_path}/state/audit.db") as store:
        fill(store)
    return tmp_path / "forcelift.yaml"


def fill(store: AuditStore) -> None:
    [chunk] = plan_chunks(store, 1)
    failed = make_failed(list(KEYS), message="=HYPERLINK(1)")
    failed = failed.with_columns(pl.lit('{"name":"=1+1 สมชาย"}').alias("data"))
    settle(store, chunk.audit_id, failed=failed)


def stored(plan: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(plan.parent / "state" / "audit.db")) as audit:
        audit.row_factory = sqlite3.Row
        return [dict(row) for row in audit.execute("SELECT * FROM MIGRATION_FAILED_RECORDS ORDER BY FAILED_ID")]


def test_csv_holds_no_formula_and_reads_back_as_it_was(plan: Path, tmp_path: Path) -> None:
    export_audit(plan, tmp_path / "out", form="csv")
    for file in (tmp_path / "out").glob("*.csv"):
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for row in csv.reader(lines):
                for cell in row:
                    # A number may begin with a minus; it is no text.
                    assert cell.lstrip(" \u00a0")[:1] not in {*"=+@\t\r\n＝＋－＠"}, (file.name, cell)
                    assert not cell.startswith("-") or float(cell) < 0
    with (tmp_path / "out" / "MIGRATION_FAILED_RECORDS.csv").open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    expected = stored(plan)
    for name in ("RECORD_ID", "SF_ERROR_MESSAGE", "RECORD_DATA", "SF_ERROR_CODE"):
        assert [original(row[name]) for row in rows] == [row[name] for row in expected], name
    assert {row["RECORD_ID"] for row in rows} >= {"'=1+1", "'＝1+1", "''=quoted", "012"}


def test_parquet_has_texts_as_they_are_and_types(plan: Path, tmp_path: Path) -> None:
    export_audit(plan, tmp_path / "out", form="parquet")
    frame = pl.read_parquet(tmp_path / "out" / "MIGRATION_FAILED_RECORDS.parquet")
    expected = stored(plan)
    for name in ("RECORD_ID", "SF_ERROR_MESSAGE", "RECORD_DATA", "FAILED_ID", "AUDIT_ID"):
        assert frame[name].to_list() == [row[name] for row in expected], name
    assert frame.schema["FAILED_ID"] == pl.Int64
    assert frame.schema["CREATED_DATE"] == pl.Datetime("us", "UTC")
    written = datetime.fromisoformat(expected[0]["CREATED_DATE"]).replace(tzinfo=UTC)
    assert frame["CREATED_DATE"][0] == written
    log = pl.read_parquet(tmp_path / "out" / "MIGRATION_AUDIT_LOG.parquet")
    assert (log.schema["FAILED_COUNT"], log["FAILED_COUNT"].null_count()) == (pl.Int64, 0)
    assert log.schema["DURATION_SECONDS"] == pl.Float64
    # A table without rows has its columns, too.
    assert pl.read_parquet(tmp_path / "out" / "retry.parquet").columns == [str(c.name) for c in tables.retry.c]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_only_its_owner_reads_it_and_nothing_is_overwritten(plan: Path, tmp_path: Path, form: str) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    export_audit(plan, folder, form=form)
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    assert run_command(["audit", "export", "--out", str(folder), "--format", form]) == ExitCode.STATE
    assert run_command(["audit", "export", "--out", str(plan), "--format", form]) in (ExitCode.STATE, ExitCode.USAGE)
    export_audit(plan, tmp_path / "made" / "by it", form=form)
    assert stat.S_IMODE((tmp_path / "made" / "by it").stat().st_mode) == 0o700


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("column", "value"), [("RETRY_COUNT", "many"), ("CREATED_DATE", "yesterday"), ("AUDIT_ID", b"\xff")]
)
def test_a_value_of_another_kind_is_told_and_not_left_empty(
    plan: Path, tmp_path: Path, form: str, column: str, value: object
) -> None:
    with closing(sqlite3.connect(plan.parent / "state" / "audit.db")) as audit:
        audit.execute(f"UPDATE MIGRATION_FAILED_RECORDS SET {column} = ? WHERE FAILED_ID = 3", [value])
        audit.commit()
    with pytest.raises(StorageError, match="`MIGRATION_FAILED_RECORDS` holds a value that is none of its column's"):
        export_audit(plan, tmp_path / "out", form=form)
    assert not (tmp_path / "out" / "manifest.json").exists(), "what has no manifest is no whole export"
