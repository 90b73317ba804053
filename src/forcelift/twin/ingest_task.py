"""What is the same for all rows of an ingest job, and what comes of a commit group of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from forcelift.twin import values
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
    whole: ObjectSchema | None = None
    """The object with the fields that the user does not see; `entry` itself if left out."""

    @property
    def record(self) -> ObjectSchema:
        """The object as records are stored and automations see them."""
        return self.whole or self.entry

    def column_of(self, field: FieldSchema | None) -> Column | None:
        """The column that gives the field itself, not one that finds it by a parent's key."""
        return next((column for column in self.columns if column.field is field and column.key is None), None)


def filled_by_default(task: IngestTask, field: FieldSchema) -> str:
    """SQL of what an insert stores in a field for which it gives nothing; `NULL` if nothing. Auto-numbers are apart."""
    default = values.default_sql(field)
    if default != "NULL":
        return default
    if field.name_field and field.name == "Name" and field.defaulted_on_create and not field.auto_number:
        return "left(new_id, 15)"
    if field.name == "RecordTypeId":
        return default_record_type(task.record) or "NULL"
    return values.text(task.user_id) if field.name == "OwnerId" else "NULL"


def default_record_type(entry: ObjectSchema) -> str | None:
    """SQL of the Id of the record type that a new record gets when it names none; None if that is the master type."""
    for record_type in entry.record_types:
        if record_type.default and record_type.active and record_type.available:
            return (
                f"(SELECT Id FROM data.RecordType WHERE SobjectType = {values.text(entry.name)} "
                f"AND DeveloperName = {values.text(record_type.developer_name)})"
            )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupResult:
    """Rows of a group by what became of them.

    `requeued` names Salesforce batches of which rows are left to do: more than 100 of their records met a lock.
    `apex_ms` is what automations cost, on the org's clock.
    """

    created: int
    updated: int
    failed: int
    requeued: frozenset[int] = frozenset()
    apex_ms: float = 0.0
