"""The runner: threads carry out commands, and whatever happens in them is answered."""

from __future__ import annotations

import random
from typing import Any

import pytest

from forcelift.audit.records import Control
from forcelift.jobs.board import EngineSettings
from forcelift.jobs.coordinator import Coordinator
from forcelift.jobs.governor import Governor
from forcelift.jobs.messages import PlanTable, SkipChunks, TablePlanned
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
