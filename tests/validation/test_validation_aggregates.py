"""Level 2 where totals are negative, zero or missing, over numbers, dates and instants, and close to the tolerance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import duckdb
import pytest
from tests.scenarios.scenario_support import Screen
from tests.validation.little_world import LittleWorld, checks_of, little_world

from forcelift.errors import ExitCode

FIELDS: dict[str, dict[str, Any]] = {
    "Name": {"type": "string", "length": 80},
    "Key__c": {"type": "string", "length": 40, "externalId": True},
    **{f"{name}__c": {"type": "currency", "precision": 18, "scale": 2} for name in ("Minus", "Zero", "Void", "Big")},
    "Share__c": {"type": "percent", "precision": 9, "scale": 4},
    "Day__c": {"type": "date"},
    "Never__c": {"type": "date"},
    "At__c": {"type": "datetime"},
}
MAP = (
    "{minus: {field: Minus__c, negative: keep}, zero: {field: Zero__c, negative: keep}, void: Void__c, big: Big__c,"
    " share: Share__c, day: Day__c, never: Never__c, at_: At__c}"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LittleWorld]:
    """100 rows: a total of -10,000, one of 0 out of both signs, two columns without any value, and a very large one."""
    folder = tmp_path_factory.mktemp("aggregates")
    with closing(duckdb.connect(str(folder / "source.duckdb"))) as source:
        source.execute(
            "CREATE TABLE things AS SELECT 'K' || i AS code, -100.00::DECIMAL(18, 2) AS minus,"
            " (CASE WHEN i % 2 = 0 THEN 5 ELSE -5 END)::DECIMAL(18, 2) AS zero, NULL::DECIMAL(18, 2) AS void,"
            " 9999999999999.25::DECIMAL(18, 2) AS big, (i * 0.0001)::DECIMAL(9, 4) AS share,"
            " DATE '2024-02-28' + (i % 3)::INT AS day, NULL::DATE AS never,"
            " TIMESTAMP '2024-12-31 23:30:00' + i * INTERVAL 1 SECOND AS at_ FROM range(100) AS r(i)"
        )
    with little_world(folder, schema={"objects": {"Thing__c": {"fields": FIELDS}}}) as made:
        made.write_plan(f"duckdb:///{folder}/source.duckdb", fields=MAP, more=", timezone: Asia/Bangkok")
        made.run()
        yield made


def found(screen: Screen) -> dict[str, tuple[str, str | None, str | None]]:
    return {one["check"]: (one["status"], one["source"], one["target"]) for one in checks_of(screen, 2)}


def test_every_number_and_date_field_has_its_figures(world: LittleWorld) -> None:
    checks = found(world.validate("--level", "2"))
    numbers, days = ("Minus", "Zero", "Void", "Big", "Share"), ("Day", "Never", "At")
    assert set(checks) == {
        *(f"{figure} {name}__c" for name in numbers for figure in ("sum of", "average of", "smallest", "largest")),
        *(f"{figure} {name}__c" for name in days for figure in ("earliest", "latest")),
        *(f"values of {name}__c" for name in (*numbers, *days)),
    }
    assert {status for status, _, _ in checks.values()} == {"passed"}
    figures = {name: source for name, (_, source, _) in checks.items()}
    assert figures["sum of Minus__c"] == "-10000"
    assert figures["average of Minus__c"] == "-100"
    assert figures["sum of Zero__c"] == figures["average of Zero__c"] == "0"
    assert (figures["sum of Void__c"], figures["average of Void__c"], figures["values of Void__c"]) == (None, None, "0")
    # More digits than a binary double holds.
    assert figures["sum of Big__c"] == "999999999999925"
    assert figures["sum of Share__c"] == "0.495"
    assert (figures["earliest Day__c"], figures["latest Day__c"]) == ("2024-02-28", "2024-03-01")
    assert (figures["earliest Never__c"], figures["values of Never__c"]) == (None, "0")
    assert (figures["earliest At__c"], figures["latest At__c"]) == ("2024-12-31T16:30:00Z", "2024-12-31T16:31:39Z")


@pytest.mark.parametrize(
    ("values", "tolerance", "failed"),
    [
        # -10,000: one less is 0.01 %, which is not under it; a cent less than one is.
        ({"Minus__c": -101}, "0.01", {"sum of", "average of", "smallest"}),
        ({"Minus__c": -99.01}, "0.01", {"largest"}),
        ({"Minus__c": -99.01}, "0.005", {"sum of", "average of", "largest"}),
        # A total of 0 has no percentage: any other total is a difference, however large the tolerance.
        ({"Zero__c": 5.01}, "50", {"sum of", "average of", "largest"}),
        # 0 is a value; no value is not 0.
        ({"Void__c": 0}, "50", {"sum of", "average of", "smallest", "largest", "values of"}),
        ({"Day__c": None}, "0.01", {"values of"}),
        ({"Never__c": "1999-12-31"}, "0.01", {"earliest", "latest", "values of"}),
        ({"At__c": "2024-12-31T16:29:59.000+0000"}, "0.01", {"earliest"}),
    ],
)
def test_what_differs_and_what_is_near(
    world: LittleWorld, values: dict[str, Any], tolerance: str, failed: set[str]
) -> None:
    (name,) = values
    before = world.query(f"SELECT {name} FROM Thing__c WHERE Key__c = 'K0'")[0][name]
    world.change("K0", values)
    try:
        screen = world.validate("--level", "2", "--tolerance", tolerance)
    finally:
        world.change("K0", {name: before})
    assert screen.code == (ExitCode.ROWS_REFUSED if failed else ExitCode.DONE)
    wrong = {check for check, (status, _, _) in found(screen).items() if status == "failed"}
    assert wrong == {f"{figure} {name}" for figure in failed}
