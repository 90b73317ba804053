"""The journal's chain, and what it notices."""

from __future__ import annotations

import pytest
from tests.unit.audit_fixtures import StillClock, make_failed, open_store, plan_chunks, settle

from forcelift.audit.journal import FIRST_PREVIOUS


@pytest.fixture
def store():
    with open_store(StillClock()) as store:
        one, two = plan_chunks(store, 2)
        settle(store, one.audit_id, failed=make_failed(["a"] * 7))
        store.journal("governor", {"open": 5, "reason": "ก"}, batch_id="B1")
        store.start_chunk(two.audit_id)
        yield store


def change(store, statement: str) -> None:
    with store.write() as connection:
        assert connection.exec_driver_sql(statement).rowcount > 0


def test_empty_journal_is_whole():
    with open_store(StillClock()) as store:
        assert (store.journal_head().seq, store.journal_head().hash) == (0, FIRST_PREVIOUS)
        assert store.verify_journal() == []


def test_head_moves_with_every_row(store):
    before = store.journal_head()
    head = store.journal("noted", {"n": 1})
    assert head == store.journal_head()
    assert (head.seq, head.hash != before.hash) == (before.seq + 1, True)
    assert store.verify_journal() == []


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE journal SET payload = payload || ' ' WHERE seq = 3", "row 3 of the journal was changed"),
        ("UPDATE journal SET at = '2020' WHERE seq = 3", "row 3 of the journal was changed"),
        ("UPDATE journal SET action = 'x' WHERE seq = 3", "row 3 of the journal was changed"),
        ("UPDATE journal SET batch_id = NULL WHERE seq = 3", "row 3 of the journal was changed"),
        ("DELETE FROM journal WHERE seq = 3", "row 3 of the journal is missing"),
        ("DELETE FROM journal WHERE seq = (SELECT max(seq) FROM journal)", "but its recorded head is row"),
        ("DELETE FROM journal", "the journal ends with row 0"),
        ("UPDATE journal_head SET hash = 'x'", "but its recorded head is row"),
        ("UPDATE MIGRATION_AUDIT_LOG SET SUCCESS_COUNT = 91 WHERE AUDIT_ID = 1", "AUDIT_ID 1 was changed past"),
        ("UPDATE MIGRATION_AUDIT_LOG SET STATUS = 'SUCCESS' WHERE AUDIT_ID = 2", "AUDIT_ID 2 was changed past"),
    ],
)
def test_changes_past_the_program_are_found(store, statement, fault):
    assert store.verify_journal() == []
    change(store, statement)
    faults = store.verify_journal()
    assert any(fault in text for text in faults), faults


def test_row_whose_hash_was_made_to_fit_breaks_the_next(store):
    import hashlib

    from forcelift.audit.types import canonical_json

    with store.read() as connection:
        row = connection.exec_driver_sql("SELECT * FROM journal WHERE seq = 3").mappings().one()
    values = [row["seq"], row["at"], "forged", row["batch_id"], row["payload"]]
    forged = hashlib.sha256((row["previous"] + canonical_json(values)).encode()).hexdigest()
    change(store, f"UPDATE journal SET action = 'forged', hash = '{forged}' WHERE seq = 3")
    assert store.verify_journal() == ["row 4 of the journal does not follow the row before it"]


def test_a_purge_of_free_texts_leaves_the_chain_whole(store):
    with store.read() as connection:
        before = connection.exec_driver_sql("SELECT hash FROM journal ORDER BY seq").scalars().all()
    purge = store.begin_purge("B1", by="me", reason="retention")
    for chunk in store.chunks("B1"):
        store.purge_chunk(chunk.audit_id, ledger_file=None, ledger_sha256=None)
    store.end_purge(purge, result={"files": 0})
    assert store.verify_journal() == []
    with store.read() as connection:
        after = connection.exec_driver_sql("SELECT hash FROM journal ORDER BY seq").scalars().all()
        texts = "SELECT count(*) FROM MIGRATION_FAILED_RECORDS WHERE RECORD_DATA IS NOT NULL"
        assert connection.exec_driver_sql(texts).scalar_one() == 0
    assert after[: len(before)] == before


def test_journal_holds_no_keys_of_rows_and_no_messages(store):
    with store.read() as connection:
        text = "\n".join(connection.exec_driver_sql("SELECT payload FROM journal").scalars())
    assert '"failed_records":7' in text
    assert "too long" not in text
    assert "***" not in text
