"""What Oracle's dictionary says of tables: names, columns, keys, sizes, and the extents that hold their rows."""

from __future__ import annotations

from collections.abc import Sequence

import oracledb
from msgspec import Struct

from forcelift.protocols.source import Column, SourceTable
from forcelift.source.names import pick_columns, quote, unknown_table
from forcelift.source.oracle_bytes import stored_in
from forcelift.source.oracle_columns import Declared, OracleColumn
from forcelift.source.oracle_errors import code_of
from forcelift.source.oracle_session import fetch
from forcelift.source.oracle_types import oracle_column

_TABLES = """
SELECT owner, table_name, 'TABLE', iot_type FROM all_tables WHERE temporary = 'N'
UNION ALL
SELECT owner, view_name, 'VIEW', NULL FROM all_views
"""
# Oracle's own schemas hold thousands of tables that nobody migrates.
# fmt: off
_OWN_SCHEMAS = frozenset((
    "SYS", "SYSTEM", "XDB", "MDSYS", "CTXSYS", "ORDSYS", "ORDDATA", "WMSYS", "OLAPSYS", "OUTLN", "DBSNMP",
    "APPQOSSYS", "AUDSYS", "GSMADMIN_INTERNAL", "LBACSYS", "DVSYS", "OJVMSYS", "DBSFWUSER",
    "REMOTE_SCHEDULER_AGENT", "GGSYS", "ORACLE_OCM", "SYS$UMF", "VECSYS",
))
# fmt: on
_COLUMNS = """
SELECT column_name, data_type, data_type_owner, data_length, data_precision, data_scale, nullable,
    char_length
FROM all_tab_cols WHERE owner = :owner AND table_name = :name AND hidden_column = 'NO' ORDER BY column_id
"""
_KEYS = """
SELECT c.constraint_name, c.constraint_type, k.column_name
FROM all_constraints c
JOIN all_cons_columns k ON k.owner = c.owner AND k.constraint_name = c.constraint_name
WHERE c.owner = :owner AND c.table_name = :name AND c.constraint_type IN ('P', 'U') AND c.status = 'ENABLED'
ORDER BY c.constraint_name, k.position
"""
_COMMENTS = """
SELECT column_name, comments FROM all_col_comments
WHERE owner = :owner AND table_name = :name AND comments IS NOT NULL
"""
_COMMENT = "SELECT comments FROM all_tab_comments WHERE owner = :owner AND table_name = :name"
_CHARSET = "SELECT value FROM nls_database_parameters WHERE parameter = 'NLS_CHARACTERSET'"
_SIZES = "SELECT num_rows, avg_row_len FROM all_tables WHERE owner = :owner AND table_name = :name"
_LEADING = """
SELECT DISTINCT column_name FROM all_ind_columns
WHERE table_owner = :owner AND table_name = :name AND column_position = 1
"""
_PARTITIONED = """
SELECT column_name FROM all_part_key_columns
WHERE owner = :owner AND name = :name AND object_type = 'TABLE' ORDER BY column_position
"""
_EXTENTS = """
SELECT o.data_object_id, e.relative_fno, e.block_id, e.blocks
FROM dba_extents e
JOIN dba_objects o ON o.owner = e.owner AND o.object_name = e.segment_name
WHERE e.owner = :owner AND e.segment_name = :name AND e.segment_type LIKE 'TABLE%'
  AND o.object_type LIKE 'TABLE%' AND o.data_object_id IS NOT NULL
  AND (o.subobject_name = e.partition_name OR (o.subobject_name IS NULL AND e.partition_name IS NULL))
ORDER BY o.data_object_id, e.relative_fno, e.block_id
"""


class Relation(Struct, frozen=True, kw_only=True):
    """A table or a view."""

    owner: str
    name: str
    is_table: bool
    has_rowids: bool

    @property
    def place(self) -> str:
        """Its quoted name with the schema."""
        return f"{quote(self.owner)}.{quote(self.name)}"


class Extent(Struct, frozen=True, kw_only=True):
    """A run of blocks that holds rows of a table or of one of its partitions."""

    data_object: int
    file: int
    block: int
    blocks: int


class Shape(Struct, frozen=True, kw_only=True):
    """A table as the adapter needs it.

    `columns` are in the order of `table.columns`; `leading` are the first columns of its indexes; `partitioned_by` is
    empty where it has no partitions.
    """

    relation: Relation
    table: SourceTable
    columns: tuple[OracleColumn, ...]
    leading: frozenset[str] = frozenset()
    partitioned_by: tuple[str, ...] = ()

    def pick(self, names: Sequence[str]) -> list[OracleColumn]:
        """The columns of those names; raises as `pick_columns` does."""
        by_name = {one.column.name: one for one in self.columns}
        return [by_name[column.name] for column in pick_columns(self.table, names)]

    def column(self, name: str) -> Column:
        """The column of that name, whatever its type; raises `SourceError` if there is none."""
        found = self.table.column(name)
        return found if found is not None else pick_columns(self.table, [name])[0]


def relations(connection: oracledb.Connection) -> dict[str, Relation]:
    """All tables and views that this user may read, by the name a plan gives them: bare in the session's schema."""
    ((schema,),) = fetch(connection, "SELECT SYS_CONTEXT('USERENV', 'CURRENT_SCHEMA') FROM dual")
    found: dict[str, Relation] = {}
    for owner, name, kind, iot in fetch(connection, _TABLES):
        if owner not in _OWN_SCHEMAS:
            is_table = kind == "TABLE"
            relation = Relation(owner=owner, name=name, is_table=is_table, has_rowids=is_table and iot is None)
            found[name if owner == schema else f"{owner}.{name}"] = relation
    return found


def find_relation(connection: oracledb.Connection, table: str, *, place: str) -> Relation:
    """The relation that a plan names, bare or as `OWNER.NAME`."""
    known = relations(connection)
    qualified = {f"{one.owner}.{one.name}": one for one in known.values()}
    found = known.get(table) or qualified.get(table)
    if found is None:
        raise unknown_table(table, sorted(known), place=f"`{place}`")
    return found


def describe_shape(connection: oracledb.Connection, relation: Relation, *, table: str, raw_text: bool) -> Shape:
    """Columns, keys and estimates of a relation."""
    names = {"owner": relation.owner, "name": relation.name}
    stored = stored_in(fetch(connection, _CHARSET)[0][0]) if raw_text else None
    found = fetch(connection, _COLUMNS, **names)
    comments = dict(fetch(connection, _COMMENTS, **names))
    columns = tuple(
        oracle_column(
            Declared(
                name=name,
                type=declared,
                owner=owner,
                length=int(length or 0),
                precision=None if precision is None else int(precision),
                scale=None if scale is None else int(scale),
                nullable=nullable == "Y",
                characters=int(characters or 0),
                comment=comments.get(name),
            ),
            stored=stored,
        )
        for name, declared, owner, length, precision, scale, nullable, characters in found
    )
    keys: dict[str, list[str]] = {}
    primary = ""
    for constraint, kind, column in fetch(connection, _KEYS, **names):
        keys.setdefault(constraint, []).append(column)
        primary = constraint if kind == "P" else primary
    ((rows, width),) = fetch(connection, _SIZES, **names) if relation.is_table else [(None, None)]
    leading = fetch(connection, _LEADING, **names) if relation.is_table else []
    partitioned = fetch(connection, _PARTITIONED, **names) if relation.is_table else []
    return Shape(
        relation=relation,
        columns=columns,
        leading=frozenset(name for (name,) in leading),
        partitioned_by=tuple(name for (name,) in partitioned),
        table=SourceTable(
            name=table,
            columns=tuple(one.column for one in columns),
            primary_key=tuple(keys.get(primary, ())),
            unique_keys=tuple(tuple(names) for index, names in keys.items() if index != primary),
            rows_estimate=None if rows is None else int(rows),
            bytes_estimate=None if rows is None or width is None else int(rows) * int(width),
            comment=next((text for (text,) in fetch(connection, _COMMENT, **names)), None),
        ),
    )


def extents(connection: oracledb.Connection, relation: Relation) -> list[Extent] | None:
    """The runs of blocks that hold a table's rows, in the order of their ROWIDs; None without the grants to see them.

    They lie in DBA_EXTENTS only: USER_EXTENTS names no file and no block.
    """
    if not relation.has_rowids:
        return None
    try:
        found = fetch(connection, _EXTENTS, owner=relation.owner, name=relation.name)
    except oracledb.DatabaseError as error:
        if code_of(error) in (942, 1031):
            return None
        raise
    return [
        Extent(data_object=int(number), file=int(file), block=int(block), blocks=int(blocks))
        for number, file, block, blocks in found
    ]


_UNDO = (
    "SELECT MIN(tuned_undoretention) FROM v$undostat WHERE begin_time > SYSDATE - 1",
    "SELECT TO_NUMBER(value) FROM v$parameter WHERE name = 'undo_retention'",
)


def undo_seconds(connection: oracledb.Connection) -> float | None:
    """How long undo is kept; None if this user may not ask.

    V$UNDOSTAT says what the server really keeps; `undo_retention` is a target, and a standby has no such statistics.
    """
    for query in _UNDO:
        try:
            found = fetch(connection, query)
        except oracledb.DatabaseError as error:
            if code_of(error) not in (942, 1031):
                raise
            continue
        if found and found[0][0] is not None:
            return float(found[0][0])
    return None
