"""Chunks on their way: moves, sums, failed records."""

from __future__ import annotations

import polars as pl
import pytest
import sqlalchemy as sa
from msgspec.structs import replace
from tests.unit.audit_fixtures import (
    BEGAN,
    StillClock,
    make_batch,
    make_counts,
    make_draft,
    make_failed,
    make_part,
    make_staged,
    make_table,
    open_store,
    plan_chunks,
    settle,
)

from forcelift.audit import tables
from forcelift.audit.records import BatchMode, ChunkCounts, ChunkStatus, ChunkStep, IllegalMove
from forcelift.errors import StateConflict

SEAL = {"ledger_file": "ledger/f.parquet", "ledger_sha256": "ef" * 32}


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture
def store(clock):
    with open_store(clock) as store:
        yield store


def audit_row(store, audit_id):
    with store.read() as connection:
        query = sa.select(tables.audit_log).where(tables.audit_log.c.audit_id == audit_id)
        return connection.execute(query).mappings().one()


def test_planned_chunks_are_pending_and_in_load_order(store):
    store.begin_batch(make_batch(), plan_document={})
    store.plan_table(make_table(name="CHILD", position=2), [({"a": 1}, 10)])
    store.plan_table(make_table(name="PARENT", position=1), [({"b": number}, number) for number in range(12)])
    chunks = store.chunks("B1")
    assert [(chunk.table_name, chunk.chunk_no) for chunk in chunks] == [
        *(("PARENT", number) for number in range(1, 13)),
        ("CHILD", 1),
    ]
    assert {chunk.status for chunk in chunks} == {ChunkStatus.PENDING}
    assert chunks[3].predicate == {"b": 3}
    assert store.chunks("B1", "CHILD") == [store.chunk(chunks[-1].audit_id)]
    row = audit_row(store, chunks[0].audit_id)
    assert (row["start_time"], row["sf_job_id"], row["created_by"]) == (None, None, "etl@host pid 7")


def test_table_is_planned_once(store):
    plan_chunks(store, 2)
    with pytest.raises(StateConflict, match="planned already"):
        store.plan_table(make_table(), [({}, 1)])
    assert len(store.chunks("B1")) == 2


def test_whole_way_of_a_chunk(store, clock):
    [chunk] = plan_chunks(store)
    clock.move(seconds=10)
    chunk = store.start_chunk(chunk.audit_id)
    assert (chunk.status, chunk.step, chunk.start_time) == (ChunkStatus.RUNNING, ChunkStep.PLANNED, clock.now())
    staged = make_staged()
    chunk = store.stage_chunk(chunk.audit_id, staged)
    assert (chunk.step, chunk.staged) == (ChunkStep.STAGED, staged)
    row = audit_row(store, chunk.audit_id)
    assert (row["source_count"], row["extracted_count"], row["transformed_count"], row["skipped_count"]) == (
        100,
        100,
        90,
        10,
    )
    assert (row["csv_file_path"], row["csv_file_size_mb"]) == ("staging/B1/T/c000001.p00.csv", 0.0009)
    chunk = store.load_chunk(chunk.audit_id, "ledger/first.parquet", "aa" * 32)
    assert (chunk.step, chunk.ledger_file) == (ChunkStep.LOADED, "ledger/first.parquet")
    chunk = store.stage_links(chunk.audit_id, [make_part(80)], 2)
    assert (chunk.step, chunk.link_parts, chunk.link_refused) == (ChunkStep.LINKING, (make_part(80),), 2)
    clock.move(seconds=32.5)
    chunk = store.settle_chunk(
        chunk.audit_id,
        status=ChunkStatus.PARTIAL,
        counts=make_counts(staged, failed=3),
        failed=make_failed(["a", "b"]),
        source_checksum="v1:87:abc",
        **SEAL,
    )
    assert (chunk.status, chunk.step) == (ChunkStatus.PARTIAL, ChunkStep.SETTLED)
    assert (chunk.end_time, chunk.duration_seconds) == (clock.now(), 32.5)
    assert (chunk.loaded_count, chunk.success_count, chunk.failed_count) == (90, 87, 3)
    assert (chunk.ledger_file, chunk.ledger_sha256) == (SEAL["ledger_file"], SEAL["ledger_sha256"])
    assert chunk.source_checksum == "v1:87:abc"
    assert store.chunk(chunk.audit_id) == chunk
    assert store.verify_journal() == []


def test_staged_files_are_staged_once(store):
    [chunk] = plan_chunks(store)
    with pytest.raises(IllegalMove, match="PENDING and planned"):
        store.stage_chunk(chunk.audit_id, make_staged())
    store.start_chunk(chunk.audit_id)
    store.stage_chunk(chunk.audit_id, make_staged())
    with pytest.raises(IllegalMove):
        store.stage_chunk(chunk.audit_id, make_staged(transformed=80))
    assert store.chunk(chunk.audit_id).staged == make_staged()


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (ChunkStatus.SUCCESS, {"success": 89}),
        (ChunkStatus.SUCCESS, {"source": 91}),
        (ChunkStatus.SUCCESS, {"skipped": 1}),
        (ChunkStatus.SUCCESS, {"loaded": 89, "success": 89}),
        (ChunkStatus.SUCCESS, {"loaded": None, "success": None, "failed": None}),
        (ChunkStatus.SUCCESS, {"success": 89, "failed": 1}),
        (ChunkStatus.PARTIAL, {"success": 88, "failed": 1}),
        (ChunkStatus.PARTIAL, {}),
    ],
)
def test_sums_that_do_not_close_are_refused(store, status, changes):
    [chunk] = plan_chunks(store)
    staged = make_staged(rejected=0, duplicate=0)
    store.start_chunk(chunk.audit_id)
    before = store.stage_chunk(chunk.audit_id, staged)
    with pytest.raises(IllegalMove, match="may not become"):
        store.settle_chunk(
            chunk.audit_id, status=status, counts=replace(make_counts(staged), **changes), failed=None, **SEAL
        )
    assert store.chunk(chunk.audit_id) == before


def test_rows_without_an_answer_fail_the_chunk_whatever_the_sums(store):
    [chunk] = plan_chunks(store)
    store.start_chunk(chunk.audit_id)
    store.stage_chunk(chunk.audit_id, make_staged())
    counts = replace(make_counts(make_staged()), loaded=80, success=80)
    failed = store.settle_chunk(
        chunk.audit_id, status=ChunkStatus.FAILED, counts=counts, error_message="10 rows lack an answer", **SEAL
    )
    assert (failed.status, failed.step, failed.error_message) == (
        ChunkStatus.FAILED,
        ChunkStep.STAGED,
        "10 rows lack an answer",
    )
    again = store.start_chunk(chunk.audit_id)
    assert (again.step, again.generation, again.error_message) == (ChunkStep.STAGED, 1, None)


def test_dry_run_ends_without_anything_sent(store):
    store.begin_batch(make_batch(mode=BatchMode.DRY_RUN), plan_document={})
    [chunk] = store.plan_table(make_table(), [({}, 100)])
    store.start_chunk(chunk.audit_id)
    store.stage_chunk(chunk.audit_id, make_staged())
    nothing = ChunkCounts(source=100, extracted=100, transformed=90, skipped=10, loaded=None, success=None, failed=None)
    with pytest.raises(IllegalMove):
        store.settle_chunk(
            chunk.audit_id,
            status=ChunkStatus.PARTIAL,
            counts=make_counts(make_staged()),
            ledger_file=None,
            ledger_sha256=None,
        )
    ended = store.settle_chunk(
        chunk.audit_id, status=ChunkStatus.PARTIAL, counts=nothing, ledger_file=None, ledger_sha256=None
    )
    assert (ended.status, ended.loaded_count) == (ChunkStatus.PARTIAL, None)


def test_stopped_before_it_began(store, clock):
    first, *others = plan_chunks(store, 4)
    store.start_chunk(first.audit_id)
    assert store.skip_chunks("B1", "stopped by eve") == 3
    assert store.skip_chunks("B1", "again") == 0
    skipped = store.chunk(others[0].audit_id)
    assert (skipped.status, skipped.start_time, skipped.error_message) == (ChunkStatus.SKIPPED, None, "stopped by eve")
    started = store.start_chunk(skipped.audit_id)
    assert (started.status, started.generation, started.error_message) == (ChunkStatus.RUNNING, 0, None)


def test_failed_chunk_keeps_how_far_it_came(store, clock):
    [chunk] = plan_chunks(store)
    store.start_chunk(chunk.audit_id)
    store.stage_chunk(chunk.audit_id, make_staged())
    clock.move(seconds=5)
    failed = store.fail_chunk(chunk.audit_id, "ก" * 5000, "details")
    assert (failed.status, failed.step, failed.duration_seconds) == (ChunkStatus.FAILED, ChunkStep.STAGED, 5)
    assert failed.error_message == "ก" * 1333
    clock.move(seconds=5)
    again = store.start_chunk(chunk.audit_id)
    assert (again.start_time, again.end_time, again.staged) == (clock.now(), None, make_staged())


def test_source_is_read_again_only_before_a_job_was_made(store):
    one, two = plan_chunks(store, 2)
    for chunk in (one, two):
        store.start_chunk(chunk.audit_id)
        store.stage_chunk(chunk.audit_id, make_staged())
    job = store.intend_job(make_draft(two.audit_id), org_id="O", rows_per_day=1000, fence=0)
    for chunk in (one, two):
        store.fail_chunk(chunk.audit_id, "no")
    restaged = store.start_chunk(one.audit_id, restage=True)
    assert (restaged.step, restaged.staged, restaged.generation) == (ChunkStep.PLANNED, None, 1)
    with pytest.raises(IllegalMove, match="jobs were made"):
        store.start_chunk(two.audit_id, restage=True)
    store.job_abandoned(job.job_no, "never created")
    assert store.start_chunk(two.audit_id, restage=True).staged is None


def test_settled_chunk_goes_back_for_a_retry_and_is_rolled_back_once(store):
    done, retried = plan_chunks(store, 2)
    settle(store, retried.audit_id, failed=make_failed(["a"] * 7))
    again = store.start_chunk(retried.audit_id)
    assert (again.step, again.generation, again.staged) == (ChunkStep.STAGED, 1, make_staged())
    settle(store, done.audit_id, staged=make_staged(rejected=0, duplicate=2))
    assert store.chunk(done.audit_id).status is ChunkStatus.SUCCESS
    assert store.roll_back_chunk(done.audit_id).status is ChunkStatus.ROLLED_BACK
    for move in (store.start_chunk, store.roll_back_chunk):
        with pytest.raises(IllegalMove):
            move(done.audit_id)


def test_unknown_chunk(store):
    with pytest.raises(StateConflict, match="AUDIT_ID 77"):
        store.start_chunk(77)


def test_failed_records_fit_their_columns_and_keep_the_whole_key(store):
    keys = ["short", "ก" * 60, "ก" * 60 + "x", None, "", "(null key) row 3", "x" * 100, "x" * 68 + "~" + "0" * 32]
    [chunk] = plan_chunks(store)
    frame = make_failed(keys, code="C" * 80, message="ก" * 2000).with_columns(fields=pl.lit("ข" * 400))
    settle(store, chunk.audit_id, failed=frame)
    records = store.failed_records("B1")
    # An empty key is none, as on Oracle.
    assert [record.record_key for record in records] == [key or None for key in keys]
    ids = [record.record_id for record in records]
    assert len(set(ids)) == len(keys)
    assert (ids[0], ids[3], ids[4], ids[6]) == ("short", "(null key) row 3", "(null key) row 4", "x" * 100)
    assert max(len(record.record_id.encode()) for record in records) <= 100
    assert ids[1].startswith("ก" * 22 + "~")
    assert (records[0].code, records[0].message, records[0].fields) == ("C" * 50, "ก" * 1333, "ข" * 333)
    assert (records[0].retry_count, records[0].resolved, records[0].created) == (0, False, BEGAN)


def test_failed_records_of_one_chunk_are_replaced_and_others_stay(store):
    one, two = plan_chunks(store, 2)
    settle(store, one.audit_id, failed=make_failed([f"a{n}" for n in range(10)]))
    settle(store, two.audit_id, failed=make_failed([f"b{n}" for n in range(8)]))
    store.start_chunk(one.audit_id)
    store.settle_chunk(
        one.audit_id,
        status=ChunkStatus.PARTIAL,
        counts=make_counts(make_staged(), failed=1),
        failed=make_failed(["a3", "a5"]),
        **SEAL,
    )
    keys = [record.record_key for record in store.failed_records("B1")]
    assert keys == [*(f"b{n}" for n in range(8)), "a3", "a5"]
    store.start_chunk(one.audit_id)
    store.settle_chunk(one.audit_id, status=ChunkStatus.PARTIAL, counts=make_counts(make_staged()), **SEAL)
    assert len(store.failed_records("B1")) == 8
    assert len(store.failed_records("B1", table="KPS_T_SALES_MD", code="STRING_TOO_LONG", limit=3)) == 3
    assert store.failed_records("B1", code="OTHER") == store.failed_records("B1", table="OTHER") == []


def test_frame_without_a_column_is_refused_and_nothing_is_settled(store):
    [chunk] = plan_chunks(store)
    with pytest.raises(ValueError, match="lack the columns data"):
        settle(store, chunk.audit_id, failed=make_failed(["a"] * 7).drop("data"))
    assert store.chunk(chunk.audit_id).status is ChunkStatus.RUNNING
    assert store.failed_records("B1") == []


def test_hundred_thousand_failed_records(store):
    rows = 100_000
    [chunk] = plan_chunks(store)
    frame = make_failed([f"2026|{n:08d}" for n in range(rows)])
    settle(store, chunk.audit_id, staged=make_staged(transformed=rows, rejected=0, duplicate=0), failed=frame)
    [group] = store.failed_summary("B1")
    assert group.count == rows
    assert store.verify_journal() == []


def test_refused_rows_by_group_and_by_whole_key(store):
    [chunk] = plan_chunks(store)
    frame = pl.concat(
        [
            make_failed(["a", "ก" * 60, None]),
            make_failed(["v"], code="FIELD_CUSTOM_VALIDATION_EXCEPTION", message="no Sunday sales"),
            make_failed(["w"], code="FIELD_CUSTOM_VALIDATION_EXCEPTION", message="no night sales"),
        ]
    )
    settle(store, chunk.audit_id, failed=frame)
    groups = store.failure_groups("B1")
    assert (groups[0].code, groups[0].message, groups[0].rows) == ("STRING_TOO_LONG", "too long", 3)
    assert {(one.message, one.rows, one.record_ids) for one in groups[1:]} == {
        ("no Sunday sales", 1, ("v",)),
        ("no night sales", 1, ("w",)),
    }
    assert len(groups[0].record_ids) == 3
    keys = [(key, code) for _, key, code in store.failed_keys("B1")]
    assert [key for key, _ in keys] == ["a", "ก" * 60, "(null key) row 2", "v", "w"]
