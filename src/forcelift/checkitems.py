"""An item of the checklist: how it stands, on what evidence, and what does it. The same before, during and after."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class ItemState(StrEnum):
    """How an item stands."""

    DONE = "done"
    WAIVED = "waived"
    STALE = "stale"  # there is evidence, and something has changed since
    OPEN = "open"


class Item(Struct, frozen=True, kw_only=True):
    """One item. `evidence` says what the state rests on; `how` is what does it."""

    name: str
    title: str
    state: ItemState
    evidence: str
    how: str

    @property
    def is_in_order(self) -> bool:
        return self.state in (ItemState.DONE, ItemState.WAIVED)
