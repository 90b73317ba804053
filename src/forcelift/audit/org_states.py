"""What was switched off in an org: the exact state before, who wants it off, and how it ended.

An open row is one automation of one org that is, or may be, switched off. Whoever wants it off holds it; the last one
to let go puts it back. Each move is one transaction with its row in the journal, which has digests, never contents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import Connection

from forcelift.audit import tables
from forcelift.audit.journal import Journal, append
from forcelift.audit.text import fit_text
from forcelift.audit.types import canonical_json

HolderKind = Literal["batch", "prepare"]
Ending = Literal["restored", "found", "overwritten", "kept"]
_STUCK_BYTES = 1000


class Holder(Struct, frozen=True, kw_only=True):
    """Who wants automations off: a batch, or a prepare by its name. `by` is the person and process."""

    kind: HolderKind
    name: str
    by: str = ""
    since: datetime | None = None

    def __str__(self) -> str:
        return f"batch {self.name}" if self.kind == "batch" else f"prepare `{self.name}`"

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.name


class NewState(Struct, frozen=True, kw_only=True):
    """An automation that is about to be switched off: its state now, and what it is to be."""

    kind: str
    name: str
    object: str
    before: Mapping[str, Any]
    off: Mapping[str, Any]


class OrgState(Struct, frozen=True, kw_only=True):
    """One automation that is, or may be, switched off. `holders` are those who have not let go."""

    state_no: int
    org_id: str
    kind: str
    name: str
    object: str
    before: Mapping[str, Any]
    off: Mapping[str, Any]
    taken_at: datetime
    taken_by: str
    writing_at: datetime | None
    off_at: datetime | None
    stuck: str | None
    holders: tuple[Holder, ...]


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of a state: equal states have equal digests."""
    return hashlib.sha256(canonical_json(document).encode("utf-8", "surrogatepass")).hexdigest()


class OrgStates(Journal):
    """The part of the audit database about automations that are switched off."""

    def open_states(self, org_id: str | None = None) -> list[OrgState]:
        """All that is, or may be, switched off, oldest first; of all orgs if none is named."""
        with self.read() as connection:
            return _open_states(connection, org_id)

    def last_put_back(self, org_id: str, objects: Sequence[str]) -> datetime | None:
        """When the last automation of these objects ended to be held off, whatever its ending; None if none ever did.

        Args:
            objects: As the plan spells them; upper and lower case are the same.
        """
        state = tables.org_state.c
        names = [name.lower() for name in objects]
        query = sa.select(sa.func.max(state.restored_at)).where(
            state.org_id == org_id, sa.func.lower(state.object).in_(names)
        )
        with self.read() as connection:
            found: datetime | None = connection.execute(query).scalar_one()
        return found

    def has_held(self, holder: Holder) -> bool:
        """Whether it ever wanted anything off."""
        held = tables.org_state_holder.c
        query = sa.select(sa.func.count()).where(held.kind == holder.kind, held.holder == holder.name)
        with self.read() as connection:
            return bool(connection.execute(query).scalar_one())

    def take_states(self, org_id: str, states: Sequence[NewState], holder: Holder) -> list[OrgState]:
        """Remember states before they are changed. One that is open already is joined; its `before` stands."""
        with self.write() as connection:
            now = self.clock.now()
            known = {(one.kind, one.name): one.state_no for one in _open_states(connection, org_id)}
            for state in states:
                state_no = known.get((state.kind, state.name))
                if state_no is None:
                    state_no = _insert(connection, org_id, state, holder, now)
                    payload = {"org": org_id, "kind": state.kind, "name": state.name, "before": digest(state.before)}
                    append(connection, now, "automation_remembered", payload, batch_id=_batch_of(holder))
                _hold(connection, state_no, holder, now)
            return _open_states(connection, org_id)

    def state_writing(self, state: OrgState, document: Mapping[str, Any], *, why: str, batch_id: str | None) -> None:
        """Write down that the org is about to be told to make it so."""
        with self.write() as connection:
            now = self.clock.now()
            connection.execute(tables.org_state.update().where(_is(state)).values(writing_at=now))
            payload = {"org": state.org_id, "kind": state.kind, "name": state.name, "to": digest(document), "why": why}
            append(connection, now, "automation_writing", payload, batch_id=batch_id)

    def state_refused(self, state: OrgState, why: str, *, batch_id: str | None) -> None:
        """The org certainly did not carry the write out."""
        with self.write() as connection:
            connection.execute(tables.org_state.update().where(_is(state)).values(writing_at=None))
            text = fit_text(why, _STUCK_BYTES)
            payload = {"org": state.org_id, "kind": state.kind, "name": state.name, "why": text}
            append(connection, self.clock.now(), "automation_refused", payload, batch_id=batch_id)

    def state_is_off(self, state: OrgState, document: Mapping[str, Any], *, batch_id: str | None) -> None:
        """It was read back and does not act."""
        with self.write() as connection:
            now = self.clock.now()
            values = {"off": dict(document), "off_at": now, "writing_at": None, "stuck": None}
            connection.execute(tables.org_state.update().where(_is(state)).values(**values))
            payload = {"org": state.org_id, "kind": state.kind, "name": state.name, "off": digest(document)}
            append(connection, now, "automation_off", payload, batch_id=batch_id)

    def state_stuck(self, state: OrgState, why: str) -> None:
        """It could not be put back; the row stays open."""
        with self.write() as connection:
            text = fit_text(why, _STUCK_BYTES)
            connection.execute(tables.org_state.update().where(_is(state)).values(stuck=text))
            payload = {"org": state.org_id, "kind": state.kind, "name": state.name, "why": text}
            append(connection, self.clock.now(), "automation_stuck", payload)

    def state_ended(self, state: OrgState, ending: Ending, *, by: str, proof: str, batch_id: str | None = None) -> None:
        """It is as it was, or somebody decided otherwise. `proof` is the digest of what the org has now."""
        with self.write() as connection:
            now = self.clock.now()
            values = {"restored_at": now, "restored_by": by, "ending": ending, "writing_at": None, "stuck": None}
            connection.execute(tables.org_state.update().where(_is(state)).values(**values))
            payload = {
                "org": state.org_id,
                "kind": state.kind,
                "name": state.name,
                "ending": ending,
                "before": digest(state.before),
                "now": proof,
                "by": by,
            }
            append(connection, now, "automation_restored", payload, batch_id=batch_id)

    def release_holder(self, org_id: str, holder: Holder, *, by: str) -> None:
        """Let go of everything that it holds in that org."""
        held = tables.org_state_holder
        with self.write() as connection:
            now = self.clock.now()
            of_org = sa.select(tables.org_state.c.state_no).where(tables.org_state.c.org_id == org_id)
            mine = (held.c.kind == holder.kind) & (held.c.holder == holder.name) & held.c.released_at.is_(None)
            done = connection.execute(
                held.update().where(mine, held.c.state_no.in_(of_org)).values(released_at=now)
            ).rowcount
            if done:
                payload = {"org": org_id, "holder": str(holder), "items": done, "by": by}
                append(connection, now, "automations_released", payload, batch_id=_batch_of(holder))


def _batch_of(holder: Holder) -> str | None:
    return holder.name if holder.kind == "batch" else None


def _is(state: OrgState) -> sa.ColumnElement[bool]:
    return tables.org_state.c.state_no == state.state_no


def _open_states(connection: Connection, org_id: str | None) -> list[OrgState]:
    state, held = tables.org_state, tables.org_state_holder
    query = sa.select(state).where(state.c.restored_at.is_(None)).order_by(state.c.state_no)
    rows = connection.execute(query if org_id is None else query.where(state.c.org_id == org_id)).all()
    holding = sa.select(held).join(state).where(held.c.released_at.is_(None), state.c.restored_at.is_(None))
    holders: dict[int, list[Holder]] = {}
    for row in connection.execute(holding.order_by(held.c.held_at, held.c.holder)) if rows else ():
        holder = Holder(kind=row.kind, name=row.holder, by=row.held_by, since=row.held_at)
        holders.setdefault(row.state_no, []).append(holder)
    names = [name for name in OrgState.__struct_fields__ if name != "holders"]
    return [
        OrgState(**{name: getattr(row, name) for name in names}, holders=tuple(holders.get(row.state_no, ())))
        for row in rows
    ]


def _insert(connection: Connection, org_id: str, state: NewState, holder: Holder, now: datetime) -> int:
    values = {
        "org_id": org_id,
        "kind": state.kind,
        "name": state.name,
        "object": state.object,
        "before": dict(state.before),
        "off": dict(state.off),
        "taken_at": now,
        "taken_by": holder.by,
    }
    made = connection.execute(tables.org_state.insert().values(**values))
    return int(made.inserted_primary_key[0])  # type: ignore[index]  # an insert of one row has a key


def _hold(connection: Connection, state_no: int, holder: Holder, now: datetime) -> None:
    held = tables.org_state_holder
    mine = (held.c.state_no == state_no) & (held.c.kind == holder.kind) & (held.c.holder == holder.name)
    again = connection.execute(held.update().where(mine).values(released_at=None, held_by=holder.by))
    if again.rowcount == 0:
        row = {"state_no": state_no, "kind": holder.kind, "holder": holder.name, "held_by": holder.by, "held_at": now}
        connection.execute(held.insert(), row)


__all__ = ["Holder", "NewState", "OrgState", "OrgStates", "digest"]
