"""Names to columns: which object, field or function a query means, and the DuckDB expression for it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from forcelift.twin.soql.ast import Call, Expression, Path
from forcelift.twin.soql.errors import located, malformed, unknown_column, unknown_object, unknown_relationship
from forcelift.twin.soql.functions import (
    AGGREGATES,
    DATE_PARTS,
    TRANSPARENT,
    aggregate,
    formatted,
    grouping,
    label,
)
from forcelift.twin.soql.polymorphic import NamePointing
from forcelift.twin.soql.views import (
    Category,
    FieldView,
    ObjectView,
    Operand,
    SchemaView,
    field_operand,
    quoted,
)

PARENT_LEVELS_MAX = 5


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

    def from_sql(self, source: str | None = None) -> str:
        """The FROM clause. Call it after everything else has been resolved.

        Args:
            source: Rows to take in place of the object's own.
        """
        return " ".join([f"FROM {source or f'data.{quoted(self.entity.name)}'} AS {self.table}", *self._joins])

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
        parent = self._target(lookup) if lookup is not None else None
        if lookup is None or lookup.relationship_name is None or parent is None:
            raise unknown_relationship(self.text, position, name)
        keys = (*keys, lookup.relationship_name)
        if keys not in self._joined:
            alias = self._next_table()
            source = parent.source_sql() if isinstance(parent, NamePointing) else f"data.{quoted(parent.name)}"
            self._joins.append(f'LEFT JOIN {source} AS {alias} ON {table}.{quoted(lookup.name)} = {alias}."Id"')
            self._joined[keys] = (alias, parent)
        alias, parent = self._joined[keys]
        return alias, parent, keys

    def _target(self, lookup: FieldView) -> ObjectView | None:
        """The object that a lookup leads to; for one with several targets what all of them have in common."""
        targets = [found for found in map(self.schema.object, lookup.reference_to) if found is not None]
        return NamePointing(targets) if len(lookup.reference_to) > 1 and targets else next(iter(targets), None)

    def operand(self, expression: Expression, *, aggregates: bool = False, displayed: bool = False) -> Operand:
        """A field or a function of one. Aggregates and FORMAT only where the caller allows them."""
        if isinstance(expression, Path):
            return self.field(expression)
        name = expression.name.upper()
        if (name in AGGREGATES or name == "GROUPING") and aggregates:
            return self._aggregate(expression, name)
        if name in TRANSPARENT:
            return self.operand(self._argument(expression), aggregates=aggregates and displayed)
        if name == "TOLABEL":
            return self._label(expression)
        if name == "FORMAT" and displayed:
            return formatted(self.operand(self._argument(expression), aggregates=aggregates, displayed=True))
        if name in DATE_PARTS:
            return self._date_part(expression, name)
        raise malformed(self.text, expression.position, f"unexpected token: '{expression.name}'")

    def _label(self, call: Call) -> Operand:
        inner = self.operand(self._argument(call))
        if inner.type not in ("picklist", "multipicklist", "combobox") and not inner.name.startswith("RecordType."):
            raise malformed(self.text, call.position, f"field {inner.name} does not support toLabel")
        return label(inner)

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
            sql=DATE_PARTS[name].format(inner.sql),
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
        if name == "GROUPING":
            return grouping(inner, call.position)
        if inner.category not in AGGREGATES[name] or not inner.is_filterable:
            raise malformed(self.text, call.position, f"field {inner.name} does not support aggregate operator {name}")
        return aggregate(name, inner, call.position)


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
