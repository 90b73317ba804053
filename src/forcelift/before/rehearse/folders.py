"""The folder of one rehearsal, and those that killed ones left behind.

Writes:  the folder, and beside it a lock that its process holds while it lives.
Re-run:  the next rehearsal removes folders whose process died; those that were to be kept stay.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from forcelift.errors import StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # the module is missing there

_LOCK: Final = ".lock"
_KEPT: Final = "kept"


@contextmanager
def scratch_folder(folder: Path, *, keep: bool) -> Iterator[None]:
    """Make a folder for as long as the block lasts, and remove those beside it whose processes died.

    Args:
        folder: A new one, readable by its owner alone.
        keep: Leave it at the end, and whenever others are removed.
    Raises:
        StorageError: It cannot be made.
    """
    lock = folder.with_name(folder.name + _LOCK)
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(folder.parent)
        # Before the folder: one without a lock that is held belongs to nobody.
        held = _locked(lock)
        folder.mkdir(mode=0o700)
        if keep:
            (folder / _KEPT).touch(mode=0o600)
    except OSError as error:
        raise StorageError(
            f"`{folder}` cannot be made: {error.strerror}", state="nothing was read", hint="check `staging`"
        ) from error
    try:
        yield
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)
        os.close(held)


def _locked(lock: Path) -> int:
    while True:
        held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        if fcntl is None:
            return held
        fcntl.flock(held, fcntl.LOCK_EX)
        # A sweep may have come between the two calls and taken the file away.
        if os.fstat(held).st_nlink:
            return held
        os.close(held)


def _sweep(parent: Path) -> None:
    names = {path.name.removesuffix(_LOCK) for path in parent.iterdir() if not path.is_symlink()}
    for name in sorted(names):
        path, lock = parent / name, parent / (name + _LOCK)
        if (path / _KEPT).exists() or not _is_dead(lock):
            continue
        shutil.rmtree(path, ignore_errors=True)
        lock.unlink(missing_ok=True)


def _is_dead(lock: Path) -> bool:
    """Whether no process holds the lock. Where there are no locks, nobody can tell, and nothing is removed."""
    if fcntl is None:
        return False
    try:
        found = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        with suppress(BlockingIOError):
            fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False
    finally:
        os.close(found)
