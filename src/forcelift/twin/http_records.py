"""REST calls that write records: one, one by its external ID, or a collection of up to 200."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import groupby
from typing import Any, TypeVar

from forcelift.twin.errors import ApiError, not_found
from forcelift.twin.http_core import Call, Reply, empty_reply, json_reply
from forcelift.twin.http_rest import RestCalls
from forcelift.twin.ids import is_id
from forcelift.twin.org import TwinOrg
from forcelift.twin.rest_unit import RollBack, WorkUnits
from forcelift.twin.rest_write import RECORDS_MAX, RecordWriter, SaveError, SaveResult, rolled_back
from forcelift.twin.schema import FieldSchema, ObjectSchema

Kind = TypeVar("Kind", bound=ObjectSchema | None)
Member = TypeVar("Member")
UPSERT_BODY_SINCE = 46.0  # earlier versions answer 204 to an upsert that updated


class RecordCalls:
    """Handlers below `/sobjects` and `/composite/sobjects` that change records."""

    def __init__(self, org: TwinOrg, read: RestCalls, units: WorkUnits) -> None:
        self._org = org
        self._read = read
        self._units = units
        self._writer = RecordWriter(org, units)

    def create(self, call: Call) -> Reply:
        entry = self._read.object_named(call)
        result = self._save_one(call, entry, "insert", call.json_object(), key=None)
        return json_reply(result.as_json(), status=201)

    def update(self, call: Call) -> Reply:
        entry = self._read.object_named(call)
        body = call.json_object()
        refuse_field(body, "Id")
        record_id = self._read.existing_id(call, entry, call.params["id"])
        self._read.check_unmodified(call, entry, record_id)
        self._save_one(call, entry, "update", {"Id": record_id, **body}, key=entry.field("Id"))
        return empty_reply()

    def delete(self, call: Call) -> Reply:
        entry = self._read.object_named(call)
        return self._delete_one(call, entry, self._read.existing_id(call, entry, call.params["id"]))

    def upsert(self, call: Call) -> Reply:
        """201 for a new record, 200 (204 before v46) for one that was there, 300 when several have the key."""
        entry = self._read.object_named(call)
        field = self._read.key_field(entry, call.params["field"])
        body = call.json_object()
        if field.type == "id":
            refuse_field(body, "Id")
            record_id = self._read.existing_id(call, entry, call.params["value"])
            result = self._save_one(call, entry, "update", {"Id": record_id, **body}, key=field)
        else:
            refuse_field(body, field.name)
            urls = self._read.urls_by_key(call, entry, field, call.params["value"])
            if len(urls) > 1:
                return json_reply(urls, status=300)
            if not urls and call.query.get("updateOnly", "false").lower() == "true":
                raise not_found()
            record = {**body, field.name: call.params["value"]}
            result = self._save_one(call, entry, "upsert", record, key=field)
        if not result.created and float(call.version) < UPSERT_BODY_SINCE:
            return empty_reply()
        return json_reply(result.as_json(tell_created=True), status=201 if result.created else 200)

    def delete_by_key(self, call: Call) -> Reply:
        entry = self._read.object_named(call)
        field = self._read.key_field(entry, call.params["field"])
        urls = self._read.urls_by_key(call, entry, field, call.params["value"])
        if not urls:
            raise not_found()
        if len(urls) > 1:
            return json_reply(urls, status=300)
        return self._delete_one(call, entry, urls[0].rpartition("/")[2])

    def create_many(self, call: Call) -> Reply:
        return self._save_many(call, "insert")

    def update_many(self, call: Call) -> Reply:
        return self._save_many(call, "update")

    def upsert_many(self, call: Call) -> Reply:
        entry = self._read.object_named(call)
        field = self._read.key_field(entry, call.params["field"])
        records, all_or_none = collection_of(call.json_object())
        for record in records:
            if self._object_of(record).name != entry.name:
                raise ApiError(400, "INVALID_FIELD", f"All records of this call must be of type {entry.name}")
        results = self._writer.save(
            entry, "upsert", records, key=field, user_id=call.session.user_id, all_or_none=all_or_none
        )
        return json_reply([result.as_json(tell_created=True) for result in results])

    def delete_many(self, call: Call) -> Reply:
        ids = [part.strip() for part in call.query.get("ids", "").split(",") if part.strip()]
        if not ids:
            raise ApiError(400, "INVALID_FIELD", "The ids parameter is required")
        check_count(len(ids))
        all_or_none = call.query.get("allOrNone", "false").lower() == "true"
        objects = [self._org.schema.object_of_id(record_id) if is_id(record_id) else None for record_id in ids]

        def delete(entry: ObjectSchema | None, members: list[str]) -> list[SaveResult]:
            if entry is None:
                error = SaveError(status_code="MALFORMED_ID", message="malformed id", fields=())
                return [SaveResult(id=None, created=False, error=error) for _ in members]
            return self._writer.delete(entry, members, user_id=call.session.user_id)

        results = self._in_runs(objects, ids, delete, all_or_none=all_or_none)
        return json_reply([result.as_json() for result in results])

    def _save_many(self, call: Call, operation: str) -> Reply:
        """Runs of records of one object are saved together, in the order of the request."""
        records, all_or_none = collection_of(call.json_object())
        objects = [self._object_of(record) for record in records]

        def save(entry: ObjectSchema, members: list[Mapping[str, Any]]) -> list[SaveResult]:
            key = entry.field("Id") if operation == "update" else None
            return self._writer.save(entry, operation, members, key=key, user_id=call.session.user_id)

        results = self._in_runs(objects, records, save, all_or_none=all_or_none)
        return json_reply([result.as_json() for result in results])

    def _in_runs(
        self,
        objects: Sequence[Kind],
        members: Sequence[Member],
        work: Callable[[Kind, list[Member]], list[SaveResult]],
        *,
        all_or_none: bool,
    ) -> list[SaveResult]:
        """Work on runs of members of the same object; with `all_or_none` any failure undoes all of them."""
        results: list[SaveResult] = []

        def run() -> None:
            for kind, group in groupby(zip(objects, members, strict=True), key=lambda pair: pair[0]):
                results.extend(work(kind, [member for _, member in group]))

        if not all_or_none:
            run()
            return results
        try:
            with nullcontext() if self._units.is_open else self._units.all_or_none():
                run()
                if any(result.error for result in results):
                    raise RollBack
        except RollBack:
            if self._units.is_open:  # a composite request around this call falls with it
                raise RollBack([rolled_back(result).as_json() for result in results]) from None
            return [rolled_back(result) for result in results]
        return results

    def _save_one(
        self, call: Call, entry: ObjectSchema, operation: str, record: Mapping[str, Any], *, key: FieldSchema | None
    ) -> SaveResult:
        (result,) = self._writer.save(entry, operation, [record], key=key, user_id=call.session.user_id)
        if result.error is not None:
            raise result.error.as_api_error()
        return result

    def _delete_one(self, call: Call, entry: ObjectSchema, record_id: str) -> Reply:
        (result,) = self._writer.delete(entry, [record_id], user_id=call.session.user_id)
        if result.error is not None:
            raise result.error.as_api_error()
        return empty_reply()

    def _object_of(self, record: Mapping[str, Any]) -> ObjectSchema:
        attributes = record.get("attributes")
        name = attributes.get("type") if isinstance(attributes, Mapping) else None
        entry = self._org.schema.object(name) if isinstance(name, str) else None
        if entry is None:
            raise ApiError(400, "INVALID_TYPE", f"sObject type '{name}' is not supported in attributes.type")
        return entry


def collection_of(body: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], bool]:
    """Records and `allOrNone` of a collections body. Raises ApiError."""
    records = body.get("records")
    if not isinstance(records, Sequence) or isinstance(records, str) or not records:
        raise ApiError(400, "JSON_PARSER_ERROR", "The request body needs `records`, a list that is not empty")
    if not all(isinstance(record, Mapping) for record in records):
        raise ApiError(400, "JSON_PARSER_ERROR", "Every record must be a JSON object")
    check_count(len(records))
    all_or_none = body.get("allOrNone", False)
    if not isinstance(all_or_none, bool):
        raise ApiError(400, "JSON_PARSER_ERROR", "`allOrNone` must be true or false")
    return list(records), all_or_none


def check_count(count: int) -> None:
    if count > RECORDS_MAX:
        message = f"Record limit reached. cannot submit more than {RECORDS_MAX} records in this call"
        raise ApiError(400, "EXCEEDED_ID_LIMIT", message)


def refuse_field(body: Mapping[str, Any], name: str) -> None:
    """What the path says about a record cannot stand in its body too."""
    if name.lower() in (key.lower() for key in body):
        message = f"The {name} field should not be specified in the sobject data."
        raise ApiError(400, "INVALID_FIELD", message, [name])
