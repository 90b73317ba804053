"""Values that a column's declared type cannot hold: each arrives where its field takes it, or its row is rejected.

SQLite stores anything in any column. The same rows as text in CSV must end the same way, value by value.
"""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.scenarios.scenario_support import Project, run_words

SCHEMA = """\
objects:
  Item__c:
    fields:
      Code__c: {type: string, length: 40, externalId: true, unique: true}
      Qty__c: {type: double, precision: 18, scale: 0}
      Price__c: {type: currency, precision: 12, scale: 2}
      Ok__c: {type: boolean}
      Day__c: {type: date}
      Note__c: {type: string, length: 40}
      Version__c: {type: double, precision: 18, scale: 2}
      Boss__c: {type: reference, referenceTo: Item__c, relationshipName: Boss__r}
"""
PLAN = """\
version: 1
project: Misfits
source: {url: "SOURCE"}
target: {url: "twin:./org.duckdb", twin_schema: schema.yaml}
tables:
  - table: items
    object: Item__c
    key: ID
    external_id: Code__c
    changed_at: VERSION
    duplicates: keep_latest
    fields:
      QTY: Qty__c
      PRICE: Price__c
      OK: Ok__c
      DAY: Day__c
      NOTE: Note__c
      VERSION: Version__c
      BOSS: {field: Boss__r.Code__c, parent: items}
chunks: {rows: 4}
"""
NAMES = ("ID", "QTY", "PRICE", "OK", "DAY", "NOTE", "VERSION", "BOSS")
TYPES = ("INTEGER", "INTEGER", "DECIMAL(12,2)", "BOOLEAN", "DATE", "REAL", "BIGINT", "INTEGER")
CLEAN = {"QTY": 5, "PRICE": 2.5, "OK": 1, "DAY": "2024-01-31", "NOTE": None, "VERSION": 1, "BOSS": None}
NUMBER, SIZE = "REJECTED_INVALID_NUMBER", "REJECTED_NUMBER_SIZE"
# The key, what differs from a clean row, and the reason or the fields of the record.
CASES: list[tuple[Any, dict[str, Any], str | dict[str, str | None]]] = [
    (1, {}, {"Qty__c": "5", "Price__c": "2.5", "Ok__c": "true", "Day__c": "2024-01-31"}),
    (2, {"QTY": "Somchai"}, NUMBER),
    (3, {"QTY": 1.5}, {"Qty__c": "2"}),
    (4, {"QTY": ""}, {"Qty__c": None}),
    (5, {"QTY": b"31"}, {"Qty__c": "31"}),
    (6, {"QTY": 2.0**70}, SIZE),
    (7, {"PRICE": "12,50"}, NUMBER),
    (8, {"PRICE": 1e25}, SIZE),
    (9, {"PRICE": float("inf")}, NUMBER),
    (10, {"PRICE": b"\xff"}, "REJECTED_ENCODING_ERROR"),
    (11, {"OK": 2}, "REJECTED_INVALID_BOOLEAN"),
    (12, {"OK": "Yes"}, {"Ok__c": "true"}),
    (13, {"OK": ""}, {"Ok__c": "false"}),
    (14, {"DAY": "2024-13-45"}, "REJECTED_INVALID_DATE"),
    (15, {"DAY": b"2024-02-29"}, {"Day__c": "2024-02-29"}),
    (16, {"NOTE": "hello"}, {"Note__c": "hello"}),
    (17, {"NOTE": "ก้าว".encode()}, {"Note__c": "ก้าว"}),
    (18, {"NOTE": float("-inf")}, {"Note__c": "-Infinity"}),
    (19, {"NOTE": "#N/A"}, "REJECTED_NA_TEXT"),
    (20, {"VERSION": "new"}, NUMBER),
    ("abc", {"NOTE": "early", "VERSION": 9}, "duplicate"),
    ("ABC", {"NOTE": "late", "VERSION": 10.5}, {"Note__c": "late", "Version__c": "10.5"}),
    (b"aBc", {"NOTE": "odd", "VERSION": "x"}, "duplicate"),
    (1.5, {"BOSS": "ABC"}, {"Boss__r.Code__c": "ABC"}),
    (22, {"BOSS": "nobody"}, "REJECTED_MISSING_PARENT"),
    (23, {"BOSS": b"1"}, {"Boss__r.Code__c": "1"}),
    ("", {}, "REJECTED_NULL_KEY"),
    (b"k\xfe", {}, "REJECTED_ENCODING_ERROR"),
    *((number, {}, {"Qty__c": "5"}) for number in range(100, 110)),
]


def text_of(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return "" if value is None else str(value).replace("inf", "Infinity")


def cells(key: Any, odd: dict[str, Any]) -> list[Any]:
    return [{**CLEAN, **odd, "ID": key}[name] for name in NAMES]


def make_sqlite(folder: Path) -> str:
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(NAMES, TYPES, strict=True))
    with closing(sqlite3.connect(folder / "source.db")) as connection:
        connection.execute(f"CREATE TABLE items ({columns})")
        connection.executemany(
            f"INSERT INTO items VALUES ({', '.join('?' * len(NAMES))})", [cells(key, odd) for key, odd, _ in CASES]
        )
        connection.commit()
    return "sqlite:///source.db"


def make_csv(folder: Path) -> str:
    (folder / "data").mkdir()
    path = folder / "data" / "items.csv"
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(NAMES)
        writer.writerows([text_of(value) for value in cells(key, odd)] for key, odd, _ in CASES)
    return "files:./data"


MAKERS = {"sqlite": make_sqlite, "csv": make_csv}


def make_project(folder: Path, url: str) -> Project:
    project = Project(folder)
    (folder / "schema.yaml").write_text(SCHEMA)
    project.plan.write_text(PLAN.replace("SOURCE", url))
    return project


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("csv", marks=pytest.mark.slow)])
def test_each_misfit_arrives_or_is_rejected_with_its_reason_in_any_chunks(kind: str, tmp_path: Path) -> None:
    project = make_project(tmp_path, MAKERS[kind](tmp_path))
    screen = project.run("--json", "--batch", "one")
    assert screen.code == 1, screen.err
    check(project, "one")
    for rows, batch in ((7, "two"), (1000, "three")):
        text = project.plan.read_text()
        project.plan.write_text(text[: text.index("chunks:")] + f"chunks: {{rows: {rows}}}\n")
        assert project.run("--json", "--batch", batch).code == 1
        assert decided(project, batch) == decided(project, "one")
    shown = {record[1]: json.dumps(record[4]) for record in project.failed_records()}
    assert "Somchai" not in "".join(shown.values())
    seen: dict[tuple[str, str], Any] = {}
    for _, name, code, _, data in project.failed_records():
        assert seen.setdefault((name, code), data) == data, "one row is shown in one way, whatever stands beside it"
    assert "nobody" not in "".join(shown.values())
    # What was sent stands in the org as the source, read once more, has it.
    assert run_words("validate", "--plan", str(project.plan), "three").code == 0


def check(project: Project, batch: str) -> None:
    found = {key: (outcome, code) for key, outcome, code in project.outcomes(batch)["items"]}
    reasons: dict[str, int] = {}
    with project.served() as org:
        fields = sorted({name for _, _, wanted in CASES if isinstance(wanted, dict) for name in wanted})
        records = org.records("Item__c", "Code__c", fields)
    for key, _, wanted in CASES:
        name = text_of(key)
        if isinstance(wanted, dict):
            assert {field: records[name][field] for field in wanted} == wanted, name
        elif wanted != "duplicate":
            # A lookup is sent after the record itself, which stays.
            assert (name in records) == (wanted == "REJECTED_MISSING_PARENT"), name
            reasons[wanted] = reasons.get(wanted, 0) + 1
    counted: dict[str, int] = {}
    for _, code in found.values():
        if code is not None:
            counted[code] = counted.get(code, 0) + 1
    assert counted == reasons
    assert sum(outcome == "duplicate" for _, outcome, _ in project.outcomes(batch)["items"]) == 2
    assert {code for _, _, code, _, _ in project.failed_records()} == set(reasons)


def decided(project: Project, batch: str) -> list[tuple[str, str, str | None]]:
    found = project.outcomes(batch)["items"]
    return sorted((key or "", (outcome or "").replace("updated", "created"), code) for key, outcome, code in found)


def test_a_sample_and_a_merge_of_such_a_table_are_the_same_in_any_chunks(tmp_path: Path) -> None:
    project = make_project(tmp_path, make_sqlite(tmp_path))
    merged = {"duplicates: keep_latest": "duplicates: merge", "QTY: Qty__c": "QTY: {field: Qty__c, merge: max}"}
    project.change_plan({**merged, "NOTE: Note__c": "NOTE: {field: Note__c, merge: longest}"})
    drawn = []
    for rows, batch in ((3, "one"), (1000, "two")):
        text = project.plan.read_text()
        project.plan.write_text(text[: text.index("chunks:")] + f"chunks: {{rows: {rows}}}\n")
        screen = project.run("--json", "--batch", batch, "--sample-percent", "60")
        assert screen.code == 1, screen.err
        drawn.append(decided(project, batch))
        screen = project.run("--json", "--batch", f"whole {batch}")
        assert screen.code == 1, screen.err
        drawn.append(decided(project, f"whole {batch}"))
    assert drawn[0] == drawn[2]
    assert drawn[1] == drawn[3]
    assert 10 < len(drawn[0]) < len(drawn[1]) == len(CASES)
    with project.served() as org:
        record = org.records("Item__c", "Code__c", ["Note__c", "Version__c"])["ABC"]
    assert record == {"Note__c": "early", "Version__c": "10.5"}


BEYOND_SCHEMA = """\
objects:
  Item__c:
    fields:
      Code__c: {type: string, length: 80, externalId: true, unique: true}
      Number__c: {type: double, precision: 18, scale: 0}
      Day__c: {type: date}
      Time__c: {type: datetime}
      Note__c: {type: string, length: 80}
"""
BEYOND_PLAN = """\
version: 1
project: Beyond
source: {url: "SOURCE", timezone: UTC}
target: {url: "twin:./org.duckdb", twin_schema: schema.yaml}
tables:
  - table: items
    object: Item__c
    key: id
    external_id: Code__c
    changed_at: moment
    duplicates: keep_latest
    fields: {huge: Number__c, day: Day__c, moment: Time__c, note: Note__c}
chunks: {rows: 3}
"""
HUGE = 2**127 - 1  # 39 digits


def beyond_duckdb(folder: Path) -> str:
    with closing(duckdb.connect(str(folder / "source.duckdb"))) as connection:
        connection.execute("CREATE TABLE items (id HUGEINT, huge HUGEINT, day DATE, moment TIMESTAMP_NS, note DOUBLE)")
        connection.execute(
            f"INSERT INTO items VALUES (1, 7, '2024-01-31', '2024-01-31 10:00', 1.5), ({HUGE}, 7, NULL, NULL, 'inf'),"
            f" (3, {HUGE}, NULL, NULL, NULL), (4, NULL, 'infinity', NULL, 'nan'), (5, NULL, '290000-01-01', NULL, 1),"
            " (6, NULL, NULL, 'infinity', NULL), (7, NULL, NULL, '2024-01-31', 1),"
            " (7, NULL, NULL, '2024-02-29 12:00', 2), (7, NULL, NULL, '-infinity', 3)"
        )
    return "duckdb:///source.duckdb"


def beyond_parquet(folder: Path) -> str:
    def wide(*values: int | None) -> pa.Array:
        return pa.array([None if value is None else Decimal(value) for value in values], pa.decimal256(40, 0))

    day = 86_400_000
    late, latest = (date(2024, 1, 31).toordinal() - 719_163) * day, (date(2024, 2, 29).toordinal() - 719_163) * day
    table = pa.table(
        {
            "id": wide(1, HUGE, 3, 4, 5, 6, 7, 7, 7),
            "huge": wide(7, 7, HUGE, *[None] * 6),
            "day": pa.array([late // day, None, None, 2**31 - 1, 100_000_000, *[None] * 4], pa.int32()).cast(
                pa.date32()
            ),
            "moment": pa.array(
                [late + 36_000_000, *[None] * 4, 2**62, late, latest + 43_200_000, -(2**62)], pa.int64()
            ).cast(pa.timestamp("ms")),
            "note": pa.array([1.5, float("inf"), None, float("nan"), 1, None, 1, 2, 3], pa.float64()),
        }
    )
    (folder / "data").mkdir()
    pq.write_table(table, folder / "data" / "items.parquet")
    return "files:./data"


@pytest.mark.parametrize("make", [beyond_duckdb, beyond_parquet])
def test_a_time_without_end_may_be_merged(make: Any, tmp_path: Path) -> None:
    project = make_project(tmp_path, "")
    (tmp_path / "schema.yaml").write_text(BEYOND_SCHEMA)
    project.plan.write_text(BEYOND_PLAN.replace("SOURCE", make(tmp_path)))
    project.change_plan(
        {"duplicates: keep_latest": "duplicates: merge", "day: Day__c": "day: {field: Day__c, merge: max}"}
    )
    project.change_plan({"moment: Time__c": "moment: {field: Time__c, merge: not_null}"})
    for rows, batch in ((3, "one"), (100, "two")):
        project.plan.write_text(project.plan.read_text().replace("rows: 3", f"rows: {rows}"))
        screen = project.run("--json", "--batch", batch)
        assert screen.code == 1, screen.err
    assert decided(project, "one") == decided(project, "two")
    with project.served() as org:
        assert org.records("Item__c", "Code__c", ["Time__c"])["7"]["Time__c"] == "2024-02-29T12:00:00Z"


@pytest.mark.parametrize("make", [beyond_duckdb, beyond_parquet])
def test_numbers_and_dates_beyond_what_is_calculated_with_reach_the_rules(make: Any, tmp_path: Path) -> None:
    project = make_project(tmp_path, "")
    (tmp_path / "schema.yaml").write_text(BEYOND_SCHEMA)
    project.plan.write_text(BEYOND_PLAN.replace("SOURCE", make(tmp_path)))
    wanted = [
        ("1", "created", None),
        (str(HUGE), "created", None),
        ("3", "rejected", SIZE),
        ("4", "rejected", "REJECTED_INVALID_DATE"),
        ("5", "rejected", "REJECTED_INVALID_DATE"),
        ("6", "rejected", "REJECTED_INVALID_DATE"),
        ("7", "created", None),
        ("7", "duplicate", None),
        ("7", "duplicate", None),
    ]
    for rows, batch in ((3, "one"), (100, "two")):
        project.plan.write_text(project.plan.read_text().replace("rows: 3", f"rows: {rows}"))
        screen = project.run("--json", "--batch", batch)
        assert screen.code == 1, screen.err
        assert decided(project, batch) == sorted(wanted, key=lambda row: (row[0], row[1]))
    with project.served() as org:
        found = org.records("Item__c", "Code__c", ["Number__c", "Day__c", "Time__c", "Note__c"])
    assert found["1"] == {"Number__c": "7", "Day__c": "2024-01-31", "Time__c": "2024-01-31T10:00:00Z", "Note__c": "1.5"}
    assert found[str(HUGE)]["Note__c"] == "Infinity"
    assert found["7"]["Time__c"] == ("2024-02-29T12:00:00Z")
