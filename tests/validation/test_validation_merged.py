"""Rows that were merged from several copies are compared like all others: the plan's own merge is made once more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from tests.scenarios.scenario_support import Screen
from tests.validation.little_world import LittleWorld, checks_of, little_world

from forcelift.errors import ExitCode

ROWS, KEYS = 200, 80
FIELDS = "{amount: {field: Amount__c, merge: sum}, text: {field: Text__c, merge: longest, personal: false}, at: At__c}"
CHECKS = "[{name: amounts of texts, sum: amount, by: text, tolerance: '0'}]"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LittleWorld]:
    """80 keys in 200 rows over four chunks, so that no key's copies lie in one chunk alone."""
    with closing(duckdb.connect(str(tmp_path / "source.duckdb"))) as source:
        source.execute(
            f"CREATE TABLE things AS SELECT 'k' || (i % {KEYS}) AS code, (i * 1.5)::DECIMAL(12, 2) AS amount,"
            " repeat('n', (i % 7)::INT + 1) AS text, TIMESTAMP '2024-01-01' + i * INTERVAL 1 HOUR AS at"
            f" FROM range({ROWS}) AS r(i)"
        )
    with little_world(tmp_path) as made:
        made.write_plan(
            f"duckdb:///{tmp_path}/source.duckdb",
            fields=FIELDS,
            checks=CHECKS,
            rules="{changed_at: at, duplicates: merge}".strip("{}").replace(", ", "\n    "),
            more=", timezone: UTC",
        )
        yield made


def statuses(screen: Screen) -> dict[tuple[int, str], str]:
    return {(one["level"], one["check"]): one["status"] for one in screen.document["checks"]}


def test_merged_rows_are_compared_on_all_levels(world: LittleWorld) -> None:
    world.run()
    screen = world.validate("--levels", "all", "--sample", "1000")
    assert screen.code == ExitCode.DONE, screen.out
    found = statuses(screen)
    assert set(found.values()) == {"passed"}
    (total,) = checks_of(screen, 2, "sum of Amount__c")
    assert Decimal(total["source"]) == sum(number * Decimal("1.5") for number in range(ROWS))
    (sampled,) = checks_of(screen, 3)
    assert sampled["source"] == str(KEYS)
    # A cent at a record that was merged of three copies: level 2 tolerates it, all others say what was sent.
    world.change("k3", {"Amount__c": 373.51})
    damaged = world.validate("--levels", "2-5", "--sample", "1000")
    assert damaged.code == ExitCode.ROWS_REFUSED
    assert [level for level in (3, 4, 5) if any(one["status"] == "failed" for one in checks_of(damaged, level))] == [
        3,
        4,
        5,
    ]
    (named,) = checks_of(damaged, 5, "records")[0]["examples"]
    assert (named["key"], named["field"], named["source"], named["target"]) == ("k3", "Amount__c", "373.5", "373.51")


def test_a_copy_changed_since_is_drift(world: LittleWorld) -> None:
    world.run()
    with closing(duckdb.connect(str(world.folder / "source.duckdb"))) as source:
        source.execute("UPDATE things SET amount = amount + 1 WHERE code = 'k3' AND amount = 4.5")
        source.execute("DELETE FROM things WHERE code = 'k4' AND amount > 100")
    screen = world.validate("--levels", "2,4,5")
    assert screen.code == ExitCode.DONE, screen.out
    for level in (2, 4):
        (drift,) = checks_of(screen, level, "rows changed in the source since")
        assert (drift["source"], drift["status"]) == ("2", "drift")
    assert checks_of(screen, 5, "records")[0]["status"] == "passed"


def test_a_sample_s_merged_rows_are_left_to_level_5(world: LittleWorld) -> None:
    """A sample's chunks share slices of the source, so that copies would be met several times: it is said."""
    world.run("--sample-percent", "50")
    screen = world.validate("--levels", "2,3,5", "--sample", "1000")
    assert screen.code == ExitCode.DONE, screen.out
    (drift,) = checks_of(screen, 2, "rows changed in the source since")
    assert "merged from several copies, which a sample's are not again; level 5 compares these too" in drift["reason"]
    assert "merged from several copies" in checks_of(screen, 3)[0]["reason"]
    assert checks_of(screen, 5, "records")[0]["status"] == "passed"
