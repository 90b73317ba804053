"""What `prepare` decides for each automation, and how long a key field has to be."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from msgspec.structs import replace

from forcelift.audit import OrgState
from forcelift.before.prepare import Decision, key_length, plan_prepare
from forcelift.errors import UsageError
from forcelift.protocols.setup import Automation, AutomationKind, Found, ItemName, ItemState
from forcelift.protocols.source import Column, ColumnKind

ITEM = ItemName(AutomationKind.VALIDATION_RULE, "Sale__c.No_Big")
RULE = Automation(item=ITEM, object="Sale__c", record_id="03d1", is_active=True)
ON = {"id": "03d1", "Metadata": {"active": True, "formula": "x"}}
OFF = {"id": "03d1", "Metadata": {"active": False, "formula": "x"}}
OTHER = {"id": "03d1", "Metadata": {"active": False, "formula": "y"}}
KNOWN = OrgState(
    state_no=1,
    org_id="00D1",
    kind="validation_rule",
    name="Sale__c.No_Big",
    object="Sale__c",
    before=ON,
    off=OFF,
    taken_at=datetime(2026, 1, 1, tzinfo=UTC),
    taken_by="somebody",
    writing_at=None,
    off_at=datetime(2026, 1, 1, tzinfo=UTC),
    stuck=None,
    holders=(),
)


def state(document: dict[str, object]) -> ItemState:
    metadata = document["Metadata"]
    assert isinstance(metadata, dict)
    return ItemState(item=ITEM, record_id="03d1", is_active=bool(metadata["active"]), document=document, acts="-")


def decision(
    automation: Automation, now: ItemState | None, *known: OrgState, leave_on: tuple[str, ...] = ()
) -> Decision:
    states = {ITEM: now} if now is not None else {}
    (item,) = plan_prepare(Found(automations=(automation,)), states, known, leave_on).items
    return item.decision


def test_what_is_active_is_switched_and_what_is_not_is_left() -> None:
    assert decision(RULE, state(ON)) is Decision.SWITCH
    assert decision(replace(RULE, is_active=False), None) is Decision.INACTIVE
    # A list may not tell, as of workflow rules; the whole state does.
    assert decision(replace(RULE, is_active=None), state(OFF)) is Decision.INACTIVE


def test_what_is_managed_is_never_switched() -> None:
    managed = replace(RULE, namespace="pkg")
    assert decision(managed, None) is Decision.MANAGED
    assert decision(replace(managed, is_active=False), None) is Decision.INACTIVE


def test_what_is_remembered_as_off_is_joined_switched_again_or_left_to_a_person() -> None:
    assert decision(RULE, state(OFF), KNOWN) is Decision.JOIN
    assert decision(RULE, state(ON), KNOWN) is Decision.SWITCH
    assert decision(RULE, state(OTHER), KNOWN) is Decision.CHANGED
    assert decision(RULE, None, KNOWN) is Decision.CHANGED


def test_what_a_lost_write_may_still_switch_on_is_switched_off_once_more() -> None:
    writing = replace(KNOWN, writing_at=datetime(2026, 1, 2, tzinfo=UTC))
    assert decision(RULE, state(OFF), writing) is Decision.SWITCH


@pytest.mark.parametrize("name", ["Sale__c.No_Big", "no_big", "SALE__C.NO_BIG"])
def test_names_to_leave_on_are_found_whole_or_without_the_object(name: str) -> None:
    assert decision(RULE, state(ON), leave_on=(name,)) is Decision.LEAVE


def test_a_name_to_leave_on_that_nothing_has_is_refused() -> None:
    with pytest.raises(UsageError, match="No_Bog"):
        decision(RULE, state(ON), leave_on=("No_Bog",))


def column(kind: ColumnKind, declared: str, precision: int | None = None) -> Column:
    return Column(name="C", kind=kind, declared=declared, arrow=pa.string(), precision=precision)


@pytest.mark.parametrize(
    ("columns", "length"),
    [
        ([column(ColumnKind.TEXT, "VARCHAR2(30 BYTE)")], 30),
        ([column(ColumnKind.TEXT, "text")], 255),
        ([column(ColumnKind.TEXT, "varchar(4000)")], 255),
        ([column(ColumnKind.INTEGER, "bigint")], 20),
        ([column(ColumnKind.DECIMAL, "NUMBER(10,0)", precision=10)], 12),
        ([column(ColumnKind.TEXT, "char(3)"), column(ColumnKind.INTEGER, "int")], 2 * 3 + 1 + 2 * 20),
    ],
)
def test_a_key_field_has_room_for_the_longest_key(columns: list[Column], length: int) -> None:
    assert key_length(columns) == length
