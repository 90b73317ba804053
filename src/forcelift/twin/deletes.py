"""Delete records by Id: into the recycle bin, or for good; with what hangs on them by lookup or master-detail."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import duckdb
import polars as pl

from forcelift.twin import values
from forcelift.twin.contention import Contention, refuse_locked
from forcelift.twin.ingest_task import BATCH_ROWS, GroupResult, IngestTask
from forcelift.twin.roll_up_saves import MasterRules, RollUpSaves, no_value
from forcelift.twin.schema import FieldSchema, ObjectSchema, Schema
from forcelift.twin.store import table
from forcelift.twin.values import name as quoted
from forcelift.twin.values import row_error, text

RECYCLE_BIN_DAYS: Final = 15
_CASCADE_DEPTH_MAX: Final = 20


class DeleteRun:
    """One commit group of a delete or hardDelete job. Works in temporary tables of one cursor."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        task: IngestTask,
        *,
        now: datetime,
        contention: Contention | None = None,
        masters: MasterRules | None = None,
    ) -> None:
        self._cursor = cursor
        self._masters = masters
        self._now = now.replace(tzinfo=None, microsecond=0)
        self._task = task
        self._stamp = f"TIMESTAMP '{now:%Y-%m-%d %H:%M:%S}'"
        self._contention = contention or Contention()
        self._for_good = task.operation == "hardDelete"

    def execute(self, rows: pl.DataFrame) -> GroupResult:
        """Delete the records that the rows name and write an outcome for each row."""
        self._cursor.register("twin_rows", rows.to_arrow())
        try:
            self._match()
        finally:
            self._cursor.unregister("twin_rows")
        cuts = self._refuse_locked()
        self._refuse_restricted()
        if self._task.faults is not None:
            self._task.faults.strike_deletes(self._cursor, self._task.entry, self._task.job)
        apex_ms = self._save_masters()
        self._cursor.execute(
            "CREATE OR REPLACE TEMP TABLE twin_doomed AS SELECT DISTINCT id AS root, id FROM twin_delete "
            "WHERE error IS NULL"
        )
        self._delete(self._task.entry, depth=0)
        self._cursor.execute(
            f"INSERT INTO meta.ingest_outcome SELECT {self._task.job}, row_no, CASE WHEN error IS "
            "NULL THEN id END, false, "
            "error FROM twin_delete"
        )
        counts = self._cursor.execute("SELECT count(*), count(error) FROM twin_delete").fetchone()
        assert counts is not None  # an aggregate always gives a row
        return GroupResult(created=0, updated=counts[0] - counts[1], failed=counts[1], requeued=cuts, apex_ms=apex_ms)

    def _refuse_locked(self) -> frozenset[int]:
        """Fail rows that wait too long for the lock on their record or a parent; tell the batches that are put back.

        What a deletion takes along by cascade, and lookups that it empties, take no locks here.
        """
        if not self._contention.can_fail:
            return frozenset()
        self._cursor.execute(
            "CREATE OR REPLACE TEMP TABLE twin_round AS SELECT d.row_no AS pos, d.id AS record, s.ord, s.chunk, "
            f"d.error, t.rowid AS place FROM twin_delete d JOIN twin_sent s ON s.row_no = d.row_no "
            f"LEFT JOIN {table(self._task.entry)} t ON t.Id = d.id"
        )
        cuts = refuse_locked(self._cursor, self._task, self._contention, ())
        self._cursor.execute(
            "UPDATE twin_delete SET error = r.error FROM twin_round r WHERE r.pos = row_no AND r.error IS NOT NULL"
        )
        for batch, last in cuts.items():
            self._cursor.execute(
                f"DELETE FROM twin_delete WHERE row_no // {BATCH_ROWS} = {batch} AND row_no IN "
                f"(SELECT pos FROM twin_round WHERE chunk > {last})"
            )
        return frozenset(cuts)

    def _save_masters(self) -> float:
        """Save the masters that sum the records up, as they are without them; tells the time that it costs.

        Masters of what falls with the records by cascade are not saved.
        """
        if self._masters is None:
            return 0.0
        entry = self._task.record
        saves = RollUpSaves(self._cursor, self._masters, entry, now=self._now, user_id=self._task.user_id)
        if not saves.needed:
            return 0.0
        saves.begin(
            f"(SELECT d.row_no AS pos, s.chunk, s.ord, d.id AS record{saves.columns} FROM twin_delete d "
            f"JOIN twin_sent s ON s.row_no = d.row_no JOIN {table(entry)} t ON t.Id = d.id WHERE d.error IS NULL) t",
            old=lambda field: f"t.{quoted(field.name)}",
            new=no_value,
        )
        saves.settle()
        self._cursor.execute(
            f"UPDATE twin_delete SET error = x.error FROM {saves.rows} x WHERE x.pos = row_no AND x.error IS NOT NULL"
        )
        return saves.apex_ms

    def _match(self) -> None:
        """Find the record of each row. A second row with the same Id finds it deleted."""
        entry = self._task.entry
        missing = row_error("MISSING_ARGUMENT", text("Id not specified in a delete call"))
        malformed = row_error("MALFORMED_ID", "'bad id ' || c0", "Id")
        foreign = row_error("INVALID_ID_FIELD", text(f"Invalid Id for entity type '{entry.name}'"), "Id")
        unknown = row_error("INVALID_CROSS_REFERENCE_KEY", text("invalid cross reference id"))
        deleted = row_error("ENTITY_IS_DELETED", text("entity is deleted"))
        self._cursor.execute(
            "CREATE OR REPLACE TEMP TABLE twin_sent AS SELECT ord, row_no, chunk, c0, "
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
        """A record that others hold by a lookup that restricts deletion stays; so does the master of such a record."""
        if _is_restricted(self._task.schema, self._task.entry, depth=0):
            self._cursor.execute(
                "CREATE OR REPLACE TEMP TABLE twin_fall_0 AS SELECT id AS root, id FROM twin_delete WHERE error IS NULL"
            )
            self._refuse_held(self._task.entry, depth=0)

    def _refuse_held(self, entry: ObjectSchema, *, depth: int) -> None:
        """Look at what would fall with the records of `twin_fall_<depth>`."""
        for child, field in self._task.schema.children(entry.name):
            held = f"twin_fall_{depth} f JOIN {table(child)} c ON c.{quoted(field.name)} = f.id WHERE NOT c.IsDeleted"
            if restricts(field):
                error = row_error(
                    "DELETE_FAILED",
                    text(
                        f"Your attempt to delete {self._task.entry.label} could not be completed because it is "
                        f"associated with the following {child.label_plural}."
                    ),
                )
                self._cursor.execute(
                    f"UPDATE twin_delete SET error = {error} WHERE error IS NULL AND id IN (SELECT f.root FROM {held})"
                )
            elif field.cascade_delete and depth < _CASCADE_DEPTH_MAX:
                self._cursor.execute(
                    f"CREATE OR REPLACE TEMP TABLE twin_fall_{depth + 1} AS "
                    f"SELECT DISTINCT f.root, c.Id AS id FROM {held}"
                )
                if self._count(f"twin_fall_{depth + 1}"):
                    self._refuse_held(child, depth=depth + 1)

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
            # Who deletes for good takes what lies in the recycle bin along.
            live = "" if self._for_good else "NOT c.IsDeleted AND "
            held = f"{live}c.{column} IN (SELECT id FROM twin_doomed)"
            if not field.cascade_delete:
                if child.name == entry.name and not self._for_good:
                    held += " AND c.Id NOT IN (SELECT id FROM twin_doomed)"  # what is deleted keeps its lookups
                if field.createable or field.updateable:
                    self._release(child, field, held)
                continue
            kept = f"twin_doomed_{depth}"
            self._cursor.execute(f"CREATE OR REPLACE TEMP TABLE {kept} AS SELECT root, id FROM twin_doomed")
            self._cursor.execute(
                f"CREATE OR REPLACE TEMP TABLE twin_doomed AS SELECT any_value(d.root) AS root, c.Id AS id FROM "
                f"{table(child)} c JOIN {kept} d ON c.{column} = d.id WHERE {live}true GROUP BY c.Id"
            )
            if self._count("twin_doomed"):
                if not self._for_good:
                    self._cursor.execute(
                        f"INSERT INTO meta.recycled SELECT id, root, {text(child.name)}, NULL, NULL FROM twin_doomed"
                    )
                self._delete(child, depth=depth + 1)
            self._cursor.execute(f"CREATE OR REPLACE TEMP TABLE twin_doomed AS SELECT root, id FROM {kept}")

    def _release(self, child: ObjectSchema, field: FieldSchema, held: str) -> None:
        """Empty a lookup; what it held is kept, so that an undelete can put it back."""
        column = quoted(field.name)
        if not self._for_good:
            self._cursor.execute(
                f"INSERT INTO meta.recycled SELECT c.Id, c.{column}, {text(child.name)}, {text(field.name)}, "
                f"c.{column} FROM {table(child)} c WHERE {held}"
            )
        self._cursor.execute(
            f"UPDATE {table(child)} c SET {column} = NULL, SystemModstamp = {self._stamp} WHERE {held}"
        )

    def _count(self, name: str) -> int:
        row = self._cursor.execute(f"SELECT count(*) FROM {name}").fetchone()
        return 0 if row is None else int(row[0])


def restricts(field: FieldSchema) -> bool:
    """True if a record that the field points at cannot be deleted: so declared, or the field may not become empty."""
    return field.restricted_delete or (field.required and not field.cascade_delete)


def _is_restricted(schema: Schema, entry: ObjectSchema, *, depth: int) -> bool:
    """True if any lookup at the object, or at what cascades from it, can restrict a deletion."""
    return depth <= _CASCADE_DEPTH_MAX and any(
        restricts(field)
        or (field.cascade_delete and child.name != entry.name and _is_restricted(schema, child, depth=depth + 1))
        for child, field in schema.children(entry.name)
    )
