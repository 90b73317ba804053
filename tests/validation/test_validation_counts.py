"""Level 1 on an object that is too large to be counted at once: slices are halved until the org answers."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from tests.validation.little_world import LittleWorld, checks_of, little_world

from forcelift.errors import ExitCode
from forcelift.twin.clock import ManualClock

EARLIER, OURS, LATER = 30, 20, 13
START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
MADE = "records made and records in the org"
MET = "records updated and earlier records in the org"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LittleWorld]:
    """Records of years before the batch, which updates a third of them; its own; others since, hour by hour."""
    folder = tmp_path_factory.mktemp("counts")
    clock = ManualClock(START - timedelta(days=900))
    with closing(sqlite3.connect(folder / "source.db")) as source:
        source.execute("CREATE TABLE things (code TEXT PRIMARY KEY, text TEXT, amount NUMERIC)")
        rows = [(f"K{number:04d}", f"text {number}", number) for number in range(EARLIER - 10, EARLIER + OURS)]
        source.executemany("INSERT INTO things VALUES (?, ?, ?)", rows)
        source.commit()
    with little_world(folder, clock=clock) as made:
        for number in range(EARLIER):
            made.create({"Key__c": f"K{number:04d}", "Name": "earlier"})
            clock.advance(timedelta(days=29))
        made.write_plan(f"sqlite:///{folder}/source.db")
        made.run()
        clock.advance(timedelta(hours=1))
        for number in range(LATER):
            made.create({"Key__c": f"X{number:04d}", "Name": "later"})
            clock.advance(timedelta(hours=5))
        yield made


@pytest.fixture
def world(loaded: LittleWorld) -> Iterator[LittleWorld]:
    """With no fault armed before, and none after."""
    yield loaded
    loaded.server.app.desk.clear()


@pytest.mark.parametrize("rows_max", [1_000, 30, 20])
def test_slices_are_halved_until_the_org_answers_and_add_up_to_the_same(world: LittleWorld, rows_max: int) -> None:
    world.arm(f"query-rows={rows_max}")
    screen = world.validate("--level", "1")
    assert screen.code == ExitCode.ROWS_REFUSED, screen.err
    (made,) = checks_of(screen, 1, MADE)
    assert (made["source"], made["target"], made["difference"]) == (str(OURS), str(OURS + LATER), str(LATER))
    (met,) = checks_of(screen, 1, MET)
    assert (met["source"], met["target"], met["status"]) == ("10", str(EARLIER), "passed")
    slices = int(made["reason"].split("counted in ")[1].split()[0])
    # Whatever the number of slices, none had more records than the org counts.
    assert slices >= (OURS + LATER) / rows_max + EARLIER / rows_max
    assert (slices == 2) == (rows_max == 1_000)


def test_a_moment_with_more_records_than_the_org_counts_ends_with_5(world: LittleWorld) -> None:
    """All records of the batch were made in one second, so that no halving can make them fewer."""
    world.arm(f"query-rows={OURS - 1}")
    screen = world.validate("--level", "1")
    assert screen.code == ExitCode.TARGET
    assert "QUERY_TIMEOUT" in screen.err


def test_other_refusals_are_not_halved(world: LittleWorld) -> None:
    """A used-up quota is told at once: halving would only ask more."""
    world.arm("request-limit=1000")
    screen = world.validate("--level", "1")
    assert screen.code == ExitCode.TARGET
    assert "REQUEST_LIMIT_EXCEEDED" in screen.err
    faults = world.server.app.desk.as_json()
    assert sum(one["struck"] for one in faults if one.get("struck")) < 10
