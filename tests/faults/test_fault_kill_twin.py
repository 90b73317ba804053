"""`kill -9` of the org while rows are loaded into it: the loader waits for it and goes on by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.fault_signs import random_moments
from tests.faults.fault_world import World, fault_world


def kill_the_org(world: World, kills: int) -> None:
    """Kill and restart the twin `kills` times at random moments of one run."""
    world.loader.start()
    made = 0
    for moment in random_moments(world.seed, kills):
        if not moment.comes(world.loader):
            break  # while the org was away the loader collected much: the last moments may lie behind its end
        world.twin.kill()
        world.twin.start()
        made += 1
        print(f"kill {made}: {moment}, found at {world.loader.progress():.2f}")
    assert made >= 2 * kills // 3
    assert world.loader.wait() == 1, "rows are refused, so the exit code is 1"
    assert world.loader.starts == 1
    world.check_end()


@pytest.mark.parametrize("seed", [21])
def test_three_kills_of_the_org(tmp_path: Path, seed: int) -> None:
    with fault_world(tmp_path, seed=seed, rows=60_000, chunk_rows=5_000) as world:
        kill_the_org(world, kills=3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [201, 202])
def test_twenty_kills_of_the_org_in_a_large_run(tmp_path: Path, seed: int) -> None:
    with fault_world(tmp_path, seed=seed, rows=300_000, chunk_rows=20_000) as world:
        kill_the_org(world, kills=20)
