"""What a profile is: findings, statistics of columns and tables, and the whole; plain values, ready for JSON."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct, to_builtins

MASK = "***"
"""Stands for a value of a personal column."""

EXAMPLES_MAX = 5


class Action(StrEnum):
    """What becomes of the rows of a finding."""

    REJECTED = "rejected"  # the plan's rule keeps the row out of the org
    FAILED = "failed"  # sent, and then refused by the link pass, which finds no parent
    DROPPED = "dropped"  # another copy of its key is sent
    CHANGED = "changed"  # the plan's rule changes the value, and counts it
    WARNED = "warned"  # the value is sent as it is, and counted
    KEPT = "kept"  # no rule looks at it: the value is sent as it is
    LINKED = "linked"  # sent by a second pass over the same records
    TOLD = "told"  # concerns the plan, not the rows


OPEN_ACTIONS = frozenset(Action) - {Action.CHANGED, Action.LINKED}
"""A finding with one of these counts for the exit code until a person has accepted it."""


def finding_name(table: str, column: str, kind: str, action: Action) -> str:
    """The name of a finding. A rule may change some values of a column and refuse others: these are two findings."""
    return f"{table}.{column}.{kind}" + (".changed" if action is Action.CHANGED else "")


class Example(Struct, frozen=True, kw_only=True):
    """One row of a finding: its key, None if it has none, and the value, masked where the column is personal."""

    key: str | None
    value: str | None


class Acceptance(Struct, frozen=True, kw_only=True):
    """Who accepted a finding, why, and how many rows it had then; a finding that has grown since is open again."""

    by: str
    reason: str
    rows: int
    at: datetime


class Finding(Struct, frozen=True, kw_only=True):
    """One kind of defect in one column of one table.

    Attributes:
        kind: The rule of the plan that decides it (`too_long`), or a look of the profile's own (`mojibake`).
        column: The source column; several are joined by commas.
        rows: How many rows have it; of a sample, how many rows of the sample.
        decides: Of these, rows that are rejected for this reason before any other.
        what: What is found, in a sentence.
        outcome: What the plan as it stands does with them.
        remedy: What else could be done.
        facts: Further figures, by name.
    """

    table: str
    column: str
    field: str | None
    kind: str
    action: Action
    rows: int
    decides: int
    what: str
    outcome: str
    remedy: str
    examples: tuple[Example, ...] = ()
    facts: tuple[tuple[str, int | str], ...] = ()
    accepted: Acceptance | None = None

    @property
    def name(self) -> str:
        """By which it is accepted: `TABLE.COLUMN.KIND`; of values that are changed, which need no word, one more."""
        return finding_name(self.table, self.column, self.kind, self.action)

    @property
    def is_accepted(self) -> bool:
        """True if a person accepted it with at least as many rows."""
        return self.accepted is not None and self.rows <= self.accepted.rows

    @property
    def is_open(self) -> bool:
        """True if somebody has to decide about it."""
        return self.action in OPEN_ACTIONS and not self.is_accepted


class Bar(Struct, frozen=True, kw_only=True):
    """One bar of a histogram: values from `low` to `high`, and how many."""

    low: str
    high: str
    rows: int


class Histogram(Struct, frozen=True, kw_only=True):
    """How values are spread. `rows` is how many were looked at; `is_sample` if these were not all."""

    bars: tuple[Bar, ...]
    rows: int
    is_sample: bool


class TopValue(Struct, frozen=True, kw_only=True):
    """A frequent value, masked where the column is personal."""

    value: str | None
    rows: int


class ColumnProfile(Struct, frozen=True, kw_only=True):
    """One column in figures.

    Attributes:
        distinct: Different values, nulls apart; about that many unless `distinct_is_exact`. None where the source
            compares no such values (LOBs) and they were not read.
        least, most: As text; None where the column is personal or has no value.
        average: Of numbers.
        shortest, longest, average_length: In characters, of texts.
        top_of: Rows that the most frequent values were counted in: all, or a sample.
    """

    name: str
    declared: str
    kind: str
    field: str | None
    field_type: str | None
    field_length: int | None
    is_personal: bool
    is_classified: bool
    nulls: int
    distinct: int | None
    distinct_is_exact: bool
    least: str | None
    most: str | None
    average: float | None
    shortest: int | None
    longest: int | None
    average_length: float | None
    top: tuple[TopValue, ...]
    top_of: int
    values: Histogram | None
    lengths: Histogram | None


class TableProfile(Struct, frozen=True, kw_only=True):
    """One table in figures, with what was found in it.

    Attributes:
        rows: Rows read; all within the plan's `where`, unless `sample` says otherwise.
        distinct_keys: Exact, as the org compares keys.
        repeated_keys: Keys that occur more than once, as the org compares them.
        copies_equal, copies_by_rule: Rows beyond the first of a key: equal to the letter, and only by the external ID's
            rule (case, outer blanks).
        to_send, rejected, dropped: What the engine would do; their sum is `rows`.
        failed: Of those to send, rows whose lookup the link pass would refuse.
        sample: None, or in a sentence which part was read.
        counted: In a sentence how the figures of the columns were taken.
        rejected_by: Rows by the code that decides.
    """

    table: str
    object: str
    key: tuple[str, ...]
    rows: int
    rows_estimate: int | None
    sample: str | None
    counted: str
    null_keys: int
    distinct_keys: int
    repeated_keys: int
    copies_equal: int
    copies_by_rule: int
    to_send: int
    rejected: int
    dropped: int
    failed: int
    rejected_by: tuple[tuple[str, int], ...]
    columns: tuple[ColumnProfile, ...]
    findings: tuple[Finding, ...]
    fingerprint: str
    seconds: float


class Profile(Struct, frozen=True, kw_only=True):
    """What `profile` found, as it is stored under `profile_id` and cited by others."""

    profile_id: str
    project: str
    plan_sha256: str
    org_id: str
    source_kind: str
    snapshot: str | None
    as_of: datetime
    sample_percent: str | None
    taken_at: datetime
    taken_by: str
    tables: tuple[TableProfile, ...]
    circles: tuple[str, ...] = ()

    @property
    def findings(self) -> list[Finding]:
        """All findings of all tables."""
        return [finding for table in self.tables for finding in table.findings]

    @property
    def open_findings(self) -> list[Finding]:
        """Those that somebody has to decide about."""
        return [finding for finding in self.findings if finding.is_open]

    def document(self) -> dict[str, Any]:
        """The JSON document of `--json`."""
        found = _plain(to_builtins(self, builtin_types=(datetime,)))
        for table, shown in zip(self.tables, found["tables"], strict=True):
            for finding, one in zip(table.findings, shown["findings"], strict=True):
                one |= {"name": finding.name, "is_open": finding.is_open, "facts": dict(finding.facts)}
            shown["rejected_by"] = dict(table.rejected_by)
        counts = {
            "tables": len(self.tables),
            "rows": sum(table.rows for table in self.tables),
            "rejected": sum(table.rejected for table in self.tables),
            "dropped": sum(table.dropped for table in self.tables),
            "failed": sum(table.failed for table in self.tables),
            "findings": len(self.findings),
            "open_findings": len(self.open_findings),
        }
        return {**found, "totals": counts}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, StrEnum) else value
