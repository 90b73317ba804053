"""The keys of a sample out of core: drawn rows, the parents they name, and whatever those name in turn.

Reads:  hashes and addresses of rows, as they are scanned.
Writes: Parquet files in a folder of the caller, removed by `close`: of a table that others refer to some 30 bytes a row
        and 16 more a lookup, of all others only the rows drawn.
Re-run: a draw that was broken off starts again from nothing.

Hashes have 128 bits; that two different keys meet is as unlikely here as among the duplicates.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import polars as pl
from msgspec import Struct

from forcelift.embedded import connect
from forcelift.protocols.source import ADDRESS

_FILE_ROWS = 1_000_000  # rows held in memory before they are written
_KEY = "high, low"


class Piece(Struct, frozen=True, kw_only=True):
    """Lines of a selection that lie in one slice and go to one chunk."""

    chunk: int
    slice_no: int
    first: int
    lines: int
    rows: int


class _Spill(Struct):
    """Where the rows of one table went."""

    followed: Mapping[int, str]
    pending: list[pl.DataFrame]
    pending_rows: int = 0
    files: int = 0


class SampleStore:
    """Rows by table name. Used by one thread.

    Args:
        folder: A folder of its own, made if missing; its contents are this store's.
        memory_mb: DuckDB's memory limit; what does not fit spills into the folder.
        threshold: The upper half of a drawn key's hash is below this.
    """

    def __init__(self, folder: Path, *, memory_mb: int, threshold: int) -> None:
        self._folder = folder
        self._threshold = threshold
        self._numbers: dict[str, int] = {}
        self._spills: dict[str, _Spill] = {}
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._database = connect()
        for setting in (
            f"memory_limit = '{int(memory_mb)}MB'",
            "preserve_insertion_order = false",
            "threads = 2",
            f"temp_directory = {_literal(folder / 'spill')}",
        ):
            self._database.execute(f"SET {setting}")

    def __enter__(self) -> SampleStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the store's files."""
        self._database.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def open_table(self, table: str, followed: Sequence[str]) -> None:
        """Make room for a table; `followed` names the table of each pair `high0`, `low0`, ... in turn."""
        self._spills[table] = _Spill(dict(enumerate(followed)), [])
        for name in (table, *followed):
            if name not in self._numbers:
                self._numbers[name] = len(self._numbers)
                self._database.execute(f"CREATE TABLE {self._at('wanted', name)} (high UBIGINT, low UBIGINT)")
                self._database.execute(f"CREATE TABLE {self._at('drawn', name)} (high UBIGINT, low UBIGINT)")

    def add(self, table: str, frame: pl.DataFrame) -> None:
        """Note rows: `slice` (u32), `ADDRESS`, `high`, `low`, and a pair for each followed lookup; keys not null."""
        spill = self._spills[table]
        spill.pending.append(frame)
        spill.pending_rows += frame.height
        if spill.pending_rows >= _FILE_ROWS:
            self._flush(table)

    def draw(self, tables: Sequence[str]) -> None:
        """Decide which keys of these tables are in the sample, all of whose children elsewhere are decided already.

        Tables of a ring are given together: from the drawn keys the lookups among them are followed, step by step,
        until nothing new is found. Each step reads the hashes of the group once.
        """
        for table in tables:
            self._flush(table)
            rows = self._rows(table)
            self._database.execute(
                f"CREATE OR REPLACE TABLE {self._at('new', table)} AS SELECT DISTINCT {_KEY} FROM {rows}"
                f" WHERE high < {self._threshold}"
                f" UNION SELECT {_KEY} FROM {rows} SEMI JOIN {self._at('wanted', table)} USING ({_KEY})"
            )
        while self._take_new(tables):
            self._follow(tables)
        for table in tables:
            for number, parent in self._spills[table].followed.items():
                if parent not in tables:
                    self._want(table, number, parent, among="drawn")

    def save(self, table: str, path: Path) -> int:
        """Write the drawn rows' `slice`, `ADDRESS` and how many `rows` are there, in that order; returns the rows."""
        self._database.execute(
            f"COPY (SELECT slice, {_name(ADDRESS)}, count(*) AS rows FROM {self._rows(table)}"
            f" SEMI JOIN {self._at('drawn', table)} USING ({_KEY}) GROUP BY ALL ORDER BY ALL)"
            f" TO {_literal(path)} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 100000)"
        )
        return self._one(f"SELECT coalesce(sum(rows), 0)::BIGINT FROM {_scan(path)}")

    def drawn_by_hash(self, table: str) -> int:
        """How many rows of the table are in the sample for their own sake."""
        return self._one(f"SELECT count(*) FROM {self._rows(table)} WHERE high < {self._threshold}")

    def cut(self, path: Path, *, lines_per_chunk: int) -> list[Piece]:
        """Cut a saved selection into chunks of that many addresses; a slice may be cut, several may share a chunk."""
        found = self._database.execute(
            "SELECT file_row_number // ? AS chunk, slice, min(file_row_number), count(*), sum(rows)::BIGINT"
            f" FROM {_scan(path, 'file_row_number = true')} GROUP BY 1, 2 ORDER BY 1, 2",
            [lines_per_chunk],
        ).fetchall()
        return [
            Piece(chunk=int(chunk), slice_no=slice_no, first=first, lines=lines, rows=rows)
            for chunk, slice_no, first, lines, rows in found
        ]

    def drop_rows(self, tables: Sequence[str]) -> None:
        """Remove what was noted of these tables' rows; what they want of their parents stays."""
        for table in tables:
            spill = self._spills.pop(table)
            for number in range(spill.files):
                self._file(table, number).unlink()
            for kind in ("new", "drawn"):
                self._database.execute(f"DROP TABLE IF EXISTS {self._at(kind, table)}")

    def _take_new(self, tables: Sequence[str]) -> bool:
        """Move what the last step found to what is drawn."""
        is_any = False
        for table in tables:
            new, drawn = self._at("new", table), self._at("drawn", table)
            self._database.execute(
                f"DELETE FROM {new} USING {drawn} AS d WHERE {new}.high = d.high AND {new}.low = d.low"
            )
            self._database.execute(f"INSERT INTO {drawn} SELECT {_KEY} FROM {new}")
            is_any = is_any or self._one(f"SELECT count(*) FROM {new}") > 0
        return is_any

    def _follow(self, tables: Sequence[str]) -> None:
        """From the new keys to the parents that their rows name within the group."""
        for table in tables:
            self._database.execute(f"DELETE FROM {self._at('wanted', table)}")
        for table in tables:
            for number, parent in self._spills[table].followed.items():
                if parent in tables:
                    self._want(table, number, parent, among="new")
        for table in tables:
            self._database.execute(
                f"CREATE OR REPLACE TABLE {self._at('new', table)} AS SELECT DISTINCT {_KEY} FROM {self._rows(table)}"
                f" SEMI JOIN {self._at('wanted', table)} USING ({_KEY})"
            )

    def _want(self, table: str, number: int, parent: str, *, among: str) -> None:
        self._database.execute(
            f"INSERT INTO {self._at('wanted', parent)} SELECT DISTINCT high{number}, low{number} FROM"
            f" {self._rows(table)} SEMI JOIN {self._at(among, table)} USING ({_KEY}) WHERE high{number} IS NOT NULL"
        )

    def _flush(self, table: str) -> None:
        spill = self._spills[table]
        if spill.pending_rows:
            pl.concat(spill.pending).write_parquet(self._file(table, spill.files), compression="lz4")
            spill.files += 1
        spill.pending, spill.pending_rows = [], 0

    def _rows(self, table: str) -> str:
        spill = self._spills[table]
        if spill.files:
            listed = ", ".join(_literal(self._file(table, number)) for number in range(spill.files))
            return f"read_parquet([{listed}])"
        pairs = "".join(f", NULL::UBIGINT AS high{number}, NULL::UBIGINT AS low{number}" for number in spill.followed)
        return (
            f"(SELECT 0::UINTEGER AS slice, 0::BIGINT AS {_name(ADDRESS)}, 0::UBIGINT AS high, 0::UBIGINT AS low{pairs}"
            " WHERE false)"
        )

    def _file(self, table: str, number: int) -> Path:
        return self._folder / f"rows-{self._numbers[table]}-{number:06}.parquet"

    def _at(self, kind: str, table: str) -> str:
        return f"{kind}_{self._numbers[table]}"

    def _one(self, query: str) -> int:
        row = self._database.execute(query).fetchone()
        assert row is not None
        return int(row[0])


def _scan(path: Path, options: str = "") -> str:
    return f"read_parquet([{_literal(path)}]{', ' + options if options else ''})"


def _literal(path: Path) -> str:
    """A path as SQL text without the meaning that DuckDB gives to *, ? and [ in it."""
    plain = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))
    return "'" + plain.replace("'", "''") + "'"


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
