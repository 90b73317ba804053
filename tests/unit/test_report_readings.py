"""What the report asks of the audit database: which rows were fixed, the steps' moves, notes, and the day's hours."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
import sqlalchemy as sa
from tests.unit.audit_fixtures import (
    BEGAN,
    ORG,
    StillClock,
    make_draft,
    make_failed,
    make_staged,
    open_store,
    plan_chunks,
    settle,
)

from forcelift.account.waiting import CALLS_PAUSE_S, CallJournal
from forcelift.audit import AuditStore, tables
from forcelift.audit.readings import ApiCalls, FailureGroup
from forcelift.errors import StateConflict

RULE = "FIELD_CUSTOM_VALIDATION_EXCEPTION"


def _resolve(store: AuditStore, keys: list[str], note: str) -> None:
    records = tables.failed_records
    with store.write() as connection:
        values = {"resolved": "Y", "resolution_notes": note}
        connection.execute(records.update().where(records.c.record_id.in_(keys)).values(**values))


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def store(clock: StillClock) -> AuditStore:
    return open_store(clock)


def test_rows_that_were_fixed_count_for_their_own_group(store: AuditStore) -> None:
    """One code with other fields, and a rule's code with another message, are other issues."""
    (chunk,) = plan_chunks(store)
    name = pl.lit("Name").alias("fields")
    failed = pl.concat(
        [
            make_failed(["a", "b", "c"]).with_columns(name),
            make_failed(["d", "e"]),
            make_failed(["f"], code=RULE, message="no discount"),
            make_failed(["g", "h"], code=RULE, message="no night"),
        ]
    ).with_columns(row=pl.int_range(8, dtype=pl.UInt32))
    settle(store, chunk.audit_id, staged=make_staged(rejected=0), failed=failed)
    _resolve(store, ["a", "b", "d", "g"], "cut")
    found = {(one.code, one.fields, one.message): store.resolved("B1", one) for one in store.failure_groups("B1")}
    assert found == {
        ("STRING_TOO_LONG", "Name", "too long"): (2, ["cut"]),
        ("STRING_TOO_LONG", None, "too long"): (1, ["cut"]),
        (RULE, None, "no discount"): (0, []),
        (RULE, None, "no night"): (1, ["cut"]),
    }
    strange = FailureGroup(table_name="other", code="", fields=None, message="", rows=0, record_ids=())
    assert store.resolved("B1", strange) == (0, [])


def test_the_moves_of_a_chunk_and_its_job_in_order(store: AuditStore, clock: StillClock) -> None:
    (chunk,) = plan_chunks(store)
    with store.lease("B1", owner="me") as lease:
        store.start_chunk(chunk.audit_id)
        clock.move(seconds=10)
        store.stage_chunk(chunk.audit_id, make_staged())
        job = store.intend_job(make_draft(chunk.audit_id), org_id=ORG, rows_per_day=1000, fence=lease.fence)
        clock.move(seconds=1)
        store.job_created(job.job_no, "750000000000001AAA")  # type: ignore[union-attr]  # the day has room for it
        store.job_uploaded(1)
        store.job_closed(1)
        clock.move(seconds=5)
        store.job_collected(1, "answers", 90, "JobComplete", seconds=1.25)
    events = store.step_events(["B1"])
    assert [(one.action, one.audit_id, (one.at - BEGAN).total_seconds()) for one in events] == [
        ("chunk_started", chunk.audit_id, 0),
        ("chunk_staged", chunk.audit_id, 10),
        ("job_intended", chunk.audit_id, 10),
        ("job_created", chunk.audit_id, 11),
        ("job_closed", chunk.audit_id, 11),
        ("job_collected", chunk.audit_id, 16),
    ]
    assert events[1].payload["seconds"] == 1.5
    assert events[1].payload["clean_seconds"] == 0.0
    assert events[-1].payload["seconds"] == 1.25
    # A server's leases are in its own time, which in this test is far ahead of the clock.
    ((began, ended),) = store.work_times(["B1"])
    assert began == BEGAN
    assert ended >= BEGAN + timedelta(seconds=16)
    assert store.step_events(["other"]) == []
    (hour,) = store.reserved_hours(ORG, BEGAN, clock.now())
    assert (hour.rows, hour.batches) == (90, 1)
    assert store.reserved_hours("00D000000000002AAA", BEGAN, clock.now()) == []
    assert store.reserved_hours(ORG, BEGAN + timedelta(hours=26), BEGAN + timedelta(hours=30)) == []


def test_a_process_that_was_killed_worked_until_its_last_heartbeat() -> None:
    clock = StillClock()
    store = open_store(clock)
    plan_chunks(store)
    with store.lease("B1", owner="first"):
        clock.move(seconds=30)
    clock.move(seconds=10)
    lost = store.lease("B1", owner="killed")
    lost.__enter__()
    with store.write() as connection:
        mine = tables.lease.c.fence == 2
        since = connection.execute(sa.select(tables.lease.c.since).where(mine)).scalar_one()
        connection.execute(tables.lease.update().where(mine).values(heartbeat=since + timedelta(seconds=7)))
    clock.move(seconds=60)
    first, killed = store.work_times(["B1"])
    assert first == (BEGAN, BEGAN + timedelta(seconds=30))
    assert killed == (BEGAN + timedelta(seconds=40), BEGAN + timedelta(seconds=47))
    lost.__exit__(None, None, None)
    assert store.work_times(["B1"])[1][1] == BEGAN + timedelta(seconds=100)


def test_notes_stand_until_they_are_removed(store: AuditStore) -> None:
    plan_chunks(store)
    plan_chunks(store, batch_id="B2")
    first = store.add_note("B1", code="X", table_name=None, cause="why", resolution=None, by="me")
    second = store.add_note("B2", code="X", table_name="T", cause=None, resolution="what", by="you")
    assert store.notes(["B1"]) == [first]
    assert store.notes(["B1", "B2"]) == [first, second]
    with pytest.raises(StateConflict, match="no note 2"):
        store.remove_note("B1", second.note_no, by="me")
    store.remove_note("B1", first.note_no, by="me")
    assert store.notes(["B1", "B2"]) == [second]
    with pytest.raises(StateConflict):
        store.remove_note("B1", first.note_no, by="me")
    with pytest.raises(StateConflict):
        store.add_note("B3", code="X", table_name=None, cause="why", resolution=None, by="me")
    with store.read() as connection:
        notes = sa.select(tables.report_note.c.removed_by).order_by(tables.report_note.c.note_no)
        rows = connection.execute(notes).scalars().all()
    assert rows == ["me", None], "a removed note stays, with who removed it"
    assert store.verify_journal() == []


def test_a_rollback_is_no_time_of_the_load(store: AuditStore, clock: StillClock) -> None:
    """A rollback stamps END_TIME; how long the load took, and how fast it was, stays as it was."""
    (chunk,) = plan_chunks(store)
    settle(store, chunk.audit_id)
    (before,) = store.chunk_spans("B1")
    clock.sleep(3 * 86_400)
    store.roll_back_chunk(chunk.audit_id)
    (after,) = store.chunk_spans("B1")
    assert (after.began_at, after.ended_at) == (before.began_at, before.ended_at)
    assert after.changed_at == clock.now() > before.ended_at


def test_api_calls_of_a_process_that_was_killed_are_those_it_told_of(store: AuditStore, clock: StillClock) -> None:
    plan_chunks(store)
    first = CallJournal(store, "B1", fence=1, clock=clock)
    for calls, later in ((3, 1.0), (9, 1.0)):
        first.tell(calls)
        clock.sleep(later)
    assert store.api_calls_used("B1") == ApiCalls(calls=3, is_whole=False)
    clock.sleep(CALLS_PAUSE_S)
    first.tell(20)
    assert store.api_calls_used("B1") == ApiCalls(calls=20, is_whole=False)
    # Killed; the next process ends, and its own calls are counted once.
    CallJournal(store, "B1", fence=2, clock=clock).tell(5)
    store.journal("run_ended", {"state": "done", "api_calls": 7, "fence": 2}, batch_id="B1")
    assert store.api_calls_used("B1") == ApiCalls(calls=27, is_whole=False)
    store.journal("run_ended", {"state": "done", "api_calls": 30, "fence": 1}, batch_id="B1")
    assert store.api_calls_used("B1") == ApiCalls(calls=37, is_whole=True)
