"""What has to be in place during a migration, each with its evidence."""

from forcelift.during.checklist.items import NAMES, TICKED, DuringKnown, during_items

__all__ = ["NAMES", "TICKED", "DuringKnown", "during_items"]
