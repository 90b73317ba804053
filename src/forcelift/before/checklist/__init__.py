"""What has to be done before a migration, each with its evidence."""

from forcelift.before.checklist.items import (
    NAMES,
    TICKED,
    TITLES,
    Item,
    ItemState,
    Known,
    before_items,
    not_in_order,
)

__all__ = ["NAMES", "TICKED", "TITLES", "Item", "ItemState", "Known", "before_items", "not_in_order"]
