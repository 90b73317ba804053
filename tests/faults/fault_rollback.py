"""The rollback drill: an org with a past, a load, others at work after it, and what the org must be in the end."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
from tests.faults.fault_data import KEYS, OBJECTS, SALE, TENANT
from tests.faults.fault_loader import BATCH, PATIENCE_S, LoaderProcess
from tests.faults.fault_twin import BASE, OrgClient

from forcelift.migration.running import open_recorded

FIELDS = {
    TENANT: ["Id", "Tenant_Code__c", "Name", "Serial__c", "Boss__c"],
    SALE: ["Id", "Sale_Id__c", "Name", "Amount__c", "Sold_On__c", "Note__c", "Serial__c", "Tenant__c"],
}
NOTES = {"CHANGED_FIELDS", "CHANGED_LATER", "CHILDREN_OF_OTHERS", "RECORD_GONE"}


def snapshot(org: OrgClient) -> dict[str, pl.DataFrame]:
    """Every record of both objects with all its fields."""
    return {table: org.records(OBJECTS[table], fields).sort("Id") for table, fields in FIELDS.items()}


def give_a_past(org: OrgClient) -> None:
    """The records that stand there before get values in all fields, some empty, and lookups between them."""
    tenants = org.records("Tenant__c", ["Id", "Tenant_Code__c"]).sort("Id")
    first = tenants["Tenant_Code__c"][0]
    sales = org.records("Sale__c", ["Id", "Sale_Id__c"]).sort("Id").filter(~pl.col("Sale_Id__c").str.contains("HOLD"))
    place = pl.int_range(pl.len())
    org.load(
        "Sale__c",
        "Sale_Id__c",
        sales.select(
            "Sale_Id__c",
            pl.when(place % 3 == 0).then(pl.lit("#N/A")).otherwise(pl.format("{}.5", place)).alias("Amount__c"),
            pl.when(place % 2 == 0).then(pl.lit('ก่อน, "before"')).otherwise(pl.lit("#N/A")).alias("Note__c"),
            pl.when(place % 5 == 0).then(pl.lit(first)).otherwise(pl.lit("#N/A")).alias("Tenant__r.Tenant_Code__c"),
            pl.lit("1999-12-31").alias("Sold_On__c"),
        ),
    )


class Others:
    """What other people do between the load and its rollback. `touched` are the Ids of records that they changed."""

    def __init__(
        self, org: OrgClient, loader: LoaderProcess, before: dict[str, pl.DataFrame], rng: random.Random
    ) -> None:
        self._org, self._rng = org, rng
        self.touched: set[str] = set()
        self.deleted: set[str] = set()
        _wait_for_next_second(loader)
        loaded = snapshot(org)
        for table in (TENANT, SALE):
            old = set(before[table]["Id"])
            holders = set(loaded[table].filter(pl.col(KEYS[table]).str.contains("HOLD"))["Id"])
            created = sorted(set(loaded[table]["Id"]) - old)
            updated = sorted(old - holders)
            self._work_on(table, rng.sample(created, 12), rng.sample(updated, 4))

    def _work_on(self, table: str, created: list[str], updated: list[str]) -> None:
        name = OBJECTS[table]
        self._patch(name, created[0], {"Serial__c": "changed-1-" + table})
        self._patch(name, updated[0], {"Serial__c": "changed-2-" + table})
        # `Name` is written by the batch in tenants alone; in sales only the time of the last change tells.
        self._patch(name, created[1], {"Name": "somebody's own"})
        self._patch(name, updated[1], {"Name": "somebody's own"})
        if table == SALE:
            self._org.call("POST", f"{BASE}/sobjects/Other__c", json={"Code__c": "hangs", "Sale__c": created[2]})
            self._delete(name, created[3])
            self._delete(name, updated[2])
        else:
            self._org.call(
                "POST", f"{BASE}/sobjects/Sale__c", json={"Sale_Id__c": "others-own", "Tenant__c": created[2]}
            )

    def _patch(self, name: str, record_id: str, values: dict[str, Any]) -> None:
        self._org.call("PATCH", f"{BASE}/sobjects/{name}/{record_id}", json=values)
        self.touched.add(record_id)

    def _delete(self, name: str, record_id: str) -> None:
        self._org.call("DELETE", f"{BASE}/sobjects/{name}/{record_id}")
        self.deleted.add(record_id)


def _wait_for_next_second(loader: LoaderProcess) -> None:
    """The org tells times to the second, so that a change within the second of the settling could not be told."""
    [(ended,)] = loader.audit("SELECT max(END_TIME) FROM MIGRATION_AUDIT_LOG")
    settled = datetime.fromisoformat(f"{ended}+00:00").timestamp()
    while time.time() < int(settled) + 1:
        time.sleep(0.01)


class RollbackProcess:
    """`forcelift rollback --execute` as a process of its own, as often as it takes."""

    def __init__(self, loader: LoaderProcess, *words: str) -> None:
        self.loader, self.words = loader, words
        self.starts = 0

    def start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        command = [sys.executable, "-m", "forcelift", "rollback", BATCH, "--plan", str(self.loader.plan), "--json"]
        command += ["--execute", "--reason", "a drill", *self.words]
        with self.loader.log.open("ab") as log, self.document_file.open("wb") as out:
            log.write(f"--- rollback {self.starts}\n".encode())
            log.flush()
            return subprocess.Popen(command, stdout=out, stderr=log, cwd=self.loader.folder)

    @property
    def document_file(self) -> Path:
        return self.loader.folder / "rollback.json"

    def run(self) -> int:
        return self.start().wait(PATIENCE_S)

    def killed(self, rng: random.Random) -> bool:
        """Start it and kill it at some moment, told by journal rows, requests or files; False if it ended before."""
        process = self.start()
        sign = rng.choice(["journal", "requests", "files"])
        times = rng.randint(1, 40 if sign == "requests" else 25)
        before = self.loader.count(sign)
        ends = time.monotonic() + PATIENCE_S
        while process.poll() is None and abs(self.loader.count(sign) - before) < times:
            assert time.monotonic() < ends, self.loader.output()
            time.sleep(0.002)
        was_running = process.poll() is None
        process.kill()
        process.wait()
        print(f"start {self.starts}: {times} of {sign}, {'killed' if was_running else 'it had ended'}")
        return was_running

    def killed_at(self, step: int) -> bool:
        """Start it and kill it as soon as the audit database names that step; False if it ended before."""
        process = self.start()
        ends = time.monotonic() + PATIENCE_S
        while process.poll() is None and self._step() < step:
            assert time.monotonic() < ends, self.loader.output()
            time.sleep(0.001)
        was_running = process.poll() is None
        process.kill()
        process.wait()
        print(f"start {self.starts}: step {step}, {'killed' if was_running else 'it had ended'}")
        return was_running

    def _step(self) -> int:
        """The step that the rollback has done last; -1 before it has begun."""
        [(step,)] = self.loader.audit("SELECT max(step) FROM rollback")
        return -1 if step is None else int(step)

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.document_file.read_text())
        return found


def check_drill(
    loader: LoaderProcess,
    org: OrgClient,
    *,
    before: dict[str, pl.DataFrame],
    worked: dict[str, pl.DataFrame],
    others: Others,
) -> None:
    """The org equals the org before the batch, but for exactly what is told as kept, and for what others did."""
    now = snapshot(org)
    loader.let_go_of_audit()
    with open_recorded(loader.plan) as (_, state):
        assert state.audit.verify_journal() == []
        # Killed after its last step, the first is through, and the next start begins a second on what was kept.
        rollbacks = state.audit.rollbacks(BATCH)
        assert [(one.step, one.ended_at is not None) for one in rollbacks] == [(9, True)] * len(rollbacks)
        assert rollbacks
        files = [chunk.ledger_file for chunk in state.audit.chunks(BATCH) if chunk.ledger_file]
        ledger = state.ledger.scan(files).collect()
        statuses = {chunk.audit_id: chunk.status.value for chunk in state.audit.chunks(BATCH)}
        for chunk in state.audit.chunks(BATCH):
            own = state.ledger.scan([chunk.ledger_file] if chunk.ledger_file else []).collect()
            outcomes = set(own["outcome"])
            assert (statuses[chunk.audit_id] == "ROLLED_BACK") == ("kept" not in outcomes), (chunk, outcomes)
            assert not outcomes & {"created", "updated", "unknown"}
    kept = ledger.filter(pl.col("outcome") == "kept")
    assert set(kept["code"]) <= NOTES, set(kept["code"])
    assert kept["message"].null_count() == 0
    kept_ids = set(kept["id"])
    links = _links(org)
    for table in (TENANT, SALE):
        old, seen, last = _by_id(before[table]), _by_id(now[table]), _by_id(worked[table])
        for record_id, values in seen.items():
            if record_id in kept_ids:
                assert values == last[record_id], "a kept record was touched"
                blocked = record_id not in old and links.get(record_id, set())
                assert record_id in others.touched or blocked, f"{record_id} is kept without need"
            elif record_id in old:
                assert values == old[record_id], f"{record_id}: {values} instead of {old[record_id]}"
            else:
                assert values[KEYS[table]] == "others-own", f"{record_id} of the batch is left"
        gone = set(old) - set(seen)
        assert gone <= others.deleted, "a record that stood there before is gone"
    assert others.touched <= kept_ids, "a record that others changed was not kept"
    for table in (TENANT, SALE):
        assert others.touched & set(worked[table]["Id"]) <= set(now[table]["Id"])


def _links(org: OrgClient) -> dict[str, set[str]]:
    """Who hangs on each record, as the org is now."""
    found: dict[str, set[str]] = {}
    for object_name, field in (("Sale__c", "Tenant__c"), ("Tenant__c", "Boss__c"), ("Other__c", "Sale__c")):
        for child, parent in org.records(object_name, ["Id", field]).drop_nulls().iter_rows():
            found.setdefault(parent, set()).add(child)
    return found


def _by_id(frame: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {row["Id"]: row for row in frame.iter_rows(named=True)}
