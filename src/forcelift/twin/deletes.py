"""Delete records by Id: into the recycle bin, or for good; with what hangs on them by lookup or master-detail."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import duckdb
import polars as pl

from forcelift.twin import values
from forcelift.twin.ingest_task import GroupResult, IngestTask
from forcelift.twin.schema import ObjectSchema
from forcelift.twin.store import table
from forcelift.twin.values import name as quoted
from forcelift.twin.values import row_error, text

_CASCADE_DEPTH_MAX: Final = 20


class DeleteRun:
    """One commit group of a delete or hardDelete job. Works in temporary tables of one cursor."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, task: IngestTask, *, now: datetime) -> None:
        self._cursor = cursor
        self._task = task
        self._stamp = f"TIMESTAMP '{now:%Y-%m-%d %H:%M:%S}'"
        self._for_good = task.operation == "hardDelete"

    def execute(self, rows: pl.DataFrame) -> GroupResult:
        """Delete the records that the rows name and write an outcome for each row."""
        self._cursor.register("twin_rows", rows.to_arrow())
        try:
            self._match()
        finally:
            self._cursor.unregister("twin_rows")
        self._refuse_restricted()
        self._cursor.execute(
            "CREATE OR REPLACE TEMP TABLE twin_doomed AS SELECT DISTINCT id FROM twin_delete WHERE error IS NULL"
        )
        self._delete(self._task.entry, depth=0)
        self._cursor.execute(
            f"INSERT INTO meta.ingest_outcome SELECT {self._task.job}, row_no, CASE WHEN error IS "
            "NULL THEN id END, false, "
            "error FROM twin_delete"
        )
        counts = self._cursor.execute("SELECT count(*), count(error) FROM twin_delete").fetchone()
        assert counts is not None  # an aggregate always gives a row
        return GroupResult(created=0, updated=counts[0] - counts[1], failed=counts[1])

    def _match(self) -> None:
        """Find the record of each row. A second row with the same Id finds it deleted."""
        entry = self._task.entry
        missing = row_error("MISSING_ARGUMENT", text("Id not specified in a delete call"))
        malformed = row_error("MALFORMED_ID", "'bad id ' || c0", "Id")
        foreign = row_error("INVALID_ID_FIELD", text(f"Invalid Id for entity type '{entry.name}'"), "Id")
        unknown = row_error("INVALID_CROSS_REFERENCE_KEY", text("invalid cross reference id"))
        deleted = row_error("ENTITY_IS_DELETED", text("entity is deleted"))
        self._cursor.execute(
            "CREATE OR REPLACE TEMP TABLE twin_sent AS SELECT ord, row_no, c0, "
            f"{values.parsed_id('c0')} AS id FROM twin_rows"
        )
        self._cursor.execute(
            "CREATE OR REPLACE TEMP TABLE twin_delete AS SELECT s.row_no, s.id, CASE WHEN c0 IN ('', "
            f"'#N/A') THEN {missing} "
            f"WHEN s.id IS NULL THEN {malformed} WHEN left(s.id, 3) <> {text(entry.key_prefix)} THEN {foreign} "
            f"WHEN m.id IS NULL THEN {unknown} "
            f"WHEN m.gone OR row_number() OVER (PARTITION BY s.id ORDER BY s.ord) > 1 THEN {deleted} END AS error "
            f"FROM twin_sent s LEFT JOIN (SELECT Id AS id, IsDeleted AS gone FROM {table(entry)} "
            f"WHERE Id IN (SELECT id FROM twin_sent)) m ON m.id = s.id"
        )

    def _refuse_restricted(self) -> None:
        """A record that others hold by a lookup with `restrictedDelete` stays."""
        for child, field in self._task.schema.children(self._task.entry.name):
            if not field.restricted_delete:
                continue
            held = row_error(
                "DELETE_FAILED",
                text(
                    f"Your attempt to delete {self._task.entry.label} could not be completed because it is associated "
                    f"with the following {child.label_plural}."
                ),
            )
            self._cursor.execute(
                f"UPDATE twin_delete SET error = {held} WHERE error IS NULL AND id IN "
                f"(SELECT {quoted(field.name)} FROM {table(child)} WHERE NOT IsDeleted)"
            )

    def _delete(self, entry: ObjectSchema, *, depth: int) -> None:
        """Delete the records in `twin_doomed`, first their details, and empty the lookups that point at them."""
        if depth < _CASCADE_DEPTH_MAX:
            self._release_children(entry, depth=depth)
        doomed = "Id IN (SELECT id FROM twin_doomed)"
        if self._for_good:
            self._cursor.execute(f"DELETE FROM {table(entry)} WHERE {doomed}")
        else:
            self._cursor.execute(
                f"UPDATE {table(entry)} SET IsDeleted = true, LastModifiedDate = {self._stamp}, "
                f"LastModifiedById = {text(self._task.user_id)}, SystemModstamp = {self._stamp} "
                f"WHERE NOT IsDeleted AND {doomed}"
            )

    def _release_children(self, entry: ObjectSchema, *, depth: int) -> None:
        for child, field in self._task.schema.children(entry.name):
            column = quoted(field.name)
            held = f"NOT IsDeleted AND {column} IN (SELECT id FROM twin_doomed)"
            if not field.cascade_delete:
                if field.createable or field.updateable:
                    self._cursor.execute(
                        f"UPDATE {table(child)} SET {column} = NULL, SystemModstamp = {self._stamp} WHERE {held}"
                    )
                continue
            kept = f"twin_doomed_{depth}"
            self._cursor.execute(f"CREATE OR REPLACE TEMP TABLE {kept} AS SELECT id FROM twin_doomed")
            self._cursor.execute(
                f"CREATE OR REPLACE TEMP TABLE twin_doomed AS SELECT Id AS id FROM {table(child)} WHERE {held}"
            )
            found = self._cursor.execute("SELECT count(*) FROM twin_doomed").fetchone()
            if found is not None and found[0]:
                self._delete(child, depth=depth + 1)
            self._cursor.execute(f"CREATE OR REPLACE TEMP TABLE twin_doomed AS SELECT id FROM {kept}")
