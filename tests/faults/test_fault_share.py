"""Processes that share a batch, one of them killed or frozen: one record per good row, and every row accounted for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from tests.faults.fault_checks import journal_entries
from tests.faults.fault_share import SharingLoader
from tests.faults.fault_signs import random_moments
from tests.faults.fault_world import World, fault_world

if TYPE_CHECKING:
    from tests.postgres_support import Postgres

pytest_plugins = ["tests.postgres_support"]


@contextmanager
def shared_world(
    folder: Path, server: Postgres, name: str, *, seed: int, rows: int, chunk_rows: int
) -> Iterator[tuple[World, SharingLoader]]:
    """A world whose loader is several processes."""
    make_loader = partial(SharingLoader, audit_url=server.plan_url(name))
    with fault_world(folder, seed=seed, rows=rows, chunk_rows=chunk_rows, make_loader=make_loader) as world:
        yield world, cast(SharingLoader, world.loader)


def chunks_by_runner(loader: SharingLoader) -> dict[int, int]:
    return {int(fence): count for fence, count in loader.audit("SELECT claim, count(*) FROM chunk GROUP BY claim")}


def test_two_share_and_one_is_killed_in_the_middle(postgres: Postgres, database: str, tmp_path: Path) -> None:
    """Goal: issue 3's promise for two runners. Method: kill -9 one while both have chunks, ask the org at the end."""
    with shared_world(tmp_path, postgres, database, seed=71, rows=6_000, chunk_rows=300) as (world, loader):
        first, second = loader.begin_and_join()
        assert loader.wait_until(
            lambda: loader.progress() >= 0.3 and open_chunks(loader, fence=1) >= 1, "both are in the middle"
        )
        first.kill()
        assert loader.end_of(second) == 1, "rows are refused, so the exit code is 1"
        by_runner = chunks_by_runner(loader)
        assert by_runner.keys() == {1, 2}
        assert min(by_runner.values()) > 1, "both had their part"
        taken = journal_entries(loader, "chunk_taken_over")
        assert taken
        assert {entry["from_fence"] for entry in taken} == {1}
        assert [entry["fence"] for entry in journal_entries(loader, "lease_lost")] == [1]
        world.check_end()


@pytest.mark.slow
def test_a_frozen_one_wakes_up_and_does_no_harm(postgres: Postgres, database: str, tmp_path: Path) -> None:
    """Method: SIGSTOP until the other has taken over and ended all, then SIGCONT: it finds out and ends with 3."""
    with shared_world(tmp_path, postgres, database, seed=72, rows=6_000, chunk_rows=300) as (world, loader):
        first, second = loader.begin_and_join()
        assert loader.wait_until(
            lambda: loader.progress() >= 0.3 and open_chunks(loader, fence=1) >= 1, "both are in the middle"
        )
        os.kill(first.pid, signal.SIGSTOP)
        assert loader.wait_until(lambda: bool(journal_entries(loader, "chunk_taken_over")), "its chunks are taken over")
        os.kill(first.pid, signal.SIGCONT)
        assert loader.end_of(first) == 3, "what it had is another's"
        assert "took it over" in loader.output() or "has taken it over" in loader.output()
        assert loader.end_of(second) == 1
        world.check_end()


def open_chunks(loader: SharingLoader, *, fence: int) -> int:
    """Chunks that a runner has and that are not settled."""
    found = loader.audit(f"SELECT count(*) FROM chunk WHERE claim = {fence} AND step <> 'settled'")
    return int(found[0][0]) if found else 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(81, 87))
def test_many_come_and_go(postgres: Postgres, database: str, tmp_path: Path, seed: int) -> None:
    """Three at a time; at each of eight random moments one is killed or frozen past its lease, and another joins."""
    with shared_world(tmp_path, postgres, database, seed=seed, rows=40_000, chunk_rows=1_000) as (world, loader):
        loader.begin_and_join(others=2)
        for number, moment in enumerate(random_moments(seed, 8)):
            if not moment.comes(loader):
                break
            alive = [process for process in loader.processes if process.poll() is None]
            victim = alive[(seed + number) % len(alive)]
            if number % 2:
                os.kill(victim.pid, signal.SIGSTOP)
                runners = len(journal_entries(loader, "lease_lost"))
                loader.wait_until(
                    lambda before=runners: (
                        len(journal_entries(loader, "lease_lost")) > before or len(loader.living()) < 2
                    ),
                    "it is written off",
                )
                os.kill(victim.pid, signal.SIGCONT)
            else:
                victim.kill()
                victim.wait()
            if loader.living():
                loader.launch("join")
        for process in loader.processes:
            process.wait()
        while loader.audit("SELECT state FROM batch") != [("done",)]:
            assert loader.end_of(loader.launch("resume")) in (1, 3)
        world.check_end()
