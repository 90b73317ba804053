"""Questions over ledger files whose answers are numbers. Out of core, and without a library for frames."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forcelift.errors import StorageError
from forcelift.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa


class LedgerCounts:
    """Ledger files in a storage, counted.

    Args:
        storage: Where they are kept.
        memory_mb: What questions over whole tables may use; beyond it they spill to disk.
        spill: A folder for that; a temporary one of the system if None.
    """

    def __init__(self, storage: Storage, *, memory_mb: int = 512, spill: Path | None = None) -> None:
        self._storage = storage
        self.memory_mb = memory_mb
        self._spill = spill

    def counts(self, files: Sequence[str]) -> dict[str, int]:
        """How many rows have each outcome; outcomes without rows are left out."""
        query = "SELECT outcome, count(*) FROM read_parquet($files) GROUP BY outcome ORDER BY outcome"
        return dict(self.ask(query, files)) if files else {}

    def failed_with_id(self, files: Sequence[str]) -> int:
        """How many failed rows have a record in the org all the same: loaded, but refused by a later job of theirs."""
        query = "SELECT count(*) FROM read_parquet($files) WHERE outcome = 'failed' AND id IS NOT NULL"
        return int(self.ask(query, files)[0][0]) if files else 0

    def paths(self, files: Sequence[str]) -> list[Path]:
        """Where these files lie on disk. Raises `StorageError` if one is missing."""
        missing = [name for name in files if not self._storage.exists(name)]
        if missing:
            raise StorageError(
                f"{len(missing)} of {len(files)} ledger files are missing; the first is `{missing[0]}`",
                state="nothing was done with the others",
                hint="put back the files from a copy",
            )
        return [self._storage.path(name) for name in files]

    def ask(
        self,
        query: str,
        files: Sequence[str],
        *,
        beside: Mapping[str, pa.RecordBatchReader] | None = None,
        **values: Any,
    ) -> list[Any]:
        """All rows of a query, in which `$files` are the patterns of these files; memory stays within `memory_mb`.

        `beside` are further tables that the query names.
        """
        # A batch that has settled nothing has nothing to count, and its status is shown without this library.
        from forcelift.embedded import connect

        # DuckDB reads patterns in names, too.
        paths = [glob.escape(str(path)) for path in self.paths(files)]
        import tempfile  # where all is counted already, nothing is asked

        with tempfile.TemporaryDirectory(prefix="forcelift-", dir=self._spill) as folder:
            settings: dict[str, str | bool | int] = {
                "memory_limit": f"{self.memory_mb}MB",
                "temp_directory": folder,
                "threads": 2,
            }
            with connect(config=settings) as connection:
                for name, rows in (beside or {}).items():
                    connection.register("given", rows)
                    connection.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM given")
                    connection.unregister("given")
                return connection.execute(query, {"files": paths, **values}).fetchall()
