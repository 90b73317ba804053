"""LOCK TABLE ... IN EXCLUSIVE MODE: nobody else changes the table until the transaction ends; everybody may read it."""

from __future__ import annotations

from collections.abc import Callable

from tests.oracle_server.catalog import Table
from tests.oracle_server.errors import OracleError, not_taught
from tests.oracle_server.parser import Parser
from tests.oracle_server.session_state import SessionState
from tests.oracle_server.store import Store, Transaction


def lock_table(state: SessionState, statement: str, is_cancelled: Callable[[], bool]) -> None:
    """Carry out LOCK TABLE; waits for transactions that have changed the table or hold its rows."""
    parser = Parser(statement)
    parser.expect("LOCK", "TABLE")
    owner, name = parser.name()
    owner = owner or state.schema
    if not parser.takes("IN", "EXCLUSIVE", "MODE"):
        raise not_taught("LOCK TABLE in another mode than EXCLUSIVE")
    seconds = -1
    if parser.takes("NOWAIT"):
        seconds = 0
    elif parser.takes("WAIT"):
        seconds = parser.whole()
    parser.finish()
    store = state.store
    table = store.catalog.table(owner, name, state.user)
    if state.user.name != owner and not state.user.may_on("UPDATE", owner, name):
        raise OracleError(1031)
    with store.latch:
        state.transaction = transaction = store.begin(state.transaction)
        while (other := _other_user(store, table, transaction)) is not None:
            if seconds == 0:
                raise OracleError(54)
            try:
                store.wait_for(other, transaction, seconds=seconds, is_cancelled=is_cancelled)
            except OracleError as error:
                raise (OracleError(30006) if error.code == 54 else error) from error
        store.locked_tables[table.stored] = transaction.number


def _other_user(store: Store, table: Table, transaction: Transaction) -> int | None:
    """Another transaction that has the table locked, has changed it, or holds rows of it."""
    holder = store.table_holder(table, transaction)
    if holder is not None:
        return holder
    for other in store.active():
        rows = any(stored == table.stored for stored, _ in other.locks)
        if other.number != transaction.number and (table.stored in other.tables or rows):
            return other.number
    return None
