"""What comes before a migration, with Oracle as the source: draft, estimate, check, backup, rehearsal."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from tests.integration.cli_migration import Migration
from tests.oracle_server.server import OracleServer
from tests.oracle_server.values import utc_now
from tests.oracle_support import PASSWORD, connect, oracle

from forcelift.before.check.model import Verdict
from forcelift.before.check.oracle import password as check_password
from forcelift.errors import SourceError, SourceUnavailable
from forcelift.source import open_source
from forcelift.source.backup_oracle import OracleBackups

__all__ = ["oracle"]

TENANTS, SALES, WITHIN = 5, 200, 150
SCHEMA = """\
objects:
  KPS_Tenant__c:
    fields:
      Name: {type: string}
      Tenant_Code__c: {type: string, length: 20, externalId: true, unique: true}
  KPS_Sales__c:
    fields:
      Name: {type: string}
      Sales_ID__c: {type: string, length: 20, externalId: true, unique: true}
      Sales_Amount__c: {type: currency, precision: 12, scale: 2}
      Tenant__c: {type: reference, referenceTo: KPS_Tenant__c, relationshipName: Tenant__r}
"""
PLAN = """\
version: 1
project: Oracle before
source: {{url: "oracle://{dsn}", user: "${{BEFORE_USER}}", password: "${{BEFORE_PASSWORD}}"}}
target: {{url: "twin:./org.duckdb", twin_schema: schema.yaml}}
tables:
  - {{table: KPS_M_TENANT, object: KPS_Tenant__c, key: TENANT_CODE, external_id: Tenant_Code__c,
     fields: {{TENANT_NAME: Name}}}}
  - table: KPS_T_SALES
    object: KPS_Sales__c
    key: SALES_ID
    external_id: Sales_ID__c
    where: SALES_ID < 150
    fields: {{SALES_AMOUNT: Sales_Amount__c, TENANT_CODE: {{field: Tenant__r.Tenant_Code__c, parent: KPS_M_TENANT}}}}
"""


@pytest.fixture
def migration(oracle: OracleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Migration:
    with connect(oracle) as session:
        cursor = session.cursor()
        cursor.execute("CREATE TABLE KPS_M_TENANT (TENANT_CODE VARCHAR2(20) PRIMARY KEY, TENANT_NAME VARCHAR2(50))")
        cursor.execute(
            "CREATE TABLE KPS_T_SALES (SALES_ID NUMBER(10) PRIMARY KEY, SALES_AMOUNT NUMBER(12,2),"
            " TENANT_CODE VARCHAR2(20))"
        )
        cursor.executemany("INSERT INTO KPS_M_TENANT VALUES (:1, :2)", [(f"T{i}", f"ร้าน {i}") for i in range(TENANTS)])
        cursor.executemany(
            "INSERT INTO KPS_T_SALES VALUES (:1, :2, :3)", [(i, i, f"T{i % TENANTS}") for i in range(SALES)]
        )
        session.commit()
    monkeypatch.setenv("BEFORE_USER", "KPS")
    monkeypatch.setenv("BEFORE_PASSWORD", PASSWORD)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    (tmp_path / "forcelift.yaml").write_text(PLAN.format(dsn=oracle.dsn), encoding="utf-8")
    return Migration(folder=tmp_path, org=None, server=None)  # type: ignore[arg-type]  # the twin is inside the process


def _rows(oracle: OracleServer, query: str) -> list[tuple[object, ...]]:
    with connect(oracle) as session:
        return list(session.cursor().execute(query).fetchall())


def test_backup_copies_within_the_plans_filter_and_as_of_an_scn(oracle: OracleServer, migration: Migration) -> None:
    ((scn,),) = _rows(oracle, "SELECT TO_CHAR(current_scn) FROM v$database")
    with connect(oracle) as session:
        session.cursor().execute("DELETE FROM KPS_T_SALES WHERE SALES_ID < 10")
        session.commit()
    made = migration.document("backup", "--table", "KPS_T_SALES")["backups"]
    assert [one["rows"] for one in made] == [WITHIN - 10]
    name = made[0]["backup_table"]
    assert _rows(oracle, f'SELECT COUNT(*) FROM "{name}"') == [(WITHIN - 10,)]
    then = migration.document("backup", "--table", "KPS_T_SALES", "--name", "SALES_THEN", "--flashback", str(scn))
    assert then["backups"][0]["rows"] == WITHIN
    assert then["backups"][0]["is_one_state"]
    assert migration.run("backup", "--table", "KPS_T_SALES").returncode == 3, "nothing is overwritten"
    unknown = migration.run("backup", "--table", "KPS_T_SALES", "--name", "X", "--flashback", "2999-01-01T00:00")
    assert unknown.returncode == 4
    assert "no state of that time" in unknown.stderr
    zoned = migration.run("backup", "--table", "KPS_T_SALES", "--name", "X", "--flashback", "2026-01-01T00:00+07:00")
    assert zoned.returncode == 4, "the server's own time is meant, and another one would be read in silence"
    assert "names a time zone" in zoned.stderr
    assert migration.run("backup", "--drop-older-than", "0", "--execute").returncode == 0
    assert _rows(oracle, "SELECT COUNT(*) FROM user_tables") == [(2,)]


def test_backup_looks_for_room_first(oracle: OracleServer, migration: Migration) -> None:
    oracle.store.free_blocks = 1
    refused = migration.run("backup", "--table", "KPS_T_SALES")
    assert refused.returncode == 3
    assert "the user's default tablespace has 0.0 MB free" in refused.stderr
    assert _rows(oracle, "SELECT COUNT(*) FROM user_tables") == [(2,)]
    assert migration.document("backup", "--table", "KPS_T_SALES", "--no-space-check")["backups"][0]["rows"] == WITHIN
    oracle.store.free_blocks = 0
    assert migration.run("backup", "--table", "KPS_M_TENANT").returncode == 3, "a full tablespace has no free extents"
    oracle.store.free_blocks = 1_000
    assert migration.document("backup", "--table", "KPS_M_TENANT")["backups"][0]["rows"] == TENANTS


def test_room_is_unknown_where_the_views_are_not_to_be_seen(oracle: OracleServer, migration: Migration) -> None:
    """Of another user's table only a DBA sees the size; a copy is made without."""
    oracle.add_user("PLAIN", PASSWORD)
    with connect(oracle) as session:
        session.cursor().execute("GRANT SELECT ON KPS_M_TENANT TO plain")
    url = f"oracle://{oracle.dsn}"
    for user, known in (("KPS", True), ("PLAIN", False)):
        backups = OracleBackups(url, user=user, password=PASSWORD)
        room = backups.room("KPS.KPS_M_TENANT")
        assert (room.needed is not None, room.free) == (known, None)
        backups.close()


def test_check_knows_undo_grants_and_characters(oracle: OracleServer, migration: Migration) -> None:
    checks = {one["name"]: one for one in migration.document("check")["checks"]}
    names = ("oracle_grants", "oracle_password", "oracle_nls", "oracle_undo")
    assert [checks[name]["verdict"] for name in names] == ["pass"] * 4
    assert checks["oracle_password"]["figure"] == "no end"
    assert checks["oracle_nls"]["figure"] == "AL32UTF8"
    assert "undo kept" in checks["oracle_undo"]["figure"]
    document = migration.document("estimate")
    assert {table["table"]: table["rows"] for table in document["tables"]} == {
        "KPS_M_TENANT": TENANTS,
        "KPS_T_SALES": WITHIN,
    }


def test_check_warns_of_a_password_that_will_not_last(oracle: OracleServer) -> None:
    user = oracle.store.catalog.users["KPS"]
    for days, in_grace, verdict, words in (
        (40.5, False, Verdict.PASS, "the account is OPEN"),
        (13.5, False, Verdict.WARN, "ORA-28001"),
        (6.5, True, Verdict.WARN, "the account is EXPIRED(GRACE)"),
        (-1.0, False, None, ""),
    ):
        user.password_until, user.is_in_grace = utc_now() + timedelta(days=days), in_grace
        if verdict is None:
            with pytest.raises(SourceError, match=r"the password has expired \(ORA-28001\)") as error:
                open_source(f"oracle://{oracle.dsn}", user="KPS", password=PASSWORD)
            assert not isinstance(error.value, SourceUnavailable)
            continue
        source = open_source(f"oracle://{oracle.dsn}", user="KPS", password=PASSWORD)
        found = check_password(source)
        source.close()
        assert found.verdict is verdict
        assert words in " ".join(found.evidence)
        assert found.figure == f"{int(days)} days"
        with connect(oracle) as session:  # the driver takes the warning of the grace period as one
            assert (session.warning is not None) == in_grace
            assert session.warning is None or session.warning.full_code == "ORA-28002"


def test_the_draft_and_the_rehearsal(oracle: OracleServer, migration: Migration) -> None:
    migration.plan.unlink()
    with connect(oracle) as session:
        cursor = session.cursor()
        cursor.execute("COMMENT ON TABLE KPS_M_TENANT IS 'ร้านค้า\n# ทั้งหมด'")
        cursor.execute("COMMENT ON COLUMN KPS_M_TENANT.TENANT_NAME IS 'ชื่อร้าน'")
    words = ["--source", f"oracle://{oracle.dsn}", "--source-user", "${BEFORE_USER}"]
    words += [
        "--source-password",
        "${BEFORE_PASSWORD}",
        "--target",
        "twin:./org.duckdb",
        "--twin-schema",
        "schema.yaml",
    ]
    tables = {table["table"]: table for table in migration.document("init", *words, code=1)["tables"]}
    assert tables["KPS_M_TENANT"]["in_force"]
    assert tables["KPS_T_SALES"]["in_force"]
    drafted = migration.plan.read_text(encoding="utf-8")
    assert PASSWORD not in drafted
    assert "  # In the source: ร้านค้า # ทั้งหมด\n" in drafted, drafted
    assert re.search(r"\n      TENANT_NAME: Name +# 1?0?\.?\d*: .*; in the source: ชื่อร้าน\n", drafted)
    document = migration.document("rehearse")
    assert document["would_fail"] == 0
    assert [table["accepted"] for table in document["tables"]] == [TENANTS, SALES]
