"""What a validation finds: one check after the other, each with a word for how it went. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_DOWN, ROUND_UP, Decimal, localcontext
from enum import StrEnum
from typing import Any

from msgspec import Struct, field

LEVELS = (1, 2, 3, 4, 5)
DIGITS = 60
LEVEL_NAMES = {1: "counts", 2: "aggregates", 3: "samples", 4: "business rules", 5: "proof"}


class CheckStatus(StrEnum):
    """How a check went. What could not be looked at is never `passed`.

    Attributes:
        DRIFT: The source's rows have changed since they were sent, so that this cannot be told; nothing else was found.
    """

    PASSED = "passed"
    FAILED = "failed"
    DRIFT = "drift"
    NOT_CHECKED = "not_checked"


class Kind(StrEnum):
    """What is wrong with a record."""

    MISSING = "missing"  # the org accepted it, and does not have it any more
    EXTRA = "extra"  # it has a key, came after the batch began, and no ledger knows it
    NOT_UNDONE = "not_undone"  # the ledger says that it was rolled back
    DIFFERS = "differs"


class Difference(Struct, frozen=True, kw_only=True):
    """One field of one record, or a whole record.

    Attributes:
        field: The target field as the plan spells it; None for a whole record, or where it could not be told.
        source, target: Canonical texts as they were sent and as the org has them; None for no value. Personal ones are
            masked.
        note: What else is known, such as when the record was last changed.
    """

    kind: Kind
    key: str | None
    record_id: str | None
    chunk: int | None = None
    field: str | None = None
    source: str | None = None
    target: str | None = None
    note: str | None = None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "kind": self.kind.value,
            "key": self.key,
            "id": self.record_id,
            "chunk": self.chunk,
            "field": self.field,
            "source": self.source,
            "target": self.target,
            "note": self.note,
        }


class Check(Struct, frozen=True, kw_only=True):
    """One comparison. Values are texts as people read them: whole numbers, decimals, checksums.

    Attributes:
        chunk: The chunk it is about; None for a whole table.
        reason: Why it is not `passed`, or what it does not cover; never a row's value.
    """

    level: int
    table: str
    name: str
    status: CheckStatus
    source: str | None = None
    target: str | None = None
    difference: str | None = None
    chunk: int | None = None
    reason: str | None = None
    examples: tuple[Difference, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON, and as the audit database keeps it."""
        return {
            "level": self.level,
            "table": self.table,
            "chunk": self.chunk,
            "check": self.name,
            "status": self.status.value,
            "source": self.source,
            "target": self.target,
            "difference": self.difference,
            "reason": self.reason,
            "examples": [one.document() for one in self.examples],
        }


class Cost(Struct, frozen=True, kw_only=True):
    """What a level asks of the org, told before it begins. Numbers are estimates, never less than what is likely."""

    level: int
    table: str
    api_calls: int
    query_jobs: int = 0
    rows: int = 0
    result_mb: int = 0

    def sentence(self) -> str:
        """For a person who may still stop it."""
        jobs = f", {self.query_jobs} of the day's 10,000 bulk query jobs" if self.query_jobs else ""
        size = f", about {self.result_mb:,} MB of results" if self.result_mb else ""
        return f"level {self.level} of `{self.table}`: about {self.api_calls:,} API calls{jobs}{size}"


class Found(Struct, kw_only=True):
    """All checks of one validation."""

    checks: list[Check] = field(default_factory=list)

    def count(self, status: CheckStatus) -> int:
        """Checks with that word."""
        return sum(check.status is status for check in self.checks)

    @property
    def has_difference(self) -> bool:
        """Whether any check failed."""
        return self.count(CheckStatus.FAILED) > 0

    @property
    def is_whole(self) -> bool:
        """Whether everything that was asked for could be told: each check passed or failed."""
        return all(check.status in (CheckStatus.PASSED, CheckStatus.FAILED) for check in self.checks)


def percent(part: int | Decimal, whole: int | Decimal) -> str:
    """A share with four decimals that never rounds up to 100 nor down to 0: 99.99999 % is shown as 99.9999 %."""
    if not whole:
        return "-"
    share = Decimal(part) * 100 / Decimal(whole)
    exact = share.quantize(Decimal("0.0001"), rounding=ROUND_DOWN if share < 100 else ROUND_UP)
    if exact == 0 and share > 0:
        return "0.0001"
    return f"{exact.normalize():f}"


def minus(one: Decimal, other: Decimal) -> Decimal:
    """The exact difference: the usual 28 digits are fewer than a total may have."""
    with localcontext(prec=DIGITS):
        return one - other


def plain(value: Decimal) -> str:
    """A decimal without exponent and without zeros at its end."""
    text = f"{value:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def worst(statuses: Sequence[CheckStatus]) -> CheckStatus:
    """The word for several checks together: failed, then not_checked, then drift, then passed."""
    order = (CheckStatus.FAILED, CheckStatus.NOT_CHECKED, CheckStatus.DRIFT, CheckStatus.PASSED)
    return next((status for status in order if status in statuses), CheckStatus.NOT_CHECKED)
