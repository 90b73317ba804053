"""Objects and fields of the org: lookups that ignore case, and describe documents as Salesforce answers them.

Nothing is read or written here: `schema_file` reads YAML and describe documents into these classes, `standard` adds
what every org and every object has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Final

TEXT_TYPES: Final = frozenset(
    {"string", "textarea", "picklist", "multipicklist", "combobox", "email", "phone", "url", "encryptedstring"}
)
NUMBER_TYPES: Final = frozenset({"double", "currency", "percent"})
ID_TYPES: Final = frozenset({"id", "reference"})
STORED_TYPES: Final = TEXT_TYPES | NUMBER_TYPES | ID_TYPES | {"boolean", "int", "date", "datetime", "time"}
# Types that a real org's describe holds and that no loader writes: described, but without a column.
UNSTORED_TYPES: Final = frozenset(
    {"address", "location", "base64", "anyType", "complexvalue", "datacategorygroupreference", "long", "json"}
)
MASTER_RECORD_TYPE_ID: Final = "012000000000000AAA"

_SOAP_TYPES: Final = {
    "id": "tns:ID",
    "reference": "tns:ID",
    "boolean": "xsd:boolean",
    "int": "xsd:int",
    "double": "xsd:double",
    "currency": "xsd:double",
    "percent": "xsd:double",
    "date": "xsd:date",
    "datetime": "xsd:dateTime",
    "time": "xsd:time",
    "base64": "xsd:base64Binary",
    "address": "urn:address",
    "location": "urn:location",
    "anyType": "xsd:anyType",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PicklistValue:
    """One entry of a picklist. The API takes and gives `value`, people see `label`."""

    value: str
    label: str
    active: bool = True
    default: bool = False

    def describe_json(self) -> dict[str, Any]:
        return {
            "active": self.active,
            "defaultValue": self.default,
            "label": self.label,
            "validFor": None,
            "value": self.value,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSchema:
    """One field. Attributes are those of the describe call in Python's spelling.

    `display_format` is the pattern of an auto-number (`F-{000000}`), `default_value` the default on insert as text,
    bool or number. `relationship_order` 0 or 1 makes a reference a master-detail one.
    """

    name: str
    label: str
    type: str
    length: int = 0
    precision: int = 0
    scale: int = 0
    digits: int = 0
    nillable: bool = True
    createable: bool = True
    updateable: bool = True
    defaulted_on_create: bool = False
    default_value: str | bool | int | float | None = None
    external_id: bool = False
    id_lookup: bool = False
    unique: bool = False
    case_sensitive: bool = False
    reference_to: tuple[str, ...] = ()
    relationship_name: str | None = None
    relationship_order: int | None = None
    restricted_picklist: bool = False
    picklist_values: tuple[PicklistValue, ...] = ()
    calculated: bool = False
    calculated_formula: str | None = None
    auto_number: bool = False
    display_format: str | None = None
    cascade_delete: bool = False
    restricted_delete: bool = False
    write_requires_master_read: bool = False
    name_field: bool = False
    custom: bool = False
    html_formatted: bool = False
    extra_type_info: str | None = None
    compound_field_name: str | None = None
    inline_help_text: str | None = None
    child_relationship_name: str | None = None

    @property
    def stored(self) -> bool:
        """True if the object's table has a column for it."""
        return self.type in STORED_TYPES

    @property
    def required(self) -> bool:
        """True if an insert must give a value: createable, not nillable, no default made by the org."""
        return self.createable and not self.nillable and not self.defaulted_on_create

    @property
    def is_text(self) -> bool:
        return self.type in TEXT_TYPES

    @property
    def is_number(self) -> bool:
        """True for double, currency and percent; `int` is apart."""
        return self.type in NUMBER_TYPES

    @property
    def polymorphic(self) -> bool:
        return len(self.reference_to) > 1

    @property
    def master_detail(self) -> bool:
        return self.relationship_order is not None

    @property
    def active_values(self) -> tuple[str, ...]:
        return tuple(entry.value for entry in self.picklist_values if entry.active)

    @property
    def sql_type(self) -> str:
        """The DuckDB type of its column. Integer digits are `precision - scale`, so the column is never too narrow."""
        if self.type in NUMBER_TYPES:
            return f"DECIMAL({18 if self.precision <= 18 else 38},{self.scale})"
        special = {"boolean": "BOOLEAN", "int": "BIGINT", "date": "DATE", "datetime": "TIMESTAMP", "time": "TIME"}
        return special.get(self.type, "VARCHAR")

    def describe_json(self) -> dict[str, Any]:
        """The field as in a describe document: all attributes of API version 52."""
        long_text = self.type == "textarea" and self.length > 255
        filterable = self.stored and not long_text and self.type != "encryptedstring"
        system = not self.createable and not self.updateable and not self.calculated
        return {
            "aggregatable": filterable and self.type not in ("boolean", "multipicklist"),
            "aiPredictionField": False,
            "autoNumber": self.auto_number,
            "byteLength": 18 if self.type in ID_TYPES else self.length * 3,
            "calculated": self.calculated,
            "calculatedFormula": self.calculated_formula,
            "cascadeDelete": self.cascade_delete,
            "caseSensitive": self.case_sensitive,
            "compoundFieldName": self.compound_field_name,
            "controllerName": None,
            "createable": self.createable,
            "custom": self.custom,
            "defaultValue": self.default_value,
            "defaultValueFormula": None,
            "defaultedOnCreate": self.defaulted_on_create,
            "dependentPicklist": False,
            "deprecatedAndHidden": False,
            "digits": self.digits,
            "displayLocationInDecimal": False,
            "encrypted": self.type == "encryptedstring",
            "externalId": self.external_id,
            "extraTypeInfo": self.extra_type_info,
            "filterable": filterable,
            "filteredLookupInfo": None,
            "formulaTreatNullNumberAsZero": False,
            "groupable": filterable and not self.is_number and self.type not in ("datetime", "time", "multipicklist"),
            "highScaleNumber": False,
            "htmlFormatted": self.html_formatted,
            "idLookup": self.id_lookup,
            "inlineHelpText": self.inline_help_text,
            "label": self.label,
            "length": self.length,
            "mask": None,
            "maskType": None,
            "name": self.name,
            "nameField": self.name_field,
            "namePointing": self.polymorphic,
            "nillable": self.nillable,
            "permissionable": self.custom and self.nillable and not system and not self.master_detail,
            "picklistValues": [entry.describe_json() for entry in self.picklist_values],
            "polymorphicForeignKey": self.polymorphic,
            "precision": self.precision,
            "queryByDistance": False,
            "referenceTargetField": None,
            "referenceTo": list(self.reference_to),
            "relationshipName": self.relationship_name,
            "relationshipOrder": self.relationship_order,
            "restrictedDelete": self.restricted_delete,
            "restrictedPicklist": self.restricted_picklist,
            "scale": self.scale,
            "searchPrefilterable": self.type == "reference",
            "soapType": _SOAP_TYPES.get(self.type, "xsd:string"),
            "sortable": filterable and self.type != "multipicklist",
            "type": self.type,
            "unique": self.unique,
            "updateable": self.updateable,
            "writeRequiresMasterRead": self.write_requires_master_read,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordTypeSchema:
    """A record type of an object. Its Id is made when the org is made."""

    name: str
    developer_name: str
    active: bool = True
    available: bool = True
    default: bool = False


@dataclass(frozen=True, kw_only=True)
class ObjectSchema:
    """One object. `fields` keeps the order of the describe document; look fields up with `field(name)`."""

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
    record_types: tuple[RecordTypeSchema, ...] = ()

    @cached_property
    def _by_name(self) -> Mapping[str, FieldSchema]:
        return {entry.name.lower(): entry for entry in self.fields}

    @cached_property
    def _by_relationship(self) -> Mapping[str, FieldSchema]:
        return {entry.relationship_name.lower(): entry for entry in self.fields if entry.relationship_name}

    @cached_property
    def stored_fields(self) -> tuple[FieldSchema, ...]:
        """Fields that have a column in the object's table, in order."""
        return tuple(entry for entry in self.fields if entry.stored)

    def field(self, name: str) -> FieldSchema | None:
        """The field of that API name, whatever its case."""
        return self._by_name.get(name.lower())

    def relationship(self, name: str) -> FieldSchema | None:
        """The reference field whose relationship has that name (`Plane__r`, `Owner`), whatever its case."""
        return self._by_relationship.get(name.lower())

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
            "keyPrefix": self.key_prefix,
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
            "fields": [entry.describe_json() for entry in self.fields],
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
    """A user who can sign in. `permissions` are names such as `bulk_hard_delete`."""

    username: str
    name: str
    email: str
    active: bool = True
    permissions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OrgSchema:
    """Facts about the org. `id` None means that one is made from the seed when the org is made."""

    name: str = "Twin"
    edition: str = "Developer Edition"
    sandbox: bool = True
    id: str | None = None
    instance: str = "TWIN1"
    namespace: str | None = None


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The whole schema: org, limits, users and objects (the standard ones among them)."""

    org: OrgSchema
    limits: Mapping[str, int] = field(default_factory=dict)
    users: tuple[UserSchema, ...]
    objects: tuple[ObjectSchema, ...]

    @cached_property
    def _by_name(self) -> Mapping[str, ObjectSchema]:
        return {entry.name.lower(): entry for entry in self.objects}

    @cached_property
    def _by_prefix(self) -> Mapping[str, ObjectSchema]:
        return {entry.key_prefix: entry for entry in self.objects}

    def object(self, name: str) -> ObjectSchema | None:
        """The object of that API name, whatever its case."""
        return self._by_name.get(name.lower())

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
                    "record_types": [asdict(record_type) for record_type in entry.record_types],
                }
                for entry in self.objects
            ],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Schema:
        """Rebuild a schema from `to_document`'s JSON."""
        return cls(
            org=OrgSchema(**document["org"]),
            limits=dict(document["limits"]),
            users=tuple(
                UserSchema(**{**user, "permissions": tuple(user["permissions"])}) for user in document["users"]
            ),
            objects=tuple(_object_from_document(entry) for entry in document["objects"]),
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
)


def _object_from_document(document: Mapping[str, Any]) -> ObjectSchema:
    return ObjectSchema(
        **{name: document[name] for name in _OBJECT_SCALARS},
        fields=tuple(
            FieldSchema(
                **{
                    **member,
                    "reference_to": tuple(member["reference_to"]),
                    "picklist_values": tuple(PicklistValue(**entry) for entry in member["picklist_values"]),
                }
            )
            for member in document["fields"]
        ),
        record_types=tuple(RecordTypeSchema(**entry) for entry in document["record_types"]),
    )
