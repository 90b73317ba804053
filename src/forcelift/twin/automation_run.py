"""What active automations do to the rows of one round, before anything is written.

They work on `twin_round`: a value `v` and a mark `g` for each column, `record` (null for a new record), `chunk`,
`error`, and `"old Field"` for what stands in the org now. The order is Salesforce's: before-save flows, before
triggers, then (by the caller) required fields, validation rules, duplicate rules, unique fields; after triggers,
workflow rules with one more round of update triggers, after-save flows.
Source:  salesforce-api reference, sections 3.9 and 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import duckdb

from forcelift.twin import values
from forcelift.twin.automation_models import (
    Automations,
    DuplicateRule,
    Effect,
    ExceedLimit,
    FieldValue,
    FillField,
    LockParent,
    RecordFlow,
    Recurse,
    RejectRows,
    TakeTime,
    Trigger,
)
from forcelift.twin.columns import Column
from forcelift.twin.formulas import compile_formula
from forcelift.twin.ingest_task import IngestTask, filled_by_default
from forcelift.twin.schema import FieldSchema, ObjectSchema
from forcelift.twin.store import table
from forcelift.twin.values import name as quoted
from forcelift.twin.values import row_error, text

CHUNK_CPU_MS_MAX: Final = 60_000
TRIGGER_DEPTH_MAX: Final = 16
_LIMITS: Final = {
    "cpu_time": "Apex CPU time limit exceeded",
    "soql_queries": "Too many SOQL queries: 101",
    "soql_rows": "Too many query rows: 50001",
    "dml_statements": "Too many DML statements: 151",
    "dml_rows": "Too many DML rows: 10001",
    "heap": "Apex heap size too large",
}


def extended(task: IngestTask, automations: Automations) -> IngestTask:
    """The task with a column for each field that an automation may fill and the file does not give."""
    present = {column.field.name for column in task.columns}
    added: list[Column] = []
    for name in sorted({field.name for field in _filled(automations, task.record)} - present):
        field = task.record.field(name)
        assert field is not None  # it came from the object
        added.append(Column(index=len(task.columns) + len(added), header=name, field=field, exact=True))
    return replace(task, columns=(*task.columns, *added))


def _filled(automations: Automations, entry: ObjectSchema) -> Iterator[FieldSchema]:
    names = [update.field for rule in automations.workflow_rules for update in rule.field_updates]
    names += [effect.field for effect in _effects(automations) if isinstance(effect, FillField)]
    names += ["OwnerId"] if automations.assignment_rules else []
    for name in names:
        field = entry.field(name)
        if field is not None:
            yield field


def _effects(automations: Automations) -> Iterator[Effect]:
    for trigger in automations.triggers:
        yield from trigger.effects
    for flow in automations.flows:
        if flow.running is not None:
            yield from flow.running.effects


def locked_fields(automations: Automations, entry: ObjectSchema) -> list[FieldSchema]:
    """Lookups whose parents a trigger or flow locks, whatever its condition."""
    names = [effect.field for effect in _effects(automations) if isinstance(effect, LockParent)]
    return [field for name in names if (field := entry.field(name)) is not None]


def chunk_cost_ms(automations: Automations, rows: int) -> float:
    """What the automations of an object cost a chunk of so many rows, in milliseconds of the org's clock."""
    costs = [effect for effect in _effects(automations) if isinstance(effect, TakeTime)]
    return sum(cost.row_ms * rows + cost.chunk_ms for cost in costs)


class AutomationRun:
    """The active automations of one object, on the rows of one round: of `twin_round`, or of another table like it."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        task: IngestTask,
        automations: Automations,
        *,
        now: datetime,
        rows: str = "twin_round",
    ) -> None:
        self._cursor = cursor
        self._task = task
        self._automations = automations
        self._now = now
        self._rows = rows
        self.apex_ms = 0.0

    def before(self) -> None:
        """Before-save flows, then before triggers."""
        self._flows("before_save")
        self._triggers("before")

    def validate(self) -> None:
        """Validation rules: all of them look at a row, and it fails by the first."""
        for rule in self._automations.validation_rules:
            field = self._task.record.field(rule.error_field) if rule.error_field else None
            names = () if field is None else (field.name,)
            self._refuse(
                row_error("FIELD_CUSTOM_VALIDATION_EXCEPTION", text(rule.error_message), *names),
                self._sql(rule.formula),
            )

    def refuse_similar(self) -> None:
        """Duplicate rules that block: against other stored records, and rows of earlier chunks."""
        for rule in self._automations.duplicate_rules:
            if rule.action == "block":
                self._refuse_similar(rule)

    def after(self) -> None:
        """After triggers, the assignment rule that was asked for, workflow rules, after-save flows."""
        self._triggers("after")
        self._assign()
        self._workflow()
        self._flows("after_save")

    def old_columns(self) -> list[tuple[FieldSchema, str]]:
        """Stored fields, with the names of the columns of the round that hold what they are now."""
        return [(field, quoted(f"old {field.name}")) for field in self._task.record.stored_fields]

    def value(self, field: FieldSchema, old: bool) -> str:
        """SQL of a field of a row: as it will be saved, or (`old`) as it is stored."""
        if old:
            return quoted(f"old {field.name}")
        if field.type == "id":
            return "coalesce(record, new_id)"
        default = filled_by_default(self._task, field)
        base = f"CASE WHEN record IS NULL THEN {default} ELSE {quoted(f'old {field.name}')} END"
        column = next((column for column in self._task.columns if column.field.name == field.name), None)
        return base if column is None else f"CASE WHEN {column.given} THEN {column.value} ELSE {base} END"

    def _sql(self, formula: str | None) -> str:
        """SQL of a condition that is true or false, never null; an error in computing it makes it false."""
        if formula is None:
            return "true"
        compiled = compile_formula(formula, self._task.record, self.value, is_new="record IS NULL", now=self._now)
        return f"coalesce(TRY({compiled.sql}), false)"

    def _triggers(self, timing: str, *, scope: str = "true", only_updates: bool = False) -> None:
        for trigger in self._automations.triggers:
            for event, kind in (("insert", "record IS NULL"), ("update", "record IS NOT NULL")):
                if only_updates and event == "insert":
                    continue
                if f"{timing} {event}" in trigger.events:
                    place = f"{trigger.name}: execution of {timing.capitalize()}{event.capitalize()}"
                    chosen = scope if only_updates else f"{kind} AND {scope}"
                    self._run_effects(trigger, trigger.effects, chosen, place)

    def _flows(self, timing: str) -> None:
        for flow in self._automations.flows:
            if flow.timing != timing or flow.running is None or flow.on == "delete":
                continue
            kinds = {"create": "record IS NULL", "update": "record IS NOT NULL"}.get(flow.on, "true")
            scope = f"{kinds} AND {self._sql(flow.condition)}"
            self._run_effects(flow, flow.running.effects, scope, flow.label or flow.name)

    def _run_effects(self, owner: Trigger | RecordFlow, effects: Sequence[Effect], scope: str, place: str) -> None:
        # What a row is like when the automation begins decides whether it runs; its own effects do not end it.
        self._cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE twin_scope AS SELECT pos FROM {self._rows} WHERE error IS NULL AND {scope}"
        )
        inside = "pos IN (SELECT pos FROM twin_scope)"
        for effect in effects:
            match effect:
                case RejectRows():
                    self._reject(owner, effect, inside, place)
                case FillField():
                    self._fill(effect.field, effect.value, effect.formula, f"{inside} AND {self._sql(effect.when)}")
                case TakeTime():
                    self._take_time(owner, effect, inside, place)
                case ExceedLimit():
                    told = self._fatal(owner, place, f"System.LimitException: {_LIMITS[effect.limit]}")
                    self._refuse_chunks(told, f"{inside} AND {self._sql(effect.when)}")
                case Recurse():
                    if effect.depth > TRIGGER_DEPTH_MAX:
                        told = self._fatal(owner, place, "System.DmlException: maximum trigger depth exceeded")
                        self._refuse_chunks(told, f"{inside} AND {self._sql(effect.when)}")
                case LockParent():
                    pass  # The lock table asks for these fields itself.

    def _reject(self, owner: Trigger | RecordFlow, effect: RejectRows, inside: str, place: str) -> None:
        scope = f"{inside} AND {self._sql(effect.when)}"
        if effect.how == "exception":
            self._refuse_chunks(self._fatal(owner, place, f"System.DmlException: {effect.message}"), scope)
            return
        field = self._task.record.field(effect.field) if effect.field else None
        names = () if field is None else (field.name,)
        self._refuse(row_error("FIELD_CUSTOM_VALIDATION_EXCEPTION", text(effect.message), *names), scope)

    def _fatal(self, owner: Trigger | RecordFlow, place: str, cause: str) -> str:
        if isinstance(owner, Trigger):
            return row_error("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", text(f"{place} caused by: {cause}"))
        message = f'We can\'t save this record because the "{place}" process failed. {cause}'
        return row_error("CANNOT_EXECUTE_FLOW_TRIGGER", text(message))

    def _take_time(self, owner: Trigger | RecordFlow, effect: TakeTime, inside: str, place: str) -> None:
        cost = f"CAST(count(*) * {effect.row_ms} + {effect.chunk_ms} AS DOUBLE)"
        chunks = f"SELECT chunk, {cost} AS ms FROM {self._rows} WHERE error IS NULL AND {inside} GROUP BY chunk"
        row = self._cursor.execute(f"SELECT coalesce(sum(ms), 0), coalesce(max(ms), 0) FROM ({chunks})").fetchone()
        assert row is not None  # an aggregate always gives a row
        self.apex_ms += row[0]
        if row[1] > CHUNK_CPU_MS_MAX:
            told = self._fatal(owner, place, f"System.LimitException: {_LIMITS['cpu_time']}")
            slow = f"SELECT chunk FROM ({chunks}) WHERE ms > {CHUNK_CPU_MS_MAX}"
            self._refuse_chunks(told, f"{inside} AND chunk IN ({slow})")

    def _fill(self, name: str, value: FieldValue, formula: str | None, scope: str) -> None:
        """Set a field of the rows; a value that the field cannot hold fails its row, as in any save."""
        field = self._task.record.field(name)
        assert field is not None  # it was looked up when the run began
        column = next(column for column in self._task.columns if column.field.name == field.name)
        if formula is None:
            raw = "NULL" if value is None else text(str(value).lower() if isinstance(value, bool) else str(value))
        else:
            compiled = compile_formula(formula, self._task.record, self.value, is_new="record IS NULL", now=self._now)
            raw = f"TRY({compiled.sql})"
            if compiled.kind in ("text", "picklist", "multipicklist"):
                raw = f"nullif({raw}, '')"
        self._cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE twin_fill AS SELECT pos, {raw} AS raw, TRY_CAST({raw} AS {field.sql_type}) "
            f"AS value FROM {self._rows} WHERE error IS NULL AND {scope}"
        )
        empty = "false" if field.type == "boolean" else "NULL"
        self._cursor.execute(
            f"UPDATE {self._rows} SET {column.value} = coalesce(f.value, {empty}), {column.given} = true "
            f"FROM twin_fill f WHERE {self._rows}.pos = f.pos"
        )
        label = field.label
        unfit = row_error("INVALID_TYPE_ON_FIELD_IN_RECORD", text(f"{label}: value not of required type: "), field.name)
        if field.is_number or field.type == "int":
            limit = values.number_limit(field)
            beyond = "f.value IS NULL" if limit is None else f"f.value IS NULL OR abs(f.value) >= {limit}"
            unfit = row_error(
                "NUMBER_OUTSIDE_VALID_RANGE",
                text(f"{label}: value outside of valid range on numeric field: "),
                field.name,
            )
        else:
            beyond = "f.value IS NULL"
        self._cursor.execute(
            f"UPDATE {self._rows} SET error = {unfit} FROM twin_fill f "
            f"WHERE {self._rows}.pos = f.pos AND error IS NULL AND f.raw IS NOT NULL AND ({beyond})"
        )
        if field.is_text:
            for condition, error in values.value_errors(field, "''", column.value):
                self._refuse(error, f"pos IN (SELECT pos FROM twin_fill) AND {condition}")

    def _assign(self) -> None:
        """Give rows to the owner of the first entry that they meet."""
        for rule in self._automations.assignment_rules:
            owner = next(column for column in self._task.columns if column.field.name == "OwnerId")
            cases = " ".join(f"WHEN {self._sql(entry.condition)} THEN {text(entry.owner)}" for entry in rule.entries)
            self._cursor.execute(
                f"UPDATE {self._rows} SET {owner.value} = a.Id, {owner.given} = true FROM "
                f"(SELECT w.pos, u.Id FROM (SELECT pos, CASE {cases} END AS owner FROM {self._rows} "
                f'WHERE error IS NULL) w JOIN data."User" u ON u.Username = w.owner) a WHERE {self._rows}.pos = a.pos'
            )

    def _workflow(self) -> None:
        """Field updates of workflow rules; rows that one touches go through update triggers once more."""
        touched: list[str] = []
        for number, rule in enumerate(self._automations.workflow_rules):
            met = self._sql(rule.condition)
            if rule.on == "onCreateOnly":
                met = f"record IS NULL AND {met}"
            elif rule.on == "onCreateOrTriggeringUpdate":
                before = compile_formula(
                    rule.condition, self._task.record, lambda field, old: self.value(field, True), is_new="false",
                    now=self._now,
                )  # fmt: skip
                met = f"{met} AND (record IS NULL OR NOT coalesce(TRY({before.sql}), false))"
            rows = f"twin_met_{number}"
            self._cursor.execute(
                f"CREATE OR REPLACE TEMP TABLE {rows} AS SELECT pos FROM {self._rows} WHERE error IS NULL AND {met}"
            )
            if rule.field_updates:
                touched.append(f"SELECT pos FROM {rows}")
            for update in rule.field_updates:
                self._fill(update.field, update.value, update.formula, f"pos IN (SELECT pos FROM {rows})")
        if touched:
            scope = f"pos IN ({' UNION ALL '.join(touched)})"
            for timing in ("before", "after"):
                self._triggers(timing, scope=scope, only_updates=True)

    def _refuse_similar(self, rule: DuplicateRule) -> None:
        fields = [field for name in rule.match_fields if (field := self._task.record.field(name)) is not None]
        keys = {f"k{number}": self.value(field, False) for number, field in enumerate(fields)}
        folded = {
            name: f"lower(trim({sql}))" if field.is_text else sql
            for (name, sql), field in zip(keys.items(), fields, strict=True)
        }
        kinds = [
            kind for kind, on in (("record IS NULL", rule.on_insert), ("record IS NOT NULL", rule.on_update)) if on
        ]
        listed = ", ".join(f"{sql} AS {name}" for name, sql in folded.items())
        known = " AND ".join(f"{name} IS NOT NULL" for name in folded)
        self._cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE twin_similar AS SELECT pos, chunk, ord, record, "
            f"({' OR '.join(kinds) or 'false'}) AS asked, {listed} FROM {self._rows} WHERE error IS NULL"
        )
        stored = [
            f"lower(trim(t.{quoted(field.name)}))" if field.is_text else f"t.{quoted(field.name)}" for field in fields
        ]
        same = " AND ".join(f"{sql} = s.{name}" for sql, name in zip(stored, folded, strict=True))
        error = row_error("DUPLICATES_DETECTED", text(rule.alert_text))
        outside = (
            f"SELECT s.pos FROM twin_similar s JOIN {table(self._task.entry)} t ON {same} "
            "WHERE s.asked AND NOT t.IsDeleted AND t.Id IS DISTINCT FROM s.record"
        )
        # Rows of one chunk are saved together and do not find one another.
        among = (
            f"SELECT pos, asked, chunk <> first_value(chunk) OVER (PARTITION BY {', '.join(folded)} ORDER BY ord) "
            f"AS later FROM twin_similar WHERE {known}"
        )
        self._refuse(error, f"pos IN ({outside} UNION ALL SELECT pos FROM ({among}) WHERE asked AND later)")

    def _refuse(self, error: str, scope: str) -> None:
        self._cursor.execute(f"UPDATE {self._rows} SET error = {error} WHERE error IS NULL AND {scope}")

    def _refuse_chunks(self, error: str, scope: str) -> None:
        """An unhandled exception: no row of the chunk is saved."""
        chunks = f"SELECT chunk FROM {self._rows} WHERE error IS NULL AND {scope}"
        self._cursor.execute(f"UPDATE {self._rows} SET error = {error} WHERE error IS NULL AND chunk IN ({chunks})")
