"""The audit database under random histories: moves of status, the rolling day's budget, the journal's chain."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict, replace
from tests.unit.audit_fixtures import (
    BEGAN,
    StillClock,
    make_counts,
    make_draft,
    make_staged,
    make_table,
    open_store,
    plan_chunks,
)

from forcelift.audit.moves import CHUNK_MOVES
from forcelift.audit.records import BudgetRefused, ChunkStatus, IllegalMove

CLEAN, DIRTY = make_staged(rejected=0, duplicate=0), make_staged()
SEAL = {"ledger_file": "l", "ledger_sha256": "s"}
# The store lives as long as the module: each example works on a table or an org of its own.
SETTINGS = settings(deadline=None, max_examples=50)


@pytest.fixture(scope="module")
def clock():
    return StillClock()


@pytest.fixture(scope="module")
def store(clock):
    with open_store(clock) as store:
        plan_chunks(store, 1, name="FIRST")
        yield store


@pytest.fixture(scope="module")
def numbers():
    return itertools.count(1)


MOVES = {
    "start": ChunkStatus.RUNNING,
    "succeed": ChunkStatus.SUCCESS,
    "part": ChunkStatus.PARTIAL,
    "fail": ChunkStatus.FAILED,
    "skip": ChunkStatus.SKIPPED,
    "roll back": ChunkStatus.ROLLED_BACK,
}


def attempt(store, audit_id: int, move: str, staged) -> None:
    if move == "start":
        store.start_chunk(audit_id)
        if store.chunk(audit_id).staged is None:
            store.stage_chunk(audit_id, staged)
    elif move == "succeed":
        store.settle_chunk(audit_id, status=ChunkStatus.SUCCESS, counts=make_counts(CLEAN), **SEAL)
    elif move == "part":
        counts = make_counts(staged, failed=1)
        store.settle_chunk(audit_id, status=ChunkStatus.PARTIAL, counts=counts, **SEAL)
    elif move == "fail":
        store.fail_chunk(audit_id, "no")
    elif move == "roll back":
        store.roll_back_chunk(audit_id)


@SETTINGS
@given(moves=st.lists(st.sampled_from(sorted(MOVES)), max_size=12))
def test_status_only_moves_as_design_allows(store, numbers, moves):
    [chunk] = store.plan_table(make_table(name=f"T{next(numbers)}"), [({}, 1)])
    status = ChunkStatus.PENDING
    for move in moves:
        wanted = MOVES[move]
        if move == "skip":
            store.skip_chunks("B1", "stopped")
            status = wanted if status is ChunkStatus.PENDING else status
        elif wanted in CHUNK_MOVES[status]:
            attempt(store, chunk.audit_id, move, CLEAN)
            status = wanted
        else:
            before = store.chunk(chunk.audit_id)
            with pytest.raises(IllegalMove):
                attempt(store, chunk.audit_id, move, CLEAN)
            assert store.chunk(chunk.audit_id) == before
        assert store.chunk(chunk.audit_id).status is status
    assert store.verify_journal() == []


@SETTINGS
@given(
    spoil=st.dictionaries(
        st.sampled_from(["source", "extracted", "transformed", "skipped", "loaded", "success", "failed"]),
        st.integers(-3, 3),
        max_size=3,
    ),
    status=st.sampled_from([ChunkStatus.SUCCESS, ChunkStatus.PARTIAL]),
    failed=st.integers(0, 2),
    staged=st.sampled_from([CLEAN, DIRTY]),
)
def test_chunk_ends_well_exactly_if_its_sums_close(store, numbers, spoil, status, failed, staged):
    [chunk] = store.plan_table(make_table(name=f"S{next(numbers)}"), [({}, 1)])
    attempt(store, chunk.audit_id, "start", staged)
    counts = make_counts(staged, failed=failed)
    counts = replace(counts, **{name: asdict(counts)[name] + change for name, change in spoil.items()})
    closes = (
        counts.source == counts.extracted == counts.transformed + counts.skipped
        and counts.transformed == counts.loaded == counts.success + counts.failed
    )
    refused = counts.failed + staged.rejected
    if closes and (status is ChunkStatus.SUCCESS) == (refused == 0):
        assert store.settle_chunk(chunk.audit_id, status=status, counts=counts, **SEAL).status is status
    else:
        with pytest.raises(IllegalMove):
            store.settle_chunk(chunk.audit_id, status=status, counts=counts, **SEAL)
        assert store.chunk(chunk.audit_id).status is ChunkStatus.RUNNING


CAP_ROWS, CAP_BATCHES = 60_000, 8
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["intend", "intend", "intend", "abandon", "close"]),
        st.integers(5_000, 30_000),  # rows, or which job
        # Minutes that the clock moves before: a little, also back, or to about the same time of the next day.
        st.one_of(st.integers(-90, 90), st.integers(1380, 1450)),
    ),
    max_size=25,
)


@settings(SETTINGS, max_examples=100)
@given(events=EVENTS)
def test_no_rolling_day_ever_holds_more_than_the_allowance(store, clock, numbers, events):
    [chunk] = store.plan_table(make_table(name=f"B{next(numbers)}"), [({}, 1)])
    org_id = f"00D{next(numbers):012d}AAA"
    clock.at = BEGAN
    held = {}  # job number -> (time, rows, closed)
    for kind, number, minutes in events:
        clock.at += timedelta(minutes=minutes)
        if kind == "intend":
            made = store.intend_job(
                make_draft(chunk.audit_id, rows=number),
                org_id=org_id,
                rows_per_day=CAP_ROWS,
                batches_per_day=CAP_BATCHES,
                fence=0,
            )
            if isinstance(made, BudgetRefused):
                assert made.until > clock.at
            else:
                held[made.job_no] = (made.intended_at, number, False)
        elif held:
            job_no = sorted(held)[number % len(held)]
            at, rows, closed = held[job_no]
            if kind == "close" and not closed:
                store.job_created(job_no, f"750{job_no:012d}AAA")
                store.job_closed(job_no)
                held[job_no] = (at, rows, True)
            elif kind == "abandon" and not closed:
                store.job_abandoned(job_no, "given up")
                del held[job_no]
    for start, _, _ in held.values():
        day = [rows for at, rows, _ in held.values() if start <= at < start + timedelta(hours=24)]
        assert sum(day) <= CAP_ROWS
        assert sum(-(-rows // 10_000) for rows in day) <= CAP_BATCHES


@SETTINGS
@given(rows=st.lists(st.integers(1, 30_000), min_size=4, max_size=12), minutes=st.integers(0, 59))
def test_a_refused_job_fits_at_the_time_that_was_named(store, clock, numbers, rows, minutes):
    [chunk] = store.plan_table(make_table(name=f"R{next(numbers)}"), [({}, 1)])
    org_id = f"00D{next(numbers):012d}AAA"
    clock.at = BEGAN + timedelta(minutes=minutes)
    for number in rows:
        made = None
        while not made or isinstance(made, BudgetRefused):
            if made:
                assert made.until - clock.at <= timedelta(hours=25)
                clock.at = made.until
                refused_before = True
            else:
                refused_before = False
            made = store.intend_job(
                make_draft(chunk.audit_id, rows=number), org_id=org_id, rows_per_day=CAP_ROWS, fence=0
            )
            assert not (refused_before and isinstance(made, BudgetRefused))
        clock.move(minutes=7)


@pytest.fixture(scope="module")
def journal():
    with open_store(StillClock()) as store:
        for number in range(12):
            store.journal("noted", {"n": number, "text": "ก\U0001f600 ü"}, batch_id="B1" if number % 2 else None)
        yield store


@SETTINGS
@given(
    seq=st.integers(1, 12),
    column=st.sampled_from(["at", "action", "batch_id", "payload", "previous", "hash"]),
    place=st.integers(0, 200),
    letter=st.characters(codec="utf-8", exclude_characters="\0"),
)
def test_any_changed_letter_of_the_journal_is_noticed(journal, seq, column, place, letter):
    query, update = f"SELECT {column} FROM journal WHERE seq = ?", f"UPDATE journal SET {column} = ? WHERE seq = ?"
    with journal.read() as connection:
        old = connection.exec_driver_sql(query, (seq,)).scalar_one()
    text = old or ""
    place %= len(text) + 1
    for new in (text[:place] + letter + text[place + 1 :], text[:place] + letter + text[place:], text[:place]):
        if new == old:
            continue
        with journal.write() as connection:
            connection.exec_driver_sql(update, (new, seq))
        assert journal.verify_journal() != []
        with journal.write() as connection:
            connection.exec_driver_sql(update, (old, seq))
    assert journal.verify_journal() == []


@SETTINGS
@given(order=st.permutations(range(1, 13)))
def test_any_other_order_of_the_journal_is_noticed(journal, order):
    if order == sorted(order):
        return
    with journal.write() as connection:
        connection.exec_driver_sql("UPDATE journal SET seq = -seq")
        for old, new in enumerate(order, start=1):
            connection.exec_driver_sql("UPDATE journal SET seq = ? WHERE seq = ?", (new, -old))
    assert journal.verify_journal() != []
    with journal.write() as connection:
        connection.exec_driver_sql("UPDATE journal SET seq = -seq")
        for old, new in enumerate(order, start=1):
            connection.exec_driver_sql("UPDATE journal SET seq = ? WHERE seq = ?", (old, -new))
    assert journal.verify_journal() == []
