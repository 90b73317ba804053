"""Find stored records by a key of theirs: external IDs, unique fields, names, Ids."""

from __future__ import annotations

import duckdb

from forcelift.twin import values
from forcelift.twin.schema import FieldSchema, ObjectSchema
from forcelift.twin.store import hash_column, hashed_fields, table
from forcelift.twin.values import name as quoted


def find_records(
    cursor: duckdb.DuckDBPyConnection, entry: ObjectSchema, field: FieldSchema, *, wanted: str, into: str
) -> None:
    """Write the records whose field has one of the wanted values into a temporary table.

    Deleted records are found by their Id only.

    Args:
        cursor: In the transaction whose view of the records counts.
        entry: The object.
        field: The key: matched as the platform does, without case unless the field is unique and case-sensitive.
        wanted: SQL query of one column: values of the field as `match_key` writes them, repeated or null ones too.
        into: Name of the table; it gets `k` (the key), `id`, `other` (smallest and largest Id found), `place` (rowid),
            `n` (records found) and `gone` (is it in the recycle bin).
    """
    stored = values.match_key(field, quoted(field.name))
    live = "true" if field.type == "id" else "NOT IsDeleted"
    found = (
        f"SELECT {stored} AS k, min(Id) AS id, max(Id) AS other, min(rowid) AS place, count(*) AS n, "
        f"bool_or(IsDeleted) AS gone FROM {table(entry)}"
    )
    if field not in hashed_fields(entry):
        cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE {into} AS {found} WHERE {live} AND {stored} IN ({wanted}) GROUP BY ALL"
        )
        return
    cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE twin_places AS SELECT t.rowid AS place FROM {table(entry)} t SEMI JOIN "
        f"(SELECT hash(w.k) AS h FROM ({wanted}) w(k) WHERE w.k IS NOT NULL) h ON t.{hash_column(field)} = h.h"
    )
    # Hashes of several values may be equal, so the values themselves decide.
    any_place = cursor.execute("SELECT count(*) FROM twin_places").fetchone()
    sought = f"AND {stored} IN ({wanted})" if any_place is not None and any_place[0] else "AND false"
    cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE {into} AS {found} WHERE rowid IN (SELECT place FROM twin_places) "
        f"AND {live} {sought} GROUP BY ALL"
    )
