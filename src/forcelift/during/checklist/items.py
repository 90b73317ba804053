"""The four items of the checklist during a migration. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from forcelift.checkitems import Item, ItemState

TITLES: Final[Mapping[str, str]] = {
    "monitor": "Monitor dashboard active",
    "thresholds": "Alert thresholds configured",
    "on_call": "On-call person assigned",
    "kill_switch": "Kill switch ready",
}
NAMES: Final = tuple(TITLES)
TICKED: Final = frozenset({"monitor", "thresholds", "on_call"})
"""Items that rest on a person's word: this version has no dashboard and sends no alerts of its own.

Who is on call is told by the plan as well.
"""


class DuringKnown(Struct, frozen=True, kw_only=True):
    """What is known.

    Attributes:
        thresholds: All values; `changed` names those that differ from the defaults by the plan.
        on_call: As the plan names who is called.
        batch_id: The batch that would be stopped; None while there is none.
        control_fault: Why the batch's control row could not be written just now; None if it could.
        ticks: By item, who said so, when and what.
    """

    thresholds: Mapping[str, float]
    changed: tuple[str, ...]
    on_call: str | None
    batch_id: str | None
    control_fault: str | None
    ticks: Mapping[str, str]


def during_items(known: DuringKnown) -> list[Item]:
    """The four items, in the checklist's order."""
    return [_monitor(known), _thresholds(known), _on_call(known), _kill_switch(known)]


def _item(name: str, state: ItemState, evidence: str, how: str) -> Item:
    return Item(name=name, title=TITLES[name], state=state, evidence=evidence, how=how)


def _tick(name: str) -> str:
    return f"forcelift checklist tick {name} --by NAME --note TEXT"


def _monitor(known: DuringKnown) -> Item:
    words = "by a person's word only: this version has no dashboard; `forcelift status` and the three queries show it"
    if "monitor" in known.ticks:
        return _item("monitor", ItemState.DONE, f"{known.ticks['monitor']}; {words}", _tick("monitor"))
    return _item("monitor", ItemState.OPEN, f"nobody has said that somebody watches; {words}", _tick("monitor"))


def _thresholds(known: DuringKnown) -> Item:
    by_plan = f", by the plan: {', '.join(known.changed)}" if known.changed else ", all by default"
    words = f"{len(known.thresholds)} values are set{by_plan}; this version sends no alerts of its own"
    if "thresholds" in known.ticks:
        return _item("thresholds", ItemState.DONE, f"{known.ticks['thresholds']}; {words}", _tick("thresholds"))
    return _item("thresholds", ItemState.OPEN, f"{words}: who compares them says so", _tick("thresholds"))


def _on_call(known: DuringKnown) -> Item:
    how = f"name who is called under `roles.on_call` of the plan, or {_tick('on_call')}"
    if "on_call" in known.ticks:
        return _item("on_call", ItemState.DONE, known.ticks["on_call"], how)
    if known.on_call is None or not known.on_call.strip():
        return _item("on_call", ItemState.OPEN, "the plan names nobody", how)
    return _item("on_call", ItemState.DONE, f"{known.on_call}, by the plan", how)


def _kill_switch(known: DuringKnown) -> Item:
    how = "forcelift stop --batch ID"
    if known.batch_id is None:
        return _item("kill_switch", ItemState.OPEN, "there is no batch yet that could be stopped", "forcelift run")
    if known.control_fault is not None:
        words = f"the control row of batch {known.batch_id} could not be written: {known.control_fault}"
        return _item("kill_switch", ItemState.OPEN, words, how)
    words = f"the control row of batch {known.batch_id} can be written: tried just now, and undone"
    return _item("kill_switch", ItemState.DONE, words, how)
