"""The journal's chain: how a row is appended inside a transaction, and how a transaction is sealed at its end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import Connection, RowMapping

from forcelift.audit import cover, tables
from forcelift.audit.types import canonical_json

FIRST_PREVIOUS = "0" * 64


class JournalHead(Struct, frozen=True, kw_only=True):
    """The last row of the journal: whoever keeps it can tell later that nothing before it was changed."""

    seq: int
    hash: str


def append(
    connection: Connection, now: datetime, action: str, payload: Mapping[str, Any], *, batch_id: str | None = None
) -> JournalHead:
    """Append one row inside a transaction that is under way."""
    touched = cover.touched_of(connection)
    head = current_head(connection)
    row: dict[str, Any] = {
        "seq": head.seq + 1,
        "at": now.astimezone(UTC).isoformat(timespec="microseconds"),
        "action": action,
        "batch_id": batch_id or None,  # Oracle would read an empty one back as null, and the hash would differ
        "payload": canonical_json(payload),
        "previous": head.hash,
    }
    row["hash"] = hash_of(row)
    connection.execute(tables.journal.insert(), row)
    new_head = JournalHead(seq=row["seq"], hash=row["hash"])
    if touched is None:
        _write_head(connection, new_head)
    else:
        # Written once, when the transaction is sealed.
        touched.head, touched.now = new_head, now
    return new_head


def seal(connection: Connection, now: Callable[[], datetime]) -> None:
    """Journal the digests of all rows that the transaction under way has touched, and its head. Comes last in it."""
    touched = cover.touched_of(connection)
    if touched is None:
        return
    changes = cover.sealed(connection, touched)
    if changes:
        append(connection, touched.now or now(), cover.ACTION, changes)
    if touched.head is not None:
        _write_head(connection, touched.head)


def current_head(connection: Connection) -> JournalHead:
    """The journal's last row, with what this transaction has appended; number 0 and zeros while it is empty."""
    touched = cover.touched_of(connection)
    if touched is not None and touched.head is not None:
        found: JournalHead = touched.head
        return found
    row = connection.execute(sa.select(tables.journal_head.c.seq, tables.journal_head.c.hash)).one_or_none()
    return JournalHead(seq=0, hash=FIRST_PREVIOUS) if row is None else JournalHead(seq=row.seq, hash=row.hash)


def hash_of(row: Mapping[str, Any] | RowMapping) -> str:
    """The hash of a journal row, over the hash of the row before and all columns of this one."""
    hashed = canonical_json([row[name] for name in ("seq", "at", "action", "batch_id", "payload")])
    return hashlib.sha256((row["previous"] + hashed).encode("utf-8", "surrogatepass")).hexdigest()


def _write_head(connection: Connection, head: JournalHead) -> None:
    values = {"seq": head.seq, "hash": head.hash}
    found = connection.execute(tables.journal_head.update().values(**values))
    if found.rowcount == 0:
        connection.execute(tables.journal_head.insert(), {"one": 1, **values})
