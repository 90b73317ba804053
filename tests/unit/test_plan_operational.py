"""Which settings a resume may change."""

from __future__ import annotations

import pytest

from forcelift.plan.operational import changes_of_meaning


@pytest.mark.parametrize(
    ("change", "is_meaning"),
    [
        ("limits.window: null -> 22:00-06:00 UTC", False),
        ("limits.memory_mb: 2048 -> 512", False),
        ("source.limits.rows_per_second: null -> 10", False),
        ("retention.staged_files: until_settled -> keep", False),
        ("thresholds.disk_usage_critical: (not there) -> 99", False),
        ("retention.record_data: masked -> full", True),
        ("source.url: sqlite:///a -> sqlite:///b", True),
        ("limitsx.a: 1 -> 2", True),
        ("tables.T.fields.limits: A__c -> B__c", True),
        ("chunks.rows: auto -> 10", True),
    ],
)
def test_how_may_change_and_what_may_not(change: str, is_meaning: bool) -> None:
    assert changes_of_meaning([change]) == ([change] if is_meaning else [])
