"""`forcelift validate` after `forcelift rollback`: what was undone, what was kept, and a reload of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
from tests.integration.cli_migration import ORPHANS, SALES, Migration, cli_schema, make_source, write_plan

from forcelift.after.validate.execute import TableValidation
from forcelift.after.validate.world import ValidateSettings
from forcelift.errors import ExitCode
from forcelift.migration.running import open_recorded
from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer
from forcelift.validating.batch import open_world

GOOD = SALES - ORPHANS
RECORDS = "/services/data/v66.0/sobjects/Sale__c"


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    make_source(tmp_path)
    monkeypatch.chdir(tmp_path)
    org = TwinOrg.open(None, schema=cli_schema())
    try:
        with TwinServer(org) as server:
            write_plan(tmp_path, server)
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            migration = Migration(folder=tmp_path, org=org, server=server)
            migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
            yield migration
            assert server.internal_errors == []
    finally:
        org.close()


def call(migration: Migration, method: str, path: str, **options: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {migration.server.access_token}"}
    return httpx.request(method, f"{migration.server.url}{path}", headers=headers, **options).raise_for_status()


def change_a_sale(migration: Migration, key: int) -> None:
    """What somebody else does: the record's amount is another one."""
    query = {"q": f"SELECT Id FROM Sale__c WHERE Sale__c = '{key}'"}
    (record,) = call(migration, "GET", "/services/data/v66.0/query", params=query).json()["records"]
    call(migration, "PATCH", f"{RECORDS}/{record['Id']}", json={"Amount__c": 7777})


def checks(document: dict[str, Any], table: str = "sales") -> dict[tuple[int, str], dict[str, Any]]:
    return {(one["level"], one["check"]): one for one in document["checks"] if one["table"] == table}


def test_nothing_differs_after_all_was_undone(loaded: Migration) -> None:
    loaded.document("rollback", "first", "--execute", "--reason", "wrong prices")
    told = loaded.document("validate", "first", "--levels", "all")
    found = checks(told)
    assert found[3, "sampled records"]["status"] == "not_checked"
    assert found[1, "rows accepted, by audit table and ledger"]["status"] == "passed"
    assert found[5, "records"]["reason"] == f"{GOOD} were rolled back"
    assert (found[5, "records"]["source"], found[5, "records that nobody sent"]["target"]) == ("0", "0")


def test_records_that_were_kept_are_said_not_to_be_compared(loaded: Migration) -> None:
    loaded.document("validate", "first", "--level", "5")
    change_a_sale(loaded, 300)
    loaded.document("rollback", "first", "--execute", "--reason", "wrong prices", code=ExitCode.ROWS_REFUSED)
    found = checks(loaded.document("validate", "first", "--levels", "all"))
    assert found[5, "records"]["reason"] == (
        f"{GOOD - 1} were rolled back; 1 were kept by a rollback and were not compared"
    )
    counted = found[1, "records made and records in the org"]
    assert (counted["status"], counted["source"], counted["target"]) == ("passed", "1", "1")
    with open_recorded(loaded.plan) as (_, state):
        (kept,) = [chunk for chunk in state.audit.chunks("first", "sales") if chunk.status.value != "ROLLED_BACK"]
        assert state.audit.target_checksums("first", "sales")[kept.audit_id] is None


def test_one_chunk_that_was_undone_leaves_the_others_to_be_sampled(loaded: Migration) -> None:
    words = ("--table", "sales", "--chunk", "2", "--execute", "--reason", "one chunk")
    undone = loaded.document("rollback", "first", *words)["deleted"]
    found = checks(loaded.document("validate", "first", "--levels", "all", "--sample", "10000"))
    assert found[3, "sampled records"]["source"] == str(GOOD - undone)
    assert found[3, "sampled records"]["status"] == "passed"


def test_rows_that_a_newer_batch_owns_are_not_drawn(loaded: Migration) -> None:
    loaded.document("run", "--batch", "second", code=ExitCode.ROWS_REFUSED)
    found = checks(loaded.document("validate", "first", "--level", "3"))
    assert found[3, "sampled records"]["reason"] == "there is no accepted row to draw that this batch still owns"


def begin_to_read(migration: Migration) -> None:
    """A validation that has read the org and dies before it compares."""
    with open_world(migration.plan, "first", ValidateSettings(levels=(5,), tables=("sales",))) as world:
        TableValidation(world, "sales")._scanned()


def test_what_was_read_before_a_rollback_is_not_compared_after_it(loaded: Migration) -> None:
    begin_to_read(loaded)
    loaded.document("rollback", "first", "--execute", "--reason", "wrong prices")
    found = checks(loaded.document("validate", "first", "--level", "5"))
    assert (5, "records rolled back") not in found
    loaded.document("run", "--resume", "first", code=ExitCode.ROWS_REFUSED)
    found = checks(loaded.document("validate", "first", "--levels", "all"))
    assert {one["status"] for one in found.values()} <= {"passed", "not_checked"}
    assert found[5, "records"]["source"] == str(GOOD)


def test_going_on_with_an_earlier_reading_is_said(loaded: Migration) -> None:
    begin_to_read(loaded)
    done = loaded.run("validate", "first", "--level", "5")
    assert done.returncode == ExitCode.DONE
    assert "`sales` is compared as the org was at" in done.stderr
    again = loaded.run("validate", "first", "--level", "5")
    assert "is compared as the org was" not in again.stderr


def test_what_a_newer_batch_changed_and_kept_is_told_as_kept(loaded: Migration) -> None:
    """The record holds the newer batch's values and somebody's own: for the older batch it is no difference."""
    with duckdb.connect(str(loaded.folder / "source.duckdb")) as source:
        source.execute("UPDATE sales SET amount = amount + 1 WHERE sale_id = 300")
    loaded.document("run", "--batch", "second", code=ExitCode.ROWS_REFUSED)
    change_a_sale(loaded, 300)
    words = ("rollback", "second", "--execute", "--reason", "wrong prices")
    assert loaded.document(*words, code=ExitCode.ROWS_REFUSED)["kept"] == 1
    found = checks(loaded.document("validate", "first", "--level", "5"))
    assert (found[5, "records"]["status"], found[5, "records"]["source"]) == ("passed", str(GOOD - 1))
    assert found[5, "records"]["reason"] == "1 were kept by a rollback and were not compared"
    loaded.document("validate", "first", "--level", "3", "--sample", "10000")


@pytest.mark.slow
def test_a_record_that_was_put_back_and_holds_what_was_sent_again_is_not_undone(loaded: Migration) -> None:
    """Those that had held the same before the batch are undone all the same: only the before-image tells them apart."""
    loaded.document("run", "--batch", "second", code=ExitCode.ROWS_REFUSED)
    with duckdb.connect(str(loaded.folder / "source.duckdb")) as source:
        source.execute("UPDATE sales SET amount = 7777 WHERE sale_id IN (300, 301)")
    loaded.document("run", "--batch", "third", code=ExitCode.ROWS_REFUSED)
    loaded.document("rollback", "third", "--execute", "--reason", "wrong prices")
    # Every record holds what it held before the third batch, and all but two what it sent.
    loaded.document("validate", "third", "--level", "5")
    change_a_sale(loaded, 300)
    found = checks(loaded.document("validate", "third", "--level", "5", code=ExitCode.ROWS_REFUSED))
    undone = found[5, "records rolled back"]
    assert (undone["status"], undone["target"]) == ("failed", "1")
    assert [one["key"] for one in undone["examples"]] == ["300"]
