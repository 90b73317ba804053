"""Which batches `audit purge` takes: ages and their bounds, batches at work, and those whose process was killed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.integration.cli_migration import Migration
from tests.integration.project_migration import served_project
from tests.integration.test_backup import Clock

from forcelift.account.recorded import open_recorded, owner
from forcelift.errors import ExitCode, UsageError
from forcelift.handover.purging import PurgeAsked, parse_age, purge_batches

SAID = ("--execute", "--no-way-back", "--reason", "retention")


@pytest.fixture
def migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    with served_project(tmp_path, monkeypatch) as made:
        yield made


@pytest.mark.parametrize(
    "text", ["", "d", "-1d", "1.5d", "90", "90 d", "90D ", "3w", "12h", "999999d", "９０d", "1e3d"]
)
def test_an_age_is_a_whole_number_of_days(text: str) -> None:
    with pytest.raises(UsageError, match="is no number of days"):
        parse_age(text)


def test_an_age_may_be_nothing_and_centuries() -> None:
    assert (parse_age("0d"), parse_age(" 99999d ")) == (timedelta(0), timedelta(days=99_999))


def test_ages_count_from_a_batchs_end_and_one_at_work_is_left_out(migration: Migration) -> None:
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    with open_recorded(migration.plan) as (_, state):
        batch = state.audit.batch("first")
        assert batch is not None
        assert batch.ended_at is not None
        for late, taken in ((timedelta(days=30), ["first"]), (timedelta(days=30, microseconds=-1), [])):
            asked = PurgeAsked(older_than=timedelta(days=30))
            report = purge_batches(migration.plan, asked, clock=Clock(batch.ended_at + late))
            assert [item.batch_id for item in report.items] == taken
        with state.audit.lease("first", owner()):
            refused = migration.run("audit", "purge", "--batch", "first", *SAID)
            assert (refused.returncode, "is being worked on by" in refused.stderr) == (ExitCode.STATE, True)
            [item] = migration.document("audit", "purge", "--older-than", "0d", *SAID)["batches"]
            assert (item["done"], "is being worked on by" in item["why_not"]) == (False, True)
    assert migration.document("audit", "purge", "--older-than", "99999d")["batches"] == []
    assert migration.document("audit", "purge", "--older-than", "0d", *SAID)["batches"][0]["done"] is True


def test_a_batch_whose_process_was_killed_is_told_and_can_be_given_up(migration: Migration) -> None:
    """It has no end, and so no age: its personal data would stay for ever."""
    running = migration.start("run", "--batch", "dead")
    migration.wait_for_jobs("JobComplete", 1)
    running.kill()
    running.communicate()
    [item] = migration.document("audit", "purge", "--older-than", "0d", *SAID)["batches"]
    assert (item["done"], "was begun and never ended" in item["why_not"]) == (False, True)
    assert migration.document("audit", "verify")["is_whole"] is True
    assert migration.document("audit", "purge", "--batch", "dead", *SAID)["batches"][0]["done"] is True
    refused = migration.run("run", "--resume", "dead")
    assert (refused.returncode, "were purged at" in refused.stderr) == (ExitCode.STATE, True)
    assert migration.document("audit", "verify")["is_whole"] is True
