"""What a parsed query consists of. Positions are offsets into the query text, for error messages."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class Kind(Enum):
    """The kinds of literal."""

    STRING = "string"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    DATETIME = "dateTime"
    TIME = "time"
    DATE_LITERAL = "date literal"
    NULL = "null"


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A field, reached through zero or more parent relationships: `Tenant__r.Name`."""

    parts: tuple[str, ...]
    position: int

    def __str__(self) -> str:
        return ".".join(self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A function of paths or other calls: `COUNT(Id)`, `CALENDAR_YEAR(CreatedDate)`, `COUNT()`."""

    name: str
    arguments: tuple[Expression, ...]
    position: int


Expression: TypeAlias = Path | Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Literal:
    """A value as written. `text` of a string is what stands between the quotes, escapes not yet undone."""

    kind: Kind
    text: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`expression operator value`. The operator is upper-case; for lists `values` holds several."""

    expression: Expression
    operator: str
    values: tuple[Literal, ...]
    query: Query | None
    position: int
    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Junction:
    """Conditions joined by AND or OR."""

    operator: str
    terms: tuple[Condition, ...]
    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Negation:
    """NOT condition."""

    term: Condition
    depth: int


Condition: TypeAlias = Comparison | Junction | Negation


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectItem:
    """An element of the SELECT list: an expression with an optional alias, a child query, or neither for `TYPEOF`."""

    expression: Expression | None
    query: Query | None
    alias: str | None
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderItem:
    """An element of ORDER BY. Nulls come first unless said otherwise."""

    expression: Expression
    descending: bool
    nulls_last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query, or a query inside one."""

    select: tuple[SelectItem, ...]
    object_path: Path
    alias: str | None
    scope: str | None
    where: Condition | None
    group_by: tuple[Expression, ...]
    having: Condition | None
    order_by: tuple[OrderItem, ...]
    limit: int | None
    offset: int | None
    all_rows: bool
    position: int
    clauses: dict[str, int]
    depth: int
