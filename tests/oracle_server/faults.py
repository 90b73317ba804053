"""Faults that a test orders: where they strike, how often, and what they do."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Fault:
    """One order.

    Args:
        at: `connect`, `execute` or `fetch`.
        action: `drop` closes the connection (the client sees ORA-03113), `mute` says nothing any more (ORA-12170 at
            connect), `error` answers with `code`, `refuse` is the listener's refusal with `code`, `slow` waits.
        match: Only statements with this text in them.
        after_rows: For `fetch`: once the cursor has handed out so many rows.
        times: How often; then it is spent.
        seconds: For `slow`.
    """

    at: str
    action: str
    code: int = 0
    match: str = ""
    after_rows: int = 0
    times: int = 1
    seconds: float = 0.0


class Faults:
    """The orders that stand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: list[Fault] = []
        self.struck: list[str] = []

    def order(self, fault: Fault) -> None:
        with self._lock:
            self._orders.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._orders.clear()

    def strike(self, at: str, statement: str = "", rows: int = 0) -> Fault | None:
        """The fault that strikes here, counted; None if there is none."""
        with self._lock:
            for fault in self._orders:
                if fault.at == at and fault.times > 0 and fault.match in statement and rows >= fault.after_rows:
                    fault.times -= 1
                    self.struck.append(f"{fault.at}:{fault.action}")
                    return fault
        return None
