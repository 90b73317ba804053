"""`forcelift init`: the draft is a plan that loads, and nothing doubtful is in force."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from tests.integration.cli_migration import Migration, soql_count

from forcelift.before.init.names import likeness
from forcelift.plan import load_plan
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

pytest_plugins = ["tests.postgres_support"]

SCHEMA: dict[str, Any] = {
    "objects": {
        "KPS_Tenant__c": {
            "fields": {
                "Name": {"type": "string"},
                "Tenant_Code__c": {"type": "string", "length": 20, "externalId": True, "unique": True},
                "Phone__c": {"type": "phone"},
                "Boss__c": {"type": "reference", "referenceTo": "KPS_Tenant__c", "relationshipName": "Boss__r"},
            }
        },
        "KPS_Sale__c": {
            "fields": {
                "Name": {"type": "string"},
                "Sale_Number__c": {"type": "string", "length": 20, "externalId": True, "unique": True},
                "Sales_Amount__c": {"type": "currency", "precision": 12, "scale": 2},
                "Sales_Date__c": {"type": "date"},
                "Description__c": {"type": "string", "length": 5},
                "Status__c": {"type": "picklist", "restrictedPicklist": True, "values": ["Active", "Closed"]},
                "Tenant__c": {"type": "reference", "referenceTo": "KPS_Tenant__c", "relationshipName": "Tenant__r"},
            }
        },
        "Something_Else__c": {"fields": {"Name": {"type": "string"}}},
    }
}
TABLES = (
    "CREATE TABLE kps_m_tenants (tenant_code VARCHAR(20) PRIMARY KEY, tenant_name VARCHAR(50), tel VARCHAR(20),"
    " boss VARCHAR(20) REFERENCES kps_m_tenants (tenant_code))",
    "CREATE TABLE kps_t_sales (sale_no VARCHAR(20) PRIMARY KEY, sales_amt DECIMAL(12, 2), sales_dt DATE,"
    " descr VARCHAR(50), status VARCHAR(10), tenant_code VARCHAR(20) REFERENCES kps_m_tenants (tenant_code),"
    " zzz INTEGER)",
    "CREATE TABLE kps_x_log (line VARCHAR(50))",
    "INSERT INTO kps_m_tenants VALUES ('T1', 'One', '02', NULL)",
    "INSERT INTO kps_m_tenants VALUES ('T2', 'Two', '03', 'T1')",
    "INSERT INTO kps_t_sales VALUES ('S1', 1.5, '2024-01-02', 'much too long', 'A', 'T1', 1),"
    " ('S2', 2.5, '2024-01-03', 'ok', 'Closed', 'T2', 2)",
)


@pytest.fixture(params=["sqlite", "duckdb", "postgresql"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        with closing(sqlite3.connect(tmp_path / "s.db")) as connection:
            for statement in TABLES:
                connection.execute(statement)
            connection.commit()
        return "sqlite:///s.db"
    if request.param == "duckdb":
        with duckdb.connect(str(tmp_path / "s.duckdb")) as database:
            for statement in TABLES:
                database.execute(statement)
        return "duckdb:///s.duckdb"
    postgres, name = request.getfixturevalue("postgres"), request.getfixturevalue("database")
    with psycopg.connect(postgres.dsn(name), autocommit=True) as session:
        for statement in TABLES:
            session.execute(statement)
    return str(postgres.plan_url(name))


@pytest.fixture
def org(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    with TwinOrg.open(schema=schema_from_dict(SCHEMA)) as made, TwinServer(made) as server:
        monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
        monkeypatch.chdir(tmp_path)
        yield Migration(folder=tmp_path, org=made, server=server)


def _words(org: Migration, source: str) -> list[str]:
    auth = ["--auth", "flow=token", "--auth", "access_token=${CLI_TEST_TOKEN}"]
    return ["init", "--source", source, "--target", org.server.url, *auth]


def test_the_draft_is_a_plan_that_loads(org: Migration, source: str) -> None:
    document = org.document(*_words(org, source), code=1)
    by_name = {table["table"]: table for table in document["tables"]}
    tenants, sales, other = by_name["kps_m_tenants"], by_name["kps_t_sales"], by_name["kps_x_log"]
    assert tenants["in_force"], tenants["doubts"]
    assert sales["in_force"], sales["doubts"]
    assert not other["in_force"]
    assert (tenants["object"]["name"], sales["object"]["name"]) == ("KPS_Tenant__c", "KPS_Sale__c")
    plan = load_plan(org.plan).plan
    assert [table.table for table in plan.tables] == ["kps_m_tenants", "kps_t_sales"]
    fields = {column: rule.field for table in plan.tables for column, rule in table.fields.items()}
    assert fields["tenant_name"] == "Name"
    assert fields["sales_amt"] == "Sales_Amount__c"
    assert fields["sales_dt"] == "Sales_Date__c"
    assert fields["tenant_code"] == "Tenant__r.Tenant_Code__c"
    assert fields["boss"] == "Boss__r.Tenant_Code__c"
    assert "zzz" not in fields
    assert document["load_order"] == [["kps_m_tenants"], ["kps_t_sales"]]
    assert document["cycles"] == [["kps_m_tenants"]]
    status = next(one for one in sales["columns"] if one["column"] == "status")
    assert "1 values are none of the picklist's" in status["reason"]
    text = org.plan.read_text(encoding="utf-8")
    assert "# zzz: ?" in text
    assert "# kps_x_log is left out" in text
    assert org.server.access_token not in text
    assert not list(org.folder.glob(".forcelift*")), "nothing is left beside it"
    done = org.run("run", "--dry-run")
    assert done.returncode in (0, 1), done.stderr
    org.run("run")
    assert soql_count(org.server, "KPS_Tenant__c") == 2


def test_taking_the_marks_off_gives_a_plan(org: Migration, tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "s.duckdb")) as database:
        database.execute(
            "CREATE TABLE kps_m_tenants AS SELECT 'T1' AS tenant_code, 'T1' AS again, 'One' AS tenant_name"
        )
        database.execute("INSERT INTO kps_m_tenants VALUES ('T1', 'T2', 'Two')")
    document = org.document(*_words(org, "duckdb:///s.duckdb"), code=1)
    assert not document["tables"][0]["in_force"], "its key repeats"
    lines = org.plan.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if "- table:" in line)
    kept = [line.replace("# ", "", 1) for line in lines[first:] if not line.rstrip().endswith("resembles it")]
    whole = [*lines[:first], *(line for line in kept if ": ?" not in line)]
    org.plan.write_text("\n".join(whole) + "\n", encoding="utf-8")
    assert load_plan(org.plan).plan.tables[0].object == "KPS_Tenant__c"


def test_a_file_that_is_there_is_never_replaced(org: Migration, tmp_path: Path) -> None:
    org.plan.write_text("mine", encoding="utf-8")
    assert org.run(*_words(org, "duckdb:///s.duckdb")).returncode == 3
    assert org.plan.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["init", "--source", "sqlite:///none.db", "--target", "twin:./org.duckdb"], 4),
        (["init", "--source", "nothing", "--target", "twin:./org.duckdb"], 2),
        (["init", "--target", "twin:./org.duckdb"], 2),
        (["init", "--source", "duckdb:///s.duckdb", "--target", "https://x.my.salesforce.com", "--auth", "token"], 2),
    ],
)
def test_mistakes_leave_no_file(org: Migration, words: list[str], code: int) -> None:
    done = org.run(*words)
    assert done.returncode in (code, 4), done.stderr
    assert not org.plan.exists()
    assert not list(org.folder.glob(".forcelift*"))


def test_a_literal_secret_is_refused_and_written_nowhere(org: Migration, tmp_path: Path) -> None:
    words = ["init", "--source", "duckdb:///s.duckdb", "--target", org.server.url]
    done = org.run(*words, "--auth", "flow=token", "--auth", "access_token=sesame-open")
    assert done.returncode == 2
    assert "sesame-open" not in done.stdout + done.stderr
    assert not any("sesame-open" in file.read_text(errors="replace") for file in tmp_path.iterdir() if file.is_file())


@pytest.mark.parametrize(
    ("left", "right", "low", "high"),
    [
        ("SALES_AMOUNT", "Sales_Amount__c", 1.0, 1.0),
        ("SalesAmount", "sales_amount__c", 1.0, 1.0),
        ("cust_no", "Customer_Number__c", 1.0, 1.0),
        ("companies", "Company__c", 1.0, 1.0),
        ("status", "Status_Date__c", 0.0, 0.79),
        ("created", "Amount__c", 0.0, 0.5),
    ],
)
def test_likeness_of_names(left: str, right: str, low: float, high: float) -> None:
    assert low <= likeness(left, right) <= high
