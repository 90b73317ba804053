"""Records of the audit database to and from its rows and JSON documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import RowMapping

from forcelift.audit.records import (
    Batch,
    BatchMode,
    BatchState,
    BatchTable,
    Chunk,
    ChunkStatus,
    ChunkStep,
    Job,
    JobKind,
    JobStep,
    Part,
    StagedChunk,
)


def part_document(part: Part) -> dict[str, Any]:
    return {"file": part.file, "rows": part.rows, "bytes": part.bytes, "sha256": part.sha256}


def part_from(document: Mapping[str, Any]) -> Part:
    return Part(**document)


def staged_document(staged: StagedChunk) -> dict[str, Any]:
    return {
        "source_count": staged.source_count,
        "extracted": staged.extracted,
        "transformed": staged.transformed,
        "rejected": staged.rejected,
        "duplicate": staged.duplicate,
        "parts": [part_document(part) for part in staged.parts],
        "rows_file": staged.rows_file,
        "refused_file": staged.refused_file,
        "links_file": staged.links_file,
        "source_checksum": staged.source_checksum,
        "changes": dict(staged.changes),
        "seconds": staged.seconds,
        "clean_seconds": staged.clean_seconds,
        "bytes": staged.bytes,
        "snapshot": staged.snapshot,
        "link_rows_file": staged.link_rows_file,
        "standing": staged.standing,
    }


def staged_from(document: Mapping[str, Any]) -> StagedChunk:
    return StagedChunk(**{**document, "parts": tuple(part_from(part) for part in document["parts"])})


def batch_from(row: RowMapping) -> Batch:
    fields = {name: row[name] for name in Batch.__struct_fields__}
    return Batch(**{**fields, "mode": BatchMode(row["mode"]), "state": BatchState(row["state"])})


def table_from(row: RowMapping) -> BatchTable:
    return BatchTable(**{name: row[name] for name in BatchTable.__struct_fields__})


def chunk_from(row: RowMapping) -> Chunk:
    """A chunk from a row of the join of `chunk` and MIGRATION_AUDIT_LOG."""
    fields = {name: row[name] for name in Chunk.__struct_fields__}
    return Chunk(
        **{
            **fields,
            "status": ChunkStatus(row["status"]),
            "step": ChunkStep(row["step"]),
            "staged": None if row["staged"] is None else staged_from(row["staged"]),
            "link_parts": tuple(part_from(part) for part in row["link_parts"] or ()),
        }
    )


def job_from(row: RowMapping) -> Job:
    part = Part(file=row["file"], rows=row["rows"], bytes=row["bytes"], sha256=row["sha256"])
    fields = {name: row[name] for name in Job.__struct_fields__ if name != "part"}
    return Job(**{**fields, "part": part, "kind": JobKind(row["kind"]), "step": JobStep(row["step"])})
