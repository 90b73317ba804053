"""Jobs and the rolling day's budget."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from tests.unit.audit_fixtures import ORG, StillClock, make_draft, open_store, plan_chunks

from forcelift.audit import tables
from forcelift.audit.jobs import salesforce_batches
from forcelift.audit.records import BudgetRefused, IllegalMove, JobKind, JobStep
from forcelift.errors import StateConflict


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture
def store(clock):
    with open_store(clock) as store:
        yield store


@pytest.fixture
def chunk(store):
    [chunk] = plan_chunks(store)
    return chunk


def intend(store, chunk, rows=90, *, per_day=1000, batches=15_000, kind=JobKind.LOAD, org_id=ORG, fence=0):
    return store.intend_job(
        make_draft(chunk.audit_id, rows=rows, kind=kind),
        org_id=org_id,
        rows_per_day=per_day,
        batches_per_day=batches,
        fence=fence,
    )


def test_whole_way_of_a_job(store, chunk, clock):
    job = intend(store, chunk)
    assert (job.step, job.intended_at, job.sf_id, job.part.rows) == (JobStep.INTENDED, clock.now(), None, 90)
    assert store.job_created(job.job_no, "750000000000001AAA").org_state == "Open"
    assert store.job_uploaded(job.job_no).step is JobStep.UPLOADED
    assert store.job_closed(job.job_no).step is JobStep.CLOSED
    assert store.job_closed(job.job_no).step is JobStep.CLOSED
    assert store.job_seen(job.job_no, "InProgress").org_state == "InProgress"
    done = store.job_collected(job.job_no, "staging/r.parquet", 90, "JobComplete", None)
    assert (done.step, done.answered, done.results_file) == (JobStep.COLLECTED, 90, "staging/r.parquet")
    assert store.jobs("B1") == store.jobs("B1", chunk.audit_id) == [store.job(job.job_no)] == [done]
    assert store.known_sf_ids(ORG) == {"750000000000001AAA"}
    assert store.known_sf_ids("other") == frozenset()
    assert store.verify_journal() == []


def test_a_job_that_goes_with_its_data_is_closed_at_once(store, chunk, clock):
    job = intend(store, chunk)
    taken = store.job_taken(job.job_no, "750000000000001AAA")
    assert (taken.step, taken.sf_id, taken.org_state) == (JobStep.CLOSED, "750000000000001AAA", "UploadComplete")
    assert store.open_intents() == []
    with store.read() as connection:
        assert connection.execute(sa.select(tables.audit_log.c.sf_job_id)).scalars().all() == ["750000000000001AAA"]
        actions = connection.exec_driver_sql("SELECT action FROM journal ORDER BY seq").scalars().all()
    assert [one for one in actions if one.startswith("job_")] == [
        "job_intended",
        "job_created",
        "job_uploaded",
        "job_closed",
    ]
    assert store.job_closed(job.job_no) == taken
    with pytest.raises(IllegalMove):
        store.job_taken(job.job_no, "750000000000002AAA")
    assert store.verify_journal() == []


def test_a_job_of_the_org_is_never_two_of_ours(store, chunk):
    first, second = intend(store, chunk), intend(store, chunk)
    store.job_taken(first.job_no, "750000000000001AAA")
    with pytest.raises(IllegalMove, match="already"):
        store.job_taken(second.job_no, "750000000000001AAA", found=True)
    assert store.job(second.job_no).step is JobStep.INTENDED


def test_first_load_job_becomes_the_chunks_job(store, chunk):
    for number, kind in enumerate((JobKind.LINK, JobKind.LOAD, JobKind.RESEND), start=1):
        store.job_created(intend(store, chunk, kind=kind).job_no, f"75000000000000{number}AAA")
    with store.read() as connection:
        assert connection.execute(sa.select(tables.audit_log.c.sf_job_id)).scalar_one() == "750000000000002AAA"
    assert store.verify_journal() == []


def test_steps_are_taken_in_order(store, chunk):
    job = intend(store, chunk)
    for move in (store.job_uploaded, store.job_closed):
        with pytest.raises(IllegalMove, match="intended"):
            move(job.job_no)
    store.job_abandoned(job.job_no, "not found in the org")
    with pytest.raises(IllegalMove, match="abandoned"):
        store.job_created(job.job_no, "750")
    with pytest.raises(StateConflict, match="no job number 99"):
        store.job_closed(99)
    with pytest.raises(StateConflict, match="no chunk"):
        store.intend_job(make_draft(99), org_id=ORG, rows_per_day=1000, fence=0)


def test_day_that_is_full_says_until_when(store, chunk, clock):
    intend(store, chunk, 600)
    clock.move(hours=3)
    intend(store, chunk, 300)
    refused = intend(store, chunk, 200)
    assert isinstance(refused, BudgetRefused)
    # The first job was intended at 8:30, so its hour is past the rolling day at 9:00 of the next.
    assert refused.until == datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
    assert refused.reason == "900 of 1,000 rows a rolling day are used or reserved; this job has 200"
    assert store.reserved(ORG) == (900, 2)
    assert len(store.jobs("B1")) == 2
    clock.at = refused.until
    assert intend(store, chunk, 200).part.rows == 200
    assert store.reserved(ORG) == (500, 2)


def test_batches_have_a_budget_of_their_own(store, chunk):
    assert [salesforce_batches(rows) for rows in (0, 1, 10_000, 10_001)] == [1, 1, 1, 2]
    intend(store, chunk, 10_001, per_day=10**6, batches=3)
    refused = intend(store, chunk, 10_001, per_day=10**6, batches=3)
    assert refused.reason == "2 of 3 Salesforce batches a rolling day are used or reserved; this job makes 2"
    assert intend(store, chunk, 10_000, per_day=10**6, batches=3).job_no == 2


def test_budget_is_the_orgs_and_not_the_batchs(store, chunk):
    [other] = plan_chunks(store, batch_id="B2")
    intend(store, chunk, 600)
    assert isinstance(intend(store, other, 600), BudgetRefused)
    assert intend(store, other, 600, org_id="00D000000000002AAA").job_no == 2


def test_reservation_is_given_back_unless_the_job_was_closed(store, chunk):
    first, second = intend(store, chunk, 300), intend(store, chunk, 400)
    store.job_created(first.job_no, "750A")
    store.job_abandoned(first.job_no, "aborted")
    assert store.reserved(ORG) == (400, 1)
    store.job_created(second.job_no, "750B")
    store.job_closed(second.job_no)
    store.job_abandoned(second.job_no, "aborted by somebody")
    assert store.reserved(ORG) == (400, 1)


def test_job_larger_than_a_day_never_fits(store, chunk):
    with pytest.raises(StateConflict, match="larger than the whole day's allowance") as caught:
        intend(store, chunk, 1001)
    assert "limits.rows_per_day" in caught.value.hint


def test_runner_that_lost_its_lease_makes_no_jobs(store, chunk):
    with store.lease("B1", "first") as first:
        assert intend(store, chunk, fence=first.fence).fence == first.fence
    with (
        store.lease("B1", "second"),
        pytest.raises(StateConflict, match="taken over by second"),
    ):
        intend(store, chunk, fence=first.fence)
    assert len(store.jobs("B1")) == 1
