"""What is the same for all rows of an ingest job, and what comes of a commit group of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from forcelift.twin.columns import Column
from forcelift.twin.row_faults import RowFaults
from forcelift.twin.schema import FieldSchema, ObjectSchema, Schema

BATCH_ROWS: Final = 10_000
CHUNK_ROWS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestTask:
    """What is the same for all rows of a job."""

    schema: Schema
    entry: ObjectSchema
    operation: str
    columns: tuple[Column, ...]
    key: FieldSchema | None
    job: int
    user_id: str
    faults: RowFaults | None = None

    def column_of(self, field: FieldSchema | None) -> Column | None:
        """The column that gives the field itself, not one that finds it by a parent's key."""
        return next((column for column in self.columns if column.field is field and column.key is None), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupResult:
    """Rows of a group by what became of them."""

    created: int
    updated: int
    failed: int
