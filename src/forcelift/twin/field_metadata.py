"""The `CustomField` of the Metadata API, to the twin's fields and back.

Source: Metadata API guide, "CustomField"; limits in sections 6.3 and 7 of the API reference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from forcelift.twin.errors import ApiError
from forcelift.twin.schema import FieldSchema, PicklistValue

DESCRIBE_TYPES: Final = {
    "Text": "string",
    "TextArea": "textarea",
    "LongTextArea": "textarea",
    "Html": "textarea",
    "Number": "double",
    "Currency": "currency",
    "Percent": "percent",
    "Checkbox": "boolean",
    "Date": "date",
    "DateTime": "datetime",
    "Time": "time",
    "Email": "email",
    "Phone": "phone",
    "Url": "url",
    "Picklist": "picklist",
    "MultiselectPicklist": "multipicklist",
    "Lookup": "reference",
}
EXTERNAL_ID_TYPES: Final = ("Text", "Number", "Email")
EXTERNAL_IDS_MAX: Final = 25
TRACKED_FIELDS_MAX: Final = 20
_FIXED_LENGTHS: Final = {"TextArea": 255, "Email": 80, "Phone": 40, "Url": 255, "Picklist": 255, "Lookup": 18}
_LENGTHS: Final = {"Text": (1, 255), "LongTextArea": (256, 131_072), "Html": (256, 131_072)}
_API_NAME: Final = re.compile(r"[A-Za-z](?:_?[A-Za-z0-9])*__c\Z")


class _Camel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class _Value(_Camel):
    full_name: str = Field(min_length=1, max_length=255)
    default: bool = False
    is_active: bool | None = None
    label: str | None = None


class _Definition(_Camel):
    sorted: bool = False
    value: tuple[_Value, ...] = ()


class _ValueSet(_Camel):
    restricted: bool = False
    value_set_definition: _Definition


class FieldMetadata(_Camel):
    """The `Metadata` of a custom field, as JSON of the Tooling API or XML of the Metadata API has it."""

    type: str
    label: str = Field(min_length=1, max_length=40)
    length: int | None = None
    precision: int | None = None
    scale: int | None = None
    external_id: bool | None = None
    unique: bool | None = None
    case_sensitive: bool | None = None
    required: bool | None = None
    default_value: str | bool | None = None
    description: str | None = Field(None, max_length=1000)
    inline_help_text: str | None = Field(None, max_length=510)
    visible_lines: int | None = None
    reference_to: str | None = None
    relationship_name: str | None = None
    relationship_label: str | None = None
    delete_constraint: Literal["SetNull", "Restrict", "Cascade"] | None = None
    value_set: _ValueSet | None = None
    track_history: bool | None = None
    track_trending: bool | None = None
    track_feed_history: bool | None = None
    security_classification: str | None = None
    display_format: str | None = None


def read_field(name: str, metadata: Mapping[str, Any]) -> FieldSchema:
    """A field from its Metadata.

    Args:
        name: API name without the object.
        metadata: The members; text stands for numbers and booleans as well, as XML has it.
    Raises:
        ApiError: 400 with the first thing that Salesforce would refuse, or that the twin cannot make.
    """
    try:
        read = FieldMetadata.model_validate(metadata)
    except ValidationError as error:
        item = error.errors()[0]
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] == "missing":
            raise ApiError(400, "REQUIRED_FIELD_MISSING", f"Required field is missing: {place}", [place]) from error
        raise ApiError(400, "INVALID_FIELD", f"CustomField: {place}: {item['msg']}", [place]) from error
    _check(name, read)
    kind = DESCRIBE_TYPES[read.type]
    values = () if read.value_set is None else read.value_set.value_set_definition.value
    is_number = kind in ("double", "currency", "percent")
    default = str(read.default_value).lower() == "true" if kind == "boolean" else None
    return FieldSchema(
        name=name,
        label=read.label,
        type=kind,
        length=_length(read),
        precision=(read.precision or 18) if is_number else 0,
        scale=(read.scale or 0) if is_number else 0,
        nillable=not (bool(read.required) or kind == "boolean"),
        defaulted_on_create=kind == "boolean" or any(value.default for value in values),
        default_value=default if kind == "boolean" else next((v.full_name for v in values if v.default), None),
        external_id=bool(read.external_id),
        id_lookup=bool(read.external_id),
        unique=bool(read.unique),
        case_sensitive=bool(read.case_sensitive),
        track_history=bool(read.track_history),
        reference_to=(read.reference_to,) if read.reference_to else (),
        relationship_name=f"{name[:-3]}__r" if kind == "reference" else None,
        child_relationship_name=f"{read.relationship_name}__r" if read.relationship_name else None,
        restricted_delete=read.delete_constraint == "Restrict",
        cascade_delete=read.delete_constraint == "Cascade",
        restricted_picklist=read.value_set is not None and read.value_set.restricted,
        picklist_values=tuple(
            PicklistValue(
                value=value.full_name,
                label=value.label or value.full_name,
                active=value.is_active is not False,
                default=value.default,
            )
            for value in values
        ),
        custom=True,
        html_formatted=read.type == "Html",
        extra_type_info={"LongTextArea": "plaintextarea", "Html": "richtextarea"}.get(read.type),
        inline_help_text=read.inline_help_text,
    )


def changed_history(field: FieldSchema, metadata: object) -> FieldSchema:
    """The field after a PATCH of its whole `Metadata`: what is left out would be emptied, as in Salesforce.

    Raises:
        ApiError: 400 if anything but `trackHistory` would change, which the twin does not do, or it cannot be tracked.
    """
    if not isinstance(metadata, Mapping):
        raise ApiError(400, "REQUIRED_FIELD_MISSING", "Required field is missing: Metadata", ["Metadata"])
    present = field_metadata(field)
    names = sorted({*present, *metadata} - {"trackHistory"})
    if other := [name for name in names if (metadata.get(name) or None) != (present.get(name) or None)]:
        text = f"the twin changes nothing of a custom field but trackHistory, and this changes: {', '.join(other)}"
        raise ApiError(400, "FUNCTIONALITY_NOT_ENABLED", text, other)
    wanted = metadata.get("trackHistory")
    if not isinstance(wanted, bool | None):
        raise ApiError(400, "INVALID_FIELD", "CustomField: trackHistory: not a boolean", ["trackHistory"])
    if wanted and (field.calculated or field.auto_number):
        raise _refused("history of a formula, roll-up or auto number cannot be tracked", "trackHistory")
    return replace(field, track_history=bool(wanted))


def _length(read: FieldMetadata) -> int:
    if read.type in _LENGTHS:
        return read.length or 0
    if read.type == "MultiselectPicklist":
        return 4099
    return _FIXED_LENGTHS.get(read.type, 0)


def _check(name: str, read: FieldMetadata) -> None:
    if not _API_NAME.match(name) or len(name) > 43:
        message = "The field name can only contain alphanumeric characters, must begin with a letter and end with __c"
        raise ApiError(400, "INVALID_FIELD", f"{message}: {name}", ["FullName"])
    if read.type not in DESCRIBE_TYPES:
        raise _refused(
            f"the type {read.type} cannot be made by a call in a twin; declare it in the schema file", "type"
        )
    if read.type in _LENGTHS:
        low, high = _LENGTHS[read.type]
        if read.length is None or not low <= read.length <= high:
            raise _refused(f"length must be between {low} and {high}", "length")
    if read.type in ("Number", "Currency", "Percent"):
        precision, scale = read.precision, read.scale
        if precision is None or scale is None or not 1 <= precision <= 18 or not 0 <= scale <= precision:
            raise _refused("precision (1 to 18, scale included) and scale are needed", "precision")
    if read.type in ("LongTextArea", "Html", "MultiselectPicklist") and read.visible_lines is None:
        raise _refused("visibleLines must be specified for this type", "visibleLines")
    if read.external_id and read.type not in EXTERNAL_ID_TYPES:
        raise _refused(f"a {read.type} field cannot be an external ID", "externalId")
    if read.unique and read.type not in EXTERNAL_ID_TYPES:
        raise _refused(f"a {read.type} field cannot be unique", "unique")
    if read.case_sensitive and not (read.unique and read.type == "Text"):
        raise _refused("caseSensitive needs a unique Text field", "caseSensitive")
    if read.type == "Checkbox" and str(read.default_value).lower() not in ("true", "false"):
        raise _refused("defaultValue must be specified for a Checkbox", "defaultValue")
    if (read.type == "Lookup") != bool(read.reference_to):
        raise _refused("referenceTo belongs to a Lookup, which needs it", "referenceTo")
    if (read.type in ("Picklist", "MultiselectPicklist")) != (read.value_set is not None):
        raise _refused("valueSet belongs to a picklist, which needs it", "valueSet")


def _refused(message: str, member: str) -> ApiError:
    return ApiError(400, "FIELD_INTEGRITY_EXCEPTION", f"{message[0].upper()}{message[1:]}", [member])


def field_type(field: FieldSchema) -> str:
    """The type's name in the Metadata API; for a formula the type of its result."""
    if field.auto_number:
        return "AutoNumber"
    if field.master_detail:
        return "MasterDetail"
    if field.type == "textarea":
        long_type = "Html" if field.html_formatted else "LongTextArea"
        return "TextArea" if field.length <= 255 else long_type
    special = {"int": "Number", "encryptedstring": "EncryptedText", "location": "Location", "string": "Text"}
    names = {kind: name for name, kind in DESCRIBE_TYPES.items() if kind not in ("string", "textarea")}
    return special.get(field.type) or names.get(field.type, field.type)


def field_metadata(field: FieldSchema) -> dict[str, Any]:
    """The `Metadata` of a field, with null for what its type does not have."""
    kind = field_type(field)
    return {
        "type": kind,
        "label": field.label,
        "length": field.length if kind in ("Text", "LongTextArea", "Html", "EncryptedText") else None,
        "precision": (field.precision or field.digits) if field.is_number or field.type == "int" else None,
        "scale": field.scale if field.is_number or field.type == "int" else None,
        "externalId": field.external_id,
        "unique": field.unique if kind in EXTERNAL_ID_TYPES else None,
        "caseSensitive": field.case_sensitive if kind == "Text" else None,
        "required": field.required if kind != "Checkbox" else None,
        "defaultValue": str(bool(field.default_value)).lower() if kind == "Checkbox" else None,
        "inlineHelpText": field.inline_help_text,
        "visibleLines": 3 if kind in ("LongTextArea", "Html", "MultiselectPicklist") else None,
        "referenceTo": field.reference_to[0] if field.reference_to else None,
        "relationshipName": (field.child_relationship_name or "").removesuffix("__r") or None,
        "deleteConstraint": _delete_constraint(field) if kind == "Lookup" else None,
        "formula": field.calculated_formula,
        "displayFormat": field.display_format,
        "trackHistory": field.track_history,
        "valueSet": _value_set(field),
    }


def _delete_constraint(field: FieldSchema) -> str:
    if field.restricted_delete:
        return "Restrict"
    return "Cascade" if field.cascade_delete else "SetNull"


def _value_set(field: FieldSchema) -> dict[str, Any] | None:
    if field.type not in ("picklist", "multipicklist"):
        return None
    values = [
        {"fullName": entry.value, "default": entry.default, "isActive": entry.active, "label": entry.label}
        for entry in field.picklist_values
    ]
    return {"restricted": field.restricted_picklist, "valueSetDefinition": {"sorted": False, "value": values}}
