"""The seven items of the checklist after a migration. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from forcelift.checkitems import Item, ItemState

TITLES: Final[Mapping[str, str]] = {
    "count_validation": "Count validation passed",
    "aggregate_validation": "Aggregate validation passed",
    "sample_validation": "Sample validation passed",
    "business_rules": "Business rules validated",
    "automations_on": "SF triggers/workflows re-enabled",
    "final_report": "Final report generated",
    "final_sign_off": "Stakeholder sign-off",
}
NAMES: Final = tuple(TITLES)
_LEVELS: Final = {1: "count_validation", 2: "aggregate_validation", 3: "sample_validation", 4: "business_rules"}


class Checked(Struct, frozen=True, kw_only=True):
    """One level of validation of a batch as it stands now: passed, out of date, or neither with the reason."""

    passed: bool
    is_stale: bool
    words: str


class AfterKnown(Struct, frozen=True, kw_only=True):
    """What is recorded of a batch or a project; None where there is no batch that was loaded.

    Attributes:
        asked: How commands name it: a batch's id, or `--project`.
        checked: By level.
        held: What Forcelift switched off in the org and has not put back, in words.
        report: The newest report in words; None if there is none.
        report_fault: Why it counts no more.
        roles: Of the plan, that sign.
        signed: Sign-offs after it that stand, in words by role.
        stale: Sign-offs after it that are out of date, in words.
    """

    asked: str | None
    checked: Mapping[int, Checked]
    held: Sequence[str]
    report: str | None
    report_fault: str | None
    roles: Sequence[str]
    signed: Mapping[str, str]
    stale: Sequence[str]


def after_items(known: AfterKnown) -> list[Item]:
    """The seven items, in the checklist's order."""
    if known.asked is None:
        none = "nothing was loaded yet"
        return [_item(name, ItemState.OPEN, none, "forcelift run") for name in NAMES]
    levels = [_level(known, level, name) for level, name in _LEVELS.items()]
    return [*levels, _automations(known), _report(known), _signed(known)]


def _item(name: str, state: ItemState, evidence: str, how: str) -> Item:
    return Item(name=name, title=TITLES[name], state=state, evidence=evidence, how=how)


def _level(known: AfterKnown, level: int, name: str) -> Item:
    how = f"forcelift validate {known.asked}"
    found = known.checked.get(level)
    if found is None:
        return _item(name, ItemState.OPEN, "not validated yet", how)
    if found.passed:
        return _item(name, ItemState.DONE, found.words, how)
    return _item(name, ItemState.STALE if found.is_stale else ItemState.OPEN, found.words, how)


def _automations(known: AfterKnown) -> Item:
    how = "forcelift restore --execute"
    if known.held:
        more = f" and {len(known.held) - 5} more" if len(known.held) > 5 else ""
        return _item("automations_on", ItemState.OPEN, f"off: {', '.join(known.held[:5])}{more}", how)
    words = "nothing that Forcelift switched off is off; what others switched off, it does not know"
    return _item("automations_on", ItemState.DONE, words, how)


def _report(known: AfterKnown) -> Item:
    how = f"forcelift report {known.asked} --out FILE"
    if known.report is None:
        return _item("final_report", ItemState.OPEN, "none was written", how)
    if known.report_fault is not None:
        return _item("final_report", ItemState.STALE, f"{known.report}; {known.report_fault}", how)
    return _item("final_report", ItemState.DONE, known.report, how)


def _signed(known: AfterKnown) -> Item:
    how = "forcelift signoff --phase after --role ROLE --name NAME"
    lacking = [role for role in known.roles if role not in known.signed]
    words = "; ".join([*known.signed.values(), *known.stale])
    if not lacking:
        return _item("final_sign_off", ItemState.DONE, words, how)
    missing = f"still to sign: {', '.join(lacking)}"
    state = ItemState.STALE if known.stale else ItemState.OPEN
    return _item("final_sign_off", state, f"{words}; {missing}" if words else f"nobody has signed; {missing}", how)
