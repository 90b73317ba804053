"""What has to be done before a migration, each with its evidence."""

from forcelift.before.checklist.items import (
    BACKUP,
    NAMES,
    PREPARE,
    TICKED,
    TITLES,
    DryRows,
    Item,
    ItemState,
    Known,
    before_items,
    filter_digest,
    not_in_order,
)

__all__ = [
    "BACKUP",
    "NAMES",
    "PREPARE",
    "TICKED",
    "TITLES",
    "DryRows",
    "Item",
    "ItemState",
    "Known",
    "before_items",
    "filter_digest",
    "not_in_order",
]
