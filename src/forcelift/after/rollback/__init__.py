"""Undo a batch: delete the records that it created, put back those that it changed, keep what others touched since."""
