"""How `limits.memory_mb` is divided."""

from __future__ import annotations

import pytest

from forcelift.opening.bounds import MemoryShares


@pytest.mark.parametrize("memory_mb", [64, 256, 512, 1024, 2048, 8192])
def test_somebody_reads_and_somebody_joins_however_little_there_is(memory_mb: int) -> None:
    shares = MemoryShares.of(memory_mb, senders=8)
    assert shares.readers_max >= 1
    assert 1 <= shares.joiners <= 8
    assert shares.turns >= 1
    assert shares.batch_rows >= 10_000


def test_two_chunks_are_read_at_once_with_half_a_gigabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forcelift.opening.bounds.cores", lambda: 4)
    small, large = MemoryShares.of(512, senders=8), MemoryShares.of(4096, senders=8)
    assert (small.readers_max, small.turns, small.joiners) == (2, 2, 1)
    assert (large.turns, large.joiners) == (4, 4)
    assert large.batch_rows > small.batch_rows
    assert large.room_mb > small.room_mb


@pytest.mark.parametrize("memory_mb", [512, 768, 1024, 1536, 2048, 8192])
def test_the_parts_are_no_more_than_the_whole(monkeypatch: pytest.MonkeyPatch, memory_mb: int) -> None:
    monkeypatch.setattr("forcelift.opening.bounds.cores", lambda: 16)
    shares = MemoryShares.of(memory_mb, senders=8)
    readers = shares.turns * (45 + 1.6 * shares.batch_rows / 1000)
    assert 224 + shares.source_mb + readers + shares.room_mb <= memory_mb + 1
    assert shares.joiners * 60 <= shares.room_mb


@pytest.mark.parametrize("cores", [1, 2, 4, 16])
@pytest.mark.parametrize("memory_mb", [256, 512, 2048, 8192])
def test_neither_readers_nor_joiners_keep_the_others_out(
    monkeypatch: pytest.MonkeyPatch, memory_mb: int, cores: int
) -> None:
    monkeypatch.setattr("forcelift.opening.bounds.cores", lambda: cores)
    shares = MemoryShares.of(memory_mb, senders=8)
    for readers in range(1, 1 + min(4, cores, shares.readers_max)):
        holders = shares.holders(readers)
        assert max(readers, shares.joiners) < holders <= readers + shares.joiners


def test_two_cores_never_read_two_chunks_while_two_jobs_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forcelift.opening.bounds.cores", lambda: 2)
    shares = MemoryShares.of(2048, senders=8)
    assert (shares.joiners, shares.holders(2)) == (2, 3)
