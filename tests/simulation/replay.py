"""Replay one schedule in a process of its own."""

from __future__ import annotations

import shutil
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.shared import shared_simulated
from tests.simulation.world import simulated


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one schedule showed; `fault` is None if the promises held."""

    seed: int
    crashes: int = 0
    stops: int = 0
    jobs: int = 0
    takeovers: int = 0
    fault: str | None = None


def replay_shared(seed: int) -> Outcome:
    """Run one schedule of several runners on one batch."""
    folder = Path(tempfile.mkdtemp(prefix="forcelift-simulation-"))
    try:
        with shared_simulated(seed, folder) as simulation:
            simulation.run()
        return Outcome(
            seed=seed,
            crashes=simulation.crashes + simulation.freezes,
            stops=simulation.stops,
            jobs=len(simulation.org.jobs),
            takeovers=simulation.takeovers,
        )
    except Exception:  # noqa: BLE001 - every kind of failure is a finding, and the other seeds go on
        return Outcome(seed=seed, fault=traceback.format_exc())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replay(seed: int) -> Outcome:
    """Run one schedule."""
    folder = Path(tempfile.mkdtemp(prefix="forcelift-simulation-"))
    try:
        with simulated(seed, folder) as simulation:
            simulation.run()
        return Outcome(seed=seed, crashes=simulation.crashes, stops=simulation.stops, jobs=len(simulation.org.jobs))
    except Exception:  # noqa: BLE001 - every kind of failure is a finding, and the other seeds go on
        return Outcome(seed=seed, fault=traceback.format_exc())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
