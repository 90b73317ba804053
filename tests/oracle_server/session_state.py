"""What a session's statements are run with: who, when, in which zone, with which values bound."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from tests.oracle_server.catalog import User
from tests.oracle_server.expressions import Value
from tests.oracle_server.store import Store, Transaction
from tests.oracle_server.values import utc_now


@dataclass(slots=True)
class SessionState:
    """One session. `binds` are those of the statement under way, by where they stand in it."""

    store: Store
    user: User
    schema: str
    session_id: int
    serial: int
    service: str
    offset_minutes: int = 0
    transaction: Transaction | None = None
    binds: dict[int, Value] = field(default_factory=dict)
    now: datetime = field(default_factory=utc_now)
    attributes: dict[str, str] = field(default_factory=dict)
    formats: dict[str, str] = field(default_factory=dict)
    is_23ai: bool = True
    connected: bool = True

    def scn(self) -> int:
        """The SCN that a statement beginning now reads at."""
        transaction = self.transaction
        if transaction is not None and transaction.read_scn is not None:
            return transaction.read_scn
        return self.store.scn

    def bind(self, at: int) -> Value:
        return self.binds[at]

    def commit(self) -> None:
        self.store.commit(self.transaction)
        self.transaction = None

    def rollback(self) -> None:
        self.store.rollback(self.transaction)
        self.transaction = None
