"""The journal: what moved and when, in rows that each carry the hash of the one before.

A changed, removed, added or reordered row breaks the chain; a chain cut off at its end differs from its recorded head;
an audit row changed past the journal differs from its digest here. No personal values stand in hashed text, so deleting
personal data leaves the chain whole. Who can rewrite the whole file can rewrite the chain: its head belongs into
reports that are kept elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from forcelift.audit import tables
from forcelift.audit.database import Database
from forcelift.audit.types import canonical_json

FIRST_PREVIOUS = "0" * 64
_FAULTS_MAX = 100

# What the digest of an audit row covers: all but free texts, which a purge may empty, and what `validate` adds later.
_DIGESTED = tuple(
    column
    for column in tables.audit_log.c
    if column.key not in ("error_message", "error_details", "target_checksum", "created_date")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalHead:
    """The last row of the journal: whoever keeps it can tell later that nothing before it was changed."""

    seq: int
    hash: str


class Journal(Database):
    """The part of the audit database that only grows."""

    def journal(self, action: str, payload: Mapping[str, Any], *, batch_id: str | None = None) -> JournalHead:
        """Append one row. `payload` is JSON without personal values; `action` is a word of at most 40 letters."""
        with self.write() as connection:
            return append(connection, self.clock.now(), action, payload, batch_id=batch_id)

    def journal_head(self) -> JournalHead:
        """The journal's last row; number 0 and a hash of zeros while it is empty."""
        with self.read() as connection:
            return _head(connection)

    def verify_journal(self) -> list[str]:
        """Look for changes made past the program. Returns the faults found, at most 100; none is a whole journal."""
        faults: list[str] = []
        digests: dict[int, str] = {}
        with self.read() as connection:
            previous, seq = FIRST_PREVIOUS, 0
            rows = connection.execution_options(stream_results=True).execute(
                sa.select(tables.journal).order_by(tables.journal.c.seq)
            )
            for row in rows.mappings():
                seq += 1
                faults += _row_faults(row, seq=seq, previous=previous)
                # Going on from what the row says, one changed row is reported once and not for all that follow.
                previous, seq = row["hash"], row["seq"]
                _remember_digest(digests, row["payload"])
                if len(faults) >= _FAULTS_MAX:
                    return faults[:_FAULTS_MAX]
            head = _head(connection)
            if (head.seq, head.hash) != (seq, previous):
                faults.append(f"the journal ends with row {seq}, but its recorded head is row {head.seq}")
            faults += _digest_faults(connection, digests)
        return faults[:_FAULTS_MAX]


def append(
    connection: Connection, now: datetime, action: str, payload: Mapping[str, Any], *, batch_id: str | None = None
) -> JournalHead:
    """Append one row inside a transaction that is under way."""
    head = _head(connection)
    row: dict[str, Any] = {
        "seq": head.seq + 1,
        "at": now.astimezone(UTC).isoformat(timespec="microseconds"),
        "action": action,
        "batch_id": batch_id or None,  # Oracle would read an empty one back as null, and the hash would differ
        "payload": canonical_json(payload),
        "previous": head.hash,
    }
    row["hash"] = _hash(row)
    connection.execute(tables.journal.insert(), row)
    new_head = {"seq": row["seq"], "hash": row["hash"]}
    if head.seq == 0:
        connection.execute(tables.journal_head.insert(), {"one": 1, **new_head})
    else:
        connection.execute(tables.journal_head.update().values(**new_head))
    return JournalHead(**new_head)


def append_chunk(
    connection: Connection,
    now: datetime,
    action: str,
    audit_id: int,
    payload: Mapping[str, Any],
    *,
    batch_id: str,
) -> None:
    """Append a row about a chunk, with the digest of its audit row as it stands now in this transaction."""
    digest = _audit_digests(connection, [audit_id])[audit_id]
    append(connection, now, action, {**payload, "audit_id": audit_id, "audit_row": digest}, batch_id=batch_id)


def _head(connection: Connection) -> JournalHead:
    row = connection.execute(sa.select(tables.journal_head.c.seq, tables.journal_head.c.hash)).one_or_none()
    return JournalHead(seq=0, hash=FIRST_PREVIOUS) if row is None else JournalHead(seq=row.seq, hash=row.hash)


def _hash(row: Mapping[str, Any] | RowMapping) -> str:
    hashed = canonical_json([row[name] for name in ("seq", "at", "action", "batch_id", "payload")])
    return hashlib.sha256((row["previous"] + hashed).encode("utf-8", "surrogatepass")).hexdigest()


def _row_faults(row: RowMapping, *, seq: int, previous: str) -> list[str]:
    if row["seq"] != seq:
        return [f"row {seq} of the journal is missing"]
    faults = []
    if row["previous"] != previous:
        faults.append(f"row {seq} of the journal does not follow the row before it")
    if row["hash"] != _hash(row):
        faults.append(f"row {seq} of the journal was changed")
    return faults


def _remember_digest(digests: dict[int, str], payload_text: str) -> None:
    try:
        payload = json.loads(payload_text)
    except ValueError:
        # A changed row, which is reported by its hash.
        return
    if isinstance(payload, dict) and isinstance(payload.get("audit_id"), int) and "audit_row" in payload:
        digests[payload["audit_id"]] = payload["audit_row"]


def _digest_faults(connection: Connection, digests: Mapping[int, str]) -> list[str]:
    present: dict[int, str] = {}
    audit_ids = sorted(digests)
    for start in range(0, len(audit_ids), 500):
        present |= _audit_digests(connection, audit_ids[start : start + 500])
    faults = [f"the row with AUDIT_ID {audit_id} is gone" for audit_id in audit_ids if audit_id not in present]
    return faults + [
        f"the row with AUDIT_ID {audit_id} was changed past the journal"
        for audit_id in audit_ids
        if audit_id in present and present[audit_id] != digests[audit_id]
    ]


def _audit_digests(connection: Connection, audit_ids: list[int]) -> dict[int, str]:
    rows = connection.execute(sa.select(*_DIGESTED).where(tables.audit_log.c.audit_id.in_(audit_ids)))
    return {row.audit_id: _digest(row) for row in rows}


def _digest(row: sa.Row[Any]) -> str:
    # An empty text is null on Oracle, and the digest is to be the same on every database.
    values = [value.isoformat() if isinstance(value, datetime) else None if value == "" else value for value in row]
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()
