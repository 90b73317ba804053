"""Processes that are killed, or stopped by Ctrl-C, while automations are off: the next start puts them back."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.cli_migration import wait_until
from tests.integration.prepare_fixtures import ROWS, SWITCHED, PreparedOrg, prepared_org


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PreparedOrg]:
    with prepared_org(tmp_path) as made:
        monkeypatch.chdir(made.folder)
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


def hold_jobs(made: PreparedOrg) -> None:
    """Each job's creation waits, so that a run stands in the middle of its load."""
    with made.client as client:
        client.arm({"action": "delay", "method": "POST", "path": "/jobs/ingest$", "seconds": 600, "times": None})


def let_go(made: PreparedOrg) -> None:
    with made.client as client:
        client.delete("/__twin__/faults", headers=client.control_headers)


def killed_run(made: PreparedOrg, batch: str) -> None:
    """A run with automations off, killed while it loads."""
    hold_jobs(made)
    process = made.start("run", "--prepare", "--batch", batch)
    wait_until(lambda: off_for(made) == {batch})
    process.kill()
    process.communicate(timeout=30)
    let_go(made)


def off_for(made: PreparedOrg) -> set[str]:
    """Who wants automations off, once all of them were read back as off; the audit file may not be there yet."""
    if not made.audit_file.exists():
        return set()
    query = (
        "SELECT s.state_no, h.holder FROM org_state s JOIN org_state_holder h USING (state_no)"
        " WHERE s.restored_at IS NULL AND s.off_at IS NOT NULL AND s.writing_at IS NULL AND h.released_at IS NULL"
    )
    try:
        with closing(sqlite3.connect(f"file:{made.audit_file}?mode=ro", uri=True)) as audit:
            found = audit.execute(query).fetchall()
    except sqlite3.OperationalError:  # its tables are not there yet
        return set()
    return {holder for _, holder in found} if len({number for number, _ in found}) == len(SWITCHED) else set()


def test_after_kill_9_status_is_loud_and_the_next_start_puts_back(sandbox: PreparedOrg) -> None:
    before, active = sandbox.picture(), sandbox.active()
    killed_run(sandbox, "killed")
    status = sandbox.run("status")
    assert f"WARNING: {len(SWITCHED)} automations of the org switched off" in status.stdout
    assert "batch killed" in status.stdout
    assert len(sandbox.document("status")["automations_off"]) == len(SWITCHED)
    assert sandbox.active() == active - SWITCHED
    # Another batch, which wants no automations off: what the dead one left is put back before it loads.
    other = sandbox.run("run", "--batch", "other")
    assert other.returncode == 1, other.stderr
    assert f"{len(SWITCHED)} automations are exactly as they were" in other.stderr
    assert sandbox.picture() == before
    # The killed batch goes on as it was begun, with automations off, and puts them back in the end.
    resumed = sandbox.run("run", "--resume", "killed")
    assert resumed.returncode == 0, resumed.stderr
    assert "switching off" in resumed.stderr
    assert sandbox.picture() == before
    assert sandbox.count("Sale__c") == ROWS


def test_a_resume_of_the_killed_batch_joins_what_is_off(sandbox: PreparedOrg) -> None:
    before = sandbox.picture()
    killed_run(sandbox, "killed")
    resumed = sandbox.run("run", "--resume", "killed")
    assert resumed.returncode == 0, resumed.stderr
    assert "switching off" not in resumed.stderr
    assert sandbox.picture() == before


def test_of_two_overlapping_batches_only_the_last_puts_back(sandbox: PreparedOrg) -> None:
    """One is killed, the other is at work: what both want off stays off until the second one ends."""
    before, active = sandbox.picture(), sandbox.active()
    killed_run(sandbox, "first")
    hold_jobs(sandbox)
    second = sandbox.start("run", "--prepare", "--batch", "second")
    # The dead batch has let go, and the second one holds everything.
    wait_until(lambda: off_for(sandbox) == {"second"})
    looked = sandbox.document("restore", "--execute")
    assert {one["outcome"] for one in looked["automations"]} == {"held"}
    assert sandbox.active() == active - SWITCHED
    let_go(sandbox)
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, out + err
    assert sandbox.picture() == before


def test_ctrl_c_puts_back(sandbox: PreparedOrg) -> None:
    before = sandbox.picture()
    with sandbox.client as client:
        client.arm({"action": "delay", "method": "POST", "path": "/jobs/ingest$", "seconds": 3, "times": None})
    process = sandbox.start("run", "--prepare", "--batch", "stopped")
    wait_until(lambda: off_for(sandbox) == {"stopped"})
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert sandbox.picture() == before
    assert sandbox.document("status")["automations_off"] == []


def test_a_prepare_killed_while_it_deploys_is_put_back(sandbox: PreparedOrg) -> None:
    before = sandbox.picture()
    with sandbox.client as client:
        client.arm({"action": "delay", "method": "GET", "path": "/deployRequest/", "seconds": 600, "times": None})
    process = sandbox.start("prepare", "--execute")
    wait_until(lambda: ("trigger", "SaleTrigger") not in sandbox.active())
    process.kill()
    process.communicate(timeout=30)
    let_go(sandbox)
    assert "may be off" in sandbox.run("status").stderr + sandbox.run("status").stdout
    back = sandbox.document("restore", "--execute")
    assert ("SaleTrigger", "restored") in {(one["name"], one["outcome"]) for one in back["automations"]}
    assert sandbox.picture() == before
