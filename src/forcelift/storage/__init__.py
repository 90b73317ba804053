"""Sealed files: staging, ledger, images and reports are kept here."""

from forcelift.storage.folder import FolderStorage, disk_of
from forcelift.storage.names import segment
from forcelift.storage.protocol import Disk, Sealed, SealedWriter, Storage, Usage
from forcelift.storage.reading import sealed_pieces

__all__ = ["Disk", "FolderStorage", "Sealed", "SealedWriter", "Storage", "Usage", "disk_of", "sealed_pieces", "segment"]
