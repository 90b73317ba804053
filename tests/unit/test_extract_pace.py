"""How fast rows are read: one allowance for all readers, and a switch that ends their reads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from forcelift.during.extract.pace import PIECE_S, Pace
from forcelift.during.extract.room import refuse_without_room
from forcelift.errors import ReadingStopped, StateConflict
from forcelift.storage import Disk


class HandClock:
    """Time that sleeping moves."""

    def __init__(self) -> None:
        self.seconds, self.slept = 1000.0, [0.0]

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


def batches(*rows: int) -> Iterator[pa.RecordBatch]:
    for count in rows:
        yield pa.record_batch({"a": list(range(count))})


def test_rows_come_no_faster_than_allowed_over_all_readers() -> None:
    clock = HandClock()
    pace = Pace(clock=clock, rows_per_second=100)
    readers = [pace.through(batches(50, 50, 50, 50)) for _ in range(3)]
    rows = 0
    for _ in range(4):
        for reader in readers:
            rows += next(reader).num_rows
    for reader in readers:
        assert next(reader, None) is None
    assert rows == 600
    assert clock.seconds - 1000 == pytest.approx(6.0)
    assert max(clock.slept) <= PIECE_S


def test_processes_that_share_a_source_keep_to_its_limit_together() -> None:
    clock = HandClock()
    paces = [Pace(clock=clock, rows_per_second=100) for _ in range(2)]
    for pace in paces:
        pace.share(2)
    readers = [pace.through(batches(*[50] * 8)) for pace in paces]
    rows = sum(batch.num_rows for pair in zip(*readers, strict=True) for batch in pair)
    assert rows == 800
    assert clock.seconds - 1000 >= 7.0, "the first second's allowance is saved up"
    paces[0].share(1)
    began = clock.seconds
    assert sum(batch.num_rows for batch in paces[0].through(batches(100, 100, 100))) == 300
    assert clock.seconds - began == pytest.approx(3.0, abs=1.1), "the other has left"


def test_a_quiet_source_saves_up_a_second_and_no_more() -> None:
    clock = HandClock()
    pace = Pace(clock=clock, rows_per_second=100)
    clock.seconds += 3600
    began = clock.seconds
    assert sum(batch.num_rows for batch in pace.through(batches(100, 100))) == 200
    assert clock.seconds - began == pytest.approx(1.0)


def test_without_a_limit_nothing_waits() -> None:
    clock = HandClock()
    assert sum(batch.num_rows for batch in Pace(clock=clock).through(batches(10_000, 10_000))) == 20_000
    assert clock.seconds == 1000
    assert Pace(clock=clock).batch_rows(50_000) == 50_000
    assert Pace(clock=clock, rows_per_second=2_000).batch_rows(50_000) == 2_000
    assert Pace(clock=clock, rows_per_second=1).batch_rows(50_000) == 100


def test_a_stop_ends_a_read_between_two_batches_and_in_the_middle_of_a_wait() -> None:
    clock = HandClock()
    pace = Pace(clock=clock, rows_per_second=1)
    closed = []

    def source() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches(1000, 1000)
        finally:
            closed.append(True)

    reader = pace.through(source())
    next(reader)
    sleep = clock.sleep

    def sleep_and_stop(seconds: float) -> None:
        sleep(seconds)
        pace.stop(clock.seconds > 1005)

    clock.sleep = sleep_and_stop  # type: ignore[method-assign]  # the clock is this test's own
    with pytest.raises(ReadingStopped):
        next(reader)
    assert clock.seconds < 1006
    assert closed == [True], "the source's session is free at once"
    with pytest.raises(ReadingStopped):
        next(pace.through(batches(1)))
    pace.stop(False)
    assert next(pace.through(batches(1))).num_rows == 1


def test_extract_first_is_refused_where_even_half_of_it_does_not_fit() -> None:
    disk = Disk(total=1000, free=100)
    refuse_without_room(200, staging_bytes=100, disk=disk)
    with pytest.raises(StateConflict, match=r"limits\.staging_gb"):
        refuse_without_room(204, staging_bytes=101, disk=Disk(total=1000, free=1000))
    with pytest.raises(StateConflict, match="free space") as caught:
        refuse_without_room(204, staging_bytes=1000, disk=disk)
    assert "no batch was begun" in str(caught.value.state)
