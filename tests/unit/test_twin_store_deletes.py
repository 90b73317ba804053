"""Deletes and their way back: what falls along, what holds a record, what the recycle bin gives back and forgets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from tests.twin_store_support import records, run_job, write_csv

from forcelift.twin.clock import ManualClock
from forcelift.twin.ids import id18
from forcelift.twin.org import Options, TwinOrg
from forcelift.twin.recycle_bin import RecycleBin
from forcelift.twin.schema_file import schema_from_dict


def reference(target: str, **more: Any) -> dict[str, Any]:
    return {"type": "reference", "referenceTo": target, **more}


SCHEMA: dict[str, Any] = {
    "users": [{"username": "a@twin.example", "permissions": ["bulk_hard_delete"]}],
    "objects": {
        "Top__c": {
            "fields": {
                "Key__c": {"type": "string", "length": 9, "externalId": True, "unique": True},
                "Peer__c": reference("Top__c"),
            }
        },
        "Part__c": {
            "fields": {
                "Key__c": {"type": "string", "length": 9, "externalId": True, "unique": True},
                "Top__c": reference("Top__c", relationshipOrder=0),
            }
        },
        "Bit__c": {"fields": {"Part__c": reference("Part__c", relationshipOrder=0)}},
        "Note__c": {"fields": {"Top__c": reference("Top__c"), "Part__c": reference("Part__c")}},
        "Lock__c": {"fields": {"Bit__c": reference("Bit__c", restrictedDelete=True)}},
        "Need__c": {"fields": {"Top__c": reference("Top__c", required=True)}},
    },
}


@pytest.fixture
def org() -> Iterator[TwinOrg]:
    with TwinOrg.open(
        None, schema=schema_from_dict(SCHEMA), clock=ManualClock(), seed=7, options=Options(threads=1)
    ) as org:
        yield org


def insert(org: TwinOrg, name: str, **values: str) -> str:
    done = run_job(org, "insert", name, write_csv(list(values) or ["Name"], [list(values.values()) or ["x"]]))
    assert done.failed == []
    return done.saved[0]["sf__Id"]


def delete(org: TwinOrg, name: str, *ids: str, operation: str = "delete") -> dict[str, str]:
    """Errors by Id."""
    return run_job(org, operation, name, write_csv(["Id"], [[each] for each in ids])).errors("Id")


def live(org: TwinOrg, name: str) -> set[str]:
    return {row[0] for row in records(org, name, "Id")}


def back(org: TwinOrg, *ids: str) -> list[str | None]:
    results = RecycleBin(org).undelete(ids, user_id=org.users[0].id)
    return [None if result.error is None else result.error.status_code for result in results]


def test_an_undelete_brings_details_and_lookups_back(org: TwinOrg) -> None:
    top, other = insert(org, "Top__c", Key__c="t"), insert(org, "Top__c", Key__c="o")
    part = insert(org, "Part__c", Key__c="p", Top__c=top)
    bits = {insert(org, "Bit__c", Part__c=part) for _ in range(3)}
    lone = insert(org, "Bit__c", Part__c=part)
    note = insert(org, "Note__c", Top__c=top, Part__c=part)
    moved = insert(org, "Note__c", Top__c=top)
    assert delete(org, "Bit__c", lone) == {}
    assert delete(org, "Top__c", top) == {}
    assert (live(org, "Top__c"), live(org, "Part__c"), live(org, "Bit__c")) == ({other}, set(), set())
    assert records(org, "Note__c", "Top__c", "Part__c") == [(None, None), (None, None)]
    run_job(org, "update", "Note__c", write_csv(["Id", "Top__c"], [[moved, other]]))
    assert back(org, part) == ["UNDELETE_FAILED"]  # its master is deleted
    assert back(org, top[:15]) == [None]
    assert (live(org, "Top__c"), live(org, "Part__c"), live(org, "Bit__c")) == ({top, other}, {part}, bits)
    assert records(org, "Note__c", "Id", "Top__c", "Part__c") == sorted([(note, top, part), (moved, other, None)])
    assert back(org, top, lone) == ["UNDELETE_FAILED", None]  # the one was not deleted; the other fell on its own
    assert live(org, "Bit__c") == {*bits, lone}


def test_ids_that_cannot_be_undeleted(org: TwinOrg) -> None:
    top = insert(org, "Top__c")
    assert back(org, "x", "zzz000000000001AAA", id18(top[:14] + "z")) == [
        "MALFORMED_ID",
        "MALFORMED_ID",
        "INVALID_CROSS_REFERENCE_KEY",
    ]


def test_a_unique_value_is_free_after_a_delete_and_then_bars_the_way_back(org: TwinOrg) -> None:
    first = insert(org, "Top__c", Key__c="same")
    assert delete(org, "Top__c", first) == {}
    second = insert(org, "Top__c", Key__c="SAME")
    assert back(org, first) == ["DUPLICATE_VALUE"]
    assert delete(org, "Top__c", second) == {}
    assert back(org, first) == [None]
    upsert = run_job(org, "upsert", "Top__c", write_csv(["Key__c", "Name"], [["same", "n"]]), key="Key__c")
    assert upsert.saved[0]["sf__Created"] == "false"
    assert upsert.saved[0]["sf__Id"] == first


def test_a_restricted_lookup_holds_the_master_of_its_target(org: TwinOrg) -> None:
    top = insert(org, "Top__c")
    free = insert(org, "Top__c")
    part = insert(org, "Part__c", Top__c=top)
    bit = insert(org, "Bit__c", Part__c=part)
    lock = insert(org, "Lock__c", Bit__c=bit)
    for name, record_id in (("Bit__c", bit), ("Part__c", part), ("Top__c", top)):
        errors = delete(org, name, record_id)
        assert errors[record_id].startswith("DELETE_FAILED:Your attempt to delete")
        assert "Lock" in errors[record_id]
    errors = delete(org, "Top__c", top, free, operation="hardDelete")
    assert set(errors) == {top}
    assert delete(org, "Lock__c", lock) == {}
    assert delete(org, "Top__c", top) == {}


def test_a_lookup_that_may_not_be_empty_holds_its_target(org: TwinOrg) -> None:
    top = insert(org, "Top__c")
    insert(org, "Need__c", Top__c=top)
    assert delete(org, "Top__c", top)[top].startswith("DELETE_FAILED:")


def test_what_is_deleted_together_keeps_its_lookups(org: TwinOrg) -> None:
    first = insert(org, "Top__c")
    second = insert(org, "Top__c", Peer__c=first)
    third = insert(org, "Top__c", Peer__c=first)
    assert delete(org, "Top__c", first, second) == {}
    held = dict(records(org, "Top__c", "Id", "Peer__c", where="true"))
    assert held == {first: None, second: first, third: None}
    assert back(org, first) == [None]
    assert dict(records(org, "Top__c", "Id", "Peer__c"))[third] == first


def test_a_hard_delete_takes_details_out_of_the_bin_too(org: TwinOrg) -> None:
    top = insert(org, "Top__c")
    part, binned = (insert(org, "Part__c", Top__c=top) for _ in range(2))
    assert delete(org, "Part__c", binned) == {}
    assert delete(org, "Top__c", top, operation="hardDelete") == {}
    assert records(org, "Part__c", "Id", where="true") == []
    assert part not in live(org, "Part__c")
    assert back(org, top) == ["INVALID_CROSS_REFERENCE_KEY"]


def test_the_bin_forgets_after_fifteen_days(org: TwinOrg) -> None:
    clock = org.clock
    assert isinstance(clock, ManualClock)
    top = insert(org, "Top__c")
    part = insert(org, "Part__c", Top__c=top)
    assert delete(org, "Top__c", top) == {}
    bin = RecycleBin(org)
    clock.advance(timedelta(days=14, hours=23))
    assert bin.purge_if_due() == 0
    clock.advance(timedelta(hours=1))
    assert bin.purge_if_due() == 2
    assert bin.purge_if_due() == 0
    assert records(org, "Top__c", "Id", where="true") == []
    assert back(org, top, part) == ["INVALID_CROSS_REFERENCE_KEY"] * 2
    with org.cursor() as cursor:
        assert cursor.execute("SELECT count(*) FROM meta.recycled").fetchone() == (0,)


def test_some_objects_take_more_storage_than_others() -> None:
    objects: dict[str, Any] = {name: {"fields": {}} for name in ("Account", "Campaign", "CampaignMember", "Product2")}
    with TwinOrg.open(None, schema=schema_from_dict({"objects": objects}), clock=ManualClock()) as org:
        left = [org.usage.records_left()]
        for name in ("Account", "Campaign", "Product2", "CampaignMember", "CampaignMember"):
            insert(org, name, Name="x")
            left.append(org.usage.records_left())
    assert [before - after for before, after in itertools.pairwise(left)] == [1, 4, 0, 1, 0]


def test_deleted_records_take_no_storage(org: TwinOrg) -> None:
    before = org.usage.records_left()
    ids = [insert(org, "Top__c") for _ in range(3)]
    assert org.usage.records_left() == before - 3  # 2 KB each
    assert delete(org, "Top__c", *ids[:2]) == {}
    assert org.usage.records_left() == before - 1
