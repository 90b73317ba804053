"""Random moments, chosen by what a watcher sees and never by the clock."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.faults.fault_loader import LoaderProcess

SIGNS = ("requests", "creates", "uploads", "closes", "results", "journal", "files")
LAST_MOMENT = 0.75
"""Later than that a batch may end before the sign has come."""
REQUESTS_MAX = 15
PROGRESS_MAX = 0.06


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When `sign` has been seen `times` times after the batch had come to `progress`."""

    progress: float
    sign: str
    times: int

    def wait(self, loader: LoaderProcess) -> None:
        """Wait for it; where the sign does not come, until enough else has happened."""
        assert self.comes(loader), "the loader ended before the moment came"

    def comes(self, loader: LoaderProcess) -> bool:
        """Wait for it; False if the loader ended before."""
        if not loader.wait_until(lambda: loader.progress() >= self.progress, f"progress {self.progress:.2f}"):
            return False
        before, requests, began_at = loader.count(self.sign), loader.count("requests"), loader.progress()

        def is_here() -> bool:
            return (
                abs(loader.count(self.sign) - before) >= self.times
                or loader.count("requests") - requests >= REQUESTS_MAX
                or loader.progress() - began_at >= PROGRESS_MAX
            )

        return loader.wait_until(is_here, f"{self.times} of {self.sign}")


def random_moments(seed: int, count: int) -> Iterator[Moment]:
    """Moments over the whole of a batch, in order; some lie before its tables are cut into chunks."""
    rng = random.Random(seed)
    for progress in sorted(rng.uniform(-0.1, LAST_MOMENT) for _ in range(count)):
        yield Moment(progress=progress, sign=rng.choice(SIGNS), times=rng.randint(1, 4))
