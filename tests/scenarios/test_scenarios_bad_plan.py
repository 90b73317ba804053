"""Plans that cannot be carried out: each is told on one screen, and nothing is begun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tests.scenarios.scenario_support import SCENARIOS, assert_clear_error, copy_case, make_sqlite

CASE = "bad_plan"
CASES: list[dict[str, Any]] = YAML(typ="safe").load((SCENARIOS / CASE / "cases.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_bad_plan_is_refused(case: dict[str, Any], tmp_path: Path) -> None:
    project = copy_case(CASE, tmp_path)
    make_sqlite(project, (tmp_path / "source.sql").read_text(encoding="utf-8"))
    project.change_plan(case["change"])
    says = list(case["says"])
    if "line" in case:
        before, found, _ = project.plan.read_text(encoding="utf-8").partition(case["line"])
        assert found, f"`{case['line']}` is not in the plan"
        says.append(f"line {before.count(chr(10)) + 1}")
    screen = project.run()
    assert_clear_error(screen, code=case.get("exit", 2), says=says)
    if "hides" in case:
        assert case["hides"] not in screen.out + screen.err
    assert project.traces() == (0, 0)
    assert project.batches() == []
    assert not list(project.state.rglob("*.parquet"))
