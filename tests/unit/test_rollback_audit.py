"""Rollbacks in the audit database: steps told once, one at a time, rows that count after a reload."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.unit.audit_fixtures import StillClock, make_part, make_staged, open_store, plan_chunks, settle

from forcelift.audit import AuditStore, tables
from forcelift.audit.records import ChunkStatus
from forcelift.audit.undo_records import RollbackChunk
from forcelift.errors import StateConflict

SCOPE = {"tables": [], "chunks": [], "hard": False}
SEAL = {"ledger_file": "ledger/g03.parquet", "ledger_sha256": "ef" * 32}


@pytest.fixture
def store() -> Iterator[AuditStore]:
    with open_store(StillClock()) as store:
        yield store


def begin(store: AuditStore, audit_ids: list[int]) -> int:
    rollback = store.begin_rollback("B1", scope=SCOPE, reason="wrong prices", by="somebody")
    sealed = [
        RollbackChunk(
            rollback_no=rollback.rollback_no,
            audit_id=audit_id,
            decisions_file=f"d{audit_id}.parquet",
            decisions_sha256="aa" * 32,
            restores=(),
            deletes=(make_part(3, file=f"delete{audit_id}.csv"),),
        )
        for audit_id in audit_ids
    ]
    store.seal_rollback(rollback.rollback_no, sealed, {})
    return rollback.rollback_no


def steps(store: AuditStore) -> list[int]:
    with store.read() as connection:
        rows = connection.execute(tables.journal.select().order_by(tables.journal.c.seq)).mappings()
        return [json.loads(row["payload"])["step"] for row in rows if row["action"] == "rollback_step"]


def test_one_rollback_at_a_time_and_each_step_told_once(store: AuditStore) -> None:
    [chunk] = plan_chunks(store)
    settle(store, chunk.audit_id, staged=make_staged(rejected=0))
    number = begin(store, [chunk.audit_id])
    assert store.rollback_step(number, 5, {}).step == 5
    assert store.rollback_step(number, 5, {}).step == 5
    assert store.rollback_step(number, 2, {}).step == 5
    store.seal_rollback(number, [], {})  # decided once
    assert [one.audit_id for one in store.rollback_chunks(number)] == [chunk.audit_id]
    assert steps(store) == [3, 4, 5]
    with pytest.raises(StateConflict, match="is not through"):
        store.begin_rollback("B1", scope=SCOPE, reason="another", by="somebody")
    store.end_rollback(number, {"chunks": 1})
    assert store.open_rollback("B1") is None
    assert store.begin_rollback("B1", scope=SCOPE, reason="another", by="somebody").rollback_no > number
    assert store.verify_journal() == []


def test_only_what_was_undone_wholly_is_rolled_back_and_loaded_anew(store: AuditStore) -> None:
    whole, part = plan_chunks(store, 2)
    for chunk in (whole, part):
        settle(store, chunk.audit_id, staged=make_staged(rejected=0))
    number = begin(store, [whole.audit_id, part.audit_id])
    counts = {"rolled_back": 90, "kept": 0, "left": 0}
    undone = store.settle_rollback(number, whole.audit_id, **SEAL, counts=counts)
    kept = store.settle_rollback(number, part.audit_id, **SEAL, counts={**counts, "kept": 2})
    assert (undone.status, kept.status) == (ChunkStatus.ROLLED_BACK, ChunkStatus.SUCCESS)
    assert "2 records that were kept" in (kept.error_message or "")
    again = store.settle_rollback(number, whole.audit_id, **SEAL, counts=counts)
    assert again.generation == undone.generation, "written down twice"

    assert store.renew_rolled_back("B1", "somebody") == 1
    assert store.renew_rolled_back("B1", "somebody") == 0
    counting = {chunk.chunk_no: chunk for chunk in store.chunks("B1")}
    assert {number: chunk.status for number, chunk in counting.items()} == {
        whole.chunk_no: ChunkStatus.PENDING,
        part.chunk_no: ChunkStatus.SUCCESS,
    }
    assert counting[whole.chunk_no].audit_id != whole.audit_id
    assert counting[whole.chunk_no].generation > undone.generation, "a file of the ledger would be written over"
    every = store.chunks("B1", with_superseded=True)
    assert [chunk.status for chunk in every if chunk.superseded] == [ChunkStatus.ROLLED_BACK]
    assert sum(total.source for total in store.totals("B1")) == kept.source_count
    assert store.verify_journal() == []


def test_the_first_image_of_a_chunk_counts(store: AuditStore) -> None:
    [chunk] = plan_chunks(store)
    assert store.image(chunk.audit_id) is None
    store.start_chunk(chunk.audit_id)
    first = store.record_image(chunk.audit_id, file="images/one.parquet", sha256="aa" * 32, rows=4)
    assert store.record_image(chunk.audit_id, file="images/two.parquet", sha256="bb" * 32, rows=5) == first
    assert store.images("B1") == {chunk.audit_id: first}
    decided = store.decide_images("B1", chunk.table_name, held_records=True)
    assert store.decide_images("B1", chunk.table_name, held_records=False) == decided
