"""The statement that writes what rows of a round change in records that are there already."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from forcelift.twin.columns import Column
from forcelift.twin.ingest_task import IngestTask
from forcelift.twin.store import hash_column, hashed_fields, key_hash, table
from forcelift.twin.values import name as quoted
from forcelift.twin.values import text


def update_sql(task: IngestTask, columns: Iterable[Column], source: str, *, now: datetime) -> str:
    """An UPDATE of the records whose `place` (rowid) stands in `source`: each given value, and who changed it, when."""
    stamp, user = f"TIMESTAMP '{now:%Y-%m-%d %H:%M:%S}'", text(task.user_id)
    hashed = hashed_fields(task.entry)
    assigned = []
    for column in columns:
        field = column.field
        if not field.updateable or field is task.key:
            continue
        name = quoted(field.name)
        assigned.append(f"{name} = CASE WHEN r.{column.given} THEN r.{column.value} ELSE t.{name} END")
        if field in hashed:
            name, made = hash_column(field), key_hash(field, f"r.{column.value}")
            assigned.append(f"{name} = CASE WHEN r.{column.given} THEN {made} ELSE t.{name} END")
    assigned += [f"LastModifiedDate = {stamp}", f"LastModifiedById = {user}", f"SystemModstamp = {stamp}"]
    return f"UPDATE {table(task.entry)} t SET {', '.join(assigned)} FROM {source} r WHERE t.rowid = r.place"
