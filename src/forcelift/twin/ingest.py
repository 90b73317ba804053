"""Execute rows of an ingest job: a commit group of Salesforce batches at a time, as joins over columns.

Reads:   a frame of cells as sent, with columns `ord` (order of work), `row_no`, `chunk` and `new_id`.
Writes:  the object's table and `meta.ingest_outcome`, inside the caller's transaction.

Chunks of 200 rows follow one another. What they could do to each other inside a group is kept by rounds: rows that
touch the same record go into successive rounds, so a later chunk finds what an earlier one wrote.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import duckdb
import polars as pl
import pyarrow as pa

from forcelift.twin import values
from forcelift.twin.columns import Column
from forcelift.twin.ingest_task import GroupResult, IngestTask
from forcelift.twin.lookups import parent_joins
from forcelift.twin.record_rules import blocked_fields, missing_fields, refuse_duplicates
from forcelift.twin.schema import FieldSchema
from forcelift.twin.store import table
from forcelift.twin.values import name as quoted
from forcelift.twin.values import row_error, text

_ARROW_BATCH_ROWS: Final = 8192


class GroupRun:
    """One commit group on its way through the stages. Works in temporary tables of one cursor."""

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, task: IngestTask, *, now: datetime, inserts_left: int
    ) -> None:
        self._cursor = cursor
        self._task = task
        self._now = now.replace(tzinfo=None, microsecond=0)
        self._inserts_left = inserts_left
        self._created = self._updated = self._failed = 0
        self._keys_repeat = False

    def execute(self, rows: pl.DataFrame) -> GroupResult:
        """Insert, update or upsert the rows and write an outcome for each."""
        self._cursor.register("twin_rows", _in_batches(self._cleaned(rows)))
        try:
            self._parse()
        finally:
            self._cursor.unregister("twin_rows")
        self._refuse_bad_values()
        self._refuse_repeated_keys()
        self._write_outcomes(
            "SELECT row_no, NULL::VARCHAR AS id, false AS created, error FROM twin_stage WHERE error IS NOT NULL"
        )
        for number in range(self._number_rounds()):
            self._run_round(number)
        return GroupResult(created=self._created, updated=self._updated, failed=self._failed)

    def _cleaned(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with text cells as they will be stored; cells of other types stay as sent."""
        chosen = [pl.col("ord", "row_no", "chunk", "new_id")]
        for column in self._task.columns:
            cell = pl.col(column.cell)
            chosen.append((cell != "").alias(column.given))
            chosen.append(values.text_value(cell).alias(column.value) if column.kind.is_text else cell)
        return rows.lazy().select(chosen).collect()

    def _parse(self) -> None:
        """Stage 1: text to typed values."""
        chosen = ["ord", "row_no", "chunk", "new_id", "NULL::VARCHAR AS error", "0::BIGINT AS round"]
        for column in self._task.columns:
            chosen.append(column.given)
            if column.kind.is_text:
                chosen.append(column.value)
            else:
                chosen += [column.cell, f"{values.parsed(column.kind, column.cell)} AS {column.value}"]
        self._cursor.execute(f"CREATE OR REPLACE TEMP TABLE twin_stage AS SELECT {', '.join(chosen)} FROM twin_rows")

    def _refuse_bad_values(self) -> None:
        """Errors of type, length and picklist. Only rows that look suspect get a second look."""
        suspect, errors = [], []
        for column in self._task.columns:
            if column.key is not None:
                continue  # A key that is not of its field's type matches no parent, which is the error to tell.
            suspect += values.is_suspect(column.field, column.cell, column.value)
            found = values.value_errors(column.field, column.cell, column.value)
            if found:
                errors.append(
                    "CASE " + " ".join(f"WHEN {condition} THEN {error}" for condition, error in found) + " END"
                )
        if suspect:
            self._cursor.execute(
                f"UPDATE twin_stage SET error = nullif(concat({', '.join(errors)}), '') WHERE "
                f"({') OR ('.join(suspect)})"
            )

    def _record_key(self) -> tuple[str, FieldSchema] | None:
        """The value column that names the record a row is about, and its field; None if the file has no such column."""
        column = self._task.column_of(self._task.key)
        return None if column is None or self._task.key is None else (column.value, self._task.key)

    def _refuse_repeated_keys(self) -> None:
        """All copies of a key within one chunk of 200 fail; so does a row without a key."""
        task = self._task
        if task.key is None:
            return
        column = task.column_of(task.key)
        blank_id = task.operation == "upsert" and task.key.type == "id"
        missing = row_error(
            "MISSING_ARGUMENT",
            text(
                f"{task.key.name} not specified" if task.operation == "upsert" else "Id not specified in an update call"
            ),
        )
        if column is None:
            if not blank_id:
                self._cursor.execute(f"UPDATE twin_stage SET error = {missing} WHERE error IS NULL")
            return
        if not blank_id:
            self._cursor.execute(
                f"UPDATE twin_stage SET error = {missing} WHERE error IS NULL AND {column.value} IS NULL"
            )
        key = values.match_key(task.key, column.value)
        several = self._cursor.execute(
            f"SELECT count({key}) > count(DISTINCT {key}) FROM twin_stage WHERE error IS NULL"
        ).fetchone()
        self._keys_repeat = several is not None and bool(several[0])
        if not self._keys_repeat:
            return
        word = "external id" if task.key.type != "id" else "id"
        repeated = row_error("DUPLICATE_VALUE", f"'Duplicate {word} specified: ' || CAST({column.value} AS VARCHAR)")
        self._cursor.execute(
            f"UPDATE twin_stage SET error = {repeated} FROM (SELECT chunk AS h, {key} AS k FROM twin_stage "
            f"WHERE error IS NULL AND {column.value} IS NOT NULL GROUP BY ALL HAVING count(*) > 1) r "
            f"WHERE error IS NULL AND chunk = r.h AND {key} = r.k"
        )

    def _number_rounds(self) -> int:
        """Give each row the number of earlier chunks that touch its record; tell how many rounds that makes."""
        found = self._record_key()
        if found is None or not self._keys_repeat:
            return 1
        key = values.match_key(found[1], found[0])
        self._cursor.execute(
            "UPDATE twin_stage SET round = r.n FROM (SELECT row_no AS line, row_number() OVER "
            f"(PARTITION BY {key} ORDER BY "
            f"ord) - 1 AS n FROM twin_stage WHERE error IS NULL AND {key} IS NOT NULL) r WHERE row_no "
            "= r.line AND r.n > 0"
        )
        row = self._cursor.execute("SELECT coalesce(max(round), 0) + 1 FROM twin_stage WHERE error IS NULL").fetchone()
        return int(row[0]) if row is not None else 1

    def _run_round(self, number: int) -> None:
        """Stages 3 to 5 for the rows of one round: match records, check rules of the record, write."""
        self._match(number)
        self._check_fields()
        if self._task.faults is not None:
            self._task.faults.strike(self._cursor, self._task.entry, self._task.columns, self._task.job)
        refuse_duplicates(self._cursor, self._task)
        self._check_storage()
        self._write_records()
        self._write_outcomes(
            "SELECT row_no, CASE WHEN error IS NULL THEN coalesce(record, new_id) END AS id, "
            "error IS NULL AND record IS NULL AS created, error FROM twin_round"
        )

    def _match(self, number: int) -> None:
        """Stage 3: which record a row is about. `record` null means that it will be a new one."""
        joins, replaced, errors = parent_joins(self._task, number)
        record = "CAST(NULL AS VARCHAR) AS record, CAST(NULL AS BIGINT) AS place"
        found = self._record_key()
        if found is not None:
            record = "m.id AS record, m.place"
            joins.append(self._record_join(*found, number))
            errors.append(self._record_error(*found))
        elif self._task.operation == "insert":
            errors.extend(
                f"CASE WHEN s.{column.given} THEN "
                + row_error("INVALID_FIELD_FOR_INSERT_UPDATE", text("cannot specify Id in an insert call"), "Id")
                + " END"
                for column in self._task.columns
                if column.field.type == "id"
            )
        error = f"nullif(concat({', '.join(errors)}), '')" if errors else "CAST(NULL AS VARCHAR)"
        replace = f" REPLACE ({', '.join(replaced)})" if replaced else ""
        self._cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE twin_round AS SELECT s.* EXCLUDE (error, round){replace}, {record}, "
            f"{error} AS error FROM twin_stage s {' '.join(joins)} WHERE s.round = {number} AND s.error IS NULL"
        )

    def _record_join(self, value: str, key: FieldSchema, number: int) -> str:
        stored = values.match_key(key, quoted(key.name))
        wanted = f"SELECT {values.match_key(key, value)} FROM twin_stage WHERE round = {number}"
        live = "" if key.type == "id" else "NOT IsDeleted AND "
        return (
            f"LEFT JOIN (SELECT {stored} AS k, min(Id) AS id, max(Id) AS other, min(rowid) AS place, count(*) AS n, "
            f"bool_or(IsDeleted) AS gone FROM {table(self._task.entry)} WHERE {live}{stored} IN "
            f"({wanted}) GROUP BY ALL) m "
            f"ON m.k = {values.match_key(key, 's.' + value)}"
        )

    def _record_error(self, value: str, key: FieldSchema) -> str:
        several = row_error(
            "DUPLICATE_EXTERNAL_ID",
            f"{text(key.label + ': more than one record found for external id field: [')} || m.id || "
            "', ' || m.other || ']'",
            key.name,
        )
        checks = f"CASE WHEN m.n > 1 THEN {several} "
        if key.type == "id":
            sent = f"s.{value}"
            malformed = row_error("MALFORMED_ID", f"'bad id ' || {sent}", "Id")
            unknown = row_error("INVALID_CROSS_REFERENCE_KEY", "'invalid cross reference id'")
            deleted = row_error("ENTITY_IS_DELETED", text("entity is deleted"))
            checks += (
                f"WHEN m.gone THEN {deleted} WHEN m.id IS NOT NULL OR {sent} IS NULL THEN NULL "
                f"WHEN left({sent}, 3) <> {text(self._task.entry.key_prefix)} OR NOT "
                f"{values.is_id(sent)} THEN {malformed} "
                f"ELSE {unknown} "
            )
        return checks + "END"

    def _check_fields(self) -> None:
        """Stage 4: fields that cannot be written and required ones that are missing. Automation belongs after it."""
        for error in (blocked_fields(self._task), missing_fields(self._task)):
            if error is not None:
                self._cursor.execute(
                    f"UPDATE twin_round SET error = {error} WHERE error IS NULL AND {error} IS NOT NULL"
                )

    def _check_storage(self) -> None:
        """New records beyond the org's data storage fail, in the order of work."""
        row = self._cursor.execute("SELECT count(*) FROM twin_round WHERE error IS NULL AND record IS NULL").fetchone()
        wanted = 0 if row is None else int(row[0])
        if wanted > self._inserts_left:
            full = row_error("STORAGE_LIMIT_EXCEEDED", text("storage limit exceeded"))
            self._cursor.execute(
                f"UPDATE twin_round SET error = {full} FROM (SELECT row_no AS line FROM twin_round "
                "WHERE error IS NULL AND record IS NULL "
                f"ORDER BY ord OFFSET {max(self._inserts_left, 0)}) r WHERE row_no = r.line"
            )
        self._inserts_left -= min(wanted, max(self._inserts_left, 0))

    def _write_records(self) -> None:
        """Stage 5: write what passed."""
        task = self._task
        given = {column.field.name: column for column in task.columns if column.field.type != "id"}
        stamp = f"TIMESTAMP '{self._now:%Y-%m-%d %H:%M:%S}'"
        user = text(task.user_id)
        system = {
            "Id": "new_id",
            "IsDeleted": "false",
            "CreatedDate": stamp,
            "CreatedById": user,
            "LastModifiedDate": stamp,
            "LastModifiedById": user,
            "SystemModstamp": stamp,
        }
        listed, taken = [], []
        for field in task.entry.stored_fields:
            listed.append(quoted(field.name))
            taken.append(system.get(field.name) or self._inserted(field, given.get(field.name)))
        self._cursor.execute(
            f"INSERT INTO {table(task.entry)} ({', '.join(listed)}) SELECT {', '.join(taken)} FROM twin_round "
            "WHERE error IS NULL AND record IS NULL ORDER BY ord"
        )
        assigned = [
            f"{quoted(column.field.name)} = CASE WHEN r.{column.given} THEN r.{column.value} ELSE "
            f"t.{quoted(column.field.name)} END"
            for column in given.values()
            if column.field.updateable and column.field is not task.key
        ]
        assigned += [f"LastModifiedDate = {stamp}", f"LastModifiedById = {user}", f"SystemModstamp = {stamp}"]
        if task.operation != "insert":
            self._cursor.execute(
                f"UPDATE {table(task.entry)} t SET {', '.join(assigned)} FROM twin_round r "
                "WHERE t.rowid = r.place AND r.error IS NULL AND r.record IS NOT NULL"
            )

    def _inserted(self, field: FieldSchema, column: Column | None) -> str:
        """What an insert stores in a field: the given value, or its default; `#N/A` suppresses the default."""
        if field.auto_number:
            return self._auto_number(field)
        default = values.default_sql(field)
        if field.name_field and field.name == "Name" and field.defaulted_on_create and default == "NULL":
            default = "left(new_id, 15)"
        if field.name == "OwnerId" and default == "NULL":
            default = text(self._task.user_id)
        if column is None or not field.createable:
            return default
        return f"CASE WHEN {column.given} THEN {column.value} ELSE {default} END"

    def _auto_number(self, field: FieldSchema) -> str:
        """The next number in the field's pattern (`F-{0000}`), in the order of work."""
        counter = f"{self._task.entry.name}.{field.name}"
        row = self._cursor.execute(
            "SELECT coalesce(max(next), 1) FROM meta.auto_number WHERE field = ?", [counter]
        ).fetchone()
        start = int(row[0]) if row is not None else 1
        counted = self._cursor.execute(
            "SELECT count(*) FROM twin_round WHERE error IS NULL AND record IS NULL"
        ).fetchone()
        self._cursor.execute("DELETE FROM meta.auto_number WHERE field = ?", [counter])
        self._cursor.execute(
            "INSERT INTO meta.auto_number VALUES (?, ?)", [counter, start + (counted[0] if counted else 0)]
        )
        pattern = field.display_format or "{0}"
        head, _, rest = pattern.partition("{")
        width, _, tail = rest.partition("}")
        number = f"CAST({start - 1} + row_number() OVER (ORDER BY ord) AS VARCHAR)"
        padded = f"CASE WHEN length({number}) >= {len(width)} THEN {number} ELSE lpad({number}, {len(width)}, '0') END"
        return f"{text(head)} || {padded} || {text(tail)}"

    def _write_outcomes(self, query: str) -> None:
        """Write `row_no, id, created, error` of the query's rows as their outcomes, and count them."""
        self._cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE twin_outcome AS SELECT {self._task.job} AS job, * FROM ({query})"
        )
        self._cursor.execute("INSERT INTO meta.ingest_outcome SELECT * FROM twin_outcome")
        counts = self._cursor.execute(
            "SELECT count(*) FILTER (created), count(*), count(error) FROM twin_outcome"
        ).fetchone()
        assert counts is not None  # an aggregate always gives a row
        self._created += counts[0]
        self._failed += counts[2]
        self._updated += counts[1] - counts[0] - counts[2]


def _in_batches(rows: pl.DataFrame) -> pa.Table:
    """The rows as an Arrow table of small batches, which DuckDB scans with several threads."""
    whole = rows.to_arrow()
    return pa.Table.from_batches(whole.to_batches(max_chunksize=_ARROW_BATCH_ROWS), schema=whole.schema)
