"""Faults that strike rows: a lock storm, a trigger that throws, a duplicate rule that hits, an exceeded CPU limit.

A row is struck or not by the fault's number, the org's seed, the job and the row's place in it, so a run repeats
whatever the threads do. Texts are those of section 5 of the salesforce-api reference.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import duckdb
from pydantic import BaseModel, ConfigDict, Field

from forcelift.twin.clock import Clock
from forcelift.twin.columns import Column
from forcelift.twin.schema import ObjectSchema, Schema
from forcelift.twin.soql.conditions import Conditions
from forcelift.twin.soql.literals import Literals
from forcelift.twin.soql.parse import parse
from forcelift.twin.soql.resolve import Scope
from forcelift.twin.values import name as quoted
from forcelift.twin.values import row_error, text

RowKind = Literal["lock_storm", "trigger_exception", "duplicate_rule", "cpu_timeout", "too_many_retries"]
ERRORS: Final[dict[str, tuple[str, str]]] = {
    "lock_storm": ("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record"),
    "trigger_exception": (
        "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
        "FaultTrigger: execution of BeforeInsert caused by: System.NullPointerException: "
        "Attempt to de-reference a null object Trigger.FaultTrigger: line 12, column 1",
    ),
    "duplicate_rule": ("DUPLICATES_DETECTED", "Use one of these records?"),
    "cpu_timeout": (
        "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
        "FaultTrigger: System.LimitException: Apex CPU time limit exceeded",
    ),
    "too_many_retries": (
        "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
        "Too many retries of batch save in the presence of Apex triggers with failures",
    ),
}
# A transaction that exceeds the CPU limit takes its whole chunk of 200 rows along.
_WHOLE_CHUNKS: Final = frozenset({"cpu_timeout"})
_MILLION: Final = 1_000_000


class RowFaultOrder(BaseModel):
    """A fault that makes rows fail."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: RowKind
    object: str = "*"
    where: str | None = None
    """SOQL condition over the rows as they would be stored; None for all rows."""
    probability: float = Field(default=1.0, gt=0, le=1)
    times: int | None = Field(default=None, ge=1)
    """How many rows it strikes at most; null for no bound."""


@dataclass(slots=True, kw_only=True)
class ArmedRowFault:
    """A fault and how many rows it has struck."""

    id: int
    order: RowFaultOrder
    met: int = 0
    struck: int = 0

    @property
    def spent(self) -> bool:
        return self.order.times is not None and self.struck >= self.order.times

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, **self.order.model_dump(), "met": self.met, "struck": self.struck, "spent": self.spent}


class RowFaults:
    """The faults of rows that are armed. Safe to use from several threads."""

    def __init__(self, schema: Schema, clock: Clock, *, seed: int) -> None:
        self._schema = schema
        self._clock = clock
        self._seed = seed
        self._armed: list[ArmedRowFault] = []
        self._lock = threading.RLock()

    def arm(self, order: RowFaultOrder, *, number: int) -> ArmedRowFault:
        """Add a fault under a number of its own. Raises SoqlError or ValueError for an order that cannot strike."""
        entry = self._schema.object(order.object)
        if order.object != "*" and entry is None:
            raise ValueError(f"the org has no object {order.object}")
        if order.where is not None:
            if entry is None:
                raise ValueError("`where` needs an `object`")
            self._condition(entry, order.where)
        with self._lock:
            fault = ArmedRowFault(id=number, order=order)
            self._armed.append(fault)
            return fault

    @property
    def is_armed(self) -> bool:
        """True if a fault may still strike a row."""
        with self._lock:
            return any(not fault.spent for fault in self._armed)

    def clear(self) -> None:
        with self._lock:
            self._armed.clear()

    def as_json(self) -> list[dict[str, Any]]:
        with self._lock:
            return [fault.as_json() for fault in self._armed]

    def strike(
        self, cursor: duckdb.DuckDBPyConnection, entry: ObjectSchema, columns: Sequence[Column], job: int
    ) -> None:
        """Give rows of `twin_round` an error; those that have one already are let alone."""
        with self._lock:
            for fault in self._live(entry):
                rows = _rows_sql(entry, columns)
                condition, joined = "true", f"FROM {rows} AS t0"
                if fault.order.where is not None:
                    scope, condition = self._condition(entry, fault.order.where)
                    joined = scope.from_sql(rows)
                chosen = f"SELECT t0.row_no, t0.chunk, t0.ord {joined} WHERE {condition} AND {self._chance(fault, job)}"
                if fault.order.action in _WHOLE_CHUNKS:
                    chosen = f"SELECT row_no, chunk, ord FROM twin_round WHERE chunk IN (SELECT chunk FROM ({chosen}))"
                self._mark(cursor, fault, "twin_round", chosen)

    def strike_deletes(self, cursor: duckdb.DuckDBPyConnection, entry: ObjectSchema, job: int) -> None:
        """Give rows of `twin_delete` an error."""
        with self._lock:
            for fault in self._live(entry):
                condition, joined = "true", ""
                if fault.order.where is not None:
                    scope, condition = self._condition(entry, fault.order.where)
                    joined = scope.from_sql().replace("FROM", "JOIN", 1).replace(" AS t0", " AS t0 ON t0.Id = d.id", 1)
                rows = "(SELECT row_no, id, row_no AS ord FROM twin_delete) AS d"
                chance = self._chance(fault, job).replace("t0.", "d.")
                self._mark(
                    cursor,
                    fault,
                    "twin_delete",
                    f"SELECT d.row_no, d.ord FROM {rows} {joined} WHERE {condition} AND {chance}",
                )

    def _live(self, entry: ObjectSchema) -> list[ArmedRowFault]:
        return [
            fault
            for fault in self._armed
            if not fault.spent and fault.order.object.lower() in ("*", entry.name.lower())
        ]

    def _mark(self, cursor: duckdb.DuckDBPyConnection, fault: ArmedRowFault, rows: str, chosen: str) -> None:
        left = "" if fault.order.times is None else f" LIMIT {fault.order.times - fault.struck}"
        code, message = ERRORS[fault.order.action]
        cursor.execute(
            "CREATE OR REPLACE TEMP TABLE twin_struck AS SELECT DISTINCT c.row_no, c.ord FROM "
            f"({chosen}) c JOIN {rows} r ON r.row_no = c.row_no WHERE r.error IS NULL ORDER BY c.ord{left}"
        )
        cursor.execute(
            f"UPDATE {rows} SET error = {row_error(code, text(message))} "
            "WHERE row_no IN (SELECT row_no FROM twin_struck)"
        )
        count = cursor.execute("SELECT count(*) FROM twin_struck").fetchone()
        fault.met += 1
        fault.struck += 0 if count is None else int(count[0])

    def _chance(self, fault: ArmedRowFault, job: int) -> str:
        """A condition that holds for that share of the rows; `t0.row_no` is the row's place in the job."""
        if fault.order.probability >= 1:
            return "true"
        # Records that REST writes have no job; there the count of calls takes its place.
        drawn = f"hash(t0.row_no, {job if job >= 0 else -2 - fault.met}, {fault.id}, {self._seed})"
        return f"{drawn} % {_MILLION} < {round(fault.order.probability * _MILLION)}"

    def _condition(self, entry: ObjectSchema, where: str) -> tuple[Scope, str]:
        soql = f"SELECT Id FROM {entry.name} WHERE {where}"
        query = parse(soql)
        if query.where is None or len(query.clauses) > 1:
            raise ValueError("`where` must be one condition")
        scope = Scope(soql, self._schema, entry, None)
        return scope, Conditions(Literals(soql, self._clock.now()), scope.operand, None).sql(query.where)


def _rows_sql(entry: ObjectSchema, columns: Sequence[Column]) -> str:
    """The rows of `twin_round` under the names of the object's fields, as they would be stored."""
    given = {column.field.name: column for column in columns}
    fields = []
    for field in entry.stored_fields:
        column = given.get(field.name)
        stored = f"d.{quoted(field.name)}"
        value = stored if column is None else f"CASE WHEN r.{column.given} THEN r.{column.value} ELSE {stored} END"
        if field.type == "id":
            value = "coalesce(r.record, r.new_id)"
        fields.append(f"{value} AS {quoted(field.name)}")
    return (
        f"(SELECT r.row_no, r.chunk, r.ord, {', '.join(fields)} FROM twin_round r "
        f"LEFT JOIN data.{quoted(entry.name)} d ON d.Id = r.record)"
    )
