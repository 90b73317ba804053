"""Names in storage: relative POSIX paths that no table name can lead astray."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from urllib.parse import quote

from forcelift.errors import StorageError

_SEGMENT_BYTES = 120
TEMPORARY_SUFFIX = ".tmp"


def segment(text: str) -> str:
    """One segment of a name made from any text (a table, a batch): percent-encoded, never empty, never hidden.

    Texts that would be too long keep their start and get a hash; different texts give different segments.
    """
    # A dot is encoded too, so that neither `..` nor a temporary name can come of it, and `~` is left for the hash.
    encoded = quote(text, safe="").replace(".", "%2E").replace("~", "%7E") or "%"
    if len(encoded) <= _SEGMENT_BYTES:
        return encoded
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    return f"{encoded[: _SEGMENT_BYTES - 33]}~{digest}"


def checked_name(name: str) -> PurePosixPath:
    """The name as a path, or `StorageError` if it could lead out of the root or hides a temporary file."""
    parts = name.split("/")
    if not name or any(part in ("", ".", "..") for part in parts) or any(sign in name for sign in "\\\0:"):
        raise StorageError(
            f"`{name!r}` is no name of a file in storage: it must be a relative path without `..` or colons",
            state="nothing was read or written",
        )
    if is_temporary(parts[-1]):
        raise StorageError(f"`{name}` is the name of a file being written", state="nothing was read or written")
    return PurePosixPath(*parts)


def temporary_name(base: str, token: str) -> str:
    """The name of a file while it is written: in the same folder, hidden."""
    return f".{base[:200]}.{token}{TEMPORARY_SUFFIX}"


def is_temporary(base: str) -> bool:
    """Whether a file of that name is being written, or was when its writer died."""
    return base.startswith(".") and base.endswith(TEMPORARY_SUFFIX)
