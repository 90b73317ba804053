"""The system's errors about files, put into words."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forcelift.errors import DiskFull, StorageError

_HINTS = {
    errno.ENOSPC: ("the disk is full", "free space or point `staging` elsewhere, then run the same command again"),
    errno.EDQUOT: ("the quota is used up", "free space or raise the quota, then run the same command again"),
    errno.EACCES: ("permission denied", "give this user the right to read and write that folder"),
    errno.EPERM: ("permission denied", "give this user the right to read and write that folder"),
    errno.EROFS: ("the disk may only be read", "point `staging` to a disk that may be written"),
    errno.ENOENT: ("it is missing", "put back the file from a copy, or begin a new batch"),
    errno.ENAMETOOLONG: ("the name is too long for this disk", "shorten the path of `staging`"),
}
_FULL = (errno.ENOSPC, errno.EDQUOT)


def _of_files() -> tuple[type[Exception], ...]:
    """The system's errors, and polars' where it is imported; where it is not, it cannot have raised any."""
    polars = sys.modules.get("polars.exceptions")
    return (OSError,) if polars is None else (OSError, polars.PolarsError)


def error_number(error: BaseException) -> int | None:
    """The system's error number, also of polars' errors, which carry it in their text only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error)) if isinstance(error, _of_files()) else None
    return int(found[1]) if found else None


def is_full(error: BaseException) -> bool:
    """Whether the disk or the quota had no room left."""
    return error_number(error) in _FULL


def storage_error(error: BaseException, name: str, verb: str) -> StorageError:
    """What a person reads about a file that cannot be written, read, ...: give it `error` as its cause."""
    number = error_number(error)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    cause, hint = _HINTS.get(number or 0, (reason, "look at the disk, then run the same command again"))
    kind = DiskFull if is_full(error) else StorageError
    return kind(
        f"`{name}` cannot be {verb}: {cause}",
        state="files that were complete before are whole; this one was not changed",
        hint=hint,
    )


@contextmanager
def in_words(name: str, verb: str) -> Iterator[None]:
    """Turn the system's errors inside the block into a `StorageError` about that file."""
    try:
        yield
    except _of_files() as error:
        if not isinstance(error, OSError) and error_number(error) is None:
            raise
        raise storage_error(error, name, verb) from error


def missing(name: str, root: Path) -> StorageError:
    """A file that should be there and is not."""
    return StorageError(
        f"the file `{name}` is missing in `{root}`",
        state="nothing was done with it",
        hint="put back the file from a copy, or begin a new batch",
    )


def changed(name: str, *, found: str, sealed: str) -> StorageError:
    """A file whose sha256 is not the one that was noted when it was sealed."""
    return StorageError(
        f"the file `{name}` was changed after it was sealed: its sha256 begins {found[:12]}, not {sealed[:12]}",
        state="nothing was done with it",
        hint="put back the file from a copy, or begin a new batch",
    )
