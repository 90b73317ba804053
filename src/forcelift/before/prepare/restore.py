"""Compare what the org has now with what is remembered. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct

from forcelift.audit import OrgState, digest
from forcelift.protocols.setup import ItemState


class Now(StrEnum):
    """How an automation stands against what is remembered of it."""

    AS_BEFORE = "as it was"
    AS_OFF = "off"
    CHANGED = "changed"
    GONE = "gone"


class Outcome(StrEnum):
    """What a restore did with an automation, or would do."""

    RESTORE = "to be put back"
    RESTORED = "put back"
    FOUND = "was as before"
    HELD = "stays off"  # somebody else still wants it off
    CHANGED = "changed by somebody, not touched"
    OVERWRITTEN = "put back over a change"
    KEPT = "kept as it is"
    FAILED = "failed"


class RestoredItem(Struct, frozen=True, kw_only=True):
    """One automation of a restore. `why` is for people; `proof` the digest of what the org has now."""

    state: OrgState
    outcome: Outcome
    acts: str
    why: str | None = None
    proof: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether somebody has to do something about it."""
        return self.outcome in (Outcome.CHANGED, Outcome.FAILED)


def compare(known: OrgState, now: ItemState | None) -> Now:
    """Byte for byte: equal documents are equal digests of their one canonical form."""
    if now is None:
        return Now.GONE
    present = digest(now.document)
    if present == digest(known.before):
        return Now.AS_BEFORE
    return Now.AS_OFF if present == digest(known.off) else Now.CHANGED


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The members in which two states differ, without their values."""
    names = []
    for name in sorted({*one, *other}):
        left, right = one.get(name), other.get(name)
        if left == right:
            continue
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            names += [f"{name}.{inner}" for inner in sorted({*left, *right}) if left.get(inner) != right.get(inner)]
        else:
            names.append(name)
    return ", ".join(names)
