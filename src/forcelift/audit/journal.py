"""The journal: what moved and when, in rows that each carry the hash of the one before.

A changed, removed, added or reordered row breaks the chain; a chain cut off at its end differs from its recorded head,
and from every head that was printed before. A row of another table changed past the program differs from its digest
here (`cover`). No personal values stand in hashed text, so deleting personal data leaves the chain whole. Who can
rewrite the whole database can rewrite the chain: its head belongs into reports and sign-offs that are kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from forcelift.audit import tables
from forcelift.audit.chain import FIRST_PREVIOUS as FIRST_PREVIOUS
from forcelift.audit.chain import JournalHead as JournalHead
from forcelift.audit.chain import append as append
from forcelift.audit.chain import current_head
from forcelift.audit.database import Database


class Journal(Database):
    """The part of the audit database that only grows."""

    def journal(self, action: str, payload: Mapping[str, Any], *, batch_id: str | None = None) -> JournalHead:
        """Append one row. `payload` is JSON without personal values; `action` is a word of at most 40 letters."""
        with self.write() as connection:
            return append(connection, self.clock.now(), action, payload, batch_id=batch_id)

    def has_journalled(self, action: str, batch_id: str) -> bool:
        """Whether the batch has a row of that action."""
        query = sa.select(tables.journal.c.seq).where(
            tables.journal.c.batch_id == batch_id, tables.journal.c.action == action
        )
        with self.read() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def journal_head(self) -> JournalHead:
        """The journal's last row; number 0 and a hash of zeros while it is empty."""
        with self.read() as connection:
            return current_head(connection)


def append_chunk(
    connection: Connection,
    now: datetime,
    action: str,
    audit_id: int,
    payload: Mapping[str, Any],
    *,
    batch_id: str,
) -> None:
    """Append a row about a chunk."""
    append(connection, now, action, {**payload, "audit_id": audit_id}, batch_id=batch_id)
