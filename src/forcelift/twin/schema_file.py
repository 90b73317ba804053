"""Read the twin's schema: a YAML file, or the describe documents of a real org.

Reads:   a YAML file, a JSON file, or a folder of JSON describe documents.
Raises:  `SchemaError` with every problem, its place, and the nearest name that would have been right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from forcelift.twin.automation_fit import automation_problems
from forcelift.twin.automation_models import Automations, known_keys, read_automations
from forcelift.twin.errors import SchemaError
from forcelift.twin.record_types import record_type_problems
from forcelift.twin.roll_ups import roll_up_problems
from forcelift.twin.schema import (
    STORED_TYPES,
    UNSTORED_TYPES,
    FieldSchema,
    ObjectSchema,
    OrgSchema,
    PicklistValue,
    RecordTypeSchema,
    Schema,
    UserSchema,
)
from forcelift.twin.schema_field import RollUp
from forcelift.twin.schema_models import FieldFile, ObjectFile, PicklistValueFile, SchemaFile
from forcelift.twin.standard import KEY_PREFIXES, STANDARD_OBJECTS, with_system_fields

_FIXED_FIELDS: Final = frozenset(
    {"id", "isdeleted", "createddate", "createdbyid", "lastmodifieddate", "lastmodifiedbyid", "systemmodstamp"}
)
_DEFAULT_LENGTHS: Final = {"email": 80, "phone": 40, "url": 255, "picklist": 255, "multipicklist": 4099}
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def load_schema(path: Path) -> Schema:
    """Read a schema from a YAML file, from a JSON file of one or more describe documents, or from a folder of such."""
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise SchemaError(["the folder holds no .json file"], source=str(path))
        return schema_from_describes([_read_json(file) for file in files], source=str(path))
    if path.suffix == ".json":
        content = _read_json(path)
        if isinstance(content, Mapping) and "fields" not in content:
            return schema_from_dict(content, source=str(path))
        return schema_from_describes(content if isinstance(content, list) else [content], source=str(path))
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise SchemaError([str(error)], source=str(path)) from error
    return schema_from_dict(content, source=str(path))


def schema_from_dict(content: object, *, source: str | None = None) -> Schema:
    """Build a schema from the parsed form of the YAML file.

    Raises:
        SchemaError: Unknown keys, types or references, values that do not fit together; all of them at once.
    """
    if not isinstance(content, Mapping):
        raise SchemaError(["the file must hold a mapping with the key `objects`"], source=source)
    try:
        file = SchemaFile.model_validate(content)
    except ValidationError as error:
        raise SchemaError(_pydantic_problems(error), source=source) from error
    builder = _Builder()
    if not file.objects and not file.describes:
        builder.problems.append("the file declares no objects: give `objects`, or `describes` of a real org")
    described = builder.described(file.describes)
    objects = [*described, *(builder.object(name, spec) for name, spec in file.objects.items())]
    if described:
        objects = narrowed(objects)
    return builder.finish(
        org=OrgSchema(**file.org.model_dump(mode="json")),
        limits=file.limits,
        users=tuple(
            UserSchema(
                **{**entry.model_dump(), "name": entry.name or entry.username, "email": entry.email or entry.username}
            )
            for entry in file.users
        ),
        objects=objects,
        source=source,
        automations=_automations(file.automations, builder),
    )


def schema_from_describes(documents: Sequence[Mapping[str, Any]], *, source: str | None = None) -> Schema:
    """Build a schema from describe documents as Salesforce answers them; attributes of no use here are left out."""
    builder = _Builder()
    objects = narrowed(builder.described(documents))
    return builder.finish(org=OrgSchema(), limits={}, users=(), objects=objects, source=source)


def narrowed(objects: Sequence[ObjectSchema]) -> list[ObjectSchema]:
    """A real org's lookups point at objects that were not exported; such a lookup keeps the targets that are here."""
    known = {entry.name for entry in objects} | {entry.name for entry in STANDARD_OBJECTS}
    return [_narrow_references(entry, known) for entry in objects]


class _Builder:
    """Collects problems while objects are built, so that all are told at once."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._custom_objects = 0
        self._child_names: dict[tuple[Any, Any], str | None] = {}
        self._prefixes: dict[str, str] = {entry.key_prefix: entry.name for entry in STANDARD_OBJECTS}

    def object(self, name: str, spec: ObjectFile) -> ObjectSchema:
        place = f"objects.{name}"
        if name in {entry.name for entry in STANDARD_OBJECTS}:
            self.problems.append(f"{place}: the twin brings this object itself; it cannot be declared")
        if not name.replace("_", "").isalnum() or not name.isascii() or not name[:1].isalpha():
            self.problems.append(f"{place}: an API name has letters, digits and underscores only")
        label = spec.label or name.removesuffix("__c").replace("_", " ")
        record_types = tuple(
            RecordTypeSchema(**{**entry.model_dump(), "picklist_values": tuple(entry.picklist_values.items())})
            for entry in spec.record_types
        )
        declared = tuple(self._field(f"{place}.fields", key, member) for key, member in spec.fields.items())
        self._check_twice(f"{place}.fields", [field.name for field in declared])
        return ObjectSchema(
            name=name,
            label=label,
            label_plural=spec.label_plural or f"{label}s",
            key_prefix=self._prefix(place, name, spec.key_prefix),
            custom=name.endswith("__c"),
            bulk_capable=spec.bulk_capable,
            enable_history=spec.enable_history,
            fields=with_system_fields(name=name, label=label, declared=declared, record_types=record_types),
            record_types=record_types,
        )

    def _field(self, place: str, name: str, spec: FieldFile) -> FieldSchema:
        place = f"{place}.{name}"
        if spec.roll_up is not None:
            spec = spec.model_copy(update={"calculated": True})
        if name.lower() in _FIXED_FIELDS:
            self.problems.append(f"{place}: the twin brings this field itself; it cannot be declared")
        is_auto = spec.auto_number or spec.type == "autoNumber"
        kind = "string" if spec.type == "autoNumber" else spec.type
        if kind not in STORED_TYPES:
            self.problems.append(f"{place}.type: unknown type `{kind}`{_nearest(kind, [*STORED_TYPES, 'autoNumber'])}")
            kind = "string"
        nillable, createable = self._traits(place, spec, kind=kind, is_auto=is_auto)
        master_detail = spec.relationship_order is not None
        precision, scale = self._number_size(place, spec, kind)
        name_field = name == "Name"
        standard_name = name_field and spec.required is None and spec.nillable is None and not is_auto
        picklist = tuple(_picklist_value(entry) for entry in spec.values or spec.picklist_values)
        default_value = spec.default_value
        if default_value is None:
            default_value = next((entry.value for entry in picklist if entry.default), None)
        if kind == "boolean" and default_value is None:
            default_value = False
        defaulted = spec.defaulted_on_create
        if defaulted is None:
            defaulted = kind == "boolean" or is_auto or standard_name or (default_value is not None)
        return FieldSchema(
            name=name,
            label=spec.label or name.removesuffix("__c").replace("_", " "),
            type=kind,
            length=self._length(place, spec, kind, is_auto=is_auto),
            precision=precision,
            scale=scale,
            digits=(spec.digits or 9) if kind == "int" else 0,
            nillable=nillable,
            createable=createable,
            updateable=spec.updateable
            if spec.updateable is not None
            else not (spec.calculated or is_auto or master_detail),
            defaulted_on_create=defaulted,
            default_value=default_value,
            external_id=spec.external_id,
            id_lookup=spec.id_lookup
            if spec.id_lookup is not None
            else (spec.external_id or (name_field and standard_name)),
            unique=spec.unique,
            case_sensitive=spec.case_sensitive,
            track_history=spec.track_history,
            reference_to=spec.targets,
            relationship_name=self._relationship(place, name, spec, kind),
            relationship_order=spec.relationship_order,
            restricted_picklist=spec.restricted_picklist,
            picklist_values=picklist,
            calculated=spec.calculated,
            auto_number=is_auto,
            display_format=(spec.display_format or "{0}") if is_auto else None,
            cascade_delete=spec.cascade_delete if spec.cascade_delete is not None else master_detail,
            restricted_delete=spec.restricted_delete,
            write_requires_master_read=spec.write_requires_master_read,
            name_field=name_field,
            custom=name.endswith("__c"),
            html_formatted=spec.html_formatted,
            extra_type_info=spec.extra_type_info,
            inline_help_text=spec.inline_help_text,
            child_relationship_name=spec.child_relationship_name,
            roll_up=None if spec.roll_up is None else RollUp(**spec.roll_up.model_dump()),
        )

    def _traits(self, place: str, spec: FieldFile, *, kind: str, is_auto: bool) -> tuple[bool, bool]:
        """`nillable` and `createable`, as declared or as the type has them."""
        if spec.required is not None and spec.nillable is not None and spec.required == spec.nillable:
            self.problems.append(f"{place}: `required` and `nillable` contradict each other")
        nillable = spec.nillable
        if nillable is None:
            fixed = kind == "boolean" or is_auto or spec.relationship_order is not None
            nillable = not (fixed if spec.required is None else spec.required)
        if kind == "boolean" and nillable:
            self.problems.append(f"{place}: a boolean is never null")
        createable = spec.createable if spec.createable is not None else not (spec.calculated or is_auto)
        if createable and (spec.calculated or is_auto):
            self.problems.append(f"{place}: a formula or auto-number cannot be createable")
        if spec.case_sensitive and not spec.unique:
            self.problems.append(f"{place}: `caseSensitive` needs `unique: true`")
        if spec.external_id and kind not in ("string", "double", "email", "int", "currency", "phone", "url"):
            self.problems.append(f"{place}: a field of type {kind} cannot be an external ID")
        return nillable, createable

    def _number_size(self, place: str, spec: FieldFile, kind: str) -> tuple[int, int]:
        if kind not in ("double", "currency", "percent"):
            if spec.precision or spec.scale:
                self.problems.append(f"{place}: `precision` and `scale` belong to double, currency and percent")
            return 0, 0
        precision, scale = spec.precision or 18, spec.scale or 0
        if scale > precision:
            self.problems.append(f"{place}: `scale` {scale} is larger than `precision` {precision}")
            return 38, min(scale, 38)
        return precision, scale

    def _length(self, place: str, spec: FieldFile, kind: str, *, is_auto: bool) -> int:
        if kind in ("reference", "id"):
            return 18
        if kind not in ("string", "textarea", "encryptedstring", "combobox", *_DEFAULT_LENGTHS):
            if spec.length:
                self.problems.append(f"{place}: `length` belongs to text fields; {kind} has none")
            return 0
        if is_auto:
            return 30
        return spec.length or _DEFAULT_LENGTHS.get(kind, 255)

    def _relationship(self, place: str, name: str, spec: FieldFile, kind: str) -> str | None:
        if kind != "reference":
            if spec.reference_to or spec.relationship_name:
                self.problems.append(f"{place}: `referenceTo` and `relationshipName` belong to type reference")
            return None
        if not spec.targets:
            self.problems.append(f"{place}: a reference needs `referenceTo`")
        if spec.relationship_name:
            return spec.relationship_name
        if name.endswith("__c"):
            return f"{name[:-3]}__r"
        return name[:-2] if name.endswith("Id") else None

    def described(self, documents: Sequence[Mapping[str, Any]]) -> list[ObjectSchema]:
        """The objects of describe documents, but for those that the twin brings itself."""
        objects = []
        for number, document in enumerate(documents):
            if not isinstance(document, Mapping) or "name" not in document or "fields" not in document:
                self.problems.append(f"document {number + 1} is not an object's describe: it lacks `name` or `fields`")
                continue
            for entry in document.get("childRelationships") or ():
                # The name of the children's list stands in the parent's document only.
                self._child_names[entry.get("childSObject"), entry.get("field")] = entry.get("relationshipName")
            if document["name"] not in {entry.name for entry in STANDARD_OBJECTS}:
                objects.append(document)
        return [self.described_object(document) for document in objects]

    def described_object(self, document: Mapping[str, Any]) -> ObjectSchema:
        name = str(document["name"])
        record_types = tuple(
            RecordTypeSchema(
                name=entry["name"],
                developer_name=entry["developerName"],
                active=entry.get("active", True),
                available=entry.get("available", True),
                default=entry.get("defaultRecordTypeMapping", False),
                id=entry.get("recordTypeId"),
            )
            for entry in document.get("recordTypeInfos") or ()
            if not entry.get("master")
        )
        fields = [self._described_field(name, member) for member in document["fields"]]
        present = {field.name.lower() for field in fields}
        for field in with_system_fields(name=name, label=name, declared=tuple(fields), record_types=record_types):
            if field.name.lower() not in present:
                fields.append(field)  # noqa: PERF401 - the loop's source is made from `fields` itself
        return ObjectSchema(
            name=name,
            label=document.get("label") or name,
            label_plural=document.get("labelPlural") or f"{document.get('label') or name}s",
            key_prefix=self._prefix(name, name, document.get("keyPrefix")),
            custom=bool(document.get("custom", name.endswith("__c"))),
            createable=document.get("createable", True),
            updateable=document.get("updateable", True),
            deletable=document.get("deletable", True),
            queryable=document.get("queryable", True),
            fields=tuple(fields),
            record_types=record_types,
        )

    def _described_field(self, object_name: str, member: Mapping[str, Any]) -> FieldSchema:
        kind = str(member.get("type"))
        if kind not in STORED_TYPES | UNSTORED_TYPES:
            self.problems.append(
                f"{object_name}.{member.get('name')}.type: unknown type `{kind}`{_nearest(kind, STORED_TYPES)}"
            )
        precision = int(member.get("precision") or 0)
        return FieldSchema(
            name=member["name"],
            label=member.get("label") or member["name"],
            type=kind,
            length=int(member.get("length") or 0),
            precision=precision,
            scale=int(member.get("scale") or 0),
            digits=int(member.get("digits") or 0),
            nillable=member.get("nillable", True),
            createable=member.get("createable", True),
            updateable=member.get("updateable", True),
            defaulted_on_create=member.get("defaultedOnCreate", False),
            default_value=member.get("defaultValue"),
            external_id=member.get("externalId", False),
            id_lookup=member.get("idLookup", False),
            unique=member.get("unique", False),
            case_sensitive=member.get("caseSensitive", False),
            reference_to=tuple(member.get("referenceTo") or ()),
            relationship_name=member.get("relationshipName"),
            relationship_order=member.get("relationshipOrder"),
            restricted_picklist=member.get("restrictedPicklist", False),
            picklist_values=tuple(
                PicklistValue(
                    value=entry["value"],
                    label=entry.get("label") or entry["value"],
                    active=entry.get("active", True),
                    default=entry.get("defaultValue", False),
                )
                for entry in member.get("picklistValues") or ()
            ),
            calculated=member.get("calculated", False),
            calculated_formula=member.get("calculatedFormula"),
            auto_number=member.get("autoNumber", False),
            display_format="{0}" if member.get("autoNumber") else None,
            cascade_delete=member.get("cascadeDelete", False),
            restricted_delete=member.get("restrictedDelete", False),
            write_requires_master_read=member.get("writeRequiresMasterRead", False),
            name_field=member.get("nameField", False),
            custom=member.get("custom", False),
            html_formatted=member.get("htmlFormatted", False),
            extra_type_info=member.get("extraTypeInfo"),
            compound_field_name=member.get("compoundFieldName"),
            child_relationship_name=self._child_names.get((object_name, member["name"])),
            inline_help_text=member.get("inlineHelpText"),
        )

    def _prefix(self, place: str, name: str, declared: str | None) -> str:
        prefix = declared or KEY_PREFIXES.get(name)
        while prefix is None or (declared is None and prefix in self._prefixes):
            prefix = "a" + _BASE62[self._custom_objects // 62 % 62] + _BASE62[self._custom_objects % 62]
            self._custom_objects += 1
        if len(prefix) != 3 or not prefix.isalnum() or not prefix.isascii():
            self.problems.append(f"{place}.key_prefix: `{prefix}` is not three letters or digits")
        if prefix in self._prefixes:
            self.problems.append(f"{place}.key_prefix: `{prefix}` belongs to {self._prefixes[prefix]}")
        self._prefixes[prefix] = name
        return prefix

    def _check_twice(self, place: str, names: Sequence[str]) -> None:
        seen: set[str] = set()
        for name in names:
            if name.lower() in seen:
                self.problems.append(f"{place}.{name}: declared twice (API names ignore case)")
            seen.add(name.lower())

    def _check_security(self, users: Sequence[UserSchema], objects: Mapping[str, ObjectSchema]) -> None:
        """Field-level security names fields that exist and that it applies to."""
        for user in users:
            for key, names in (("unseen_fields", user.unseen_fields), ("read_only_fields", user.read_only_fields)):
                for name in names:
                    object_name, _, field_name = name.partition(".")
                    entry = objects.get(object_name.lower())
                    field = None if entry is None else entry.field(field_name)
                    place = f"users.{user.username}.{key}"
                    if field is None:
                        self.problems.append(f"{place}: no field `{name}`")
                    elif field.required or field.master_detail or field.name.lower() in _FIXED_FIELDS:
                        self.problems.append(f"{place}: field-level security does not apply to `{name}`")

    def finish(
        self,
        *,
        org: OrgSchema,
        limits: Mapping[str, int],
        users: tuple[UserSchema, ...],
        objects: Sequence[ObjectSchema],
        source: str | None,
        automations: Automations | None = None,
    ) -> Schema:
        self._check_twice("objects", [entry.name for entry in objects])
        self._check_twice("users", [user.username for user in users])
        everything = (*objects, *STANDARD_OBJECTS)
        known = [entry.name for entry in everything]
        for entry in objects:
            self.problems.extend((*record_type_problems(entry), *roll_up_problems(entry, objects)))
            for field in entry.fields:
                self.problems.extend(
                    f"objects.{entry.name}.fields.{field.name}.referenceTo: no object "
                    f"`{target}`{_nearest(target, known)}"
                    for target in field.reference_to
                    if target not in known
                )
            self._check_twice(
                f"objects.{entry.name}.relationshipName",
                [f.relationship_name for f in entry.fields if f.relationship_name],
            )
        automations = automations or Automations()
        by_name = {entry.name.lower(): entry for entry in everything}
        self._check_security(users, by_name)
        self.problems += automation_problems(automations, lambda name: by_name.get(name.lower()))
        if self.problems:
            raise SchemaError(self.problems, source=source)
        users = users or (_default_user(),)
        return Schema(org=org, limits=dict(limits), users=users, objects=everything, automations=automations)


def _automations(content: Mapping[str, Any], builder: _Builder) -> Automations:
    try:
        return read_automations(content)
    except ValidationError as error:
        for item in error.errors():
            place = ".".join(str(part) for part in ("automations", *item["loc"]))
            if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
                builder.problems.append(
                    f"{place}: unknown key{_nearest(str(item['loc'][-1]), known_keys(item['loc']))}"
                )
            else:
                builder.problems.append(f"{place}: {item['msg']}")
        return Automations()


def _default_user() -> UserSchema:
    return UserSchema(
        username="admin@twin.example", name="Twin Admin", email="admin@twin.example", permissions=("bulk_hard_delete",)
    )


def _picklist_value(entry: str | PicklistValueFile) -> PicklistValue:
    if isinstance(entry, str):
        return PicklistValue(value=entry, label=entry)
    return PicklistValue(
        value=entry.value, label=entry.label or entry.value, active=entry.active, default=entry.default_value
    )


def _narrow_references(entry: ObjectSchema, known: set[str]) -> ObjectSchema:
    fields = []
    for field in entry.fields:
        targets = tuple(target for target in field.reference_to if target in known)
        if targets != field.reference_to:
            field = replace(field, reference_to=targets, relationship_name=field.relationship_name if targets else None)
        fields.append(field)
    return replace(entry, fields=tuple(fields))


def _nearest(name: str, known: Sequence[str] | frozenset[str]) -> str:
    found = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (nearest: `{found[0]}`)" if found else ""


def _pydantic_problems(error: ValidationError) -> list[str]:
    problems = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = SchemaFile.keys_beside(item["loc"])
            problems.append(f"{place}: unknown key{_nearest(str(item['loc'][-1]), known)}")
        else:
            problems.append(f"{place}: {item['msg']}")
    return problems


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SchemaError([str(error)], source=str(path)) from error
