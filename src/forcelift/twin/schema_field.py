"""One field of an object, as declared and as the describe call shows it."""

from __future__ import annotations

from dataclasses import dataclass
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
class RollUp:
    """What a roll-up summary field tells of the details: `function` of their field `of`; COUNT needs none.

    `lookup` is the details' master-detail field. Details in the recycle bin do not count.
    """

    child: str
    lookup: str
    function: str
    of: str | None = None

    def sql(self, row: str, sql_type: str) -> str:
        """The value for the master that `row` names, computed anew from its details."""
        return (
            f'(SELECT {self.aggregate(sql_type)} FROM data."{self.child}" x '
            f'WHERE x."{self.lookup}" = {row}."Id" AND NOT x."IsDeleted")'
        )

    def aggregate(self, sql_type: str, *, counted: str = "true") -> str:
        """The value for a group of details `x`, of those that count. Sum and count of none are 0."""
        name = "*" if self.of is None else f'x."{self.of}"'
        computed = f"{self.function.lower()}({name}) FILTER (WHERE {counted})"
        if self.function == "SUM":
            computed = f"coalesce({computed}, 0)"
        return f"TRY_CAST({computed} AS {sql_type})"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSchema:
    """One field. Attributes are those of the describe call in Python's spelling.

    `made_by_call` marks a field that is not of the schema file.
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
    track_history: bool = False  # setup shows it; the twin keeps no history
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
    made_by_call: bool = False
    roll_up: RollUp | None = None

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

    def computed_sql(self, row: str) -> str | None:
        """SQL of the value in a row of the object's table, for a field that is computed when it is read."""
        return None if self.roll_up is None else self.roll_up.sql(row, self.sql_type)

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
