"""Write a few records at once, as REST does, through the rules that ingest jobs go by.

The records become rows of text in one chunk, the bulk rules are carried out in one transaction, and each row's outcome
is read back. With all-or-none any failure rolls the transaction back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import polars as pl

from forcelift.twin.columns import Column, bind_columns
from forcelift.twin.deletes import DeleteRun
from forcelift.twin.errors import ApiError, CsvRefused
from forcelift.twin.ids import make_ids, org_pod
from forcelift.twin.ingest import GroupRun
from forcelift.twin.ingest_task import IngestTask
from forcelift.twin.org import TwinOrg
from forcelift.twin.rest_unit import RollBack, WorkUnits
from forcelift.twin.roll_up_saves import MasterRules
from forcelift.twin.schema import FieldSchema, ObjectSchema

RECORDS_MAX: Final = 200
NULL_CELL: Final = "#N/A"
# Outcomes stand under this number only inside the transaction; numbers of jobs are positive.
SCRATCH_JOB: Final = -1
ROLLED_BACK: Final = "Record rolled back because not all records were valid and the request was using AllOrNone header"


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveError:
    """Why a record was not saved, in the words of the API."""

    status_code: str
    message: str
    fields: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {"statusCode": self.status_code, "message": self.message, "fields": list(self.fields)}

    def as_api_error(self) -> ApiError:
        return ApiError(400, self.status_code, self.message, self.fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveResult:
    """What became of one record."""

    id: str | None
    created: bool
    error: SaveError | None

    def as_json(self, *, tell_created: bool = False) -> dict[str, Any]:
        answer: dict[str, Any] = {} if self.id is None else {"id": self.id}
        answer |= {"success": self.error is None, "errors": [] if self.error is None else [self.error.as_json()]}
        if tell_created and self.error is None:
            answer["created"] = self.created
        return answer


class RecordWriter:
    """Inserts, updates, upserts and deletes up to 200 records of one object."""

    def __init__(self, org: TwinOrg, units: WorkUnits) -> None:
        self._org = org
        self._units = units

    def save(
        self,
        entry: ObjectSchema,
        operation: str,
        records: Sequence[Mapping[str, Any]],
        *,
        key: FieldSchema | None,
        user_id: str,
        all_or_none: bool = False,
    ) -> list[SaveResult]:
        """Save records given as JSON; results are in the order of the records.

        Args:
            operation: insert, update or upsert.
            key: The field that finds the record: Id for update, the external ID for upsert.
        Raises:
            ApiError: A field does not exist, or a value is of a kind of JSON that its field cannot take.
        """
        check_operation(entry, operation)
        self._org.fields.check_grants(entry, records)
        entry = self._org.schema.seen_by(user_id).object(entry.name) or entry
        flat = [flatten(entry, record) for record in records]
        names = list(dict.fromkeys(name for record in flat for name in record))
        columns = self._bind(entry, operation, names)
        cells: dict[str, list[str]] = {
            column.cell: [
                cell_of(entry, column, record[column.header]) if column.header in record else "" for record in flat
            ]
            for column in columns
        }
        return self._run(entry, operation, columns, cells, len(flat), key=key, user_id=user_id, all_or_none=all_or_none)

    def delete(
        self, entry: ObjectSchema, ids: Sequence[str], *, user_id: str, all_or_none: bool = False
    ) -> list[SaveResult]:
        """Move records to the recycle bin; results are in the order of the ids."""
        check_operation(entry, "delete")
        columns = self._bind(entry, "delete", ["Id"])
        return self._run(
            entry, "delete", columns, {"c0": list(ids)}, len(ids), key=entry.field("Id"), user_id=user_id,
            all_or_none=all_or_none,
        )  # fmt: skip

    def _bind(self, entry: ObjectSchema, operation: str, names: Sequence[str]) -> tuple[Column, ...]:
        try:
            return bind_columns(names, schema=self._org.schema, entry=entry, operation=operation)
        except CsvRefused as error:
            bad = error.error_message.rpartition(" : ")[2]
            message = f"No such column '{bad}' on sobject of type {entry.name}"
            raise ApiError(400, "INVALID_FIELD", message) from error

    def _run(
        self,
        entry: ObjectSchema,
        operation: str,
        columns: tuple[Column, ...],
        cells: Mapping[str, list[str]],
        count: int,
        *,
        key: FieldSchema | None,
        user_id: str,
        all_or_none: bool,
    ) -> list[SaveResult]:
        rows = pl.DataFrame(
            {
                "ord": pl.int_range(count, dtype=pl.Int64, eager=True),
                "row_no": pl.int_range(count, dtype=pl.Int64, eager=True),
                "chunk": pl.zeros(count, dtype=pl.Int64, eager=True),
                "new_id": self._new_ids(entry, count),
                **{name: pl.Series(values, dtype=pl.String) for name, values in cells.items()},
            }
        )
        task = IngestTask(
            schema=self._org.schema, entry=entry, operation=operation, columns=columns, key=key, job=SCRATCH_JOB,
            user_id=user_id, faults=self._org.row_faults, whole=self._org.schema.object(entry.name),
        )  # fmt: skip
        results: list[SaveResult] = []
        now = self._org.clock.now()
        inserts_left = self._org.usage.records_left()
        masters = MasterRules(schema=self._org.schema, active_on=self._org.automations.active_on)
        try:
            with self._units.write() as cursor:
                if operation == "delete":
                    DeleteRun(cursor, task, now=now, masters=masters).execute(rows)
                else:
                    active = self._org.automations.active_on(entry.name)
                    run = GroupRun(
                        cursor, task, now=now, inserts_left=inserts_left, automations=active, masters=masters
                    )
                    if columns:
                        run.execute(rows)
                    else:  # a record without any value: there are no cells to read, and a frame of none has no height
                        run.execute_read(rows.with_columns(error=pl.lit(None, dtype=pl.String)))
                results = take_outcomes(cursor)
                if all_or_none and any(result.error for result in results):
                    raise RollBack
        except RollBack:
            if self._units.is_open:
                # The calls around this one are part of what must not be kept.
                answer = [rolled_back(result).as_json(tell_created=operation == "upsert") for result in results]
                raise RollBack(answer) from None
            return [rolled_back(result) for result in results]
        self._org.fields.sync_grants()
        return results

    def _new_ids(self, entry: ObjectSchema, count: int) -> pl.Series:
        """Ids for the rows that may become new records; those of the others are never given again."""
        start = self._org.store.take_numbers(entry.key_prefix, count)
        return make_ids(entry.key_prefix, org_pod(self._org.seed), start, count)


def check_operation(entry: ObjectSchema, operation: str) -> None:
    """Raises ApiError for an object that does not allow the operation at all."""
    allowed = {
        "insert": (entry.createable, "inserted"),
        "update": (entry.updateable, "updated"),
        "upsert": (entry.createable and entry.updateable, "upserted"),
        "delete": (entry.deletable, "deleted"),
    }
    possible, word = allowed[operation]
    if not possible:
        raise ApiError(400, "INVALID_TYPE_FOR_OPERATION", f"entity type cannot be {word}: {entry.label}")


def flatten(entry: ObjectSchema, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record's values by the header that a CSV would have: `{"Parent__r": {"Key__c": 1}}` is `Parent__r.Key__c`.

    A lookup with several targets needs `attributes.type` in the inner object, as a header needs `Object:` before it.
    """
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if name == "attributes":
            continue
        if isinstance(value, Mapping):
            attributes = value.get("attributes")
            kind = attributes.get("type") if isinstance(attributes, Mapping) else None
            lookup = entry.relationship(name)
            if lookup is not None and lookup.polymorphic and isinstance(kind, str):
                name = f"{kind}:{name}"
            inner = {key: part for key, part in value.items() if key != "attributes"}
            if len(inner) != 1:
                message = f"The reference {name} must name its record by exactly one external ID"
                raise ApiError(400, "INVALID_FIELD", message)
            flat.update({f"{name}.{key}": part for key, part in inner.items()})
        else:
            flat[name] = value
    return flat


def cell_of(entry: ObjectSchema, column: Column, value: Any) -> str:
    """A JSON value as the text of a CSV cell. Empty text is null here, while in CSV it means "not given".

    Raises:
        ApiError: A kind of JSON that the field cannot take.
    """
    field = column.key or column.field
    if isinstance(value, bool):
        if field.type != "boolean":
            raise _cannot_read(field, "VALUE_TRUE" if value else "VALUE_FALSE", str(value).lower())
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        if not (field.is_number or field.type == "int"):
            kind = "VALUE_NUMBER_INT" if isinstance(value, int) else "VALUE_NUMBER_FLOAT"
            raise _cannot_read(field, kind, repr(value))
        return repr(value)
    if value is None or value == "":
        return NULL_CELL
    if not isinstance(value, str):
        raise _cannot_read(field, "START_ARRAY", "[")
    if value == NULL_CELL:
        # Bulk's word for null is plain text to REST, and the shared rules cannot tell them apart.
        message = f"The twin cannot store the literal text {NULL_CELL} in {entry.name}.{field.name} by REST"
        raise ApiError(501, "FUNCTIONALITY_NOT_ENABLED", message)
    return value


def _cannot_read(field: FieldSchema, kind: str, value: str) -> ApiError:
    message = (
        f"Cannot deserialize instance of {field.type} from {kind} value {value} or request may be missing a required "
        "field"
    )
    return ApiError(400, "JSON_PARSER_ERROR", message)


def take_outcomes(cursor: duckdb.DuckDBPyConnection) -> list[SaveResult]:
    """Read the outcomes of the rows just worked on, in their order, and remove them."""
    found = cursor.execute(
        "SELECT id, created, error FROM meta.ingest_outcome WHERE job = ? ORDER BY row_no", [SCRATCH_JOB]
    ).fetchall()
    cursor.execute("DELETE FROM meta.ingest_outcome WHERE job = ?", [SCRATCH_JOB])
    return [
        SaveResult(id=record_id, created=bool(created), error=None if error is None else parse_error(error))
        for record_id, created, error in found
    ]


def parse_error(text: str) -> SaveError:
    """Split `CODE:message:Field1,Field2 --`; the message may hold colons itself."""
    code, _, rest = text.partition(":")
    message, _, fields = rest.rpartition(":")
    names = fields.removesuffix("--").strip()
    return SaveError(status_code=code, message=message, fields=tuple(name for name in names.split(",") if name))


def rolled_back(result: SaveResult) -> SaveResult:
    """The result of a record when another one of an all-or-none call has failed."""
    if result.error is not None:
        return result
    error = SaveError(status_code="ALL_OR_NONE_OPERATION_ROLLED_BACK", message=ROLLED_BACK, fields=())
    return SaveResult(id=None, created=False, error=error)
