"""Rows that the org accepted with a lookup emptied, as their parent was missing: a retry fills it once it is there.

That a chunk has such rows stands with its counts of changes. Which they are is told by their hashes: a row is one of
them if its ledger's hash is that of the row as it is now without a lookup that the source has a value for.

Reads:   the source's rows of such chunks, whole; their ledgers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import combinations

import polars as pl

from forcelift.after.retry.choose import EMPTIED, EMPTIED_LINK, LINES
from forcelift.audit.records import Chunk
from forcelift.jobs.settlement import ACCEPTED
from forcelift.jobs.work import TableWork
from forcelift.rules import ChunkCleaner, LookupInfo, ParentKeys, add_hashes, normalised_key
from forcelift.rules.findings import Findings

_LOOKUPS_MAX = 4
"""Of more lookups in one table than these, only one at a time, or all, are taken for emptied."""


def emptied_lookups(work: TableWork, chunk: Chunk) -> list[LookupInfo]:
    """The lookups of a table that a rule has emptied in rows of this chunk, by the chunk's own count."""
    changes = chunk.staged.changes if chunk.staged is not None else {}
    if work.spec.operation == "insert":
        return []  # the record stands, and an insert cannot change it
    return [
        info
        for name, info in work.rules.lookups.items()
        if info.to_null and changes.get(f"missing_parent:{name}", 0) > 0
    ]


def emptied_lines(
    work: TableWork,
    infos: list[LookupInfo],
    ledger: pl.DataFrame,
    frames: Iterable[pl.DataFrame],
    *,
    as_of: datetime,
    chunk_no: int,
    parents: Mapping[str, ParentKeys],
) -> pl.DataFrame:
    """The rows of a chunk that were accepted with one of these lookups emptied: columns of `LINES`.

    Args:
        ledger: All lines of the chunk.
        frames: Its source rows as they are now.
        parents: Of every lookup column the parents that exist now.
    """
    accepted = ledger.filter(pl.col("outcome").is_in(ACCEPTED) & pl.col("id").is_not_null())
    loads = {name: keys for name, keys in parents.items() if not work.rules.lookups[name].is_link}
    cleaner = ChunkCleaner(work.rules, chunk_no=chunk_no, as_of=as_of, duplicates=None, parents=loads)
    found = [pl.DataFrame(schema={"row": pl.UInt32, "code": pl.String})]
    for frame in frames:
        cleaned = cleaner.clean(frame)
        if not cleaned.accepted.height:
            continue
        values, _ = work.rules.clean_columns(frame, Findings(), as_of)
        had = pl.DataFrame({_had(info.target): values[info.column].is_not_null() for info in infos})
        had = had.with_columns(row=cleaned.rows.sort("row")["row"])
        rows = _resolved(work, cleaned.accepted, cleaned.links, parents)
        found.append(_emptied(work, infos, rows.join(had, on="row", maintain_order="left"), accepted))
    # A row with both kinds emptied is sent as a whole: EMPTIED sorts before EMPTIED_LINK.
    chosen = pl.concat(found).sort("row", "code").unique("row", keep="first")
    lines = accepted.drop("code").join(chosen, on="row", how="inner").sort("row")
    norms = normalised_key(work.key_field, lines["key"]).alias("norm")
    return lines.with_columns(norms).select(LINES.names()).cast(LINES)


def _had(target: str) -> str:
    return f"{target}__had"


def _resolved(
    work: TableWork, accepted: pl.DataFrame, links: pl.DataFrame | None, parents: Mapping[str, ParentKeys]
) -> pl.DataFrame:
    """Rows as they would be sent now, with their links beside them."""
    names = work.rules.link_target_columns[1:]
    if not names:
        return accepted
    if links is None or not links.height:
        return accepted.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in names)
    ours = {name: keys for name, keys in parents.items() if work.rules.lookups[name].is_link}
    upload = work.rules.finish_links(links, ours).upload.drop(work.rules.key_field)
    return accepted.join(upload, on="row", how="left", maintain_order="left")


def _emptied(work: TableWork, infos: list[LookupInfo], rows: pl.DataFrame, accepted: pl.DataFrame) -> pl.DataFrame:
    """The ledger's rows that are one of these rows without a lookup that the source has a value for."""
    rules = work.rules
    targets = [info.target for info in infos]
    sizes = range(len(targets) + 1) if len(targets) <= _LOOKUPS_MAX else (0, 1, len(targets))
    found = []
    for emptied in (names for size in sizes for names in combinations(targets, size)):
        variant = rows.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in emptied)
        hashes = rules.hash_rows(variant.select(rules.target_columns), is_cleaned=True)
        if rules.link_target_columns[1:]:
            hashes = add_hashes(hashes, rules.hash_links(variant))
        lacks = {info.target: pl.col(_had(info.target)) & pl.col(info.target).is_null() for info in infos}
        load = pl.any_horizontal(pl.lit(False), *(lacks[info.target] for info in infos if not info.is_link))
        matched = variant.select(
            key=pl.col(rules.key_field),
            lacks=pl.any_horizontal(*lacks.values()),
            code=pl.when(load).then(pl.lit(EMPTIED)).otherwise(pl.lit(EMPTIED_LINK)),
        ).with_columns(hashes.alias("hash"))
        matched = matched.filter("lacks").drop("lacks").sort("code").unique(["key", "hash"], keep="first")
        found.append(
            accepted.select("row", "key", "hash").join(matched, on=["key", "hash"], how="inner").select("row", "code")
        )
    return pl.concat(found)
