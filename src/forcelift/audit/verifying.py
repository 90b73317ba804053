"""Was the audit database changed past the program? The chain is followed, and every covered row compared.

Reads:   all tables of the audit database, one after the other in one state of it, as streams.
Memory:  a digest for each row of a covered table, and for each chunk's failed records.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from msgspec import Struct, field
from sqlalchemy.engine import Connection, RowMapping

from forcelift.audit import cover, tables
from forcelift.audit.chain import FIRST_PREVIOUS, JournalHead, hash_of
from forcelift.audit.journal import Journal

_FAULTS_MAX = 100
_PAGES_MAX = 10
_FETCH = 2_000


class ChainFaults(Struct, frozen=True, kw_only=True):
    """What a look at the database found.

    Attributes:
        head: The journal's last row as recorded.
        faults: What differs, with where; at most 100.
        is_cut: Whether there are more faults than these.
        uncovered: Rows that another program may add, such as the checklist's own INSERT into MIGRATION_BACKUP_LOG.
        rows: Covered rows that were compared, failed records not counted.
        known_heads: Which of the heads that were asked for stand in the chain.
    """

    head: JournalHead
    faults: tuple[str, ...]
    is_cut: bool
    uncovered: int
    rows: int
    known_heads: frozenset[str]


class _Chain(Struct):
    """What following the chain has found so far."""

    faults: list[str] = field(default_factory=list)
    digests: dict[str, dict[str, str | None]] = field(default_factory=dict)
    known_heads: set[str] = field(default_factory=set)


class Verifying(Journal):
    """Looks for changes made past the program."""

    def verify_journal(self) -> list[str]:
        """The faults found, at most 100; none is a database that nobody changed past the program."""
        return list(self.verify_rows().faults)

    def verify_rows(self, heads: frozenset[str] = frozenset()) -> ChainFaults:
        """Follow the journal's chain and compare every covered row with its last digest there.

        Args:
            heads: Hashes that were printed earlier, each of which must stand in the chain.
        """
        with self.read() as connection, _any_bytes(connection):
            chain = _Chain(faults=_broken_pages(connection))
            last = _follow(connection, chain, heads)
            head = _recorded_head(connection, chain)
            if last != head:
                chain.faults.append(f"the journal ends with row {last.seq}, but its recorded head is row {head.seq}")
            if FIRST_PREVIOUS in heads:
                chain.known_heads.add(FIRST_PREVIOUS)
            uncovered = rows = 0
            for table in cover.covered_tables():
                known = chain.digests.pop(table.name, {})
                faults, seen, others = _compare(connection, table, known)
                chain.faults += faults
                rows, uncovered = rows + seen, uncovered + others
            for name in chain.digests:
                chain.faults.append(f"the journal speaks of a table `{name}` that this version does not know")
        return ChainFaults(
            head=head,
            faults=tuple(chain.faults[:_FAULTS_MAX]),
            is_cut=len(chain.faults) > _FAULTS_MAX,
            uncovered=uncovered,
            rows=rows,
            known_heads=frozenset(chain.known_heads),
        )


@contextmanager
def _any_bytes(connection: Connection) -> Iterator[None]:
    """Have SQLite hand out texts whose bytes are no UTF-8: a changed byte is to be told, and not to end the look."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    earlier = driver.text_factory
    driver.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    try:
        yield
    finally:
        driver.text_factory = earlier


def _broken_pages(connection: Connection) -> list[str]:
    """What SQLite itself finds wrong, as in an index: rows are compared past those, but other commands go by them."""
    if connection.dialect.name != "sqlite":
        return []
    told = connection.exec_driver_sql(f"PRAGMA integrity_check({_PAGES_MAX})").scalars()
    return [f"SQLite: {line}" for line in told if line != "ok"]


def _recorded_head(connection: Connection, chain: _Chain) -> JournalHead:
    head = tables.journal_head.c
    rows = connection.execute(sa.select(head.one, head.seq, head.hash)).all()
    if len(rows) > 1:
        chain.faults.append(f"the journal has {len(rows)} recorded heads")
    if any(row.one != 1 for row in rows):
        chain.faults.append("the mark of the journal's recorded head was changed")
    return JournalHead(seq=rows[0].seq, hash=rows[0].hash) if rows else JournalHead(seq=0, hash=FIRST_PREVIOUS)


def _follow(connection: Connection, chain: _Chain, heads: frozenset[str]) -> JournalHead:
    previous, seq = FIRST_PREVIOUS, 0
    query = sa.select(*(sa.type_coerce(column, column.type).label(column.key) for column in tables.journal.c))
    rows = connection.execute(
        query.order_by(tables.journal.c.seq), execution_options={"stream_results": True, "yield_per": _FETCH}
    )
    for row in rows.mappings():
        seq += 1
        chain.faults += _row_faults(row, seq=seq, previous=previous)
        # Going on from what the row says, one changed row is reported once and not for all that follow.
        previous, seq = str(row["hash"]), row["seq"] if isinstance(row["seq"], int) else seq
        if previous in heads:
            chain.known_heads.add(previous)
        if row["action"] == cover.ACTION:
            chain.faults += _remember(chain.digests, row)
    return JournalHead(seq=seq, hash=previous)


def _row_faults(row: RowMapping, *, seq: int, previous: str) -> list[str]:
    if row["seq"] != seq:
        return [f"row {seq} of the journal is missing"]
    faults = []
    if row["previous"] != previous:
        faults.append(f"row {seq} of the journal does not follow the row before it")
    if row["hash"] != _hash(row):
        faults.append(f"row {seq} of the journal was changed")
    return faults


def _hash(row: RowMapping) -> str | None:
    try:
        return hash_of(row)
    except TypeError:
        # A value of another type than the program writes.
        return None


def _remember(digests: dict[str, dict[str, str | None]], row: RowMapping) -> list[str]:
    """Take over the digests of one journal row; what it says of before must be what was said last."""
    try:
        changes = json.loads(row["payload"])
        pairs = [(name, key, old, new) for name, rows in changes.items() for key, (old, new) in rows.items()]
    except (ValueError, TypeError, AttributeError):
        # A changed row, which is reported by its hash.
        return []
    faults = []
    for name, key, old, new in pairs:
        known = digests.setdefault(name, {})
        if known.get(key) != old:
            when = f"before row {row['seq']} of the journal"
            faults.append(f"{_named(name, key)} was changed past the journal, {when}")
        known[key] = new
    return faults


def _compare(connection: Connection, table: sa.Table, known: Mapping[str, str | None]) -> tuple[list[str], int, int]:
    """Compare a table with its digests. Returns the faults, the rows seen, and those that others may add."""
    faults: list[str] = []
    present: set[str] = set()
    seen = others = 0
    for key, digest in _present(connection, table):
        seen += 1
        if key in present:
            faults.append(f"{_named(table.name, key)} is there twice")
        present.add(key)
        expected = known.get(key)
        if expected is None and table is tables.backup_log:
            others += 1
        elif expected is None:
            faults.append(f"{_named(table.name, key)} was added past the journal")
        elif expected != digest:
            faults.append(f"{_named(table.name, key)} was changed past the journal{_difference(expected, digest)}")
    gone = [key for key, digest in known.items() if digest is not None and key not in present]
    faults += [f"{_named(table.name, key)} is gone" for key in gone]
    return faults, seen, others


def _present(connection: Connection, table: sa.Table) -> Iterator[tuple[str, str]]:
    if table.name in cover.GROUPED:
        yield from cover.group_digests(connection, table).items()
        return
    keys = cover.key_getter(table)
    rows = connection.execute(cover.raw_select(table), execution_options={"stream_results": True, "yield_per": _FETCH})
    for row in rows:
        yield cover.key_text(keys(row)), cover.row_digest(row)


def _named(table: str, key: str) -> str:
    if table in cover.GROUPED:
        return f"{table}: the records of the chunk with AUDIT_ID {key}"
    if table == tables.audit_log.name:
        return f"the row with AUDIT_ID {key}"
    return f"{table}: the row {key}"


def _difference(expected: str, found: str) -> str:
    """How many records there were and are, where digests of a group tell."""
    before, now = expected.partition(":")[0], found.partition(":")[0]
    return f" ({before} records then, {now} now)" if ":" in expected and before != now else ""
