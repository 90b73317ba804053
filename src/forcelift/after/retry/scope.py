"""What a retry is asked for, where its files lie, and how the engine sees its chunks. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from forcelift.audit.records import Chunk, ChunkStatus, ChunkStep, JobKind
from forcelift.audit.retries import CHOSEN, LINKING, LOADED, SETTLED, STAGED, RetryChunk
from forcelift.jobs.tracks import TableSpec
from forcelift.jobs.work import StagedNames, TableWork
from forcelift.storage import segment

_STEPS = {
    CHOSEN: ChunkStep.PLANNED,
    STAGED: ChunkStep.STAGED,
    LOADED: ChunkStep.LOADED,
    LINKING: ChunkStep.LINKING,
    SETTLED: ChunkStep.SETTLED,
}


class Selection(Struct, frozen=True, kw_only=True):
    """Which refused rows of a batch are sent again; empty means any.

    Attributes:
        tables: Only rows of these tables.
        codes: Only rows refused with one of these codes.
        keys: Only rows with one of these keys, as RECORD_ID and ledger have them.
        with_children: Also rows of other tables that were refused because a parent was missing, if the parent's table
            is among those that are sent again.
    """

    tables: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    with_children: bool = True

    def document(self) -> dict[str, Any]:
        """As it is written down: keys may be personal, so that only their number is."""
        return {
            "tables": list(self.tables),
            "codes": list(self.codes),
            "keys": len(self.keys),
            "with_children": self.with_children,
        }


def retries_folder(batch_id: str) -> str:
    """Where the files of a batch's retries lie in storage."""
    return f"retry/{segment(batch_id)}"


def corrections_folder(batch_id: str) -> str:
    """Where the corrected values of a batch's refused rows lie in storage."""
    return f"corrections/{segment(batch_id)}"


def retry_names(folder: str, chunk: Chunk) -> StagedNames:
    """The files of one chunk in a retry; what a load has, under another folder."""
    return StagedNames(folder=f"{folder}/{segment(chunk.table_name)}/c{chunk.chunk_no:06d}")


def lines_name(folder: str, chunk: Chunk) -> str:
    """The sealed file of the rows of one chunk that a retry takes up."""
    return f"{folder}/lines/{segment(chunk.table_name)}/c{chunk.chunk_no:06d}.parquet"


def as_engine_chunk(chunk: Chunk, one: RetryChunk) -> Chunk:
    """A chunk as the engine sees it in a retry: only the rows that are sent again."""
    is_begun = one.step != CHOSEN
    return replace(
        chunk,
        status=ChunkStatus.RUNNING if is_begun else ChunkStatus.PENDING,
        step=_STEPS[one.step],
        staged=one.staged,
        link_parts=one.link_parts,
        rows_estimate=one.lines_rows,
        source_count=one.lines_rows,
    )


def retry_works(works: Mapping[str, TableWork], names: set[str]) -> dict[str, TableWork]:
    """The tables of a retry: their first jobs are of the kind `retry`, and none waits for a table without rows."""
    found = {}
    for name, work in works.items():
        if name not in names:
            continue
        spec: TableSpec = replace(work.spec, kind=JobKind.RETRY, waits_for=frozenset(work.spec.waits_for & names))
        found[name] = replace(work, spec=spec)
    return found
