"""Rows in versions: transactions, read consistency and SCNs over an embedded DuckDB.

Every version of a row carries the SCN at which it was born and died. What a transaction has not committed carries its
number, negated, and the number of its statement; a commit stamps both with the new SCN. So any statement, and
`AS OF SCN`, sees the state of one moment, and a session sees its own changes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import duckdb
from tests.oracle_server.catalog import Catalog, Table
from tests.oracle_server.errors import OracleError
from tests.oracle_server.functions import register
from tests.oracle_server.values import utc_now

ALIVE = 2**62
STATEMENT_BITS = 20
FIRST_SCN = 8_500_000_000
BORN, DIED, RID = '"born#"', '"died#"', '"rid#"'


@dataclass(slots=True)
class Transaction:
    """What one session has changed and locked since its last commit."""

    number: int
    statement: int = 0
    tables: dict[str, Table] = field(default_factory=dict)
    locks: set[tuple[str, int]] = field(default_factory=set)
    savepoints: dict[str, int] = field(default_factory=dict)
    read_scn: int | None = None
    read_only: bool = False

    @property
    def mark(self) -> int:
        """What versions of the statement under way carry."""
        return -(self.number << STATEMENT_BITS | self.statement)

    def own(self, column: str, after: int = 0) -> str:
        """A condition: this transaction's mark, of a statement after that one."""
        low, high = -((self.number + 1) << STATEMENT_BITS) + 1, -(self.number << STATEMENT_BITS | after)
        return f"({column} >= {low} AND {column} <{'=' if not after else ''} {high})"


class Store:
    """The rows, the clock of SCNs, and the locks.

    `latch` is held while versions are written, never while a session waits for another one.
    """

    def __init__(self) -> None:
        self.catalog = Catalog()
        self.latch = threading.RLock()
        self.changed = threading.Condition(self.latch)
        self.scn = FIRST_SCN
        self.undo_floor = FIRST_SCN
        self.moments: list[tuple[int, datetime]] = [(FIRST_SCN, utc_now())]
        self.undo_retention_s = 900
        self.is_standby = False
        self.free_blocks = 1_000_000  # of the tablespace USERS
        self.charset = "AL32UTF8"
        self.extended_strings = False  # MAX_STRING_SIZE
        self.has_broken_text = False
        self.withheld: set[str] = set()  # packages that PUBLIC may not run here
        self.tasks: dict[tuple[str, str], list[tuple[int, ...]]] = {}
        self._database = duckdb.connect(":memory:", config={"threads": 2})
        register(self._database)
        self._next_transaction = 1
        self._active: dict[int, Transaction] = {}
        self._row_locks: dict[tuple[str, int], int] = {}
        # Tables that LOCK TABLE keeps from other writers, with the transaction that did.
        self.locked_tables: dict[str, int] = {}
        self._waits_for: dict[int, int] = {}
        self._writer = self._database.cursor()

    @property
    def role(self) -> tuple[str, str]:
        """OPEN_MODE and DATABASE_ROLE."""
        return ("READ ONLY WITH APPLY", "PHYSICAL STANDBY") if self.is_standby else ("READ WRITE", "PRIMARY")

    @property
    def varchar_max(self) -> int:
        """Bytes of the longest VARCHAR2."""
        return 32_767 if self.extended_strings else 4_000

    @property
    def raw_max(self) -> int:
        """Bytes of the longest RAW."""
        return 32_767 if self.extended_strings else 2_000

    def bytes_of(self, text: str) -> str:
        """SQL of a text's length in the database's bytes; but for AL32UTF8 its character sets have one for a letter."""
        return f"{'strlen' if self.charset == 'AL32UTF8' else 'length'}({text})"

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own, so that its result stays open beside others."""
        return self._database.cursor()

    def close(self) -> None:
        self._database.close()

    # Reading.

    def visible(self, scn: int, transaction: Transaction | None) -> str:
        """The condition for the versions that a statement at that SCN sees."""
        if transaction is None or transaction.read_only:
            return f"({BORN} BETWEEN 0 AND {scn} AND ({DIED} > {scn} OR {DIED} < 0))"
        born = f"({BORN} BETWEEN 0 AND {scn} OR {transaction.own(BORN)})"
        return f"({born} AND ({DIED} > {scn} OR ({DIED} < 0 AND NOT {transaction.own(DIED)})))"

    def check_past(self, scn: int, table: Table) -> None:
        """Whether a table can be read as of an SCN."""
        if scn > self.scn:
            raise OracleError(8181)
        if scn < self.undo_floor:
            raise OracleError(1555)
        if scn < table.created_scn:
            raise OracleError(1466)

    def scn_at(self, moment: datetime) -> int:
        """The SCN that was current at a moment."""
        if moment > utc_now() + timedelta(seconds=3):
            raise OracleError(8180)
        before = [scn for scn, at in self.moments if at <= moment]
        if not before:
            raise OracleError(8180)
        return before[-1]

    # Writing.

    def begin(self, transaction: Transaction | None) -> Transaction:
        """The session's transaction, begun if there is none."""
        if self.is_standby:
            raise OracleError(16000)
        with self.latch:
            if transaction is None:
                transaction = Transaction(self._next_transaction)
                self._next_transaction += 1
                self._active[transaction.number] = transaction
            if transaction.read_only:
                raise OracleError(1456)
            transaction.statement += 1
            return transaction

    def write(self, work: Callable[[duckdb.DuckDBPyConnection], Any]) -> Any:
        """Do one statement's writes whole or not at all. The latch is held."""
        self._writer.execute("BEGIN")
        try:
            result = work(self._writer)
        except BaseException:
            self._writer.execute("ROLLBACK")
            raise
        self._writer.execute("COMMIT")
        return result

    def commit(self, transaction: Transaction | None) -> None:
        if transaction is None:
            return
        with self.latch:
            following = self.scn + 1

            def stamp(writer: duckdb.DuckDBPyConnection) -> None:
                for table in transaction.tables.values():
                    if self.catalog.tables.get((table.owner, table.name)) is table:
                        for column in (BORN, DIED):
                            mine = transaction.own(column)
                            writer.execute(f"UPDATE {table.stored} SET {column} = {following} WHERE {mine}")

            if transaction.tables:
                self.write(stamp)
                self.advance()
            self._end(transaction)

    def advance(self) -> int:
        """The next SCN, as every commit and definition takes one."""
        with self.latch:
            self.scn += 1
            self.moments.append((self.scn, utc_now()))
            return self.scn

    def rollback(self, transaction: Transaction | None, savepoint: str | None = None) -> None:
        """Undo all, or what came after a savepoint."""
        if transaction is None:
            if savepoint is not None:
                raise OracleError(1086, savepoint)
            return
        if savepoint is not None and savepoint not in transaction.savepoints:
            raise OracleError(1086, savepoint)
        after = 0 if savepoint is None else transaction.savepoints[savepoint]
        with self.latch:

            def undo(writer: duckdb.DuckDBPyConnection) -> None:
                for table in transaction.tables.values():
                    if self.catalog.tables.get((table.owner, table.name)) is table:
                        writer.execute(f"DELETE FROM {table.stored} WHERE {transaction.own(BORN, after)}")
                        mine = transaction.own(DIED, after)
                        writer.execute(f"UPDATE {table.stored} SET {DIED} = {ALIVE} WHERE {mine}")

            self.write(undo)
            if savepoint is None:
                self._end(transaction)

    def _end(self, transaction: Transaction) -> None:
        for lock in transaction.locks:
            self._row_locks.pop(lock, None)
        for stored in [stored for stored, number in self.locked_tables.items() if number == transaction.number]:
            del self.locked_tables[stored]
        self._active.pop(transaction.number, None)
        self.changed.notify_all()

    # Locks.

    def holder(self, table: Table, rid: int, died: int, transaction: Transaction) -> int | None:
        """The other transaction that holds a row, if one does."""
        pending = (-died) >> STATEMENT_BITS if died < 0 else None
        locked = self._row_locks.get((table.stored, rid))
        return next((one for one in (pending, locked) if one is not None and one != transaction.number), None)

    def lock(self, table: Table, rids: list[int], transaction: Transaction) -> None:
        for rid in rids:
            transaction.locks.add((table.stored, rid))
            self._row_locks[table.stored, rid] = transaction.number

    def active(self) -> list[Transaction]:
        """The transactions under way."""
        return list(self._active.values())

    def table_holder(self, table: Table, transaction: Transaction) -> int | None:
        """The other transaction that keeps the whole table locked, if one does."""
        holder = self.locked_tables.get(table.stored)
        return None if holder == transaction.number else holder

    def locks_on(self, table: Table) -> bool:
        return any(stored == table.stored for stored, _ in self._row_locks)

    def wait_for(
        self, other: int, transaction: Transaction, *, seconds: int = -1, is_cancelled: Callable[[], bool]
    ) -> None:
        """Wait until a transaction ends; the latch is held, and given up meanwhile.

        Raises:
            OracleError: 54 after `seconds` (30006 in a real server for WAIT), 60 if each waits for the other, 1013.
        """
        self._waits_for[transaction.number] = other
        deadline = None if seconds < 0 else time.monotonic() + seconds
        try:
            step: int | None = other
            while step is not None:
                if step == transaction.number:
                    raise OracleError(60)
                step = self._waits_for.get(step)
            while other in self._active:
                if deadline is not None and time.monotonic() >= deadline:
                    raise OracleError(54)
                if is_cancelled():
                    raise OracleError(1013)
                self.changed.wait(0.02)
        finally:
            self._waits_for.pop(transaction.number, None)

    def forget_before(self, scn: int) -> None:
        """Lose the undo of everything before an SCN: older snapshots then are too old."""
        with self.latch:
            self.undo_floor = max(self.undo_floor, scn)

            def purge(writer: duckdb.DuckDBPyConnection) -> None:
                for table in self.catalog.tables.values():
                    writer.execute(f"DELETE FROM {table.stored} WHERE {DIED} BETWEEN 0 AND {self.undo_floor - 1}")

            self.write(purge)
