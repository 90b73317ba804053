"""The KPC TMS example at a small scale: Oracle as source and for the audit, a twin, and defects by their numbers."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import polars as pl
import pytest
from tests.oracle_audit_support import RIGHTS, query
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD

from forcelift.cli.main import run_command

EXAMPLE = Path(__file__).parents[2] / "examples" / "kpc-tms"
SCALE = 0.00001


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kpc_generate", EXAMPLE / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kpc_generate"] = module
    spec.loader.exec_module(module)
    return module


def test_full_scale_has_the_checklists_numbers(generate: ModuleType) -> None:
    rows = generate.rows_of(1)
    assert len(rows) == len(generate.TABLES) == 16
    assert (rows["KPS_T_SALES_MD"], rows["KPS_T_SALESPAY_MD"]) == (261_000_000, 109_000_000)
    assert sum(rows.values()) == 481_000_000


def test_rows_are_the_same_in_every_slicing_and_defects_as_many_as_told(generate: ModuleType) -> None:
    rows = generate.rows_of(SCALE)
    for table in generate.TABLES:
        whole = pl.concat(generate.slices(table, rows))
        assert whole.height == rows[table]
        assert whole.equals(pl.concat(generate.slices(table, rows, 77)))
    sales = pl.concat(generate.slices("KPS_T_SALES_MD", rows))
    counts = generate.expected("KPS_T_SALES_MD", sales.height)
    assert sales["SALES_ID"].null_count() == counts["null_key"]
    assert sales["SALES_ID"].drop_nulls().is_duplicated().sum() == 2 * counts["duplicate_key"]
    assert (sales["TENANT_CODE"] == "T99999").sum() == counts["missing_tenant"]
    assert (sales["SALES_AMOUNT"] < 0).sum() == counts["negative_amount"]
    assert sales["STATUS"].null_count() == counts["empty_status"]
    assert (sales["SALES_DATE"].dt.year() == 2567).sum() == counts["buddhist_era"]
    assert all(counts.values())


@pytest.mark.parametrize("kind", ["duckdb", "sqlite", "parquet"])
def test_other_places_hold_the_same_rows(generate: ModuleType, tmp_path: Path, kind: str) -> None:
    rows = generate.rows_of(0.000001)
    place = tmp_path / "kpc"
    {"duckdb": generate.into_duckdb, "sqlite": generate.into_sqlite, "parquet": generate.into_parquet}[kind](
        place if kind == "parquet" else str(place), rows
    )
    if kind == "sqlite":
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(place)) as connection:
            found = connection.execute("SELECT count(*), count(SALES_ID) FROM KPS_T_SALES_MD").fetchone()
    else:
        where = f"read_parquet('{place}/KPS_T_SALES_MD/*.parquet')" if kind == "parquet" else "KPS_T_SALES_MD"
        with duckdb.connect(str(place) if kind == "duckdb" else ":memory:") as connection:
            found = connection.execute(f"SELECT count(*), count(SALES_ID) FROM {where}").fetchone()
    counts = generate.expected("KPS_T_SALES_MD", rows["KPS_T_SALES_MD"])
    assert found == (rows["KPS_T_SALES_MD"], rows["KPS_T_SALES_MD"] - counts["null_key"])


def command(*words: str) -> tuple[int, dict[str, Any]]:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = run_command([*words, "--json"])
    assert out.getvalue(), err.getvalue()
    return code, json.loads(out.getvalue())


ROLES = ("Data Engineer", "DBA", "Business Owner", "QA Lead")


@pytest.fixture
def walk(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[OracleServer]:
    """An Oracle with the tables and the audit tables, and the example's files in the working folder."""
    for name in ("forcelift.yaml", "org-schema.yaml"):
        shutil.copy(EXAMPLE / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORACLE_PASSWORD", PASSWORD)
    monkeypatch.setenv("ORACLE_AUDIT_PASSWORD", PASSWORD)
    with OracleServer(request.param) as server:
        server.add_user("KPS", PASSWORD, "DBA", "CREATE TABLE")
        server.add_user("FORCELIFT", PASSWORD, *RIGHTS)
        change_plan("127.0.0.1:1521/KPCPROD", f"127.0.0.1:{server.port}/{server.service}")
        generate.into_oracle(f"oracle://KPS@127.0.0.1:{server.port}/{server.service}", generate.rows_of(SCALE))
        assert command("audit", "ddl", "--apply")[1]["made"]
        yield server


def change_plan(old: str, new: str) -> None:
    plan = Path("forcelift.yaml")
    text = plan.read_text(encoding="utf-8")
    assert old in text
    plan.write_text(text.replace(old, new), encoding="utf-8")


def sign(phase: str, *words: str) -> dict[str, Any]:
    """All roles sign; what the last one was told."""
    for role in ROLES:
        code, told = command("signoff", "--phase", phase, "--role", role, "--name", "A Name", *words)
        assert code == 0, told
    return told


def open_items(phase: str) -> set[str]:
    """Items of the checklist that are neither done nor waived."""
    told = command("checklist", "--phase", phase)[1]
    return {item["name"] for item in told[phase] if item["state"] == "open"}


@pytest.mark.slow
@pytest.mark.parametrize("walk", ["19c", "23ai"], indirect=True)
def test_the_walk_to_the_signatures(generate: ModuleType, walk: OracleServer) -> None:
    rows = generate.rows_of(SCALE)
    assert command("check")[0] == 0
    assert command("profile", "--html", "profile.html")[0] == 1, "the defects are found"
    assert Path("profile.html").exists()
    assert command("estimate")[0] == 0
    assert command("backup")[0] == 0
    [(copied,)] = query(walk, "FORCELIFT", "SELECT SUM(ROW_COUNT) FROM MIGRATION_BACKUP_LOG")
    assert copied == sum(rows.values())
    assert command("rehearse", "--prepared")[0] == 1
    assert command("run", "--dry-run", "--batch", "dry")[0] == 1
    sign("before")
    code, prepared = command("prepare", "--execute")
    assert code == 0, prepared
    assert open_items("before") == set()

    code, run = command("run", "--batch", "kpc")
    assert code == 1, run
    for name, table in {table["table"]: table for table in run["tables"]}.items():
        counts = generate.expected(name, rows[name])
        rejected = sum(counts[defect] for defect in generate.REJECTED.get(name, ()))
        duplicate = counts.get("duplicate_key", 0)
        assert (table["source"], table["rejected"], table["duplicate"]) == (rows[name], rejected, duplicate), name
        assert table["created"] == rows[name] - rejected - duplicate, name
    sales, pay = (generate.expected(name, rows[name]) for name in ("KPS_T_SALES_MD", "KPS_T_SALESPAY_MD"))
    refused = {
        ("KPS_T_SALESPAY_MD", "REJECTED_MISSING_PARENT"): pay["missing_sale"] + pay["unknown_paytype"],
        ("KPS_T_SALES_MD", "REJECTED_BUDDHIST_ERA"): sales["buddhist_era"],
        ("KPS_T_SALES_MD", "REJECTED_FUTURE_DATE"): sales["future_date"],
        ("KPS_T_SALES_MD", "REJECTED_MISSING_PARENT"): sales["missing_tenant"],
        ("KPS_T_SALES_MD", "REJECTED_NA_TEXT"): sales["literal_na"],
        ("KPS_T_SALES_MD", "REJECTED_NULL_KEY"): sales["null_key"],
    }
    failed = (
        "SELECT TABLE_NAME, SF_ERROR_CODE, COUNT(*) FROM MIGRATION_FAILED_RECORDS {} GROUP BY TABLE_NAME, SF_ERROR_CODE"
    )
    of_the_batch = "WHERE AUDIT_ID IN (SELECT AUDIT_ID FROM MIGRATION_AUDIT_LOG WHERE BATCH_ID = 'kpc')"
    assert {tuple(row[:2]): row[2] for row in query(walk, "FORCELIFT", failed.format(of_the_batch))} == refused

    change_plan("buddhist_era: reject", "buddhist_era: convert")
    code, retried = command("failed", "retry", "--code", "REJECTED_BUDDHIST_ERA")
    assert retried["mended"] == sales["buddhist_era"], (code, retried)
    words = ("--note", "left out", "--by", "A Name")
    assert command("failed", "resolve", "--code", "REJECTED_NULL_KEY", *words)[0] == 0
    assert command("restore", "--execute")[0] == 0
    code, validated = command("validate", "kpc", "--levels", "all")
    assert code == 0, validated
    forms = ("report.html", "report.pdf", "report.md")
    assert command("report", "kpc", *(word for form in forms for word in ("--out", form)))[0] == 1
    assert all(Path(form).stat().st_size > 1000 for form in forms)
    signed = sign("after", "--batch", "kpc")
    assert open_items("after") == set()
    code, proof = command("audit", "verify", "--head", signed["head"]["hash"])
    assert (code, proof["is_whole"]) == (0, True)


@pytest.mark.slow
@pytest.mark.parametrize("walk", ["19c", "23ai"], indirect=True)
def test_the_walk_with_the_way_back(generate: ModuleType, walk: OracleServer) -> None:
    code, run = command("run", "--batch", "kpc", "--prepare")
    assert code == 1, run
    assert command("report", "kpc", "--out", "report.md")[0] == 1
    sign("after", "--batch", "kpc")
    assert command("rollback", "kpc")[0] == 0
    code, undone = command("rollback", "kpc", "--execute", "--reason", "walked through")
    assert code == 0, undone
    with closing(duckdb.connect("org.duckdb", read_only=True)) as org:
        assert org.execute('SELECT count(*) FROM data."KPS_Sales__c" WHERE NOT "IsDeleted"').fetchone() == (0,)
    statuses = query(walk, "FORCELIFT", "SELECT DISTINCT STATUS FROM MIGRATION_AUDIT_LOG")
    assert statuses == [("ROLLED_BACK",)]
    stale = command("signoff", "list")[1]["sign_offs"]
    assert [one["is_stale"] for one in stale] == [True] * len(ROLES)
    assert command("audit", "verify")[1]["is_whole"]
