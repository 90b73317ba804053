"""Consents of a second person to steps that destroy: asked for, given, used once. Each step is journalled."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import Connection

from forcelift.audit import tables
from forcelift.audit.journal import Journal, append
from forcelift.audit.signoffs import sha256_of
from forcelift.audit.text import fit_text
from forcelift.errors import StateConflict

ASKED, GIVEN, USED = "consent_asked", "consent_given", "consent_used"


class Consent(Struct, frozen=True, kw_only=True):
    """A request, and the consent to it once it was given.

    Attributes:
        details: What would be destroyed; `sha256` is its digest.
        asked_by: The login that asked.
        name: Who consented, as typed at the login `typed_by`.
        shared_login: Both sat at one login; None while nobody has consented.
    """

    consent_no: int
    project: str
    step: str
    subject: str
    details: Mapping[str, Any]
    sha256: str
    asked_by: str
    asked_at: datetime
    name: str | None
    typed_by: str | None
    shared_login: bool | None
    note: str
    approved_at: datetime | None
    expires_at: datetime | None
    used_at: datetime | None

    def holds(self, now: datetime) -> bool:
        """Whether it was given, is not used up, and has not run out."""
        return self.expires_at is not None and self.used_at is None and now < self.expires_at


class Consents(Journal):
    """Requests and consents."""

    def ask_consent(self, project: str, *, step: str, subject: str, details: Mapping[str, Any], by: str) -> Consent:
        """Write a request down, or find the one that says the same, waits, and was asked for at the same login."""
        digest, row = sha256_of(details), tables.consent.c
        same = (row.project == project) & (row.step == step) & (row.sha256 == digest) & row.approved_at.is_(None)
        with self.write() as connection:
            now = self.clock.now()
            query = sa.select(tables.consent).where(same).order_by(row.consent_no)
            waiting = [_consent(found) for found in connection.execute(query).mappings()]
            for one in waiting:
                if one.asked_by.rpartition("@")[0] == by.rpartition("@")[0]:
                    return one
            values = {
                "project": project,
                "step": step,
                "subject": fit_text(subject, 1000),
                "details": dict(details),
                "sha256": digest,
                "asked_by": by,
                "asked_at": now,
            }
            made = connection.execute(tables.consent.insert().values(**values))
            number = int(made.inserted_primary_key[0])  # type: ignore[index]  # an insert of one row has a key
            payload = {"consent": number, "step": step, "subject": subject, "sha256": digest, "by": by}
            append(connection, now, ASKED, payload)
            found = _find(connection, tables.consent.c.consent_no == number)
        assert found is not None
        return found

    def give_consent(
        self, number: int, *, name: str, typed_by: str, shared_login: bool, note: str, hours: int
    ) -> Consent:
        """Write down that a second person consents. Raises `StateConflict` if somebody was quicker."""
        row = tables.consent
        mine = row.c.consent_no == number
        with self.write() as connection:
            now = self.clock.now()
            values = {
                "name": name,
                "typed_by": typed_by,
                "shared_login": int(shared_login),
                "note": fit_text(note, 4000),
                "approved_at": now,
                "expires_at": now + timedelta(hours=hours),
            }
            waits = mine & row.c.approved_at.is_(None)
            if not connection.execute(row.update().where(waits).values(**values)).rowcount:
                raise StateConflict(
                    f"request {number} does not wait any more",
                    state="nothing was changed",
                    hint="`forcelift approve` lists those that wait",
                )
            payload = {"consent": number, "name": name, "typed_by": typed_by, "shared_login": shared_login}
            append(connection, now, GIVEN, {**payload, "hours": hours})
            found = _find(connection, mine)
        assert found is not None
        return found

    def use_consent(self, number: int, *, by: str) -> bool:
        """Use a consent up; False if it does not hold, as another process was quicker or its time has run out."""
        row = tables.consent
        with self.write() as connection:
            now = self.clock.now()
            holds = (row.c.consent_no == number) & row.c.used_at.is_(None) & (row.c.expires_at > now)
            if not connection.execute(row.update().where(holds).values(used_at=now)).rowcount:
                return False
            found = _find(connection, row.c.consent_no == number)
            assert found is not None
            append(connection, now, USED, {"consent": number, "step": found.step, "by": by})
            return True

    def consents(self, project: str) -> list[Consent]:
        """All requests of a project, oldest first."""
        query = sa.select(tables.consent).where(tables.consent.c.project == project)
        with self.read() as connection:
            rows = connection.execute(query.order_by(tables.consent.c.consent_no)).mappings()
            return [_consent(row) for row in rows]


def _find(connection: Connection, where: sa.ColumnElement[bool]) -> Consent | None:
    query = sa.select(tables.consent).where(where).order_by(tables.consent.c.consent_no).limit(1)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _consent(row)


def _consent(row: Mapping[Any, Any]) -> Consent:
    values = {name: row[name] for name in Consent.__struct_fields__}
    shared = row["shared_login"]
    return Consent(**{**values, "shared_login": None if shared is None else bool(shared)})
