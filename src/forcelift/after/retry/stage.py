"""Stage the rows of one chunk: read by key, cleaned by the plan as it is now, and given the places they have there.

Reads:   sealed lines of the retry; the source.
Writes:  upload files, staged rows, links and data of rejected rows, sealed under the retry's folder.
Re-run:  files have fixed names and are written whole; once the audit database marks them, nothing is read again.

A row keeps its number in the chunk, so that its new line takes the place of the old one in the ledger.
"""

from __future__ import annotations

from collections import Counter

import polars as pl
from msgspec import Struct, field

from forcelift.after.retry.choose import EMPTIED, EMPTIED_LINK, LINES
from forcelift.after.retry.rows import ONE_CHUNK
from forcelift.after.retry.world import RetryWorld
from forcelift.audit.records import Chunk, Part, StagedChunk
from forcelift.errors import SourceChanged
from forcelift.jobs.parts import PartWriter
from forcelift.jobs.work import StagedNames, TableWork
from forcelift.plan.models import DuplicateRule
from forcelift.rules import ChunkCleaner, Cleaned, ParentKeys

ROWS = ("row", "key", "outcome", "code", "fields", "details", "hash")


class _Read(Struct, kw_only=True):
    """What was read and cleaned: lines by `at`, their place among all rows read, with `norm`."""

    rows: list[pl.DataFrame] = field(default_factory=list)
    links: list[pl.DataFrame] = field(default_factory=list)
    data: list[pl.DataFrame] = field(default_factory=list)
    changes: Counter[str] = field(default_factory=Counter)
    height: int = 0


def stage(world: RetryWorld, chunk: Chunk, work: TableWork, names: StagedNames) -> tuple[StagedChunk, int]:
    """Read, clean and seal the rows of one chunk; also gives how many the source has no more.

    Raises:
        SourceUnavailable, SourceError: The source cannot be asked.
    """
    lines = world.lines(chunk.audit_id)
    norms = lines["norm"].drop_nulls().unique()
    table = chunk.table_name
    repeated = world.rows.repeated(table)
    home = _home(world, chunk, norms.filter(norms.is_in(repeated.implode()))) if repeated.len() else norms.clear()
    single = norms.filter(~norms.is_in(repeated.implode())) if repeated.len() else norms
    read = _Read()
    # A row that has its record already, made by an insert, is not inserted again: only its links are sent.
    has_record = lines.filter(linked_only(work.spec.operation))["norm"]
    held = lines.filter(is_filled()).select("norm", "code", old="hash")
    lookups = {
        name: world.parents(info.parent_object, info.key_field, info.parent_table)
        for name, info in work.rules.lookups.items()
        if not info.is_link
    }
    with PartWriter(world.storage, names.part, null_text=work.null_text) as parts:
        cleaner = ChunkCleaner(
            work.rules, chunk_no=chunk.chunk_no, as_of=world.batch.as_of, duplicates=None, parents=lookups
        )
        for frame in world.rows.of_chunk(chunk, single) if single.len() else ():
            _take(world, work, read, parts, frame, cleaner, has_record, held)
        _refuse_copies(read, table)
        if home.len():
            _take_copies(world, work, read, parts, home, lookups, has_record, held)
        sealed = parts.finish()
    matched, gone = _match(lines, read, repeated)
    return _seal(world, work, names, read, matched, sealed), gone


def _home(world: RetryWorld, chunk: Chunk, norms: pl.Series) -> pl.Series:
    """Of keys with several copies those whose row that goes on stands for a row of this chunk: the first of the retry.

    Where all copies are rejected, each is looked at where it lies.
    """
    left = norms
    if world.works[chunk.table_name].plan.duplicates is DuplicateRule.REJECT:
        return left
    for audit_id in world.audit_ids():
        if audit_id >= chunk.audit_id:
            break
        if world.audit.chunk(audit_id).table_name == chunk.table_name:
            left = left.filter(~left.is_in(world.lines(audit_id)["norm"].implode()).fill_null(False))
    return left


def _take(
    world: RetryWorld,
    work: TableWork,
    read: _Read,
    parts: PartWriter,
    frame: pl.DataFrame,
    cleaner: ChunkCleaner,
    has_record: pl.Series,
    held: pl.DataFrame,
) -> None:
    """Clean a frame of source rows, write those to be sent, and remember what became of each."""
    with world.shares.turn:
        norms = work.rules.keys(frame)["norm"]
        first = read.height
        cleaned: Cleaned = cleaner.clean(frame)
        base = int(cleaned.rows["row"][0]) if cleaned.rows.height else 0
        shift = first - base
        at = (pl.col("row").cast(pl.Int64) + shift).alias("at")
        rows = cleaned.rows.sort("row").with_columns(at).with_columns(norms.alias("norm"))
        same = _unchanged(rows, held)
        rows = rows.filter(~pl.col("row").is_in(same.implode()))
        read.rows.append(rows)
        if cleaned.links is not None and cleaned.links.height:
            read.links.append(cleaned.links.filter(~pl.col("row").is_in(same.implode())).with_columns(at))
        rejected = rows.filter(pl.col("outcome") == "rejected")
        if rejected.height:
            data = world.rejected_data(work, frame[(rejected["at"] - first)])
            read.data.append(rejected.select("at").with_columns(data.alias("data")))
        sent = cleaned.accepted.filter(~pl.col("row").is_in(same.implode())) if same.len() else cleaned.accepted
        if has_record.len():
            known = rows.filter(pl.col("norm").is_in(has_record.implode()).fill_null(False))["row"]
            sent = sent.filter(~pl.col("row").is_in(known.implode()))
        parts.write(sent.drop("row"))
        read.height += frame.height
        for (rule, column), count in cleaned.changes.items():
            read.changes[f"{rule}:{column}"] += count


def is_filled() -> pl.Expr:
    """Whether a line is of a row that the org has, with a lookup to be filled."""
    return pl.col("code").is_in([EMPTIED, EMPTIED_LINK]).fill_null(False)


def linked_only(operation: str) -> pl.Expr:
    """Whether of a line's row only links are sent, as its record stands and needs nothing else."""
    by_insert = pl.lit(operation == "insert") & pl.col("id").is_not_null()
    return by_insert | (pl.col("code") == EMPTIED_LINK).fill_null(False)


def _unchanged(rows: pl.DataFrame, held: pl.DataFrame) -> pl.Series:
    """Of rows that the org has those that would be sent as they are there, or not at all: they are left alone."""
    if not held.height:
        return rows["row"].clear()
    joined = rows.join(held, on="norm", how="inner")
    is_same = (pl.col("code_right") == EMPTIED) & (pl.col("hash") == pl.col("old"))
    return joined.filter(pl.col("outcome").is_not_null() | is_same.fill_null(False))["row"]


def _take_copies(
    world: RetryWorld,
    work: TableWork,
    read: _Read,
    parts: PartWriter,
    home: pl.Series,
    lookups: dict[str, ParentKeys],
    has_record: pl.Series,
    held: pl.DataFrame,
) -> None:
    """Rows of keys with several copies, by the plan's rule over all of them."""
    table = work.plan.table
    cleaner = ChunkCleaner(
        work.rules, chunk_no=ONE_CHUNK, as_of=world.batch.as_of, duplicates=world.rows.decisions(table), parents=lookups
    )
    for frame in world.rows.copies(table, home):
        _take(world, work, read, parts, frame, cleaner, has_record, held)


def _refuse_copies(read: _Read, table: str) -> None:
    """Without this a key that came twice since the keys were counted would be sent twice."""
    if not read.rows:
        return
    sent = pl.concat(read.rows).filter(pl.col("outcome").is_null())["norm"]
    if sent.n_unique() < sent.len():
        raise SourceChanged(
            f"table `{table}`: {sent.len() - sent.n_unique():,} keys came twice that had one row a moment ago",
            state="nothing of this chunk was sent",
            hint="run the same command again",
        )


def _match(lines: pl.DataFrame, read: _Read, repeated: pl.Series) -> tuple[pl.DataFrame, int]:
    """Give each row read the place of a line of the ledger with its key.

    Returns:
        Columns of `ROWS` and `at` (null for rows without one), a line for each row of the retry that is known now; and
        how many lines have no row any more.
    """
    schema = {**{name: LINES.get(name) or pl.String() for name in ("key", "outcome", "code")}, "norm": pl.String()}
    if read.rows:
        found = pl.concat(read.rows)
    else:
        found = pl.DataFrame(
            schema={
                "row": pl.UInt32,
                **schema,
                "fields": pl.String,
                "details": pl.String,
                "hash": pl.Binary,
                "at": pl.Int64,
            }
        )
    rank = pl.col("outcome").replace_strict({"rejected": 1, "duplicate": 2}, default=0, return_dtype=pl.Int8)
    found = found.with_columns(rank=rank).sort("norm", "rank", "at")
    found = found.with_columns(number=pl.int_range(pl.len()).over("norm"))
    ours = lines.sort("norm", "row").with_columns(number=pl.int_range(pl.len()).over("norm"))
    joined = ours.select("row", "norm", "number", old_key="key", filled=is_filled()).join(
        found.drop("row", "rank"), on=["norm", "number"], how="left", maintain_order="left"
    )
    # A key's copies stand for the first row of the retry that has it; all others of it are copies themselves.
    is_copy = joined["norm"].is_in(repeated.implode()).fill_null(False) & joined["at"].is_null()
    if repeated.len():
        copy = joined.select(
            pl.when(is_copy).then(pl.lit("duplicate")).otherwise("outcome").alias("outcome"),
            pl.when(is_copy).then("old_key").otherwise("key").alias("key"),
        )
        joined = joined.with_columns(copy.get_columns())
    is_gone = joined["at"].is_null() & ~is_copy
    stands = joined["filled"]
    kept = joined.filter(~is_gone & ~(stands & is_copy)).sort("row")
    return kept.select(*ROWS, "at"), int((is_gone & ~stands).sum())


def _seal(
    world: RetryWorld,
    work: TableWork,
    names: StagedNames,
    read: _Read,
    matched: pl.DataFrame,
    parts: tuple[Part, ...],
) -> StagedChunk:
    storage = world.storage
    places = matched.select("at", "row").drop_nulls()
    with storage.write(names.rows) as file:
        matched.drop("at").write_parquet(file.path, compression="zstd")
        rows_file = str(file.commit().name)
    refused_file = links_file = None
    if read.data:
        with storage.write(names.refused) as file:
            data = pl.concat(read.data).join(places, on="at", how="inner").select("row", "data")
            data.write_parquet(file.path, compression="zstd")
            refused_file = str(file.commit().name)
    if read.links:
        links = pl.concat(read.links).drop("row").join(places, on="at", how="inner").drop("at")
        with storage.write(names.links) as file:
            links.select("row", pl.exclude("row")).write_parquet(file.path, compression="zstd")
            links_file = str(file.commit().name)
    outcomes = dict(matched.group_by("outcome").len().iter_rows())
    rejected, duplicate = outcomes.get("rejected", 0), outcomes.get("duplicate", 0)
    return StagedChunk(
        source_count=matched.height,
        extracted=matched.height,
        transformed=matched.height - rejected - duplicate,
        rejected=rejected,
        duplicate=duplicate,
        parts=parts,
        rows_file=rows_file,
        refused_file=refused_file,
        links_file=links_file,
        source_checksum="",
        changes=dict(read.changes),
    )
