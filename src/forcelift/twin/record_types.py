"""Record types as they bear on the values of records: the default one, and picklists that hold fewer values by type.

They work on `twin_round`, as the rules of records do. A describe document shows nothing of the narrowing, nor does it
in a real org.
Source:  salesforce-api reference, section 2 (`restrictedPicklist`), section 5, and section 9 (points 26 and 47).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import duckdb

from forcelift.twin.columns import Column
from forcelift.twin.ingest_task import IngestTask, default_record_type
from forcelift.twin.schema import ObjectSchema
from forcelift.twin.store import table
from forcelift.twin.values import bad_picklist_value, picklist_lacks, text


def narrowed_columns(task: IngestTask) -> list[Column]:
    """Columns of restricted picklists of which some record type has only a part of the values."""
    names = {name.lower() for entry in task.record.record_types for name, _ in entry.picklist_values}
    return [
        column
        for column in task.columns
        if column.key is None and column.field.restricted_picklist and column.field.name.lower() in names
    ]


def refuse_narrowed(cursor: duckdb.DuckDBPyConnection, task: IngestTask, columns: Iterable[Column]) -> None:
    """Fail rows of `twin_round` that give a value which their record type has not.

    The record type is the one given, or that of the stored record, or the default of a new one; a record without one
    is of the master type, which has all values. What is stored already is not looked at again.
    """
    checks = [check for column in columns for check in _checks(task.record, column)]
    if not checks:
        return
    own = "CASE WHEN r.record IS NULL THEN " + (default_record_type(task.record) or "NULL") + " ELSE t.RecordTypeId END"
    given = next((column for column in task.columns if column.field.name == "RecordTypeId"), None)
    if given is not None:
        own = f"CASE WHEN r.{given.given} THEN r.{given.value} ELSE {own} END"
    cursor.execute(
        f"UPDATE twin_round SET error = n.told FROM (SELECT r.pos, CASE {' '.join(checks)} END AS told "
        f"FROM twin_round r LEFT JOIN {table(task.entry)} t ON t.rowid = r.place "
        f"LEFT JOIN data.RecordType y ON y.Id = {own} "
        "WHERE r.error IS NULL) n WHERE twin_round.pos = n.pos AND n.told IS NOT NULL"
    )


def _checks(entry: ObjectSchema, column: Column) -> Iterator[str]:
    value = f"r.{column.value}"
    for record_type in entry.record_types:
        for name, allowed in record_type.picklist_values:
            if name.lower() == column.field.name.lower():
                yield (
                    f"WHEN y.DeveloperName = {text(record_type.developer_name)} AND "
                    f"{picklist_lacks(column.field, allowed, value)} THEN {bad_picklist_value(column.field, value)}"
                )


def record_type_problems(entry: ObjectSchema) -> Iterator[str]:
    """What does not fit in the picklist values of an object's record types, each with its place."""
    if sum(record_type.default for record_type in entry.record_types) > 1:
        yield f"objects.{entry.name}.recordTypes: only one can be the default"
    for record_type in entry.record_types:
        for name, allowed in record_type.picklist_values:
            place = f"objects.{entry.name}.recordTypes.{record_type.developer_name}.picklistValues.{name}"
            field = entry.field(name)
            if field is None or field.type not in ("picklist", "multipicklist"):
                yield f"{place}: {entry.name} has no picklist `{name}`"
                continue
            known = {value.value for value in field.picklist_values}
            yield from (f"{place}: `{name}` has no value `{value}`" for value in allowed if value not in known)
