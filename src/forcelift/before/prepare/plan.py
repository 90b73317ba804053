"""Decide what `prepare` does with each automation of the plan's objects. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from forcelift.audit import OrgState
from forcelift.before.prepare.restore import Now, compare
from forcelift.errors import UsageError
from forcelift.protocols.setup import Automation, Found, ItemName, ItemState


class Decision(StrEnum):
    """What becomes of an automation."""

    SWITCH = "switch off"
    JOIN = "off already, join"  # another batch or prepare switched it off; the last one puts it back
    LEAVE = "left on"  # the plan says so
    LEAVE_OFF = "off, though the plan leaves it on"  # another batch or prepare switched it off, or somebody meanwhile
    MANAGED = "managed, stays on"
    INACTIVE = "inactive"
    CHANGED = "changed by somebody"  # it is remembered as switched off and is neither that nor as it was


class PrepareItem(Struct, frozen=True, kw_only=True):
    """One automation. `state` is its exact state now, where it was read; `known` what is remembered of it."""

    automation: Automation
    decision: Decision
    state: ItemState | None = None
    known: OrgState | None = None

    @property
    def item(self) -> ItemName:
        return self.automation.item


class PreparePlan(Struct, frozen=True, kw_only=True):
    """What a prepare would do, kind by kind."""

    items: tuple[PrepareItem, ...]
    unplaced: tuple[str, ...] = ()

    def of(self, *decisions: Decision) -> list[PrepareItem]:
        """The items with one of these decisions."""
        return [item for item in self.items if item.decision in decisions]


def plan_prepare(
    found: Found,
    states: Mapping[ItemName, ItemState],
    known: Sequence[OrgState],
    leave_on: Sequence[str],
) -> PreparePlan:
    """Decide.

    Args:
        found: All automations of the objects.
        states: The exact states of those that are or may be active, and of those that are remembered as off.
        known: What is remembered as off in this org.
        leave_on: Names of the plan: `Sale__c.No_Zero`, or `No_Zero` for all of that name.
    Raises:
        UsageError: A name of `leave_on` is no automation's: it may be misspelt, and would be switched off.
    """
    named = _named(found, leave_on)
    remembered = {(one.kind, one.name): one for one in known}
    items = []
    for automation in found.automations:
        state = states.get(automation.item)
        before = remembered.get((automation.item.kind.value, automation.item.name))
        decision = _decide(automation, state, before, is_left=automation.item in named)
        items.append(PrepareItem(automation=automation, decision=decision, state=state, known=before))
    return PreparePlan(items=tuple(items), unplaced=found.unplaced)


def _decide(automation: Automation, state: ItemState | None, known: OrgState | None, *, is_left: bool) -> Decision:
    is_active = automation.is_active if state is None else state.is_active
    if automation.namespace is not None:
        return Decision.INACTIVE if is_active is False else Decision.MANAGED
    if is_left:
        if is_active is not False:
            return Decision.LEAVE
        return Decision.INACTIVE if known is None else Decision.LEAVE_OFF
    if known is None:
        return Decision.SWITCH if is_active else Decision.INACTIVE
    match compare(known, state):
        case Now.AS_BEFORE:
            return Decision.SWITCH
        case Now.AS_OFF:
            # A write that nobody answered for may still switch it on: it is switched off once more, after that one.
            return Decision.JOIN if known.writing_at is None else Decision.SWITCH
        case _:
            return Decision.CHANGED


def _named(found: Found, leave_on: Sequence[str]) -> set[ItemName]:
    named: set[ItemName] = set()
    for name in leave_on:
        wanted = name.lower()
        ours = {one.item for one in found.automations if wanted in _names(one.item)}
        if not ours:
            known = sorted({one.item.name for one in found.automations})
            near = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"`prepare.leave_on` of the plan names `{name}`, and no automation of the plan's objects is called so",
                state="nothing was changed in the org",
                hint=f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(known) or 'none'}",
            )
        named |= ours
    return named


def _names(item: ItemName) -> tuple[str, str]:
    whole = item.name.lower()
    return whole, whole.rpartition(".")[2]
