"""Draw a sample: scan the keys, follow the lookups from children to parents, seal which rows each table gives.

Reads:  of each table the key and those lookups whose parents are loaded in the same batch; nothing else of it.
Writes: one Parquet file a table, `sample.parquet`, with the addresses of its rows; last of all the list of these files,
        `samples.json`. Both lie with the batch's staged files and go with them.
Re-run: a draw that was broken off by the end of the batch's hours goes on in the same process, slice by slice; another
        process without the list draws everything anew, over the same names; with it nothing is drawn again.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from msgspec import Struct, to_builtins

from forcelift.during.extract.pace import Pace
from forcelift.during.extract.sample_store import SampleStore
from forcelift.errors import StorageError
from forcelift.jobs.null_keys import has_null_keys
from forcelift.jobs.work import TableWork, staged_names, staging_folder
from forcelift.protocols.source import ADDRESS, Predicate, Source
from forcelift.rules import SampleKeys, SamplePercent, followed_lookups, frame_of
from forcelift.storage import Storage

SLICE_ROWS_AIM = 250_000
"""Rows of a slice of which only a small share is drawn: enough of them that the share is worth a query."""


class TableSample(Struct, frozen=True, kw_only=True):
    """What was drawn of one table.

    Attributes:
        file, sha256: The sealed selection.
        of: Rows of the table within `where`.
        by_hash: Rows that are drawn for their own key.
        rows: All rows drawn, with those that others refer to.
        chunks: Their chunks, as predicates of `SampledSource`, with the rows of each.
    """

    file: str
    sha256: str
    of: int
    by_hash: int
    rows: int
    chunks: tuple[tuple[Predicate, int], ...]


class DrawWorld(Struct, frozen=True, kw_only=True):
    """Everything that drawing touches. `chunk_rows` says how many rows a chunk of a table takes."""

    batch_id: str
    percent: SamplePercent
    source: Source
    storage: Storage
    works: Mapping[str, TableWork]
    chunk_rows: Callable[[TableWork], int]
    scratch: Path
    memory_mb: int
    pace: Pace
    slice_rows_aim: int = SLICE_ROWS_AIM


def samples_name(batch_id: str) -> str:
    """Name in storage of the list that shows that a batch's sample is drawn."""
    return f"{staging_folder(batch_id)}/samples.json"


def drawn_samples(world: DrawWorld, draw: Draw) -> dict[str, TableSample]:
    """The sample of each table, as it was drawn for this batch, or drawn now.

    Raises:
        ReadingStopped: Reading is over for now; the same `draw` goes on where it stands.
    """
    name = samples_name(world.batch_id)
    if world.storage.exists(name):
        with world.storage.open(name) as file:
            document = json.load(file)
        if document["percent"] == str(world.percent) and set(world.works) <= set(document["tables"]):
            return {table: _sample_from(values) for table, values in document["tables"].items()}
    samples = draw.run()
    with world.storage.write(name) as writer:
        document = {
            "percent": str(world.percent),
            "tables": {table: to_builtins(one) for table, one in samples.items()},
        }
        writer.write(json.dumps(document).encode())
        writer.commit()
    return samples


def _sample_from(values: Mapping[str, Any]) -> TableSample:
    return TableSample(**{**values, "chunks": tuple((predicate, rows) for predicate, rows in values["chunks"])})


class _Scan(Struct, kw_only=True):
    """How far a table's rows are noted."""

    fingerprint: str
    slices: list[Predicate]
    noted: int = 0  # slices
    rows: int = 0
    null_keys: int = 0


class Draw:
    """One draw over all tables of a batch, children first. Used by one thread at a time; `close` it in the end."""

    def __init__(self, world: DrawWorld) -> None:
        self._world = world
        rules = {name: work.rules for name, work in world.works.items()}
        self._keys = {name: SampleKeys(one, followed_lookups(one, rules)) for name, one in rules.items()}
        self._parents = {parent for keys in self._keys.values() for parent in keys.followed.values()}
        self._store: SampleStore | None = None
        self._snapshot = world.source.snapshot()
        self._scans: dict[str, _Scan] = {}
        self._found: dict[str, TableSample] = {}

    def run(self) -> dict[str, TableSample]:
        """Draw, or go on with what `ReadingStopped` broke off."""
        store = self._store = self._store or self._open_store()
        for tables in self._groups():
            if tables[0] in self._found:
                continue
            for table in tables:
                self._scan(store, table)
            store.draw(tables)
            drawn = {table: self._seal(store, table, self._scans[table]) for table in tables}
            store.drop_rows(tables)
            self._found.update(drawn)
        return {table: self._found[table] for table in self._world.works}

    def is_of_this_state(self) -> bool:
        """Whether the tables that were looked at are what they were, as far as the source can tell.

        A snapshot that stands is that for certain, whoever writes to the tables meanwhile.
        """
        snapshot = self._world.source.snapshot()
        if snapshot is not None and snapshot == self._snapshot:
            return True
        return all(self._world.source.fingerprint(table) == scan.fingerprint for table, scan in self._scans.items())

    def close(self) -> None:
        """Remove what was noted."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _open_store(self) -> SampleStore:
        world = self._world
        folder = tempfile.mkdtemp(dir=world.scratch, prefix="sample-")
        # A process that ends while a draw waits for its hours leaves nothing behind.
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return SampleStore(
            Path(folder) / "store", memory_mb=max(64, world.memory_mb // 4), threshold=world.percent.threshold
        )

    def _groups(self) -> Iterator[list[str]]:
        """Tables that refer to each other together, children before their parents."""
        numbers = sorted({work.spec.group for work in self._world.works.values()}, reverse=True)
        for number in numbers:
            yield [name for name, work in self._world.works.items() if work.spec.group == number]

    def _scan(self, store: SampleStore, table: str) -> None:
        """Note what is needed of the table's rows. A slice counts when all of it is noted."""
        work, keys = self._world.works[table], self._keys[table]
        scan = self._scans.get(table) or self._begin_scan(store, work)
        for number in range(scan.noted, len(scan.slices)):
            noted, rows, null_keys = [], 0, 0
            for frame in self._frames(work, keys.columns, scan.slices[number]):
                hashes = keys.hashes(frame)
                rows += frame.height
                null_keys += hashes["high"].null_count()
                noted.append(self._noted(table, frame, hashes))
            for found in noted:
                if found.height:
                    store.add(table, found.with_columns(pl.lit(number, dtype=pl.UInt32).alias("slice")))
            scan.rows, scan.null_keys, scan.noted = scan.rows + rows, scan.null_keys + null_keys, number + 1
        if scan.null_keys and work.plan.null_key == "stop":
            raise has_null_keys(work, scan.null_keys)

    def _begin_scan(self, store: SampleStore, work: TableWork) -> _Scan:
        table, source = work.plan.table, self._world.source
        fingerprint = source.fingerprint(table)
        slices = source.plan_chunks(
            table, where=work.plan.where, key=work.rules.key_columns, rows_per_chunk=self._slice_rows(work)
        )
        store.open_table(table, list(self._keys[table].followed.values()))
        self._scans[table] = _Scan(fingerprint=fingerprint, slices=[part.predicate for part in slices])
        return self._scans[table]

    def _slice_rows(self, work: TableWork) -> int:
        """A chunk's rows where all of a slice may be drawn, as it would be read anew for each chunk cut from it."""
        world, rows = self._world, self._world.chunk_rows(work)
        if work.plan.table in self._parents:
            return rows
        return max(rows, min(world.slice_rows_aim, int(rows * 100 / world.percent.value)))

    def _noted(self, table: str, frame: pl.DataFrame, hashes: pl.DataFrame) -> pl.DataFrame:
        """Of a table that nobody refers to only the rows drawn; of a parent all, as who refers to it is known later."""
        wanted = pl.col("high").is_not_null()
        if table not in self._parents:
            wanted = pl.col("high") < pl.lit(self._world.percent.threshold, dtype=pl.UInt64)
        mask = hashes.select(wanted.fill_null(False)).to_series()
        kept = frame.filter(mask)
        return pl.concat([kept.select(ADDRESS), hashes.filter(mask), self._keys[table].parents(kept)], how="horizontal")

    def _frames(self, work: TableWork, columns: Sequence[str], predicate: Predicate) -> Iterator[pl.DataFrame]:
        batches = self._world.source.locate(
            work.plan.table,
            columns=columns,
            where=work.plan.where,
            predicate=predicate,
            key=work.rules.key_columns,
        )
        for batch in self._world.pace.through(batches):
            yield frame_of(batch)

    def _seal(self, store: SampleStore, table: str, scan: _Scan) -> TableSample:
        world, slices = self._world, scan.slices
        folder = staged_names(world.batch_id, table, 0).folder.rpartition("/")[0]
        name = f"{folder}/sample.parquet"
        with world.storage.write(name) as file:
            rows = store.save(table, file.path)
            pieces = store.cut(file.path, lines_per_chunk=world.chunk_rows(world.works[table]))
            sealed = file.commit()
        chunks: dict[int, list[dict[str, Any]]] = {}
        sizes: dict[int, int] = {}
        for piece in pieces:
            part = {"slice": slices[piece.slice_no], "first": piece.first, "lines": piece.lines}
            chunks.setdefault(piece.chunk, []).append(part)
            sizes[piece.chunk] = sizes.get(piece.chunk, 0) + piece.rows
        seal = {"by": "sample", "file": name, "sha256": sealed.sha256}
        predicates = [({**seal, "parts": parts}, sizes[chunk]) for chunk, parts in chunks.items()]
        return TableSample(
            file=name,
            sha256=sealed.sha256,
            of=scan.rows,
            by_hash=store.drawn_by_hash(table),
            rows=rows,
            chunks=tuple(predicates or [({**seal, "parts": []}, 0)]),
        )


def addresses(storage: Storage, predicate: Predicate, *, first: int, lines: int) -> pl.Series:
    """Lines of a sealed selection: where the rows of one part of a chunk are.

    Raises:
        StorageError: The selection is gone or has fewer lines.
    """
    with storage.local(predicate["file"]) as path:
        found = pl.scan_parquet(path, glob=False).select(ADDRESS).slice(first, lines).collect().to_series()
    if found.len() != lines:
        raise StorageError(
            f"the selection `{predicate['file']}` ends before line {first + lines:,}",
            state="nothing was read for this chunk",
            hint="put back the file from a copy, or begin a new batch",
        )
    return found
