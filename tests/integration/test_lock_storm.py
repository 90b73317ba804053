"""A storm of locks: every second row of every job is refused with UNABLE_TO_LOCK_ROW, and every row is settled."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec.structs import replace
from tests.integration.cli_migration import (
    ORPHANS,
    SALES,
    TENANTS,
    Migration,
    check_accounting,
    cli_schema,
    make_source,
    write_plan,
)
from tests.simulation.org import Faults
from tests.simulation.world import Simulation

from forcelift.account.summary import BatchSummary
from forcelift.audit import tables
from forcelift.audit.records import BatchMode, BatchState, JobKind
from forcelift.errors import ExitCode
from forcelift.migration.running import RunOptions, run_migration
from forcelift.opening.bounds import engine_settings
from forcelift.plan import load_plan
from forcelift.twin.fault_orders import named_order, parse_orders
from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Stormed:
    """How a load in a storm ended: by its summary, its ledger (outcomes by table), the org and the audit database."""

    summary: BatchSummary
    outcomes: dict[str, dict[str, int]]
    in_org: dict[str, int]
    audit_file: Path

    def audit(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.audit_file}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def check_resends(self) -> None:
        """Rows were sent again, each time fewer of them, in jobs no larger than the chunk's first."""
        jobs = self.audit("SELECT audit_id, attempt, rows FROM job WHERE kind IN ('load', 'resend') ORDER BY 1, 2")
        sent: dict[int, dict[int, int]] = {}
        for audit_id, attempt, rows in jobs:
            assert rows <= sent.setdefault(audit_id, {}).get(1, rows), "in smaller company"
            sent[audit_id][attempt] = sent[audit_id].get(attempt, 0) + rows
        assert any(len(attempts) > 1 for attempts in sent.values())
        for attempts in sent.values():
            rows = [attempts[number] for number in sorted(attempts)]
            assert rows == sorted(rows, reverse=True)


@pytest.mark.parametrize("seed", range(3))
def test_a_lock_storm_ends_with_every_row_settled(tmp_path: Path, seed: int) -> None:
    """The simulated org of the random schedules, with locks and nothing else; its own checks ask the org at the end."""
    simulation = Simulation(seed, tmp_path)
    simulation.mix = Faults(locked_row=0.5)
    simulation.stops_share = simulation.forgets_share = simulation.fills_share = 0.0
    simulation.run()
    jobs = simulation.audit.jobs(simulation.batch.batch_id)
    again = [job for job in jobs if job.kind is JobKind.RESEND]
    assert again
    first = {job.audit_id: job.part.rows for job in jobs if job.kind is JobKind.LOAD}
    assert all(job.part.rows <= first[job.audit_id] for job in again), "in smaller company"
    assert len({job.intended_at for job in again}) > 1
    with simulation.audit.read() as connection:
        query = sa.select(tables.failed_records.c.sf_error_code)
        assert "UNABLE_TO_LOCK_ROW" not in set(connection.execute(query).scalars())


def test_the_governor_s_answer_to_locks_stands_among_its_decisions(tmp_path: Path) -> None:
    simulation = Simulation(1, tmp_path)
    simulation.mix = Faults(locked_row=0.5)
    simulation.stops_share = simulation.forgets_share = simulation.fills_share = 0.0
    simulation.governor_jobs = 4
    simulation.run()
    text = json.dumps(simulation.decisions)
    assert "jobs at once: 4 -> 2" in text
    assert "met a lock" in text


def _load_in_a_storm(
    folder: Path, monkeypatch: pytest.MonkeyPatch, storm: str | Mapping[str, Any], attempts: int
) -> Stormed:
    """Load the small source of the command line's tests into a served twin in which locks fail rows."""
    make_source(folder)
    monkeypatch.chdir(folder)
    org = TwinOrg.open(None, schema=cli_schema())
    try:
        with TwinServer(org) as server:
            write_plan(folder, server, rows=SALES // 2)
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            migration = Migration(folder=folder, org=org, server=server)
            server.app.desk.arm([named_order(storm)] if isinstance(storm, str) else parse_orders(storm))
            settings = replace(
                engine_settings(load_plan(migration.plan), mode=BatchMode.RUN),
                attempts_max=attempts,
                resend_delay_s=0.05,
            )
            summary = run_migration(migration.plan, RunOptions(batch_id="storm"), engine=settings)
            outcomes = check_accounting(migration.audit_file, folder / "state" / "staging", "storm")
            return Stormed(
                summary=summary,
                outcomes={name: outcomes[name] for name in ("tenants", "sales")},
                in_org={"tenants": migration.count("Tenant__c"), "sales": migration.count("Sale__c")},
                audit_file=migration.audit_file,
            )
    finally:
        org.close()


def test_a_storm_on_the_twin_that_does_not_end_settles_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of all rows of every job meet a lock, and nothing gets better: what is refused to the last is `failed`."""
    done = _load_in_a_storm(tmp_path, monkeypatch, "lock-storm=0.5", 3)
    assert done.summary.batch.state is BatchState.DONE
    assert done.summary.exit_code == ExitCode.ROWS_REFUSED
    assert sum(done.outcomes["tenants"].values()) == TENANTS
    assert sum(done.outcomes["sales"].values()) == SALES
    for table, outcomes in done.outcomes.items():
        assert outcomes.get("created", 0) == done.in_org[table]
    # An eighth of the rows is expected to meet a lock three times; the twin's faults go by a fixed seed.
    failed = sum(outcomes.get("failed", 0) for outcomes in done.outcomes.values())
    assert 0 < failed < (TENANTS + SALES) // 2
    assert dict(done.audit("SELECT sf_error_code, count(*) FROM migration_failed_records GROUP BY 1")) == {
        "UNABLE_TO_LOCK_ROW": failed,
        "REJECTED_MISSING_PARENT": done.outcomes["sales"]["rejected"],
    }
    done.check_resends()
    assert any("met a lock" in payload for (payload,) in done.audit("SELECT payload FROM journal"))


def test_a_storm_on_the_twin_that_passes_leaves_no_row_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storm = {"action": "lock_storm", "object": "Sale__c", "probability": 0.5, "times": 400}
    done = _load_in_a_storm(tmp_path, monkeypatch, storm, 10)
    assert done.in_org == {"tenants": TENANTS, "sales": SALES - ORPHANS}
    assert done.outcomes == {
        "tenants": {"created": TENANTS},
        "sales": {"created": SALES - ORPHANS, "rejected": ORPHANS},
    }
    assert done.audit("SELECT count(*) FROM migration_failed_records WHERE sf_error_code = 'UNABLE_TO_LOCK_ROW'") == [
        (0,)
    ]
    done.check_resends()
