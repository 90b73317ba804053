"""`forcelift init`: what two could mean, what would not compile and what the rows speak against is never in force."""

from __future__ import annotations

from collections.abc import Iterator
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

_KEY = {"type": "string", "length": 20, "externalId": True, "unique": True}
SCHEMA: dict[str, Any] = {
    "objects": {
        "Customer__c": {
            "recordTypes": [{"name": "Retail", "developerName": "Retail"}],
            "fields": {
                "Name": {"type": "string", "length": 80},
                "Customer_Number__c": _KEY,
                "Phone__c": {"type": "phone"},
                "Score__c": {"type": "double", "precision": 5, "scale": 0},
                "Total__c": {"type": "double", "precision": 5, "scale": 0, "calculated": True},
                "Serial__c": {"type": "autoNumber"},
                "Birth_Date__c": {"type": "date"},
                "Joined_At__c": {"type": "datetime"},
                "Photo__c": {"type": "string", "length": 100},
                "Nickname__c": {"type": "string", "length": 80, "label": "ชื่อเล่น"},
            },
        },
        "Order__c": {
            "fields": {
                "Name": {"type": "autoNumber"},
                "Order_Number__c": _KEY,
                "Customer__c": {"type": "reference", "referenceTo": "Customer__c", "relationshipName": "Customer__r"},
                "Amount__c": {"type": "currency", "precision": 12, "scale": 2},
            }
        },
        "Invoice__c": {
            "fields": {
                "Name": {"type": "autoNumber"},
                "Invoice_Number__c": _KEY,
                "Amount__c": {"type": "currency", "precision": 12, "scale": 2},
                "Approved_By__c": {"type": "string", "length": 20, "required": True},
            }
        },
        "Passport__c": {
            "fields": {
                "Passport_Number__c": _KEY,
                "Note__c": {"type": "string", "length": 20},
                "Customer__c": {"type": "reference", "referenceTo": "Customer__c", "relationshipName": "Customer__r"},
            }
        },
        "Town__c": {"fields": {"Town_Code__c": _KEY, "Town_Name__c": {"type": "string", "length": 20}}},
    }
}
TABLES = (
    'CREATE TABLE customer (customer_no VARCHAR(10) PRIMARY KEY, name VARCHAR(80), "tel" VARCHAR(20),'
    " telephone VARCHAR(20), score DECIMAL(9, 3), total INTEGER, serial VARCHAR(9), birth_date VARCHAR(20),"
    ' joined_at TIMESTAMP, photo BLOB, "ชื่อเล่น" VARCHAR(20), "#" INTEGER)',
    'CREATE TABLE "order" (order_no VARCHAR(10) PRIMARY KEY, customer_no VARCHAR(10) REFERENCES customer (customer_no),'
    ' bill_to VARCHAR(10) REFERENCES customer (customer_no), amount DECIMAL(12, 2), "select" INTEGER, "null" INTEGER)',
    "CREATE TABLE invoice (invoice_no VARCHAR(10) PRIMARY KEY, amount DECIMAL(12, 2))",
    "CREATE TABLE passport (customer_no VARCHAR(10) PRIMARY KEY REFERENCES customer (customer_no),"
    " passport_no VARCHAR(10), note VARCHAR(20))",
    "CREATE TABLE town (town_code VARCHAR(10) PRIMARY KEY, town_name VARCHAR(20))",
    "CREATE TABLE towns (town_code VARCHAR(10) PRIMARY KEY, town_name VARCHAR(20))",
    "INSERT INTO customer VALUES ('C1', 'One', '02', '03', 1.5, 1, 'S', '31/12/2020', '2024-01-01 10:00:00', NULL,"
    " 'ก', 5)",
    "INSERT INTO \"order\" VALUES ('O1', 'C1', 'C1', 5.5, 1, 1)",
    "INSERT INTO invoice VALUES ('I1', 5.5)",
    "INSERT INTO passport VALUES ('C1', 'P1', 'n')",
    "INSERT INTO town VALUES ('T1', 'One')",
    "INSERT INTO towns VALUES ('T1', 'One')",
)


@pytest.fixture(params=["duckdb", "postgresql"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "duckdb":
        with duckdb.connect(str(tmp_path / "s.duckdb")) as database:
            for statement in TABLES:
                database.execute(statement)
        return "duckdb:///s.duckdb"
    postgres, name = request.getfixturevalue("postgres"), request.getfixturevalue("database")
    with psycopg.connect(postgres.dsn(name), autocommit=True) as session:
        for statement in TABLES:
            session.execute(statement.replace("BLOB", "BYTEA"))
    return str(postgres.plan_url(name))


@pytest.fixture
def org(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    with TwinOrg.open(schema=schema_from_dict(SCHEMA)) as made, TwinServer(made) as server:
        monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
        monkeypatch.chdir(tmp_path)
        yield Migration(folder=tmp_path, org=made, server=server)


def _draft(org: Migration, source: str, *more: str) -> dict[str, dict[str, Any]]:
    auth = ["--auth", "flow=token", "--auth", "access_token=${CLI_TEST_TOKEN}"]
    document = org.document("init", "--source", source, "--target", org.server.url, *auth, *more, code=1)
    return {table["table"]: table for table in document["tables"]}


def _columns(table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {column["column"]: column for column in table["columns"]}


def test_nothing_is_guessed_in_silence(org: Migration, source: str) -> None:
    drafts = _draft(org, source)
    customer = _columns(drafts["customer"])
    in_force = {name for name, column in customer.items() if column["in_force"]}
    assert in_force == {"name", "ชื่อเล่น"}
    assert "as much like" in customer["tel"]["reason"] + customer["telephone"]["reason"]
    assert "rounded to the field's scale" in customer["score"]["reason"]
    assert "sampled rows would be refused" in customer["birth_date"]["reason"]
    assert "without a zone" in customer["joined_at"]["reason"]
    assert "cannot go into" in customer["photo"]["reason"]
    assert customer["total"]["target"] is None, "a formula is never filled"
    assert customer["serial"]["target"] is None, "an auto-number is never filled"
    assert "record types (Retail)" in drafts["customer"]["notes"][0]
    order = _columns(drafts["order"])
    for name in ("customer_no", "bill_to"):
        assert not order[name]["in_force"]
        assert "2 columns may mean this lookup" in order[name]["reason"]
    assert "Approved_By__c" in " ".join(drafts["invoice"]["doubts"])
    assert "`passport_no` is named as it" in " ".join(drafts["passport"]["doubts"])
    assert "it is the key" in drafts["passport"]["notes"][0]
    for name in ("town", "towns"):
        assert drafts[name]["object"]["name"] == "Town__c"
        assert not drafts[name]["in_force"]
        assert "as much like" in drafts[name]["object"]["reason"]


def test_what_is_in_force_runs_and_so_does_what_a_person_chose(org: Migration, source: str) -> None:
    _draft(org, source, "--source-timezone", "Asia/Bangkok")
    text = org.plan.read_text(encoding="utf-8")
    joined = next(line for line in text.splitlines() if line.strip().startswith("joined_at"))
    assert not joined.strip().startswith("#"), "a zone was named"
    wanted = "      # customer_no: {field: Customer__r.Customer_Number__c, parent: customer}"
    assert text.count(wanted) == 1
    org.plan.write_text(text.replace(wanted, wanted.replace("# ", "", 1)), encoding="utf-8")
    plan = load_plan(org.plan).plan
    assert [table.table for table in plan.tables] == ["customer", "order"]
    done = org.run("run")
    assert done.returncode == 0, done.stderr
    assert soql_count(org.server, "Customer__c WHERE Joined_At__c = 2024-01-01T03:00:00Z") == 1
    assert soql_count(org.server, "Order__c WHERE Customer__r.Customer_Number__c = 'C1'") == 1


def test_a_parent_that_falls_takes_its_lookups_along(org: Migration, tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "s.duckdb")) as database:
        database.execute("CREATE TABLE customer (customer_no VARCHAR PRIMARY KEY, birth_date VARCHAR)")
        database.execute(
            'CREATE TABLE "order" (order_no VARCHAR PRIMARY KEY, amount DECIMAL(12, 2),'
            " customer_no VARCHAR REFERENCES customer (customer_no))"
        )
        database.execute("INSERT INTO customer VALUES ('C1', 'soon')")
    drafts = _draft(org, "duckdb:///s.duckdb")
    assert not drafts["customer"]["in_force"], "its only column would be refused"
    lookup = _columns(drafts["order"])["customer_no"]
    assert (drafts["order"]["in_force"], lookup["in_force"]) == (True, False)
    assert "customer is left out" in lookup["reason"]


def test_names_of_marks_are_not_alike_and_odd_names_stay_comments(org: Migration, tmp_path: Path) -> None:
    assert likeness("#", "%") == 0.0
    assert likeness("noext", "NoExt__c") > 0.9
    with duckdb.connect(str(tmp_path / "s.duckdb")) as database:
        database.execute('CREATE TABLE "bad\nversion: 2" ("a\nb: c" VARCHAR PRIMARY KEY, "x\u0085y" INTEGER)')
        database.execute("CREATE TABLE customer (customer_no VARCHAR PRIMARY KEY, name VARCHAR)")
    drafts = _draft(org, "duckdb:///s.duckdb")
    assert drafts["customer"]["in_force"]
    assert [table.table for table in load_plan(org.plan).plan.tables] == ["customer"]
