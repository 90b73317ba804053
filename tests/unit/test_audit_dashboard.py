"""The checklist's three queries, run unchanged, against a computation of their own from the ledger."""

from __future__ import annotations

import random
import sqlite3
from datetime import UTC, datetime

import polars as pl
import pytest
from tests.unit import audit_checklist_sql as checklist
from tests.unit.audit_fixtures import StillClock, make_part, plan_chunks

from forcelift.audit import AuditStore
from forcelift.audit.records import Chunk, ChunkCounts, ChunkStatus, StagedChunk
from forcelift.audit.text import short_batch_id
from forcelift.ledger import LEDGER, Ledger
from forcelift.storage import FolderStorage

SEED = 20260301
BATCH = "manual__2026-03-01T08:30:00.000000+00:00__a_tail_beyond_fifty_bytes"
CODES = ("STRING_TOO_LONG", "UNABLE_TO_LOCK_ROW", "REJECTED_EMPTY")
TABLES = {"KPS_T_SALES_MD": 0.3, "KPS_M_TENANT": 0.0}


def make_ledger(rng: random.Random, rows: int, *, refused: float) -> pl.DataFrame:
    outcomes = rng.choices(
        ["created", "updated", "failed", "rejected", "duplicate"], [5, 3, refused, refused, 0.2], k=rows
    )
    codes = [rng.choice(CODES) if outcome in ("failed", "rejected") else None for outcome in outcomes]
    sent = [outcome in ("created", "updated", "failed") for outcome in outcomes]
    columns = {
        "row": list(range(rows)),
        "key": [f"K{number}" for number in range(rows)],
        "outcome": outcomes,
        "code": codes,
        "message": [code and f"{code}: {rng.randint(1, 9)}" for code in codes],
        "evidence": ["result" if was_sent else "rule" for was_sent in sent],
        "hash": [bytes(16) if was_sent else None for was_sent in sent],
    }
    return pl.DataFrame({name: columns.get(name, [None] * rows) for name in LEDGER}, schema=LEDGER)


def settle_from(store: AuditStore, ledger: Ledger, chunk: Chunk, lines: pl.DataFrame, clock: StillClock) -> Chunk:
    outcomes = dict(lines.group_by("outcome").len().iter_rows())
    rejected, duplicate, failed = (outcomes.get(name, 0) for name in ("rejected", "duplicate", "failed"))
    sent = lines.height - rejected - duplicate
    store.start_chunk(chunk.audit_id)
    store.stage_chunk(
        chunk.audit_id,
        StagedChunk(
            source_count=lines.height,
            extracted=lines.height,
            transformed=sent,
            rejected=rejected,
            duplicate=duplicate,
            parts=(make_part(sent),),
            rows_file="rows",
            refused_file=None,
            links_file=None,
            source_checksum="v1",
        ),
    )
    clock.move(seconds=1 + chunk.chunk_no * 2.25)
    sealed = ledger.write(chunk.batch_id, chunk.table_name, chunk.chunk_no, 0, lines)
    records = lines.filter(pl.col("outcome").is_in(["failed", "rejected"])).with_columns(data=pl.lit("{}"))
    return store.settle_chunk(
        chunk.audit_id,
        status=ChunkStatus.PARTIAL if failed + rejected else ChunkStatus.SUCCESS,
        counts=ChunkCounts(
            source=lines.height,
            extracted=lines.height,
            transformed=sent,
            skipped=rejected + duplicate,
            loaded=sent,
            success=sent - failed,
            failed=failed,
        ),
        ledger_file=sealed.name,
        ledger_sha256=sealed.sha256,
        failed=records,
    )


@pytest.fixture
def migration(tmp_path):
    """Two tables of five chunks, of which the last is left PENDING; another batch beside them."""
    rng, clock = random.Random(SEED), StillClock()
    file = tmp_path / "audit.db"
    ledger = Ledger(FolderStorage(tmp_path / "staging", fsync=False))
    with AuditStore.open(f"sqlite:///{file}", clock=clock) as store:
        for name, refused in TABLES.items():
            for chunk in plan_chunks(store, 5, batch_id=BATCH, name=name)[:4]:
                lines = make_ledger(rng, rng.randint(50, 200), refused=refused)
                settle_from(store, ledger, chunk, lines, clock)
        [other] = plan_chunks(store, batch_id="other")
        settle_from(store, ledger, other, make_ledger(rng, 77, refused=1), clock)
        yield store, ledger, file


def run_raw(file, statement: str) -> list[tuple]:
    """The statement as any SQLite client runs it."""
    connection = sqlite3.connect(file)
    try:
        return connection.execute(statement, {"current_batch_id": short_batch_id(BATCH)}).fetchall()
    finally:
        connection.close()


def ledger_lines(store, ledger) -> list[tuple[Chunk, pl.DataFrame]]:
    return [(chunk, ledger.scan([chunk.ledger_file]).collect()) for chunk in store.chunks(BATCH) if chunk.ledger_file]


def test_current_status(migration):
    store, ledger, file = migration
    groups: dict[tuple[str, str], list] = {}
    for chunk, lines in ledger_lines(store, ledger):
        status = "PARTIAL" if lines["outcome"].is_in(["failed", "rejected"]).any() else "SUCCESS"
        groups.setdefault((chunk.table_name, status), []).append((chunk, lines))
    expected = {
        (name, status): (
            len(group),
            source := sum(lines.height for _, lines in group),
            success := sum(lines["outcome"].is_in(["created", "updated"]).sum() for _, lines in group),
            sum((lines["outcome"] == "failed").sum() for _, lines in group),
            round(success / source * 100, 2),
            min(chunk.start_time for chunk, _ in group),
            max(chunk.end_time for chunk, _ in group),
        )
        for (name, status), group in groups.items()
    }
    pending = {(name, "PENDING"): (1, None, None, None, None, None, None) for name in TABLES}
    found = {
        (row.table_name, row.status): (
            row.chunks,
            row.total_source,
            row.total_success,
            row.total_failed,
            row.success_rate,
            row.started,
            row.last_update,
        )
        for row in store.status_rows(BATCH)
    }
    assert found == expected | pending
    raw = {
        (name, status): (*numbers, *(text and datetime.fromisoformat(text).replace(tzinfo=UTC) for text in times))
        for name, status, *numbers, started, last in run_raw(file, checklist.STATUS)
        for times in [(started, last)]
    }
    assert raw == expected | pending


def test_failed_records_summary(migration):
    store, ledger, file = migration
    refused = pl.concat(
        lines.filter(pl.col("code").is_not_null()).select(pl.lit(chunk.table_name).alias("table"), "code", "message")
        for chunk, lines in ledger_lines(store, ledger)
    )
    expected = {
        (table, code): (count, sample)
        for table, code, count, sample in refused.group_by("table", "code")
        .agg(pl.len(), pl.col("message").min().alias("sample"))
        .iter_rows()
    }
    found = store.failed_summary(BATCH)
    assert {(group.table_name, group.code): (group.count, group.sample_message) for group in found} == expected
    assert [group.count for group in found] == sorted((group.count for group in found), reverse=True)
    assert {
        (table, code): (count, sample) for table, code, count, sample in run_raw(file, checklist.FAILED)
    } == expected


def test_performance_metrics(migration):
    store, ledger, file = migration
    speeds: dict[str, list] = {}
    for chunk, lines in ledger_lines(store, ledger):
        if not lines["outcome"].is_in(["failed", "rejected"]).any():
            seconds = (chunk.end_time - chunk.start_time).total_seconds()
            speeds.setdefault(chunk.table_name, []).append((lines.height / seconds, seconds))
    expected = {
        name: (
            pytest.approx(sum(speed for speed, _ in values) / len(values), abs=0.51),
            pytest.approx(sum(seconds for _, seconds in values) / len(values), abs=0.051),
            max(seconds for _, seconds in values),
        )
        for name, values in speeds.items()
    }
    assert set(expected) == {"KPS_M_TENANT"}
    found = {
        row.table_name: (row.avg_records_per_sec, row.avg_chunk_duration, row.max_chunk_duration)
        for row in store.performance(BATCH)
    }
    assert found == expected
    assert {name: tuple(values) for name, *values in run_raw(file, checklist.PERFORMANCE)} == expected


def test_ninety_nine_of_a_hundred_is_ninety_nine(tmp_path):
    clock = StillClock()
    ledger = Ledger(FolderStorage(tmp_path, fsync=False))
    with AuditStore.open("sqlite://", clock=clock) as store:
        [chunk] = plan_chunks(store)
        lines = make_ledger(random.Random(SEED), 100, refused=0).with_columns(
            outcome=pl.when(pl.col("row") == 0).then(pl.lit("failed")).otherwise(pl.lit("created")),
            evidence=pl.lit("result"),
            hash=pl.lit(bytes(16)),
        )
        settle_from(store, ledger, chunk, lines, clock)
        [row] = store.status_rows("B1")
        assert (row.success_rate, type(row.total_success)) == (99.0, int)


def test_totals_close_over_all_chunks(migration):
    store, ledger, _ = migration
    totals = store.totals(BATCH)
    assert [(total.table_name, total.position) for total in totals] == [("KPS_T_SALES_MD", 1), ("KPS_M_TENANT", 2)]
    for total in totals:
        chunks = [chunk for chunk in store.chunks(BATCH, total.table_name) if chunk.ledger_file]
        outcomes = ledger.counts([chunk.ledger_file for chunk in chunks])
        assert total.chunks == 5
        assert sum(total.chunks_by_status.values()) == 5
        assert total.chunks_by_status[ChunkStatus.PENDING] == 1
        assert total.source == total.extracted == sum(outcomes.values())
        assert total.success == outcomes.get("created", 0) + outcomes.get("updated", 0)
        assert total.failed == outcomes.get("failed", 0)
        assert total.skipped == outcomes.get("rejected", 0) + outcomes.get("duplicate", 0)
        assert total.transformed == total.loaded == total.success + total.failed
        assert total.first_start == min(chunk.start_time for chunk in chunks)
        assert total.last_end == max(chunk.end_time for chunk in chunks)
    assert store.totals("no such batch") == store.status_rows("no such batch") == []


def test_records_of_another_batch_stay_out(migration):
    store, _, _ = migration
    mine = {record.failed_id for record in store.failed_records(BATCH, limit=10_000)}
    others = {record.failed_id for record in store.failed_records("other", limit=10_000)}
    assert mine
    assert others
    assert not mine & others
    assert len(mine) == sum(group.count for group in store.failed_summary(BATCH))
