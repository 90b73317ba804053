"""REST calls that read: resource root, objects, describe, records, queries, limits, counts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, Final

from forcelift.twin.errors import ApiError, not_found
from forcelift.twin.http_core import Call, Reply, json_reply
from forcelift.twin.ids import is_id
from forcelift.twin.org import TwinOrg
from forcelift.twin.rest import QueryPages, page_rows_from, soql_text
from forcelift.twin.schema import FieldSchema, ObjectSchema
from forcelift.twin.soql import CompiledQuery

RESOURCES: Final = ("sobjects", "query", "queryAll", "limits", "jobs", "composite", "tooling", "metadata")
FIELD_PATH: Final = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*){0,5}", re.ASCII)
MATCHES_MAX: Final = 200  # urls listed when an external ID fits several records


class RestCalls:
    """Handlers below `/services/data/vNN.0` that change nothing.

    Args:
        modified_at: Tells when the schema was last changed, for `If-Modified-Since`.
    """

    def __init__(self, org: TwinOrg, pages: QueryPages, *, modified_at: Callable[[], datetime]) -> None:
        self._org = org
        self._pages = pages
        self._modified_at = modified_at

    def root(self, call: Call) -> Reply:
        base = f"/services/data/v{call.version}"
        identity = f"{call.host_url}/id/{self._org.org_id}/{call.session.user_id}"
        return json_reply({**{name: f"{base}/{name}" for name in RESOURCES}, "identity": identity})

    def composite_root(self, call: Call) -> Reply:
        return json_reply({"sobjects": f"/services/data/v{call.version}/composite/sobjects"})

    def limits(self, call: Call) -> Reply:
        return json_reply(self._org.usage.limits_json())

    def record_count(self, call: Call) -> Reply:
        """Counts by object, the recycle bin included; objects without records are left out."""
        wanted = [name for name in call.query.get("sObjects", "").split(",") if name]
        names = wanted or [entry.name for entry in self._org.schema.objects]
        found = [entry for entry in map(self._org.schema.object, names) if entry is not None]
        counts = []
        with self._org.cursor() as cursor:
            for entry in sorted(found, key=lambda item: item.name):
                row = cursor.execute(f"SELECT count(*) FROM {table_of(entry)}").fetchone()
                if row is not None and row[0]:
                    counts.append({"count": row[0], "name": entry.name})
        return json_reply({"sObjects": counts})

    def objects(self, call: Call) -> Reply:
        return self._unless_known(call, lambda: self._org.schema.sobjects_json(api_version=call.version))

    def object_info(self, call: Call) -> Reply:
        entry = self.object_named(call)
        document = {"objectDescribe": entry.sobject_json(api_version=call.version), "recentItems": []}
        return self._unless_known(call, lambda: document)

    def describe(self, call: Call) -> Reply:
        entry = self.object_named(call)
        return self._unless_known(
            call, lambda: self._org.describe(entry.name, api_version=call.version, user_id=call.session.user_id)
        )

    def _unless_known(self, call: Call, make: Callable[[], dict[str, Any]]) -> Reply:
        """A document of the schema, or 304 if the caller has seen the schema since it was changed."""
        modified_at = self._modified_at().replace(microsecond=0)
        stamp = ("last-modified", format_datetime(modified_at, usegmt=True))
        if is_unchanged(modified_at, call.headers.get("if-modified-since")):
            return Reply(status=304, headers=(stamp,))
        return json_reply(make(), headers=(stamp,))

    def record(self, call: Call) -> Reply:
        """One record by Id, with `?fields=` or all fields; 304 or 412 by the conditions of its headers."""
        entry = self.object_named(call)
        since = call.headers.get("if-modified-since")
        changed = self.check_unmodified(call, entry, call.params["id"])
        if changed is not None and is_unchanged(changed, since):
            return Reply(status=304)
        return json_reply(self._existing(call, entry, call.params["id"]))

    def check_unmodified(self, call: Call, entry: ObjectSchema, record_id: str) -> datetime | None:
        """When a record was last changed, if a header of the call makes it matter.

        Raises:
            ApiError: 412 if it was changed after `If-Unmodified-Since`.
        """
        since = call.headers.get("if-unmodified-since")
        if since is None and call.headers.get("if-modified-since") is None:
            return None
        text = self._existing(call, entry, record_id, fields=("LastModifiedDate",))["LastModifiedDate"]
        changed = None if text is None else datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z")
        if changed is not None and parsed_http_date(since) is not None and not is_unchanged(changed, since):
            raise ApiError(412, "PRECONDITION_FAILED", "The record was changed after the given time")
        return changed

    def record_by_key(self, call: Call) -> Reply:
        """One record by the value of an external ID; 300 with their urls if several match."""
        entry = self.object_named(call)
        field = self.key_field(entry, call.params["field"])
        value = call.params["value"]
        if field.type == "id":
            return json_reply(self._existing(call, entry, value))
        found = self._select(call, entry, field.name, literal(field, value))
        if not found:
            raise not_found()
        if len(found) > 1:
            return json_reply([record["attributes"]["url"] for record in found], status=300)
        return json_reply(found[0])

    def existing_id(self, call: Call, entry: ObjectSchema, record_id: str) -> str:
        """The 18-character Id of a record that exists. Raises ApiError 404 otherwise."""
        return str(self._existing(call, entry, record_id, fields=("Id",))["Id"])

    def urls_by_key(self, call: Call, entry: ObjectSchema, field: FieldSchema, value: str) -> list[str]:
        """The urls of all records with that value in a key field."""
        found = self._select(call, entry, field.name, literal(field, value), fields=("Id",))
        return [str(record["attributes"]["url"]) for record in found]

    def query(self, call: Call) -> Reply:
        return self._query(call, include_deleted=False)

    def query_all(self, call: Call) -> Reply:
        return self._query(call, include_deleted=True)

    def query_more(self, call: Call) -> Reply:
        page = self._pages.next(call.params["locator"], user_id=call.session.user_id, api_version=call.version)
        return json_reply(page.as_json(api_version=call.version))

    def object_named(self, call: Call) -> ObjectSchema:
        entry = self._org.schema.seen_by(call.session.user_id).object(call.params["object"])
        if entry is None:
            raise not_found()
        return entry

    def key_field(self, entry: ObjectSchema, name: str) -> FieldSchema:
        """A field that can find records: the Id, or what the describe calls an external ID or idLookup."""
        field = entry.field(name)
        if field is None or not (field.external_id or field.id_lookup):
            message = f"Provided external ID field does not exist or is not accessible: {name}"
            raise ApiError(404, "NOT_FOUND", message)
        return field

    def _query(self, call: Call, *, include_deleted: bool) -> Reply:
        soql = call.query.get("q", "")
        if not soql.strip():
            raise ApiError(400, "MALFORMED_QUERY", "A query string has to be specified")
        compiled = self._pages.compile(soql, user_id=call.session.user_id, include_deleted=include_deleted)
        if call.query.get("columns", "").lower() == "true":
            return json_reply(self._columns(compiled))
        page_rows = page_rows_from(call.headers.get("sforce-query-options"))
        page = self._pages.first(compiled, user_id=call.session.user_id, page_rows=page_rows, api_version=call.version)
        return json_reply(page.as_json(api_version=call.version))

    def _existing(
        self, call: Call, entry: ObjectSchema, record_id: str, *, fields: Sequence[str] = ()
    ) -> dict[str, Any]:
        if not is_id(record_id):
            message = f"Provided external ID field does not exist or is not accessible: {record_id}"
            raise ApiError(404, "NOT_FOUND", message)
        found = self._select(call, entry, "Id", soql_text(record_id), fields=fields)
        if found:
            return found[0]
        if self._select(call, entry, "Id", soql_text(record_id), fields=("Id",), deleted=True):
            raise ApiError(404, "ENTITY_IS_DELETED", "entity is deleted")
        raise not_found()

    def _select(
        self,
        call: Call,
        entry: ObjectSchema,
        key: str,
        value: str,
        *,
        fields: Sequence[str] = (),
        deleted: bool = False,
    ) -> list[dict[str, Any]]:
        """Records with a value in a key field: the given fields, those of `?fields=`, or all."""
        asked = [name.strip() for name in call.query.get("fields", "").split(",") if name.strip()]
        names = fields or asked or [field.name for field in entry.visible_fields if field.stored]
        for name in names:
            if not FIELD_PATH.fullmatch(name):
                raise ApiError(400, "INVALID_FIELD", f"No such column '{name}' on entity '{entry.name}'")
        soql = f"SELECT {', '.join(names)} FROM {entry.name} WHERE {key} = {value} LIMIT {MATCHES_MAX}"
        user_id = call.session.user_id
        compiled = self._pages.compile(soql, user_id=user_id, include_deleted=deleted)
        page = self._pages.first(compiled, user_id=user_id, page_rows=MATCHES_MAX, api_version=call.version)
        return page.records

    def _columns(self, compiled: CompiledQuery) -> dict[str, Any]:
        """What `query?columns=true` tells about a query without running it."""
        entry = self._org.schema.object(compiled.object_name)
        columns: list[dict[str, Any]] = []
        for column in compiled.columns:
            name = column.name
            field = None if entry is None or len(column.keys) > 1 else entry.field(name)
            columns.append(
                {
                    "aggregate": compiled.is_aggregate,
                    "apexType": column.category.value.capitalize(),
                    "booleanType": column.category.value == "boolean",
                    "columnName": column.keys[-1],
                    "custom": column.keys[-1].endswith("__c"),
                    "displayName": column.keys[-1],
                    "foreignKeyName": column.keys[-2] if len(column.keys) > 1 else None,
                    "insertable": field is not None and field.createable,
                    "joinColumns": [],
                    "numberType": column.category.value in ("int", "double"),
                    "textType": column.category.value == "string",
                    "updatable": field is not None and field.updateable,
                }
            )
        return {
            "columnMetadata": columns,
            "entityName": compiled.object_name,
            "groupBy": compiled.is_aggregate,
            "idSelected": any(column.keys == ("Id",) for column in compiled.columns),
            "keyPrefix": None if entry is None else entry.key_prefix or None,
        }


def is_unchanged(modified_at: datetime, since: str | None) -> bool:
    """True if an `If-Modified-Since` header names a time at or after the change; one that cannot be read is ignored."""
    asked = parsed_http_date(since)
    return asked is not None and modified_at <= asked


def parsed_http_date(text: str | None) -> datetime | None:
    """The instant of an HTTP date header, or None if it is none."""
    if text is None:
        return None
    try:
        asked = parsedate_to_datetime(text)
    except ValueError:
        return None
    return asked if asked.tzinfo is not None else asked.replace(tzinfo=UTC)


def table_of(entry: ObjectSchema) -> str:
    return 'data."' + entry.name.replace('"', '""') + '"'


def literal(field: FieldSchema, value: str) -> str:
    """The value of an external ID in a path, as a SOQL literal. Raises ApiError for a number that is none."""
    if not (field.is_number or field.type == "int"):
        # Stored values have no outer blanks, so they mean nothing in a key either.
        return soql_text(value.strip())
    digits = value.removeprefix("-").replace(".", "", 1)
    if not digits.isascii() or not digits.isdigit():
        raise ApiError(400, "INVALID_FIELD", f"{field.name}: value not of required type", [field.name])
    return value
