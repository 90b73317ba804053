"""An intent and the job in the org that it became, for the tests of jobs whose creation went unanswered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from forcelift.audit.records import Job, JobKind, JobStep, Part
from forcelift.protocols.org import IngestJob, JobState

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
INTENT = Job(
    job_no=7,
    batch_id="b",
    audit_id=1,
    kind=JobKind.LOAD,
    object="Sale__c",
    operation="upsert",
    external_id_field="Key__c",
    part=Part(file="f", rows=10, bytes=100_000, sha256="0"),
    attempt=1,
    step=JobStep.INTENDED,
    intended_at=AT,
)
OURS = IngestJob(
    id="750000000000001AAA",
    object="Sale__c",
    operation="upsert",
    state=JobState.OPEN,
    created_by_id="005A",
    created_date=AT + timedelta(seconds=2),
    external_id_field="Key__c",
    api_version=66.0,
)
