"""Batches, plan revisions, control."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.unit.audit_fixtures import BEGAN, StillClock, make_batch, open_store, plan_chunks

from forcelift.audit.records import BatchState, Control, IllegalMove
from forcelift.errors import StateConflict


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture
def store(clock):
    with open_store(clock) as store:
        yield store


def test_batch_comes_back_as_it_was_begun(store):
    batch = make_batch("manual__2026-03-01T08:30:00.000000+00:00__and_a_long_tail")
    store.begin_batch(batch, plan_document={"version": 1, "project": "KPC", "fields": {"b": 1, "a": 2}})
    assert store.batch(batch.batch_id) == batch
    document = store.plan_document(batch.batch_id)
    assert document == {"version": 1, "project": "KPC", "fields": {"b": 1, "a": 2}}
    assert [*document["fields"]] == ["b", "a"], "the order of fields is a part of the plan"
    assert store.batch("other") is None


def test_same_id_again_is_refused_with_the_way_on(store):
    store.begin_batch(make_batch(), plan_document={})
    with pytest.raises(StateConflict, match="a batch `B1` already") as caught:
        store.begin_batch(make_batch(), plan_document={})
    assert "forcelift run --resume B1" in caught.value.hint


def test_newest_batch_of_a_project_and_unfinished(store):
    for name, project in (("A", "one"), ("B", "one"), ("C", "two")):
        store.begin_batch(make_batch(name, project=project), plan_document={})
    store.set_batch_state("B", BatchState.DONE)
    assert store.newest_batch().batch_id == "C"
    assert store.newest_batch("one").batch_id == "B"
    assert store.newest_batch("one", unfinished=True).batch_id == "A"
    assert store.newest_batch("three") is None
    assert [batch.batch_id for batch in store.batches("one")] == ["A", "B"]
    assert len(store.batches()) == 3


def test_state_moves_and_times(store, clock):
    store.begin_batch(make_batch(), plan_document={})
    clock.move(hours=2)
    assert store.set_batch_state("B1", BatchState.STOPPED).ended_at == clock.now()
    assert store.reopen_batch("B1") == make_batch()
    assert store.reopen_batch("B1").state is BatchState.RUNNING
    store.set_batch_state("B1", BatchState.DONE)
    with pytest.raises(IllegalMove, match="from done to failed"):
        store.set_batch_state("B1", BatchState.FAILED)
    with pytest.raises(StateConflict, match="no batch `X`"):
        store.set_batch_state("X", BatchState.DONE)


def test_plan_revisions_count_up_and_the_newest_counts(store):
    store.begin_batch(make_batch(), plan_document={"rows": 1})
    revised = store.add_plan_revision("B1", plan_document={"rows": 2}, plan_sha256="99" * 32, made_by="me")
    assert (revised.plan_revision, revised.plan_sha256) == (2, "99" * 32)
    assert store.batch("B1") == revised
    assert store.plan_document("B1") == {"rows": 2}
    with pytest.raises(StateConflict):
        store.plan_document("X")


def test_control_adds_up_and_is_cleared(store, clock):
    store.begin_batch(make_batch(), plan_document={})
    assert store.control("B1") == Control()
    store.request_throttle("B1", 2, by="ann", reason="payroll runs")
    store.request_pause("B1", by="bob", reason="lunch")
    clock.move(minutes=5)
    asked = store.request_stop("B1", now=True, by="eve", reason="wrong org")
    assert asked == Control(
        stop=True, stop_now=True, paused=True, throttle_jobs=2, reason="wrong org", by="eve", at=clock.now()
    )
    assert store.control("B1") == asked
    assert not store.request_resume("B1", by="bob").paused
    cleared = store.clear_control("B1", "eve")
    assert cleared == Control(by="eve", at=clock.now())
    assert store.control("B1") == cleared
    with pytest.raises(StateConflict):
        store.request_stop("X", now=False, by="eve")


def test_long_ids_that_differ_at_the_end_stay_apart(store):
    for tail in "xy":
        plan_chunks(store, 2, batch_id="scheduled__" + "2026-03-01T08:30:00+00:00" * 3 + tail)
    first, second = store.batches()
    assert len(store.chunks(first.batch_id)) == len(store.chunks(second.batch_id)) == 2
    assert store.skip_chunks(first.batch_id, "stopped") == 2
    assert {chunk.status for chunk in store.chunks(second.batch_id)} == {"PENDING"}


def test_time_without_a_zone_is_refused(store):
    with pytest.raises(Exception, match="without a zone"):
        store.begin_batch(replace(make_batch(), as_of=BEGAN.replace(tzinfo=None)), plan_document={})
    assert store.batches() == []
