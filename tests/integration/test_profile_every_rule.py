"""`profile` counts what a run counts: each rule of the plan in a small table, in several sources and slices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios.scenario_support import Project
from tests.scenarios.test_scenarios_every_rule import EXPECT, make_project

from forcelift.before.profile import Action, Profile
from forcelift.preflight.profiling import ProfileSettings, profile_plan
from forcelift.rules.gates import QUIET_CHANGES

pytest_plugins = ["tests.postgres_support"]


def counted(profile: Profile) -> dict[str, dict[str, int]]:
    """Changes and warnings by table, as `run --json` names them."""
    return {
        table.table: {
            f"{'warn_' if one.action in (Action.WARNED, Action.KEPT) else ''}{one.kind}:{one.column}": one.rows
            for one in table.findings
            if one.action in (Action.CHANGED, Action.WARNED)
        }
        for table in profile.tables
    }


def expected_changes(table: dict[str, Any]) -> dict[str, int]:
    changes: dict[str, int] = {}
    for name, rows in table.get("changes", {}).items():
        rule = name.partition(":")[0]
        if rule not in QUIET_CHANGES:
            changes[name] = rows
    return changes


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("csv", 17),
        pytest.param("sqlite", None, marks=pytest.mark.slow),
        pytest.param("postgresql", 24, marks=pytest.mark.slow),
        pytest.param("duckdb", 5, marks=pytest.mark.slow),
    ],
)
def test_it_counts_what_a_run_counts(
    kind: str, rows: int | None, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    project: Project = make_project(tmp_path, kind, request)
    if rows is not None:
        project.change_plan({"project: every rule\n": f"project: every rule\nchunks: {{rows: {rows}}}\n"})
    profile = profile_plan(project.plan, ProfileSettings())
    for table in profile.tables:
        wanted = EXPECT[table.table]
        codes: dict[str, int] = {}
        for _, code in wanted.get("rejected", ()):
            codes[f"REJECTED_{code}"] = codes.get(f"REJECTED_{code}", 0) + 1
        assert dict(table.rejected_by) == codes, table.table
        failed = [code for _, code in wanted.get("failed", ())]
        # What the org itself refuses is beyond a profile.
        assert table.failed == sum(code.startswith("REJECTED_") for code in failed)
        assert table.dropped == len(wanted.get("duplicate", ()))
        assert table.to_send == len(wanted["created"]) + len(failed)
        decided = sum(one.decides for one in table.findings if one.action is Action.REJECTED)
        assert decided == table.rejected
    assert counted(profile) == {name: expected_changes(table) for name, table in EXPECT.items()}
    json.dumps(profile.document())
