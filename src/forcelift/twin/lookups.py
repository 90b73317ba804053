"""SQL that checks the lookups of rows: parents by Id or by a key of theirs, one hash join for each column."""

from __future__ import annotations

import duckdb

from forcelift.twin import values
from forcelift.twin.columns import Column
from forcelift.twin.ingest_task import IngestTask
from forcelift.twin.matching import find_records
from forcelift.twin.schema import FieldSchema, ObjectSchema
from forcelift.twin.store import table
from forcelift.twin.values import row_error, text


def parent_joins(cursor: duckdb.DuckDBPyConnection, task: IngestTask) -> tuple[list[str], list[str], list[str]]:
    """Joins, replaced columns and errors that check references and turn parents' keys into Ids.

    Args:
        cursor: Where `twin_stage` (alias `s` in what is returned) is registered.
        task: The job.
    """
    joins, replaced, errors = [], [], []
    for column in task.columns:
        if column.field.type != "reference":
            continue
        alias = f"p{column.index}"
        if column.key is not None:
            joins.append(_join_by_key(cursor, column, alias))
            replaced.append(f"{alias}.id AS {column.value}")
            errors.append(_key_error(column, alias))
        else:
            joins.append(_join_by_id(task, column, alias))
            errors.append(_reference_error(task, column, alias))
    return joins, replaced, errors


def _join_by_key(cursor: duckdb.DuckDBPyConnection, column: Column, alias: str) -> str:
    assert column.parent is not None and column.key is not None  # noqa: PT018 - both are set together
    wanted = f"SELECT {values.match_key(column.key, column.value)} FROM twin_stage"
    find_records(cursor, column.parent, column.key, wanted=wanted, into=f"twin_{alias}")
    return f"LEFT JOIN twin_{alias} {alias} ON {alias}.k = {values.match_key(column.key, 's.' + column.value)}"


def _key_error(column: Column, alias: str) -> str:
    assert column.parent is not None and column.key is not None  # noqa: PT018 - both are set together
    sent = f"coalesce(s.{column.value}, '')" if column.key.is_text else f"s.{column.cell}"
    # A text of blanks, which the platform would store as null, is a key that matches nothing.
    is_null = f"s.{column.value} IS NULL" if column.key.is_text else f"s.{column.cell} IN ('', '{values.NULL_TEXT}')"
    place = text(f" not found for field {column.key.name} in entity {column.parent.name}")
    missing = row_error("INVALID_FIELD", f"'Foreign key external ID: ' || {sent} || {place}")
    several = row_error(
        "DUPLICATE_EXTERNAL_ID",
        f"{text(column.key.label + ': more than one record found for external id field: [')} "
        f"|| {alias}.id || ', ' || {alias}.other || ']'",
        column.key.name,
    )
    return f"CASE WHEN {is_null} THEN NULL WHEN {alias}.id IS NULL THEN {missing} WHEN {alias}.n > 1 THEN {several} END"


def _join_by_id(task: IngestTask, column: Column, alias: str) -> str:
    wanted = f"SELECT DISTINCT {column.value} FROM twin_stage"
    parts = [
        f"SELECT Id AS id, {_visible(task, target)} AS fits, IsDeleted AS deleted FROM {table(target)} "
        f"WHERE Id IN ({wanted})"
        for target in _targets(task, column.field)
    ]
    return f"LEFT JOIN ({' UNION ALL '.join(parts)}) {alias} ON {alias}.id = s.{column.value}"


def _visible(task: IngestTask, target: ObjectSchema) -> str:
    """A record type must be an active and available one of this object; any other parent fits."""
    if target.name == "RecordType":
        away = [text(entry.developer_name) for entry in task.entry.record_types if not entry.available]
        available = f" AND DeveloperName NOT IN ({', '.join(away)})" if away else ""
        return f"SobjectType = {text(task.entry.name)} AND IsActive{available}"
    return "true"


def _targets(task: IngestTask, field: FieldSchema) -> list[ObjectSchema]:
    found = (task.schema.object(target) for target in field.reference_to)
    return [target for target in found if target is not None]


def _reference_error(task: IngestTask, column: Column, alias: str) -> str:
    value = f"s.{column.value}"
    field = column.field
    prefixes = ", ".join(text(target.key_prefix) for target in _targets(task, field))
    malformed = row_error(
        "MALFORMED_ID", f"{text(field.label + ': id value of incorrect type: ')} || {value}", field.name
    )
    if field.name == "RecordTypeId":
        unknown = row_error(
            "INVALID_CROSS_REFERENCE_KEY",
            f"{text(field.label)} || ': this ID value isn''t valid for the user: ' || {value}",
            field.name,
        )
    else:
        unknown = row_error("INVALID_CROSS_REFERENCE_KEY", "'invalid cross reference id'")
    empty = "NULL"
    if field.name == "OwnerId":
        blank = row_error("INVALID_CROSS_REFERENCE_KEY", text("Owner ID: owner cannot be blank"), "OwnerId")
        empty = f"CASE WHEN s.{column.given} THEN {blank} END"
    return (
        f"CASE WHEN {value} IS NULL THEN {empty} WHEN {alias}.id IS NOT NULL AND {alias}.fits THEN "
        f"CASE WHEN {alias}.deleted THEN {row_error('ENTITY_IS_DELETED', text('entity is deleted'))} END "
        f"WHEN left({value}, 3) NOT IN ({prefixes}) OR NOT {values.is_id(value)} THEN {malformed} ELSE {unknown} END"
    )
