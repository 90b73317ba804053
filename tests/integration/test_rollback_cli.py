"""`forcelift rollback` on the command line: preview, execution, lost answers, what a killed load left, a reload."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from tests.integration.cli_migration import (
    CLI_OBJECTS,
    ORPHANS,
    SALES,
    TENANTS,
    Migration,
    cli_schema,
    make_source,
    write_plan,
)

import forcelift
from forcelift.errors import ExitCode, UsageError
from forcelift.migration.running import open_recorded
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

GOOD = SALES - ORPHANS
BASE = "/services/data/v66.0"
LOADER, CLERK = "etl@kpc.example", "clerk@kpc.example"


@pytest.fixture
def migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    make_source(tmp_path)
    monkeypatch.chdir(tmp_path)
    org = TwinOrg.open(None, schema=cli_schema())
    try:
        with TwinServer(org) as server:
            write_plan(tmp_path, server)
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            yield Migration(folder=tmp_path, org=org, server=server)
            assert server.internal_errors == []
    finally:
        org.close()


def call(migration: Migration, method: str, path: str, **options: Any) -> httpx.Response:
    """What another program does in the org, as the same user."""
    headers = {"Authorization": f"Bearer {migration.server.access_token}"}
    answer = httpx.request(method, f"{migration.server.url}{path}", headers=headers, **options)
    return answer.raise_for_status()


def arm(migration: Migration, *orders: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {migration.server.control_token}"}
    url = f"{migration.server.url}/__twin__/faults"
    httpx.post(url, headers=headers, json=list(orders)).raise_for_status()


def make_sale(migration: Migration, key: int, amount: float) -> str:
    body = {"Sale__c": str(key), "Amount__c": amount, "Name": "earlier"}
    return str(call(migration, "POST", f"{BASE}/sobjects/Sale__c", json=body).json()["id"])


def ledger(migration: Migration, batch_id: str, table: str) -> pl.DataFrame:
    with open_recorded(migration.plan) as (_, state):
        files = [chunk.ledger_file for chunk in state.audit.chunks(batch_id, table) if chunk.ledger_file]
        return state.ledger.scan(files).collect()


def lose_results(**more: Any) -> dict[str, Any]:
    """The org has forgotten a job's results, as it does after seven days."""
    body = json.dumps([{"errorCode": "NOT_FOUND", "message": "The requested resource does not exist"}])
    return {
        "action": "answer",
        "method": "GET",
        "path": "successfulResults$",
        "status": 404,
        "body": body,
        "content_type": "application/json",
        **more,
    }


def test_preview_changes_nothing_and_execution_undoes_all(migration: Migration) -> None:
    earlier = make_sale(migration, 30, 1.5)
    first = migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    assert first["before_images"] is True
    assert migration.count("Sale__c") == GOOD

    preview = migration.document("rollback", "first")
    assert (preview["executed"], preview["deleted"], preview["restored"]) == (False, TENANTS + GOOD - 1, 1)
    assert preview["jobs"] > 0
    assert any("15 days" in warning for warning in preview["warnings"])
    assert migration.count("Sale__c") == GOOD
    assert not list((migration.folder / "state" / "staging").glob("rollback/*/*/*"))
    refused = migration.run("rollback", "first", "--execute")
    assert refused.returncode == ExitCode.USAGE
    assert "--reason" in refused.stderr

    done = migration.document("rollback", "first", "--execute", "--reason", "wrong prices")
    assert (done["deleted"], done["restored"], done["kept"]) == (TENANTS + GOOD - 1, 1, 0)
    assert (migration.count("Sale__c"), migration.count("Tenant__c")) == (1, 0)
    record = call(migration, "GET", f"{BASE}/sobjects/Sale__c/{earlier}").json()
    assert (record["Amount__c"], record["Tenant__c"], record["Name"]) == (1.5, None, "earlier")
    with open_recorded(migration.plan) as (_, state):
        assert {chunk.status.value for chunk in state.audit.chunks("first")} == {"ROLLED_BACK"}
        assert state.audit.verify_journal() == []
        with state.audit.read() as connection:
            told = connection.exec_driver_sql(
                "SELECT payload FROM journal WHERE action = 'rollback_step' ORDER BY seq"
            ).scalars()
            assert [json.loads(row)["step"] for row in told] == list(range(1, 10))
    exported = sorted((migration.folder / "state" / "staging").glob("rollback/first/r0001/*/*.delete.*.csv"))
    assert sum(len(file.read_text().splitlines()) - 1 for file in exported) == TENANTS + GOOD - 1
    assert {file.stat().st_mode & 0o777 for file in exported} == {0o600}


def test_a_reload_after_a_rollback_writes_new_rows_and_counts_once(migration: Migration) -> None:
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    migration.document("rollback", "first", "--execute", "--reason", "again")
    again = migration.document("run", "--resume", "first", code=ExitCode.ROWS_REFUSED)
    tables = {table["table"]: table for table in again["tables"]}
    assert (tables["sales"]["source"], tables["sales"]["created"]) == (SALES, GOOD)
    assert (migration.count("Sale__c"), migration.count("Tenant__c")) == (GOOD, TENANTS)
    with open_recorded(migration.plan) as (_, state):
        every = state.audit.chunks("first", with_superseded=True)
        counting = state.audit.chunks("first")
        assert len(every) == 2 * len(counting)
        assert {chunk.status.value for chunk in every if chunk.superseded} == {"ROLLED_BACK"}
        assert sum(totals.source for totals in state.audit.totals("first")) == SALES + TENANTS
        assert state.audit.verify_journal() == []
    # What was loaded anew can be taken back again.
    done = migration.document("rollback", "first", "--execute", "--reason", "once more")
    assert done["deleted"] == TENANTS + GOOD
    assert migration.count("Sale__c") == 0


def test_newer_batch_first_then_the_older_one(migration: Migration) -> None:
    """What the rollback of the newer batch has put back is no change by others."""
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    migration.document("run", "--batch", "second", code=ExitCode.ROWS_REFUSED)
    newer = migration.document("rollback", "second", "--execute", "--reason", "in order")
    assert (newer["restored"], newer["kept"]) == (TENANTS + GOOD, 0)
    done = migration.document("rollback", "first", "--execute", "--reason", "in order")
    assert (done["deleted"], done["kept"]) == (TENANTS + GOOD, 0)
    assert (migration.count("Sale__c"), migration.count("Tenant__c")) == (0, 0)


def test_one_table_then_the_rest(migration: Migration) -> None:
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    parents = migration.document("rollback", "first", "--table", "tenants", code=ExitCode.ROWS_REFUSED)
    [line] = parents["tables"]
    assert [group["code"] for group in line["kept"]] == ["CHILDREN_OF_OTHERS"]
    chunk = migration.document("rollback", "first", "--table", "sales", "--chunk", "2", "--execute", "--reason", "bad")
    undone = chunk["deleted"]
    assert 0 < undone < GOOD
    assert migration.count("Sale__c") == GOOD - undone
    rest = migration.document("rollback", "first", "--execute", "--reason", "all of it")
    assert rest["deleted"] == GOOD - undone + TENANTS
    assert migration.count("Tenant__c") == 0


def test_a_row_whose_first_answer_was_lost_is_deleted_and_one_that_stood_before_is_restored(
    migration: Migration,
) -> None:
    """The object held a record: the image proves which keys stood for none, whatever the second answer says."""
    earlier = make_sale(migration, 130, 7.25)
    arm(migration, lose_results(skip=1, times=6))  # those of the tenants arrive
    lost = migration.run("run", "--batch", "first")
    assert lost.returncode == ExitCode.TARGET, lost.stderr
    migration.document("run", "--resume", "first", code=ExitCode.ROWS_REFUSED)
    rows = ledger(migration, "first", "sales")
    assert dict(rows["outcome"].value_counts().iter_rows()) == {
        "created": GOOD - 1,
        "updated": 1,
        "rejected": ORPHANS,
    }
    assert rows.filter(pl.col("evidence") == "queried").height > 0
    done = migration.document("rollback", "first", "--execute", "--reason", "drill")
    assert (done["deleted"], done["restored"], done["kept"]) == (TENANTS + GOOD - 1, 1, 0)
    assert migration.count("Sale__c") == 1
    assert call(migration, "GET", f"{BASE}/sobjects/Sale__c/{earlier}").json()["Amount__c"] == 7.25


def test_a_row_that_was_sent_twice_into_an_empty_object_is_deleted(migration: Migration) -> None:
    """No image was taken: the org says "updated", but also that our user made the record in the chunk's time."""
    arm(migration, lose_results(skip=1, times=6))
    assert migration.run("run", "--batch", "first").returncode == ExitCode.TARGET
    migration.document("run", "--resume", "first", code=ExitCode.ROWS_REFUSED)
    outcomes = dict(ledger(migration, "first", "sales")["outcome"].value_counts().iter_rows())
    assert outcomes["updated"] > 0
    done = migration.document("rollback", "first", "--execute", "--reason", "drill")
    assert (done["deleted"], done["kept"]) == (TENANTS + GOOD, 0)
    assert (migration.count("Sale__c"), migration.count("Tenant__c")) == (0, 0)


def test_what_a_stopped_load_left_is_settled_and_undone(migration: Migration) -> None:
    """Goal: a batch that failed half-way is undone without being finished. Method: uploads fail after some chunks."""
    body = json.dumps([{"errorCode": "INVALIDJOB", "message": "no more of this"}])
    refuse = {"action": "answer", "status": 400, "body": body, "content_type": "application/json", "times": 50}
    arm(migration, {**refuse, "method": "POST", "path": "/jobs/ingest$", "skip": 4})
    failed = migration.run("run", "--batch", "first")
    assert failed.returncode == ExitCode.TARGET, failed.stderr
    assert 0 < migration.count("Sale__c") < GOOD
    httpx.delete(
        f"{migration.server.url}/__twin__/faults",
        headers={"Authorization": f"Bearer {migration.server.control_token}"},
    ).raise_for_status()
    done = migration.document("rollback", "first", "--execute", "--reason", "it failed")
    assert done["kept"] == 0
    assert (migration.count("Sale__c"), migration.count("Tenant__c")) == (0, 0)
    # Chunks that were staged and not sent wait until their parents are loaded anew.
    migration.document("run", "--resume", "first", code=ExitCode.ROWS_REFUSED)
    assert (migration.count("Sale__c"), migration.count("Tenant__c")) == (GOOD, TENANTS)


def test_without_images_changed_records_are_kept_and_it_is_said(migration: Migration) -> None:
    make_sale(migration, 30, 1.5)
    run = migration.document("run", "--batch", "first", "--no-before-images", code=ExitCode.ROWS_REFUSED)
    assert run["before_images"] is False
    assert any("before-images" in note for note in run["notes"])
    preview = migration.document("rollback", "first", code=ExitCode.ROWS_REFUSED)
    kept = {group["code"]: group["records"] for line in preview["tables"] for group in line["kept"]}
    assert kept["NO_IMAGE"] == 1
    assert any("no before-images" in warning for warning in preview["warnings"])
    migration.document("rollback", "first", "--execute", "--reason", "drill", code=ExitCode.ROWS_REFUSED)
    assert migration.count("Sale__c") == 1


def test_the_checklists_functions_show_first(migration: Migration) -> None:
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    shown = forcelift.rollback_failed_batch("first", "Sale__c", plan_file=migration.plan)
    assert (shown["executed"], shown["deleted"]) == (False, GOOD)
    assert migration.count("Sale__c") == GOOD
    done = forcelift.rollback_failed_batch(
        "first", "Sale__c", plan_file=migration.plan, execute=True, reason="by the function"
    )
    assert (done["executed"], done["deleted"]) == (True, GOOD)
    assert (migration.count("Sale__c"), migration.count("Tenant__c")) == (0, TENANTS)
    with pytest.raises(UsageError, match="created_field"):
        forcelift.full_rollback("Tenant__c", "2026-01-01", plan_file=migration.plan)


def test_a_table_or_chunk_that_is_not_there_is_a_wrong_word(migration: Migration) -> None:
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    for words, told in (
        (("--table", "sale"), "has loaded no chunk of a table `sale`"),
        (("--table", "sales", "--chunk", "99"), "has no chunk 99"),
    ):
        for more in ((), ("--execute", "--reason", "mistyped")):
            done = migration.run("rollback", "first", *words, *more)
            assert done.returncode == ExitCode.USAGE
            assert told in done.stderr
    with open_recorded(migration.plan) as (_, state):
        assert state.audit.rollbacks("first") == []


def test_with_kept_records_it_is_said_that_a_resume_leaves_them(migration: Migration) -> None:
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    query = {"q": "SELECT Id FROM Sale__c WHERE Sale__c = '300'"}
    (record,) = call(migration, "GET", f"{BASE}/query", params=query).json()["records"]
    call(migration, "PATCH", f"{BASE}/sobjects/Sale__c/{record['Id']}", json={"Amount__c": 7777})
    done = migration.run("rollback", "first", "--execute", "--reason", "wrong prices")
    assert done.returncode == ExitCode.ROWS_REFUSED
    assert "kept records stay as they are" in done.stdout


def test_a_record_that_cannot_be_put_back_does_not_go_with_its_new_master(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch moved somebody's record to a master that it made; the master from before is gone by now."""
    make_source(tmp_path)
    monkeypatch.chdir(tmp_path)
    schema = schema_from_dict(
        {
            "objects": {
                "Tenant__c": {
                    "fields": {
                        "Name": {"type": "string"},
                        "Code__c": {"type": "string", "externalId": True, "unique": True},
                    }
                },
                "Sale__c": {
                    "fields": {
                        "Name": {"type": "string"},
                        "Sale__c": {"type": "string", "externalId": True, "unique": True},
                        "Amount__c": {"type": "currency", "precision": 12, "scale": 2},
                        "Tenant__c": {
                            "type": "reference",
                            "referenceTo": "Tenant__c",
                            "relationshipName": "Tenant__r",
                            "relationshipOrder": 0,
                            "updateable": True,
                        },
                    }
                },
            }
        }
    )
    org = TwinOrg.open(None, schema=schema)
    try:
        with TwinServer(org) as server:
            write_plan(tmp_path, server)
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            migration = Migration(folder=tmp_path, org=org, server=server)
            old = call(migration, "POST", f"{BASE}/sobjects/Tenant__c", json={"Name": "old", "Code__c": "OLD"})
            body = {"Sale__c": "30", "Amount__c": 1.5, "Name": "earlier", "Tenant__c": old.json()["id"]}
            earlier = call(migration, "POST", f"{BASE}/sobjects/Sale__c", json=body).json()["id"]
            migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
            call(migration, "DELETE", f"{BASE}/sobjects/Tenant__c/{old.json()['id']}")

            words = ("rollback", "first", "--execute", "--reason", "wrong prices")
            done = migration.document(*words, code=ExitCode.ROWS_REFUSED)
            record = call(migration, "GET", f"{BASE}/sobjects/Sale__c/{earlier}").json()
            assert (record["Name"], record["Amount__c"]) == ("earlier", 30)
            kept = {table["table"]: [one["code"] for one in table["kept"]] for table in done["tables"]}
            assert kept == {"tenants": ["CHILDREN_OF_OTHERS"], "sales": ["ENTITY_IS_DELETED"]}
            assert (migration.count("Tenant__c"), migration.count("Sale__c")) == (1, 1)
    finally:
        org.close()


@pytest.fixture
def two_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    """The first user loads; the second one works in the org."""
    make_source(tmp_path)
    monkeypatch.chdir(tmp_path)
    schema = schema_from_dict({"users": [{"username": LOADER}, {"username": CLERK}], "objects": CLI_OBJECTS})
    org = TwinOrg.open(None, schema=schema)
    try:
        with TwinServer(org) as server:
            write_plan(tmp_path, server)
            monkeypatch.setenv("CLI_TEST_TOKEN", server.app.sign_in.open_session(LOADER))
            yield Migration(folder=tmp_path, org=org, server=server)
            assert server.internal_errors == []
    finally:
        org.close()


def rename_as_clerk(migration: Migration, key: int, *, later_than: str) -> None:
    """Change a field that the plan does not write, in a later second than a chunk's end by our clock."""
    headers = {"Authorization": f"Bearer {migration.server.app.sign_in.open_session(CLERK)}"}
    with httpx.Client(base_url=f"{migration.server.url}{BASE}", headers=headers) as clerk:
        changed = ""
        while changed[:19] <= later_than:
            clerk.patch(f"/sobjects/Sale__c/Sale__c/{key}", json={"Name": "renamed"}).raise_for_status()
            changed = clerk.get(f"/sobjects/Sale__c/Sale__c/{key}").raise_for_status().json()["LastModifiedDate"]


def last_end(migration: Migration) -> str:
    """When the last chunk of all batches was settled: `2026-01-31T12:00:00`."""
    with sqlite3.connect(migration.folder / "state" / "audit.db") as database:
        ((end,),) = database.execute("SELECT max(END_TIME) FROM MIGRATION_AUDIT_LOG").fetchall()
    return str(end)[:19].replace(" ", "T")


def test_a_batch_that_settled_late_does_not_take_others_work_for_its_own(two_users: Migration) -> None:
    """Its process was killed, somebody worked in the org, and days later a resume settled what had been loaded."""
    two_users.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    rename_as_clerk(two_users, ORPHANS + 1, later_than="")
    with sqlite3.connect(two_users.folder / "state" / "audit.db") as database:
        database.execute("UPDATE MIGRATION_AUDIT_LOG SET END_TIME = replace(END_TIME, '20', '21')")
    done = two_users.document("rollback", "first", "--execute", "--reason", "late", code=ExitCode.ROWS_REFUSED)
    kept = {table["table"]: [one["code"] for one in table["kept"]] for table in done["tables"]}
    assert kept["sales"] == ["CHANGED_LATER"]
    assert two_users.count("Sale__c") == 1


def test_what_a_later_batch_found_changed_by_others_stays_changed_by_others(two_users: Migration) -> None:
    """Between two batches somebody renamed a record; the rollback of the second puts their work back, not ours."""
    two_users.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    rename_as_clerk(two_users, ORPHANS + 1, later_than=last_end(two_users))
    two_users.document("run", "--batch", "second", code=ExitCode.ROWS_REFUSED)
    newer = two_users.document("rollback", "second", "--execute", "--reason", "in order")
    assert (newer["restored"], newer["kept"]) == (TENANTS + GOOD, 0)
    done = two_users.document("rollback", "first", "--execute", "--reason", "in order", code=ExitCode.ROWS_REFUSED)
    kept = {table["table"]: [one["code"] for one in table["kept"]] for table in done["tables"]}
    assert kept["sales"] == ["CHANGED_LATER"]
    assert two_users.count("Sale__c") == 1
