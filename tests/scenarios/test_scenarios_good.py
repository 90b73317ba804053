"""Good input beside the great table: encodings, declared types, links, inserts, dry runs, and the same plan again."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
from tests.scenarios.scenario_support import Project, assert_clear_error, copy_case, make_sqlite

# ก้าว in TIS-620; a byte that it leaves free; the euro sign of windows-874; a byte that both lack.
KAO, UNUSED, EURO, NONE = b"\xa1\xe9\xd2\xc7", b"\xdb", b"\x80", b"\xff"
SHOPS = [
    (b"a", KAO, KAO),
    (b"b", b" " + KAO + b" ", EURO + b"1"),
    (b"c", KAO + UNUSED, b"ok"),
    (b"d", b"plain", b"x" + NONE + b"y"),
    (b"e", b"bad" + NONE, b"ok"),
    (b"f", None, None),
]
SHOP_RECORDS = {
    "a": {"Town__c": "ก้าว", "Memo__c": "ก้าว"},
    "b": {"Town__c": "ก้าว", "Memo__c": "€1"},
    "d": {"Town__c": "plain", "Memo__c": "x\ufffdy"},
    "f": {"Town__c": None, "Memo__c": None},
}


def shops_in_sqlite(project: Project) -> None:
    with closing(sqlite3.connect(project.folder / "source.db")) as connection:
        connection.execute("CREATE TABLE shops (CODE TEXT, TOWN TEXT, MEMO TEXT)")
        connection.executemany("INSERT INTO shops VALUES (CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT))", SHOPS)
        connection.commit()


def shops_in_csv(project: Project) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["CODE", "TOWN", "MEMO"])
    writer.writerows([[(value or b"").decode("latin-1") for value in shop] for shop in SHOPS])
    (project.folder / "data").mkdir()
    (project.folder / "data" / "shops.csv").write_bytes(text.getvalue().encode("latin-1"))
    project.change_plan({"sqlite:///source.db": "files:./data"})


def shops_in_duckdb(project: Project) -> None:
    with closing(duckdb.connect(str(project.folder / "source.duckdb"))) as connection:
        connection.execute("CREATE TABLE shops (CODE VARCHAR, TOWN BLOB, MEMO BLOB)")
        connection.executemany("INSERT INTO shops VALUES (?, ?, ?)", [(s[0].decode(), s[1], s[2]) for s in SHOPS])
    project.change_plan({"sqlite:///source.db": "duckdb:///source.duckdb"})


def shops_in_parquet(project: Project) -> None:
    shops_in_duckdb(project)
    (project.folder / "data").mkdir()
    with closing(duckdb.connect(str(project.folder / "source.duckdb"))) as connection:
        connection.execute(f"COPY shops TO '{project.folder / 'data' / 'shops.parquet'}' (FORMAT parquet)")
    project.change_plan({"duckdb:///source.duckdb": "files:./data"})


@pytest.mark.parametrize("make", [shops_in_sqlite, shops_in_csv, shops_in_duckdb, shops_in_parquet])
def test_bytes_in_other_encodings(make, tmp_path: Path) -> None:
    project = copy_case("encodings", tmp_path)
    make(project)
    assert project.run().code == 1
    assert project.outcomes() == {
        "shops": [
            *([key, "created", None] for key in ("a", "b")),
            ["c", "rejected", "REJECTED_ENCODING_ERROR"],
            ["d", "created", None],
            ["e", "rejected", "REJECTED_ENCODING_ERROR"],
            ["f", "created", None],
        ]
    }
    for _, key, _, fields, data in project.failed_records():
        assert fields == "TOWN"
        assert data["TOWN"] != KAO.hex(), key
    with project.served() as org:
        assert org.records("Shop__c", "Shop_Code__c", ["Town__c", "Memo__c"]) == SHOP_RECORDS


def test_links_to_the_same_table_and_in_a_circle(tmp_path: Path) -> None:
    """A row whose link is refused is `failed`, as its record is in the org; a second run changes no link."""
    project = copy_case("links", tmp_path)
    make_sqlite(project, (tmp_path / "source.sql").read_text(encoding="utf-8"))
    expected = json.loads((tmp_path / "expect.json").read_text(encoding="utf-8"))
    for batch, accepted in (("one", "created"), ("two", "updated")):
        assert project.run("--batch", batch).code == 1
        outcomes = json.loads(json.dumps(expected["outcomes"]).replace('"created"', f'"{accepted}"'))
        assert project.outcomes(batch) == outcomes
        with project.served() as org:
            people = org.records("Person__c", "Person_Code__c", ["Boss__r.Person_Code__c", "Team__r.Team_Code__c"])
            teams = org.records("Team__c", "Team_Code__c", ["Leader__r.Person_Code__c"])
        assert {key: list(record.values()) for key, record in people.items()} == expected["people"]
        assert {key: record["Leader__r.Person_Code__c"] for key, record in teams.items()} == expected["teams"]
    sums = "SUM(SOURCE_COUNT), SUM(TRANSFORMED_COUNT), SUM(SKIPPED_COUNT), SUM(SUCCESS_COUNT), SUM(FAILED_COUNT)"
    found = project.audit(
        f"SELECT TABLE_NAME, {sums} FROM MIGRATION_AUDIT_LOG WHERE BATCH_ID = 'one' GROUP BY 1 ORDER BY 1"
    )
    assert found == [("people", 11, 10, 1, 6, 4), ("teams", 4, 4, 0, 3, 1)]


def test_inserts_are_refused_where_the_record_exists(tmp_path: Path) -> None:
    """`operation: insert` into a unique external ID: a second run creates nothing and says which rows were refused."""
    project = copy_case("bad_run", tmp_path)
    project.change_plan({"external_id: Tenant_Code__c": "external_id: Tenant_Code__c\n    operation: insert"})
    assert project.run("--batch", "one", "--table", "tenants").code == 0
    with (tmp_path / "data" / "tenants.csv").open("a", encoding="utf-8") as file:
        file.write("T3,Three\n")
    assert project.run("--batch", "two", "--table", "tenants").code == 1
    assert project.outcomes("one") == {"tenants": [["T1", "created", None], ["T2", "created", None]]}
    refused = ["failed", "DUPLICATE_VALUE"]
    assert project.outcomes("two") == {"tenants": [["T1", *refused], ["T2", *refused], ["T3", "created", None]]}
    with project.served() as org:
        names = org.records("Tenant__c", "Tenant_Code__c", ["Name"])
        assert {job["operation"] for job in org.jobs()} == {"insert"}
    assert {key: record["Name"] for key, record in names.items()} == {"T1": "One", "T2": "Two", "T3": "Three"}


TYPED = """
CREATE TABLE typed (
    ID BIGINT, PRICE DECIMAL(18, 4), WEIGHT DOUBLE, READY BOOLEAN, DAY DATE, LOCAL TIMESTAMP, MOMENT TIMESTAMPTZ
);
INSERT INTO typed VALUES
    (1, 10.5050, 0.1, true, '2024-02-29', '2024-07-01 12:00:00.75', '2024-07-01 12:00:00+07'),
    (2, -0.0050, 1e21, false, '1699-12-31', '2024-01-01 00:00:00', '2024-01-01 00:00:00Z'),
    (3, 12345678901234.5678, -2.5e-3, NULL, '4000-12-31', '1999-12-31 23:59:59', NULL),
    (4, NULL, NULL, NULL, NULL, NULL, NULL),
    (NULL, 1, 1, true, '2024-01-01', '2024-01-01', '2024-01-01'),
    (5, 1, 1, true, '2567-01-31', '2567-01-31 01:00:00', '2024-01-01 00:00:00.999999+00');
"""
TYPED_SCHEMA = """
objects:
  Typed__c:
    fields:
      Typed_Id__c: {type: string, length: 20, externalId: true, unique: true}
      Price__c: {type: currency, precision: 18, scale: 2}
      Weight__c: {type: double, precision: 18, scale: 3}
      Ready__c: {type: boolean}
      Day__c: {type: date}
      Local__c: {type: datetime}
      Moment__c: {type: datetime}
"""
TYPED_PLAN = """
version: 1
project: typed
source: {url: "duckdb:///source.duckdb", timezone: Asia/Bangkok}
target: {url: "twin:./org.duckdb", twin_schema: schema.yaml}
tables:
  - table: typed
    object: Typed__c
    key: ID
    external_id: Typed_Id__c
    fields:
      ID: Typed_Id__c
      PRICE: Price__c
      WEIGHT: Weight__c
      READY: Ready__c
      DAY: {field: Day__c, buddhist_era: convert, future_date: keep}
      LOCAL: {field: Local__c, buddhist_era: convert}
      MOMENT: Moment__c
"""
TYPED_FIELDS = ["Price__c", "Weight__c", "Ready__c", "Day__c", "Local__c", "Moment__c"]
TYPED_RECORDS = {
    "1": ["10.51", "0.1", "true", "2024-02-29", "2024-07-01T05:00:00Z", "2024-07-01T05:00:00Z"],
    "3": ["12345678901234.57", "-0.003", "false", "4000-12-31", "1999-12-31T16:59:59Z", None],
    "4": [None, None, "false", None, None, None],
    "5": ["1", "1", "true", "2024-01-31", "2024-01-30T18:00:00Z", "2024-01-01T00:00:00Z"],
}


def make_typed(folder: Path, form: str) -> Project:
    project = Project(folder)
    (folder / "schema.yaml").write_text(TYPED_SCHEMA, encoding="utf-8")
    project.plan.write_text(TYPED_PLAN, encoding="utf-8")
    with closing(duckdb.connect(str(folder / "source.duckdb"))) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(TYPED)
        if form == "parquet":
            (folder / "data").mkdir()
            connection.execute(f"COPY typed TO '{folder / 'data' / 'typed.parquet'}' (FORMAT parquet)")
    if form == "parquet":
        project.change_plan({"duckdb:///source.duckdb": "files:./data"})
    return project


@pytest.mark.parametrize("form", ["duckdb", "parquet"])
def test_declared_types(form: str, tmp_path: Path) -> None:
    """Decimals, doubles, booleans, dates and both kinds of timestamps, by their types and not by their text."""
    project = make_typed(tmp_path, form)
    assert project.run().code == 1
    assert project.outcomes()["typed"] == [
        [None, "rejected", "REJECTED_NULL_KEY"],
        ["1", "created", None],
        ["2", "rejected", "REJECTED_NUMBER_SIZE"],
        ["3", "created", None],
        ["4", "created", None],
        ["5", "created", None],
    ]
    with project.served() as org:
        found = org.records("Typed__c", "Typed_Id__c", TYPED_FIELDS)
    assert {key: list(record.values()) for key, record in found.items()} == TYPED_RECORDS


def test_naive_times_without_a_zone_are_a_fault_of_the_plan(tmp_path: Path) -> None:
    project = make_typed(tmp_path, "duckdb")
    project.change_plan({", timezone: Asia/Bangkok": ""})
    assert_clear_error(project.run(), code=2, says=["line 17", "LOCAL", "without a zone", "add `timezone:`"])
    assert project.traces() == (0, 0)
