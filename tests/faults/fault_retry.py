"""The retry drill: refused rows are mended in org and plan, their retry is killed, and what the org must hold then."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from typing import Any

import duckdb
import polars as pl
from tests.faults.fault_checks import TERMINAL, check_records
from tests.faults.fault_data import KEYS, NOTE_LENGTH, OBJECTS, SALE, TENANT, Expected
from tests.faults.fault_loader import BATCH, PATIENCE_S, LoaderProcess
from tests.faults.fault_twin import BASE, OrgClient
from tests.faults.fault_world import World

from forcelift.audit.failed_marks import FailedFilter
from forcelift.migration.running import open_recorded

_TENANTS = """
SELECT t.TENANT_CODE AS "Tenant_Code__c", t.NAME AS "Name", t.SERIAL AS "Serial__c",
    b.TENANT_CODE AS "Boss__r.Tenant_Code__c"
FROM source.TENANT t LEFT JOIN source.TENANT b ON b.TENANT_CODE = t.BOSS
"""

_SALES = f"""
SELECT *, CASE
    WHEN SALE_ID IS NULL THEN 'rejected'
    WHEN row_number() OVER (PARTITION BY lower(SALE_ID) ORDER BY CHANGED DESC) > 1 THEN 'duplicate'
    WHEN s.TENANT_CODE IS NOT NULL AND t.TENANT_CODE IS NULL THEN 'rejected' ELSE 'good' END AS outcome,
    rtrim(left(NOTE, {NOTE_LENGTH})) AS cut
FROM source.SALE s LEFT JOIN source.TENANT t ON t.TENANT_CODE = s.TENANT_CODE
"""

_SALE_RECORDS = f"""
SELECT SALE_ID AS "Sale_Id__c", AMOUNT::VARCHAR AS "Amount__c", SOLD_ON::VARCHAR AS "Sold_On__c", cut AS "Note__c",
    SERIAL AS "Serial__c", TENANT_CODE AS "Tenant__r.Tenant_Code__c" FROM ({_SALES}) WHERE outcome = 'good'
"""


def mend(world: World, org: OrgClient) -> Expected:
    """Free the unique values that others hold, let long notes be cut, and say what a retry must make of that."""
    for table in (TENANT, SALE):
        for record in org.records(OBJECTS[table], ["Id", KEYS[table]]).iter_rows(named=True):
            if record[KEYS[table]] and record[KEYS[table]].startswith("HOLD-"):
                org.call("DELETE", f"{BASE}/sobjects/{OBJECTS[table]}/{record['Id']}")
    plan = world.loader.plan.read_text(encoding="utf-8")
    mended = plan.replace("NOTE: Note__c", "NOTE: {field: Note__c, too_long: truncate}")
    assert mended != plan
    world.loader.plan.write_text(mended, encoding="utf-8")
    before = world.expected
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{world.loader.folder / 'source.duckdb'}' AS source (READ_ONLY)")
        sales = dict(connection.execute(f"SELECT outcome, count(*) FROM ({_SALES}) GROUP BY 1").fetchall())
        records = {
            TENANT: _frame(connection, _TENANTS).sort(KEYS[TENANT]),
            SALE: _frame(connection, _SALE_RECORDS).sort(KEYS[SALE]),
        }
    return Expected(
        rows=before.rows,
        outcomes={TENANT: {"good": before.rows[TENANT]}, SALE: sales},
        records=records,
        existing=before.existing,
        holders={table: frame.clear() for table, frame in before.holders.items()},
    )


def _frame(connection: duckdb.DuckDBPyConnection, query: str) -> pl.DataFrame:
    frame = pl.from_arrow(connection.sql(query).to_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    return frame


class RetryProcess:
    """`forcelift failed retry` as a process of its own, as often as it takes."""

    def __init__(self, loader: LoaderProcess) -> None:
        self.loader = loader
        self.starts = 0
        self._out = loader.folder / "retry.json"

    def start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        command = [sys.executable, "-m", "forcelift", "failed", "retry", "--batch", BATCH, "--json"]
        with self.loader.log.open("ab") as log, self._out.open("wb") as out:
            log.write(f"--- retry {self.starts}\n".encode())
            log.flush()
            words = [*command, "--plan", str(self.loader.plan)]
            return subprocess.Popen(words, stdout=out, stderr=log, cwd=self.loader.folder)

    def run(self) -> int:
        self.wait_for_the_dead()
        return self.start().wait(PATIENCE_S)

    def wait_for_the_dead(self) -> None:
        """On a server a process that was killed counts as alive until its heartbeat is old."""
        self.loader.let_go_of_audit()
        ends = time.monotonic() + PATIENCE_S
        with open_recorded(self.loader.plan) as (_, state):
            while state.audit.can_share and state.audit.runners(BATCH):
                assert time.monotonic() < ends, "a killed process did not come to count as dead"
                time.sleep(0.1)

    def killed(self, rng: random.Random, signs: tuple[str, ...]) -> bool:
        """Start it and kill it at some moment, told by journal rows, requests or files; False if it ended before."""
        self.wait_for_the_dead()
        process = self.start()
        sign = rng.choice(signs)
        times = rng.randint(1, 60 if sign == "requests" else 25)
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

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._out.read_text(encoding="utf-8"))
        return found


def check_retried(world: World, org: OrgClient, expected: Expected) -> None:
    """Exactly one record for each row that is good now; ledger, sums and failed records say the same."""
    assert org.internal_errors() == []
    ids = {table: check_records(org, expected, table) for table in (TENANT, SALE)}
    listed = org.jobs()
    assert {one for one, job in listed.items() if job["state"] not in TERMINAL} == world.others_jobs
    world.loader.let_go_of_audit()
    with open_recorded(world.loader.plan) as (_, state):
        assert state.audit.verify_journal() == []
        assert all(retry.ended_at is not None for retry in state.audit.retries(BATCH))
        for table in (TENANT, SALE):
            chunks = state.audit.chunks(BATCH, table)
            for one in chunks:
                assert (
                    one.source_count == one.extracted_count == (one.transformed_count or 0) + (one.skipped_count or 0)
                )
                assert one.transformed_count == one.loaded_count == (one.success_count or 0) + (one.failed_count or 0)
            lines = state.ledger.scan([one.ledger_file for one in chunks if one.ledger_file]).collect()
            counted = dict(lines.group_by("outcome").len().iter_rows())
            counted["good"] = counted.pop("created", 0) + counted.pop("updated", 0)
            assert counted == expected.outcomes[table]
            made = lines.filter(pl.col("outcome").is_in(["created", "updated"])).select("key", "id").sort("key")
            assert made.rows() == ids[table].sort(KEYS[table]).rows()
            updated = set(lines.filter(pl.col("outcome") == "updated")["key"])
            assert updated == set(expected.existing[table][KEYS[table]]), "created and updated are told apart wrongly"
        left = sum(group.open for group in state.audit.failed_counts(BATCH, FailedFilter()))
        assert left == expected.outcomes[SALE]["rejected"]
