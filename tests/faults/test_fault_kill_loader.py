"""`kill -9` of the loader at any moment, then `run --resume`: one record per good row, and every row accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.fault_signs import random_moments
from tests.faults.fault_world import World, fault_world


def kill_and_resume(world: World, kills: int) -> None:
    """Kill `kills` times at random moments, each time resume, and let the last process end."""
    for number, moment in enumerate(random_moments(world.seed, kills), start=1):
        world.loader.start()
        moment.wait(world.loader)
        world.loader.kill()
        print(f"kill {number}: {moment}, found at {world.loader.progress():.2f}")
    assert world.loader.run() == 1, "rows are refused, so the exit code is 1"
    world.check_end()


@pytest.mark.parametrize("seed", [11])
def test_three_kills(tmp_path: Path, seed: int) -> None:
    with fault_world(tmp_path, seed=seed, rows=60_000, chunk_rows=5_000) as world:
        kill_and_resume(world, kills=3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [101, 102])
def test_twenty_kills_of_a_large_run(tmp_path: Path, seed: int) -> None:
    with fault_world(tmp_path, seed=seed, rows=300_000, chunk_rows=20_000) as world:
        kill_and_resume(world, kills=20)
