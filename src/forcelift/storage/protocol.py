"""What staging, ledger, images and reports ask of the place that holds their files.

A file is written under a temporary name and appears under its own, whole and sealed, or not at all.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Protocol, Self

from msgspec import Struct


class Sealed(Struct, frozen=True, kw_only=True):
    """A file that is complete and durable."""

    name: str
    sha256: str
    size: int


class Usage(NamedTuple):
    """Bytes: of the files below the root, of the disk that holds them, and still free on it for this user."""

    used: int
    disk_total: int
    disk_free: int


class Disk(Struct, frozen=True, kw_only=True):
    """The file system that holds the files, in bytes: what this user may use in all, and what is still free of it."""

    total: int
    free: int


class SealedWriter(Protocol):
    """A file being written; leaving its `with` block without `commit` discards it."""

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes; returns how many, as binary files do."""
        ...

    @property
    def path(self) -> Path:
        """The temporary file, for writers that want a path. Its content is then read once more to be sealed."""
        ...

    def commit(self) -> Sealed:
        """Make the file durable under its own name, in place of an earlier one of that name."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Storage(Protocol):
    """A place for sealed files. Names are relative POSIX paths. Methods may be called from several threads at once.

    Raises (all methods): `StorageError` if the place cannot be read or written, the file is missing, or the name leads
    out of the root.
    """

    def write(self, name: str) -> SealedWriter: ...

    def path(self, name: str) -> Path:
        """Where the file can be read on this machine."""
        ...

    def local(self, name: str) -> AbstractContextManager[Path]:
        """The file as a local one while the block lasts; an object store fetches it."""
        ...

    def open(self, name: str) -> BinaryIO: ...

    def exists(self, name: str) -> bool: ...

    def size(self, name: str) -> int: ...

    def delete(self, name: str) -> bool:
        """Remove a file; False if it was not there."""
        ...

    def delete_tree(self, prefix: str) -> int:
        """Remove all files below a folder, and the folder; returns how many files."""
        ...

    def list(self, prefix: str = "") -> tuple[str, ...]:
        """Names of all files below a folder, sorted; files being written are left out."""
        ...

    def verify(self, name: str, sha256: str) -> None:
        """Raise `StorageError` unless the file has that seal."""
        ...

    def sweep(self, prefix: str = "") -> int:
        """Remove what crashed writers left below a folder; returns how many files. Files that a living writer, of
        this process or another, is at work on are left."""
        ...

    def usage(self) -> Usage: ...

    def disk(self) -> Disk:
        """How full the file system is; cheap, unlike `usage`."""
        ...
