"""Execute rows of an ingest job: a commit group of Salesforce batches at a time, as joins over columns.

Reads:   a frame of cells as sent, with columns `ord` (order of work), `row_no`, `chunk` and `new_id`.
Writes:  the object's table and `meta.ingest_outcome`, inside the caller's transaction.

Chunks of 200 rows follow one another. What they could do to each other inside a group is kept by rounds: rows that
touch the same record go into successive rounds, so a later chunk finds what an earlier one wrote.
The rows stay in one polars frame; DuckDB gets of it only the columns that a rule asks about, and at the end what is
to be written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import duckdb
import polars as pl
import pyarrow as pa

from forcelift.twin import values
from forcelift.twin.automation_models import NO_AUTOMATIONS, Automations
from forcelift.twin.automation_run import AutomationRun, extended, locked_fields
from forcelift.twin.cells import Traits, read_cells
from forcelift.twin.columns import Column
from forcelift.twin.contention import Contention, refuse_locked
from forcelift.twin.ingest_task import BATCH_ROWS, CHUNK_ROWS, GroupResult, IngestTask, filled_by_default
from forcelift.twin.lookups import parent_joins
from forcelift.twin.matching import find_records
from forcelift.twin.record_rules import blocked_fields, missing_fields, refuse_duplicates, unique_columns
from forcelift.twin.record_types import narrowed_columns, refuse_narrowed
from forcelift.twin.roll_up_saves import MasterRules, RollUpSaves
from forcelift.twin.row_updates import update_sql
from forcelift.twin.schema import FieldSchema
from forcelift.twin.store import hash_column, hashed_fields, key_hash, table
from forcelift.twin.values import name as quoted
from forcelift.twin.values import row_error, text

_ARROW_BATCH_ROWS: Final = 16_384
_ROW: Final = ("ord", "row_no", "chunk", "new_id")


class GroupRun:
    """One commit group on its way through the stages. Works in temporary tables of one cursor."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        task: IngestTask,
        *,
        now: datetime,
        inserts_left: int,
        automations: Automations = NO_AUTOMATIONS,
        contention: Contention | None = None,
        masters: MasterRules | None = None,
    ) -> None:
        self._cursor = cursor
        self._sent = task
        self._task = task if automations.is_empty else extended(task, automations)
        self._strikes = task.faults is not None and task.faults.is_armed  # asked once: `twin_round` is made for it
        self._now = now.replace(tzinfo=None, microsecond=0)
        self._inserts_left = inserts_left
        saves = None
        if masters is not None:
            saves = RollUpSaves(cursor, masters, task.record, now=self._now, user_id=task.user_id)
        self._masters = saves if saves is not None and saves.needed else None
        self._automated = not automations.is_empty
        # Who saves masters again asks for what details were and will be, as automations do.
        self._watched = self._automated or self._masters is not None
        self._acting = AutomationRun(cursor, self._task, automations, now=self._now)
        self._contention = contention or Contention()
        self._locked = locked_fields(automations, task.record)
        self._narrowed = narrowed_columns(self._task)
        self._cuts: dict[int, int] = {}
        self._created = self._updated = self._failed = 0

    def execute(self, rows: pl.DataFrame, *, traits: Traits | None = None) -> GroupResult:
        """Insert, update or upsert the rows, whose cells are text as sent, and write an outcome for each."""
        cells = rows.drop(_ROW)
        read = read_cells(cells, self._sent.columns, connect=self._cursor.cursor, traits=traits)
        return self.execute_read(rows.select(_ROW).hstack(read))

    def execute_read(self, rows: pl.DataFrame, *, keys_differ: bool = False) -> GroupResult:
        """The same for rows whose cells `read_cells` has read already. `keys_differ`: as `surely_differ` says it."""
        rows, keys_repeat = self._refuse_keys(rows, keys_differ=keys_differ)
        failed = pl.col("error").is_not_null()
        if rows["error"].null_count() < rows.height:
            self._write_outcomes(rows.filter(failed).select("row_no", "error"))
            rows = rows.filter(~failed)
        if not keys_repeat:
            self._run_round(rows)
        else:
            for part in self._rounds(rows):
                self._run_round(part)
        return GroupResult(
            created=self._created,
            updated=self._updated,
            failed=self._failed,
            requeued=frozenset(self._cuts),
            apex_ms=self._acting.apex_ms + (0.0 if self._masters is None else self._masters.apex_ms),
        )

    def _record_key(self) -> tuple[str, FieldSchema] | None:
        """The value column that names the record a row is about, and its field; None if the file has no such column."""
        column = self._task.column_of(self._task.key)
        return None if column is None or self._task.key is None else (column.value, self._task.key)

    def _refuse_keys(self, rows: pl.DataFrame, *, keys_differ: bool) -> tuple[pl.DataFrame, bool]:
        """Fail rows without a key, and all copies of a key within one chunk of 200; tell whether keys still repeat."""
        task = self._task
        if task.key is None or rows.is_empty():
            return rows, False
        column = task.column_of(task.key)
        if not (task.operation == "upsert" and task.key.type == "id"):
            words = "not specified" if task.operation == "upsert" else "not specified in an update call"
            missing = f"MISSING_ARGUMENT:{task.key.name} {words}:--"
            lacking = pl.lit(True) if column is None else pl.col(column.value).is_null()
            rows = rows.with_columns(
                error=pl.when(pl.col("error").is_null() & lacking).then(pl.lit(missing)).otherwise("error")
            )
        if column is None or keys_differ:
            return rows, False
        key = values.match_key(task.key, column.value)
        good = rows.filter(pl.col("error").is_null()).select("row_no", "ord", "chunk", column.value)
        if surely_differ(good[column.value]):
            return rows, False
        with shown(self._cursor, "twin_keys", good):
            several = self._cursor.execute(f"SELECT count({key}) > count(DISTINCT {key}) FROM twin_keys").fetchone()
            if several is None or not several[0]:
                return rows, False
            word = "external id" if task.key.type != "id" else "id"
            repeated = row_error(
                "DUPLICATE_VALUE", f"'Duplicate {word} specified: ' || CAST({column.value} AS VARCHAR)"
            )
            told = self._fetch(
                f"SELECT row_no, {repeated} AS told FROM twin_keys WHERE {column.value} IS NOT NULL "
                f"QUALIFY count(*) OVER (PARTITION BY chunk, {key}) > 1"
            )
        rows = rows.join(told, on="row_no", how="left", maintain_order="left")
        return rows.with_columns(error=pl.coalesce("error", "told")).drop("told"), True

    def _rounds(self, rows: pl.DataFrame) -> list[pl.DataFrame]:
        """The rows by the number of earlier chunks that touch their record."""
        found = self._record_key()
        assert found is not None  # keys that repeat have a column
        key = values.match_key(found[1], found[0])
        with shown(self._cursor, "twin_keys", rows.select("row_no", "ord", found[0])):
            numbers = self._fetch(
                f"SELECT row_no, CASE WHEN {key} IS NULL THEN 0 ELSE "
                f"row_number() OVER (PARTITION BY {key} ORDER BY ord) - 1 END AS round FROM twin_keys"
            )
        parts = rows.join(numbers, on="row_no", how="left", maintain_order="left").partition_by(
            "round", maintain_order=True, include_key=False, as_dict=True
        )
        return [part for _, part in sorted(parts.items())] or [rows]

    def _run_round(self, rows: pl.DataFrame) -> None:
        """Match records, check the rules of records, write: for the rows of one round."""
        rows = self._without_cut(rows)
        if rows.is_empty():
            return
        filled = self._filled(rows)
        self._match(rows, filled)
        self._refuse(blocked_fields(self._sent))
        if self._watched:
            self._acting.before()
        self._refuse(missing_fields(self._task, filled=filled))
        refuse_narrowed(self._cursor, self._task, self._narrowed)
        if self._strikes and self._task.faults is not None:
            self._task.faults.strike(self._cursor, self._task.entry, self._task.columns, self._task.job)
        if self._watched:
            self._acting.validate()
            self._acting.refuse_similar()
        refuse_duplicates(self._cursor, self._task)
        if self._watched:
            self._acting.after()
        self._cuts |= refuse_locked(self._cursor, self._task, self._contention, self._locked)
        self._check_storage()
        if self._masters is not None:
            self._save_masters(self._masters)
        rows = self._without_cut(self._judged(rows))
        self._write_records(rows)
        self._write_outcomes(
            rows.select(
                "row_no",
                "error",
                id=pl.when(pl.col("error").is_null()).then(pl.coalesce("record", "new_id")),
                created=pl.col("error").is_null() & pl.col("record").is_null(),
            )
        )

    def _save_masters(self, saves: RollUpSaves) -> None:
        """Save the masters that sum the rows up; last of all, since only what is saved counts in a sum."""
        saves.begin(
            f"twin_round WHERE error IS NULL{self._uncut()}",
            old=lambda field: self._acting.value(field, True),
            new=lambda field: self._acting.value(field, False),
        )
        saves.settle()
        self._cursor.execute(
            f"UPDATE twin_round SET error = d.error FROM {saves.rows} d "
            "WHERE d.pos = twin_round.pos AND d.error IS NOT NULL"
        )

    def _filled(self, rows: pl.DataFrame) -> frozenset[str]:
        """Names of fields for which every row has a value: nobody needs to look whether one is missing."""
        if self._watched:
            return frozenset()  # an automation may empty a field
        columns = [column for column in self._task.columns if not column.field.nillable]
        return frozenset(column.field.name for column in columns if rows[column.value].null_count() == 0)

    @property
    def _wide(self) -> bool:
        """True if something may look at any column of the rows, so that `twin_round` must have them all."""
        return self._watched or self._strikes

    def _asked_for(self, rows: pl.DataFrame, filled: frozenset[str]) -> list[str]:
        """The columns that the rules look at."""
        if self._wide:
            return [name for name in rows.columns if name not in (*_ROW, "error")]
        names: dict[str, None] = {}
        looked_at = [*unique_columns(self._task), *self._narrowed]
        for column in self._task.columns:
            field = column.field
            if column.value not in rows.columns:
                continue
            if field is self._task.key or column in looked_at or field.type in ("reference", "id"):
                names |= dict.fromkeys([column.value, column.given])
            if column.key is not None and not column.key.is_text:
                names[column.cell] = None
            if not (field.createable and field.updateable):
                names[column.given] = None
            if not field.nillable and field.name not in filled:
                names |= dict.fromkeys([column.value, column.given])
        return list(names)

    def _match(self, rows: pl.DataFrame, filled: frozenset[str]) -> None:
        """Find out which record a row is about. `record` null means that it will be a new one."""
        task = self._task
        narrow = rows.select(*_ROW, *self._asked_for(rows, filled)).with_row_index("pos")
        with shown(self._cursor, "twin_stage", narrow):
            joins, replaced, errors = parent_joins(self._cursor, task)
            record = "CAST(NULL AS VARCHAR) AS record, CAST(NULL AS BIGINT) AS place"
            found = self._record_key()
            if found is not None:
                value, key = found
                wanted = f"SELECT {values.match_key(key, value)} FROM twin_stage"
                find_records(self._cursor, task.entry, key, wanted=wanted, into="twin_match")
                record = "m.id AS record, m.place"
                joins.append(f"LEFT JOIN twin_match m ON m.k = {values.match_key(key, 's.' + value)}")
                errors.append(self._record_error(*found))
            elif task.operation == "insert":
                errors.extend(
                    f"CASE WHEN s.{column.given} THEN "
                    + row_error("INVALID_FIELD_FOR_INSERT_UPDATE", text("cannot specify Id in an insert call"), "Id")
                    + " END"
                    for column in task.columns
                    if column.field.type == "id"
                )
            joins.extend(self._old_values(found is not None))
            error = f"nullif(concat({', '.join(errors)}), '')" if errors else "CAST(NULL AS VARCHAR)"
            replace = f" REPLACE ({', '.join(replaced)})" if replaced else ""
            more = self._more_columns(found is not None)
            self._cursor.execute(
                f"CREATE OR REPLACE TEMP TABLE twin_round AS SELECT s.*{replace}{more}, {record}, {error} AS error "
                f"FROM twin_stage s {' '.join(joins)}"
            )

    def _old_values(self, known: bool) -> list[str]:
        """The join that gives automations the records as they are stored."""
        return [f"LEFT JOIN {table(self._task.entry)} t ON t.rowid = m.place"] if known and self._watched else []

    def _more_columns(self, known: bool) -> str:
        """Columns that automations want: stored values, and those of fields that the file does not give."""
        if not self._watched:
            return ""
        more = [
            f"{self._stored(field) if known else f'CAST(NULL AS {field.sql_type})'} AS {name}"
            for field, name in self._acting.old_columns()
        ]
        for column in self._task.columns[len(self._sent.columns) :]:
            more += [f"CAST(NULL AS {column.field.sql_type}) AS {column.value}", f"false AS {column.given}"]
        return "".join(f", {part}" for part in more)

    def _stored(self, field: FieldSchema) -> str:
        """SQL of what a field of the record `t` is now; formulas see roll-ups as queries do."""
        computed = field.computed_sql("t") if self._automated else None
        return computed or f"t.{quoted(field.name)}"

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

    def _without_cut(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows without those of chunks that go back into the queue."""
        for batch, last in self._cuts.items():
            chunk = pl.col("chunk")
            rows = rows.filter((chunk // (BATCH_ROWS // CHUNK_ROWS) != batch) | (chunk <= last))
        return rows

    def _uncut(self) -> str:
        """The same as conditions in SQL, each with its AND."""
        batch_chunks = BATCH_ROWS // CHUNK_ROWS
        return "".join(f" AND (chunk // {batch_chunks} <> {b} OR chunk <= {last})" for b, last in self._cuts.items())

    def _refuse(self, error: str | None) -> None:
        """Give the error text, null for a good row, to rows that have none yet."""
        if error is not None:
            self._cursor.execute(f"UPDATE twin_round SET error = {error} WHERE error IS NULL AND {error} IS NOT NULL")

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

    def _judged(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with what the rules found: `record`, `place`, `error`, and Ids of parents in place of their keys."""
        changed = [column.value for column in self._task.columns if column.key is not None]
        if self._watched:
            changed = [name for column in self._task.columns for name in (column.value, column.given)]
        found = self._fetch(f"SELECT {', '.join(['record', 'place', 'error', *changed])} FROM twin_round ORDER BY pos")
        return rows.drop("error", *(name for name in changed if name in rows.columns)).hstack(found)

    def _write_records(self, rows: pl.DataFrame) -> None:
        """Write what passed."""
        good = pl.col("error").is_null()
        new = rows.filter(good & pl.col("record").is_null())
        if not new.is_empty():
            self._insert(new)
        if self._task.operation != "insert":
            old = rows.filter(good & pl.col("record").is_not_null())
            if not old.is_empty():
                self._update(old)

    def _given(self) -> dict[str, Column]:
        return {column.field.name: column for column in self._task.columns if column.field.type != "id"}

    def _insert(self, rows: pl.DataFrame) -> None:
        task, given = self._task, self._given()
        stamp, user = f"TIMESTAMP '{self._now:%Y-%m-%d %H:%M:%S}'", text(task.user_id)
        system = {
            "Id": "new_id",
            "IsDeleted": "false",
            "CreatedDate": stamp,
            "CreatedById": user,
            "LastModifiedDate": stamp,
            "LastModifiedById": user,
            "SystemModstamp": stamp,
        }
        hashed = hashed_fields(task.record)
        listed, taken = [], []
        for field in task.record.stored_fields:
            value = system.get(field.name) or self._inserted(field, given.get(field.name), rows.height)
            listed.append(quoted(field.name))
            taken.append(value)
            if field in hashed:
                listed.append(hash_column(field))
                taken.append(key_hash(field, value))
        with shown(self._cursor, "twin_new", rows):
            self._cursor.execute(
                f"INSERT INTO {table(task.entry)} ({', '.join(listed)}) SELECT {', '.join(taken)} FROM twin_new"
            )

    def _update(self, rows: pl.DataFrame) -> None:
        with shown(self._cursor, "twin_old", rows):
            self._cursor.execute(update_sql(self._task, self._given().values(), "twin_old", now=self._now))

    def _inserted(self, field: FieldSchema, column: Column | None, count: int) -> str:
        """What an insert stores in a field: the given value, or its default; `#N/A` suppresses the default."""
        if field.auto_number:
            return self._auto_number(field, count)
        default = filled_by_default(self._task, field)
        if column is None or not field.createable:
            return default
        if default == "NULL":
            return column.value  # null too where the cell is empty
        return f"CASE WHEN {column.given} THEN {column.value} ELSE {default} END"

    def _auto_number(self, field: FieldSchema, count: int) -> str:
        """The next number in the field's pattern (`F-{0000}`), in the order of work."""
        counter = f"{self._task.entry.name}.{field.name}"
        row = self._cursor.execute(
            "SELECT coalesce(max(next), 1) FROM meta.auto_number WHERE field = ?", [counter]
        ).fetchone()
        start = int(row[0]) if row is not None else 1
        self._cursor.execute("DELETE FROM meta.auto_number WHERE field = ?", [counter])
        self._cursor.execute("INSERT INTO meta.auto_number VALUES (?, ?)", [counter, start + count])
        pattern = field.display_format or "{0}"
        head, _, rest = pattern.partition("{")
        width, _, tail = rest.partition("}")
        number = f"CAST({start - 1} + row_number() OVER (ORDER BY ord) AS VARCHAR)"
        padded = f"CASE WHEN length({number}) >= {len(width)} THEN {number} ELSE lpad({number}, {len(width)}, '0') END"
        return f"{text(head)} || {padded} || {text(tail)}"

    def _write_outcomes(self, rows: pl.DataFrame) -> None:
        """Write outcomes of rows with `row_no`, `error` and, where any was saved, `id` and `created`; count them."""
        if "id" not in rows.columns:
            rows = rows.with_columns(id=pl.lit(None, dtype=pl.String), created=pl.lit(False))
        with shown(self._cursor, "twin_outcome", rows):
            self._cursor.execute(
                f"INSERT INTO meta.ingest_outcome SELECT {self._task.job}, row_no, id, created, error FROM twin_outcome"
            )
        created = int(rows["created"].sum())
        failed = rows.height - rows["error"].null_count()
        self._created += created
        self._inserts_left -= created
        self._failed += failed
        self._updated += rows.height - created - failed

    def _fetch(self, query: str) -> pl.DataFrame:
        self._cursor.complete()  # a result of one row that was fetched still counts as unfinished
        answer = pl.from_arrow(self._cursor.sql(query).to_arrow_table())
        assert isinstance(answer, pl.DataFrame)  # a table of several columns always is one
        return answer


def surely_differ(keys: pl.Series) -> bool:
    """True if no two keys are equal, whatever their case; False if that takes a closer look."""
    if keys.dtype != pl.String:
        return keys.n_unique() == keys.len()
    if keys.str.len_bytes().sum() != keys.str.len_chars().sum():
        return False  # beyond ASCII only DuckDB knows what it takes for equal
    return keys.str.to_lowercase().n_unique() == keys.len()


@contextmanager
def shown(cursor: duckdb.DuckDBPyConnection, name: str, rows: pl.DataFrame) -> Iterator[None]:
    """Let SQL read the rows under a name, without a copy."""
    cursor.register(name, arrow(rows))
    try:
        yield
        cursor.complete()  # a result of one row that was fetched still counts as unfinished
    finally:
        cursor.unregister(name)


def arrow(rows: pl.DataFrame) -> pa.Table:
    """The rows as an Arrow table of small batches, which DuckDB scans with several threads."""
    whole = rows.to_arrow(compat_level=pl.CompatLevel.newest())
    return pa.Table.from_batches(whole.to_batches(max_chunksize=_ARROW_BATCH_ROWS), schema=whole.schema)
