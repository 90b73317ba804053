"""`run --sample-percent` from end to end: the same rows from every source, and every lookup among them resolves.

The measure is a full run of the same plan: what it made of a row, a sample must make of it too.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import psycopg
import pyarrow as pa
import pytest
from tests.scenarios.scenario_support import Project, assert_clear_error, make_sqlite, run_words

from forcelift.rules import SamplePercent
from forcelift.rules.duplicates import key_hash

pytest_plugins = ["tests.postgres_support"]

SCHEMA = """\
objects:
  Region__c:
    fields:
      Name: {type: string}
      Code__c: {type: string, externalId: true, unique: true}
      Up__c: {type: reference, referenceTo: Region__c, relationshipName: Up__r}
  Tenant__c:
    fields:
      Name: {type: string}
      Code__c: {type: string, externalId: true, unique: true}
      Region__c: {type: reference, referenceTo: Region__c, relationshipName: Region__r}
      Shop__c: {type: reference, referenceTo: Shop__c, relationshipName: Shop__r}
  Shop__c:
    fields:
      Name: {type: string}
      Code__c: {type: string, externalId: true, unique: true}
      Tenant__c: {type: reference, referenceTo: Tenant__c, relationshipName: Tenant__r}
  Sale__c:
    fields:
      Name: {type: string}
      Sale__c: {type: string, externalId: true, unique: true}
      Amount__c: {type: currency, precision: 12, scale: 2}
      Tenant__c: {type: reference, referenceTo: Tenant__c, relationshipName: Tenant__r}
"""
PLAN = """\
version: 1
project: Samples
source: {url: "sqlite:///source.db"}
target: {url: "twin:./org.duckdb", twin_schema: schema.yaml}
tables:
  - table: sales
    object: Sale__c
    key: [book, no]
    external_id: Sale__c
    changed_at: changed
    duplicates: keep_latest
    fields:
      amount: Amount__c
      tenant: {field: Tenant__r.Code__c, parent: tenants, missing_parent: reject}
  - table: tenants
    object: Tenant__c
    key: code
    external_id: Code__c
    where: active = 'y'
    fields:
      name: Name
      region: {field: Region__r.Code__c, parent: regions, missing_parent: reject}
      shop: {field: Shop__r.Code__c, parent: shops, missing_parent: to_null}
  - table: shops
    object: Shop__c
    key: code
    external_id: Code__c
    fields:
      tenant: {field: Tenant__r.Code__c, parent: tenants, missing_parent: to_null}
  - table: regions
    object: Region__c
    key: code
    external_id: Code__c
    fields:
      name: Name
      up: {field: Up__r.Code__c, parent: regions, missing_parent: to_null}
chunks: {rows: 70}
"""
SCRIPT = """
CREATE TABLE sales (book VARCHAR(20), no INTEGER, amount DECIMAL(12,2), tenant VARCHAR(20), changed VARCHAR(20));
CREATE TABLE tenants (code VARCHAR(20), name VARCHAR(20), active VARCHAR(1), region VARCHAR(20), shop VARCHAR(20));
CREATE TABLE shops (code VARCHAR(20), tenant VARCHAR(20));
CREATE TABLE regions (code VARCHAR(20), name VARCHAR(20), up VARCHAR(20));
"""
FIELDS = {
    "sales": ("Sale__c", "Sale__c", ["Amount__c", "Tenant__r.Code__c"]),
    "tenants": ("Tenant__c", "Code__c", ["Name", "Region__r.Code__c", "Shop__r.Code__c"]),
    "shops": ("Shop__c", "Code__c", ["Tenant__r.Code__c"]),
    "regions": ("Region__c", "Code__c", ["Name", "Up__r.Code__c"]),
}
KINDS = ["sqlite", "duckdb", "csv", "parquet", "postgresql"]
QUICK = ["sqlite", "parquet"]
"""A database and files; the others draw by the same expressions and run with the slow proofs."""
PERCENT = "5"


def make_rows() -> dict[str, list[list[Any]]]:
    """Sales with copies, null keys and orphans; a ring of tenants and shops; a chain of regions; any letters."""
    chance = random.Random(20)
    sales: list[list[Any]] = []
    for number in range(1200):
        tenant = chance.choice([f"t{chance.randrange(300)}", f"T{chance.randrange(300)} ", None, "NOBODY"])
        book = None if number % 97 == 0 else chance.choice(["A|x", "b", "é"])
        sales.append([book, number, number + 0.5, tenant, f"2024-01-{number % 28 + 1:02}"])
        if number % 50 == 0:
            sales.append([book and f" {book.upper()}", number, number + 0.25, "T1", f"2024-02-{number % 28 + 1:02}"])
    chance.shuffle(sales)
    tenants = [
        [
            f"T{number}",
            f"Tenant {number}",
            "n" if number % 30 == 0 else "y",
            f"r{chance.randrange(42)}",
            f"s{chance.randrange(150)}",
        ]
        for number in range(300)
    ]
    shops = [[f"S{number}", f"t{chance.randrange(320)}" if number % 4 == 0 else None] for number in range(140)]
    regions = [[f"R{number}", f"Region {number}", f"R{number - 1}" if number % 20 else None] for number in range(40)]
    return {"sales": sales, "tenants": tenants, "shops": shops, "regions": regions}


ROWS = make_rows()


def make_project(folder: Path, kind: str, *, postgres_url: str | None = None, dsn: str | None = None) -> Project:
    folder.mkdir(parents=True, exist_ok=True)
    project = Project(folder)
    (folder / "schema.yaml").write_text(SCHEMA)
    project.plan.write_text(PLAN)
    if kind == "postgresql":
        assert postgres_url is not None
        assert dsn is not None
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(SCRIPT)
            for table, lines in ROWS.items():
                marks = ", ".join(["%s"] * len(lines[0]))
                connection.cursor().executemany(f"INSERT INTO {table} VALUES ({marks})", lines)
        project.change_plan({"sqlite:///source.db": postgres_url})
    else:
        write_source(project, kind)
        urls = {"duckdb": "duckdb:///source.duckdb", "csv": "files:./data", "parquet": "files:./data"}
        if kind in urls:
            project.change_plan({"sqlite:///source.db": urls[kind]})
    return project


def write_source(project: Project, kind: str) -> None:
    """The rows as a SQLite file, or by DuckDB, which is slow at single rows and quick at Arrow tables."""
    if kind == "sqlite":
        return make_sqlite(project, SCRIPT, ROWS)
    file = project.folder / "source.duckdb" if kind == "duckdb" else ":memory:"
    with closing(duckdb.connect(str(file))) as connection:
        connection.execute(SCRIPT)
        for table, lines in ROWS.items():
            columns = [list(map(_text, values)) for values in zip(*lines, strict=True)]
            connection.register("lines", pa.table(columns, names=[f"c{at}" for at in range(len(columns))]))
            connection.execute(f"INSERT INTO {table} SELECT * FROM lines")
            if kind != "duckdb":
                (project.folder / "data").mkdir(exist_ok=True)
                path = project.folder / "data" / f"{table}.{kind}"
                connection.execute(f"COPY {table} TO '{path}' (FORMAT {kind})")
    return None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


Seen = tuple[dict[str, list[list[str | None]]], dict[str, dict[str, dict[str, str | None]]]]


def look(project: Project, batch_id: str | None = None) -> Seen:
    """By table the ledger's rows, and the org's records with their lookups."""
    with project.served() as org:
        records = {table: org.records(*where) for table, where in FIELDS.items()}
    return project.outcomes(batch_id), records


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """What a full run makes of the same rows."""
    project = make_project(tmp_path_factory.mktemp("full"), "duckdb")
    project.change_plan({"rows: 70": "rows: 5000"})
    screen = project.run("--json")
    assert screen.code == 1, screen.err
    assert {(table["sample_of"], screen.document["sample_percent"]) for table in screen.document["tables"]} == {
        (None, None)
    }
    return look(project)


def norm(text: str) -> str:
    return text.strip().lower()


def is_drawn(keys: Sequence[str], percent: str = PERCENT) -> list[bool]:
    highs = key_hash(pl.Series([norm(key) for key in keys], dtype=pl.String))["high"]
    return [high < SamplePercent.of(percent).threshold for high in highs]


def wanted_keys(percent: str = PERCENT) -> dict[str, set[str]]:
    """The keys of the sample as a plain search over the rows finds them."""
    tables: dict[str, dict[str, list[tuple[str, str]]]] = {name: {} for name in ROWS}
    for book, no, _, tenant, _ in ROWS["sales"]:
        if book is not None:
            key = book.strip().replace("|", "\\|") + f"|{no}"
            tables["sales"].setdefault(norm(key), []).extend([("tenants", tenant)] if tenant else [])
    for code, _, active, region, shop in ROWS["tenants"]:
        if active == "y":
            tables["tenants"][norm(code)] = [("regions", region), ("shops", shop)]
    for code, tenant in ROWS["shops"]:
        tables["shops"][norm(code)] = [("tenants", tenant)] if tenant else []
    for code, _, up in ROWS["regions"]:
        tables["regions"][norm(code)] = [("regions", up)] if up else []
    found: dict[str, set[str]] = {name: set() for name in tables}
    todo = []
    for name, keys in tables.items():
        todo += [(name, key) for key, drawn in zip(keys, is_drawn(list(keys), percent), strict=True) if drawn]
    while todo:
        name, key = todo.pop()
        if key in tables[name] and key not in found[name]:
            found[name].add(key)
            todo += [(parent, norm(value)) for parent, value in tables[name][key]]
    return found


def keys_of(outcomes: dict[str, list[list[str | None]]]) -> dict[str, set[str]]:
    return {table: {norm(row[0] or "") for row in rows} for table, rows in outcomes.items()}


def assert_cut_from(full: Seen, seen: Seen) -> None:
    """Each row of the sample has the full run's outcome, each record its values; the rest of the org is empty."""
    outcomes, records = seen
    for table, rows in outcomes.items():
        keys = {norm(row[0] or "") for row in rows}
        whole = [row for row in full[0][table] if row[0] is not None and norm(row[0]) in keys]
        assert rows == whole
        made = {key: full[1][table][key] for key in full[1][table] if norm(key) in keys}
        assert records[table] == made


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_every_source_gives_the_same_sample_and_every_lookup_in_it_resolves(kind, full, tmp_path, postgres, database):
    project = make_project(
        tmp_path / kind,
        kind,
        postgres_url=postgres.url(database).replace("@/", "@localhost/"),
        dsn=postgres.dsn(database),
    )
    first = project.run("--sample-percent", PERCENT, "--batch", "one", "--json")
    assert first.code == 1, first.err
    seen = look(project, "one")
    assert keys_of(seen[0]) == wanted_keys()
    assert_cut_from(full, seen)
    # A missing parent is one that the full run misses too, never one that was only left out.
    assert any(code == "REJECTED_MISSING_PARENT" for *_, code in seen[0]["sales"])
    sold = seen[1]["sales"].values()
    assert sum(record["Tenant__r.Code__c"] is not None for record in sold) > 20
    assert {record["Tenant__r.Code__c"] for record in sold} - {None} <= set(seen[1]["tenants"])
    assert_sums(project, "one", first.document)
    # Again, in other chunks: the same rows, now found and not made.
    project.change_plan({"rows: 70": "rows: 400"})
    second = project.run("--sample-percent", PERCENT + ".0", "--batch", "two", "--json")
    assert second.code == 1, second.err
    again = look(project, "two")
    assert again[1] == seen[1]
    assert again[0] == {
        table: [[key, "updated" if outcome == "created" else outcome, code] for key, outcome, code in rows]
        for table, rows in seen[0].items()
    }


def assert_sums(project: Project, batch_id: str, document: dict[str, Any]) -> None:
    """Counts close chunk by chunk, and the parts say of what they are a sample."""
    with closing(sqlite3.connect(project.state / "audit.db")) as audit:
        audit.row_factory = sqlite3.Row
        chunks = audit.execute("SELECT * FROM MIGRATION_AUDIT_LOG WHERE BATCH_ID = ?", [batch_id]).fetchall()
    assert len({chunk["TABLE_NAME"] for chunk in chunks}) == 4
    for chunk in chunks:
        assert chunk["SOURCE_COUNT"] == chunk["EXTRACTED_COUNT"] <= 71
        assert chunk["EXTRACTED_COUNT"] == chunk["TRANSFORMED_COUNT"] + chunk["SKIPPED_COUNT"]
        assert chunk["TRANSFORMED_COUNT"] == chunk["LOADED_COUNT"] == chunk["SUCCESS_COUNT"] + chunk["FAILED_COUNT"]
    assert document["sample_percent"] == PERCENT
    of = {"sales": len(ROWS["sales"]), "tenants": 290, "shops": 140, "regions": 40}
    for table in document["tables"]:
        assert table["sample_of"] == of[table["table"]]
        assert table["sample_rows"] == table["source"]
        assert table["sample_by_key"] <= table["sample_rows"]


def test_what_people_and_programs_are_told(tmp_path):
    project = make_project(tmp_path, "sqlite")
    screen = project.run("--sample-percent", "0.5", "--dry-run", "--batch", "dry")
    assert screen.code == 1, screen.err
    assert "batch dry (a sample of 0.5 %, dry run, nothing will be sent)" in screen.err
    assert "a sample of 0.5 % of each table's keys, with all parents that they refer to" in screen.out
    assert f" of {len(ROWS['sales']):,} rows" in screen.out
    assert "only because others refer to them" in screen.out
    assert project.traces() == (0, 0)
    status = run_words("status", "--plan", str(project.plan))
    assert "dry run, 0.5 %" in status.out
    assert "a sample of 0.5 % of each table's keys" in status.out
    document = run_words("status", "--plan", str(project.plan), "--json").document
    assert document["batches"][0]["sample_percent"] == document["batch"]["sample_percent"] == "0.5"
    ((payload,),) = project.audit("SELECT payload FROM journal WHERE action = 'batch_begun'")
    assert json.loads(payload)["sample_percent"] == "0.5"


def test_a_resume_takes_the_sample_of_its_batch(full, tmp_path, monkeypatch):
    """Method: the process fails while children are staged; the resume says nothing of a sample, and draws none."""
    from forcelift.during.extract import handlers, sample_draw

    project = make_project(tmp_path, "sqlite")
    stage = handlers.ChunkStager.stage

    def fail(self, chunk, make_cleaner):
        if chunk.table_name == "sales":
            raise RuntimeError("the process dies here")
        return stage(self, chunk, make_cleaner)

    monkeypatch.setattr(handlers.ChunkStager, "stage", fail)
    assert project.run("--sample-percent", PERCENT, "--batch", "b").code == 70
    monkeypatch.setattr(handlers.ChunkStager, "stage", stage)
    monkeypatch.setattr(sample_draw.Draw, "run", lambda self: pytest.fail("drawn twice"))
    refused = project.run("--resume", "b", "--sample-percent", "6")
    assert_clear_error(refused, code=3, says=["was begun as a sample of 5 %, not as a sample of 6 %"])
    assert project.run("--resume", "b").code == 1
    seen = look(project)
    assert keys_of(seen[0]) == wanted_keys()
    assert_cut_from(full, seen)


def test_a_full_batch_is_not_resumed_as_a_sample(tmp_path, monkeypatch):
    from forcelift.during.extract import handlers

    project = make_project(tmp_path, "sqlite")
    plan_table = handlers.ExtractHandlers.plan_table

    def fail(self, command):
        raise RuntimeError("the process dies here")

    monkeypatch.setattr(handlers.ExtractHandlers, "plan_table", fail)
    assert project.run("--batch", "b").code == 70
    monkeypatch.setattr(handlers.ExtractHandlers, "plan_table", plan_table)
    refused = project.run("--resume", "--sample-percent", "1")
    assert_clear_error(refused, code=3, says=["was begun with all rows, not as a sample of 1 %"])


def test_a_full_run_after_a_sample_finds_its_records_again(full, tmp_path):
    project = make_project(tmp_path, "sqlite")
    project.change_plan({"rows: 70": "rows: 5000"})
    assert project.run("--sample-percent", PERCENT).code == 1
    before = {table: len(records) for table, records in look(project)[1].items()}
    screen = project.run("--json", "--batch", "all")
    assert {table["table"]: table["updated"] for table in screen.document["tables"]} == before
    assert look(project, "all")[1] == full[1]


def test_a_table_left_out_draws_nothing_of_its_parents(tmp_path):
    project = make_project(tmp_path, "sqlite")
    screen = project.run("--sample-percent", "3", "--table", "sales", "--json")
    (table,) = screen.document["tables"]
    assert screen.code == 1
    keys = [book.strip().replace("|", "\\|") + f"|{no}" for book, no, *_ in ROWS["sales"] if book is not None]
    assert table["source"] == sum(is_drawn(keys, "3"))
    assert table["rejected"] > 0  # whose tenants are not in the org


def test_all_percent_is_a_full_run(full, tmp_path):
    project = make_project(tmp_path, "sqlite")
    project.change_plan({"rows: 70": "rows: 5000"})
    assert project.run("--sample-percent", "100", "--json").document["sample_percent"] == "100"
    assert look(project) == full


def test_a_null_key_that_stops_a_full_run_stops_a_sample(tmp_path):
    project = make_project(tmp_path, "sqlite")
    project.change_plan({"duplicates: keep_latest": "null_key: stop"})
    screen = project.run("--sample-percent", "0.01")
    assert_clear_error(screen, code=4, says=["14 rows have no key (book, no), and `null_key: stop` is asked"])
    assert project.traces() == (0, 0)


@pytest.mark.parametrize("percent", ["0", "100.1", "x"])
def test_a_percent_that_is_none_is_refused(percent, tmp_path):
    project = make_project(tmp_path, "sqlite")
    screen = project.run("--sample-percent", percent)
    assert_clear_error(screen, code=2, says=[f"`--sample-percent {percent}` is not a number above 0 and up to 100"])
    assert project.batches() == []


def test_a_selection_that_was_changed_is_not_used(tmp_path, monkeypatch):
    from forcelift.during.extract import handlers

    project = make_project(tmp_path, "sqlite")
    monkeypatch.setattr(handlers.ExtractHandlers, "stage_chunk", lambda self, command: pytest.fail("enough"))
    assert project.run("--sample-percent", PERCENT, "--batch", "b").code == 70
    monkeypatch.undo()
    (file,) = (project.state / "staging/staging/b/sales").glob("sample.parquet")
    frame = pl.read_parquet(file)
    frame.head(frame.height - 1).write_parquet(file)
    assert_clear_error(project.run("--resume"), code=3, says=["was changed after it was sealed"])


def test_a_stop_in_the_middle_of_a_draw_shows_that_nothing_is_planned(tmp_path, monkeypatch):
    """Also a window that closes then: the draw goes on where it stood, and takes the same rows."""
    from forcelift.during.extract import sample_draw
    from forcelift.errors import ReadingStopped

    project = make_project(tmp_path, "sqlite")
    noted, frames = sample_draw.Draw._noted, sample_draw.Draw._frames
    given_up, read = [], []

    def end_the_hours(self, table, frame, hashes):
        if table not in given_up and len(read) > 2:
            given_up.append(table)
            raise ReadingStopped("the hours have ended")
        return noted(self, table, frame, hashes)

    def look_what_is_read(self, work, columns, predicate):
        read.append((work.plan.table, str(predicate)))
        return frames(self, work, columns, predicate)

    def stop(self, table, frame, hashes):
        raise RuntimeError("the process dies here")

    monkeypatch.setattr(sample_draw.Draw, "_noted", stop)
    assert project.run("--sample-percent", PERCENT, "--batch", "b").code == 70
    status = run_words("status", "--plan", str(project.plan))
    assert "no table is cut into chunks yet, as its sample is not drawn" in status.out
    assert "object" not in status.out
    assert "run --resume b" in status.out
    monkeypatch.setattr(sample_draw.Draw, "_noted", end_the_hours)
    monkeypatch.setattr(sample_draw.Draw, "_frames", look_what_is_read)
    monkeypatch.setattr(sample_draw, "SLICE_ROWS_AIM", 1)
    assert project.run("--resume", "b").code == 1
    assert len(given_up) > 1
    assert len(read) == len(set(read)) + len(given_up), "only the slice that was broken off is read again"
    assert keys_of(look(project)[0]) == wanted_keys()
