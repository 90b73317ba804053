"""Which rows a retry takes up: refused ones whose failed record is open, and children of what is sent again.

Reads:   ledgers and failed records of the chunks that count.
Writes:  one sealed file for each chunk with such rows.
Re-run:  nothing counts before the retry is recorded; files without it are removed by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import polars as pl
from msgspec import Struct

from forcelift.after.retry.scope import Selection, lines_name
from forcelift.audit import AuditStore
from forcelift.audit.columns import record_id
from forcelift.audit.records import Chunk
from forcelift.jobs.work import TableWork
from forcelift.ledger import Ledger
from forcelift.rules import normalised_key
from forcelift.storage import Storage

LINES = pl.Schema(
    {
        "row": pl.UInt32(),
        "key": pl.String(),
        "norm": pl.String(),
        "outcome": pl.String(),
        "code": pl.String(),
        "id": pl.String(),
        "created": pl.Boolean(),
        "hash": pl.Binary(),
    }
)
EMPTIED, EMPTIED_LINK = "EMPTIED_LOOKUP", "EMPTIED_LOOKUP_LINK"
"""Codes of rows that the org has, whose lookup a rule emptied for want of a parent; of the second only links are sent.
"""
REFUSED = ("failed", "rejected")
MISSING_PARENT = "REJECTED_MISSING_PARENT"
_ORG_MISSING_PARENT = "Foreign key external ID"
"""How the org's own words for it begin. Source: salesforce-api.md section 5, INVALID_FIELD."""


class Chosen(Struct, frozen=True, kw_only=True):
    """The rows of one chunk that a retry takes up: columns of `LINES`."""

    chunk: Chunk
    lines: pl.DataFrame


def choose(
    selection: Selection,
    *,
    audit: AuditStore,
    ledger: Ledger,
    storage: Storage,
    works: Mapping[str, TableWork],
    chunks: Sequence[Chunk],
    emptied: Callable[[Chunk, set[str]], pl.DataFrame],
) -> list[Chosen]:
    """The rows that fit the selection, chunk by chunk in load order; chunks without any are left out.

    Args:
        emptied: Gives the rows of a chunk that were accepted with a lookup emptied that refers to one of these tables.
    """
    open_lines = {
        chunk.audit_id: lines
        for chunk in chunks
        if chunk.table_name in works and (lines := _open_lines(chunk, audit, ledger, storage, works)).height
    }
    first = {
        chunk.audit_id: _fitting(open_lines[chunk.audit_id], selection, chunk.table_name)
        for chunk in chunks
        if chunk.audit_id in open_lines
    }
    named = {chunk.table_name for chunk in chunks if chunk.audit_id in first and first[chunk.audit_id].height}
    children = _children_of(named, works) if selection.with_children else set[str]()
    # Asked for everything, lookups are filled too whose parents have come in another way.
    parents = set(works) if selection == Selection() else named | children
    found = []
    for chunk in chunks:
        if chunk.table_name not in works:
            continue
        lines = pl.DataFrame(schema=LINES)
        if chunk.audit_id in open_lines:
            lines = first[chunk.audit_id]
            if chunk.table_name in children:
                orphans = open_lines[chunk.audit_id].filter("is_orphan")
                lines = pl.concat([lines, orphans]).unique("row", maintain_order=True)
            lines = lines.select(LINES.names()).cast(LINES)
        if selection.with_children:
            lines = pl.concat([lines, emptied(chunk, parents)])
        if lines.height:
            found.append(Chosen(chunk=chunk, lines=lines.sort("row")))
    return found


def seal_lines(chosen: Sequence[Chosen], storage: Storage, folder: str) -> Iterator[tuple[int, str, str, int]]:
    """Write down the rows of each chunk: AUDIT_ID, file, sha256, rows."""
    for one in chosen:
        with storage.write(lines_name(folder, one.chunk)) as file:
            one.lines.write_parquet(file.path, compression="zstd")
            sealed = file.commit()
        yield one.chunk.audit_id, sealed.name, sealed.sha256, one.lines.height


def _open_lines(
    chunk: Chunk, audit: AuditStore, ledger: Ledger, storage: Storage, works: Mapping[str, TableWork]
) -> pl.DataFrame:
    """A chunk's refused rows whose failed record is open; `is_orphan` are those that lack a parent."""
    empty = pl.DataFrame(schema={**LINES, "record_id": pl.String, "is_orphan": pl.Boolean})
    if chunk.ledger_file is None or chunk.ledger_sha256 is None:
        return empty
    records = pl.DataFrame(
        audit.open_failed(chunk.audit_id), schema={"record_id": pl.String, "open_code": pl.String}, orient="row"
    )
    if not records.height:
        return empty
    storage.verify(chunk.ledger_file, chunk.ledger_sha256)
    lines = ledger.scan([chunk.ledger_file]).filter(pl.col("outcome").is_in(REFUSED)).collect()
    says_parent = (pl.col("code") == "INVALID_FIELD") & pl.col("message").str.contains(
        _ORG_MISSING_PARENT, literal=True
    )
    numbered = lines.sort("row").with_columns(record_id=record_id(pl.col("key"), pl.col("row")))
    numbered = numbered.with_columns(
        number=pl.int_range(1, pl.len() + 1).over("record_id"),
        norm=normalised_key(works[chunk.table_name].key_field, lines.sort("row")["key"]),
        is_orphan=((pl.col("code") == MISSING_PARENT) | says_parent).fill_null(False),
    )
    # Several rows may share a key, and so a RECORD_ID: they stand in the same order on both sides.
    records = records.with_columns(number=pl.int_range(1, pl.len() + 1).over("record_id"))
    return numbered.join(records, on=["record_id", "number"], how="semi", maintain_order="left").select(
        *LINES.names(), "record_id", "is_orphan"
    )


def _fitting(lines: pl.DataFrame, selection: Selection, table_name: str) -> pl.DataFrame:
    if selection.tables and table_name not in selection.tables:
        return lines.clear()
    fits = pl.lit(True)
    if selection.codes:
        fits &= pl.col("code").is_in(list(selection.codes))
    if selection.keys:
        keys = pl.Series(selection.keys, dtype=pl.String).implode()
        fits &= pl.col("key").is_in(keys) | pl.col("record_id").is_in(keys)
    return lines.filter(fits)


def _children_of(tables: set[str], works: Mapping[str, TableWork]) -> set[str]:
    """Tables with a lookup to one of these, and to those in turn."""
    found: set[str] = set()
    wanted = set(tables)
    while wanted:
        children = {
            name
            for name, work in works.items()
            if any(info.parent_table in wanted for info in work.rules.lookups.values())
        }
        wanted = children - found
        found |= children
    return found
