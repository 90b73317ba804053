"""The rollback drill: killed at any moment and gone on with, a rollback leaves the org as it was before the batch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.faults.fault_rollback import Others, RollbackProcess, check_drill, give_a_past, snapshot
from tests.faults.fault_twin import org_client
from tests.faults.fault_world import fault_world


def drill(
    folder: Path, *, seed: int, rows: int, chunk_rows: int, kills: int, hard: bool = False, steps: Sequence[int] = ()
) -> None:
    """Load, let others work, kill the rollback so often, let it end, compare the org with what it was.

    Args:
        steps: Kill it first at each of these, as soon as the audit database names them.
    """
    rng = random.Random(seed)
    with fault_world(folder, seed=seed, rows=rows, chunk_rows=chunk_rows) as world:
        loader = world.loader
        with org_client(world.twin, client_id="other") as org:
            give_a_past(org)
            before = snapshot(org)
            assert loader.run() == 1, loader.output()
            others = Others(org, loader, before, rng)
            worked = snapshot(org)
        if hard:
            # The loader's user lacks the permission: nothing is deleted, and the same rollback goes on softly.
            assert RollbackProcess(loader, "--hard").run() == 5, loader.output()
        rollback = RollbackProcess(loader, *(["--soft"] if hard else []))
        assert all(rollback.killed_at(step) for step in steps), "it ended before it could be killed"
        for _ in range(kills):
            if not rollback.killed(rng):
                break
        code = rollback.run()
        if code == 2 or code == 3:
            raise AssertionError(loader.output()[-3000:])
        with org_client(world.twin, client_id="other") as org:
            check_drill(loader, org, before=before, worked=worked, others=others)
            assert org.internal_errors() == []


@pytest.mark.parametrize("seed", [21])
def test_rollback_killed_thrice_leaves_the_org_as_it_was(tmp_path: Path, seed: int) -> None:
    drill(tmp_path, seed=seed, rows=4_000, chunk_rows=800, kills=3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [201, 202, 203])
def test_rollback_of_a_large_batch_killed_twelve_times(tmp_path: Path, seed: int) -> None:
    drill(tmp_path, seed=seed, rows=100_000, chunk_rows=5_000, kills=12, hard=seed == 203)


@pytest.mark.slow
def test_rollback_killed_in_each_of_its_nine_steps(tmp_path: Path) -> None:
    drill(tmp_path, seed=31, rows=3_000, chunk_rows=400, kills=0, steps=range(9))
