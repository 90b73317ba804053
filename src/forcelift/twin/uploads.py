"""Uploads of jobs, kept as compressed pieces in the data file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from isal import isal_zlib

from forcelift.twin.errors import ApiError
from forcelift.twin.store import Store

PIECE_BYTES: Final = 4_000_000
# The limit holds for the upload in base64, four bytes for each three (salesforce-api reference, section 3.10).
ENCODED_BYTES_MAX: Final = 150_000_000


def store_upload(store: Store, chunks: Iterable[bytes]) -> int:
    """Store a body that comes in pieces, and tell its number.

    It belongs to no job until the caller says so. If the body breaks off, what came is removed and the error goes on.

    Raises:
        ApiError: 413 when it is larger than a job may be.
    """
    upload = store.take_numbers("upload")
    try:
        for piece, content in enumerate(_pieces(chunks)):
            with store.write_meta() as cursor:
                cursor.execute(
                    "INSERT INTO meta.upload_piece VALUES (?, ?, ?)", [upload, piece, isal_zlib.compress(content, 1)]
                )
    except BaseException:
        drop_upload(store, upload)
        raise
    return upload


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = total = 0
    for chunk in chunks:
        total += len(chunk)
        if (total + 2) // 3 * 4 > ENCODED_BYTES_MAX:
            raise ApiError(413, "EXCEEDED_MAX_SIZE_REQUEST", "The upload is larger than 150 MB once encoded in base64")
        waiting.append(bytes(chunk))
        size += len(chunk)
        if size >= PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def read_upload(store: Store, upload: int | None) -> bytes:
    """The whole body; empty if there was no PUT."""
    if upload is None:
        return b""
    with store.read() as cursor:
        rows = cursor.execute(
            "SELECT content FROM meta.upload_piece WHERE upload = ? ORDER BY piece", [upload]
        ).fetchall()
    return b"".join(isal_zlib.decompress(row[0]) for row in rows)


def drop_upload(store: Store, upload: int) -> None:
    with store.write_meta() as cursor:
        cursor.execute("DELETE FROM meta.upload_piece WHERE upload = ?", [upload])


def drop_orphans(store: Store) -> None:
    """Remove what no job names: pieces of a PUT that a kill cut off, outcomes of a job deleted while it ran.

    Only for a file that was just opened, when no PUT is under way.
    """
    with store.write_meta() as cursor:
        cursor.execute(
            "DELETE FROM meta.upload_piece WHERE upload NOT IN "
            "(SELECT upload FROM meta.ingest_job WHERE upload IS NOT NULL)"
        )
        for name in ("ingest_outcome", "ingest_batch"):
            cursor.execute(f"DELETE FROM meta.{name} WHERE job NOT IN (SELECT number FROM meta.ingest_job)")
