"""Runners that share a batch: claims, takeovers, what a runner that was written off may still write, and leaving."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
import sqlalchemy as sa
from tests.unit.audit_fixtures import (
    ORG,
    StillClock,
    make_counts,
    make_draft,
    make_staged,
    make_table,
    open_store,
    plan_chunks,
)

from forcelift.audit import AuditStore, tables
from forcelift.audit.records import BatchState, BudgetRefused, ChunkStatus, Job
from forcelift.audit.shared_work import WorkState
from forcelift.audit.shares import IntentRefused
from forcelift.errors import LeaseLost, StateConflict

TABLE = "KPS_T_SALES_MD"


@pytest.fixture
def store():
    with AuditStore.open("sqlite://", clock=StillClock(), can_share=True) as store:
        yield store


def enter(store, name="first", *, join=False):
    """A runner on batch B1 and its view of the database."""
    lease = store.enter("B1", name, join=join)
    return lease, store.of_runner(lease)


def fall_silent(store, fence, seconds=61):
    """As if the runner had not been heard of for so long: by default longer than its lease."""
    lease = tables.lease
    with store.write() as connection:
        heard = connection.execute(sa.select(lease.c.heartbeat).where(lease.c.fence == fence)).scalar_one()
        connection.execute(
            lease.update().where(lease.c.fence == fence).values(heartbeat=heard - timedelta(seconds=seconds))
        )


def claim(runner, wanted=9):
    return [chunk.chunk_no for chunk in runner.claim_chunks("B1", tables_open=[TABLE], wanted=wanted).chunks]


def intend(runner, lease, chunk, **options):
    return runner.intend_job(
        make_draft(chunk.audit_id, rows=10), org_id=ORG, rows_per_day=10_000, fence=lease.fence, **options
    )


def test_two_runners_never_get_the_same_chunk(store):
    plan_chunks(store, 5)
    first_lease, first = enter(store)
    second_lease, second = enter(store, "second", join=True)
    assert second_lease.fence == first_lease.fence + 1
    assert claim(first, 2) == [1, 2]
    assert claim(second, 2) == [3, 4]
    assert claim(first, 2) == [5]
    assert claim(second) == []
    assert [one.owner for one in store.runners("B1")] == ["first", "second"]


def test_who_may_begin_and_who_may_join(store):
    plan_chunks(store)
    with pytest.raises(StateConflict, match="no process is at work"):
        store.enter("B1", "early", join=True)
    enter(store)
    with pytest.raises(StateConflict, match="being worked on by first") as caught:
        store.enter("B1", "again")
    assert "run --join B1" in caught.value.hint
    fall_silent(store, 1)
    with pytest.raises(StateConflict, match="no process is at work"):
        store.enter("B1", "late", join=True)
    assert store.enter("B1", "again").fence == 2


def test_chunks_of_a_silent_runner_are_taken_over_with_a_new_generation(store):
    plan_chunks(store, 2)
    lease, first = enter(store)
    assert claim(first, 2) == [1, 2]
    begun, _ = first.chunks("B1")
    first.start_chunk(begun.audit_id)
    _, second = enter(store, "second", join=True)
    assert claim(second) == []
    fall_silent(store, lease.fence)
    taken = second.claim_chunks("B1", tables_open=[TABLE], wanted=9).chunks
    assert [(chunk.chunk_no, chunk.generation, chunk.claim) for chunk in taken] == [(1, 1, 2), (2, 0, 2)]
    with pytest.raises(LeaseLost, match="second took it over"):
        lease.check()
    with pytest.raises(LeaseLost):
        lease.beat()
    with pytest.raises(LeaseLost):
        first.claim_chunks("B1", tables_open=[TABLE], wanted=1)
    with pytest.raises(LeaseLost):
        first.look_around("B1", open_ids=[], unplanned=[])
    with pytest.raises(LeaseLost):
        first.leave("B1", BatchState.DONE, reason="")
    assert store.verify_journal() == []


def test_what_living_runners_wait_for(store):
    plan_chunks(store, 3)
    first_lease, first = enter(store)
    _, second = enter(store, "second", join=True)
    assert claim(first, 2) == [1, 2]
    assert store.silent_claim("B1") is None, "both are alive"
    fall_silent(store, first_lease.fence, seconds=45)
    assert store.silent_claim("B1") is None, "a chunk is free"
    assert claim(second) == [3]
    assert store.silent_claim("B1") is None, "the other has a chunk to do"
    settle(store, 3)
    waits = store.silent_claim("B1")
    # A server's own clock goes on between two steps; in memory it is 45 s to the second.
    told = re.fullmatch(
        r"2 chunks are first's, whose last sign of life is (\d+) s old; if it is dead, the others take over (\d+) s "
        "from now",
        str(waits),
    )
    assert told is not None
    silent_s, left_s = map(int, told.groups())
    assert silent_s >= 45
    assert silent_s + left_s in (60, 61)
    assert store.is_server or silent_s == 45
    fall_silent(store, first_lease.fence, seconds=16)
    assert store.silent_claim("B1") is None, "now they are free"


def settle(store, number):
    """As if its runner had settled a chunk."""
    chunk = tables.chunk
    with store.write() as connection:
        connection.execute(chunk.update().where(chunk.c.chunk_no == number).values(step="settled"))


def test_a_runner_that_was_written_off_writes_nothing(store):
    [chunk] = plan_chunks(store)
    lease, first = enter(store)
    claim(first)
    first.start_chunk(chunk.audit_id)
    staged = make_staged()
    first.stage_chunk(chunk.audit_id, staged)
    job = intend(first, lease, chunk)
    assert isinstance(job, Job)
    _, second = enter(store, "second", join=True)
    fall_silent(store, lease.fence)
    claim(second)
    before = (store.chunk(chunk.audit_id), store.job(job.job_no))
    attempts = [
        lambda: first.chunk(chunk.audit_id),
        lambda: first.stage_chunk(chunk.audit_id, staged),
        lambda: first.load_chunk(chunk.audit_id, "ledger", "00"),
        lambda: first.stage_links(chunk.audit_id, [], 0),
        lambda: first.fail_chunk(chunk.audit_id, "no"),
        lambda: first.settle_chunk(
            chunk.audit_id,
            status=ChunkStatus.PARTIAL,
            counts=make_counts(staged),
            ledger_file="f",
            ledger_sha256="0",
        ),
        lambda: intend(first, lease, chunk),
        lambda: first.job_created(job.job_no, "750000000000001AAA"),
        lambda: first.job_uploaded(job.job_no),
        lambda: first.job_closed(job.job_no),
        lambda: first.job_seen(job.job_no, "Open"),
        lambda: first.job_collected(job.job_no, "f", 1, "JobComplete"),
        lambda: first.job_abandoned(job.job_no, "no"),
    ]
    for attempt in attempts:
        with pytest.raises(LeaseLost):
            attempt()
    assert (store.chunk(chunk.audit_id), store.job(job.job_no)) == before
    second.job_created(job.job_no, "750000000000001AAA")


def test_a_chunk_that_is_not_claimed_is_not_written(store):
    [chunk] = plan_chunks(store)
    _, first = enter(store)
    with pytest.raises(LeaseLost, match="chunk 1: another process"):
        first.start_chunk(chunk.audit_id)


def test_one_intent_at_a_time_over_all_runners_and_a_dead_ones_comes_first(store):
    one, two, *_ = plan_chunks(store, 4)
    first_lease, first = enter(store)
    second_lease, second = enter(store, "second", join=True)
    claim(first, 1)
    claim(second, 1)
    for runner, chunk in ((first, one), (second, two)):
        runner.start_chunk(chunk.audit_id)
        runner.stage_chunk(chunk.audit_id, make_staged())
    made = intend(first, first_lease, one)
    assert isinstance(made, Job)
    assert isinstance(intend(second, second_lease, two), IntentRefused)
    assert not second.look_around("B1", open_ids=[one.audit_id], unplanned=[]).orphan_intent
    fall_silent(store, first_lease.fence)
    seen = second.look_around("B1", open_ids=[one.audit_id], unplanned=[])
    assert (seen.orphan_intent, seen.free, seen.runners) == (True, frozenset({one.audit_id}), 1)
    assert isinstance(intend(second, second_lease, two), IntentRefused)
    # The chunk in doubt comes although no chunk was wanted, with its job.
    taken = second.claim_chunks("B1", tables_open=[], wanted=0)
    assert [chunk.audit_id for chunk in taken.chunks] == [one.audit_id]
    assert [job.job_no for job in taken.jobs] == [made.job_no]
    second.job_abandoned(made.job_no, "the org does not show it")
    assert isinstance(intend(second, second_lease, two), Job)


def test_jobs_of_all_runners_count_against_the_limit(store):
    one, two = plan_chunks(store, 2)
    first_lease, first = enter(store)
    second_lease, second = enter(store, "second", join=True)
    claim(first, 1)
    claim(second, 1)
    for runner, chunk in ((first, one), (second, two)):
        runner.start_chunk(chunk.audit_id)
        runner.stage_chunk(chunk.audit_id, make_staged())
    made = intend(first, first_lease, one, others_max=0)
    assert isinstance(made, Job)
    first.job_created(made.job_no, "750000000000001AAA")
    refused = intend(second, second_lease, two, others_max=0)
    assert isinstance(refused, IntentRefused)
    assert "1 jobs of other processes" in refused.reason
    assert not isinstance(intend(second, second_lease, two, others_max=1), IntentRefused | BudgetRefused)


def test_work_of_a_table_is_done_once(store):
    plan_chunks(store)
    first_lease, first = enter(store)
    _, second = enter(store, "second", join=True)
    assert first.claim_work("B1", "plan", TABLE).state is WorkState.DONE
    assert first.claim_work("B1", "plan", "OTHER").state is WorkState.MINE
    assert first.claim_work("B1", "plan", "OTHER").state is WorkState.MINE
    assert second.claim_work("B1", "plan", "OTHER").state is WorkState.ELSEWHERE
    with pytest.raises(LeaseLost):
        second.plan_table(make_table(name="OTHER", position=2), [])
    fall_silent(store, first_lease.fence)
    assert second.claim_work("B1", "plan", "OTHER").state is WorkState.MINE
    with pytest.raises(LeaseLost):
        first.plan_table(make_table(name="OTHER", position=2), [])
    second.plan_table(make_table(name="OTHER", position=2), [({}, 1)])
    assert second.claim_work("B1", "check", TABLE).state is WorkState.MINE
    second.work_done("B1", "check", TABLE, {"ids": ["a"]})
    _, third = enter(store, "third", join=True)
    done = third.claim_work("B1", "check", TABLE)
    assert (done.state, done.result) == (WorkState.DONE, {"ids": ["a"]})


def test_the_last_to_leave_ends_the_batch(store):
    plan_chunks(store, 3)
    _, first = enter(store)
    _, second = enter(store, "second", join=True)
    [one] = first.claim_chunks("B1", tables_open=[TABLE], wanted=1).chunks
    first.start_chunk(one.audit_id)
    left = first.leave("B1", BatchState.STOPPED, reason="stopped by ann")
    assert (left.batch.state, [one.owner for one in left.others]) == (BatchState.RUNNING, ["second"])
    assert {chunk.status for chunk in store.chunks("B1")} == {"PENDING", "RUNNING"}
    left = second.leave("B1", BatchState.STOPPED, reason="stopped by ann")
    assert (left.batch.state, left.others) == (BatchState.STOPPED, ())
    begun, *others = store.chunks("B1")
    assert (begun.status, begun.error_message) == (
        "FAILED",
        "not finished: stopped by ann; a resume goes on from here",
    )
    assert {chunk.status for chunk in others} == {"SKIPPED"}
    # A new session may claim them all, whatever the last one made of them.
    store.reopen_batch("B1")
    _, third = enter(store, "third")
    claimed = third.claim_chunks("B1", tables_open=[TABLE], wanted=9).chunks
    assert [(chunk.status, chunk.generation) for chunk in claimed] == [("RUNNING", 1), ("RUNNING", 0), ("RUNNING", 0)]


def test_what_a_runner_gave_up_is_not_tried_again_in_this_session(store):
    one, _ = plan_chunks(store, 2)
    _, first = enter(store)
    _, second = enter(store, "second", join=True)
    assert claim(first, 1) == [1]
    first.start_chunk(one.audit_id)
    first.fail_chunk(one.audit_id, "the rows moved")
    first.leave("B1", BatchState.FAILED, reason="")
    assert claim(second) == [2]
    seen = second.look_around("B1", open_ids=[one.audit_id], unplanned=[])
    assert [(failed.audit_id, failed.message) for failed in seen.failed] == [(one.audit_id, "the rows moved")]
    assert seen.free == seen.held == frozenset()


def test_a_database_that_is_one_process_own_is_not_shared():
    with open_store(StillClock()) as store, store.lease("B1", "first"):
        plan_chunks(store)
        with pytest.raises(StateConflict, match="SQLite file") as caught:
            store.enter("B1", "second", join=True)
        assert "PostgreSQL" in caught.value.hint
