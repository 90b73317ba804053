"""What a command is about: one batch, or the batches of a project that sent rows into one org."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from forcelift.audit.records import Batch, BatchMode, BatchState
from forcelift.audit.scope import Scope, batch_scope, project_scope

BEGAN = datetime(2026, 1, 31, tzinfo=UTC)


def batch(number: int, *, mode: BatchMode = BatchMode.RUN, org_id: str = "00D000000000001AAA") -> Batch:
    return Batch(
        batch_id=f"b{number}",
        project="KPC",
        mode=mode,
        state=BatchState.DONE,
        org_id=org_id,
        org_url="https://example.my.salesforce.com",
        source_url="sqlite:///shop.db",
        as_of=BEGAN,
        snapshot=None,
        plan_sha256="0" * 64,
        plan_revision=1,
        created_by="tester",
        started_at=BEGAN + timedelta(hours=number),
    )


def test_one_batch_is_a_scope_whatever_it_did() -> None:
    dry = batch(1, mode=BatchMode.DRY_RUN)
    scope = batch_scope(dry)
    assert (scope.batches, scope.is_project, scope.name) == ((dry,), False, "batch `b1`")


def test_a_project_leaves_out_what_sent_nothing_and_what_went_into_another_org() -> None:
    first, dry, sandbox, last = (
        batch(1),
        batch(2, mode=BatchMode.DRY_RUN),
        batch(3, org_id="00D000000000002AAA"),
        batch(4, mode=BatchMode.EXTRACT_FIRST),
    )
    scope = project_scope([first, dry, sandbox, last])
    assert scope is not None
    assert scope.batch_ids == ("b1", "b4")
    assert scope.other_orgs == (sandbox,)
    assert scope.newest is last
    assert (scope.project, scope.org_id, scope.name) == ("KPC", last.org_id, "project `KPC`")


def test_the_org_of_a_project_is_the_one_of_its_newest_load() -> None:
    scope = project_scope([batch(1), batch(2, org_id="00D000000000002AAA")])
    assert scope is not None
    assert scope.batch_ids == ("b2",)


def test_dry_runs_alone_are_no_project() -> None:
    assert project_scope([batch(1, mode=BatchMode.DRY_RUN)]) is None
    assert project_scope([]) is None


def test_a_scope_is_never_empty() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        Scope(batches=(), is_project=True)
