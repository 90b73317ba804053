"""What the plan's targets mean to the object's describe: plain fields, Id fields, lookups by a parent's key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from msgspec import Struct

from forcelift.plan.models import FieldRule, TablePlan
from forcelift.protocols.org import FieldDescribe, ObjectDescribe
from forcelift.rules.column import Column, Form
from forcelift.rules.findings import Place

_PATH = re.compile(r"^(?:(?P<type>\w+):)?(?P<relationship>\w+)\.(?P<key>\w+)$")

_FORMS: Mapping[str, Form] = {
    "string": Form.TEXT,
    "textarea": Form.TEXT,
    "email": Form.TEXT,
    "phone": Form.TEXT,
    "url": Form.TEXT,
    "picklist": Form.TEXT,
    "multipicklist": Form.TEXT,
    "combobox": Form.TEXT,
    "encryptedstring": Form.TEXT,
    "double": Form.NUMBER,
    "currency": Form.NUMBER,
    "percent": Form.NUMBER,
    "int": Form.NUMBER,
    "long": Form.NUMBER,
    "boolean": Form.BOOLEAN,
    "date": Form.DATE,
    "datetime": Form.DATETIME,
    "time": Form.TIME,
    "id": Form.ID,
    "reference": Form.ID,
}
# 32-bit integers have at most ten digits, 64-bit ones nineteen; describe gives `digits` for the shorter ones.
_INTEGER_DIGITS = {"int": 10, "long": 19}


class TargetProblem(Exception):
    """A target that the object cannot take; the text is for the plan's author."""


class LookupTarget(Struct, frozen=True, kw_only=True):
    """A parent found by key: `field` is the child's lookup field, `key_field` the parent's field it is compared by."""

    parent_object: str
    key_field: str
    field: str


class ParentField(Struct, frozen=True, kw_only=True):
    """The field that a lookup `Rel__r.Key__c` is compared by, as the parent object describes it."""

    name: str
    type: str = "string"
    scale: int = 0
    case_sensitive: bool = False
    id_lookup: bool = True

    @classmethod
    def of(cls, field: FieldDescribe) -> ParentField:
        """From the parent's describe."""
        return cls(
            name=field.name,
            type=field.type,
            scale=field.scale,
            case_sensitive=field.case_sensitive,
            id_lookup=field.id_lookup or field.external_id,
        )


class Target(Struct, frozen=True, kw_only=True):
    """A plan's target, found: `header` as the CSV names it."""

    header: str
    field: FieldDescribe
    lookup: LookupTarget | None = None


def find_target(text: str, describe: ObjectDescribe) -> Target:
    """The field or lookup that a plan names. Raises `TargetProblem`."""
    match = _PATH.match(text)
    if match is None:
        field = describe.fields.get(text)
        if field is None:
            raise TargetProblem(f"`{describe.name}` has no field `{text}`{nearest(text, describe.fields)}")
        return Target(header=field.name, field=field)
    return _find_lookup(text, match, describe)


def _find_lookup(text: str, match: re.Match[str], describe: ObjectDescribe) -> Target:
    field = describe.relationship(match["relationship"])
    if field is None:
        names = [other.relationship_name for other in describe.fields.values() if other.relationship_name]
        raise TargetProblem(
            f"`{describe.name}` has no relationship `{match['relationship']}`{nearest(match['relationship'], names)}"
        )
    wanted = match["type"]
    if len(field.reference_to) > 1:
        if wanted is None:
            raise TargetProblem(
                f"`{text}` may point to {', '.join(field.reference_to)}: write which, such as"
                f" `{field.reference_to[0]}:{text}`"
            )
        if wanted not in field.reference_to:
            raise TargetProblem(f"`{field.name}` does not point to `{wanted}`{nearest(wanted, field.reference_to)}")
    elif wanted is not None:
        raise TargetProblem(f"`{field.name}` points to one object only: write `{text.partition(':')[2]}`")
    if not field.reference_to:
        raise TargetProblem(f"`{field.name}` points to no object")
    parent = wanted or field.reference_to[0]
    lookup = LookupTarget(parent_object=parent, key_field=match["key"], field=field.name)
    return Target(header=text, field=field, lookup=lookup)


def lookup_targets(plan: TablePlan, describe: ObjectDescribe) -> dict[str, LookupTarget]:
    """Lookups by key, by column: whose parents must be described before `compile_table`. Broken ones are left out."""
    found: dict[str, LookupTarget] = {}
    for column, rule in plan.fields.items():
        try:
            target = find_target(rule.field, describe)
        except TargetProblem:
            continue
        if target.lookup is not None:
            found[column] = target.lookup
    return found


def form_of(field_type: str) -> Form | None:
    """The canonical form of a field type; None if Bulk API 2.0 cannot load it."""
    return _FORMS.get(field_type)


def scale_of(field_type: str, scale: int) -> int:
    """Digits after the point that a number field stores."""
    return 0 if field_type in _INTEGER_DIGITS else scale


def integer_digits_of(field: FieldDescribe) -> int | None:
    """Digits before the point that a number field takes; None where describe names no limit."""
    if field.type in _INTEGER_DIGITS:
        return field.digits or _INTEGER_DIGITS[field.type]
    return field.precision - field.scale if field.precision else None


def is_required(field: FieldDescribe) -> bool:
    """True if a record needs a value; a boolean always has one."""
    return field.required and field.type != "boolean"


def field_column(field: FieldDescribe, form: Form, rule: FieldRule, place: Place, *, zone: str | None) -> Column:
    """A column of values for this field, with what the field takes."""
    is_list = field.restricted_picklist and field.type in ("picklist", "multipicklist")
    return Column(
        name=place.column,
        place=place,
        rule=rule,
        form=form,
        scale=scale_of(field.type, field.scale) if form is Form.NUMBER else None,
        integer_digits=integer_digits_of(field) if form is Form.NUMBER else None,
        length=(field.length or None) if form is Form.TEXT else None,
        picklist=field.picklist_values if is_list else (),
        is_multi=field.type == "multipicklist",
        zone=zone,
        required=is_required(field),
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...` with the nearest known name, or nothing."""
    by_lower = {other.lower(): other for other in known}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=1)
    return f"; did you mean `{by_lower[found[0]]}`?" if found else ""
