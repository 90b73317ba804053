"""What the server knows of users, tables and their parts; the rows are in `store`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from tests.oracle_server.errors import OracleError
from tests.oracle_server.parser import Node
from tests.oracle_server.types import OraType
from tests.oracle_server.values import SLOT_BITS, utc_now

ROWS_PER_BLOCK = 100
EXTENT_BLOCKS = 128
FIRST_BLOCK = 128
BLOCK_BYTES = 8192


@dataclass(slots=True, kw_only=True)
class ColumnDef:
    """A column. `default` is an expression as it was written, `identity` is `ALWAYS`, `BY DEFAULT` or None."""

    name: str
    type: OraType
    nullable: bool = True
    default: Node | None = None
    default_text: str | None = None
    identity: str | None = None
    on_null: bool = False
    comment: str | None = None


@dataclass(slots=True, kw_only=True)
class Constraint:
    """`P`rimary key, `U`nique, `R`eference or `C`heck."""

    name: str
    kind: str
    columns: tuple[str, ...] = ()
    parent: tuple[str, str] | None = None
    parent_key: str | None = None
    parent_columns: tuple[str, ...] = ()
    check: Node | None = None
    check_text: str | None = None
    generated: bool = False


@dataclass(slots=True, kw_only=True)
class Index:
    name: str
    columns: tuple[str, ...]
    unique: bool


@dataclass(slots=True, kw_only=True)
class Partition:
    """A range partition. `below` is the literal of its bound, None for MAXVALUE. Each has an object of its own."""

    name: str
    below: Node | None
    below_text: str
    data_object_id: int
    next_row: int = 0


@dataclass(slots=True, kw_only=True)
class Table:
    """A table. `rows_at` counts statistics as they were last gathered, None before that."""

    owner: str
    name: str
    columns: list[ColumnDef]
    object_id: int
    parts: list[Partition]
    constraints: list[Constraint] = field(default_factory=list)
    indexes: list[Index] = field(default_factory=list)
    partitioned_by: str | None = None
    comment: str | None = None
    next_identity: int = 1
    created_scn: int = 0
    oldest_scn: int = 0
    changed: datetime = field(default_factory=utc_now)
    statistics: tuple[int, int, int, datetime] | None = None

    @property
    def stored(self) -> str:
        """The DuckDB table's name."""
        return f"t{self.object_id}"

    def column(self, name: str) -> ColumnDef | None:
        return next((one for one in self.columns if one.name == name), None)

    def key(self) -> Constraint | None:
        return next((one for one in self.constraints if one.kind == "P"), None)

    def part(self, name: str) -> Partition:
        found = next((one for one in self.parts if one.name == name), None)
        if found is None or self.partitioned_by is None:
            raise OracleError(2149, detail="specified partition does not exist")
        return found


@dataclass(slots=True, kw_only=True)
class Sequence:
    owner: str
    name: str
    following: int = 1
    step: int = 1


@dataclass(slots=True, kw_only=True)
class User:
    """A user with a password and grants: words (`CREATE SESSION`, `DBA`), or (privilege, owner, table).

    Once `password_until` (the server's time) is over, nobody is let in, but for one who `is_in_grace`, who is warned.
    One with `external` is identified by a certificate of that name (IDENTIFIED EXTERNALLY AS 'CN=...').
    """

    name: str
    password: str
    granted: set[str] = field(default_factory=set)
    granted_on: set[tuple[str, str, str]] = field(default_factory=set)
    locked: bool = False
    password_until: datetime | None = None
    is_in_grace: bool = False
    external: str | None = None

    @property
    def is_expired(self) -> bool:
        return self.password_until is not None and self.password_until < utc_now() and not self.is_in_grace

    def may(self, privilege: str) -> bool:
        return "DBA" in self.granted or privilege in self.granted

    def may_on(self, privilege: str, owner: str, table: str) -> bool:
        return self.name == owner or "DBA" in self.granted or (privilege, owner, table) in self.granted_on


class Catalog:
    """All users and objects."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.tables: dict[tuple[str, str], Table] = {}
        self.sequences: dict[tuple[str, str], Sequence] = {}
        self._next_object = 70_000
        self._next_name = 8_000

    def new_object(self) -> int:
        self._next_object += 1
        return self._next_object

    def new_name(self) -> str:
        self._next_name += 1
        return f"SYS_C00{self._next_name}"

    def table(self, owner: str, name: str, user: User) -> Table:
        """The table if the user may know of it; ORA-00942 otherwise, as Oracle does not tell the two apart."""
        table = self.tables.get((owner, name))
        if table is None or not any(user.may_on(one, owner, name) for one in ("SELECT", "READ", "INSERT", "UPDATE")):
            raise OracleError(942)
        return table

    def children(self, table: Table) -> list[tuple[Table, Constraint]]:
        """References to a table, with where they stand."""
        key = (table.owner, table.name)
        return [(one, link) for one in self.tables.values() for link in one.constraints if link.parent == key]

    def drop(self, table: Table) -> None:
        del self.tables[table.owner, table.name]


def rowid_expression(data_object: int, first: int, position: str) -> str:
    """SQL that gives the ROWIDs of rows that are put behind the `first` ones; `position` counts from 0.

    Each data object is a file of its own, with blocks from 128 on and a hundred rows in a block.
    """
    file = data_object % 500 + 1
    base = data_object << 9 | file
    row = f"({first} + {position})"
    return (
        f"((({base}::BIGINT << 22) | ({FIRST_BLOCK} + {row} // {ROWS_PER_BLOCK})) << {SLOT_BITS})"
        f" | ({row} % {ROWS_PER_BLOCK})"
    )


def extents(part: Partition) -> list[tuple[int, int, int]]:
    """File, first block and blocks of each extent: sixteen of 8 blocks, then of 128."""
    file, start, found = part.data_object_id % 500 + 1, FIRST_BLOCK, []
    last = FIRST_BLOCK + max(part.next_row - 1, 0) // ROWS_PER_BLOCK
    while start <= last:
        size = 8 if len(found) < 16 else EXTENT_BLOCKS
        found.append((file, start, size))
        start += size
    return found
