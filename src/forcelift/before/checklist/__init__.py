"""What has to be done before a migration, each with its evidence."""

from forcelift.before.checklist.items import (
    NAMES,
    PREPARE,
    TICKED,
    TITLES,
    Item,
    ItemState,
    Known,
    before_items,
    not_in_order,
)

__all__ = [
    "NAMES",
    "PREPARE",
    "TICKED",
    "TITLES",
    "Item",
    "ItemState",
    "Known",
    "before_items",
    "not_in_order",
]
