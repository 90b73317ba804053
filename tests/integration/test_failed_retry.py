"""`forcelift failed`: refused rows are listed, sent again under mended rules, and settled into the same chunks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import httpx
import polars as pl
import pytest
from tests.integration.cli_migration import Migration
from tests.integration.test_rollback_cli import call

from forcelift.errors import ExitCode
from forcelift.migration.running import open_recorded
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

NOTES = 300
LONG = 40
LENGTH = 20
BASE = "/services/data/v66.0"

OBJECTS: dict[str, Any] = {
    "Shop__c": {
        "fields": {
            "Name": {"type": "string"},
            "Code__c": {"type": "string", "externalId": True, "unique": True},
            "Town__c": {"type": "string", "length": LENGTH},
        }
    },
    "Note__c": {
        "fields": {
            "Name": {"type": "string"},
            "Key__c": {"type": "string", "externalId": True, "unique": True},
            "Text__c": {"type": "string", "length": LENGTH},
            "Shop__c": {"type": "reference", "referenceTo": "Shop__c", "relationshipName": "Shop__r"},
        }
    },
}

PLAN = """\
version: 1
project: Retries
source: {{url: "duckdb:///source.duckdb"}}
target:
  url: {url}
  auth: {{flow: token, access_token: "${{CLI_TEST_TOKEN}}"}}
tables:
  - table: notes
    object: Note__c
    key: note_id
    external_id: Key__c
    fields:
      text: {{field: Text__c, too_long: {too_long}}}
      shop: {{field: Shop__r.Code__c, parent: shops, missing_parent: {missing_parent}}}
  - table: shops
    object: Shop__c
    key: code
    external_id: Code__c
    fields:
      town: {{field: Town__c, too_long: {too_long}}}
chunks: {{rows: 100}}
limits: {{parallel_jobs: 2}}
"""


def write_plan(folder: Path, url: str, *, too_long: str = "reject", missing_parent: str = "reject") -> None:
    text = PLAN.format(url=url, too_long=too_long, missing_parent=missing_parent)
    (folder / "forcelift.yaml").write_text(text, encoding="utf-8")


def make_source(folder: Path) -> None:
    """Notes of which every seventh has a long text, in shops of which one has a long town."""
    with duckdb.connect(str(folder / "source.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE shops AS SELECT 'S' || i AS code,"
            " CASE WHEN i = 3 THEN repeat('x', 40) ELSE 'town' END AS town FROM range(10) AS r(i)"
        )
        connection.execute(
            f"CREATE TABLE notes AS SELECT 'N' || i AS note_id, CASE WHEN i % 7 = 0 THEN repeat('y', {LONG})"
            f" ELSE 'text ' || i END AS text, 'S' || (i % 10) AS shop FROM range({NOTES}) AS r(i)"
        )


@pytest.fixture
def migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    make_source(tmp_path)
    monkeypatch.chdir(tmp_path)
    org = TwinOrg.open(None, schema=schema_from_dict({"objects": OBJECTS}))
    try:
        with TwinServer(org) as server:
            write_plan(tmp_path, server.url)
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            yield Migration(folder=tmp_path, org=org, server=server)
            assert server.internal_errors == []
    finally:
        org.close()


def query(migration: Migration, soql: str) -> list[dict[str, Any]]:
    answer = httpx.get(
        f"{migration.server.url}{BASE}/query",
        params={"q": soql},
        headers={"Authorization": f"Bearer {migration.server.access_token}"},
    )
    return list(answer.raise_for_status().json()["records"])


def audit(migration: Migration, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{migration.audit_file}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


def proved(migration: Migration, batch: str) -> dict[str, Any]:
    """Validation of all levels passes."""
    document = migration.document("validate", batch, "--levels", "all")
    assert not document["exit_code"]
    assert {name for name, count in document["statuses"].items() if count} <= {"passed", "not_checked"}
    return document


def outcomes(migration: Migration, batch: str) -> dict[tuple[str, str], int]:
    """Lines of the ledgers by table and outcome; the sums of every chunk close."""
    sums = audit(
        migration,
        "SELECT COUNT(*) FROM MIGRATION_AUDIT_LOG WHERE SOURCE_COUNT = EXTRACTED_COUNT AND EXTRACTED_COUNT ="
        " TRANSFORMED_COUNT + SKIPPED_COUNT AND TRANSFORMED_COUNT = LOADED_COUNT AND LOADED_COUNT = SUCCESS_COUNT"
        " + FAILED_COUNT",
    )
    assert sums == audit(migration, "SELECT COUNT(*) FROM MIGRATION_AUDIT_LOG")
    found: dict[tuple[str, str], int] = {}
    with open_recorded(migration.plan) as (_, state):
        for chunk in state.audit.chunks(batch):
            assert chunk.ledger_file is not None
            for outcome, rows in state.ledger.counts([chunk.ledger_file]).items():
                found[chunk.table_name, outcome] = found.get((chunk.table_name, outcome), 0) + rows
    return found


LONG_NOTES = len([i for i in range(NOTES) if i % 7 == 0])
ORPHANS = len([i for i in range(NOTES) if i % 7 and i % 10 == 3])
BOTH = len([i for i in range(NOTES) if i % 7 == 0 and i % 10 == 3])


def test_a_mended_rule_takes_effect_and_the_chunks_close(migration: Migration) -> None:
    first = migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    assert {table["table"]: table["rejected"] for table in first["tables"]} == {
        "shops": 1,
        "notes": LONG_NOTES + ORPHANS,
    }
    listed = migration.document("failed", "list", code=ExitCode.ROWS_REFUSED)
    groups = {(one["table_name"], one["code"]): one["open"] for one in listed["groups"]}
    assert groups == {
        ("notes", "REJECTED_TOO_LONG"): LONG_NOTES,
        ("notes", "REJECTED_MISSING_PARENT"): ORPHANS,
        ("shops", "REJECTED_TOO_LONG"): 1,
    }
    write_plan(migration.folder, migration.server.url, too_long="truncate")
    told = migration.document("failed", "retry", "--dry-run", code=ExitCode.ROWS_REFUSED)
    assert (told["executed"], told["rows"], told["to_send"]) == (False, LONG_NOTES + ORPHANS + 1, LONG_NOTES - BOTH + 1)
    assert "after its parent" in told["notes"][0]
    assert migration.count("Note__c") == NOTES - LONG_NOTES - ORPHANS
    assert not list((migration.folder / "state" / "staging" / "retry").glob("*/*/*"))
    done = migration.document("failed", "retry")
    assert (done["rows"], done["mended"], done["still_refused"]) == (LONG_NOTES + ORPHANS + 1,) * 2 + (0,)
    assert done["plan_revision"] == 2
    assert migration.count("Note__c") == NOTES
    assert migration.count("Shop__c") == 10
    cut = query(migration, f"SELECT Key__c FROM Note__c WHERE Text__c = '{'y' * LENGTH}'")
    assert len(cut) == LONG_NOTES
    assert outcomes(migration, "first") == {("notes", "created"): NOTES, ("shops", "created"): 10}
    assert audit(migration, "SELECT DISTINCT STATUS, FAILED_COUNT, SKIPPED_COUNT FROM MIGRATION_AUDIT_LOG") == [
        ("SUCCESS", 0, 0)
    ]
    records = audit(
        migration,
        "SELECT RESOLVED, RETRY_COUNT, LAST_RETRY_DATE = RESOLVED_DATE, COUNT(*) FROM MIGRATION_FAILED_RECORDS"
        " GROUP BY 1, 2, 3",
    )
    assert records == [("Y", 1, 1, LONG_NOTES + ORPHANS + 1)]
    proved(migration, "first")
    assert migration.document("failed", "list")["open"] == 0
    assert migration.document("audit", "verify")["is_whole"] is True
    undone = migration.document("rollback", "first", "--execute", "--reason", "all of it")
    assert (undone["deleted"], undone["kept"]) == (NOTES + 10, 0)
    assert migration.count("Note__c") == 0


def test_nothing_open_sends_nothing(migration: Migration) -> None:
    write_plan(migration.folder, migration.server.url, too_long="truncate")
    migration.document("run", "--batch", "first")
    done = migration.document("failed", "retry")
    assert (done["retry"], done["rows"]) == (None, 0)
    with open_recorded(migration.plan) as (_, state):
        assert state.audit.retries("first") == []


def test_only_what_is_named_and_its_children(migration: Migration) -> None:
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    write_plan(migration.folder, migration.server.url, too_long="truncate")
    done = migration.document("failed", "retry", "--table", "shops")
    assert {(one["table"], one["code"]): one["created"] for one in done["groups"]} == {
        ("shops", "REJECTED_TOO_LONG"): 1,
        ("notes", "REJECTED_MISSING_PARENT"): ORPHANS,
    }
    listed = migration.document("failed", "list", code=ExitCode.ROWS_REFUSED)
    assert listed["open"] == LONG_NOTES
    proved(migration, "first")
    (migration.folder / "keys.txt").write_text("N0\nN7\n", encoding="utf-8")
    done = migration.document("failed", "retry", "--keys", "keys.txt")
    assert (done["retry"], done["rows"], done["mended"]) == (2, 2, 2)
    assert migration.count("Note__c") == NOTES - LONG_NOTES + 2
    proved(migration, "first")
    rows = pl.DataFrame(query(migration, "SELECT Key__c FROM Note__c"))["Key__c"]
    assert rows.n_unique() == rows.len()


def test_rows_are_resolved_by_people_and_opened_again(migration: Migration) -> None:
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    by = ("--note", "entered by hand", "--by", "A. Name")
    assert migration.run("failed", "resolve", *by).returncode == ExitCode.USAGE
    done = migration.document("failed", "resolve", "--table", "notes", "--code", "REJECTED_TOO_LONG", *by)
    assert (done["rows"], done["open"]) == (LONG_NOTES, ORPHANS + 1)
    assert audit(migration, "SELECT DISTINCT RESOLUTION_NOTES FROM MIGRATION_FAILED_RECORDS WHERE RESOLVED = 'Y'") == [
        ("entered by hand (A. Name)",)
    ]
    write_plan(migration.folder, migration.server.url, too_long="truncate")
    retried = migration.document("failed", "retry")
    assert (retried["rows"], retried["mended"]) == (ORPHANS + 1, ORPHANS + 1)
    listed = migration.document("failed", "list")
    assert [(one["code"], one["rows"], one["mended"], one["closed"]) for one in listed["groups"]] == [
        ("REJECTED_TOO_LONG", LONG_NOTES, 0, LONG_NOTES),
        ("REJECTED_MISSING_PARENT", ORPHANS, ORPHANS, 0),
        ("REJECTED_TOO_LONG", 1, 1, 0),
    ]
    # What a retry had accepted stays resolved; what a person had closed is open again.
    (migration.folder / "keys.txt").write_text("N0\nN7\nN13\n", encoding="utf-8")
    opened = migration.document("failed", "resolve", "--keys", "keys.txt", "--reopen", *by)
    assert (opened["rows"], opened["open"]) == (2, 2)
    assert migration.document("failed", "retry")["mended"] == 2
    proved(migration, "first")
    assert migration.document("audit", "verify")["is_whole"] is True


def test_rows_that_are_gone_are_told_and_stay(migration: Migration) -> None:
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    before = outcomes(migration, "first")
    with duckdb.connect(str(migration.folder / "source.duckdb")) as source:
        source.execute("DELETE FROM notes WHERE note_id = 'N0'")
        source.execute("UPDATE notes SET note_id = 'M7' WHERE note_id = 'N7'")
        source.execute("UPDATE notes SET text = 'short' WHERE note_id = 'N14'")
        source.execute("UPDATE notes SET shop = 'S99' WHERE note_id = 'N21'")
    done = migration.document("failed", "retry", "--code", "REJECTED_TOO_LONG", code=ExitCode.ROWS_REFUSED)
    groups = {(one["table"], one["code"]): one for one in done["groups"]}
    notes = groups["notes", "REJECTED_TOO_LONG"]
    assert (notes["gone"], notes["created"], notes["rejected"]) == (2, 1, LONG_NOTES - 3)
    after = outcomes(migration, "first")
    assert after["notes", "created"] == before["notes", "created"] + 1
    assert sum(after.values()) == sum(before.values())
    assert audit(
        migration,
        "SELECT RECORD_ID, RESOLVED, RETRY_COUNT, RESOLUTION_NOTES FROM MIGRATION_FAILED_RECORDS"
        " WHERE RECORD_ID IN ('N0', 'N7', 'N14') ORDER BY 1",
    ) == [
        ("N0", "N", 1, "retry 1: the source has no row with this key any more"),
        ("N14", "Y", 1, "retry 1, plan revision 1: created"),
        ("N7", "N", 1, "retry 1: the source has no row with this key any more"),
    ]
    assert audit(migration, "SELECT SF_ERROR_CODE FROM MIGRATION_FAILED_RECORDS WHERE RECORD_ID = 'N21'") == [
        ("REJECTED_TOO_LONG",)
    ]


def test_another_mapping_is_no_retry(migration: Migration) -> None:
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    plan = migration.plan.read_text(encoding="utf-8")
    migration.plan.write_text(plan.replace("field: Town__c", "field: Name"), encoding="utf-8")
    refused = migration.run("failed", "retry")
    assert refused.returncode == ExitCode.STATE
    assert "tables.shops.fields.town" in refused.stderr


def test_emptied_lookups_are_filled_once_their_parents_stand(migration: Migration) -> None:
    # One stands in the org before, with other values: a rollback must bring these back, past load and retry.
    call(migration, "POST", f"{BASE}/sobjects/Note__c", json={"Key__c": "N13", "Text__c": "before"})
    call(migration, "POST", f"{BASE}/sobjects/Note__c", json={"Key__c": "N7", "Text__c": "before too"})
    write_plan(migration.folder, migration.server.url, missing_parent="to_null")
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    lost = query(migration, "SELECT Key__c FROM Note__c WHERE Shop__c = null AND Key__c != 'N7'")
    assert len(lost) == ORPHANS
    write_plan(migration.folder, migration.server.url, missing_parent="to_null", too_long="truncate")
    done = migration.document("failed", "retry", "--table", "shops")
    assert {(one["table"], one["code"]): (one["rows"], one["created"]) for one in done["groups"]} == {
        ("shops", "REJECTED_TOO_LONG"): (1, 1),
        ("notes", "EMPTIED_LOOKUP"): (ORPHANS, ORPHANS - 1),
    }
    assert query(migration, "SELECT Key__c FROM Note__c WHERE Shop__c = null AND Key__c != 'N7'") == []
    assert outcomes(migration, "first") == {
        ("notes", "created"): NOTES - LONG_NOTES - 1,
        ("notes", "updated"): 1,
        ("notes", "rejected"): LONG_NOTES,
        ("shops", "created"): 10,
    }
    assert audit(migration, "SELECT SUM(rows) FROM job WHERE kind = 'retry' AND object = 'Note__c'") == [(ORPHANS,)]
    # Nothing is left to fill: what the org has is not sent once more.
    jobs = audit(migration, "SELECT COUNT(*) FROM job")
    migration.document("failed", "retry", "--code", "REJECTED_MISSING_PARENT")
    assert audit(migration, "SELECT COUNT(*) FROM job") == jobs
    # A row that a rule had rejected, whose record stands since before the load, is written by a retry alone.
    (migration.folder / "keys.txt").write_text("N7\n", encoding="utf-8")
    assert migration.document("failed", "retry", "--keys", "keys.txt")["groups"][0]["updated"] == 1
    assert migration.document("validate", "first", "--level", "5")["statuses"]["failed"] == 0
    undone = migration.document("rollback", "first", "--execute", "--reason", "all of it")
    assert (undone["deleted"], undone["restored"], undone["kept"]) == (NOTES - LONG_NOTES - 1 + 10, 2, 0)
    left = query(migration, "SELECT Key__c, Text__c, Shop__c FROM Note__c ORDER BY Key__c")
    assert [(one["Key__c"], one["Text__c"], one["Shop__c"]) for one in left] == [
        ("N13", "before", None),
        ("N7", "before too", None),
    ]


def test_copies_that_the_rule_rejects_stay_rejected(migration: Migration) -> None:
    with duckdb.connect(str(migration.folder / "source.duckdb")) as source:
        source.execute("INSERT INTO notes VALUES ('N7', 'a copy', 'S1'), ('N14', repeat('z', 40), 'S1')")
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    assert outcomes(migration, "first")["notes", "rejected"] == LONG_NOTES + ORPHANS + 2
    write_plan(migration.folder, migration.server.url, too_long="truncate")
    done = migration.document("failed", "retry", code=ExitCode.ROWS_REFUSED)
    assert done["still_refused"] == 4
    assert outcomes(migration, "first") == {
        ("notes", "created"): NOTES - 2,
        ("notes", "rejected"): 4,
        ("shops", "created"): 10,
    }
    keys = pl.DataFrame(query(migration, "SELECT Key__c FROM Note__c"))["Key__c"]
    assert keys.n_unique() == keys.len() == NOTES - 2
    proved(migration, "first")
    # With one copy left the key is a single one.
    with duckdb.connect(str(migration.folder / "source.duckdb")) as source:
        source.execute("DELETE FROM notes WHERE note_id IN ('N7', 'N14') AND text <> 'a copy'")
    done = migration.document("failed", "retry", code=ExitCode.ROWS_REFUSED)
    assert {(one["created"], one["gone"]) for one in done["groups"]} == {(1, 3)}


def test_copies_are_decided_anew_over_the_whole_table(migration: Migration) -> None:
    plan = migration.plan.read_text(encoding="utf-8")
    with duckdb.connect(str(migration.folder / "source.duckdb")) as source:
        source.execute("ALTER TABLE notes ADD COLUMN changed TIMESTAMP")
        source.execute("UPDATE notes SET changed = TIMESTAMP '2024-01-01'")
        source.execute("INSERT INTO notes VALUES ('N1', 'newer', 'S1', TIMESTAMP '2024-02-01')")
    migration.plan.write_text(plan.replace("    key: note_id\n", "    key: note_id\n    duplicates: reject\n"))
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    assert outcomes(migration, "first")["notes", "rejected"] == LONG_NOTES + ORPHANS + 2
    latest = "    key: note_id\n    duplicates: keep_latest\n    changed_at: changed\n"
    migration.plan.write_text(plan.replace("    key: note_id\n", latest))
    done = migration.document("failed", "retry", "--code", "REJECTED_DUPLICATE")
    [group] = done["groups"]
    assert (group["rows"], group["created"], group["duplicate"]) == (2, 1, 1)
    assert query(migration, "SELECT Text__c FROM Note__c WHERE Key__c = 'N1'")[0]["Text__c"] == "newer"
    assert outcomes(migration, "first")["notes", "duplicate"] == 1


def test_until_a_retry_is_through_nothing_else_begins(migration: Migration) -> None:
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    with open_recorded(migration.plan) as (_, state):
        state.audit.begin_retry("first", folder="retry/first/some", selection={}, by="somebody", chunks=[])
    for words in (
        ("run", "--resume", "first"),
        ("rollback", "first"),
        ("failed", "retry", "--dry-run"),
        ("failed", "resolve", "--code", "REJECTED_TOO_LONG", "--note", "no", "--by", "A. Name"),
    ):
        refused = migration.run(*words)
        assert (refused.returncode, "failed retry" in refused.stderr) == (ExitCode.STATE, True), words
    plan = migration.plan.read_text(encoding="utf-8")
    write_plan(migration.folder, migration.server.url, too_long="truncate")
    refused = migration.run("failed", "retry")
    assert (refused.returncode, "put the plan back" in refused.stderr) == (ExitCode.STATE, True)
    migration.plan.write_text(plan, encoding="utf-8")
    gone_on = migration.run("failed", "retry")
    assert (gone_on.returncode, "going on with retry 1" in gone_on.stderr) == (ExitCode.DONE, True)
    assert migration.run("rollback", "first").returncode == ExitCode.DONE


def test_a_table_that_is_not_there_is_told(migration: Migration) -> None:
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    for words in (("list",), ("retry",), ("resolve", "--note", "-", "--by", "A. Name")):
        refused = migration.run("failed", *words, "--table", "note")
        assert (refused.returncode, "did you mean `notes`?" in refused.stderr) == (ExitCode.USAGE, True)
