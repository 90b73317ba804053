"""Removing staged files that nobody needs any more: each failure is told in the journal and ends nothing.

The rows are settled by then; what could not be removed is tried again with the batch's whole folder at its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forcelift.errors import StorageError
from forcelift.storage import Storage

if TYPE_CHECKING:
    from forcelift.audit import AuditStore

REMOVED, LEFT = "staged_files_removed", "staged_files_left"
"""Actions of the journal."""


def remove_staged(audit: AuditStore, storage: Storage, batch_id: str, folder: str) -> int:
    """Remove all files below a folder; how many went. A failure is written down with its reason."""
    try:
        return storage.delete_tree(folder)
    except StorageError as error:
        audit.journal(LEFT, {"folder": folder, "reason": error.message}, batch_id=batch_id)
        return 0
