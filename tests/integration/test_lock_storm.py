"""A storm of locks: every second row of every job is refused with UNABLE_TO_LOCK_ROW, and every row is settled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.simulation.org import Faults
from tests.simulation.world import Simulation

from forcelift.audit import tables
from forcelift.audit.records import JobKind


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
