"""Names to columns: which object, field or function a query means, and the DuckDB expression for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import Protocol

from forcelift.twin.soql.ast import Call, Expression, Path
from forcelift.twin.soql.errors import located, malformed, unknown_column, unknown_object, unknown_relationship

PARENT_LEVELS_MAX = 5
# A text area longer than this is a long text area: neither filterable nor sortable.
SHORT_TEXT_MAX = 255


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


def quoted(name: str) -> str:
    """An identifier for DuckDB."""
    return '"' + name.replace('"', '""') + '"'


def category_of(field_type: str) -> Category:
    return _CATEGORIES.get(field_type, Category.TEXT)


class Scope:
    """The objects one SELECT reads: its own, and the parents its paths reach, each joined once."""

    def __init__(
        self, text: str, schema: SchemaView, entity: ObjectView, alias: str | None, numbers: Iterable[int] | None = None
    ) -> None:
        self.text = text
        self.schema = schema
        self.entity = entity
        self.numbers = iter(numbers if numbers is not None else count())
        self.table = self._next_table()
        self._prefixes = {entity.name.lower()} | ({alias.lower()} if alias else set())
        self._joined: dict[tuple[str, ...], tuple[str, ObjectView]] = {(): (self.table, entity)}
        self._joins: list[str] = []

    def _next_table(self) -> str:
        return f"t{next(self.numbers)}"

    def from_sql(self) -> str:
        """The FROM clause. Call it after everything else has been resolved."""
        return " ".join([f"FROM data.{quoted(self.entity.name)} AS {self.table}", *self._joins])

    def parents(self) -> dict[tuple[str, ...], tuple[str, ObjectView]]:
        """The joined tables by relationship path."""
        return dict(self._joined)

    def field(self, path: Path) -> Operand:
        """A field of the object or of a parent.

        Raises:
            SoqlError: INVALID_FIELD for a field or relationship that does not exist.
        """
        parts = path.parts
        if len(parts) > 1 and parts[0].lower() in self._prefixes and self.entity.relationship(parts[0]) is None:
            parts = parts[1:]
        if len(parts) - 1 > PARENT_LEVELS_MAX:
            raise malformed(
                self.text, path.position, f"a field path may go through at most {PARENT_LEVELS_MAX} relationships"
            )
        table, entity = self.table, self.entity
        keys: tuple[str, ...] = ()
        for name in parts[:-1]:
            table, entity, keys = self._parent(entity, table, keys, name, path.position)
        field = entity.field(parts[-1])
        if field is None:
            raise unknown_column(self.text, path.position, parts[-1], entity.name)
        return field_operand(field, table, (*keys, field.name), path.position)

    def _parent(
        self, entity: ObjectView, table: str, keys: tuple[str, ...], name: str, position: int
    ) -> tuple[str, ObjectView, tuple[str, ...]]:
        lookup = entity.relationship(name)
        parent = next(filter(None, map(self.schema.object, lookup.reference_to)), None) if lookup else None
        if lookup is None or lookup.relationship_name is None or parent is None:
            raise unknown_relationship(self.text, position, name)
        keys = (*keys, lookup.relationship_name)
        if keys not in self._joined:
            alias = self._next_table()
            self._joins.append(
                f'LEFT JOIN data.{quoted(parent.name)} AS {alias} ON {table}.{quoted(lookup.name)} = {alias}."Id"'
            )
            self._joined[keys] = (alias, parent)
        alias, parent = self._joined[keys]
        return alias, parent, keys

    def operand(self, expression: Expression, *, aggregates: bool = False) -> Operand:
        """A field or a function of one. Aggregates only where the caller allows them."""
        if isinstance(expression, Path):
            return self.field(expression)
        name = expression.name.upper()
        if name in _AGGREGATES:
            if not aggregates:
                raise malformed(self.text, expression.position, f"unexpected token: '{expression.name}'")
            return self._aggregate(expression, name)
        if name in _TRANSPARENT:
            return self.operand(self._argument(expression))
        if name in _DATE_PARTS:
            return self._date_part(expression, name)
        raise malformed(self.text, expression.position, f"unexpected token: '{expression.name}'")

    def _argument(self, call: Call) -> Expression:
        if len(call.arguments) != 1:
            raise malformed(self.text, call.position, f"function {call.name} expects one field")
        return call.arguments[0]

    def _date_part(self, call: Call, name: str) -> Operand:
        inner = self.operand(self._argument(call))
        allowed = (Category.DATETIME,) if name in ("DAY_ONLY", "HOUR_IN_DAY") else (Category.DATE, Category.DATETIME)
        if inner.category not in allowed:
            raise malformed(
                self.text, call.position, f"function {name} does not support the type of field {inner.name}"
            )
        return Operand(
            sql=_DATE_PARTS[name].format(inner.sql),
            category=Category.DATE if name == "DAY_ONLY" else Category.INT,
            name=f"{name}({inner.name})",
            keys=inner.keys,
            position=call.position,
        )

    def _aggregate(self, call: Call, name: str) -> Operand:
        if name == "COUNT" and not call.arguments:
            return Operand(
                sql="count(*)",
                category=Category.INT,
                name="COUNT()",
                keys=(),
                position=call.position,
                is_aggregate=True,
            )
        inner = self.operand(self._argument(call))
        if inner.category not in _AGGREGATES[name] or not inner.is_filterable:
            raise malformed(self.text, call.position, f"field {inner.name} does not support aggregate operator {name}")
        return Operand(
            sql=_aggregate_sql(name, inner),
            category=_aggregate_category(name, inner.category),
            name=f"{name}({inner.name})",
            keys=inner.keys,
            position=call.position,
            is_aggregate=True,
            case_sensitive=inner.case_sensitive,
        )


def field_operand(field: FieldView, table: str, keys: tuple[str, ...], position: int) -> Operand:
    category = category_of(field.type)
    is_long = field.type == "textarea" and field.length > SHORT_TEXT_MAX
    filterable = field.stored and field.type not in _UNFILTERABLE_TYPES and not is_long
    return Operand(
        # Types that no loader writes have no column: the org holds nothing in them.
        sql=f"{table}.{quoted(field.name)}" if field.stored else "CAST(NULL AS VARCHAR)",
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
    )


_NUMERIC = (Category.INT, Category.NUMBER)
_ORDERED = (*_NUMERIC, Category.TEXT, Category.ID, Category.DATE, Category.DATETIME, Category.TIME)
_AGGREGATES = {
    "COUNT": (*_ORDERED, Category.BOOLEAN),
    "COUNT_DISTINCT": (*_ORDERED, Category.BOOLEAN),
    "SUM": _NUMERIC,
    "AVG": _NUMERIC,
    "MIN": _ORDERED,
    "MAX": _ORDERED,
}
# Labels equal values, currencies and time zones are one, in this org.
_TRANSPARENT = frozenset({"TOLABEL", "CONVERTCURRENCY", "CONVERTTIMEZONE"})
# Weeks begin on Sunday; week 1 of a month or year is its first seven days; the fiscal year is the calendar year.
_DATE_PARTS = {
    "CALENDAR_YEAR": "year({0})",
    "CALENDAR_QUARTER": "quarter({0})",
    "CALENDAR_MONTH": "month({0})",
    "FISCAL_YEAR": "year({0})",
    "FISCAL_QUARTER": "quarter({0})",
    "FISCAL_MONTH": "month({0})",
    "DAY_IN_YEAR": "dayofyear({0})",
    "DAY_IN_MONTH": "day({0})",
    "DAY_IN_WEEK": "(dayofweek({0}) + 1)",
    "WEEK_IN_YEAR": "((dayofyear({0}) - 1) // 7 + 1)",
    "WEEK_IN_MONTH": "((day({0}) - 1) // 7 + 1)",
    "HOUR_IN_DAY": "hour({0})",
    "DAY_ONLY": "CAST({0} AS DATE)",
}


def _aggregate_sql(name: str, inner: Operand) -> str:
    if name == "COUNT_DISTINCT":
        folds = inner.category is Category.TEXT and not inner.case_sensitive
        return f"count(DISTINCT {f'lower({inner.sql})' if folds else inner.sql})"
    return f"{name.lower()}({inner.sql})"


def _aggregate_category(name: str, inner: Category) -> Category:
    if name in ("COUNT", "COUNT_DISTINCT"):
        return Category.INT
    return Category.NUMBER if name in ("SUM", "AVG") else inner


def object_named(text: str, schema: SchemaView, path: Path) -> ObjectView:
    """The object of a FROM clause. Raises INVALID_TYPE."""
    entity = schema.object(path.parts[0]) if len(path.parts) == 1 else None
    if entity is None:
        raise unknown_object(text, path.position, str(path))
    return entity


def require_filterable(text: str, operand: Operand) -> None:
    if not operand.is_filterable:
        reason = f"field '{operand.name}' can not be filtered in a query call"
        raise located(text, operand.position, "INVALID_FIELD", reason)


def require_sortable(text: str, operand: Operand) -> None:
    if not operand.is_sortable:
        reason = f"field '{operand.name}' can not be sorted in a query call"
        raise located(text, operand.position, "INVALID_FIELD", reason)


def require_groupable(text: str, operand: Operand) -> None:
    if not operand.is_groupable:
        raise malformed(text, operand.position, f"field '{operand.name}' can not be grouped in a query call")
