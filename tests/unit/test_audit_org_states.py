"""What the audit database remembers of automations that were switched off: states, holders, ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.unit.audit_fixtures import ORG, StillClock, open_store

from forcelift.audit import AuditStore, Holder, NewState, digest

ON = {"id": "03d1", "Metadata": {"active": True, "text": "ราคา & 'quoted'"}}
OFF = {"id": "03d1", "Metadata": {"active": False, "text": "ราคา & 'quoted'"}}
NEW = NewState(kind="validation_rule", name="Sale__c.No_Big", object="Sale__c", before=ON, off=OFF)
FIRST = Holder(kind="batch", name="first", by="tests")
SECOND = Holder(kind="prepare", name="first", by="tests")  # the same name, of another kind


@pytest.fixture
def store() -> Iterator[AuditStore]:
    with open_store(StillClock()) as opened:
        yield opened


def test_a_state_is_remembered_once_and_held_by_all_who_want_it(store: AuditStore) -> None:
    (taken,) = store.take_states(ORG, [NEW], FIRST)
    assert (taken.before, taken.off, taken.off_at) == (ON, OFF, None)
    later = NewState(kind=NEW.kind, name=NEW.name, object=NEW.object, before=OFF, off=OFF)
    (joined,) = store.take_states(ORG, [later], SECOND)
    assert joined.before == ON, "what the first one found stands"
    assert {holder.key for holder in joined.holders} == {FIRST.key, SECOND.key}
    store.release_holder(ORG, FIRST, by="tests")
    (left,) = store.open_states(ORG)
    assert [holder.key for holder in left.holders] == [SECOND.key]
    assert store.has_held(FIRST)
    (again,) = store.take_states(ORG, [NEW], FIRST)
    assert {holder.key for holder in again.holders} == {FIRST.key, SECOND.key}
    store.release_holder(ORG, FIRST, by="tests")
    store.release_holder(ORG, SECOND, by="tests")
    store.state_ended(again, "restored", by="tests", proof=digest(ON))


def test_a_write_is_under_way_until_it_is_read_back_or_refused(store: AuditStore) -> None:
    (taken,) = store.take_states(ORG, [NEW], FIRST)
    store.state_writing(taken, OFF, why="switch off", batch_id=None)
    assert store.open_states(ORG)[0].writing_at is not None
    store.state_refused(taken, "no", batch_id=None)
    assert store.open_states(ORG)[0].writing_at is None
    store.state_writing(taken, OFF, why="switch off", batch_id=None)
    store.state_is_off(taken, OFF, batch_id=None)
    (off,) = store.open_states(ORG)
    assert off.writing_at is None
    assert off.off_at is not None
    store.state_stuck(off, "x" * 5000)
    assert len(store.open_states(ORG)[0].stuck or "") == 1000
    store.state_ended(off, "restored", by="tests", proof=digest(ON))
    assert store.open_states(ORG) == []


def test_an_ended_state_is_taken_anew(store: AuditStore) -> None:
    (first,) = store.take_states(ORG, [NEW], FIRST)
    store.state_ended(first, "found", by="tests", proof=digest(ON))
    (second,) = store.take_states(ORG, [NEW], FIRST)
    assert second.state_no != first.state_no
    assert store.open_states("00D000000000002AAA") == []
    store.state_ended(second, "kept", by="tests", proof=digest(OFF))


def test_the_journal_has_digests_and_no_contents(store: AuditStore) -> None:
    (taken,) = store.take_states(ORG, [NEW], FIRST)
    store.state_ended(taken, "restored", by="tests", proof=digest(ON))
    with store.read() as connection:
        text = " ".join(row[0] for row in connection.exec_driver_sql("SELECT payload FROM journal"))
    assert digest(ON) in text
    assert "ราคา" not in text
    assert store.verify_journal() == []
