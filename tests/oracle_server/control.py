"""Statements about the session and its transaction."""

from __future__ import annotations

import re

from tests.oracle_server.errors import OracleError, not_taught
from tests.oracle_server.parser import Parser
from tests.oracle_server.session_state import SessionState
from tests.oracle_server.store import Transaction

WORDS = ("COMMIT", "ROLLBACK", "SAVEPOINT", "SET")


def control(state: SessionState, statement: str) -> None:
    """COMMIT, ROLLBACK, SAVEPOINT, SET TRANSACTION, ALTER SESSION."""
    parser = Parser(statement)
    if parser.takes("COMMIT"):
        parser.takes("WORK")
        parser.finish()
        state.commit()
    elif parser.takes("ROLLBACK"):
        parser.takes("WORK")
        savepoint = None
        if parser.takes("TO"):
            parser.takes("SAVEPOINT")
            savepoint = parser.identifier()
        parser.finish()
        if savepoint is None:
            state.rollback()
        else:
            state.store.rollback(state.transaction, savepoint)
    elif parser.takes("SAVEPOINT"):
        name = parser.identifier()
        parser.finish()
        state.transaction = state.store.begin(state.transaction)
        state.transaction.savepoints[name] = state.transaction.statement
    elif parser.takes("SET", "TRANSACTION"):
        _set_transaction(state, parser)
    elif parser.takes("ALTER", "SESSION"):
        _alter_session(state, parser)
    else:
        raise not_taught(f"{parser.here.text or 'an empty statement'}")


def _set_transaction(state: SessionState, parser: Parser) -> None:
    if state.transaction is not None:
        raise OracleError(1453, detail="SET TRANSACTION must be first statement of transaction")
    if parser.takes("READ", "ONLY"):
        parser.finish()
        # A number of its own is not needed: nothing is written.
        state.transaction = Transaction(0, read_scn=state.store.scn, read_only=True)
    elif parser.takes("ISOLATION", "LEVEL", "READ", "COMMITTED") or parser.takes("READ", "WRITE"):
        parser.finish()
    else:
        raise not_taught("this SET TRANSACTION")


def _alter_session(state: SessionState, parser: Parser) -> None:
    parser.expect("SET")
    while parser.here.kind == "word":
        name = parser.identifier()
        parser.expect("=")
        token = parser.next()
        if name == "TIME_ZONE":
            found = re.fullmatch(r"([+-])(\d{1,2}):(\d{2})", token.text)
            if found is None:
                if token.text.upper() not in ("UTC", "DBTIMEZONE"):
                    raise not_taught("session time zones by region")
                state.offset_minutes = 0
            else:
                minutes = int(found[2]) * 60 + int(found[3])
                state.offset_minutes = -minutes if found[1] == "-" else minutes
        elif name == "CURRENT_SCHEMA":
            state.schema = token.text
        elif name.startswith("NLS_"):
            # Kept, and never used: conversions without a format are refused.
            state.formats[name] = token.text
        else:
            raise not_taught(f"ALTER SESSION SET {name}")
    parser.finish()
