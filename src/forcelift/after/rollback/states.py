"""Records by their Ids, as they stand in the org now, in as few and as narrow queries as their Ids allow.

Reads:   the org, by bulk query.
Writes:  a database of records in a temporary folder, where one query serves all chunks of a table.

What a chunk created lies close together, and a range of Ids fetches little else. What it changed may lie anywhere: a
range for each chunk would fetch the whole object as often as there are chunks. Then the table's records are fetched
once and parted by chunk on the disk.
"""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import duckdb
import polars as pl

from forcelift.audit.records import Chunk
from forcelift.embedded import connect
from forcelift.jobs.by_ids import IN_LIST_MAX, LISTS_MAX, SPREAD_MAX, conditions, ranged, span
from forcelift.jobs.org_pages import save_query
from forcelift.ledger import Ledger
from forcelift.protocols.org import Org
from forcelift.storage import Storage

TABLE_LISTS_MAX: Final = 500
"""Lists for all chunks of a table together, at most, before it is fetched once for all."""

JOB_ROWS: Final = 20_000
"""A query job takes about as long as so many records of a longer one."""

OVERLAP_MAX: Final = 2
"""How many times the cost of one question for a table its chunks' own ones may have."""

MEMORY_MB: Final = 256


class States:
    """The records of some chunks. Used as a context; what it fetched for several chunks lies in a temporary folder.

    Args:
        ledgers: By table, the chunks that will be asked for.
        columns: By table, the columns that may be asked for.
        objects: By table, its object.
    """

    def __init__(
        self,
        *,
        org: Org,
        storage: Storage,
        ledger: Ledger,
        scratch: Path,
        chunks: Mapping[str, Sequence[Chunk]],
        columns: Mapping[str, Sequence[str]],
        objects: Mapping[str, str],
    ) -> None:
        self._org, self._storage, self._ledger, self._scratch = org, storage, ledger, scratch
        self._chunks, self._columns, self._objects = chunks, columns, objects
        self._together: dict[str, duckdb.DuckDBPyConnection | None] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self, chunk: Chunk, name: str, ids: pl.Series, columns: Sequence[str]) -> pl.DataFrame:
        """The records of a chunk with these Ids; those that are gone have no line.

        Args:
            name: A name in storage, of a file that does not outlast the call.
        """
        if ids.len() == 0:
            return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
        wanted = ids.alias("Id").to_frame()
        together = self._of_table(chunk.table_name)
        if together is not None:
            listed = ", ".join(f'"{column}"' for column in columns)
            found = pl.from_arrow(
                together.sql(
                    f"SELECT {listed} FROM parted WHERE audit_id = $audit_id", params={"audit_id": chunk.audit_id}
                ).to_arrow_table()
            )
            assert isinstance(found, pl.DataFrame)
            return found.join(wanted, on="Id", how="semi")
        soql = f"SELECT {', '.join(columns)} FROM {self._objects[chunk.table_name]}"
        frames = []
        for condition in conditions("Id", ids):
            with self._storage.write(name) as file:
                save_query(
                    self._org,
                    f"{soql} WHERE {condition}",
                    file.path,
                    columns=columns,
                    finish=lambda page: page.join(wanted, on="Id", how="semi"),
                )
                frames.append(pl.read_parquet(file.path, glob=False))
        return pl.concat(frames)

    def _of_table(self, table: str) -> duckdb.DuckDBPyConnection | None:
        """A database with the records of all chunks of a table, where one query is cheaper; else None."""
        if table not in self._together:
            bounds = self._bounds(table)
            self._together[table] = self._fetch(table, bounds) if is_fetched_once(bounds) else None
        return self._together[table]

    def _bounds(self, table: str) -> list[tuple[str, str, int]]:
        """Lowest and highest Id of each chunk, and how many it has."""
        found = []
        for chunk in self._chunks.get(table, ()):
            assert chunk.ledger_file is not None
            lines = self._ledger.scan([chunk.ledger_file]).filter(pl.col("id").is_not_null())
            lowest, highest, rows = (
                lines.select(lowest=pl.col("id").min(), highest=pl.col("id").max(), rows=pl.len()).collect().row(0)
            )
            if rows:
                found.append((lowest, highest, rows))
        return found

    def _fetch(self, table: str, bounds: Sequence[tuple[str, str, int]]) -> duckdb.DuckDBPyConnection:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(dir=self._scratch, prefix="rollback-")))
        config: dict[str, str | bool | int] = {
            "memory_limit": f"{MEMORY_MB}MB",
            "threads": 2,
            "temp_directory": str(folder / "spill"),
        }
        database = self._stack.enter_context(connect(folder / "states.duckdb", config=config))
        columns = list(self._columns[table])
        soql = f"SELECT {', '.join(columns)} FROM {self._objects[table]}"
        lowest, highest = min(low for low, _, _ in bounds), max(high for _, high, _ in bounds)
        file = folder / "everything.parquet"
        save_query(self._org, f"{soql} WHERE {ranged('Id', lowest, highest)}", file, columns=columns)
        database.execute("CREATE TABLE wanted (id VARCHAR, audit_id BIGINT)")
        for chunk in self._chunks[table]:
            assert chunk.ledger_file is not None
            [path] = self._ledger.paths([chunk.ledger_file])
            database.execute(
                "INSERT INTO wanted SELECT DISTINCT id, $audit_id FROM read_parquet($file) WHERE id IS NOT NULL",
                {"audit_id": chunk.audit_id, "file": glob.escape(str(path))},
            )
        # Sorted, so that a chunk's records are found without reading those of the others.
        database.execute(
            "CREATE TABLE parted AS SELECT w.audit_id, e.* FROM read_parquet($file) e JOIN wanted w ON w.id = e.Id "
            "ORDER BY w.audit_id",
            {"file": glob.escape(str(file))},
        )
        file.unlink()
        return database


def is_fetched_once(bounds: Sequence[tuple[str, str, int]]) -> bool:
    """Whether the chunks' own questions would fetch much more than one for all of them, or be too many."""
    if not bounds:
        return False
    asked = lists = 0
    for lowest, highest, rows in bounds:
        width = span(lowest, highest)
        own_lists = -(-rows // IN_LIST_MAX)
        if own_lists == 1 or (width > SPREAD_MAX * rows and own_lists <= LISTS_MAX):
            lists += own_lists
        else:
            asked += width + JOB_ROWS
    whole = span(min(low for low, _, _ in bounds), max(high for _, high, _ in bounds)) + JOB_ROWS
    return lists > TABLE_LISTS_MAX or asked + lists * JOB_ROWS > OVERLAP_MAX * whole
