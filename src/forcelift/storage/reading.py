"""Hand on a sealed file and prove its seal in the same pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from forcelift.storage.faults import changed, in_words
from forcelift.storage.protocol import Storage


def sealed_pieces(storage: Storage, name: str, *, size: int, sha256: str, piece_bytes: int) -> Iterator[bytes]:
    """The bytes of a sealed file, of which the last piece is given only after the whole has been found unchanged.

    So whoever is told the size beforehand never gets as much as that of a file that was changed.

    Args:
        size: What the file had when it was sealed.
        piece_bytes: Length of a piece; the last may be shorter.
    Raises:
        StorageError: The file is missing, cannot be read, or was changed after it was sealed.
    """
    seal = hashlib.sha256()
    read = 0
    held = b""
    with storage.open(name) as file:
        while True:
            with in_words(name, "read"):
                piece = file.read(piece_bytes)
            seal.update(piece)
            read += len(piece)
            if read > size or (not piece and seal.hexdigest() != sha256):
                raise changed(name, found=seal.hexdigest(), sealed=sha256)
            if held:
                yield held
            if not piece:
                return
            held = piece
