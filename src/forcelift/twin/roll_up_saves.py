"""Save masters again whose roll-up summaries their details may have changed: what refuses a master fails its details.

Details come as a table (`rows`): a row for each detail that is about to be written, with what its lookup
and the summed fields were (`old F`) and will be (`new F`). Chunks of 200 follow one another, since what one of them
adds counts for the next; where no automation acts on any master there is nothing to ask, and one pass does.
A master that is a detail itself has its own master saved after it.
Writes:  fields of masters that their automations fill, and who changed the masters, when; errors into the table.
Source:  salesforce-api reference, section 5 (save order) and section 9 (point 48).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import duckdb

from forcelift.twin.automation_models import Automations
from forcelift.twin.automation_run import AutomationRun, extended
from forcelift.twin.columns import Column
from forcelift.twin.ingest_task import IngestTask
from forcelift.twin.record_rules import missing_fields, refuse_duplicates
from forcelift.twin.row_updates import update_sql
from forcelift.twin.schema import FieldSchema, ObjectSchema, Schema
from forcelift.twin.schema_field import RollUp
from forcelift.twin.store import table
from forcelift.twin.values import name as quoted

LEVELS_MAX: Final = 3  # so deep can master-detail fields go in an org
# A row's error names fields of the row's own object only.
_WITHOUT_FIELDS: Final = "regexp_replace(m.error, ':[A-Za-z0-9_,]* ?--$', ':--')"

Value = Callable[[FieldSchema], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterRules:
    """What the save of a master goes by: the whole schema, and the automations that are active on an object now."""

    schema: Schema
    active_on: Callable[[str], Automations]


class RollUpSaves:
    """The masters of one object that sum its records up. Works in temporary tables of one cursor.

    `needed` is False for an object of which no roll-up tells anything; nothing else may be called then.
    """

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        rules: MasterRules,
        entry: ObjectSchema,
        *,
        now: datetime,
        user_id: str,
        path: tuple[int, ...] = (),
    ) -> None:
        # Two masters of one detail may have the same master; so tables are named for the way up.
        self._cursor = cursor
        self.rows = "_".join(("twin_detail", *map(str, path)))
        self.apex_ms = 0.0
        masters: dict[str, list[FieldSchema]] = {}
        for lookup in entry.stored_fields:
            if lookup.master_detail:
                for target in lookup.reference_to:
                    masters.setdefault(target, []).append(lookup)
        self._masters = [
            _MasterSave(
                cursor, rules, entry, master, lookups, self.rows, now=now, user_id=user_id, path=(*path, number)
            )
            for number, (name, lookups) in enumerate(masters.items())
            if len(path) < LEVELS_MAX
            and (master := rules.schema.object(name)) is not None
            and _told(master, entry, lookups)
        ]
        names = {name for master in self._masters for name in master.field_names}
        self._fields = [field for field in entry.stored_fields if field.name in names]

    @property
    def needed(self) -> bool:
        return bool(self._masters)

    @property
    def columns(self) -> str:
        """SQL of the columns of a stored detail `t` that matter here, each after a comma."""
        return "".join(f", t.{quoted(field.name)}" for field in self._fields)

    @property
    def quiet(self) -> bool:
        """True if no automation acts on any of the masters, nor on theirs."""
        return all(master.quiet for master in self._masters)

    def begin(self, source: str, *, old: Value, new: Value) -> None:
        """Take the rows to be written.

        Args:
            source: SQL of a FROM clause, with `pos`, `chunk`, `ord` and `record` (null for a new one).
            old: SQL of what a field is now, null for a record that is not there or lies in the recycle bin.
            new: SQL of what it will be, null for a record that goes away.
        """
        chunk = "CAST(0 AS BIGINT)" if self.quiet else "chunk"
        listed = "".join(
            f", {old(field)} AS {quoted(f'old {field.name}')}, {new(field)} AS {quoted(f'new {field.name}')}"
            for field in self._fields
        )
        self._cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE {self.rows} AS SELECT pos, {chunk} AS chunk, ord, record, "
            f"CAST(NULL AS VARCHAR) AS error, false AS done{listed} FROM {source}"
        )

    def settle(self) -> None:
        """Save the masters, chunk by chunk; rows whose master is refused get its error."""
        chunks = self._cursor.execute(f"SELECT chunk FROM {self.rows} GROUP BY chunk ORDER BY min(ord)").fetchall()
        for (chunk,) in chunks:
            self.check(int(chunk))
            self.write()
            self._cursor.execute(f"UPDATE {self.rows} SET done = true WHERE chunk = {chunk}")

    def check(self, chunk: int) -> None:
        """Have the masters of a chunk judged, until those that are left have nothing against them."""
        # A row that fails for one master no longer counts for another one. Each pass fails a row, or is the last.
        while any([master.check(chunk) for master in self._masters]):  # noqa: C419 - all of them, not up to the first
            pass

    def write(self) -> None:
        """Save what the last `check` let pass."""
        for master in self._masters:
            self.apex_ms += master.write()


class _MasterSave:
    """The records of one object that are masters of details of another."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        rules: MasterRules,
        detail: ObjectSchema,
        entry: ObjectSchema,
        lookups: list[FieldSchema],
        details: str,
        *,
        now: datetime,
        user_id: str,
        path: tuple[int, ...],
    ) -> None:
        self._cursor = cursor
        self._detail = detail
        self._entry = entry
        self._details = details
        self._now = now
        self._rows = "_".join(("twin_master", *map(str, path)))
        self._automations = rules.active_on(entry.name)
        self._told = _told(entry, detail, lookups)
        self._lookups = list(dict.fromkeys(roll_up.lookup for _, roll_up in self._told))
        columns = tuple(
            Column(index=index, header=field.name, field=field, exact=True)
            for index, (field, _) in enumerate(self._told)
        )
        task = IngestTask(
            schema=rules.schema, entry=entry, operation="update", columns=columns, key=entry.field("Id"), job=0,
            user_id=user_id,
        )  # fmt: skip
        self._task = extended(task, self._automations)
        self._acting = self._run()
        self._above = RollUpSaves(cursor, rules, entry, now=now, user_id=user_id, path=path)

    @property
    def quiet(self) -> bool:
        return self._automations.is_empty and self._above.quiet

    @property
    def field_names(self) -> set[str]:
        """Fields of the details that the roll-ups look at."""
        return {name for _, roll_up in self._told for name in (roll_up.lookup, roll_up.of) if name is not None}

    def check(self, chunk: int) -> bool:
        """Judge the masters of the chunk's rows as they would become; True if that has failed rows."""
        self._gather(chunk)
        self._acting = self._run()
        if not self._automations.is_empty:
            self._judge()
        if self._above.needed:
            self._above.begin(
                f"{self._rows} WHERE error IS NULL",
                old=lambda field: self._acting.value(field, True),
                new=lambda field: self._acting.value(field, False),
            )
            self._above.check(0)
            self._cursor.execute(
                f"UPDATE {self._rows} SET error = a.error FROM {self._above.rows} a "
                f"WHERE a.pos = {self._rows}.pos AND a.error IS NOT NULL"
            )
        return self._carry_back(chunk)

    def write(self) -> float:
        """Save the masters; tells what their automations cost, in milliseconds of the org's clock."""
        filled = self._task.columns[len(self._told) :]
        self._cursor.execute(update_sql(self._task, filled, self._rows, now=self._now))
        if not self._above.needed:
            return self._acting.apex_ms
        before = self._above.apex_ms
        self._above.write()
        return self._acting.apex_ms + self._above.apex_ms - before

    def _run(self) -> AutomationRun:
        return AutomationRun(self._cursor, self._task, self._automations, now=self._now, rows=self._rows)

    def _gather(self, chunk: int) -> None:
        """Make the round of masters: those whom the chunk's rows leave, keep or come to, with roll-ups old and new."""
        mine = f"FROM {self._details} WHERE error IS NULL AND chunk = {chunk}"
        touched = " UNION ".join(
            f"SELECT {quoted(f'{side} {name}')} AS id {mine}" for name in self._lookups for side in ("old", "new")
        )
        self._cursor.execute(f"CREATE OR REPLACE TEMP TABLE twin_touched AS {touched}")
        if not self._automations.is_empty:
            self._weigh(chunk)
        number = "row_number() OVER (ORDER BY t.Id) - 1"
        taken = [f"{number} AS pos", f"{number} AS ord", f"{number} AS row_no", "CAST(0 AS BIGINT) AS chunk"]
        taken += ["t.Id AS record", "t.Id AS new_id", "t.rowid AS place", "CAST(NULL AS VARCHAR) AS error"]
        taken += [f"{self._before(field)} AS {name}" for field, name in self._acting.old_columns()]
        for column, (field, roll_up) in zip(self._task.columns, self._told, strict=False):
            taken += [f"{self._weighed(field, roll_up, 'will')} AS {column.value}", f"true AS {column.given}"]
        for column in self._task.columns[len(self._told) :]:
            taken += [f"CAST(NULL AS {column.field.sql_type}) AS {column.value}", f"false AS {column.given}"]
        self._cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE {self._rows} AS SELECT {', '.join(taken)} FROM {table(self._entry)} t "
            f"{' '.join(self._sums())} WHERE NOT t.IsDeleted AND t.Id IN (SELECT id FROM twin_touched)"
        )

    def _weigh(self, chunk: int) -> None:
        """Gather the details of the masters: `was` says that one counts without the chunk, `will` that it does with it.

        Rows of earlier chunks are not in the object's table yet: a round is written at its end.
        """
        names = sorted(self.field_names)
        counted = f"error IS NULL AND (done OR chunk = {chunk})"
        stored = "".join(f", t.{quoted(name)}" for name in names)
        coming = "".join(f", {quoted(f'new {name}')} AS {quoted(name)}" for name in names)
        mine = " OR ".join(f"t.{quoted(name)} IN (SELECT id FROM twin_touched)" for name in self._lookups)
        self._cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE twin_weighed AS SELECT d.record IS NULL OR NOT d.done AS was, "
            f"d.record IS NULL AS will{stored} FROM {table(self._detail)} t LEFT JOIN (SELECT record, done FROM "
            f"{self._details} WHERE record IS NOT NULL AND {counted}) d ON d.record = t.Id WHERE NOT t.IsDeleted "
            f"AND ({mine}) UNION ALL SELECT done AS was, true AS will{coming} FROM {self._details} WHERE {counted}"
        )

    def _before(self, field: FieldSchema) -> str:
        """SQL of what a field of the master is while the chunk's rows do not count."""
        own = next((roll_up for told, roll_up in self._told if told is field), None)
        if own is not None:
            return self._weighed(field, own, "was")
        computed = None if self._automations.is_empty else field.computed_sql("t")
        return computed or f"t.{quoted(field.name)}"

    def _weighed(self, field: FieldSchema, roll_up: RollUp, counted: str) -> str:
        if self._automations.is_empty:
            return f"CAST(NULL AS {field.sql_type})"  # nobody asks
        value = f"s{self._lookups.index(roll_up.lookup)}.{quoted(f'{counted} {field.name}')}"
        return value if roll_up.function in ("MIN", "MAX") else f"coalesce({value}, 0)"  # a master without details

    def _sums(self) -> Iterator[str]:
        """Joins that give the masters their roll-ups, one for each lookup."""
        for number, name in enumerate(self._lookups if not self._automations.is_empty else ()):
            values = "".join(
                f", {roll_up.aggregate(field.sql_type, counted=side)} AS {quoted(f'{side} {field.name}')}"
                for field, roll_up in self._told
                if roll_up.lookup == name
                for side in ("was", "will")
            )
            yield (
                f"LEFT JOIN (SELECT x.{quoted(name)} AS id{values} FROM twin_weighed x GROUP BY 1) s{number} "
                f"ON s{number}.id = t.Id"
            )

    def _judge(self) -> None:
        """The rules of a save, in their order."""
        self._acting.before()
        missing = missing_fields(self._task)
        if missing is not None:
            self._cursor.execute(
                f"UPDATE {self._rows} SET error = {missing} WHERE error IS NULL AND {missing} IS NOT NULL"
            )
        self._acting.validate()
        self._acting.refuse_similar()
        refuse_duplicates(self._cursor, self._task, rows=self._rows)
        self._acting.after()

    def _carry_back(self, chunk: int) -> bool:
        """Fail the details of refused masters."""
        row = self._cursor.execute(f"SELECT count(error) FROM {self._rows}").fetchone()
        if row is None or not row[0]:
            return False
        meets = " OR ".join(
            f"m.record = d.{quoted(f'{side} {name}')}" for name in self._lookups for side in ("old", "new")
        )
        self._cursor.execute(
            f"UPDATE {self._details} SET error = f.error FROM (SELECT d.pos, min({_WITHOUT_FIELDS}) AS error "
            f"FROM {self._details} d JOIN {self._rows} m ON {meets} WHERE m.error IS NOT NULL AND d.error IS NULL "
            f"AND d.chunk = {chunk} GROUP BY d.pos) f WHERE {self._details}.pos = f.pos"
        )
        return True


def _told(entry: ObjectSchema, detail: ObjectSchema, lookups: list[FieldSchema]) -> list[tuple[FieldSchema, RollUp]]:
    """The roll-ups of a master that tell of the details by one of the lookups."""
    names = {lookup.name for lookup in lookups}
    return [
        (field, field.roll_up)
        for field in entry.stored_fields
        if field.roll_up is not None and field.roll_up.child == detail.name and field.roll_up.lookup in names
    ]


def no_value(field: FieldSchema) -> str:
    """SQL of the value of a record that is not there."""
    return f"CAST(NULL AS {field.sql_type})"
