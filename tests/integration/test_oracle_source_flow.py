"""The whole flow from Oracle: tests of other sources once more over the Oracle test server, and killed processes.

Tests that are imported run with this module's fixtures: the same plan and rows, read from Oracle in each profile. The
older profile is left to the slow proofs; `test_oracle_flow.py` takes both through the flow at each change.
"""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.integration.cli_migration import CHUNK_ROWS, ORPHANS, SALES, TENANTS, Migration, check_accounting, wait_until
from tests.integration.test_cli_runs import (
    test_a_dry_run_sends_nothing_and_predicts_what_a_run_takes,
    test_a_signal_finishes_what_is_in_flight_and_resume_does_the_rest,
    test_run_status_and_run_again,
    test_stop_from_another_terminal,
)
from tests.integration.test_oracle_run import GOOD, held, migration
from tests.integration.test_rollback_cli import (
    arm,
    test_a_reload_after_a_rollback_writes_new_rows_and_counts_once,
    test_newer_batch_first_then_the_older_one,
    test_what_a_stopped_load_left_is_settled_and_undone,
)
from tests.integration.test_steering import (
    test_extract_first_stages_everything_before_the_first_job,
    test_pause_throttle_and_resume_do_what_they_say,
)
from tests.oracle_server.server import OracleServer
from tests.oracle_support import connect, serve_oracle

from forcelift.errors import ExitCode

__all__ = [
    "held",
    "migration",
    "test_a_dry_run_sends_nothing_and_predicts_what_a_run_takes",
    "test_a_reload_after_a_rollback_writes_new_rows_and_counts_once",
    "test_a_signal_finishes_what_is_in_flight_and_resume_does_the_rest",
    "test_extract_first_stages_everything_before_the_first_job",
    "test_newer_batch_first_then_the_older_one",
    "test_pause_throttle_and_resume_do_what_they_say",
    "test_run_status_and_run_again",
    "test_stop_from_another_terminal",
    "test_what_a_stopped_load_left_is_settled_and_undone",
]


@pytest.fixture(params=["23ai", pytest.param("19c", marks=pytest.mark.slow)])
def oracle(request: pytest.FixtureRequest) -> Iterator[OracleServer]:
    """A server with a user `KPS` who may do all."""
    yield from serve_oracle(request.param)


@pytest.mark.parametrize("jobs_done", [1, 4])
def test_a_killed_run_goes_on_though_the_table_has_changed(
    oracle: OracleServer, held: Migration, jobs_done: int
) -> None:
    """Goal: one record for each good row. Method: kill -9, write to the table, resume, ask the org."""
    with held.start("run", "--batch", "killed") as process:

        def is_done() -> bool:
            held.org.step()
            assert process.poll() is None
            return len(held.jobs("JobComplete")) >= jobs_done

        wait_until(is_done)
        held.wait_for_jobs("UploadComplete", 1)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    with connect(oracle) as other:
        # An amount changes without a row that comes or goes, so that the counts stay what they were.
        other.cursor().execute('UPDATE "sales" SET "amount" = "amount" + 1000 WHERE "sale_id" = 599')
        other.commit()
    held.org.start()
    done = held.run("run", "--resume", "killed", "--json")
    held.org.stop()
    assert done.returncode == ExitCode.ROWS_REFUSED, done.stderr
    assert (held.count("Tenant__c"), held.count("Sale__c")) == (TENANTS, GOOD)
    outcomes = check_accounting(held.audit_file, held.folder / "state" / "staging", "killed")
    assert outcomes == {"tenants": {"created": TENANTS}, "sales": {"created": GOOD, "rejected": ORPHANS}}
    assert len(held.jobs("JobComplete")) >= SALES // CHUNK_ROWS


def test_rows_that_were_refused_for_a_lock_are_sent_again(migration: Migration) -> None:
    arm(migration, {"action": "lock_storm", "object": "Sale__c", "probability": 0.3, "times": 60})
    migration.document("run", "--batch", "locks", code=ExitCode.ROWS_REFUSED)
    outcomes = check_accounting(migration.audit_file, migration.folder / "state" / "staging", "locks")
    assert outcomes["sales"] == {"created": GOOD, "rejected": ORPHANS}
    with closing(sqlite3.connect(migration.audit_file)) as audit:
        ((again,),) = audit.execute("SELECT count(*) FROM job WHERE kind = 'resend'").fetchall()
    assert again > 0


def test_five_levels_prove_what_the_org_has(oracle: OracleServer, migration: Migration) -> None:
    text = migration.plan.read_text()
    checks = (
        "    checks:\n"
        "      - {name: tenant_total, sum: amount, by: tenant}\n"
        "      - name: sales_of_tenants\n"
        "        sql: |\n"
        '          SELECT "tenant", SUM("amount") FROM "sales" WHERE "tenant" <> \'NOBODY\' GROUP BY "tenant"\n'
        "        soql: SELECT Tenant__r.Code__c, SUM(Amount__c) FROM Sale__c GROUP BY Tenant__r.Code__c\n"
        '        tolerance: "0"\n'
    )
    head, mark, tail = text.partition("    object: Sale__c\n")
    assert mark
    migration.plan.write_text(head + mark + checks + tail)
    migration.document("run", "--batch", "proved", code=ExitCode.ROWS_REFUSED)
    proof = migration.document("validate", "proved", "--levels", "all")
    assert {one["level"] for one in proof["checks"]} == {1, 2, 3, 4, 5}
    open_ones = [(one["table"], one["level"]) for one in proof["checks"] if one["status"] != "passed"]
    # Tenants have no numbers to add up, and no rule of the plan is about them.
    assert open_ones == [("tenants", 2), ("tenants", 4)]
    assert migration.document("audit", "verify")["is_whole"] is True
