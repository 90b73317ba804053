"""Which open job in the org is ours: everything must fit, and nothing else may."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace
from tests.stray_support import AT, INTENT, OURS

from forcelift.audit.records import Job
from forcelift.jobs.stray import judge_strays
from forcelift.protocols.org import IngestJob, JobState


def judge(
    *listed: IngestJob, known: frozenset[str] = frozenset(), intents: tuple[Job, ...] = (INTENT,)
) -> tuple[str | None, int]:
    verdict = judge_strays(
        INTENT, listed=listed, known_ids=known, open_intents=intents, user_id="005A", api_version="66.0"
    )
    return (verdict.ours.id if verdict.ours else None), len(verdict.doubtful)


def test_the_sole_fitting_job_is_ours() -> None:
    assert judge(OURS) == (OURS.id, 0)


def test_two_that_fit_are_both_left_alone() -> None:
    assert judge(OURS, replace(OURS, id="750000000000002AAA")) == (None, 2)


@pytest.mark.parametrize(
    "other",
    [
        replace(OURS, created_by_id="005B"),
        replace(OURS, object="Tenant__c"),
        replace(OURS, operation="insert"),
        replace(OURS, external_id_field="Other__c"),
        replace(OURS, api_version=65.0),
        replace(OURS, state=JobState.UPLOAD_COMPLETE),
        replace(OURS, state=JobState.ABORTED),
        replace(OURS, created_date=AT - timedelta(minutes=5)),
        replace(OURS, created_date=AT + timedelta(minutes=5)),
    ],
    ids=["user", "object", "operation", "key", "version", "closed", "aborted", "before", "after"],
)
def test_a_job_that_differs_in_anything_is_not_ours(other: IngestJob) -> None:
    assert judge(other) == (None, 0)
    assert judge(OURS, replace(other, id="750000000000003AAA")) == (OURS.id, 0)


def test_a_job_of_the_audit_database_is_accounted_for() -> None:
    assert judge(OURS, known=frozenset({OURS.id})) == (None, 0)


def test_a_job_that_another_batch_may_just_have_made_is_left_alone() -> None:
    rival = replace(INTENT, job_no=8, batch_id="other", intended_at=AT + timedelta(seconds=20))
    assert judge(OURS, intents=(INTENT, rival)) == (None, 1)
    long_ago = replace(rival, intended_at=AT - timedelta(hours=1))
    elsewhere = replace(rival, object="Tenant__c")
    assert judge(OURS, intents=(INTENT, long_ago, elsewhere)) == (OURS.id, 0)
