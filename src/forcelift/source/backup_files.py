"""Copies of files: whole, with a checksum of each, in a folder of their own.

Writes:  a folder beside its final name, with a manifest; fsync, rename. A crash leaves a folder that begins with a dot.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forcelift.errors import SourceError
from forcelift.protocols.backups import Copied, Room
from forcelift.source.backup_names import NOT_MADE, suffixed
from forcelift.source.file_table import FileTable, file_state, find_tables
from forcelift.source.files import FilesSource
from forcelift.source.names import unknown_table

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # the module is missing there

MANIFEST = "manifest.json"
_PIECE_BYTES = 1 << 20


class FileBackups:
    """Copies of the files of a folder, below another one.

    Args:
        folder: Where the tables' files are.
        into: Where copies go; made if it is missing.
        encoding: Encoding of CSV files, to count their rows.
    """

    kind = "files"
    has_flashback = False
    keeps_where = False

    def __init__(self, folder: Path, *, into: Path, encoding: str) -> None:
        self.folder, self.into = folder, into
        self._source = FilesSource(folder, encoding=encoding)

    def name_for(self, table: str, suffix: str) -> str:
        return suffixed(table, suffix, bytes_max=240)

    def exists(self, name: str) -> bool:
        return self._path(name).exists()

    def room(self, table: str) -> Room:
        there = self.into
        while not there.exists() and there != there.parent:
            there = there.parent
        needed = sum(file.stat().st_size for file in self._find(table).files)
        return Room(needed=needed, free=shutil.disk_usage(there).free, where=f"the disk of `{self.into}`")

    def copy(self, table: str, *, name: str, where: str | None, as_of: str | None) -> Copied:
        """Copy all files of the table; a copy is read once more and must have the same checksum."""
        found = self._find(table)
        rows = self._source.count(table, where=None)
        final = self._path(name)
        partial = final.with_name(f".{final.name}.tmp")
        try:
            self.into.mkdir(parents=True, exist_ok=True)
            with _alone(self.into):
                if final.exists():
                    raise SourceError(
                        f"another process has made `{final}` meanwhile",
                        state="no copy was made by this one, and what is there was not touched",
                        hint="give the copy another name by `--name`",
                    )
                return self._copy_alone(table, found, rows, partial=partial, final=final)
        except OSError as error:
            raise SourceError(
                f"table `{table}` cannot be copied to `{final}`: {error.strerror}",
                state=NOT_MADE,
                hint="see that the folder may be written and its disk has room",
            ) from error

    def _copy_alone(self, table: str, found: FileTable, rows: int, *, partial: Path, final: Path) -> Copied:
        """What a process that was killed left of a copy of this name is taken away first; nobody else is at it."""
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        try:
            files = {file.name: _copy(file, partial / file.name) for file in found.files}
            manifest = json.dumps({"table": table, "rows": rows, "sha256": files}, ensure_ascii=False, indent=2)
            _write(partial / MANIFEST, manifest.encode())
            _sync_folder(partial)
            partial.rename(final)
            try:
                _sync_folder(final.parent)
            except BaseException:
                final.rename(partial)  # nothing that is told as failed stays under its name
                raise
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return Copied(
            rows=rows, source_rows=rows, is_one_state=True, checksum=hashlib.sha256(manifest.encode()).hexdigest()
        )

    def count(self, name: str) -> int:
        """Rows that the manifest tells, once every file has its checksum."""
        path = self._path(name)
        try:
            manifest = json.loads((path / MANIFEST).read_bytes())
            changed = [file for file, digest in manifest["sha256"].items() if _digest(path / file) != digest]
        except (OSError, ValueError, KeyError) as error:
            raise SourceError(f"the copy `{path}` cannot be read", state="nothing was changed in it") from error
        if changed:
            raise SourceError(
                f"`{changed[0]}` of the copy `{path}` was changed: its checksum differs",
                state="nothing was changed in it",
            )
        return int(manifest["rows"])

    def drop(self, name: str) -> None:
        """Renamed first: a crash leaves a folder that begins with a dot, and no half of a copy."""
        path = self._path(name)
        doomed = path.with_name(f".{path.name}.tmp")
        with _alone(self.into):
            shutil.rmtree(doomed, ignore_errors=True)
            path.rename(doomed)
            shutil.rmtree(doomed)

    def close(self) -> None:
        self._source.close()

    def _find(self, table: str) -> FileTable:
        tables = find_tables(self.folder)
        if table not in tables:
            raise unknown_table(table, sorted(tables), place=f"`{self.folder}`")
        return tables[table]

    def _path(self, name: str) -> Path:
        if not name or name.startswith(".") or "/" in name or os.sep in name or "\0" in name:
            raise SourceError(f"`{name}` is no name of a folder", state=NOT_MADE, hint="give another by `--name`")
        return self.into / name


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only process that makes or drops copies below a folder; waits for its turn."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _copy(file: Path, target: Path) -> str:
    """Copy one file and force it to the disk. Returns its checksum; raises `SourceError` if it changed meanwhile."""
    before = file_state(file)
    digest = hashlib.sha256()
    with file.open("rb") as reading, target.open("xb") as writing:
        os.fchmod(writing.fileno(), 0o600)
        while piece := reading.read(_PIECE_BYTES):
            digest.update(piece)
            writing.write(piece)
        writing.flush()
        os.fsync(writing.fileno())
    if file_state(file) != before:
        raise SourceError(f"`{file}` was changed while it was copied", state=NOT_MADE, hint="copy it once it rests")
    if _digest(target) != digest.hexdigest():
        raise SourceError(f"the copy of `{file}` differs from it", state=NOT_MADE, hint="look at the disk")
    return digest.hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as reading:
        return hashlib.file_digest(reading, "sha256").hexdigest()


def _write(file: Path, content: bytes) -> None:
    with file.open("xb") as writing:
        os.fchmod(writing.fileno(), 0o600)
        writing.write(content)
        writing.flush()
        os.fsync(writing.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
