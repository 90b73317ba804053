"""One named check of a preflight: its verdict, the figure, what it rests on, and what mends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

from forcelift.errors import ForceliftError


class Verdict(StrEnum):
    """How a check ended."""

    PASS = "pass"  # noqa: S105 - a verdict, no password
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"  # it could not be looked at, or there is nothing to look at; the evidence says which


class Area(StrEnum):
    """Where something would have to be mended."""

    MACHINE = "machine"
    SOURCE = "source"
    AUDIT = "audit database"
    ORG = "org"
    PLAN = "plan"


class CheckResult(Struct, frozen=True, kw_only=True):
    """One line of the scorecard.

    Attributes:
        name: Stable, in snake case; waivers name it.
        figure: What was measured, short.
        evidence: What the verdict rests on, one fact a line.
        fix: What to do about it; None if it passed.
    """

    name: str
    area: Area
    verdict: Verdict
    figure: str
    evidence: tuple[str, ...] = ()
    fix: str | None = None


def passed(name: str, area: Area, figure: str, *evidence: str) -> CheckResult:
    return CheckResult(name=name, area=area, verdict=Verdict.PASS, figure=figure, evidence=evidence)


def warned(name: str, area: Area, figure: str, *evidence: str, fix: str) -> CheckResult:
    return CheckResult(name=name, area=area, verdict=Verdict.WARN, figure=figure, evidence=evidence, fix=fix)


def failed(name: str, area: Area, figure: str, *evidence: str, fix: str) -> CheckResult:
    return CheckResult(name=name, area=area, verdict=Verdict.FAIL, figure=figure, evidence=evidence, fix=fix)


def skipped(name: str, area: Area, why: str) -> CheckResult:
    return CheckResult(name=name, area=area, verdict=Verdict.SKIPPED, figure="not looked at", evidence=(why,))


def failed_by(name: str, area: Area, error: ForceliftError) -> CheckResult:
    """A check that ended with an error, in its words."""
    evidence = tuple(line for line in (error.message, error.state) if line)
    return failed(name, area, "error", *evidence, fix=error.hint or "see the message")


def attempt(name: str, area: Area, look: Callable[[], CheckResult]) -> CheckResult:
    """Look, and take an error as a fail."""
    try:
        return look()
    except ForceliftError as error:
        return failed_by(name, area, error)


EXAMPLES_MAX: Final = 12


def some(names: Sequence[str]) -> tuple[str, ...]:
    """The first of many, and how many more there are."""
    more = len(names) - EXAMPLES_MAX
    return (*names[:EXAMPLES_MAX], *((f"and {more:,} more",) if more > 0 else ()))
