"""The KPC TMS example at a small scale: Oracle as source and for the audit, a twin, and defects by their numbers."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

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
    import duckdb

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


@pytest.mark.slow
def test_the_walk_through(generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("forcelift.yaml", "org-schema.yaml"):
        shutil.copy(EXAMPLE / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORACLE_PASSWORD", PASSWORD)
    monkeypatch.setenv("ORACLE_AUDIT_PASSWORD", PASSWORD)
    rows = generate.rows_of(SCALE)
    with OracleServer("19c") as server:
        server.add_user("KPS", PASSWORD, "DBA", "CREATE TABLE")
        server.add_user("FORCELIFT", PASSWORD, *RIGHTS)
        plan = tmp_path / "forcelift.yaml"
        plan.write_text(plan.read_text().replace("127.0.0.1:1521/KPCPROD", f"127.0.0.1:{server.port}/{server.service}"))
        generate.into_oracle(f"oracle://KPS@127.0.0.1:{server.port}/{server.service}", rows)
        assert command("audit", "ddl", "--apply")[1]["made"]
        code, run = command("run", "--batch", "kpc")
        assert code == 1, run
        found = {table["table"]: table for table in run["tables"]}
        for name, table in found.items():
            counts = generate.expected(name, rows[name])
            rejected = sum(counts[defect] for defect in generate.REJECTED.get(name, ()))
            duplicate = counts.get("duplicate_key", 0)
            assert (table["source"], table["rejected"], table["duplicate"]) == (rows[name], rejected, duplicate), name
            assert table["created"] == rows[name] - rejected - duplicate, name
        summary = query(
            server,
            "FORCELIFT",
            "SELECT TABLE_NAME, SF_ERROR_CODE, COUNT(*) FROM MIGRATION_FAILED_RECORDS GROUP BY TABLE_NAME,"
            " SF_ERROR_CODE ORDER BY 1, 2",
        )
        sales, pay = (generate.expected(name, rows[name]) for name in ("KPS_T_SALES_MD", "KPS_T_SALESPAY_MD"))
        assert summary == [
            ("KPS_T_SALESPAY_MD", "REJECTED_MISSING_PARENT", pay["missing_sale"] + pay["unknown_paytype"]),
            ("KPS_T_SALES_MD", "REJECTED_BUDDHIST_ERA", sales["buddhist_era"]),
            ("KPS_T_SALES_MD", "REJECTED_FUTURE_DATE", sales["future_date"]),
            ("KPS_T_SALES_MD", "REJECTED_MISSING_PARENT", sales["missing_tenant"]),
            ("KPS_T_SALES_MD", "REJECTED_NA_TEXT", sales["literal_na"]),
            ("KPS_T_SALES_MD", "REJECTED_NULL_KEY", sales["null_key"]),
        ]
        code, validated = command("validate", "kpc", "--levels", "all")
        assert code == 0, validated
        assert command("audit", "verify")[1]["is_whole"]
