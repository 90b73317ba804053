"""The data file survives a kill at any moment: no row is processed twice, none is lost, a half upload is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.twin_store_support import SCHEMA, finished, make_org, make_schema, records, run_job

from forcelift.twin.clock import ManualClock
from forcelift.twin.errors import SchemaChanged, SchemaError, StoreError
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema import Schema

ROWS = 45_000
ROOT = Path(__file__).parents[2]
# Creates a job, or finds the one that is there, and processes it one Salesforce batch in each transaction.
CHILD = """
import sys
from pathlib import Path
from forcelift.twin.org import Options
from tests.twin_store_support import make_org, write_csv
org = make_org(Path(sys.argv[1]), options=Options(threads=1, commit_batches=1))
if not org.jobs.list()["records"]:
    body = {"operation": "upsert", "object": "Trip__c", "externalIdFieldName": "Ext__c"}
    job = org.jobs.create(body, org.users[0])
    rows = [[f"K{number}", "x"] for number in range(int(sys.argv[2]))]
    org.jobs.put_content(job["id"], [write_csv(["Ext__c", "Place__c"], rows).encode()])
    org.jobs.patch(job["id"], "UploadComplete")
while True:
    print("step", flush=True)
    if org.step() is None:
        break
print("done", flush=True)
"""


def run_child(path: Path, *, kill_at: int | None) -> bool:
    """Run the child, and kill it when it begins its step `kill_at`; tell whether it came to its end."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(ROWS)], stdout=subprocess.PIPE, env=environment, text=True
    ) as child:
        assert child.stdout is not None
        for number, line in enumerate(child.stdout):
            if line == "done\n":
                return True
            if number == kill_at:
                child.send_signal(signal.SIGKILL)
                return False
    raise AssertionError("the child ended without a word")


def test_a_killed_twin_goes_on_where_the_last_commit_left_it(tmp_path: Path) -> None:
    path = tmp_path / "org.duckdb"
    for kill_at in (0, 2):
        assert not run_child(path, kill_at=kill_at)
    assert run_child(path, kill_at=None)
    with make_org(path) as org:
        [job] = org.jobs.list()["records"]
        done = finished(org, job["id"])
        assert (done.job["state"], done.job["numberRecordsProcessed"]) == ("JobComplete", ROWS)
        assert sorted(row["Ext__c"] for row in done.saved) == sorted(f"K{number}" for number in range(ROWS))
        assert {row["sf__Created"] for row in done.saved} == {"true"}
        stored = records(org, "Trip__c", "Ext__c", "Id")
        assert sorted(stored) == sorted((row["Ext__c"], row["sf__Id"]) for row in done.saved)
        used = org.limits_json()["DailyBulkApiBatches"]
        assert used["Max"] - used["Remaining"] == -(-ROWS // 10_000)


def test_a_file_keeps_ids_users_and_jobs_and_drops_half_uploads(tmp_path: Path) -> None:
    path = tmp_path / "org.duckdb"
    with make_org(path) as org:
        ids = (org.org_id, [user.id for user in org.users])
        job = org.jobs.create({"operation": "insert", "object": "Plane__c"}, org.users[0])["id"]
        for name in ("99.part", "98.csv"):
            (org.store.uploads / name).write_bytes(b"half")
        org.usage.count_request()
    with TwinOrg.open(path, clock=ManualClock()) as org:
        assert (org.org_id, [user.id for user in org.users]) == ids
        assert org.seed == 7
        assert org.users[0].permissions == {"bulk_hard_delete"}
        assert org.limits_json()["DailyApiRequests"] == {"Max": 100_000, "Remaining": 99_999}
        assert org.jobs.find(job).state == "Open"
        assert list(org.store.uploads.iterdir()) == []


def test_a_schema_may_grow_but_not_change(tmp_path: Path) -> None:
    path = tmp_path / "org.duckdb"
    with make_org(path) as org:
        body = {"operation": "insert", "object": "Plane__c"}
        org.jobs.create_multipart(body, b"Tail__c\nN1\n", org.users[0])
        org.run_until_idle()
    plane = {"fields": {**SCHEMA["objects"]["Plane__c"]["fields"], "Old__c": {"type": "boolean"}}}
    grown = make_schema(objects={**SCHEMA["objects"], "Plane__c": plane, "New__c": {}})
    with TwinOrg.open(path, schema=grown) as org:
        assert records(org, "Plane__c", "Tail__c", "Old__c") == [("N1", False)]
        assert records(org, "New__c", "Id") == []
    shorter = {"fields": {"Tail__c": {"type": "string", "length": 9, "externalId": True, "unique": True}}}
    with pytest.raises(SchemaChanged) as caught:
        TwinOrg.open(path, schema=make_schema(objects={**SCHEMA["objects"], "Plane__c": shorter}))
    assert "objects.Plane__c.fields.Tail__c.length: 10 in the file, 9 in the schema" in caught.value.problems
    with TwinOrg.open(path) as org:
        assert org.schema == grown


def test_a_calculated_field_may_learn_what_it_sums_up_and_a_written_one_may_not(tmp_path: Path) -> None:
    leg = {"fields": {"Trip__c": {"type": "reference", "referenceTo": "Trip__c", "relationshipOrder": 0}}}
    count = {"child": "Leg__c", "lookup": "Trip__c", "function": "COUNT"}

    def schema(**field: Any) -> Schema:
        return make_schema(objects={"Trip__c": {"fields": {"Legs__c": {"type": "double", **field}}}, "Leg__c": leg})

    calculated, written = tmp_path / "calculated.duckdb", tmp_path / "written.duckdb"
    for path, more in ((calculated, {"calculated": True}), (written, {})):
        TwinOrg.open(path, schema=schema(**more)).close()
    with TwinOrg.open(calculated, schema=schema(rollUp=count)) as org:
        trip = run_job(org, "insert", "Trip__c", f"OwnerId\n{org.users[0].id}\n").saved[0]["sf__Id"]
        assert run_job(org, "insert", "Leg__c", f"Trip__c\n{trip}\n").failed == []
        entry = org.schema.object("Trip__c")
        field = None if entry is None else entry.field("Legs__c")
        assert field is not None
        with org.store.read() as cursor:
            assert cursor.execute(f"SELECT {field.computed_sql('t')} FROM data.Trip__c t").fetchall() == [(1,)]
    with pytest.raises(SchemaChanged, match=r"Legs__c\.calculated"):
        TwinOrg.open(written, schema=schema(rollUp=count))


def test_opening_needs_a_schema_and_a_file_that_is_a_twin(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="a new org needs a schema"):
        TwinOrg.open(tmp_path / "new.duckdb")
    (tmp_path / "other.duckdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match="cannot be opened"):
        TwinOrg.open(tmp_path / "other.duckdb", schema=make_schema())
