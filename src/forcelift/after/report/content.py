"""Everything that a report shows beside its figures: over time, step by step, and what has to be seen first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct, field

from forcelift.after.report.curves import Curves, QuotaUse
from forcelift.after.report.figures import ReportFigures, Said
from forcelift.after.report.steps import StepShares
from forcelift.after.report.words import Words


class Signed(Struct, frozen=True, kw_only=True):
    """A sign-off that stands in the report; one that went stale says why."""

    role: str
    name: str
    at: datetime
    note: str | None = None
    is_stale: bool = False
    why_stale: str | None = None


class SwitchedOff(Struct, frozen=True, kw_only=True):
    """An automation of the batch's org that is, or may be, switched off: since when, and who did it."""

    kind: str
    name: str
    since: datetime
    by: str


class Content(Struct, frozen=True, kw_only=True):
    """A whole report.

    Attributes:
        curves: None while no chunk has ended.
        quota: None where nothing was reserved.
        remarks: Of the batch as a whole.
        switched_off: Automations of the batch's org that are, or may be, switched off.
        signed: Sign-offs, each role's newest last.
    """

    figures: ReportFigures
    steps: StepShares = field(default_factory=StepShares)
    curves: Curves | None = None
    quota: QuotaUse | None = None
    remarks: tuple[Said, ...] = ()
    switched_off: tuple[SwitchedOff, ...] = ()
    signed: tuple[Signed, ...] = ()

    def of_role(self, role: str) -> list[Signed]:
        """The sign-offs of a role."""
        return [one for one in self.signed if one.role == role]

    @property
    def roles(self) -> list[str]:
        """The plan's roles in its order, then others that signed."""
        return list(dict.fromkeys([*self.figures.roles, *(one.role for one in self.signed)]))

    @property
    def stale(self) -> list[Signed]:
        """Sign-offs of data that is not there any more."""
        return [one for one in self.signed if one.is_stale]


class Alarm(Struct, frozen=True, kw_only=True):
    """What a reader must not miss: what is the matter, and what to do."""

    what: str
    do: str


_NAMES_SHOWN = 6


def alarms(content: Content, words: Words) -> list[Alarm]:
    """Automations that are still off, since when and by whom, and signatures under data that has changed since."""
    found = []
    if off := [words("alarm_off", name=one.name, moment=one.since, by=one.by) for one in content.switched_off]:
        key = "alarm_automation" if len(off) == 1 else "alarm_automations"
        what = words(key, count=len(off), names=names_of(off, words, between="; "))
        found.append(Alarm(what=what, do=words("alarm_automations_do")))
    if content.stale:
        names = names_of(list(dict.fromkeys(one.name for one in content.stale)), words)
        found.append(Alarm(what=words("alarm_stale", names=names), do=words("alarm_stale_do")))
    return found


def names_of(names: Sequence[str], words: Words, *, between: str = ", ") -> str:
    """A few names, and how many more."""
    shown = between.join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else words("alarm_more", names=shown, more=len(names) - _NAMES_SHOWN)


def details_of(said: Sequence[Said], words: Words) -> str:
    """Several things in one line."""
    return "; ".join(words.told(words(one.key, **one.figures)) for one in said)
