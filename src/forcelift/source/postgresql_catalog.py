"""What PostgreSQL's catalogue says of tables: names, columns, keys, the files below them, and the planner's guess."""

from __future__ import annotations

import json
from collections.abc import Sequence

from msgspec import Struct

from forcelift.errors import SourceError
from forcelift.protocols.source import Column, SourceTable
from forcelift.source.names import UNTOUCHED, pick_columns, quote, quote_text, unknown_table
from forcelift.source.postgresql_session import Connection, fetch
from forcelift.source.postgresql_types import BaseType, PostgresColumn, postgres_column

_TABLES = """
SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, pg_table_is_visible(c.oid),
       has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
"""

# A domain's own base may be a domain again; its modifier counts where the domain has one.
_COLUMNS = """
WITH RECURSIVE base (attnum, type, modifier) AS (
    SELECT attnum, atttypid, atttypmod FROM pg_attribute WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT base.attnum, t.typbasetype, t.typtypmod
    FROM base JOIN pg_type t ON t.oid = base.type WHERE t.typtype = 'd'
)
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       t.typname::text, n.nspname::text, t.typtype::text, t.typcategory::text, base.modifier
FROM base
JOIN pg_type t ON t.oid = base.type AND t.typtype <> 'd'
JOIN pg_namespace n ON n.oid = t.typnamespace
JOIN pg_attribute a ON a.attrelid = {oid} AND a.attnum = base.attnum
ORDER BY a.attnum
"""

_KEYS = """
SELECT i.indexrelid::int8, i.indisprimary, a.attname::text
FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = {oid} AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
  AND k.place <= i.indnkeyatts
ORDER BY i.indexrelid, k.place
"""

# A partitioned or inherited table has its rows in other tables, each with row addresses of its own.
_PARTS = """
WITH RECURSIVE part (oid) AS (
    SELECT {oid}::oid UNION SELECT i.inhrelid FROM part JOIN pg_inherits i ON i.inhparent = part.oid
)
SELECT n.nspname::text, c.relname::text, c.relkind::text,
       (pg_relation_size(c.oid) / current_setting('block_size')::int8)::int8, pg_table_size(c.oid),
       coalesce(pg_relation_filenode(c.oid), 0)::int8,
       pg_stat_get_tuples_inserted(c.oid), pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid)
FROM part JOIN pg_class c ON c.oid = part.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind <> 'p'
ORDER BY n.nspname, c.relname
"""


class Part(Struct, frozen=True, kw_only=True):
    """A table that holds rows itself: the table, a partition, or a child by inheritance."""

    schema: str
    name: str
    kind: str
    blocks: int
    bytes: int
    state: tuple[int, ...]  # its file's number; rows inserted, updated and deleted since statistics were reset


class Relation(Struct, frozen=True, kw_only=True):
    """A table, view, materialized view or foreign table. `kind` is `pg_class.relkind`."""

    oid: int
    schema: str
    name: str
    kind: str

    @property
    def sql(self) -> str:
        """The relation in a FROM, under its own name, which `where` may use to qualify columns."""
        return f"{quote(self.schema)}.{quote(self.name)} AS {quote(self.name)}"

    @property
    def is_table(self) -> bool:
        """True if there is something stored to sample; a view and a foreign table are queries."""
        return self.kind in ("r", "p", "m")


class Shape(Struct, frozen=True, kw_only=True):
    """A table as the adapter needs it. `columns` are in the order of `table.columns`."""

    relation: Relation
    table: SourceTable
    columns: tuple[PostgresColumn, ...]

    def pick(self, names: Sequence[str]) -> list[PostgresColumn]:
        """The columns of those names; raises as `pick_columns` does."""
        by_name = {one.column.name: one for one in self.columns}
        return [by_name[column.name] for column in pick_columns(self.table, names)]

    def column(self, name: str) -> Column:
        """The column of that name, whatever its type; raises `SourceError` if there is none."""
        found = self.table.column(name)
        return found if found is not None else pick_columns(self.table, [name])[0]


def relations(connection: Connection) -> dict[str, tuple[Relation, bool]]:
    """All tables and views by the name a plan gives them, and whether this user may read them.

    The name is bare where the search path finds it, else `schema.table`.
    """
    found: dict[str, tuple[Relation, bool]] = {}
    for oid, schema, name, kind, visible, readable in fetch(connection, _TABLES):
        relation = Relation(oid=oid, schema=schema, name=name, kind=kind)
        found[name if visible else f"{schema}.{name}"] = relation, bool(readable)
    return found


def find_relation(connection: Connection, table: str, *, place: str, user: str | None) -> Relation:
    """The relation that a plan names, bare or as `schema.table`."""
    known = relations(connection)
    qualified = {f"{relation.schema}.{relation.name}": (relation, may) for relation, may in known.values()}
    if table not in known and table not in qualified:
        raise unknown_table(table, sorted(name for name, (_, may) in known.items() if may), place=f"`{place}`")
    relation, readable = known[table] if table in known else qualified[table]
    if not readable:
        raise SourceError(
            f"the user may not read table `{table}` in `{place}`",
            state=UNTOUCHED,
            hint=f"let a DBA run `GRANT USAGE ON SCHEMA {quote(relation.schema)} TO ...` and "
            f"`GRANT SELECT ON {quote(relation.schema)}.{quote(relation.name)} TO ...`"
            + (f" for `{user}`" if user else ""),
        )
    return relation


def describe_shape(connection: Connection, relation: Relation, *, table: str, raw_text: bool) -> Shape:
    """Columns, keys and estimates of a relation."""
    columns = tuple(
        postgres_column(
            name,
            declared,
            BaseType(name=base, schema=schema, kind=kind, category=category, modifier=modifier),
            nullable=not not_null,
            raw_text=raw_text,
        )
        for name, declared, not_null, base, schema, kind, category, modifier in fetch(
            connection, _COLUMNS.format(oid=relation.oid)
        )
    )
    keys: dict[int, list[str]] = {}
    primary = 0
    for index, is_primary, name in fetch(connection, _KEYS.format(oid=relation.oid)):
        keys.setdefault(index, []).append(name)
        primary = index if is_primary else primary
    sizes = [part.bytes for part in parts(connection, relation)] if relation.is_table else []
    return Shape(
        relation=relation,
        columns=columns,
        table=SourceTable(
            name=table,
            columns=tuple(one.column for one in columns),
            primary_key=tuple(keys.get(primary, ())),
            unique_keys=tuple(tuple(names) for index, names in keys.items() if index != primary),
            rows_estimate=planned_rows(connection, f"FROM {relation.sql}") if relation.is_table else None,
            bytes_estimate=sum(sizes) if relation.is_table else None,
        ),
    )


def parts(connection: Connection, relation: Relation) -> list[Part]:
    """The tables that hold the relation's rows, with their sizes now."""
    fetch(connection, "SELECT pg_stat_clear_snapshot()::text")
    return [
        Part(schema=schema, name=name, kind=kind, blocks=blocks, bytes=size, state=tuple(state))
        for schema, name, kind, blocks, size, *state in fetch(connection, _PARTS.format(oid=relation.oid))
    ]


def planned_rows(connection: Connection, tail: str) -> int:
    """How many rows the planner expects: for a table, its density as last analyzed times its size now."""
    ((document,),) = fetch(connection, f"EXPLAIN (FORMAT JSON) SELECT 1 {tail}", by_copy=False)
    return int(json.loads(document)[0]["Plan"]["Plan Rows"])


def literal(value: str, declared: str) -> str:
    """A value of a key column, given as text, as an SQL expression of its declared type."""
    return f"CAST({quote_text(value)} AS {declared})"
