"""`check`'s look at fields: what the compiler takes is no failure, and what is filled is known to be."""

from __future__ import annotations

from typing import Any, cast

import pytest
from msgspec.structs import replace

from forcelift.before.check.fit import field_security, required_fields
from forcelift.before.check.model import Verdict
from forcelift.plan import TablePlan
from forcelift.protocols.org import FieldDescribe, ObjectDescribe

ITEM = TablePlan.model_validate(
    {
        "table": "items",
        "object": "Item__c",
        "key": ["item_id"],
        "external_id": "Item_Id__c",
        "fields": {"order_no": {"field": "Order__r.Order_No__c"}},
    }
)
PARENT = FieldDescribe(
    name="Order__c",
    label="Order",
    type="reference",
    updateable=False,
    cascade_delete=True,
    reference_to=("Order__c",),
    relationship_name="Order__r",
)
KEY = FieldDescribe(name="Item_Id__c", label="Item Id", type="string", external_id=True)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.PASS),
        ({"cascade_delete": False}, Verdict.FAIL),
        ({"createable": False}, Verdict.FAIL),
    ],
)
def test_a_parent_that_is_set_once_may_be_mapped(changes: dict[str, Any], verdict: Verdict) -> None:
    """A master-detail whose children keep their parent is createable and not updateable, and an upsert sets it."""
    fields = {field.name: field for field in (KEY, replace(PARENT, **changes))}
    describe = ObjectDescribe(name="Item__c", label="Item", key_prefix=None, fields=fields)
    result = field_security([ITEM], {"Item__c": describe}, cast(Any, None))
    assert result.verdict is verdict, result


def test_a_required_lookup_to_several_objects_is_known_to_be_filled() -> None:
    fields = {
        KEY.name: KEY,
        PARENT.name: replace(PARENT, nillable=False, updateable=True, reference_to=("Order__c", "Offer__c")),
    }
    describe = ObjectDescribe(name="Item__c", label="Item", key_prefix=None, fields=fields)
    named = ITEM.fields["order_no"].model_copy(update={"field": "Offer__c:Order__r.Offer_No__c"})
    filled = ITEM.model_copy(update={"fields": {"order_no": named}})
    assert required_fields([filled], {"Item__c": describe}).verdict is Verdict.PASS
    empty = ITEM.model_copy(update={"fields": {}})
    assert required_fields([empty], {"Item__c": describe}).verdict is Verdict.FAIL
