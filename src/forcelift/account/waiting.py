"""What a batch waits for, and how many API calls it has made, told from one process to another by the journal.

Writes:  one row whenever the waits for hours, disk or a lost reply change, and one for calls every 15 s; holds of the
         org are rows of the governor.
Reads:   the last of both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from forcelift.audit import AuditReader, AuditStore, tables
from forcelift.audit.readings import CALLS_SO_FAR
from forcelift.jobs.holds import Wait, WaitKind
from forcelift.protocols.clock import Clock

WAITS = "waits"
"""Action of the journal: the waits as of then, all of them; an empty list where none is left."""

# Holds and changes in the number of jobs share one action of the journal; a hold that still lasts is among the last.
DECISIONS_LOOKED_AT = 20
_HOLD = re.compile(r"(?:hold|no new jobs) until (?P<until>\S+): (?P<reason>.*)", re.DOTALL)

CALLS_PAUSE_S = 15.0
"""Between two rows of the journal about API calls: what is lost of them if the process is killed."""

_TOLD = (
    WaitKind.WINDOW,
    WaitKind.DISK,
    WaitKind.REPLY,
)  # a pause is in the batch's control row, the org's holds are decisions


class WaitJournal:
    """Writes the waits down as they begin and end. An earlier process may have died while it waited."""

    def __init__(self, audit: AuditStore, batch_id: str) -> None:
        self._audit, self._batch_id = audit, batch_id
        self._told = [(wait["kind"], wait["until"]) for wait in _recorded(audit, batch_id)]

    def tell(self, waits: Sequence[Wait]) -> None:
        """Write a row if something began or ended since the last one; a figure in a reason is no change."""
        seen = [wait for wait in waits if wait.kind in _TOLD]
        # How long a write waits for a full disk is our own guess: only the hours have an end that is told.
        marks = [(wait.kind.value, _until(wait)) for wait in seen]
        if marks == self._told:
            return
        self._told = marks
        rows = [{"kind": wait.kind.value, "reason": wait.reason, "until": _until(wait)} for wait in seen]
        self._audit.journal(WAITS, {"waits": rows}, batch_id=self._batch_id)


class CallJournal:
    """Writes down how many API calls a process has made, so that they are known if it is killed.

    At its first look, and then at most every `CALLS_PAUSE_S` seconds.
    """

    def __init__(self, audit: AuditStore, batch_id: str, *, fence: int, clock: Clock) -> None:
        self._audit, self._batch_id, self._fence, self._clock = audit, batch_id, fence, clock
        self._next = clock.monotonic()
        self._told = -1

    def tell(self, calls: int) -> None:
        """Write it down if it is time to, and more were made since the last row."""
        if calls == self._told or self._clock.monotonic() < self._next:
            return
        self._told, self._next = calls, self._clock.monotonic() + CALLS_PAUSE_S
        self._audit.journal(CALLS_SO_FAR, {"fence": self._fence, "api_calls": calls}, batch_id=self._batch_id)


def waiting_for(audit: AuditReader, batch_id: str, now: datetime) -> str | None:
    """Why a batch that a process is at work on begins nothing at this instant; None if nothing holds it back."""
    for wait in _recorded(audit, batch_id):
        if wait["until"] is None:
            return str(wait["reason"])
        if datetime.fromisoformat(wait["until"]) > now:
            return f"{wait['reason']} (until {wait['until']})"
    for payload in _payloads(audit, batch_id, "governor", DECISIONS_LOOKED_AT):
        found = _HOLD.fullmatch(payload.get("decision", ""))
        if found is not None:
            until = datetime.fromisoformat(found["until"])
            return f"{found['reason']} (until {found['until']})" if until > now else None
    return None


def _until(wait: Wait) -> str | None:
    known = wait.kind is WaitKind.WINDOW and wait.until is not None
    return wait.until.isoformat(timespec="seconds") if known and wait.until is not None else None


def _recorded(audit: AuditReader, batch_id: str) -> list[dict[str, Any]]:
    for payload in _payloads(audit, batch_id, WAITS, 1):
        return list(payload["waits"])
    return []


def _payloads(audit: AuditReader, batch_id: str, action: str, count: int) -> list[dict[str, Any]]:
    query = (
        sa.select(tables.journal.c.payload)
        .where(tables.journal.c.batch_id == batch_id, tables.journal.c.action == action)
        .order_by(tables.journal.c.seq.desc())
        .limit(count)
    )
    with audit.read() as connection:
        return [json.loads(payload) for payload in connection.execute(query).scalars()]
