"""The dictionary views that were taught, over the catalog.

Names and columns are Oracle's own. A view that a user has no grant for does not exist for that user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.oracle_server.catalog import BLOCK_BYTES, ROWS_PER_BLOCK, Constraint, Table, extents
from tests.oracle_server.errors import OracleError
from tests.oracle_server.expressions import Value, literal
from tests.oracle_server.parallel import chunk_rows
from tests.oracle_server.session_state import SessionState
from tests.oracle_server.types import DATE, NUMBER, ROWID, OraType, varchar

_TEXT, _LONG = varchar(128), varchar(4000)
_NUMBER = "DECIMAL(38,0)"
Row = tuple[Any, ...]
_SEEN_BY = ("SELECT", "READ", "INSERT", "UPDATE")


@dataclass(frozen=True, slots=True)
class View:
    """A view as SQL, and its columns."""

    sql: str
    columns: list[tuple[str, Value]]


def view(state: SessionState, schema: str | None, name: str) -> View | None:
    """The view of that name, or None if it is no view. ORA-00942 without the grant that it needs."""
    if schema not in (None, "SYS"):
        return None
    prefix, _, rest = name.partition("_")
    if prefix in ("ALL", "USER", "DBA") and rest in _OBJECT_VIEWS:
        columns, rows, scopes = _OBJECT_VIEWS[rest]
        if prefix not in scopes:
            return None
        if prefix == "DBA":
            _require(state, name)
        own = prefix == "USER"
        keep = [at for at, column in enumerate(columns) if not (own and column[0] == "OWNER")]
        found = [
            [row[at] for at in keep]
            for table in _tables(state, own=own, every=prefix == "DBA")
            for row in rows(state, table)
        ]
        return _made([columns[at] for at in keep], found)
    if name in _FIXED:
        columns, fixed_rows, is_free = _FIXED[name]
        if not is_free:
            _require(state, name)
        return _made(columns, list(fixed_rows(state)))
    return None


def _require(state: SessionState, name: str) -> None:
    fixed = name.replace("V$", "V_$")
    if not (state.user.may("SELECT_CATALOG_ROLE") or state.user.may(f"SELECT {fixed}")):
        raise OracleError(942)


def _tables(state: SessionState, *, own: bool, every: bool) -> Iterator[Table]:
    for (owner, name), table in sorted(state.store.catalog.tables.items()):
        if (
            every
            or owner == state.user.name
            or (not own and any(state.user.may_on(one, owner, name) for one in ("SELECT", "READ", "INSERT", "UPDATE")))
        ):
            yield table


def _made(columns: list[tuple[str, OraType]], rows: list[Any]) -> View:
    forms = [_NUMBER if kind is NUMBER else kind.stored for _, kind in columns]
    names = ", ".join(f'"c{at}"' for at in range(len(columns)))
    if rows:
        body = ", ".join("(" + ", ".join(map(_literal, row)) + ")" for row in rows)
        source = f"(VALUES {body}) AS v({names})"
    else:
        source = "(SELECT " + ", ".join(f'NULL AS "c{at}"' for at in range(len(columns))) + " WHERE FALSE)"
    cast = ", ".join(f'CAST("c{at}" AS {form}) AS "c{at}"' for at, form in enumerate(forms))
    outputs = [
        (name, Value(f'"c{at}"', kind, form if kind is NUMBER else ""))
        for at, ((name, kind), form) in enumerate(zip(columns, forms, strict=True))
    ]
    return View(f"SELECT {cast} FROM {source}", outputs)


def _literal(value: Any) -> str:
    if value is None or value == "":
        return "NULL"
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value:%Y-%m-%d %H:%M:%S}'"
    return str(value) if isinstance(value, int | Decimal) else literal(str(value))


# Views of tables and their parts: the columns, the rows for one table, and where they exist.

_OWNER = ("OWNER", _TEXT)
_NAME = ("TABLE_NAME", _TEXT)
_INDEX_OBJECTS = 1_000_000
_STATISTICS = [("NUM_ROWS", NUMBER), ("BLOCKS", NUMBER), ("AVG_ROW_LEN", NUMBER), ("LAST_ANALYZED", DATE)]


def _table_rows(state: SessionState, table: Table) -> Iterator[Row]:
    statistics = table.statistics or (None,) * 4
    partitioned = "YES" if table.partitioned_by else "NO"
    yield (
        table.owner,
        table.name,
        None if table.partitioned_by else "USERS",
        partitioned,
        "N",
        None,
        "VALID",
        *statistics,
    )


def _column_rows(state: SessionState, table: Table) -> Iterator[Row]:
    for at, column in enumerate(table.columns, 1):
        kind = column.type
        if kind.is_national and kind.kind != "NCLOB":
            size = kind.length * 2
        elif kind.is_text and not kind.is_lob:
            size = kind.length * (4 if kind.by_char else 1)
        else:
            size = kind.described()[2]
        is_sized = kind.is_text and not kind.is_lob and kind.kind != "LONG"
        used = None if not is_sized else "C" if kind.by_char or kind.is_national else "B"
        scale = kind.scale
        yield (
            table.owner,
            table.name,
            column.name,
            kind.name,
            size,
            kind.precision,
            scale,
            "Y" if column.nullable else "N",
            at,
            kind.length if is_sized else 0,
            used,
            "NCHAR_CS" if kind.is_national else "CHAR_CS" if kind.is_text else None,
            column.default_text,
            "YES" if column.identity else "NO",
            "NO",
            "NO",
            "PUBLIC" if kind.kind == "XMLTYPE" else None,
        )


def _comment_rows(state: SessionState, table: Table) -> Iterator[Row]:
    for column in table.columns:
        yield (table.owner, table.name, column.name, column.comment)


def _constraints(table: Table) -> Iterator[Constraint]:
    yield from table.constraints
    for column in table.columns:
        if not column.nullable and not column.identity and column.name not in _key_columns(table):
            text = f'"{column.name}" IS NOT NULL'
            yield Constraint(name=f"SYS_C_{column.name}"[:128], kind="C", columns=(column.name,), check_text=text)


def _key_columns(table: Table) -> tuple[str, ...]:
    key = table.key()
    return key.columns if key else ()


def _constraint_rows(state: SessionState, table: Table) -> Iterator[Row]:
    for one in _constraints(table):
        parent_owner = one.parent[0] if one.parent else None
        generated = "GENERATED NAME" if one.generated else "USER NAME"
        index = one.name if one.kind in ("P", "U") else None
        yield (
            table.owner,
            one.name,
            one.kind,
            table.name,
            one.check_text,
            parent_owner,
            one.parent_key,
            "NO ACTION" if one.kind == "R" else None,
            "ENABLED",
            "VALIDATED",
            generated,
            index,
        )


def _constraint_column_rows(state: SessionState, table: Table) -> Iterator[Row]:
    for one in _constraints(table):
        for at, column in enumerate(one.columns, 1):
            yield (table.owner, one.name, table.name, column, at if one.kind != "C" else None)


def _indexes(table: Table) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    for one in table.constraints:
        if one.kind in ("P", "U"):
            yield one.name, one.columns, True
    for index in table.indexes:
        yield index.name, index.columns, index.unique


def _index_rows(state: SessionState, table: Table) -> Iterator[Row]:
    for name, _, unique in _indexes(table):
        yield (
            table.owner,
            name,
            "NORMAL",
            table.owner,
            table.name,
            "UNIQUE" if unique else "NONUNIQUE",
            "VALID",
            "VISIBLE",
        )


def _index_column_rows(state: SessionState, table: Table) -> Iterator[Row]:
    for name, columns, _ in _indexes(table):
        for at, column in enumerate(columns, 1):
            yield (table.owner, name, table.owner, table.name, column, at, "ASC")


def _partition_rows(state: SessionState, table: Table) -> Iterator[Row]:
    if table.partitioned_by is not None:
        for at, part in enumerate(table.parts, 1):
            yield (table.owner, table.name, part.name, part.below_text, at, None, None)


def _part_key_rows(state: SessionState, table: Table) -> Iterator[Row]:
    if table.partitioned_by is not None:
        yield (table.owner, table.name, "TABLE", table.partitioned_by, 1)


def _object_rows(state: SessionState, table: Table) -> Iterator[Row]:
    whole = None if table.partitioned_by else table.parts[0].data_object_id
    yield (table.owner, table.name, None, table.object_id, whole, "TABLE", "VALID", table.changed, table.changed)
    if table.partitioned_by is not None:
        for part in table.parts:
            data = part.data_object_id
            yield (
                table.owner,
                table.name,
                part.name,
                data,
                data,
                "TABLE PARTITION",
                "VALID",
                table.changed,
                table.changed,
            )
    for at, (name, _, _) in enumerate(_indexes(table), 1):
        number = table.object_id + _INDEX_OBJECTS * at  # an object of its own, which may have the table's name
        yield (table.owner, name, None, number, number, "INDEX", "VALID", table.changed, table.changed)


def _extent_rows(state: SessionState, table: Table) -> Iterator[Row]:
    for part in table.parts:
        kind = "TABLE PARTITION" if table.partitioned_by else "TABLE"
        for at, (file, block, blocks) in enumerate(extents(part)):
            yield (
                table.owner,
                table.name,
                part.name,
                kind,
                "USERS",
                at,
                file,
                block,
                blocks * BLOCK_BYTES,
                blocks,
                file,
            )


def _own_extent_rows(state: SessionState, table: Table) -> Iterator[Row]:
    for row in _extent_rows(state, table):
        yield (*row[:6], row[8], row[9])


def _segment_rows(state: SessionState, table: Table) -> Iterator[Row]:
    for part in table.parts:
        blocks = sum(size for _, _, size in extents(part))
        kind = "TABLE PARTITION" if table.partitioned_by else "TABLE"
        yield (table.owner, table.name, part.name, kind, "USERS", blocks * BLOCK_BYTES, blocks, len(extents(part)))


def _identity_rows(state: SessionState, table: Table) -> Iterator[Row]:
    for column in table.columns:
        if column.identity:
            yield (table.owner, table.name, column.name, column.identity, f"ISEQ$$_{table.object_id}")


Rows = Callable[[SessionState, Table], Iterator[Row]]
_BOTH, _ALL, _MINE = ("ALL", "USER", "DBA"), ("ALL", "DBA", "USER"), ("USER",)
_SEGMENT = [
    _OWNER,
    ("SEGMENT_NAME", _TEXT),
    ("PARTITION_NAME", _TEXT),
    ("SEGMENT_TYPE", _TEXT),
    ("TABLESPACE_NAME", _TEXT),
]
_COLUMNS = [
    _OWNER,
    _NAME,
    ("COLUMN_NAME", _TEXT),
    ("DATA_TYPE", _TEXT),
    ("DATA_LENGTH", NUMBER),
    ("DATA_PRECISION", NUMBER),
    ("DATA_SCALE", NUMBER),
    ("NULLABLE", varchar(1)),
    ("COLUMN_ID", NUMBER),
    ("CHAR_LENGTH", NUMBER),
    ("CHAR_USED", varchar(1)),
    ("CHARACTER_SET_NAME", _TEXT),
    ("DATA_DEFAULT", _LONG),
    ("IDENTITY_COLUMN", varchar(3)),
    ("VIRTUAL_COLUMN", varchar(3)),
    ("HIDDEN_COLUMN", varchar(3)),
    ("DATA_TYPE_OWNER", _TEXT),
]
_OBJECT_VIEWS: dict[str, tuple[list[tuple[str, OraType]], Rows, tuple[str, ...]]] = {
    "TABLES": (
        [
            _OWNER,
            _NAME,
            ("TABLESPACE_NAME", _TEXT),
            ("PARTITIONED", varchar(3)),
            ("TEMPORARY", varchar(1)),
            ("IOT_TYPE", _TEXT),
            ("STATUS", _TEXT),
            *_STATISTICS,
        ],
        _table_rows,
        _BOTH,
    ),
    "TAB_COLUMNS": (_COLUMNS[:14] + _COLUMNS[16:], lambda s, t: (r[:14] + r[16:] for r in _column_rows(s, t)), _BOTH),
    "TAB_COLS": (_COLUMNS, _column_rows, _BOTH),
    "TAB_COMMENTS": (
        [_OWNER, _NAME, ("TABLE_TYPE", _TEXT), ("COMMENTS", _LONG)],
        lambda s, t: iter([(t.owner, t.name, "TABLE", t.comment)]),
        _BOTH,
    ),
    "COL_COMMENTS": ([_OWNER, _NAME, ("COLUMN_NAME", _TEXT), ("COMMENTS", _LONG)], _comment_rows, _BOTH),
    "CONSTRAINTS": (
        [
            _OWNER,
            ("CONSTRAINT_NAME", _TEXT),
            ("CONSTRAINT_TYPE", varchar(1)),
            _NAME,
            ("SEARCH_CONDITION_VC", _LONG),
            ("R_OWNER", _TEXT),
            ("R_CONSTRAINT_NAME", _TEXT),
            ("DELETE_RULE", _TEXT),
            ("STATUS", _TEXT),
            ("VALIDATED", _TEXT),
            ("GENERATED", _TEXT),
            ("INDEX_NAME", _TEXT),
        ],
        _constraint_rows,
        _BOTH,
    ),
    "CONS_COLUMNS": (
        [_OWNER, ("CONSTRAINT_NAME", _TEXT), _NAME, ("COLUMN_NAME", _LONG), ("POSITION", NUMBER)],
        _constraint_column_rows,
        _BOTH,
    ),
    "INDEXES": (
        [
            _OWNER,
            ("INDEX_NAME", _TEXT),
            ("INDEX_TYPE", _TEXT),
            ("TABLE_OWNER", _TEXT),
            _NAME,
            ("UNIQUENESS", _TEXT),
            ("STATUS", _TEXT),
            ("VISIBILITY", _TEXT),
        ],
        _index_rows,
        _BOTH,
    ),
    "IND_COLUMNS": (
        [
            ("INDEX_OWNER", _TEXT),
            ("INDEX_NAME", _TEXT),
            ("TABLE_OWNER", _TEXT),
            _NAME,
            ("COLUMN_NAME", _LONG),
            ("COLUMN_POSITION", NUMBER),
            ("DESCEND", _TEXT),
        ],
        _index_column_rows,
        _ALL,
    ),
    "TAB_PARTITIONS": (
        [
            ("TABLE_OWNER", _TEXT),
            _NAME,
            ("PARTITION_NAME", _TEXT),
            ("HIGH_VALUE", _LONG),
            ("PARTITION_POSITION", NUMBER),
            ("NUM_ROWS", NUMBER),
            ("BLOCKS", NUMBER),
        ],
        _partition_rows,
        _ALL,
    ),
    "PART_KEY_COLUMNS": (
        [_OWNER, ("NAME", _TEXT), ("OBJECT_TYPE", _TEXT), ("COLUMN_NAME", _LONG), ("COLUMN_POSITION", NUMBER)],
        _part_key_rows,
        _ALL,
    ),
    "OBJECTS": (
        [
            _OWNER,
            ("OBJECT_NAME", _TEXT),
            ("SUBOBJECT_NAME", _TEXT),
            ("OBJECT_ID", NUMBER),
            ("DATA_OBJECT_ID", NUMBER),
            ("OBJECT_TYPE", _TEXT),
            ("STATUS", _TEXT),
            ("CREATED", DATE),
            ("LAST_DDL_TIME", DATE),
        ],
        _object_rows,
        _BOTH,
    ),
    "EXTENTS": (
        [
            *_SEGMENT,
            ("EXTENT_ID", NUMBER),
            ("FILE_ID", NUMBER),
            ("BLOCK_ID", NUMBER),
            ("BYTES", NUMBER),
            ("BLOCKS", NUMBER),
            ("RELATIVE_FNO", NUMBER),
        ],
        _extent_rows,
        ("DBA",),
    ),
    "SEGMENTS": (
        [*_SEGMENT, ("BYTES", NUMBER), ("BLOCKS", NUMBER), ("EXTENTS", NUMBER)],
        _segment_rows,
        ("DBA", "USER"),
    ),
    "TAB_IDENTITY_COLS": (
        [_OWNER, _NAME, ("COLUMN_NAME", _TEXT), ("GENERATION_TYPE", _TEXT), ("SEQUENCE_NAME", _TEXT)],
        _identity_rows,
        _BOTH,
    ),
}


# Views of the instance and the session: columns, rows, and whether everybody may read them.

FixedRows = Callable[[SessionState], Iterator[Row]]


def _parameters(state: SessionState) -> Iterator[Row]:
    yield ("undo_retention", str(state.store.undo_retention_s))
    yield ("open_cursors", "300")
    yield ("processes", "300")
    yield ("db_block_size", str(BLOCK_BYTES))
    yield ("compatible", "19.0.0")
    yield ("max_string_size", "EXTENDED" if state.store.extended_strings else "STANDARD")


def _free_extents(state: SessionState) -> Iterator[Row]:
    """Two in the only tablespace for tables, and one in another; a full one has no rows at all."""
    half = state.store.free_blocks // 2
    for at, (space, blocks) in enumerate(
        (("USERS", half), ("USERS", state.store.free_blocks - half), ("TEMP2", 9_999))
    ):
        if blocks:
            yield (space, 7 if space == "USERS" else 8, 128 + at * 100_000, blocks * BLOCK_BYTES, blocks)


def _own_user(state: SessionState) -> Iterator[Row]:
    user = state.user
    yield (user.name, "EXPIRED(GRACE)" if user.is_in_grace else "OPEN", user.password_until, "USERS")


def _sessions(state: SessionState) -> Iterator[Row]:
    given = state.attributes
    yield (
        state.session_id,
        state.serial,
        state.user.name,
        given.get("MODULE"),
        given.get("ACTION"),
        given.get("CLIENT_INFO"),
        given.get("CLIENT_IDENTIFIER"),
    )


def _nls(state: SessionState) -> Iterator[Row]:
    yield ("NLS_CHARACTERSET", state.store.charset)
    yield ("NLS_NCHAR_CHARACTERSET", "AL16UTF16")
    yield ("NLS_RDBMS_VERSION", "23.0.0.0.0" if state.is_23ai else "19.0.0.0.0")


def _none(state: SessionState) -> Iterator[Row]:
    """The server has no views, synonyms or materialized views."""
    yield from ()


def _sequences(state: SessionState) -> Iterator[Row]:
    for owner, name in sorted(state.store.catalog.sequences):
        if owner == state.user.name:
            yield (owner, name)


_FIXED: dict[str, tuple[list[tuple[str, OraType]], FixedRows, bool]] = {
    "V$DATABASE": (
        [("NAME", _TEXT), ("CURRENT_SCN", NUMBER), ("OPEN_MODE", _TEXT), ("DATABASE_ROLE", _TEXT)],
        lambda s: iter([(s.service.upper(), s.store.scn, *s.store.role)]),
        False,
    ),
    "USER_PARALLEL_EXECUTE_CHUNKS": (
        [
            ("CHUNK_ID", NUMBER),
            ("TASK_NAME", _TEXT),
            ("STATUS", _TEXT),
            ("START_ROWID", ROWID),
            ("END_ROWID", ROWID),
        ],
        chunk_rows,
        True,
    ),
    "USER_USERS": (
        [("USERNAME", _TEXT), ("ACCOUNT_STATUS", _TEXT), ("EXPIRY_DATE", DATE), ("DEFAULT_TABLESPACE", _TEXT)],
        _own_user,
        True,
    ),
    "USER_FREE_SPACE": (
        [("TABLESPACE_NAME", _TEXT), ("FILE_ID", NUMBER), ("BLOCK_ID", NUMBER), ("BYTES", NUMBER), ("BLOCKS", NUMBER)],
        _free_extents,
        True,
    ),
    "V$PARAMETER": ([("NAME", _TEXT), ("VALUE", _LONG)], _parameters, False),
    "V$UNDOSTAT": (
        [("BEGIN_TIME", DATE), ("END_TIME", DATE), ("TUNED_UNDORETENTION", NUMBER), ("SSOLDERRCNT", NUMBER)],
        lambda s: iter([(s.now, s.now, s.store.undo_retention_s, 0)]),
        False,
    ),
    "V$SESSION": (
        [
            ("SID", NUMBER),
            ("SERIAL#", NUMBER),
            ("USERNAME", _TEXT),
            ("MODULE", _TEXT),
            ("ACTION", _TEXT),
            ("CLIENT_INFO", _TEXT),
            ("CLIENT_IDENTIFIER", _TEXT),
        ],
        _sessions,
        False,
    ),
    "V$VERSION": (
        [("BANNER", _TEXT)],
        lambda s: iter([(f"Oracle Database {'23ai' if s.is_23ai else '19c'} (Forcelift's test server)",)]),
        True,
    ),
    "NLS_DATABASE_PARAMETERS": ([("PARAMETER", _TEXT), ("VALUE", _TEXT)], _nls, True),
    "SESSION_PRIVS": (
        [("PRIVILEGE", _TEXT)],
        lambda s: iter([(one,) for one in sorted(s.user.granted)]),
        True,
    ),
    **{
        f"{prefix}_{name}": (columns, rows, True)
        for prefix in ("ALL", "USER")
        for name, columns, rows in (
            ("VIEWS", [_OWNER, ("VIEW_NAME", _TEXT), ("TEXT_VC", _LONG)], _none),
            ("MVIEWS", [_OWNER, ("MVIEW_NAME", _TEXT)], _none),
            ("SYNONYMS", [_OWNER, ("SYNONYM_NAME", _TEXT), ("TABLE_OWNER", _TEXT), _NAME], _none),
            ("SEQUENCES", [("SEQUENCE_OWNER", _TEXT), ("SEQUENCE_NAME", _TEXT)], _sequences),
        )
    },
}


def gather(state: SessionState, table: Table) -> None:
    """What DBMS_STATS.GATHER_TABLE_STATS writes."""
    visible = state.store.visible(state.store.scn, None)
    rows = state.store.cursor().execute(f"SELECT count(*) FROM {table.stored} WHERE {visible}").fetchall()[0][0]
    table.statistics = (rows, rows // ROWS_PER_BLOCK + 1, BLOCK_BYTES // ROWS_PER_BLOCK, state.now)
