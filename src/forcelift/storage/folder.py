"""Storage in a folder of this machine.

Writes:  `.<name>.<random>.tmp` beside the final name; fsync, rename, fsync of the folder; files 0600, folders 0700.
Re-run:  a name written again replaces the earlier file; `sweep` removes what a crashed writer left.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from forcelift.errors import StorageError
from forcelift.storage.faults import changed, in_words, is_full, missing, storage_error
from forcelift.storage.names import checked_name, is_temporary, temporary_name
from forcelift.storage.protocol import Disk, Sealed, Usage

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # the module is missing there

Step = Callable[[str, str], None]
_PIECE_BYTES = 1 << 20


def _no_step(step: str, name: str) -> None:
    return None


class FolderStorage:
    """Sealed files below one folder, which is made if it is missing.

    Args:
        root: The folder.
        fsync: Whether files and folders are forced to the disk; only a simulation does without.
        on_step: Called with a step and a name around each durable step: `commit.before` (written, not yet under its
            name), `commit.renamed` (under its name, the folder not yet forced to disk), `commit.done`,
            `delete.before`, `delete.done`. What it raises stops the work there, as a crash would.
    """

    def __init__(self, root: Path, *, fsync: bool = True, on_step: Step = _no_step) -> None:
        self.root = Path(root)
        self._fsync = fsync
        self._on_step = on_step
        with in_words(str(self.root), "created"):
            self._make_folder(self.root)
        self._real_root = self.root.resolve()

    def write(self, name: str) -> FolderWriter:
        """Begin a file. Use as `with storage.write(name) as file:` and end with `file.commit()`."""
        path = self.path(name)
        with in_words(name, "written"):
            self._make_folder(path.parent)
            return FolderWriter(name, path, fsync=self._fsync, on_step=self._on_step)

    def path(self, name: str) -> Path:
        path = self._real_root / checked_name(name)
        # A link inside the root must not lead out of it.
        if not path.resolve().is_relative_to(self._real_root):
            raise StorageError(f"`{name}` leads out of the storage folder", state="nothing was read or written")
        return path

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        path = self.path(name)
        if not path.is_file():
            raise missing(name, self.root)
        yield path

    def open(self, name: str) -> BinaryIO:
        with in_words(name, "read"):
            return self.path(name).open("rb")

    def exists(self, name: str) -> bool:
        return self.path(name).is_file()

    def size(self, name: str) -> int:
        with in_words(name, "read"):
            return self.path(name).stat().st_size

    def delete(self, name: str) -> bool:
        path = self.path(name)
        self._on_step("delete.before", name)
        with in_words(name, "deleted"):
            existed = path.exists()
            path.unlink(missing_ok=True)
            if existed:
                self._sync_folder(path.parent)
        self._on_step("delete.done", name)
        return existed

    def delete_tree(self, prefix: str) -> int:
        path = self.path(prefix)
        if not path.exists():
            return 0
        import shutil  # with it come the libraries of all archives, and a look at files needs none

        self._on_step("delete.before", prefix)
        with in_words(prefix, "deleted"):
            count = sum(1 for _ in _files_below(path))
            shutil.rmtree(path)
            self._sync_folder(path.parent)
        self._on_step("delete.done", prefix)
        return count

    def list(self, prefix: str = "") -> tuple[str, ...]:
        with in_words(prefix or str(self.root), "listed"):
            below = _files_below(self.path(prefix) if prefix else self._real_root)
            return tuple(
                sorted(path.relative_to(self._real_root).as_posix() for path in below if not is_temporary(path.name))
            )

    def verify(self, name: str, sha256: str) -> None:
        with in_words(name, "read"):
            found = sha256_of(self.path(name))
        if found != sha256:
            raise changed(name, found=found, sealed=sha256)

    def sweep(self, prefix: str = "") -> int:
        removed = 0
        with in_words(prefix or str(self.root), "swept"):
            for path in _files_below(self.path(prefix) if prefix else self._real_root):
                if is_temporary(path.name) and _remove_abandoned(path):
                    removed += 1
        return removed

    def usage(self) -> Usage:
        import shutil

        with in_words(str(self.root), "measured"):
            used = 0
            for path in _files_below(self._real_root):
                # A file may go while we look.
                with suppress(FileNotFoundError):
                    used += path.lstat().st_size
            disk = shutil.disk_usage(self._real_root)
        return Usage(used, disk.total, disk.free)

    def disk(self) -> Disk:
        return disk_of(self._real_root)

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        # Another thread may have been quicker.
        folder.mkdir(mode=0o700, exist_ok=True)
        self._sync_folder(folder.parent)

    def _sync_folder(self, folder: Path) -> None:
        if self._fsync:
            sync_folder(folder)


class FolderWriter:
    """A file being written; leaving its `with` block without `commit` discards it."""

    def __init__(self, name: str, path: Path, *, fsync: bool, on_step: Step) -> None:
        self._name, self._final = name, path
        self._fsync, self._on_step = fsync, on_step
        self._temporary = path.with_name(temporary_name(path.name, secrets.token_hex(6)))
        self._file = os.fdopen(_create_locked(self._temporary), "wb")
        self._hash = hashlib.sha256()
        self._by_path = False
        self._committed = False

    def write(self, data: bytes | memoryview) -> int:
        with in_words(self._name, "written"):
            self._file.write(data)
        self._hash.update(data)
        return len(data)

    @property
    def path(self) -> Path:
        self._by_path = True
        with in_words(self._name, "written"):
            self._file.flush()
        return self._temporary

    def commit(self) -> Sealed:
        if self._committed:
            raise ValueError(f"`{self._name}` was committed already")
        with in_words(self._name, "written"):
            self._file.flush()
            sha256 = sha256_of(self._temporary) if self._by_path else self._hash.hexdigest()
            self._seal()
            size = self._temporary.stat().st_size
        self._on_step("commit.before", self._name)
        with in_words(self._name, "written"):
            os.replace(self._temporary, self._final)
            self._committed = True
            # Closed only now: until the rename, its lock keeps `sweep` away.
            self._file.close()
        self._on_step("commit.renamed", self._name)
        if self._fsync:
            with in_words(self._name, "written"):
                sync_folder(self._final.parent)
        self._on_step("commit.done", self._name)
        return Sealed(name=self._name, sha256=sha256, size=size)

    def _seal(self) -> None:
        # Whoever wrote by the path may have made a new file there: its mode and its bytes are what counts.
        descriptor = os.open(self._temporary, os.O_RDONLY)
        try:
            os.chmod(self._temporary, 0o600)
            if self._fsync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._committed:
            return
        # Closing writes what is still buffered, which fails again on a full disk; the file is thrown away anyhow.
        with suppress(OSError):
            self._file.close()
        with in_words(self._name, "discarded"):
            self._temporary.unlink(missing_ok=True)
        # Whoever wrote by the path (polars) met the full disk in words of its own.
        if error is not None and not isinstance(error, StorageError) and is_full(error):
            raise storage_error(error, self._name, "written") from error


def _create_locked(path: Path) -> int:
    """Create a file that nobody else can read, locked while it is open; the system frees the lock of a dead process."""
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        if fcntl is None:
            return descriptor
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # A sweep may have come between the two calls and taken the file away.
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def _remove_abandoned(path: Path) -> bool:
    """Remove a file unless a living process writes it; returns whether it is removed."""
    if fcntl is None:
        # There, the system itself refuses to remove a file that is open.
        with suppress(PermissionError):
            path.unlink(missing_ok=True)
            return True
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Removed while locked: a writer that has just made the file sees that it is gone once it gets the lock.
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex, read as a stream."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Force a folder's entries to the disk. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files_below(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
        return
    for parent, _, names in os.walk(folder):
        for name in names:
            yield Path(parent, name)


def disk_of(folder: Path) -> Disk:
    """The file system that a folder is on, or would be on once it is made."""
    import shutil  # with it come the libraries of all archives, and a look at files needs none

    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    with in_words(str(folder), "measured"):
        disk = shutil.disk_usage(there)
    # What the system keeps for its administrator is not counted as there, as in `df`.
    return Disk(total=disk.used + disk.free, free=disk.free)
