"""Which rows of the audit database the journal covers, and their digests.

Each transaction that writes leaves one row `rows` in the journal: for every row that it touched, the digest before and
after. So a row changed past the program differs from the last digest of it, and one that was changed past the program
and by the program afterwards differs from the digest before. Failed records may be millions, so that theirs is one
digest for all records of a chunk.

Source: SQLAlchemy, "Core Events": `before_execute` and `after_execute` see every statement of a connection.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from operator import itemgetter
from typing import Any, Final, NoReturn

import sqlalchemy as sa
from msgspec import Struct, field
from sqlalchemy.engine import Connection

from forcelift.audit import tables
from forcelift.audit.types import canonical_json, clob

EXEMPT_TABLES: Final[Mapping[str, str]] = {
    "journal": "it is the chain itself",
    "journal_head": "it is compared with the chain's last row",
    "schema_version": "it is compared whenever the database is opened, and written before there is a journal",
    "lease": "heartbeats, written every few seconds outside of the writers' turns; how a lease ended is journalled",
    "claim": "who works on what just now",
    "budget": "rows reserved in the last day, for the governor; jobs hold what was really sent",
}
"""Tables that are about the present moment and not about what became of a row, each with the reason."""

EXEMPT_COLUMNS: Final[Mapping[tuple[str, str], str]] = {
    ("chunk", "claim"): "who works on it just now",
    ("schema_version", "created_at"): "nothing is concluded from it",
}
"""Columns that no digest holds, each with the reason."""

GROUPED: Final[Mapping[str, str]] = {
    tables.failed_records.name: "audit_id",
    tables.failed_key.name: "audit_id",
}
"""Tables with one digest for all rows that have the same value in this column."""

_KEYS: Final = {tables.backup_log.name: ("source_url", "backup_table", "table_name")}
"""What tells rows apart where there is no primary key."""

ACTION: Final = "rows"
_FETCH: Final = 5_000
_LIST_MAX: Final = 500
_OPTION: Final = "forcelift_touched"
Digests = dict[str, str]


class Touched(Struct, kw_only=True):
    """What a transaction has written so far.

    Attributes:
        in_turn: Whether other writers wait for its end, as the journal needs.
        before: By table and key, the digest before this transaction; None for a row that was not there.
        identities: Numbers that a table had before several rows were inserted at once.
        noted: Tables whose groups are noted by who writes them.
        head: The journal's last row, once it was looked up.
        now: The time of the transaction's last journal row.
    """

    in_turn: bool = True
    before: dict[sa.Table, dict[tuple[Any, ...], str | None]] = field(default_factory=dict)
    identities: dict[sa.Table, set[Any]] = field(default_factory=dict)
    noted: set[sa.Table] = field(default_factory=set)
    head: Any = None
    now: datetime | None = None


def is_covered(table: sa.Table) -> bool:
    """Whether the journal holds digests of a table's rows."""
    return table.name not in EXEMPT_TABLES


def covered_tables() -> list[sa.Table]:
    """All tables whose rows the journal covers."""
    return [table for table in tables.metadata.sorted_tables if is_covered(table)]


@cache
def key_columns(table: sa.Table) -> list[sa.Column[Any]]:
    """What names a row, or the group of rows that shares a digest."""
    if table.name in GROUPED:
        return [table.c[GROUPED[table.name]]]
    if table.name in _KEYS:
        return [table.c[name] for name in _KEYS[table.name]]
    return list(table.primary_key.columns)


def key_text(values: Sequence[Any]) -> str:
    """A key as the journal spells it: a single one plain, several as a JSON list."""
    return str(values[0]) if len(values) == 1 else _json(list(values))


def touched_of(connection: Connection) -> Touched | None:
    """What the transaction on a connection has written; None outside of `Database.write`."""
    found: Touched | None = connection.get_execution_options().get(_OPTION)
    return found


def begin(connection: Connection, *, in_turn: bool) -> Connection:
    """Watch what is written on a connection from here on."""
    return connection.execution_options(**{_OPTION: Touched(in_turn=in_turn)})


def watch(engine: sa.Engine) -> None:
    """Have every statement of an engine that writes rows noted by the transaction that it belongs to."""

    @sa.event.listens_for(engine, "before_execute")
    def before(connection: Connection, statement: Any, multi: Any, single: Any, options: Any) -> None:
        touched = touched_of(connection) if getattr(statement, "is_dml", False) else None
        if touched is not None:
            _before(connection, touched, statement, multi or [single])

    @sa.event.listens_for(engine, "after_execute")
    def after(connection: Connection, statement: Any, multi: Any, single: Any, options: Any, result: Any) -> None:
        touched = touched_of(connection) if getattr(statement, "is_insert", False) else None
        if touched is not None and is_covered(statement.table):
            _after_insert(connection, touched, statement.table, result)


def touch_group(connection: Connection, table: sa.Table, value: Any) -> None:
    """Note, before it happens, that rows of a group are written, maybe past SQLAlchemy, straight through the driver.

    From here on in this transaction it is not looked up which groups a statement touches: whoever notes one, notes all.
    """
    touched = touched_of(connection)
    if touched is not None:
        touched.noted.add(table)
        _touch_groups(connection, touched, table, [value])


def _before(connection: Connection, touched: Touched, statement: Any, parameters: Sequence[Mapping[str, Any]]) -> None:
    table: sa.Table = statement.table
    if not is_covered(table):
        return
    if not touched.in_turn:
        raise RuntimeError(f"`{table.name}` is covered by the journal and may only be written in turn")
    if statement.is_insert:
        _before_insert(connection, touched, table, parameters)
        return
    if statement.is_update and _changed(statement, parameters) <= exempt_columns(table):
        return
    where = statement.whereclause
    if table in touched.noted:
        return
    if table.name in GROUPED:
        group = key_columns(table)[0]
        query = sa.select(group).distinct()
        query = query if where is None else query.where(where)
        values = {value for one in parameters for value in connection.execute(query, one).scalars()}
        _touch_groups(connection, touched, table, sorted(value for value in values if value is not None))
        return
    known = touched.before.setdefault(table, {})
    for one in parameters:
        for key, digest in _digests(connection, table, where, one):
            known.setdefault(key, digest)


def _changed(statement: Any, parameters: Sequence[Mapping[str, Any]]) -> set[str]:
    """Keys of the columns that an UPDATE writes."""
    named = {getattr(column, "key", str(column)) for column in (statement._values or ())}
    return named | {name for one in parameters for name in one if name in statement.table.c}


def exempt_columns(table: sa.Table) -> set[str]:
    """Keys of a table's columns that no digest holds."""
    return {column for name, column in EXEMPT_COLUMNS if name == table.name}


def _before_insert(
    connection: Connection, touched: Touched, table: sa.Table, parameters: Sequence[Mapping[str, Any]]
) -> None:
    identity = _identity(table)
    if identity is not None and len(parameters) > 1:
        # A driver does not hand back the numbers of many rows inserted at once, and they need not grow with time where
        # several instances of Oracle serve one database.
        touched.identities[table] = set(connection.execute(sa.select(identity)).scalars())


def _identity(table: sa.Table) -> sa.Column[Any] | None:
    keys = key_columns(table)
    return keys[0] if len(keys) == 1 and keys[0].identity is not None else None


def _after_insert(connection: Connection, touched: Touched, table: sa.Table, result: Any) -> None:
    known = touched.before.setdefault(table, {})
    identity = _identity(table)
    if identity is not None and table in touched.identities:
        earlier = touched.identities.pop(table)
        for number in connection.execute(sa.select(identity)).scalars():
            if number not in earlier:
                known.setdefault((number,), None)
        return
    if identity is not None:
        known.setdefault(tuple(result.inserted_primary_key), None)
        return
    keys = key_columns(table)
    for row in result.context.compiled_parameters:
        known.setdefault(tuple(row.get(column.key) for column in keys), None)


def _touch_groups(connection: Connection, touched: Touched, table: sa.Table, values: Iterable[Any]) -> None:
    known = touched.before.setdefault(table, {})
    for value in values:
        if (value,) not in known:
            known[(value,)] = group_digest(connection, table, value)


def sealed(connection: Connection, touched: Touched) -> dict[str, dict[str, list[str | None]]]:
    """What a transaction changed, for the journal: by table and key the digests before and after; None is no row."""
    found: dict[str, dict[str, list[str | None]]] = {}
    for table, before in touched.before.items():
        now = _present(connection, table, list(before))
        pairs = {key_text(key): [old, now.get(key)] for key, old in before.items() if old != now.get(key)}
        if pairs:
            found[table.name] = pairs
    return found


def _present(connection: Connection, table: sa.Table, keys: list[tuple[Any, ...]]) -> dict[tuple[Any, ...], str]:
    if table.name in GROUPED:
        digests = {key: group_digest(connection, table, key[0]) for key in keys}
        return {key: digest for key, digest in digests.items() if digest is not None}
    columns = key_columns(table)
    found: dict[tuple[Any, ...], str] = {}
    for start in range(0, len(keys), _LIST_MAX):
        part = keys[start : start + _LIST_MAX]
        if len(columns) == 1:
            where: sa.ColumnElement[bool] = columns[0].in_([key[0] for key in part])
        else:
            where = sa.or_(*(_is_row(columns, key) for key in part))
        found |= dict(_digests(connection, table, where, {}))
    return found


def _is_row(columns: Sequence[sa.Column[Any]], key: Sequence[Any]) -> sa.ColumnElement[bool]:
    pairs = zip(columns, key, strict=True)
    return sa.and_(*(column.is_(None) if value is None else column == value for column, value in pairs))


def _digests(
    connection: Connection, table: sa.Table, where: Any, parameters: Mapping[str, Any]
) -> Iterator[tuple[tuple[Any, ...], str]]:
    query = raw_select(table)
    rows = connection.execute(query if where is None else query.where(where), parameters)
    keys = key_getter(table)
    for row in rows:
        yield keys(row), row_digest(row)


@cache
def key_getter(table: sa.Table) -> Any:
    """A function that takes a row of `raw_select` and gives its key as a tuple."""
    names = [column.key for column in _digested(table)]
    places = [names.index(column.key) for column in key_columns(table)]
    if len(places) == 1:
        place = places[0]
        return lambda row: (row[place],)
    return itemgetter(*places)


def _digested(table: sa.Table) -> list[sa.Column[Any]]:
    exempt = exempt_columns(table)
    return [column for column in table.c if column.key not in exempt]


@cache
def raw_select(table: sa.Table) -> sa.Select[Any]:
    """All digested columns of a table as the driver gives them: a conversion might hide a change."""
    return sa.select(*(sa.type_coerce(column, _raw(column)).label(column.key) for column in _digested(table)))


def _raw(column: sa.Column[Any]) -> Any:
    is_long = isinstance(column.type, sa.Text) or isinstance(getattr(column.type, "impl", None), sa.Text)
    return clob() if is_long else sa.types.NullType()


def row_digest(row: Sequence[Any]) -> str:
    """SHA-256 of one row as JSON."""
    return hashlib.sha256(_json(list(row)).encode("utf-8", "surrogatepass")).hexdigest()


def group_digest(connection: Connection, table: sa.Table, value: Any) -> str | None:
    """The digest of all rows of a group; None if there are none."""
    group = table.c[GROUPED[table.name]]
    query = raw_select(table).where(group == value)
    if table is tables.failed_records:
        # The table has no index by chunk: the chunk's own row says between which numbers its records lie.
        chunk = tables.chunk
        ends = connection.execute(
            sa.select(chunk.c.failed_first, chunk.c.failed_last).where(chunk.c.audit_id == value)
        ).one_or_none()
        if ends is None or ends.failed_first is None:
            return None
        query = query.where(table.c.failed_id.between(ends.failed_first, ends.failed_last))
    digests = dict(_group_digests(connection, table, query))
    return digests.get(value)


def group_digests(connection: Connection, table: sa.Table) -> Digests:
    """The digest of each group of a table, by its key in text, by one reading of the table."""
    return {key_text((value,)): digest for value, digest in _group_digests(connection, table, raw_select(table))}


def _group_digests(connection: Connection, table: sa.Table, query: sa.Select[Any]) -> Iterator[tuple[Any, str]]:
    order = [column for column in table.primary_key.columns if column.key != GROUPED[table.name]]
    if connection.dialect.name == "postgresql":
        # By bytes, whatever the database's language is, since a copy elsewhere may have another.
        ordered: list[Any] = [
            sa.collate(column, "C") if isinstance(column.type, sa.String) else column for column in order
        ]
    else:
        ordered = list(order)
    group = _group_getter(table)
    sums: dict[Any, Any] = {}
    counts: dict[Any, int] = {}
    rows = connection.execute(query.order_by(*ordered), execution_options={"stream_results": True})
    for part in rows.partitions(_FETCH):
        for value, members in itertools.groupby(part, group):
            lines = [tuple(row) for row in members]
            text = "".join(map(_json, lines))
            sums.setdefault(value, hashlib.sha256()).update(text.encode("utf-8", "surrogatepass"))
            counts[value] = counts.get(value, 0) + len(lines)
    for value, made in sums.items():
        yield value, f"{counts[value]}:{made.hexdigest()}"


def _group_getter(table: sa.Table) -> Any:
    names = [column.key for column in _digested(table)]
    return itemgetter(names.index(GROUPED[table.name]))


def _json(value: Any) -> str:
    return _ENCODER.encode(value)


def _plain(value: Any) -> Any:
    """What JSON lacks, in one spelling on every database."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": bytes(value).hex()}
    _unknown(value)


def _unknown(value: Any) -> NoReturn:
    raise TypeError(f"a column of the audit database holds a {type(value).__name__}")


_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)


def payload_of(changes: Mapping[str, Any]) -> str:
    """The payload of a journal row `rows`."""
    return canonical_json(changes)
