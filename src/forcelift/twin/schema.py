"""Objects and fields of the org: lookups that ignore case, and describe documents as Salesforce answers them.

Nothing is read or written here: `schema_file` reads YAML and describe documents into these classes, `standard` adds
what every org and every object has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Final

from forcelift.twin.automation_models import NO_AUTOMATIONS, Automations, automations_json, read_automations
from forcelift.twin.schema_field import (
    ID_TYPES,
    NUMBER_TYPES,
    STORED_TYPES,
    TEXT_TYPES,
    UNSTORED_TYPES,
    FieldSchema,
    PicklistValue,
    RollUp,
)

__all__ = [
    "ID_TYPES",
    "MASTER_RECORD_TYPE_ID",
    "NUMBER_TYPES",
    "STORED_TYPES",
    "TEXT_TYPES",
    "UNSTORED_TYPES",
    "FieldSchema",
    "ObjectSchema",
    "OrgSchema",
    "PicklistValue",
    "RecordTypeSchema",
    "Schema",
    "UserSchema",
]
MASTER_RECORD_TYPE_ID: Final = "012000000000000AAA"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordTypeSchema:
    """A record type of an object. Without an `id` one is made when the org is made."""

    name: str
    developer_name: str
    active: bool = True
    available: bool = True
    default: bool = False
    id: str | None = None
    picklist_values: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Values that records of this type may have in a restricted picklist, by field; one not named here has all."""


@dataclass(frozen=True, kw_only=True)
class ObjectSchema:
    """One object. `fields` keeps the order of the describe document; look fields up with `field(name)`.

    `hidden` fields exist, but nobody may see them: field-level security has not granted them. `concealed` ones have
    their columns and are not shown to the one user whose view of the object this is.
    """

    name: str
    label: str
    label_plural: str
    key_prefix: str
    fields: tuple[FieldSchema, ...]
    custom: bool = True
    createable: bool = True
    updateable: bool = True
    deletable: bool = True
    queryable: bool = True
    bulk_capable: bool = True
    enable_history: bool = True
    record_types: tuple[RecordTypeSchema, ...] = ()
    hidden: tuple[FieldSchema, ...] = ()
    concealed: tuple[FieldSchema, ...] = ()
    veiled: set[str] = dataclasses.field(default_factory=set, compare=False, repr=False)
    """Names, in lower case, of fields that a fault took field-level security from: no call knows them, values stay."""

    @cached_property
    def _by_name(self) -> Mapping[str, FieldSchema]:
        return {entry.name.lower(): entry for entry in self.fields}

    @cached_property
    def _by_relationship(self) -> Mapping[str, FieldSchema]:
        return {entry.relationship_name.lower(): entry for entry in self.fields if entry.relationship_name}

    @cached_property
    def stored_fields(self) -> tuple[FieldSchema, ...]:
        """Fields that have a column in the object's table, in order."""
        return tuple(entry for entry in (*self.fields, *self.concealed) if entry.stored)

    def field(self, name: str) -> FieldSchema | None:
        """The field of that API name, whatever its case; None for one that is veiled."""
        return None if name.lower() in self.veiled else self._by_name.get(name.lower())

    def seen(self, *, unseen: frozenset[str], read_only: frozenset[str]) -> ObjectSchema:
        """The object as a user sees it who may not read some fields, nor change some others; names in lower case."""
        own = f"{self.name.lower()}."
        if not any(name.startswith(own) for name in unseen | read_only):
            return self
        fields = [entry for entry in self.fields if own + entry.name.lower() not in unseen]
        shown = tuple(
            replace(entry, createable=False, updateable=False) if own + entry.name.lower() in read_only else entry
            for entry in fields
        )
        return replace(self, fields=shown, concealed=tuple(entry for entry in self.fields if entry not in fields))

    def hidden_field(self, name: str) -> FieldSchema | None:
        """The field of that API name which nobody may see yet, whatever its case."""
        return next((entry for entry in self.hidden if entry.name.lower() == name.lower()), None)

    def relationship(self, name: str) -> FieldSchema | None:
        """The reference field whose relationship has that name (`Plane__r`, `Owner`), whatever its case."""
        found = self._by_relationship.get(name.lower())
        return None if found is None or found.name.lower() in self.veiled else found

    @property
    def visible_fields(self) -> tuple[FieldSchema, ...]:
        """The fields that are not veiled."""
        return tuple(entry for entry in self.fields if entry.name.lower() not in self.veiled)

    def sobject_json(self, *, api_version: str = "66.0") -> dict[str, Any]:
        """The object as one item of `GET /sobjects`."""
        base = f"/services/data/v{api_version}/sobjects/{self.name}"
        return {
            "activateable": False,
            "associateEntityType": None,
            "associateParentEntity": None,
            "createable": self.createable,
            "custom": self.custom,
            "customSetting": False,
            "deepCloneable": False,
            "deletable": self.deletable,
            "deprecatedAndHidden": False,
            "feedEnabled": False,
            "hasSubtypes": False,
            "isInterface": False,
            "isSubtype": False,
            "keyPrefix": self.key_prefix or None,
            "label": self.label,
            "labelPlural": self.label_plural,
            "layoutable": self.createable,
            "mergeable": False,
            "mruEnabled": self.createable,
            "name": self.name,
            "queryable": self.queryable,
            "replicateable": True,
            "retrieveable": True,
            "searchable": self.createable,
            "triggerable": self.createable,
            "undeletable": self.deletable,
            "updateable": self.updateable,
            "urls": {"rowTemplate": f"{base}/{{ID}}", "describe": f"{base}/describe", "sobject": base},
        }

    def describe_json(
        self,
        *,
        schema: Schema | None = None,
        record_type_ids: Mapping[str, str] | None = None,
        api_version: str = "66.0",
    ) -> dict[str, Any]:
        """The object's full describe document.

        Args:
            schema: The schema it belongs to; without it `childRelationships` is empty.
            record_type_ids: Ids of its record types by developer name; `TwinOrg.describe` fills them in.
            api_version: Version in the document's urls.
        """
        document = self.sobject_json(api_version=api_version)
        document.pop("mergeable")
        document |= {
            "actionOverrides": [],
            "childRelationships": schema.child_relationships_json(self.name) if schema is not None else [],
            "compactLayoutable": self.createable,
            "defaultImplementation": None,
            "extendedBy": None,
            "extendsInterfaces": None,
            "fields": [entry.describe_json() for entry in self.visible_fields],
            "implementedBy": None,
            "implementsInterfaces": None,
            "listviewable": None,
            "lookupLayoutable": None,
            "mergeable": False,
            "namedLayoutInfos": [],
            "networkScopeFieldName": None,
            "recordTypeInfos": self._record_types_json(record_type_ids or {}, api_version),
            "searchLayoutable": self.createable,
            "sobjectDescribeOption": "FULL",
            "supportedScopes": [
                {"label": f"All {self.label_plural.lower()}", "name": "everything"},
                {"label": f"My {self.label_plural.lower()}", "name": "mine"},
            ],
        }
        return dict(sorted(document.items()))

    def _record_types_json(self, ids: Mapping[str, str], api_version: str) -> list[dict[str, Any]]:
        master = RecordTypeSchema(
            name="Master", developer_name="Master", default=not any(entry.default for entry in self.record_types)
        )
        known = {"Master": MASTER_RECORD_TYPE_ID, **ids}
        return [
            {
                "active": entry.active,
                "available": entry.available,
                "defaultRecordTypeMapping": entry.default,
                "developerName": entry.developer_name,
                "master": entry is master,
                "name": entry.name,
                "recordTypeId": known[entry.developer_name],
                "urls": {
                    "layout": f"/services/data/v{api_version}/sobjects/{self.name}/describe/layouts/"
                    f"{known[entry.developer_name]}"
                },
            }
            for entry in (*self.record_types, master)
            if entry.developer_name in known
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSchema:
    """A user who can sign in. `permissions` are names such as `bulk_hard_delete`.

    Field-level security: `unseen_fields` and `read_only_fields` are `Object.Field`.
    """

    username: str
    name: str
    email: str
    active: bool = True
    permissions: tuple[str, ...] = ()
    unseen_fields: tuple[str, ...] = ()
    read_only_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OrgSchema:
    """Facts about the org. `id` None means that one is made from the seed when the org is made.

    `trial_expires` is a day (`2026-12-31`) on which a trial org ends; None for an org that is no trial.
    """

    name: str = "Twin"
    edition: str = "Developer Edition"
    sandbox: bool = True
    id: str | None = None
    instance: str = "TWIN1"
    namespace: str | None = None
    trial_expires: str | None = None

    @property
    def is_production(self) -> bool:
        """True for an "active org", which refuses to alter Apex other than by a deploy whose tests pass.

        Sandboxes, Developer Edition and trial orgs are not.
        """
        return not (self.sandbox or self.edition.startswith("Developer") or self.trial_expires)


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The whole schema: org, limits, users, objects (the standard ones among them) and automations as declared."""

    org: OrgSchema
    limits: Mapping[str, int] = field(default_factory=dict)
    users: tuple[UserSchema, ...]
    objects: tuple[ObjectSchema, ...]
    automations: Automations = NO_AUTOMATIONS

    @cached_property
    def _by_name(self) -> Mapping[str, ObjectSchema]:
        return {entry.name.lower(): entry for entry in self.objects}

    @cached_property
    def _by_prefix(self) -> Mapping[str, ObjectSchema]:
        return {entry.key_prefix: entry for entry in self.objects}

    def object(self, name: str) -> ObjectSchema | None:
        """The object of that API name, whatever its case."""
        return self._by_name.get(name.lower())

    def with_object(self, entry: ObjectSchema) -> Schema:
        """The same schema with one object replaced, or added."""
        known = self.object(entry.name) is not None
        kept = tuple(entry if old.name == entry.name else old for old in self.objects)
        return replace(self, objects=kept if known else (*kept, entry))

    def adopt(self, changed: Schema) -> None:
        """Take over the objects of a changed schema: the one way in which the schema of a running org changes.

        All parts of the org hold this one instance. Objects and fields themselves are immutable, so whoever holds one
        goes on with a consistent moment; the look-ups are made before they are put in place.
        """
        by_name, by_prefix = changed._by_name, changed._by_prefix
        _ = self._by_name, self._by_prefix  # made now, so that no other thread stores them after the change
        object.__setattr__(self, "objects", changed.objects)
        self.__dict__["_by_name"], self.__dict__["_by_prefix"] = by_name, by_prefix

    def restrict(self, user_ids: Mapping[str, str]) -> None:
        """Tell the Ids of the users, by username; from then on `seen_by` knows whose view is narrower."""
        self.__dict__["_restrictions"] = {
            user_ids[user.username]: tuple(
                frozenset(name.lower() for name in names) for names in (user.unseen_fields, user.read_only_fields)
            )
            for user in self.users
            if user.username in user_ids and (user.unseen_fields or user.read_only_fields)
        }

    def seen_by(self, user_id: str | None) -> Schema:
        """The schema as a user sees it: without fields that field-level security keeps from him."""
        limits = self.__dict__.get("_restrictions", {}).get(user_id)
        if limits is None:
            return self
        unseen, read_only = limits
        return replace(self, objects=tuple(entry.seen(unseen=unseen, read_only=read_only) for entry in self.objects))

    def object_of_id(self, record_id: str) -> ObjectSchema | None:
        """The object whose key prefix the Id begins with; prefixes are case-sensitive."""
        return self._by_prefix.get(record_id[:3])

    def children(self, name: str) -> list[tuple[ObjectSchema, FieldSchema]]:
        """All reference fields that can point at the object, with the objects that hold them."""
        wanted = name.lower()
        return [
            (child, entry)
            for child in self.objects
            for entry in child.fields
            if wanted in (target.lower() for target in entry.reference_to)
        ]

    def child_relationships_json(self, name: str) -> list[dict[str, Any]]:
        """The `childRelationships` of the object's describe document."""
        return [
            {
                "cascadeDelete": entry.cascade_delete,
                "childSObject": child.name,
                "deprecatedAndHidden": False,
                "field": entry.name,
                "junctionIdListNames": [],
                "junctionReferenceTo": [],
                "relationshipName": entry.child_relationship_name,
                "restrictedDelete": entry.restricted_delete,
            }
            for child, entry in self.children(name)
        ]

    def sobjects_json(self, *, api_version: str = "66.0") -> dict[str, Any]:
        """The document of `GET /sobjects`."""
        ordered = sorted(self.objects, key=lambda entry: entry.name)
        return {
            "encoding": "UTF-8",
            "maxBatchSize": 200,
            "sobjects": [entry.sobject_json(api_version=api_version) for entry in ordered],
        }

    def to_document(self) -> dict[str, Any]:
        """The schema as plain JSON, complete; `from_document` gives an equal schema back."""
        return {
            "org": asdict(self.org),
            "limits": dict(self.limits),
            "users": [asdict(user) for user in self.users],
            "objects": [
                {
                    **{name: getattr(entry, name) for name in _OBJECT_SCALARS},
                    "fields": [asdict(member) for member in entry.fields],
                    "hidden": [asdict(member) for member in entry.hidden],
                    "record_types": [asdict(record_type) for record_type in entry.record_types],
                }
                for entry in self.objects
            ],
            "automations": automations_json(self.automations),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Schema:
        """Rebuild a schema from `to_document`'s JSON."""
        return cls(
            org=OrgSchema(**document["org"]),
            limits=dict(document["limits"]),
            users=tuple(_user_from_document(user) for user in document["users"]),
            objects=tuple(_object_from_document(entry) for entry in document["objects"]),
            automations=read_automations(document.get("automations", {})),
        )


_OBJECT_SCALARS: Final = (
    "name",
    "label",
    "label_plural",
    "key_prefix",
    "custom",
    "createable",
    "updateable",
    "deletable",
    "queryable",
    "bulk_capable",
    "enable_history",
)


def _object_from_document(document: Mapping[str, Any]) -> ObjectSchema:
    return ObjectSchema(
        **{name: document[name] for name in _OBJECT_SCALARS if name in document},
        fields=tuple(_field_from_document(member) for member in document["fields"]),
        hidden=tuple(_field_from_document(member) for member in document.get("hidden", ())),
        record_types=tuple(_record_type_from_document(entry) for entry in document["record_types"]),
    )


def _record_type_from_document(document: Mapping[str, Any]) -> RecordTypeSchema:
    narrowed = tuple((name, tuple(allowed)) for name, allowed in document.get("picklist_values", ()))
    return RecordTypeSchema(**{**document, "picklist_values": narrowed})


def _field_from_document(document: Mapping[str, Any]) -> FieldSchema:
    return FieldSchema(
        **{
            **document,
            "reference_to": tuple(document["reference_to"]),
            "picklist_values": tuple(PicklistValue(**entry) for entry in document["picklist_values"]),
            "roll_up": RollUp(**document["roll_up"]) if document.get("roll_up") else None,
        }
    )


def _user_from_document(document: Mapping[str, Any]) -> UserSchema:
    lists = {name: tuple(document.get(name, ())) for name in ("permissions", "unseen_fields", "read_only_fields")}
    return UserSchema(**{**document, **lists})
