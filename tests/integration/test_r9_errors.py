"""The six errors of the requirements (R9), each met in the simulated org, told with its remedy, and mended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.integration.cli_migration import Migration
from tests.integration.test_rollback_cli import BASE, arm, call

from forcelift.errors import ExitCode
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

ROWS = 30
PLAN = """\
version: 1
project: Six errors
source: {{url: "duckdb:///source.duckdb"}}
target:
  url: {url}
  auth: {{flow: token, access_token: "${{CLI_TEST_TOKEN}}"}}
tables:
  - table: trips
    object: Trip__c
    key: trip_id
    external_id: Key__c
    fields:
      place: Place__c
      shop: Shop__c
"""


def objects(**trip: Any) -> dict[str, Any]:
    fields = {
        "Name": {"type": "string"},
        "Key__c": {"type": "string", "externalId": True, "unique": True},
        "Place__c": {"type": "string", "length": 80},
        "Shop__c": {"type": "reference", "referenceTo": "Shop__c", "relationshipName": "Shop__r"},
        **trip,
    }
    return {"Trip__c": {"fields": fields}, "Shop__c": {"fields": {"Name": {"type": "string"}}}}


@contextmanager
def migration(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, automations: dict[str, Any] | None = None, **trip: Any
) -> Iterator[Migration]:
    with duckdb.connect(str(folder / "source.duckdb")) as source:
        source.execute(
            "CREATE TABLE trips AS SELECT 'T' || i AS trip_id, 'place ' || i AS place, CAST(NULL AS VARCHAR) AS shop"
            f" FROM range({ROWS}) AS r(i)"
        )
    monkeypatch.chdir(folder)
    schema = {"objects": objects(**trip), **({"automations": automations} if automations else {})}
    org = TwinOrg.open(None, schema=schema_from_dict(schema))
    try:
        with TwinServer(org) as server:
            (folder / "forcelift.yaml").write_text(PLAN.format(url=server.url), encoding="utf-8")
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            yield Migration(folder=folder, org=org, server=server)
            assert server.internal_errors == []
    finally:
        org.close()


def the_group(migration: Migration) -> dict[str, Any]:
    """The one group of refused rows."""
    listed = migration.document("failed", "list", code=ExitCode.ROWS_REFUSED)
    [group] = listed["groups"]
    assert isinstance(group, dict)
    return group


def test_record_locked_is_sent_again_by_the_run_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with migration(tmp_path, monkeypatch) as world:
        arm(world, {"action": "lock_storm", "object": "Trip__c", "times": 5})
        world.document("run", "--batch", "first")
        assert world.count("Trip__c") == ROWS
        assert world.document("failed", "list")["groups"] == []


@pytest.mark.parametrize(
    ("effect", "words"),
    [
        ({"effect": "exceed_limit", "limit": "soql_queries"}, "Too many SOQL queries"),
        ({"effect": "recurse", "depth": 17}, "maximum trigger depth exceeded"),
    ],
)
def test_limits_of_triggers_are_mended_by_switching_them_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, effect: dict[str, Any], words: str
) -> None:
    trigger = {"name": "Trg", "object": "Trip__c", "events": ["before insert"], "effects": [effect]}
    with migration(tmp_path, monkeypatch, automations={"triggers": [trigger]}) as world:
        world.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
        group = the_group(world)
        assert (group["open"], words in group["message"]) == (ROWS, True)
        assert "forcelift prepare" in group["remedy"]
        assert words.lower() in world.run("explain", words).stdout.lower()
        assert world.run("prepare", "--execute").returncode == ExitCode.DONE
        done = world.document("failed", "retry")
        assert (done["mended"], world.count("Trip__c")) == (ROWS, ROWS)
        assert world.run("restore", "--execute").returncode == ExitCode.DONE


def test_field_not_writeable_is_told_before_the_first_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"type": "string", "length": 80, "createable": False, "updateable": False}
    with migration(tmp_path, monkeypatch, Place__c=place) as world:
        refused = world.run("run", "--batch", "first")
        assert refused.returncode == ExitCode.USAGE
        assert "Place__c" in refused.stderr
        assert "forcelift check" in world.run("explain", "Field is not writeable").stdout


def test_a_wrong_id_is_corrected_in_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with migration(tmp_path, monkeypatch) as world:
        made = call(world, "POST", f"{BASE}/sobjects/Shop__c", json={"Name": "a shop"}).json()["id"]
        nobody = f"{made[:12]}zzz"
        with duckdb.connect("source.duckdb") as source:
            source.execute("UPDATE trips SET shop = ? WHERE trip_id IN ('T3', 'T4')", [nobody])
        world.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
        group = the_group(world)
        assert (group["code"], group["open"]) == ("INVALID_CROSS_REFERENCE_KEY", 2)
        with duckdb.connect("source.duckdb") as source:
            source.execute("UPDATE trips SET shop = NULL")
        done = world.document("failed", "retry")
        assert (done["mended"], world.count("Trip__c")) == (2, ROWS)


def test_a_required_field_without_a_value_is_told_and_given_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {"type": "string", "length": 80, "required": True}
    with migration(tmp_path, monkeypatch, Place__c=place) as world:
        plan = world.plan.read_text(encoding="utf-8")
        world.plan.write_text(plan.replace("      place: Place__c\n", ""), encoding="utf-8")
        refused = world.run("run", "--batch", "first")
        assert (refused.returncode, "Place__c" in refused.stderr) == (ExitCode.USAGE, True)
        world.plan.write_text(plan, encoding="utf-8")
        with duckdb.connect("source.duckdb") as source:
            source.execute("UPDATE trips SET place = ' ' WHERE trip_id IN ('T3', 'T4')")
        world.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
        group = the_group(world)
        # Such rows are never sent: the org would say REQUIRED_FIELD_MISSING.
        assert (group["code"], group["open"]) == ("REJECTED_EMPTY_REQUIRED", 2)
        assert "default" in group["remedy"]
        assert "default" in world.run("explain", "REQUIRED_FIELD_MISSING").stdout
        mended = plan.replace("place: Place__c", "place: {field: Place__c, empty: {default: nowhere}}")
        world.plan.write_text(mended, encoding="utf-8")
        assert (world.document("failed", "retry")["mended"], world.count("Trip__c")) == (2, ROWS)
