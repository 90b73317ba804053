"""A query as DuckDB runs it.

Columns of the SELECT are named c0, c1, ...; what each means stands in `CompiledQuery.columns`. Besides the columns
asked for there can be hidden ones: the Id of the record and of each parent, for urls and to tell a missing parent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from forcelift.twin.soql.views import Category


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputColumn:
    """One value of a result row.

    Attributes:
        name: Header of the bulk CSV: `Tenant__r.Name`, or the alias.
        keys: JSON keys from the record down.
        sql: The expression, before any formatting.
        type: The field's described type; empty for functions.
        is_long_text: A text area of more than 255 characters, which makes a row wide.
    """

    name: str
    keys: tuple[str, ...]
    sql: str
    category: Category
    type: str = ""
    is_long_text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentRecord:
    """A parent in the JSON: keys down to it, its object, and the expression of its Id.

    Through a lookup with several targets the object is `Name` and the expression gives `Object/Id`.
    """

    keys: tuple[str, ...]
    object_name: str
    id_sql: str


Format: TypeAlias = Callable[[Category, str], str]


def plain(category: Category, sql: str) -> str:
    """A value as DuckDB stores it."""
    return sql


def rest(category: Category, sql: str) -> str:
    """A value as JSON has it: numbers as doubles, datetimes as `2026-01-31T12:00:00.000+0000`."""
    match category:
        case Category.NUMBER:
            return f"CAST({sql} AS DOUBLE)"
        case Category.DATE:
            return f"CAST({sql} AS VARCHAR)"
        case Category.DATETIME:
            return f"strftime({sql}, '%Y-%m-%dT%H:%M:%S.%g+0000')"
        case Category.TIME:
            return f"strftime(DATE '1970-01-01' + {sql}, '%H:%M:%S.%gZ')"
        case _:
            return sql


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildQuery:
    """A subquery in the SELECT list. Its rows arrive as a list of structs in the parent's column `n0`, `n1`, ..."""

    key: str
    query: CompiledQuery
    parent_sql: str

    def join_sql(self, at: int, id_sql: str) -> str:
        """A join to the children of each parent; they are numbered per parent, for LIMIT and for their order."""
        query = self.query
        order = query.order_sql or f"ORDER BY {query.id_sql}"
        row = f"row_number() OVER (PARTITION BY {self.parent_sql} {order})"
        first = query.offset or 0
        bounds = f"number > {first}" + (f" AND number <= {first + query.limit}" if query.limit is not None else "")
        values = ", ".join(query.values(rest))
        inner = f"SELECT {values}, {self.parent_sql} AS parent, {row} AS number {query.body_sql}"
        names = ", ".join(f"{name} := {name}" for name in query.names)
        return (
            f"LEFT JOIN (SELECT parent, list(struct_pack({names}) ORDER BY number) AS found FROM ({inner}) AS rows "
            f"WHERE {bounds} GROUP BY parent) AS n{at} ON n{at}.parent = {id_sql}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledQuery:
    """A query ready to run.

    Attributes:
        object_name: The object of FROM, in the schema's spelling.
        columns: What the query answers, in SELECT order.
        is_count: `SELECT COUNT()`: the one value is the result's `totalSize`, and there are no records.
        is_aggregate: Rows are AggregateResults, without Id and url.
        is_ordered: The query has an ORDER BY.
    """

    object_name: str
    columns: tuple[OutputColumn, ...]
    is_count: bool
    is_aggregate: bool
    is_ordered: bool
    parents: tuple[ParentRecord, ...]
    children: tuple[ChildQuery, ...]
    id_sql: str
    body_sql: str
    order_sql: str
    limit: int | None
    offset: int | None

    @property
    def sql(self) -> str:
        """The SELECT whose rows `render_records` takes; for `COUNT()` the one that answers the count."""
        return self.count_sql if self.is_count else self.select_sql(rest)

    @property
    def params(self) -> Mapping[str, Any]:
        """Parameters of the statements: none, values stand in them as quoted constants."""
        return {}

    @property
    def limit_sql(self) -> str:
        bounds = (("LIMIT", self.limit), ("OFFSET", self.offset))
        return " ".join(f"{word} {number}" for word, number in bounds if number is not None)

    @property
    def count_sql(self) -> str:
        """How many rows `sql` answers; for `COUNT()` the count itself, with its LIMIT applied."""
        first = self.columns[0].sql if self.is_aggregate and not self.is_count else "1"
        return f"SELECT count(*) FROM (SELECT {first} {self.body_sql} {self.limit_sql})"

    def select_sql(self, form: Format, *, hidden: bool = True, order: str = "") -> str:
        """The SELECT with every value in the given form.

        Args:
            form: Wraps an expression of a category.
            hidden: Add the Ids of records and parents, and the children.
            order: ORDER BY clause to use where the query itself gives none.
        """
        values = self.values(form)[: None if hidden else len(self.columns)]
        return " ".join(
            filter(None, ["SELECT", ", ".join(values), self.body_sql, self.order_sql or order, self.limit_sql])
        )

    def values(self, form: Format) -> list[str]:
        """The SELECT list: c0, c1, ..., and, but for aggregates, id, p0, p1, ... and n0, n1, ..."""
        values = [form(column.category, column.sql) for column in self.columns]
        if not self.is_aggregate:
            values += [self.id_sql, *(parent.id_sql for parent in self.parents)]
            values += [f"n{at}.found" for at in range(len(self.children))]
        return [f"{value} AS {name}" for value, name in zip(values, self.names, strict=True)]

    @property
    def names(self) -> list[str]:
        """The names of the columns of `sql`."""
        names = [f"c{at}" for at in range(len(self.columns))]
        if not self.is_aggregate:
            names += ["id", *(f"p{at}" for at in range(len(self.parents)))]
            names += [f"n{at}" for at in range(len(self.children))]
        return names
