"""Foreign keys as a source's dictionary tells them: one query for each kind of database; files have none."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Final

from forcelift.protocols.source import AnswersSql, ForeignKey, Source

_ROWS_MAX: Final = 100_000

# Each gives: table, name of the key, place in it from 1, column, parent table, parent column (null: its primary key).
_QUERIES: Final[Mapping[str, str]] = {
    "sqlite": (
        'SELECT m.name, CAST(f.id AS TEXT), f.seq + 1, f."from", f."table", f."to" FROM sqlite_master AS m,'
        " pragma_foreign_key_list(m.name) AS f WHERE m.type = 'table' ORDER BY 1, 2, 3"
    ),
    "duckdb": (
        "SELECT t, k, i, c[i], p, pc[i] FROM (SELECT CASE WHEN schema_name = 'main' THEN table_name ELSE"
        " schema_name || '.' || table_name END AS t, CAST(constraint_index AS VARCHAR) AS k,"
        " constraint_column_names AS c,"
        " referenced_table AS p, referenced_column_names AS pc, unnest(range(1, len(constraint_column_names) + 1)) AS i"
        " FROM duckdb_constraints() WHERE constraint_type = 'FOREIGN KEY' AND database_name = current_database())"
        " ORDER BY 1, 2, 3"
    ),
    "postgresql": (
        "SELECT c.conrelid::regclass::text, c.conname::text, k.place::int8, a.attname::text,"
        " c.confrelid::regclass::text,"
        " pa.attname::text FROM pg_constraint c CROSS JOIN LATERAL unnest(c.conkey, c.confkey) WITH ORDINALITY AS"
        " k (child, parent, place) JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.child JOIN"
        " pg_attribute pa ON pa.attrelid = c.confrelid AND pa.attnum = k.parent WHERE c.contype = 'f' ORDER BY 1, 2, 3"
    ),
    "oracle": (
        "SELECT c.table_name, c.constraint_name, k.position, k.column_name, p.table_name, pk.column_name"
        " FROM user_constraints c"
        " JOIN user_cons_columns k ON k.constraint_name = c.constraint_name"
        " JOIN user_constraints p ON p.constraint_name = c.r_constraint_name"
        " JOIN user_cons_columns pk ON pk.constraint_name = p.constraint_name AND pk.position = k.position"
        " WHERE c.constraint_type = 'R' ORDER BY c.table_name, c.constraint_name, k.position"
    ),
}


def foreign_keys(source: Source) -> list[ForeignKey]:
    """All foreign keys of the source's own tables; none of files.

    Raises:
        SourceError: The dictionary does not answer.
    """
    query = _QUERIES.get(source.kind)
    if query is None or not isinstance(source, AnswersSql):
        return []
    rows = source.ask(query, rows_max=_ROWS_MAX)
    found = []
    for (table, _), group in groupby(rows, key=lambda row: (str(row[0]), str(row[1]))):
        parts = list(group)
        parent = str(parts[0][4])
        told = [part[5] for part in parts]
        columns = [str(name) for name in told] if all(told) else source.describe(parent).primary_key
        found.append(
            ForeignKey(
                table=_plain(table),
                columns=tuple(str(part[3]) for part in parts),
                parent=_plain(parent),
                parent_columns=tuple(columns),
            )
        )
    return found


def _plain(name: str) -> str:
    """A name as plans have it: PostgreSQL quotes those that need it."""
    return name.replace('"', "")
