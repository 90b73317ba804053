"""What the rules found in one batch of rows: refusals, changes and warnings, each as row numbers.

Row numbers are positions within the batch (u32). Findings are sparse: a clean column adds nothing and costs nothing.

Changes and warnings go by the name of the rule that made them. Some come with the canonical form rather than with a
rule of the plan: `line_ends` (CRLF and CR folded to LF), `rounded` (to the field's scale), `boolean_null` (a boolean
without a value is false), `values` (by the value map), `merge` (a value that comes from other copies of the row), and
the warning `ambiguous_time` (a clock time that the zone has twice; the first is taken).
"""

from __future__ import annotations

import polars as pl
from msgspec import Struct, field

EXAMPLES_MAX = 5

# The place of a rule among a column's rules, as RULES.md numbers them.
STEPS: dict[str, int] = {
    "encoding_error": 4,
    "outer_blanks": 5,
    "unmapped": 6,
    "empty": 7,
    "na_text": 8,
    "control_characters": 9,
    "invalid_number": 11,
    "invalid_boolean": 11,
    "invalid_id": 11,
    "invalid_time": 11,
    "invalid_date": 11,
    "division_by_zero": 11,
    "arithmetic": 11,
    "buddhist_era": 12,
    "future_date": 13,
    "negative": 13,
    "number_size": 13,
    "too_long": 14,
    "picklist": 14,
    "empty_required": 15,
    "missing_parent": 16,
}

SENTENCES: dict[str, str] = {
    "null_key": "the key is null or blank",
    "duplicate": "the key occurs more than once in the table",
    "encoding_error": "holds bytes that the declared encoding lacks",
    "outer_blanks": "starts or ends with blanks",
    "unmapped": "the value is not in the value map",
    "empty": "is empty",
    "na_text": "is the literal text #N/A, which Salesforce takes for null",
    "control_characters": "holds control characters",
    "invalid_number": "is not a number",
    "invalid_boolean": "is not a boolean",
    "invalid_id": "is not a Salesforce Id",
    "invalid_time": "is not a time of day",
    "invalid_date": "is not a date that Salesforce can hold (1700-01-01 to 4000-12-31)",
    "division_by_zero": "is divided by zero",
    "arithmetic": "needs more digits than are calculated with (19 before the point)",
    "buddhist_era": "the year lies in 2400 to 2700, as the Buddhist calendar counts",
    "future_date": "lies after the batch's day",
    "negative": "is negative",
    "number_size": "has more integer digits than the field, or than the 15 of a number that serves as key",
    "too_long": "is longer than the field",
    "picklist": "is not among the active values of the restricted picklist",
    "empty_required": "is empty, and the field is required",
    "missing_parent": "the parent is not in the org, or was refused itself",
}

SKIPPED_TIME = "is a clock time that its zone skips, as at the change to summer time"
NO_ZONE = "has no time zone, and the plan names none for it"


class Place(Struct, frozen=True, kw_only=True):
    """Where a finding belongs: the source column (several joined by commas) and its place in the plan."""

    column: str
    number: int


class _Finding(Struct, frozen=True, kw_only=True):
    rule: str
    place: Place
    rows: pl.Series
    sentence: str | None = None


class Findings(Struct):
    """Collects what the rules find in one batch; not safe for several threads."""

    refusals: list[_Finding] = field(default_factory=list)
    changes: list[_Finding] = field(default_factory=list)
    warnings: list[_Finding] = field(default_factory=list)

    def refuse(self, rule: str, place: Place, rows: pl.Series, *, sentence: str | None = None) -> None:
        """Reject these rows by this rule, with a sentence of their own where the rule's would not be true."""
        if rows.len():
            self.refusals.append(_Finding(rule=rule, place=place, rows=rows, sentence=sentence))

    def change(self, rule: str, place: Place, rows: pl.Series) -> None:
        """Note that a rule changed the values of these rows."""
        if rows.len():
            self.changes.append(_Finding(rule=rule, place=place, rows=rows))

    def warn(self, rule: str, place: Place, rows: pl.Series) -> None:
        """Note that a rule doubts these rows and keeps their values."""
        if rows.len():
            self.warnings.append(_Finding(rule=f"warn_{rule}", place=place, rows=rows))

    def refused_by(self, place: Place) -> pl.Series:
        """Rows that a rule of this column rejected, each once."""
        found = [finding.rows for finding in self.refusals if finding.place == place]
        return pl.concat(found).unique() if found else pl.Series(dtype=pl.UInt32)

    def refused(self) -> pl.DataFrame | None:
        """One line per rejected row: `at`, `code`, `fields`, `details`; None if no row is rejected.

        The code is the first reason in the order of RULES.md; all reasons stand in the details, in that order.
        """
        if not self.refusals:
            return None
        reasons = pl.concat(
            finding.rows.to_frame("at").with_columns(
                pl.lit(_order(finding), dtype=pl.Int32).alias("order"),
                pl.lit(f"REJECTED_{finding.rule.upper()}").alias("code"),
                pl.lit(finding.place.column).alias("fields"),
                pl.lit(f"{finding.place.column}: {finding.sentence or SENTENCES[finding.rule]}").alias("details"),
            )
            for finding in self.refusals
        )
        return (
            reasons.unique(["at", "code", "fields"])
            .sort("at", "order", "details")
            .group_by("at", maintain_order=True)
            .agg(
                pl.col("code").first(),
                pl.col("fields").unique(maintain_order=True).str.join(","),
                pl.col("details").str.join("; "),
            )
        )

    def counts(self, refused: pl.Series | None) -> dict[tuple[str, str], int]:
        """Changes and warnings by rule and column, of rows that are not rejected."""
        totals: dict[tuple[str, str], int] = {}
        for finding in [*self.changes, *self.warnings]:
            rows = finding.rows if refused is None else finding.rows.filter(~finding.rows.is_in(refused.implode()))
            count = rows.n_unique()
            if count:
                name = (finding.rule, finding.place.column)
                totals[name] = totals.get(name, 0) + count
        return totals

    def examples(self, refused: pl.Series | None, keys: pl.Series) -> dict[tuple[str, str], tuple[str, ...]]:
        """Up to five keys for each warning, of rows that are not rejected."""
        shown: dict[tuple[str, str], tuple[str, ...]] = {}
        for finding in self.warnings:
            rows = finding.rows if refused is None else finding.rows.filter(~finding.rows.is_in(refused.implode()))
            name = (finding.rule, finding.place.column)
            found = keys.gather(rows.head(EXAMPLES_MAX)).drop_nulls().to_list()
            if found:
                shown[name] = (*shown.get(name, ()), *found)[:EXAMPLES_MAX]
        return shown


def _order(finding: _Finding) -> int:
    if finding.rule == "null_key":
        return -2
    if finding.rule == "duplicate":
        return -1
    return finding.place.number * 32 + STEPS[finding.rule]
