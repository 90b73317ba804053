"""Rules of whole records: fields that cannot be written, required ones, unique ones.

They work on `twin_round`: typed values, `record` (the Id of a record that is there already), `new_id`, and `error`.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from forcelift.twin import values
from forcelift.twin.columns import Column
from forcelift.twin.ingest_task import IngestTask
from forcelift.twin.matching import find_records
from forcelift.twin.values import text


def blocked_fields(task: IngestTask) -> str | None:
    """An error text for rows that give a value for a field which their operation may not write."""
    parts = []
    for column in task.columns:
        field = column.field
        if field is task.key or field.type == "id":
            continue
        conditions = []
        if not field.createable:
            conditions.append("record IS NULL")
        if not field.updateable:
            conditions.append("record IS NOT NULL")
        if conditions:
            parts.append(f"CASE WHEN {column.given} AND ({' OR '.join(conditions)}) THEN {text(field.name)} END")
    if not parts:
        return None
    names = f"concat_ws(', ', {', '.join(parts)})"
    return (
        f"CASE WHEN {names} <> '' THEN 'INVALID_FIELD_FOR_INSERT_UPDATE:Unable to create/update "
        f"fields: ' || {names} || "
        "'. Please check the security settings of this field and verify that it is read/write for your profile or "
        f"permission set.:' || replace({names}, ', ', ',') || ' --' END"
    )


def missing_fields(task: IngestTask, *, filled: frozenset[str] = frozenset()) -> str | None:
    """An error text for rows that lack required values, or empty one that must not be empty.

    `filled` names fields for which every row is known to have a value.
    """
    parts = []
    given = {column.field.name: column for column in task.columns}
    for field in task.entry.stored_fields:
        column = given.get(field.name)
        if (
            field.nillable
            or field.name in filled
            or field.type in ("boolean", "id")
            or field.name == "OwnerId"
            or not (field.createable or field.updateable)
        ):
            continue
        if column is not None:
            conditions = [f"{column.given} AND {column.value} IS NULL"]
            if field.required:
                conditions.append(f"record IS NULL AND {column.value} IS NULL")
            parts.append(f"CASE WHEN {' OR '.join(conditions)} THEN {text(field.name)} END")
        elif field.required:
            parts.append(f"CASE WHEN record IS NULL THEN {text(field.name)} END")
    if not parts:
        return None
    names = f"concat_ws(', ', {', '.join(parts)})"
    return (
        f"CASE WHEN {names} <> '' THEN 'REQUIRED_FIELD_MISSING:Required fields are missing: [' || {names} || ']:' || "
        f"replace({names}, ', ', ',') || ' --' END"
    )


def unique_columns(task: IngestTask) -> list[Column]:
    return [
        column
        for column in task.columns
        if column.key is None and column.field.unique and column.field is not task.key and column.field.type != "id"
    ]


def refuse_duplicates(cursor: duckdb.DuckDBPyConnection, task: IngestTask, *, rows: str = "twin_round") -> None:
    """Unique fields against stored records, then among the rows themselves: the first one keeps the value."""
    columns = unique_columns(task)
    parts = []
    joins = []
    for column in columns:
        key = values.match_key(column.field, column.value)
        alias = f"u{column.index}"
        find_records(cursor, task.entry, column.field, wanted=f"SELECT {key} FROM {rows}", into=f"twin_{alias}")
        joins.append(
            f"LEFT JOIN twin_{alias} {alias} ON {alias}.k = {values.match_key(column.field, 'w.' + column.value)} "
            f"AND {alias}.id IS DISTINCT FROM w.record"
        )
        parts.append(
            f"CASE WHEN {alias}.id IS NOT NULL THEN "
            f"{text(column.field.name + ' duplicates value on record with id: ')} "
            f"|| left({alias}.id, 15) END"
        )
    if not columns:
        return
    listed = f"concat_ws(', ', {', '.join(parts)})"
    cursor.execute(
        f"UPDATE {rows} SET error = 'DUPLICATE_VALUE:duplicate value found: ' || d.listed || ':--' FROM "
        f"(SELECT w.row_no AS line, {listed} AS listed FROM {rows} w {' '.join(joins)} WHERE w.error IS NULL) d "
        "WHERE row_no = d.line AND d.listed <> ''"
    )
    while _refuse_later_copies(cursor, columns, rows):
        pass


def _refuse_later_copies(cursor: duckdb.DuckDBPyConnection, columns: Sequence[Column], rows: str) -> bool:
    """Fail rows that repeat a unique value of a row that is sure to be saved; True if some row is left undecided.

    Sure is a row that comes first with each of its unique values. Each pass decides at least one row.
    """
    firsts, joins = [], []
    for column in columns:
        key = values.match_key(column.field, column.value)
        firsts.append(f"({key} IS NULL OR row_number() OVER (PARTITION BY {key} ORDER BY ord) = 1)")
    repeated = " OR ".join(
        f"count({values.match_key(c.field, c.value)}) > count(DISTINCT {values.match_key(c.field, c.value)})"
        for c in columns
    )
    row = cursor.execute(f"SELECT {repeated} FROM {rows} WHERE error IS NULL").fetchone()
    if row is None or not row[0]:
        return False
    cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE twin_first AS SELECT row_no, coalesce(record, new_id) AS id, "
        f"{', '.join(c.value for c in columns)}, {' AND '.join(firsts)} AS sure FROM {rows} WHERE error IS NULL"
    )
    parts = []
    for column in columns:
        alias = f"f{column.index}"
        key = values.match_key(column.field, column.value)
        joins.append(
            f"LEFT JOIN (SELECT {key} AS k, row_no AS line, id FROM twin_first WHERE sure AND "
            f"{column.value} IS NOT NULL) {alias} "
            f"ON {alias}.k = {values.match_key(column.field, 'w.' + column.value)} AND {alias}.line <> w.row_no"
        )
        parts.append(
            f"CASE WHEN {alias}.id IS NOT NULL THEN "
            f"{text(column.field.name + ' duplicates value on record with id: ')} "
            f"|| left({alias}.id, 15) END"
        )
    cursor.execute(
        f"UPDATE {rows} SET error = 'DUPLICATE_VALUE:duplicate value found: ' || d.listed || ':--' FROM "
        f"(SELECT w.row_no AS line, concat_ws(', ', {', '.join(parts)}) AS listed FROM {rows} w {' '.join(joins)} "
        "WHERE w.error IS NULL) d WHERE row_no = d.line AND d.listed <> ''"
    )
    return True
