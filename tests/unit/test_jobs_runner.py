"""The runner: threads carry out commands, and whatever happens in them is answered."""

from __future__ import annotations

import random
import threading
from datetime import datetime, timedelta
from typing import Any

import pytest

from forcelift.audit.records import Control
from forcelift.jobs.board import EngineSettings
from forcelift.jobs.coordinator import Coordinator
from forcelift.jobs.governor import Governor
from forcelift.jobs.holds import DiskSeen
from forcelift.jobs.messages import CheckTable, PlanTable, SkipChunks, TablePlanned
from forcelift.jobs.runner import Runner
from forcelift.jobs.tracks import TableSpec
from forcelift.protocols.clock import SystemClock

SPEC = TableSpec(name="T", object="T__c", operation="upsert", external_id_field="K__c", group=0)


class LibraryPanic(BaseException):
    """As native libraries raise: no `Exception`."""


def run(plan_table: Any) -> Coordinator:
    governor = Governor(jobs_max=1, api_calls_reserve=0, rng=random.Random(1))
    coordinator = Coordinator([SPEC], settings=EngineSettings(dry_run=True), governor=governor)
    runner = Runner(
        coordinator,
        {PlanTable: plan_table, SkipChunks: lambda command: 0},
        clock=SystemClock(),
        control=Control,
        api_requests_left=lambda: None,
        on_progress=lambda coordinator: None,
        readers=1,
        senders=1,
    )
    runner.run()
    return coordinator


def test_a_table_without_chunks_left_ends_the_run() -> None:
    coordinator = run(lambda command: TablePlanned(chunks=()))
    assert coordinator.is_complete
    assert coordinator.errors == ()


@pytest.mark.parametrize("fault", [ValueError("x"), LibraryPanic("x")])
def test_whatever_a_handler_raises_ends_the_run_with_an_error(fault: BaseException) -> None:
    def plan_table(command: PlanTable) -> TablePlanned:
        raise fault

    coordinator = run(plan_table)
    [error] = coordinator.errors
    assert error is fault or error.__cause__ is fault
    assert not coordinator.is_complete


class LeapingClock(SystemClock):
    """A machine that sleeps: the wall clock goes on and the monotonic one does not."""

    def __init__(self) -> None:
        self.slept = timedelta()

    def now(self) -> datetime:
        return super().now() + self.slept


def test_time_that_the_machine_slept_counts_and_a_clock_set_back_does_not() -> None:
    clock = LeapingClock()
    governor = Governor(jobs_max=1, api_calls_reserve=0, rng=random.Random(1))
    coordinator = Coordinator([SPEC], settings=EngineSettings(dry_run=True), governor=governor)
    runner = Runner(
        coordinator,
        {PlanTable: lambda command: TablePlanned(chunks=())},
        clock=clock,
        control=Control,
        api_requests_left=lambda: None,
        on_progress=lambda coordinator: None,
        readers=1,
        senders=1,
    )
    runner.run()
    before = runner._now()
    clock.slept = timedelta(hours=50)
    assert runner._now() - before > timedelta(hours=40)
    clock.slept = timedelta()
    assert runner._now() - before > timedelta(hours=40)


def test_the_disk_is_looked_at_before_anything_begins() -> None:
    order: list[str] = []

    def plan_table(command: PlanTable) -> TablePlanned:
        order.append("planned")
        return TablePlanned(chunks=())

    looks = [99.0, 50.0]

    def disk() -> DiskSeen:
        order.append("looked")
        used = looks.pop(0) if len(looks) > 1 else looks[0]
        return DiskSeen(total=100, free=round(100 - used))

    governor = Governor(jobs_max=1, api_calls_reserve=0, rng=random.Random(1))
    settings = EngineSettings(dry_run=True, disk_critical=95.0)
    coordinator = Coordinator([SPEC], settings=settings, governor=governor)
    Runner(
        coordinator,
        {PlanTable: plan_table},
        clock=SystemClock(),
        control=Control,
        api_requests_left=lambda: None,
        on_progress=lambda coordinator: None,
        readers=1,
        senders=1,
        disk=disk,
    ).run()
    assert order[:3] == ["looked", "looked", "planned"]
    assert coordinator.is_complete


def test_a_wish_asked_before_is_heard_before_anything_begins() -> None:
    """As of a paused batch that another process joins: it is let go at the third look."""
    order: list[str] = []

    def plan_table(command: PlanTable) -> TablePlanned:
        order.append("planned")
        return TablePlanned(chunks=())

    def control() -> Control:
        order.append("asked")
        return Control(paused=len(order) < 3, by="op")

    governor = Governor(jobs_max=1, api_calls_reserve=0, rng=random.Random(1))
    coordinator = Coordinator([SPEC], settings=EngineSettings(dry_run=True), governor=governor)
    Runner(
        coordinator,
        {PlanTable: plan_table},
        clock=SystemClock(),
        control=control,
        api_requests_left=lambda: None,
        on_progress=lambda coordinator: None,
        readers=1,
        senders=1,
    ).run()
    assert order[:4] == ["asked", "asked", "asked", "planned"]
    assert coordinator.is_complete


def new_runner(handlers: Any, *, holders: int) -> Runner:
    governor = Governor(jobs_max=1, api_calls_reserve=0, rng=random.Random(1))
    return Runner(
        Coordinator([SPEC], settings=EngineSettings(dry_run=True), governor=governor),
        handlers,
        clock=SystemClock(),
        control=Control,
        api_requests_left=lambda: None,
        on_progress=lambda coordinator: None,
        readers=2,
        joiners=2,
        holders=holders,
        senders=1,
    )


def test_no_more_are_at_work_with_rows_than_may_be() -> None:
    began, leave, done = threading.Semaphore(0), threading.Semaphore(0), threading.Semaphore(0)
    at_work: list[str] = []
    seen: list[int] = []

    def work(command: PlanTable | CheckTable) -> None:
        at_work.append(command.table)
        seen.append(len(at_work))
        began.release()
        assert leave.acquire(timeout=60)
        at_work.remove(command.table)
        done.release()
        raise ValueError(command.table)

    runner = new_runner({PlanTable: work, CheckTable: work}, holders=3)
    runner._start([PlanTable(table="A"), CheckTable(table="B"), PlanTable(table="C"), CheckTable(table="D")])
    for _ in range(3):
        assert began.acquire(timeout=60)
    assert len(at_work) == 3
    leave.release()  # one goes with an error, and the fourth has its place
    assert done.acquire(timeout=60)
    assert began.acquire(timeout=60)
    leave.release(3)
    for _ in range(3):
        assert done.acquire(timeout=60)
    assert max(seen) == 3


def test_readers_and_joiners_cannot_keep_each_other_out() -> None:
    with pytest.raises(ValueError, match="keep the others out"):
        new_runner({}, holders=2)
