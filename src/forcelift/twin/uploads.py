"""Uploads of jobs, each a file in a folder beside the data file; an org in memory has a temporary folder.

A body goes to the disk as it comes, so that its size costs no memory. A file gets its name when it is whole and synced.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from forcelift.twin.errors import ApiError, StoreError
from forcelift.twin.store import Store

# The limit holds for the upload in base64, four bytes for each three (salesforce-api reference, section 3.10).
ENCODED_BYTES_MAX: Final = 150_000_000
_WRITE_BYTES: Final = 1 << 20


def store_upload(store: Store, chunks: Iterable[bytes]) -> int:
    """Store a body that comes in pieces, and tell its number.

    It belongs to no job until the caller says so. If the body breaks off, what came is removed and the error goes on.

    Raises:
        ApiError: 413 when it is larger than a job may be.
    """
    number = store.take_numbers("upload")
    target = _path(store, number)
    part = target.with_suffix(".part")
    total = 0
    try:
        with part.open("wb", buffering=_WRITE_BYTES) as file:
            for chunk in chunks:
                total += len(chunk)
                if (total + 2) // 3 * 4 > ENCODED_BYTES_MAX:
                    message = "The upload is larger than 150 MB once encoded in base64"
                    raise ApiError(413, "EXCEEDED_MAX_SIZE_REQUEST", message)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        part.rename(target)
        _sync_folder(store.uploads)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return number


def read_upload(store: Store, upload: int | None) -> bytes:
    """The whole body; empty if there was no PUT.

    Raises:
        StoreError: The folder of uploads lacks it: the data file was copied or moved without that folder.
    """
    if upload is None:
        return b""
    try:
        return _path(store, upload).read_bytes()
    except FileNotFoundError as error:
        message = f"upload {upload} is not in `{store.uploads}`, which belongs to the twin's data file"
        raise StoreError(message) from error


def drop_uploads(store: Store, uploads: Iterable[int]) -> None:
    """Remove uploads that no job names any more."""
    for upload in uploads:
        _path(store, upload).unlink(missing_ok=True)


def drop_orphans(store: Store) -> None:
    """Remove what no job names: files of a PUT that a kill cut off, outcomes of a job deleted while it ran.

    Only for a file that was just opened, when no PUT is under way.
    """
    with store.write_meta() as cursor:
        rows = cursor.execute("SELECT upload FROM meta.ingest_job WHERE upload IS NOT NULL").fetchall()
        for name in ("ingest_outcome", "ingest_batch", "ingest_requeue"):
            cursor.execute(f"DELETE FROM meta.{name} WHERE job NOT IN (SELECT number FROM meta.ingest_job)")
    kept = {_path(store, int(row[0])) for row in rows}
    for file in store.uploads.iterdir():
        if file.suffix in (".csv", ".part") and file not in kept:
            file.unlink()


def _path(store: Store, upload: int) -> Path:
    return store.uploads / f"{upload}.csv"


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(PermissionError):  # Windows cannot open a folder; a rename is durable there anyhow.
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
