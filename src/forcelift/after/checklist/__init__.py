"""What has to be done after a migration, each with its evidence."""

from forcelift.after.checklist.items import NAMES, AfterKnown, Checked, after_items

__all__ = ["NAMES", "AfterKnown", "Checked", "after_items"]
