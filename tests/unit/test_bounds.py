"""What the plan's limits mean for the engine."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from forcelift.audit.records import BatchMode
from forcelift.jobs.board import EngineSettings
from forcelift.opening.bounds import engine_settings
from forcelift.plan import load_plan

PLAN = """\
version: 1
project: P
source: {{url: "{url}", limits: {{sessions: {sessions}}}}}
target: {{url: "twin:./org.duckdb", twin_schema: s.yaml}}
retention: {{staged_files: {keep}}}
limits: {{window: ["Mon 01:00-02:00 UTC", "Tue 01:00-02:00 UTC"], staging_gb: 2}}
thresholds: {{disk_usage_critical: 97}}
tables:
  - {{table: T, object: A__c, key: ID, external_id: Ext__c, fields: {{A: Name}}}}
"""


def settings(folder: Path, *, url: str = "sqlite:///a.db", sessions: int = 8, keep: str = "keep") -> EngineSettings:
    file = folder / "forcelift.yaml"
    file.write_text(PLAN.format(url=url, sessions=sessions, keep=keep))
    return engine_settings(load_plan(file), mode=BatchMode.EXTRACT_FIRST)


@pytest.mark.parametrize(
    ("url", "sessions", "readers"),
    [("sqlite:///a.db", 1, 1), ("sqlite:///a.db", 2, 2), ("postgresql://h/d", 2, 1), ("postgresql://h/d", 3, 2)],
)
def test_readers_take_no_more_sessions_than_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, sessions: int, readers: int
) -> None:
    monkeypatch.setattr("forcelift.opening.bounds.cores", lambda: 8)
    assert settings(tmp_path, url=url, sessions=sessions).readers == readers


def test_hours_disk_and_retention_reach_the_engine(tmp_path: Path) -> None:
    one = settings(tmp_path)
    assert one.hours is not None
    assert one.hours.contains(datetime(2026, 3, 3, 1, 30, tzinfo=UTC))  # a Tuesday
    assert not one.hours.contains(datetime(2026, 3, 4, 1, 30, tzinfo=UTC))
    assert (one.disk_critical, one.staged_bytes_max, one.keeps_staged) == (97.0, 2_000_000_000, True)
    assert (one.extract_first, one.dry_run) == (True, False)
    assert not settings(tmp_path, keep="until_settled").keeps_staged
