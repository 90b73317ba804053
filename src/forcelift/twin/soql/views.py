"""What a query needs to know of a schema, and what an expression of it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

# A text area longer than this is a long text area: neither filterable nor sortable.
SHORT_TEXT_MAX = 255


class ValueView(Protocol):
    """An entry of a picklist."""

    @property
    def value(self) -> str: ...
    @property
    def label(self) -> str: ...


class FieldView(Protocol):
    """What a query needs to know of a field."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def length(self) -> int: ...
    @property
    def precision(self) -> int: ...
    @property
    def scale(self) -> int: ...
    @property
    def reference_to(self) -> Sequence[str]: ...
    @property
    def relationship_name(self) -> str | None: ...
    @property
    def case_sensitive(self) -> bool: ...
    @property
    def custom(self) -> bool: ...
    @property
    def stored(self) -> bool: ...
    @property
    def child_relationship_name(self) -> str | None: ...
    @property
    def name_field(self) -> bool: ...
    @property
    def picklist_values(self) -> Sequence[ValueView]: ...
    def computed_sql(self, row: str) -> str | None: ...


class ObjectView(Protocol):
    """What a query needs to know of an object."""

    @property
    def name(self) -> str: ...
    @property
    def queryable(self) -> bool: ...
    @property
    def bulk_capable(self) -> bool: ...
    @property
    def fields(self) -> Sequence[FieldView]: ...
    def field(self, name: str) -> FieldView | None: ...
    def relationship(self, name: str) -> FieldView | None: ...


class SchemaView(Protocol):
    """Looks objects up by name, in any case."""

    def object(self, name: str) -> ObjectView | None: ...
    def children(self, name: str) -> Sequence[tuple[ObjectView, FieldView]]: ...


class Category(Enum):
    """How a type is stored, compared and written."""

    TEXT = "string"
    ID = "id"
    BOOLEAN = "boolean"
    INT = "int"
    NUMBER = "double"
    DATE = "date"
    DATETIME = "dateTime"
    TIME = "time"
    COMPOUND = "compound"


_CATEGORIES = {
    "id": Category.ID,
    "reference": Category.ID,
    "boolean": Category.BOOLEAN,
    "int": Category.INT,
    "long": Category.INT,
    "double": Category.NUMBER,
    "currency": Category.NUMBER,
    "percent": Category.NUMBER,
    "date": Category.DATE,
    "datetime": Category.DATETIME,
    "time": Category.TIME,
    "address": Category.COMPOUND,
    "location": Category.COMPOUND,
    "complexvalue": Category.COMPOUND,
}
_UNGROUPABLE_TYPES = frozenset(
    {"double", "currency", "percent", "datetime", "time", "textarea", "multipicklist", "base64", "encryptedstring"}
    | {"address", "location", "anyType", "complexvalue"}
)
_UNFILTERABLE_TYPES = frozenset({"base64", "encryptedstring", "address", "location", "complexvalue"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """A resolved expression.

    Attributes:
        sql: DuckDB expression.
        name: What the user wrote, in the schema's spelling; for messages and keys.
        keys: JSON keys from the record down to the value, or the CSV header's parts.
        is_exact: Numbers only: stored as DECIMAL(18, scale), not computed.
        type: The field's type as described; empty for functions.
        labels: Picklists only: each value with its label, in the order of the list.
    """

    sql: str
    category: Category
    name: str
    keys: tuple[str, ...]
    position: int
    is_aggregate: bool = False
    is_filterable: bool = True
    is_groupable: bool = True
    is_sortable: bool = True
    case_sensitive: bool = False
    is_multi: bool = False
    is_exact: bool = False
    scale: int = 0
    type: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    is_long_text: bool = False


def quoted(name: str) -> str:
    """An identifier for DuckDB."""
    return '"' + name.replace('"', '""') + '"'


def category_of(field_type: str) -> Category:
    return _CATEGORIES.get(field_type, Category.TEXT)


def field_operand(field: FieldView, table: str, keys: tuple[str, ...], position: int) -> Operand:
    category = category_of(field.type)
    is_long = field.type == "textarea" and field.length > SHORT_TEXT_MAX
    filterable = field.stored and field.type not in _UNFILTERABLE_TYPES and not is_long
    return Operand(
        # Types that no loader writes have no column: the org holds nothing in them.
        sql=field.computed_sql(table) or (f"{table}.{quoted(field.name)}" if field.stored else "CAST(NULL AS VARCHAR)"),
        category=category,
        name=".".join(keys),
        keys=keys,
        position=position,
        is_filterable=filterable,
        is_sortable=filterable and field.type != "multipicklist",
        is_groupable=filterable and field.type not in _UNGROUPABLE_TYPES,
        case_sensitive=field.case_sensitive,
        is_multi=field.type == "multipicklist",
        is_exact=category is Category.NUMBER and field.precision <= 18,
        scale=field.scale,
        type=field.type,
        is_long_text=is_long,
        labels=tuple((entry.value, entry.label) for entry in field.picklist_values),
    )
