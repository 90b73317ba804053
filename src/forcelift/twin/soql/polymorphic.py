"""Lookups with several targets: the object `Name`, which shows what all targets have in common.

Source: Salesforce SOQL and SOSL Reference, "Understanding Relationship Fields and Polymorphic Fields": without TYPEOF
only fields of `Name` can be reached through such a lookup, `Type` among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from forcelift.twin.soql.views import FieldView, ObjectView, ValueView, quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class NameField:
    """A field of `Name`, as a query sees it."""

    name: str
    type: str = "string"
    length: int = 255
    precision: int = 0
    scale: int = 0
    reference_to: Sequence[str] = ()
    relationship_name: str | None = None
    case_sensitive: bool = False
    custom: bool = False
    stored: bool = True
    child_relationship_name: str | None = None
    name_field: bool = False
    picklist_values: Sequence[ValueView] = ()

    def computed_sql(self, row: str) -> str | None:
        return None


_FIELDS: Final = (
    NameField(name="Id", type="id", length=18),
    NameField(name="Name", name_field=True),
    NameField(name="Type", type="picklist", length=40),
    *(NameField(name=name) for name in ("Alias", "Email", "FirstName", "LastName", "Phone", "Title", "Username")),
    NameField(name="IsActive", type="boolean", length=0),
    *(NameField(name=name, type="id", length=18) for name in ("ProfileId", "RecordTypeId", "UserRoleId")),
)
_BY_NAME: Final = {field.name.lower(): field for field in _FIELDS}


class NamePointing:
    """The object at the other end of a lookup with several targets.

    Args:
        targets: The objects that the lookup can point at, as far as the org has them.
    """

    name = "Name"
    queryable = True
    bulk_capable = True
    fields: Sequence[FieldView] = _FIELDS

    def __init__(self, targets: Sequence[ObjectView]) -> None:
        self._targets = targets

    def field(self, name: str) -> FieldView | None:
        return _BY_NAME.get(name.lower())

    def relationship(self, name: str) -> FieldView | None:
        """None: a path ends here."""
        return None

    def source_sql(self) -> str:
        """The rows of all targets under the columns of `Name`, for a FROM clause."""
        selects = []
        for target in self._targets:
            columns = ", ".join(f"{_column(target, field)} AS {quoted(field.name)}" for field in _FIELDS)
            selects.append(f"SELECT {columns} FROM data.{quoted(target.name)}")
        return f"({' UNION ALL '.join(selects)})"


def _column(target: ObjectView, field: NameField) -> str:
    if field.name == "Type":
        return "'" + target.name.replace("'", "''") + "'"
    found: FieldView | None = target.field(field.name)
    if field.name_field:
        found = next((own for own in target.fields if own.name_field and own.stored), found)
    if found is not None and found.stored:
        return quoted(found.name)
    return "CAST(NULL AS BOOLEAN)" if field.type == "boolean" else "CAST(NULL AS VARCHAR)"
