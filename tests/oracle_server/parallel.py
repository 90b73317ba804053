"""DBMS_PARALLEL_EXECUTE: a task, and a table's chunks by ROWID. Everybody may run it; every routine commits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.oracle_server.catalog import ROWS_PER_BLOCK, extents
from tests.oracle_server.errors import OracleError
from tests.oracle_server.session_state import SessionState
from tests.oracle_server.values import SLOT_MAX, pack_rowid

_Arguments = dict[str | int, Any]
PACKAGE = "DBMS_PARALLEL_EXECUTE"


def _argument(arguments: _Arguments, at: int, name: str) -> Any:
    return arguments.get(at, arguments.get(name))


def _begin(state: SessionState) -> None:
    if state.store.is_standby:
        raise OracleError(16000)
    if PACKAGE in state.store.withheld:
        raise OracleError(6550, detail=f"PLS-00201: identifier '{PACKAGE}' must be declared")
    transaction = state.transaction
    if transaction is not None and transaction.read_only:
        raise OracleError(1456)


def _create(state: SessionState, arguments: _Arguments, _: Callable[[], bool]) -> None:
    _begin(state)
    key = (state.user.name, _argument(arguments, 0, "TASK_NAME"))
    if key in state.store.tasks:
        raise OracleError(29497)
    state.store.tasks[key] = []
    state.commit()


def _task(state: SessionState, arguments: _Arguments) -> tuple[str, str]:
    key = (state.user.name, _argument(arguments, 0, "TASK_NAME"))
    if key not in state.store.tasks:
        raise OracleError(29498)
    return key


def _drop(state: SessionState, arguments: _Arguments, _: Callable[[], bool]) -> None:
    _begin(state)
    del state.store.tasks[_task(state, arguments)]
    state.commit()


def _by_rowid(state: SessionState, arguments: _Arguments, _: Callable[[], bool]) -> None:
    _begin(state)
    key = _task(state, arguments)
    owner, name = _argument(arguments, 1, "TABLE_OWNER"), _argument(arguments, 2, "TABLE_NAME")
    table = state.store.catalog.table(owner, name, state.user)
    size = int(_argument(arguments, 4, "CHUNK_SIZE"))
    blocks = max(1, size // ROWS_PER_BLOCK if _argument(arguments, 3, "BY_ROW") else size)
    chunks = state.store.tasks[key]
    for part in table.parts:
        for file, block, count in extents(part):
            for first in range(block, block + count, blocks):
                last = min(first + blocks, block + count) - 1
                ends = ((first, 0), (last, SLOT_MAX))
                chunks.append(tuple(pack_rowid(part.data_object_id, file, *end) for end in ends))
    state.commit()


def chunk_rows(state: SessionState) -> Iterator[tuple[Any, ...]]:
    """USER_PARALLEL_EXECUTE_CHUNKS."""
    number = 0
    for (owner, task), chunks in sorted(state.store.tasks.items()):
        for start, end in chunks:
            number += 1
            if owner == state.user.name:
                yield (number, task, "UNASSIGNED", start, end)


PROCEDURES: dict[str, Callable[[SessionState, _Arguments, Callable[[], bool]], Any]] = {
    f"{PACKAGE}.CREATE_TASK": _create,
    f"{PACKAGE}.CREATE_CHUNKS_BY_ROWID": _by_rowid,
    f"{PACKAGE}.DROP_TASK": _drop,
}
