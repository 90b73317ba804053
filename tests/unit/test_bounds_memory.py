"""How `limits.memory_mb` is divided."""

from __future__ import annotations

import pytest

from forcelift.bounds import MemoryShares


@pytest.mark.parametrize("memory_mb", [64, 256, 512, 1024, 2048, 8192])
def test_somebody_reads_and_somebody_joins_however_little_there_is(memory_mb: int) -> None:
    shares = MemoryShares.of(memory_mb, senders=8)
    assert shares.readers_max >= 1
    assert 1 <= shares.joiners <= 8
    assert shares.batch_rows >= 10_000


def test_more_memory_lets_more_work_at_once() -> None:
    small, large = MemoryShares.of(512, senders=8), MemoryShares.of(4096, senders=8)
    assert (small.readers_max, small.joiners) == (1, 1)
    assert large.readers_max >= 4
    assert large.joiners > small.joiners
    assert large.source_mb > small.source_mb
