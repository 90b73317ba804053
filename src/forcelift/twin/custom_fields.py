"""Fields that calls add to a running org, and who may see them.

A field made by a call is in the org at once and seen by nobody: not in describe, not in SOQL, an unknown column for
Bulk, until field-level security grants it. A grant by a permission set makes it visible to all of the twin's users.
Writes:  the stored schema (`hidden` fields are those not granted yet), a column when a field is granted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from threading import RLock
from typing import Any, Final

from forcelift.twin.errors import ApiError, not_found
from forcelift.twin.field_metadata import EXTERNAL_IDS_MAX, TRACKED_FIELDS_MAX, changed_history, read_field
from forcelift.twin.ids import make_id
from forcelift.twin.schema import FieldSchema, ObjectSchema, Schema
from forcelift.twin.store import Store

NUMBERS: Final = "custom_field_numbers"


class CustomFields:
    """Makes fields and tells their Ids. Safe to use from several threads.

    Args:
        schema: The org's, which `change` brings up to date in place.
        lock: Held from reading the schema to `change`, so that no change is lost.
        change: Writes another schema down and has all parts of the org adopt it.
    """

    def __init__(
        self, store: Store, schema: Schema, *, lock: RLock, change: Callable[[Schema], None], pod: str
    ) -> None:
        self._store = store
        self._schema = schema
        self._lock = lock
        self._change = change
        self._pod = pod

    def check(self, full_name: str, metadata: Mapping[str, Any]) -> tuple[ObjectSchema, FieldSchema]:
        """The object and the field that `create` would make. Raises ApiError."""
        object_name, _, name = full_name.partition(".")
        entry = self._schema.object(object_name)
        if entry is None or not entry.createable:
            raise ApiError(400, "INVALID_TYPE", f"CustomField: no object named {object_name} found", ["FullName"])
        field = read_field(name, metadata)
        if entry.field(name) is not None or entry.hidden_field(name) is not None:
            text = f"There is already a field named {name.removesuffix('__c')} on {entry.label}."
            raise ApiError(400, "DUPLICATE_DEVELOPER_NAME", text, ["DeveloperName"])
        unknown = [target for target in field.reference_to if self._schema.object(target) is None]
        if unknown:
            raise ApiError(400, "FIELD_INTEGRITY_EXCEPTION", f"referenceTo: no object {unknown[0]}", ["referenceTo"])
        keys = sum(1 for other in (*entry.fields, *entry.hidden) if other.external_id)
        if field.external_id and keys >= EXTERNAL_IDS_MAX:
            text = f"{entry.label} has {EXTERNAL_IDS_MAX} external ID fields, which is the maximum"
            raise ApiError(400, "LIMIT_EXCEEDED", text, ["externalId"])
        return entry, replace(field, made_by_call=True)

    def create(self, full_name: str, metadata: Mapping[str, Any]) -> str:
        """Make a field that nobody sees yet; tell its Id. Raises ApiError."""
        with self._lock:
            entry, field = self.check(full_name, metadata)
            if field.required:
                # Field-level security does not apply to required fields: they are seen at once.
                changed = replace(entry, fields=(*entry.fields, field))
            else:
                changed = replace(entry, hidden=(*entry.hidden, field))
            self._change(self._schema.with_object(changed))
            return self.id_of(entry.name, field.name)

    def change(self, object_name: str, field_name: str, metadata: object) -> None:
        """Replace the whole `Metadata` of a field, which may differ in `trackHistory` alone. Raises ApiError."""
        with self._lock:
            entry = self._schema.object(object_name)
            field = None if entry is None else entry.field(field_name) or entry.hidden_field(field_name)
            if entry is None or field is None:
                raise not_found()
            changed = changed_history(field, metadata)
            if changed.track_history and not field.track_history:
                if not entry.enable_history:
                    text = f"The entity: {entry.name} does not have history tracking enabled"
                    raise ApiError(400, "FIELD_INTEGRITY_EXCEPTION", text, ["trackHistory"])
                if sum(one.track_history for one in (*entry.fields, *entry.hidden)) >= TRACKED_FIELDS_MAX:
                    text = "exceeded the allowed number of fields to track on a given entity"
                    raise ApiError(400, "LIMIT_EXCEEDED", text, ["trackHistory"])
            fields = tuple(changed if one is field else one for one in entry.fields)
            hidden = tuple(changed if one is field else one for one in entry.hidden)
            self._change(self._schema.with_object(replace(entry, fields=fields, hidden=hidden)))

    def grant(self, object_name: str, field_name: str) -> None:
        """Make a field visible. Granting a second time changes nothing."""
        with self._lock:
            entry = self._schema.object(object_name)
            field = None if entry is None else entry.hidden_field(field_name)
            if entry is None or field is None:
                return
            rest = tuple(other for other in entry.hidden if other is not field)
            changed = replace(entry, fields=(*entry.fields, field), hidden=rest)
            self._change(self._schema.with_object(changed))

    def check_grants(self, entry: ObjectSchema, records: Sequence[Mapping[str, Any]]) -> None:
        """Raises ApiError if records of FieldPermissions name a field that the org does not have."""
        if entry.name != "FieldPermissions":
            return
        for record in records:
            object_name, _, name = str(record.get("Field", "")).partition(".")
            target = self._schema.object(object_name)
            if target is None or (target.field(name) is None and target.hidden_field(name) is None):
                text = f"Field Name: bad value for restricted picklist field: {record.get('Field')}"
                raise ApiError(400, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", text, ["Field"])

    def sync_grants(self) -> None:
        """Make every field visible for which a FieldPermissions record allows reading."""
        if not any(entry.hidden for entry in self._schema.objects):
            return
        with self._store.read() as cursor:
            rows = cursor.execute(
                "SELECT SobjectType, Field FROM data.FieldPermissions WHERE PermissionsRead AND NOT IsDeleted"
            ).fetchall()
        for object_name, field in rows:
            entry = self._schema.object(object_name)
            if entry is not None and entry.hidden_field(field.rpartition(".")[2]) is not None:
                self.grant(object_name, field.rpartition(".")[2])

    def all(self) -> list[tuple[ObjectSchema, FieldSchema]]:
        """All custom fields, granted or not, by object and name."""
        return [
            (entry, field) for entry in self._schema.objects for field in (*entry.fields, *entry.hidden) if field.custom
        ]

    def id_of(self, object_name: str, field_name: str) -> str:
        """The Id of a custom field, which never changes."""
        return self.ids()[f"{object_name}.{field_name}"]

    def ids(self) -> dict[str, str]:
        """The Ids of all custom fields by `Object.Field`; new fields get theirs here."""
        store = self._store
        with store.write_meta() as cursor:
            numbers: dict[str, int] = json.loads(store.info(cursor).get(NUMBERS, "{}"))
            known = len(numbers)
            for entry, field in self.all():
                numbers.setdefault(f"{entry.name}.{field.name}", len(numbers) + 1)
            if len(numbers) > known:
                store.set_info(cursor, NUMBERS, json.dumps(numbers))
        return {name: make_id("00N", self._pod, number) for name, number in numbers.items()}


def with_made_fields(schema: Schema, stored: Schema) -> Schema:
    """The schema of a file, with what calls have added to the org since: a restart loses no field."""
    for old in stored.objects:
        new = schema.object(old.name)
        if new is None:
            continue
        made = [field for field in old.fields if field.made_by_call and new.field(field.name) is None]
        hidden = [field for field in old.hidden if new.field(field.name) is None]
        if made or hidden:
            schema = schema.with_object(replace(new, fields=(*new.fields, *made), hidden=tuple(hidden)))
    return schema
