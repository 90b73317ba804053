"""The rows as they were sent: read from the source once more, cleaned by the plan, and known by the ledger's hash.

Reads:   the source, by the batch's own chunks; the ledger.
Gives:   canonical texts of rows whose hash is the ledger's. A row that has another hash now has changed since: drift.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl
from msgspec import Struct

from forcelift.after.validate.merged_again import can_merge_again, is_sampled
from forcelift.after.validate.world import ValidateWorld
from forcelift.audit.records import Chunk
from forcelift.errors import SourceChanged
from forcelift.jobs.parts import read_part
from forcelift.ledger import ACCEPTED
from forcelift.plan.models import DuplicateRule
from forcelift.protocols.source import Predicate
from forcelift.rules import ChunkCleaner, DuplicateDecisions, ParentKeys, add_hashes, compact, frame_of


class Sent(Struct, frozen=True, kw_only=True):
    """Some rows of a chunk.

    Attributes:
        rows: `key`, `id` and all fields of the plan as canonical text.
        drift: `key` and `id` of accepted rows that the source does not give any more as they were sent.
    """

    rows: pl.DataFrame
    drift: pl.DataFrame


class SentRows:
    """Gives the sent rows of one table's chunks.

    Args:
        only: The fields that are wanted, the key field not among them; None for all. A chunk is held in memory.
    """

    def __init__(self, world: ValidateWorld, table: str, *, only: Sequence[str] | None = None) -> None:
        self._world = world
        self._only = None if only is None else set(only)
        self._work = world.works[table]
        self._chunks = world.audit.chunks(world.batch.batch_id, table)
        self._parents: dict[str, ParentKeys] = {
            column: world.parents(info.parent_object, info.key_field, info.parent_table)
            for column, info in self._work.rules.lookups.items()
        }

    @property
    def fields(self) -> list[str]:
        """The fields of a row that are given, beside its key."""
        rules = self._work.rules
        names = dict.fromkeys([*rules.target_columns, *rules.link_target_columns])
        return [name for name in names if name != rules.key_field and (self._only is None or name in self._only)]

    def of_chunk(self, chunk: Chunk, *, among: pl.Series | None = None) -> Sent:
        """A chunk's accepted rows, or those with these Ids.

        Raises:
            SourceUnavailable, SourceError: The source cannot be asked. One that has changed gives rows as drift.
        """
        wanted = self._accepted(chunk, among)
        staged = self._staged(chunk, wanted) if wanted.height else self._nothing()
        if staged is not None and staged.height == wanted.height:
            return Sent(rows=staged, drift=wanted.select("key", "id").clear())
        try:
            found = [frame for frame in self._read(chunk, wanted, few=among is not None) if frame.height]
        except SourceChanged:
            # A file with another time of change: no row of it is known to be the one that was sent.
            return Sent(rows=self._nothing(), drift=wanted.select("key", "id"))
        rows = pl.concat(found) if found else self._nothing()
        # Copies of a key (duplicates) may be equal to the last character: one of them was sent.
        rows = rows.unique("id", keep="any")
        if rows.height < wanted.height:
            rows = pl.concat([rows, *self._merged(chunk, wanted.join(rows, on="id", how="anti"))])
        return Sent(rows=rows, drift=wanted.select("key", "id").join(rows, on="id", how="anti"))

    @property
    def drift_words(self) -> str:
        """What may be the matter with rows that the source does not give as they were sent."""
        is_unmerged = self._work.plan.duplicates is DuplicateRule.MERGE and not can_merge_again(
            self._work, self._chunks
        )
        merged = ", or were merged from several copies, which a sample's are not again" if is_unmerged else ""
        return f"have changed in the source since{merged}"

    def _merged(self, chunk: Chunk, wanted: pl.DataFrame) -> list[pl.DataFrame]:
        """Rows that were made of several copies of a key: the source has them only after the plan's own merge."""
        if not can_merge_again(self._work, self._chunks):
            return []
        decisions = self._world.merged(chunk.table_name, self._chunks)
        if decisions is None or decisions.for_chunk(chunk.chunk_no) is None:
            return []
        return [frame for frame in self._read(chunk, wanted, decisions) if frame.height]

    def _accepted(self, chunk: Chunk, among: pl.Series | None) -> pl.DataFrame:
        assert chunk.ledger_file is not None
        lines = self._world.ledger.scan([chunk.ledger_file]).filter(pl.col("outcome").is_in(ACCEPTED))
        if among is not None:
            lines = lines.filter(pl.col("id").is_in(among.implode()))
        return lines.select("key", "id", "hash").collect()

    def _staged(self, chunk: Chunk, wanted: pl.DataFrame) -> pl.DataFrame | None:
        """The rows out of the files that were sent, if these are still kept; None if not."""
        storage, rules, key = self._world.storage, self._work.rules, self._work.rules.key_field
        staged = chunk.staged
        if staged is None or not staged.parts:
            return None
        parts = [*staged.parts, *chunk.link_parts]
        if not all(storage.exists(part.file) for part in parts):
            return None
        keys = wanted.select(pl.col("key").alias(key)).lazy()
        rows = pl.concat([read_part(storage, part) for part in staged.parts]).join(keys, on=key, how="semi").collect()
        hashes = rules.hash_rows(rows, is_cleaned=True)
        names = rules.link_target_columns[1:]
        if names:
            links = pl.DataFrame(schema=dict.fromkeys([key, *names], pl.String))
            if chunk.link_parts:
                read = pl.concat([read_part(storage, part) for part in chunk.link_parts])
                links = read.join(keys, on=key, how="semi").select(key, *names).collect()
            rows = rows.join(links, on=key, how="left", maintain_order="left")
            hashes = add_hashes(hashes, rules.hash_links(rows))
        return self._matched(rows.with_columns(hashes.alias("hash")), wanted)

    def _read(
        self, chunk: Chunk, wanted: pl.DataFrame, duplicates: DuplicateDecisions | None = None, *, few: bool = False
    ) -> Iterator[pl.DataFrame]:
        """Batches of the chunk's rows, each cleaned; those that were sent as they are now.

        Where `few` are wanted, the others are left out before they are cleaned; not so where copies are merged.
        """
        world, rules = self._world, self._work.rules
        load_parents = {name: self._parents[name] for name, info in rules.lookups.items() if not info.is_link}
        cleaner = ChunkCleaner(
            rules, chunk_no=chunk.chunk_no, as_of=world.batch.as_of, duplicates=duplicates, parents=load_parents
        )
        batches = (
            batch
            for predicate in _slices(chunk)
            for batch in world.source.read(
                chunk.table_name,
                columns=rules.source_columns,
                where=self._work.plan.where,
                predicate=predicate,
                batch_rows=world.batch_rows,
            )
        )
        given = [rules.key_field, *(name for name in self.fields if name in rules.target_columns)]
        # Looked up for as many rows at once as may be held, since the join goes through all that is wanted each time.
        held: list[pl.DataFrame] = []
        rows_max = 0 if self._only is None else wanted.height
        for batch in batches:
            frame = frame_of(batch)
            if few:
                frame = frame.filter(rules.keys(frame)["key"].is_in(wanted["key"].implode()))
            cleaned = cleaner.clean(frame)
            accepted = cleaned.accepted.select("row", *given).join(
                cleaned.rows.select("row", "hash"), on="row", how="left"
            )
            if rules.link_target_columns[1:]:
                # Only rows that were sent are linked; a key may stand in several copies.
                accepted = accepted.join(
                    wanted.select(pl.col("key").alias(rules.key_field)), on=rules.key_field, how="semi"
                )
                accepted = self._linked(accepted, cleaned.links)
            held.append(compact(accepted) if few else accepted)
            if sum(frame.height for frame in held) > rows_max:
                yield self._matched(pl.concat(held), wanted)
                held = []
        if held:
            yield self._matched(pl.concat(held), wanted)

    def _linked(self, accepted: pl.DataFrame, links: pl.DataFrame | None) -> pl.DataFrame:
        rules = self._work.rules
        names = rules.link_target_columns[1:]
        if not names:
            return accepted
        if links is not None:
            links = links.join(accepted.select("row"), on="row", how="semi")
        if links is None or not links.height:
            return accepted.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in names)
        result = rules.finish_links(
            links, {name: self._parents[name] for name, info in rules.lookups.items() if info.is_link}
        )
        upload = result.upload.drop(rules.key_field)
        joined = accepted.join(upload, on="row", how="left", maintain_order="left").join(
            result.rows.select("row", pl.col("hash").alias("link_hash")), on="row", how="left", maintain_order="left"
        )
        return joined.with_columns(add_hashes(joined["hash"], joined["link_hash"])).drop("link_hash")

    def _matched(self, rows: pl.DataFrame, wanted: pl.DataFrame) -> pl.DataFrame:
        key = self._work.rules.key_field
        same = rows.select(pl.col(key).alias("key"), "hash", *self.fields)
        same = same.join(wanted, on="key", how="inner", suffix="_sent").filter(pl.col("hash") == pl.col("hash_sent"))
        return same.select("key", "id", *self.fields)

    def _nothing(self) -> pl.DataFrame:
        return pl.DataFrame(schema={name: pl.String() for name in ("key", "id", *self.fields)})


def _slices(chunk: Chunk) -> list[Predicate]:
    """What the source is asked for: a chunk of a sample stands for rows of several slices, which are read whole."""
    predicate = dict(chunk.predicate)
    return [part["slice"] for part in predicate["parts"]] if is_sampled(chunk) else [predicate]


def chunks_of(chunks: Sequence[Chunk], numbers: Sequence[int]) -> list[Chunk]:
    """Of a table's chunks those with these numbers, in order."""
    wanted = set(numbers)
    return [chunk for chunk in chunks if chunk.chunk_no in wanted]
