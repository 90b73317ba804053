"""Draw a sample: scan the keys, follow the lookups from children to parents, seal which rows each table gives.

Reads:  of each table the key and those lookups whose parents are loaded in the same batch; nothing else of it.
Writes: one Parquet file a table, `sample.parquet`, with the addresses of its rows; last of all the list of these files,
        `samples.json`. Both lie with the batch's staged files and go with them.
Re-run: without the list everything is drawn anew, over the same names; with it nothing is drawn again.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from forcelift.during.extract.null_keys import has_null_keys
from forcelift.during.extract.pace import Pace
from forcelift.during.extract.sample_store import SampleStore
from forcelift.errors import StorageError
from forcelift.jobs.work import TableWork, staged_names, staging_folder
from forcelift.protocols.source import ADDRESS, Predicate, Source
from forcelift.rules import SampleKeys, SamplePercent, followed_lookups, frame_of
from forcelift.storage import Storage

SLICE_ROWS_AIM = 250_000
"""Rows of a slice of which only a small share is drawn: enough of them that the share is worth a query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSample:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawWorld:
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


def drawn_samples(world: DrawWorld) -> dict[str, TableSample]:
    """The sample of each table, as it was drawn for this batch, or drawn now."""
    name = samples_name(world.batch_id)
    if world.storage.exists(name):
        with world.storage.open(name) as file:
            document = json.load(file)
        if document["percent"] == str(world.percent) and set(world.works) <= set(document["tables"]):
            return {table: _sample_from(values) for table, values in document["tables"].items()}
    samples = _Draw(world).run()
    with world.storage.write(name) as writer:
        document = {"percent": str(world.percent), "tables": {table: asdict(one) for table, one in samples.items()}}
        writer.write(json.dumps(document).encode())
        writer.commit()
    return samples


def _sample_from(values: Mapping[str, Any]) -> TableSample:
    return TableSample(**{**values, "chunks": tuple((predicate, rows) for predicate, rows in values["chunks"])})


class _Draw:
    """One draw over all tables of a batch, children first."""

    def __init__(self, world: DrawWorld) -> None:
        self._world = world
        rules = {name: work.rules for name, work in world.works.items()}
        self._keys = {name: SampleKeys(one, followed_lookups(one, rules)) for name, one in rules.items()}
        self._parents = {parent for keys in self._keys.values() for parent in keys.followed.values()}

    def run(self) -> dict[str, TableSample]:
        world = self._world
        found: dict[str, TableSample] = {}
        with (
            tempfile.TemporaryDirectory(dir=world.scratch, prefix="sample-") as folder,
            SampleStore(
                Path(folder) / "store", memory_mb=max(64, world.memory_mb // 4), threshold=world.percent.threshold
            ) as store,
        ):
            for tables in self._groups():
                scans = {table: self._scan(store, table) for table in tables}
                store.draw(tables)
                for table in tables:
                    found[table] = self._seal(store, table, *scans[table])
                store.drop_rows(tables)
        return {table: found[table] for table in world.works}

    def _groups(self) -> Iterator[list[str]]:
        """Tables that refer to each other together, children before their parents."""
        numbers = sorted({work.spec.group for work in self._world.works.values()}, reverse=True)
        for number in numbers:
            yield [name for name, work in self._world.works.items() if work.spec.group == number]

    def _scan(self, store: SampleStore, table: str) -> tuple[list[Predicate], int]:
        """Note what is needed of the table's rows. Returns its slices and how many rows it has."""
        world, keys = self._world, self._keys[table]
        work = world.works[table]
        rows = null_keys = 0
        slices = world.source.plan_chunks(
            work.plan.table,
            where=work.plan.where,
            key=work.rules.key_columns,
            rows_per_chunk=self._slice_rows(work),
        )
        store.open_table(table, list(keys.followed.values()))
        for number, part in enumerate(slices):
            for frame in self._frames(work, keys.columns, part.predicate):
                hashes = keys.hashes(frame)
                rows += frame.height
                null_keys += hashes["high"].null_count()
                noted = self._noted(table, frame, hashes)
                if noted.height:
                    store.add(table, noted.with_columns(pl.lit(number, dtype=pl.UInt32).alias("slice")))
        if null_keys and work.plan.null_key == "stop":
            raise has_null_keys(work, null_keys)
        return [part.predicate for part in slices], rows

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

    def _seal(self, store: SampleStore, table: str, slices: Sequence[Predicate], of: int) -> TableSample:
        world = self._world
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
            of=of,
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
