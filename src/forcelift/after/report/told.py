"""What all forms of the report say in the same words: verdicts, rates, rows of tables, the headline. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from forcelift.after.report.content import Content
from forcelift.after.report.curves import Curves
from forcelift.after.report.figures import Issue, Performance, ReportFigures, ReportStatus, TableFigures
from forcelift.after.report.steps import Step
from forcelift.after.report.words import Language, Words
from forcelift.after.validate.checks import percent
from forcelift.rules.remedies import PREFIX

KINDS: Final = {
    ReportStatus.SUCCESS: "good",
    ReportStatus.PARTIAL: "warn",
    ReportStatus.FAILED: "bad",
    ReportStatus.PASS: "good",
    ReportStatus.FAIL: "bad",
    ReportStatus.DRIFT: "warn",
    ReportStatus.OPEN: "told",
}
"""How a verdict is coloured."""

_WORDS: Final = {
    ReportStatus.SUCCESS: "success_word",
    ReportStatus.PARTIAL: "partial_word",
    ReportStatus.FAILED: "failed_word",
    ReportStatus.PASS: "pass_word",
    ReportStatus.FAIL: "fail_word",
    ReportStatus.DRIFT: "drift_word",
    ReportStatus.OPEN: "open_word",
}
CHECK_KINDS: Final = {"passed": "good", "failed": "bad", "drift": "warn", "not_checked": "told"}
"""How a single check is coloured, by its status."""

OPEN_CHUNKS: Final = "note_open_chunks"
"""The remark of a batch that has not ended."""

CODES_SHOWN: Final = 10
CHECKS_SHOWN: Final = 400
"""Lines of the validation in full; a batch of many tables has thousands of checks."""


class Line(Struct, frozen=True, kw_only=True):
    """A bar with a word before it and one behind: its parts by class, amount and title, and what is a whole bar."""

    name: str
    parts: tuple[tuple[str, float, str], ...]
    whole: float
    told: str


def verdict(status: ReportStatus, words: Words) -> str:
    """The word of a verdict; in Thai the checklist's own word stands beside it."""
    word = words(_WORDS[status])
    if words.language is Language.ENGLISH:
        return word
    return f"{word} ({Words()(_WORDS[status])})"


def rate(one: TableFigures) -> str:
    """Success of source in percent, never rounded up to a hundred."""
    return f"{percent(one.success, one.source)}%" if one.source else "-"


def days(report: ReportFigures, words: Words) -> str:
    """From when to when."""
    began = report.performance.began_at or report.batch.started_at
    ended = report.performance.ended_at or report.batch.ended_at or report.made_at
    return words("date_range", began=words.date(began), ended=words.date(ended))


def headline(content: Content, words: Words) -> str:
    """What became of the rows, in one or two sentences."""
    report, total = content.figures, content.figures.total
    parts = [words("headline", target=total.target, source=total.source)]
    if total.failed:
        parts.append(words("headline_failed", failed=total.failed))
    else:
        parts.append(words("headline_clean"))
    if any(one.key == OPEN_CHUNKS for one in content.remarks):
        parts.append(words("headline_open"))
    if fixed := sum(issue.fixed for issue in report.issues):
        parts.append(words("headline_fixed", fixed=fixed))
    if total.duplicate:
        parts.append(words("headline_duplicates", rows=total.duplicate))
    return " ".join(parts)


def remarks(content: Content, words: Words) -> list[str]:
    """What is to be said of the batch as a whole."""
    return [
        *(words.told(one) for one in content.figures.notes),
        *(words(one.key, **one.figures) for one in content.remarks),
        *_stopped(content, words),
    ]


def _stopped(content: Content, words: Words) -> list[str]:
    """That no process was at work for some of the time that duration and average have in them."""
    seconds = sum(one.seconds for one in content.steps.shares if one.step is Step.STOPPED)
    if seconds < 1:
        return []
    return [words("note_stopped", time=seconds_text(seconds, words))]


def cause(issue: Issue, words: Words) -> str:
    """Why the rows failed: a person's words, a rule's, or the org's."""
    return words.told(issue.cause)


def resolution(issue: Issue, words: Words) -> str:
    """What was done; while nothing was, what to do."""
    if issue.notes:
        return "; ".join(issue.notes)
    remedy = words.remedy(issue.group.code, issue.remedy)
    return words("resolution_open", remedy=remedy) if issue.fixed < issue.group.rows else remedy


def metrics(content: Content, words: Words) -> list[tuple[str, str]]:
    """The template's four figures of performance."""
    figures = content.figures.performance
    return [
        (words("duration"), words.duration(figures.seconds)),
        (words("average"), words("per_second", rows=f"{figures.average:,.0f}")),
        (words("peak"), words("per_second", rows=f"{figures.peak:,.0f}")),
        (words("api_calls"), calls_text(figures, words)),
    ]


def calls_text(figures: Performance, words: Words) -> str:
    """API calls, and whether there were more that nobody could tell of."""
    return words("at_least", n=figures.api_calls) if figures.is_at_least else f"{figures.api_calls:,}"


def bottleneck(content: Content, words: Words) -> str | None:
    """The step that took the most time; None if that is not known."""
    most = content.steps.bottleneck
    if most is None:
        return None
    share = most.seconds / content.steps.total
    return words(
        "bottleneck_line",
        step=words(f"step_{most.step}"),
        seconds=seconds_text(most.seconds, words),
        percent=f"{share * 100:.0f}",
    )


def seconds_text(seconds: float, words: Words) -> str:
    """A length of time; tenths below a minute."""
    return words("seconds_n", n=f"{seconds:,.1f}") if seconds < 60 else words.duration(seconds)


def step_rows(content: Content, words: Words) -> list[tuple[str, str, str, str, str]]:
    """Of each step: its name in the code, its word, seconds, share, and seconds of all chunks."""
    whole = content.steps.total
    return [
        (
            one.step.value,
            words(f"step_{one.step}"),
            f"{one.seconds:,.1f}",
            f"{one.seconds / whole * 100:.1f} %" if whole else "-",
            f"{one.chunk_seconds:,.1f}",
        )
        for one in content.steps.shares
    ]


def times(curves: Curves, words: Words) -> Sequence[str]:
    """When the plots over time begin, are half way, and end: hours, or days where it took longer than two."""
    middle = curves.began + (curves.ended - curves.began) / 2
    whole = (curves.ended - curves.began).total_seconds()
    if whole > 48 * 3600:
        return [words.date(one) for one in (curves.began, middle, curves.ended)]
    form = "%H:%M:%S" if whole < 3600 else "%H:%M"
    return [f"{one:{form}}" for one in (curves.began, middle, curves.ended)]


def counts(one: TableFigures) -> tuple[str, ...]:
    """Source, target, success and failed."""
    return tuple(f"{number:,}" for number in (one.source, one.target, one.success, one.failed))


def fates(one: TableFigures) -> list[tuple[str, str, int]]:
    """What became of a table's rows: class, key of its word, rows."""
    return [
        ("good", "in_salesforce", one.target),
        ("told", "taken_back", one.rolled_back),
        ("copy", "duplicate", one.duplicate),
        ("warn", "rejected", one.rejected),
        ("bad", "refused", one.refused),
    ]


def tiles(content: Content, words: Words) -> list[tuple[str, str]]:
    """The figures that are seen first, each with its word."""
    report, total = content.figures, content.figures.total
    speed = report.performance
    return [
        (f"{total.source:,}", words("rows_read")),
        (rate(total), words("rate_tile")),
        (f"{total.failed:,}", words("failed_tile")),
        (words.duration(speed.seconds), words("duration_tile")),
        (f"{speed.average:,.0f}", words("average_tile")),
        (calls_text(speed, words), words("calls_tile")),
    ]


def check_word(status: str, words: Words) -> str:
    """How a single check went."""
    return words("checks_open" if status == "not_checked" else f"checks_{status}")


def value_text(value: object) -> str:
    """What a check compared: whole numbers with separators."""
    text = "-" if value is None else str(value)
    return f"{int(text):,}" if text.isascii() and text.isdigit() and len(text) < 19 else text


def level_lines(content: Content, words: Words) -> list[Line]:
    """Of each level, how its checks went."""
    lines = []
    for one in content.figures.reconciled:
        found = Counter(str(check.details["status"]) for check in content.figures.checks if check.level == one.level)
        whole = sum(found.values())
        order = ("passed", "drift", "not_checked", "failed")
        parts = tuple(
            (CHECK_KINDS[status], float(found[status]), f"{check_word(status, words)}: {found[status]:,}")
            for status in order
        )
        told = words("checks_count", passed=found["passed"], checks=whole)
        lines.append(Line(name=words(f"level_{one.level}"), parts=parts, whole=whole, told=told))
    return lines


def code_lines(content: Content, words: Words) -> list[Line]:
    """Rows that failed by code, the most first, with those that were fixed."""
    failed: Counter[str] = Counter()
    fixed: Counter[str] = Counter()
    for issue in content.figures.issues:
        failed[issue.group.code] += issue.group.rows
        fixed[issue.group.code] += issue.fixed
    most = max(failed.values(), default=0)
    lines = []
    for code, rows in failed.most_common(CODES_SHOWN):
        done = min(rows, fixed[code])
        kind = "warn" if code.startswith(PREFIX) else "bad"
        origin = words("rejected" if kind == "warn" else "refused")
        state = words("all_fixed" if done == rows else "still_open" if done else "none_fixed", rows=rows - done)
        parts = (("good", float(done), f"{words('fixed')}: {done:,}"), (kind, float(rows - done), origin))
        lines.append(Line(name=code, parts=parts, whole=most, told=f"{rows:,} · {state}"))
    return lines


def quota_lines(content: Content, words: Words) -> list[Line]:
    """What was used of the org's rolling day."""
    use = content.quota
    if use is None:
        return []
    return [
        Line(
            name=words(key),
            parts=(("bar", float(used), f"{used:,}"),),
            whole=allowed,
            told=words("quota_of", used=used, allowed=allowed, percent=use.share(used, allowed)),
        )
        for key, used, allowed in (
            ("quota_rows", use.rows, use.rows_allowed),
            ("quota_batches", use.batches, use.batches_allowed),
        )
    ]
