"""PL/SQL: blocks of calls to a few supplied packages. No other PL/SQL was taught."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from tests.oracle_server import parallel
from tests.oracle_server.errors import OracleError, not_taught
from tests.oracle_server.parser import Node, Parser
from tests.oracle_server.session_state import SessionState
from tests.oracle_server.views import gather


def run(state: SessionState, statement: str, given: dict[str, Any], is_cancelled: Callable[[], bool]) -> dict[str, Any]:
    """Run `BEGIN calls END;`; what its binds were given, by name."""
    results: dict[str, Any] = {}
    for target, name, arguments in _calls(statement, given):
        result = _PROCEDURES[name](state, arguments, is_cancelled)
        if target is not None:
            results[target] = result
    return results


def _calls(statement: str, given: dict[str, Any]) -> list[tuple[str | None, str, dict[str | int, Any]]]:
    """The calls of a block: the bind that each is assigned to, its name, its arguments. All before the first is run."""
    parser = Parser(statement)
    calls: list[tuple[str | None, str, dict[str | int, Any]]] = []
    if not parser.takes("BEGIN"):
        raise not_taught("PL/SQL other than calls of supplied procedures")
    while not parser.takes("END"):
        target = None
        if parser.here.kind == "bind":
            target = parser.next().text
            parser.expect(":=", code=6550)
        name, arguments = _called(parser, given)
        if name not in _PROCEDURES or not parser.takes(";"):
            raise not_taught(f"the procedure {name}, or what follows it")
        calls.append((target, name, arguments))
    parser.finish()
    return calls


def _called(parser: Parser, given: dict[str, Any]) -> tuple[str, dict[str | int, Any]]:
    if parser.here.kind != "word" or parser.sees("NULL"):
        raise not_taught("PL/SQL other than calls of supplied procedures")
    parts = [parser.identifier()]
    while parser.takes("."):
        parts.append(parser.identifier())
    arguments: dict[str | int, Any] = {}
    if parser.takes("("):
        while not parser.takes(")"):
            key: str | int = len(arguments)
            if parser.here.kind == "word" and parser.ahead().text == "=>":
                key = parser.identifier()
                parser.expect("=>")
            arguments[key] = _constant(parser.expression(), given)
            parser.takes(",")
    return ".".join(parts), arguments


def _constant(node: Node, given: dict[str, Any]) -> Any:
    if node.kind == "string":
        return node.parts[0] or None
    if node.kind == "number":
        return Decimal(node.parts[0])
    if node.kind == "bind":
        return given.get(node.parts[0])
    if node.kind == "null":
        return None
    if node.kind == "name" and node.parts in (("TRUE",), ("FALSE",)):
        return node.parts == ("TRUE",)
    raise not_taught("expressions as arguments of procedures")


def _argument(arguments: dict[str | int, Any], at: int, name: str) -> Any:
    return arguments.get(at, arguments.get(name))


def _set_module(state: SessionState, arguments: dict[str | int, Any], _: Callable[[], bool]) -> None:
    state.attributes["MODULE"] = _argument(arguments, 0, "MODULE_NAME") or ""
    state.attributes["ACTION"] = _argument(arguments, 1, "ACTION_NAME") or ""


def _set_action(state: SessionState, arguments: dict[str | int, Any], _: Callable[[], bool]) -> None:
    state.attributes["ACTION"] = _argument(arguments, 0, "ACTION_NAME") or ""


def _gather(state: SessionState, arguments: dict[str | int, Any], _: Callable[[], bool]) -> None:
    owner = _argument(arguments, 0, "OWNNAME") or state.schema
    gather(state, state.store.catalog.table(owner, _argument(arguments, 1, "TABNAME") or "", state.user))


def _sleep(state: SessionState, arguments: dict[str | int, Any], is_cancelled: Callable[[], bool]) -> None:
    until = time.monotonic() + float(_argument(arguments, 0, "SECONDS"))
    while time.monotonic() < until:
        if is_cancelled():
            raise OracleError(1013)
        time.sleep(0.005)


def _transaction_id(state: SessionState, arguments: dict[str | int, Any], _: Callable[[], bool]) -> str | None:
    transaction = state.transaction
    return f"7.{transaction.number % 34}.{transaction.number}" if transaction else None


_PROCEDURES: dict[str, Callable[[SessionState, dict[str | int, Any], Callable[[], bool]], Any]] = {
    "DBMS_APPLICATION_INFO.SET_MODULE": _set_module,
    "DBMS_APPLICATION_INFO.SET_ACTION": _set_action,
    "DBMS_STATS.GATHER_TABLE_STATS": _gather,
    "DBMS_SESSION.SLEEP": _sleep,
    "DBMS_TRANSACTION.LOCAL_TRANSACTION_ID": _transaction_id,
    **parallel.PROCEDURES,
}
